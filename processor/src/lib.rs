//! tributary-processor
