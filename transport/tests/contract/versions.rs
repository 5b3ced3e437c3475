//! Brokers of other versions: every version of each request that our protocol speaks, and what becomes of one that it does not.

use std::sync::Arc;

use tributary_transport::{Checkpoint, Kafka, KafkaSettings, Retention, TopicSpec};

use crate::outage::{Proxy, Told, behind_a_proxy};
use crate::tools::{Bench, values};

const INIT_PRODUCER_ID: i16 = 22;

/// The first and the last version of each request that our protocol speaks, but for those of logins.
const SPOKEN: [(i16, i16, i16); 7] =
    [(0, 7, 11), (3, 5, 13), (10, 1, 6), (INIT_PRODUCER_ID, 3, 5), (24, 1, 3), (26, 1, 4), (44, 0, 1)];

async fn append(bench: &Bench, topic: &Arc<str>, value: &str) {
    let mut producer = bench.producer().await;
    // Both identities of the producer have their turn.
    for n in 0..2 {
        let value = format!("{value}.{n}");
        let mut batch = tributary_transport::Batch::new();
        batch.push(topic, 1, Some(b"k"), Some(value.as_bytes()));
        batch.checkpoint = Some(Checkpoint { name: bench.name("position"), content: value.clone().into() });
        producer.append(&batch).await.unwrap();
        let position = bench.transport.checkpoint(&bench.name("position")).await.unwrap();
        assert_eq!(position.as_deref(), Some(value.as_bytes()));
    }
}

/// librdkafka's clients are not to be taken for our protocol.
fn settings(proxy: &Proxy, max_record: usize) -> KafkaSettings {
    let properties = [("client.id".to_owned(), "somebody".to_owned())].into();
    KafkaSettings { max_record, properties, ..KafkaSettings::single_broker(proxy.address.clone()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kafka_is_spoken_to_in_every_version_that_we_say_we_speak() {
    let (proxy, _broker) = behind_a_proxy().await;
    let retention = Retention::Delete { age: None, bytes: None };
    let versions = SPOKEN.iter().map(|(_, first, last)| last - first + 1).max().unwrap();
    for n in 0..versions {
        // The topics are made by who knows nothing of larger records yet.
        let before = Bench::new(Arc::new(Kafka::connect(settings(&proxy, 100_000)).unwrap()), "versions");
        let topic = before.topic_with("t", 1, retention.clone()).await;
        let last = SPOKEN.iter().map(|(api, first, last)| (*api, (first + n).min(*last))).collect();
        *proxy.told.lock().unwrap() = Told { last, ..Told::default() };

        let bench = Bench::new(Arc::new(Kafka::connect(settings(&proxy, 200_000)).unwrap()), "versions");
        let spec = TopicSpec { name: topic.to_string(), partitions: 1, retention: retention.clone() };
        bench.transport.ensure_topics(&[spec]).await.unwrap();
        append(&bench, &topic, &n.to_string()).await;
        assert_eq!(values(&bench.all(&topic).await), [format!("{n}.0"), format!("{n}.1")]);
        let told = std::mem::take(&mut *proxy.told.lock().unwrap());
        for (api, first, _) in SPOKEN {
            let asked: Vec<i16> = told.asked[&(true, api)].iter().copied().collect();
            assert_eq!(asked.len(), 1, "{api}: {asked:?}");
            if std::env::var("TRIBUTARY_TEST_KAFKA_VERSION").is_err() {
                assert_eq!(asked, [told.last[&api]], "{api}");
            }
            assert!((first..=told.last[&api]).contains(&asked[0]), "{api}: {asked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_our_protocol_cannot_be_spoken_to_is_appended_to_through_librdkafka() {
    let (proxy, _broker) = behind_a_proxy().await;
    // Our own needs one that tells the identity which is given up; librdkafka does without.
    proxy.told.lock().unwrap().last = [(INIT_PRODUCER_ID, 2)].into();
    let bench = Bench::new(Arc::new(Kafka::connect(settings(&proxy, 100_000)).unwrap()), "old");
    let topic = bench.topic("t", 1).await;
    append(&bench, &topic, "old").await;
    assert_eq!(values(&bench.all(&topic).await), ["old.0", "old.1"]);
    let told = proxy.told.lock().unwrap();
    assert_eq!(told.asked[&(false, INIT_PRODUCER_ID)].iter().copied().collect::<Vec<_>>(), [2]);
    assert!(!told.asked.contains_key(&(true, INIT_PRODUCER_ID)));
}
