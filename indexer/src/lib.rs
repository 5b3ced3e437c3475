//! Indexes: from a change event to the documents it affects, from a document's id to its written content.
//!
//! ```text
//! events ─► resolve ─► requests ─► building ─► store
//!              │           ▲          │ ▲
//!              ▼           │          ▼ └── documents
//!            graph      listing     letters
//! ```
//!
//! [`graph`] and [`store`] are the two contracts; the engine knows nothing else of the outside. Only this room knows
//! GraphQL over HTTP, Elasticsearch, OpenSearch and tantivy.

pub mod audit;
pub mod building;
pub mod context;
pub mod documents;
pub mod engine;
pub mod graph;
pub mod letters;
pub mod listing;
#[cfg(test)]
mod model;
pub mod report;
pub mod request;
pub mod resolve;
pub mod rows;
mod stages;
pub mod store;
mod watch;
