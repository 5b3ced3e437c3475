//! Bytes ↔ values. A whole number of 64 bits that needs all of them is text, never a float that is near it; any other number that is no
//! whole number of 64 bits is a float.

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use vrl::value::{KeyString, ObjectMap, Value};

use crate::fields::Fields;

/// Values inside of values, at most.
pub const DEPTH: usize = 64;

/// Why bytes are no value.
#[derive(Debug, thiserror::Error)]
#[error("it is no JSON that can be taken: {0}")]
pub struct ReadError(#[from] serde_json::Error);

/// The value of JSON.
///
/// # Errors
/// It is no JSON, or has more than [`DEPTH`] values inside of one another.
pub fn read(bytes: &[u8]) -> Result<Value, ReadError> {
    read_some(bytes, &Fields::All)
}

/// The value of JSON without the fields that nobody looks at, which costs a third of it.
///
/// # Errors
/// It is no JSON, has bytes that are no UTF-8 anywhere, or more than [`DEPTH`] values inside of one another in what is read.
pub fn read_some(bytes: &[u8], fields: &Fields) -> Result<Value, ReadError> {
    // UTF-8 is checked once for all bytes: checking each text by itself costs ten times as much.
    let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed { depth: 0, fields }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// Why a value is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It has more than [`DEPTH`] values inside of one another.
    Deep,
    /// It has more bytes than it may.
    Large,
}

/// Whether a value may flow on: it has `most` bytes as JSON, about, and is no deeper than what can be read again.
///
/// # Errors
/// Why it may not.
pub fn fits(value: &Value, most: usize) -> Result<(), Excess> {
    weigh(value, 0, most).map(drop)
}

/// What is left of the bytes. Values that are too deep for the stack are not followed to their end.
fn weigh(value: &Value, depth: usize, left: usize) -> Result<usize, Excess> {
    let take = |left: usize, bytes: usize| left.checked_sub(bytes).ok_or(Excess::Large);
    match value {
        Value::Object(_) | Value::Array(_) if depth >= DEPTH => Err(Excess::Deep),
        Value::Object(fields) => fields.iter().try_fold(take(left, 2)?, |left, (name, value)| {
            weigh(value, depth + 1, take(left, name.as_str().len() + 4)?)
        }),
        Value::Array(items) => {
            items.iter().try_fold(take(left, 2)?, |left, item| weigh(item, depth + 1, take(left, 1)?))
        }
        value => match value.as_bytes() {
            Some(text) => take(left, text.len() + 2),
            None => take(left, 4),
        },
    }
}

/// Takes a value apart from the outside in: one that is too deep would be taken apart on the stack otherwise.
pub fn dismantle(value: Value) {
    let mut left = vec![value];
    while let Some(value) = left.pop() {
        match value {
            Value::Object(fields) => left.extend(fields.into_values()),
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
}

/// Writes a value as JSON behind what is there.
pub fn write(value: &Value, out: &mut Vec<u8>) {
    let begin = out.len();
    // A vector takes every byte, and every value is JSON.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.truncate(begin);
        out.extend_from_slice(b"null");
    }
}

/// A value as a record's key: text as it is, anything else as JSON. None: null.
pub fn key(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::Null => None,
        Value::Bytes(bytes) => Some(bytes.to_vec()),
        Value::String(text) => Some(text.as_bytes().to_vec()),
        value => {
            let mut out = Vec::new();
            write(value, &mut out);
            Some(out)
        }
    }
}

/// Reads a value.
struct Seed<'f> {
    /// So deep it lies.
    depth: usize,
    /// What of it is read, if it is an object.
    fields: &'f Fields,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Seed<'_> {
    fn inside<E: serde::de::Error>(&self) -> Result<usize, E> {
        match self.depth < DEPTH {
            true => Ok(self.depth + 1),
            false => Err(E::custom(format_args!("more than {DEPTH} values inside of one another"))),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::from(value.to_string()), Value::Integer))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from_f64_or_zero(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let depth = self.inside()?;
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Seed { depth, fields: &Fields::All })? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let depth = self.inside()?;
        let mut object = ObjectMap::new();
        while let Some(name) = entries.next_key::<Cow<'_, str>>()? {
            let fields = match self.fields {
                Fields::All => &Fields::All,
                Fields::Some(fields) => match fields.get(&*name) {
                    Some(fields) => fields,
                    None => {
                        entries.next_value::<IgnoredAny>()?;
                        continue;
                    }
                },
            };
            match object.entry(KeyString::from(name)) {
                Entry::Vacant(place) => place.insert(entries.next_value_seed(Seed { depth, fields })?),
                Entry::Occupied(place) => {
                    return Err(A::Error::custom(format_args!("the key {:?} is there twice", place.key())));
                }
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_written_as_it_was() {
        for text in [
            r#"{"a":1,"b":[true,null,"x",-9223372036854775808],"c":{"d":0.1,"e":1e300}}"#,
            r#"{"a":"é\n\"\\","b":{},"c":[]}"#,
            r#"9223372036854775807"#,
        ] {
            let mut out = Vec::new();
            write(&read(text.as_bytes()).expect("it is JSON"), &mut out);
            let same = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).expect("JSON");
            assert_eq!(same(&out), same(text.as_bytes()), "{text}");
        }
        assert_eq!(read(b"18446744073709551615").expect("JSON"), Value::from("18446744073709551615"));
    }

    #[test]
    fn what_cannot_be_taken_is_refused() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(deep(DEPTH).as_bytes()).is_ok());
        for text in
            [deep(DEPTH + 1), deep(100_000), "{".into(), "{} x".into(), r#"{"a":1,"a":2}"#.into(), String::new()]
        {
            assert!(read(text.as_bytes()).is_err());
        }
        assert!(read(b"\"\xff\"").is_err());
        assert!(read_some(b"{\"x\":\"\xff\"}", &Fields::default()).is_err(), "also in what is not read");
    }

    #[test]
    fn what_is_too_deep_or_too_large_is_known_before_it_is_written() {
        let nested = |depth: usize| (0..depth).fold(Value::Null, |inside, _| Value::Array(vec![inside]));
        assert_eq!(fits(&nested(DEPTH), usize::MAX), Ok(()));
        assert_eq!(fits(&nested(DEPTH + 1), usize::MAX), Err(Excess::Deep));
        let deep = nested(200_000);
        assert_eq!(fits(&deep, usize::MAX), Err(Excess::Deep));
        dismantle(deep);
        let value = read(br#"{"text":"0123456789","list":[1,2,3]}"#).expect("JSON");
        assert_eq!(fits(&value, 64), Ok(()));
        assert_eq!(fits(&value, 20), Err(Excess::Large));
    }

    #[test]
    fn keys_are_text_or_json() {
        let key = |text: &str| {
            key(&read(text.as_bytes()).expect("JSON")).map(|key| String::from_utf8_lossy(&key).into_owned())
        };
        assert_eq!(key("7").as_deref(), Some("7"));
        assert_eq!(key(r#""a b""#).as_deref(), Some("a b"));
        assert_eq!(key(r#"{"id":1}"#).as_deref(), Some(r#"{"id":1}"#));
        assert_eq!(key("null"), None);
    }
}
