//! Whether an event may have been delivered before.
//!
//! Events of one key come in their order, and after a crash or a handover the first ones of them may come again: a former process may
//! have started workflows that it had not noted. As soon as one of them was found not to have been started, no later one of its key was,
//! for nothing is started past it. So a key is *settled* once an event of it was looked up in vain, and until a start of it has an
//! outcome that nobody knows, or partitions are handed over again.
//!
//! Too many settled keys are forgotten: that costs look-ups and nothing else.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::time::Instant;

/// So many keys are remembered.
const MOST: usize = 100_000;

/// What this process knows of the past of keys.
#[derive(Debug)]
pub(super) struct Past {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    settled: HashSet<Vec<u8>>,
    /// How often partitions were handed over.
    handovers: u64,
    /// The last time that they were.
    since: Instant,
}

/// The delivery of one event. While it lasts, and if it is given up, its key is not settled.
#[derive(Debug)]
#[must_use]
pub(super) struct Turn {
    key: Option<Vec<u8>>,
    handovers: u64,
    /// If the event may have been delivered before: no process but this one has delivered any since then.
    pub doubtful: Option<Instant>,
}

impl Past {
    pub fn new() -> Self {
        Self { state: Mutex::new(State { settled: HashSet::new(), handovers: 0, since: Instant::now() }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Partitions were handed over.
    pub fn begin_anew(&self) {
        let mut state = self.state();
        state.settled.clear();
        state.handovers += 1;
        state.since = Instant::now();
    }

    /// The turn of an event of a key. One without a key may always have been delivered before.
    pub fn turn(&self, key: Option<&Bytes>) -> Turn {
        let mut state = self.state();
        // Its bytes are a part of all that was read with it, which must not stay.
        let key = key.filter(|key| !key.is_empty()).map(|key| key.to_vec());
        let is_settled = key.as_ref().is_some_and(|key| state.settled.remove(key));
        Turn { key, handovers: state.handovers, doubtful: (!is_settled).then_some(state.since) }
    }

    /// The event of a turn was not delivered before, and what became of it now is known.
    pub fn settle(&self, turn: Turn) {
        let mut state = self.state();
        let Some(key) = turn.key.filter(|_| turn.handovers == state.handovers) else { return };
        if state.settled.len() >= MOST {
            state.settled.clear();
        }
        state.settled.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_in_doubt_until_it_is_settled_and_after_every_handover() {
        let past = Past::new();
        let (one, other) = (Bytes::from_static(b"1"), Bytes::from_static(b"2"));
        let turn = past.turn(Some(&one));
        assert!(turn.doubtful.is_some());
        // It was found: the next one may have been delivered too.
        let turn = past.turn(Some(&one));
        assert!(turn.doubtful.is_some());
        past.settle(turn);
        assert!(past.turn(Some(&other)).doubtful.is_some());
        let turn = past.turn(Some(&one));
        assert!(turn.doubtful.is_none());
        // Its outcome is not known.
        drop(turn);
        let turn = past.turn(Some(&one));
        assert!(turn.doubtful.is_some());
        // What began before a handover says nothing of the time after it.
        past.begin_anew();
        past.settle(turn);
        assert!(past.turn(Some(&one)).doubtful.is_some());
    }

    #[test]
    fn events_without_a_key_are_always_in_doubt() {
        let past = Past::new();
        for key in [None, Some(&Bytes::new())] {
            past.settle(past.turn(key));
            assert!(past.turn(key).doubtful.is_some());
        }
    }
}
