//! Failures of the disk: a backend that can be told to be full, and bytes that were changed.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{Database, ReadableTable, StorageBackend, backends::FileBackend};
use tributary_event::ErrorClass;

use super::store::{self, Store};
use super::{Embedded, EmbeddedSettings};
use crate::contract::{Batch, Checkpoint, Purpose, Retention, TopicPartition, TopicSpec, Transport};

/// A file on a disk that may be full.
#[derive(Debug)]
struct Disk {
    file: FileBackend,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> std::io::Result<()> {
        match self.full.load(Ordering::SeqCst) {
            true => Err(std::io::Error::from(std::io::ErrorKind::StorageFull)),
            false => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.room()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.room()?;
        self.file.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.file.close()
    }
}

struct Bench {
    _directory: tempfile::TempDir,
    full: Arc<AtomicBool>,
    free: Arc<AtomicU64>,
    log: Embedded,
    topic: Arc<str>,
}

async fn bench() -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let full = Arc::new(AtomicBool::new(false));
    let path: PathBuf = directory.path().join("log.redb");
    let opener = {
        let full = full.clone();
        Box::new(move || {
            let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let file = FileBackend::new(file.map_err(redb::StorageError::from)?)?;
            Database::builder().create_with_backend(Disk { file, full: full.clone() })
        })
    };
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let space = free.clone();
    let space = Box::new(move |_: &std::path::Path| Some(space.load(Ordering::SeqCst)));
    let store = Store::open_with(directory.path(), opener, space).unwrap();
    let log = Embedded::start(store, EmbeddedSettings::default(), None).unwrap();
    let retention = Retention::Delete { age: None, bytes: None };
    log.ensure_topics(&[TopicSpec { name: "t".into(), partitions: 1, retention }]).await.unwrap();
    Bench { _directory: directory, full, free, log, topic: "t".into() }
}

impl Bench {
    fn batch(&self, n: u64) -> Batch {
        let mut batch = Batch::new();
        for i in 0..100 {
            batch.push(&self.topic, 1, Some(format!("{i}").as_bytes()), Some(n.to_string().as_bytes()));
        }
        batch.checkpoint = Some(Checkpoint { name: "place".into(), content: n.to_string().into() });
        batch
    }

    async fn count(&self) -> usize {
        let place = TopicPartition { topic: self.topic.clone(), partition: 0 };
        self.log.read(&place, 0, usize::MAX).await.unwrap().len()
    }

    async fn checkpoint(&self) -> String {
        let content = self.log.checkpoint("place").await.unwrap().unwrap();
        String::from_utf8(content.to_vec()).unwrap()
    }
}

#[tokio::test]
async fn a_full_disk_is_transient_and_appending_goes_on_when_there_is_space() {
    let bench = bench().await;
    let mut producer = bench.log.producer("p", Purpose::Source).await.unwrap();
    producer.append(&bench.batch(1)).await.unwrap();
    bench.free.store(1000, Ordering::SeqCst);
    for _ in 0..3 {
        let error = producer.append(&bench.batch(2)).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient);
        let text = error.to_string();
        assert!(text.contains("full") && text.contains("free space"), "{text}");
        assert!(text.contains(&bench._directory.path().display().to_string()), "{text}");
        assert_eq!((bench.count().await, bench.checkpoint().await), (100, "1".to_owned()));
    }
    bench.free.store(u64::MAX, Ordering::SeqCst);
    producer.append(&bench.batch(2)).await.unwrap();
    assert_eq!((bench.count().await, bench.checkpoint().await), (200, "2".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_appends_waits_for_a_disk_that_refuses_writes_and_nothing_is_lost_or_twice() {
    let bench = bench().await;
    let mut producer = bench.log.producer("p", Purpose::Source).await.unwrap();
    producer.append(&bench.batch(1)).await.unwrap();
    bench.full.store(true, Ordering::SeqCst);
    let batch = bench.batch(2);
    let appending = tokio::spawn(async move {
        // What leaves nothing behind may be tried again; of what may be there already the answer is waited for.
        loop {
            match producer.append(&batch).await {
                Ok(()) => return,
                Err(error) => assert_eq!(error.class, ErrorClass::Transient, "{error}"),
            }
            tokio::task::yield_now().await;
        }
    });
    while bench.log.probe().await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!appending.is_finished());
    bench.full.store(false, Ordering::SeqCst);
    appending.await.unwrap();
    assert_eq!((bench.count().await, bench.checkpoint().await), (200, "2".to_owned()));
    bench.log.probe().await.unwrap();
}

#[tokio::test]
async fn a_damaged_blob_is_fatal_and_says_where() {
    let bench = bench().await;
    let mut producer = bench.log.producer("p", Purpose::Source).await.unwrap();
    producer.append(&bench.batch(1)).await.unwrap();
    producer.append(&bench.batch(2)).await.unwrap();
    let changed = bench.log.0.store.write(|txn| {
        let mut table = txn.open_table(store::BLOBS)?;
        let mut blob = table.get((0, 0, 100))?.map(|found| found.value().to_vec()).unwrap();
        *blob.last_mut().unwrap() ^= 1;
        table.insert((0, 0, 100), blob.as_slice())?;
        Ok(())
    });
    changed.unwrap();
    let place = TopicPartition { topic: bench.topic.clone(), partition: 0 };
    assert_eq!(bench.log.read(&place, 0, 100).await.unwrap().len(), 100);
    let error = bench.log.read(&place, 100, 1).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    let text = error.to_string();
    assert!(text.contains("topic t, partition 0, offset 100") && text.contains("checksum"), "{text}");
}
