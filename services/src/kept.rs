//! Answers that are kept, until they are old or a change was told of what they hold.

pub(crate) mod cache;
pub(crate) mod held;
pub(crate) mod typed;
