//! Which event is delivered next: those of one lane one after the other, lanes beside one another. A lane is a key, a partition, or one
//! event, as the sink's order says. Pure; time is passed in.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tributary_dsl::plan::DeliveryOrder;
use tributary_transport::{Polled, TopicPartition};

/// The lane of an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Lane {
    pub place: TopicPartition,
    /// Its key, if events of other keys are in other lanes.
    pub key: Option<Bytes>,
    /// Where it lies, if it has a lane of its own.
    pub offset: Option<u64>,
}

impl Lane {
    /// The lane of an event. One without a key waits for none of its own where keys have lanes.
    pub fn of(order: DeliveryOrder, record: &Polled) -> Self {
        let key = record.key.clone().filter(|key| !key.is_empty() && order == DeliveryOrder::Key);
        let is_alone = key.is_none() && order != DeliveryOrder::Partition;
        Self { place: record.place.clone(), key, offset: is_alone.then_some(record.offset) }
    }
}

/// What is to be delivered, in lanes.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: HashMap<Lane, Queue<T>>,
    ready: VecDeque<(Lane, u64)>,
    later: BinaryHeap<Reverse<(Instant, Lane, u64)>>,
    /// Lanes of which one is taken.
    out: HashSet<Lane>,
    /// The number of the lane that was made last: one that was revoked and came back is another one.
    last: u64,
}

#[derive(Debug)]
struct Queue<T> {
    number: u64,
    waiting: VecDeque<T>,
    /// How often the first was tried, and since when.
    tries: u32,
    since: Option<Instant>,
}

/// The first of a lane, which is its caller's until it says what became of it.
#[derive(Debug, PartialEq)]
pub(super) struct Head<T> {
    pub lane: Lane,
    number: u64,
    pub item: T,
    /// How often it was tried before.
    pub tries: u32,
    /// When it was tried first, if it was.
    pub since: Option<Instant>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        let (lanes, ready, later) = (HashMap::new(), VecDeque::new(), BinaryHeap::new());
        Self { lanes, ready, later, out: HashSet::new(), last: 0 }
    }
}

impl<T> Lanes<T> {
    /// Adds one behind the others of its lane.
    pub fn push(&mut self, lane: Lane, item: T) {
        match self.lanes.get_mut(&lane) {
            Some(queue) => queue.waiting.push_back(item),
            None => {
                self.last += 1;
                let queue = Queue { number: self.last, waiting: VecDeque::from([item]), tries: 0, since: None };
                self.lanes.insert(lane.clone(), queue);
                self.ready.push_back((lane, self.last));
            }
        }
    }

    /// Takes up to `most` that may be delivered now, of different lanes.
    pub fn take(&mut self, most: usize, now: Instant) -> Vec<Head<T>> {
        while self.later.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            if let Some(Reverse((_, lane, number))) = self.later.pop() {
                self.ready.push_back((lane, number));
            }
        }
        let mut taken = Vec::new();
        let mut wait = Vec::new();
        while taken.len() < most {
            let Some((lane, number)) = self.ready.pop_front() else { break };
            // It was revoked meanwhile.
            let Some(queue) = self.lanes.get_mut(&lane).filter(|queue| queue.number == number) else { continue };
            // One that was revoked and is here again: what was taken of it before is still out.
            if self.out.contains(&lane) {
                wait.push((lane, number));
                continue;
            }
            let Some(item) = queue.waiting.pop_front() else { continue };
            let since = *queue.since.get_or_insert(now);
            let before = (queue.tries > 0).then_some(since);
            self.out.insert(lane.clone());
            taken.push(Head { lane, number, item, tries: queue.tries, since: before });
        }
        self.ready.extend(wait);
        taken
    }

    /// When the next may be delivered that cannot be now.
    pub fn next(&self) -> Option<Instant> {
        self.later.peek().map(|Reverse((at, ..))| *at)
    }

    /// Whether one that was taken is still this process's.
    pub fn is_ours(&self, head: &Head<T>) -> bool {
        self.lanes.get(&head.lane).is_some_and(|queue| queue.number == head.number)
    }

    /// One is done: the next of its lane is its turn.
    pub fn done(&mut self, head: Head<T>) -> T {
        let Head { lane, number, item, .. } = head;
        self.out.remove(&lane);
        if let Some(queue) = self.lanes.get_mut(&lane).filter(|queue| queue.number == number) {
            (queue.tries, queue.since) = (0, None);
            if queue.waiting.is_empty() {
                self.lanes.remove(&lane);
            } else {
                self.ready.push_back((lane, number));
            }
        }
        item
    }

    /// One is to be tried again, not before a pause has passed. It stays the first of its lane. `Err`: its partition was revoked,
    /// and it is given back.
    pub fn again(&mut self, head: Head<T>, now: Instant, pause: Duration) -> Result<(), T> {
        self.out.remove(&head.lane);
        let Some(queue) = self.lanes.get_mut(&head.lane).filter(|queue| queue.number == head.number) else {
            return Err(head.item);
        };
        queue.waiting.push_front(head.item);
        queue.tries = head.tries.saturating_add(1);
        self.later.push(Reverse((now + pause, head.lane, head.number)));
        Ok(())
    }

    /// Forgets what is of partitions that are another process's now. What was taken of them is still out until its caller says what
    /// became of it.
    pub fn revoke(&mut self, places: &[TopicPartition]) {
        self.lanes.retain(|lane, _| !places.contains(&lane.place));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tributary_transport::Headers;

    use super::*;

    fn record(key: u8, partition: u32, offset: u64) -> Polled {
        let place = TopicPartition { topic: "events".into(), partition };
        // The first key is none.
        let key = (key > 0).then(|| Bytes::copy_from_slice(&[key]));
        Polled { place, offset, key, value: None, headers: Headers::NONE, timestamp_ms: 0 }
    }

    fn lane(key: u8) -> Lane {
        Lane::of(DeliveryOrder::Key, &record(key + 1, 0, 0))
    }

    /// Whether the second of two events waits for the first, by the words of the rule.
    fn waits(order: DeliveryOrder, first: &Polled, second: &Polled) -> bool {
        first.place == second.place
            && match order {
                DeliveryOrder::Key => first.key.is_some() && first.key == second.key,
                DeliveryOrder::Partition => true,
                DeliveryOrder::None => false,
            }
    }

    fn orders() -> impl Strategy<Value = DeliveryOrder> {
        prop_oneof![Just(DeliveryOrder::Key), Just(DeliveryOrder::Partition), Just(DeliveryOrder::None)]
    }

    proptest! {
        /// Of two events of which one waits for the other, they are never out together, and arrive in their order; all others that are
        /// ready are out at once. All arrive.
        #[test]
        fn an_order_is_kept_and_no_more_than_that(
            order in orders(), items in proptest::collection::vec((0_u8..3, 0_u32..2, 0_u8..3), 1..60),
            picks in proptest::collection::vec(any::<proptest::sample::Index>(), 300),
        ) {
            let records: Vec<Polled> =
                items.iter().enumerate().map(|(at, (key, place, _))| record(*key, *place, at as u64)).collect();
            let mut lanes = Lanes::default();
            records.iter().enumerate().for_each(|(at, record)| lanes.push(Lane::of(order, record), at));
            let mut failures: Vec<u8> = items.iter().map(|(_, _, failures)| *failures).collect();
            let (mut now, mut out, mut arrived) = (Instant::now(), Vec::<Head<usize>>::new(), Vec::new());
            for pick in picks {
                out.extend(lanes.take(usize::MAX, now));
                let is_out = |at: usize| out.iter().any(|head| head.item == at);
                for (second, record) in records.iter().enumerate().filter(|(at, _)| !arrived.contains(at)) {
                    let waits_for = (0..second).find(|at| !arrived.contains(at) && waits(order, &records[*at], record));
                    prop_assert!(waits_for.is_none() || !is_out(second), "{second} overtakes {waits_for:?}");
                    // One that failed is out again when its pause is over.
                    prop_assert!(waits_for.is_some() || is_out(second), "{second} waits for nothing");
                }
                if out.is_empty() {
                    break;
                }
                let head = out.swap_remove(pick.index(out.len()));
                if failures[head.item] > 0 {
                    failures[head.item] -= 1;
                    prop_assert!(lanes.again(head, now, Duration::from_secs(1)).is_ok());
                    now += Duration::from_secs(1);
                } else {
                    arrived.push(lanes.done(head));
                }
            }
            arrived.sort_unstable();
            prop_assert_eq!(arrived, (0..records.len()).collect::<Vec<_>>());
        }

        /// Whatever becomes of them, the events of a key are done in their order, one at a time, and all of them.
        #[test]
        fn keys_keep_their_order(items in proptest::collection::vec((0_u8..4, 0_u8..3), 1..80), most in 1_usize..4) {
            let mut lanes = Lanes::default();
            let mut now = Instant::now();
            let mut expected: HashMap<Lane, Vec<usize>> = HashMap::new();
            for (place, (key, _)) in items.iter().enumerate() {
                lanes.push(lane(*key), place);
                expected.entry(lane(*key)).or_default().push(place);
            }
            let mut failures: Vec<u8> = items.iter().map(|(_, failures)| *failures).collect();
            let mut done: HashMap<Lane, Vec<usize>> = HashMap::new();
            for _ in 0..10_000 {
                let taken = lanes.take(most, now);
                let Some(next) = lanes.next().filter(|_| taken.is_empty()) else {
                    if taken.is_empty() {
                        break;
                    }
                    let keys: std::collections::HashSet<&Lane> = taken.iter().map(|head| &head.lane).collect();
                    prop_assert_eq!(keys.len(), taken.len(), "two of one key at a time");
                    for head in taken {
                        prop_assert_eq!(head.since.is_some(), head.tries > 0);
                        let left = &mut failures[head.item];
                        if *left > 0 {
                            *left -= 1;
                            prop_assert!(lanes.again(head, now, Duration::from_secs(1)).is_ok());
                        } else {
                            done.entry(head.lane.clone()).or_default().push(head.item);
                            lanes.done(head);
                        }
                    }
                    continue;
                };
                now = next;
            }
            prop_assert_eq!(done, expected);
        }
    }

    #[test]
    fn what_was_revoked_is_not_tried_again() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.push(lane(1), "a");
        lanes.push(lane(1), "b");
        let head = lanes.take(1, now).pop().expect("one");
        lanes.revoke(std::slice::from_ref(&head.lane.place));
        assert!(!lanes.is_ours(&head));
        // It comes back while what was taken before is still out.
        lanes.push(lane(1), "a once more");
        assert!(lanes.take(1, now).is_empty(), "two of one key at a time");
        assert_eq!(lanes.again(head, now, Duration::ZERO), Err("a"));
        let head = lanes.take(1, now).pop().expect("one");
        assert_eq!(lanes.done(head), "a once more");
        assert!(lanes.take(1, now).is_empty());
    }
}
