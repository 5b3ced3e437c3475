//! The graph as the indexer sees it, free of HTTP: fetch roots by ids, parents of vertices, ids of all roots.

mod http;
mod patient;
mod progress;
#[cfg(test)]
pub(crate) mod tests;

pub use http::HttpGraph;
pub use patient::{PatientGraph, Refusals, WITNESSES};
pub use progress::Progress;
pub(crate) use progress::Wait;

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::Value as Json;
use tributary_dsl::plan::{FanOutPlan, IndexPlan, Paging, Question};
use tributary_event::ErrorClass;

/// An entity of the graph.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Vertex {
    /// Its GraphQL type (the concrete one, never an interface).
    pub type_name: String,
    /// Its id.
    pub id: String,
}

impl Vertex {
    /// A vertex.
    pub fn new(type_name: impl Into<String>, id: impl Into<String>) -> Self {
        Self { type_name: type_name.into(), id: id.into() }
    }

    /// As it stands in `_refs`: `Type:id`. Injective, for a type's name has no colon.
    pub fn reference(&self) -> String {
        format!("{}:{}", self.type_name, self.id)
    }
}

impl std::fmt::Display for Vertex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.type_name, self.id)
    }
}

/// What fetching one root gave.
#[derive(Debug, Clone, PartialEq)]
pub enum Fetched {
    /// The root object as answered, `__typename`s and hidden fields included, complete: no error under its path.
    Found(Json),
    /// The graph says, without an error, that there is none.
    Missing,
    /// It could not be fetched whole; other roots of the same call may be fine. Never absence.
    Failed(GraphError),
    /// The same, for a cause that several roots share: something behind the graph is away, and the root waits for it.
    Waits(GraphError),
}

/// Whether the graph knows a vertex by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identified {
    /// It does.
    Known,
    /// It says, without an error, that there is none.
    Missing,
    /// It answers a vertex with this other id.
    Other(String),
    /// It could not be asked.
    Failed(GraphError),
}

/// One page of root ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPage {
    /// The ids.
    pub ids: Vec<String>,
    /// Where the next page starts; `None` after the last.
    pub next: Option<String>,
}

/// Reads a graph. What is missing in an answer that holds others is asked for again, until an answer holds none of those that it
/// was asked for: an answer may be cut without a word. Implementations bound their requests in flight, split a batch that the server refuses as too complex,
/// answers too late, or answers with what cannot be read, and attribute errors to single ids (by asking again in smaller
/// batches where the answer does not say whose they are). They do not retry otherwise: the caller does.
#[async_trait]
pub trait Graph: Send + Sync {
    /// Fetches roots of an index: one outcome per id, in order. `Err`: nothing is known about any of them.
    async fn fetch(&self, index: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError>;

    /// The parents of changed vertices of one type, by the plan's inverse fields: one outcome per id, in order.
    /// A vertex that does not exist (any more) has no parents.
    async fn parents(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError>;

    /// Whether the graph knows vertices by their ids: one outcome per id, in order. `name`: whom it is asked for, in metrics and logs.
    async fn identify(&self, question: &Question, name: &str, ids: &[String]) -> Result<Vec<Identified>, GraphError>;

    /// A page of root ids for [`Paging`]; `after` is the last page's `next`.
    async fn root_ids(&self, paging: &Paging, after: Option<&str>, first: usize) -> Result<IdPage, GraphError>;

    /// Whether the server answers GraphQL at all; what it answers does not matter.
    async fn probe(&self) -> Result<(), GraphError>;

    /// How far into the databases' logs the graph said last that it has come, in its own words (see [`Progress`]); None: it never said.
    /// Asking it anything, [`probe`](Self::probe) too, lets it say so anew.
    fn position(&self) -> Option<String> {
        None
    }

    /// The schema by introspection: the JSON of `data`.
    async fn introspect(&self) -> Result<Json, GraphError>;

    /// Documents that an index has, so that the graph served their roots once. Implementations may ask for them again to see
    /// whether the graph serves at all.
    fn remember(&self, _index: &IndexPlan, _documents: &[String]) {}

    /// Rows that these vertices come from were deleted, or all rows of types. That the graph does not serve those any more is no
    /// sign that it is away.
    fn deleted(&self, _vertices: &BTreeSet<Vertex>, _emptied: &BTreeSet<String>) {}
}

/// A failure of the graph.
///
/// `Transient`: unreachable, timed out, 5xx, 429, an error for one field that may pass. `Definite`: a fact about this vertex.
/// `Fatal`: the server rejects the query itself (it no longer fits the schema), or us (401, 403), or is no GraphQL server. A
/// pipeline that runs waits for that too (see [`PatientGraph`]); a command that only asks ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct GraphError {
    /// What may be done about it.
    pub class: ErrorClass,
    /// Place, cause, remedy.
    pub message: String,
}

impl tributary_processor::FailedCall for GraphError {
    fn class(&self) -> ErrorClass {
        self.class
    }

    fn message(&self) -> &str {
        &self.message
    }
}

impl GraphError {
    /// An error.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into() }
    }
}
