//! The graph as a pipeline takes it that runs: an outage of it is waited for, and no document pays for it.
//!
//! While a graph is deployed it is away, and what stands before it answers 404, 403 or a redirect; an old version rejects
//! queries that the new one takes, a new one the credentials that will be there in a moment. A wrong setting looks the same.
//! So a refusal is an outage: it is told with its remedy, and waited for.
//!
//! An outage can also hide in the answers about single documents. A graph whose database is away answers an error for each, and one
//! that was deployed with another role answers that it has none of them. A document is to blame only if the graph serves others.
//! So where nobody was served in a call, some that were served before are asked for once more, and their answers decide: what was
//! said of the documents of the call is about them, or the graph is away. Where some are served, and others fail for one cause that
//! several share, those wait (see `outage`); and where few fail, some that were served before the cause was first heard of are asked for as
//! well (see `hearing`). Who was deleted meanwhile is asked for no more, and each time others are asked, so
//! that the graph is not blamed for what became of a few. And that no vertex of a type has parents any more is believed of a graph
//! which serves documents as before: the type's table may have been emptied, of which another process, or nobody yet, has read.
//!
//! Where nobody else was served yet, documents that fail wait: others join them in their next batch. Vertices whose parents are
//! asked for do not, as nothing joins them and they would hold up those behind them; only a refusal is taken for an outage then.

mod hearing;
mod outage;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value as Json;
use tokio::time::Instant;
use tributary_dsl::plan::{FanOutPlan, IndexPlan, Paging, Question};
use tributary_event::ErrorClass;

use self::hearing::{Hearings, Known};
use self::outage::{Outages, kind};
pub use self::witness::WITNESSES;
use self::witness::{Kind, Whom, Witnesses, Word, Words};
use super::{Fetched, Graph, GraphError, IdPage, Identified, Vertex};

/// What refusals mean: answers that reject the query, or us, or that are no GraphQL server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    /// An outage: they are waited for.
    Wait,
    /// A mistake: they end the pipeline.
    End,
}

/// A graph whose errors are `Transient` for whole calls, and never `Fatal` for single documents. Only refusals of whole calls
/// are `Fatal`, and only where they are to end the pipeline.
pub struct PatientGraph<G> {
    graph: G,
    refusals: Refusals,
    witnesses: Mutex<Witnesses>,
    outages: Mutex<Outages>,
    hearings: Mutex<Hearings>,
    /// The indexes whose documents it was asked for, by name.
    indexes: Mutex<BTreeMap<String, Arc<IndexPlan>>>,
}

/// Causes of one call that others are asked for.
const CAUSES: usize = 4;
/// The longest that a graph is not believed which says that it has nothing of what it served before. It may be true.
const DISBELIEF: Duration = Duration::from_secs(300);

/// For a document that failed alone.
fn alone(error: GraphError) -> GraphError {
    if error.class == ErrorClass::Fatal { GraphError { class: ErrorClass::Transient, ..error } } else { error }
}

/// What the answers of a call mean.
enum Judgement {
    /// They are about those who were asked for.
    Taken,
    /// Nobody was served. Whether that is an outage is for these to say, who were served before.
    Asks { witnesses: Vec<String>, failure: Option<GraphError> },
    /// They are an outage's.
    Outage(GraphError),
}

impl<G: Graph> PatientGraph<G> {
    /// Takes a graph.
    pub fn new(graph: G, refusals: Refusals) -> Self {
        let (witnesses, outages, hearings, indexes) = Default::default();
        Self { graph, refusals, witnesses, outages, hearings, indexes }
    }

    fn outage(&self, error: GraphError) -> GraphError {
        match (self.refusals, error.class) {
            (Refusals::End, ErrorClass::Fatal) => error,
            _ => GraphError { class: ErrorClass::Transient, ..error },
        }
    }

    fn witnesses(&self) -> MutexGuard<'_, Witnesses> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a document is to wait as others do.
    fn shares(&self, id: &str, error: &GraphError) -> bool {
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        error.class != ErrorClass::Definite && outages.note(&error.message, id, Instant::now())
    }

    fn hearings(&self) -> MutexGuard<'_, Hearings> {
        self.hearings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It is asked for documents of an index.
    fn shows(&self, index: &IndexPlan) {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if !indexes.contains_key(&index.name) {
            indexes.insert(index.name.clone(), Arc::new(index.clone()));
        }
    }

    /// Whether it has any documents that it served before.
    async fn serves_documents(&self) -> bool {
        let indexes: Vec<Arc<IndexPlan>> = {
            let indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
            indexes.values().cloned().collect()
        };
        for index in indexes {
            let known = self.witnesses().others(&Whom::documents(&index), &[], false);
            let is_found = |fetched: &Fetched| matches!(fetched, Fetched::Found(_));
            if !known.is_empty()
                && self.graph.fetch(&index, &known).await.is_ok_and(|fetched| fetched.iter().any(is_found))
            {
                return true;
            }
        }
        false
    }

    /// Which of those who failed are to wait, for a cause that is not their own. `ask`: asks for others, and says who failed of them.
    async fn waiting<F>(
        &self,
        whom: &Whom,
        failed: Vec<(&String, &GraphError)>,
        ask: impl Fn(Vec<String>) -> F,
    ) -> BTreeSet<String>
    where
        F: Future<Output = Vec<(String, Option<GraphError>)>>,
    {
        let mut waiting = BTreeSet::new();
        let mut by_cause: BTreeMap<u64, Vec<&String>> = BTreeMap::new();
        for (id, error) in failed.iter().filter(|(_, error)| error.class != ErrorClass::Definite) {
            if self.shares(id, error) {
                waiting.insert((*id).clone());
            } else {
                by_cause.entry(kind(&error.message)).or_default().push(id);
            }
        }
        let touched: Vec<&String> = failed.iter().map(|(id, _)| *id).collect();
        for (cause, ids) in by_cause.into_iter().take(CAUSES) {
            let served = || self.witnesses().served(whom);
            let known = self.hearings().open((whom, cause), &touched, served, Instant::now());
            let shared = match known {
                Known::Shared => true,
                Known::Own => false,
                Known::Ask(witnesses) => {
                    let said = ask(witnesses.clone()).await;
                    let fails = |error: &Option<GraphError>| error.as_ref().is_some_and(|e| kind(&e.message) == cause);
                    let failed: Vec<&String> = said.iter().filter(|(_, e)| fails(e)).map(|(id, _)| id).collect();
                    self.hearings().answered((whom, cause), &witnesses, &failed, Instant::now())
                }
            };
            waiting.extend(ids.into_iter().filter(|_| shared).cloned());
        }
        waiting
    }

    /// Asks for documents that were served before, and says who failed.
    async fn failing_documents(&self, index: &IndexPlan, ids: Vec<String>) -> Vec<(String, Option<GraphError>)> {
        let fetched = self.graph.fetch(index, &ids).await;
        let failure = |fetched: Fetched| match fetched {
            Fetched::Failed(error) | Fetched::Waits(error) => Some(error),
            Fetched::Found(_) | Fetched::Missing => None,
        };
        match fetched {
            Ok(fetched) => ids.into_iter().zip(fetched.into_iter().map(failure)).collect(),
            // Of that the next call will hear.
            Err(error) => ids.into_iter().map(|id| (id, Some(error.clone()))).collect(),
        }
    }

    async fn failing_parents(&self, plan: &FanOutPlan, ids: Vec<String>) -> Vec<(String, Option<GraphError>)> {
        match self.graph.parents(plan, &ids).await {
            Ok(parents) => ids.into_iter().zip(parents.into_iter().map(Result::err)).collect(),
            Err(error) => ids.into_iter().map(|id| (id, Some(error.clone()))).collect(),
        }
    }

    /// Takes in the answers of a call.
    fn judge(&self, whom: &Whom, ids: &[String], words: &[Word<'_>]) -> Judgement {
        let mut known = self.witnesses();
        known.learn(whom, ids, words);
        let words = Words(words);
        let failure = words.failure();
        // A vertex without parents was served as well, but does not show that any vertex has some.
        let served = words.found() || whom.kind == Kind::Parents && failure.is_some() && words.nothing();
        if served || failure.is_none() && !words.nothing() {
            return Judgement::Taken;
        }
        let witnesses = known.others(whom, ids, failure.is_some());
        match failure {
            Some(failure) if witnesses.is_empty() => {
                match whom.kind == Kind::Documents || failure.class == ErrorClass::Fatal {
                    true => Judgement::Outage(failure.clone()),
                    false => Judgement::Taken,
                }
            }
            None if witnesses.is_empty() => Judgement::Taken,
            failure => Judgement::Asks { witnesses, failure: failure.cloned() },
        }
    }

    /// What those who were served before say; an error: the graph is away.
    fn hear(
        &self,
        whom: &Whom,
        (witnesses, words): (&[String], &[Word<'_>]),
        failure: Option<GraphError>,
    ) -> Result<(), GraphError> {
        let mut known = self.witnesses();
        let words = Words(words);
        let served = words.found() || whom.kind == Kind::Parents && failure.is_some() && words.nothing();
        if served {
            known.believe(whom);
            return Ok(());
        }
        if let Some(error) = words.failure() {
            return Err(failure.unwrap_or_else(|| error.clone()));
        }
        if failure.is_some() || !words.nothing() || known.disbelief(whom, Instant::now()) > DISBELIEF {
            known.forget(whom, witnesses);
            known.believe(whom);
            return Ok(());
        }
        let what = if whom.kind == Kind::Documents { "documents" } else { "parents" };
        let name = &whom.name;
        let message = format!(
            "the graph says that it has no {what} of {name}: neither those asked for nor others that it served before ({}); that is taken \
             for an outage for up to {} minutes",
            witnesses.join(", "),
            DISBELIEF.as_secs() / 60
        );
        Err(GraphError::new(ErrorClass::Transient, message))
    }

    async fn documents_are_served(
        &self,
        index: &IndexPlan,
        ids: &[String],
        fetched: &[Fetched],
    ) -> Result<(), GraphError> {
        let whom = Whom::documents(index);
        let judgement = {
            let words: Vec<Word<'_>> = fetched.iter().map(Word::of_fetched).collect();
            self.judge(&whom, ids, &words)
        };
        match judgement {
            Judgement::Taken => Ok(()),
            Judgement::Outage(failure) => Err(failure),
            Judgement::Asks { witnesses, failure } => {
                let asked = self.graph.fetch(index, &witnesses).await?;
                let words: Vec<Word<'_>> = asked.iter().map(Word::of_fetched).collect();
                self.hear(&whom, (&witnesses, &words), failure)
            }
        }
    }

    async fn parents_are_served(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
        parents: &[Result<Vec<Vertex>, GraphError>],
    ) -> Result<(), GraphError> {
        let whom = Whom::children(plan);
        let judgement = {
            let words: Vec<Word<'_>> = parents.iter().map(Word::of_parents).collect();
            self.judge(&whom, ids, &words)
        };
        match judgement {
            Judgement::Taken => Ok(()),
            Judgement::Outage(failure) => Err(failure),
            Judgement::Asks { witnesses, failure } => {
                let asked = self.graph.parents(plan, &witnesses).await?;
                let words: Vec<Word<'_>> = asked.iter().map(Word::of_parents).collect();
                let denies = failure.is_none() && Words(&words).failure().is_none();
                let heard = self.hear(&whom, (&witnesses, &words), failure);
                if heard.is_err() && denies && self.serves_documents().await {
                    let mut known = self.witnesses();
                    known.forget(&whom, &witnesses);
                    known.believe(&whom);
                    return Ok(());
                }
                heard
            }
        }
    }
}

#[async_trait]
impl<G: Graph> Graph for PatientGraph<G> {
    async fn fetch(&self, index: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError> {
        self.shows(index);
        let fetched = self.graph.fetch(index, ids).await.map_err(|e| self.outage(e))?;
        self.documents_are_served(index, ids, &fetched).await.map_err(|e| self.outage(e))?;
        let failed = |(id, fetched): (_, &'_ Fetched)| match fetched {
            Fetched::Failed(error) => Some((id, error.clone())),
            _ => None,
        };
        let failed: Vec<(&String, GraphError)> = ids.iter().zip(&fetched).filter_map(failed).collect();
        let failed = failed.iter().map(|(id, error)| (*id, error)).collect();
        let ask = |witnesses| self.failing_documents(index, witnesses);
        let waiting = self.waiting(&Whom::documents(index), failed, ask).await;
        let each = |(id, fetched): (&String, Fetched)| match fetched {
            Fetched::Failed(error) if waiting.contains(id) => Fetched::Waits(alone(error)),
            Fetched::Failed(error) => Fetched::Failed(alone(error)),
            other => other,
        };
        Ok(ids.iter().zip(fetched).map(each).collect())
    }

    async fn parents(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError> {
        let parents = self.graph.parents(plan, ids).await.map_err(|e| self.outage(e))?;
        self.parents_are_served(plan, ids, &parents).await.map_err(|e| self.outage(e))?;
        let failed: Vec<(&String, &GraphError)> =
            ids.iter().zip(&parents).filter_map(|(id, parents)| Some((id, parents.as_ref().err()?))).collect();
        let ask = |witnesses| self.failing_parents(plan, witnesses);
        let waiting = self.waiting(&Whom::children(plan), failed.clone(), ask).await;
        // Whoever asks needs all of them.
        match failed.iter().find(|(id, _)| waiting.contains(*id)) {
            Some((_, error)) => Err(alone((*error).clone())),
            None => Ok(parents.into_iter().map(|parents| parents.map_err(alone)).collect()),
        }
    }

    async fn identify(&self, question: &Question, name: &str, ids: &[String]) -> Result<Vec<Identified>, GraphError> {
        self.graph.identify(question, name, ids).await.map_err(|e| self.outage(e))
    }

    async fn root_ids(&self, paging: &Paging, after: Option<&str>, first: usize) -> Result<IdPage, GraphError> {
        self.graph.root_ids(paging, after, first).await.map_err(|e| self.outage(e))
    }

    async fn probe(&self) -> Result<(), GraphError> {
        self.graph.probe().await.map_err(|e| self.outage(e))
    }

    fn position(&self) -> Option<String> {
        self.graph.position()
    }

    async fn introspect(&self) -> Result<Json, GraphError> {
        self.graph.introspect().await.map_err(|e| self.outage(e))
    }

    fn remember(&self, index: &IndexPlan, documents: &[String]) {
        self.shows(index);
        self.witnesses().remember(&Whom::documents(index), documents);
    }

    fn deleted(&self, vertices: &BTreeSet<Vertex>, emptied: &BTreeSet<String>) {
        self.witnesses().deleted(vertices, emptied);
    }
}
