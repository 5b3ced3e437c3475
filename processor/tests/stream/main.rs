//! Streams on the embedded log: what they do once, whatever ends them on the way.

#![allow(clippy::unwrap_used)]

mod basics;
mod bench;
mod limits;
mod metrics;
mod remembering;
mod set_aside;
