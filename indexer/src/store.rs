//! The document store as the indexer sees it, and the stores there are: embedded, Elasticsearch, OpenSearch.

mod embedded;
mod open;
mod search_server;
mod unindexed;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value as Json;
use tributary_dsl::plan::Selection;
use tributary_event::ErrorClass;

pub use self::open::{check, open, open_read_only};

/// Content of a document, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What the query gave, hidden fields removed: an object. A store gives it back as it is; what the store makes
    /// searchable of it is the same in every store ([`indexable`](crate::documents::indexable)).
    pub content: Json,
    /// `Type:id` of every vertex it embeds, its root among them; sorted, no duplicates.
    pub refs: Vec<String>,
    /// Hash of canonical content and references.
    pub hash: String,
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentWrite {
    /// The document's id: its root's.
    pub id: String,
    /// The stamp of its build: the external version. Below 2^63.
    pub stamp: u64,
    /// What to write.
    pub action: WriteAction,
}

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteAction {
    /// Index this content.
    Put(Arc<Document>),
    /// Delete. Deleting what is not there is `Written` too. The version of a delete outlives the longest build.
    Delete,
}

/// The outcome of one write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done. Durable and visible after the next [`DocumentStore::refresh`] that starts after this.
    Written,
    /// The store holds this stamp or a newer one: nothing was written.
    Superseded {
        /// The stored stamp.
        stored: u64,
    },
    /// The store is busy (429 and the like): nothing was written, try again.
    Retry {
        /// The least pause.
        after: std::time::Duration,
        /// Why.
        reason: String,
    },
    /// The store will never take this document as it is.
    Rejected {
        /// Why, naming the field where the store names it.
        reason: String,
    },
}

/// What a store knows about a stored document without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The stamp of its last write.
    pub stamp: u64,
    /// The hash of its content.
    pub hash: String,
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDocument {
    /// Its id.
    pub id: String,
    /// Its content, without `_refs`, `_stamp`, `_hash`.
    pub content: Json,
    /// The vertices it embeds.
    pub refs: Vec<String>,
    /// The stamp of its last write.
    pub stamp: u64,
    /// The hash of its content.
    pub hash: String,
}

/// A page of document ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdPage {
    /// The ids, in no order, no duplicates.
    pub ids: Vec<String>,
    /// Where the next page starts; `None` after the last one.
    pub next: Option<String>,
}

/// A stored document without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Older {
    /// Its id.
    pub id: String,
    /// The stamp of its last refreshed write.
    pub stamp: u64,
    /// The vertices it embeds; sorted, no duplicates.
    pub refs: Vec<String>,
}

/// A page of documents without their content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OlderPage {
    /// The documents, in no order, no duplicates.
    pub documents: Vec<Older>,
    /// Where the next page starts; `None` after the last one.
    pub next: Option<String>,
}

/// A search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchRequest {
    /// A query in Lucene's syntax: `title:alien AND distributor.name:Fox`; empty or `*` finds everything.
    pub query: String,
    /// Hits to skip.
    pub from: usize,
    /// Hits to return, at most 10,000.
    pub size: usize,
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchResponse {
    /// Documents that match.
    pub total: u64,
    /// The best of them, best first.
    pub hits: Vec<Hit>,
}

/// One hit.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The document's id.
    pub id: String,
    /// Its score.
    pub score: f32,
    /// Its content.
    pub content: Json,
}

/// What [`DocumentStore::prepare`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepared {
    /// There was no such index; there is one now, empty.
    Created,
    /// It was there, with the plan's mapping.
    Existing,
}

/// Keeps the documents of one index. Calls may run concurrently. No call is retried inside unless its documentation says
/// so; a call that returns `Err` may have been carried out or not (nothing is known), and every call is safe to repeat.
#[async_trait]
pub trait DocumentStore: Send + Sync {
    /// Creates the index of documents of this shape (`<name>-000001` behind the alias `<name>`, where the store has aliases) if absent.
    /// An index whose mapping differs is a `Fatal` error that lists the differing fields and what to do.
    async fn prepare(&self, shape: &Selection) -> Result<Prepared, StoreError>;

    /// Writes documents: one verdict per write, in order, also when a single item fails. Never creates an index. A document
    /// is taken by every store or rejected by every store, for the same reason; values that cannot be searched are counted
    /// in `tributary_unindexed_values_total`.
    async fn write(&self, writes: &[DocumentWrite]) -> Result<Vec<Verdict>, StoreError>;

    /// Everything written before this call is durable, and visible to every read of refreshed documents, when it returns.
    async fn refresh(&self) -> Result<(), StoreError>;

    /// Heads of documents, in order, as last written (also before a refresh); `None` for those that are not there.
    async fn heads(&self, ids: &[String]) -> Result<Vec<Option<Head>>, StoreError>;

    /// Ids of documents whose `_refs` hold any of the references: at most `size` of them (a store may give fewer), from where
    /// a page before said that the `next` one starts. A document that holds one of them while all pages are read is on one
    /// page. Sees refreshed documents.
    async fn lookup(&self, references: &[String], after: Option<&str>, size: usize) -> Result<IdPage, StoreError>;

    /// The same, of documents whose stamp is in a range, with stamps and references.
    async fn older(
        &self,
        references: &[String],
        stamps: Range<u64>,
        after: Option<&str>,
        size: usize,
    ) -> Result<OlderPage, StoreError>;

    /// How many documents hold each reference, in order: refreshed ones, or a few more.
    async fn frequencies(&self, references: &[String]) -> Result<Vec<u64>, StoreError>;

    /// The newest stamp of any refreshed document, or a newer one that was there; 0 if there is none.
    async fn newest_stamp(&self) -> Result<u64, StoreError>;

    /// Ids of documents in id order, after `after`, at most `size`. Sees refreshed documents.
    async fn scan(&self, after: Option<&str>, size: usize) -> Result<Vec<String>, StoreError>;

    /// A document, as last written (also before a refresh, where the store can).
    async fn get(&self, id: &str) -> Result<Option<StoredDocument>, StoreError>;

    /// Searches. A query that does not parse is a `Definite` error that says where.
    async fn search(&self, request: &SearchRequest) -> Result<SearchResponse, StoreError>;

    /// Number of refreshed documents.
    async fn count(&self) -> Result<u64, StoreError>;

    /// Whether the store answers now; the error says what is wrong.
    async fn probe(&self) -> Result<(), StoreError>;

    /// Whether it can be asked at all: a store within this process is opened while the pipeline starts.
    fn is_open(&self) -> bool {
        true
    }
}

/// A failure of a store.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What may be done about it.
    pub class: ErrorClass,
    /// Place, cause, remedy.
    pub message: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error without a further cause.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), source: None }
    }

    /// An error with its cause.
    pub fn caused(
        class: ErrorClass,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { class, message: message.into(), source: Some(source.into()) }
    }
}

impl tributary_processor::FailedCall for StoreError {
    fn class(&self) -> ErrorClass {
        self.class
    }

    fn message(&self) -> &str {
        &self.message
    }
}

/// A search may look at the first 10,000 hits: further ones cost memory on every shard and are refused by the servers.
fn check_window(request: &SearchRequest) -> Result<(), StoreError> {
    if request.from.saturating_add(request.size) <= 10_000 {
        return Ok(());
    }
    let message = format!("hits {} and following cannot be asked for: only the first 10,000 can", request.from);
    Err(StoreError::new(ErrorClass::Definite, message))
}

/// Why a document with this id can never be written, to any store: the servers take at most 512 bytes.
fn unfit_id(id: &str) -> Option<String> {
    match id.len() {
        0 => Some("its id is empty".to_owned()),
        length if length > 512 => Some(format!("its id has {length} bytes, more than 512")),
        _ => None,
    }
}
