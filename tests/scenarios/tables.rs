//! Tables that streams look into, of what the pipeline captures: with the rows that were there before, and as they were at an event's own
//! position or later, whatever becomes of the process on the way.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::client;
use crate::world::topics::records;
use crate::world::{Own, Pair, World};

const STREAM: &str = r#"
tables:
  distributors: { from: public.distributor, value: [id, name] }
  kept: { from: public.distributor, keep: disk }
  talents: { from: public.talent, value: name, keep: disk }

streams:
  named:
    from: public.movie
    ops: [u]
    start: first
    steps:
      - lookup: { table: distributors, key: .after.distributor_id, into: .distributor, wait: position }
      - lookup: { table: kept, key: .after.distributor_id, into: .kept, wait: position }
    to:
      - topic: { name: NAMED }
      - sql:
          url: "${STUDIO_URL}"
          table: copies.movie
          key: id
          row: '{ "id": .after.id, "title": .after.title, "distributor": .distributor.name, "kept": .kept.name }'
  again:
    from: { stream: named }
    steps:
      - lookup: { table: distributors, key: .after.distributor_id, into: .again, wait: position }
    to:
      - topic: { name: AGAIN }
"#;

/// The round that a name was given in; none: it has the name that it had before the capture.
fn round(name: &Json) -> Option<u64> {
    name.as_str()?.strip_prefix("Round ")?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_looked_up_is_never_older_than_the_event() {
    looked_up(Pair::Embedded, 60).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_looked_up_is_never_older_than_the_event_on_kafka() {
    looked_up(Pair::KafkaElasticsearch, 120).await;
}

/// Changes under which the process is killed whenever so many were made.
async fn looked_up(pair: Pair, between_kills: u64) {
    let own = Own { postgres: true, ..Own::default() };
    let mut world = World::new("tables", pair, own).await;
    let [named, again] = ["named", "again"].map(|name| format!("{name}-{}", world.name));
    let streams = STREAM.replace("NAMED", &named).replace("AGAIN", &again);
    world.execute("CREATE SCHEMA copies").await;
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let head = text.split_once("\ngraph:").expect("a graph").0;
    let tail = text.split_once("\nhttp:").expect("a listener").1;
    std::fs::write(world.pipeline(), format!("{head}\n{streams}\nhttp:{tail}")).expect("the pipeline");
    let (code, said, error) = world.run(&["check", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!(code, 0, "{said}{error}");
    world.start();
    let whole = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        ["distributors", "kept", "talents"].iter().all(|name| health["parts"][format!("table {name}")]["up"] == true)
    };
    world.until("the tables are whole", whole).await;
    // Of each movie the distributor is renamed just before it, or comes just before it; some keep the name that they always had.
    for n in 1..=240_u64 {
        let movie = 1 + (n * 17) % 60;
        match n % 8 {
            1 | 2 => {}
            3 => {
                world
                    .execute(&format!("INSERT INTO distributor (id, name) VALUES ({}, 'Round {n}')", 100_000 + n))
                    .await;
                let sql = format!("UPDATE movie SET distributor_id = {} WHERE id = {movie}", 100_000 + n);
                world.execute(&sql).await;
            }
            4 => {
                // Movies that had it have none.
                world.execute(&format!("DELETE FROM distributor WHERE id = {}", 100_000 + n - 1)).await;
            }
            _ => {
                let sql = format!(
                    "UPDATE distributor SET name = 'Round {n}' WHERE id = (SELECT distributor_id FROM movie WHERE id = {movie})"
                );
                world.execute(&sql).await;
            }
        }
        world.execute(&format!("UPDATE movie SET title = 'Round {n}' WHERE id = {movie}")).await;
        if n % between_kills == 30 {
            world.kill();
            world.start();
        }
    }
    world.execute("UPDATE movie SET imdb_votes = coalesce(imdb_votes, 0) + 1 WHERE id <= 400").await;
    world.until_captured().await;
    // The fold of everything, by SQL.
    let truth = "SELECT m.id::int8, m.title, d.name FROM movie m LEFT JOIN distributor d ON d.id = m.distributor_id \
        WHERE m.id <= 400 ORDER BY 1";
    let rows = async |sql: &str| -> Vec<(i64, String, Option<String>)> {
        let rows = world.sql.query(sql, &[]).await.expect("rows");
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    };
    let truth = rows(truth).await;
    assert!(truth.len() > 300 && truth.iter().filter(|(_, _, name)| name.is_some()).count() > 200, "{}", truth.len());
    let of_before =
        |(_, _, name): &&(i64, String, Option<String>)| name.as_ref().is_some_and(|n| !n.starts_with("Round"));
    assert!(truth.iter().filter(of_before).count() > 10, "some have the name that they had before the capture");
    let count: i64 = world.sql.query_one("SELECT count(*) FROM distributor", &[]).await.expect("a count").get(0);
    let done = async |address: &str| {
        let metrics = client::text(address, "/metrics").await.unwrap_or_default();
        let lags = metrics.lines().filter(|line| line.starts_with("tributary_stage_lag_records"));
        let lags: Vec<f64> = lags.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        let tables = ["distributors", "kept"];
        let has_rows = |name: &&str| metrics.contains(&format!("tributary_table_rows{{table=\"{name}\"}} {count}\n"));
        lags.len() >= 3 && lags.iter().all(|lag| *lag == 0.0) && tables.iter().all(has_rows)
    };
    for (name, table) in [("distributor", "distributors"), ("kept", "kept")] {
        let sql =
            format!("SELECT id::int8, title, {name} FROM copies.movie WHERE NOT _deleted AND id <= 400 ORDER BY 1");
        let sink = &truth;
        let url = world.database_url();
        let is_there = async |_: &str| {
            let client = crate::world::connect(&url).await;
            let Ok(rows) = client.query(&sql, &[]).await else { return false };
            let rows: Vec<(i64, String, Option<String>)> =
                rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
            rows == *sink
        };
        world.until(&format!("the sink is what the rows say, by {table}"), is_there).await;
    }
    world.until("nothing waits, and the tables have all rows", done).await;
    // Of its last run: both tables on disk.
    assert!(world.said("a table goes on where it was") >= 2, "{}", world.log());
    assert_eq!(world.said("a table is read anew"), 0, "{}", world.log());
    world.stop_process(0).await;

    // Each event saw its distributor as it was at its own position, or later.
    let transport = world.transport(pair);
    let mut names: BTreeMap<i64, Vec<(u64, Option<String>)>> = BTreeMap::new();
    for event in records(transport.as_ref(), &world.topic("public.distributor")).await.iter().flatten() {
        let Some(event) = event.value.as_deref().and_then(|value| serde_json::from_slice::<Json>(value).ok()) else {
            continue;
        };
        let row = if event["after"].is_null() { &event["before"] } else { &event["after"] };
        let name = event["after"]["name"].as_str().map(str::to_owned);
        names
            .entry(row["id"].as_i64().expect("an id"))
            .or_default()
            .push((event["sequence"].as_u64().expect("a number"), name));
    }
    let (mut seen, mut renamed) = (0, 0);
    for topic in [&named, &again] {
        for record in records(transport.as_ref(), topic).await.iter().flatten() {
            let event: Json = serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
            let Some(id) = event["after"]["distributor_id"].as_i64() else { continue };
            let sequence = event["sequence"].as_u64().expect("a number");
            let changes = names.get(&id).map_or(&[][..], Vec::as_slice);
            // The name that it had at that position, where an event says so, and all that it got later.
            let last = changes.iter().rposition(|(n, _)| *n < sequence);
            let may_be: Vec<&Option<String>> = changes[last.unwrap_or(0)..].iter().map(|(_, name)| name).collect();
            for field in ["distributor", "kept"].iter().chain((*topic == again).then_some(&"again")) {
                let found = &event[*field]["name"];
                let is_of_before = last.is_none() && round(found).is_none() && found.is_string();
                let is_later = may_be.iter().any(|name| name.as_deref() == found.as_str());
                assert!(is_of_before || is_later, "{topic}: {field} of {event}: not one of {may_be:?}");
                renamed += usize::from(round(found).is_some());
            }
            seen += 1;
        }
    }
    assert!(seen > 400 && renamed > 400, "{seen} {renamed}");
}
