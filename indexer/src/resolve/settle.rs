//! What is to be looked at again, and when. Pure: time is handed in.
//!
//! A change of a vertex is looked up at once: documents that embed it are built again. That misses documents which somebody is
//! building just then from an answer older than the change: nobody finds them before they are written and visible. And where the
//! graph lags behind the log, it misses what the graph does not show yet. So every change is looked at again:
//!
//! ```text
//! T              T + lag                          T + lag + skew + twice the deadline of builds
//! first look     late look, if the graph lags     last look
//! ```
//!
//! At the late look the graph shows the change: parents are asked for again, and what was built before that moment is built once
//! more. At the last look every build that began before the graph showed the change is over: its answer came within the deadline,
//! its write within another one (a build that took longer is built again by its own process); the deadline is the longest that any
//! process has which is there, and no clock is ahead by more than the skew (see `listing::peers`). So a document that embeds the
//! vertex, has an older stamp, and was not asked for since, missed the change, and is built again. The change's offset is committed
//! after its last look: a crash before it repeats all of this.
//!
//! Where the graph says how far it has come, the first look waits for it (see `shown`), and the change counts as if it had happened the
//! lag before.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use tributary_event::HybridClock;
use tributary_event::clock::SKEW;
use tributary_processor::Held;
use tributary_transport::Polled;
use xxhash_rust::xxh3::xxh3_64;

use super::supernodes::Supernode;
use crate::graph::Vertex;
use crate::request::Cause;

/// Changes within this time are looked at together.
const SPAN: Duration = Duration::from_millis(500);
/// Documents that are remembered as asked for, at most, of 32 bytes each. More are built once too often.
const REQUESTED: usize = 1_000_000;

/// When changes are looked at again.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How far the graph may be behind the log.
    pub lag: Duration,
    /// The longest that a build may take before it writes, and the longest that its write may take.
    pub deadline: Duration,
}

impl Times {
    /// From the start of a build until it is over for sure, its write included, by another process's clock.
    pub fn longest_build(&self) -> Duration {
        self.deadline * 2 + SKEW
    }

    /// The first stamp at which a build has seen a change, whoever built.
    pub fn seen_from(&self, changed: u64) -> u64 {
        HybridClock::later(changed, self.lag + SKEW)
    }

    /// When changes happened, at the latest, that the graph shows now.
    pub fn changed_if_shown(&self, now: u64) -> u64 {
        HybridClock::earlier(now, self.lag)
    }

    /// The first moment at which a build that is asked for sees a change.
    pub fn shown_from(&self, changed: u64) -> u64 {
        HybridClock::later(changed, self.lag)
    }
}

/// Changes that are looked at together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The vertices that changed, and parents that were found; each with the stamp of its last change.
    pub changed: BTreeMap<Vertex, u64>,
    /// Vertices whose parents were asked for, each with one of its events.
    pub asked: BTreeMap<Vertex, Polled>,
    /// Types of which any vertex may have changed.
    pub emptied: BTreeSet<String>,
    /// Those of the changed vertices that very many documents hold: by index, and there by reference.
    pub supernodes: BTreeMap<String, BTreeMap<String, Supernode>>,
    /// What the changes are called.
    pub cause: Option<Cause>,
    /// Their records.
    pub held: Vec<Held>,
}

impl Batch {
    /// Adds a reference that many documents of an index hold.
    pub fn add_supernode(&mut self, index: &str, reference: String, supernode: Supernode) {
        match self.supernodes.entry(index.to_owned()).or_default().entry(reference) {
            Entry::Vacant(entry) => drop(entry.insert(supernode)),
            Entry::Occupied(mut entry) => entry.get_mut().merge(supernode),
        }
    }

    /// A reference that many documents of an index hold.
    pub fn supernode(&self, index: &str, reference: &str) -> Option<&Supernode> {
        self.supernodes.get(index)?.get(reference)
    }

    fn merge(&mut self, other: Self) {
        for (vertex, stamp) in other.changed {
            let last = self.changed.entry(vertex).or_default();
            *last = stamp.max(*last);
        }
        self.asked.extend(other.asked);
        self.emptied.extend(other.emptied);
        for (index, supernodes) in other.supernodes {
            supernodes.into_iter().for_each(|(reference, it)| self.add_supernode(&index, reference, it));
        }
        self.cause = self.cause.take().or(other.cause);
        self.held.extend(other.held);
    }
}

/// Which look is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The graph shows what it did not show at first.
    Late,
    /// No build is under way that does not know of the change.
    Last,
}

/// The batches that wait for their looks.
#[derive(Debug)]
pub struct Settling {
    lag: Duration,
    /// The batch that still grows, and when it began.
    open: Option<(Instant, Batch)>,
    /// When the graph shows the changes, in order.
    late: VecDeque<(Instant, Batch)>,
    /// The same of those whose late look is over.
    last: VecDeque<(Instant, Batch)>,
    held: usize,
}

impl Settling {
    /// Nothing waits.
    pub fn new(times: Times) -> Self {
        Self { lag: times.lag, open: None, late: VecDeque::new(), last: VecDeque::new(), held: 0 }
    }

    /// Takes changes whose first look is over.
    pub fn add(&mut self, changes: Batch, now: Instant) {
        self.held += changes.held.len();
        self.close(now);
        self.open.get_or_insert_with(|| (now, Batch::default())).1.merge(changes);
    }

    /// Takes a batch back, whose late look is over: its changes are as old as they were.
    pub fn looked_late(&mut self, batch: Batch, shown: Instant) {
        // Late looks may end in another order than they began.
        let place = self.last.partition_point(|(other, _)| *other <= shown);
        self.last.insert(place, (shown, batch));
    }

    /// When the next look is due, if builds take so long at most.
    pub fn next(&self, longest_build: Duration) -> Option<Instant> {
        let open = self.open.as_ref().map(|(began, _)| *began + SPAN);
        let first = |queue: &VecDeque<(Instant, Batch)>, wait| queue.front().map(|(shown, _)| *shown + wait);
        [open, first(&self.late, Duration::ZERO), first(&self.last, longest_build)].into_iter().flatten().min()
    }

    /// A look that is due, with the time from which on the graph shows the changes.
    pub fn due(&mut self, now: Instant, longest_build: Duration) -> Option<(Look, Instant, Batch)> {
        self.close(now);
        let queues = [(Look::Late, &mut self.late, Duration::ZERO), (Look::Last, &mut self.last, longest_build)];
        for (look, queue, wait) in queues {
            if queue.front().is_some_and(|(shown, _)| *shown + wait <= now) {
                let (shown, batch) = queue.pop_front()?;
                if look == Look::Last {
                    self.held -= batch.held.len();
                }
                return Some((look, shown, batch));
            }
        }
        None
    }

    /// Records that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// A batch that is old enough grows no more.
    fn close(&mut self, now: Instant) {
        if self.open.as_ref().is_none_or(|(began, _)| *began + SPAN > now) {
            return;
        }
        let Some((began, batch)) = self.open.take() else { return };
        let shown = began + SPAN + self.lag;
        if self.lag.is_zero() {
            self.last.push_back((shown, batch));
        } else {
            self.late.push_back((shown, batch));
        }
    }
}

/// The documents of one index that were asked for of late: what was asked for after a change does not miss it.
#[derive(Debug, Default)]
pub struct Requested {
    /// Hash of the id → the stamp of the last change or look that asked for it.
    at: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
}

impl Requested {
    /// A build of the document was asked for because of what happened until `stamp`.
    pub fn note(&mut self, document: &str, stamp: u64) {
        let hash = xxh3_64(document.as_bytes());
        let last = self.at.entry(hash).or_default();
        if *last >= stamp {
            return;
        }
        *last = stamp;
        self.order.push_back((hash, stamp));
        while self.order.len() > REQUESTED {
            self.forget_first();
        }
    }

    /// Whether a build was asked for at this stamp or later.
    pub fn since(&self, document: &str, stamp: u64) -> bool {
        self.at.get(&xxh3_64(document.as_bytes())).is_some_and(|at| *at >= stamp)
    }

    /// Forgets what was asked for before.
    pub fn forget(&mut self, before: u64) {
        while self.order.front().is_some_and(|(_, at)| *at < before) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((hash, stamp)) = self.order.pop_front()
            && self.at.get(&hash) == Some(&stamp)
        {
            self.at.remove(&hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(id: &str, stamp: u64) -> Batch {
        Batch { changed: BTreeMap::from([(Vertex::new("Movie", id), stamp)]), ..Batch::default() }
    }

    const DEADLINE: Duration = Duration::from_secs(10);

    #[test]
    fn changes_are_looked_at_late_and_last() {
        let start = Instant::now();
        let times = Times { lag: Duration::from_secs(2), deadline: DEADLINE };
        let longest = times.longest_build();
        let mut settling = Settling::new(times);
        settling.add(changed("1", 5), start);
        settling.add(changed("2", 6), start + SPAN / 2);
        settling.add(changed("1", 7), start + SPAN / 2);
        let late = start + SPAN + times.lag;
        assert!(settling.due(late - SPAN / 10, longest).is_none());
        let (look, shown, batch) = settling.due(late, longest).expect("a look");
        assert_eq!(
            (look, shown, batch.changed.len(), batch.changed[&Vertex::new("Movie", "1")]),
            (Look::Late, late, 2, 7)
        );
        settling.looked_late(batch, shown);
        let last = late + longest;
        assert_eq!(settling.next(longest), Some(last));
        // Meanwhile a process came whose builds take longer.
        assert!(settling.due(last, longest + SPAN).is_none());
        assert_eq!(settling.next(longest + SPAN), Some(last + SPAN));
        assert_eq!(settling.due(last + SPAN, longest + SPAN).map(|(look, ..)| look), Some(Look::Last));
        assert_eq!(settling.next(longest), None);
    }

    #[test]
    fn a_graph_that_shows_everything_is_asked_once() {
        let (start, times) = (Instant::now(), Times { lag: Duration::ZERO, deadline: DEADLINE });
        let mut settling = Settling::new(times);
        settling.add(changed("1", 5), start);
        let due = settling.due(start + DEADLINE * 3, times.longest_build());
        assert_eq!(due.map(|(look, ..)| look), Some(Look::Last));
    }

    #[test]
    fn what_was_asked_for_is_known_until_it_is_forgotten() {
        let mut requested = Requested::default();
        requested.note("1", 10);
        requested.note("1", 15);
        requested.note("2", 20);
        assert!(requested.since("1", 15) && !requested.since("1", 16) && !requested.since("3", 1));
        requested.forget(16);
        assert!(!requested.since("1", 1) && requested.since("2", 20));
    }
}
