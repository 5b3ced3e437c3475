//! Integration tests of the indexer: one binary, real servers.

#![allow(clippy::unwrap_used, reason = "a panic of a helper is a failed test")]

mod document_stores;
