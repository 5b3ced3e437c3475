//! How many keys one request asks for, learnt from what a service took, and from what was too much or took too long.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Requests of as many keys as may be that must go well before there are more.
const PATIENCE: u32 = 8;

/// The most keys of one request, below what the plan allows.
#[derive(Debug, Default)]
pub(crate) struct Ceiling(Mutex<State>);

#[derive(Debug)]
struct State {
    limit: usize,
    went_well: u32,
}

impl Default for State {
    fn default() -> Self {
        Self { limit: usize::MAX, went_well: 0 }
    }
}

impl Ceiling {
    /// So many keys at most.
    pub(crate) fn limit(&self) -> usize {
        self.state().limit
    }

    /// A request of so many was too much: half of them are tried next.
    pub(crate) fn refused(&self, keys: usize) {
        let mut state = self.state();
        state.limit = state.limit.min((keys / 2).max(1));
        state.went_well = 0;
    }

    /// A request of so many went well. After some of them twice as many are tried.
    pub(crate) fn answered(&self, keys: usize) {
        let mut state = self.state();
        if keys >= state.limit {
            state.went_well += 1;
            if state.went_well >= PATIENCE {
                state.limit = state.limit.saturating_mul(2);
                state.went_well = 0;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_down_at_once_and_rises_with_patience() {
        let ceiling = Ceiling::default();
        ceiling.answered(100);
        assert_eq!(ceiling.limit(), usize::MAX);
        ceiling.refused(100);
        ceiling.refused(100);
        assert_eq!(ceiling.limit(), 50);
        for _ in 0..PATIENCE - 1 {
            ceiling.answered(50);
            ceiling.answered(49);
        }
        assert_eq!(ceiling.limit(), 50);
        ceiling.refused(50);
        for _ in 0..PATIENCE {
            assert_eq!(ceiling.limit(), 25);
            ceiling.answered(25);
        }
        assert_eq!(ceiling.limit(), 50);
        ceiling.refused(1);
        assert_eq!(ceiling.limit(), 1);
    }
}
