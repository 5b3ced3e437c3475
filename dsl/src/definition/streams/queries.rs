//! The GraphQL query of an `enrich` step: one operation of one variable, which takes a key or a list of keys.

use std::sync::Arc;

use async_graphql_parser::parse_query;
use async_graphql_parser::types::{BaseType, ExecutableDocument, OperationType, Selection};

use crate::query::guard_depth;
use crate::text::SourceText;

/// What is known of such a query without its schema.
#[derive(Debug)]
pub(super) struct KeyQuery {
    /// The name of the operation.
    pub operation: Option<String>,
    /// The variable that takes the key.
    pub variable: String,
    /// Whether it takes a list of keys.
    pub is_list: bool,
    /// The field of `data` that the answer lies in, if there is only one.
    pub field: Option<String>,
    /// The query.
    pub document: ExecutableDocument,
}

/// Looks at a query. `Err`: what is wrong with it, and the remedy.
pub(super) fn look(text: &str) -> Result<KeyQuery, (String, String)> {
    let shape = "write one such as `query ($ids: [ID!]!) { movies(ids: $ids) { id title } }`".to_owned();
    let shown = Arc::new(SourceText::plain("the query", text));
    if guard_depth(&shown, text).is_err() {
        return Err(("its braces are too many inside of one another".to_owned(), shape));
    }
    let document: ExecutableDocument =
        parse_query(text).map_err(|e| (format!("it is no GraphQL: {e}"), shape.clone()))?;
    let operations: Vec<_> = document.operations.iter().collect();
    let [(name, operation)] = operations.as_slice() else {
        return Err((format!("it has {} operations, not one", operations.len()), shape));
    };
    if operation.node.ty != OperationType::Query {
        return Err((format!("it is a {}, not a query", operation.node.ty), shape));
    }
    let needed: Vec<_> =
        operation.node.variable_definitions.iter().filter(|variable| variable.node.default_value.is_none()).collect();
    let [variable] = needed.as_slice() else {
        let count = needed.len();
        let help = "one variable takes the keys; give the others defaults".to_owned();
        return Err((format!("{count} of its variables have no default, and one must have none"), help));
    };
    let fields: Vec<&str> = operation
        .node
        .selection_set
        .node
        .items
        .iter()
        .filter_map(|item| match &item.node {
            Selection::Field(field) => Some(field.node.response_key().node.as_str()),
            _ => None,
        })
        .collect();
    let operation = name.map(|name| name.to_string());
    let (name, is_list) =
        (variable.node.name.node.to_string(), matches!(variable.node.var_type.node.base, BaseType::List(_)));
    let field = match fields.as_slice() {
        [only] => Some((*only).to_owned()),
        _ => None,
    };
    Ok(KeyQuery { operation, variable: name, is_list, field, document })
}
