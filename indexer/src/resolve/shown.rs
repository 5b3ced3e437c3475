//! Waiting until the graph shows changes, where it says how far it has come.
//!
//! A graph that does not say so may be behind by up to `graph.lag`, so whatever is asked before that time is asked again after it. One
//! that says so is waited for, and then asked once: what it answers from then on shows the changes, to whichever process.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use tributary_processor::{Backoff, StageError};

use super::{Resolver, Taken};
use crate::graph::Progress;

/// Between two questions whether the graph has come further.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A graph that has come no further for so long does not say how far it has come: its header belongs to another database, or is a
/// constant. What it shows is guessed then by `graph.lag`.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is waited for longer is said in `/health`.
const NOTEWORTHY: Duration = Duration::from_secs(2);

impl Resolver {
    /// Waits until the graph shows the changes, and does not ask it if it said so before. False: it does not say how far it has come.
    pub(super) async fn shown(&self, group: &[Taken]) -> Result<bool, StageError> {
        let Some(mut said) = self.graph.position().filter(|_| !self.times.lag.is_zero()) else { return Ok(false) };
        let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        let (begun, mut moved) = (Instant::now(), Instant::now());
        if self.distrusted().as_deref() == Some(said.as_str()) {
            return Ok(false);
        }
        let mut noted = false;
        let shown = loop {
            match self.shows_all(&said, group) {
                Some(false) => {}
                shown => break shown.unwrap_or(false),
            }
            if moved.elapsed() > PATIENCE.max(self.times.lag) {
                let error =
                    format!("X-Tributary-Position does not move: the graph has stood at {said} for {PATIENCE:?}");
                warn!(error, "the graph is taken to be behind by graph.lag");
                *self.distrusted() = Some(said);
                break false;
            }
            if begun.elapsed() > NOTEWORTHY {
                noted = true;
                let of = group.first().map(|taken| taken.event.source.name.to_string()).unwrap_or_default();
                let behind = begun.elapsed().as_secs();
                let note = format!("changes of {of} wait until the graph shows them; it stands at {said} ({behind} s)");
                self.fan_out_health.note(Some(note));
            }
            tokio::time::sleep(backoff.pause()).await;
            if let Err(error) = self.graph.probe().await {
                self.graph_fails(&error)?;
                moved = Instant::now();
                continue;
            }
            self.graph_is_up();
            let latest = self.graph.position().unwrap_or_default();
            if latest != said {
                (said, moved) = (latest, Instant::now());
            }
        };
        if noted {
            self.fan_out_health.note(None);
        }
        Ok(shown)
    }

    /// The position that is not believed any more.
    fn distrusted(&self) -> MutexGuard<'_, Option<String>> {
        self.distrusted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shows_all(&self, said: &str, group: &[Taken]) -> Option<bool> {
        let progress = Progress::parse(said);
        group.iter().try_fold(true, |all, taken| Some(progress.shows(&taken.event, self.is_sole)? && all))
    }
}
