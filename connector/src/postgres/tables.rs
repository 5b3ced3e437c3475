//! Tables: what the catalog has of them, what the log says, what is published, and the rows that are there now.

pub(super) mod absent;
pub(super) mod catalog;
pub(super) mod columns;
pub(super) mod describe;
pub(super) mod inspect;
pub(super) mod keys;
pub(super) mod known;
pub(super) mod publication;
pub(super) mod relation;
