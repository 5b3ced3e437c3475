//! Topics in memory, shared by the processes of a world: groups with rebalances, commits, redelivery, fencing producers.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tributary_event::ErrorClass;
use tributary_transport::{
    Assignment, Batch, Consumer, ConsumerSettings, Delivery, Headers, Measuring, Polled, Producer, Purpose, TopicId,
    TopicPartition, TopicSpec, Transport, TransportError, Watermarks,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::process::Gate;
use super::random::Dice;

const PARTITIONS: u32 = 2;

/// The topics. Clones share them.
#[derive(Clone)]
pub struct Topics {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    dice: Dice,
    began: Instant,
}

#[derive(Default)]
struct State {
    topics: BTreeMap<Arc<str>, Vec<Vec<Polled>>>,
    offsets: BTreeMap<(String, TopicPartition), u64>,
    checkpoints: BTreeMap<String, Bytes>,
    /// The last producer of each id.
    producers: BTreeMap<String, u64>,
    groups: BTreeMap<String, Group>,
    number: u64,
    trace: u64,
    /// How many records came to topics that keep none.
    counted: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Group {
    members: BTreeMap<u64, Member>,
}

struct Member {
    topics: Vec<String>,
    process: Arc<Gate>,
    owned: BTreeSet<TopicPartition>,
    news: VecDeque<Delivery>,
    /// The group and the member whose partitions it has too.
    follows: Followed,
}

type Followed = Option<(String, Arc<AtomicU64>)>;

impl Topics {
    pub fn new(dice: Dice) -> Self {
        Self { state: Arc::default(), news: Arc::new(Notify::new()), dice, began: Instant::now() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what a database's log says.
    pub fn log(&self, topic: &str, key: Option<Vec<u8>>, value: Vec<u8>) {
        self.lock().append(&topic.into(), key, Some(value), self.began);
        self.news.notify_waiters();
    }

    /// Keeps no record of a topic from now on.
    pub fn only_count(&self, topic: String) {
        self.lock().counted.insert(topic, 0);
    }

    /// How many records came to a topic that keeps none.
    pub fn count(&self, topic: &str) -> u64 {
        self.lock().counted.get(topic).copied().unwrap_or(0)
    }

    /// Takes a dead or a silent process out of all groups.
    pub fn forget(&self, process: &Arc<Gate>) {
        let mut state = self.lock();
        for group in state.groups.values_mut() {
            group.members.retain(|_, member| !Arc::ptr_eq(&member.process, process));
        }
        state.rebalance();
        drop(state);
        self.news.notify_waiters();
    }

    /// Gives partitions to other members, as a rebalance may.
    pub fn shuffle(&self) {
        let mut state = self.lock();
        let turn = self.dice.with(|random| random.below(7) as u64);
        state.number += turn;
        state.rebalance();
        drop(state);
        self.news.notify_waiters();
    }

    /// Records that no group has committed yet, of groups with members.
    pub fn left(&self) -> Vec<String> {
        let state = self.lock();
        let mut left = Vec::new();
        for (name, group) in &state.groups {
            let topics: BTreeSet<&String> = group.members.values().flat_map(|m| &m.topics).collect();
            for topic in topics {
                for (partition, records) in state.topics.get(topic.as_str()).into_iter().flatten().enumerate() {
                    let place = TopicPartition { topic: topic.as_str().into(), partition: partition as u32 };
                    let committed = state.offsets.get(&(name.clone(), place.clone())).copied().unwrap_or(0);
                    if committed < records.len() as u64 {
                        let owners = group.members.iter().filter(|(_, m)| m.owned.contains(&place));
                        let owners: Vec<String> = owners
                            .map(|(id, m)| format!("{id}{}", if m.process.is_killed() { " dead" } else { "" }))
                            .collect();
                        left.push(format!(
                            "{name} {topic}/{partition}: {committed} of {}, of {owners:?}",
                            records.len()
                        ));
                    }
                }
            }
        }
        left
    }

    /// A number for which record was appended when: two worlds that went the same way have the same.
    pub fn trace(&self) -> u64 {
        self.lock().trace
    }

    pub fn of(&self, process: Arc<Gate>) -> ProcessTopics {
        ProcessTopics { topics: self.clone(), process }
    }
}

fn partition_of(key: Option<&[u8]>, partitions: usize) -> usize {
    let sum: usize = key.unwrap_or_default().iter().map(|b| *b as usize).sum();
    sum % partitions
}

impl Member {
    fn own(&mut self, wanted: BTreeSet<TopicPartition>) {
        let lost: Vec<TopicPartition> = self.owned.difference(&wanted).cloned().collect();
        let got = wanted.difference(&self.owned).cloned();
        let got: Vec<Assignment> = got.map(|place| Assignment { place, committed: None }).collect();
        if !lost.is_empty() {
            self.news.push_back(Delivery::Revoked(lost));
        }
        if !got.is_empty() {
            self.news.push_back(Delivery::Assigned(got));
        }
        self.owned = wanted;
    }
}

impl State {
    fn append(&mut self, topic: &Arc<str>, key: Option<Vec<u8>>, value: Option<Vec<u8>>, began: Instant) {
        // What a record holds may name real moments.
        let record = format!("{topic} {key:?} {} {}", began.elapsed().as_nanos(), value.is_some());
        if std::env::var_os("MODEL_TRACE").is_some() {
            println!("{record}");
        }
        self.trace = xxh3_64_with_seed(record.as_bytes(), self.trace);
        let topics = self.topics.entry(topic.clone()).or_insert_with(|| vec![Vec::new(); PARTITIONS as usize]);
        let partition = partition_of(key.as_deref(), topics.len());
        let records = &mut topics[partition];
        records.push(Polled {
            place: TopicPartition { topic: topic.clone(), partition: partition as u32 },
            offset: records.len() as u64,
            key: key.map(Bytes::from),
            value: value.map(Bytes::from),
            headers: Headers::NONE,
            // By a clock that is right; those of processes begin at the same moment.
            timestamp_ms: 1_700_000_000_000 + began.elapsed().as_millis() as i64,
        });
    }

    /// Every partition gets an owner; who loses one hears of it.
    fn rebalance(&mut self) {
        let turn = self.number;
        for group in self.groups.values_mut() {
            let leading = group.members.iter().filter(|(_, member)| member.follows.is_none());
            let members: Vec<u64> = leading.map(|(id, _)| *id).collect();
            if members.is_empty() {
                continue;
            }
            let topics: BTreeSet<String> = group.members.values().flat_map(|m| m.topics.clone()).collect();
            let mut wanted: BTreeMap<u64, BTreeSet<TopicPartition>> = BTreeMap::new();
            let mut at = turn as usize;
            for topic in topics {
                for partition in 0..PARTITIONS {
                    let owner = members[at % members.len()];
                    at += 1;
                    wanted.entry(owner).or_default().insert(TopicPartition { topic: topic.as_str().into(), partition });
                }
            }
            for (id, member) in &mut group.members {
                member.own(wanted.remove(id).unwrap_or_default());
            }
        }
        let owned = |(name, group): (&String, &Group)| {
            let name = name.clone();
            group.members.iter().map(move |(id, m)| ((name.clone(), *id), m.owned.clone())).collect::<Vec<_>>()
        };
        let leaders: BTreeMap<(String, u64), BTreeSet<TopicPartition>> = self.groups.iter().flat_map(owned).collect();
        for group in self.groups.values_mut() {
            for member in group.members.values_mut() {
                let Some((leading, leader)) = &member.follows else { continue };
                let led = leaders.get(&(leading.clone(), leader.load(Ordering::Acquire)));
                let topic: Arc<str> = member.topics[0].as_str().into();
                let same = |place: &TopicPartition| TopicPartition { topic: topic.clone(), partition: place.partition };
                let wanted = led.into_iter().flatten().map(same).collect();
                member.own(wanted);
            }
        }
    }
}

/// The topics as one process uses them.
pub struct ProcessTopics {
    topics: Topics,
    process: Arc<Gate>,
}

struct ModelProducer {
    topics: Topics,
    process: Arc<Gate>,
    id: String,
    number: u64,
}

#[async_trait]
impl Producer for ModelProducer {
    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        self.process.pass().await;
        tokio::time::sleep(self.topics.dice.time(Duration::from_millis(20))).await;
        self.process.pass().await;
        {
            let mut state = self.topics.lock();
            if state.producers.get(&self.id) != Some(&self.number) {
                return Err(TransportError::new(ErrorClass::Fatal, "fenced"));
            }
            for record in batch.records() {
                if let Some(count) = state.counted.get_mut(&**record.topic) {
                    *count += 1;
                    continue;
                }
                let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
                state.append(record.topic, key, value, self.topics.began);
            }
            if let Some(checkpoint) = &batch.checkpoint {
                state.checkpoints.insert(checkpoint.name.clone(), checkpoint.content.clone());
            }
        }
        self.topics.news.notify_waiters();
        Ok(())
    }
}

struct ModelConsumer {
    topics: Topics,
    process: Arc<Gate>,
    member: Arc<AtomicU64>,
    follows: Followed,
    positions: BTreeMap<TopicPartition, u64>,
    paused: BTreeSet<TopicPartition>,
    settings: ConsumerSettings,
    gone: AtomicBool,
}

impl ModelConsumer {
    /// News, if there is some.
    fn poll(&mut self) -> Option<Delivery> {
        let mut state = self.topics.lock();
        let State { groups, offsets, topics, .. } = &mut *state;
        let group = groups.get_mut(&self.settings.group)?;
        let Some(member) = group.members.get_mut(&self.member.load(Ordering::Acquire)) else {
            // Taken for dead: whatever it had is somebody else's. It joins again.
            let lost: Vec<TopicPartition> = std::mem::take(&mut self.positions).into_keys().collect();
            self.gone.store(true, Ordering::Release);
            return (!lost.is_empty()).then_some(Delivery::Revoked(lost));
        };
        if let Some(mut news) = member.news.pop_front() {
            match &mut news {
                Delivery::Assigned(assignments) => {
                    for assignment in assignments {
                        let place = assignment.place.clone();
                        assignment.committed = offsets.get(&(self.settings.group.clone(), place.clone())).copied();
                        self.paused.remove(&place);
                        self.positions.insert(place, assignment.committed.unwrap_or(0));
                    }
                }
                Delivery::Revoked(places) => self.positions.retain(|place, _| !places.contains(place)),
                Delivery::Records(_) | Delivery::Lost(_) => {}
            }
            return Some(news);
        }
        for (place, position) in self.positions.iter_mut().filter(|(place, _)| !self.paused.contains(place)) {
            let Some(records) = topics.get(&place.topic).map(|topic| &topic[place.partition as usize]) else {
                continue;
            };
            let from = (*position as usize).min(records.len());
            let some: Vec<Polled> = records[from..].iter().take(self.settings.max_records).cloned().collect();
            if !some.is_empty() {
                *position += some.len() as u64;
                return Some(Delivery::Records(some));
            }
        }
        None
    }
}

impl Drop for ModelConsumer {
    fn drop(&mut self) {
        // A killed process says nothing: the group finds out later.
        if self.process.is_killed() {
            return;
        }
        let mut state = self.topics.lock();
        if let Some(group) = state.groups.get_mut(&self.settings.group) {
            group.members.remove(&self.member.load(Ordering::Acquire));
        }
        state.rebalance();
        drop(state);
        self.topics.news.notify_waiters();
    }
}

#[async_trait]
impl Consumer for ModelConsumer {
    async fn next(&mut self) -> Result<Delivery, TransportError> {
        loop {
            self.process.pass().await;
            let topics = self.topics.clone();
            let news = topics.news.notified();
            if let Some(delivery) = self.poll() {
                return Ok(delivery);
            }
            if self.gone.swap(false, Ordering::AcqRel) {
                let mut state = topics.lock();
                state.number += 1;
                let number = state.number;
                self.member.store(number, Ordering::Release);
                join(&mut state, &self.settings, number, (&self.process, self.follows.clone()));
                drop(state);
                topics.news.notify_waiters();
                continue;
            }
            news.await;
        }
    }

    fn pause(&mut self, places: &[TopicPartition]) {
        self.paused.extend(places.iter().filter(|place| self.positions.contains_key(place)).cloned());
    }

    fn resume(&mut self, places: &[TopicPartition]) {
        self.paused.retain(|place| !places.contains(place));
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        self.process.pass().await;
        let mut state = self.topics.lock();
        let State { groups, offsets: committed, .. } = &mut *state;
        let owned = groups
            .get(&self.settings.group)
            .and_then(|g| g.members.get(&self.member.load(Ordering::Acquire)))
            .map(|m| m.owned.clone());
        for (place, offset) in offsets {
            if owned.as_ref().is_some_and(|owned| owned.contains(place)) {
                committed.insert((self.settings.group.clone(), place.clone()), *offset);
            }
        }
        Ok(())
    }

    fn lag(&mut self, _: HashMap<TopicPartition, u64>) -> Measuring {
        Box::pin(async { Ok(0) })
    }

    fn backlog(&mut self) -> Measuring {
        self.lag(HashMap::new())
    }
}

fn join(state: &mut State, settings: &ConsumerSettings, number: u64, (process, follows): (&Arc<Gate>, Followed)) {
    let group = state.groups.entry(settings.group.clone()).or_default();
    let (topics, process) = (settings.topics.clone(), process.clone());
    group.members.insert(number, Member { topics, process, owned: BTreeSet::new(), news: VecDeque::new(), follows });
    state.rebalance();
}

impl ProcessTopics {
    fn join(&self, settings: ConsumerSettings, follows: Followed) -> ModelConsumer {
        let mut state = self.topics.lock();
        state.number += 1;
        let number = state.number;
        join(&mut state, &settings, number, (&self.process, follows.clone()));
        drop(state);
        self.topics.news.notify_waiters();
        ModelConsumer {
            topics: self.topics.clone(),
            process: self.process.clone(),
            member: Arc::new(AtomicU64::new(number)),
            follows,
            positions: BTreeMap::new(),
            paused: BTreeSet::new(),
            settings,
            gone: AtomicBool::new(false),
        }
    }
}

#[async_trait]
impl Transport for ProcessTopics {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TransportError> {
        let mut state = self.topics.lock();
        for topic in topics {
            let partitions = if topic.partitions == 0 { PARTITIONS } else { topic.partitions };
            state.topics.entry(topic.name.as_str().into()).or_insert_with(|| vec![Vec::new(); partitions as usize]);
        }
        Ok(())
    }

    async fn partitions(&self, _topic: &str) -> Result<u32, TransportError> {
        Ok(PARTITIONS)
    }

    async fn producer(&self, id: &str, _: Purpose) -> Result<Box<dyn Producer>, TransportError> {
        let mut state = self.topics.lock();
        state.number += 1;
        let number = state.number;
        state.producers.insert(id.to_owned(), number);
        let (topics, process) = (self.topics.clone(), self.process.clone());
        Ok(Box::new(ModelProducer { topics, process, id: id.to_owned(), number }))
    }

    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError> {
        let number = {
            let mut state = self.topics.lock();
            state.number += 1;
            state.number
        };
        self.producer(&format!("appender {number}"), Purpose::Stage).await
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        Ok(Box::new(self.join(settings, None)))
    }

    async fn consumers(
        &self,
        leading: ConsumerSettings,
        following: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError> {
        let group = leading.group.clone();
        let leader = self.join(leading, None);
        let follower = self.join(following, Some((group, leader.member.clone())));
        Ok([Box::new(leader), Box::new(follower)])
    }

    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        Ok(self.topics.lock().checkpoints.get(name).cloned())
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<Watermarks>, TransportError> {
        let state = self.topics.lock();
        let partitions = state.topics.get(topic).into_iter().flatten();
        Ok(partitions.map(|records| Watermarks { low: 0, high: records.len() as u64 }).collect())
    }

    async fn read(&self, place: &TopicPartition, offset: u64, max: usize) -> Result<Vec<Polled>, TransportError> {
        let state = self.topics.lock();
        let records = state.topics.get(&place.topic).and_then(|topic| topic.get(place.partition as usize));
        Ok(records.into_iter().flatten().skip(offset as usize).take(max).cloned().collect())
    }

    async fn topic_id(&self, _: &str) -> Result<Option<TopicId>, TransportError> {
        Ok(None)
    }

    async fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<u64, TransportError> {
        let all = self.read(place, 0, usize::MAX).await?;
        Ok(all.iter().position(|record| record.timestamp_ms >= time_ms).unwrap_or(all.len()) as u64)
    }

    async fn probe(&self) -> Result<(), TransportError> {
        Ok(())
    }
}
