//! The queries that ask for the parents of changed vertices: one for each type that edges are followed back from.

use std::collections::BTreeMap;

use super::access::Way;
use super::{Checker, Wanted};
use crate::plan::{Apart, FanOutPlan, Form, InverseField, Question, Representation};
use crate::query::sent_as;
use crate::schema::Schema;

impl Checker<'_> {
    /// Merged over all indexes of the pipeline.
    pub(super) fn fan_outs(&mut self) -> BTreeMap<String, FanOutPlan> {
        let mut by_type: BTreeMap<String, (usize, Vec<InverseField>)> = BTreeMap::new();
        let wanted = std::mem::take(&mut self.wanted);
        for (first, Wanted { child_type, path, parent_type, .. }) in wanted.iter().enumerate() {
            let (_, inverses) = by_type.entry(child_type.clone()).or_insert((first, Vec::new()));
            if !inverses.iter().any(|i| i.path == *path && i.parent_type == *parent_type) {
                let key = format!("p{}", inverses.len());
                inverses.push(InverseField { key, path: path.clone(), parent_type: parent_type.clone() });
            }
        }
        let mut plans = BTreeMap::new();
        for (type_name, (first, inverses)) in by_type {
            let Some(way) = wanted.get(first).and_then(|wanted| self.access(wanted)) else { continue };
            let question = self.question("ParentsOf", &type_name, way, &inverses);
            plans.insert(type_name.clone(), FanOutPlan { type_name, inverses, question });
        }
        plans
    }

    /// Asks for vertices of a type, and by fields of theirs for their parents.
    pub(super) fn question(&self, what: &str, type_name: &str, way: Way, inverses: &[InverseField]) -> Question {
        let schema = self.schema;
        let operation = format!("{what}{type_name}");
        let key = schema.key_name(type_name);
        let by = if way.id == "_Any" { schema.key(type_name).map_or("ID", |key| key.ty.name()) } else { &way.id };
        let sent_as = sent_as(schema, &self.graph.scalars, by);
        let selected = selected(schema, type_name, &way, inverses);
        let variable = if way.id == "_Any" { "representations" } else { "ids" };
        let form = if way.many {
            let representation =
                (way.id == "_Any").then(|| Representation { type_name: type_name.to_owned(), key: key.to_owned() });
            let (before, after) = call(&way);
            let query = format!(
                "query {operation}(${variable}: [{}!]!) {{\n  {before}${variable}{after} {}}}\n",
                way.id,
                indented(&selected)
            );
            Form::Together { query, variable: variable.to_owned(), root: way.field, representation }
        } else {
            let (before, after) = call(&way);
            Form::Apart(Apart {
                declared: String::new(),
                id_type: format!("{}!", way.id),
                before,
                after,
                selected: indented(&selected),
                directives: String::new(),
                fragments: String::new(),
            })
        };
        Question {
            operation,
            form,
            way: way.way.iter().map(|step| (*step).to_owned()).collect(),
            key: "id".to_owned(),
            sent_as,
            constants: BTreeMap::new(),
        }
    }
}

/// The root field, before and behind its variable.
pub(crate) fn call(way: &Way) -> (String, String) {
    let mut before = format!("{}(", way.field);
    let mut after = String::new();
    for (i, step) in way.argument.iter().enumerate() {
        let open = if i + 1 < way.argument.len() { "{ " } else { "" };
        before.push_str(&format!("{step}: {open}"));
        after.push_str(if open.is_empty() { "" } else { " }" });
    }
    after.push(')');
    (before, after)
}

fn selected(schema: &Schema, type_name: &str, way: &Way, inverses: &[InverseField]) -> String {
    let mut lines = vec!["__typename".to_owned()];
    let node = schema.vertex_connection(&way.answers).filter(|_| !way.way.is_empty()).map(|(_, node)| node);
    let narrow = node.unwrap_or(&way.answers) != type_name;
    if narrow {
        lines.push(format!("... on {type_name} {{"));
    }
    let indent = if narrow { "  " } else { "" };
    lines.push(format!("{indent}{}", id(schema.key_name(type_name), "id")));
    for inverse in inverses {
        lines.push(format!("{indent}{}: {}", inverse.key, way_back(schema, type_name, &inverse.path)));
    }
    if narrow {
        lines.push("}".to_owned());
    }
    for step in way.way.iter().rev() {
        lines = lines.into_iter().map(|line| format!("  {line}")).collect();
        lines.insert(0, format!("{step} {{"));
        lines.push("}".to_owned());
    }
    let body: Vec<String> = lines.into_iter().map(|line| format!("  {line}\n")).collect();
    format!("{{\n{}}}\n", body.concat())
}

fn indented(text: &str) -> String {
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    let rest: String = lines.map(|line| format!("  {line}\n")).collect();
    format!("{first}\n{rest}")
}

fn id(field: &str, key: &str) -> String {
    if field == key { field.to_owned() } else { format!("{key}: {field}") }
}

/// A path of fields that ends at vertices. Pages say whether they are the last, so that parents beyond are not missed silently.
fn way_back(schema: &Schema, from: &str, path: &[String]) -> String {
    let Some((field, rest)) = path.split_first() else { return String::new() };
    let to = schema.walk(from, &[field]).unwrap_or_default();
    if rest.is_empty() {
        return format!("{field} {{ __typename {} }}", keys(schema, to));
    }
    let page = if schema.tells_next_page(to) { "pageInfo { hasNextPage } " } else { "" };
    format!("{field} {{ {page}{} }}", way_back(schema, to, rest))
}

/// The keys of what a type can be, as `id`, or as `id_<Type>` where their values are of several types.
pub(super) fn keys(schema: &Schema, type_name: &str) -> String {
    let identities = schema.identities(type_name);
    let types = || identities.iter().filter_map(|i| schema.key(i.on?).map(|key| key.ty.nullable().to_string()));
    let alike = types().all(|ty| Some(ty) == types().next());
    let one = |identity: &crate::schema::Identity<'_>| match identity.on {
        None => id(identity.field, "id"),
        Some(member) if alike => format!("... on {member} {{ {} }}", id(identity.field, "id")),
        Some(member) => format!("... on {member} {{ id_{member}: {} }}", identity.field),
    };
    identities.iter().map(one).collect::<Vec<_>>().join(" ")
}
