//! What only the embedded log has: retention, compaction, crashes, one owner.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tributary_event::ErrorClass;
use tributary_transport::partition::partition_for_key;
use tributary_transport::{
    Batch, Checkpoint, Consumer, Delivery, Embedded, EmbeddedSettings, Purpose, Retention, TopicPartition, TopicSpec,
    Transport, record_limit,
};

use crate::tools::{Bench, assigned, embedded, next, records, values};

fn settings() -> EmbeddedSettings {
    EmbeddedSettings { check_every: Duration::from_millis(20), compact_from: Some(0), ..EmbeddedSettings::default() }
}

fn bench(directory: &Path, settings: EmbeddedSettings) -> Bench {
    Bench::new(Arc::new(Embedded::open(directory, settings).unwrap()), "embedded")
}

fn place(topic: &Arc<str>) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: 0 }
}

/// Waits until a condition holds.
async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the condition never held");
}

#[tokio::test]
async fn old_records_are_removed_by_age() {
    let directory = tempfile::tempdir().unwrap();
    let bench = bench(directory.path(), settings());
    let age = Retention::Delete { age: Some(Duration::from_millis(1)), bytes: None };
    let topic = bench.topic_with("t", 1, age).await;
    let mut producer = bench.producer().await;
    bench.append(&mut producer, &topic, &[("a", "1"), ("b", "2")]).await;
    until(|| async { bench.transport.watermarks(&topic).await.unwrap()[0].low == 2 }).await;
    assert!(bench.all(&topic).await.is_empty());
    assert_eq!(bench.transport.watermarks(&topic).await.unwrap()[0].high, 2);
}

#[tokio::test]
async fn old_records_are_removed_by_size_and_the_newest_stay() {
    let directory = tempfile::tempdir().unwrap();
    let bench = bench(directory.path(), EmbeddedSettings { compress: false, ..settings() });
    let size = Retention::Delete { age: None, bytes: Some(50_000) };
    let topic = bench.topic_with("t", 1, size).await;
    let mut producer = bench.producer().await;
    let value = "x".repeat(1000);
    for n in 0..200 {
        bench.append(&mut producer, &topic, &[(&n.to_string(), &value)]).await;
    }
    until(|| async { bench.transport.watermarks(&topic).await.unwrap()[0].low >= 140 }).await;
    let ends = bench.transport.watermarks(&topic).await.unwrap()[0];
    let kept = bench.all(&topic).await;
    // More may have been removed since.
    assert!(kept[0].offset >= ends.low);
    assert_eq!(kept.len() as u64, ends.high - kept[0].offset);
    assert!(kept.iter().map(|record| record.value.as_ref().unwrap().len()).sum::<usize>() >= 45_000);
    assert_eq!(kept.last().unwrap().offset, 199);
}

/// What is not read is kept while the disk has room, and the removal of what is not kept is told.
#[tokio::test]
async fn records_that_a_group_has_not_read_stay_while_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let log = bench(directory.path(), EmbeddedSettings { keep_free: 0, ..settings() });
    let age = Retention::Delete { age: Some(Duration::from_millis(1)), bytes: Some(1) };
    let topic = log.topic_with("t", 1, age.clone()).await;
    let mut consumer = log.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    log.append_each(&topic, &["0", "1", "2", "3", "4", "5", "6", "7"]).await;
    // Of a topic that nobody reads nothing is kept, which shows that the janitor was there.
    let other = log.topic_with("other", 1, age).await;
    let rounds = async |bench: &Bench| {
        for _ in 0..3 {
            bench.append_each(&other, &["x"]).await;
            let removed = || async {
                let ends = bench.transport.watermarks(&other).await.unwrap()[0];
                ends.low == ends.high
            };
            until(removed).await;
        }
    };
    let low = async |bench: &Bench| bench.transport.watermarks(&topic).await.unwrap()[0].low;
    rounds(&log).await;
    assert_eq!(low(&log).await, 0, "a group reads it, and has committed nothing");
    records(&mut consumer, 8).await;
    consumer.commit(&[(place(&topic), 5)]).await.unwrap();
    until(|| async { low(&log).await == 5 }).await;
    // Also when it is not there.
    drop(consumer);
    rounds(&log).await;
    assert_eq!(low(&log).await, 5);
    let name = topic.to_string();
    drop(log);

    let full = EmbeddedSettings { keep_free: u64::MAX, ..settings() };
    let log = Embedded::open(directory.path(), full).unwrap();
    until(|| async { log.watermarks(&name).await.unwrap()[0].low == 8 }).await;
}

#[tokio::test]
async fn a_compact_topic_keeps_the_last_record_of_every_key() {
    let directory = tempfile::tempdir().unwrap();
    let settings = EmbeddedSettings { keep_tombstones: Duration::ZERO, ..settings() };
    let bench = bench(directory.path(), settings);
    let topic = bench.topic_with("t", 1, Retention::Compact).await;
    let mut producer = bench.producer().await;
    for round in 0..50 {
        let value = round.to_string();
        bench.append(&mut producer, &topic, &[("a", &value), ("b", &value), ("c", &value)]).await;
    }
    let mut batch = Batch::new();
    batch.push(&topic, 1, Some(b"b"), None);
    producer.append(&batch).await.unwrap();
    // Compaction starts when half may be stale, so appending goes on until it has run after the tombstone.
    let mut appended = 151;
    let left = loop {
        bench.append(&mut producer, &topic, &[("a", "last"), ("c", "last")]).await;
        appended += 2;
        let left = bench.transport.read(&place(&topic), 0, usize::MAX).await.unwrap();
        if left.iter().all(|record| record.key.as_deref() != Some(b"b")) {
            break left;
        }
        assert!(appended < 100_000, "nothing was compacted");
    };
    assert!(left.len() < 151, "{}", left.len());
    assert!(left.is_sorted_by_key(|record| record.offset));
    let last = |key: &[u8]| values(&left[left.iter().rposition(|r| r.key.as_deref() == Some(key)).unwrap()..][..1]);
    assert_eq!((last(b"a"), last(b"c")), (vec!["last".to_owned()], vec!["last".to_owned()]));
    assert_eq!(bench.transport.watermarks(&topic).await.unwrap()[0].high, appended);

    // A group reads over the gaps, and offsets go on behind them.
    bench.append(&mut producer, &topic, &[("d", "new")]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    let newest = loop {
        let read = records(&mut consumer, 1).await;
        if let Some(record) = read.into_iter().find(|record| record.key.as_deref() == Some(b"d")) {
            break record;
        }
    };
    assert_eq!(newest.offset, appended);
}

#[tokio::test]
async fn the_log_is_the_same_after_it_was_closed_and_opened() {
    let directory = tempfile::tempdir().unwrap();
    let first = bench(directory.path(), settings());
    let topic = first.topic("t", 2).await;
    let mut producer = first.producer().await;
    first.append(&mut producer, &topic, &[("a", "1"), ("b", "2"), ("c", "3")]).await;
    let before = first.all(&topic).await;
    drop(producer);
    drop(first);
    let again = bench(directory.path(), settings());
    assert_eq!(again.all(&topic).await, before);
    let mut producer = again.producer().await;
    again.append(&mut producer, &topic, &[("a", "4")]).await;
    assert_eq!(again.all(&topic).await.len(), 4);
}

#[tokio::test]
async fn a_second_owner_is_told_who_has_the_folder() {
    let directory = tempfile::tempdir().unwrap();
    let _owner = embedded(directory.path());
    let Err(error) = Embedded::open(directory.path(), EmbeddedSettings::default()) else { panic!("two owners") };
    assert_eq!(error.class, ErrorClass::Fatal);
    let text = error.to_string();
    assert!(text.contains(&directory.path().display().to_string()) && text.contains("this very process"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_taken_away_during_a_read_is_given_up_at_once_and_what_was_read_is_dropped() {
    let directory = tempfile::tempdir().unwrap();
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let begun = Arc::new(AtomicU32::new(0));
    let counted = begun.clone();
    let hook = move |_: &TopicPartition| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = wait.lock().unwrap().recv();
    };
    let log = Embedded::open_slow(directory.path(), settings(), Box::new(hook)).unwrap();
    let bench = Bench::new(Arc::new(log), "taken");
    let topic = bench.topic("t", 2).await;
    let mut first = bench.consumer(&topic, true).await;
    assert_eq!(assigned(&mut first).await.len(), 2);
    let revoked = async |consumer: &mut Box<dyn Consumer>| match next(consumer).await {
        Delivery::Revoked(places) => places[0].clone(),
        other => panic!("{other:?}"),
    };
    // Which one a second member gets.
    let second = bench.consumer(&topic, true).await;
    let moving = revoked(&mut first).await;
    drop(second);
    assert_eq!(assigned(&mut first).await, std::slice::from_ref(&moving));

    let key_of = |partition| (0..).map(|n| n.to_string()).find(|k| partition_for_key(k.as_bytes(), 2) == partition);
    let (moves, stays) = (key_of(moving.partition).unwrap(), key_of(1 - moving.partition).unwrap());
    let mut producer = bench.producer().await;
    bench.append(&mut producer, &topic, &[(&moves, "moves")]).await;
    for _ in 0..10 {
        let waited = tokio::time::timeout(Duration::from_millis(5), first.next()).await;
        assert!(waited.is_err(), "{waited:?}");
    }
    let mut second = bench.consumer(&topic, true).await;
    assert_eq!(revoked(&mut first).await, moving);
    assert_eq!(begun.load(Ordering::SeqCst), 1);
    bench.append(&mut producer, &topic, &[(&stays, "stays")]).await;
    drop(release);
    assert_eq!(values(&records(&mut first, 1).await), ["stays"]);
    assert_eq!(values(&records(&mut second, 1).await), ["moves"]);
}

#[tokio::test]
async fn a_record_above_the_limit_is_refused_and_nothing_of_its_batch_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let bench = bench(directory.path(), EmbeddedSettings { max_record: 100_000, ..settings() });
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    let limit = record_limit(100_000);
    for (length, fits) in [(limit - 1, true), (limit, false)] {
        let mut batch = Batch::new();
        batch.push(&topic, 1, Some(b"k"), Some(b"before"));
        batch.push(&topic, 1, Some(b"k"), Some(&vec![b'x'; length]));
        let appended = producer.append(&batch).await;
        assert_eq!(appended.is_ok(), fits, "{length}");
        if let Err(error) = appended {
            assert_eq!(error.class, ErrorClass::Definite);
            let text = error.to_string();
            assert!(text.contains(&format!("{} bytes", length + 1)) && text.contains("max_record"), "{text}");
        }
    }
    assert_eq!(bench.all(&topic).await.len(), 2);
}

const CHILD: &str = "TRIBUTARY_TEST_CHILD_DIRECTORY";
const BATCH: u64 = 50;

/// Not a test by itself: the process that [`every_acknowledged_batch_survives_a_kill`] kills.
#[tokio::test(flavor = "multi_thread")]
async fn child_that_appends_until_it_is_killed() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let log = embedded(Path::new(&directory));
    let topic: Arc<str> = "t".into();
    let retention = Retention::Delete { age: None, bytes: None };
    log.ensure_topics(&[TopicSpec { name: "t".into(), partitions: 3, retention }]).await.unwrap();
    let mut producer = log.producer("child", Purpose::Source).await.unwrap();
    let last = log.checkpoint("place").await.unwrap();
    let mut n: u64 = last.map_or(0, |content| String::from_utf8(content.to_vec()).unwrap().parse().unwrap());
    loop {
        let mut batch = Batch::new();
        for i in 0..BATCH {
            let key = (n * BATCH + i).to_string();
            batch.push(&topic, 1, Some(key.as_bytes()), Some("v".repeat(200 + i as usize).as_bytes()));
        }
        n += 1;
        batch.checkpoint = Some(Checkpoint { name: "place".into(), content: n.to_string().into() });
        producer.append(&batch).await.unwrap();
        // The harness captures what is printed by macros, so this goes to the stream itself.
        use std::io::Write;
        let mut out = std::io::stdout().lock();
        writeln!(out, "acknowledged {n}").unwrap();
        out.flush().unwrap();
    }
}

#[tokio::test]
async fn every_acknowledged_batch_survives_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 0..6_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "embedded::child_that_appends_until_it_is_killed", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let goal = acknowledged + 3 + round * 7;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let Some(n) = line.split("acknowledged ").nth(1) else { continue };
            acknowledged = n.parse().unwrap();
            if acknowledged >= goal {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let bench = bench(directory.path(), EmbeddedSettings::default());
        let place = bench.transport.checkpoint("place").await.unwrap().unwrap();
        let batches: u64 = String::from_utf8(place.to_vec()).unwrap().parse().unwrap();
        assert!(batches >= acknowledged, "{batches} < {acknowledged}");
        let mut keys: Vec<u64> = bench
            .all(&"t".into())
            .await
            .iter()
            .map(|record| String::from_utf8(record.key.as_ref().unwrap().to_vec()).unwrap().parse().unwrap())
            .collect();
        keys.sort();
        assert_eq!(keys, (0..batches * BATCH).collect::<Vec<u64>>());
        acknowledged = batches;
    }
}
