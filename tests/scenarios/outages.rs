//! What the pipeline depends on goes away, errs, or is slow, and comes back.

use std::time::Duration;

use movie_graph::{Poison, StatusCode};

use super::plans::add_index;
use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

async fn changes(world: &World, mark: &str) {
    world.execute(&format!("UPDATE movie SET title = '{mark}' WHERE id BETWEEN 10 AND 40")).await;
    world.execute(&format!("UPDATE distributor SET name = '{mark}' WHERE id = 2")).await;
    world.execute(&format!("DELETE FROM movie WHERE title = '{mark}' AND id % 9 = 0")).await;
}

/// Whether `/health` says of a part that it is down.
async fn is_down(address: &str, part: &str) -> bool {
    let health = client::get(address, "/health").await.unwrap_or_default();
    health["parts"]
        .as_object()
        .is_some_and(|parts| parts.iter().any(|(name, p)| name.contains(part) && p["up"] == false))
}

async fn graph_gone(pair: Pair) {
    let mut world = World::new("graph", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.stop_service().await;
    changes(&world, "while away").await;
    world.until("health says that the graph is down", async |address| is_down(address, "graph").await).await;
    // Long enough for every retry of a single document to be used up, if retries of an outage were counted.
    tokio::time::sleep(Duration::from_secs(20)).await;
    world.start_service_again().await;
    world.assert_converged().await;
    let told = world.said("\"outage_s\":");
    assert!((1..6).contains(&told), "the outage was told {told} times:\n{}", world.log());
    let (code, out, _) = world.run(&["dlq", "list", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!((code, out.trim()), (0, "no dead letters"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_gone_embedded() {
    graph_gone(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_gone_kafka_elasticsearch() {
    graph_gone(Pair::KafkaElasticsearch).await;
}

/// Why `/health` says that a part is down.
async fn why_down(address: &str, part: &str) -> String {
    let health = client::get(address, "/health").await.unwrap_or_default();
    health["parts"][part]["why"].as_str().unwrap_or_default().to_owned()
}

async fn dead_letters(address: &str) -> Vec<serde_json::Value> {
    client::get(address, "/dead-letters").await.and_then(|l| l.as_array().cloned()).unwrap_or_default()
}

/// While a graph is deployed, what stands before it answers pages of its own; an old version rejects queries.
async fn graph_being_deployed(pair: Pair) {
    let mut world = World::new("deploy", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    for (status, remedy) in [
        (StatusCode::NOT_FOUND, "check that graph.endpoint"),
        (StatusCode::UNAUTHORIZED, "check graph.headers"),
        (StatusCode::FORBIDDEN, "check graph.headers"),
        (StatusCode::FOUND, "a redirect is not followed"),
        (StatusCode::INTERNAL_SERVER_ERROR, "<h1>500"),
    ] {
        world.faults().set_status(Some(status));
        changes(&world, status.as_str()).await;
        world
            .until("health says what the graph answers, and what may be done", async |address| {
                let why = why_down(address, "graph").await;
                why.contains(status.as_str()) && why.contains(remedy)
            })
            .await;
    }
    world.faults().set_status(None);
    world.faults().rename_field(true);
    changes(&world, "another schema").await;
    let rejected = async |address: &str| why_down(address, "graph").await.contains("run `tributary check`");
    world.until("health says that the graph rejects the query", rejected).await;
    world.faults().rename_field(false);
    world.assert_converged().await;
    assert_eq!(dead_letters(&world.address().expect("it runs")).await, Vec::<serde_json::Value>::new());
    let told = world.said("\"outage_s\":");
    assert!((6..20).contains(&told), "told {told} times:\n{}", world.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_being_deployed_embedded() {
    graph_being_deployed(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_being_deployed_kafka_elasticsearch() {
    graph_being_deployed(Pair::KafkaElasticsearch).await;
}

/// A graph whose database is away answers an error for each document: none is to blame.
async fn errors_for_all(pair: Pair) {
    let mut world = World::new("all", pair, Own::default()).await;
    world.write_pipeline(pair, "    retry: { attempts: 2, initial: 20ms, max: 100ms }\n");
    world.faults().fail_ids((1..=4000).map(|id| id.to_string()).collect());
    world.start();
    let says = async |address: &str| why_down(address, "graph").await.contains("could not be resolved");
    world.until("health says what the graph answers to who compares ids", says).await;
    world.kill();
    // Documents are asked for at once.
    let text = std::fs::read_to_string(world.pipeline()).expect("a pipeline");
    std::fs::write(world.pipeline(), text.replace("  vertices:\n", "  probe: off\n  vertices:\n")).expect("written");
    world.start();
    world.until("health says what the graph answers", says).await;
    let (faults, before) = (world.faults(), world.faults().requests());
    // Far more than all tries of a document.
    world.until("the graph was asked again and again", async |_| faults.requests() > before + 100).await;
    assert!(dead_letters(&world.address().expect("it runs")).await.is_empty());
    faults.fail_ids(Vec::new());
    world.until_documents(MOVIES).await;
    faults.fail_ids((1..=4000).map(|id| id.to_string()).collect());
    changes(&world, "no database").await;
    world.until("health says what the graph answers", says).await;
    let before = faults.requests();
    world.until("the graph was asked again and again", async |_| faults.requests() > before + 60).await;
    assert!(dead_letters(&world.address().expect("it runs")).await.is_empty());
    faults.fail_ids(Vec::new());
    world.assert_converged().await;
    assert!(dead_letters(&world.address().expect("it runs")).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_for_all_embedded() {
    errors_for_all(Pair::Embedded).await;
}

/// Something behind the graph is away that half of the documents need: they wait, the others go on, and nobody is to blame.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_for_half() {
    let mut world = World::new("half", Pair::Embedded, Own::default()).await;
    world.write_pipeline(Pair::Embedded, "    retry: { attempts: 2, initial: 20ms, max: 1s }\n");
    let even: Vec<String> = (1..=MOVIES / 2).map(|id| (2 * id).to_string()).collect();
    world.faults().fail_ids(even.clone());
    world.start();
    world.until_documents(MOVIES / 2).await;
    let waits = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"]["graph"]["note"].as_str().is_some_and(|note| note.contains("could not be resolved"))
    };
    world.until("health says what documents wait for", waits).await;
    world.faults().fail_ids(Vec::new());
    world.until_documents(MOVIES).await;
    world.faults().fail_ids(even);
    changes(&world, "half of it").await;
    world.until("health says what documents wait for", waits).await;
    let (faults, before) = (world.faults(), world.faults().requests());
    // Far more than all tries of a document.
    world.until("the graph was asked again and again", async |_| faults.requests() > before + 40).await;
    let address = world.address().expect("it runs");
    let path = format!("/indexes/{}/documents/11", world.index());
    let titled =
        async |_: &str| client::get(&address, &path).await.is_some_and(|d| d["document"]["title"] == "half of it");
    world.until("the others are built", titled).await;
    assert_eq!(dead_letters(&address).await, Vec::<serde_json::Value>::new());
    world.faults().fail_ids(Vec::new());
    world.assert_converged().await;
    assert_eq!(dead_letters(&address).await, Vec::<serde_json::Value>::new());
}

/// A graph that accepts requests and answers none is away, also where a single document is asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_hangs() {
    let mut world = World::new("hang", Pair::Embedded, Own::default()).await;
    let settings = "    build: { deadline: 1s }\n    retry: { attempts: 2, initial: 20ms, max: 100ms }\n";
    world.write_pipeline(Pair::Embedded, settings);
    world.start();
    world.until_documents(MOVIES).await;
    world.faults().hang(true);
    let (faults, before) = (world.faults(), world.faults().requests());
    world.execute("UPDATE movie SET title = 'Alone' WHERE id = 10").await;
    world
        .until("health says that the graph hangs", async |address| {
            let why = why_down(address, "graph").await;
            why.contains("answers neither") || why.contains("no answer within")
        })
        .await;
    changes(&world, "while it hangs").await;
    // Each try takes six seconds, and two tries are all that a document has.
    world.until("the graph was asked again and again", async |_| faults.requests() > before + 20).await;
    assert_eq!(dead_letters(&world.address().expect("it runs")).await, Vec::<serde_json::Value>::new());
    world.faults().hang(false);
    world.assert_converged().await;
    assert_eq!(dead_letters(&world.address().expect("it runs")).await, Vec::<serde_json::Value>::new());
}

/// A pipeline that starts while its graph is deployed waits, says so, and starts then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_being_deployed_at_the_start() {
    let mut world = World::new("early", Pair::Embedded, Own::default()).await;
    world.faults().set_status(Some(StatusCode::NOT_FOUND));
    world.start();
    let says = async |address: &str, words: &str| why_down(address, "graph").await.contains(words);
    world.until("health says that the graph is no GraphQL server", async |address| says(address, "404").await).await;
    let address = world.address().expect("it listens");
    let index = client::get(&address, &format!("/indexes/{}", world.index())).await.unwrap_or_default();
    assert!(index["error"].as_str().is_some_and(|e| e.contains("waits for its graph")), "{index}");
    world.stop_service().await;
    world.until("health says that the graph is away", async |address| says(address, "cannot connect").await).await;
    world.start_service_again().await;
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    assert_eq!(world.address(), Some(address), "who was told where to ask may go on asking there");
    let told = world.said("the graph does not tell its schema");
    assert!((2..5).contains(&told), "told {told} times:\n{}", world.log());
    assert!(world.said("--fail-fast") > 0);
}

/// An answer of the first build that cannot be read because of one document: all others are built, that one is set aside with
/// what was answered.
async fn poisoned_first_build(pair: Pair) {
    let mut world = World::new("poison", pair, Own::default()).await;
    world.write_pipeline(pair, "    retry: { attempts: 3, initial: 20ms, max: 100ms }\n");
    world.faults().poison_ids(vec!["50".into()], Poison::NotANumber);
    world.start();
    world.until("the document is a dead letter", async |address| dead_letters(address).await.len() == 1).await;
    world.until_documents(MOVIES - 1).await;
    let path = format!("/indexes/{}", world.index());
    let counted = async |address: &str| {
        let status = client::get(address, &path).await.unwrap_or_default();
        status["documents"] == MOVIES - 1 && status["dead_letters"] == 1
    };
    world.until("the index counts documents and dead letters apart", counted).await;
    let words = &format!(": {} documents built, 1 set aside in ", MOVIES - 1);
    let built = std::time::Instant::now();
    while world.said(words) == 0 {
        assert!(built.elapsed() < Duration::from_secs(60), "the counts are not told apart:\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let (code, shown, err) = world.run(&["dlq", "show", &pipeline, &format!("{}/50", world.index())]).await;
    assert_eq!(code, 0, "{err}");
    assert!(shown.contains(r#"\"title\":NaN"#) && shown.contains(r#""attempts": 3"#), "{shown}");
    world.faults().poison_ids(Vec::new(), Poison::NotANumber);
    let (code, out, err) = world.run(&["dlq", "replay", &pipeline, "--all"]).await;
    assert_eq!((code, out.starts_with("1 sent back")), (0, true), "{out}{err}");
    world.assert_converged().await;
    let none_left = async |address: &str| {
        client::get(address, &path).await.is_some_and(|status| status["dead_letters"] == 0)
            && dead_letters(address).await.is_empty()
    };
    world.until("no dead letter is left", none_left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poisoned_first_build_embedded() {
    poisoned_first_build(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poisoned_first_build_kafka_elasticsearch() {
    poisoned_first_build(Pair::KafkaElasticsearch).await;
}

/// The same among changes, in every way that an answer can be spoilt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poisoned_changes() {
    let mut world = World::new("spoilt", Pair::Embedded, Own::default()).await;
    world.write_pipeline(Pair::Embedded, "    retry: { attempts: 3, initial: 20ms, max: 100ms }\n");
    world.start();
    world.until_documents(MOVIES).await;
    let index = world.index();
    let title = async |address: &str, id: u32| {
        let document = client::get(address, &format!("/indexes/{index}/documents/{id}")).await.unwrap_or_default();
        document["document"]["title"].as_str().unwrap_or_default().to_owned()
    };
    for (poison, words) in [
        (Poison::ErrorPage, r"<html>\n<h1>Internal Server Error</h1>"),
        (Poison::Cut, "the connection broke within an answer"),
        (Poison::NotANumber, "\"title\":NaN"),
        (Poison::Nested(900), "expected a plain value, got a list"),
        (Poison::Nested(100_000), "deeper than 1000 levels"),
    ] {
        let mark = format!("{poison:?}");
        world.faults().poison_ids(vec!["50".into()], poison);
        world.execute(&format!("UPDATE movie SET title = '{mark}' WHERE id BETWEEN 45 AND 55")).await;
        let set_aside = async |address: &str| {
            let letters = dead_letters(address).await;
            letters.len() == 1 && letters[0]["cause"].as_str().is_some_and(|cause| cause.contains(words))
        };
        world.until("the document is a dead letter with what was answered", set_aside).await;
        for id in [45, 49, 51, 55] {
            world.until("those beside it are built", async |address| title(address, id).await == mark).await;
        }
        world.faults().poison_ids(Vec::new(), poison);
        world.execute(&format!("UPDATE movie SET title = '{mark}, healed' WHERE id = 50")).await;
        world.assert_converged().await;
        world.until("its letter is withdrawn", async |address| dead_letters(address).await.is_empty()).await;
    }
    world.faults().poison_ids(vec!["50".into()], Poison::HalfSurrogate);
    world.execute("UPDATE movie SET title = 'an emoji' WHERE id = 50").await;
    world.until("the half is replaced", async |address| title(address, 50).await == "\u{fffd}").await;
    assert_eq!(world.said("replaced by U+FFFD"), 1, "{}", world.log());
    world.faults().poison_ids(Vec::new(), Poison::HalfSurrogate);
    world.execute("UPDATE movie SET title = 'an emoji again' WHERE id = 50").await;
    world.assert_converged().await;
}

async fn errors_for_some(pair: Pair) {
    let mut world = World::new("errors", pair, Own::default()).await;
    world.write_pipeline(pair, "    retry: { attempts: 3, initial: 20ms, max: 100ms }\n");
    world.start();
    world.until_documents(MOVIES).await;
    world.faults().fail_ids(vec!["50".into(), "51".into()]);
    world.execute("UPDATE movie SET title = 'Changed' WHERE id BETWEEN 45 AND 55").await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    world
        .until("both are dead letters", async |address| {
            client::get(address, "/dead-letters").await.is_some_and(|l| l.as_array().is_some_and(|l| l.len() == 2))
        })
        .await;
    // The documents stay as they were; those beside them were built.
    let index = world.index();
    let title = async |address: &str, id: &str| {
        let document = client::get(address, &format!("/indexes/{index}/documents/{id}")).await.unwrap_or_default();
        document["document"]["title"].as_str().unwrap_or_default().to_owned()
    };
    world.until("the others are built", async |address| title(address, "49").await == "Changed").await;
    let address = world.address().expect("it runs");
    assert_ne!(title(&address, "50").await, "Changed");
    let letter = format!("{index}/50");
    let (code, shown, err) = world.run(&["dlq", "show", &pipeline, &letter]).await;
    assert_eq!(code, 0, "{err}");
    assert!(shown.contains("\"cause\""), "{shown}");
    world.faults().fail_ids(Vec::new());
    let (code, out, err) = world.run(&["dlq", "replay", &pipeline, "--all"]).await;
    assert_eq!((code, out.starts_with("2 sent back")), (0, true), "{out}{err}");
    world.assert_converged().await;
    let (_, out, _) = world.run(&["dlq", "list", &pipeline]).await;
    assert_eq!(out.trim(), "no dead letters");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_for_some_embedded() {
    errors_for_some(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_for_some_kafka_elasticsearch() {
    errors_for_some(Pair::KafkaElasticsearch).await;
}

async fn graph_slow_and_picky(pair: Pair) {
    let mut world = World::new("slow", pair, Own::default()).await;
    world.faults().set_max_roots(30);
    world.start();
    world.until_documents(MOVIES).await;
    world.faults().set_delay(Duration::from_millis(1500));
    changes(&world, "slowly").await;
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_slow_and_picky_embedded() {
    graph_slow_and_picky(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_slow_and_picky_kafka_elasticsearch() {
    graph_slow_and_picky(Pair::KafkaElasticsearch).await;
}

/// What takes longer than it may is abandoned and tried again, and nothing of it is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_slower_than_the_deadline() {
    let mut world = World::new("deadline", Pair::Embedded, Own::default()).await;
    let settings = "    build: { deadline: 1s }\n    retry: { attempts: 2, initial: 20ms, max: 100ms }\n";
    world.write_pipeline(Pair::Embedded, settings);
    world.start();
    world.until_documents(MOVIES).await;
    world.faults().set_delay(Duration::from_millis(1500));
    world.execute("UPDATE movie SET title = 'Too slowly' WHERE id = 10").await;
    world
        .until("the document is set aside", async |address| {
            let letters = client::get(address, "/dead-letters").await.unwrap_or_default();
            letters.to_string().contains("was abandoned")
        })
        .await;
    let address = world.address().expect("it runs");
    let document =
        client::get(&address, &format!("/indexes/{}/documents/10", world.index())).await.expect("a document");
    assert_ne!(document["document"]["title"], "Too slowly");
    world.faults().set_delay(Duration::ZERO);
    let (code, out, err) = world.run(&["dlq", "replay", world.pipeline().to_str().expect("a path"), "--all"]).await;
    assert_eq!((code, out.starts_with("1 sent back")), (0, true), "{out}{err}");
    world.assert_converged().await;
}

/// Health is right although nothing changes: after a restart, and when a part goes away and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_while_idle() {
    let all_up = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"].as_object().is_some_and(|parts| parts.len() > 4 && parts.values().all(|p| p["up"] == true))
    };
    let mut world = World::new("idle", Pair::Embedded, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world.kill();
    world.start();
    world.until("every part is up after a restart", all_up).await;
    world.stop_service().await;
    world.until("the graph is down", async |address| is_down(address, "graph").await).await;
    world.start_service_again().await;
    world.until("every part is up again", all_up).await;
}

/// An index in another store goes on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elasticsearch_gone() {
    let own = Own { elasticsearch: true, ..Own::default() };
    let mut world = World::new("es", Pair::KafkaElasticsearch, own).await;
    let (index, other) = (world.index(), format!("{}-2", world.index()));
    add_index(&world, &other, Some("embedded"));
    world.start();
    world.until_documents(MOVIES).await;
    world.elasticsearch.as_ref().expect("own").kill().await.expect("killed");
    world.until("health says that the store is down", async |address| is_down(address, "store").await).await;
    changes(&world, "no store").await;
    world.execute("UPDATE movie SET title = 'Not stopped' WHERE id = 5").await;
    let goes_on = async |address: &str| {
        let document = client::get(address, &format!("/indexes/{other}/documents/5")).await.unwrap_or_default();
        document["document"]["title"] == "Not stopped"
    };
    world.until("the other index has the change", goes_on).await;
    assert!(is_down(&world.address().expect("it runs"), "store").await);
    world.elasticsearch.as_ref().expect("own").start_again().await.expect("started");
    world.assert_converged().await;
    let are_alike = async |address: &str| {
        let (one, two) = (client::documents(address, &index).await, client::documents(address, &other).await);
        one.is_some() && one == two
    };
    world.until("both indexes have the same", are_alike).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_killed_and_restarted() {
    let own = Own { kafka: true, ..Own::default() };
    let mut world = World::new("kafka", Pair::KafkaElasticsearch, own).await;
    world.start();
    world.until_documents(MOVIES).await;
    changes(&world, "before").await;
    world.kafka.as_ref().expect("own").kill().await.expect("killed");
    changes(&world, "no broker").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    world.kafka.as_ref().expect("own").start_again().await.expect("started");
    changes(&world, "after").await;
    world.assert_converged().await;
}

/// The embedded log cannot grow: it says so, waits, and goes on once it can. The limit on the size of files stands in for a
/// full disk: the system refuses the write just the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full() {
    let mut world = World::new("full", Pair::Embedded, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    let log = std::fs::metadata(world.data().join("log/log.redb")).expect("the log").len();
    world.limit_files(Some(log));
    let says_full = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        let full = |part: &serde_json::Value| part["why"].as_str().is_some_and(|why| why.contains("is full"));
        health["parts"].as_object().is_some_and(|parts| parts.values().any(full))
    };
    let mut rounds = 0;
    loop {
        let address = world.address().expect("it runs");
        if says_full(&address).await {
            break;
        }
        rounds += 1;
        assert!(rounds < 500, "the log never grew:\n{}", world.log());
        // Random text, which does not compress, for the log to grow.
        let text = "(SELECT string_agg(md5(random()::text || g), '') FROM generate_series(1, 20 + movie.id * 0) g)";
        world.execute(&format!("UPDATE movie SET title = {text} WHERE id % 7 = {}", rounds % 7)).await;
    }
    changes(&world, "disk full").await;
    world.limit_files(None);
    world.assert_converged().await;
}

/// A transaction in progress does not fit on the disk: the source says so, and has every change when there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_full_while_a_transaction_is_kept() {
    let mut world = World::new("kept", Pair::Embedded, Own { postgres: true, ..Own::default() }).await;
    world.execute("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'").await;
    world.execute("SELECT pg_reload_conf()").await;
    world.start();
    world.until_documents(MOVIES).await;
    let log = std::fs::metadata(world.data().join("log/log.redb")).expect("the log").len();
    world.limit_files(Some(log));
    // More than the log has now.
    let text = format!("repeat(md5(random()::text || id), {})", log / MOVIES / 32 + 100);
    world.execute(&format!("UPDATE movie SET title = {text}; UPDATE movie SET title = left(title, 20)")).await;
    let has_no_room = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"].as_object().is_some_and(|parts| {
            let why = |part: &serde_json::Value| part["why"].as_str().unwrap_or_default().to_owned();
            parts.values().any(|part| why(part).contains("transactions") && why(part).contains("make room there"))
        })
    };
    world.until("the source has no room", has_no_room).await;
    world.limit_files(None);
    world.assert_converged().await;
}

async fn postgres_restarted(pair: Pair) {
    let own = Own { postgres: true, ..Own::default() };
    let mut world = World::new("pg", pair, own).await;
    world.start();
    world.until_documents(MOVIES).await;
    for mark in ["one", "two"] {
        changes(&world, mark).await;
        world.postgres.as_ref().expect("own").restart().await.expect("restarted");
        world.reconnect().await;
        changes(&world, mark).await;
    }
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_restarted_embedded() {
    postgres_restarted(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_restarted_kafka_elasticsearch() {
    postgres_restarted(Pair::KafkaElasticsearch).await;
}

/// The log is ahead of what the graph reads: a new edge is invisible when its parent is asked for first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn graph_behind_the_log() {
    let mut world = World::new("behind", Pair::Embedded, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("INSERT INTO venue (id, name, city) VALUES (9001, 'Lagging', 'Here')").await;
    world.assert_converged().await;
    world.faults().hide_screenings(true);
    let before = world.faults().requests();
    world.execute("INSERT INTO screening (id, movie_id, venue_id, starts_at) VALUES (9001, 40, 9001, now())").await;
    let faults = world.faults();
    world.until("the graph was asked for the screening's movie", async |_| faults.requests() > before).await;
    world.faults().hide_screenings(false);
    world.assert_converged().await;
}

/// A pipeline that waits for its database says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_down_at_the_start() {
    let own = Own { postgres: true, ..Own::default() };
    let mut world = World::new("downstart", Pair::Embedded, own).await;
    world.postgres.as_ref().expect("own").stop().await.expect("stopped");
    world.start();
    world.until("health says that the source is down", async |address| is_down(address, "source").await).await;
    world.postgres.as_ref().expect("own").start_again().await.expect("started");
    world.reconnect().await;
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
}
