//! The build stage of one index: reads build requests, builds each document once at a time, retries, sets aside.
//!
//! A change can reach us a moment before the database shows it to readers: PostgreSQL writes the commit record to its log
//! first and makes the transaction visible after, a replica behind the graph later still. A build that starts in that moment
//! fetches the old state. So a request is done only with a second, settling build that starts a second after the first; it
//! runs in the bulk lane, in batches, and writes nothing where nothing changed.
//!
//! One task owns the schedule; builds run beside it, bounded by the plan's concurrency. On shutdown the task waits for the
//! builds in flight; what still waits keeps tickets that are not done, and comes again at the next start.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, HybridClock};
use tributary_processor::{Backoff, Handler, StageError, Ticket};
use tributary_transport::Polled;

use crate::build::{BatchFailure, BatchResult, Built, Part, ToBuild, build, root_reference};
use crate::context::IndexContext;
use crate::report::{LISTING, Outcome};
use crate::request::{BuildRequest, Cause, Lane};
use crate::schedule::{Job, Schedule};
use crate::set_aside::{Failed, SetAside};
use crate::visibility::{Finished, Request, Visibility};

/// Documents that wait or are in flight at most before the intake of bulk requests waits. The intake of live ones waits at
/// twice as many, so that bulk work never fills the place of live work.
const MAX_DOCUMENTS: usize = 20_000;
/// Between a build and the build that settles it.
const SETTLE: Duration = Duration::from_secs(1);
/// Between the two fetches that make sure a root is gone.
const CONFIRM_AFTER: Duration = Duration::from_millis(30);

/// A request on its way to the schedule.
struct Asked {
    id: Arc<str>,
    lane: Lane,
    request: Request,
}

/// Feeds the schedule from the build topic of one lane.
pub struct BuildHandler {
    lane: Lane,
    stage: String,
    asked: mpsc::Sender<Asked>,
}

/// A batch of builds that is over: its lane, its jobs, what became of them.
type BatchOver = (Lane, Vec<(Arc<str>, Job<Request>)>, BatchResult);

/// The task that owns the schedule.
pub struct Builder {
    context: Arc<IndexContext>,
    visibility: Arc<Visibility>,
    set_aside: SetAside,
    /// Requests by lane.
    asked: [mpsc::Receiver<Asked>; 2],
    schedule: Schedule<Request>,
    building: JoinSet<BatchOver>,
    in_flight: [usize; 2],
    /// Documents of a batch: fewer after one that was too slow.
    batch: usize,
    outage: Backoff,
    /// No build starts before this: the graph or the store is away.
    resume: Instant,
}

/// The build stage of an index: the handlers of both lanes, live first, and its task.
pub fn builder(
    context: Arc<IndexContext>,
    visibility: Arc<Visibility>,
    set_aside: SetAside,
) -> ([BuildHandler; 2], Builder) {
    let stage = format!("index {}", context.plan.name);
    let ((live, live_asked), (bulk, bulk_asked)) = (mpsc::channel(1024), mpsc::channel(1024));
    let handlers = [(Lane::Live, live), (Lane::Bulk, bulk)];
    let handlers = handlers.map(|(lane, asked)| BuildHandler { lane, stage: stage.clone(), asked });
    let retry = &context.plan.retry;
    let builder = Builder {
        schedule: Schedule::new(context.plan.build.debounce),
        outage: Backoff::new(retry.initial, retry.max),
        batch: context.plan.build.batch,
        context,
        visibility,
        set_aside,
        asked: [live_asked, bulk_asked],
        building: JoinSet::new(),
        in_flight: [0, 0],
        resume: Instant::now(),
    };
    (handlers, builder)
}

#[async_trait]
impl Handler for BuildHandler {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        for (record, ticket) in records {
            let request = match BuildRequest::decode(record.value.as_deref().unwrap_or_default()) {
                Ok(request) => request,
                Err(error) => {
                    let place =
                        format!("{} partition {} offset {}", record.place.topic, record.place.partition, record.offset);
                    return Err(StageError::new(&self.stage, format!("{place} holds no build request: {error}")));
                }
            };
            let asked = Asked {
                id: request.id.into(),
                lane: self.lane,
                request: Request { cause: request.cause, ticket, settle_at: None },
            };
            let stopping = |_| StageError::new(&self.stage, "the build stage is stopping");
            self.asked.send(asked).await.map_err(stopping)?;
        }
        Ok(())
    }
}

impl Builder {
    /// Builds until shutdown or a fatal error.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StageError> {
        loop {
            self.start_builds();
            let wake = self.next_start();
            let [room_for_live, room_for_bulk] = [Lane::Live, Lane::Bulk].map(|lane| self.schedule.len() < room(lane));
            let [live, bulk] = &mut self.asked;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(result) = self.building.join_next(), if !self.building.is_empty() => self.over(result).await?,
                asked = live.recv(), if room_for_live => match asked {
                    Some(asked) => self.add(asked),
                    None => break,
                },
                asked = bulk.recv(), if room_for_bulk => match asked {
                    Some(asked) => self.add(asked),
                    None => break,
                },
                () = async { sleep_until(wake.unwrap_or_else(Instant::now)).await }, if wake.is_some() => {}
            }
        }
        while let Some(result) = self.building.join_next().await {
            self.over(result).await?;
        }
        Ok(())
    }

    fn add(&mut self, asked: Asked) {
        let now = Instant::now();
        let lane = asked.lane;
        self.schedule.add(&asked.id, lane, asked.request, now);
        // Take what else has arrived, so that a burst fills whole batches.
        while self.schedule.len() < room(lane)
            && let Ok(asked) = self.asked[lane as usize].try_recv()
        {
            self.schedule.add(&asked.id, lane, asked.request, now);
        }
    }

    fn free(&self, lane: Lane) -> bool {
        let concurrency = self.context.plan.build.concurrency;
        let all: usize = self.in_flight.iter().sum();
        match lane {
            Lane::Live => all < concurrency,
            // One place is always left for live builds, where there is more than one.
            Lane::Bulk => self.in_flight[1] < concurrency.saturating_sub(1).max(1) && all < concurrency,
        }
    }

    fn next_start(&self) -> Option<Instant> {
        let start = |lane| self.schedule.next_start(lane).filter(|_| self.free(lane));
        let next = [start(Lane::Live), start(Lane::Bulk)].into_iter().flatten().min();
        next.map(|at| at.max(self.resume))
    }

    fn start_builds(&mut self) {
        let now = Instant::now();
        if now < self.resume {
            return;
        }
        for lane in [Lane::Live, Lane::Bulk] {
            while self.free(lane) {
                let jobs = self.schedule.take(lane, self.batch, now);
                if jobs.is_empty() {
                    break;
                }
                self.in_flight[lane as usize] += 1;
                let context = self.context.clone();
                let to_build: Vec<ToBuild> =
                    jobs.iter().map(|(id, job)| ToBuild { id: id.clone(), missing_once: job.missing_once }).collect();
                self.building.spawn(async move {
                    let result = Box::pin(build(&context, &to_build)).await;
                    (lane, jobs, result)
                });
            }
        }
    }

    async fn over(&mut self, joined: Result<BatchOver, tokio::task::JoinError>) -> Result<(), StageError> {
        let stage = || format!("index {}", self.context.plan.name);
        let (lane, mut jobs, result) =
            joined.map_err(|e| StageError::new(stage(), format!("a build panicked: {e}")))?;
        self.in_flight[lane as usize] -= 1;
        match result {
            Ok((stamp, built)) => {
                self.outage.reset();
                self.batch = (self.batch + self.batch.div_ceil(4)).min(self.context.plan.build.batch);
                for ((id, job), built) in jobs.into_iter().zip(built) {
                    self.document(id, job, built, stamp).await?;
                }
                Ok(())
            }
            // One document that is too slow by itself holds nobody else up.
            Err(failure) if failure.slow && jobs.len() == 1 => match jobs.pop() {
                Some((id, job)) => self.failed(id, job, ErrorClass::Transient, failure.reason).await,
                None => Ok(()),
            },
            Err(failure) => self.outage(jobs, failure),
        }
    }

    /// A batch failed as a whole: wait and build all of it again, or stop. Nothing becomes a dead letter.
    fn outage(&mut self, jobs: Vec<(Arc<str>, Job<Request>)>, failure: BatchFailure) -> Result<(), StageError> {
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
        for (id, job) in jobs {
            self.schedule.finish(&id, Some((job, again)));
        }
        Ok(())
    }

    async fn document(
        &mut self,
        id: Arc<str>,
        mut job: Job<Request>,
        built: Built,
        stamp: u64,
    ) -> Result<(), StageError> {
        let recent = &self.context.recent;
        let now = Instant::now();
        let (refs, wrote, outcome) = match built {
            Built::Written(refs) => (refs, true, Outcome::Built),
            // What an earlier, unanswered write left may not be visible either.
            Built::Unchanged(refs) => (refs, true, Outcome::Unchanged),
            Built::Deleted => (root_reference(&self.context, &id), false, Outcome::Deleted),
            Built::MissingOnce => {
                job.missing_once = true;
                self.schedule.finish(&id, Some((job, now + CONFIRM_AFTER)));
                return Ok(());
            }
            Built::Superseded => {
                debug!(
                    index = self.context.plan.name,
                    document = &*id,
                    "the store holds a newer stamp; building again"
                );
                self.schedule.finish(&id, Some((job, now)));
                return Ok(());
            }
            Built::Busy { after, reason } => {
                if self.context.store_health.down(reason.clone()) {
                    let outage_s = self.context.store_health.outage().as_secs();
                    warn!(index = self.context.plan.name, reason, outage_s, "the document store is busy; slowing down");
                }
                let pause = after.max(self.outage.pause());
                self.resume = self.resume.max(now + pause);
                self.schedule.finish(&id, Some((job, now + pause)));
                return Ok(());
            }
            Built::Failed { class, reason } => return self.failed(id, job, class, reason).await,
        };
        job.missing_once = false;
        if self.context.reports.knew(outcome != Outcome::Deleted) {
            let index = &self.context.plan.name;
            warn!(
                index,
                document = &*id,
                "the graph knows none of the roots that were asked for so far: the ids that graph.vertices makes of rows may not be \
                 the graph's (tributary check compares them)"
            );
        }
        self.set_aside.withdraw(&id).await?;
        let stale = if wrote { recent.written(&id, &refs, stamp) } else { recent.is_stale(&refs, stamp) };
        let lane = job.lane;
        if stale {
            // The write stands, but something it embeds changed meanwhile: its requests wait for the next build.
            if wrote {
                let (causes, tickets) = (Vec::new(), Vec::new());
                self.visibility.push(Finished { id: id.clone(), unseen: refs, causes, tickets, outcome, lane });
            }
            job.attempts = 0;
            self.schedule.finish(&id, Some((job, now + self.context.plan.build.debounce)));
            return Ok(());
        }
        let started = Instant::now() - elapsed_since(stamp);
        let settled = split_settled(job.requests, started, now + SETTLE);
        let unseen = if wrote { refs } else { Vec::new() };
        let again = (!settled.waiting.is_empty()).then(|| {
            let requests = settled.waiting;
            (Job { requests, lane: Lane::Bulk, attempts: 0, missing_once: false }, now + SETTLE)
        });
        self.schedule.finish(&id, again);
        let (causes, tickets) = (settled.causes, settled.tickets);
        self.visibility.push(Finished { id, unseen, causes, tickets, outcome, lane });
        Ok(())
    }

    async fn failed(
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
        let first = job.requests.first().map(|r| (r.cause.clone(), (r.ticket.place().partition, r.ticket.offset())));
        let Some((cause, (partition, offset))) = first else {
            self.schedule.finish(&id, None);
            return Ok(());
        };
        info!(
            index = context.plan.name,
            document = &*id,
            attempts = job.attempts,
            reason,
            "set aside as a dead letter"
        );
        let mut tickets = Vec::new();
        for request in job.requests {
            if request.settle_at.is_none() {
                context.reports.finished(&request.cause, Outcome::DeadLetter);
            }
            tickets.push(request.ticket);
        }
        self.schedule.finish(&id, None);
        let failure = Failed { cause, partition, offset, class, reason, attempts: job.attempts };
        self.set_aside.add(id, failure, tickets).await
    }
}

/// Documents that the schedule may hold before the intake of a lane waits.
fn room(lane: Lane) -> usize {
    match lane {
        Lane::Live => 2 * MAX_DOCUMENTS,
        Lane::Bulk => MAX_DOCUMENTS,
    }
}

/// What a finished build means for its requests.
#[derive(Default)]
struct Settled {
    /// To report now, for the first time.
    causes: Vec<Cause>,
    /// Done with this build.
    tickets: Vec<Ticket>,
    /// To be done with a later build.
    waiting: Vec<Request>,
}

/// Sorts the requests of a build that started at `started`: those of a listing, and those whose settling was due, are done;
/// the others are reported, if they are new, and wait.
fn split_settled(requests: Vec<Request>, started: Instant, settle_at: Instant) -> Settled {
    let mut settled = Settled::default();
    for mut request in requests {
        match request.settle_at {
            Some(due) if due <= started => settled.tickets.push(request.ticket),
            Some(_) => settled.waiting.push(request),
            None if request.cause.id == LISTING => {
                settled.causes.push(request.cause);
                settled.tickets.push(request.ticket);
            }
            None => {
                settled.causes.push(request.cause.clone());
                request.settle_at = Some(settle_at);
                settled.waiting.push(request);
            }
        }
    }
    settled
}

/// The time since a stamp was taken.
fn elapsed_since(stamp: u64) -> Duration {
    Duration::from_micros(u64::try_from(now_us() - HybridClock::micros(stamp)).unwrap_or(0))
}
