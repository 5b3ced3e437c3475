//! Who waits until a table has passed the position of an event.
//!
//! A source appends its changes in the order of their numbers, by one producer, and those that it appends together become visible
//! together. So when somebody has read a change, everything that the source changed before it lies in its topics already, and before the
//! ends of their partitions if these are asked for from then on (see [`Transport::watermarks`](tributary_transport::Transport::watermarks):
//! what was appended before the call is in them). A table that has asked for the ends of its topic after an event was read, and has read
//! up to them, has therefore passed the event. Nothing needs to be written to the table's topic for that: the ends of an idle one are
//! where they were, and are reached at once. It holds as well for whatever other streams make of a change, which they have read before.
//!
//! Each look of a table at its topic has a number. Who waits takes the next one, wakes the table, and waits until a look of at least this
//! number, which asked for the ends after it was given out, is over.
//!
//! Changes that were read by somebody before a look began, of whatever topic of the source, are passed by it. So a look also tells up to
//! which number all are passed, and who waits for a lower one need not: a stream that catches up waits once in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// A wait ends after so long; whoever waits tries again.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who waits, and how far the table has come.
pub(super) struct Waiting {
    /// The number of the look that whoever came last waits for.
    wanted: AtomicU64,
    /// The highest number of a change that somebody waited for.
    sequence: AtomicU64,
    /// Up to this number all changes are passed.
    passed: AtomicU64,
    woken: Notify,
    looks: watch::Sender<Looks>,
}

/// Looks that are over.
#[derive(Default)]
struct Looks {
    /// The last that came to the ends.
    done: u64,
    /// The last that failed, and why.
    failed: (u64, String),
}

impl Default for Waiting {
    fn default() -> Self {
        let none = AtomicU64::default;
        let (woken, looks) = (Notify::new(), watch::Sender::new(Looks::default()));
        Self { wanted: none(), sequence: none(), passed: none(), woken, looks }
    }
}

/// A look that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    number: u64,
    sequence: u64,
}

impl Waiting {
    /// Waits until the table has passed a change that the caller has read.
    ///
    /// # Errors
    /// Why it has not.
    pub async fn has_passed(&self, sequence: Option<u64>) -> Result<(), String> {
        if sequence.is_some_and(|sequence| sequence <= self.passed.load(Ordering::SeqCst)) {
            return Ok(());
        }
        self.sequence.fetch_max(sequence.unwrap_or_default(), Ordering::SeqCst);
        let wanted = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        let mut looks = self.looks.subscribe();
        self.woken.notify_one();
        let waiting = looks.wait_for(|looks| looks.done >= wanted || looks.failed.0 >= wanted);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Ok(looks)) if looks.done >= wanted => Ok(()),
            Ok(Ok(looks)) => Err(looks.failed.1.clone()),
            Ok(Err(_)) => Err("it is no longer read".to_owned()),
            Err(_) => Err("it is still being read".to_owned()),
        }
    }

    /// A look begins; only then the ends of the topic are asked for. `sequence`: the highest number of a change that the table has read.
    pub fn begin(&self, sequence: u64) -> Look {
        let number = self.wanted.load(Ordering::SeqCst);
        Look { number, sequence: sequence.max(self.sequence.load(Ordering::SeqCst)) }
    }

    /// The table has come to the ends that a look asked for.
    pub fn done(&self, look: Look) {
        self.passed.fetch_max(look.sequence, Ordering::SeqCst);
        self.looks.send_modify(|looks| looks.done = looks.done.max(look.number));
    }

    /// It has not.
    pub fn failed(&self, look: Look, why: &str) {
        self.looks.send_modify(|looks| looks.failed = (look.number, why.to_owned()));
    }

    /// Lets the table look now.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Somebody waits.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn only_a_look_that_begins_later_counts() {
        let waiting = Waiting::default();
        let early = waiting.begin(3);
        let mut waits = Box::pin(waiting.has_passed(Some(5)));
        assert!(waits.as_mut().now_or_never().is_none());
        waiting.done(early);
        assert!(waits.as_mut().now_or_never().is_none(), "it asked for the ends before the event was read");
        let late = waiting.begin(3);
        waiting.done(late);
        assert_eq!(waits.await, Ok(()));
        // What was asked for, and what the table has read, is passed.
        assert_eq!(waiting.has_passed(Some(5)).now_or_never(), Some(Ok(())));
        assert!(waiting.has_passed(Some(6)).now_or_never().is_none());
        assert!(waiting.has_passed(None).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_look_that_fails_says_why() {
        let waiting = Waiting::default();
        let mut waits = Box::pin(waiting.has_passed(None));
        assert!(waits.as_mut().now_or_never().is_none());
        waiting.failed(waiting.begin(0), "the broker is away");
        assert_eq!(waits.await, Err("the broker is away".to_owned()));
    }
}
