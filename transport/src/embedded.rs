//! The embedded log: durable topics for one process, in one folder, on redb.
//!
//! Records are stored as compressed blobs of many (`blob`); one thread writes, with group commit and one fsync for all
//! that waits (`writer`); readers look at the ends in memory (`catalog`) and are woken by appends; a second thread
//! removes what is beyond retention (`janitor`). The file is owned by one process; a second one is told who has it.

mod blob;
mod catalog;
mod consumer;
mod groups;
mod janitor;
mod producer;
mod read;
mod store;
mod writer;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle as Thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redb::ReadableTable as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinHandle};
use tributary_event::{ErrorClass, Trouble};

use self::catalog::Catalog;
use self::consumer::EmbeddedConsumer;
use self::groups::Groups;
use self::janitor::Janitor;
use self::producer::EmbeddedProducer;
use self::read::{Bounds, offset_at, stretch};
use self::store::{Failure, Store, WriteFailure};
use self::writer::{Change, Request, Writer};
use crate::contract::TopicId;
use crate::contract::{
    Consumer, ConsumerSettings, MAX_RECORD, Polled, Producer, Purpose, TopicPartition, TopicSpec, Transport,
    TransportError, Watermarks,
};
use crate::numbers::{self, Numbered, Numbers};
use crate::probe::Probe;

/// How the embedded log is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// Partitions of a topic whose spec leaves the number open.
    pub partitions: u32,
    /// How often retention is looked at.
    pub check_every: Duration,
    /// How long a compact topic keeps the record that removed a key.
    pub keep_tombstones: Duration,
    /// The size from which a partition of a compact topic is compacted; left out: 64 KiB.
    pub compact_from: Option<u64>,
    /// The most bytes that key and value of an event may have.
    pub max_record: usize,
    /// Free bytes on the disk down to which records stay that a group has not read, whatever the retention of their topic. With
    /// less, retention removes them too.
    pub keep_free: u64,
    /// Whether blobs are compressed (lz4).
    pub compress: bool,
    /// Memory for pages of the database file.
    pub cache_bytes: usize,
    /// Whether free space inside the file is given back to the file system when it is opened, which may take long.
    pub shrink_on_open: bool,
}

impl Default for EmbeddedSettings {
    fn default() -> Self {
        Self {
            partitions: 4,
            check_every: Duration::from_secs(30),
            keep_tombstones: Duration::from_secs(24 * 3600),
            compact_from: None,
            max_record: MAX_RECORD,
            keep_free: 2 << 30,
            compress: true,
            cache_bytes: 24 << 20,
            shrink_on_open: false,
        }
    }
}

/// The embedded log. Clones share it; the last one (of these, its producers and consumers) closes it.
#[derive(Clone)]
pub struct Embedded(Arc<Log>);

/// Called in the thread that reads records for a consumer, before it does: tests make a disk slow with it.
pub type BeforeRead = Box<dyn Fn(&TopicPartition) + Send + Sync>;

/// What producers and consumers share. Its threads end with it.
struct Log {
    settings: EmbeddedSettings,
    store: Arc<Store>,
    catalog: Arc<Catalog>,
    groups: Arc<Groups>,
    /// Appenders that were opened.
    appenders: AtomicU64,
    before_read: Option<BeforeRead>,
    probe: Probe,
    writer: Option<mpsc::Sender<Request>>,
    stop: Option<std::sync::mpsc::Sender<()>>,
    closing: Arc<AtomicBool>,
    threads: Vec<Thread<()>>,
}

impl Embedded {
    /// Opens the log in a folder, creating it if absent. Blocking: after a crash the file is checked first.
    pub fn open(directory: impl AsRef<Path>, settings: EmbeddedSettings) -> Result<Self, TransportError> {
        let store = Store::open(directory.as_ref(), settings.cache_bytes)?;
        if settings.shrink_on_open {
            store.compact()?;
        }
        Self::start(store, settings, None)
    }

    /// As [`Self::open`], on a disk whose reads of records wait for `before_read`.
    pub fn open_slow(
        directory: impl AsRef<Path>,
        settings: EmbeddedSettings,
        before_read: BeforeRead,
    ) -> Result<Self, TransportError> {
        Self::start(Store::open(directory.as_ref(), settings.cache_bytes)?, settings, Some(before_read))
    }

    /// Removes the records of a partition that stand before an offset, as far as they were appended in batches that end before it,
    /// whether they were read or not.
    pub async fn trim(&self, place: &TopicPartition, below: u64) -> Result<(), TransportError> {
        let topic = self.0.catalog.topic(&place.topic)?;
        self.0.change(Change::Trim { topic, partition: place.partition, below }).await
    }

    fn start(
        store: Store,
        settings: EmbeddedSettings,
        before_read: Option<BeforeRead>,
    ) -> Result<Self, TransportError> {
        let store = Arc::new(store);
        let last_commit = prepare(&store)?;
        let catalog = Arc::new(store.read(Catalog::load)?);
        let (sender, requests) = mpsc::channel(writer::QUEUE);
        let (stop, stopped) = std::sync::mpsc::channel();
        let closing = Arc::new(AtomicBool::new(false));
        let groups = Arc::new(Groups::default());
        let writer = Writer::new(store.clone(), catalog.clone(), last_commit, requests, closing.clone());
        let janitor = Janitor {
            store: store.clone(),
            catalog: catalog.clone(),
            settings: settings.clone(),
            writer: sender.clone(),
            groups: groups.clone(),
            compacted: HashMap::new(),
            short: Trouble::default(),
            trouble: Trouble::default(),
        };
        let threads =
            vec![spawn("log-writer", move || writer.run())?, spawn("log-janitor", move || janitor.run(&stopped))?];
        let (writer, stop, probe) = (Some(sender), Some(stop), Probe::default());
        let appenders = AtomicU64::new(0);
        Ok(Self(Arc::new(Log {
            settings,
            store,
            catalog,
            groups,
            appenders,
            before_read,
            probe,
            writer,
            stop,
            closing,
            threads,
        })))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<Thread<()>, TransportError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(|error| {
        TransportError::caused(
            ErrorClass::Fatal,
            format!("no thread can be started for the embedded log: {error}"),
            error,
        )
    })
}

/// Creates the tables and checks the format; returns the number of the last commit.
fn prepare(store: &Store) -> Result<u64, TransportError> {
    let written = store.write(|txn| {
        catalog::complete(&mut txn.open_table(store::TOPICS)?)?;
        txn.open_table(store::BLOBS)?;
        txn.open_table(store::ENDS)?;
        txn.open_table(store::OFFSETS)?;
        txn.open_table(store::CHECKPOINTS)?;
        let mut meta = txn.open_table(store::META)?;
        let format = meta.get("format")?.map(|format| format.value());
        match format {
            None => {
                meta.insert("format", store::FORMAT)?;
            }
            Some(store::FORMAT) => {}
            Some(other) => {
                let text = format!(
                    "the embedded log has format {other}, this version reads {}; use the version that wrote it",
                    store::FORMAT
                );
                return Err(Failure::Transport(TransportError::new(ErrorClass::Fatal, text)));
            }
        }
        Ok(meta.get("commit")?.map_or(0, |number| number.value()))
    });
    written.map_err(|failure| match failure {
        WriteFailure::Nothing(failure) => store.explain(failure),
        WriteFailure::Unknown(error) => store.explain(Failure::Storage(error)),
    })
}

impl Log {
    async fn request<T>(&self, request: impl FnOnce(writer::Reply<T>) -> Request) -> Result<T, TransportError> {
        let stopped = || {
            TransportError::new(
                ErrorClass::Fatal,
                "the embedded log's writer has stopped; see the log above for its cause",
            )
        };
        let (reply, answer) = oneshot::channel();
        let Some(writer) = &self.writer else { return Err(stopped()) };
        writer.send(request(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn change(&self, change: Change) -> Result<(), TransportError> {
        self.request(|reply| Request::Change { change, reply }).await
    }

    /// Runs work that may wait for the disk.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, TransportError> + Send + 'static,
    ) -> Result<T, TransportError> {
        self.spawn(work).await.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// Begins work that may wait for the disk. Nothing interrupts it.
    fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, TransportError> + Send + 'static,
    ) -> JoinHandle<Result<T, TransportError>> {
        let log = self.clone();
        tokio::task::spawn_blocking(move || work(&log))
    }
}

fn interrupted(error: JoinError) -> TransportError {
    TransportError::caused(ErrorClass::Fatal, "a read of the embedded log was interrupted", error)
}

impl Drop for Log {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        self.stop = None;
        self.writer = None;
        for thread in self.threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the embedded log panicked");
            }
        }
    }
}

#[async_trait]
impl Transport for Embedded {
    fn max_record(&self) -> usize {
        self.0.settings.max_record
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TransportError> {
        let topics = topics
            .iter()
            .map(|spec| TopicSpec {
                partitions: if spec.partitions == 0 { self.0.settings.partitions } else { spec.partitions },
                ..spec.clone()
            })
            .collect();
        self.0.change(Change::Ensure { topics }).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, TransportError> {
        Ok(self.0.catalog.find(topic).map_or(0, |topic| topic.stored.partitions))
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<TopicId>, TransportError> {
        Ok(Some(self.0.catalog.topic(topic)?.stored.identity))
    }

    async fn producer(&self, id: &str, purpose: Purpose) -> Result<Box<dyn Producer>, TransportError> {
        let id: Arc<str> = id.into();
        let epoch = self.0.request(|reply| Request::Fence { id: id.clone(), reply }).await?;
        let numbers = (purpose == Purpose::Source).then(|| Numbers::new(&id));
        let (turn, spare, scratch) = Default::default();
        Ok(Box::new(EmbeddedProducer { log: self.0.clone(), id, epoch, turn, spare, numbers, scratch }))
    }

    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError> {
        let number = self.0.appenders.fetch_add(1, Ordering::Relaxed);
        // No other producer has this name, so it fences nobody.
        self.producer(&format!("an appender, {number}"), Purpose::Stage).await
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        Ok(Box::new(EmbeddedConsumer::join(self.0.clone(), settings)?))
    }

    /// One process has all partitions, so that the second consumer follows the first one in any case.
    async fn consumers(
        &self,
        leading: ConsumerSettings,
        following: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError> {
        Ok([self.consumer(leading).await?, self.consumer(following).await?])
    }

    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        let name = name.to_owned();
        self.0
            .blocking(move |log| {
                log.store.read(|txn| {
                    let found = txn.open_table(store::CHECKPOINTS)?.get(name.as_str())?;
                    Ok(found.map(|content| Bytes::copy_from_slice(content.value())))
                })
            })
            .await
    }

    async fn numbers(&self) -> Result<Vec<(String, Numbered)>, TransportError> {
        self.0
            .blocking(|log| {
                log.store.read(|txn| {
                    let mut kept = Vec::new();
                    for entry in txn.open_table(store::CHECKPOINTS)?.iter()? {
                        let (name, content) = entry?;
                        kept.extend(numbers::kept(name.value(), content.value()));
                    }
                    Ok(kept)
                })
            })
            .await
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<Watermarks>, TransportError> {
        Ok(self.0.catalog.topic(topic)?.partitions.iter().map(|p| p.watermarks()).collect())
    }

    async fn read(&self, place: &TopicPartition, offset: u64, max: usize) -> Result<Vec<Polled>, TransportError> {
        let topic = self.0.catalog.topic(&place.topic)?;
        let partition = place.partition;
        self.0
            .blocking(move |log| {
                let mut from = offset;
                let mut records = Vec::new();
                while records.len() < max {
                    let bounds = Bounds { records: max - records.len(), bytes: usize::MAX };
                    let found = stretch(&log.store, &topic, partition, from, bounds)?;
                    if found.next == from {
                        break;
                    }
                    from = found.next;
                    records.extend(found.records);
                }
                records.truncate(max);
                Ok(records)
            })
            .await
    }

    async fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<u64, TransportError> {
        let topic = self.0.catalog.topic(&place.topic)?;
        let partition = place.partition;
        self.0.blocking(move |log| offset_at(&log.store, &topic, partition, time_ms)).await
    }

    async fn probe(&self) -> Result<(), TransportError> {
        let begin = || self.0.spawn(|log| log.store.read(|txn| Ok(txn.open_table(store::META).map(drop)?)));
        self.0.probe.ask(begin).await
    }
}

#[cfg(test)]
mod tests;
