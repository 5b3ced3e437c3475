//! What one large record costs from the batch to the reader: a small multiple of it.
//!
//! One test, for it measures the whole process: the highest resident memory since it was last reset.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tributary_transport::{
    Batch, ConsumerSettings, Delivery, Embedded, EmbeddedSettings, Kafka, KafkaSettings, Purpose, Retention, TopicSpec,
    Transport,
};

/// The record.
const RECORD: usize = 32 << 20;

/// Forgets the highest resident memory. (`proc(5)`: `clear_refs`.)
fn reset() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// A line of the process's status, in bytes.
fn status(name: &str) -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap() << 10
}

/// Memory beyond that of `before` that was needed at a time, in records.
fn needed(before: usize) -> f64 {
    status("VmHWM:").saturating_sub(before) as f64 / RECORD as f64
}

/// Text of which some half can be compressed away, and which has `RECORD` bytes.
fn text() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + (state >> 59) as u8 % 16
    };
    (0..RECORD).map(|_| next()).collect()
}

/// How much appending the record and reading it again need, in records.
async fn cost(transport: &dyn Transport, name: &str) -> (f64, f64) {
    let topic: Arc<str> = name.into();
    let retention = Retention::Delete { age: None, bytes: None };
    transport.ensure_topics(&[TopicSpec { name: name.into(), partitions: 1, retention }]).await.unwrap();
    let mut producer = transport.producer(name, Purpose::Source).await.unwrap();
    let mut batch = Batch::new();
    batch.push(&topic, 1, Some(b"k"), Some(&text()));
    reset();
    // The batch itself is the caller's.
    let before = status("VmRSS:");
    producer.append(&batch).await.unwrap();
    let appending = needed(before);
    drop(batch);

    let settings =
        ConsumerSettings { group: name.into(), topics: vec![name.into()], max_records: 100, from_start: true };
    let mut consumer = transport.consumer(settings).await.unwrap();
    reset();
    let before = status("VmRSS:");
    let read = loop {
        if let Delivery::Records(records) = consumer.next().await.unwrap() {
            break records;
        }
    };
    let reading = needed(before);
    assert_eq!(read[0].value.as_ref().map(|value| value.len()), Some(RECORD));
    (appending, reading)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_record_costs_a_small_multiple_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = Embedded::open(folder.path(), EmbeddedSettings::default()).unwrap();
    let embedded = cost(&log, "memory").await;
    drop(log);
    let brokers = std::env::var("TRIBUTARY_TEST_KAFKA").expect("run ./x test: TRIBUTARY_TEST_KAFKA names no broker");
    let settings = KafkaSettings {
        max_record: RECORD + 100,
        checkpoint_topic: "memory.checkpoints".into(),
        ..KafkaSettings::single_broker(brokers)
    };
    let kafka = Kafka::connect(settings).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let name = format!("memory.{:x}.{:x}", now.as_nanos(), std::process::id());
    let kafka = tokio::time::timeout(Duration::from_secs(120), cost(&kafka, &name)).await.expect("it hangs");
    eprintln!("in records: embedded {embedded:.1?}, Kafka {kafka:.1?} (appending, reading)");
    for (appending, reading) in [embedded, kafka] {
        assert!(appending <= 5.0, "appending needs {appending:.1} times the record");
        assert!(reading <= 5.0, "reading needs {reading:.1} times the record");
    }
}
