//! Records of tables' topics, or requests for builds, are removed before they were read: the index finds out and converges by itself.

use std::time::Duration;

use tributary_transport::{Embedded, EmbeddedSettings, Kafka, KafkaSettings, TopicPartition, Transport};

use crate::client;
use crate::world::{MOVIES, Own, Pair, World};

/// Removes everything that a topic keeps; how many offsets.
async fn empty(world: &World, pair: Pair, topic: &str) -> u64 {
    let ends = |watermarks: Vec<tributary_transport::Watermarks>| {
        let place = |partition| TopicPartition { topic: topic.into(), partition: partition as u32 };
        watermarks.into_iter().enumerate().map(move |(partition, ends)| (place(partition), ends)).collect::<Vec<_>>()
    };
    let mut removed = 0;
    match pair {
        Pair::Embedded => {
            let log = Embedded::open(world.data().join("log"), EmbeddedSettings::default()).expect("nobody has it");
            for (place, ends) in ends(log.watermarks(topic).await.expect("a topic")) {
                log.trim(&place, ends.high).await.expect("removed");
                removed += ends.high - ends.low;
            }
        }
        _ => {
            let kafka = Kafka::connect(KafkaSettings::single_broker(world.brokers())).expect("settings");
            for (place, ends) in ends(kafka.watermarks(topic).await.expect("a topic")) {
                kafka.trim(&place, ends.high).await.expect("removed");
                removed += ends.high - ends.low;
            }
        }
    }
    removed
}

/// Changes are captured while the graph is away, and are gone before it comes back.
async fn events_are_gone(pair: Pair) {
    let mut world = World::new("gone", pair, Own::default()).await;
    world.start();
    world.until_documents(MOVIES - 200).await;
    world.assert_converged().await;
    world.kill();
    world.stop_service().await;
    world.start();
    world.execute("UPDATE movie SET title = 'never read' WHERE id BETWEEN 10 AND 400").await;
    world.execute("UPDATE distributor SET name = 'never read' WHERE id = 2").await;
    world.execute("DELETE FROM movie WHERE id BETWEEN 300 AND 310").await;
    world.until_captured().await;
    world.kill();
    for table in ["public.movie", "public.distributor"] {
        assert!(empty(&world, pair, &world.topic(table)).await > 0, "{table}");
    }
    world.start_service_again().await;
    world.start();
    let part = format!("index {}", world.index());
    let told = async |address: &str| {
        let metrics = client::text(address, "/metrics").await.unwrap_or_default();
        metrics.lines().any(|line| line.starts_with("tributary_repairs_total") && !line.ends_with(" 0"))
    };
    world.until("the loss is noticed", told).await;
    world.assert_converged().await;
    assert!(world.said("were removed before they were read") > 0, "{part}: {}", world.log());
    // It is dealt with, once and for all.
    world.kill();
    world.start();
    world.execute("UPDATE movie SET title = 'read' WHERE id = 20").await;
    world.assert_converged().await;
    assert_eq!(world.said("were removed before they were read"), 0, "{}", world.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_gone_embedded() {
    events_are_gone(Pair::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_gone_kafka_elasticsearch() {
    events_are_gone(Pair::KafkaElasticsearch).await;
}

/// The requests of a first build are removed while it is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_gone() {
    let pair = Pair::KafkaElasticsearch;
    let mut world = World::new("requests", pair, Own::default()).await;
    world.faults().set_delay(Duration::from_secs(2));
    world.start();
    world.until_documents(1).await;
    world.kill();
    let topic = format!("{0}.{0}.builds-bulk", world.name);
    assert!(empty(&world, pair, &topic).await > MOVIES - 200);
    world.faults().set_delay(Duration::ZERO);
    world.start();
    world.until_documents(MOVIES - 200).await;
    world.assert_converged().await;
    assert!(world.said("were removed before they were read") > 0, "{}", world.log());
}
