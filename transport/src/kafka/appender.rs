//! Appending to Kafka without transactions, by librdkafka's idempotent producer: for records that may come twice.
//!
//! What the stages of a pipeline send each other are requests. A request that comes twice is answered twice with the same result, each
//! stands for itself, and the offset of what caused them is committed only when all of them are durable: no transaction would
//! add anything. Without one nobody who reads has to wait for its end, also if this process dies in the middle.
//!
//! librdkafka repeats what got no answer, in order and once. When it gives up, the caller appends the whole batch again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;
use tributary_event::ErrorClass;

use super::client::{Compression, KafkaSettings, log};
use super::headers;
use super::reader::Reader;
use crate::contract::{Batch, Producer, RecordRef, TransportError, too_large};
use crate::metric;
use crate::partition::partition_for_key;

/// How long librdkafka tries.
const TRY: Duration = Duration::from_secs(30);
/// Bytes of records of one partition that go together: less than brokers take by default.
const TOGETHER: usize = 1_000_000;
/// librdkafka takes no larger record.
const LARGEST: usize = 1_000_000_000;
/// Bytes that wait in librdkafka, unless a record is larger.
const QUEUE: usize = 32 << 20;
/// Between two looks whether librdkafka has room.
const PAUSE: Duration = Duration::from_millis(2);
/// How long the number of a topic's partitions is taken to be the same.
const KNOWN: Duration = Duration::from_secs(60);

pub(super) struct KafkaAppender {
    settings: Arc<KafkaSettings>,
    reader: Arc<Reader>,
    /// Made anew after an error that it does not survive.
    producer: Option<ThreadedProducer<Context>>,
    /// Partitions of topics, and when that was known.
    topics: HashMap<Arc<str>, (u32, Instant)>,
    /// Where the next record without a key goes.
    keyless: u32,
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Arc<Delivered>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivered: Arc<Delivered>) {
        delivered.one(result.as_ref().err().map(|(error, _)| error.clone()));
    }
}

/// What became of the records of a batch.
struct Delivered {
    left: AtomicUsize,
    failure: Mutex<Option<KafkaError>>,
    done: Notify,
}

impl Delivered {
    fn of(records: usize) -> Arc<Self> {
        Arc::new(Self { left: records.into(), failure: Mutex::default(), done: Notify::new() })
    }

    /// One record is durable, or failed.
    fn one(&self, failure: Option<KafkaError>) {
        if let Some(failure) = failure {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
        }
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.done.notify_one();
        }
    }

    /// Waits for all, and gives the first failure.
    async fn all(&self) -> Option<KafkaError> {
        while self.left.load(Ordering::Acquire) > 0 {
            self.done.notified().await;
        }
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl KafkaAppender {
    pub fn open(settings: &Arc<KafkaSettings>, reader: &Arc<Reader>) -> Result<Self, TransportError> {
        let producer = Some(make(settings)?);
        Ok(Self { settings: settings.clone(), reader: reader.clone(), producer, topics: HashMap::new(), keyless: 0 })
    }

    /// Learns the partitions of the batch's topics.
    async fn know(&mut self, batch: &Batch) -> Result<(), TransportError> {
        let mut last: Option<&Arc<str>> = None;
        for record in batch.records() {
            if let Some(text) = too_large(&record, self.settings.max_record) {
                return Err(TransportError::new(ErrorClass::Definite, text));
            }
            if last.is_some_and(|last| Arc::ptr_eq(last, record.topic)) {
                continue;
            }
            last = Some(record.topic);
            if self.topics.get(record.topic).is_some_and(|(_, since)| since.elapsed() < KNOWN) {
                continue;
            }
            let (reader, topic) = (self.reader.clone(), record.topic.clone());
            let asked = tokio::task::spawn_blocking(move || reader.partitions(&topic)).await;
            let count = asked.unwrap_or_else(|error| {
                Err(TransportError::caused(ErrorClass::Fatal, "a call of Kafka was interrupted", error))
            })?;
            if count == 0 {
                return Err(self.settings.unknown(record.topic));
            }
            self.topics.insert(record.topic.clone(), (count, Instant::now()));
        }
        Ok(())
    }

    fn partition(&self, record: &RecordRef<'_>) -> i32 {
        let count = self.topics.get(record.topic).map_or(1, |(count, _)| *count).max(1);
        record.key.map_or(self.keyless % count, |key| partition_for_key(key, count)) as i32
    }

    /// What a failure means. A producer that does not survive it is made anew by the next append.
    fn failed(&mut self, error: KafkaError) -> TransportError {
        self.topics.clear();
        let is_dead = self.producer.as_ref().is_none_or(|producer| producer.client().fatal_error().is_some());
        let mut error = self.settings.failed("appending", error);
        if is_dead {
            self.producer = None;
            error.class = ErrorClass::Transient;
        }
        error
    }
}

fn make(settings: &KafkaSettings) -> Result<ThreadedProducer<Context>, TransportError> {
    let compression = match settings.compression {
        Compression::Lz4 => "lz4",
        Compression::Zstd => "zstd",
    };
    let limit = (TRY + settings.patience()).as_millis().to_string();
    let largest = settings.wire_limit().clamp(TOGETHER, LARGEST);
    let (queue, largest) = ((QUEUE.max(2 * largest) >> 10).to_string(), largest.to_string());
    // No more than a topic takes that was made for this `max_record`.
    let together = settings.wire_limit().min(TOGETHER).to_string();
    let config = settings.client(&[
        ("enable.idempotence", "true"),
        ("compression.type", compression),
        ("message.timeout.ms", &limit),
        ("message.max.bytes", &largest),
        ("queue.buffering.max.kbytes", &queue),
        // Whole batches come, so there is nothing to wait for.
        ("linger.ms", "0"),
        ("batch.size", &together),
        ("retry.backoff.ms", "50"),
    ]);
    config.create_with_context(Context).map_err(|error| settings.refused("the producer", error))
}

#[async_trait]
impl Producer for KafkaAppender {
    fn max_record(&self) -> usize {
        self.settings.max_record
    }

    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        if batch.checkpoint.is_some() {
            let text = "a checkpoint needs a producer with an id, and came to one without";
            return Err(TransportError::new(ErrorClass::Fatal, text));
        }
        self.know(batch).await?;
        if self.producer.is_none() {
            self.producer = Some(make(&self.settings)?);
        }
        self.keyless = self.keyless.wrapping_add(1);
        let Some(producer) = &self.producer else { return Ok(()) };
        let delivered = Delivered::of(batch.len());
        for record in batch.records() {
            let mut message = BaseRecord::<[u8], [u8], _>::with_opaque_to(record.topic, delivered.clone())
                .partition(self.partition(&record))
                .timestamp(record.timestamp_ms);
            (message.key, message.payload, message.headers) =
                (record.key, record.value, headers::owned(record.headers));
            while let Err((error, back)) = producer.send(message) {
                if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                    delivered.one(Some(error));
                    break;
                }
                message = back;
                tokio::time::sleep(PAUSE).await;
            }
        }
        if !batch.is_empty()
            && let Some(error) = delivered.all().await
        {
            return Err(self.failed(error));
        }
        metric::appended(batch);
        Ok(())
    }
}
