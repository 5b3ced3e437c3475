//! Where the ids of all root vertices come from, for the first build.
//!
//! What `roots:` says; else the source's table that maps to the root type (one that maps to nothing else is preferred); else a
//! Relay connection of the graph.

use tributary_event::TableName;

use super::Checker;
use super::fan_out::keys;
use crate::definition::{IndexText, RootsText, TableText, listed_tables, tables_like};
use crate::diagnostic::Diagnostic;
use crate::plan::{Paging, RootIds};
use crate::proposal::alike;
use crate::query::{Scalars, sent_as};
use crate::schema::{ArgumentDef, FieldDef, Schema, TypeDef};
use crate::suggest::suggestion;
use crate::yaml::Text;

impl Checker<'_> {
    /// `None`: there is no way, or several, or a hint is wrong, which is said.
    pub(super) fn roots(&mut self, index: &IndexText, root_type: &str) -> Option<RootIds> {
        let found = match &index.roots {
            // Of a source that could not be read whole, nobody knows what it captures.
            Some(RootsText::Table(table)) if !self.definition.complete && self.table(&table.name).is_none() => {
                return None;
            }
            Some(RootsText::Table(table)) => self.declared_table(table, root_type),
            Some(RootsText::Field(field)) => self.declared_field(field, root_type),
            Some(RootsText::Wrong) => return None,
            // The rule that could not be read was told.
            None if self.graph.meant.iter().any(|meant| meant == root_type) => {
                return self.inferred(index, root_type).ok();
            }
            None => self.inferred(index, root_type),
        };
        found.map_err(|diagnostic| self.found.push(*diagnostic)).ok()
    }

    fn declared_table(&self, table: &TableText, root_type: &str) -> Result<RootIds, Box<Diagnostic>> {
        if !self.maps_to(&table.name, root_type) {
            let message = format!("no rule of `graph.vertices` maps `{}` to `{root_type}`", table.shown);
            let help = tables_like(&table.name, self.tables_of(root_type));
            return Err(Box::new(table.spot.error(message).maybe_help(help)));
        }
        let missing = || Box::new(table.spot.error(format!("no source captures the table `{}`", table.shown)));
        self.table(&table.name).ok_or_else(missing)
    }

    fn inferred(&self, index: &IndexText, root_type: &str) -> Result<RootIds, Box<Diagnostic>> {
        let all: Vec<&TableName> = self.tables_of(root_type).filter(|t| self.table(t).is_some()).collect();
        // As written: a rule that is wrong, which is told elsewhere, still says that the table is another's too.
        let own = |table: &&TableName| {
            let mut rules = self.graph.vertices.iter().filter(|rule| rule.table == **table);
            rules.all(|rule| rule.type_name.value == root_type)
        };
        let own: Vec<&TableName> = all.iter().copied().filter(own).collect();
        let mut choice = if own.is_empty() { all } else { own };
        // The one that is named like the type has its rows; the others refer to them.
        let named: Vec<&TableName> =
            choice.iter().copied().filter(|table| alike(&table.name) == alike(root_type)).collect();
        if let [one] = named.as_slice() {
            choice = vec![*one];
        }
        match choice.as_slice() {
            [table] => {
                if let Some(roots) = self.table(table) {
                    return Ok(roots);
                }
            }
            [] => {
                let connection = self
                    .schema
                    .root_fields()
                    .iter()
                    .find_map(|f| paging(self.schema, &self.graph.scalars, f, root_type));
                if let Some(paging) = connection {
                    return Ok(RootIds::Paging(paging));
                }
            }
            several => {
                let message =
                    format!("several tables map to `{root_type}`: {}", listed_tables(several.iter().copied()));
                let help = format!("say which one holds every {root_type}: `roots: {{ table: {} }}`", several[0]);
                return Err(Box::new(index.spot.error(message).help(help)));
            }
        }
        let message = format!("it is unknown where the ids of all `{root_type}` come from");
        let help = format!(
            "map a table to `{root_type}` in `graph.vertices`,\nor name a connection of the graph: `roots: {{ field: <field> }}`"
        );
        Err(Box::new(index.spot.error(message).help(help)))
    }

    fn declared_field(&self, field: &Text, root_type: &str) -> Result<RootIds, Box<Diagnostic>> {
        let Some(root) = self.schema.root_fields().iter().find(|f| f.name == field.value) else {
            let fields = self.schema.root_fields().iter().map(|f| f.name.as_str());
            let message = format!("the schema has no root field `{}`", field.shown);
            return Err(Box::new(field.spot.error(message).maybe_help(suggestion(&field.value, fields))));
        };
        let found = paging(self.schema, &self.graph.scalars, root, root_type);
        found.map(RootIds::Paging).ok_or_else(|| {
            let message = format!("`{}` is no Relay connection of `{root_type}`", root.name);
            let help = "it must take `first: Int` and a cursor `after`, answer `edges { node }` and `pageInfo { hasNextPage endCursor }`,\n\
                        and need no other argument";
            Box::new(field.spot.error(message).help(help))
        })
    }

    fn maps_to(&self, table: &TableName, type_name: &str) -> bool {
        self.vertices.get(table).is_some_and(|rules| rules.iter().any(|rule| rule.type_name == type_name))
    }

    fn tables_of<'s>(&'s self, type_name: &'s str) -> impl Iterator<Item = &'s TableName> {
        self.vertices.keys().filter(move |table| self.maps_to(table, type_name))
    }

    fn table(&self, table: &TableName) -> Option<RootIds> {
        let source = self.definition.sources.iter().find(|source| source.tables().contains(table))?;
        Some(RootIds::Table { source: source.name.clone(), table: table.clone() })
    }
}

/// A query for pages of ids, if the field is a connection of the type.
pub(super) fn paging(schema: &Schema, scalars: &Scalars, root: &FieldDef, root_type: &str) -> Option<Paging> {
    let connection = root.ty.name();
    let (way, node) = schema.vertex_connection(connection)?;
    let takes = |name: &str, scalars: &[&str]| {
        root.argument(name).is_some_and(|a| !a.ty.is_list() && scalars.contains(&a.ty.name()))
    };
    let others = root.arguments.iter().any(|a| a.is_required() && !["first", "after"].contains(&a.name.as_str()));
    let pages = schema.walk(connection, &["pageInfo", "hasNextPage"]).is_some()
        && schema.walk(connection, &["pageInfo", "endCursor"]).is_some();
    if node != root_type || root.ty.is_list() || others || !pages || !takes("first", &["Int"]) {
        return None;
    }
    let cursor = |a: &&ArgumentDef| !a.ty.is_list() && schema.get(a.ty.name()).is_some_and(TypeDef::is_leaf);
    let argument = root.argument("after").filter(cursor)?;
    let after = argument.ty.nullable();
    let mut inner = format!("{{ __typename {} }}", keys(schema, root_type));
    for (i, segment) in way.iter().rev().enumerate() {
        inner = if i == 0 { format!("{segment} {inner}") } else { format!("{segment} {{ {inner} }}") };
    }
    let field = &root.name;
    let query = format!(
        "query RootsOf{root_type}($first: Int!, $after: {after}) {{\n  {field}(first: $first, after: $after) {{\n    {inner}\n    \
         pageInfo {{ hasNextPage endCursor }}\n  }}\n}}\n"
    );
    Some(Paging { query, key: field.clone(), cursor: sent_as(schema, scalars, argument.ty.name()) })
}
