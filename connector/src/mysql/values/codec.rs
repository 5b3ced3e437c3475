//! How the values of a column become those of events.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};
use tributary_event::Value;

use super::super::binlog::{ColumnMap, types};
use super::super::cursor::{Cursor, Malformed, to_digits};
use super::charset::Charset;
use super::{decimal, json, temporal};
use crate::dependent::carried::AsId;
use crate::settings::{BinaryHandling, InvalidText, ValueOptions};

/// What a column holds.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) enum Kind {
    Int {
        bytes: u8,
        unsigned: bool,
    },
    Year,
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Bit {
        bits: u16,
    },
    Date,
    Time {
        digits: u8,
    },
    OldTime,
    Datetime {
        digits: u8,
    },
    OldDatetime,
    Timestamp {
        digits: u8,
    },
    OldTimestamp,
    Text(Charset),
    /// Bytes; of a fixed length, zeros at the end are left out by the log.
    Binary {
        padded: Option<u16>,
    },
    Enum(Arc<[ByteString]>),
    Set(Arc<[ByteString]>),
    Json,
    Geometry {
        is_point: bool,
    },
    Vector,
    Uuid,
    Inet4,
    Inet6,
}

/// What the log does not say of a column by itself, from wherever it is known.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(in super::super) struct Described {
    pub unsigned: bool,
    /// The character set, of texts.
    pub charset: Option<String>,
    pub labels: Vec<String>,
    pub is_point: bool,
    /// The name of the type, as `information_schema.columns.data_type` has it; empty: it is not known.
    pub type_name: String,
}

/// Reads the values of a column.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Codec {
    pub kind: Kind,
    values: ValueOptions,
    invalid: InvalidText,
}

/// Why a value cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Unreadable {
    Malformed(Malformed),
    /// Bytes that should be text are none.
    NoText,
}

impl From<Malformed> for Unreadable {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Kind {
    /// What a column holds, by the log and by what is known of it; `Err`: why that cannot be read.
    pub(in super::super) fn of(map: &ColumnMap, described: &Described) -> Result<Self, String> {
        let unsigned = map.unsigned.unwrap_or(described.unsigned);
        let int = |bytes| Self::Int { bytes, unsigned };
        let digits = map.meta.min(6) as u8;
        let labels = || described.labels.iter().map(|label| ByteString::from(label.as_str())).collect();
        let is = |name: &str| described.type_name == name;
        let text = |padded: Option<u16>| match described.charset.as_deref() {
            None | Some("binary") => Ok(Self::Binary { padded }),
            Some(name) => match Charset::named(name) {
                Some(charset) => Ok(Self::Text(charset)),
                None => Err(format!("its character set {name} is not known here: convert it to utf8mb4")),
            },
        };
        Ok(match map.type_code {
            types::TINY => int(1),
            types::SHORT => int(2),
            types::INT24 => int(3),
            types::LONG => int(4),
            types::LONGLONG => int(8),
            types::YEAR => Self::Year,
            types::FLOAT => Self::Float,
            types::DOUBLE => Self::Double,
            types::NEWDECIMAL => Self::Decimal { precision: (map.meta >> 8) as u8, scale: map.meta as u8 },
            types::BIT => Self::Bit { bits: (map.meta >> 8) * 8 + (map.meta & 0xff) },
            types::DATE | types::NEWDATE => Self::Date,
            types::TIME => Self::OldTime,
            types::DATETIME => Self::OldDatetime,
            types::TIMESTAMP => Self::OldTimestamp,
            types::TIME2 => Self::Time { digits },
            types::DATETIME2 => Self::Datetime { digits },
            types::TIMESTAMP2 => Self::Timestamp { digits },
            types::STRING if is("uuid") => Self::Uuid,
            types::STRING if is("inet6") => Self::Inet6,
            types::STRING if is("inet4") => Self::Inet4,
            types::STRING => text(Some(map.meta))?,
            types::VARCHAR | types::VAR_STRING if is("vector") => Self::Vector,
            types::VARCHAR | types::VAR_STRING => text(None)?,
            types::BLOB | types::TINY_BLOB | types::MEDIUM_BLOB | types::LONG_BLOB => text(None)?,
            types::ENUM => Self::Enum(labels()),
            types::SET => Self::Set(labels()),
            types::JSON => Self::Json,
            types::GEOMETRY => Self::Geometry { is_point: map.geometry.map_or(described.is_point, |kind| kind == 1) },
            types::VECTOR => Self::Vector,
            types::VARCHAR_COMPRESSED | types::BLOB_COMPRESSED => {
                return Err(
                    "it is a compressed column: alter it to one that is not, or compress its pages instead".into()
                );
            }
            code => return Err(format!("its type has the number {code}, which is not known here")),
        })
    }

    /// What becomes of values where ids are made of them.
    pub(in super::super) fn as_id(&self) -> AsId {
        match self {
            Self::Int { .. } | Self::Year | Self::Text(_) | Self::Enum(_) | Self::Uuid | Self::Inet4 | Self::Inet6 => {
                AsId::Same
            }
            Self::Decimal { .. } => AsId::Decimal,
            Self::Date => AsId::Date,
            Self::Float | Self::Double => AsId::Never("the same number can be written with more digits or fewer"),
            Self::Bit { .. } => AsId::Never("it is true or false or bytes in events, and a number elsewhere"),
            Self::Time { .. }
            | Self::OldTime
            | Self::Datetime { .. }
            | Self::OldDatetime
            | Self::Timestamp { .. }
            | Self::OldTimestamp => AsId::Never(
                "events have it in UTC or as a number, and every graph writes it in its own way: with another zone, `T` or a blank, \
                 more digits of a second or fewer",
            ),
            Self::Binary { .. } => {
                AsId::Never("bytes are base64 in events, and hexadecimal digits or something else in graphs")
            }
            Self::Set(_) => AsId::Never("it is a list of labels"),
            Self::Json => AsId::Never("the same value can be written with other blanks and in another order"),
            Self::Geometry { .. } => AsId::Never("it is an object in events"),
            Self::Vector => AsId::Never("it is a list"),
        }
    }
}

impl Codec {
    /// A codec for values that travel as is said.
    pub(in super::super) fn new(kind: Kind, values: ValueOptions, invalid: InvalidText) -> Self {
        Self { kind, values, invalid }
    }

    /// Reads a value, which lies within `owner`.
    pub(in super::super) fn decode(&self, owner: &Bytes, raw: &[u8]) -> Result<Value, Unreadable> {
        let times = self.values.times;
        Ok(match &self.kind {
            Kind::Int { bytes, unsigned } => int(Cursor(raw).uint(usize::from(*bytes))?, *bytes, *unsigned),
            Kind::Year => match Cursor(raw).u8()? {
                0 => Value::Int(0),
                year => Value::Int(1_900 + i64::from(year)),
            },
            Kind::Float => Value::Float32(f32::from_bits(Cursor(raw).u32()?)),
            Kind::Double => Value::Float64(f64::from_bits(Cursor(raw).u64()?)),
            Kind::Decimal { precision, scale } => {
                let text = decimal::text(raw, usize::from(*precision), usize::from(*scale))?.into();
                Value::Decimal { text, scale: Some(u16::from(*scale)) }
            }
            Kind::Bit { bits: 1 } => Value::Bool(raw.last().is_some_and(|byte| byte & 1 == 1)),
            // Whatever form bytes have, as in Debezium's messages.
            Kind::Bit { .. } => Value::Bytes(raw.iter().rev().copied().collect()),
            Kind::Date => temporal::date_value(temporal::date(raw)?, times),
            Kind::Time { digits } => temporal::time_value(temporal::time(raw)?, *digits, times),
            Kind::OldTime => temporal::time_value(temporal::old_time(raw)?, 0, times),
            Kind::Datetime { digits } => temporal::datetime_value(temporal::datetime(raw)?, *digits, times),
            Kind::OldDatetime => temporal::datetime_value(temporal::old_datetime(raw)?, 0, times),
            Kind::Timestamp { digits } => temporal::timestamp_value(temporal::timestamp(raw)?, *digits),
            Kind::OldTimestamp => temporal::timestamp_value((i64::from(Cursor(raw).u32()?), 0), 0),
            Kind::Text(charset) => match charset.decode(owner, raw, self.invalid == InvalidText::Replace) {
                Some(text) => Value::Text(text),
                None if self.invalid == InvalidText::Base64 => Value::Bytes(owner.slice_ref(raw)),
                None => return Err(Unreadable::NoText),
            },
            Kind::Binary { padded: Some(length) } if raw.len() < usize::from(*length) => {
                let mut bytes = raw.to_vec();
                bytes.resize(usize::from(*length), 0);
                self.bytes(bytes.into())
            }
            Kind::Binary { .. } => self.bytes(owner.slice_ref(raw)),
            Kind::Enum(labels) => match Cursor(raw).uint(raw.len().min(8))? {
                // The label of a value that was none of them.
                0 => Value::text(""),
                number => Value::Text(labels.get(number as usize - 1).ok_or(NO_LABEL)?.clone()),
            },
            Kind::Set(labels) => set(Cursor(raw).uint(raw.len().min(8))?, labels)?,
            Kind::Json => Value::text(json::print(&json::read(raw)?)),
            Kind::Geometry { is_point } => geometry(owner, raw, *is_point)?,
            Kind::Vector => {
                let (numbers, rest) = raw.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(Malformed("a vector has a size that there is not").into());
                }
                Value::Array(numbers.iter().map(|number| Value::Float32(f32::from_le_bytes(*number))).collect())
            }
            Kind::Uuid => Value::text(uuid(&padded::<16>(raw)?)),
            Kind::Inet6 => Value::text(inet6(padded::<16>(raw)?)),
            Kind::Inet4 => Value::text(std::net::Ipv4Addr::from(padded::<4>(raw)?).to_string()),
        })
    }

    fn bytes(&self, bytes: Bytes) -> Value {
        match self.values.binary {
            BinaryHandling::Base64 => Value::Bytes(bytes),
            BinaryHandling::Base64Url => Value::text(URL_SAFE.encode(bytes)),
            BinaryHandling::Hex => Value::text(to_digits(&bytes)),
        }
    }
}

const NO_LABEL: Malformed = Malformed("a value is none of its column's labels");

/// Bytes without the zeros that the log leaves out.
fn padded<const N: usize>(raw: &[u8]) -> Result<[u8; N], Malformed> {
    let mut bytes = [0; N];
    bytes.get_mut(..raw.len()).ok_or(Malformed("a value is longer than its type"))?.copy_from_slice(raw);
    Ok(bytes)
}

fn int(number: u64, bytes: u8, unsigned: bool) -> Value {
    if unsigned {
        return i64::try_from(number).map_or_else(|_| Value::UInt(number), Value::Int);
    }
    let unused = 64 - u32::from(bytes) * 8;
    Value::Int((number << unused) as i64 >> unused)
}

fn set(bits: u64, labels: &[ByteString]) -> Result<Value, Malformed> {
    if labels.len() < 64 && bits >> labels.len() != 0 {
        return Err(NO_LABEL);
    }
    let chosen = labels.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
    Ok(Value::text(chosen.map(|(_, label)| &**label).collect::<Vec<_>>().join(",")))
}

/// `{"x":…,"y":…,"wkb":…,"srid":…}`, the numbers for points alone.
fn geometry(owner: &Bytes, raw: &[u8], is_point: bool) -> Result<Value, Malformed> {
    let mut cursor = Cursor(raw);
    let srid = cursor.u32()?;
    let mut members = Vec::with_capacity(4);
    let wkb = cursor.0;
    if is_point {
        cursor.take(5)?;
        for name in ["x", "y"] {
            members.push((ByteString::from_static(name), Value::Float64(f64::from_bits(cursor.u64()?))));
        }
    }
    members.push((ByteString::from_static("wkb"), Value::Bytes(owner.slice_ref(wkb))));
    let srid = if srid == 0 { Value::Null } else { Value::Int(i64::from(srid)) };
    members.push((ByteString::from_static("srid"), srid));
    Ok(Value::Object(members))
}

/// As MariaDB prints it. Its log has the bytes in the order of that text.
fn uuid(bytes: &[u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{byte:02x}"));
    }
    out
}

/// As MariaDB prints it: the first of the longest rows of zeros is left out, be it a single one, and an address that is one of the fourth version with
/// zeros before it, or after 0xffff, ends as such.
fn inet6(bytes: [u8; 16]) -> String {
    let groups = std::net::Ipv6Addr::from(bytes).segments();
    let (mut at, mut length) = (0, 0);
    let mut begin = 0;
    for run in groups.chunk_by(|a, b| (*a == 0) == (*b == 0)) {
        if run[0] == 0 && run.len() > length {
            (at, length) = (begin, run.len());
        }
        begin += run.len();
    }
    let [.., a, b, c, d] = bytes;
    let version4 = std::net::Ipv4Addr::new(a, b, c, d);
    let texts = |groups: &[u16]| groups.iter().map(|group| format!("{group:x}")).collect::<Vec<_>>().join(":");
    match (at, length) {
        (0, 6) => format!("::{version4}"),
        (0, 5) if groups[5] == 0xffff => format!("::ffff:{version4}"),
        (_, 0) => texts(&groups),
        (at, length) => format!("{}::{}", texts(&groups[..at]), texts(&groups[at + length..])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> Vec<Kind> {
        let labels: Arc<[ByteString]> = ["a", "b"].map(ByteString::from).into();
        vec![
            Kind::Int { bytes: 3, unsigned: false },
            Kind::Decimal { precision: 10, scale: 2 },
            Kind::Bit { bits: 9 },
            Kind::Date,
            Kind::Time { digits: 3 },
            Kind::OldTime,
            Kind::Datetime { digits: 6 },
            Kind::OldDatetime,
            Kind::Timestamp { digits: 1 },
            Kind::Text(Charset::Utf8),
            Kind::Text(Charset::Table(encoding_rs::GBK)),
            Kind::Text(Charset::WithControls(encoding_rs::ISO_8859_2)),
            Kind::Text(Charset::named("geostd8").expect("a character set")),
            Kind::Text(Charset::Utf32),
            Kind::Binary { padded: Some(8) },
            Kind::Enum(labels.clone()),
            Kind::Set(labels),
            Kind::Json,
            Kind::Geometry { is_point: true },
            Kind::Vector,
            Kind::Uuid,
            Kind::Inet4,
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(raw in proptest::collection::vec(any::<u8>(), 0..40)) {
            let owner = Bytes::from(raw);
            for kind in kinds() {
                let _ = Codec::new(kind, ValueOptions::default(), InvalidText::Stop).decode(&owner, &owner);
            }
        }
    }

    #[test]
    fn integers_have_their_signs() {
        assert_eq!(int(0xff_ffff, 3, false), Value::Int(-1));
        assert_eq!(int(0xff_ffff, 3, true), Value::Int(0xff_ffff));
        assert_eq!(int(u64::MAX, 8, true), Value::UInt(u64::MAX));
        assert_eq!(int(1 << 63, 8, false), Value::Int(i64::MIN));
    }
}
