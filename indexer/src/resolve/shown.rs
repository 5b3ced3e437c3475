//! Waiting until the graph shows changes, where it says how far it has come.
//!
//! A graph that does not say so may be behind by up to `graph.lag`, so whatever is asked before that time is asked again after it. One
//! that says so is waited for, and then asked once: what it answers from then on shows the changes, to whichever process.

use std::sync::{MutexGuard, PoisonError};

use tracing::warn;
use tributary_processor::StageError;

use super::{Resolver, Taken};
use crate::graph::{Progress, Wait};

impl Resolver {
    /// Waits until the graph shows the changes, and does not ask it if it said so before. False: it does not say how far it has come.
    pub(super) async fn shown(&self, group: &[Taken]) -> Result<bool, StageError> {
        let Some(said) = self.graph.position().filter(|_| !self.times.lag.is_zero()) else { return Ok(false) };
        if self.distrusted().as_deref() == Some(said.as_str()) {
            return Ok(false);
        }
        let (mut wait, mut noted) = (Wait::begin(said, self.times.lag), false);
        let shown = loop {
            match self.shows_all(wait.said(), group) {
                Some(false) => {}
                shown => break shown.unwrap_or(false),
            }
            if let Some(error) = wait.is_vain() {
                warn!(error, "the graph is taken to be behind by graph.lag");
                *self.distrusted() = Some(wait.said().to_owned());
                break false;
            }
            if let Some(behind_s) = wait.lasts() {
                noted = true;
                let of = group.first().map(|taken| taken.event.source.name.to_string()).unwrap_or_default();
                let stands = wait.said();
                let note =
                    format!("changes of {of} wait until the graph shows them; it stands at {stands} ({behind_s} s)");
                self.fan_out_health.note(Some(note));
            }
            tokio::time::sleep(wait.pause()).await;
            if let Err(error) = self.graph.probe().await {
                self.graph_fails(&error)?;
                wait.hear(None);
                continue;
            }
            self.graph_is_up();
            wait.hear(Some(self.graph.position().unwrap_or_default()));
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
