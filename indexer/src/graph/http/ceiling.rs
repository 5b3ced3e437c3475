//! How many vertices one request may ask for, learnt from what the server took and what it refused.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls that must succeed at the ceiling before it rises, at first; doubled each time it has to come down again.
const PATIENCE: u32 = 8;
/// The most calls that must succeed before the ceiling rises.
const MOST_PATIENCE: u32 = 512;

/// The ceiling of one query.
#[derive(Debug)]
pub(super) struct Ceiling(Mutex<State>, AtomicUsize);

#[derive(Debug)]
struct State {
    limit: usize,
    patience: u32,
    successes: u32,
}

/// What one call learnt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Learnt {
    /// Vertices that the call was about.
    pub asked: usize,
    /// The largest request that was answered.
    pub answered: usize,
    /// Whether a request was refused as too large or took too long.
    pub refused: bool,
    /// Whether nothing is known, because there was no answer in time: the call was dropped, or the server hangs.
    pub silent: bool,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self(Mutex::new(State { limit: usize::MAX, patience: PATIENCE, successes: 0 }), AtomicUsize::new(0))
    }
}

impl Ceiling {
    /// The most vertices that one request should ask for.
    pub(super) fn limit(&self) -> usize {
        self.state().limit
    }

    /// The farthest place in one request, from 1, at which the server found what it was asked for: so far, at least, it reads a list.
    pub(super) fn reach(&self) -> usize {
        self.1.load(Ordering::Acquire)
    }

    /// Something was found at this place of a request.
    pub(super) fn reached(&self, place: usize) {
        self.1.fetch_max(place, Ordering::AcqRel);
    }

    /// Takes in what a call learnt.
    pub(super) fn learn(&self, learnt: Learnt) {
        let mut state = self.state();
        match learnt {
            Learnt { silent: true, answered: 0, asked, .. } if asked > 1 => {
                // It may be the server's load rather than the size: come down a little, and rise again as soon as before.
                state.limit = state.limit.min(asked).div_ceil(2);
                state.successes = 0;
            }
            Learnt { refused: true, silent: false, answered, .. } => {
                let fits = answered.max(1);
                if fits < state.limit {
                    state.patience = state.patience.saturating_mul(2).min(MOST_PATIENCE);
                    state.limit = fits;
                }
                state.successes = 0;
            }
            Learnt { refused: false, answered, .. } if answered >= state.limit => {
                state.successes += 1;
                if state.successes >= state.patience {
                    state.limit = state.limit.saturating_add((state.limit / 4).max(1));
                    state.successes = 0;
                }
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(asked: usize, answered: usize) -> Learnt {
        Learnt { asked, answered, refused: true, silent: false }
    }

    fn fine(asked: usize) -> Learnt {
        Learnt { asked, answered: asked, ..Learnt::default() }
    }

    #[test]
    fn it_comes_down_to_what_fits_and_rises_slowly() {
        let ceiling = Ceiling::default();
        ceiling.learn(fine(100));
        assert_eq!(ceiling.limit(), usize::MAX);
        ceiling.learn(refused(100, 25));
        assert_eq!(ceiling.limit(), 25);
        for _ in 0..2 * PATIENCE - 1 {
            ceiling.learn(fine(25));
        }
        ceiling.learn(fine(3));
        assert_eq!(ceiling.limit(), 25);
        ceiling.learn(fine(25));
        assert_eq!(ceiling.limit(), 31);
        ceiling.learn(refused(31, 0));
        assert_eq!(ceiling.limit(), 1);
    }

    #[test]
    fn silence_halves_it() {
        let ceiling = Ceiling::default();
        let silent = |asked| Learnt { asked, silent: true, ..Learnt::default() };
        ceiling.learn(silent(100));
        assert_eq!(ceiling.limit(), 50);
        ceiling.learn(silent(1));
        assert_eq!(ceiling.limit(), 50);
        ceiling.learn(silent(20));
        assert_eq!(ceiling.limit(), 10);
        for _ in 0..PATIENCE {
            ceiling.learn(fine(10));
        }
        assert_eq!(ceiling.limit(), 12);
    }
}
