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
//! Decisions are pure and beside the loops: `breaker` (when a service is left alone), `answers` (what an answer says of each key),
//! `call` (keys → request), `typed` (what an answer holds). Whether a failure is a key's or the service's is decided in `questions` with `witness`.

mod answers;
mod asking;
mod breaker;
mod cache;
mod call;
mod ceiling;
mod excerpt;
mod gathering;
mod held;
mod http;
mod pace;
mod questions;
mod raw;
mod service;
mod stand_in;
mod traced;
mod trouble;
mod typed;
mod witness;

pub use asking::Asking;
pub use held::Held;
pub use service::Service;
pub use stand_in::{Asked, Instead, StandIn};
