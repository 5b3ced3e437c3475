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
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tributary_event::HybridClock;
use tributary_event::clock::SKEW;
use tributary_processor::Held;
use tributary_transport::TopicPartition;
use xxhash_rust::xxh3::xxh3_64;

use super::supernodes::Supernode;
use crate::graph::Vertex;
use crate::request::Cause;

/// Changes within this time are looked at together.
const SPAN: Duration = Duration::from_millis(500);
/// Vertices that wait for their last look at most, of some 70 bytes each, before no more changes are resolved: those of five minutes,
/// where ten thousand others change in each second.
const VERTICES: usize = 3_000_000;
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

/// Vertices with the stamps of their last changes. There may be millions, so no type's name is kept twice.
#[derive(Debug, Default)]
pub struct Changes {
    by_type: BTreeMap<Arc<str>, BTreeMap<Box<str>, u64>>,
    count: usize,
}

impl Changes {
    /// A vertex changed.
    pub fn note(&mut self, vertex: &Vertex, stamp: u64) {
        if !self.by_type.contains_key(vertex.type_name.as_str()) {
            self.by_type.insert(vertex.type_name.as_str().into(), BTreeMap::new());
        }
        let Some(vertices) = self.by_type.get_mut(vertex.type_name.as_str()) else { return };
        match vertices.get_mut(vertex.id.as_str()) {
            Some(last) => *last = stamp.max(*last),
            None => {
                self.count += 1;
                vertices.insert(vertex.id.as_str().into(), stamp);
            }
        }
    }

    /// The stamp of a vertex's last change.
    pub fn last(&self, vertex: &Vertex) -> Option<u64> {
        self.by_type.get(vertex.type_name.as_str())?.get(vertex.id.as_str()).copied()
    }

    /// Type, id and stamp of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        let of_type = |(name, vertices)| Self::named(name, vertices);
        self.by_type.iter().flat_map(of_type)
    }

    fn named<'c>(
        name: &'c Arc<str>,
        vertices: &'c BTreeMap<Box<str>, u64>,
    ) -> impl Iterator<Item = (&'c str, &'c str, u64)> {
        vertices.iter().map(move |(id, stamp)| (&**name, &**id, *stamp))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn merge(&mut self, other: Self) {
        for (name, vertices) in other.by_type {
            let of_type = self.by_type.entry(name).or_default();
            for (id, stamp) in vertices {
                let last = of_type.entry(id).or_insert_with(|| {
                    self.count += 1;
                    stamp
                });
                *last = stamp.max(*last);
            }
        }
    }
}

/// Where a record lies.
pub type Record = (TopicPartition, u64);

/// Changes that are looked at together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The vertices that changed, and parents that were found.
    pub changed: Changes,
    /// Vertices whose parents were asked for, each with one of its events.
    pub asked: BTreeMap<Vertex, Record>,
    /// Types of which any vertex may have changed.
    pub emptied: BTreeSet<String>,
    /// Those of the changed vertices that very many documents hold: by index, and there by reference.
    pub supernodes: BTreeMap<String, BTreeMap<String, Supernode>>,
    /// What the changes are called.
    pub cause: Option<Cause>,
    /// Their records.
    pub held: Vec<Held>,
    /// How many stretches of records there were when they were joined last.
    pub(super) joined: usize,
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
        self.changed.merge(other.changed);
        self.asked.extend(other.asked);
        self.emptied.extend(other.emptied);
        for (index, supernodes) in other.supernodes {
            supernodes.into_iter().for_each(|(reference, it)| self.add_supernode(&index, reference, it));
        }
        self.cause = self.cause.take().or(other.cause);
        self.held.extend(other.held);
        // What is joined already costs little to look at once more.
        if self.held.len() >= self.joined.saturating_mul(2).max(1_000) {
            self.join();
        }
    }

    fn join(&mut self) {
        Held::join(&mut self.held);
        self.joined = self.held.len();
    }

    /// What it takes, in vertices.
    fn weight(&self) -> usize {
        self.changed.len() + self.asked.len() + self.held.len()
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
    /// What those take that grow no more.
    weight: usize,
    /// What all may take.
    most: usize,
}

impl Settling {
    /// Nothing waits.
    pub fn new(times: Times) -> Self {
        Self { lag: times.lag, open: None, late: VecDeque::new(), last: VecDeque::new(), weight: 0, most: VERTICES }
    }

    /// Takes changes whose first look is over.
    pub fn add(&mut self, changes: Batch, now: Instant) {
        self.close(now);
        self.open.get_or_insert_with(|| (now, Batch::default())).1.merge(changes);
    }

    /// Takes a batch back, whose late look is over: its changes are as old as they were.
    pub fn looked_late(&mut self, batch: Batch, shown: Instant) {
        // Late looks may end in another order than they began.
        self.weight += batch.weight();
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
                self.weight -= batch.weight();
                return Some((look, shown, batch));
            }
        }
        None
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.weight + self.open.as_ref().map_or(0, |(_, batch)| batch.weight()) < self.most
    }

    /// A batch that is old enough grows no more.
    fn close(&mut self, now: Instant) {
        if self.open.as_ref().is_none_or(|(began, _)| *began + SPAN > now) {
            return;
        }
        let Some((began, mut batch)) = self.open.take() else { return };
        batch.join();
        self.weight += batch.weight();
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
        let mut batch = Batch::default();
        batch.changed.note(&Vertex::new("Movie", id), stamp);
        batch
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
            (look, shown, batch.changed.len(), batch.changed.last(&Vertex::new("Movie", "1"))),
            (Look::Late, late, 2, Some(7))
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

    /// Ten thousand vertices that change in each second find room while builds take up to a hundred seconds and more; here in small.
    #[test]
    fn there_is_room_for_ten_thousand_changes_a_second() {
        const SMALLER: usize = 50;
        let times = Times { lag: Duration::from_secs(1), deadline: Duration::from_secs(100) };
        let (mut settling, mut now) = (Settling::new(times), Instant::now());
        settling.most /= SMALLER;
        let (mut looked, longest) = (0, times.longest_build());
        for second in 0..250 {
            for part in 0..2 {
                let mut batch = Batch::default();
                for n in 0..5_000 / SMALLER {
                    batch.changed.note(&Vertex::new("Movie", format!("{second}-{part}-{n}")), 1);
                }
                assert!(settling.has_room(), "second {second}");
                settling.add(batch, now);
                now += SPAN;
                while let Some((look, shown, batch)) = settling.due(now, longest) {
                    match look {
                        Look::Late => settling.looked_late(batch, shown),
                        Look::Last => looked += batch.changed.len(),
                    }
                }
            }
        }
        assert!(looked > 400_000 / SMALLER, "{looked}");
        assert!(settling.weight > 2_000_000 / SMALLER, "{}", settling.weight);
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
