//! The operation as it is sent: our directives left out; `__typename`, keys and the end of lists put in.

use std::fmt::Write;

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{Directive, Field, OperationDefinition, Selection, SelectionSet};
use async_graphql_value::{Name, Value};

use super::Document;
use super::collect::Group;
use super::directives::OURS;
use super::partial::asks_for_all;
use super::resolve::{PAGE, Resolver};
use crate::plan::Apart;
use crate::schema::{Identity, Schema, TypeRef};

pub(super) struct Printer<'r, 'a> {
    resolver: &'r Resolver<'a>,
    document: &'a Document,
    schema: &'a Schema,
    /// The type of the documents, of which alone the key is asked for where the root field answers several types.
    root_type: &'r str,
    /// Levels from the root field to the documents.
    levels: usize,
    out: String,
}

/// Where a selection set stands.
#[derive(Clone, Copy)]
struct Place<'p> {
    scope: &'p str,
    depth: usize,
    /// Whether it is that of a field, so that what we need is put in.
    whole: bool,
    /// Levels to the documents, as long as they are not reached.
    above: Option<usize>,
}

impl<'r, 'a> Printer<'r, 'a> {
    pub fn new(resolver: &'r Resolver<'a>, root_type: &'r str, levels: usize) -> Self {
        let (document, schema) = (resolver.document, resolver.schema);
        Self { resolver, document, schema, root_type, levels, out: String::new() }
    }

    /// The operation as it is, and the fragments it uses. `None`: it does not fit the schema.
    pub fn together(mut self, name: &str) -> Option<String> {
        let (_, operation) = self.document.operation()?;
        let declared: Vec<String> = self.declarations(&operation.node, None);
        let _ = write!(self.out, "query {name}({})", declared.join(", "));
        self.directives(&operation.node.directives);
        self.out.push(' ');
        let above = Some(self.levels + 1);
        let place = Place { scope: self.schema.query_type(), depth: 0, whole: false, above };
        self.set(place, &operation.node.selection_set.node)?;
        self.fragments(true)?;
        Some(self.out)
    }

    /// The parts of an operation that has the root field once for each id.
    pub fn apart(mut self, root: &Group<'a>, id: (&str, &TypeRef)) -> Option<Apart> {
        let (_, operation) = self.document.operation()?;
        let declared = self.declarations(&operation.node, Some(id.0));
        let first = root.occurrences.first()?;
        let call = |printer: &mut Self, arguments: &[(Positioned<Name>, Positioned<Value>)]| {
            printer.arguments(arguments);
            std::mem::take(&mut printer.out)
        };
        // The id's variable is where it is said, also deep in an input object; what is before and behind it stays.
        let field = first.field;
        let printed = format!("{}{}", field.name.node, call(&mut self, &field.arguments));
        let name = format!("${}", id.0);
        let at = variable_at(&printed, &name)?;
        let (before, after) = (printed[..at].to_owned(), &printed[at + name.len()..]);
        self.directives(&field.directives);
        let after = format!("{after}{}", std::mem::take(&mut self.out));
        let answers = first.definition.ty.name();
        let selected = self.selected(root, answers)?;
        self.directives(&operation.node.directives);
        let directives = std::mem::take(&mut self.out);
        self.fragments(false)?;
        Some(Apart {
            declared: declared.iter().map(|one| format!(", {one}")).collect(),
            id_type: id.1.to_string(),
            before,
            after,
            selected,
            directives,
            fragments: self.out,
        })
    }

    /// What is selected of the root field, wherever it is.
    fn selected(&mut self, root: &Group<'a>, answers: &str) -> Option<String> {
        let place = Place { scope: answers, depth: 1, whole: true, above: Some(self.levels) };
        match root.occurrences.as_slice() {
            [one] => self.set(place, &one.field.selection_set.node)?,
            several => {
                self.out.push_str("{\n");
                let whole = several.iter().flat_map(|o| o.field.selection_set.node.items.iter().cloned()).collect();
                self.needs(place, &SelectionSet { items: whole }, true);
                for occurrence in several {
                    let _ = write!(self.out, "    ... on {answers} ");
                    self.set(Place { depth: 2, whole: false, ..place }, &occurrence.field.selection_set.node)?;
                }
                self.out.push_str("  }\n");
            }
        }
        Some(std::mem::take(&mut self.out))
    }

    /// Declarations of variables, but for the one that takes the ids.
    fn declarations(&self, operation: &OperationDefinition, without: Option<&str>) -> Vec<String> {
        let all = operation.variable_definitions.iter().map(|d| &d.node);
        let others = all.filter(|d| without != Some(d.name.node.as_str()));
        let declaration = |d: &async_graphql_parser::types::VariableDefinition| {
            let default = d.default_value.as_ref().map(|v| format!(" = {}", v.node)).unwrap_or_default();
            format!("${}: {}{default}", d.name.node, crate::schema::type_ref(&d.var_type.node))
        };
        others.map(declaration).collect()
    }

    /// The fragments that are used. `root`: those on the type of root fields too.
    fn fragments(&mut self, root: bool) -> Option<()> {
        for name in &self.resolver.fragments {
            let fragment = self.document.parsed.fragments.get(*name)?;
            let condition = &fragment.node.type_condition.node.on.node;
            let on_query = condition.as_str() == self.schema.query_type();
            if on_query && !root {
                continue;
            }
            let _ = write!(self.out, "\nfragment {name} on {condition}");
            self.directives(&fragment.node.directives);
            self.out.push(' ');
            let above = on_query.then_some(self.levels + 1);
            let place = Place { scope: condition, depth: 0, whole: false, above };
            self.set(place, &fragment.node.selection_set.node)?;
        }
        Some(())
    }

    fn set(&mut self, place: Place<'_>, set: &SelectionSet) -> Option<()> {
        let Place { scope, depth, .. } = place;
        self.out.push_str("{\n");
        if place.whole {
            self.needs(place, set, false);
        }
        for item in &set.items {
            self.indent(depth + 1);
            match &item.node {
                Selection::Field(field) => {
                    let field = &field.node;
                    if let Some(alias) = &field.alias {
                        let _ = write!(self.out, "{}: ", alias.node);
                    }
                    self.out.push_str(&field.name.node);
                    self.arguments(&field.arguments);
                    self.directives(&field.directives);
                    if !field.selection_set.node.items.is_empty() {
                        self.out.push(' ');
                        self.below(place, scope, field)?;
                        continue;
                    }
                }
                Selection::FragmentSpread(spread) => {
                    self.document.parsed.fragments.get(&spread.node.fragment_name.node)?;
                    let _ = write!(self.out, "...{}", spread.node.fragment_name.node);
                    self.directives(&spread.node.directives);
                }
                Selection::InlineFragment(fragment) => {
                    self.out.push_str("...");
                    let condition = fragment.node.type_condition.as_ref().map(|c| c.node.on.node.as_str());
                    if let Some(condition) = condition {
                        let _ = write!(self.out, " on {condition}");
                    }
                    self.directives(&fragment.node.directives);
                    self.out.push(' ');
                    let scope = condition.unwrap_or(scope);
                    let place = Place { scope, depth: depth + 1, whole: false, ..place };
                    self.set(place, &fragment.node.selection_set.node)?;
                    continue;
                }
            }
            self.out.push('\n');
        }
        self.indent(depth);
        self.out.push_str("}\n");
        Some(())
    }

    /// The selection set of a field.
    fn below(&mut self, place: Place<'_>, scope: &str, field: &Field) -> Option<()> {
        let definition = self.schema.field(scope, &field.name.node)?;
        let type_name = definition.ty.name();
        let at = self.out.len();
        let above = place.above.and_then(|above| above.checked_sub(1));
        let inner = Place { scope: type_name, depth: place.depth + 1, whole: true, above };
        self.set(inner, &field.selection_set.node)?;
        if above.is_none() && asks_for_all(self.schema, definition, &field.arguments) {
            // Behind the brace and the `__typename` that every selection set of a field begins with.
            let indent = "  ".repeat(place.depth + 2);
            self.out.insert_str(at + 2, &format!("{indent}{PAGE}: pageInfo {{ hasNextPage }}\n"));
        }
        Some(())
    }

    /// `__typename`, and keys that are not selected as they are; where only some members of a union have one, on each of them.
    fn needs(&mut self, place: Place<'_>, set: &SelectionSet, shallow: bool) {
        let depth = if shallow { 2 } else { place.depth + 1 };
        self.line(depth, "__typename");
        let documents = place.above == Some(0);
        for identity in self.schema.identities(place.scope) {
            if documents && identity.on.is_some_and(|on| on != self.root_type) {
                continue;
            }
            let text = self.key(&identity);
            match identity.on {
                Some(member) => self.line(depth, &format!("... on {member} {{ {text} }}")),
                None if is_selected(set, identity.field) && text == identity.field => {}
                None => self.line(depth, &text),
            }
        }
    }

    fn key(&self, identity: &Identity<'_>) -> String {
        let response = self.resolver.response_key(identity);
        if response == identity.field { response } else { format!("{response}: {}", identity.field) }
    }

    fn arguments(&mut self, arguments: &[(Positioned<Name>, Positioned<Value>)]) {
        if !arguments.is_empty() {
            let all: Vec<String> =
                arguments.iter().map(|(name, value)| format!("{}: {}", name.node, value.node)).collect();
            let _ = write!(self.out, "({})", all.join(", "));
        }
    }

    fn directives(&mut self, directives: &[Positioned<Directive>]) {
        for directive in directives.iter().filter(|d| !OURS.contains(&d.node.name.node.as_str())) {
            let _ = write!(self.out, " @{}", directive.node.name.node);
            self.arguments(&directive.node.arguments);
        }
    }

    fn line(&mut self, depth: usize, text: &str) {
        self.indent(depth);
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn indent(&mut self, depth: usize) {
        self.out.push_str(&"  ".repeat(depth));
    }
}

/// Whether a field is selected as it is, without an alias.
fn is_selected(set: &SelectionSet, name: &str) -> bool {
    let plain = |item: &Positioned<Selection>| matches!(&item.node, Selection::Field(f) if f.node.alias.is_none() && f.node.name.node == name);
    set.items.iter().any(plain)
}

/// Where a variable stands in printed arguments: behind strings, and not within a longer name.
fn variable_at(printed: &str, name: &str) -> Option<usize> {
    let (mut in_string, mut escaped) = (false, false);
    for (at, c) in printed.char_indices() {
        match c {
            '"' if !escaped => in_string = !in_string,
            '$' if !in_string && printed[at..].starts_with(name) => {
                let next = printed[at + name.len()..].chars().next();
                if !next.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') {
                    return Some(at);
                }
            }
            _ => {}
        }
        escaped = in_string && c == '\\' && !escaped;
    }
    None
}
