//! tributary-indexer
