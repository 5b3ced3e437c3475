//! How the graph can be looked at before a first build: whether it knows the ids that rules make of rows.

use std::collections::{BTreeMap, BTreeSet};

use super::Checker;
use super::roots::paging;
use crate::plan::Probe;
use crate::schema::FieldDef;
use crate::suggest::names_another;

impl Checker<'_> {
    /// For every type that a table maps to.
    pub(super) fn probes(&self) -> BTreeMap<String, Probe> {
        let types: BTreeSet<&str> = self.vertices.values().flatten().map(|rule| rule.type_name.as_str()).collect();
        types.into_iter().map(|name| (name.to_owned(), self.probe(name))).collect()
    }

    fn probe(&self, name: &str) -> Probe {
        let schema = self.schema;
        let listing = schema.root_fields().iter().find_map(|field| paging(schema, &self.graph.scalars, field, name));
        let can_be = |field: &&FieldDef| schema.is_always_a_value(field) && field.name != schema.key_name(name);
        let mut others: Vec<String> =
            schema.fields(name).iter().filter(can_be).map(|field| field.name.clone()).collect();
        let is_id = |name: &String| name.to_lowercase().ends_with("id");
        if others.iter().any(is_id) {
            others.retain(is_id);
            others.retain(|field| !names_another(schema, name, field));
        }
        Probe { question: self.way(name).map(|way| self.question("Look", name, way, &[])), listing, others }
    }
}
