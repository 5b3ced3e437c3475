//! The operation as it is sent: our directives left out, `__typename` and `id` put in wherever a vertex can be.

use std::collections::BTreeSet;
use std::fmt::Write;

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{Directive, Selection, SelectionSet};
use async_graphql_value::{Name, Value};

use super::Document;
use super::directives::OURS;
use crate::schema::{Schema, TypeRef};

/// Prints the operation and the fragments it uses. `None`: it does not fit the schema.
pub(super) fn operation(
    document: &Document,
    schema: &Schema,
    name: &str,
    variable: (&str, &TypeRef),
    fragments: &BTreeSet<&str>,
) -> Option<String> {
    let (_, operation) = document.operation()?;
    let mut printer = Printer { schema, out: String::new(), document };
    let _ = write!(printer.out, "query {name}(${}: {})", variable.0, variable.1);
    printer.directives(&operation.node.directives);
    printer.out.push(' ');
    printer.set(schema.query_type(), &operation.node.selection_set.node, 0, false)?;
    for name in fragments {
        let fragment = document.parsed.fragments.get(*name)?;
        let condition = &fragment.node.type_condition.node.on.node;
        let _ = write!(printer.out, "\nfragment {name} on {condition}");
        printer.directives(&fragment.node.directives);
        printer.out.push(' ');
        printer.set(condition, &fragment.node.selection_set.node, 0, false)?;
    }
    Some(printer.out)
}

struct Printer<'a> {
    document: &'a Document,
    schema: &'a Schema,
    out: String,
}

impl Printer<'_> {
    /// A selection set; `whole`: that of a field, so that what we need is put in.
    fn set(&mut self, scope: &str, set: &SelectionSet, depth: usize, whole: bool) -> Option<()> {
        self.out.push_str("{\n");
        if whole {
            self.line(depth + 1, "__typename");
            self.ids(scope, set, depth + 1);
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
                        let ty = self.schema.field(scope, &field.name.node)?.ty.name().to_owned();
                        self.set(&ty, &field.selection_set.node, depth + 1, true)?;
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
                    self.set(condition.unwrap_or(scope), &fragment.node.selection_set.node, depth + 1, false)?;
                    continue;
                }
            }
            self.out.push('\n');
        }
        self.indent(depth);
        self.out.push_str("}\n");
        Some(())
    }

    /// `id`, unless it is selected as it is; where only some members of a union have one, on each of them.
    fn ids(&mut self, scope: &str, set: &SelectionSet, depth: usize) {
        let plain = |item: &Positioned<Selection>| matches!(&item.node, Selection::Field(f) if f.node.alias.is_none() && f.node.name.node == "id");
        if self.schema.has_id(scope) {
            if !set.items.iter().any(plain) {
                self.line(depth, "id");
            }
            return;
        }
        for member in self.schema.vertices(scope) {
            let text = format!("... on {member} {{ id }}");
            self.line(depth, &text);
        }
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
