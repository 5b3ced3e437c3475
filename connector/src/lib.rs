//! tributary-connector
