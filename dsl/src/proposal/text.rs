//! The text of a proposed pipeline.

use std::collections::BTreeSet;
use std::fmt::Write;

use tributary_event::TableName;

use super::matching::Matches;
use super::query::Query;
use super::{Known, KnownTable};
use crate::plan::IdTemplate;
use crate::schema::Schema;

pub(super) fn pipeline(
    known: &Known<'_>,
    schema: &Schema,
    matches: &Matches<'_>,
    query: &Query<'_>,
    index: &str,
) -> String {
    let tables = tables(known, matches, query);
    let mut out = format!(
        "# Proposed by `tributary init` from the graph's schema and the database's keys. Check it: tributary check pipeline.yaml\n\
         pipeline: {index}-search\n\nsources:\n  database:\n    {}:\n      url: \"${{DATABASE_URL}}\"\n      tables:\n",
        known.kind
    );
    for table in &tables {
        let _ = writeln!(out, "        - {}", quoted(&table.name.to_string()));
    }
    let _ = writeln!(out, "\ngraph:\n  endpoint: {}", quoted(known.endpoint));
    if !known.headers.is_empty() {
        out.push_str("  headers:\n");
        for (name, variable) in known.headers {
            let _ = writeln!(out, "    {name}: \"${{{variable}}}\"");
        }
    }
    let shown = |name: &&str| query.types.contains(*name);
    let keys = matches.keys();
    let named: Vec<&str> = keys.keys().map(String::as_str).filter(shown).collect();
    if !named.is_empty() {
        out.push_str("  # The fields that objects are told apart by.\n  types:\n");
        for name in named {
            let _ = writeln!(out, "    {name}: {{ id: {} }}", keys[name]);
        }
    }
    out.push_str("  # What changes in the graph when a row changes.\n  vertices:\n");
    for table in &tables {
        let rules = rules(known, schema, matches, query, table);
        if !rules.is_empty() {
            let _ = writeln!(out, "    {}:", quoted(&table.name.to_string()));
            for (name, template) in rules {
                let _ = writeln!(
                    out,
                    "      - {{ type: {name}, id: \"{}\" }}",
                    template.to_string().replace('\\', "\\\\").replace('"', "\\\"")
                );
            }
        }
    }
    if !query.stored.is_empty() {
        out.push_str("  # Edges that are a column of the parent's own row.\n  edges:\n");
        let mut told = BTreeSet::new();
        for (parent, field) in &query.stored {
            if told.insert((parent, field)) {
                let _ = writeln!(out, "    {parent}.{field}: {{ stored_in: parent }}");
            }
        }
    }
    // Where tables refer to themselves, others map to the root's type as well.
    let roots = matches
        .of_type
        .get(query.root)
        .map(|table| format!(", roots: {{ table: {} }}", quoted(&table.name.to_string())));
    let _ = writeln!(out, "\nindexes:\n  {index}: {{ query: {index}.graphql{} }}", roots.unwrap_or_default());
    out
}

fn quoted(text: &str) -> String {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_./:-".contains(c)) && !text.is_empty();
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")) }
}

/// The tables of the types that are read, and those that join them.
fn tables<'a>(known: &'a Known<'_>, matches: &Matches<'_>, query: &Query<'_>) -> Vec<&'a KnownTable> {
    let read: Vec<_> = query.types.iter().filter_map(|name| matches.of_type.get(name)).map(|t| &t.name).collect();
    let joins = |table: &&KnownTable| {
        let to = table.references.iter().filter(|(_, to)| read.contains(&to)).count();
        read.contains(&&table.name)
            || to > 1 && table.key.iter().all(|c| table.references.iter().any(|(cs, _)| cs.contains(c)))
    };
    known.tables.iter().filter(joins).collect()
}

/// The vertices that a row of a table changes: its own, and those that it belongs to and that list it.
fn rules(
    known: &Known<'_>,
    schema: &Schema,
    matches: &Matches<'_>,
    query: &Query<'_>,
    table: &KnownTable,
) -> Vec<(String, IdTemplate)> {
    // A row may belong to two of one type: each rule is known by its columns.
    let better = |name: &str, columns: &[String]| {
        let fits = |(of_type, of, template): &&(String, TableName, IdTemplate)| {
            of_type == name && *of == table.name && template.columns().eq(columns.iter().map(String::as_str))
        };
        known.templates.iter().find(fits).map(|(_, _, template)| template.clone())
    };
    let mut rules: Vec<(String, IdTemplate)> = Vec::new();
    let mut add = |name: &str, columns: &[String]| {
        let rule = (name.to_owned(), better(name, columns).unwrap_or_else(|| IdTemplate::of_columns(columns)));
        if query.types.contains(name) && schema.is_vertex(name) && !rules.contains(&rule) {
            rules.push(rule);
        }
    };
    let own = matches.type_of(&table.name).filter(|name| query.types.contains(name));
    if let Some(own) = own.filter(|_| !table.key.is_empty()) {
        add(own, &table.key);
    }
    let joins = own.is_none_or(|own| !schema.is_vertex(own) || own != query.root && table.references.len() > 1);
    for (columns, to) in &table.references {
        let Some(parent) = matches.type_of(to) else { continue };
        if joins || own.is_some_and(|own| own != query.root) && parent == query.root {
            add(parent, columns);
        }
    }
    rules
}
