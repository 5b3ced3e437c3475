//! From a document to what tantivy indexes of it. Values that a search server would refuse are refused here with the
//! same care: a value of another type, or a member that the plan does not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use tantivy::TantivyDocument;
use tantivy::schema::{Field as Handle, OwnedValue};

use super::dates;
use super::schema::{Layout, Slot};
use crate::mapping::IGNORE_ABOVE;
use crate::store::{Document, DocumentWrite, WriteAction};

/// A write, ready for the writing thread.
pub(super) struct Item {
    pub id: String,
    pub stamp: u64,
    pub change: Change,
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

/// What tantivy gets; the error names the field.
pub(super) fn indexed(layout: &Layout, id: &str, stamp: u64, document: &Document) -> Result<Indexed, String> {
    let Json::Object(_) = &document.content else { return Err("its content is no object".to_owned()) };
    let mut indexed = TantivyDocument::new();
    indexed.add_text(layout.id, id);
    indexed.add_u64(layout.stamp, stamp);
    for reference in &document.refs {
        indexed.add_text(layout.refs, reference);
    }
    let source = Source { hash: document.hash.clone(), refs: &document.refs, content: &document.content };
    let source = serde_json::to_vec(&source).map_err(|e| e.to_string())?;
    indexed.add_bytes(layout.source, &source);
    members(&mut indexed, &layout.fields, &document.content, "")?;
    Ok(Indexed { document: indexed, bytes: source.len() })
}

fn members(into: &mut TantivyDocument, slots: &BTreeMap<String, Slot>, value: &Json, path: &str) -> Result<(), String> {
    match value {
        Json::Null => Ok(()),
        Json::Array(values) => values.iter().try_for_each(|value| members(into, slots, value, path)),
        Json::Object(map) => map.iter().try_for_each(|(name, value)| {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match slots.get(name) {
                Some(Slot::Members(slots)) => members(into, slots, value, &path),
                Some(slot) => leaf(into, slot, value, &path),
                None => Err(format!("field `{path}` is not in the plan")),
            }
        }),
        other => Err(format!("field `{path}` is an object in the plan, and the document has {}", shown(other))),
    }
}

fn leaf(into: &mut TantivyDocument, slot: &Slot, value: &Json, path: &str) -> Result<(), String> {
    let refused =
        |kind: &str| Err(format!("field `{path}` is {kind} in the plan, and the document has {}", shown(value)));
    match (slot, value) {
        (Slot::Ignore, _) | (_, Json::Null) => {}
        (_, Json::Array(values)) => return values.iter().try_for_each(|value| leaf(into, slot, value, path)),
        (Slot::Object(field), Json::Object(map)) => {
            into.add_object(*field, map.iter().map(|(k, v)| (k.clone(), OwnedValue::from(v.clone()))).collect());
        }
        (Slot::Object(_), _) => return refused("an object"),
        (Slot::Keyword(field), value) => match text(value) {
            Some(text) => exact(into, *field, &text),
            None => return refused("exact text"),
        },
        (Slot::Text { analyzed, raw }, value) => match text(value) {
            Some(text) => {
                into.add_text(*analyzed, &text);
                exact(into, *raw, &text);
            }
            None => return refused("text"),
        },
        (Slot::Long(field), value) => match whole(value) {
            Some(number) => into.add_i64(*field, number),
            None => return refused("a whole number"),
        },
        (Slot::Double(field), value) => match text(value).and_then(|t| t.parse::<f64>().ok()).filter(|n| n.is_finite())
        {
            Some(number) => into.add_f64(*field, number),
            None => return refused("a number"),
        },
        (Slot::Boolean(field), value) => {
            match value.as_bool().or_else(|| value.as_str().and_then(|t| t.parse().ok())) {
                Some(truth) => into.add_bool(*field, truth),
                None => return refused("true or false"),
            }
        }
        (Slot::Date(field), value) => match dates::of(value) {
            Some(date) => into.add_date(*field, date),
            None => return refused("a date"),
        },
        (Slot::Members(slots), value) => return members(into, slots, value, path),
    }
    Ok(())
}

/// The same limit as the mapping's `ignore_above`: a longer value is kept, but not found.
fn exact(into: &mut TantivyDocument, field: Handle, text: &str) {
    if text.encode_utf16().count() <= IGNORE_ABOVE {
        into.add_text(field, text);
    }
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(number) => Some(number.to_string()),
        Json::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// Numbers in strings count, and fractions are cut off, as the servers' `coerce` does it.
fn whole(value: &Json) -> Option<i64> {
    match value {
        Json::Number(_) | Json::String(_) => {
            let text = text(value)?;
            let cut = |number: f64| (number.is_finite() && number.abs() < 9.2e18).then_some(number as i64);
            text.parse().ok().or_else(|| text.parse().ok().and_then(cut))
        }
        _ => None,
    }
}

fn shown(value: &Json) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(60).chain(['…']).collect() }
}
