//! tributary-stack
