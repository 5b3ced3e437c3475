//! Indexes: from a change event to the documents it affects, from a document's id to its written content.
//!
//! [`graph`] and [`store`] are the two contracts; the engine knows nothing else of the outside. Only this room knows
//! GraphQL over HTTP, Elasticsearch, OpenSearch and tantivy.

pub mod graph;
pub mod store;
