//! The graph's schema, as far as checking a query needs it.

use crate::diagnostic::Diagnostic;

/// What a server answers to this makes [`Schema::from_introspection`].
pub const INTROSPECTION_QUERY: &str = "query Introspection { __schema { queryType { name } types { ...T } \
directives { name locations args { ...V } } } } \
fragment T on __Type { kind name fields(includeDeprecated: true) { name args { ...V } type { ...R } } \
inputFields { ...V } interfaces { name } possibleTypes { name } enumValues(includeDeprecated: true) { name } } \
fragment V on __InputValue { name type { ...R } defaultValue } \
fragment R on __Type { kind name ofType { kind name ofType { kind name ofType { kind name ofType { kind name \
ofType { kind name ofType { kind name } } } } } } }";

/// The schema.
#[derive(Debug, Clone)]
pub struct Schema {}

/// An answer to the introspection query that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the answer to the introspection query is no schema: {0}")]
pub struct SchemaError(String);

impl Schema {
    /// From the answer to [`INTROSPECTION_QUERY`], with or without its `data` around it.
    pub fn from_introspection(_json: &serde_json::Value) -> Result<Self, SchemaError> {
        Err(SchemaError("not yet".to_owned()))
    }

    /// From a schema file.
    pub fn from_sdl(_text: &str, _file: &str) -> Result<Self, Vec<Diagnostic>> {
        Err(Vec::new())
    }
}
