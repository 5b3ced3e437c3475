//! Indexes: from a change event to the documents it affects, from a document's id to its written content.
//!
//! [`graph`] and [`store`] are the two contracts; the engine knows nothing else of the outside. Only this room knows
//! GraphQL over HTTP, Elasticsearch, OpenSearch and tantivy.

pub mod absence;
pub mod audit;
pub mod brake;
pub mod build;
pub mod builder;
pub mod context;
pub mod document;
pub mod engine;
mod fingerprint;
pub mod graph;
pub mod indexable;
pub mod json;
pub mod letters;
pub mod listing;
pub mod lost;
pub mod mapping;
#[cfg(test)]
mod model;
mod order;
pub mod recent;
pub mod report;
pub mod request;
pub mod resolve;
pub mod schedule;
mod stages;
pub mod store;
pub mod vertices;
pub mod visibility;
mod watch;
