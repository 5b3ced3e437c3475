//! The query of a proposed index.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::KnownTable;
use super::matching::{Matches, same};
use super::naming::{index, short};
use crate::check::{call, way_to};
use crate::query::is_paging;
use crate::schema::{FieldDef, Schema};

/// A query, and what of the graph it reads.
pub(super) struct Query<'a> {
    pub text: String,
    pub root: &'a str,
    /// Edges that are kept in a row of the parent's table: type and field.
    pub stored: Vec<(String, String)>,
    /// The types that it reads.
    pub types: BTreeSet<&'a str>,
}

struct Builder<'a> {
    schema: &'a Schema,
    matches: &'a Matches<'a>,
    stored: Vec<(String, String)>,
    types: BTreeSet<&'a str>,
}

/// Scalars that a document can do without.
const LEFT_OUT: [&str; 3] = ["nodeId", "__id", "cursor"];
/// Values that people search for words in.
const TEXTS: [&str; 9] = ["title", "name", "label", "description", "summary", "body", "text", "headline", "tagline"];

/// `None`: nothing fetches the type by its key.
pub(super) fn build<'a>(schema: &'a Schema, matches: &'a Matches<'a>, root: &'a str) -> Option<Query<'a>> {
    let way = way_to(schema, root)?;
    let mut builder = Builder { schema, matches, stored: Vec::new(), types: BTreeSet::from([root]) };
    let fields = builder.document(root);
    let (variable, ty) = match (way.many, way.id.as_str()) {
        (true, "_Any") => ("representations", "[_Any!]!".to_owned()),
        (true, id) => ("ids", format!("[{id}!]!")),
        (false, id) => ("id", format!("{id}!")),
    };
    let (before, after) = call(&way);
    let cut = schema.root_fields().iter().find(|f| f.name == way.field).and_then(|f| limit(schema, f));
    let before = match cut.filter(|_| way.many) {
        Some(limit) => before.replacen('(', &format!("({limit}, "), 1),
        None => before,
    };
    let mut text = format!(
        "# What this query answers for one {root} is a document of the index. Edit it: remove fields, add others.\n\
         # @text, @keyword, @ignore, @nested and @flatten are Tributary's and never reach the server.\n"
    );
    let name: String = index(root).split('-').map(capital).collect();
    let _ = writeln!(text, "query {name}(${variable}: {ty}) {{\n  {before}${variable}{after} {{");
    let mut depth = 2;
    for step in way.way {
        let _ = writeln!(text, "{}{step} {{", "  ".repeat(depth));
        depth += 1;
    }
    let narrow = schema.is_abstract(&way.answers);
    if narrow {
        let _ = writeln!(text, "{}... on {root} {{", "  ".repeat(depth));
        depth += 1;
    }
    for line in fields {
        let _ = writeln!(text, "{}{line}", "  ".repeat(depth));
    }
    for level in (0..depth).rev() {
        let _ = writeln!(text, "{}}}", "  ".repeat(level));
    }
    Some(Query { text, root, stored: builder.stored, types: builder.types })
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// The argument that says how many of a list are answered, where a server may cut it.
fn limit(schema: &Schema, field: &FieldDef) -> Option<String> {
    let listed = field.ty.is_list() && schema.connection(field.ty.name()).is_none();
    let takes = field
        .arguments
        .iter()
        .find(|a| is_paging(&a.name) && !a.has_default && a.name.to_lowercase().contains("limit"));
    takes.filter(|_| listed).map(|a| format!("{}: 100", a.name))
}

impl<'a> Builder<'a> {
    fn table(&self, type_name: &str) -> Option<&'a KnownTable> {
        self.matches.of_type.get(type_name).copied()
    }

    /// The lines of a root's fields.
    fn document(&mut self, root: &'a str) -> Vec<String> {
        let mut lines = self.values(root);
        let mut taken: BTreeSet<String> = BTreeSet::new();
        for field in self.schema.fields(root) {
            let Some((target, way)) = self.leads(field) else { continue };
            if target == root || field.name.starts_with('_') {
                continue;
            }
            let several = field.ty.is_list() || way.is_some();
            let Some(inner) = self.inner(root, target, several) else { continue };
            let name = short(&field.name);
            let key = if taken.insert(name.to_owned()) { name } else { field.name.as_str() };
            let alias = if key == field.name { String::new() } else { format!("{key}: ") };
            let nested = if several { " @nested" } else { "" };
            let limit = limit(self.schema, field).map(|limit| format!("({limit})")).unwrap_or_default();
            let open = format!("{alias}{}{limit}{nested} {{", field.name);
            let steps = way.unwrap_or_default();
            let around: String = steps.iter().map(|step| format!(" {step} @flatten {{")).collect();
            lines.push(format!("{open}{around} {} }}{}", inner.join(" "), " }".repeat(steps.len())));
            self.types.insert(target);
            if !several && self.is_stored(root, target) {
                self.stored.push((root.to_owned(), field.name.clone()));
            }
        }
        lines
    }

    /// The type that a field leads to, and the way through a connection.
    fn leads(&self, field: &'a FieldDef) -> Option<(&'a str, Option<&'static [&'static str]>)> {
        let ty = field.ty.name();
        if field.needs_arguments() {
            return None;
        }
        let (target, way) = match self.schema.connection(ty) {
            // Nodes are a level less.
            Some(_) if self.schema.walk(ty, &["nodes"]).is_some() => {
                (self.schema.walk(ty, &["nodes"])?, Some(&["nodes"][..]))
            }
            Some((way, node)) => (node, Some(way)),
            None => (ty, None),
        };
        self.matches.of_type.contains_key(target).then_some((target, way))
    }

    /// Whether rows of the parent's table name the child.
    fn is_stored(&self, parent: &str, child: &str) -> bool {
        let (Some(parent), Some(child)) = (self.table(parent), self.table(child)) else { return false };
        parent.references.iter().any(|(_, to)| *to == child.name)
    }

    /// What is selected of an object that belongs to the root. `None`: nothing of it, or nothing would tell of its changes.
    fn inner(&mut self, root: &str, target: &'a str, several: bool) -> Option<Vec<String>> {
        let table = self.table(target)?;
        if several && !self.is_stored(target, root) && !self.reached_by_rows(root, target) {
            return None;
        }
        let mut lines = self.values(target);
        // What a row of a list belongs to besides is most of what it says, as in tables that join two others.
        let joins = several && table.references.len() > 1;
        for field in self.schema.fields(target) {
            let Some((other, None)) = self.leads(field) else { continue };
            if other == root || field.ty.is_list() || !joins || !self.is_stored(target, other) {
                continue;
            }
            let name = short(&field.name);
            let alias = if name == field.name { String::new() } else { format!("{name}: ") };
            let values = self.values(other).join(" ");
            let alone = lines.is_empty();
            let flatten = if alone { " @flatten" } else { "" };
            lines.push(format!("{alias}{}{flatten} {{ {values} }}", field.name));
            self.types.insert(other);
            if self.schema.is_vertex(target) {
                self.stored.push((target.to_owned(), field.name.clone()));
            }
            if alone {
                break;
            }
        }
        (!lines.is_empty()).then_some(lines)
    }

    /// Whether a table that joins both has rows for the edge.
    fn reached_by_rows(&self, root: &str, target: &str) -> bool {
        let (Some(root), Some(target)) = (self.table(root), self.table(target)) else { return false };
        self.matches.tables.iter().any(|table| {
            let names = |other: &KnownTable| table.references.iter().any(|(_, to)| *to == other.name);
            names(root) && names(target)
        })
    }

    /// The values of a type: its key as `id`, and what else is no foreign key.
    fn values(&self, type_name: &str) -> Vec<String> {
        let schema = self.schema;
        let key = schema.key(type_name).map(|key| key.name.as_str());
        let foreign: Vec<&String> =
            self.table(type_name).into_iter().flat_map(|table| table.references.iter().flat_map(|(c, _)| c)).collect();
        let mut lines = Vec::new();
        // A key of several columns is no value of the type: what its vertices are told apart by says nothing to people.
        let told = self.table(type_name).is_none_or(|table| table.key.len() == 1);
        if let Some(key) = key.filter(|_| told) {
            let free = schema.field(type_name, "id").is_none() || key == "id" || key.eq_ignore_ascii_case("rowid");
            lines.push(if key != "id" && free { format!("id: {key}") } else { key.to_owned() });
        }
        for field in schema.fields(type_name) {
            let ty = field.ty.name();
            let plain = !schema.is_composite(ty) && !field.needs_arguments();
            let is_other_id = field.name == "id" || LEFT_OUT.contains(&field.name.as_str());
            if !plain || Some(field.name.as_str()) == key || is_other_id || field.name.starts_with('_') {
                continue;
            }
            // What no column holds may be computed of other rows, whose changes nobody would tell it of.
            let is_column =
                self.table(type_name).is_none_or(|t| t.columns.iter().any(|column| same(column, &field.name)));
            if !is_column
                || foreign.iter().any(|column| same(column, &field.name))
                || !crate::query::is_known(schema, ty)
            {
                continue;
            }
            let text = if ty == "String" && TEXTS.contains(&field.name.as_str()) { " @text" } else { "" };
            lines.push(format!("{}{text}", field.name));
        }
        lines
    }
}
