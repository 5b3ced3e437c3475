//! Topics of Kafka that are deleted and made again, while the pipeline runs and while it does not: who reads them says so, and begins with
//! the first record of the new one, however long that is.

use serde_json::Value as Json;
use tributary_transport::{Batch, Kafka, KafkaSettings, Retention, TopicSpec, Transport};

use crate::client;
use crate::world::topics::records;
use crate::world::{MOVIES, Own, Pair, World};

fn kafka(world: &World) -> Kafka {
    Kafka::connect(KafkaSettings::single_broker(world.brokers())).expect("settings")
}

/// Deletes a topic, and returns when it is gone.
async fn delete(brokers: &Kafka, topic: &str) {
    let before = brokers.topic_id(topic).await.expect("an identity");
    brokers.delete_topic(topic).await.expect("deleted");
    let gone = async {
        while brokers.topic_id(topic).await.ok() == Some(before) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), gone).await.expect("the topic is gone");
}

/// Makes a topic of so many partitions with these numbers, and deletes it before if it is there.
async fn make(world: &World, topic: &str, partitions: u32, numbers: std::ops::Range<u32>) {
    let kafka = kafka(world);
    let before = kafka.topic_id(topic).await.ok();
    if before.is_some() {
        kafka.delete_topic(topic).await.expect("deleted");
    }
    let retention = Retention::Delete { age: None, bytes: None };
    let spec = TopicSpec { name: topic.to_owned(), partitions, retention };
    let made = async {
        // The broker may not have heard of one or the other yet.
        while kafka.ensure_topics(std::slice::from_ref(&spec)).await.is_err()
            || kafka.topic_id(topic).await.ok().is_none_or(|now| Some(now) == before)
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), made).await.expect("the topic is made");
    append(world, topic, numbers).await;
}

async fn append(world: &World, topic: &str, numbers: std::ops::Range<u32>) {
    let mut appender = kafka(world).appender().await.expect("an appender");
    for number in numbers {
        let mut batch = Batch::new();
        let value = format!("{{\"n\":{number}}}");
        batch.push(&topic.into(), 1_000 + i64::from(number), Some(b"k"), Some(value.as_bytes()));
        appender.append(&batch).await.expect("appended");
    }
}

async fn numbers(world: &World, topic: &str) -> Vec<u64> {
    let found = records(&kafka(world), topic).await;
    let number = |value: &[u8]| serde_json::from_slice::<Json>(value).ok()?["n"].as_u64();
    found.iter().flatten().filter_map(|record| number(record.value.as_deref()?)).collect()
}

/// How often the stream said that it lacks something.
async fn lost(address: &str) -> bool {
    let metrics = client::text(address, "/metrics").await.unwrap_or_default();
    metrics.lines().any(|line| line.starts_with("tributary_stream_lost_records_total") && !line.ends_with(" 0"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_input_of_a_stream() {
    let mut world = World::new("remade", Pair::KafkaElasticsearch, Own::default()).await;
    let (input, output) = (format!("in-{}", world.name), format!("out-{}", world.name));
    let text = std::fs::read_to_string(world.pipeline()).expect("the pipeline");
    let head = text.split_once("\ngraph:").expect("a graph").0;
    let tail = text.split_once("\nhttp:").expect("a listener").1;
    let stream = format!(
        "streams:\n  copies:\n    from: {{ topic: {input} }}\n    start: first\n    to: [{{ topic: {{ name: {output}, headers: cloudevents }} }}]\n"
    );
    std::fs::write(world.pipeline(), format!("{head}\n{stream}\nhttp:{tail}")).expect("the pipeline");
    make(&world, &input, 1, 0..3).await;
    world.start();
    let brokers = kafka(&world);
    let has = async |count: usize| records(&brokers, &output).await.iter().flatten().count() >= count;
    world.until("what was there came", async |_: &str| has(3).await).await;
    // As long as the one before, so that no offset tells.
    make(&world, &input, 1, 3..6).await;
    world.until("what the new topic has came", async |_: &str| has(6).await).await;
    world.until("it says what it lacks", lost).await;
    assert!(world.said("deleted and made again") > 0, "{}", world.log());
    world.kill();
    make(&world, &input, 1, 6..9).await;
    world.start();
    world.until("what the newest topic has came", async |_: &str| has(9).await).await;
    world.until("it says what it lacks", lost).await;
    assert_eq!(numbers(&world, &output).await, (0..9).collect::<Vec<_>>());
    let first = records(&brokers, &output).await.into_iter().flatten().next().expect("a record");
    let header = |name| first.headers.view().get(name).map(|value| String::from_utf8_lossy(value).into_owned());
    assert_eq!(header("ce_specversion").as_deref(), Some("1.0"));
    assert_eq!(header("ce_time").as_deref(), Some("1970-01-01T00:00:01.000000Z"));
    assert_eq!(header("ce_id"), Some(format!("{input}-0-0")));
    // Once it was dealt with, nothing is lacking.
    world.stop_process(0).await;
    world.start();
    let idle = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        health["parts"]["stream copies"]["state"] == "up"
    };
    world.until("the stream is up", idle).await;
    assert_eq!(numbers(&world, &output).await.len(), 9);
    // Where it writes: what comes while there is no such topic waits, and is in the new one once.
    // What is written meanwhile is deleted with it.
    delete(&brokers, &output).await;
    append(&world, &input, 9..12).await;
    let waits = async |address: &str| {
        let health = client::get(address, "/health").await.unwrap_or_default();
        let part = &health["parts"]["stream copies"];
        part["state"] == "down" && part["why"].as_str().is_some_and(|why| why.contains(&output))
    };
    world.until("the stream says which topic it lacks", waits).await;
    make(&world, &output, 3, 0..0).await;
    world.until("what waited came", async |_: &str| has(3).await).await;
    append(&world, &input, 12..14).await;
    world.until("what follows came", async |_: &str| has(5).await).await;
    world.until("the stream is up again", idle).await;
    world.stop_process(0).await;
    assert_eq!(numbers(&world, &output).await, (9..14).collect::<Vec<_>>());
}

/// The topic of a table that an index reads, while nobody runs: the index is listed anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_topic_of_a_table() {
    let mut world = World::new("remade-table", Pair::KafkaElasticsearch, Own::default()).await;
    world.edit_pipeline("      tables:\n", "      cloudevents: on\n      tables:\n");
    world.start();
    world.until_documents(MOVIES - 200).await;
    world.execute("UPDATE movie SET title = 'read' WHERE id < 20").await;
    world.assert_converged().await;
    world.kill();
    world.stop_service().await;
    world.start();
    world.execute("UPDATE movie SET title = 'never read' WHERE id BETWEEN 10 AND 400").await;
    world.until_captured().await;
    world.kill();
    let brokers = kafka(&world);
    let topic = world.topic("public.movie");
    // Every event there says who it is.
    let events = records(&brokers, &topic).await;
    let source = topic.split('.').next().unwrap_or_default();
    for record in events.iter().flatten().filter(|record| record.value.is_some()) {
        let json: Json = serde_json::from_slice(record.value.as_deref().unwrap_or_default()).expect("JSON");
        let header = |name| record.headers.view().get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        assert_eq!(header("ce_id"), json["sequence"].as_u64().map(|number| number.to_string()));
        assert_eq!(header("ce_source"), Some(format!("/{}/{source}", world.name)));
        assert_eq!(
            (header("ce_type").as_deref(), header("ce_op").as_deref()),
            (Some("public.movie"), json["op"].as_str())
        );
        assert!(header("ce_time").is_some_and(|time| time.ends_with('Z')));
    }
    assert!(events.iter().map(Vec::len).sum::<usize>() > 300);
    delete(&brokers, &topic).await;
    world.start_service_again().await;
    world.start();
    let told = async |address: &str| {
        let metrics = client::text(address, "/metrics").await.unwrap_or_default();
        metrics.lines().any(|line| line.starts_with("tributary_repairs_total") && !line.ends_with(" 0"))
    };
    world.until("the loss is noticed", told).await;
    world.assert_converged().await;
    assert!(world.said("was deleted and made again") > 0, "{}", world.log());
    world.kill();
    world.start();
    world.execute("UPDATE movie SET title = 'read again' WHERE id = 20").await;
    world.assert_converged().await;
    assert_eq!(world.said("was deleted and made again"), 0, "{}", world.log());
}
