//! Streams: each event that passes is in the topic once, in order, whatever becomes of the processes on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use tributary_transport::Polled;

use crate::client;
use crate::world::topics::records;
use crate::world::{MOVIES, Own, Pair, World};

fn json(record: &Polled) -> Option<Json> {
    serde_json::from_slice(record.value.as_deref()?).ok()
}

const STREAM: &str = r#"
streams:
  even:
    from: public.movie
    ops: [u]
    start: first
    steps:
      - filter: mod!(int!(.after.imdb_votes), 2) == 0
      - transform: |
          . = { "id": .after.id, "sequence": .sequence, "headline": string!(.after.title) + "!" }
    to:
      - topic: { name: OUT, key: .id }
      - topic: { name: OUT.raw }
  loud:
    from: { stream: even }
    steps:
      - transform: .headline = upcase!(.headline)
    to:
      - topic: { name: OUT.loud }
"#;

/// By id, what the stream is to make of the table's topic, in order: numbers and headlines.
fn expected(events: &[Vec<Polled>]) -> BTreeMap<i64, Vec<(u64, String)>> {
    let mut expected: BTreeMap<i64, Vec<(u64, String)>> = BTreeMap::new();
    for event in events.iter().flatten().filter_map(json) {
        let after = &event["after"];
        if event["op"] == "u" && after["imdb_votes"].as_i64().is_some_and(|votes| votes % 2 == 0) {
            let headline = format!("{}!", after["title"].as_str().unwrap_or_default());
            let made = (event["sequence"].as_u64().expect("a number"), headline);
            expected.entry(after["id"].as_i64().expect("an id")).or_default().push(made);
        }
    }
    expected
}

fn made(records: &[Vec<Polled>]) -> BTreeMap<i64, Vec<(u64, String)>> {
    let mut made: BTreeMap<i64, Vec<(u64, String)>> = BTreeMap::new();
    for record in records.iter().flatten() {
        let json = json(record).expect("JSON");
        let id = json["id"].as_i64().expect("an id");
        assert_eq!(record.key.as_deref(), Some(id.to_string().as_bytes()));
        let headline = json["headline"].as_str().expect("a headline").to_owned();
        made.entry(id).or_default().push((json["sequence"].as_u64().expect("a number"), headline));
    }
    made
}

/// Gives the pipeline the streams and takes its graph away: streams alone.
fn define(world: &World, out: &str) {
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let head = text.split_once("\ngraph:").expect("a graph").0;
    let tail = text.split_once("\nhttp:").expect("a listener").1;
    let text = format!("{head}\n{}\nhttp:{tail}", STREAM.replace("OUT", out));
    std::fs::write(world.pipeline(), text).expect("the pipeline");
}

/// Updates, a dozen times among them something happens: the number of the time, and how many processes there are.
async fn disturbed(pair: Pair, processes: usize, disturb: impl AsyncFn(&mut World, usize, usize)) {
    let mut world = World::new("streams", pair, Own::default()).await;
    // A machine that stands still for as long as a transaction may last lets another process take over.
    world.supervised = true;
    let out = format!("out-{}", world.name);
    define(&world, &out);
    for process in 0..processes {
        world.start_process(process);
    }
    world.until_captured().await;
    for round in 0..4_u64 {
        for i in 0..300_u64 {
            let id = 1 + (round * 7 + i * 17) % 50;
            let sql = format!("UPDATE movie SET title = 'R{round}-{i}', imdb_votes = {i} WHERE id = {id}");
            world.execute(&sql).await;
            if i % 100 == 50 {
                world.start_replaced();
                disturb(&mut world, (round * 3 + i / 100) as usize, processes).await;
            }
        }
    }
    complete(world, pair, processes, &out).await;
}

/// Waits until all that was captured has come through, and looks at it.
async fn complete(mut world: World, pair: Pair, processes: usize, out: &str) {
    let places = [out.to_owned(), format!("{out}.raw"), format!("{out}.loud")];
    // All that was captured has been done: the streams' readers have nothing left.
    let idle = async |address: &str| {
        let metrics = client::text(address, "/metrics").await.unwrap_or_default();
        let lags =
            metrics.lines().filter(|line| line.starts_with("tributary_stage_lag_records{stage=\"reader of stream"));
        let lags: Vec<f64> = lags.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        !lags.is_empty() && lags.iter().all(|lag| *lag == 0.0)
    };
    world.until_captured().await;
    match pair {
        Pair::Embedded => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            world.until("the stream has nothing left", idle).await;
        }
        // A process that was killed keeps its partitions for a while, and nobody measures those.
        _ => {
            let (transport, table) = (world.transport(pair), world.topic("public.movie"));
            let complete = async |_: &str| {
                let to_come = expected(&records(transport.as_ref(), &table).await).values().map(Vec::len).sum();
                for place in &places {
                    if records(transport.as_ref(), place).await.iter().map(Vec::len).sum::<usize>() < to_come {
                        return false;
                    }
                }
                true
            };
            world.until("everything has come through", complete).await;
        }
    }
    for process in 0..processes {
        world.stop_process(process).await;
    }
    assert_each_once(&world, pair, out).await;
}

/// Every process is killed in turn.
async fn killed(pair: Pair, processes: usize) {
    let kill = async |world: &mut World, number: usize, processes: usize| {
        let process = number % processes;
        world.kill_process(process);
        world.start_process(process);
    };
    disturbed(pair, processes, kill).await;
}

/// The table is altered, the pipeline's file is written anew and taken in both ways, and with several processes one stands still for so long that
/// another one takes its partitions, and goes on in the middle of what it did.
async fn changed_under_way(pair: Pair, processes: usize) {
    let change = async |world: &mut World, number: usize, processes: usize| match number % 4 {
        0 => {
            world.execute(&format!("ALTER TABLE movie ADD COLUMN added_{number} text DEFAULT 'x'")).await;
            if number == 8 {
                world.execute("ALTER TABLE movie RENAME COLUMN added_0 TO renamed").await;
                world.execute("ALTER TABLE movie DROP COLUMN added_4").await;
            }
        }
        1 => {
            // Another text of the same meaning, so that streams begin anew.
            let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
            let (head, behind) = text.split_once(", 2) == 0").expect("the filter");
            let tail = behind.split_once('\n').expect("another line").1;
            let text = format!("{head}, 2) == 0 && {number} > 0\n{tail}");
            std::fs::write(world.pipeline(), text).expect("the pipeline");
            world.until_all_listen().await;
            world.hang_up(0);
            if processes > 1 {
                let pipeline = world.pipeline().to_str().expect("a path").to_owned();
                let (code, said, error) = world.run(&["reload", &pipeline]).await;
                assert_eq!((code, error.as_str()), (0, ""), "{said}\n{}", world.log());
                world.hang_up(1);
            }
        }
        2 if processes > 1 => {
            world.pause_process(1);
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
        3 if processes > 1 => world.resume_process(1),
        _ => world.execute("ALTER TABLE movie ALTER COLUMN imdb_votes TYPE bigint").await,
    };
    disturbed(pair, processes, change).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_under_way_embedded() {
    changed_under_way(Pair::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_under_way_kafka() {
    changed_under_way(Pair::KafkaElasticsearch, 2).await;
}

/// Each event that passes is in every topic of the streams once, in order. The pipeline is over.
async fn assert_each_once(world: &World, pair: Pair, out: &str) {
    let loud = format!("{out}.loud");
    let transport = world.transport(pair);
    let events = records(transport.as_ref(), &world.topic("public.movie")).await;
    let expected = expected(&events);
    assert!(expected.values().map(Vec::len).sum::<usize>() > 500, "{}", expected.len());
    assert_eq!(made(&records(transport.as_ref(), out).await), expected);
    let upper = |made: Vec<(u64, String)>| made.into_iter().map(|(n, headline)| (n, headline.to_uppercase())).collect();
    let loudly: BTreeMap<i64, Vec<(u64, String)>> =
        expected.iter().map(|(id, made)| (*id, upper(made.clone()))).collect();
    let heard = records(transport.as_ref(), &loud).await;
    let of_record = |record: &Polled| {
        let json = json(record).expect("JSON");
        (
            json["id"].as_i64().expect("an id"),
            json["sequence"].as_u64().expect("a number"),
            json["headline"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let mut heard_by: BTreeMap<i64, Vec<(u64, String)>> = BTreeMap::new();
    heard
        .iter()
        .flatten()
        .map(of_record)
        .for_each(|(id, n, headline)| heard_by.entry(id).or_default().push((n, headline)));
    assert_eq!(heard_by, loudly);
    let raw = records(transport.as_ref(), &format!("{out}.raw")).await;
    let raw: usize = raw.iter().map(Vec::len).sum();
    assert_eq!(raw, expected.values().map(Vec::len).sum::<usize>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_embedded() {
    killed(Pair::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_kafka() {
    killed(Pair::KafkaElasticsearch, 2).await;
}

/// The embedded log cannot grow: the streams wait with everything else, and each event is there once when there is room, also for a process
/// that was killed on the full disk. The limit on the size of files stands in for it: the system refuses the write just the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full() {
    let mut world = World::new("streams-full", Pair::Embedded, Own::default()).await;
    let out = format!("out-{}", world.name);
    define(&world, &out);
    world.start();
    world.until_captured().await;
    let update = async |world: &World, round: u32| {
        // Random text, which does not compress, for the log to grow.
        let text = "(SELECT string_agg(md5(random()::text || g), '') FROM generate_series(1, 20 + movie.id * 0) g)";
        let set = format!("title = {text}, imdb_votes = {round} + id % 2");
        world.execute(&format!("UPDATE movie SET {set} WHERE id % 7 = {}", round % 7)).await;
    };
    let is_full = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        let says = |part: &Json| part["why"].as_str().is_some_and(|why| why.contains("is full"));
        health["parts"].as_object().is_some_and(|parts| parts.values().any(says))
    };
    let mut round = 0;
    for is_killed in [false, true] {
        let log = std::fs::metadata(world.data().join("log/log.redb")).expect("the log").len();
        world.limit_files(Some(log));
        loop {
            let address = world.address().expect("it runs");
            if is_full(&address).await {
                break;
            }
            round += 1;
            assert!(round < 1_000, "the log never grew:\n{}", world.log());
            update(&world, round).await;
        }
        if is_killed {
            world.kill();
            world.start();
        } else {
            world.limit_files(None);
        }
        world.until_captured().await;
    }
    let idle = async |address: &str| {
        let metrics = client::text(address, "/metrics").await.unwrap_or_default();
        let lags =
            metrics.lines().filter(|line| line.starts_with("tributary_stage_lag_records{stage=\"reader of stream"));
        let lags: Vec<f64> = lags.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        lags.len() == 2 && lags.iter().all(|lag| *lag == 0.0)
    };
    // A lag is that of a moment ago, and the log cannot be read while it runs: until everything has come through.
    for _ in 0..20 {
        world.until("the streams have nothing left", idle).await;
        world.stop_process(0).await;
        let transport = world.transport(Pair::Embedded);
        let events = records(transport.as_ref(), &world.topic("public.movie")).await;
        let to_come = expected(&events).values().map(Vec::len).sum::<usize>();
        if records(transport.as_ref(), &format!("{out}.loud")).await.iter().map(Vec::len).sum::<usize>() >= to_come {
            break;
        }
        drop(transport);
        world.start();
    }
    assert_each_once(&world, Pair::Embedded, &out).await;
}

/// An event that a program cannot take stops its stream, and nothing else; a program that can take it goes on with that event.
async fn a_poisonous_event(pair: Pair) {
    let mut world = World::new("poison", pair, Own::default()).await;
    let [numbers, whole] = ["numbers", "whole"].map(|name| format!("{name}-{}", world.name));
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let picky = format!(
        "
streams:
  picky:
    from: public.movie
    start: first
    steps: [{{ transform: .number = to_int!(.after.title) }}]
    to: [{{ topic: {{ name: {numbers} }} }}]
  whole:
    from: public.movie
    start: first
    to: [{{ topic: {{ name: {whole} }} }}]
"
    );
    std::fs::write(world.pipeline(), format!("{text}{picky}")).expect("the pipeline");
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = '7' WHERE id = 1").await;
    world.execute("UPDATE movie SET title = 'seven' WHERE id = 1").await;
    world.execute("UPDATE movie SET title = '8' WHERE id = 1").await;
    let stands = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        let (picky, whole) = (&health["parts"]["stream picky"], &health["parts"]["stream whole"]);
        let why = picky["why"].as_str().unwrap_or_default();
        picky["state"] == "down" && whole["state"] == "up" && why.contains("transform-1") && why.contains("seven")
    };
    world.until("the stream says where it stands", stands).await;
    // The index goes on.
    world.execute("UPDATE movie SET title = 'Another' WHERE id = 2").await;
    world.assert_right().await;
    world.stop_process(0).await;
    world.edit_pipeline("to_int!(.after.title)", "to_int(.after.title) ?? 0");
    world.start();
    let goes_on = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"]["stream picky"]["state"] == "up"
    };
    world.until("the stream goes on", goes_on).await;
    world.assert_converged().await;
    if pair != Pair::Embedded {
        // Groups of readers come together one after the other.
        let transport = world.transport(pair);
        let count = async |topic: &str| records(transport.as_ref(), topic).await.iter().map(Vec::len).sum::<usize>();
        world.until("all came", async |_: &str| count(&numbers).await >= 4 && count(&whole).await >= 4).await;
    }
    world.stop_process(0).await;
    let transport = world.transport(pair);
    let numbers = records(transport.as_ref(), &numbers).await;
    let of_one = numbers.iter().flatten().filter_map(json).filter(|event| event["after"]["id"] == 1);
    let found: Vec<i64> = of_one.filter_map(|event| event["number"].as_i64()).collect();
    assert_eq!(found, [7, 0, 8]);
    let whole = records(transport.as_ref(), &whole).await.iter().map(Vec::len).sum::<usize>();
    assert_eq!(whole, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_event_stops_its_stream_alone() {
    a_poisonous_event(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poisonous_event_stops_its_stream_alone_on_kafka() {
    a_poisonous_event(Pair::KafkaElasticsearch).await;
}

/// Programs that are right only because of what the catalog says of columns: without the database nobody could know.
#[tokio::test(flavor = "multi_thread")]
async fn programs_rely_on_the_types_of_columns() {
    let mut world = World::new("streams-typed", Pair::Embedded, Own { postgres: true, ..Own::default() }).await;
    world.execute("ALTER TABLE movie REPLICA IDENTITY FULL").await;
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let streams = r#"
streams:
  loud:
    from: public.movie
    ops: [c, u]
    start: first
    steps:
      - changed: [title]
      - transform: |
          . = { "id": .after.id + 1, "title": upcase(.after.title), "odd": .after.titel }
    to: [{ topic: { name: loud } }]
"#;
    std::fs::write(world.pipeline(), format!("{text}{streams}")).expect("the pipeline");
    let (code, _, said) = world.run(&["check", world.pipeline().to_str().expect("UTF-8")]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("no event has `.after.titel`") && said.contains("did you mean `title`"), "{said}");
    world.start();
    world.until_captured().await;
    world.execute("UPDATE movie SET title = 'Alien' WHERE id = 1").await;
    world.assert_converged().await;
    world.stop_process(0).await;
    // What the catalog said is remembered while the database is away.
    world.execute("UPDATE movie SET title = 'Aliens' WHERE id = 1").await;
    world.postgres.as_ref().expect("own").stop().await.expect("stopped");
    world.start();
    let runs = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"]["stream loud"]["state"] == "up"
    };
    world.until("the stream runs without the database", runs).await;
    world.restart_postgres().await;
    world.assert_converged().await;
    world.stop_process(0).await;
    let loud = records(world.transport(Pair::Embedded).as_ref(), "loud").await;
    let titles: Vec<Json> = loud.iter().flatten().filter_map(json).map(|event| event["title"].clone()).collect();
    assert_eq!(titles, ["ALIEN", "ALIENS"]);
    // Where no program is right without it, and the database says something else, that is told.
    world.execute("ALTER TABLE movie ALTER COLUMN title DROP NOT NULL").await;
    let (code, _, said) = world.run(&["check", world.pipeline().to_str().expect("UTF-8")]).await;
    assert!(code != 0 && said.contains("upcase"), "{said}");
}

/// A pipeline that watches its file takes what it says, and keeps what it had while the file is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_watches_its_file() {
    let mut world = World::new("streams-watched", Pair::Embedded, Own::default()).await;
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let stream = |name: &str| {
        let (head, tail) = ("from: public.movie", format!("topic: {{ name: {name} }}"));
        format!("  {name}:\n    {head}\n    start: first\n    to: [{{ {tail} }}]\n")
    };
    let write = |streams: &str| {
        std::fs::write(world.pipeline(), format!("{text}\nstreams:\n{streams}")).expect("the pipeline");
    };
    write(&stream("one"));
    world.start_with(&["--watch"]);
    let state = async |address: &str, name: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"][format!("stream {name}")]["state"] == "up"
    };
    world.until("one runs", async |address: &str| state(address, "one").await).await;
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    std::fs::write(world.pipeline(), format!("{text}  wrong: {{ form: public.movie }}\n")).expect("the pipeline");
    let told = async {
        while world.said("form") == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), told).await.expect("the mistake is told");
    std::fs::write(world.pipeline(), format!("{text}{}", stream("two"))).expect("the pipeline");
    world.until("two runs too", async |address: &str| state(address, "two").await && state(address, "one").await).await;
    world.execute("UPDATE movie SET title = 'Watched' WHERE id = 3").await;
    world.assert_converged().await;
    world.stop_process(0).await;
}
