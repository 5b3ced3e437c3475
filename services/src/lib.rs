//! What streams ask of services outside, over HTTP: GraphQL, and JSON at URLs.
//!
//! ```text
//! keys ─► asking ─► cache ─► gathering ─► questions ─► service ─► http
//!         once      kept     one flight   until each   in flight,
//!         each      answers  a key,       key has its  rate, pause,
//!                            batches      own outcome  breaker
//! ```
//!
//! A [`Service`] is one for all steps that ask it: its limits, its breaker and its health are shared. An [`Asking`] is one for each step.
//! Decisions are pure and beside the loops: `service/breaker` (when a service is left alone), `answers` (what an answer says of each key),
//! `asking/call` (keys → request), `kept/typed` (what an answer holds). Whether a failure is a key's or the service's is decided in `questions`
//! with `questions/witness`.

mod answers;
mod asking;
mod http;
mod kept;
mod questions;
mod service;

pub use asking::Asking;
pub use http::stand_in::{Asked, Instead, StandIn};
pub use kept::held::Held;
pub use service::Service;
