//! Reading Kafka as a member of a group.
//!
//! A thread of its own polls librdkafka, so the membership lives while the caller is away: after a second without room in
//! the [`Mailbox`] it pauses its partitions and goes on serving rebalances. Partitions are shared out by the
//! cooperative-sticky protocol: a member that comes or goes stops only the partitions that move. An assignment has a
//! number; a commit counts only under the number it was read under.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientContext, Message, Offset, TopicPartitionList};
use tributary_event::ErrorClass;

use super::client::{KafkaSettings, class, log};
use super::mailbox::{Item, Mailbox};
use super::reader::Reader;
use crate::contract::{Consumer, ConsumerSettings, Delivery, Measuring, Polled, TopicPartition, TransportError};
use crate::metric;

/// How long one poll waits. The client spins through the last millisecond, so this bounds the work of an idle consumer.
const POLL: Duration = Duration::from_millis(500);
/// How long the caller may be away before fetching pauses.
const AWAY: Duration = Duration::from_secs(1);
/// How long a commit is repeated while the group rebalances.
const COMMIT: Duration = Duration::from_secs(10);
/// How long a question about the lag may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of one delivery.
const DELIVERY_BYTES: usize = 512 * 1024;
/// Records share pieces of memory of this size, so that one that is kept long keeps little.
const PIECE: usize = 64 * 1024;

/// What the thread, the callbacks and the caller share.
#[derive(Default)]
struct Membership {
    mailbox: Mailbox,
    assigned: Mutex<Assigned>,
    /// Ranges at the end of partitions that hold no record, only the marks of transactions.
    marks: Mutex<HashMap<TopicPartition, (u64, u64)>>,
}

#[derive(Default)]
struct Assigned {
    numbers: HashMap<TopicPartition, u64>,
    last: u64,
    /// The group has assigned partitions, or none, to this member.
    known: bool,
    names: HashMap<String, Arc<str>>,
}

struct Context(Arc<Membership>);

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(list) = rebalance {
            let mut assigned = self.0.assigned.lock().unwrap_or_else(PoisonError::into_inner);
            let places = assigned.places(list);
            assigned.numbers.retain(|place, _| !places.contains(place));
            drop(assigned);
            if !places.is_empty() {
                self.0.mailbox.tell(Item::Revoked(places));
            }
        }
    }

    fn post_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => {
                let mut assigned = self.0.assigned.lock().unwrap_or_else(PoisonError::into_inner);
                let mut news = Vec::new();
                assigned.known = true;
                for place in assigned.places(list) {
                    assigned.last += 1;
                    let number = assigned.last;
                    assigned.numbers.insert(place.clone(), number);
                    news.push((place, number));
                }
                drop(assigned);
                if !news.is_empty() {
                    self.0.mailbox.tell(Item::Assigned(news));
                }
            }
            Rebalance::Revoke(_) => {}
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed and is repeated"),
        }
    }
}

impl Assigned {
    fn name(&mut self, topic: &str) -> Arc<str> {
        if let Some(name) = self.names.get(topic) {
            return name.clone();
        }
        let name: Arc<str> = topic.into();
        self.names.insert(topic.to_owned(), name.clone());
        name
    }

    fn places(&mut self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let place = |topic: &str, partition| TopicPartition { topic: self.name(topic), partition };
        let mut place = place;
        list.elements().iter().map(|element| place(element.topic(), element.partition() as u32)).collect()
    }
}

pub(super) struct KafkaConsumer {
    kafka: KafkaSettings,
    settings: ConsumerSettings,
    client: Arc<BaseConsumer<Context>>,
    membership: Arc<Membership>,
    reader: Arc<Reader>,
    /// The assignment as the caller knows it.
    current: HashMap<TopicPartition, u64>,
    thread: Option<JoinHandle<()>>,
}

impl KafkaConsumer {
    /// Joins the group. Blocking.
    pub fn join(
        kafka: &KafkaSettings,
        reader: Arc<Reader>,
        settings: ConsumerSettings,
    ) -> Result<Self, TransportError> {
        for topic in &settings.topics {
            if reader.partitions(topic)? == 0 {
                return Err(kafka.unknown(topic));
            }
        }
        let config = kafka.client(&[
            ("group.id", &settings.group),
            ("isolation.level", "read_committed"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", if settings.from_start { "earliest" } else { "latest" }),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1500"),
            ("fetch.wait.max.ms", "500"),
            ("fetch.queue.backoff.ms", "2"),
            ("fetch.error.backoff.ms", "100"),
            ("queued.min.messages", "20000"),
            ("queued.max.messages.kbytes", "4096"),
            ("fetch.message.max.bytes", "1048576"),
            ("fetch.max.bytes", "4194304"),
        ]);
        let membership = Arc::new(Membership::default());
        let client: BaseConsumer<Context> = config
            .create_with_context(Context(membership.clone()))
            .map_err(|error| kafka.refused("the consumer", error))?;
        let topics: Vec<&str> = settings.topics.iter().map(String::as_str).collect();
        client.subscribe(&topics).map_err(|error| kafka.failed("joining a group", error))?;
        let client = Arc::new(client);
        let worker = Worker {
            kafka: kafka.clone(),
            client: client.clone(),
            membership: membership.clone(),
            max_records: settings.max_records.max(1),
            piece: BytesMut::new(),
            paused: false,
        };
        let thread =
            std::thread::Builder::new().name("kafka-consumer".into()).spawn(move || worker.run()).map_err(|error| {
                TransportError::caused(
                    ErrorClass::Fatal,
                    format!("no thread can be started for a consumer: {error}"),
                    error,
                )
            })?;
        let kafka = kafka.clone();
        Ok(Self { kafka, settings, client, membership, reader, current: HashMap::new(), thread: Some(thread) })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BaseConsumer<Context>) -> Result<T, TransportError> + Send + 'static,
    ) -> Result<T, TransportError> {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || work(&client)).await.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// The partitions that are this caller's now and as far as it knows.
    fn valid(&self, place: &TopicPartition) -> bool {
        let assigned = self.membership.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        self.current.get(place).is_some_and(|number| assigned.numbers.get(place) == Some(number))
    }
}

/// The thread that polls.
struct Worker {
    kafka: KafkaSettings,
    client: Arc<BaseConsumer<Context>>,
    membership: Arc<Membership>,
    max_records: usize,
    piece: BytesMut,
    paused: bool,
}

impl Worker {
    fn run(mut self) {
        let mut held: Vec<Polled> = Vec::new();
        while !self.membership.mailbox.is_closed() {
            let more = held.is_empty() || self.paused;
            if more && let Err(error) = self.fill(&mut held) {
                self.membership.mailbox.tell(Item::Failed(error));
                return;
            }
            if held.is_empty() {
                continue;
            }
            let limit = if self.paused { Duration::ZERO } else { AWAY };
            match self.membership.mailbox.put(std::mem::take(&mut held), limit) {
                None if self.paused => self.set_paused(false),
                None => {}
                Some(back) => {
                    held = back;
                    // Again each time, since partitions may have come meanwhile.
                    self.set_paused(true);
                }
            }
        }
    }

    fn set_paused(&mut self, paused: bool) {
        let done = self.client.assignment().and_then(|list| match paused {
            true => self.client.pause(&list),
            false => self.client.resume(&list),
        });
        if let Err(error) = done {
            tracing::debug!(%error, paused, "partitions could not be paused or resumed");
        }
        self.paused = paused;
    }

    /// Polls once with patience, then takes what is there.
    fn fill(&mut self, held: &mut Vec<Polled>) -> Result<(), TransportError> {
        let mut bytes = 0;
        let mut patience = POLL;
        while held.len() < self.max_records && bytes < DELIVERY_BYTES {
            let client = self.client.clone();
            match client.poll(patience) {
                None => break,
                Some(Ok(message)) => {
                    bytes += message.payload_len() + message.key_len();
                    let record = self.record(&message);
                    held.push(record);
                }
                Some(Err(error)) => self.judge(error)?,
            }
            patience = Duration::ZERO;
        }
        // A rebalance within a poll may have taken a partition whose records are held here.
        let assigned = self.membership.assigned.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|record| assigned.numbers.contains_key(&record.place));
        Ok(())
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) -> Polled {
        let topic = self.membership.assigned.lock().unwrap_or_else(PoisonError::into_inner).name(message.topic());
        let need = message.key_len() + message.payload_len();
        if self.piece.capacity() < need {
            self.piece = BytesMut::with_capacity(PIECE.max(need));
        }
        let piece = &mut self.piece;
        let mut copy = |bytes: &[u8]| {
            piece.extend_from_slice(bytes);
            piece.split().freeze()
        };
        Polled {
            place: TopicPartition { topic, partition: message.partition() as u32 },
            offset: message.offset() as u64,
            key: message.key().map(&mut copy),
            value: message.payload().map(&mut copy),
            timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        }
    }

    /// Errors that pass by themselves are noted; others end the consumer.
    fn judge(&self, error: KafkaError) -> Result<(), TransportError> {
        let code = error.rdkafka_error_code();
        let fatal =
            matches!(error, KafkaError::MessageConsumptionFatal(_)) || code.map(class) == Some(ErrorClass::Fatal);
        if matches!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic))
            && !self.missing()
        {
            tracing::debug!(%error, "a topic is not known to a broker yet");
        } else if fatal {
            return Err(self.kafka.failed("reading", error));
        } else {
            tracing::debug!(%error, "reading waits for the brokers");
        }
        Ok(())
    }

    /// Whether the cluster itself says that a subscribed topic does not exist.
    fn missing(&self) -> bool {
        let Ok(list) = self.client.subscription() else { return false };
        let Ok(metadata) = self.client.fetch_metadata(None, Duration::from_secs(5)) else { return false };
        let known: Vec<&str> = metadata.topics().iter().filter(|t| t.error().is_none()).map(|t| t.name()).collect();
        list.elements().iter().any(|element| !known.contains(&element.topic()))
    }
}

fn rebalancing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::IllegalGeneration | Code::RebalanceInProgress | Code::UnknownMemberId | Code::NotCoordinator)
    )
}

#[async_trait]
impl Consumer for KafkaConsumer {
    async fn next(&mut self) -> Result<Delivery, TransportError> {
        match self.membership.mailbox.next().await {
            Item::Assigned(news) => {
                let places = news.iter().map(|(place, _)| place.clone()).collect();
                self.current.extend(news);
                Ok(Delivery::Assigned(places))
            }
            Item::Revoked(places) => {
                self.current.retain(|place, _| !places.contains(place));
                Ok(Delivery::Revoked(places))
            }
            Item::Records(records) => {
                metric::polled(&self.settings.group, &records);
                Ok(Delivery::Records(records))
            }
            Item::Failed(error) => Err(error),
        }
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        let start = Instant::now();
        loop {
            // Again each time: a rebalance may take partitions meanwhile.
            let mut list = TopicPartitionList::new();
            for (place, offset) in offsets.iter().filter(|(place, _)| self.valid(place)) {
                list.add_partition_offset(&place.topic, place.partition as i32, Offset::Offset(*offset as i64))
                    .map_err(|error| self.kafka.failed("committing offsets", error))?;
            }
            if list.count() == 0 {
                return Ok(());
            }
            match self.blocking(move |client| Ok(client.commit(&list, CommitMode::Sync))).await? {
                Ok(()) => return Ok(()),
                Err(error) if rebalancing(&error) && start.elapsed() < COMMIT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(self.kafka.failed("committing offsets", error)),
            }
        }
    }

    fn lag(&mut self) -> Measuring {
        let (kafka, reader, from_start) = (self.kafka.clone(), self.reader.clone(), self.settings.from_start);
        let (client, membership) = (self.client.clone(), self.membership.clone());
        Box::pin(async move {
            let measured = tokio::task::spawn_blocking(move || membership.lag(&kafka, &client, &reader, from_start));
            measured.await.unwrap_or_else(|error| Err(interrupted(error)))
        })
    }
}

impl Membership {
    /// Asks for everything that the lag is made of. Blocking.
    fn lag(
        &self,
        kafka: &KafkaSettings,
        client: &BaseConsumer<Context>,
        reader: &Reader,
        from_start: bool,
    ) -> Result<u64, TransportError> {
        let places: Vec<TopicPartition> = {
            let assigned = self.assigned.lock().unwrap_or_else(PoisonError::into_inner);
            if !assigned.known {
                let text = "the group has not assigned partitions yet";
                return Err(TransportError::new(ErrorClass::Transient, text));
            }
            assigned.numbers.keys().cloned().collect()
        };
        let mut list = TopicPartitionList::new();
        for place in &places {
            list.add_partition(&place.topic, place.partition as i32);
        }
        let committed = client
            .committed_offsets(list, ANSWER)
            .map_err(|error| kafka.failed("asking for committed offsets", error))?;
        let mut lag = 0;
        for place in places {
            let ends = reader.ends(&place)?;
            let found = committed.find_partition(&place.topic, place.partition as i32).map(|found| found.offset());
            let from = match found {
                Some(Offset::Offset(offset)) => (offset as u64).max(ends.low),
                _ if from_start => ends.low,
                _ => ends.high,
            };
            let behind = ends.high.saturating_sub(from);
            let marks = || self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if behind == 0 || marks().get(&place) == Some(&(from, ends.high)) {
                continue;
            }
            // The last offsets may be marks of transactions, which nobody reads.
            if behind <= 8 && reader.read(&place, from, 1)?.is_empty() {
                marks().insert(place, (from, ends.high));
                continue;
            }
            lag += behind;
        }
        Ok(lag)
    }
}

fn interrupted(error: tokio::task::JoinError) -> TransportError {
    TransportError::caused(ErrorClass::Fatal, "a call of a Kafka consumer was interrupted", error)
}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        self.membership.mailbox.close();
        // Wakes the thread from its poll.
        self.client.unsubscribe();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(group = self.settings.group, "the thread of a consumer panicked");
        }
    }
}
