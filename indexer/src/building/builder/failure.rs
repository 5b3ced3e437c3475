//! What becomes of documents that were not built: they are tried again, wait, or are set aside.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::{debug, info, warn};
use tributary_event::ErrorClass;
use tributary_processor::{Backoff, StageError};

use super::Builder;
use crate::building::batch::{BatchFailure, Part};
use crate::building::schedule::Job;
use crate::building::visibility::Request;
use crate::letters::Failure;
use crate::letters::replay::tell;
use crate::report::Outcome;

impl Builder {
    /// A batch failed as a whole: wait and build all of it again, or stop. Nothing becomes a dead letter.
    pub(super) fn outage(
        &mut self,
        jobs: Vec<(Arc<str>, Job<Request>)>,
        failure: BatchFailure,
    ) -> Result<(), StageError> {
        let health = match failure.part {
            Part::Graph => &self.context.graph_health,
            Part::Store => &self.context.store_health,
        };
        let news = health.down(failure.reason.clone());
        if failure.class != ErrorClass::Transient {
            return Err(StageError::new(format!("index {}", self.context.plan.name), failure.reason));
        }
        if news {
            let outage_s = health.outage().as_secs();
            warn!(index = self.context.plan.name, error = failure.reason, outage_s, "cannot build; trying again");
        }
        if failure.slow {
            self.batch = (self.batch.min(jobs.len()) / 2).max(1);
        }
        let again = Instant::now() + self.outage.pause();
        self.resume = self.resume.max(again);
        for (id, mut job) in jobs {
            // What the store was asked to write, it may write yet.
            job.in_doubt |= failure.part == Part::Store;
            self.schedule.finish(&id, Some((job, again)));
        }
        Ok(())
    }

    /// It failed as several others did: it waits for the end of that, however often it is tried.
    pub(super) fn wait(&mut self, id: &Arc<str>, job: Job<Request>, reason: String) {
        let pause = self.context.plan.retry.max;
        let until = Instant::now() + pause;
        self.context.graph_health.note(Some(format!("documents wait: {reason}")));
        self.waits_noted = Some(until + pause);
        self.schedule.finish(id, Some((job, until)));
    }

    /// Takes the note back when no document waited for a while.
    pub(super) fn look_at_note(&mut self) {
        if self.waits_noted.is_some_and(|until| until < Instant::now()) {
            self.waits_noted = None;
            self.context.graph_health.note(None);
        }
    }

    /// It would be deleted, and deletes wait.
    pub(super) async fn hold(&mut self, id: Arc<str>, job: Job<Request>, why: String) -> Result<(), StageError> {
        let reason = format!("the graph does not know its root any more, and deletes wait: {why}");
        self.set_aside(id, job, ErrorClass::Transient, reason, true).await?;
        tell(&self.context);
        Ok(())
    }

    /// It failed by itself.
    pub(super) async fn failed(
        &mut self,
        id: Arc<str>,
        mut job: Job<Request>,
        class: ErrorClass,
        reason: String,
    ) -> Result<(), StageError> {
        let context = &self.context;
        let retry = &context.plan.retry;
        job.attempts += 1;
        if class == ErrorClass::Fatal {
            context.graph_health.down(reason.clone());
            return Err(StageError::new(format!("index {}", context.plan.name), reason));
        }
        if class == ErrorClass::Transient && job.attempts < retry.attempts {
            let pause = Backoff::nth(retry.initial, retry.max, job.attempts - 1);
            debug!(
                index = context.plan.name,
                document = &*id,
                attempts = job.attempts,
                ?pause,
                reason,
                "a build failed; trying again"
            );
            self.schedule.finish(&id, Some((job, Instant::now() + pause)));
            return Ok(());
        }
        self.set_aside(id, job, class, reason, false).await
    }

    /// Gives a build up: a letter says why. `held`: it would have been deleted.
    async fn set_aside(
        &mut self,
        id: Arc<str>,
        job: Job<Request>,
        class: ErrorClass,
        reason: String,
        held: bool,
    ) -> Result<(), StageError> {
        let context = &self.context;
        self.schedule.finish(&id, None);
        let Some(first) = job.requests.first() else { return Ok(()) };
        let (partition, offset) = (first.ticket.place().partition, first.ticket.offset());
        let (cause, attempts) = (first.cause.clone(), job.attempts.max(1));
        if !held {
            info!(index = context.plan.name, document = &*id, attempts, reason, "set aside as a dead letter");
        }
        let mut tickets = Vec::new();
        for request in job.requests {
            if !request.reported {
                context.reports.finished(&request.cause, Outcome::DeadLetter);
            }
            tickets.push(request.ticket);
        }
        let failure = Failure { cause, partition, offset, class, reason, attempts };
        match held {
            true => self.letters.hold(&id, failure, tickets).await,
            false => self.letters.set_aside(&id, failure, tickets).await,
        }
    }
}
