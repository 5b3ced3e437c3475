//! Tickets: one for each record in flight, done when everything the record caused has its final verdict.
//!
//! A ticket that is dropped without being done keeps its record's offset from being committed for ever: after a crash, a stop or
//! a bug, the record comes again. A stage whose work on a record is over, but that wants to see the record again after a crash,
//! holds it: a held record takes no room among those in flight.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;
use tributary_event::clock::{SKEW, now_us};
use tributary_transport::{Polled, TopicPartition};

use crate::prefix::{DonePrefix, Span};

/// All tickets of one intake.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    state: Mutex<State>,
    /// Wakes the intake when a record became done.
    pub(crate) progress: Notify,
}

#[derive(Debug, Default)]
struct State {
    partitions: BTreeMap<TopicPartition, Partition>,
    generation: u64,
    out: Amount,
}

#[derive(Debug)]
struct Partition {
    generation: u64,
    /// When it became ours.
    since: Instant,
    /// The same in milliseconds since the Unix epoch, if another owner may have begun with records from before; else -1.
    doubtful_ms: i64,
    prefix: DonePrefix,
    /// The same, where records that are held count as done.
    worked: DonePrefix,
    /// Records, and bytes of them, whose tickets are out.
    out: Amount,
}

/// So many records, and so many bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Amount {
    records: usize,
    bytes: usize,
}

impl Amount {
    fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes;
    }

    fn take(&mut self, records: usize, bytes: usize) {
        self.records = self.records.saturating_sub(records);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// How much there may be of all partitions together, before each is held to its share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Records whose tickets are out.
    pub records: usize,
    /// Bytes of them.
    pub bytes: usize,
    /// Records that were read and whose offsets cannot be committed yet.
    pub ahead: usize,
}

impl Partition {
    fn new(generation: u64, doubtful_ms: i64) -> Self {
        let (prefix, worked) = (DonePrefix::new(), DonePrefix::new());
        Self { generation, since: Instant::now(), doubtful_ms, prefix, worked, out: Amount::default() }
    }
}

/// One record's ticket.
#[derive(Debug)]
pub struct Ticket {
    tickets: Arc<Tickets>,
    place: TopicPartition,
    generation: u64,
    offset: u64,
    /// The room that it takes among those in flight.
    records: usize,
    bytes: usize,
    doubtful: bool,
}

/// Records next to each other that a stage has worked on, whose offsets are not to be committed yet.
#[derive(Debug)]
pub struct Held {
    tickets: Arc<Tickets>,
    place: TopicPartition,
    generation: u64,
    /// None if they are somebody else's by now.
    span: Option<Span>,
}

impl Held {
    /// Their offsets may be committed.
    pub fn done(self) {
        let Some(span) = self.span else { return };
        if let Some(partition) = self.tickets.lock().of(&self.place, self.generation) {
            partition.prefix.release(span);
        }
    }

    /// Makes one of all that are next to each other, so that millions of records need little room.
    pub fn join(held: &mut Vec<Self>) {
        fn key(held: &Held) -> (&TopicPartition, u64, Option<u64>) {
            (&held.place, held.generation, held.span.map(|span| span.first))
        }
        held.retain(|held| held.span.is_some());
        held.sort_unstable_by(|one, other| key(one).cmp(&key(other)));
        held.dedup_by(|behind, before| {
            let alike = Arc::ptr_eq(&before.tickets, &behind.tickets)
                && before.generation == behind.generation
                && before.place == behind.place;
            match (&mut before.span, behind.span) {
                (Some(before), Some(behind)) => alike && before.join(behind),
                _ => false,
            }
        });
    }
}

impl Ticket {
    /// Everything this record caused has its final verdict: its offset may be committed.
    pub fn done(self) {
        self.tickets.lock().done(&self.place, self.generation, self.offset);
    }

    /// The work on this record is over, and its offset is to be committed later.
    pub fn hold(self) -> Held {
        let span = self.tickets.lock().of(&self.place, self.generation).and_then(|partition| {
            partition.worked.done(self.offset);
            partition.prefix.hold(self.offset)
        });
        let (tickets, place) = (self.tickets.clone(), self.place.clone());
        Held { tickets, place, generation: self.generation, span }
    }

    /// From now on the record takes no room among those in flight: the stage bounds by itself what it keeps of such records.
    pub fn make_room(&mut self) {
        let (records, bytes) = (std::mem::take(&mut self.records), std::mem::take(&mut self.bytes));
        self.tickets.lock().lighter(&self.place, self.generation, records, bytes);
        self.tickets.progress.notify_one();
    }

    /// Whether an earlier owner of the partition may have begun with the record.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// When the record's partition became ours; none if it no longer is, so that somebody else has the record too.
    pub fn since(&self) -> Option<Instant> {
        let state = self.tickets.lock();
        let partition = state.partitions.get(&self.place).filter(|p| p.generation == self.generation)?;
        Some(partition.since)
    }

    /// Where the record was read.
    pub fn place(&self) -> &TopicPartition {
        &self.place
    }

    /// Its offset.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.tickets.lock().lighter(&self.place, self.generation, self.records, self.bytes);
        self.tickets.progress.notify_one();
    }
}

impl State {
    fn lighter(&mut self, place: &TopicPartition, generation: u64, records: usize, bytes: usize) {
        self.out.take(records, bytes);
        if let Some(partition) = self.of(place, generation) {
            partition.out.take(records, bytes);
        }
    }

    fn done(&mut self, place: &TopicPartition, generation: u64, offset: u64) {
        if let Some(partition) = self.of(place, generation) {
            partition.prefix.done(offset);
            partition.worked.done(offset);
        }
    }

    /// A partition, if it is still the one that a record was read of.
    fn of(&mut self, place: &TopicPartition, generation: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(place).filter(|partition| partition.generation == generation)
    }
}

impl Tickets {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A partition is ours from now on. Tickets of an earlier ownership no longer count.
    /// `owned`: whether somebody had it before.
    pub(crate) fn assign(&self, place: TopicPartition, owned: bool) {
        let skew_ms = i64::try_from(SKEW.as_millis()).unwrap_or(i64::MAX);
        let doubtful_ms = if owned { now_us() / 1000 + skew_ms } else { -1 };
        let mut state = self.lock();
        state.generation += 1;
        let generation = state.generation;
        state.partitions.insert(place, Partition::new(generation, doubtful_ms));
    }

    /// A partition is no longer ours.
    pub(crate) fn revoke(&self, place: &TopicPartition) {
        self.lock().partitions.remove(place);
    }

    /// What stands before this offset is gone, and made up for: it may be committed, and tickets of it no longer count.
    pub(crate) fn skip(&self, place: &TopicPartition, to: u64) {
        let mut state = self.lock();
        state.generation += 1;
        let generation = state.generation;
        if let Some(partition) = state.partitions.get_mut(place) {
            partition.generation = generation;
            partition.out = Amount::default();
            (partition.prefix, partition.worked) = (DonePrefix::done_before(to), DonePrefix::done_before(to));
        }
    }

    /// The ticket of a record; none if the partition is not ours or the record is in flight already.
    pub(crate) fn issue(self: &Arc<Self>, record: &Polled) -> Option<Ticket> {
        let bytes = record.key.as_ref().map_or(0, |k| k.len()) + record.value.as_ref().map_or(0, |v| v.len());
        let (place, offset) = (&record.place, record.offset);
        let mut state = self.lock();
        let partition = state.partitions.get_mut(place)?;
        if !partition.prefix.take(offset, record.timestamp_ms) {
            return None;
        }
        partition.worked.take(offset, record.timestamp_ms);
        partition.out.add(bytes);
        let (generation, doubtful) = (partition.generation, record.timestamp_ms <= partition.doubtful_ms);
        state.out.add(bytes);
        Some(Ticket { tickets: self.clone(), place: place.clone(), generation, offset, records: 1, bytes, doubtful })
    }

    /// Records and bytes whose tickets are out.
    pub(crate) fn in_flight(&self) -> (usize, usize) {
        let state = self.lock();
        (state.out.records, state.out.bytes)
    }

    /// The partitions that no more is to be read of for now: where all of them together have more than there is room for, those that
    /// have more than their share of it. So one that stands still holds up no other, and all of them have twice the room at most.
    pub(crate) fn crowded(&self, room: Room) -> HashSet<TopicPartition> {
        let state = self.lock();
        let share = state.partitions.len().max(1);
        let ahead = |partition: &Partition| partition.prefix.in_flight();
        let is_full = [
            state.out.records >= room.records,
            state.out.bytes >= room.bytes,
            state.partitions.values().map(ahead).sum::<usize>() >= room.ahead,
        ];
        if is_full == [false; 3] {
            return HashSet::new();
        }
        let is_crowded = |partition: &Partition| {
            is_full[0] && partition.out.records >= room.records.div_ceil(share)
                || is_full[1] && partition.out.bytes >= room.bytes.div_ceil(share)
                || is_full[2] && ahead(partition) >= room.ahead.div_ceil(share)
        };
        let crowded = state.partitions.iter().filter(|(_, partition)| is_crowded(partition));
        crowded.map(|(place, _)| place.clone()).collect()
    }

    /// The time of the oldest record on which work is left.
    pub(crate) fn oldest_ms(&self) -> Option<i64> {
        self.lock().partitions.values().filter_map(|partition| partition.worked.oldest_ms()).min()
    }

    /// The offsets after which work is left, where something was read.
    pub(crate) fn come_to(&self) -> HashMap<TopicPartition, u64> {
        let state = self.lock();
        state.partitions.iter().filter_map(|(place, p)| Some((place.clone(), p.worked.to_commit()?))).collect()
    }

    /// Offsets that may be committed and are not yet.
    pub(crate) fn to_commit(&self) -> Vec<(TopicPartition, u64)> {
        let state = self.lock();
        state.partitions.iter().filter_map(|(place, p)| Some((place.clone(), p.prefix.to_commit()?))).collect()
    }

    /// Offsets were committed.
    pub(crate) fn committed(&self, offsets: &[(TopicPartition, u64)]) {
        let mut state = self.lock();
        for (place, offset) in offsets {
            if let Some(partition) = state.partitions.get_mut(place) {
                partition.prefix.committed(*offset);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record of 10 bytes.
    fn record(offset: u64) -> Polled {
        let value = Some(vec![0; 10].into());
        Polled { place: place(), offset, key: None, value, headers: Default::default(), timestamp_ms: 0 }
    }

    fn place() -> TopicPartition {
        TopicPartition { topic: "t".into(), partition: 0 }
    }

    #[test]
    fn a_dropped_ticket_holds_its_offset_back() {
        let tickets = Arc::new(Tickets::default());
        tickets.assign(place(), true);
        let first = tickets.issue(&record(1)).expect("a ticket");
        let second = tickets.issue(&record(2)).expect("a ticket");
        assert_eq!(tickets.in_flight(), (2, 20));
        second.done();
        drop(first);
        assert_eq!(tickets.in_flight(), (0, 0));
        assert!(tickets.to_commit().is_empty());
    }

    #[test]
    fn a_record_that_makes_room_is_still_work() {
        let tickets = Arc::new(Tickets::default());
        tickets.assign(place(), true);
        let mut ticket = tickets.issue(&record(1)).expect("a ticket");
        ticket.make_room();
        assert_eq!((tickets.in_flight(), tickets.come_to()), ((0, 0), HashMap::new()));
        ticket.make_room();
        let other = tickets.issue(&record(2)).expect("a ticket");
        ticket.done();
        assert_eq!((tickets.in_flight(), tickets.to_commit()), ((1, 10), vec![(place(), 2)]));
        drop(other);
    }

    #[test]
    fn a_held_record_takes_no_room_and_holds_its_offset_back() {
        let tickets = Arc::new(Tickets::default());
        tickets.assign(place(), true);
        let ticket = tickets.issue(&record(1)).expect("a ticket");
        let held = ticket.hold();
        assert_eq!((tickets.in_flight(), tickets.come_to()), ((0, 0), HashMap::from([(place(), 2)])));
        // What is done behind it is no work that is left either.
        tickets.issue(&record(2)).expect("a ticket").done();
        let last = tickets.issue(&record(3)).expect("a ticket");
        assert_eq!(tickets.come_to(), HashMap::from([(place(), 3)]));
        assert_eq!(tickets.oldest_ms(), Some(0));
        assert!(tickets.to_commit().is_empty());
        held.done();
        assert_eq!(tickets.to_commit(), [(place(), 3)]);
        last.done();
        assert_eq!((tickets.to_commit(), tickets.come_to()), (vec![(place(), 4)], HashMap::from([(place(), 4)])));
    }

    #[test]
    fn records_that_are_held_next_to_each_other_are_one() {
        let tickets = Arc::new(Tickets::default());
        let other = TopicPartition { partition: 1, ..place() };
        tickets.assign(place(), true);
        tickets.assign(other.clone(), true);
        let mut held: Vec<Held> = Vec::new();
        for offset in [1, 2, 5, 6, 7] {
            for place in [place(), other.clone()] {
                let ticket = tickets.issue(&Polled { place, ..record(offset) }).expect("a ticket");
                if offset != 6 {
                    held.insert(0, ticket.hold());
                }
            }
        }
        Held::join(&mut held);
        assert_eq!(held.len(), 4, "what nobody has worked on is between them");
        held.into_iter().for_each(Held::done);
        assert_eq!(tickets.to_commit(), [(place(), 6), (other.clone(), 6)]);
        // Those of a partition that was somebody else's meanwhile do not count.
        let ticket = tickets.issue(&record(8)).expect("a ticket");
        tickets.revoke(&place());
        tickets.assign(place(), true);
        tickets.issue(&record(8)).expect("a ticket");
        let mut held = vec![ticket.hold()];
        Held::join(&mut held);
        assert!(held.is_empty());
        assert_eq!(tickets.to_commit(), [(other, 6)]);
    }

    #[test]
    fn what_is_gone_is_committed_and_its_tickets_do_not_count() {
        for to in [0, 10] {
            let tickets = Arc::new(Tickets::default());
            tickets.assign(place(), true);
            let gone = tickets.issue(&record(5)).expect("a ticket");
            tickets.skip(&place(), to);
            assert_eq!(tickets.to_commit(), [(place(), to)]);
            gone.done();
            assert_eq!(tickets.to_commit(), [(place(), to)]);
            tickets.issue(&record(to)).expect("a ticket").done();
            assert_eq!(tickets.to_commit(), [(place(), to + 1)]);
        }
    }

    #[test]
    fn tickets_of_an_earlier_ownership_do_not_count() {
        let tickets = Arc::new(Tickets::default());
        tickets.assign(place(), true);
        let old = tickets.issue(&record(1)).expect("a ticket");
        assert!(old.since().is_some());
        tickets.revoke(&place());
        assert!(old.since().is_none());
        assert!(tickets.issue(&record(2)).is_none());
        tickets.assign(place(), true);
        let new = tickets.issue(&record(1)).expect("a ticket");
        old.done();
        assert!(tickets.to_commit().is_empty());
        new.done();
        assert_eq!(tickets.to_commit(), [(place(), 2)]);
    }
}
