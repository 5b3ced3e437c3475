//! Appending to Kafka: one transaction a batch.
//!
//! Records go straight into librdkafka's queue, whose size bounds the memory; a full queue is waited for. Delivery
//! reports are asked for failures only; the commit fails if any record of the transaction did. What goes wrong is then
//! one of three things:
//!
//! * *abortable*: the transaction is aborted, nothing is visible, the error is `Transient` (or what its cause says);
//! * *in doubt*: a commit that got no answer is repeated until it has one, for as long as a transaction may last;
//! * *fatal*: another producer of the same id took over. This one is dead.
//!
//! Two clients take turns. A coordinator is busy with a transaction for some milliseconds after its commit was answered,
//! refuses the same producer's next one meanwhile, and librdkafka then waits a fixed 20 ms. A client begins only after the
//! other's commit was answered, so that batches stay in order; taking over means to fence both, the first one first. Who has the
//! first is the owner: one who finds the second taken before it was ever used takes it back, and appends by the first next,
//! which fails if it lost that too. (An access list of transactional ids must allow both, `<name>` and `<name>.2`.)

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientContext, util::Timeout};
use tributary_event::ErrorClass;

use super::client::{Compression, KafkaSettings, class, log};
use crate::contract::{Batch, Producer, TransportError};
use crate::metric;

/// How long opening a producer may take: an unfinished transaction of its predecessor is ended first.
const INIT: Duration = Duration::from_secs(60);
/// How long one try of a commit or an abort waits for its answer.
const TRY: Duration = Duration::from_secs(10);
/// How long a transaction may last.
const TRANSACTION: Duration = Duration::from_secs(300);
/// How often the end of the deliveries is looked for.
const DELIVERY_STEP: Duration = Duration::from_micros(200);
/// How often an append is repeated at once because the client had lost count.
const REPEATS: u32 = 3;
/// Records that are sent before other tasks get a turn.
const TURN: usize = 1024;

/// Remembers the first record that could not be delivered; not those that an abort takes back.
#[derive(Default)]
struct Deliveries {
    failure: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka producer");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result
            && !matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
            )
        {
            self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

pub(super) struct KafkaProducer {
    /// The client whose turn it is comes first.
    core: Arc<Core>,
    other: Arc<Core>,
    state: State,
    /// The second client has not committed anything yet.
    second_is_new: bool,
}

enum State {
    Ready,
    /// A transaction is open that must be aborted before the next one.
    Open,
    /// Nothing can be done any more, and why.
    Dead(String),
}

struct Core {
    /// The producer's name, and for Kafka the first client's.
    name: String,
    second: bool,
    /// A commit was asked for, so the brokers may have it.
    committing: AtomicBool,
    settings: KafkaSettings,
    client: BaseProducer<Deliveries>,
}

impl KafkaProducer {
    /// Opens the producer, which ends unfinished transactions of the same id and fences their owner. Blocking.
    pub fn open(settings: &KafkaSettings, id: &str) -> Result<Self, TransportError> {
        let core = Arc::new(Core::open(settings, id, false)?);
        let other = Arc::new(Core::open(settings, id, true)?);
        Ok(Self { core, other, state: State::Ready, second_is_new: true })
    }

    /// Opens the second client again, after another process that lost the first one to us took it, and gives the turn to the
    /// first, which tells whether we are still the owner.
    async fn reopen_second(&mut self) -> Result<(), TransportError> {
        let old = self.core.clone();
        let opened = tokio::task::spawn_blocking(move || Core::open(&old.settings, &old.name, true)).await;
        let interrupted = |e| TransportError::caused(ErrorClass::Fatal, "opening a producer was interrupted", e);
        self.core = Arc::new(opened.map_err(interrupted)??);
        std::mem::swap(&mut self.core, &mut self.other);
        self.state = State::Ready;
        Ok(())
    }

    async fn send(&self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
        let mut record = record;
        loop {
            match self.core.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.core.client.poll(Duration::ZERO);
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    async fn send_all(&self, batch: &Batch) -> Result<(), KafkaError> {
        for (n, record) in batch.records().enumerate() {
            let mut message = BaseRecord::to(record.topic).timestamp(record.timestamp_ms);
            message.key = record.key;
            message.payload = record.value;
            self.send(message).await?;
            if n % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
        }
        if let Some(checkpoint) = &batch.checkpoint {
            let topic = &self.core.settings.checkpoint_topic;
            let message = BaseRecord::to(topic).key(checkpoint.name.as_bytes()).payload(checkpoint.content.as_ref());
            self.send(message).await?;
        }
        Ok(())
    }

    /// Runs blocking work on the client; the producer is dead if it was fatal.
    async fn blocking(
        &mut self,
        work: impl FnOnce(&Core) -> Result<(), Outcome> + Send + 'static,
    ) -> Result<(), TransportError> {
        let core = self.core.clone();
        match tokio::task::spawn_blocking(move || work(&core)).await {
            Ok(Ok(())) => {
                self.state = State::Ready;
                Ok(())
            }
            Ok(Err(Outcome::Aborted(error))) => {
                self.state = State::Ready;
                Err(error)
            }
            Ok(Err(Outcome::Open(error))) => Err(error),
            Ok(Err(Outcome::Dead(error))) => {
                self.state = State::Dead(error.message.clone());
                Err(error)
            }
            Err(error) => {
                Err(TransportError::caused(ErrorClass::Fatal, "a transaction of Kafka was interrupted", error))
            }
        }
    }
}

/// How a transaction ended, if not well.
enum Outcome {
    Aborted(TransportError),
    Open(TransportError),
    Dead(TransportError),
}

impl Core {
    fn open(settings: &KafkaSettings, name: &str, second: bool) -> Result<Self, TransportError> {
        let id = if second { format!("{name}.2") } else { name.to_owned() };
        let message_bytes = settings.max_record_bytes.to_string();
        let compression = match settings.compression {
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        };
        let config = settings.client(&[
            ("transactional.id", id.as_str()),
            ("transaction.timeout.ms", "300000"),
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.timeout.ms", "30000"),
            ("partitioner", "murmur2_random"),
            ("compression.type", compression),
            ("compression.level", if settings.compression == Compression::Zstd { "1" } else { "-1" }),
            ("linger.ms", "0"),
            ("batch.num.messages", "20000"),
            ("batch.size", "1000000"),
            ("message.max.bytes", &message_bytes),
            ("queue.buffering.max.messages", "100000"),
            ("queue.buffering.max.kbytes", "16384"),
            ("delivery.report.only.error", "true"),
        ]);
        let client: BaseProducer<Deliveries> = config
            .create_with_context(Deliveries::default())
            .map_err(|error| settings.refused("the producer", error))?;
        client
            .init_transactions(INIT)
            .map_err(|error| settings.failed(&format!("opening the producer {id}"), error))?;
        Ok(Self {
            name: name.to_owned(),
            second,
            committing: AtomicBool::new(false),
            settings: settings.clone(),
            client,
        })
    }

    /// Waits for the deliveries, then commits. Blocking.
    fn commit(&self) -> Result<(), Outcome> {
        let start = Instant::now();
        while self.client.in_flight_count() > 0 {
            // A poll with a time limit would spin through its last millisecond.
            self.client.poll(Duration::ZERO);
            std::thread::sleep(DELIVERY_STEP);
        }
        if let Some((code, _)) = self.client.client().fatal_error() {
            return Err(Outcome::Dead(self.fenced(KafkaError::MessageProduction(code))));
        }
        self.committing.store(true, Ordering::Release);
        loop {
            let Err(error) = self.client.commit_transaction(TRY) else { return Ok(()) };
            match severity(&error) {
                Severity::Fatal => return Err(Outcome::Dead(self.fenced(error))),
                Severity::InDoubt if start.elapsed() < TRANSACTION => {
                    tracing::warn!(producer = self.name, %error, "a commit got no answer and is repeated");
                    std::thread::sleep(Duration::from_millis(20));
                }
                Severity::InDoubt => {
                    let text = format!(
                        "it is unknown whether the last append of {} is durable; restart to find out",
                        self.name
                    );
                    return Err(Outcome::Dead(TransportError::caused(ErrorClass::Fatal, text, error)));
                }
                Severity::Abortable => return self.abort(error),
            }
        }
    }

    /// Aborts the transaction. Never `Ok`, so that it can end a commit.
    fn abort(&self, cause: KafkaError) -> Result<(), Outcome> {
        tracing::debug!(producer = self.name, error = %cause, "aborting a transaction");
        let failure = self.client.context().failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        let cause = self.settings.failed("an append", failure.unwrap_or(cause));
        match self.end_open() {
            Ok(()) => Err(Outcome::Aborted(cause)),
            Err(error) if matches!(severity(&error), Severity::Fatal) => Err(Outcome::Dead(self.fenced(error))),
            Err(error) => {
                tracing::warn!(producer = self.name, %error, "a transaction could not be aborted yet");
                Err(Outcome::Open(cause))
            }
        }
    }

    /// Aborting waits for delivery reports, which somebody must serve meanwhile.
    fn end_open(&self) -> Result<(), KafkaError> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    self.client.poll(Duration::ZERO);
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let ended = self.client.abort_transaction(Timeout::After(TRY));
            done.store(true, Ordering::Release);
            ended
        })
    }

    fn fenced(&self, error: KafkaError) -> TransportError {
        use RDKafkaErrorCode as Code;
        let takeover = matches!(
            error.rdkafka_error_code(),
            Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::InvalidProducerIdMapping)
        );
        if takeover {
            let text = format!("another process took over as {}; this one must stop", self.name);
            return TransportError::caused(ErrorClass::Fatal, text, error);
        }
        let text = format!("the producer {} failed for good: {error}; restart the process", self.name);
        TransportError::caused(ErrorClass::Fatal, text, error)
    }
}

enum Severity {
    Fatal,
    Abortable,
    InDoubt,
}

fn severity(error: &KafkaError) -> Severity {
    match error {
        KafkaError::Transaction(inner) if inner.is_fatal() => Severity::Fatal,
        KafkaError::Transaction(inner) if inner.txn_requires_abort() => Severity::Abortable,
        KafkaError::Transaction(inner) if inner.is_retriable() => Severity::InDoubt,
        KafkaError::Transaction(inner) if class(inner.code()) == ErrorClass::Fatal => Severity::Fatal,
        KafkaError::Flush(_) => Severity::InDoubt,
        error if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => Severity::Fatal,
        _ => Severity::Abortable,
    }
}

#[async_trait]
impl Producer for KafkaProducer {
    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        if let State::Dead(cause) = &self.state {
            return Err(TransportError::new(ErrorClass::Fatal, cause.clone()));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let (mut repeats, mut reopened) = (0, false);
        loop {
            match self.try_append(batch).await {
                Ok(()) => {
                    self.second_is_new &= !self.core.second;
                    std::mem::swap(&mut self.core, &mut self.other);
                    break;
                }
                // After an aborted transaction the client may have lost count, which the brokers notice in the next one.
                // That one is aborted too; then the client has counted anew.
                Err(error) if counted_wrong(&error) && matches!(self.state, State::Ready) && repeats < REPEATS => {
                    tracing::debug!(%error, "an append is repeated");
                    repeats += 1;
                }
                Err(error) if self.second_was_taken() && !reopened => {
                    tracing::debug!(%error, "taking the second client back");
                    reopened = true;
                    self.reopen_second().await?;
                }
                Err(error) => return Err(error),
            }
        }
        metric::appended(batch);
        Ok(())
    }
}

fn counted_wrong(error: &TransportError) -> bool {
    let cause = error.source.as_ref().and_then(|source| source.downcast_ref::<KafkaError>());
    cause.and_then(KafkaError::rdkafka_error_code) == Some(RDKafkaErrorCode::OutOfOrderSequenceNumber)
}

impl KafkaProducer {
    /// Whether the second client was fenced before its first commit.
    fn second_was_taken(&self) -> bool {
        let dead = matches!(self.state, State::Dead(_));
        dead && self.core.second && self.second_is_new && !self.core.committing.load(Ordering::Acquire)
    }

    async fn try_append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        if matches!(self.state, State::Open) {
            self.blocking(|core| {
                core.end_open().map_err(|error| match severity(&error) {
                    Severity::Fatal => Outcome::Dead(core.fenced(error)),
                    _ => Outcome::Open(core.settings.failed("aborting the last append", error)),
                })
            })
            .await?;
        }
        self.core.client.context().failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Err(error) = self.core.client.begin_transaction() {
            if matches!(severity(&error), Severity::Fatal) {
                let error = self.core.fenced(error);
                self.state = State::Dead(error.message.clone());
                return Err(error);
            }
            self.state = State::Open;
            return Err(self.core.settings.failed("beginning a transaction", error));
        }
        self.state = State::Open;
        match self.send_all(batch).await {
            Ok(()) => self.blocking(Core::commit).await,
            Err(error) => self.blocking(move |core| core.abort(error)).await,
        }
    }
}
