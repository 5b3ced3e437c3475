//! The build stage of one index: reads build requests, builds each document once at a time, retries, sets aside.
//!
//! One process builds a document: that which owns the request's partition. When partitions move, their earlier owner may still be
//! building, from before changes that the new owner knows, and its writes arrive when they do. So requests that an earlier owner may
//! have begun with are built twice: at once, and when the earlier owner is done for sure. And whenever a write may be under way of
//! which nobody knows the end, the document is written even if its content is stored already: the newer stamp keeps the other away.
//!
//! One task owns the schedule; builds run beside it, bounded by the plan's concurrency. On shutdown the task waits for the
//! builds in flight; what still waits keeps tickets that are not done, and comes again at the next start.

mod failure;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{Backoff, Handler, StageError, Ticket};
use tributary_transport::{Assignment, Loss, Polled, TopicPartition};

use crate::building::absence::ask_after;
use crate::building::batch::{BatchResult, Built, ToBuild, build};
use crate::building::latest::Latest;
use crate::building::schedule::{Job, Schedule};
use crate::building::visibility::{Finished, Request, Visibility};
use crate::context::{IndexContext, Rule};
use crate::letters::Letters;
use crate::report::{LISTING, Outcome, RESUMED};
use crate::request::{BuildRequest, Cause, Lane, names};
use crate::resolve::lost::Concerned;

/// Documents that wait or are in flight at most before the intake of bulk requests waits. The intake of live ones waits at
/// twice as many, so that bulk work never fills the place of live work.
const MAX_DOCUMENTS: usize = 20_000;

/// A request on its way to the schedule.
struct Asked {
    id: Arc<str>,
    lane: Lane,
    stamp: u64,
    request: Request,
}

/// Feeds the schedule from the build topic of one lane.
pub struct BuildHandler {
    lane: Lane,
    stage: String,
    context: Arc<IndexContext>,
    letters: Letters,
    asked: mpsc::Sender<Asked>,
    concerned: Concerned,
    /// The partitions that are this process's.
    owned: Mutex<BTreeSet<u32>>,
}

/// A batch of builds that is over: its lane, its jobs, what became of them.
type BatchOver = (Lane, Vec<(Arc<str>, Job<Request>)>, BatchResult);

/// The task that owns the schedule.
pub struct Builder {
    context: Arc<IndexContext>,
    visibility: Arc<Visibility>,
    letters: Letters,
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
    latest: Latest,
    /// The note that documents wait stands until this.
    waits_noted: Option<Instant>,
}

/// When a build began: its stamp, and the moment.
#[derive(Clone, Copy)]
struct At {
    stamp: u64,
    began: Instant,
}

/// The build stage of an index: the handlers of both lanes, live first, and its task.
pub fn builder(
    context: Arc<IndexContext>,
    visibility: Arc<Visibility>,
    letters: Letters,
) -> ([BuildHandler; 2], Builder) {
    let stage = format!("index {}", context.plan.name);
    let ((live, live_asked), (bulk, bulk_asked)) = (mpsc::channel(1024), mpsc::channel(1024));
    let handlers = [(Lane::Live, live), (Lane::Bulk, bulk)];
    let handlers = handlers.map(|(lane, asked)| {
        let mut concerned = Concerned::default();
        concerned.add(names::builds(&context.pipeline, &context.plan.name, lane), context.listings.clone());
        let (context, letters) = (context.clone(), letters.clone());
        BuildHandler { lane, stage: stage.clone(), context, letters, asked, concerned, owned: Mutex::default() }
    });
    let retry = &context.plan.retry;
    let builder = Builder {
        schedule: Schedule::new(context.plan.build.debounce),
        outage: Backoff::new(retry.initial, retry.max),
        batch: context.plan.build.batch,
        visibility,
        letters,
        asked: [live_asked, bulk_asked],
        building: JoinSet::new(),
        in_flight: [0, 0],
        context,
        resume: Instant::now(),
        latest: Latest::default(),
        waits_noted: None,
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
                    let reason = format!("the record is no build request: {error}");
                    self.letters.undecodable(&record, reason, ticket).await?;
                    continue;
                }
            };
            self.context.agree_on_time(request.stamp).await;
            self.context.clock.observe(request.stamp);
            let BuildRequest { id, cause, stamp } = request;
            let request = Request { cause, ticket, doubt_until: None, reported: false };
            let asked = Asked { id: id.into(), lane: self.lane, stamp, request };
            let stopping = |_| StageError::new(&self.stage, "the build stage is stopping");
            self.asked.send(asked).await.map_err(stopping)?;
        }
        Ok(())
    }

    async fn assigned(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        self.letters.origins().read(assignments.iter().map(|assignment| &assignment.place)).await;
        self.owns(|owned| owned.extend(assignments.iter().map(|assignment| assignment.place.partition))).await;
        self.concerned.joined(assignments).await
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        self.owns(|owned| owned.retain(|partition| places.iter().all(|place| place.partition != *partition))).await;
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        self.letters.origins().read(losses.iter().map(|loss| &loss.place)).await;
        self.concerned.make_up(losses).await
    }
}

impl BuildHandler {
    /// The partitions that are this process's have changed: so has its share of the deletes that may be.
    async fn owns(&self, change: impl FnOnce(&mut BTreeSet<u32>)) {
        let owned = {
            let mut owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut owned);
            owned.len() as u64
        };
        if self.lane == Lane::Live {
            let topic = names::builds(&self.context.pipeline, &self.context.plan.name, self.lane);
            // Where that is not known, it may delete as much as if it were alone.
            let of = self.context.listings.board().partitions(&topic).await.unwrap_or(0);
            self.context.brake.share(owned, of.into());
        }
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
        self.take_in(asked, now);
        // Take what else has arrived, so that a burst fills whole batches.
        while self.schedule.len() < room(lane)
            && let Ok(asked) = self.asked[lane as usize].try_recv()
        {
            self.take_in(asked, now);
        }
    }

    fn take_in(&mut self, asked: Asked, now: Instant) {
        let Asked { id, lane, stamp, mut request } = asked;
        let doubtful = request.ticket.is_doubtful() && self.context.obeys(Rule::Doubt);
        if doubtful {
            // Where there is one process, the earlier owner is dead: only what it has sent may still arrive.
            let since = request.ticket.since().filter(|_| self.context.listings.is_shared());
            request.doubt_until =
                since.map(|since| since + self.context.times().longest_build()).filter(|until| *until > now);
        } else if stamp > 0 && self.latest.serves(&id, self.context.times.seen_from(stamp)) {
            // Built since: while the request waited in its topic, another one for the same document was served.
            let (causes, tickets) = (vec![request.cause], vec![request.ticket]);
            let outcome = Outcome::Unchanged;
            self.visibility.push(Finished { id, unseen: Vec::new(), causes, tickets, outcome, lane });
            return;
        }
        self.schedule.add(&id, lane, request, now);
        if doubtful {
            self.schedule.doubt(&id);
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
                let taken = self.schedule.take(lane, self.batch, now);
                if taken.is_empty() {
                    break;
                }
                let jobs = self.ours(taken);
                if jobs.is_empty() {
                    continue;
                }
                self.in_flight[lane as usize] += 1;
                let context = self.context.clone();
                let to_build: Vec<ToBuild> = jobs.iter().map(|(id, job)| self.to_build(id, job)).collect();
                self.building.spawn(async move {
                    let result = Box::pin(build(&context, &to_build)).await;
                    (lane, jobs, result)
                });
            }
        }
    }

    fn to_build(&self, id: &Arc<str>, job: &Job<Request>) -> ToBuild {
        let may_be_deleted = job.requests.iter().any(|request| request.cause.id == RESUMED);
        if may_be_deleted {
            self.context.brake.release(Instant::now());
        }
        let in_doubt = job.in_doubt && self.context.obeys(Rule::Barrier);
        ToBuild { id: id.clone(), missing_since: job.missing_since, may_be_deleted, in_doubt }
    }

    /// Drops jobs that are another process's by now, which does them itself: what both build is right too, but done twice.
    fn ours(&mut self, taken: Vec<(Arc<str>, Job<Request>)>) -> Vec<(Arc<str>, Job<Request>)> {
        let mut ours = Vec::with_capacity(taken.len());
        for (id, mut job) in taken {
            job.requests.retain(|request| request.ticket.since().is_some());
            if job.requests.is_empty() {
                self.schedule.finish(&id, None);
            } else {
                ours.push((id, job));
            }
        }
        ours
    }

    async fn over(&mut self, joined: Result<BatchOver, tokio::task::JoinError>) -> Result<(), StageError> {
        let stage = || format!("index {}", self.context.plan.name);
        let (lane, mut jobs, result) =
            joined.map_err(|e| StageError::new(stage(), format!("a build panicked: {e}")))?;
        self.in_flight[lane as usize] -= 1;
        match result {
            Ok(batch) => {
                self.outage.reset();
                self.look_at_note();
                self.batch = (self.batch + self.batch.div_ceil(4)).min(self.context.plan.build.batch);
                let at = At { stamp: batch.stamp, began: batch.began };
                let looks_again = self.context.obeys(Rule::LateWrite);
                for ((id, mut job), built) in jobs.into_iter().zip(batch.built) {
                    if batch.late && looks_again && matches!(built, Built::Written(_) | Built::Deleted) {
                        // A change may have looked for the document before it was there.
                        job.in_doubt = true;
                        self.schedule.finish(&id, Some((job, Instant::now())));
                        continue;
                    }
                    self.document(id, job, built, at).await?;
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

    async fn document(&mut self, id: Arc<str>, mut job: Job<Request>, built: Built, at: At) -> Result<(), StageError> {
        let now = Instant::now();
        let (refs, wrote, outcome) = match built {
            Built::Written(refs) => (refs, true, Outcome::Built),
            // What an earlier, unanswered write left may not be visible either.
            Built::Unchanged(refs) => (refs, true, Outcome::Unchanged),
            Built::Deleted => (Vec::new(), false, Outcome::Deleted),
            Built::Missing(since) => {
                job.missing_since = Some(since);
                self.schedule.finish(&id, Some((job, now + ask_after(since, now, self.context.times.lag))));
                return Ok(());
            }
            Built::Held(reason) => return self.hold(id, job, reason).await,
            Built::Waits(reason) => {
                self.wait(&id, job, reason);
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
        job.missing_since = None;
        if self.context.reports.knew(outcome != Outcome::Deleted) {
            let index = &self.context.plan.name;
            warn!(
                index,
                document = &*id,
                "the graph knows none of the roots that were asked for so far: the ids that graph.vertices makes of rows may not be \
                 the graph's (tributary check compares them)"
            );
        }
        self.letters.withdraw(&id).await?;
        self.context.embeds(&refs);
        if wrote && self.context.recent.written(&id, &refs, at.stamp) {
            self.ask_again(&id, &job).await?;
        }
        let (lane, deleted) = (job.lane, outcome == Outcome::Deleted);
        let Split { causes, tickets, waiting } = split(job.requests, at.began);
        let again = waiting.iter().filter_map(|request| request.doubt_until).max();
        if again.is_none() && !deleted {
            self.latest.note(&id, at.stamp);
        }
        let again = again.map(|until| {
            let job = Job { requests: waiting, lane: Lane::Bulk, attempts: 0, missing_since: None, in_doubt: true };
            (job, until)
        });
        self.schedule.finish(&id, again);
        let unseen = if wrote { refs } else { Vec::new() };
        self.visibility.push(Finished { id, unseen, causes, tickets, outcome, lane });
        Ok(())
    }

    /// Something that a document embeds changed while it was built, and the change may not have found it: asks for another build.
    async fn ask_again(&mut self, id: &Arc<str>, job: &Job<Request>) -> Result<(), StageError> {
        let Some(first) = job.requests.first() else { return Ok(()) };
        let (index, stamp) = (&self.context.plan.name, self.context.clock.now());
        let label = if first.cause.id == LISTING {
            format!("{index}: changed while it was built")
        } else {
            first.cause.label.clone()
        };
        let cause = Cause { id: format!("{id}/{stamp}"), label, commit_us: now_us(), affected: 1 };
        let request = BuildRequest { id: id.to_string(), cause, stamp };
        let topic = names::builds(&self.context.pipeline, index, Lane::Live).into();
        self.letters.outbox().post([request.into_record(&topic)]).await
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
struct Split {
    /// To report now, for the first time.
    causes: Vec<Cause>,
    /// Done with this build.
    tickets: Vec<Ticket>,
    /// To be done with a later build.
    waiting: Vec<Request>,
}

/// Sorts the requests of a build by when it began: it is the last word for those in whose time nobody else built.
fn split(requests: Vec<Request>, began: Instant) -> Split {
    let mut split = Split::default();
    for mut request in requests {
        if !std::mem::replace(&mut request.reported, true) {
            split.causes.push(request.cause.clone());
        }
        if request.doubt_until.is_some_and(|until| began < until) {
            split.waiting.push(request);
        } else {
            split.tickets.push(request.ticket);
        }
    }
    split
}
