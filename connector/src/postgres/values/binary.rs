//! What the send functions of PostgreSQL's types write → the same values as of their texts (see `value`).
//!
//! Reference: the functions themselves, in `src/backend/utils/adt` of PostgreSQL: `numeric_send`, `array_send`,
//! `timestamptz_send`, `network_send` and so on.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use bytestring::ByteString;
use tributary_event::{Lsn, Value};

use super::array::MAX_DIMENSIONS;
use super::value::{Codec, bytes, push_hex, text};
use super::{print, time};

/// In which form the values of a type arrive in a stream of binary values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// The type has no send function, so that its values are text there too.
    Output,
    /// One byte.
    Bool,
    /// A whole number with a sign, of 2, 4 or 8 bytes.
    Int,
    /// A whole number of 4 bytes without a sign.
    Unsigned,
    /// IEEE 754, of 4 or 8 bytes.
    Float,
    /// Digits to the base 10000.
    Numeric,
    /// Cents.
    Money,
    /// Days since 2000-01-01.
    Date,
    /// Microseconds since midnight.
    Time,
    /// The same, and seconds to the west of Greenwich.
    TimeTz,
    /// Microseconds since 2000-01-01.
    Timestamp,
    /// The same, in UTC.
    TimestampTz,
    /// Microseconds, days, months.
    Interval,
    /// Raw bytes.
    Bytea,
    /// A number of bits, and the bits from the highest of the first byte on.
    Bits,
    /// Text.
    Text,
    /// Text behind the version of its form, 1.
    Versioned,
    /// 16 bytes.
    Uuid,
    /// An address with its network.
    Network,
    /// 6 or 8 bytes.
    Mac,
    /// A position in the log.
    Lsn,
    /// Two numbers of double precision.
    Point,
    /// Dimensions, and elements in this form.
    Array(Box<Form>),
}

impl Form {
    /// The form that an internal send function writes, by its name in C; `None` for those whose values are read as text
    /// alone (the identifiers behind the names of `regclass`, for one, say nothing outside of their database).
    pub fn of_send_function(name: &str) -> Option<Self> {
        Some(match name {
            "boolsend" => Self::Bool,
            "int2send" | "int4send" | "int8send" => Self::Int,
            "oidsend" | "xidsend" | "cidsend" => Self::Unsigned,
            "float4send" | "float8send" => Self::Float,
            "numeric_send" => Self::Numeric,
            "cash_send" => Self::Money,
            "date_send" => Self::Date,
            "time_send" => Self::Time,
            "timetz_send" => Self::TimeTz,
            "timestamp_send" => Self::Timestamp,
            "timestamptz_send" => Self::TimestampTz,
            "interval_send" => Self::Interval,
            "byteasend" => Self::Bytea,
            "bit_send" | "varbit_send" => Self::Bits,
            "textsend" | "varcharsend" | "bpcharsend" | "namesend" | "enum_send" | "json_send" => Self::Text,
            "jsonb_send" | "jsonpath_send" => Self::Versioned,
            "uuid_send" => Self::Uuid,
            "inet_send" | "cidr_send" => Self::Network,
            "macaddr_send" | "macaddr8_send" => Self::Mac,
            "pg_lsn_send" => Self::Lsn,
            "point_send" => Self::Point,
            _ => return None,
        })
    }

    /// The value of `raw`, which lies within `owner`: text, values that stay text, and bytes share its memory. `None` if it
    /// is not in this form.
    pub fn decode(&self, codec: &Codec, owner: &Bytes, raw: &[u8]) -> Option<Value> {
        Some(match (self, codec) {
            (Self::Text, Codec::Text) => Value::Text(text(owner, raw)?),
            (Self::Versioned, Codec::Text) => Value::Text(text(owner, raw.strip_prefix(&[1])?)?),
            (Self::Bool, Codec::Bool) => Value::Bool(match raw {
                [byte @ (0 | 1)] => *byte == 1,
                _ => return None,
            }),
            (Self::Int, Codec::Int) => Value::Int(int(raw)?),
            (Self::Unsigned, Codec::Int) => Value::Int(i64::from(u32::from_be_bytes(raw.try_into().ok()?))),
            (Self::Float, Codec::Float4) => Value::Float32(f32::from_be_bytes(raw.try_into().ok()?)),
            (Self::Float, Codec::Float8) => Value::Float64(f64::from_be_bytes(raw.try_into().ok()?)),
            (Self::Numeric, Codec::Numeric(scale)) => Value::Decimal { text: numeric(raw)?, scale: *scale },
            (Self::Money, Codec::Money) => Value::Decimal { text: money(int(raw)?), scale: Some(2) },
            (Self::Bytea, Codec::Bytea(handling)) => bytes(owner.slice_ref(raw), *handling),
            (Self::Timestamp, Codec::Timestamp(precision)) => match time::since_epoch(int(raw)?, *precision) {
                Some(value) => value,
                None => self.decode_printed(codec, raw)?,
            },
            (Self::TimestampTz, Codec::TimestampTz(digits)) => match print::iso_timestamp(int(raw)?, *digits) {
                Some(printed) => Value::text(printed),
                None => self.decode_printed(codec, raw)?,
            },
            (Self::Array(form), Codec::Array { element, .. }) => {
                array(raw, &mut |item| form.decode(element, owner, item))?
            }
            _ => self.decode_printed(codec, raw)?,
        })
    }

    /// The value of bytes that lie nowhere in particular.
    pub(in crate::postgres) fn decode_alone(&self, codec: &Codec, raw: &[u8]) -> Option<Value> {
        let owner = Bytes::copy_from_slice(raw);
        self.decode(codec, &owner, &owner)
    }

    /// The value by way of the text that the type's output function prints.
    fn decode_printed(&self, codec: &Codec, raw: &[u8]) -> Option<Value> {
        codec.decode_owned(self.print(raw)?.as_bytes())
    }

    /// What the type's output function prints, with the settings of our sessions; an interval in the units that it has.
    fn print(&self, raw: &[u8]) -> Option<String> {
        Some(match self {
            Self::Int => int(raw)?.to_string(),
            Self::Unsigned => u32::from_be_bytes(raw.try_into().ok()?).to_string(),
            Self::Date => print::date(i32::from_be_bytes(raw.try_into().ok()?)),
            Self::Time => print::clock(u64::try_from(int(raw)?).ok()?),
            Self::TimeTz => {
                let (us, west) = raw.split_first_chunk::<8>()?;
                let west = i32::from_be_bytes(west.try_into().ok()?);
                print::timetz(u64::try_from(i64::from_be_bytes(*us)).ok()?, west.checked_neg()?)
            }
            Self::Timestamp => print::timestamp(int(raw)?, ""),
            Self::TimestampTz => print::timestamp(int(raw)?, "+00"),
            Self::Interval => {
                let (us, rest) = raw.split_first_chunk::<8>()?;
                let (days, months) = rest.split_first_chunk::<4>()?;
                let months = i32::from_be_bytes(months.try_into().ok()?);
                print::interval(months, i32::from_be_bytes(*days), i64::from_be_bytes(*us))
            }
            Self::Bits => {
                let (count, bits) = raw.split_first_chunk::<4>()?;
                let count = usize::try_from(i32::from_be_bytes(*count)).ok().filter(|n| n.div_ceil(8) == bits.len())?;
                let bit = |i: usize| if bits[i / 8] >> (7 - i % 8) & 1 == 1 { '1' } else { '0' };
                (0..count).map(bit).collect()
            }
            Self::Uuid => uuid(raw.try_into().ok()?),
            Self::Network => network(raw)?,
            Self::Mac if matches!(raw.len(), 6 | 8) => {
                raw.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
            }
            Self::Lsn => Lsn(u64::from_be_bytes(raw.try_into().ok()?)).to_string(),
            Self::Point => {
                let (x, y) = raw.split_first_chunk::<8>()?;
                format!("({},{})", f64::from_be_bytes(*x), f64::from_be_bytes(y.try_into().ok()?))
            }
            _ => return None,
        })
    }
}

/// A whole number with a sign, of any width that PostgreSQL has.
fn int(raw: &[u8]) -> Option<i64> {
    Some(match *raw {
        [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        [a, b] => i64::from(i16::from_be_bytes([a, b])),
        _ => return None,
    })
}

/// Cents → `-1234.50`.
fn money(cents: i64) -> ByteString {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100).into()
}

/// Number of digits, weight of the first (a power of 10000), sign, digits behind the point; then the digits.
fn numeric(raw: &[u8]) -> Option<ByteString> {
    let (head, digits) = raw.split_first_chunk::<8>()?;
    let field = |i: usize| u16::from_be_bytes([head[i], head[i + 1]]);
    let (count, weight, sign, scale) = (field(0), field(2).cast_signed(), field(4), usize::from(field(6)));
    let negative = match sign {
        0 => false,
        0x4000 => true,
        0xc000 => return Some(ByteString::from_static("NaN")),
        0xd000 => return Some(ByteString::from_static("Infinity")),
        0xf000 => return Some(ByteString::from_static("-Infinity")),
        _ => return None,
    };
    let (digits, rest) = digits.as_chunks::<2>();
    if digits.len() != usize::from(count) || !rest.is_empty() {
        return None;
    }
    // The digit that stands for this power of 10000, as four decimal ones.
    let decimals = |power: i32| {
        let at = usize::try_from(i32::from(weight) - power).ok();
        let digit = at.and_then(|at| digits.get(at)).map_or(0, |d| u16::from_be_bytes(*d));
        [1000, 100, 10, 1].map(|unit| b'0' + (digit / unit % 10) as u8)
    };
    let mut out = Vec::with_capacity(8 + 4 * digits.len() + scale);
    if negative {
        out.push(b'-');
    }
    let whole = out.len();
    for power in (0..=i32::from(weight)).rev() {
        out.extend(decimals(power));
    }
    let zeros = out[whole..].iter().take_while(|b| **b == b'0').count();
    out.drain(whole..whole + zeros);
    if out.len() == whole {
        out.push(b'0');
    }
    if scale > 0 {
        out.push(b'.');
        let end = out.len() + scale;
        for power in 1.. {
            if out.len() >= end {
                break;
            }
            out.extend(decimals(-power));
        }
        out.truncate(end);
    }
    Some(String::from_utf8(out).ok()?.into())
}

fn uuid(bytes: [u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for part in [0..4, 4..6, 6..8, 8..10, 10..16] {
        if part.start > 0 {
            out.push('-');
        }
        push_hex(&mut out, &bytes[part]);
    }
    out
}

/// Family, length of the network's part in bits, whether it is a `cidr`, number of bytes; then the address.
fn network(raw: &[u8]) -> Option<String> {
    let (&[family, bits, cidr, length], address) = raw.split_first_chunk::<4>()?;
    if usize::from(length) != address.len() {
        return None;
    }
    let (mut out, most) = match family {
        2 => (Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).to_string(), 32),
        3 => (ipv6(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?)), 128),
        _ => return None,
    };
    if cidr == 1 || bits != most {
        write!(out, "/{bits}").ok()?;
    }
    Some(out)
}

/// PostgreSQL prints the last 32 bits of an address that has but zeros before them as it prints IPv4.
fn ipv6(address: Ipv6Addr) -> String {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
            format!("::{}", Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)))
        }
        _ => address.to_string(),
    }
}

/// An array whose elements `element` reads; `None` if it is no array of such elements.
pub(in crate::postgres) fn array(raw: &[u8], element: &mut dyn FnMut(&[u8]) -> Option<Value>) -> Option<Value> {
    Elements { read: element, rest: raw, decimals: 0 }.array()
}

/// The elements of an array, as they are read.
struct Elements<'a> {
    read: &'a mut dyn FnMut(&[u8]) -> Option<Value>,
    rest: &'a [u8],
    /// Bytes of the decimals so far, of which ten bytes may stand for a hundred thousand digits.
    decimals: usize,
}

/// A row of which the server could not make text (1 GB) is none for us either.
const MOST_DECIMALS: usize = 256 << 20;

impl Elements<'_> {
    /// Number of dimensions, whether there are nulls, type of the elements; length and lower bound of each dimension; the
    /// elements.
    fn array(mut self) -> Option<Value> {
        let count = usize::try_from(self.i32()?).ok().filter(|n| *n <= MAX_DIMENSIONS)?;
        let (_nulls, _type) = (self.i32()?, self.i32()?);
        let mut lengths = Vec::with_capacity(count);
        for _ in 0..count {
            // Every row of a dimension has an element at last, so that what is made here is bounded by the bytes.
            lengths.push(self.i32().filter(|length| *length > 0)?);
            self.i32()?;
        }
        let value = if count == 0 { Value::Array(Vec::new()) } else { self.dimension(&lengths)? };
        self.rest.is_empty().then_some(value)
    }

    fn dimension(&mut self, lengths: &[i32]) -> Option<Value> {
        let Some((length, inner)) = lengths.split_first() else { return self.element() };
        let mut items = Vec::new();
        for _ in 0..*length {
            items.push(self.dimension(inner)?);
        }
        Some(Value::Array(items))
    }

    fn element(&mut self) -> Option<Value> {
        let length = self.i32()?;
        if length == -1 {
            return Some(Value::Null);
        }
        let (raw, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.rest = rest;
        let value = (self.read)(raw)?;
        if let Value::Decimal { text, .. } = &value {
            self.decimals += text.len();
        }
        (self.decimals <= MOST_DECIMALS).then_some(value)
    }

    fn i32(&mut self) -> Option<i32> {
        let (head, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(i32::from_be_bytes(*head))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::settings::{TimePrecision, ValueOptions};

    /// A send function of every form, and of every width, and the OID of a type that has it.
    const TYPES: &[(&str, u32)] = &[
        ("boolsend", 16),
        ("int2send", 21),
        ("int4send", 23),
        ("int8send", 20),
        ("oidsend", 26),
        ("xidsend", 28),
        ("float4send", 700),
        ("float8send", 701),
        ("numeric_send", 1700),
        ("cash_send", 790),
        ("date_send", 1082),
        ("time_send", 1083),
        ("timetz_send", 1266),
        ("timestamp_send", 1114),
        ("timestamptz_send", 1184),
        ("interval_send", 1186),
        ("byteasend", 17),
        ("bit_send", 1560),
        ("textsend", 25),
        ("jsonb_send", 3802),
        ("uuid_send", 2950),
        ("inet_send", 869),
        ("macaddr_send", 829),
        ("pg_lsn_send", 3220),
        ("point_send", 600),
    ];

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(raw: Vec<u8>, iso: bool) {
            let times = if iso { TimePrecision::Iso } else { TimePrecision::Nanoseconds };
            let options = ValueOptions { times, intervals_as_text: iso, ..ValueOptions::default() };
            let owner = Bytes::from(raw);
            for (function, oid) in TYPES {
                let form = Form::of_send_function(function).expect("a form");
                let codec = Codec::builtin(*oid, -1, options);
                let _ = form.decode(&codec, &owner, &owner);
                let array = Codec::Array { element: Box::new(codec), delimiter: b',' };
                let _ = Form::Array(Box::new(form)).decode(&array, &owner, &owner);
            }
        }

        #[test]
        fn arrays_claim_no_more_than_their_bytes(lengths in prop::collection::vec(any::<i32>(), 1..7), rest: Vec<u8>) {
            let mut raw = (lengths.len() as i32).to_be_bytes().to_vec();
            raw.extend([0; 8]);
            for length in &lengths {
                raw.extend(length.to_be_bytes());
                raw.extend(1i32.to_be_bytes());
            }
            raw.extend(rest);
            let owner = Bytes::from(raw);
            let array = Codec::Array { element: Box::new(Codec::Int), delimiter: b',' };
            let _ = Form::Array(Box::new(Form::Int)).decode(&array, &owner, &owner);
        }
    }

    fn decode(form: Form, codec: Codec, raw: &[u8]) -> Option<Value> {
        let owner = Bytes::copy_from_slice(raw);
        form.decode(&codec, &owner, &owner)
    }

    #[test]
    fn decimals_have_the_digits_that_the_server_prints() {
        let numeric = |fields: &[u16]| {
            let raw: Vec<u8> = fields.iter().flat_map(|f| f.to_be_bytes()).collect();
            numeric(&raw).map(String::from)
        };
        assert_eq!(numeric(&[2, 0, 0x4000, 2, 12, 5000]).as_deref(), Some("-12.50"));
        assert_eq!(numeric(&[1, 2, 0, 0, 1]).as_deref(), Some("100000000"));
        assert_eq!(numeric(&[1, (-2i16).cast_unsigned(), 0, 8, 123]).as_deref(), Some("0.00000123"));
        assert_eq!(numeric(&[0, 0, 0, 3]).as_deref(), Some("0.000"));
        assert_eq!(numeric(&[0, 0, 0xc000, 0]).as_deref(), Some("NaN"));
        assert_eq!(numeric(&[0, 0, 0xf000, 0]).as_deref(), Some("-Infinity"));
        assert_eq!(numeric(&[2, 0, 0, 0, 1]), None);
        assert_eq!(numeric(&[0, 0, 1, 0]), None);
    }

    #[test]
    fn what_is_not_in_the_form_has_no_value() {
        assert_eq!(decode(Form::Bool, Codec::Bool, &[2]), None);
        assert_eq!(decode(Form::Int, Codec::Int, &[1, 2, 3]), None);
        assert_eq!(decode(Form::Versioned, Codec::Text, b"\x02{}"), None);
        assert_eq!(decode(Form::Versioned, Codec::Text, b"\x01{}"), Some(Value::text("{}")));
        assert_eq!(decode(Form::Text, Codec::Text, b"\xff"), None);
        assert_eq!(decode(Form::Output, Codec::Text, b"x"), None);
        assert_eq!(decode(Form::Network, Codec::Text, &[2, 24, 0, 4, 10, 0, 0, 1]), Some(Value::text("10.0.0.1/24")));
        assert_eq!(decode(Form::Network, Codec::Text, &[2, 24, 0, 5, 10, 0, 0, 1]), None);
        assert_eq!(decode(Form::Mac, Codec::Text, &[1; 7]), None);
    }
}
