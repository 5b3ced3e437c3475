//! Streams over MySQL and MariaDB: each change is in the topic once, in order, with rows of another table that are never older than it,
//! whatever becomes of the process on the way.

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts};
use serde_json::Value as Json;
use tributary_transport::{Kafka, KafkaSettings, Transport};

use crate::client;
use crate::world::topics::records;
use crate::world::{Own, Pair, World};

/// Rows of the table.
const ROWS: u64 = 20;

/// Keys of the other table.
const STUDIOS: [&str; 5] = ["Ä0", "b1", "C2", "d3", "É4"];

/// How long everything may take to come through.
const PATIENCE: Duration = Duration::from_secs(240);
/// What a pipeline says of a database and the topic that its stream writes.
const STREAM: &str = r#"
sources:
  SOURCE:
    KIND: { url: "URL", tables: [DATABASE.movie, DATABASE.studio] }
tables:
  studios: { from: DATABASE.studio, value: [id, name] }
  kept: { from: DATABASE.studio, value: name, keep: disk }
streams:
  even:
    from: DATABASE.movie
    ops: [u]
    steps:
      - changed: [votes]
      - filter: mod!(int!(.after.votes), 2) == 0
      - lookup: { table: studios, key: .after.studio_id, into: .studio, wait: position }
      - lookup: { table: kept, key: .after.studio_id, into: .kept, wait: position }
      - transform: |
          . = {
            "id": .after.id, "votes": .after.votes, "headline": string!(.after.title) + "!", "studio": .studio.name, "kept": .kept.name
          }
    to:
      - topic: { name: OUT, key: .id }
"#;

/// So many answers in turn say that nothing is to be done.
const QUIET: u32 = 30;

/// The lag of the stream's reader, and the changes that the process has captured.
async fn progress(address: &str) -> Option<(f64, f64)> {
    let metrics = client::text(address, "/metrics").await?;
    let sum = |name: &str| -> Option<f64> {
        let lines: Vec<&str> = metrics.lines().filter(|line| line.starts_with(name)).collect();
        let sum = lines.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (!lines.is_empty()).then_some(sum)
    };
    Some((sum("tributary_stage_lag_records{stage=\"reader of stream")?, sum("tributary_connector_events_total")?))
}

async fn killed(kind: &str, variable: &str, pair: Pair) {
    let Ok(server) = std::env::var(variable) else {
        eprintln!("NOT TESTED: {variable} is not set");
        return;
    };
    let mut world = World::new("mysql", pair, Own::default()).await;
    // Its own, for brokers are shared.
    let source = format!("{kind}-{}", world.name);
    let (database, out) = (format!("{kind}_{}", world.name.replace('-', "_")), format!("out-{}", world.name));
    let mut sql = Conn::new(Opts::from_url(&server).expect("a URL")).await.expect("connects");
    for statement in [
        format!("create database {database} character set utf8mb4"),
        format!("use {database}"),
        "create table movie (id int primary key, title varchar(80), votes int, studio_id varchar(20))".to_owned(),
        // No name is like another one to its collation, and most are as the first capture finds them.
        "create table studio (id varchar(20) character set latin1 collate latin1_swedish_ci primary key, name varchar(80))".to_owned(),
        "insert into studio values ('Ä0', 'old'), ('b1', 'old'), ('C2', 'old'), ('d3', 'old'), ('É4', 'old')".to_owned(),
    ] {
        sql.query_drop(statement).await.expect("a table");
    }
    let rows: Vec<String> =
        (1..=ROWS).map(|id| format!("({id}, 'Höhle {id}', 1, '{}')", STUDIOS[id as usize % STUDIOS.len()])).collect();
    sql.query_drop(format!("insert into movie values {}", rows.join(","))).await.expect("rows");
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let (head, tail) =
        (text.split_once("\nsources:").expect("sources").0, text.split_once("\nhttp:").expect("a listener").1);
    let stream = STREAM
        .replace("SOURCE", &source)
        .replace("KIND", kind)
        .replace("URL", &server)
        .replace("DATABASE", &database)
        .replace("OUT", &out);
    std::fs::write(world.pipeline(), format!("{head}\n{stream}\nhttp:{tail}")).expect("the pipeline");

    world.start();
    world.until("it captures", async |address| progress(address).await.is_some()).await;
    let mut expected: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let began = Instant::now();
    let mut votes = 1;
    for round in 0..4 {
        for i in 0..150 {
            votes += 1;
            let id = 1 + (votes * 7) % ROWS;
            let studio = id as usize % STUDIOS.len();
            if studio > 0 && votes % 3 == 0 {
                let renamed = format!("update studio set name = '{votes}' where id = '{}'", STUDIOS[studio]);
                sql.query_drop(renamed).await.expect("updated");
            }
            sql.query_drop(format!("update movie set votes = {votes} where id = {id}")).await.expect("updated");
            if votes % 2 == 0 {
                expected.entry(id).or_default().push(votes);
            }
            if round < 3 && i == 75 {
                world.kill_process(0);
                world.start();
            }
            if round == 1 && i == 100 {
                sql.query_drop("alter table movie add released date after id").await.expect("altered");
            }
        }
    }
    // The last of a process's events may be on their way, or not be captured yet, when it has nothing to do for a moment. So it is asked until
    // all are there, and has time to begin each time.
    let wanted: usize = expected.values().map(Vec::len).sum();
    let transport = loop {
        let quiet = Cell::new(0);
        let idle = async |address: &str| {
            let is_quiet = progress(address).await.is_some_and(|(lag, _)| lag == 0.0);
            quiet.set(if is_quiet { quiet.get() + 1 } else { 0 });
            quiet.get() >= QUIET
        };
        world.until("everything has come through", idle).await;
        world.stop_process(0).await;
        let transport = world.transport(pair);
        if records(transport.as_ref(), &out).await.iter().map(Vec::len).sum::<usize>() >= wanted {
            break transport;
        }
        drop(transport);
        assert!(began.elapsed() < PATIENCE, "not everything has come through:\n{}", world.log());
        world.start();
    };
    let mut made: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for record in records(transport.as_ref(), &out).await.iter().flatten() {
        let json: Json = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
        let id = json["id"].as_u64().expect("an id");
        assert_eq!(json["headline"], format!("Höhle {id}!"));
        let votes = json["votes"].as_u64().expect("votes");
        for table in ["studio", "kept"] {
            let name = json[table].as_str().expect("a row that was there before the capture");
            let named: u64 = name.parse().unwrap_or(0);
            match id as usize % STUDIOS.len() {
                0 => assert_eq!(name, "old"),
                _ if votes.is_multiple_of(3) => assert!(named >= votes, "{table} of {votes} is older: {name}"),
                _ => {}
            }
        }
        made.entry(id).or_default().push(votes);
    }
    assert_eq!(made, expected);
    assert_each_change_once(transport.as_ref(), &format!("{source}.{database}.movie"), 600).await;
    if pair != Pair::Embedded {
        without_its_checkpoint(&mut world, &mut sql, &format!("{source}.{database}.movie")).await;
    }
    sql.query_drop(format!("drop database {database}")).await.expect("dropped");
}

/// No change is in the topic twice for those who read what was committed.
async fn assert_each_change_once(transport: &dyn Transport, topic: &str, changes: usize) {
    let mut seen = HashSet::new();
    for value in records(transport, topic).await.iter().flatten().filter_map(|record| record.value.as_deref()) {
        let event: Json = serde_json::from_slice(value).expect("JSON");
        let place = (event["transaction"]["id"].to_string(), event["transaction"]["total_order"].as_u64());
        assert!(seen.insert(place), "twice: {event}");
    }
    assert_eq!(seen.len(), changes);
}

/// What the source knows of itself is deleted, and not what it published: it says what is lacking, and goes on.
async fn without_its_checkpoint(world: &mut World, sql: &mut Conn, topic: &str) {
    let kafka = Kafka::connect(KafkaSettings::single_broker(world.brokers())).expect("settings");
    kafka.delete_topic(&format!("{}.checkpoints", world.index())).await.expect("deleted");
    sql.query_drop("update movie set votes = -1 where id = 1").await.expect("updated");
    world.start();
    world.until("it captures", async |address| progress(address).await.is_some()).await;
    assert!(world.said("there is no checkpoint of the source") > 0, "{}", world.log());
    sql.query_drop("update movie set votes = -2 where id = 1").await.expect("updated");
    let votes = async || -> Vec<i64> {
        let event = |value: &[u8]| serde_json::from_slice::<Json>(value).expect("JSON")["after"]["votes"].as_i64();
        let records = records(&kafka, topic).await;
        records
            .iter()
            .flatten()
            .filter_map(|record| event(record.value.as_deref()?))
            .filter(|votes| *votes < 0)
            .collect()
    };
    world.until("it goes on", async |_: &str| votes().await == [-2]).await;
    world.stop_process(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_mysql_survives_kills() {
    killed("mysql", "TRIBUTARY_TEST_MYSQL", Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_mariadb_survives_kills() {
    killed("mariadb", "TRIBUTARY_TEST_MARIADB", Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_through_kafka_survives_kills() {
    killed("mysql", "TRIBUTARY_TEST_MYSQL", Pair::KafkaElasticsearch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_through_kafka_survives_kills() {
    killed("mariadb", "TRIBUTARY_TEST_MARIADB", Pair::KafkaElasticsearch).await;
}
