//! Sinks: what comes of a stream is in each of them, whatever becomes of processes, services and receivers on the way.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value as Json;
use tributary_stack::Clock;
use tributary_transport::Polled;

use crate::client;
use crate::world::hook::Hook;
use crate::world::topics::records;
use crate::world::{MOVIES, Own, Pair, World, connect};

const STREAM: &str = r#"
services:
  catalog: { graphql: "GRAPH" }
  pricing: { rest: "HOOK" }

streams:
  priced:
    from: public.movie
    ops: [c, u, d]
    start: first
    on_error: dead_letter
    steps:
      - filter: .op == "d" || .after.imdb_votes != null
      - enrich: { service: catalog, query: titles.graphql, key: .after.id, into: .known, cache: { ttl: 1s } }
      - enrich:
          service: pricing
          request: POST /prices
          body: '{ "ids": .keys }'
          each: .prices
          match: .sku
          key: .after.id
          into: .price
    to:
      - topic: { name: OUT }
      - webhook: { url: "HOOK/hook", secret: "${SIGNATURE:-whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}", private: on, retry: { max_pause: 1s } }
      - sql:
          url: "${STUDIO_URL}"
          table: copies.movie
          key: id
          row: '{ "id": .after.id, "title": .after.title, "votes": .after.imdb_votes, "usd": .price.usd }'
      - files: { folder: "FOLDER", every: 300ms }
      - index:
          name: ROWS
          key: id
          fields: { title: text, imdb_votes: long }
          row: .after
          STORE
"#;

fn json(record: &Polled) -> Option<Json> {
    serde_json::from_slice(record.value.as_deref()?).ok()
}

fn sequence(event: &Json) -> u64 {
    event["sequence"].as_u64().expect("a number")
}

fn id(event: &Json) -> i64 {
    let row = if event["after"].is_null() { &event["before"] } else { &event["after"] };
    row["id"].as_i64().expect("an id")
}

/// By id, the numbers of the events that pass the filter, in the order of their table's topic.
fn expected(records: &[Vec<Polled>]) -> BTreeMap<i64, Vec<u64>> {
    let mut expected: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for event in records.iter().flatten().filter_map(json) {
        if event["op"] == "d" || !event["after"]["imdb_votes"].is_null() {
            expected.entry(id(&event)).or_default().push(sequence(&event));
        }
    }
    expected
}

/// By id, what the last event of each row that passes the filter says of it.
fn last_rows(records: &[Vec<Polled>]) -> BTreeMap<i64, Json> {
    let mut last: BTreeMap<i64, Json> = BTreeMap::new();
    for event in records.iter().flatten().filter_map(json) {
        if event["op"] == "d" {
            last.remove(&id(&event));
        } else if !event["after"]["imdb_votes"].is_null() {
            last.insert(id(&event), event["after"].clone());
        }
    }
    last
}

/// What the table should say of a row: title, votes and price.
fn row((id, after): (&i64, &Json)) -> (i64, (String, i64, f64)) {
    let title = after["title"].as_str().unwrap_or_default().to_owned();
    (*id, (title, after["imdb_votes"].as_i64().expect("votes"), *id as f64 * 1.5))
}

/// What the index should say of a row.
fn document((id, after): (&i64, &Json)) -> (i64, Json) {
    (*id, serde_json::json!({ "title": after["title"], "imdb_votes": after["imdb_votes"] }))
}

/// What the table says.
async fn copied(sql: &tokio_postgres::Client) -> BTreeMap<i64, (String, i64, f64)> {
    let rows = sql.query("SELECT id, title, votes, usd::float8 FROM copies.movie WHERE NOT _deleted", &[]).await;
    rows.expect("rows").iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3)))).collect()
}

/// What the index says; nothing if nobody answers for it.
async fn indexed(address: &str, index: &str) -> Option<BTreeMap<i64, Json>> {
    let documents = client::documents(address, index).await?;
    Some(documents.into_iter().map(|(id, document)| (id.parse().expect("a number"), document)).collect())
}

/// Every event of the files of a folder.
fn lines(folder: &std::path::Path) -> Vec<Json> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(lines(&path));
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = std::fs::read_to_string(&path).expect("readable");
            found.extend(text.lines().map(|line| serde_json::from_str::<Json>(line).expect("JSON")));
        }
    }
    found
}

/// What happens under the changes.
enum Disturbance {
    /// Processes are killed in turn, so many of them, and the receiver is away for a while.
    Kills(usize),
    /// Somebody sets the clock of the only process, forward and back by hours.
    Clock(Clock),
}

/// Changes, under which something happens.
async fn disturbed(pair: Pair, by: Disturbance) {
    let mut world = World::new("sinks", pair, Own::default()).await;
    // As in `streams::killed`: a process that is taken over in a pause of the machine is started again.
    world.supervised = true;
    let processes = match &by {
        Disturbance::Kills(processes) => *processes,
        Disturbance::Clock(clock) => {
            world.environment = clock.environment();
            1
        }
    };
    let hook = Hook::start().await;
    let folder = world.folder.path().join("lake");
    let out = format!("out-{}", world.name);
    let rows = format!("rows-{}", world.name);
    world.execute("CREATE SCHEMA copies").await;
    let query = "query Titles($ids: [ID!]!) { movies(ids: $ids) { id title } }";
    std::fs::write(world.folder.path().join("titles.graphql"), query).expect("the query");
    let store = match pair {
        Pair::Embedded => String::new(),
        Pair::KafkaElasticsearch => {
            format!("store: {{ elasticsearch: {{ url: \"{}\", replicas: 0 }} }}", world.store_url())
        }
        Pair::KafkaOpenSearch => {
            format!("store: {{ opensearch: {{ url: \"{}\", replicas: 0 }} }}", world.opensearch_url())
        }
    };
    let streams = STREAM
        .replace("GRAPH", &world.graph_url())
        .replace("HOOK", &hook.url())
        .replace("FOLDER", folder.to_str().expect("a path"))
        .replace("OUT", &out)
        .replace("ROWS", &rows)
        .replace("STORE", &store);
    // No graph of indexes: streams alone.
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let head = text.split_once("\ngraph:").expect("a graph").0;
    let tail = text.split_once("\nhttp:").expect("a listener").1;
    std::fs::write(world.pipeline(), format!("{head}\n{streams}\nhttp:{tail}")).expect("the pipeline");
    let (code, said, error) = world.run(&["check", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!(code, 0, "{said}{error}");
    for process in 0..processes {
        world.start_process(process);
    }
    world.until_captured().await;
    for round in 0..3_u64 {
        hook.set_away(round == 1 && matches!(by, Disturbance::Kills(_)));
        for i in 0..200_u64 {
            let id = 1 + (round * 7 + i * 17) % 40;
            let sql = match i % 20 {
                3 => format!(
                    "INSERT INTO movie (id, title, imdb_votes) VALUES ({}, 'New', {i})",
                    100_000 + round * 200 + i
                ),
                11 => format!("DELETE FROM movie WHERE id = {}", 100_000 + round * 200 + i - 8),
                17 => format!("UPDATE movie SET imdb_votes = NULL WHERE id = {id}"),
                _ => format!("UPDATE movie SET title = 'R{round}-{i}', imdb_votes = {i} WHERE id = {id}"),
            };
            world.execute(&sql).await;
            match &by {
                Disturbance::Kills(_) if i % 60 == 40 => {
                    let process = (i as usize / 60 + round as usize) % processes;
                    world.kill_process(process);
                    world.start_process(process);
                }
                Disturbance::Clock(clock) if i % 60 == 40 => {
                    let hours = [2, -3, 0, 1, -1][(i as usize / 60 + 2 * round as usize) % 5];
                    clock.set(hours * 3_600).expect("it is set");
                }
                _ => {}
            }
        }
    }
    hook.set_away(false);
    world.until_captured().await;
    let count = "SELECT count(*) FROM movie WHERE id <= 40 AND imdb_votes IS NOT NULL";
    let still: i64 = world.sql.query_one(count, &[]).await.expect("a count").get(0);
    assert!(still > 10, "{still}");
    if pair == Pair::Embedded {
        let idle = async |address: &str| {
            let metrics = client::text(address, "/metrics").await.unwrap_or_default();
            let lags = metrics.lines().filter(|line| line.starts_with("tributary_stage_lag_records"));
            let lags: Vec<f64> = lags.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
            lags.len() >= 5 && lags.iter().all(|lag| *lag == 0.0)
        };
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.until("nothing waits", idle).await;
    } else {
        // A process that was killed keeps its partitions for a while, and nobody measures their lag: so it is waited until everything is
        // everywhere, and then for so long that whoever takes such partitions over late would have repeated something.
        let (transport, table) = (world.transport(pair), world.topic("public.movie"));
        let sql = connect(&world.database_url()).await;
        let complete = async |address: &str| {
            let events = records(transport.as_ref(), &table).await;
            let to_come = expected(&events).values().map(Vec::len).sum::<usize>();
            let arrived = hook.by(|body| id(&body["data"])).values().map(Vec::len).sum::<usize>();
            records(transport.as_ref(), &out).await.iter().map(Vec::len).sum::<usize>() >= to_come
                && arrived >= to_come
                && lines(&folder).len() >= to_come
                && copied(&sql).await == last_rows(&events).iter().map(row).collect()
                && indexed(address, &rows).await == Some(last_rows(&events).iter().map(document).collect())
        };
        world.until("everything is everywhere", complete).await;
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    // The index of rows, while somebody answers for it.
    let documents = indexed(&world.address().expect("an address"), &rows).await.expect("documents");
    for process in 0..processes {
        world.stop_process(process).await;
    }
    let transport = world.transport(pair);
    let events = records(transport.as_ref(), &world.topic("public.movie")).await;
    let expected = expected(&events);
    let total: usize = expected.values().map(Vec::len).sum();
    assert!(total > 400, "{total}");

    // The topic: each event once, in order, with what the services said.
    let mut topic: BTreeMap<i64, Vec<u64>> = BTreeMap::new();
    for event in records(transport.as_ref(), &out).await.iter().flatten().filter_map(json) {
        let id = id(&event);
        topic.entry(id).or_default().push(sequence(&event));
        if event["op"] != "d" {
            assert_eq!(event["price"]["usd"].as_f64(), Some(id as f64 * 1.5), "{event}");
            assert!(
                event["known"].is_null() || event["known"]["id"].as_str() == Some(id.to_string().as_str()),
                "{event}"
            );
        }
    }
    assert_eq!(topic, expected);

    // The webhook: each event at least once, with one id and one body, in order.
    let arrived = hook.by(|body| id(&body["data"]));
    let arrived: BTreeMap<i64, Vec<u64>> = arrived
        .into_iter()
        .map(|(id, bodies)| (id, bodies.iter().map(|body| sequence(&body["data"])).collect()))
        .collect();
    assert_eq!(arrived, expected);

    // The files: each event once.
    let mut filed: Vec<u64> = lines(&folder).iter().map(|line| line["sequence"].as_u64().expect("a number")).collect();
    filed.sort_unstable();
    let mut all: Vec<u64> = expected.values().flatten().copied().collect();
    all.sort_unstable();
    assert_eq!(filed, all);

    // The table, and the index: what the last event of each row that passed says.
    let last = last_rows(&events);
    assert_eq!(copied(&world.sql).await, last.iter().map(row).collect());
    assert_eq!(documents, last.iter().map(document).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_embedded() {
    disturbed(Pair::Embedded, Disturbance::Kills(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_kafka() {
    disturbed(Pair::KafkaElasticsearch, Disturbance::Kills(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_kafka_opensearch() {
    disturbed(Pair::KafkaOpenSearch, Disturbance::Kills(2)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_clock_that_jumps() {
    if let Some(cause) = Clock::left_out() {
        eprintln!("NOT TESTED: a clock that jumps: {cause}");
        return;
    }
    let clock = Clock::new().await.expect("a clock");
    disturbed(Pair::Embedded, Disturbance::Clock(clock)).await;
}

const REFUSED: &str = r#"
streams:
  told:
    from: public.movie
    ops: [u]
    start: first
    steps: [{ changed: [title], name: renamed }]
    to:
      - webhook: { url: "HOOK/hook", secret: "${SIGNATURE:-s}", private: on, on_error: dead_letter, format: plain }
"#;

/// What a receiver refuses is set aside with its key, other keys go on, and when somebody asks it arrives in its order. Whoever taps the
/// stream sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_replayed_in_its_order() {
    let mut world = World::new("refused", Pair::Embedded, Own::default()).await;
    let hook = Hook::start().await;
    hook.refuse(Some("Bad"));
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    std::fs::write(world.pipeline(), format!("{text}{}", REFUSED.replace("HOOK", &hook.url()))).expect("the pipeline");
    world.start();
    world.until_documents(MOVIES).await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let mut tap =
        world.command(&["tap", &pipeline, "told/renamed", "--where", ".after.id == 2", "--count", "1", "--json"]);
    let tapped = tokio::task::spawn_blocking(move || tap.output().expect("it runs"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    for title in ["Bad", "Good"] {
        world.execute(&format!("UPDATE movie SET title = '{title}' WHERE id = 1")).await;
    }
    world.execute("UPDATE movie SET title = 'Other' WHERE id = 2").await;
    let letters = async |address: &str| {
        let letters = client::get(address, "/dead-letters").await.unwrap_or_default();
        let sinks = letters.as_array().into_iter().flatten().filter(|letter| letter["stage"] == "sink told/webhook");
        sinks.count()
    };
    world.until("two wait", async |address| letters(address).await == 2).await;
    let other = || hook.received().iter().any(|received| received.body["after"]["id"] == 2);
    world.until("the other arrived", async |_| other()).await;
    let tapped = tapped.await.expect("it ended");
    let line: Json = serde_json::from_slice(&tapped.stdout).expect("a line of JSON");
    assert_eq!(line["outcome"], "passed", "{line}");
    assert_eq!(line["event"]["after"]["title"], "Other", "{line}");
    hook.refuse(None);
    let (code, said, error) = world.run(&["dlq", "replay", &pipeline, "--all"]).await;
    assert_eq!(code, 0, "{said}{error}");
    world.until("nothing waits", async |address| letters(address).await == 0).await;
    world.execute("UPDATE movie SET title = 'Last' WHERE id = 1").await;
    let titles = || {
        let of_one = hook.by(|body| body["after"]["id"].as_i64().expect("an id")).remove(&1).unwrap_or_default();
        of_one.iter().map(|body| body["after"]["title"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    world.until("the last arrived", async |_| titles().len() == 3).await;
    assert_eq!(titles(), ["Bad", "Good", "Last"]);
    world.assert_converged().await;
}

/// The cases of the demo's stream, to their end and killed on the way.
#[test]
fn the_cases_of_the_demo_hold() {
    let demo = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("compose/demo");
    for options in [&[][..], &["--crash"]] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tributary"));
        command.arg("test").args(options).arg(demo.join("streams.yaml")).arg(demo.join("streams.cases.yaml"));
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("5 passed"), "{said}");
    }
}

const AWAY: &str = r#"
streams:
  told:
    from: public.movie
    ops: [u]
    to: [{ webhook: { url: "http://127.0.0.1:1/hook", secret: "${SIGNATURE:-s}", private: on, format: plain } }]
  raw:
    from: public.movie
    to: [{ topic: { name: raw } }]
"#;

/// A sink that does not answer is replaced while the pipeline runs, and gets what it lacks; other streams go on, and what cannot be
/// taken while it runs is said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_does_not_answer_is_replaced_by_a_reload() {
    let mut world = World::new("reload", Pair::Embedded, Own::default()).await;
    let hook = Hook::start().await;
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    std::fs::write(world.pipeline(), format!("{text}{AWAY}")).expect("the pipeline");
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("UPDATE movie SET title = 'Before' WHERE id = 1").await;
    let is_down = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        let part = &health["parts"]["sink told/webhook"];
        part["state"] == "down" && part["why"].as_str().unwrap_or_default().contains("127.0.0.1:1")
    };
    world.until("the sink is down", is_down).await;
    world.edit_pipeline("http://127.0.0.1:1", &hook.url());
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let why = "restarted: told (the sink `webhook` says something else)";
    let (code, said, error) = world.run(&["reload", "--dry-run", &pipeline]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    assert!(said.contains(&format!("would be {why}")) && said.contains("as before: raw"), "{said}");
    let (code, said, error) = world.run(&["reload", &pipeline]).await;
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    // It is still otherwise than what runs: nothing was done before.
    assert!(said.starts_with(why) && said.contains("as before: raw"), "{said}");
    world.execute("UPDATE movie SET title = 'After' WHERE id = 1").await;
    let titles = || {
        let title = |body: &Json| body["after"]["title"].as_str().unwrap_or_default().to_owned();
        let of_one = hook.by(|body| body["after"]["id"].as_i64().expect("an id")).remove(&1).unwrap_or_default();
        of_one.iter().map(title).collect::<Vec<_>>()
    };
    world.until("both arrived", async |_| titles().len() == 2).await;
    assert_eq!(titles(), ["Before", "After"]);
    world.edit_pipeline("refresh: 100ms", "refresh: 200ms");
    world.edit_pipeline("  raw:\n", "  untold:\n");
    let (code, said, error) = world.run(&["reload", "--dry-run", &pipeline]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("would be started: untold\nwould be stopped: raw\nas before: told"), "{said}");
    assert!(error.contains("`indexes`") && error.contains(&format!("`tributary run {pipeline}`")), "{error}");
    let (code, _, error) = world.run(&["reload", &pipeline]).await;
    assert_eq!(code, 1);
    assert!(error.contains("`indexes`") && error.contains("start it again"), "{error}");
    world.assert_converged().await;
}
