//! Events that wait for later ones of their key, for `collapse`. Pure; time is passed in.
//!
//! Of the events of a key that come within a period of the first of them, only the last goes on, when the period is over: by the times of
//! the events that come in the partition, or by the clock where none come. What goes on does so *in the order in which it was read*: an
//! event waits for all that were read before it and are held too. They all came before it, so their periods are over one period later at
//! the latest, and so is its wait.
//!
//! That order is what makes each event come once without keeping anything but an offset. What has gone on was read before all that is held,
//! so a mark at the first held event has every event that went on before it, and none that is to go on. What was read before the mark and
//! did not go on was followed by an event of its key, which went on, or is held and lies behind the mark: after a crash it is read again, and
//! its period begins anew.
//! A mark that could pass a held event would need to know it by another way; one that stood before events that went on would bring them
//! once more.
//!
//! Once its period is over an event is replaced by no later one, though it may still wait for others: a key whose events never cease goes
//! on all the same. Beyond the bounds the first goes on early.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Offsets at most between the first event that is held and what was read last: so much is read again after a crash.
const SPAN: u64 = 100_000;

/// What is held of one partition.
#[derive(Debug)]
pub(super) struct Holding<T> {
    bounds: Bounds,
    /// The latest time of an event so far.
    now_us: i64,
    /// By their offsets.
    waiting: BTreeMap<u64, Item<T>>,
    /// The event of each key that was read last.
    last: HashMap<Bytes, u64>,
    bytes: usize,
}

/// How long events wait, and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// By the times of events.
    pub period: Duration,
    /// By the clock.
    pub patience: Duration,
    /// So many at most.
    pub keys: usize,
    /// Bytes of them at most.
    pub bytes: usize,
}

#[derive(Debug)]
struct Item<T> {
    /// None: it waits for no later one, only for those before it.
    key: Option<Bytes>,
    /// When the first of its key came.
    first_us: i64,
    since: Instant,
    size: usize,
    what: T,
}

/// An event as it comes.
#[derive(Debug)]
pub(super) struct Coming<T> {
    pub offset: u64,
    /// Its own time, if it has one.
    pub time_us: Option<i64>,
    /// None: it is no other's.
    pub key: Option<Bytes>,
    pub size: usize,
    pub what: T,
}

impl<T> Holding<T> {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, now_us: i64::MIN, waiting: BTreeMap::new(), last: HashMap::new(), bytes: 0 }
    }

    /// Events of this time come.
    pub fn goes_by(&mut self, time_us: Option<i64>) {
        self.now_us = self.now_us.max(time_us.unwrap_or(i64::MIN));
    }

    /// An event comes, behind all others. The one that it takes the place of.
    pub fn push(&mut self, coming: Coming<T>, now: Instant) -> Option<T> {
        let Coming { offset, time_us, key, size, what } = coming;
        self.goes_by(time_us);
        let before = key.as_ref().and_then(|key| self.last.get(key)).copied();
        let before = before.filter(|before| self.waiting.get(before).is_some_and(|item| !self.is_over(item, now)));
        let before = before.and_then(|before| self.remove(before));
        let (first_us, since) = before.as_ref().map_or((self.now_us, now), |before| (before.first_us, before.since));
        if let Some(key) = &key {
            self.last.insert(key.clone(), offset);
        }
        self.bytes += size;
        self.waiting.insert(offset, Item { key, first_us, since, size, what });
        before.map(|before| before.what)
    }

    /// The next that goes on now. `read`: the offset behind what was read last.
    pub fn take(&mut self, read: u64, now: Instant) -> Option<T> {
        let (first, item) = self.waiting.first_key_value()?;
        let is_too_much = self.waiting.len() > self.bounds.keys
            || self.bytes > self.bounds.bytes
            || read.saturating_sub(*first) > SPAN;
        let goes_on = is_too_much || self.is_over(item, now);
        let first = *first;
        goes_on.then(|| self.remove(first)).flatten().map(|item| item.what)
    }

    /// All that is held, in its order.
    pub fn take_all(&mut self) -> Vec<T> {
        self.last.clear();
        self.bytes = 0;
        std::mem::take(&mut self.waiting).into_values().map(|item| item.what).collect()
    }

    /// The offset of the first that is held.
    pub fn first(&self) -> Option<u64> {
        self.waiting.keys().next().copied()
    }

    /// When the next goes on at the latest.
    pub fn next(&self) -> Option<Instant> {
        let item = self.waiting.values().next()?;
        Some(if item.key.is_some() { item.since + self.bounds.patience } else { item.since })
    }

    /// Whether an event waits for no later one of its key any more.
    fn is_over(&self, item: &Item<T>, now: Instant) -> bool {
        let period_us = i64::try_from(self.bounds.period.as_micros()).unwrap_or(i64::MAX);
        item.key.is_none()
            || self.now_us.saturating_sub(item.first_us) >= period_us
            || now.saturating_duration_since(item.since) >= self.bounds.patience
    }

    fn remove(&mut self, offset: u64) -> Option<Item<T>> {
        let item = self.waiting.remove(&offset)?;
        self.bytes -= item.size;
        if let Some(key) = item.key.as_ref().filter(|key| self.last.get(*key) == Some(&offset)) {
            self.last.remove(key);
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests;
