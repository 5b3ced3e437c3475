//! Which type of the graph is which table.

use std::collections::BTreeMap;

use tributary_event::TableName;

use super::naming::alike;
use super::{KnownTable, ProposalError};
use crate::schema::{FieldDef, Schema};
use crate::suggest::listed;

/// Types with their tables.
pub(super) struct Matches<'a> {
    pub of_type: BTreeMap<&'a str, &'a KnownTable>,
    keys: BTreeMap<String, String>,
    types: Vec<&'a str>,
    pub tables: &'a [KnownTable],
}

impl<'a> Matches<'a> {
    pub fn find(schema: &'a Schema, tables: &'a [KnownTable]) -> Self {
        let own = |name: &&str| !schema.is_abstract(name) && schema.is_composite(name) && *name != schema.query_type();
        let types: Vec<&str> = schema.type_names().filter(own).collect();
        let mut of_type = BTreeMap::new();
        let mut keys = BTreeMap::new();
        let named = |name: &str, table: &&KnownTable| alike(&table.name.name) == alike(name);
        for name in &types {
            let best = tables.iter().filter(|t| named(name, t)).max_by_key(|table| shared(schema, name, table));
            let best = best.filter(|table| shared(schema, name, table) > 0);
            // Of another name, but with all the values, and with a table that no type is named after.
            let other = || {
                let free = |table: &&KnownTable| !types.iter().any(|name| named(name, table));
                tables.iter().filter(free).find(|table| has_all(schema, name, table))
            };
            let Some(table) = best.or_else(other) else { continue };
            of_type.insert(*name, table);
            if let Some(key) = key(schema, name, table).filter(|key| *key != "id") {
                keys.insert((*name).to_owned(), key.to_owned());
            }
        }
        Self { of_type, keys, types, tables }
    }

    /// The keys of types, where they are not `id`.
    pub fn keys(&self) -> BTreeMap<String, String> {
        self.keys.clone()
    }

    pub fn type_of(&self, table: &TableName) -> Option<&'a str> {
        self.of_type.iter().find(|(_, known)| known.name == *table).map(|(name, _)| *name)
    }

    /// The type that was named, or the one that most tables refer to.
    pub fn root(&self, schema: &Schema, named: Option<&str>) -> Result<&'a str, ProposalError> {
        let can_be = |name: &&&str| schema.is_vertex(name);
        let all = || self.of_type.keys().filter(can_be).copied();
        if self.of_type.is_empty() || all().next().is_none() {
            return Err(ProposalError::NoMatch {
                types: listed(self.types.iter().copied().filter(|name| !name.starts_with('_'))),
                tables: self.tables.iter().take(12).map(|t| t.name.to_string()).collect::<Vec<_>>().join(", "),
            });
        }
        if let Some(named) = named {
            let found = all().find(|name| *name == named).or_else(|| all().find(|name| alike(name) == alike(named)));
            return found.ok_or_else(|| ProposalError::UnknownRoot(named.to_owned(), listed(all())));
        }
        let belongs = |name: &str| {
            let table = &self.of_type[name].name;
            self.of_type.values().flat_map(|t| &t.references).filter(|(_, to)| to == table).count()
        };
        let own = |name: &str| self.of_type[name].references.len();
        all()
            .max_by_key(|name| (belongs(name), own(name), std::cmp::Reverse(*name)))
            .ok_or_else(|| ProposalError::NoMatch { types: String::new(), tables: String::new() })
    }
}

/// How many of a type's values have a column of their name.
fn shared(schema: &Schema, type_name: &str, table: &KnownTable) -> usize {
    let is = |field: &&FieldDef| table.columns.iter().any(|column| same(column, &field.name));
    schema.fields(type_name).iter().filter(is).count()
}

/// Whether every value of a type is a column, two at least.
fn has_all(schema: &Schema, type_name: &str, table: &KnownTable) -> bool {
    let values = schema.fields(type_name).iter().filter(|field| !schema.is_composite(field.ty.name())).count();
    values > 1 && shared(schema, type_name, table) >= values
}

/// Whether a field has the values of a column.
pub(super) fn same(column: &str, field: &str) -> bool {
    let plain = |name: &str| name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect::<String>();
    plain(column) == plain(field)
}

/// The field with a row's key: under its name, or as `rowId` where `id` is a global one.
fn key<'a>(schema: &'a Schema, type_name: &str, table: &KnownTable) -> Option<&'a str> {
    let named = |name: &str| {
        schema.fields(type_name).iter().find(|field| schema.is_single_value(field) && same(name, &field.name))
    };
    let [column] = table.key.as_slice() else { return None };
    let row_id = || named("rowId").filter(|_| column == "id");
    row_id().or_else(|| named(column)).map(|field| field.name.as_str())
}
