//! Reading the embedded log as a member of a group.
//!
//! A thread reads for the consumer, one read at a time: of every partition that has something, so that whoever works on partitions
//! beside one another has work for all of them. The read is kept in the consumer and not in the future of a call, so that
//! a caller that gives up waiting costs nothing: the next call waits for the same read. Nothing is fetched ahead but the rest of
//! the blobs that were read last, so a caller that stays away costs nothing either.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use redb::ReadTransaction;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::Log;
use super::catalog::{Ends, Topic};
use super::read::{Bounds, Stretch, stretch};
use super::store::{self, Failure};
use super::writer::Change;
use crate::contract::{
    Assignment, Consumer, ConsumerSettings, Delivery, Loss, LossCause, Measuring, Polled, TopicPartition,
    TransportError,
};
use crate::metric;

/// What one read fetches of all partitions at most; its last blob may be more.
const READ_BYTES: usize = 4 << 20;
/// What it fetches of one partition.
const PARTITION_BYTES: usize = 1 << 20;

pub(super) struct EmbeddedConsumer {
    log: Arc<Log>,
    settings: ConsumerSettings,
    member: u64,
    news: Arc<Notify>,
    /// What is to be read, as of so many changes of groups.
    assigned: Option<(u64, Arc<BTreeMap<TopicPartition, u64>>)>,
    /// The assignment as the caller knows it.
    current: BTreeMap<TopicPartition, Position>,
    pending: VecDeque<Polled>,
    /// The partition that was read last; the next one has its turn.
    last: Option<TopicPartition>,
    /// The read that is under way.
    reading: Option<JoinHandle<Result<Found, TransportError>>>,
}

struct Position {
    assignment: u64,
    topic: Arc<Topic>,
    partition: u32,
    committed: Option<u64>,
    next: u64,
    is_paused: bool,
}

impl Position {
    fn ends(&self) -> Ends {
        self.topic.partitions.get(self.partition as usize).map(|partition| partition.ends()).unwrap_or_default()
    }
}

/// What a read brings.
enum Found {
    /// Where partitions that were gained begin.
    Positions(Vec<(TopicPartition, Position)>),
    /// Records of partitions under an assignment each.
    Records(Vec<Piece>),
}

/// What is to be read of one partition: from which record on, under which assignment.
struct Wanted {
    place: TopicPartition,
    assignment: u64,
    topic: Arc<Topic>,
    next: u64,
}

/// What a read brings of one partition.
struct Piece {
    place: TopicPartition,
    assignment: u64,
    stretch: Stretch,
}

impl EmbeddedConsumer {
    pub fn join(log: Arc<Log>, settings: ConsumerSettings) -> Result<Self, TransportError> {
        let news = log.catalog.listen(&settings.topics);
        let mut places = Vec::new();
        for name in &settings.topics {
            places.extend(self::places(&*log.catalog.topic(name)?));
        }
        let member = log.groups.join(&settings.group, places);
        log.catalog.announce_to_all();
        let (current, pending) = (BTreeMap::new(), VecDeque::new());
        Ok(Self { log, settings, member, news, assigned: None, current, pending, last: None, reading: None })
    }

    /// What is to be read, by partition the number of the assignment.
    fn assigned(&mut self) -> Arc<BTreeMap<TopicPartition, u64>> {
        let changes = self.log.groups.changes();
        match &self.assigned {
            Some((as_of, assigned)) if *as_of == changes => assigned.clone(),
            _ => {
                let assigned = Arc::new(self.log.groups.assigned(&self.settings.group, self.member));
                self.assigned = Some((changes, assigned.clone()));
                assigned
            }
        }
    }

    /// Gives up what is not ours any more.
    fn revoke(&mut self) -> Option<Delivery> {
        let target = self.assigned();
        let is_lost = |place: &TopicPartition, position: &Position| target.get(place) != Some(&position.assignment);
        let lost: Vec<TopicPartition> =
            self.current.iter().filter(|(place, at)| is_lost(place, at)).map(|(place, _)| place.clone()).collect();
        if lost.is_empty() {
            return None;
        }
        self.current.retain(|place, _| !lost.contains(place));
        self.pending.retain(|record| !lost.contains(&record.place));
        Some(Delivery::Revoked(lost))
    }

    /// Begins to read what is wanted next: where gained partitions begin, else records of partitions that have some.
    fn begin(&mut self) -> Result<(), TransportError> {
        let mut gained = Vec::new();
        for (place, assignment) in self.assigned().iter() {
            if !self.current.contains_key(place) {
                let topic = self.log.catalog.topic(&place.topic)?;
                gained.push((place.clone(), *assignment, topic));
            }
        }
        if !gained.is_empty() {
            let (group, from_start) = (self.settings.group.clone(), self.settings.from_start);
            self.reading = Some(self.log.spawn(move |log| log.positions(gained, &group, from_start)));
            return Ok(());
        }
        let wanted = self.choose();
        if wanted.is_empty() {
            return Ok(());
        }
        let max_records = self.settings.max_records.max(1);
        self.reading = Some(self.log.spawn(move |log| {
            let (mut pieces, mut records, mut bytes) = (Vec::new(), 0, 0);
            for Wanted { place, assignment, topic, next } in wanted {
                if records >= max_records || bytes >= READ_BYTES {
                    break;
                }
                if let Some(hook) = &log.before_read {
                    hook(&place);
                }
                let bounds = Bounds { records: max_records - records, bytes: PARTITION_BYTES.min(READ_BYTES - bytes) };
                let stretch = stretch(&log.store, &topic, place.partition, next, bounds)?;
                (records, bytes) = (records + stretch.records.len(), bytes + stretch.bytes);
                pieces.push(Piece { place, assignment, stretch });
            }
            Ok(Found::Records(pieces))
        }));
        Ok(())
    }

    /// Takes over what a read brought, as far as it is still ours.
    fn take(&mut self, found: Found) -> Option<Delivery> {
        match found {
            Found::Positions(positions) => {
                let target = self.assigned();
                let ours = positions.into_iter().filter(|(place, at)| target.get(place) == Some(&at.assignment));
                let mut news = Vec::new();
                for (place, position) in ours {
                    news.push(Assignment { place: place.clone(), committed: position.committed });
                    self.current.insert(place, position);
                }
                (!news.is_empty()).then_some(Delivery::Assigned(news))
            }
            // What stands behind a loss is read again.
            Found::Records(pieces) => pieces.into_iter().find_map(|piece| self.take_piece(piece)),
        }
    }

    fn take_piece(&mut self, piece: Piece) -> Option<Delivery> {
        let Piece { place, assignment, stretch } = piece;
        let position = self.current.get_mut(&place).filter(|at| at.assignment == assignment)?;
        self.last = Some(place.clone());
        if position.is_paused {
            return None;
        }
        if position.next < stretch.low || position.next > position.ends().next {
            return Some(self.lose(&place, stretch.low));
        }
        position.next = stretch.next;
        self.pending.extend(stretch.records);
        None
    }

    /// What a partition has next was removed before it was read, or the log was put back to an earlier state: it reads on at the first
    /// record there is, and so do all others that have lost some.
    fn lose(&mut self, place: &TopicPartition, low: u64) -> Delivery {
        let mut losses = Vec::new();
        for (other, position) in &mut self.current {
            let low = if other == place { low } else { position.ends().low };
            if other == place || position.next < low {
                let cause = if low < position.next { LossCause::MadeAnew } else { LossCause::Removed };
                losses.push(Loss { place: other.clone(), from: position.next, to: low, cause });
                position.next = low;
            }
        }
        self.pending.retain(|record| losses.iter().all(|loss| loss.place != record.place));
        Delivery::Lost(losses)
    }

    /// What partitions have to read, from the one whose turn it is on.
    fn choose(&self) -> Vec<Wanted> {
        let has_more =
            |(_, position): &(&TopicPartition, &Position)| !position.is_paused && position.next != position.ends().next;
        let is_after = |place: &TopicPartition| self.last.as_ref().is_none_or(|last| place > last);
        let (after, before): (Vec<_>, Vec<_>) =
            self.current.iter().filter(has_more).partition(|(place, _)| is_after(place));
        let wanted = |(place, at): (&TopicPartition, &Position)| Wanted {
            place: place.clone(),
            assignment: at.assignment,
            topic: at.topic.clone(),
            next: at.next,
        };
        after.into_iter().chain(before).map(wanted).collect()
    }
}

impl Log {
    fn positions(
        &self,
        gained: Vec<(TopicPartition, u64, Arc<Topic>)>,
        group: &str,
        from_start: bool,
    ) -> Result<Found, TransportError> {
        let committed = self.store.read(|txn| {
            gained
                .iter()
                .map(|(place, _, topic)| offset(txn, group, topic, place.partition))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let position = |((place, assignment, topic), committed): ((_, _, Arc<Topic>), Option<u64>)| {
            let place: TopicPartition = place;
            let ends = topic.partitions[place.partition as usize].ends();
            // From the first record there ever was: if it is gone, that is told.
            let start = if from_start { 0 } else { ends.next };
            let partition = place.partition;
            (
                place,
                Position {
                    assignment,
                    topic,
                    partition,
                    committed,
                    next: committed.unwrap_or(start),
                    is_paused: false,
                },
            )
        };
        Ok(Found::Positions(gained.into_iter().zip(committed).map(position).collect()))
    }
}

fn offset(txn: &ReadTransaction, group: &str, topic: &Topic, partition: u32) -> Result<Option<u64>, Failure> {
    Ok(txn.open_table(store::OFFSETS)?.get((group, topic.stored.id, partition))?.map(|offset| offset.value()))
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Result<Delivery, TransportError> {
        loop {
            if let Some(delivery) = self.revoke() {
                return Ok(delivery);
            }
            if !self.pending.is_empty() {
                let count = self.pending.len().min(self.settings.max_records.max(1));
                let records: Vec<Polled> = self.pending.drain(..count).collect();
                metric::polled(&self.settings.group, &records);
                return Ok(Delivery::Records(records));
            }
            if self.reading.is_none() {
                self.begin()?;
            }
            let Some(reading) = &mut self.reading else {
                self.news.notified().await;
                continue;
            };
            let done = tokio::select! {
                biased;
                done = reading => done,
                // Perhaps a partition is not ours any more.
                () = self.news.notified() => continue,
            };
            self.reading = None;
            let found = done.unwrap_or_else(|error| Err(super::interrupted(error)))?;
            if let Some(delivery) = self.take(found) {
                return Ok(delivery);
            }
        }
    }

    fn pause(&mut self, places: &[TopicPartition]) {
        for place in places {
            let Some(position) = self.current.get_mut(place) else { continue };
            position.is_paused = true;
            // What was read of it is read again.
            if let Some(first) = self.pending.iter().find(|record| record.place == *place) {
                position.next = first.offset;
                self.pending.retain(|record| record.place != *place);
            }
        }
    }

    fn resume(&mut self, places: &[TopicPartition]) {
        for place in places {
            self.current.entry(place.clone()).and_modify(|position| position.is_paused = false);
        }
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        let target = self.assigned();
        let offsets: Vec<_> = offsets
            .iter()
            .filter_map(|(place, offset)| {
                let position = self.current.get(place)?;
                let valid = target.get(place) == Some(&position.assignment);
                valid.then_some((position.topic.stored.id, place.partition, *offset))
            })
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        self.log.change(Change::Offsets { group: self.settings.group.clone(), offsets }).await
    }

    fn lag(&mut self, come_to: HashMap<TopicPartition, u64>) -> Measuring {
        // Also of what the caller has not heard of yet.
        let assigned = self.assigned();
        self.behind(assigned.keys().cloned().collect(), &come_to)
    }

    fn backlog(&mut self) -> Measuring {
        let topics = self.settings.topics.iter().filter_map(|name| self.log.catalog.find(name));
        self.behind(topics.flat_map(|topic| places(&topic)).collect(), &HashMap::new())
    }
}

fn places(topic: &Topic) -> Vec<TopicPartition> {
    let place = |partition| TopicPartition { topic: topic.name.clone(), partition };
    (0..topic.stored.partitions).map(place).collect()
}

impl EmbeddedConsumer {
    /// Measures what is not committed of these partitions, from where the caller has come to.
    fn behind(&self, places: Vec<TopicPartition>, come_to: &HashMap<TopicPartition, u64>) -> Measuring {
        let next = |place: &TopicPartition| self.current.get(place).map(|at| at.next);
        let come_to = |place: &TopicPartition| come_to.get(place).copied();
        let places: Vec<_> = places.into_iter().map(|place| (next(&place), come_to(&place), place)).collect();
        let (log, group, from_start) = (self.log.clone(), self.settings.group.clone(), self.settings.from_start);
        Box::pin(async move {
            let measure = move |log: &Log| {
                let mut lag = 0;
                for (next, come_to, place) in places {
                    let topic = log.catalog.topic(&place.topic)?;
                    let committed = log.store.read(|txn| offset(txn, &group, &topic, place.partition))?;
                    let ends = topic.partitions.get(place.partition as usize).map(|p| p.ends()).unwrap_or_default();
                    let start = if from_start { ends.low } else { next.unwrap_or(ends.next) };
                    // Offsets that are gone count until their loss is dealt with; a group behind the end has all before it.
                    let from = committed.unwrap_or(start).max(come_to.unwrap_or_default());
                    lag += ends.next.checked_sub(from).unwrap_or(ends.next - ends.low);
                }
                Ok(lag)
            };
            log.blocking(measure).await
        })
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.log.groups.leave(&self.settings.group, self.member);
        self.log.catalog.announce_to_all();
    }
}
