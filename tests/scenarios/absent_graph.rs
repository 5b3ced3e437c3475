//! The graph is away when the pipeline starts: changes are captured all the same, and the indexes join when it comes.

use std::time::{Duration, Instant};

use movie_graph::StatusCode;
use tributary_transport::{Kafka, KafkaSettings, Transport as _};

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

async fn changes(world: &World, mark: &str) {
    world.execute(&format!("UPDATE movie SET title = '{mark}' WHERE id BETWEEN 10 AND 40")).await;
    world.execute(&format!("UPDATE distributor SET name = '{mark}' WHERE id = 2")).await;
    world.execute(&format!("DELETE FROM movie WHERE title = '{mark}' AND id % 9 = 0")).await;
}

/// The status of an answer.
async fn status(address: &str, path: &str) -> u16 {
    reqwest::get(format!("http://{address}{path}")).await.map_or(0, |answer| answer.status().as_u16())
}

async fn graph_says(address: &str, words: &str) -> bool {
    let health = client::get(address, "/health").await.unwrap_or_default();
    health["parts"]["graph"]["why"].as_str().is_some_and(|why| why.contains(words))
}

/// What a pipeline answers that captures and has no plan.
async fn assert_waits(world: &mut World) {
    world
        .until("health says that the graph is away", async |address| graph_says(address, "cannot connect").await)
        .await;
    let streams = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        let is_up = |(name, part): (&String, &serde_json::Value)| name.starts_with("source ") && part["state"] == "up";
        health["parts"].as_object().is_some_and(|parts| parts.iter().any(is_up))
    };
    world.until("the source is up", streams).await;
    let address = world.address().expect("it listens");
    let health = client::get(&address, "/health").await.expect("health");
    let index = &health["parts"][format!("index {}", world.index())];
    assert!(index["why"].as_str().is_some_and(|why| why.contains("the graph has told its schema")), "{health}");
    assert_eq!((status(&address, "/health").await, status(&address, "/health/ready").await), (503, 503));
    assert_eq!(status(&address, "/health/live").await, 200, "to start it again would not help");
    assert_eq!((status(&address, "/metrics").await, status(&address, "/dead-letters").await), (200, 200));
    for path in ["/indexes".to_owned(), format!("/indexes/{}/search?q=*", world.index())] {
        assert_eq!(status(&address, &path).await, 503);
        let answer = client::get(&address, &path).await.expect("JSON");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains("waits for its graph")), "{answer}");
    }
    let (code, out, err) = world.run(&["dlq", "list", world.pipeline().to_str().expect("a path")]).await;
    assert_eq!((code, out.trim()), (0, "no dead letters"), "{err}");
}

async fn away_at_the_first_start(pair: Pair) {
    let mut world = World::new("absent", pair, Own::default()).await;
    world.stop_service().await;
    world.start();
    assert_waits(&mut world).await;
    changes(&world, "before the graph").await;
    world.until_captured().await;
    if pair != Pair::Embedded {
        let kafka = Kafka::connect(KafkaSettings::single_broker(world.brokers())).expect("settings");
        let ends = kafka.watermarks(&world.topic("public.movie")).await.expect("a topic");
        assert!(ends.iter().map(|ends| ends.high).sum::<u64>() >= 31, "the topic has the events: {ends:?}");
    }
    // It goes on where it was, whatever the graph does.
    world.kill();
    changes(&world, "while nobody runs").await;
    world.start();
    assert_waits(&mut world).await;
    world.until_captured().await;
    changes(&world, "once more").await;
    world.until_captured().await;
    let address = world.address();
    world.start_service_again().await;
    world.until_documents(MOVIES - 200).await;
    world.assert_converged().await;
    assert_eq!(world.address(), address, "who was told where to ask may go on asking there");
    let health = client::get(&address.expect("it listens"), "/health").await.expect("health");
    assert_eq!(health["state"], "up", "{health}");
    changes(&world, "with the graph").await;
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_at_the_first_start_embedded() {
    away_at_the_first_start(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_at_the_first_start_kafka_elasticsearch() {
    away_at_the_first_start(Pair::KafkaElasticsearch).await;
}

/// A graph that takes the question and does not answer holds up nothing else either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_at_the_start() {
    let mut world = World::new("silent", Pair::Embedded, Own::default()).await;
    world.faults().set_delay(Duration::from_secs(600));
    world.start();
    world.until("health says that it is silent", async |address| graph_says(address, "no answer within").await).await;
    changes(&world, "in silence").await;
    world.until_captured().await;
    world.stop_service().await;
    world.start_service_again().await;
    world.until_documents(MOVIES - 200).await;
    world.assert_converged().await;
}

/// Rows change without events while there is no plan: every index that may show them is listed anew, whatever happens before there
/// is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn away_while_rows_change_without_events() {
    let mut world = World::new("absunseen", Pair::Embedded, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world.kill();
    world.stop_service().await;
    world.execute("ALTER TABLE distributor ALTER name TYPE text USING name || ' (unseen)'").await;
    world.start();
    assert_waits(&mut world).await;
    let noted = Instant::now();
    while world.said("every document is built again") == 0 {
        assert!(noted.elapsed() < Duration::from_secs(60), "nothing is doubted:\n{}", world.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.until_captured().await;
    world.kill();
    world.start();
    assert_waits(&mut world).await;
    world.start_service_again().await;
    world.assert_converged().await;
}

/// A world whose rule for talents names a column beside the key, which old rows lack.
async fn with_codes(name: &str) -> World {
    let world = World::new(name, Pair::Embedded, Own::default()).await;
    world.execute("ALTER TABLE talent ADD COLUMN code int; UPDATE talent SET code = id").await;
    let pipeline = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let changed = pipeline
        .replace("type: Talent, id: \"{id}\" }]\n    public.dist", "type: Talent, id: \"{code}\" }]\n    public.dist");
    assert_ne!(changed, pipeline);
    std::fs::write(world.pipeline(), changed).expect("the pipeline");
    world
}

async fn source_says(address: &str, text: &str) -> bool {
    let health = client::get(address, "/health").await.unwrap_or_default();
    health["parts"].as_object().is_some_and(|parts| {
        let says = |part: &serde_json::Value| part["why"].as_str().is_some_and(|why| why.contains(text));
        parts.iter().any(|(name, part)| name.starts_with("source ") && part["up"] == false && says(part))
    })
}

/// Only the plan says that the log carries too little: the source is down then, skips nothing, and goes on when it is mended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_little_is_found_out_when_the_graph_comes() {
    let mut world = with_codes("abslittle").await;
    world.stop_service().await;
    world.start();
    assert_waits(&mut world).await;
    world.execute("UPDATE talent SET name = 'before the plan', code = code + 10000 WHERE id < 20").await;
    world.until_captured().await;
    world.start_service_again().await;
    world.until("the source is down", async |address| source_says(address, "REPLICA IDENTITY FULL").await).await;
    world.execute("UPDATE talent SET name = 'refused', code = code - 10000 WHERE id < 20").await;
    world.execute("DELETE FROM movie WHERE id % 50 = 0").await;
    world.execute("ALTER TABLE talent REPLICA IDENTITY FULL").await;
    world.assert_converged().await;
    assert!(world.said("every document is built again") > 0, "{}", world.log());
}

/// The log carried too little for a while, and nobody could know: it is found out with the plan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_little_for_a_while_is_found_out_when_the_graph_comes() {
    let mut world = with_codes("abswhile").await;
    world.execute("ALTER TABLE talent REPLICA IDENTITY FULL").await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    world.kill();
    world.stop_service().await;
    world.start();
    assert_waits(&mut world).await;
    world.execute("ALTER TABLE talent REPLICA IDENTITY DEFAULT").await;
    world.execute("UPDATE talent SET name = 'narrow', code = code + 10000 WHERE id < 20").await;
    world.until_captured().await;
    world.execute("ALTER TABLE talent REPLICA IDENTITY FULL").await;
    world.execute("UPDATE talent SET name = 'wide', code = code - 10000 WHERE id < 20").await;
    world.until_captured().await;
    assert_eq!(world.said("a stretch in which it does not suffice"), 0);
    world.start_service_again().await;
    world.until_documents(MOVIES - 200).await;
    world.assert_converged().await;
    assert!(world.said("a stretch in which it does not suffice") > 0, "{}", world.log());
}

/// What the schema shows to be wrong ends the pipeline when it is told, and what was captured stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_wrong_ends_it_when_the_graph_comes() {
    let mut world = World::new("abswrong", Pair::Embedded, Own::default()).await;
    let query = world.folder.path().join("movies.graphql");
    let right = std::fs::read_to_string(&query).expect("the query");
    let wrong = right.replacen("title", "tilte", 1);
    assert_ne!(wrong, right);
    std::fs::write(&query, wrong).expect("the query");
    world.stop_service().await;
    world.start();
    assert_waits(&mut world).await;
    changes(&world, "captured").await;
    world.until_captured().await;
    world.start_service_again().await;
    assert_eq!(world.ended().await, 3, "{}", world.log());
    assert!(world.said("tilte") > 0, "{}", world.log());
    std::fs::write(&query, right).expect("the query");
    // With a graph that answers, what is wrong is found before anything starts; with one that does not, it captures on.
    world.faults().set_status(Some(StatusCode::SERVICE_UNAVAILABLE));
    world.start();
    world.until("health says what is answered", async |address| graph_says(address, "503").await).await;
    world.until_captured().await;
    world.faults().set_status(None);
    world.until_documents(MOVIES - 200).await;
    world.assert_converged().await;
}
