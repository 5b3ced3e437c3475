//! The schema of an embedded index: one tantivy field per value of the plan, named by its path.
//!
//! Numbers and dates are columns alone: a query looks through the column. A dictionary of terms costs every commit something,
//! however few documents it has; for the same reason dictionaries are sorted tables (tantivy's feature `quickwit`), which
//! are built several times faster than its finite state transducers and are quick enough to look into.

use std::collections::BTreeMap;

use tantivy::schema::{
    DateOptions, DateTimePrecision, FAST, Field as Handle, INDEXED, IndexRecordOption, JsonObjectOptions, STORED,
    Schema, SchemaBuilder, TextFieldIndexing, TextOptions,
};
use tributary_dsl::plan::LeafType;

use super::analyzers;
use crate::documents::mapping::{Field, Fields, REFS, STAMP, UNINDEXED};

/// The document's id: exact, sorted, and as a column.
pub(super) const ID: &str = "_id";
/// What is given back: hash, references and content, as JSON.
pub(super) const SOURCE: &str = "_source";

/// Where a document's parts go.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub id: Handle,
    pub refs: Handle,
    pub stamp: Handle,
    pub unindexed: Handle,
    pub source: Handle,
    /// The plan's fields. Empty when opened to read, like the slots: only writing needs them.
    pub fields: Fields,
    pub slots: BTreeMap<String, Slot>,
}

/// Where a member goes.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    Keyword(Handle),
    Text { analyzed: Handle, raw: Handle },
    Long(Handle),
    Double(Handle),
    Boolean(Handle),
    Date(Handle),
    Object(Handle),
    Ignore,
    Members(BTreeMap<String, Slot>),
}

/// The schema of documents with these fields; the error names an analyzer that is not there.
pub(super) fn build(fields: &Fields) -> Result<Schema, String> {
    let mut builder = Schema::builder();
    builder.add_text_field(ID, exact().set_fast("raw"));
    builder.add_text_field(REFS, exact());
    builder.add_u64_field(STAMP, FAST);
    builder.add_text_field(UNINDEXED, exact().set_fast("raw"));
    builder.add_bytes_field(SOURCE, STORED);
    add(&mut builder, fields, "")?;
    Ok(builder.build())
}

fn exact() -> TextOptions {
    let indexing = TextFieldIndexing::default().set_tokenizer(analyzers::EXACT);
    TextOptions::default()
        .set_indexing_options(indexing.set_index_option(IndexRecordOption::Basic).set_fieldnorms(false))
}

fn path_of(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn add(builder: &mut SchemaBuilder, fields: &Fields, path: &str) -> Result<(), String> {
    for (name, field) in fields {
        let path = path_of(path, name);
        match field {
            Field::Object { fields, .. } => add(builder, fields, &path)?,
            Field::Leaf(LeafType::Ignore) => {}
            Field::Leaf(LeafType::Keyword) => {
                builder.add_text_field(&path, exact().set_fast("raw"));
            }
            Field::Leaf(LeafType::Text { analyzer }) => {
                let Some(tokenizer) = analyzers::tokenizer(analyzer) else {
                    let known = analyzers::names().collect::<Vec<_>>().join(", ");
                    return Err(format!(
                        "field `{path}` asks for the analyzer `{analyzer}`; the embedded index has {known}"
                    ));
                };
                let indexing = TextFieldIndexing::default().set_tokenizer(&tokenizer);
                let indexing = indexing.set_index_option(IndexRecordOption::WithFreqsAndPositions);
                builder.add_text_field(&path, TextOptions::default().set_indexing_options(indexing));
                builder.add_text_field(&format!("{path}.raw"), exact().set_fast("raw"));
            }
            Field::Leaf(LeafType::Long) => {
                builder.add_i64_field(&path, FAST);
            }
            Field::Leaf(LeafType::Double) => {
                builder.add_f64_field(&path, FAST);
            }
            Field::Leaf(LeafType::Boolean) => {
                builder.add_bool_field(&path, INDEXED | FAST);
            }
            Field::Leaf(LeafType::Date) => {
                // Nothing is rounded: see `dates.rs` for what is counted.
                let options = DateOptions::default().set_fast();
                builder.add_date_field(&path, options.set_precision(DateTimePrecision::Nanoseconds));
            }
            Field::Leaf(LeafType::Object) => {
                let indexing = TextFieldIndexing::default().set_tokenizer(analyzers::EXACT);
                let indexing = indexing.set_index_option(IndexRecordOption::Basic).set_fieldnorms(false);
                // A name with dots is a path, as on the search servers.
                let options = JsonObjectOptions::default().set_expand_dots_enabled();
                builder.add_json_field(&path, options.set_indexing_options(indexing).set_fast("raw"));
            }
        }
    }
    Ok(())
}

impl Layout {
    /// The layout of a schema; `fields` may be empty for reading.
    pub fn of(schema: &Schema, fields: &Fields) -> tantivy::Result<Self> {
        Ok(Self {
            id: schema.get_field(ID)?,
            refs: schema.get_field(REFS)?,
            stamp: schema.get_field(STAMP)?,
            unindexed: schema.get_field(UNINDEXED)?,
            source: schema.get_field(SOURCE)?,
            slots: slots(schema, fields, "")?,
            fields: fields.clone(),
        })
    }
}

fn slots(schema: &Schema, fields: &Fields, path: &str) -> tantivy::Result<BTreeMap<String, Slot>> {
    let slot = |(name, field): (&String, &Field)| {
        let path = path_of(path, name);
        let handle = || schema.get_field(&path);
        let slot = match field {
            Field::Object { fields, .. } => Slot::Members(slots(schema, fields, &path)?),
            Field::Leaf(LeafType::Ignore) => Slot::Ignore,
            Field::Leaf(LeafType::Keyword) => Slot::Keyword(handle()?),
            Field::Leaf(LeafType::Text { .. }) => {
                Slot::Text { analyzed: handle()?, raw: schema.get_field(&format!("{path}.raw"))? }
            }
            Field::Leaf(LeafType::Long) => Slot::Long(handle()?),
            Field::Leaf(LeafType::Double) => Slot::Double(handle()?),
            Field::Leaf(LeafType::Boolean) => Slot::Boolean(handle()?),
            Field::Leaf(LeafType::Date) => Slot::Date(handle()?),
            Field::Leaf(LeafType::Object) => Slot::Object(handle()?),
        };
        Ok((name.clone(), slot))
    };
    fields.iter().map(slot).collect()
}
