//! Integration tests of the indexer: one binary, real servers.

mod document_stores;
