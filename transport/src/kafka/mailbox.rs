//! What a consumer's thread hands to its caller: bounded in count and bytes; the thread waits with a time limit, so that
//! it can go on serving the group while the caller is away.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::contract::{Assignment, Loss, Polled, TopicPartition, TransportError};

/// Deliveries of records that may wait.
const COUNT: usize = 16;
/// Bytes of records that may wait; one delivery is always let in.
const BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) enum Item {
    /// Partitions with the number of their assignment.
    Assigned(Vec<(Assignment, u64)>),
    Revoked(Vec<TopicPartition>),
    /// Losses; of a partition that begins anew with the number of its new assignment.
    Lost(Vec<(Loss, Option<u64>)>),
    Records(Vec<Polled>),
    Failed(TransportError),
}

#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    room: Condvar,
    news: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    deliveries: usize,
    bytes: usize,
    closed: bool,
    /// Partitions of which nothing is given away now, and what came of them since, which waits: as much as was on its way.
    paused: HashSet<TopicPartition>,
    aside: HashMap<TopicPartition, Vec<Vec<Polled>>>,
}

impl State {
    /// Takes out what is of paused partitions.
    fn set_aside(&mut self, records: &mut Vec<Polled>) {
        if self.paused.is_empty() || !records.iter().any(|record| self.paused.contains(&record.place)) {
            return;
        }
        let (paused, others) =
            std::mem::take(records).into_iter().partition(|record| self.paused.contains(&record.place));
        *records = others;
        let mut by_place: HashMap<TopicPartition, Vec<Polled>> = HashMap::new();
        let paused: Vec<Polled> = paused;
        paused.into_iter().for_each(|record| by_place.entry(record.place.clone()).or_default().push(record));
        by_place.into_iter().for_each(|(place, records)| self.aside.entry(place).or_default().push(records));
    }
}

pub(super) fn size(records: &[Polled]) -> usize {
    let of = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    records.iter().map(|r| of(&r.key) + of(&r.value) + 64).sum()
}

impl Mailbox {
    /// Waits for room, up to a time limit, and puts the records in. Gives them back if there was none.
    pub fn put(&self, records: Vec<Polled>, limit: Duration) -> Option<Vec<Polled>> {
        let bytes = size(&records);
        let full = |state: &mut State| {
            !state.closed && state.deliveries > 0 && (state.deliveries >= COUNT || state.bytes + bytes > BYTES)
        };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, wait) =
            self.room.wait_timeout_while(state, limit, full).unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            return Some(records);
        }
        state.deliveries += 1;
        state.bytes += bytes;
        state.items.push_back(Item::Records(records));
        drop(state);
        self.news.notify_one();
        None
    }

    /// Puts in what is no record: at once.
    pub fn tell(&self, item: Item) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Records that wait do not count any more.
        let is_void = |record: &Polled| match &item {
            Item::Revoked(places) => places.contains(&record.place),
            Item::Lost(losses) => losses.iter().any(|(loss, _)| loss.place == record.place),
            _ => false,
        };
        if matches!(item, Item::Revoked(_) | Item::Lost(_)) {
            for waiting in &mut state.items {
                if let Item::Records(records) = waiting {
                    records.retain(|record| !is_void(record));
                }
            }
        }
        match &item {
            Item::Revoked(places) => places.iter().for_each(|place| {
                state.paused.remove(place);
                state.aside.remove(place);
            }),
            Item::Lost(losses) => losses.iter().for_each(|(loss, _)| drop(state.aside.remove(&loss.place))),
            _ => {}
        }
        state.items.push_back(item);
        drop(state);
        self.news.notify_one();
    }

    /// Gives nothing away of partitions until they are resumed.
    pub fn pause(&self, places: impl Iterator<Item = TopicPartition>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).paused.extend(places);
    }

    pub fn resume<'p>(&self, places: impl Iterator<Item = &'p TopicPartition>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for place in places {
            state.paused.remove(place);
            for records in state.aside.remove(place).into_iter().flatten().rev() {
                state.deliveries += 1;
                state.bytes += size(&records);
                state.items.push_front(Item::Records(records));
            }
        }
    }

    /// The paused partitions of which something came that waits.
    pub fn stuffed(&self) -> HashSet<TopicPartition> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.aside.keys().cloned().collect()
    }

    /// The next item; of records all that wait, up to so many, so that a caller who is slow gets those of many partitions together.
    /// Cancel-safe.
    pub async fn next(&self, most: usize) -> Item {
        loop {
            if let Some(item) = self.take(most) {
                return item;
            }
            self.news.notified().await;
        }
    }

    fn take(&self, most: usize) -> Option<Item> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut together = Vec::new();
        while let Some(item) = state.items.pop_front() {
            let mut records = match item {
                Item::Records(records) if together.is_empty() || together.len() + records.len() <= most => records,
                item if together.is_empty() => return Some(item),
                item => {
                    state.items.push_front(item);
                    break;
                }
            };
            state.deliveries -= 1;
            state.bytes = if state.deliveries == 0 { 0 } else { state.bytes.saturating_sub(size(&records)) };
            self.room.notify_one();
            state.set_aside(&mut records);
            if together.is_empty() {
                together = records;
            } else {
                together.append(&mut records);
            }
        }
        (!together.is_empty()).then_some(Item::Records(together))
    }

    /// Lets the thread go.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.room.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::Headers;

    fn records(partition: u32, offsets: std::ops::Range<u64>) -> Vec<Polled> {
        let place = TopicPartition { topic: "t".into(), partition };
        let record = |offset| {
            let (place, headers) = (place.clone(), Headers::default());
            Polled { place, offset, key: None, value: None, headers, timestamp_ms: 0 }
        };
        offsets.map(record).collect()
    }

    fn taken(mailbox: &Mailbox, most: usize) -> Option<Vec<(u32, u64)>> {
        match mailbox.take(most)? {
            Item::Records(records) => Some(records.iter().map(|r| (r.place.partition, r.offset)).collect()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn records_that_wait_come_together_and_nothing_overtakes_them() {
        let mailbox = Mailbox::default();
        for (partition, offsets) in [(0, 0..2), (1, 0..2), (0, 2..4)] {
            assert!(mailbox.put(records(partition, offsets), Duration::ZERO).is_none());
        }
        mailbox.tell(Item::Revoked(vec![TopicPartition { topic: "t".into(), partition: 7 }]));
        assert!(mailbox.put(records(1, 2..3), Duration::ZERO).is_none());
        assert_eq!(taken(&mailbox, 5), Some(vec![(0, 0), (0, 1), (1, 0), (1, 1)]));
        // One delivery comes as a whole, however little is wanted.
        assert_eq!(taken(&mailbox, 1), Some(vec![(0, 2), (0, 3)]));
        assert!(matches!(mailbox.take(5), Some(Item::Revoked(_))));
        assert_eq!(taken(&mailbox, 5), Some(vec![(1, 2)]));
        assert!(mailbox.take(5).is_none());
    }

    #[test]
    fn records_of_paused_partitions_wait() {
        let mailbox = Mailbox::default();
        let paused = TopicPartition { topic: "t".into(), partition: 0 };
        mailbox.pause([paused.clone()].into_iter());
        for (partition, offsets) in [(0, 0..2), (1, 0..2), (0, 2..4), (1, 2..3)] {
            assert!(mailbox.put(records(partition, offsets), Duration::ZERO).is_none());
        }
        assert_eq!(taken(&mailbox, 9), Some(vec![(1, 0), (1, 1), (1, 2)]));
        assert!(mailbox.take(9).is_none());
        mailbox.resume([&paused].into_iter());
        assert_eq!(taken(&mailbox, 9), Some(vec![(0, 0), (0, 1), (0, 2), (0, 3)]));
    }
}
