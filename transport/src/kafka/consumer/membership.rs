//! What a consumer has: its partitions, each with the number of its assignment and the offset that it reads next; what a rebalance
//! changes; and which partitions a consumer has that follows another one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr as ResponseCode;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tributary_event::ErrorClass;

use super::super::client::{KafkaSettings, log};
use super::super::mailbox::{Item, Mailbox};
use super::super::reader::Reader;
use super::list;
use crate::contract::TopicId;
use crate::contract::{Assignment, TopicPartition, TransportError};

/// How long a question about committed offsets may take.
pub(super) const ANSWER: Duration = Duration::from_secs(10);
/// Between two such questions in a rebalance.
const PAUSE: Duration = Duration::from_millis(200);

/// What the thread, the callbacks and the caller share.
#[derive(Default)]
pub(super) struct Membership {
    pub mailbox: Mailbox,
    reading: Mutex<Reading>,
    /// What is known of the ends of partitions, behind the committed offsets.
    pub tails: Mutex<HashMap<TopicPartition, Tail>>,
    /// The consumer that follows this one.
    pub follower: Option<Arc<Following>>,
    /// For one that follows: what it is to have. Absent in others.
    wanted: Mutex<Option<BTreeMap<u32, u64>>>,
}

/// What is between a partition's committed offset, which is named, and its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nobody has looked yet: whoever reads there may be at it.
    Unknown(u64),
    /// A record to read.
    Record(u64),
    /// No record up to this other offset: marks of transactions, and what aborted transactions left.
    Nothing(u64, u64),
}

/// The partitions of a consumer.
#[derive(Default)]
pub(super) struct Reading {
    places: HashMap<TopicPartition, Place>,
    last: u64,
    /// The group has assigned partitions, or none, to this member.
    pub known: bool,
    /// Of partitions that came it was not looked at whether their topic is the one that the group knows.
    pub unchecked: bool,
    names: HashMap<String, Arc<str>>,
}

/// A partition that is taken over.
pub(super) struct Taken {
    pub assignment: Assignment,
    /// The topic that the group read there, if that is known.
    topic: Option<TopicId>,
    is_kept: bool,
}

/// A partition that is read.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The number of its assignment.
    pub number: u64,
    /// The offset that is wanted next; none: the next record that comes.
    pub next: Option<u64>,
    /// The group's committed offset.
    pub committed: Option<u64>,
    /// The topic that these are offsets of, if it is known: there may be another one of its name by now.
    pub topic: Option<TopicId>,
    /// Whether it is kept that the group reads that topic.
    pub is_kept: bool,
}

impl Reading {
    pub fn name(&mut self, topic: &str) -> Arc<str> {
        if let Some(name) = self.names.get(topic) {
            return name.clone();
        }
        let name: Arc<str> = topic.into();
        self.names.insert(topic.to_owned(), name.clone());
        name
    }

    fn named(&mut self, list: &TopicPartitionList) -> Vec<TopicPartition> {
        let elements = list.elements();
        let place = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| TopicPartition {
            topic: self.name(element.topic()),
            partition: element.partition() as u32,
        };
        elements.iter().map(place).collect()
    }

    pub fn has(&self, place: &TopicPartition) -> bool {
        self.places.contains_key(place)
    }

    pub fn number(&self, place: &TopicPartition) -> Option<u64> {
        self.places.get(place).map(|at| at.number)
    }

    /// A record came: what is wanted next stands behind it.
    pub fn read(&mut self, place: &TopicPartition, offset: u64) {
        if let Some(at) = self.places.get_mut(place) {
            at.next = Some(offset + 1);
        }
    }

    /// Reads on elsewhere.
    pub fn move_to(&mut self, place: &TopicPartition, offset: u64) {
        if let Some(at) = self.places.get_mut(place) {
            at.next = Some(offset);
        }
    }

    pub fn committed(&mut self, place: &TopicPartition, offset: u64) {
        if let Some(at) = self.places.get_mut(place) {
            at.committed = Some(offset);
            at.is_kept = at.topic.is_some();
        }
    }

    /// The topic of a partition is known now.
    pub fn is_of(&mut self, place: &TopicPartition, topic: TopicId) {
        if let Some(at) = self.places.get_mut(place) {
            at.topic = Some(topic);
        }
    }

    /// There is another topic of this name, which is read from an offset on: a new assignment, whose number is given.
    pub fn begin_anew(&mut self, place: &TopicPartition, topic: Option<TopicId>, offset: u64) -> Option<u64> {
        let at = self.places.get_mut(place)?;
        self.last += 1;
        *at = Place { number: self.last, next: Some(offset), committed: None, topic, is_kept: false };
        Some(self.last)
    }

    /// Offsets to be committed, each with the topic that it is one of.
    pub fn of_topics<'p>(&self, offsets: impl Iterator<Item = (&'p TopicPartition, u64)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (place, offset) in offsets {
            let mut element = list.add_partition(&place.topic, place.partition as i32);
            if let Err(error) = element.set_offset(Offset::Offset(offset as i64)) {
                tracing::debug!(%error, offset, "an offset that librdkafka does not know");
            }
            if let Some(topic) = self.places.get(place).and_then(|at| at.topic) {
                element.set_metadata(topic.to_string());
            }
        }
        list
    }

    pub fn place(&self, place: &TopicPartition) -> Option<Place> {
        self.places.get(place).copied()
    }

    pub fn places(&self) -> Vec<(TopicPartition, Place)> {
        self.places.iter().map(|(place, at)| (place.clone(), *at)).collect()
    }
}

impl Membership {
    /// That of a consumer that another one follows.
    pub fn followed_by(follower: Arc<Following>) -> Self {
        Self { follower: Some(follower), ..Self::default() }
    }

    pub fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The partitions; none while it is not known which they are.
    pub fn known(&self) -> Option<Vec<TopicPartition>> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reading = self.reading();
        let has_all = wanted.is_none_or(|wanted| wanted.len() == reading.places.len());
        (reading.known && has_all).then(|| reading.places.keys().cloned().collect())
    }

    /// Takes partitions over, whose reading begins where they say.
    fn gain(&self, news: Vec<Taken>, from_start: bool) {
        let mut reading = self.reading();
        reading.known = true;
        reading.unchecked = true;
        let mut numbered = Vec::new();
        for Taken { assignment, topic, is_kept } in news {
            reading.last += 1;
            let (number, committed) = (reading.last, assignment.committed);
            let next = committed.or(from_start.then_some(0));
            reading.places.insert(assignment.place.clone(), Place { number, next, committed, topic, is_kept });
            numbered.push((assignment, number));
        }
        drop(reading);
        if !numbered.is_empty() {
            self.mailbox.tell(Item::Assigned(numbered));
        }
    }

    /// Gives partitions up.
    pub fn lose(&self, places: &[TopicPartition]) {
        let mut reading = self.reading();
        let lost: Vec<TopicPartition> = places.iter().filter(|place| reading.has(place)).cloned().collect();
        reading.places.retain(|place, _| !lost.contains(place));
        drop(reading);
        if !lost.is_empty() {
            self.mailbox.tell(Item::Revoked(lost));
        }
    }
}

/// What a consumer has that follows another one.
pub(super) struct Following {
    topic: Arc<str>,
    /// Partitions of its topic.
    count: u32,
    /// Partitions of the topic that it follows.
    leading: u32,
    membership: Arc<Membership>,
}

impl Following {
    pub fn new(topic: Arc<str>, count: u32, leading: u32, membership: Arc<Membership>) -> Self {
        *membership.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(BTreeMap::new());
        Self { topic, count, leading: leading.max(1), membership }
    }

    /// Each of its partitions goes with one of the leading topic, also where it has more.
    fn behind(&self, leading: u32) -> impl Iterator<Item = u32> {
        (0..self.count).filter(move |partition| partition % self.leading == leading)
    }

    pub fn place(&self, partition: u32) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition }
    }

    /// The partitions that it is to have, each with a number that changes when it came anew.
    pub fn wanted(&self) -> BTreeMap<u32, u64> {
        self.membership.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    /// The leading consumer has gained partitions; its thread takes up what goes with them.
    fn gain(&self, places: impl Iterator<Item = (u32, u64)>) {
        let mut wanted = self.membership.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = wanted.get_or_insert_default();
        for (leading, number) in places {
            wanted.extend(self.behind(leading).map(|partition| (partition, number)));
        }
        self.membership.reading().known = true;
    }

    /// The leading consumer gives partitions up: what goes with them is given up at once.
    fn lose(&self, places: impl Iterator<Item = u32>) {
        let mut lost = Vec::new();
        let mut wanted = self.membership.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        let has = wanted.get_or_insert_default();
        for leading in places {
            lost.extend(self.behind(leading).filter(|partition| has.remove(partition).is_some()));
        }
        drop(wanted);
        let lost: Vec<TopicPartition> = lost.into_iter().map(|partition| self.place(partition)).collect();
        self.membership.lose(&lost);
    }
}

/// What librdkafka calls back.
pub(super) struct Context {
    pub membership: Arc<Membership>,
    pub kafka: KafkaSettings,
    pub reader: Arc<Reader>,
    pub group: String,
    pub from_start: bool,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Context {
    /// Partitions begin where the group is, which is asked for here: librdkafka would begin elsewhere without a word.
    fn rebalance(&self, client: &BaseConsumer<Self>, code: ResponseCode, list: &mut TopicPartitionList) {
        match code {
            ResponseCode::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.gained(client, list),
            ResponseCode::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.lost(client, list),
            code => {
                let error = KafkaError::Rebalance(code.into());
                tracing::warn!(%error, "a rebalance failed and is repeated");
                self.lost(client, list);
            }
        }
    }
}

impl Context {
    fn gained(&self, client: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let places = self.membership.reading().named(list);
        // The membership lives meanwhile; records of other partitions wait.
        let news = loop {
            match self.committed(client, &places) {
                Ok(news) => break news,
                Err(error) if error.class == ErrorClass::Transient && !self.membership.mailbox.is_closed() => {
                    tracing::debug!(%error, "a rebalance waits for committed offsets");
                    std::thread::sleep(PAUSE);
                }
                Err(error) => {
                    self.membership.mailbox.tell(Item::Failed(error));
                    break Vec::new();
                }
            }
        };
        let starts = self.starts(&news);
        let assigned = match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_assign(&starts),
            _ => client.assign(&starts),
        };
        if let Err(error) = assigned {
            self.membership.mailbox.tell(Item::Failed(self.kafka.failed("taking partitions over", error)));
            return;
        }
        self.gain(news);
        if let Some(follower) = &self.membership.follower {
            let reading = self.membership.reading();
            let numbers: Vec<(u32, u64)> =
                places.iter().filter_map(|place| Some((place.partition, reading.number(place)?))).collect();
            drop(reading);
            follower.gain(numbers.into_iter());
        }
    }

    fn lost(&self, client: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let places = self.membership.reading().named(list);
        if let Some(follower) = &self.membership.follower {
            follower.lose(places.iter().map(|place| place.partition));
        }
        self.membership.lose(&places);
        let given_up = match client.rebalance_protocol() {
            RebalanceProtocol::Cooperative => client.incremental_unassign(list),
            _ => client.unassign(),
        };
        if let Err(error) = given_up {
            tracing::debug!(%error, "partitions could not be given up");
        }
    }

    /// Takes partitions over that librdkafka reads already.
    pub fn gain(&self, news: Vec<Taken>) {
        self.membership.gain(news, self.from_start);
    }

    /// Where the group is in these partitions, and of which topics. Blocking.
    pub fn committed(
        &self,
        client: &BaseConsumer<Self>,
        places: &[TopicPartition],
    ) -> Result<Vec<Taken>, TransportError> {
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |error| self.kafka.failed("asking for committed offsets", error);
        let asked = list(places.iter().map(|place| (place, Offset::Invalid)));
        let found = client.committed_offsets(asked, ANSWER).map_err(failed)?;
        let mut news = Vec::new();
        for place in places {
            let found = found.find_partition(&place.topic, place.partition as i32);
            let found =
                found.ok_or(KafkaError::MetadataFetch(ResponseCode::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION.into()));
            let found = found.map_err(failed)?;
            found.error().map_err(failed)?;
            let committed = match found.offset() {
                Offset::Offset(offset) => u64::try_from(offset).ok(),
                _ => None,
            };
            let topic: Option<TopicId> = committed.and_then(|_| found.metadata().parse().ok());
            let assignment = Assignment { place: place.clone(), committed };
            news.push(Taken { assignment, topic, is_kept: topic.is_some() });
        }
        // With a topic its offsets are deleted too. What is kept beside them is not.
        if news.iter().any(|taken| taken.assignment.committed.is_none()) {
            let kept = self.reader.kept_beside(&kept_by(&self.group))?;
            for taken in news.iter_mut().filter(|taken| taken.assignment.committed.is_none()) {
                let name = kept_as(&self.group, &taken.assignment.place);
                let topic = kept.get(&name).and_then(|topic| std::str::from_utf8(topic).ok()?.parse().ok());
                (taken.topic, taken.is_kept) = (topic, topic.is_some());
            }
        }
        Ok(news)
    }

    /// Where reading begins. A group that never committed begins at the first record there ever was: if it is gone, that is told.
    pub fn starts(&self, news: &[Taken]) -> TopicPartitionList {
        let start = |assignment: &Assignment| match assignment.committed {
            Some(offset) => Offset::Offset(offset as i64),
            None if self.from_start => Offset::Offset(0),
            None => Offset::End,
        };
        list(news.iter().map(|Taken { assignment, .. }| (&assignment.place, start(assignment))))
    }
}

/// What the names begin with under which it is kept, with the checkpoints, which topics a group reads.
fn kept_by(group: &str) -> String {
    format!("reader {group} ")
}

/// Under which name it is kept which topic a partition is of that a group reads.
pub(super) fn kept_as(group: &str, place: &TopicPartition) -> String {
    format!("{}{}-{}", kept_by(group), place.topic, place.partition)
}
