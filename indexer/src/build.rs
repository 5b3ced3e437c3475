//! One batch of builds: stamp → fetch → assemble → compare → write. Says what became of each document and decides nothing
//! about retries.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tributary_event::ErrorClass;

use crate::context::{IndexContext, Rule};
use crate::document::assemble;
use crate::graph::Fetched;
use crate::store::{Document, DocumentWrite, Verdict, WriteAction};

/// What became of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Built {
    /// Written.
    Written(Vec<String>),
    /// The store holds this content already.
    Unchanged(Vec<String>),
    /// Deleted.
    Deleted,
    /// The graph does not know the root; a second fetch is to confirm it.
    MissingOnce,
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
    /// Whether an earlier fetch said that its root is not there.
    pub missing_once: bool,
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
    let fetched = tokio::time::timeout(deadline, context.graph.fetch(&context.plan, &ids))
        .await
        .map_err(|_| too_slow(deadline))?
        .map_err(|e| BatchFailure { part: Part::Graph, class: e.class, reason: e.message, slow: false })?;
    context.graph_health.up();
    let prepared = batch.iter().zip(fetched).map(|(b, f)| prepare(context, b, f)).collect();
    let prepared = drop_unchanged(context, batch, prepared).await?;
    if began.elapsed() > deadline && context.obeys(Rule::Deadline) {
        return Err(too_slow(deadline));
    }
    let built = write(context, &ids, prepared, stamp).await?;
    let late = began.elapsed() > deadline * 2 && context.obeys(Rule::Deadline);
    Ok(Batch { stamp, began, built, late })
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
    Over(Built),
}

fn prepare(context: &IndexContext, asked: &ToBuild, fetched: Fetched) -> Step {
    match fetched {
        Fetched::Found(json) => match assemble(&context.plan, &json) {
            Ok(document) => Step::Write(WriteAction::Put(Arc::new(document))),
            Err(error) => Step::Over(Built::Failed { class: ErrorClass::Definite, reason: error.to_string() }),
        },
        Fetched::Missing if asked.missing_once || !context.obeys(Rule::Confirm) => Step::Write(WriteAction::Delete),
        Fetched::Missing => Step::Over(Built::MissingOnce),
        Fetched::Failed(error) => Step::Over(Built::Failed { class: error.class, reason: error.message }),
    }
}

/// Turns writes of content that the store holds already into verdicts.
async fn drop_unchanged(
    context: &IndexContext,
    batch: &[ToBuild],
    mut steps: Vec<Step>,
) -> Result<Vec<Step>, BatchFailure> {
    let puts: Vec<(usize, Arc<Document>)> = steps
        .iter()
        .enumerate()
        .filter_map(|(i, s)| match s {
            Step::Write(WriteAction::Put(document)) if !batch[i].in_doubt => Some((i, document.clone())),
            _ => None,
        })
        .collect();
    if puts.is_empty() {
        return Ok(steps);
    }
    let put_ids: Vec<String> = puts.iter().map(|(i, _)| batch[*i].id.to_string()).collect();
    let heads = context.store.heads(&put_ids).await.map_err(|e| store_failure(e.class, e.message))?;
    for ((i, document), head) in puts.into_iter().zip(heads) {
        if head.is_some_and(|h| h.hash == document.hash) {
            steps[i] = Step::Over(Built::Unchanged(document.refs.clone()));
        }
    }
    Ok(steps)
}

async fn write(
    context: &IndexContext,
    ids: &[String],
    steps: Vec<Step>,
    stamp: u64,
) -> Result<Vec<Built>, BatchFailure> {
    let writes: Vec<DocumentWrite> = ids
        .iter()
        .zip(&steps)
        .filter_map(|(id, step)| match step {
            Step::Write(action) => Some(DocumentWrite { id: id.clone(), stamp, action: action.clone() }),
            Step::Over(_) => None,
        })
        .collect();
    let mut verdicts = if writes.is_empty() {
        Vec::new().into_iter()
    } else {
        let verdicts = context.store.write(&writes).await.map_err(|e| store_failure(e.class, e.message))?;
        if verdicts.len() != writes.len() {
            let reason = format!("the store answered {} verdicts for {} writes", verdicts.len(), writes.len());
            return Err(store_failure(ErrorClass::Transient, reason));
        }
        context.store_health.up();
        verdicts.into_iter()
    };
    let outcome = |step: Step| match step {
        Step::Over(built) => built,
        Step::Write(action) => verdicts.next().map_or(Built::Superseded, |v| judge(context, action, v)),
    };
    Ok(steps.into_iter().map(outcome).collect())
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
