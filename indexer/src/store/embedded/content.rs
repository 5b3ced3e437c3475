//! From a document to what tantivy indexes of it, which is what [`indexable`] says.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tantivy::TantivyDocument;
use tantivy::schema::{Field as Handle, OwnedValue};

use super::dates::indexed as date;
use super::schema::{Layout, Slot};
use crate::documents::indexable::{dates, indexable, is_long, numbers};
use crate::store::{Document, DocumentWrite, WriteAction};

/// A write, ready for the writing thread.
pub(super) struct Item {
    pub id: String,
    pub stamp: u64,
    pub change: Change,
}

impl Item {
    /// The fields with values that cannot be searched.
    pub fn unindexed(&self) -> Vec<String> {
        match &self.change {
            Change::Put(_, indexed) => indexed.unindexed.clone(),
            Change::Delete | Change::Reject(_) => Vec::new(),
        }
    }
}

/// What an item does.
pub(super) enum Change {
    Put(Arc<Document>, Box<Indexed>),
    Delete,
    Reject(String),
}

/// What tantivy gets of a document.
pub(super) struct Indexed {
    pub document: TantivyDocument,
    /// Bytes of its stored source.
    pub bytes: usize,
    /// The fields with values that cannot be searched.
    pub unindexed: Vec<String>,
}

/// What is stored of a document. The hash comes first, so that a head is read without its content.
#[derive(Serialize, Deserialize)]
pub(super) struct Source<C, R> {
    pub hash: String,
    pub refs: R,
    pub content: C,
}

/// Prepares a write.
pub(super) fn item(layout: &Layout, write: DocumentWrite) -> Item {
    let change = match (crate::store::unfit_id(&write.id), write.action) {
        (Some(reason), _) => Change::Reject(reason),
        (None, WriteAction::Delete) => Change::Delete,
        (None, WriteAction::Put(document)) => match indexed(layout, &write.id, write.stamp, &document) {
            Ok(indexed) => Change::Put(document, Box::new(indexed)),
            Err(reason) => Change::Reject(reason),
        },
    };
    Item { id: write.id, stamp: write.stamp, change }
}

/// What tantivy gets; the error is why no store takes the document.
pub(super) fn indexed(layout: &Layout, id: &str, stamp: u64, document: &Document) -> Result<Indexed, String> {
    let indexable = indexable(&layout.fields, &document.content)?;
    let mut indexed = TantivyDocument::new();
    indexed.add_text(layout.id, id);
    indexed.add_u64(layout.stamp, stamp);
    for reference in &document.refs {
        indexed.add_text(layout.refs, reference);
    }
    for field in &indexable.unindexed {
        indexed.add_text(layout.unindexed, field);
    }
    let source = Source { hash: document.hash.clone(), refs: &document.refs, content: &document.content };
    let source = serde_json::to_vec(&source).map_err(|e| e.to_string())?;
    indexed.add_bytes(layout.source, &source);
    members(&mut indexed, &layout.slots, &indexable.content);
    Ok(Indexed { document: indexed, bytes: source.len(), unindexed: indexable.unindexed })
}

fn members(into: &mut TantivyDocument, slots: &BTreeMap<String, Slot>, value: &Json) {
    match value {
        Json::Array(values) => values.iter().for_each(|value| members(into, slots, value)),
        Json::Object(map) => map.iter().for_each(|(name, value)| {
            if let Some(slot) = slots.get(name) {
                leaf(into, slot, value);
            }
        }),
        _ => {}
    }
}

fn leaf(into: &mut TantivyDocument, slot: &Slot, value: &Json) {
    match (slot, value) {
        (Slot::Ignore, _) | (_, Json::Null) => {}
        (Slot::Members(slots), value) => members(into, slots, value),
        (_, Json::Array(values)) => values.iter().for_each(|value| leaf(into, slot, value)),
        (Slot::Object(field), Json::Object(map)) => into.add_object(*field, exact_members(map)),
        (Slot::Object(_), _) => {}
        (Slot::Keyword(field), value) => exact(into, *field, &text(value)),
        (Slot::Text { analyzed, raw }, value) => {
            let text = text(value);
            into.add_text(*analyzed, &text);
            exact(into, *raw, &text);
        }
        (Slot::Long(field), value) => numbers::whole(value).into_iter().for_each(|number| into.add_i64(*field, number)),
        (Slot::Double(field), value) => {
            numbers::fractional(value).into_iter().for_each(|number| into.add_f64(*field, number));
        }
        (Slot::Boolean(field), value) => {
            numbers::truth(value).into_iter().for_each(|truth| into.add_bool(*field, truth));
        }
        (Slot::Date(field), value) => {
            dates::millis(value).into_iter().for_each(|millis| into.add_date(*field, date(millis)));
        }
    }
}

/// The same limit as the mapping's `ignore_above`.
fn exact(into: &mut TantivyDocument, field: Handle, text: &str) {
    if !is_long(text) {
        into.add_text(field, text);
    }
}

fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Every value as exact text, as the search servers take it: tantivy would make numbers and dates of some.
fn exact_members(members: &Map<String, Json>) -> BTreeMap<String, OwnedValue> {
    members.iter().map(|(name, value)| (name.clone(), exact_value(value))).collect()
}

fn exact_value(value: &Json) -> OwnedValue {
    match value {
        Json::Null => OwnedValue::Null,
        // A list within a list has no column in tantivy.
        Json::Array(values) => {
            let mut flat = Vec::with_capacity(values.len());
            values.iter().for_each(|value| match exact_value(value) {
                OwnedValue::Array(values) => flat.extend(values),
                value => flat.push(value),
            });
            OwnedValue::Array(flat)
        }
        Json::Object(members) => OwnedValue::Object(exact_members(members).into_iter().collect()),
        value => OwnedValue::Str(text(value)),
    }
}
