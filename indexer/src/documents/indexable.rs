//! What of a document is indexed: the same in every store, decided here before a store sees it. Pure.
//!
//! The stores differ in which dates, numbers, texts and keys they read; some refuse a whole document for one of them, some
//! read it as something else, and one or the other version of a server stops at it. So a store only ever gets values that all
//! of them read alike. A value that is none of these is taken out of what is indexed (`null` takes its place), and the
//! top-level member that holds it is kept as it was, beside what is indexed: a document is always given back as it was
//! written. What no store could give back, or what is no document of the plan, is refused, by all of them with one reason.
//!
//! | a value of | is indexed if it is |
//! |---|---|
//! | `Date` | what [`dates`] reads |
//! | `Long`, `Double` | what [`numbers`] reads |
//! | `Boolean` | `true` or `false`, also as text |
//! | `Keyword` | no longer than [`IGNORE_ABOVE`]; stays in its place if it is longer |
//! | `Text` | of any length, where its analyzer cuts it into words |
//! | `Object` | an object; [`members`] says which of its members |
//! | `@nested` | among the first [`MAX_NESTED`] of its document |

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde_json::{Map, Value as Json};
use tributary_dsl::plan::LeafType;

use crate::documents::mapping::{Field, Fields, IGNORE_ABOVE};

pub mod dates;
pub mod members;
pub mod numbers;

/// `@nested` objects of one document that are indexed: the servers' `index.mapping.nested_objects.limit`.
pub const MAX_NESTED: usize = 10_000;

/// Levels of objects and lists in a document: what is read of an answer, which has some around it. (A server sees no more levels
/// than are indexed; the rest is kept as text.)
pub const MAX_DEPTH: usize = crate::documents::json::MAX_LEVELS - 10;

/// Bytes of a document as JSON. A request to a server has at most 100 MiB, and what is kept beside the indexed is in it too.
pub const MAX_BYTES: usize = 32 << 20;

/// Bytes of a member's name: the servers' reader refuses longer ones (counted in characters), even where nothing is indexed.
const MAX_NAME: usize = 50_000;

/// What a store gets of a document.
#[derive(Debug, Clone, PartialEq)]
pub struct Indexable<'a> {
    /// What is indexed: the content without the values that are not.
    pub content: Cow<'a, Json>,
    /// The top-level members that differ in `content`, as they were.
    pub kept: Map<String, Json>,
    /// The plan's fields, by path, with values that are kept and cannot be searched; sorted.
    pub unindexed: Vec<String>,
}

/// Decides what of a document is indexed. The error is why no store takes it.
pub fn indexable<'a>(fields: &Fields, content: &'a Json) -> Result<Indexable<'a>, String> {
    let Json::Object(members) = content else { return Err("its content is no object".to_owned()) };
    let bytes = measure(content, 1)?;
    if bytes > MAX_BYTES {
        return Err(format!("it has {bytes} bytes, and the stores take {MAX_BYTES}"));
    }
    let mut walk = Walk { path: String::new(), unindexed: BTreeSet::new(), nested: 0 };
    let mut kept = Map::new();
    let mut changed = Vec::new();
    for (name, value) in members {
        if let Some(instead) = walk.member(fields, name, value)? {
            kept.insert(name.clone(), value.clone());
            changed.push((name, instead));
        }
    }
    let content = match changed.is_empty() {
        true => Cow::Borrowed(content),
        false => {
            let mut members = members.clone();
            changed.into_iter().for_each(|(name, instead)| {
                members.insert(name.clone(), instead);
            });
            Cow::Owned(Json::Object(members))
        }
    };
    Ok(Indexable { content, kept, unindexed: walk.unindexed.into_iter().collect() })
}

/// Bytes of a value as JSON; the error says that it is too deep.
fn measure(value: &Json, depth: usize) -> Result<usize, String> {
    if depth > MAX_DEPTH && (value.is_object() || value.is_array()) {
        return Err(format!("its objects and lists are nested deeper than {MAX_DEPTH} levels"));
    }
    let mut bytes = 2;
    match value {
        Json::Null | Json::Bool(_) | Json::Number(_) => bytes += 3,
        Json::String(text) => bytes += quoted(text),
        Json::Array(values) => {
            for value in values {
                bytes += 1 + measure(value, depth + 1)?;
            }
        }
        Json::Object(members) => {
            for (name, value) in members {
                bytes += 4 + quoted(name) + measure(value, depth + 1)?;
            }
        }
    }
    Ok(bytes)
}

/// Bytes of a text within its quotation marks.
fn quoted(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

struct Walk {
    /// The path of the field at hand.
    path: String,
    unindexed: BTreeSet<String>,
    /// `@nested` objects so far.
    nested: usize,
}

/// What is indexed instead of a value; `None` if it is indexed as it is.
type Instead = Result<Option<Json>, String>;

impl Walk {
    fn member(&mut self, fields: &Fields, name: &str, value: &Json) -> Instead {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let instead = match fields.get(name) {
            Some(Field::Object { nested, fields }) => self.object(fields, *nested, value),
            Some(Field::Leaf(leaf)) => self.leaf(leaf, value),
            None => Err(format!("field `{}` is not in the plan", self.path)),
        };
        self.path.truncate(length);
        instead
    }

    fn object(&mut self, fields: &Fields, nested: bool, value: &Json) -> Instead {
        match value {
            Json::Null => Ok(None),
            Json::Array(values) => self.values(values, |walk, value| walk.object(fields, nested, value)),
            Json::Object(members) => {
                self.nested += usize::from(nested);
                if nested && self.nested > MAX_NESTED {
                    return self.nothing();
                }
                let mut changed: Option<Map<String, Json>> = None;
                for (name, value) in members {
                    if let Some(instead) = self.member(fields, name, value)? {
                        changed.get_or_insert_with(|| members.clone()).insert(name.clone(), instead);
                    }
                }
                Ok(changed.map(Json::Object))
            }
            other => Err(self.refusal("an object", other)),
        }
    }

    fn values(&mut self, values: &[Json], mut each: impl FnMut(&mut Self, &Json) -> Instead) -> Instead {
        let mut changed: Option<Vec<Json>> = None;
        for (place, value) in values.iter().enumerate() {
            if let Some(instead) = each(self, value)? {
                changed.get_or_insert_with(|| values.to_vec())[place] = instead;
            }
        }
        Ok(changed.map(Json::Array))
    }

    fn leaf(&mut self, leaf: &LeafType, value: &Json) -> Instead {
        match (leaf, value) {
            (_, Json::Null) => Ok(None),
            (LeafType::Ignore, value) if has_long_names(value) => Ok(Some(Json::Null)),
            (LeafType::Ignore, _) => Ok(None),
            (_, Json::Array(values)) => self.values(values, |walk, value| walk.leaf(leaf, value)),
            (LeafType::Object, Json::Object(map)) => match members::indexed(&self.path, map) {
                None => Ok(None),
                Some(indexed) => {
                    self.unindexed.insert(self.path.clone());
                    Ok(Some(Json::Object(indexed)))
                }
            },
            (LeafType::Object, _) => self.nothing(),
            (leaf, Json::Object(_)) => Err(self.refusal(kind(leaf), value)),
            (LeafType::Keyword, Json::String(text)) if is_long(text) => {
                self.unindexed.insert(self.path.clone());
                Ok(None)
            }
            (LeafType::Keyword, _) => Ok(None),
            (LeafType::Text { analyzer }, Json::String(text)) if is_one_long_word(analyzer, text) => self.nothing(),
            (LeafType::Text { .. }, _) => Ok(None),
            (LeafType::Long, value) => self.nothing_unless(numbers::whole(value).is_some()),
            (LeafType::Double, value) => self.nothing_unless(numbers::fractional(value).is_some()),
            (LeafType::Boolean, value) => self.nothing_unless(numbers::truth(value).is_some()),
            (LeafType::Date, value) => match dates::unambiguous(value) {
                Some(instead) => Ok(Some(instead)),
                None => self.nothing_unless(dates::millis(value).is_some()),
            },
        }
    }

    fn nothing_unless(&mut self, indexed: bool) -> Instead {
        if indexed { Ok(None) } else { self.nothing() }
    }

    fn nothing(&mut self) -> Instead {
        if !self.unindexed.contains(&self.path) {
            self.unindexed.insert(self.path.clone());
        }
        Ok(Some(Json::Null))
    }

    fn refusal(&self, kind: &str, value: &Json) -> String {
        format!("field `{}` is {kind} in the plan, and the document has {}", self.path, shown(value))
    }
}

fn kind(leaf: &LeafType) -> &'static str {
    match leaf {
        LeafType::Keyword => "exact text",
        LeafType::Text { .. } => "text",
        LeafType::Long => "a whole number",
        LeafType::Double => "a number",
        LeafType::Boolean => "true or false",
        LeafType::Date => "a date",
        LeafType::Object | LeafType::Ignore => "an object",
    }
}

/// Whether an exact text is too long for an index. The limit counts UTF-16 units, of which a text never has more than bytes.
pub fn is_long(text: &str) -> bool {
    text.len() > IGNORE_ABOVE && text.encode_utf16().count() > IGNORE_ABOVE
}

/// Lucene refuses a document for a word above 32,766 bytes. These analyzers can make one; the others cut at 255 characters.
fn is_one_long_word(analyzer: &str, text: &str) -> bool {
    match analyzer {
        "keyword" => is_long(text),
        "pattern" => is_long(text) && text.split(|c: char| !c.is_alphanumeric() && c != '_').any(is_long),
        _ => false,
    }
}

fn has_long_names(value: &Json) -> bool {
    match value {
        Json::Array(values) => values.iter().any(has_long_names),
        Json::Object(members) => members.iter().any(|(name, value)| name.len() > MAX_NAME || has_long_names(value)),
        _ => false,
    }
}

fn shown(value: &Json) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(60).chain(['…']).collect() }
}

#[cfg(test)]
#[path = "indexable_tests.rs"]
mod tests;
