//! Reading Kafka as a member of a group, or behind one.
//!
//! A thread of its own polls librdkafka ([`worker`]), so the membership lives while the caller is away: after a second without room
//! in the [`Mailbox`](super::mailbox::Mailbox) it pauses its partitions and goes on serving rebalances. Partitions are shared out by
//! the cooperative-sticky protocol: a member that comes or goes stops only the partitions that move. An assignment has a number; a
//! commit counts only under the number it was read under ([`membership`]).
//!
//! A consumer that follows another one is no member of its group: it assigns itself the partitions with the numbers that the
//! leading one has, and commits for its group as one that has no members.
//!
//! librdkafka is told to fail where it would begin elsewhere by itself: where a partition no longer has the record that the group
//! wants next, the thread looks for what is left, says what was lost, and reads on.

mod lag;
mod membership;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tributary_event::ErrorClass;

use self::membership::{Context, Following, Membership, Place};
use self::worker::Worker;
use super::appender::KafkaAppender;
use super::client::KafkaSettings;
use super::mailbox::Item;
use super::reader::Reader;
use crate::contract::{
    Batch, Consumer, ConsumerSettings, Delivery, Measuring, Producer as _, TopicPartition, TransportError,
};
use crate::metric;

/// How long a commit is repeated while the group rebalances.
const COMMIT: Duration = Duration::from_secs(10);

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
        let consumer = Self::start(kafka, reader, settings, Arc::default())?;
        consumer.subscribe()
    }

    /// Joins the group of the first settings, and follows it with the second ones. Blocking.
    pub fn join_and_follow(
        kafka: &KafkaSettings,
        reader: Arc<Reader>,
        leading: ConsumerSettings,
        following: ConsumerSettings,
    ) -> Result<[Self; 2], TransportError> {
        let one = |settings: &ConsumerSettings| match &settings.topics[..] {
            [topic] => match reader.partitions(topic)? {
                0 => Err(kafka.unknown(topic)),
                partitions => Ok((topic.clone(), partitions)),
            },
            topics => {
                let text = format!("one consumer follows another with one topic each, not with {topics:?}");
                Err(TransportError::new(ErrorClass::Fatal, text))
            }
        };
        let ((leading_topic, leading_count), (topic, count)) = (one(&leading)?, one(&following)?);
        if leading_count != count {
            tracing::warn!(
                "topic {leading_topic} has {leading_count} partitions and topic {topic} has {count}: records of one key may be \
                 read by two processes; give them the same number of partitions"
            );
        }
        let behind = Arc::new(Membership::default());
        let link = Arc::new(Following::new(topic.as_str().into(), count, leading_count, behind.clone()));
        let ahead = Arc::new(Membership::followed_by(link.clone()));
        let behind = Self::start_behind(kafka, reader.clone(), following, behind, link)?;
        let ahead = Self::start(kafka, reader, leading, ahead)?.subscribe()?;
        Ok([ahead, behind])
    }

    fn start(
        kafka: &KafkaSettings,
        reader: Arc<Reader>,
        settings: ConsumerSettings,
        membership: Arc<Membership>,
    ) -> Result<Self, TransportError> {
        let client = client(kafka, &settings, &membership, &reader)?;
        Ok(Self { kafka: kafka.clone(), settings, client, membership, reader, current: HashMap::new(), thread: None })
    }

    fn subscribe(mut self) -> Result<Self, TransportError> {
        let topics: Vec<&str> = self.settings.topics.iter().map(String::as_str).collect();
        self.client.subscribe(&topics).map_err(|error| self.kafka.failed("joining a group", error))?;
        self.thread = Some(self.work(None)?);
        Ok(self)
    }

    fn start_behind(
        kafka: &KafkaSettings,
        reader: Arc<Reader>,
        settings: ConsumerSettings,
        membership: Arc<Membership>,
        link: Arc<Following>,
    ) -> Result<Self, TransportError> {
        let mut consumer = Self::start(kafka, reader, settings, membership)?;
        consumer.thread = Some(consumer.work(Some(link))?);
        Ok(consumer)
    }

    /// The thread that polls.
    fn work(&self, follows: Option<Arc<Following>>) -> Result<JoinHandle<()>, TransportError> {
        let worker = Worker {
            kafka: self.kafka.clone(),
            client: self.client.clone(),
            membership: self.membership.clone(),
            reader: self.reader.clone(),
            max_records: self.settings.max_records.max(1),
            piece: BytesMut::new(),
            paused: false,
            stopped: Default::default(),
            doubt: None,
            checked: Instant::now(),
            absent: None,
            follows,
            followed: Default::default(),
            kept: Instant::now(),
        };
        std::thread::Builder::new().name("kafka-consumer".into()).spawn(move || worker.run()).map_err(|error| {
            let text = format!("no thread can be started for a consumer: {error}");
            TransportError::caused(ErrorClass::Fatal, text, error)
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&BaseConsumer<Context>) -> Result<T, TransportError> + Send + 'static,
    ) -> Result<T, TransportError> {
        let client = self.client.clone();
        tokio::task::spawn_blocking(move || work(&client)).await.unwrap_or_else(|error| Err(interrupted(error)))
    }

    /// Keeps which topics the group reads, before it has offsets of them: a topic that is deleted takes them with it.
    async fn keep_topics(&self, places: impl Iterator<Item = &TopicPartition>) -> Result<(), TransportError> {
        let mut batch = Batch::new();
        let topic: Arc<str> = self.kafka.checkpoint_topic.as_str().into();
        {
            let reading = self.membership.reading();
            for place in places {
                let Some(Place { topic: Some(id), is_kept: false, .. }) = reading.place(place) else { continue };
                let (name, id) = (membership::kept_as(&self.settings.group, place), id.to_string());
                let now_ms = tributary_event::clock::now_us() / 1_000;
                batch.push(&topic, now_ms, Some(name.as_bytes()), Some(id.as_bytes()));
            }
        }
        match batch.is_empty() {
            true => Ok(()),
            false => KafkaAppender::open(&Arc::new(self.kafka.clone()), &self.reader)?.append(&batch).await,
        }
    }

    /// The partitions that are this caller's now and as far as it knows.
    fn valid(&self, place: &TopicPartition) -> bool {
        let reading = self.membership.reading();
        self.current.get(place).is_some_and(|number| reading.number(place) == Some(*number))
    }
}

fn client(
    kafka: &KafkaSettings,
    settings: &ConsumerSettings,
    membership: &Arc<Membership>,
    reader: &Arc<Reader>,
) -> Result<Arc<BaseConsumer<Context>>, TransportError> {
    let mut config = kafka.client(&[
        ("group.id", &settings.group),
        ("isolation.level", "read_committed"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
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
    // Whatever the user says: to begin elsewhere without a word is to lose records.
    config.set("auto.offset.reset", "error");
    let (membership, kafka_settings, reader) = (membership.clone(), kafka.clone(), reader.clone());
    let (group, from_start) = (settings.group.clone(), settings.from_start);
    let context = Context { membership, kafka: kafka_settings, reader, group, from_start };
    let client = config.create_with_context(context).map_err(|error| kafka.refused("the consumer", error))?;
    Ok(Arc::new(client))
}

/// A list of partitions for librdkafka, each with an offset.
fn list<'a>(places: impl IntoIterator<Item = (&'a TopicPartition, Offset)>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for (place, offset) in places {
        if let Err(error) = list.add_partition_offset(&place.topic, place.partition as i32, offset) {
            tracing::debug!(%error, ?offset, "an offset that librdkafka does not know");
        }
    }
    list
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
        match self.membership.mailbox.next(self.settings.max_records.max(1)).await {
            Item::Assigned(news) => {
                self.current.extend(news.iter().map(|(assignment, number)| (assignment.place.clone(), *number)));
                Ok(Delivery::Assigned(news.into_iter().map(|(assignment, _)| assignment).collect()))
            }
            Item::Revoked(places) => {
                self.current.retain(|place, _| !places.contains(place));
                Ok(Delivery::Revoked(places))
            }
            Item::Lost(losses) => {
                let anew = losses.iter().filter_map(|(loss, number)| Some((loss.place.clone(), (*number)?)));
                self.current.extend(anew);
                Ok(Delivery::Lost(losses.into_iter().map(|(loss, _)| loss).collect()))
            }
            Item::Records(records) => {
                metric::polled(&self.settings.group, &records);
                Ok(Delivery::Records(records))
            }
            Item::Failed(error) => Err(error),
        }
    }

    fn pause(&mut self, places: &[TopicPartition]) {
        let ours = places.iter().filter(|place| self.current.contains_key(*place)).cloned();
        self.membership.mailbox.pause(ours);
    }

    fn resume(&mut self, places: &[TopicPartition]) {
        self.membership.mailbox.resume(places.iter());
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        let start = Instant::now();
        loop {
            // Again each time: a rebalance may take partitions meanwhile.
            let ours: Vec<_> = offsets.iter().filter(|(place, _)| self.valid(place)).collect();
            if ours.is_empty() {
                return Ok(());
            }
            self.keep_topics(ours.iter().map(|(place, _)| place)).await?;
            let list = self.membership.reading().of_topics(ours.iter().map(|(place, offset)| (place, *offset)));
            match self.blocking(move |client| Ok(client.commit(&list, CommitMode::Sync))).await? {
                Ok(()) => {
                    let mut reading = self.membership.reading();
                    ours.iter().for_each(|(place, offset)| reading.committed(place, *offset));
                    return Ok(());
                }
                Err(error) if rebalancing(&error) && start.elapsed() < COMMIT => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => return Err(self.kafka.failed("committing offsets", error)),
            }
        }
    }

    fn lag(&mut self, come_to: HashMap<TopicPartition, u64>) -> Measuring {
        let (kafka, reader, from_start) = (self.kafka.clone(), self.reader.clone(), self.settings.from_start);
        let (client, membership) = (self.client.clone(), self.membership.clone());
        Box::pin(async move {
            let measure = move || membership.lag(&kafka, &client, &reader, (from_start, &come_to));
            let measured = tokio::task::spawn_blocking(measure);
            measured.await.unwrap_or_else(|error| Err(interrupted(error)))
        })
    }

    fn backlog(&mut self) -> Measuring {
        let (kafka, reader, settings) = (self.kafka.clone(), self.reader.clone(), self.settings.clone());
        let (client, membership) = (self.client.clone(), self.membership.clone());
        let measure = move || {
            let mut places = Vec::new();
            for topic in settings.topics {
                let (count, topic) = (reader.partitions(&topic)?, Arc::<str>::from(topic));
                places.extend((0..count).map(|partition| TopicPartition { topic: topic.clone(), partition }));
            }
            membership.behind(places, &kafka, &client, &reader, (settings.from_start, &HashMap::new()))
        };
        Box::pin(async move {
            let measured = tokio::task::spawn_blocking(measure);
            measured.await.unwrap_or_else(|error| Err(interrupted(error)))
        })
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
