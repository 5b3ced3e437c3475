//! What a listing waits for when it begins: that the graph shows everything which the databases had then.
//!
//! Rows that changed without events, and what committed just before a source was captured, are never built again by an event. So a
//! listing fetches nothing that is older: it begins `graph.lag` later, and where the graph says how far it has come, when it has come
//! to where the log of each source stood.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_event::Lsn;
use tributary_processor::{StageError, until_answered};

use crate::context::IndexContext;
use crate::graph::{GraphError, Progress, Wait};

/// The log of a source.
#[async_trait]
pub trait SourceLog: Send + Sync {
    /// Where it ends now: a graph that has come so far shows everything that anybody can see in the database.
    ///
    /// # Errors
    /// The database does not answer.
    async fn end(&self) -> Result<Lsn, GraphError>;
}

/// A source, for the indexes that show its tables.
#[derive(Clone)]
pub struct Captured {
    /// Becomes true when no later change is missed.
    pub is: Receiver<bool>,
    /// Its log.
    pub log: Arc<dyn SourceLog>,
}

/// The sources of the tables that an index shows.
pub(crate) struct Sources {
    /// By name.
    of: HashMap<String, Captured>,
    /// The pipeline has one source, which a graph need not name.
    is_sole: bool,
}

impl Sources {
    pub(crate) fn new(of: HashMap<String, Captured>, is_sole: bool) -> Self {
        Self { of, is_sole }
    }

    /// Waits until each is captured, and until the graph shows what committed before that, if it is behind by no more than its lag.
    /// False: shutdown came first.
    pub(crate) async fn until_captured(&self, context: &IndexContext, shutdown: &CancellationToken) -> bool {
        let health = &context.listing_health;
        for (source, Captured { is, .. }) in &self.of {
            let mut captured = is.clone();
            if !*captured.borrow() {
                health.down(format!("its documents are not listed before source {source} is captured"));
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return false,
                captured = captured.wait_for(|captured| *captured) => if captured.is_err() { return false },
            }
        }
        health.up();
        tokio::select! {
            biased;
            () = shutdown.cancelled() => false,
            () = tokio::time::sleep(context.times.lag) => true,
        }
    }

    /// Waits until the graph shows what the databases have now, if it says how far it has come. False: shutdown came first.
    pub(super) async fn until_shown(
        &self,
        context: &IndexContext,
        shutdown: &CancellationToken,
    ) -> Result<bool, StageError> {
        let (health, graph) = (&context.listing_health, &context.graph);
        let failed = |e: GraphError| StageError::new(format!("index {}", context.plan.name), e.message);
        let ask = || graph.probe();
        let what = "learn how far the graph has come";
        if context.times.lag.is_zero() || self.of.is_empty() {
            return Ok(true);
        }
        if until_answered(health, what, shutdown, ask).await.map_err(failed)?.is_none() {
            return Ok(false);
        }
        let Some(said) = graph.position() else { return Ok(true) };
        let mut ends = Vec::with_capacity(self.of.len());
        for (source, Captured { log, .. }) in &self.of {
            let what = format!("learn how far source {source} is");
            let end = until_answered(health, &what, shutdown, || log.end()).await.map_err(failed)?;
            let Some(end) = end else { return Ok(false) };
            ends.push((source.as_str(), end));
        }
        let (mut wait, mut noted) = (Wait::begin(said, context.times.lag), false);
        while let Some((source, end)) = behind(wait.said(), &ends, self.is_sole) {
            if let Some(error) = wait.is_vain() {
                warn!(index = context.plan.name, error, "the graph is taken to be behind by graph.lag");
                break;
            }
            if let Some(waited_s) = wait.lasts() {
                noted = true;
                let stands = wait.said();
                health.note(Some(format!(
                    "its documents are listed when the graph shows {source} as of {end}; it stands at {stands} ({waited_s} s)"
                )));
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(wait.pause()) => {}
            }
            if until_answered(health, what, shutdown, ask).await.map_err(failed)?.is_none() {
                return Ok(false);
            }
            wait.hear(Some(graph.position().unwrap_or_default()));
        }
        if noted {
            context.listings.hear();
        }
        Ok(true)
    }
}

/// The source of which the graph does not show everything yet; none also if what it says cannot be understood.
fn behind<'a>(said: &str, ends: &[(&'a str, Lsn)], is_sole: bool) -> Option<(&'a str, Lsn)> {
    let progress = Progress::parse(said);
    let shows: Option<Vec<bool>> = ends.iter().map(|(source, end)| progress.reaches(source, *end, is_sole)).collect();
    let first = shows?.iter().position(|shows| !shows)?;
    ends.get(first).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_waits_for_the_source_that_is_furthest_behind() {
        let ends = [("movies", Lsn(0x10)), ("users", Lsn(0x20))];
        assert_eq!(behind("movies=0/10, users=0/1F", &ends, false), Some(("users", Lsn(0x20))));
        assert_eq!(behind("movies=0/10, users=0/20", &ends, false), None);
        assert_eq!(behind("movies=0/1", &ends, false), None, "of users it says nothing");
        assert_eq!(behind("0/F", &ends[..1], true), Some(("movies", Lsn(0x10))));
        assert_eq!(behind("soon", &ends[..1], true), None);
    }
}
