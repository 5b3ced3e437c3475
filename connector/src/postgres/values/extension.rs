//! Texts of geometric points and of the types of extensions, as structures that Debezium's consumers know. Pure.
//!
//! | type | value |
//! |---|---|
//! | `point` | `x`, `y`, `wkb` (the point as well-known binary), `srid` (null) |
//! | `geometry`, `geography` (PostGIS) | `wkb` (extended well-known binary), `srid` |
//! | `hstore` | a text that is a JSON object |
//! | `vector`, `halfvec` (pgvector) | an array of numbers |
//! | `sparsevec` (pgvector) | `dimensions`, `vector` (pairs of an index from 1 and a number) |
//!
//! Reference: PostgreSQL documentation, "Geometric Types" and "hstore"; OGC 06-103r4, 8.2 (well-known binary), with the SRID
//! flag of PostGIS; Debezium documentation, PostgreSQL connector, "Data type mappings".

use bytes::Bytes;
use tributary_event::Value;

use super::value::hex;

/// PostGIS sets this bit in the type of a geometry that has a spatial reference.
const HAS_SRID: u32 = 0x2000_0000;

fn object<const N: usize>(members: [(&'static str, Value); N]) -> Value {
    Value::Object(members.map(|(name, value)| (name.into(), value)).into())
}

/// `(1,2)`.
pub(in crate::postgres) fn point(text: &str) -> Option<Value> {
    let (x, y) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(',')?;
    let (x, y): (f64, f64) = (x.parse().ok()?, y.parse().ok()?);
    // Little-endian, a point.
    let wkb = [&[1, 1, 0, 0, 0][..], &x.to_le_bytes(), &y.to_le_bytes()].concat();
    Some(object([
        ("x", Value::Float64(x)),
        ("y", Value::Float64(y)),
        ("wkb", Value::Bytes(wkb.into())),
        ("srid", Value::Null),
    ]))
}

/// Hexadecimal digits of extended well-known binary.
pub(in crate::postgres) fn geometry(text: &str) -> Option<Value> {
    let wkb = hex(text.as_bytes())?;
    let srid = srid(&wkb)?.map_or(Value::Null, |srid| Value::Int(srid.into()));
    Some(object([("wkb", Value::Bytes(wkb)), ("srid", srid)]))
}

/// The spatial reference, if the geometry names one; none at all if the bytes are no geometry.
fn srid(wkb: &Bytes) -> Option<Option<i32>> {
    let word = |at: usize| wkb.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok());
    let big = *wkb.first()? == 0;
    let kind = word(1).map(|b| if big { u32::from_be_bytes(b) } else { u32::from_le_bytes(b) })?;
    if kind & HAS_SRID == 0 {
        return Some(None);
    }
    word(5).map(|b| Some(if big { i32::from_be_bytes(b) } else { i32::from_le_bytes(b) }))
}

/// `[1,2.5]`.
pub(in crate::postgres) fn vector(text: &str) -> Option<Value> {
    let body = text.strip_prefix('[')?.strip_suffix(']')?;
    let numbers: Option<Vec<Value>> = body.split(',').map(|n| n.trim().parse().ok().map(Value::Float64)).collect();
    numbers.map(Value::Array)
}

/// `{1:1.5,3:-2}/5`.
pub(in crate::postgres) fn sparse_vector(text: &str) -> Option<Value> {
    let (body, dimensions) = text.strip_prefix('{')?.split_once("}/")?;
    let pair = |pair: &str| {
        let (index, number) = pair.split_once(':')?;
        Some(Value::Array(vec![Value::Int(index.parse().ok()?), Value::Float64(number.parse().ok()?)]))
    };
    let pairs: Option<Vec<Value>> = body.split(',').filter(|text| !text.is_empty()).map(pair).collect();
    Some(object([("dimensions", Value::Int(dimensions.parse().ok()?)), ("vector", Value::Array(pairs?))]))
}

/// `"a"=>"1", "b"=>NULL`.
pub(in crate::postgres) fn hstore(text: &str, as_map: bool) -> Option<Value> {
    let mut rest = text;
    let mut json = serde_json::Map::new();
    while !rest.is_empty() {
        let key = quoted(&mut rest)?;
        rest = rest.strip_prefix("=>")?;
        let value = match rest.strip_prefix("NULL") {
            Some(after) => {
                rest = after;
                serde_json::Value::Null
            }
            None => quoted(&mut rest)?.into(),
        };
        json.insert(key, value);
        rest = match rest.strip_prefix(", ") {
            Some(after) if !after.is_empty() => after,
            None if rest.is_empty() => rest,
            _ => return None,
        };
    }
    if !as_map {
        return Some(Value::text(serde_json::Value::Object(json).to_string()));
    }
    let value = |value: serde_json::Value| value.as_str().map_or(Value::Null, Value::text);
    Some(Value::Object(json.into_iter().map(|(key, v)| (key.into(), value(v))).collect()))
}

fn quoted(rest: &mut &str) -> Option<String> {
    let mut out = String::new();
    let mut characters = rest.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => {
                *rest = &rest[1 + at + 1..];
                return Some(out);
            }
            '\\' => out.push(characters.next()?.1),
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_texts_never_panic(text: String) {
            let _ = (point(&text), geometry(&text), vector(&text), sparse_vector(&text), hstore(&text, true));
        }

        #[test]
        fn any_pair_survives(key: String, value: Option<String>) {
            let quote = |s: &str| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\""));
            let text = format!("{}=>{}", quote(&key), value.as_deref().map_or("NULL".into(), quote));
            let json = serde_json::json!({ key.as_str(): value });
            prop_assert_eq!(hstore(&text, false), Some(Value::text(json.to_string())));
            let object = Value::Object(vec![(key.clone().into(), value.clone().map_or(Value::Null, Value::text))]);
            prop_assert_eq!(hstore(&text, true), Some(object));
        }
    }

    #[test]
    fn geometries_tell_their_reference() {
        // SRID=4326;POINT(1 2) and POINT(1 2), as PostGIS prints them.
        let with = "0101000020E6100000000000000000F03F0000000000000040";
        let without = "0101000000000000000000F03F0000000000000040";
        let srid = |text: &str| match geometry(text) {
            Some(Value::Object(members)) => members[1].1.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!((srid(with), srid(without)), (Value::Int(4326), Value::Null));
        assert_eq!(geometry("01"), None);
    }

    #[test]
    fn vectors_are_numbers() {
        assert_eq!(vector("[1,-2.5]"), Some(Value::Array(vec![Value::Float64(1.0), Value::Float64(-2.5)])));
        assert_eq!(vector("[1,x]"), None);
        let pairs = |pairs| Some(object([("dimensions", Value::Int(5)), ("vector", Value::Array(pairs))]));
        let one = Value::Array(vec![Value::Int(3), Value::Float64(-2.0)]);
        assert_eq!(sparse_vector("{3:-2}/5"), pairs(vec![one]));
        assert_eq!(sparse_vector("{}/5"), pairs(Vec::new()));
        assert_eq!(sparse_vector("{3}/5"), None);
    }
}
