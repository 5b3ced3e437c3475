//! From written to searchable: refreshes the store on a cadence, and only then calls a build finished.
//!
//! A refresh that begins after a write makes it durable and visible, so that is when requests are done, causes are reported
//! and unseen writes are forgotten. While nothing waits, nothing is refreshed; a single write after a pause is refreshed
//! at once; under load refreshes start at most every `refresh`, and every second when only bulk work waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_event::ErrorClass;
use tributary_processor::{Backoff, StageError, Ticket};

use crate::context::IndexContext;
use crate::report::Outcome;
use crate::request::{Cause, Lane};

/// One request for a build, with the ticket of its record.
#[derive(Debug)]
pub struct Request {
    /// Why it was asked for.
    pub cause: Cause,
    /// Done when the build is searchable.
    pub ticket: Ticket,
    /// An earlier owner of the request's partition may be building the document until this moment: only a build that begins after
    /// it is the last word.
    pub doubt_until: Option<Instant>,
    /// Whether a build was made and reported.
    pub reported: bool,
}

/// A build that is over but not visible yet.
pub struct Finished {
    /// The document.
    pub id: Arc<str>,
    /// References that were remembered as unseen.
    pub unseen: Vec<String>,
    /// Causes to report.
    pub causes: Vec<Cause>,
    /// Tickets that are done then.
    pub tickets: Vec<Ticket>,
    /// What became of it.
    pub outcome: Outcome,
    /// Its lane.
    pub lane: Lane,
}

/// Builds that wait for a refresh.
#[derive(Default)]
pub struct Visibility {
    waiting: Mutex<Vec<Finished>>,
    news: Notify,
}

const BULK_CADENCE: Duration = Duration::from_secs(1);

impl Visibility {
    /// Hands over a build that is over.
    pub fn push(&self, finished: Finished) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        self.news.notify_one();
    }

    /// Builds that wait.
    pub fn len(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no build waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Refreshes until shutdown or a fatal error. What is not visible then has tickets that are not done.
    pub async fn run(&self, context: &IndexContext, shutdown: CancellationToken) -> Result<(), StageError> {
        let mut last: Option<Instant> = None;
        loop {
            let live = {
                let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                (!waiting.is_empty()).then(|| waiting.iter().any(|f| f.lane == Lane::Live))
            };
            let cadence = match live {
                None => {
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return Ok(()),
                        () = self.news.notified() => continue,
                    }
                }
                Some(true) => context.plan.refresh,
                Some(false) => context.plan.refresh.max(BULK_CADENCE),
            };
            if let Some(due) = last.map(|at| at + cadence).filter(|due| *due > Instant::now()) {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => {}
                    () = tokio::time::sleep_until(due) => {}
                    // A live build does not wait for the cadence of bulk work.
                    () = self.news.notified() => continue,
                }
            }
            let batch = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            last = Some(Instant::now());
            if !refresh(context, &shutdown).await? {
                return Ok(());
            }
            for finished in batch {
                context.recent.seen(&finished.id, &finished.unseen);
                finished.causes.iter().for_each(|cause| context.reports.finished(cause, finished.outcome));
                if finished.outcome == Outcome::Deleted {
                    context.tell_of_strangers();
                }
                finished.tickets.into_iter().for_each(Ticket::done);
            }
        }
    }
}

/// Whether the store was refreshed before shutdown. (One try is made even after shutdown was asked for.)
async fn refresh(context: &IndexContext, shutdown: &CancellationToken) -> Result<bool, StageError> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        match context.store.refresh().await {
            Ok(()) => {
                context.store_health.up();
                return Ok(true);
            }
            Err(error) if error.class == ErrorClass::Transient => {
                if context.store_health.down(error.message.clone()) {
                    warn!(
                        index = context.plan.name,
                        error = error.message,
                        outage_s = context.store_health.outage().as_secs(),
                        "cannot refresh the index; trying again"
                    );
                }
            }
            Err(error) => return Err(StageError::new(format!("index {}", context.plan.name), error.message)),
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(false),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}
