//! Keys that were seen a short while ago, for `dedupe`. Pure.
//!
//! An event is new if none of its key came within a time before it, whether that one went on or not. Time is the *log's*: the latest of all
//! times of events so far in the partition. It never goes back, also where times of single events do, so what is to be remembered is known:
//! each key's last time, while it is less than the period ago. Whoever went by what went on last would have to know all of a key's past;
//! by what came last, the events of the period before a place say all about it.
//!
//! So what is remembered at a place can be found again: with the time *t* of the record before it, all that counts came later than
//! *t* less the period, and lies behind the first record whose own time is later than that (all records before it have earlier ones, and
//! so has the log there). [`super::memory`] reads from there. What comes of an event depends on the log alone: not on who reads it, when,
//! or how often.
//!
//! Records are tried before it is known whether they are done. What they changed is written down until then, and taken back if they have
//! to be done again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that a key takes beside its own, about.
const BESIDE: usize = 160;

/// The keys of one partition.
#[derive(Debug)]
pub(super) struct Seen {
    period_us: i64,
    limit: usize,
    /// The log's time.
    now_us: i64,
    /// When each key was seen last, with a number of its own.
    keys: HashMap<Arc<[u8]>, Sight>,
    by_age: BTreeMap<Sight, Arc<[u8]>>,
    size: usize,
    number: u64,
    /// What records changed that may have to be done again.
    changes: VecDeque<Change>,
}

/// When a key was seen, and the number of that.
type Sight = (i64, u64);

#[derive(Debug)]
struct Change {
    offset: u64,
    /// The log's time before.
    now_us: i64,
    /// A key that was seen, and when before.
    key: Option<(Arc<[u8]>, Option<Sight>)>,
}

/// The keys take more memory than they may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Seen {
    pub fn new(period: Duration, limit: u64) -> Self {
        Self {
            period_us: i64::try_from(period.as_micros()).unwrap_or(i64::MAX),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            now_us: i64::MIN,
            keys: HashMap::new(),
            by_age: BTreeMap::new(),
            size: 0,
            number: 0,
            changes: VecDeque::new(),
        }
    }

    /// A record comes, whatever becomes of it, with the time of its event if it has one.
    pub fn comes(&mut self, offset: u64, time_us: Option<i64>) {
        if let Some(time_us) = time_us.filter(|time_us| *time_us > self.now_us) {
            self.changes.push_back(Change { offset, now_us: self.now_us, key: None });
            self.now_us = time_us;
        }
    }

    /// Whether an event of the record that came last is new. From now on its key was seen.
    pub fn is_new(&mut self, offset: u64, key: &[u8]) -> Result<bool, Full> {
        let before = self.keys.get_key_value(key).map(|(key, sight)| (key.clone(), *sight));
        let is_new = before.as_ref().is_none_or(|(_, (time_us, _))| self.is_over(*time_us, self.now_us));
        let key: Arc<[u8]> = match &before {
            Some((key, _)) => key.clone(),
            None if self.size + key.len() + BESIDE > self.limit => return Err(Full),
            None => key.into(),
        };
        let before = before.map(|(_, sight)| sight);
        self.number += 1;
        self.put(&key, Some((self.now_us, self.number)));
        self.changes.push_back(Change { offset, now_us: self.now_us, key: Some((key, before)) });
        Ok(is_new)
    }

    /// Records before an offset are done for good.
    pub fn keep(&mut self, offset: u64) {
        while self.changes.front().is_some_and(|change| change.offset < offset) {
            self.changes.pop_front();
        }
        let now_us = self.changes.front().map_or(self.now_us, |change| change.now_us);
        while let Some(((time_us, _), key)) = self.by_age.first_key_value() {
            if !self.is_over(*time_us, now_us) {
                break;
            }
            let key = key.clone();
            self.put(&key, None);
        }
    }

    /// Records from an offset on will come again.
    pub fn go_back(&mut self, offset: u64) {
        while let Some(change) = self.changes.pop_back_if(|change| change.offset >= offset) {
            self.now_us = change.now_us;
            if let Some((key, before)) = change.key {
                self.put(&key, before);
            }
        }
    }

    /// Whether what was seen at a time does not count any more.
    fn is_over(&self, time_us: i64, now_us: i64) -> bool {
        now_us.saturating_sub(time_us) >= self.period_us
    }

    fn put(&mut self, key: &Arc<[u8]>, sight: Option<Sight>) {
        let cost = key.len() + BESIDE;
        let before = match sight {
            Some(sight) => {
                self.by_age.insert(sight, key.clone());
                self.size += cost;
                self.keys.insert(key.clone(), sight)
            }
            None => self.keys.remove(key),
        };
        if let Some(before) = before {
            self.by_age.remove(&before);
            self.size -= cost;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: i64 = 10;

    fn seen(limit: u64) -> Seen {
        Seen::new(Duration::from_micros(PERIOD as u64), limit)
    }

    /// One event: its key, and its own time.
    type Event = (u8, i64);

    /// By the words of the rule alone.
    fn expected(log: &[Event]) -> Vec<bool> {
        let mut now = i64::MIN;
        let times: Vec<i64> = log
            .iter()
            .map(|(_, time)| {
                now = now.max(*time);
                now
            })
            .collect();
        let is_new =
            |at: usize| !(0..at).any(|before| log[before].0 == log[at].0 && times[at] - times[before] < PERIOD);
        (0..log.len()).map(is_new).collect()
    }

    fn comes(seen: &mut Seen, log: &[Event], at: usize) -> bool {
        let (key, time) = log[at];
        seen.comes(at as u64, Some(time));
        seen.is_new(at as u64, &[key]).expect("there is room")
    }

    fn logs() -> impl Strategy<Value = Vec<Event>> {
        // Times rise, but now and then one goes back.
        let steps = proptest::collection::vec((0_u8..4, -6_i64..8), 1..120);
        steps.prop_map(|steps| {
            let mut time = 0;
            steps
                .into_iter()
                .map(|(key, step)| {
                    time += step;
                    (key, time)
                })
                .collect()
        })
    }

    proptest! {
        /// Whatever has to be done again, and whenever, each event is new or not as the log says.
        #[test]
        fn the_log_alone_decides(log in logs(), turns in proptest::collection::vec((1_usize..20, 0_usize..20), 1..60)) {
            let expected = expected(&log);
            let (mut seen, mut at) = (seen(u64::MAX), 0);
            for (forward, back) in turns {
                let end = (at + forward).min(log.len());
                let came: Vec<bool> = (at..end).map(|event| comes(&mut seen, &log, event)).collect();
                prop_assert_eq!(&came, &expected[at..end]);
                // Of these the last ones come again.
                at = end - back.min(end - at);
                seen.go_back(at as u64);
                seen.keep(at as u64);
                let kept = seen.keys.values().filter(|(time, _)| seen.now_us - time >= PERIOD).count();
                prop_assert_eq!(kept, 0, "what is over is forgotten");
                prop_assert_eq!(seen.keys.len(), seen.by_age.len());
            }
        }

        /// Who takes the partition over remembers the same after reading what lies behind the first record that is late enough.
        #[test]
        fn it_is_found_again(log in logs(), place in any::<proptest::sample::Index>(), early in 0_i64..20) {
            let expected = expected(&log);
            let place = place.index(log.len());
            let late = place.checked_sub(1).map_or(i64::MIN, |last| log[last].1 - PERIOD - early);
            let from = log.iter().position(|(_, time)| *time > late).unwrap_or(place).min(place);
            let mut seen = seen(u64::MAX);
            for event in from..place {
                comes(&mut seen, &log, event);
                seen.keep(event as u64 + 1);
            }
            let came: Vec<bool> = (place..log.len()).map(|event| comes(&mut seen, &log, event)).collect();
            prop_assert_eq!(&came, &expected[place..]);
        }
    }

    #[test]
    fn keys_take_no_more_memory_than_they_may() {
        let mut seen = seen(2 * (1 + BESIDE) as u64);
        let log = [(1, 0), (2, 1), (3, 2), (3, 10)];
        assert!(comes(&mut seen, &log, 0) && comes(&mut seen, &log, 1));
        seen.comes(2, Some(2));
        assert_eq!(seen.is_new(2, &[3]), Err(Full));
        assert!(!comes(&mut seen, &log, 0), "one that is known needs no more");
        seen.go_back(0);
        assert!(comes(&mut seen, &log, 0) && comes(&mut seen, &log, 1));
        // The first is forgotten as soon as it is over and done.
        seen.comes(3, Some(10));
        seen.keep(3);
        assert_eq!(seen.is_new(3, &[3]), Err(Full));
        seen.comes(4, Some(11));
        seen.keep(5);
        assert_eq!(seen.is_new(5, &[3]), Ok(true));
    }
}
