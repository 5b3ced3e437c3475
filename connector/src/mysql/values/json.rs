//! Documents: MySQL's binary form of JSON, differences between documents, and the text that the server prints.
//!
//! Reference: MySQL Source Code Documentation, `sql-common/json_binary.h` and `sql-common/json_diff.h`.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tributary_event::debezium::json_string;

use super::super::binlog::types;
use super::super::cursor::{Cursor, Malformed};
use super::{decimal, temporal};

/// Documents are not nested deeper by the server than a hundred levels.
const DEEPEST: usize = 110;
const WRONG: Malformed = Malformed("its bytes are no document");

/// A document.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Json {
    /// Null, booleans, numbers: as they are printed.
    Plain(String),
    Text(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// Reads a document.
pub(in super::super) fn read(raw: &[u8]) -> Result<Json, Malformed> {
    match raw.split_first() {
        // What a column holds that was never set, in tables with old rows.
        None => Ok(Json::Plain("null".into())),
        Some((kind, rest)) => value(*kind, rest, 0, &mut Budget(raw.len())),
    }
}

/// Bytes of a document that were not read yet. Its parts lie behind one another, so that more of them than there are bytes overlap: a document
/// of a hundred bytes could have as many values as there are atoms.
struct Budget(usize);

impl Budget {
    fn spend(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.0 = self.0.checked_sub(bytes).ok_or(WRONG)?;
        Ok(())
    }
}

fn value(kind: u8, raw: &[u8], depth: usize, budget: &mut Budget) -> Result<Json, Malformed> {
    let mut cursor = Cursor(raw);
    let plain = |text: String| Ok(Json::Plain(text));
    match kind {
        0..=3 if depth < DEEPEST => container(kind, raw, depth, budget),
        4 => literal(cursor.u8()?),
        5 => plain((cursor.u16()? as i16).to_string()),
        6 => plain(cursor.u16()?.to_string()),
        7 => plain((cursor.u32()? as i32).to_string()),
        8 => plain(cursor.u32()?.to_string()),
        9 => plain((cursor.u64()? as i64).to_string()),
        10 => plain(cursor.u64()?.to_string()),
        11 => plain(double(f64::from_bits(cursor.u64()?))),
        12 => {
            let bytes = sized(&mut cursor)?;
            budget.spend(bytes.len())?;
            Ok(Json::Text(text(bytes)))
        }
        15 => {
            let kind = cursor.u8()?;
            let bytes = sized(&mut cursor)?;
            budget.spend(bytes.len())?;
            opaque(kind, bytes)
        }
        _ => Err(WRONG),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn literal(code: u8) -> Result<Json, Malformed> {
    let word = ["null", "true", "false"].get(usize::from(code)).ok_or(WRONG)?;
    Ok(Json::Plain((*word).to_owned()))
}

/// A number as the server prints it: with an exponent where it has more than 15 digits before the point and none behind it, or more than 14 zeros
/// behind it.
fn double(number: f64) -> String {
    let written = format!("{number:e}");
    let Some((digits, exponent)) = written.split_once('e') else { return written };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let behind = digits.split_once('.').map_or(0, |(_, behind)| behind.len());
    let is_whole = usize::try_from(exponent).is_ok_and(|exponent| behind <= exponent);
    if exponent < -15 || exponent > 14 && is_whole {
        return written;
    }
    // Never with an exponent.
    let plain = number.to_string();
    if plain.contains('.') { plain } else { plain + ".0" }
}

/// Bytes behind their length, which has seven bits a byte.
fn sized<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    let mut length = 0usize;
    for shift in (0..35).step_by(7) {
        let byte = cursor.u8()?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return cursor.take(length);
        }
    }
    Err(WRONG)
}

/// An object or an array, with offsets of two bytes or four.
fn container(kind: u8, raw: &[u8], depth: usize, budget: &mut Budget) -> Result<Json, Malformed> {
    let (is_object, width) = (kind < 2, if kind & 1 == 0 { 2 } else { 4 });
    let mut head = Cursor(raw);
    let (count, size) = (head.uint(width)? as usize, head.uint(width)? as usize);
    let all = raw.get(..size).ok_or(WRONG)?;
    let entry = 1 + width + if is_object { width + 2 } else { 0 };
    if count.saturating_mul(entry) > head.len() {
        return Err(WRONG);
    }
    budget.spend(count * entry)?;
    let mut keys = Vec::new();
    if is_object {
        for _ in 0..count {
            let (at, length) = (head.uint(width)? as usize, usize::from(head.u16()?));
            let key = at.checked_add(length).and_then(|end| all.get(at..end)).ok_or(WRONG)?;
            budget.spend(length)?;
            keys.push(text(key));
        }
    }
    let mut values = Vec::new();
    for _ in 0..count {
        let kind = head.u8()?;
        let inline = head.take(width)?;
        // Small values stand in the place of their offset.
        let is_inline = matches!(kind, 4..=6) || width == 4 && matches!(kind, 7 | 8);
        let at = Cursor(inline).uint(width)? as usize;
        let raw = if is_inline { inline } else { all.get(at..).ok_or(WRONG)? };
        values.push(value(kind, raw, depth + 1, budget)?);
    }
    Ok(if is_object { Json::Object(keys.into_iter().zip(values).collect()) } else { Json::Array(values) })
}

/// A value of a column's type.
fn opaque(kind: u8, raw: &[u8]) -> Result<Json, Malformed> {
    let packed = || Cursor(raw).u64().map(|number| number as i64);
    match kind {
        types::NEWDECIMAL => {
            let (head, digits) = raw.split_at_checked(2).ok_or(WRONG)?;
            decimal::text(digits, usize::from(head[0]), usize::from(head[1])).map(Json::Plain)
        }
        types::DATE => {
            let civil = temporal::packed_datetime(packed()?);
            Ok(Json::Text(civil.text(0)[..10].to_owned()))
        }
        types::DATETIME | types::TIMESTAMP => Ok(Json::Text(temporal::packed_datetime(packed()?).text(6))),
        types::TIME => Ok(Json::Text(temporal::time_text(temporal::packed_time(packed()?), 6))),
        kind => Ok(Json::Text(format!("base64:type{kind}:{}", STANDARD.encode(raw)))),
    }
}

impl Json {
    /// Appends it as the server prints it.
    pub(in super::super) fn print(&self, out: &mut Vec<u8>) {
        match self {
            Self::Plain(text) => out.extend_from_slice(text.as_bytes()),
            Self::Text(text) => json_string(out, text.as_bytes()),
            Self::Array(items) => {
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.extend_from_slice(b", ");
                    }
                    item.print(out);
                }
                out.push(b']');
            }
            Self::Object(members) => {
                out.push(b'{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        out.extend_from_slice(b", ");
                    }
                    json_string(out, name.as_bytes());
                    out.extend_from_slice(b": ");
                    value.print(out);
                }
                out.push(b'}');
            }
        }
    }

    /// Applies differences.
    pub(in super::super) fn apply(&mut self, differences: &[u8]) -> Result<(), Malformed> {
        let mut cursor = Cursor(differences);
        while !cursor.is_empty() {
            let operation = cursor.u8()?;
            let path = std::str::from_utf8(cursor.lenenc_bytes()?).map_err(|_| WRONG)?;
            let path = steps(path).ok_or(WRONG)?;
            let new = if operation == 2 { None } else { Some(read(cursor.lenenc_bytes()?)?) };
            let Some((last, above)) = path.split_last() else {
                *self = new.ok_or(WRONG)?;
                continue;
            };
            let mut at = &mut *self;
            for step in above {
                at = at.child(step).ok_or(WRONG)?;
            }
            match (operation, new) {
                (0, Some(new)) => *at.child(last).ok_or(WRONG)? = new,
                (1, Some(new)) => at.insert(last, new).ok_or(WRONG)?,
                (2, None) => at.remove(last).ok_or(WRONG)?,
                _ => return Err(WRONG),
            }
        }
        Ok(())
    }

    fn child(&mut self, step: &Step) -> Option<&mut Self> {
        match (self, step) {
            (Self::Array(items), Step::Place(at)) => items.get_mut(*at),
            (Self::Object(members), Step::Name(name)) => {
                members.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    fn insert(&mut self, step: &Step, new: Self) -> Option<()> {
        match (self, step) {
            (Self::Array(items), Step::Place(at)) => items.insert((*at).min(items.len()), new),
            (Self::Object(members), Step::Name(name)) => {
                // Keys are ordered by length, then by their bytes.
                let key = |name: &str| (name.len(), name.to_owned());
                let at = members.partition_point(|(other, _)| key(other) < key(name));
                members.insert(at, (name.clone(), new));
            }
            _ => return None,
        }
        Some(())
    }

    fn remove(&mut self, step: &Step) -> Option<()> {
        match (self, step) {
            (Self::Array(items), Step::Place(at)) if *at < items.len() => drop(items.remove(*at)),
            (Self::Object(members), Step::Name(name)) => {
                let at = members.iter().position(|(key, _)| key == name)?;
                members.remove(at);
            }
            _ => return None,
        }
        Some(())
    }
}

/// A step of a path.
#[derive(Debug, PartialEq)]
enum Step {
    Name(String),
    Place(usize),
}

/// The steps of a path such as `$.a[3]."b c"`.
fn steps(path: &str) -> Option<Vec<Step>> {
    let mut rest = path.strip_prefix('$')?;
    let mut steps = Vec::new();
    while let Some(first) = rest.chars().next() {
        let inside = &rest[first.len_utf8()..];
        match first {
            '[' => {
                let (place, after) = inside.split_once(']')?;
                steps.push(Step::Place(place.trim().parse().ok()?));
                rest = after;
            }
            '.' if inside.starts_with('"') => {
                let mut names = serde_json::Deserializer::from_str(inside).into_iter::<String>();
                let name = names.next()?.ok()?;
                rest = &inside[names.byte_offset()..];
                steps.push(Step::Name(name));
            }
            '.' => {
                let end = inside.find(['.', '[']).unwrap_or(inside.len());
                steps.push(Step::Name(inside[..end].to_owned()));
                rest = &inside[end..];
            }
            _ => return None,
        }
    }
    Some(steps)
}

/// The text of a document.
pub(in super::super) fn print(document: &Json) -> String {
    let mut out = Vec::new();
    document.print(&mut out);
    String::from_utf8(out).unwrap_or_else(|error| {
        let mut text = String::new();
        let _ = write!(text, "{}", String::from_utf8_lossy(error.as_bytes()));
        text
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_read() {
        let all = |path: &str| steps(path);
        assert_eq!(all("$"), Some(vec![]));
        assert_eq!(
            all("$.a[3].\"b \\\" c\"[0]"),
            Some(vec![Step::Name("a".into()), Step::Place(3), Step::Name("b \" c".into()), Step::Place(0)])
        );
        assert_eq!(all("a"), None);
    }

    #[test]
    fn numbers_are_printed_as_the_server_prints_them() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.5, "1.5"),
            (1e-8, "0.00000001"),
            (1.5e-15, "0.0000000000000015"),
            (9.5e-16, "9.5e-16"),
            (1e14, "100000000000000.0"),
            (1e15, "1e15"),
            (1_234_567_890_123_456.8, "1234567890123456.8"),
            (-1.234_567_890_123_456_8e17, "-1.2345678901234568e17"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(double(number), text);
        }
    }

    #[test]
    fn differences_are_applied_in_their_order() {
        let mut document = Json::Object(vec![("a".into(), Json::Array(vec![Json::Plain("1".into())]))]);
        // Replace $.a[0] by 7, insert $.b = true, remove $.a.
        let mut differences = vec![0, 6];
        differences.extend_from_slice(b"$.a[0]\x03\x05\x07\x00");
        differences.extend_from_slice(b"\x01\x03$.b\x02\x04\x01");
        document.apply(&differences).expect("applies");
        assert_eq!(print(&document), r#"{"a": [7], "b": true}"#);
        document.apply(b"\x02\x03$.a").expect("applies");
        assert_eq!(print(&document), r#"{"b": true}"#);
        assert!(document.apply(b"\x02\x03$.a").is_err());
    }

    #[test]
    fn a_document_whose_parts_are_one_another_is_refused() {
        // An array of two values, both of which are the array itself.
        let raw = [2, 2, 0, 10, 0, 2, 0, 0, 2, 0, 0];
        assert_eq!(read(&raw), Err(WRONG));
        // Keys that are all the same bytes.
        let mut raw = vec![0, 200, 0, 0, 0];
        (0..200).for_each(|_| raw.extend_from_slice(&[0, 0, 0xff, 0]));
        (0..200).for_each(|_| raw.extend_from_slice(&[4, 0, 0]));
        let size = (raw.len() - 1) as u16;
        raw[3..5].copy_from_slice(&size.to_le_bytes());
        assert_eq!(read(&raw), Err(WRONG));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..120), kind in 0u8..16) {
            let mut framed = vec![kind];
            framed.extend_from_slice(&raw);
            for raw in [&raw, &framed] {
                if let Ok(mut document) = read(raw) {
                    print(&document);
                    let _ = document.apply(&framed);
                }
            }
        }
    }
}
