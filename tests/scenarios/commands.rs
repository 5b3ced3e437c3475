//! The commands beside `run`, while a pipeline runs and while none does, and their exit codes.

use crate::world::{MOVIES, Own, Pair, World};

/// Exit code, and what was said on either output.
async fn said(world: &World, arguments: &[&str]) -> (i32, String) {
    let (code, out, err) = world.run(arguments).await;
    (code, out + &err)
}

/// The commands that read, of which a running pipeline answers, or else the stores themselves.
async fn reads(world: &World) {
    let (pipeline, index) = (world.pipeline().to_str().expect("a path").to_owned(), world.index());
    let (code, text) = said(world, &["get", &pipeline, &index, "5"]).await;
    let document: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    assert_eq!((code, document["document"]["id"].as_str()), (0, Some("5")), "{text}");
    let (code, text) = said(world, &["get", &pipeline, &index, "999999"]).await;
    assert!(code == 5 && text.contains("999999"), "{code}: {text}");
    let (code, text) = said(world, &["search", &pipeline, &index, "title:star"]).await;
    assert!(code == 0 && text.contains(" found\n") && !text.starts_with("0 found"), "{code}: {text}");
    let (code, text) = said(world, &["search", &pipeline, "nosuch", "title:star"]).await;
    assert!(code == 5 && text.contains(&index), "{code}: {text}");
    let (code, out, err) = world.run(&["dlq", "list", &pipeline]).await;
    assert_eq!((code, out.trim()), (0, "no dead letters"), "{err}");
    let (code, text) = said(world, &["dlq", "show", &pipeline, "nosuch/1"]).await;
    assert_eq!(code, 5, "{text}");
}

async fn with_and_without_a_running_pipeline(pair: Pair) {
    let mut world = World::new("commands", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.assert_converged().await;
    reads(&world).await;
    let address = world.address().expect("it runs");
    let metrics = reqwest::get(format!("http://{address}/metrics")).await.expect("metrics").text().await.expect("text");
    for name in
        ["tributary_documents_total", "tributary_connector_events_total", "tributary_connector_wal_retained_bytes"]
    {
        assert!(metrics.contains(name), "{name} is not in:\n{metrics}");
    }
    world.kill();
    // What is in the index is read without the graph.
    world.stop_service().await;
    reads(&world).await;
    world.start_service_again().await;

    // Nobody runs: the command builds everything itself, and ends.
    world.execute("UPDATE movie SET title = 'Changed meanwhile' WHERE id = 7; DELETE FROM movie WHERE id = 8").await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let (code, text) = said(&world, &["reindex", &pipeline]).await;
    assert!(code == 0 && text.contains("documents"), "{code}: {text}");
    let (_, text) = said(&world, &["get", &pipeline, &world.index(), "7"]).await;
    assert!(text.contains("Changed meanwhile"), "{text}");
    world.start();
    world.assert_converged().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    with_and_without_a_running_pipeline(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_elasticsearch() {
    with_and_without_a_running_pipeline(Pair::KafkaElasticsearch).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drawings_completions_and_exit_codes() {
    let mut world = World::new("codes", Pair::Embedded, Own::default()).await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    for (format, word) in [("mermaid", "flowchart"), ("dot", "digraph")] {
        let (code, text) = said(&world, &["graph", &pipeline, "--format", format]).await;
        assert!(code == 0 && text.contains(word) && text.contains("public.movie"), "{code}: {text}");
    }
    let (code, text) = said(&world, &["schema"]).await;
    let documented = include_str!("../../docs/pipeline.schema.json");
    assert!(code == 0 && text == documented, "{code}: `schema` prints another schema than docs/ has:\n{text}");
    for shell in ["bash", "zsh", "fish"] {
        let (code, text) = said(&world, &["completions", shell]).await;
        assert!(code == 0 && text.contains("reindex"), "{shell} {code}");
    }
    let (code, text) = said(&world, &["frobnicate"]).await;
    assert!(code == 2 && text.contains("frobnicate"), "{code}: {text}");
    let (code, text) = said(&world, &["--help"]).await;
    assert!(code == 0 && text.contains("4 a server could not be reached"), "{code}: {text}");
    world.stop_service().await;
    let (code, text) = said(&world, &["check", &pipeline]).await;
    assert_eq!(code, 4, "{text}");
}
