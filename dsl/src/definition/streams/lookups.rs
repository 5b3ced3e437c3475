//! `tables:`: topics that steps of streams look into.

use tributary_expression::Shape;

use super::programs::looking;
use crate::keys::TABLES;
use crate::keys::streams::lookups as key;
use crate::keys::values::NameOf;
use crate::plan::LookupTable;
use crate::yaml::{Map, Reader};

/// The tables, as far as they could be read.
pub(in crate::definition) fn read(r: &mut Reader, pipeline: &Map) -> Vec<LookupTable> {
    let mut tables = Vec::new();
    let Some(entries) = r.optional(pipeline, &TABLES) else { return tables };
    for entry in entries.entries() {
        NameOf::TABLE.check_key(r, &entry.0);
        let Some(map) = r.entry(&entries, entry, &&key::TABLE, "{ topic: finance.rates }") else { continue };
        let topic = r.required(&map, &key::TOPIC);
        let row_key = r.optional(&map, &key::ROW_KEY);
        let row_key = row_key.and_then(|text| looking(r, &text, Some(&Shape::any()), "a key"));
        let limit = r.value(&map, &key::LIMIT);
        let name = entry.0.name.clone();
        tables.extend(topic.map(|topic| LookupTable { name, topic: topic.value, key: row_key, limit }));
    }
    tables
}
