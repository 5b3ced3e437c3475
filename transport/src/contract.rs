//! What a topic promises, whatever keeps it.
//!
//! * Appending keeps order per partition and is durable when it returns. A [`Batch`] and its checkpoint become visible
//!   together or not at all (Kafka: one transaction; embedded log: one write transaction). Readers see committed
//!   batches only, never a part of one.
//! * A producer's id fences: opening a second producer with the same id makes the first one fail with a
//!   [`TransportError`] of class `Fatal`.
//! * A record comes back as it was appended: key, value, headers in their order, time.
//! * Records with the same key of one topic go to the same partition: murmur2 of the key modulo the number of
//!   partitions, as Kafka's Java clients do, so that both transports and foreign producers agree.
//! * Offsets of a group are committed by the reader, explicitly. A restarted group reads from its last commit:
//!   every record at least once.
//!
//! Nothing is skipped silently: where records are gone that a group had not read, its consumer says so ([`Delivery::Lost`]).
//!
//! Retries: implementations retry what their client can retry within a call; a returned `Transient` error means the
//! caller decides.

mod topic_id;

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tributary_event::ErrorClass;

pub use self::topic_id::{NoTopicId, TopicId};
use crate::headers::{self, Headers, HeadersRef};
use crate::numbers::Numbered;

/// How long a topic keeps records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retention {
    /// Until older than `age` or beyond `bytes` a partition, whichever is first; `None` is without limit.
    Delete {
        /// Keep records at least this long.
        age: Option<Duration>,
        /// Keep at least this many bytes a partition.
        bytes: Option<u64>,
    },
    /// At least the last record of every key; a record without value removes the key.
    Compact,
}

/// A topic to be created if absent, and checked if present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// The least number of partitions; 0 leaves it to the transport's settings. An existing topic with fewer is an error
    /// that says what to do.
    pub partitions: u32,
    /// What it keeps.
    pub retention: Retention,
}

/// The connector's place in its source, committed with the events it covers. Opaque to the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose it is.
    pub name: String,
    /// Its content.
    pub content: Bytes,
}

/// Records to be appended together. All bytes lie in one buffer, so that a million records cost few allocations.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: Vec<Span>,
    /// The checkpoint that becomes durable with the records.
    pub checkpoint: Option<Checkpoint>,
}

#[derive(Debug)]
struct Span {
    topic: Arc<str>,
    start: usize,
    key_end: Option<usize>,
    value_end: Option<usize>,
    /// Where its headers end, which come last.
    end: usize,
    timestamp_ms: i64,
}

/// One record of a [`Batch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its topic.
    pub topic: &'a Arc<str>,
    /// Its key; records without one are spread over the partitions.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: HeadersRef<'a>,
    /// Its time, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl RecordRef<'_> {
    /// Bytes of its key, its value and its headers.
    pub fn size(&self) -> usize {
        self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + self.headers.size()
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record whose key and value are written in place. Each function returns whether there is one.
    pub fn write(
        &mut self,
        topic: &Arc<str>,
        timestamp_ms: i64,
        key: impl FnOnce(&mut Vec<u8>) -> bool,
        value: impl FnOnce(&mut Vec<u8>) -> bool,
    ) {
        let start = self.bytes.len();
        let key_end = key(&mut self.bytes).then_some(self.bytes.len());
        let value_end = value(&mut self.bytes).then_some(self.bytes.len());
        let end = self.bytes.len();
        self.records.push(Span { topic: topic.clone(), start, key_end, value_end, end, timestamp_ms });
    }

    /// Adds a header to the record that was added last. Names may repeat, and keep their order.
    pub fn header(&mut self, name: &str, value: &[u8]) {
        if let Some(last) = self.records.last_mut() {
            headers::put(&mut self.bytes, name, value);
            last.end = self.bytes.len();
        }
    }

    /// Adds headers to the record that was added last.
    pub fn headers(&mut self, headers: HeadersRef<'_>) {
        if let Some(last) = self.records.last_mut() {
            self.bytes.extend_from_slice(headers.bytes());
            last.end = self.bytes.len();
        }
    }

    /// Adds a record by copying.
    pub fn push(&mut self, topic: &Arc<str>, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        let copy = |bytes: Option<&[u8]>, out: &mut Vec<u8>| {
            out.extend_from_slice(bytes.unwrap_or_default());
            bytes.is_some()
        };
        self.write(topic, timestamp_ms, |out| copy(key, out), |out| copy(value, out));
    }

    /// The records, in order.
    pub fn records(&self) -> impl ExactSizeIterator<Item = RecordRef<'_>> {
        self.records.iter().map(|span| RecordRef {
            topic: &span.topic,
            key: span.key_end.map(|end| &self.bytes[span.start..end]),
            value: span.value_end.map(|end| &self.bytes[span.key_end.unwrap_or(span.start)..end]),
            headers: HeadersRef::written(&self.bytes[span.value_end.or(span.key_end).unwrap_or(span.start)..span.end]),
            timestamp_ms: span.timestamp_ms,
        })
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is neither a record nor a checkpoint.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.checkpoint.is_none()
    }

    /// Bytes of all keys, values and headers.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Empties the batch and keeps its memory, but not that of a record that was far larger than a batch is.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.records.clear();
        self.checkpoint = None;
    }

    /// Takes the last records out, so that `count` are left.
    pub fn truncate(&mut self, count: usize) {
        let first = self.records.get(count).map(|span| span.start);
        self.bytes.truncate(first.unwrap_or(self.bytes.len()));
        self.records.truncate(count);
    }
}

/// Memory that an empty batch keeps.
const KEPT: usize = 16 << 20;

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition, from 0.
    pub partition: u32,
}

/// A record as it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polled {
    /// Where it was read.
    pub place: TopicPartition,
    /// Its offset there. Offsets rise and may have gaps.
    pub offset: u64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
    /// Its time, milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

/// A partition that became a consumer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The partition.
    pub place: TopicPartition,
    /// The group's committed offset when it was assigned; none: the group has none for this partition.
    pub committed: Option<u64>,
}

/// Records of a partition that are gone before the group had read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// The partition.
    pub place: TopicPartition,
    /// The first offset that the group had not read.
    pub from: u64,
    /// Where it reads on: the first record that is still there.
    pub to: u64,
    /// Why.
    pub cause: LossCause,
}

/// Why records are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LossCause {
    /// Retention or a person removed them.
    Removed,
    /// The topic was deleted and made again, or the log was put back to an earlier state: nobody knows what was lost, and `to` is an
    /// offset of another topic than `from` is.
    MadeAnew,
}

/// What a consumer hears.
#[derive(Debug)]
pub enum Delivery {
    /// Partitions that are now this consumer's.
    Assigned(Vec<Assignment>),
    /// Partitions that no longer are; commits for them are ignored from now on.
    Revoked(Vec<TopicPartition>),
    /// Records that the group will never see: retention or a person removed them, or the topic was made anew. Comes before the
    /// records that follow them. Records of these partitions that are in flight no longer count.
    Lost(Vec<Loss>),
    /// Records of assigned partitions, in order within each. Never empty.
    Records(Vec<Polled>),
}

/// The first and the next offset of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The first record still kept.
    pub low: u64,
    /// The offset that the next record will get.
    pub high: u64,
}

/// How a group reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// The group; its members share the partitions.
    pub group: String,
    /// What to read.
    pub topics: Vec<String>,
    /// The most records of one [`Delivery::Records`].
    pub max_records: usize,
    /// Where a partition without a committed offset starts: its first record if true, else its end.
    pub from_start: bool,
}

/// What a producer appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The changes of a source: many, all the time. It outlives brokers that are away for minutes. Its records are numbered: see
    /// [`crate::numbers`].
    Source,
    /// What a stream hands on: much, all the time. If its process dies in the middle, readers wait for seconds only.
    Stream,
    /// What a stage or a command has to append now and then. If its process dies in the middle, readers wait for seconds only.
    Stage,
}

impl Purpose {
    /// How long an append may stay unfinished. Meanwhile nobody reads what stands behind it.
    pub fn limit(self) -> Duration {
        match self {
            Self::Source => Duration::from_secs(300),
            Self::Stream | Self::Stage => Duration::from_secs(5),
        }
    }
}

/// Appends to topics. One at a time by type: the order of calls is the order of records.
#[async_trait]
pub trait Producer: Send {
    /// See [`Transport::max_record`].
    fn max_record(&self) -> usize {
        MAX_RECORD
    }

    /// Appends the records in order, atomically with the batch's checkpoint. Durable when it returns `Ok`.
    ///
    /// On `Transient` nothing of the batch is visible and the same batch may be appended again; nor on `Definite`: a record of it
    /// is larger than [`record_limit`] allows. Not cancel-safe: a producer whose append was cancelled must be dropped.
    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError>;
}

/// Reads topics as a member of a group.
#[async_trait]
pub trait Consumer: Send {
    /// The next news. Waits until there is some. Cancel-safe, and cheap to begin again: a read that is under way belongs to the
    /// consumer, not to this call, so a caller that gave up waiting goes on with the same read, and there is one at a time. What
    /// it brings of a partition that was revoked meanwhile is dropped. A caller may stay away as long as it likes: the
    /// implementation keeps the membership and bounds what it fetches ahead (in count and bytes).
    async fn next(&mut self) -> Result<Delivery, TransportError>;

    /// Nothing more is given away of these partitions until they are resumed: what was read ahead waits, within the bounds of what is
    /// fetched ahead. The membership stays, and other partitions go on. Partitions that are not ours are left out, and one that is given
    /// away and comes back is not paused.
    fn pause(&mut self, places: &[TopicPartition]);

    /// Partitions go on where they were paused.
    fn resume(&mut self, places: &[TopicPartition]);

    /// Commits, per partition, the offset of the next record to read. Durable when it returns.
    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError>;

    /// Records between the group's committed offsets and the ends of the partitions that are assigned now; of those that are
    /// named, between the offset that the caller has come to without committing it, and the end. `Transient` before the group has
    /// assigned any. The answer may take long and does not hold the consumer meanwhile.
    fn lag(&mut self, come_to: HashMap<TopicPartition, u64>) -> Measuring;

    /// The records behind the committed offsets of all partitions, whoever has them.
    fn backlog(&mut self) -> Measuring;
}

/// A measurement under way, on its own feet.
pub type Measuring = Pin<Box<dyn Future<Output = Result<u64, TransportError>> + Send>>;

/// The largest event that any transport can be set to take: lengths of Kafka's protocol have 31 bits.
pub const MAX_RECORD: usize = 1 << 30;

/// The most bytes that key, value and headers of any record may have, where an event may have `max_record`: a dead letter holds an event
/// in base64 at worst, and says why.
pub fn record_limit(max_record: usize) -> usize {
    max_record / 2 * 3 + (64 << 10)
}

/// A record that is larger than that.
pub(crate) fn too_large(record: &RecordRef<'_>, max_record: usize) -> Option<String> {
    let size = record.size();
    let limit = record_limit(max_record);
    (size > limit).then(|| {
        format!(
            "a record for topic {} has {size} bytes, and the limit is {limit}; raise the transport's `max_record`, which is \
             {max_record} bytes, to {} or more",
            record.topic,
            as_setting(size / 3 * 2 + 1)
        )
    })
}

/// A size as a pipeline says it, rounded up: `64KiB`, `20MiB`.
pub fn as_setting(bytes: usize) -> String {
    match bytes.div_ceil(1 << 10) {
        kib @ 0..2048 => format!("{}KiB", kib.max(64)),
        _ => format!("{}MiB", bytes.div_ceil(1 << 20)),
    }
}

/// A durable transport of topics. Shared by every stage of a process.
#[async_trait]
pub trait Transport: Send + Sync {
    /// The most bytes that key and value of an event may have. Who publishes events decides what becomes of larger ones; any
    /// record may have up to [`record_limit`] of it, so that a dead letter can hold the event it is about.
    fn max_record(&self) -> usize {
        MAX_RECORD
    }

    /// Creates what is absent and checks what is there: partitions and, where the transport has them, replication and
    /// `min.insync.replicas` (when durability is strict). Errors name the topic, what it has and what it must have.
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TransportError>;

    /// The partitions of a topic; 0 if it does not exist.
    async fn partitions(&self, topic: &str) -> Result<u32, TransportError>;

    /// The identity of a topic, which another one of the same name does not have; none where the transport cannot tell.
    async fn topic_id(&self, topic: &str) -> Result<Option<TopicId>, TransportError>;

    /// Opens the producer `id`, fences any older one of the same id.
    async fn producer(&self, id: &str, purpose: Purpose) -> Result<Box<dyn Producer>, TransportError>;

    /// Opens a producer that keeps no checkpoints and fences nobody: for records that may come twice and need no others beside them.
    /// After an append that failed, some records of its batch may be visible. Readers never wait for it.
    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError>;

    /// Joins a group.
    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError>;

    /// Joins a group, and opens a second consumer that follows it: of its topic it has the partitions with the numbers that the
    /// first one has of its own, and commits under its own group. So one process has all records of a key, in both topics. Each
    /// settings name one topic.
    async fn consumers(
        &self,
        leading: ConsumerSettings,
        following: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError>;

    /// The last checkpoint of that name that was appended with a batch. To go on from it, open the producer first: that
    /// ends what an older producer of the id had begun.
    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError>;

    /// `Transient` while a checkpoint that was appended may not be readable yet, because a producer of another id has something
    /// unfinished before it. With the producer of an id open, what [`Self::checkpoint`] gives after an `Ok` is its last.
    async fn checkpoints_are_readable(&self) -> Result<(), TransportError> {
        Ok(())
    }

    /// The running numbers that were given last in each topic, as they are kept with the checkpoints (see [`crate::numbers`]): of every
    /// producer that gave some. What was appended before the call is in it, unless something unfinished stands before it.
    async fn numbers(&self) -> Result<Vec<(String, Numbered)>, TransportError> {
        Ok(Vec::new())
    }

    /// The kept range of every partition, by partition number. What was appended before the call is in it.
    async fn watermarks(&self, topic: &str) -> Result<Vec<Watermarks>, TransportError>;

    /// Reads up to `max` committed records of one partition from `offset`, without a group. Empty at the end. What was
    /// appended before the call is seen.
    async fn read(&self, place: &TopicPartition, offset: u64, max: usize) -> Result<Vec<Polled>, TransportError>;

    /// The offset of the first committed record of a partition whose time is at or after a moment, in milliseconds since the Unix
    /// epoch; the end of the partition where there is none. Times of records need not rise: what is asked for is the lowest offset.
    /// What was appended before the call is looked at.
    async fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<u64, TransportError>;

    /// Whether the transport answers now; the error says what is wrong.
    async fn probe(&self) -> Result<(), TransportError>;
}

/// A failure of the transport: what was done, to what, why, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct TransportError {
    /// What may be done about it.
    pub class: ErrorClass,
    /// A sentence for the user: place, cause, remedy.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl TransportError {
    /// An error without a further cause.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), source: None }
    }

    /// An error with its cause.
    pub fn caused(
        class: ErrorClass,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { class, message: message.into(), source: Some(source.into()) }
    }
}
