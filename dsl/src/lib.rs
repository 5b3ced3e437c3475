//! tributary-dsl
