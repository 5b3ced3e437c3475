//! Which vertices an answer of a GraphQL service holds: the query asks for the type of each object too, and what was asked for in
//! addition is taken out of answers again.
//!
//! Reference: GraphQL specification of September 2025, "Type Name Introspection", "Selection Sets", "Punctuators".

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::answers::raw::elements;

/// What types are asked for as: no service has such a field.
const FIELD: &str = "tributary_type";
/// Stands for the id of a vertex of which an answer does not say it.
pub(crate) const SOME: &str = "*";

/// A query that asks for types too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Typed {
    pub query: String,
    /// Names that fields have in answers and not in the schema.
    pub aliases: HashSet<String>,
}

impl Typed {
    /// Of a query whose braces, parentheses and texts are closed.
    pub(crate) fn new(query: &str) -> Self {
        let mut typed = Self { query: String::with_capacity(query.len() * 2), aliases: HashSet::new() };
        // Braces within parentheses are those of values.
        let (mut parentheses, mut at) = (0_usize, 0);
        let mut name = "";
        while let Some(first) = query[at..].chars().next() {
            let rest = &query[at..];
            let length = match first {
                '#' => rest.find(['\n', '\r']).unwrap_or(rest.len()),
                '"' => text(rest),
                c if c.is_ascii_alphabetic() || c == '_' => {
                    rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len())
                }
                c => c.len_utf8(),
            };
            let token = &rest[..length];
            typed.query.push_str(token);
            match first {
                '(' => parentheses += 1,
                ')' => parentheses = parentheses.saturating_sub(1),
                '{' if parentheses == 0 => typed.query.push_str(&format!(" {FIELD}: __typename ")),
                ':' if parentheses == 0 => drop(typed.aliases.insert(name.to_owned())),
                _ => {}
            }
            // What may stand between an alias and its colon says nothing.
            if !(first.is_whitespace() || matches!(first, '#' | ',' | '\u{feff}')) {
                name = token;
            }
            at += length;
        }
        typed
    }
}

/// The length of a text that something begins with.
fn text(rest: &str) -> usize {
    let (quote, escape) = if rest.starts_with("\"\"\"") { ("\"\"\"", "\\\"\"\"") } else { ("\"", "\\") };
    let mut at = quote.len();
    while at < rest.len() {
        let left = &rest[at..];
        if let Some(behind) = left.strip_prefix(escape) {
            let behind = behind.chars().next().filter(|_| quote.len() == 1);
            at += escape.len() + behind.map_or(0, char::len_utf8);
        } else if left.starts_with(quote) {
            return at + quote.len();
        } else {
            at += left.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// What an answer is without the types, and what it holds: `Movie:7`, or `Movie:*` where it does not say which one, and `Movie` of either. `ids`:
/// the types of vertices that may change, and which field is the id of each.
pub(crate) fn untyped(
    answer: &Bytes,
    ids: &BTreeMap<String, String>,
    aliases: &HashSet<String>,
) -> (Bytes, BTreeSet<Arc<str>>) {
    let mut holds = BTreeSet::new();
    let Ok(value) = serde_json::from_slice::<&RawValue>(answer) else { return (answer.clone(), holds) };
    let mut text = String::with_capacity(answer.len());
    let is_id = |name: &str| !aliases.contains(name);
    write(value, &mut text, &mut |type_name, members: &Members| {
        let Some(field) = ids.get(type_name) else { return };
        let id = members.iter().find(|(name, _)| name == field && is_id(name)).and_then(|(_, value)| scalar(value));
        let id = id.unwrap_or(Cow::Borrowed(SOME));
        holds.extend([format!("{type_name}:{id}").into(), Arc::from(type_name)]);
    });
    (text.into(), holds)
}

/// Writes a value without types, and tells of each object that had one.
fn write<'a>(value: &'a RawValue, to: &mut String, tell: &mut impl FnMut(&str, &Members<'a>)) {
    if let Some(elements) = elements(value) {
        to.push('[');
        for (n, element) in elements.into_iter().enumerate() {
            if n > 0 {
                to.push(',');
            }
            write(element, to, tell);
        }
        to.push(']');
        return;
    }
    let Some(members) = members(value) else {
        to.push_str(value.get());
        return;
    };
    let type_name = members.iter().find(|(name, _)| name == FIELD);
    if let Some(type_name) = type_name.and_then(|(_, name)| serde_json::from_str::<Cow<str>>(name.get()).ok()) {
        tell(&type_name, &members);
    }
    to.push('{');
    for (n, (name, member)) in members.iter().filter(|(name, _)| name != FIELD).enumerate() {
        if n > 0 {
            to.push(',');
        }
        to.push_str(&serde_json::Value::from(&**name).to_string());
        to.push(':');
        write(member, to, tell);
    }
    to.push('}');
}

/// An id as text: a number or a text. None: it is neither.
fn scalar(value: &RawValue) -> Option<Cow<'_, str>> {
    match value.get().as_bytes().first() {
        Some(b'"') => serde_json::from_str(value.get()).ok(),
        Some(b'-' | b'0'..=b'9') => Some(value.get().into()),
        _ => None,
    }
}

/// The members of an object, in their order.
type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

fn members(value: &RawValue) -> Option<Members<'_>> {
    if !value.get().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(value.get()).deserialize_map(InOrder).ok()
}

struct InOrder;

impl<'de> Visitor<'de> for InOrder {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(entry) = entries.next_entry::<Cow<'de, str>, &'de RawValue>()? {
            members.push(entry);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_asked_for_in_each_selection_and_nowhere_else() {
        let query = r#"query Q($ids: [ID!]! = [], $x: In = {a: "}"}) { movies(ids: $ids, by: {year: {gt: 7}}) @x(a: {b: 1}) {
            # { no
            id, it : title(as: "a\"{", of: """ { \""" { """) ...F ... on Film { year } } }
            fragment F on Movie { lead { id } }"#;
        let typed = Typed::new(query);
        assert_eq!(typed.query.matches(" tributary_type: __typename ").count(), 5, "{}", typed.query);
        assert_eq!(typed.query.replace(" tributary_type: __typename ", ""), query);
        assert_eq!(typed.aliases, HashSet::from(["it".to_owned()]));
    }

    #[test]
    fn answers_are_as_they_would_have_been_and_say_what_they_hold() {
        let ids = BTreeMap::from([("Movie", "id"), ("Talent", "rowId")].map(|(t, f)| (t.to_owned(), f.to_owned())));
        let typed = r#"{"tributary_type":"Movie","id":7,"n":1.00000000000000000001,"a":[{"tributary_type":"Talent","rowId":"x","k":null},
            {"tributary_type":"Talent"},[]],"v":{"tributary_type":"Vendor","id":3},"t":"\u00fc\"{"}"#;
        let (answer, holds) = untyped(&Bytes::from_static(typed.as_bytes()), &ids, &HashSet::new());
        let expected =
            r#"{"id":7,"n":1.00000000000000000001,"a":[{"rowId":"x","k":null},{},[]],"v":{"id":3},"t":"\u00fc\"{"}"#;
        assert_eq!(String::from_utf8_lossy(&answer), expected);
        let held: Vec<&str> = holds.iter().map(|held| &**held).collect();
        assert_eq!(held, ["Movie", "Movie:7", "Talent", "Talent:*", "Talent:x"]);
        // A field that is called like the id says nothing of it.
        let (_, holds) = untyped(&Bytes::from_static(typed.as_bytes()), &ids, &HashSet::from(["id".to_owned()]));
        assert!(holds.contains("Movie:*") && !holds.contains("Movie:7"));
        let (same, holds) = untyped(&Bytes::from_static(b"7"), &ids, &HashSet::new());
        assert_eq!((&same[..], holds.len()), (&b"7"[..], 0));
    }
}
