//! One batch of builds: stamp → fetch → assemble → compare → write. Says what became of each document and decides nothing
//! about retries.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tributary_event::ErrorClass;

use crate::building::absence::{gone, is_old_enough};
use crate::context::IndexContext;
use crate::documents::document::assemble;
use crate::graph::{Fetched, GraphError};
use crate::store::{DocumentWrite, Verdict, WriteAction};

/// A graph that does not answer a probe within this time hangs.
const PROBE: Duration = Duration::from_secs(5);

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Built {
    /// Written.
    Written(Vec<String>),
    /// The store holds this content already.
    Unchanged(Vec<String>),
    /// Deleted.
    Deleted,
    /// The graph does not know the root since this moment; it is to be asked again.
    Missing(Instant),
    /// The graph does not know the root, and the document is not deleted all the same.
    Held(String),
    /// The graph failed for it as for several others: it waits for the end of that.
    Waits(String),
    /// The store holds a newer stamp: the clock was advanced, build again.
    Superseded,
    /// The store is busy.
    Busy {
        /// The least pause.
        after: Duration,
        /// Why.
        reason: String,
    },
    /// It failed by itself; others of the batch did not.
    Failed {
        /// Whether it may pass.
        class: ErrorClass,
        /// Why.
        reason: String,
    },
}

/// The parts that a build talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The graph.
    Graph,
    /// The document store.
    Store,
}

/// The batch failed as a whole: nothing is known about any of its documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchFailure {
    /// Who failed.
    pub part: Part,
    /// What may be done about it.
    pub class: ErrorClass,
    /// Why.
    pub reason: String,
    /// Whether fewer documents at a time may be quick enough.
    pub slow: bool,
}

/// A document to build.
#[derive(Debug, Clone)]
pub struct ToBuild {
    /// Its id.
    pub id: Arc<str>,
    /// Since when fetches say that its root is not there.
    pub missing_since: Option<Instant>,
    /// Whether a person said that it may be deleted.
    pub may_be_deleted: bool,
    /// Whether a write of it may be under way of which nobody knows the end: it is written even if its content is stored already,
    /// for the newer stamp keeps the other write away.
    pub in_doubt: bool,
}

/// What a batch gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its stamp, from before its fetch.
    pub stamp: u64,
    /// When it began.
    pub began: Instant,
    /// One outcome a document, in order.
    pub built: Vec<Built>,
    /// Whether its writes took so long that a change may have looked for its documents in vain before they were there.
    pub late: bool,
}

/// A batch, or why there is none.
pub type BatchResult = Result<Batch, BatchFailure>;

/// Builds a batch.
pub async fn build(context: &IndexContext, batch: &[ToBuild]) -> BatchResult {
    let began = Instant::now();
    let stamp = context.clock.now();
    let ids: Vec<String> = batch.iter().map(|b| b.id.to_string()).collect();
    let deadline = context.plan.build.deadline;
    let away =
        |error: GraphError| BatchFailure { part: Part::Graph, class: error.class, reason: error.message, slow: false };
    let fetch = async {
        // Another plan that has taken our place lists later than this stamp.
        context.listings.hold().await;
        context.graph.fetch(&context.plan, &ids).await
    };
    let Ok(fetched) = tokio::time::timeout(deadline, fetch).await else {
        // A document may take long; a graph that answers nothing says nothing about any.
        probe(context, deadline.max(PROBE)).await.map_err(away)?;
        return Err(too_slow(deadline));
    };
    let fetched = fetched.map_err(away)?;
    context.graph_health.up();
    let prepared = batch.iter().zip(fetched).map(|(b, f)| prepare(context, b, f)).collect();
    let mut steps = compare(context, batch, &ids, prepared).await?;
    if began.elapsed() > deadline {
        return Err(too_slow(deadline));
    }
    let is_late = || began.elapsed() > deadline * 2;
    write(context, &ids, &mut steps, stamp).await?;
    let mut late = is_late();
    if delete(context, batch, &mut steps, began + deadline / 2).await {
        write(context, &ids, &mut steps, stamp).await?;
        late |= is_late();
    }
    let built = steps.into_iter().map(|step| match step {
        Step::Over(built) => built,
        // Every write has its verdict, and every absence.
        Step::Write(_) | Step::Absent(_) => Built::Superseded,
    });
    Ok(Batch { stamp, began, built: built.collect(), late })
}

async fn probe(context: &IndexContext, patience: Duration) -> Result<(), GraphError> {
    let hangs = || {
        let message = format!("the graph answers neither a query nor a probe within {patience:?}");
        GraphError::new(ErrorClass::Transient, message)
    };
    tokio::time::timeout(patience, context.graph.probe()).await.map_err(|_| hangs())?
}

fn too_slow(deadline: Duration) -> BatchFailure {
    BatchFailure {
        part: Part::Graph,
        class: ErrorClass::Transient,
        reason: format!(
            "the build took longer than its deadline of {deadline:?} and was abandoned (raise build.deadline, or lower build.batch)"
        ),
        slow: true,
    }
}

enum Step {
    Write(WriteAction),
    /// The index has the document, and the graph does not know its root since this moment.
    Absent(Instant),
    Over(Built),
}

fn prepare(context: &IndexContext, asked: &ToBuild, fetched: Fetched) -> Step {
    match fetched {
        Fetched::Found(json) => match assemble(&context.plan, &json) {
            Ok(document) => Step::Write(WriteAction::Put(Arc::new(document))),
            Err(error) => Step::Over(Built::Failed { class: ErrorClass::Definite, reason: error.to_string() }),
        },
        Fetched::Missing => Step::Absent(asked.missing_since.unwrap_or_else(Instant::now)),
        Fetched::Failed(error) => Step::Over(Built::Failed { class: error.class, reason: error.message }),
        Fetched::Waits(error) => Step::Over(Built::Waits(error.message)),
    }
}

/// Turns writes of content that the store holds already into verdicts. What is missing and was never in the index is no loss; what is
/// in it is to be asked for once more.
async fn compare(
    context: &IndexContext,
    batch: &[ToBuild],
    ids: &[String],
    mut steps: Vec<Step>,
) -> Result<Vec<Step>, BatchFailure> {
    let places: Vec<usize> = (0..steps.len()).filter(|at| !matches!(steps[*at], Step::Over(_))).collect();
    if places.is_empty() {
        return Ok(steps);
    }
    let asked: Vec<String> = places.iter().map(|at| ids[*at].clone()).collect();
    let heads = context.store.heads(&asked).await.map_err(|e| store_failure(e.class, e.message))?;
    heads.iter().flatten().for_each(|head| context.found_stamp(head.stamp));
    let (now, mut missing) = (Instant::now(), 0);
    for (at, head) in places.into_iter().zip(heads) {
        steps[at] = match (&steps[at], head) {
            (Step::Write(WriteAction::Put(document)), Some(head))
                if head.hash == document.hash && !batch[at].in_doubt =>
            {
                Step::Over(Built::Unchanged(document.refs.clone()))
            }
            (Step::Absent(since), head) if !is_old_enough(*since, now, context.times.lag) => {
                missing += u64::from(head.is_some() && batch[at].missing_since.is_none());
                Step::Over(Built::Missing(*since))
            }
            (Step::Absent(_), None) => Step::Write(WriteAction::Delete),
            _ => continue,
        };
    }
    if missing > 0 {
        if context.brake.wants_count(now)
            && let Ok(documents) = context.store.count().await
        {
            context.brake.count(documents, now);
        }
        context.brake.missing(missing, now);
    }
    Ok(steps)
}

/// Decides about documents that are to be deleted; whether any is.
async fn delete(context: &IndexContext, batch: &[ToBuild], steps: &mut [Step], until: Instant) -> bool {
    let absent = |step: &Step| if let Step::Absent(since) = step { Some(*since) } else { None };
    let absent: Vec<(usize, Instant)> =
        steps.iter().map(absent).enumerate().filter_map(|(at, s)| Some((at, s?))).collect();
    let stopped = context.brake.stops(Instant::now());
    let (held, asked): (Vec<_>, Vec<_>) =
        absent.into_iter().partition(|(at, _)| stopped.is_some() && !batch[*at].may_be_deleted);
    for (at, _) in held {
        steps[at] = Step::Over(Built::Held(stopped.clone().unwrap_or_default()));
    }
    let mut any = false;
    for allowed in [false, true] {
        let asked = asked.iter().filter(|(at, _)| batch[*at].may_be_deleted == allowed);
        let (places, ids): (Vec<_>, Vec<_>) =
            asked.map(|(at, since)| ((*at, *since), batch[*at].id.to_string())).unzip();
        let gone = gone(context.graph.as_ref(), &context.plan, &ids, allowed, until).await;
        for ((at, since), gone) in places.into_iter().zip(gone) {
            any |= gone == Some(true);
            steps[at] = match gone {
                Some(true) => Step::Write(WriteAction::Delete),
                // It is there after all, and is built with its content.
                Some(false) => Step::Over(Built::Missing(Instant::now())),
                None => Step::Over(Built::Missing(since)),
            };
        }
    }
    any
}

/// Carries the writes out, and puts their verdicts in their places.
async fn write(context: &IndexContext, ids: &[String], steps: &mut [Step], stamp: u64) -> Result<(), BatchFailure> {
    let action =
        |(at, step): (usize, &Step)| if let Step::Write(action) = step { Some((at, action.clone())) } else { None };
    let actions: Vec<(usize, WriteAction)> = steps.iter().enumerate().filter_map(action).collect();
    if actions.is_empty() {
        return Ok(());
    }
    let write =
        |(at, action): &(usize, WriteAction)| DocumentWrite { id: ids[*at].clone(), stamp, action: action.clone() };
    let writes: Vec<DocumentWrite> = actions.iter().map(write).collect();
    let verdicts = context.store.write(&writes).await.map_err(|e| store_failure(e.class, e.message))?;
    if verdicts.len() != writes.len() {
        let reason = format!("the store answered {} verdicts for {} writes", verdicts.len(), writes.len());
        return Err(store_failure(ErrorClass::Transient, reason));
    }
    context.store_health.up();
    for ((at, action), verdict) in actions.into_iter().zip(verdicts) {
        steps[at] = Step::Over(judge(context, action, verdict));
    }
    Ok(())
}

fn judge(context: &IndexContext, action: WriteAction, verdict: Verdict) -> Built {
    match (verdict, action) {
        (Verdict::Written, WriteAction::Put(document)) => Built::Written(document.refs.clone()),
        (Verdict::Written, WriteAction::Delete) => Built::Deleted,
        (Verdict::Superseded { stored }, _) => {
            context.clock.observe(stored);
            Built::Superseded
        }
        (Verdict::Retry { after, reason }, _) => Built::Busy { after, reason },
        (Verdict::Rejected { reason }, _) => Built::Failed { class: ErrorClass::Definite, reason },
    }
}

fn store_failure(class: ErrorClass, reason: String) -> BatchFailure {
    BatchFailure { part: Part::Store, class, reason, slow: false }
}
