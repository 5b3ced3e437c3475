//! What is decided about a query before it is executed: whether it asks for too much, and whether it uses a field
//! that the served schema does not have.
//!
//! Both spellings of `Movie.title` are part of the one schema that is compiled in; which of them exists for a request
//! is decided here and by the visibility of the fields in introspection.

use crate::graph::types::Naming;
use async_graphql::parser::types::{Field, FragmentDefinition, OperationType, Selection, SelectionSet};
use async_graphql::{Name, Pos, Positioned, Request, ServerError, Value};
use std::collections::HashMap;

type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;

/// Refuses a request, or lets it pass. A query that cannot be parsed passes: executing it reports the error.
pub(crate) fn admit(request: &mut Request, naming: Naming, max_roots: Option<usize>) -> Result<(), ServerError> {
    if request.parsed_query().is_err() {
        return Ok(());
    }
    let variables = request.variables.clone();
    let Ok(document) = request.parsed_query() else { return Ok(()) };
    for (_, operation) in document.operations.iter() {
        if operation.node.ty != OperationType::Query {
            continue;
        }
        let roots = &operation.node.selection_set.node;
        if let Some(field) = absent_field(roots, "Query", naming, &document.fragments, 0) {
            let (absent, present) = naming.absent_and_present();
            let message = format!("Unknown field \"{absent}\" on type \"Movie\". Did you mean \"{present}\"?");
            return Err(ServerError::new(message, Some(field)));
        }
        if let Some(limit) = max_roots {
            let asked = count_roots(roots, &variables, &document.fragments, 0);
            if asked > limit {
                let message = format!("query is too complex: it asks for {asked} root ids, {limit} are allowed");
                return Err(ServerError::new(message, None));
            }
        }
    }
    Ok(())
}

impl Naming {
    fn absent_and_present(self) -> (&'static str, &'static str) {
        match self {
            Self::Usual => ("name", "title"),
            Self::Renamed => ("title", "name"),
        }
    }
}

/// A fragment that contains itself is refused when the query is executed; here it must only come to an end.
const MAX_DEPTH: usize = 64;

/// The position of a selection of `Movie` that the served schema does not have.
fn absent_field(
    selections: &SelectionSet,
    parent: &str,
    naming: Naming,
    fragments: &Fragments,
    depth: usize,
) -> Option<Pos> {
    if depth > MAX_DEPTH {
        return None;
    }
    selections.items.iter().find_map(|selection| match &selection.node {
        Selection::Field(field) => {
            let name = field.node.name.node.as_str();
            if parent == "Movie" && name == naming.absent_and_present().0 {
                return Some(field.pos);
            }
            absent_field(&field.node.selection_set.node, leads_to(parent, name), naming, fragments, depth + 1)
        }
        Selection::FragmentSpread(spread) => {
            let fragment = &fragments.get(&spread.node.fragment_name.node)?.node;
            let parent = fragment.type_condition.node.on.node.as_str();
            absent_field(&fragment.selection_set.node, parent, naming, fragments, depth + 1)
        }
        Selection::InlineFragment(fragment) => {
            let parent = fragment.node.type_condition.as_ref().map_or(parent, |on| on.node.on.node.as_str());
            absent_field(&fragment.node.selection_set.node, parent, naming, fragments, depth + 1)
        }
    })
}

/// The type that a field leads to, as far as it matters for finding movies.
fn leads_to(parent: &str, field: &str) -> &'static str {
    match (parent, field) {
        (_, "movie" | "movies") | ("MovieConnection", "nodes") | ("MovieEdge", "node") => "Movie",
        (_, "allMovies") => "MovieConnection",
        (_, "edges") => "MovieEdge",
        _ => "",
    }
}

/// How many entities a query's root fields ask for by id.
fn count_roots(
    selections: &SelectionSet,
    variables: &async_graphql::Variables,
    fragments: &Fragments,
    depth: usize,
) -> usize {
    if depth > MAX_DEPTH {
        return 0;
    }
    let count = |inner: &SelectionSet| count_roots(inner, variables, fragments, depth + 1);
    selections
        .items
        .iter()
        .map(|selection| match &selection.node {
            Selection::Field(field) => count_ids(&field.node, variables),
            Selection::FragmentSpread(spread) => fragments
                .get(&spread.node.fragment_name.node)
                .map_or(0, |fragment| count(&fragment.node.selection_set.node)),
            Selection::InlineFragment(fragment) => count(&fragment.node.selection_set.node),
        })
        .sum()
}

fn count_ids(field: &Field, variables: &async_graphql::Variables) -> usize {
    let argument = |name| field.get_argument(name).map(|value| value.node.clone());
    if argument("id").is_some() {
        return 1;
    }
    let value =
        argument("ids").and_then(|ids| ids.into_const_with(|name| variables.get(&name).cloned().ok_or(())).ok());
    match value {
        Some(Value::List(ids)) => ids.len(),
        // A single value stands for a list of one.
        Some(Value::Null) | None => 0,
        Some(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_graphql::Variables;
    use serde_json::json;

    fn refused(query: &str, naming: Naming, max_roots: Option<usize>) -> Option<String> {
        let variables = Variables::from_json(json!({ "ids": ["1", "2", "3"] }));
        let mut request = Request::new(query).variables(variables);
        admit(&mut request, naming, max_roots).err().map(|error| error.message)
    }

    #[test]
    fn root_ids_are_counted_wherever_they_stand() {
        let cases = [
            ("query($ids: [ID!]!) { movies(ids: $ids) { id } }", 3),
            ("query($ids: [ID!]!) { a: movies(ids: $ids) { id } b: talents(ids: [1, 2]) { id } }", 5),
            ("query($ids: [ID!]!) { ...F movie(id: 1) { id } } fragment F on Query { movies(ids: $ids) { id } }", 4),
            ("{ ... on Query { nodes(ids: \"Movie:1\") { id } } }", 1),
        ];
        for (query, roots) in cases {
            assert_eq!(refused(query, Naming::Usual, Some(roots)), None, "{query}");
            let message = refused(query, Naming::Usual, Some(roots - 1)).unwrap();
            assert!(message.starts_with("query is too complex"), "{message}");
        }
    }

    #[test]
    fn only_one_spelling_of_a_movies_title_exists() {
        let queries = [
            "{ movies(ids: [1]) { X } }",
            "{ talents(ids: [1]) { name movies { X } } }",
            "{ screenings(ids: [1]) { movie { X } } }",
            "{ allMovies { nodes { X } } }",
            "{ allMovies { edges { node { ... { X } } } } }",
            "{ node(id: \"Movie:1\") { id ... on Movie { X } ... on Talent { name } } }",
            "{ movies(ids: [1]) { ...F distributor { name } } } fragment F on Movie { X }",
        ];
        for query in queries {
            let (title, name) = (query.replace('X', "title"), query.replace('X', "name"));
            assert_eq!(refused(&title, Naming::Usual, None), None, "{title}");
            assert_eq!(refused(&name, Naming::Renamed, None), None, "{name}");
            assert!(refused(&name, Naming::Usual, None).unwrap().contains("\"name\" on type \"Movie\""), "{name}");
            assert!(refused(&title, Naming::Renamed, None).unwrap().contains("Did you mean \"name\""), "{title}");
        }
    }
}
