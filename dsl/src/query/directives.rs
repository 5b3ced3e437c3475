//! `@text`, `@keyword`, `@ignore`, `@nested`, `@flatten`: ours; the server never sees them.

use async_graphql_parser::Positioned;
use async_graphql_parser::types::Directive;
use async_graphql_value::Value;

use super::Document;
use super::values::{Variables, check_arguments};
use crate::diagnostic::Diagnostic;
use crate::plan::LeafType;
use crate::schema::Schema;
use crate::suggest::suggestion;

/// Ours.
pub(super) const OURS: [&str; 5] = ["text", "keyword", "ignore", "nested", "flatten"];

/// What our directives say about a field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// `@text`, `@keyword` or `@ignore`.
    pub leaf: Option<LeafType>,
    pub nested: bool,
    pub flatten: bool,
}

/// Reads and checks the directives of a field, or (where `field` is false) of something else, which ours do not belong on.
pub(super) fn read(
    document: &Document,
    schema: &Schema,
    directives: &[Positioned<Directive>],
    field: bool,
    found: &mut Vec<Diagnostic>,
) -> Marks {
    let mut marks = Marks::default();
    for directive in directives {
        let name = directive.node.name.node.as_str();
        let spot = document.name_spot(&directive.node.name);
        match name {
            "include" | "skip" => {
                let help = "a document always has the same fields: remove the directive";
                found.push(spot.error(format!("`@{name}` has no place in the query of an index")).help(help));
            }
            _ if OURS.contains(&name) && !field => {
                found.push(spot.error(format!("`@{name}` belongs on a field")));
            }
            _ if OURS.contains(&name) => {
                let leaf = match name {
                    "text" => Some(LeafType::Text { analyzer: analyzer(document, directive, found) }),
                    "keyword" => Some(LeafType::Keyword),
                    "ignore" => Some(LeafType::Ignore),
                    _ => None,
                };
                if name != "text" {
                    refuse_arguments(document, directive, &[], found);
                }
                if leaf.is_some() && marks.leaf.is_some() {
                    found.push(
                        spot.error("a field is indexed in one way").help("keep one of `@text`, `@keyword`, `@ignore`"),
                    );
                }
                marks.nested |= name == "nested";
                marks.flatten |= name == "flatten";
                marks.leaf = marks.leaf.or(leaf);
            }
            _ => match schema.directive(name) {
                Some(arguments) => {
                    let variables = Variables { declared: &[], ill_typed: None, ids: None };
                    check_arguments(document, schema, arguments, &directive.node.arguments, variables, &spot, found);
                }
                None => {
                    let known =
                        OURS.into_iter().chain(schema.directive_names().filter(|n| !["include", "skip"].contains(n)));
                    let help = suggestion(name, known);
                    found.push(spot.error(format!("unknown directive `@{name}`")).maybe_help(help));
                }
            },
        }
    }
    marks
}

fn analyzer(document: &Document, directive: &Positioned<Directive>, found: &mut Vec<Diagnostic>) -> String {
    refuse_arguments(document, directive, &["analyzer"], found);
    match directive.node.get_argument("analyzer") {
        None => "standard".to_owned(),
        Some(value) => match &value.node {
            Value::String(name)
                if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) =>
            {
                name.clone()
            }
            other => {
                let spot = document.spot(value.pos, other.to_string().chars().count());
                found.push(spot.error("an analyzer is named by a string").help("write `@text(analyzer: \"english\")`"));
                "standard".to_owned()
            }
        },
    }
}

fn refuse_arguments(
    document: &Document,
    directive: &Positioned<Directive>,
    known: &[&str],
    found: &mut Vec<Diagnostic>,
) {
    for (name, _) in &directive.node.arguments {
        if !known.contains(&name.node.as_str()) {
            let message = format!("`@{}` has no argument `{}`", directive.node.name.node, name.node);
            let help = suggestion(&name.node, known.iter().copied());
            found.push(document.name_spot(name).error(message).maybe_help(help));
        }
    }
}
