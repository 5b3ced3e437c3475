//! Tables that steps look into, on the embedded log.

#![allow(clippy::unwrap_used)]

mod captured;
mod disk;
mod random;
mod support;
mod topics;
