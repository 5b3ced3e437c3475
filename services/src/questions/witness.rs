//! Whether a service answers at all: it is asked, alone, for a key that it knew. Tells a key that it fails for from an outage.
//!
//! A failure of a whole request is no fact about a key. It becomes one only when the same request for another key went well after it; an
//! outage fails for that one as well, and is waited for.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

/// So many keys are remembered, for one of them may be what the service fails for now.
const REMEMBERED: usize = 3;
/// So many keys of a request that failed are asked for alone, where none is remembered.
const TRIED: usize = 4;

/// What is known of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It answers for other keys.
    Works,
    /// It does not.
    Fails,
    /// There is no other key that it ever answered for.
    Unknown,
}

/// Keys that a service knew, and when it last answered well.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    known: Mutex<Known>,
    /// One asks at a time. Whoever waited looks at what the other one learnt.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    keys: VecDeque<Bytes>,
    /// When the last request began that went well.
    well: Option<Instant>,
    /// When the last question of this room began to which there was no good answer.
    badly: Option<Instant>,
}

impl Witness {
    /// The service knew a key, in an answer to a request that began then.
    pub(crate) fn saw(&self, key: &Bytes, begun: Instant) {
        let mut known = self.known();
        known.well = known.well.max(Some(begun));
        if !known.keys.contains(key) {
            known.keys.truncate(REMEMBERED - 1);
            known.keys.push_front(key.clone());
        }
    }

    /// Whether the service ever knew a key.
    pub(crate) fn knows_any(&self) -> bool {
        !self.known().keys.is_empty()
    }

    /// Whether the service answers, after a request for `keys` failed that began at `began`. `ask` asks for one key, and says whether that went well.
    pub(crate) async fn verdict<F: Future<Output = bool>>(
        &self,
        keys: &[Bytes],
        began: Instant,
        ask: impl Fn(Bytes) -> F,
    ) -> Verdict {
        if let Some(verdict) = self.known().after(began) {
            return verdict;
        }
        let _turn = self.asking.lock().await;
        if let Some(verdict) = self.known().after(began) {
            return verdict;
        }
        let others: Vec<Bytes> = self.known().keys.iter().filter(|key| !keys.contains(key)).cloned().collect();
        let candidates = if others.is_empty() { some_of(keys) } else { others };
        if candidates.is_empty() {
            return Verdict::Unknown;
        }
        let begun = Instant::now();
        let mut asked: FuturesUnordered<_> = candidates.into_iter().map(ask).collect();
        while let Some(went_well) = asked.next().await {
            if went_well {
                let mut known = self.known();
                known.well = known.well.max(Some(begun));
                return Verdict::Works;
            }
        }
        let mut known = self.known();
        known.badly = known.badly.max(Some(begun));
        Verdict::Fails
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// What was learnt since a moment.
    fn after(&self, moment: Instant) -> Option<Verdict> {
        let later = |at: Option<Instant>| at.filter(|at| *at >= moment);
        match (later(self.well), later(self.badly)) {
            (Some(well), Some(badly)) if badly > well => Some(Verdict::Fails),
            (Some(_), _) => Some(Verdict::Works),
            (None, Some(_)) => Some(Verdict::Fails),
            (None, None) => None,
        }
    }
}

/// Some keys of a request, others each time. None of one that was about a single key.
fn some_of(keys: &[Bytes]) -> Vec<Bytes> {
    if keys.len() < 2 { Vec::new() } else { fastrand::choose_multiple(keys, TRIED).into_iter().cloned().collect() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    fn key(n: usize) -> Bytes {
        n.to_string().into()
    }

    #[test]
    fn some_keys_are_different_ones() {
        let keys: Vec<Bytes> = (0..100).map(key).collect();
        let some: std::collections::HashSet<Bytes> = some_of(&keys).into_iter().collect();
        assert_eq!(some.len(), TRIED);
        assert_eq!((some_of(&keys[..2]).len(), some_of(&keys[..1]).len()), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_known_is_asked_for_once_by_all_who_wonder() {
        let witness = Witness::default();
        let asked = AtomicUsize::new(0);
        let ask = |of: Bytes| {
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                of == key(1)
            }
        };
        let now = Instant::now;
        assert_eq!(witness.verdict(&[key(2)], now(), ask).await, Verdict::Unknown);
        assert_eq!(witness.verdict(&[key(2), key(3)], now(), ask).await, Verdict::Fails);
        assert_eq!(asked.swap(0, Ordering::SeqCst), 2);
        witness.saw(&key(1), now());
        tokio::time::advance(Duration::from_secs(1)).await;
        let failed = now();
        let (both, alone) = ([key(2), key(3)], [key(4)]);
        let verdicts = futures::join!(witness.verdict(&both, failed, ask), witness.verdict(&alone, failed, ask));
        assert_eq!((verdicts, asked.load(Ordering::SeqCst)), ((Verdict::Works, Verdict::Works), 1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(witness.verdict(&[key(1)], now(), ask).await, Verdict::Unknown, "a key is no witness of itself");
    }
}
