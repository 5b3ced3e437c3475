//! From the shape of documents to their mapping, and what differs between two mappings. Pure.
//!
//! A mapping is `dynamic: strict`: a member the plan does not know is refused with its name, instead of being kept
//! unsearchable (`false`) or guessed at (`true`, where the first document decides the type of all). Content that has no
//! fixed members is declared `object` and becomes one `flattened` (OpenSearch: `flat_object`) field.
//!
//! `@nested` objects are mapped with `include_in_root`, so that the same query text (`talents.name:"Ridley Scott"`) finds
//! them without a nested query; nested queries stay possible.
//!
//! Beside the plan's fields a document holds four of ours: [`REFS`], [`STAMP`], [`HASH`] and [`KEY`]. The last repeats the
//! document's id as a keyword with doc values: neither server sorts by `_id` unless fielddata is switched on for it. A document
//! with values that cannot be indexed ([`indexable`](crate::documents::indexable)) has [`KEPT`] and [`UNINDEXED`] too.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};
use tributary_dsl::plan::{FieldKind, LeafType, Selection};

/// Holds the vertices a document embeds.
pub const REFS: &str = "_refs";
/// Holds the stamp of a document's last write.
pub const STAMP: &str = "_stamp";
/// Holds the hash of a document's content.
pub const HASH: &str = "_hash";
/// Holds a document's id once more, to sort by.
pub const KEY: &str = "_key";
/// Holds, as JSON text, the top-level members of a document that differ from what is indexed of them.
pub const KEPT: &str = "_kept";
/// Holds the paths of a document's fields with values that are kept and cannot be searched.
pub const UNINDEXED: &str = "_unindexed";

/// Fields of ours that an index of an earlier version lacks, and that can be added to it.
const ADDABLE: [&str; 2] = [KEPT, UNINDEXED];

/// Lucene refuses a term above 32,766 bytes, and with it the document; a longer keyword is kept but not indexed. A character
/// (UTF-16 unit) is 4 bytes at most.
pub const IGNORE_ABOVE: usize = 8191;

/// How dates are read: ISO 8601 with any precision down from the year, or milliseconds since 1970.
pub const DATE_FORMAT: &str = "strict_date_optional_time||epoch_millis";

/// Names a document's top level may not use: ours, and the metadata fields of the servers.
const RESERVED: [&str; 18] = [
    REFS,
    STAMP,
    HASH,
    KEY,
    KEPT,
    UNINDEXED,
    "_id",
    "_source",
    "_index",
    "_type",
    "_routing",
    "_version",
    "_seq_no",
    "_field_names",
    "_ignored",
    "_size",
    "_tier",
    "_doc_count",
];

/// Whose words a mapping is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Elasticsearch; also what the embedded index keeps beside its files.
    Elasticsearch,
    /// OpenSearch.
    OpenSearch,
}

/// A field of a document, fragments merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A value.
    Leaf(LeafType),
    /// An object with fields of its own.
    Object {
        /// Whether each object of a list is searched by itself.
        nested: bool,
        /// Its fields by name.
        fields: Fields,
    },
}

/// Fields by name.
pub type Fields = BTreeMap<String, Field>;

/// A query whose documents cannot be mapped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// Two fragments give one name to values of different kinds.
    #[error(
        "field `{path}` is selected as {first} and as {second} in different fragments, and one index field cannot hold both: \
         give one of them an alias"
    )]
    Conflict {
        /// The field.
        path: String,
        /// One kind.
        first: String,
        /// The other.
        second: String,
    },
    /// A field has a name that the store keeps for itself.
    #[error("field `{0}` has a name that the store keeps for itself: give it an alias")]
    Reserved(String),
}

/// The fields of documents of a shape: hidden ones left out, those of fragments merged.
pub fn fields(shape: &Selection) -> Result<Fields, MappingError> {
    let mut fields = Fields::new();
    merge_selection(&mut fields, shape, "")?;
    match fields.keys().find(|name| RESERVED.contains(&name.as_str())) {
        Some(name) => Err(MappingError::Reserved(name.clone())),
        None => Ok(fields),
    }
}

fn merge_selection(into: &mut Fields, selection: &Selection, path: &str) -> Result<(), MappingError> {
    for selected in selection.fields.iter().filter(|f| !f.hidden) {
        let path = join(path, &selected.key);
        let nested = match &selected.kind {
            FieldKind::Object { nested, .. } => nested,
            _ => &false,
        };
        let field = match selected.shown().0 {
            FieldKind::LastPage => continue,
            FieldKind::Leaf(leaf) => Field::Leaf(leaf.clone()),
            FieldKind::Object { selection, .. } => {
                let mut fields = match into.remove(&selected.key) {
                    None => Fields::new(),
                    Some(Field::Object { nested: before, fields }) if before == *nested => fields,
                    Some(other) => return Err(conflict(&path, &other, word_of_object(*nested))),
                };
                merge_selection(&mut fields, selection, &path)?;
                Field::Object { nested: *nested, fields }
            }
        };
        match into.get(&selected.key) {
            Some(before) if *before != field => return Err(conflict(&path, before, word(&field))),
            _ => into.insert(selected.key.clone(), field),
        };
    }
    Ok(())
}

fn conflict(path: &str, first: &Field, second: String) -> MappingError {
    MappingError::Conflict { path: path.to_owned(), first: word(first), second }
}

fn word(field: &Field) -> String {
    match field {
        Field::Leaf(LeafType::Text { analyzer }) => format!("text ({analyzer})"),
        Field::Leaf(leaf) => format!("{leaf:?}").to_lowercase(),
        Field::Object { nested, .. } => word_of_object(*nested),
    }
}

fn word_of_object(nested: bool) -> String {
    if nested { "nested objects" } else { "an object" }.to_owned()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The mapping of documents of a shape.
pub fn mapping(shape: &Selection, dialect: Dialect) -> Result<Json, MappingError> {
    let mut properties = properties(&fields(shape)?, dialect);
    properties.insert(REFS.to_owned(), json!({ "type": "keyword" }));
    properties.insert(STAMP.to_owned(), json!({ "type": "long" }));
    properties.insert(HASH.to_owned(), json!({ "type": "keyword", "index": false, "doc_values": false }));
    properties.insert(KEY.to_owned(), json!({ "type": "keyword" }));
    properties.insert(KEPT.to_owned(), unparsed());
    properties.insert(UNINDEXED.to_owned(), json!({ "type": "keyword" }));
    Ok(json!({ "dynamic": "strict", "properties": properties }))
}

fn properties(fields: &Fields, dialect: Dialect) -> Map<String, Json> {
    fields.iter().map(|(name, field)| (name.clone(), property(field, dialect))).collect()
}

fn property(field: &Field, dialect: Dialect) -> Json {
    let keyword = json!({ "type": "keyword", "ignore_above": IGNORE_ABOVE });
    match field {
        Field::Leaf(LeafType::Keyword) => keyword,
        Field::Leaf(LeafType::Text { analyzer }) => {
            json!({ "type": "text", "analyzer": analyzer, "fields": { "raw": keyword } })
        }
        Field::Leaf(LeafType::Long) => json!({ "type": "long" }),
        Field::Leaf(LeafType::Double) => json!({ "type": "double" }),
        Field::Leaf(LeafType::Boolean) => json!({ "type": "boolean" }),
        Field::Leaf(LeafType::Date) => json!({ "type": "date", "format": DATE_FORMAT }),
        Field::Leaf(LeafType::Object) => match dialect {
            Dialect::Elasticsearch => json!({ "type": "flattened", "ignore_above": IGNORE_ABOVE }),
            Dialect::OpenSearch => json!({ "type": "flat_object" }),
        },
        Field::Leaf(LeafType::Ignore) => unparsed(),
        Field::Object { nested: true, fields } => json!({
            "type": "nested", "include_in_root": true, "dynamic": "strict", "properties": properties(fields, dialect),
        }),
        Field::Object { nested: false, fields } => {
            json!({ "dynamic": "strict", "properties": properties(fields, dialect) })
        }
    }
}

/// `enabled: false` takes values of every kind, not only objects, and parses none of them.
fn unparsed() -> Json {
    json!({ "type": "object", "enabled": false })
}

/// Paths of the fields that a query without a field name is asked of: text and keywords.
pub fn default_search_fields(fields: &Fields) -> Vec<String> {
    let mut paths = Vec::new();
    collect(fields, "", &mut |path, leaf| {
        if matches!(leaf, LeafType::Keyword | LeafType::Text { .. }) {
            paths.push(path.to_owned());
        }
    });
    paths
}

/// Calls `each` with the path and type of every value.
pub fn collect(fields: &Fields, path: &str, each: &mut dyn FnMut(&str, &LeafType)) {
    for (name, field) in fields {
        let path = join(path, name);
        match field {
            Field::Leaf(leaf) => each(&path, leaf),
            Field::Object { fields, .. } => collect(fields, &path, each),
        }
    }
}

/// The fields of ours that a planned mapping has and a found one lacks, and that can be added to an index as it is.
pub fn additions(planned: &Json, found: &Json) -> Map<String, Json> {
    let absent = ADDABLE.iter().filter(|name| found["properties"][**name].is_null());
    absent.map(|name| ((*name).to_owned(), planned["properties"][*name].clone())).collect()
}

/// What differs between the mapping that a plan asks for and the one that was found: one line a field, sorted. What
/// [`additions`] gives is no difference.
pub fn differences(planned: &Json, found: &Json) -> Vec<String> {
    let (planned, found) = (flat(planned), flat(found));
    let mut paths: Vec<&String> = planned.keys().chain(found.keys()).collect();
    paths.sort();
    paths.dedup();
    let line = |path: &&String| match (planned.get(*path), found.get(*path)) {
        (Some(planned), Some(found)) if planned == found => None,
        (Some(planned), Some(found)) => Some(format!("`{path}` is {found} and should be {planned}")),
        (Some(_), None) if ADDABLE.contains(&path.as_str()) => None,
        (Some(planned), None) => Some(format!("`{path}` is missing and should be {planned}")),
        (None, Some(found)) => Some(format!("`{path}` is {found} and is not in the plan")),
        (None, None) => None,
    };
    paths.iter().filter_map(line).collect()
}

/// Path → settings in words that do not depend on which defaults a server leaves out.
fn flat(mapping: &Json) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    flatten(mapping, "", &mut flat);
    flat
}

fn flatten(mapping: &Json, path: &str, into: &mut BTreeMap<String, String>) {
    for (member, separator) in [("properties", "."), ("fields", ".")] {
        let Some(children) = mapping.get(member).and_then(Json::as_object) else { continue };
        for (name, child) in children {
            let path = if path.is_empty() { name.clone() } else { format!("{path}{separator}{name}") };
            into.insert(path.clone(), settings(child));
            flatten(child, &path, into);
        }
    }
}

fn settings(field: &Json) -> String {
    let kind = field.get("type").and_then(Json::as_str).unwrap_or("object");
    let mut words = vec![kind.to_owned()];
    for (name, value) in field.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match (name.as_str(), value.as_str()) {
            // Servers say these or not when they are the default; `dynamic` is inherited.
            ("type" | "properties" | "fields" | "dynamic", _) => {}
            ("analyzer", "standard") | ("format", DATE_FORMAT) | ("enabled", "true") => {}
            ("index" | "doc_values", "true") | ("include_in_root", "false") => {}
            (name, value) => words.push(format!("{name} {value}")),
        }
    }
    words[1..].sort();
    words.join(", ")
}

#[cfg(test)]
#[path = "mapping_tests.rs"]
mod tests;
