//! The stream: events of the log → changes in the order of their commits.

pub(super) mod assembler;
pub(super) mod held;
pub(super) mod source;
pub(super) mod tracker;
