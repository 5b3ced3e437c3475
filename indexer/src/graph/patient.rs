//! The graph as a pipeline takes it that runs: an outage of it is waited for, and no document pays for it.
//!
//! While a graph is deployed it is away, and what stands before it answers 404, 403 or a redirect; an old version rejects
//! queries that the new one takes, a new one the credentials that will be there in a moment. A wrong setting looks the same.
//! So a refusal is an outage: it is told with its remedy, and waited for.
//!
//! An outage can also hide in the answers about single documents: a graph whose database is away answers an error for each. A
//! document is to blame only if the graph serves others. So where nobody was served in a call, some that were served before are
//! asked for once more, and their answers decide: the documents of the call failed alone, and are tried again and set aside
//! like any that do, or the graph is away.
//!
//! Where nobody else was served yet, documents wait: others join them in their next batch. Vertices whose parents are asked for
//! do not, as nothing joins them and they would hold up those behind them; only a refusal is taken for an outage then.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value as Json;
use tributary_dsl::plan::{FanOutPlan, IndexPlan, Paging, Question};
use tributary_event::ErrorClass;

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
    /// Ids that were served last, by index and by type.
    served: [Mutex<HashMap<String, VecDeque<String>>>; 2],
}

/// Ids that are remembered.
const WITNESSES: usize = 4;

/// Documents of an index.
const FETCH: usize = 0;
/// Vertices of a type.
const PARENTS: usize = 1;

/// What the graph said of one id.
#[derive(Clone, Copy)]
enum Word<'a> {
    /// It is there: the graph serves.
    Found,
    /// Something else about this one, which says little about others.
    Other,
    /// It failed, which may be anybody's fault.
    Failed(&'a GraphError),
}

impl<'a> Word<'a> {
    fn failure(error: &'a GraphError) -> Self {
        if error.class == ErrorClass::Definite { Self::Other } else { Self::Failed(error) }
    }

    fn of_fetched(fetched: &'a Fetched) -> Self {
        match fetched {
            Fetched::Found(_) => Self::Found,
            Fetched::Missing => Self::Other,
            Fetched::Failed(error) => Self::failure(error),
        }
    }

    fn of_parents(parents: &'a Result<Vec<Vertex>, GraphError>) -> Self {
        parents.as_ref().map_or_else(Self::failure, |_| Self::Found)
    }
}

/// Whether those that were served before say that the graph is away. Nothing if there are none.
fn away<'a>(witnesses: impl Iterator<Item = Word<'a>>) -> Option<bool> {
    let words: Vec<Word<'a>> = witnesses.collect();
    let any = |is: fn(&Word<'a>) -> bool| words.iter().any(is);
    let failed = any(|word| matches!(word, Word::Failed(_))) && !any(|word| matches!(word, Word::Found));
    (!words.is_empty()).then_some(failed)
}

/// For a document that failed alone.
fn alone(error: GraphError) -> GraphError {
    if error.class == ErrorClass::Fatal { GraphError { class: ErrorClass::Transient, ..error } } else { error }
}

impl<G: Graph> PatientGraph<G> {
    /// Takes a graph.
    pub fn new(graph: G, refusals: Refusals) -> Self {
        Self { graph, refusals, served: Default::default() }
    }

    fn outage(&self, error: GraphError) -> GraphError {
        match (self.refusals, error.class) {
            (Refusals::End, ErrorClass::Fatal) => error,
            _ => GraphError { class: ErrorClass::Transient, ..error },
        }
    }

    /// Remembers one who was served. If nobody was: a failure, a refusal rather than another.
    fn failure<'a>(
        &self,
        kind: usize,
        name: &str,
        words: impl Iterator<Item = (&'a String, Word<'a>)>,
    ) -> Option<GraphError> {
        let mut failure: Option<&GraphError> = None;
        for (id, word) in words {
            match word {
                Word::Found => {
                    let mut served = self.served[kind].lock().unwrap_or_else(PoisonError::into_inner);
                    let served = served.entry(name.to_owned()).or_default();
                    served.retain(|known| known != id);
                    served.push_front(id.clone());
                    served.truncate(WITNESSES);
                    return None;
                }
                Word::Failed(error) if failure.is_none_or(|known| known.class != ErrorClass::Fatal) => {
                    failure = Some(error);
                }
                Word::Failed(_) | Word::Other => {}
            }
        }
        failure.cloned()
    }

    /// Some who were served last, other than those that were asked for now.
    fn witnesses(&self, kind: usize, name: &str, asked: &[String]) -> Vec<String> {
        let served = self.served[kind].lock().unwrap_or_else(PoisonError::into_inner);
        served.get(name).into_iter().flatten().filter(|id| !asked.contains(id)).cloned().collect()
    }
}

#[async_trait]
impl<G: Graph> Graph for PatientGraph<G> {
    async fn fetch(&self, index: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError> {
        let fetched = self.graph.fetch(index, ids).await.map_err(|e| self.outage(e))?;
        let words = ids.iter().zip(fetched.iter().map(Word::of_fetched));
        if let Some(failure) = self.failure(FETCH, &index.name, words) {
            let witnesses = self.witnesses(FETCH, &index.name, ids);
            let asked = self.graph.fetch(index, &witnesses).await.map_err(|e| self.outage(e))?;
            if away(asked.iter().map(Word::of_fetched)).unwrap_or(true) {
                return Err(self.outage(failure));
            }
        }
        let each = |fetched| if let Fetched::Failed(error) = fetched { Fetched::Failed(alone(error)) } else { fetched };
        Ok(fetched.into_iter().map(each).collect())
    }

    async fn parents(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError> {
        let parents = self.graph.parents(plan, ids).await.map_err(|e| self.outage(e))?;
        let words = ids.iter().zip(parents.iter().map(Word::of_parents));
        if let Some(failure) = self.failure(PARENTS, &plan.type_name, words) {
            let witnesses = self.witnesses(PARENTS, &plan.type_name, ids);
            let asked = self.graph.parents(plan, &witnesses).await.map_err(|e| self.outage(e))?;
            if away(asked.iter().map(Word::of_parents)).unwrap_or(failure.class == ErrorClass::Fatal) {
                return Err(self.outage(failure));
            }
        }
        Ok(parents.into_iter().map(|parents| parents.map_err(alone)).collect())
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

    async fn introspect(&self) -> Result<Json, GraphError> {
        self.graph.introspect().await.map_err(|e| self.outage(e))
    }
}
