//! The cells of rows that were selected: how a column is selected, its value as the log gives it, and its part of a place.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bytes::Bytes;
use mysql_async::Value as Raw;
use tributary_event::Value;
use tributary_event::calendar::days_from_civil;

use crate::mysql::cursor::{Malformed, to_digits};
use crate::mysql::tables::{ColumnShape, kind};
use crate::mysql::values::temporal::{self, Civil};
use crate::mysql::values::{Codec, Kind, Unreadable};
use crate::mysql::wire::session::literal;
use crate::settings::{MySqlSettings, TimePrecision};

/// Reads the cells of a column.
#[derive(Debug)]
pub(super) struct Cell {
    codec: Codec,
    times: TimePrecision,
    /// Of texts.
    charset: Option<String>,
}

const WRONG: Unreadable = Unreadable::Malformed(Malformed("a cell is no value of its type"));

impl Cell {
    /// That of a column; `Err`: why it cannot be read.
    pub(super) fn new(column: &ColumnShape, settings: &MySqlSettings) -> Result<Self, String> {
        let codec = Codec::new(kind(column)?, settings.values, settings.invalid_text);
        Ok(Self { codec, times: settings.values.times, charset: column.described.charset.clone() })
    }

    /// What is selected of a column.
    pub(super) fn selected(&self, column: &str) -> String {
        match self.codec.kind {
            // By their numbers, as the log has them: two labels may look alike.
            Kind::Enum(_) | Kind::Set(_) => format!("cast({column} as unsigned)"),
            _ => column.to_owned(),
        }
    }

    /// The value, as the log would give it.
    pub(super) fn value(&self, raw: Raw) -> Result<Value, Unreadable> {
        Ok(match (&self.codec.kind, raw) {
            (_, Raw::NULL) => Value::Null,
            (Kind::Int { .. } | Kind::Year, Raw::Int(number)) => Value::Int(number),
            (Kind::Int { .. } | Kind::Year, Raw::UInt(number)) => {
                i64::try_from(number).map_or_else(|_| Value::UInt(number), Value::Int)
            }
            (Kind::Float, Raw::Float(number)) => Value::Float32(number),
            (Kind::Double, Raw::Double(number)) => Value::Float64(number),
            (Kind::Decimal { scale, .. }, Raw::Bytes(text)) => {
                Value::Decimal { text: digits(&text).ok_or(WRONG)?.into(), scale: Some(u16::from(*scale)) }
            }
            (Kind::Date, raw) => temporal::date_value(civil(&raw).ok_or(WRONG)?, self.times),
            (Kind::Datetime { digits }, raw) => {
                temporal::datetime_value(civil(&raw).ok_or(WRONG)?, *digits, self.times)
            }
            (Kind::Timestamp { digits }, raw) => {
                let civil = civil(&raw).ok_or(WRONG)?;
                let days = if civil.month == 0 { 0 } else { days_from_civil(civil.year, civil.month, civil.day) };
                temporal::timestamp_value((days * 86_400 + civil.us / 1_000_000, civil.us % 1_000_000), *digits)
            }
            (Kind::Time { digits }, raw) => temporal::time_value(time(&raw).ok_or(WRONG)?, *digits, self.times),
            (Kind::Enum(_) | Kind::Set(_), raw) => {
                let bits = number(&raw).ok_or(WRONG)?.to_le_bytes();
                self.codec.decode(&Bytes::copy_from_slice(&bits), &bits)?
            }
            (Kind::Json | Kind::Uuid, Raw::Bytes(text)) => Value::text(String::from_utf8(text).map_err(|_| WRONG)?),
            (Kind::Inet6, Raw::Bytes(text)) => Value::text(parsed::<Ipv6Addr>(&text).ok_or(WRONG)?.to_string()),
            (Kind::Inet4, Raw::Bytes(text)) => Value::text(parsed::<Ipv4Addr>(&text).ok_or(WRONG)?.to_string()),
            (
                Kind::Text(_) | Kind::Binary { .. } | Kind::Bit { .. } | Kind::Geometry { .. } | Kind::Vector,
                Raw::Bytes(raw),
            ) => {
                let owner = Bytes::from(raw);
                self.codec.decode(&owner, &owner)?
            }
            _ => return Err(WRONG),
        })
    }

    /// The part of a place that a cell is.
    pub(super) fn place(&self, raw: &Raw) -> String {
        match (&self.codec.kind, raw) {
            (Kind::Bit { .. }, Raw::Bytes(raw)) => {
                raw.iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)).to_string()
            }
            (Kind::Text(_) | Kind::Binary { .. }, Raw::Bytes(raw)) => to_digits(raw),
            (Kind::Year, raw) => format!("{:04}", number(raw).unwrap_or_default()),
            (_, Raw::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
            (_, Raw::Int(number)) => number.to_string(),
            (_, Raw::UInt(number)) => number.to_string(),
            // Exact: it is compared as a double.
            (_, Raw::Float(number)) => format!("{:e}", f64::from(*number)),
            (_, Raw::Double(number)) => format!("{number:e}"),
            (Kind::Date, raw) => civil(raw).map(|civil| civil.text(0)[..10].to_owned()).unwrap_or_default(),
            (_, Raw::Date(..)) => civil(raw).map(|civil| civil.text(6)).unwrap_or_default(),
            (_, Raw::Time(..)) => time(raw).map(|us| temporal::time_text(us, 6)).unwrap_or_default(),
            (_, Raw::NULL) => String::new(),
        }
    }

    /// A part of a place as SQL writes it; none: it is none of this column.
    pub(super) fn literal(&self, place: &str) -> Option<String> {
        let is = |fits: bool| fits.then(|| place.to_owned());
        match &self.codec.kind {
            // Two digits would be a year of this century or the last.
            Kind::Year => place.parse::<u16>().ok().map(|year| format!("'{year:04}'")),
            Kind::Int { .. } | Kind::Bit { .. } | Kind::Enum(_) | Kind::Set(_) => is(place.parse::<i128>().is_ok()),
            Kind::Float | Kind::Double => is(place.parse::<f64>().is_ok_and(f64::is_finite)),
            Kind::Decimal { .. } => is(digits(place.as_bytes()).is_some()),
            Kind::Text(_) | Kind::Binary { .. } if !place.bytes().all(|byte| byte.is_ascii_hexdigit()) => None,
            Kind::Text(_) => Some(format!("_{} x'{place}'", self.charset.as_deref()?)),
            Kind::Binary { .. } => Some(format!("x'{place}'")),
            _ => Some(literal(place)),
        }
    }
}

fn parsed<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn number(raw: &Raw) -> Option<u64> {
    match raw {
        Raw::UInt(number) => Some(*number),
        Raw::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// The digits of a decimal, without the zeros that `ZEROFILL` puts before them.
fn digits(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let digits = digits.trim_start_matches('0');
    let zero = if digits.is_empty() || digits.starts_with('.') { "0" } else { "" };
    Some(format!("{sign}{zero}{digits}"))
}

fn civil(raw: &Raw) -> Option<Civil> {
    let Raw::Date(year, month, day, hours, minutes, seconds, us) = raw else { return None };
    let seconds = (i64::from(*hours) * 60 + i64::from(*minutes)) * 60 + i64::from(*seconds);
    let us = seconds * 1_000_000 + i64::from(*us);
    Some(Civil { year: (*year).into(), month: (*month).into(), day: (*day).into(), us })
}

fn time(raw: &Raw) -> Option<i64> {
    let Raw::Time(is_negative, days, hours, minutes, seconds, us) = raw else { return None };
    let hours = i64::from(*days) * 24 + i64::from(*hours);
    let us = ((hours * 60 + i64::from(*minutes)) * 60 + i64::from(*seconds)) * 1_000_000 + i64::from(*us);
    Some(if *is_negative { -us } else { us })
}

#[cfg(test)]
mod tests {
    #[test]
    fn decimals_have_the_digits_of_the_log() {
        let digits = |text: &str| super::digits(text.as_bytes());
        assert_eq!(digits("0012.50").as_deref(), Some("12.50"));
        assert_eq!(digits("-0.50").as_deref(), Some("-0.50"));
        assert_eq!(digits("00.00").as_deref(), Some("0.00"));
        assert_eq!(digits("000").as_deref(), Some("0"));
        assert_eq!(digits("1; drop"), None);
    }
}
