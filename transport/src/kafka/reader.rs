//! Reading Kafka without a group: metadata, watermarks, stretches of a partition, checkpoints. All of it blocks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Message, Offset, TopicPartitionList};
use tributary_event::ErrorClass;

use super::client::{KafkaSettings, Quiet};
use super::headers;
use super::identity::Identities;
use crate::contract::{Polled, TopicPartition, TransportError, Watermarks};
use crate::headers::Headers;
use crate::numbers::{self, Numbered};

/// Lines of what a client has to say that are heard at a time.
const HEARD: usize = 64;
const ANSWER: Duration = Duration::from_secs(10);
/// How long an answer about the leaders of a topic may take.
const METADATA: Duration = Duration::from_secs(2);
/// Without a record or the end for this long, and for as long as the largest record may take, a read gives up.
const SILENCE: Duration = Duration::from_secs(15);
/// How long the end of an open transaction is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// The last offsets of the checkpoint topic, where most checkpoints are found.
const RECENT: u64 = 2_000;

pub(super) struct Reader {
    settings: KafkaSettings,
    /// Reads one stretch at a time.
    client: Mutex<BaseConsumer<Quiet>>,
    /// Answers questions; never reads, so it never waits for a stretch.
    questions: BaseConsumer<Quiet>,
    /// Knows the ends of uncommitted records.
    uncommitted: BaseConsumer<Quiet>,
    /// The running numbers that are kept, as far as they were read.
    numbers: Mutex<Read>,
    /// What the names of topics mean.
    pub identities: Identities,
    /// Topics that were there: one of the brokers may not know of a new one yet.
    seen: Mutex<HashSet<String>>,
}

/// How far the checkpoints were read for running numbers, and those, by the name under which they are kept.
#[derive(Default)]
struct Read {
    next: u64,
    kept: BTreeMap<String, (String, Numbered)>,
}

impl Reader {
    pub fn new(settings: &KafkaSettings) -> Result<Self, TransportError> {
        let make = |isolation| client(settings, isolation);
        let client = Mutex::new(make("read_committed")?);
        let (questions, uncommitted) = (make("read_committed")?, make("read_uncommitted")?);
        let identities = Identities::new(settings);
        Ok(Self {
            settings: settings.clone(),
            client,
            questions,
            uncommitted,
            numbers: Mutex::default(),
            identities,
            seen: Mutex::default(),
        })
    }

    /// The whole cluster's topics. Asking for one by name could create it.
    pub fn metadata(&self) -> Result<Metadata, TransportError> {
        self.questions.fetch_metadata(None, ANSWER).map_err(|error| {
            // Whoever polls a client hears why its connections failed: a line each time, of which none is a message.
            for _ in 0..HEARD {
                drop(self.questions.poll(Duration::ZERO));
            }
            self.settings.failed("asking for the topics", error)
        })
    }

    /// Partitions of a topic; 0 if there is none of that name, and never was one. `Transient` if there was.
    pub fn partitions(&self, topic: &str) -> Result<u32, TransportError> {
        let metadata = self.metadata()?;
        let found = metadata.topics().iter().find(|t| t.name() == topic && t.error().is_none());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Some(found) => {
                seen.insert(topic.to_owned());
                Ok(found.partitions().len() as u32)
            }
            None if seen.contains(topic) => {
                let text = format!(
                    "topic {topic} was there, and a broker of Kafka {} does not know it now: it may not have heard of it yet, or \
                     the topic was deleted",
                    self.settings.brokers
                );
                Err(TransportError::new(ErrorClass::Transient, text))
            }
            None => Ok(0),
        }
    }

    /// Topics are there, as one of the brokers said.
    pub fn saw(&self, topics: impl IntoIterator<Item = String>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).extend(topics);
    }

    /// The kept range of committed records.
    pub fn ends(&self, place: &TopicPartition) -> Result<Watermarks, TransportError> {
        self.ends_by(&self.questions, place)
    }

    /// The kept ranges of committed records of many partitions, by two questions. Those of partitions without a leader are not among
    /// them.
    pub fn ends_of(&self, places: &[TopicPartition]) -> Result<HashMap<TopicPartition, Watermarks>, TransportError> {
        if places.is_empty() {
            return Ok(HashMap::new());
        }
        let ask = |end: Offset| {
            let failed = |error| self.settings.failed("asking for the ends of partitions", error);
            let mut list = TopicPartitionList::new();
            for place in places {
                list.add_partition_offset(&place.topic, place.partition as i32, end).map_err(failed)?;
            }
            self.questions.offsets_for_times(list, ANSWER).map_err(failed)
        };
        let (lows, highs) = (ask(Offset::Beginning)?, ask(Offset::End)?);
        let offset = |list: &TopicPartitionList, place: &TopicPartition| {
            let found = list.find_partition(&place.topic, place.partition as i32)?;
            match (found.error(), found.offset()) {
                (Ok(()), Offset::Offset(offset)) => u64::try_from(offset).ok(),
                _ => None,
            }
        };
        let ends = |place: &TopicPartition| {
            let (low, high) = (offset(&lows, place)?, offset(&highs, place)?);
            Some((place.clone(), Watermarks { low, high: high.max(low) }))
        };
        Ok(places.iter().filter_map(ends).collect())
    }

    /// The kept range of committed records, with everything that was appended before this call. The brokers mark records
    /// as committed a moment after the commit was acknowledged; a transaction that stays open is not waited for long.
    pub fn committed_ends(&self, place: &TopicPartition) -> Result<Watermarks, TransportError> {
        Ok(self.when_committed(place)?.0)
    }

    /// The ends, and whether everything that was appended before this call is in them.
    fn when_committed(&self, place: &TopicPartition) -> Result<(Watermarks, bool), TransportError> {
        let appended = self.ends_by(&self.uncommitted, place)?.high;
        let start = Instant::now();
        loop {
            let ends = self.ends(place)?;
            let is_whole = ends.high >= appended;
            if is_whole || start.elapsed() > PATIENCE {
                return Ok((ends, is_whole));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Fails while an open transaction hides checkpoints: of the topic all names share.
    pub fn checkpoints_are_readable(&self) -> Result<(), TransportError> {
        self.is_readable(&self.settings.checkpoint_topic)
    }

    fn is_readable(&self, topic: &str) -> Result<(), TransportError> {
        let place = TopicPartition { topic: topic.into(), partition: 0 };
        if self.partitions(topic)? == 0 || self.when_committed(&place)?.1 {
            return Ok(());
        }
        let text = format!(
            "an unfinished transaction of another process hides the last checkpoints in topic {topic} of Kafka {}; it ends \
             when that process starts again, or after its transaction.timeout.ms",
            self.settings.brokers
        );
        Err(TransportError::new(ErrorClass::Transient, text))
    }

    fn ends_by(&self, client: &BaseConsumer<Quiet>, place: &TopicPartition) -> Result<Watermarks, TransportError> {
        let start = Instant::now();
        loop {
            match client.fetch_watermarks(&place.topic, place.partition as i32, ANSWER) {
                Ok((low, high)) => return Ok(Watermarks { low: low.max(0) as u64, high: high.max(0) as u64 }),
                // A partition that is new, or whose leader has moved.
                Err(error) if moving(&error) && start.elapsed() < ANSWER => {
                    // A broker that had just begun may have said that it knows of no such partition, and librdkafka would believe that
                    // for minutes. What it says now takes the place of it; that there is no answer shows in the next try.
                    let _ = client.fetch_metadata(Some(&place.topic), METADATA);
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => {
                    let what = format!("asking for the ends of {} {}", place.topic, place.partition);
                    return Err(self.settings.failed(&what, error));
                }
            }
        }
    }

    /// The first offset of a record of this time or later, or the end.
    pub fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<u64, TransportError> {
        let what = format!("asking for the records of a time in {} {}", place.topic, place.partition);
        if self.partitions(&place.topic)? <= place.partition {
            return Err(self.settings.unknown(&place.topic));
        }
        // Asked for first: what comes meanwhile stands behind it.
        let ends = self.committed_ends(place)?;
        let start = Instant::now();
        loop {
            let failed = |error| self.settings.failed(&what, error);
            let mut asked = TopicPartitionList::new();
            // Negative numbers are questions of another kind.
            let time = Offset::Offset(time_ms.max(0));
            asked.add_partition_offset(&place.topic, place.partition as i32, time).map_err(failed)?;
            let found = self.questions.offsets_for_times(asked, ANSWER);
            let found = found.and_then(|list| {
                let found = list.elements();
                let Some(found) = found.first() else { return Ok(None) };
                found.error()?;
                Ok(found.offset().to_raw().and_then(|offset| u64::try_from(offset).ok()))
            });
            match found {
                Ok(found) => return Ok(found.unwrap_or(ends.high).clamp(ends.low, ends.high)),
                Err(error) if moving(&error) && start.elapsed() < ANSWER => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Up to `max` records from `offset`.
    pub fn read(&self, place: &TopicPartition, offset: u64, max: usize) -> Result<Vec<Polled>, TransportError> {
        let mut records = Vec::new();
        self.scan(place, offset, |record| {
            records.push(record);
            records.len() < max
        })?;
        Ok(records)
    }

    /// Calls `visit` with the records from `offset` on, until it returns false or the committed end is reached.
    pub fn scan(
        &self,
        place: &TopicPartition,
        offset: u64,
        mut visit: impl FnMut(Polled) -> bool,
    ) -> Result<(), TransportError> {
        let ends = self.committed_ends(place)?;
        let offset = offset.max(ends.low);
        if offset >= ends.high {
            return Ok(());
        }
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        self.stretch(&client, place, (offset, ends.high), &mut visit)
    }

    /// The same by a client that nobody else uses now, up to `high`.
    fn stretch(
        &self,
        client: &BaseConsumer<Quiet>,
        place: &TopicPartition,
        (offset, high): (u64, u64),
        visit: &mut impl FnMut(Polled) -> bool,
    ) -> Result<(), TransportError> {
        let failed = |error| self.settings.failed(&format!("reading {} {}", place.topic, place.partition), error);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&place.topic, place.partition as i32, Offset::Offset(offset as i64))
            .map_err(failed)?;
        client.assign(&list).map_err(failed)?;
        let done = self.drain(client, place, offset, high, visit);
        client.unassign().map_err(failed)?;
        done
    }

    fn drain(
        &self,
        client: &BaseConsumer<Quiet>,
        place: &TopicPartition,
        offset: u64,
        high: u64,
        visit: &mut impl FnMut(Polled) -> bool,
    ) -> Result<(), TransportError> {
        let failed = |error| self.settings.failed(&format!("reading {} {}", place.topic, place.partition), error);
        let mut heard = Instant::now();
        let limit = SILENCE + self.settings.patience();
        while heard.elapsed() < limit {
            match client.poll(Duration::from_millis(100)) {
                None => continue,
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let at = message.offset() as u64;
                    // A poll may still bring what the last assignment had fetched.
                    if message.topic() != &*place.topic || message.partition() as u32 != place.partition || at < offset
                    {
                        continue;
                    }
                    let mut kept = Vec::new();
                    if let Some((found, room)) = headers::of(&message, place) {
                        kept.reserve_exact(room);
                        headers::write(found, &mut kept);
                    }
                    let record = Polled {
                        place: place.clone(),
                        offset: at,
                        key: message.key().map(Bytes::copy_from_slice),
                        value: message.payload().map(Bytes::copy_from_slice),
                        headers: Headers::written(kept.into()),
                        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
                    };
                    if !visit(record) || at + 1 >= high {
                        return Ok(());
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) if partition as u32 == place.partition => return Ok(()),
                Some(Err(error)) => {
                    let transport =
                        self.settings.failed(&format!("reading {} {}", place.topic, place.partition), error);
                    if transport.class != ErrorClass::Transient {
                        return Err(transport);
                    }
                }
            }
        }
        Err(failed(KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut)))
    }

    /// The last of all that is kept with the checkpoints under names that begin so.
    pub fn kept(&self, prefix: &str) -> Result<Vec<(String, Bytes)>, TransportError> {
        let topic = self.settings.checkpoint_topic.as_str();
        if self.partitions(topic)? == 0 {
            return Ok(Vec::new());
        }
        let place = TopicPartition { topic: topic.into(), partition: 0 };
        let mut found: HashMap<String, Bytes> = HashMap::new();
        self.scan(&place, 0, |record| {
            let name = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            if let (Some(name), Some(content)) = (name.filter(|name| name.starts_with(prefix)), record.value) {
                found.insert(name.to_owned(), content);
            }
            true
        })?;
        Ok(found.into_iter().collect())
    }

    /// All running numbers that are kept with the checkpoints. What was read of them before is not read again.
    pub fn numbers(&self) -> Result<Vec<(String, Numbered)>, TransportError> {
        let topic = self.settings.checkpoint_topic.as_str();
        if self.partitions(topic)? == 0 {
            return Ok(Vec::new());
        }
        let place = TopicPartition { topic: topic.into(), partition: 0 };
        let mut read = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.ends(&place)?.high < read.next {
            // Somebody made the topic anew.
            *read = Read::default();
        }
        let Read { next, kept } = &mut *read;
        self.scan(&place, *next, |record| {
            *next = record.offset + 1;
            let name = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
            if let (Some(name), Some(content)) = (name, record.value)
                && let Some(numbered) = numbers::kept(name, &content)
            {
                kept.insert(name.to_owned(), numbered);
            }
            true
        })?;
        Ok(kept.values().cloned().collect())
    }

    /// The same, also of what somebody's unfinished transaction stands before: for what is appended without any.
    pub fn kept_beside(&self, prefix: &str) -> Result<HashMap<String, Bytes>, TransportError> {
        let mut found = HashMap::new();
        let place = TopicPartition { topic: self.settings.checkpoint_topic.as_str().into(), partition: 0 };
        if self.partitions(&place.topic)? == 0 {
            return Ok(found);
        }
        let ends = self.ends_by(&self.uncommitted, &place)?;
        if ends.low < ends.high {
            let client = client(&self.settings, "read_uncommitted")?;
            self.stretch(&client, &place, (ends.low, ends.high), &mut |record| {
                let name = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok());
                if let (Some(name), Some(content)) = (name.filter(|name| name.starts_with(prefix)), record.value) {
                    found.insert(name.to_owned(), content);
                }
                true
            })?;
        }
        Ok(found)
    }

    /// The last checkpoint of a name.
    pub fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        let found = self.checkpoint_in(&self.settings.checkpoint_topic, name)?;
        match &self.settings.former_checkpoint_topic {
            Some(former) if found.is_none() => {
                self.is_readable(former)?;
                self.checkpoint_in(former, name)
            }
            _ => Ok(found),
        }
    }

    fn checkpoint_in(&self, topic: &str, name: &str) -> Result<Option<Bytes>, TransportError> {
        if self.partitions(topic)? == 0 {
            return Ok(None);
        }
        let place = TopicPartition { topic: topic.into(), partition: 0 };
        let ends = self.committed_ends(&place)?;
        let recent = ends.high.saturating_sub(RECENT).max(ends.low);
        for from in [recent, ends.low] {
            let mut found = None;
            self.scan(&place, from, |record| {
                if record.key.as_deref() == Some(name.as_bytes()) {
                    found = Some(record.value);
                }
                true
            })?;
            if let Some(content) = found {
                return Ok(content);
            }
            if from == ends.low {
                break;
            }
        }
        Ok(None)
    }
}

fn client(settings: &KafkaSettings, isolation: &str) -> Result<BaseConsumer<Quiet>, TransportError> {
    let config = settings.client(&[
        // Required by librdkafka for manual assignment; nothing is committed under it.
        ("group.id", "tributary-reader"),
        ("isolation.level", isolation),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("enable.partition.eof", "true"),
        ("auto.offset.reset", "earliest"),
        ("fetch.wait.max.ms", "50"),
        ("fetch.queue.backoff.ms", "2"),
        ("queued.max.messages.kbytes", "2048"),
        ("fetch.message.max.bytes", "1048576"),
        ("fetch.max.bytes", "2097152"),
    ]);
    config.create_with_context(Quiet::of(settings)).map_err(|error| settings.refused("the reader", error))
}

fn moving(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition
        )
    )
}
