//! Appending to Kafka through librdkafka's transactional producer: whatever our own (`producer`) does not speak, and what there
//! is little of. The promises are the same, the speed is not.
//!
//! A transaction is begun, its records are handed over, and when each is delivered it is committed. A failure before the commit
//! aborts it; a commit without an answer is repeated until it has one. librdkafka repeats single requests by itself, counts
//! records so that none is kept twice, and after an abort asks for another epoch where it must; what it calls fatal ends this
//! producer.
//!
//! The name is the first identity of our own producer. Its second one is fenced as well, for a process of before may have it.

mod numbered;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, producer};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tributary_event::{ErrorClass, Trouble};

use super::Compression;
use super::client::{self, KafkaSettings};
use super::headers;
use super::reader::Reader;
use super::transaction::{self, Ended, INIT, Kept, PAUSE, REPEATS, TURN, Together, is_passing};
use super::wire::Fault;
use crate::contract::{Batch, Producer, Purpose, TransportError, too_large};
use crate::metric;
use crate::numbers::{End, Numbers};

/// How long one call of librdkafka may take. It is made again after it.
const CALL: Duration = Duration::from_secs(5);
/// How long an abort is tried.
const ABORT: Duration = Duration::from_secs(30);
/// How long a topic may be unknown.
const UNKNOWN: Duration = Duration::from_secs(10);
/// Bytes of records that librdkafka holds, at least.
const QUEUE: usize = 32 << 20;
/// The largest message that librdkafka can be set to take.
const LARGEST: usize = 1_000_000_000;

pub(super) struct LibraryProducer {
    name: String,
    settings: Arc<KafkaSettings>,
    client: Client,
    /// Records that were handed over, ever.
    sent: usize,
    state: State,
    together: Together,
    /// How long a transaction may last.
    transaction: Duration,
    reader: Arc<Reader>,
    /// The numbers of its records, if it gives them any.
    numbers: Option<Numbers>,
    /// Where they go on behind the batch that is under way.
    ends: Vec<End>,
    /// Where the next record without a key goes that gets a number.
    keyless: u32,
}

enum State {
    Ready,
    /// A transaction is open that must be aborted before the next one.
    Open,
    /// Nothing can be done any more, and why.
    Dead(String),
}

/// What is heard of records that were handed over.
#[derive(Default)]
struct Deliveries {
    /// How many were delivered, or failed, ever.
    ended: AtomicUsize,
    /// The first that failed of this transaction: why, and its topic.
    failed: Mutex<Option<(KafkaError, String)>>,
    news: Notify,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, record)) = result
            && let Ok(mut failed) = self.failed.lock()
        {
            failed.get_or_insert_with(|| (error.clone(), record.topic().to_owned()));
        }
        self.ended.fetch_add(1, Ordering::Release);
        self.news.notify_one();
    }
}

/// librdkafka's producer. Its calls, and its end, keep a thread waiting.
struct Client(Option<Arc<ThreadedProducer<Deliveries>>>);

impl Client {
    /// Takes the transactional id, which ends an unfinished transaction of it and fences its owner.
    async fn take(settings: &KafkaSettings, id: &str, transaction: Duration) -> Result<Self, TransportError> {
        let what = format!("opening the producer {id}");
        let config = config(settings, id, transaction);
        let made = tokio::task::spawn_blocking(move || config.create_with_context(Deliveries::default())).await;
        let made = made.map_err(|error| TransportError::caused(ErrorClass::Fatal, what.clone(), error))?;
        let client = Self(Some(Arc::new(made.map_err(|error| settings.refused(&what, error))?)));
        let deadline = Instant::now() + INIT;
        loop {
            match client.call(|producer| producer.init_transactions(CALL)).await {
                Ok(()) => return Ok(client),
                Err(fault) if fault.again && Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                Err(Failure { fault, .. }) => {
                    return Err(settings.answered(&what, fault.class, fault.code, &fault.text));
                }
            }
        }
    }

    async fn call(
        &self,
        call: impl FnOnce(&ThreadedProducer<Deliveries>) -> KafkaResult<()> + Send + 'static,
    ) -> Result<(), Failure> {
        let Some(producer) = self.0.clone() else { return Err(Failure::interrupted()) };
        let called = tokio::task::spawn_blocking(move || call(&producer)).await;
        called.map_err(|_| Failure::interrupted())?.map_err(Failure::from)
    }

    fn deliveries(&self) -> Option<&Deliveries> {
        self.0.as_ref().map(|producer| &**producer.client().context())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let ended = self.0.take();
        // A thread that does not start drops it here.
        let _ = std::thread::Builder::new().name("kafka producer's end".into()).spawn(move || drop(ended));
    }
}

/// Why a call of librdkafka failed, and what it says may be done.
struct Failure {
    fault: Fault,
    /// The same call may be made again.
    again: bool,
    abort: bool,
    fatal: bool,
}

impl Failure {
    fn interrupted() -> Self {
        let text = "a call of a Kafka producer was interrupted".into();
        let fault = Fault { code: None, class: ErrorClass::Fatal, text, topic: None };
        Self { fault, again: false, abort: false, fatal: true }
    }
}

impl From<KafkaError> for Failure {
    fn from(error: KafkaError) -> Self {
        match &error {
            KafkaError::Transaction(told) => Self {
                fault: Fault {
                    code: Some(told.code()),
                    class: client::class(told.code()),
                    text: told.string(),
                    topic: None,
                },
                again: told.is_retriable(),
                abort: told.txn_requires_abort(),
                fatal: told.is_fatal(),
            },
            error => Self {
                again: matches!(error, KafkaError::Flush(Code::OperationTimedOut)),
                fault: fault(error, None),
                abort: false,
                fatal: false,
            },
        }
    }
}

fn fault(error: &KafkaError, topic: Option<&str>) -> Fault {
    let code = error.rdkafka_error_code();
    let text = code.map_or_else(|| error.to_string(), |code| code.to_string());
    let place = topic.map(|topic| format!(" (topic {topic})")).unwrap_or_default();
    Fault {
        code,
        class: code.map_or(ErrorClass::Transient, client::class),
        text: text + &place,
        topic: topic.map(Into::into),
    }
}

fn config(settings: &KafkaSettings, id: &str, transaction: Duration) -> rdkafka::ClientConfig {
    let ms = |duration: Duration| duration.as_millis().to_string();
    let message = settings.wire_limit().saturating_add(1 << 20).min(LARGEST);
    let mut config = settings.client(&[
        ("transactional.id", id),
        // As Kafka's Java clients; records without a key go anywhere.
        ("partitioner", "murmur2_random"),
        ("linger.ms", "1"),
        ("retry.backoff.ms", "50"),
        ("message.max.bytes", &message.to_string()),
        ("queue.buffering.max.messages", "0"),
        ("queue.buffering.max.kbytes", &((QUEUE.max(2 * message)) >> 10).to_string()),
        ("compression.type", if settings.compression == Compression::Zstd { "zstd" } else { "lz4" }),
        ("topic.metadata.propagation.max.ms", &ms(UNKNOWN)),
        // What a broker did not know just after its start is asked for again only then.
        ("topic.metadata.refresh.interval.ms", "5000"),
        // Slow brokers must leave time to end the transaction.
        ("message.timeout.ms", &ms(transaction * 3 / 4)),
    ]);
    config.set("transaction.timeout.ms", ms(transaction));
    // librdkafka takes no longer one.
    let told = config.get("socket.timeout.ms").and_then(|told| told.parse().ok()).map(Duration::from_millis);
    config.set("socket.timeout.ms", ms(told.unwrap_or(transaction).min(transaction)));
    config
}

impl LibraryProducer {
    /// Opens the producer, which ends unfinished transactions of the same id and fences their owner.
    pub async fn open(
        settings: &Arc<KafkaSettings>,
        reader: &Arc<Reader>,
        name: &str,
        (purpose, transaction): (Purpose, Duration),
    ) -> Result<Self, TransportError> {
        let client = Client::take(settings, name, transaction).await?;
        drop(Client::take(settings, &format!("{name}.2"), transaction).await?);
        Ok(Self {
            name: name.to_owned(),
            settings: settings.clone(),
            client,
            sent: 0,
            state: State::Ready,
            together: Together::default(),
            transaction,
            reader: reader.clone(),
            numbers: (purpose == Purpose::Source).then(|| Numbers::new(name)),
            ends: Vec::new(),
            keyless: 0,
        })
    }

    fn failed(&self, what: &str, fault: &Fault) -> TransportError {
        self.settings.answered(what, fault.class, fault.code, &fault.text)
    }

    /// Nothing can be done any more.
    fn die(&mut self, text: String) -> TransportError {
        self.state = State::Dead(text.clone());
        TransportError::new(ErrorClass::Fatal, text)
    }

    fn end(&mut self, what: &str, fault: &Fault) -> TransportError {
        let text = if fault.is_fenced() {
            transaction::fenced(&self.name, self.transaction)
        } else {
            self.failed(what, fault).message
        };
        self.die(text)
    }

    /// One transaction with the whole batch.
    async fn transact(&mut self, batch: &Batch) -> Result<(), Ended> {
        if matches!(self.state, State::Open) {
            self.abort().await.map_err(Ended::Failed)?;
        }
        let limit = self.settings.max_record;
        if let Some(text) = batch.records().find_map(|record| too_large(&record, limit)) {
            return Err(Ended::Aborted(Fault { code: None, class: ErrorClass::Definite, text, topic: None }));
        }
        if let Some(mut failed) = self.client.deliveries().and_then(|deliveries| deliveries.failed.lock().ok()) {
            *failed = None;
        }
        if let Err(failure) = self.client.call(producer::Producer::begin_transaction).await {
            return Err(Ended::Failed(self.end("beginning an append", &failure.fault)));
        }
        self.state = State::Open;
        // What librdkafka neither delivers nor gives up.
        let written = timeout(self.transaction, self.write(batch)).await.unwrap_or_else(|_| {
            let text = format!("records were not delivered within {:?}", self.transaction);
            Err(Fault { code: None, class: ErrorClass::Transient, text, topic: None })
        });
        match written {
            Ok(()) => self.commit().await,
            Err(fault) => {
                let fault = self.reason(fault).await;
                tracing::debug!(producer = self.name, cause = fault.text, "aborting a transaction");
                self.abort().await.map_err(Ended::Failed)?;
                Err(Ended::Aborted(fault))
            }
        }
    }

    /// Hands the records over; they are kept by the brokers when it returns `Ok`.
    async fn write(&mut self, batch: &Batch) -> Result<(), Fault> {
        let topic: Arc<str> = self.settings.checkpoint_topic.as_str().into();
        let (mut turn, mut gathered) = (0, 0);
        let mut kept = Kept::names(self.numbers.as_ref(), batch);
        let (places, mut runs) = self.number(batch, &mut kept).await?;
        let (mut places, mut scratch) = (places.into_iter(), Vec::new());
        for record in transaction::records(batch, &topic, &kept) {
            let place = places.next();
            let numbered = place.and_then(|(partition, run)| Some((partition, runs.get_mut(run)?)));
            let (record, partition) = match numbered {
                Some((partition, run)) => (run.number(&record, &mut scratch), Some(partition)),
                None => (record, None),
            };
            let size = record.size();
            gathered += size;
            // What is not there yet cannot go together with what is.
            if self.together.less(record.topic).is_some_and(|less| gathered > less) {
                self.delivered(self.sent).await?;
                gathered = size;
            }
            let mut sent = BaseRecord {
                topic: record.topic,
                partition,
                payload: record.value,
                key: record.key,
                timestamp: Some(record.timestamp_ms),
                headers: headers::owned(record.headers),
                delivery_opaque: (),
            };
            loop {
                let Some(producer) = &self.client.0 else { return Err(Failure::interrupted().fault) };
                sent = match producer.send(sent) {
                    Ok(()) => break,
                    Err((KafkaError::MessageProduction(Code::QueueFull), sent)) => sent,
                    Err((error, _)) => return Err(fault(&error, Some(record.topic))),
                };
                let ended = self.client.deliveries().map_or(0, |deliveries| deliveries.ended.load(Ordering::Acquire));
                self.delivered(ended + 1).await?;
                tokio::task::yield_now().await;
            }
            self.sent += 1;
            turn += size;
            if turn > TURN {
                turn = 0;
                tokio::task::yield_now().await;
            }
        }
        self.delivered(self.sent).await
    }

    /// Waits until so many records, of all that were ever handed over, have been delivered; fails if one was not.
    async fn delivered(&self, count: usize) -> Result<(), Fault> {
        let Some(deliveries) = self.client.deliveries() else { return Err(Failure::interrupted().fault) };
        loop {
            let ended = deliveries.ended.load(Ordering::Acquire);
            let failed = deliveries.failed.lock().map(|failed| failed.clone()).unwrap_or_default();
            if let Some((error, topic)) = failed {
                return Err(fault(&error, Some(&topic)));
            }
            if ended >= count.min(self.sent) {
                return Ok(());
            }
            deliveries.news.notified().await;
        }
    }

    /// Why a transaction failed whose records were given up for that: who would begin another one is told.
    async fn reason(&self, found: Fault) -> Fault {
        let given_up = [Code::PurgeQueue, Code::PurgeInflight, Code::State];
        if !found.code.is_some_and(|code| given_up.contains(&code)) {
            return found;
        }
        match self.client.call(producer::Producer::begin_transaction).await {
            // Which topic it is about, deliveries know; or it is that of the record that was not taken any more.
            Err(Failure { fault, .. }) if fault.code != Some(Code::State) => {
                let failed = self.client.deliveries().and_then(|deliveries| deliveries.failed.lock().ok());
                let topic = failed.and_then(|failed| failed.as_ref().map(|(_, topic)| topic.as_str().into()));
                Fault { topic: topic.or(found.topic), ..fault }
            }
            _ => found,
        }
    }

    /// Ends the transaction well. It is unknown whether a request without an answer was carried out, so it is repeated for as
    /// long as it takes.
    async fn commit(&mut self) -> Result<(), Ended> {
        let mut trouble = Trouble::default();
        loop {
            let Err(failure) = self.client.call(|producer| producer.commit_transaction(CALL)).await else {
                self.state = State::Ready;
                return Ok(());
            };
            let Failure { fault, again, abort, fatal } = failure;
            if abort {
                // The coordinator refuses the abort if it has the commit.
                self.abort().await.map_err(Ended::Failed)?;
                return Err(Ended::Aborted(fault));
            }
            if fatal && fault.is_fenced() {
                return Err(Ended::Failed(self.end("an append", &fault)));
            }
            if fatal || !again {
                return Err(Ended::Failed(self.die(transaction::in_doubt(&self.name, &fault.text))));
            }
            if let Some(lasts) = trouble.note(&fault.text) {
                let (producer, cause) = (&self.name, fault.text);
                tracing::warn!(producer, cause, ?lasts, "a commit is not done yet and is repeated");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends the transaction without effect.
    async fn abort(&mut self) -> Result<(), TransportError> {
        let deadline = Instant::now() + ABORT;
        loop {
            let Err(failure) = self.client.call(|producer| producer.abort_transaction(CALL)).await else {
                self.state = State::Ready;
                return Ok(());
            };
            if failure.fatal {
                return Err(self.end("aborting an append", &failure.fault));
            }
            if Instant::now() > deadline {
                return Err(self.failed("aborting an append", &failure.fault));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A broker that has just started may not know the topic yet.
fn is_unknown(fault: &Fault) -> bool {
    let unknown = [Code::UnknownTopic, Code::UnknownPartition, Code::UnknownTopicOrPartition];
    fault.code.is_some_and(|code| unknown.contains(&code))
}

#[async_trait]
impl Producer for LibraryProducer {
    fn max_record(&self) -> usize {
        self.settings.max_record
    }

    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        if let State::Dead(cause) = &self.state {
            return Err(TransportError::new(ErrorClass::Fatal, cause.clone()));
        }
        if batch.is_empty() {
            return Ok(());
        }
        if batch.records().next().is_some() {
            transaction::read_numbers(&mut self.numbers, &self.reader).await?;
        }
        let (mut repeats, start) = (0, Instant::now());
        loop {
            match self.transact(batch).await {
                Ok(()) => break,
                Err(Ended::Aborted(fault)) if self.together.shrink(&fault) => {
                    repeats = 0;
                    tracing::debug!(producer = self.name, cause = fault.text, "less goes together");
                }
                Err(Ended::Aborted(fault)) if is_passing(&fault) && repeats < REPEATS => {
                    repeats += 1;
                    tracing::debug!(producer = self.name, cause = fault.text, "an append is repeated");
                    tokio::time::sleep(PAUSE * repeats).await;
                }
                Err(Ended::Aborted(fault)) if is_unknown(&fault) && start.elapsed() < UNKNOWN => {
                    tracing::debug!(producer = self.name, cause = fault.text, "an append is repeated");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(Ended::Aborted(fault)) => return Err(self.failed("an append", &fault)),
                Err(Ended::Failed(error)) => return Err(error),
            }
        }
        if let Some(numbers) = &mut self.numbers {
            numbers.durable(&self.ends);
        }
        metric::appended(batch);
        Ok(())
    }
}
