//! A column's text → its [`Value`], encoded as Debezium does: by default, or as [`ValueOptions`] say.
//!
//! | PostgreSQL | value |
//! |---|---|
//! | boolean, bit(1) | boolean |
//! | smallint, integer, bigint, oid | integer |
//! | real, double precision | float; NaN and infinities keep their names |
//! | numeric(p,s), numeric, money | decimal with the declared scale, or with its own |
//! | date | days since the epoch |
//! | time(p), timestamp(p) | milliseconds for p ≤ 3, else microseconds |
//! | timestamptz, timetz | ISO 8601 text in UTC |
//! | interval | microseconds |
//! | bytea, bit(n), varbit | bytes (bit strings little-endian) |
//! | arrays of these | array; of several dimensions: nested; lower bounds are dropped |
//! | point, hstore, and types of PostGIS and pgvector | see `extension` |
//! | everything else (text, uuid, json, enums, ranges, network, geometric, composite types …) | PostgreSQL's text |
//!
//! A domain is encoded as its base type. Borders of dates and times: see `time`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use bytestring::ByteString;
use tributary_event::Value;

use super::time::Precision;
use super::{array, extension, time};
use crate::settings::{BinaryHandling, TimePrecision, ValueOptions};

/// How the text of a column becomes a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Codec {
    /// `t` or `f`.
    Bool,
    /// A whole number.
    Int,
    /// Single precision.
    Float4,
    /// Double precision.
    Float8,
    /// An exact number with its declared scale.
    Numeric(Option<u16>),
    /// An amount of money: an exact number with two digits behind the point.
    Money,
    /// Days since the epoch.
    Date,
    /// ISO 8601, without a time.
    IsoDate,
    /// Since midnight.
    Time(Precision),
    /// Since the epoch.
    Timestamp(Precision),
    /// ISO 8601, with so many digits of a second.
    TimestampTz(u8),
    /// ISO 8601.
    TimeTz,
    /// Microseconds, or ISO 8601 if true.
    Interval(bool),
    /// Raw bytes, from `\x…`.
    Bytea(BinaryHandling),
    /// One bit: a boolean.
    Bit,
    /// Bits as bytes, the last bit of the text being the lowest of the first byte.
    Bits,
    /// The text itself.
    Text,
    /// A geometric point.
    Point,
    /// PostGIS: extended well-known binary.
    Geometry,
    /// Pairs of texts: an object if true, else the text of one.
    Hstore(bool),
    /// pgvector: numbers.
    Vector,
    /// pgvector: the numbers that are not zero, with their indexes.
    SparseVector,
    /// An array; `delimiter` is `,` but for a few types.
    Array {
        /// The codec of the elements.
        element: Box<Codec>,
        /// The byte between elements.
        delimiter: u8,
    },
}

impl Codec {
    /// The codec of a built-in scalar type (`pg_type.oid`), with the column's `atttypmod`.
    pub fn builtin(oid: u32, modifier: i32, options: ValueOptions) -> Self {
        let adaptive = if (0..=3).contains(&modifier) { Precision::Millis } else { Precision::Micros };
        let (of_day, of_era) = match options.times {
            TimePrecision::Adaptive => (adaptive, adaptive),
            TimePrecision::AdaptiveTimeMicroseconds => (Precision::Micros, adaptive),
            TimePrecision::Milliseconds => (Precision::Millis, Precision::Millis),
            TimePrecision::Microseconds => (Precision::Micros, Precision::Micros),
            TimePrecision::Nanoseconds => (Precision::Nanos, Precision::Nanos),
            TimePrecision::Iso => (Precision::Iso, Precision::Iso),
        };
        match oid {
            16 => Self::Bool,
            20 | 21 | 23 | 26 => Self::Int,
            700 => Self::Float4,
            701 => Self::Float8,
            1700 => Self::Numeric(scale(modifier)),
            790 => Self::Money,
            1082 if options.times == TimePrecision::Iso => Self::IsoDate,
            1082 => Self::Date,
            1083 => Self::Time(of_day),
            1114 => Self::Timestamp(of_era),
            1184 => Self::TimestampTz(u8::try_from(modifier).unwrap_or(6)),
            1266 => Self::TimeTz,
            1186 => Self::Interval(options.intervals_as_text),
            17 => Self::Bytea(options.binary),
            600 => Self::Point,
            1560 if modifier == 1 => Self::Bit,
            1560 | 1562 => Self::Bits,
            _ => Self::Text,
        }
    }

    /// The codec of a type of an extension, by its name.
    pub fn of_extension(name: &str, options: ValueOptions) -> Option<Self> {
        match name {
            "geometry" | "geography" => Some(Self::Geometry),
            "hstore" => Some(Self::Hstore(options.hstore_as_map)),
            "vector" | "halfvec" => Some(Self::Vector),
            "sparsevec" => Some(Self::SparseVector),
            _ => None,
        }
    }

    /// The value of `raw`, which lies within `owner`: text and values that stay text share its memory.
    /// `None` if it is no text of the type.
    pub fn decode(&self, owner: &Bytes, raw: &[u8]) -> Option<Value> {
        Some(match self {
            Self::Text => Value::Text(text(owner, raw)?),
            Self::Int => Value::Int(integer(raw)?),
            Self::Numeric(scale) => Value::Decimal { text: text(owner, raw)?, scale: *scale },
            _ => self.decode_owned(raw)?,
        })
    }

    /// The value of a text that lies nowhere in particular.
    pub fn decode_owned(&self, raw: &[u8]) -> Option<Value> {
        let string = || std::str::from_utf8(raw).ok();
        Some(match self {
            Self::Bool => Value::Bool(match raw {
                b"t" => true,
                b"f" => false,
                _ => return None,
            }),
            Self::Int => Value::Int(integer(raw)?),
            Self::Float4 => Value::Float32(string()?.parse().ok()?),
            Self::Float8 => Value::Float64(string()?.parse().ok()?),
            Self::Numeric(scale) => Value::Decimal { text: string()?.into(), scale: *scale },
            Self::Money => Value::Decimal { text: money(raw)?, scale: Some(2) },
            Self::Date => Value::Int(time::date(raw)?),
            Self::IsoDate => time::iso_date(raw)?,
            Self::Time(precision) => time::time(raw, *precision)?,
            Self::Timestamp(precision) => time::timestamp(raw, *precision)?,
            Self::TimestampTz(digits) => Value::text(time::timestamptz(raw, *digits)?),
            Self::TimeTz => Value::text(time::timetz(raw)?),
            Self::Interval(false) => time::interval(raw)?,
            Self::Interval(true) => Value::text(time::iso_interval(raw)?),
            Self::Bytea(handling) => bytes(hex(raw.strip_prefix(b"\\x")?)?, *handling),
            Self::Bit => Value::Bool(match raw {
                b"1" => true,
                b"0" => false,
                _ => return None,
            }),
            Self::Bits => Value::Bytes(bits(raw)?),
            Self::Point => extension::point(string()?)?,
            Self::Geometry => extension::geometry(string()?)?,
            Self::Hstore(as_map) => extension::hstore(string()?, *as_map)?,
            Self::Vector => extension::vector(string()?)?,
            Self::SparseVector => extension::sparse_vector(string()?)?,
            Self::Text => Value::text(string()?),
            Self::Array { element, delimiter } => {
                array::decode(raw, *delimiter, &mut |item| element.decode_owned(item))?
            }
        })
    }
}

/// The declared scale in the modifier of `numeric` (`numeric.c`, `numeric_typmod_scale`): eleven bits, signed since
/// PostgreSQL 15. A negative scale rounds to tens or hundreds, so there are no digits behind the point.
fn scale(modifier: i32) -> Option<u16> {
    (modifier >= 4).then(|| {
        let raw = ((modifier - 4) & 0x7ff) as u16;
        if raw >= 0x400 { 0 } else { raw }
    })
}

/// Bytes as they are to travel.
pub(in crate::postgres) fn bytes(bytes: Bytes, handling: BinaryHandling) -> Value {
    match handling {
        BinaryHandling::Base64 => Value::Bytes(bytes),
        BinaryHandling::Base64Url => Value::text(URL_SAFE.encode(&bytes)),
        BinaryHandling::Hex => {
            let mut digits = String::with_capacity(2 * bytes.len());
            push_hex(&mut digits, &bytes);
            Value::text(digits)
        }
    }
}

pub(in crate::postgres) fn text(owner: &Bytes, raw: &[u8]) -> Option<ByteString> {
    if raw.is_empty() {
        return Some(ByteString::new());
    }
    ByteString::try_from(owner.slice_ref(raw)).ok()
}

/// A whole number of at most 64 bits, with its sign.
fn integer(raw: &[u8]) -> Option<i64> {
    let (negative, digits) = match raw {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, raw),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut n: i64 = 0;
    for &b in digits {
        if !b.is_ascii_digit() {
            return None;
        }
        // Counting downwards reaches the least number, whose negation does not exist.
        n = n.checked_mul(10)?.checked_sub(i64::from(b - b'0'))?;
    }
    if negative { Some(n) } else { n.checked_neg() }
}

/// `-$1,234.50` as `lc_monetary = C` prints it → `-1234.50`.
fn money(raw: &[u8]) -> Option<ByteString> {
    let mut out = String::with_capacity(raw.len());
    for &b in raw {
        match b {
            b'$' | b',' => {}
            b'-' | b'.' | b'0'..=b'9' => out.push(char::from(b)),
            _ => return None,
        }
    }
    Some(out.into())
}

/// Small hexadecimal digits, as the server prints them.
pub(in crate::postgres) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            out.push(char::from(b"0123456789abcdef"[usize::from(half)]));
        }
    }
}

/// The bytes that hexadecimal digits stand for.
pub(in crate::postgres) fn hex(digits: &[u8]) -> Option<Bytes> {
    let (pairs, rest) = digits.as_chunks::<2>();
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(pairs.len());
    for [high, low] in pairs {
        out.push(digit(*high)? << 4 | digit(*low)?);
    }
    rest.is_empty().then(|| out.into())
}

fn bits(raw: &[u8]) -> Option<Bytes> {
    let mut out = vec![0u8; raw.len().div_ceil(8)];
    for (i, b) in raw.iter().rev().enumerate() {
        match b {
            b'1' => out[i / 8] |= 1 << (i % 8),
            b'0' => {}
            _ => return None,
        }
    }
    Some(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn integers_are_what_the_standard_library_reads(n: i64) {
            prop_assert_eq!(integer(n.to_string().as_bytes()), Some(n));
        }

        #[test]
        fn bytes_survive_hex(bytes: Vec<u8>) {
            let mut text = String::new();
            push_hex(&mut text, &bytes);
            prop_assert_eq!(hex(text.as_bytes()), Some(Bytes::from(bytes)));
        }
    }

    #[test]
    fn scales_come_from_the_modifier() {
        assert_eq!(Codec::builtin(1700, ((12 << 16) | 2) + 4, ValueOptions::default()), Codec::Numeric(Some(2)));
        assert_eq!(Codec::builtin(1700, ((5 << 16) | 0x7fe) + 4, ValueOptions::default()), Codec::Numeric(Some(0)));
        assert_eq!(Codec::builtin(1700, -1, ValueOptions::default()), Codec::Numeric(None));
        assert_eq!(Codec::builtin(1114, 3, ValueOptions::default()), Codec::Timestamp(Precision::Millis));
        assert_eq!(Codec::builtin(1114, -1, ValueOptions::default()), Codec::Timestamp(Precision::Micros));
    }

    #[test]
    fn odd_texts_have_their_values_and_nonsense_has_none() {
        let decode = |codec: Codec, text: &str| codec.decode_owned(text.as_bytes());
        assert_eq!(
            decode(Codec::Money, "-$1,234.50"),
            Some(Value::Decimal { text: "-1234.50".into(), scale: Some(2) })
        );
        assert_eq!(decode(Codec::Bits, "1000000001"), Some(Value::Bytes(vec![1, 2].into())));
        assert_eq!(decode(Codec::Float4, "-Infinity"), Some(Value::Float32(f32::NEG_INFINITY)));
        assert_eq!(decode(Codec::Int, "9223372036854775808"), None);
        assert_eq!(decode(Codec::Int, "-9223372036854775808"), Some(Value::Int(i64::MIN)));
        assert_eq!(decode(Codec::Bool, "x"), None);
    }
}
