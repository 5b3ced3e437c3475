//! The demo's own GraphQL service: movies, their makers and their screenings, read from PostgreSQL.
//!
//! It stands in for any GraphQL server that a pipeline may be pointed at, and keeps nothing between two requests: what
//! is committed in the database is what the next answer says. [`load()`] fills a database, [`Service`] serves it, and
//! [`Faults`] lets a test make the service slow, absent, picky or wrong.

mod admission;
mod database;
pub mod deals;
mod faults;
mod graph;
mod load;
mod loaders;
mod poison;
mod service;
mod snapshot;

pub mod truth;

pub use axum::http::StatusCode;
pub use faults::Faults;
pub use load::{LoadOptions, LoadReport, create_schema, load};
pub use poison::Poison;
pub use service::{Service, Settings};
