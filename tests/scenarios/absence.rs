//! The graph lacks roots that are there, without an error; and roots that are really gone, one or thousands.

use serde_json::Value as Json;

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

async fn status(address: &str, index: &str) -> Json {
    client::get(address, &format!("/indexes/{index}")).await.unwrap_or_default()
}

/// Why `/health` says that a part is down.
async fn why_down(address: &str, part: &str) -> String {
    let health = client::get(address, "/health").await.unwrap_or_default();
    health["parts"][part]["why"].as_str().unwrap_or_default().to_owned()
}

async fn title(address: &str, index: &str, id: u32) -> String {
    let document = client::get(address, &format!("/indexes/{index}/documents/{id}")).await.unwrap_or_default();
    document["document"]["title"].as_str().unwrap_or_default().to_owned()
}

async fn letters(address: &str) -> usize {
    client::get(address, "/dead-letters").await.and_then(|l| l.as_array().map(Vec::len)).unwrap_or(usize::MAX)
}

async fn reindex(world: &World) {
    let url = format!("http://{}/indexes/{}/reindex", world.address().expect("it runs"), world.index());
    let answer = reqwest::Client::new().post(url).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
}

/// A list that is cut without a word deletes nobody, and who is really gone is deleted all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_cut() {
    let mut world = World::new("cut", Pair::Embedded, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.faults().cut_movies(7);
    world.execute("UPDATE movie SET title = 'Cut' WHERE id % 20 = 0; DELETE FROM movie WHERE id IN (21, 22, 23)").await;
    reindex(&world).await;
    let before = world.faults().requests();
    let faults = world.faults();
    world.until("documents are asked for", async |_| faults.requests() > before + 100).await;
    world.assert_converged().await;
    let address = world.address().expect("it runs");
    assert_eq!(status(&address, &world.index()).await["documents"], MOVIES - 3);
    assert_eq!(letters(&address).await, 0);
}

/// A graph that says for a while that it has nothing at all costs no document.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_known_for_a_while() {
    let mut world = World::new("denied", Pair::Embedded, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    for restart in [false, true] {
        world.faults().deny_movies(true);
        if restart {
            world.kill();
            world.start();
        }
        world.execute(&format!("UPDATE movie SET title = 'Denied {restart}' WHERE id BETWEEN 10 AND 40")).await;
        world
            .until("health says so", async |address| why_down(address, "graph").await.contains("it has no documents"))
            .await;
        reindex(&world).await;
        let (faults, before, index) = (world.faults(), world.faults().requests(), world.index());
        world
            .until("the graph was asked again and again", async |address| {
                assert_eq!(status(address, &index).await["documents"], MOVIES);
                faults.requests() > before + 20
            })
            .await;
        world.faults().deny_movies(false);
        world.assert_converged().await;
        let address = world.address().expect("it runs");
        assert_eq!(status(&address, &world.index()).await["documents"], MOVIES);
        // Deletes that were held are withdrawn as their documents are built again.
        world.until("no letter is left", async |address| letters(address).await == 0).await;
    }
}

/// A few rows are deleted at once, and thousands wait for a person's word.
async fn many_are_deleted(pair: Pair) {
    let mut world = World::new("brake", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES).await;
    world.execute("DELETE FROM movie WHERE id BETWEEN 31 AND 60").await;
    world.assert_converged().await;
    let (index, left) = (world.index(), MOVIES - 30);
    world.execute("DELETE FROM movie WHERE id BETWEEN 201 AND 1200").await;
    let part = format!("deletes of {index}");
    let waits = async |address: &str| {
        let held = status(address, &index).await["deletes_held"].as_u64().unwrap_or(0);
        held >= 900 && why_down(address, &part).await.contains(&format!("`tributary resume-deletes PIPELINE {index}`"))
    };
    world.until("deletes wait, and health says what may be done", waits).await;
    // Everything else goes on.
    world.execute("UPDATE movie SET title = 'Goes on' WHERE id = 70").await;
    world.until("a change is searchable", async |address| title(address, &index, 70).await == "Goes on").await;
    let documents = status(&world.address().expect("it runs"), &index).await["documents"].as_u64().expect("a count");
    assert!((left - 100..=left).contains(&documents), "{documents}");
    // What waits is not forgotten.
    world.kill();
    world.start();
    world.until("deletes wait after a restart", waits).await;
    let pipeline = world.pipeline().to_str().expect("a path").to_owned();
    let (code, out, err) = world.run(&["resume-deletes", &pipeline, "nosuch"]).await;
    assert!(code == 5 && err.contains(&index), "{out}{err}");
    let (code, out, err) = world.run(&["resume-deletes", &pipeline, &index]).await;
    assert!(code == 0 && out.contains("deletes go on"), "{out}{err}");
    world.assert_converged().await;
    let over = async |address: &str| {
        status(address, &index).await["deletes_held"] == 0
            && letters(address).await == 0
            && why_down(address, &part).await.is_empty()
    };
    world.until("nothing waits any more", over).await;
    let (code, out, err) = world.run(&["resume-deletes", &pipeline]).await;
    assert!(code == 0 && out.contains("no delete waits"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_deleted_embedded() {
    many_are_deleted(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_deleted_kafka_elasticsearch() {
    many_are_deleted(Pair::KafkaElasticsearch).await;
}
