//! JSON as it was sent: walked by names without reading what lies beside, and compared as keys are.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object, as they were sent.
pub(crate) type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// Where a walk ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Walked<'a> {
    /// At a value other than null.
    At(&'a RawValue),
    /// At null, at the end or on the way.
    Null,
    /// Nowhere: after so many names there is an object without the next one, or none at all.
    Lost(usize),
}

/// Walks from a value by names of members, from the outside in.
pub(crate) fn walk<'a>(from: &'a RawValue, names: &[String]) -> Walked<'a> {
    let mut at = from;
    for (passed, name) in names.iter().enumerate() {
        if is_null(at) {
            return Walked::Null;
        }
        match member(at, name) {
            Some(next) => at = next,
            None => return Walked::Lost(passed),
        }
    }
    if is_null(at) { Walked::Null } else { Walked::At(at) }
}

/// The members of an object. None: it is none.
pub(crate) fn members(value: &RawValue) -> Option<Members<'_>> {
    if value.get().starts_with('{') { serde_json::from_str(value.get()).ok() } else { None }
}

/// The member of that name. None: it has none, or is no object. Other members are passed over, not read.
fn member<'a>(value: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    if !value.get().starts_with('{') {
        return None;
    }
    serde_json::Deserializer::from_str(value.get()).deserialize_map(Named(name)).ok().flatten()
}

/// Looks for the member of a name.
struct Named<'n>(&'n str);

impl<'de> Visitor<'de> for Named<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_named) = entries.next_key_seed(Is(self.0))? {
            if is_named {
                found = Some(entries.next_value()?);
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a text is that one.
struct Is<'n>(&'n str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E>(self, text: &str) -> Result<bool, E> {
        Ok(text == self.0)
    }
}

/// The elements of a list. None: it is none.
pub(crate) fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    if value.get().starts_with('[') { serde_json::from_str(value.get()).ok() } else { None }
}

/// Whether a value is null.
pub(crate) fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// What a value is, in a word.
pub(crate) fn kind(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b'"') => "text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}

/// What makes two keys the same: the number 7, 7.0 and the text `7` are, whatever servers make of identifiers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Identity {
    /// A text, a number, true or false, by its text.
    Scalar(String),
    /// A list or an object, as JSON without spaces, with names in order.
    Whole(String),
}

impl Identity {
    /// As messages show it.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Scalar(text) | Self::Whole(text) => text,
        }
    }
}

/// What makes a key the same as others. None: it is no JSON, or null.
pub(crate) fn identity(key: &str) -> Option<Identity> {
    let key = key.trim_ascii();
    match key.as_bytes().first()? {
        b'n' => None,
        b'"' => serde_json::from_str(key).ok().map(Identity::Scalar),
        b'{' | b'[' => {
            let mut text = String::new();
            compact(serde_json::from_str(key).ok()?, &mut text)?;
            Some(Identity::Whole(text))
        }
        _ => Some(Identity::Scalar(number(key).to_owned())),
    }
}

/// A number without a fraction of nothing but zeros. Digits are compared as they are, for a float has too few of them.
fn number(text: &str) -> &str {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
        _ => text,
    }
}

fn compact(value: &RawValue, out: &mut String) -> Option<()> {
    if let Some(members) = members(value) {
        out.push('{');
        for (name, member) in members {
            out.push_str(&serde_json::to_string(&name).ok()?);
            out.push(':');
            compact(member, out)?;
            out.push(',');
        }
        out.push('}');
    } else if let Some(elements) = elements(value) {
        out.push('[');
        for element in elements {
            compact(element, out)?;
            out.push(',');
        }
        out.push(']');
    } else if value.get().starts_with('"') {
        let text: String = serde_json::from_str(value.get()).ok()?;
        out.push_str(&serde_json::to_string(&text).ok()?);
    } else {
        out.push_str(number(value.get()));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn numbers_and_their_texts_are_the_same_key() {
        for (one, other) in [
            ("7", "\"7\""),
            ("7.0", "7"),
            ("12345678901234567890123", "\"12345678901234567890123\""),
            ("true", "\"true\""),
            (r#""\u0061""#, r#""a""#),
            (r#"{"b":[1, 2.0],"a":"\u0061"}"#, r#"{ "a": "a", "b": [1,2] }"#),
        ] {
            assert_eq!(identity(one).unwrap(), identity(other).unwrap(), "{one} {other}");
        }
        for (one, other) in [
            ("7", "8"),
            ("9007199254740993", "9007199254740992"),
            ("\"a\"", "\"A\""),
            ("\"07\"", "7"),
            (r#""[1]""#, "[1]"),
            (r#"[1,2]"#, r#"[12]"#),
            (r#"{"a":1}"#, r#"{"a":{}}"#),
        ] {
            assert_ne!(identity(one), identity(other), "{one} {other}");
        }
        assert_eq!((identity("null"), identity(""), identity("{")), (None, None, None));
    }

    #[test]
    fn a_walk_ends_at_a_value_at_null_or_nowhere() {
        let names = |text: &str| text.split('.').filter(|n| !n.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let json = raw(r#"{"a":{"b":[1, 2]},"n":null,"\u0063":1,"big":12345678901234567890.10}"#);
        let at = |path: &str| match walk(&json, &names(path)) {
            Walked::At(value) => value.get().to_owned(),
            Walked::Null => "null".to_owned(),
            Walked::Lost(passed) => format!("lost after {passed}"),
        };
        for (path, end) in [
            ("a.b", "[1, 2]"),
            ("n", "null"),
            ("n.x", "null"),
            ("x", "lost after 0"),
            ("a.x.y", "lost after 1"),
            ("a.b.c", "lost after 2"),
            ("c", "1"),
            ("big", "12345678901234567890.10"),
        ] {
            assert_eq!(at(path), end, "{path}");
        }
    }
}
