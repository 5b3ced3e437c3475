//! The process is killed in the middle of its work, several times.

use std::collections::HashSet;
use std::time::Duration;

use crate::world::topics::records;
use crate::world::{MOVIES, Own, Pair, World};

async fn killed_in_a_burst(pair: Pair) {
    let mut world = World::new("kill", pair, Own::default()).await;
    world.start();
    for round in 0..5_u64 {
        // The first rounds hit the first build, the later ones the burst.
        world.until_documents([1, 300, 700, 1000, 1000][round as usize]).await;
        for i in 0..200_u64 {
            let id = 1 + (round * 613 + i * 17) % (MOVIES - 1);
            world.execute(&format!("UPDATE movie SET title = 'Round {round}', imdb_votes = {i} WHERE id = {id}")).await;
            if i % 40 == 0 {
                world.execute(&format!("UPDATE distributor SET name = 'D{round}-{i}' WHERE id = {}", 1 + i % 30)).await;
                world.execute(&format!("DELETE FROM movie WHERE id = {}", 1 + (round * 97 + i) % (MOVIES - 1))).await;
            }
        }
        world.kill();
        world.execute(&format!("UPDATE genre SET name = 'G{round}' WHERE id = {}", round + 1)).await;
        tokio::time::sleep(Duration::from_millis(round * 20)).await;
        world.start();
    }
    world.assert_converged().await;
    if pair == Pair::KafkaElasticsearch {
        assert_each_change_once(&world).await;
    }
}

/// No change is in its topic twice for those who read what was committed.
async fn assert_each_change_once(world: &World) {
    let transport = world.transport(Pair::KafkaElasticsearch);
    let mut seen = HashSet::new();
    let records = records(transport.as_ref(), &world.topic("public.movie")).await;
    for value in records.iter().flatten().filter_map(|record| record.value.as_deref()) {
        let event: serde_json::Value = serde_json::from_slice(value).expect("JSON");
        let place = (event["transaction"]["id"].to_string(), event["transaction"]["total_order"].as_u64());
        assert!(seen.insert(place), "twice: {event}");
    }
    assert!(seen.len() > 900, "only {} changes", seen.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded() {
    killed_in_a_burst(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_elasticsearch() {
    killed_in_a_burst(Pair::KafkaElasticsearch).await;
}
