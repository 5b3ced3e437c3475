//! How the graph can be looked at before a first build: whether it knows the ids that rules make of rows.

use std::collections::BTreeMap;

use super::Checker;
use super::access::{declared_way, way_to};
use super::roots::paging;
use crate::plan::Probe;
use crate::schema::{FieldDef, TypeRef};

impl Checker<'_> {
    /// For every type that a table maps to.
    pub(super) fn probes(&self) -> BTreeMap<String, Probe> {
        let types = self.vertices.values().flatten().map(|rule| rule.type_name.as_str());
        types.map(|name| (name.to_owned(), self.probe(name))).collect()
    }

    fn probe(&self, name: &str) -> Probe {
        let schema = self.schema;
        let way = match self.graph.types.get(name).and_then(|ty| ty.access.as_ref()) {
            Some(declared) => declared_way(schema, name, declared).ok(),
            None => way_to(schema, name),
        };
        let listing = schema.root_fields().iter().find_map(|field| paging(schema, &self.graph.scalars, field, name));
        // Those that must be there can be keys.
        let can_be = |field: &&FieldDef| {
            matches!(&field.ty, TypeRef::NonNull(inner) if !inner.is_list() && !schema.is_composite(inner.name()))
                && !field.needs_arguments()
                && field.name != schema.key_name(name)
        };
        let mut others: Vec<String> =
            schema.fields(name).iter().filter(can_be).map(|field| field.name.clone()).collect();
        let is_id = |name: &String| name.to_lowercase().ends_with("id");
        if others.iter().any(is_id) {
            others.retain(is_id);
        }
        Probe { question: way.map(|way| self.question("Look", name, way, &[])), listing, others }
    }
}
