//! The brake of deletes: a document is deleted when the graph does not know its root any more, and where that is said of more
//! documents within a minute than one would expect, the graph may be wrong. Pure: time is handed in.
//!
//! The rate is that of the index, and each process counts what it builds itself: so it may delete its share of a percentage, which is
//! that of the partitions that it has (documents are spread over them by their ids). The number that may be deleted in any case is no
//! share: of few documents, one process may have most by chance.
//!
//! What counts is not what was deleted but what was found missing, which is known a second before anything is deleted: so a graph
//! that suddenly answers nothing costs no document. While the brake is on, documents that would be deleted are set aside, and
//! it stays on as long as there are such: until a person lets deletes go on, or the graph knows those documents again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tributary_dsl::plan::BrakeSettings;

/// What was found missing counts for so long.
const MINUTE: Duration = Duration::from_secs(60);
/// After a person said that deletes may go on, no number is too large for so long.
const RELEASE: Duration = Duration::from_secs(600);

/// The brake of one index.
#[derive(Debug)]
pub struct Brake {
    settings: BrakeSettings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many documents were found missing when, within the last minute.
    missing: VecDeque<(Instant, u64)>,
    /// Documents of the index when its count was taken last, and when that was.
    documents: Option<(u64, Instant)>,
    released: Option<Instant>,
    /// The partitions of build requests that this process has, and how many there are; 0 while that is not known.
    share: (u64, u64),
    /// Documents that are set aside instead of deleted.
    held: u64,
}

impl Brake {
    /// A brake that is not on.
    pub fn new(settings: BrakeSettings) -> Self {
        Self { settings, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the number of documents in the index is to be told again.
    pub fn wants_count(&self, now: Instant) -> bool {
        self.state().documents.is_none_or(|(_, at)| now - at >= MINUTE)
    }

    /// The index has so many documents.
    pub fn count(&self, documents: u64, now: Instant) {
        self.state().documents = Some((documents, now));
    }

    /// This process builds the documents of so many partitions, of all that there are.
    pub fn share(&self, owned: u64, of: u64) {
        self.state().share = (owned, of);
    }

    /// So many documents of the index were found to be missing in the graph, for the first time.
    pub fn missing(&self, documents: u64, now: Instant) {
        if documents > 0 {
            self.state().missing.push_back((now, documents));
        }
    }

    /// So many documents are set aside instead of deleted.
    pub fn hold(&self, held: u64) {
        self.state().held = held;
    }

    /// How many are.
    pub fn held(&self) -> u64 {
        self.state().held
    }

    /// A person says that deletes may go on.
    pub fn release(&self, now: Instant) {
        let mut state = self.state();
        state.released = Some(now);
        state.missing.clear();
    }

    /// Why nothing is deleted now; none: deletes go on.
    pub fn stops(&self, now: Instant) -> Option<String> {
        let mut state = self.state();
        if state.released.is_some_and(|at| now - at < RELEASE) || self.settings.percent >= 100 {
            state.missing.clear();
            return None;
        }
        while state.missing.front().is_some_and(|(at, _)| now - *at >= MINUTE) {
            state.missing.pop_front();
        }
        let missing: u64 = state.missing.iter().map(|(_, n)| n).sum();
        let documents = state.documents.map_or(0, |(documents, _)| documents);
        let percent = documents.saturating_mul(self.settings.percent) / 100;
        let (share, whose) = match state.share {
            (owned, of) if owned < of => (
                percent.saturating_mul(owned).div_ceil(of),
                format!(" in this process, which builds {owned} of {of} partitions"),
            ),
            _ => (percent, String::new()),
        };
        let mine = self.settings.least.max(share);
        if missing > mine {
            return Some(format!(
                "{missing} of {documents} documents were found missing within a minute{whose}, {mine} may be"
            ));
        }
        (state.held > 0).then(|| format!("{} documents wait to be deleted", state.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletes_stop_above_the_rate_before_any_was_carried_out() {
        let (brake, now) = (Brake::new(BrakeSettings { percent: 1, least: 100 }), Instant::now());
        brake.count(3201, now);
        brake.missing(60, now);
        assert_eq!(brake.stops(now), None);
        brake.missing(41, now + MINUTE / 2);
        let said = brake.stops(now + MINUTE / 2).expect("stopped");
        assert!(said.starts_with("101 of 3201 documents"), "{said}");
        assert_eq!(brake.stops(now + MINUTE), None, "none was held, so it is over with the minute");
        brake.count(100_000, now + MINUTE);
        brake.missing(900, now + MINUTE);
        assert_eq!(brake.stops(now + MINUTE), None, "one percent");
        brake.missing(100, now + MINUTE);
        assert!(brake.stops(now + MINUTE).is_some());
    }

    #[test]
    fn it_stays_on_while_documents_are_held_and_is_off_for_a_while_when_released() {
        let (brake, mut now) = (Brake::new(BrakeSettings { percent: 0, least: 1 }), Instant::now());
        brake.missing(2, now);
        assert!(brake.stops(now).is_some());
        brake.hold(2);
        now += 10 * MINUTE;
        assert!(brake.stops(now).is_some_and(|why| why.starts_with("2 documents wait")));
        brake.release(now);
        brake.missing(1_000_000, now);
        assert_eq!(brake.stops(now), None);
        brake.hold(0);
        now += RELEASE;
        brake.missing(1, now);
        assert_eq!(brake.stops(now), None);
        brake.missing(1, now);
        assert!(brake.stops(now).is_some());
        let open = Brake::new(BrakeSettings { percent: 100, least: 1 });
        open.missing(1_000_000, now);
        assert_eq!(open.stops(now), None);
    }

    #[test]
    fn processes_share_the_rate_by_their_partitions() {
        let now = Instant::now();
        let brakes: Vec<Brake> = (0..4).map(|_| Brake::new(BrakeSettings { percent: 1, least: 100 })).collect();
        let mut deleted = 0;
        let deletes = |brake: &Brake| {
            let mut missing = 0;
            while brake.stops(now).is_none() {
                brake.missing(1, now);
                missing += 1;
            }
            missing - 1
        };
        for (brake, owned) in brakes.iter().zip([3, 3, 5, 1]) {
            brake.count(120_000, now);
            brake.share(owned, 12);
            deleted += deletes(brake);
        }
        assert!((1200..1204).contains(&deleted), "{deleted} of 120,000, by all together");
        brakes[0].share(12, 12);
        assert_eq!(brakes[0].stops(now), None, "it is the only one that is left");
        let small = Brake::new(BrakeSettings { percent: 1, least: 100 });
        small.count(3201, now);
        small.share(1, 12);
        assert_eq!(deletes(&small), 100, "of a small index each may delete as many as all may");
    }

    #[test]
    fn the_count_is_taken_once_a_minute() {
        let (brake, now) = (Brake::new(BrakeSettings { percent: 1, least: 1 }), Instant::now());
        assert!(brake.wants_count(now));
        brake.count(1, now);
        assert!(!brake.wants_count(now + MINUTE / 2));
        assert!(brake.wants_count(now + MINUTE));
    }
}
