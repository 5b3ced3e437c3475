//! Rules and hints of the pipeline that name types and fields: do they exist?

use std::collections::BTreeMap;

use super::Checker;
use crate::definition::{GraphText, Kept, similar_tables};
use crate::diagnostic::{Diagnostic, Spot};
use crate::schema::Schema;
use crate::suggest::{did_you_mean, no_key, suggestion};

/// The keys of types by `graph.types`, and what is wrong with them.
pub(super) fn keys(graph: &GraphText, schema: &Schema) -> (BTreeMap<String, String>, Vec<Diagnostic>) {
    let mut keys = BTreeMap::new();
    let mut found = Vec::new();
    for (name, ty) in &graph.types {
        let Some(key) = ty.key.as_ref().filter(|_| schema.get(name).is_some()) else { continue };
        let keyed = schema.with_keys(BTreeMap::from([(name.clone(), key.value.clone())]));
        if keyed.is_vertex(name) {
            keys.insert(name.clone(), key.value.clone());
            continue;
        }
        if keyed.field(name, &key.value).is_none() {
            let fields = schema.fields(name).iter().map(|f| f.name.as_str());
            let message = format!("`{name}` has no field `{}`", key.shown);
            found.push(key.spot.error(message).maybe_help(suggestion(&key.value, fields)));
        } else {
            let message = format!("the field `{}` of `{name}` is no plain value that every object has", key.shown);
            let help = "a key is a scalar or an enum, no list, and needs no arguments";
            found.push(key.spot.error(message).help(help));
        }
    }
    (keys, found)
}

impl Checker<'_> {
    /// `graph.vertices`.
    pub(super) fn rules(&mut self) {
        for rule in &self.graph.vertices {
            let name = &rule.type_name.value;
            match self.schema.get(name) {
                None => {
                    let help = did_you_mean(name, self.schema.type_names());
                    let message = format!("the schema has no type `{}`", rule.type_name.shown);
                    self.found.push(rule.type_name.spot.error(message).maybe_help(help));
                }
                Some(_) if self.schema.is_abstract(name) => {
                    let members: Vec<&str> = self.schema.vertices(name);
                    let message = format!("`{name}` is no object type: a row maps to one type");
                    let help = suggestion("", members.iter().copied());
                    self.found.push(rule.type_name.spot.error(message).maybe_help(help));
                }
                Some(ty) if !ty.is_composite() => {
                    let message = format!("`{name}` is no object type, so no row can be one");
                    self.found.push(rule.type_name.spot.error(message));
                }
                Some(_) if !self.schema.is_vertex(name) => {
                    // A key that is none was told of where it is named.
                    let named = self.graph.types.get(name).is_some_and(|ty| ty.key.is_some());
                    let mut told = self.graph.vertices.iter().take_while(|other| !std::ptr::eq(*other, rule));
                    if !named && !told.any(|other| other.type_name.value == *name) {
                        let made: Vec<&str> = rule.id.columns().collect();
                        let spot = &rule.type_name.spot;
                        self.found.push(no_key(self.schema, name, &made, |message| spot.error(message)));
                    }
                }
                Some(_) => {
                    let rules = self.vertices.entry(rule.table.clone()).or_default();
                    rules.push(rule.rule());
                }
            }
        }
    }

    /// `graph.types` and `graph.edges`, as far as they can be checked without a query.
    pub(super) fn hints(&mut self) {
        for (name, ty) in &self.graph.types {
            self.type_exists(name, &ty.spot);
        }
        for edge in &self.graph.edges {
            if !self.type_exists(&edge.parent, &edge.spot) {
                continue;
            }
            if self.schema.field(&edge.parent, &edge.field).is_none() {
                let fields = self.schema.fields(&edge.parent).iter().map(|f| f.name.as_str());
                let message = format!("`{}` has no field `{}`", edge.parent, edge.field);
                self.found.push(edge.spot.error(message).maybe_help(suggestion(&edge.field, fields)));
            }
            let Some(Kept::Tables(tables)) = &edge.hint.kept else { continue };
            for table in tables.iter().filter(|t| !self.graph.vertices.iter().any(|rule| rule.table == t.name)) {
                let known = self.graph.vertices.iter().map(|rule| &rule.table);
                let message = format!("no rule of `graph.vertices` is for the table `{}`", table.shown);
                self.found.push(table.spot.error(message).maybe_help(similar_tables(&table.name, known)));
            }
        }
    }

    fn type_exists(&mut self, name: &str, spot: &Spot) -> bool {
        let known = self.schema.get(name).is_some();
        if !known {
            let help = did_you_mean(name, self.schema.type_names());
            self.found.push(spot.error(format!("the schema has no type `{name}`")).maybe_help(help));
        }
        known
    }
}
