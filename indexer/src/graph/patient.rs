//! The graph as a pipeline takes it that runs: no answer of it ends the pipeline.
//!
//! While a graph is deployed it is away, and what stands before it answers 404, 403 or a redirect; an old version rejects
//! queries that the new one takes, a new one the credentials that will be there in a moment. A wrong setting looks the same.
//! So a refusal is an outage: it is told with its remedy, and waited for.
//!
//! One thing is no outage: the graph refuses some documents and serves others. Then it is a matter of those documents, which
//! are tried again and set aside like any that fail alone. Where every document of a call is refused, one that was served
//! before is asked for once more, and its answer decides.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::Value as Json;
use tributary_dsl::plan::{FanOutPlan, IndexPlan};
use tributary_event::ErrorClass;

use super::{Fetched, Graph, GraphError, IdPage, Vertex};

/// A graph whose errors are never `Fatal`: those of whole calls are `Transient`.
pub struct PatientGraph<G> {
    graph: G,
    /// An id that was served last, by index and by type.
    served: [Mutex<HashMap<String, String>>; 2],
}

/// What the graph said of one of the ids of a call.
enum Word<'a> {
    Served,
    Refused(&'a GraphError),
    Failed,
}

impl<'a> Word<'a> {
    fn of(error: &'a GraphError) -> Self {
        match error.class {
            ErrorClass::Definite => Self::Served,
            ErrorClass::Fatal => Self::Refused(error),
            ErrorClass::Transient => Self::Failed,
        }
    }
}

impl<G: Graph> PatientGraph<G> {
    /// Takes a graph.
    pub fn new(graph: G) -> Self {
        Self { graph, served: Default::default() }
    }

    /// What a call means as a whole: `Some(refusal)` if nobody was served and somebody refused.
    fn refusal<'a>(
        &self,
        kind: usize,
        name: &str,
        words: impl Iterator<Item = (&'a String, Word<'a>)>,
    ) -> Option<GraphError> {
        let mut refusal = None;
        for (id, word) in words {
            match word {
                Word::Served => {
                    self.served(kind).insert(name.to_owned(), id.clone());
                    return None;
                }
                Word::Refused(error) => refusal = Some(error),
                Word::Failed => {}
            }
        }
        refusal.cloned()
    }

    fn served(&self, kind: usize) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.served[kind].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id that was served last.
    fn witness(&self, kind: usize, name: &str) -> Option<[String; 1]> {
        self.served(kind).get(name).map(|id| [id.clone()])
    }
}

/// Waited for, whatever it is.
fn outage(error: GraphError) -> GraphError {
    GraphError { class: ErrorClass::Transient, ..error }
}

/// Documents of an index.
const FETCH: usize = 0;
/// Vertices of a type.
const PARENTS: usize = 1;

fn word_of_fetched(fetched: &Fetched) -> Word<'_> {
    match fetched {
        Fetched::Found(_) | Fetched::Missing => Word::Served,
        Fetched::Failed(error) => Word::of(error),
    }
}

fn word_of_parents(parents: &Result<Vec<Vertex>, GraphError>) -> Word<'_> {
    parents.as_ref().map_or_else(|error| Word::of(error), |_| Word::Served)
}

#[async_trait]
impl<G: Graph> Graph for PatientGraph<G> {
    async fn fetch(&self, index: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError> {
        let fetched = self.graph.fetch(index, ids).await.map_err(outage)?;
        if let Some(refusal) = self.refusal(FETCH, &index.name, ids.iter().zip(fetched.iter().map(word_of_fetched))) {
            let Some(witness) = self.witness(FETCH, &index.name) else { return Err(outage(refusal)) };
            let asked = self.graph.fetch(index, &witness).await.map_err(outage)?;
            if !asked.iter().all(|fetched| matches!(word_of_fetched(fetched), Word::Served)) {
                return Err(outage(refusal));
            }
        }
        let alone = |fetched| match fetched {
            Fetched::Failed(error) if error.class == ErrorClass::Fatal => Fetched::Failed(outage(error)),
            other => other,
        };
        Ok(fetched.into_iter().map(alone).collect())
    }

    async fn parents(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError> {
        let parents = self.graph.parents(plan, ids).await.map_err(outage)?;
        if let Some(refusal) =
            self.refusal(PARENTS, &plan.type_name, ids.iter().zip(parents.iter().map(word_of_parents)))
        {
            let Some(witness) = self.witness(PARENTS, &plan.type_name) else { return Err(outage(refusal)) };
            let asked = self.graph.parents(plan, &witness).await.map_err(outage)?;
            if !asked.iter().all(|parents| matches!(word_of_parents(parents), Word::Served)) {
                return Err(outage(refusal));
            }
        }
        let alone = |error: GraphError| if error.class == ErrorClass::Fatal { outage(error) } else { error };
        Ok(parents.into_iter().map(|parents| parents.map_err(alone)).collect())
    }

    async fn root_ids(&self, query: &str, key: &str, after: Option<&str>, first: usize) -> Result<IdPage, GraphError> {
        self.graph.root_ids(query, key, after, first).await.map_err(outage)
    }

    async fn probe(&self) -> Result<(), GraphError> {
        self.graph.probe().await.map_err(outage)
    }

    async fn introspect(&self) -> Result<Json, GraphError> {
        self.graph.introspect().await.map_err(outage)
    }
}
