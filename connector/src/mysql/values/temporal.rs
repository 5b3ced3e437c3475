//! Dates and times: the packed numbers of the log → the numbers and texts that Debezium uses.
//!
//! Reference: MySQL Source Code Documentation, `my_time_packed_from_binary` and the like; Debezium documentation, MySQL connector,
//! "Temporal types".
//!
//! Zero dates, and dates with a month or day of zero, have no number of days: they stay the text that the server prints.

use std::fmt::Write as _;

use tributary_event::Value;
use tributary_event::calendar::{civil_from_days, days_from_civil};

use super::super::cursor::{Cursor, Malformed};
use crate::settings::TimePrecision;

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// A date, perhaps none of the calendar, and a time of day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Civil {
    pub year: i64,
    pub month: i64,
    pub day: i64,
    /// Microseconds since midnight.
    pub us: i64,
}

impl Civil {
    /// Days since the Unix epoch, if it is a date.
    fn days(&self) -> Option<i64> {
        if !(0..=9_999).contains(&self.year) || self.month == 0 || self.day == 0 {
            return None;
        }
        let days = days_from_civil(self.year, self.month, self.day);
        (civil_from_days(days) == (self.year, self.month, self.day)).then_some(days)
    }

    fn date_text(&self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// As the server prints it.
    pub(in super::super) fn text(&self, digits: u8) -> String {
        let mut out = self.date_text();
        out.push(' ');
        clock(&mut out, self.us, digits);
        out
    }
}

/// `HH:MM:SS.fff`, with so many digits of a second.
fn clock(out: &mut String, us: i64, digits: u8) {
    let seconds = us / 1_000_000;
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if digits > 0 {
        let fraction = format!("{:06}", us % 1_000_000);
        out.push('.');
        out.push_str(&fraction[..usize::from(digits.min(6))]);
    }
}

/// The fraction of a second behind the rest of a value, in microseconds.
fn fraction(cursor: &mut Cursor<'_>) -> Result<i64, Malformed> {
    let bytes = cursor.len();
    let number = cursor.uint_be(bytes.min(3))? as i64;
    Ok(match bytes {
        0 => 0,
        1 => number * 10_000,
        2 => number * 100,
        _ => number,
    })
}

/// The date in three bytes.
pub(in super::super) fn date(raw: &[u8]) -> Result<Civil, Malformed> {
    let number = Cursor(raw).uint(3)? as i64;
    Ok(Civil { year: number >> 9, month: number >> 5 & 15, day: number & 31, us: 0 })
}

/// A date and time of whole seconds, packed as columns and documents have it.
fn unpacked(packed: i64, us: i64) -> Civil {
    let (days, clock) = (packed >> 17, packed & 0x1_ffff);
    let months = days >> 5;
    let seconds = (clock >> 12) * 3_600 + (clock >> 6 & 63) * 60 + (clock & 63);
    Civil { year: months / 13, month: months % 13, day: days & 31, us: seconds * 1_000_000 + us }
}

/// `DATETIME`.
pub(in super::super) fn datetime(raw: &[u8]) -> Result<Civil, Malformed> {
    let mut cursor = Cursor(raw);
    let packed = cursor.uint_be(5)? as i64 - 0x80_0000_0000;
    if packed < 0 {
        return Err(Malformed("a date lies before all dates"));
    }
    Ok(unpacked(packed, fraction(&mut cursor)?))
}

/// `DATETIME` of servers before 5.6: the digits as a number.
pub(in super::super) fn old_datetime(raw: &[u8]) -> Result<Civil, Malformed> {
    let number = Cursor(raw).u64()? as i64;
    let (date, clock) = (number / 1_000_000, number % 1_000_000);
    let seconds = clock / 10_000 * 3_600 + clock / 100 % 100 * 60 + clock % 100;
    Ok(Civil { year: date / 10_000, month: date / 100 % 100, day: date % 100, us: seconds * 1_000_000 })
}

/// A date and time within a document.
pub(in super::super) fn packed_datetime(packed: i64) -> Civil {
    unpacked(packed >> 24, packed & 0xff_ffff)
}

/// `TIME`, in microseconds.
pub(in super::super) fn time(raw: &[u8]) -> Result<i64, Malformed> {
    let mut cursor = Cursor(raw);
    // The fraction belongs to the number, which is negative as a whole.
    let bits = raw.len() * 8;
    let number = cursor.uint_be(raw.len().min(6))? as i64 - (1i64 << (bits.clamp(24, 48) - 1));
    let magnitude = number.unsigned_abs();
    let (whole, us) = match raw.len() {
        3 => (magnitude, 0),
        4 => (magnitude >> 8, (magnitude & 0xff) * 10_000),
        5 => (magnitude >> 16, (magnitude & 0xffff) * 100),
        6 => (magnitude >> 24, magnitude & 0xff_ffff),
        _ => return Err(Malformed("a time has a size that there is not")),
    };
    Ok(of_clock(whole, us, number < 0))
}

/// `TIME` of servers before 5.6.
pub(in super::super) fn old_time(raw: &[u8]) -> Result<i64, Malformed> {
    let number = Cursor(raw).uint(3)? as i64;
    let number = number << 40 >> 40;
    let digits = number.abs();
    let seconds = digits / 10_000 * 3_600 + digits / 100 % 100 * 60 + digits % 100;
    Ok(seconds * 1_000_000 * number.signum())
}

/// A time within a document.
pub(in super::super) fn packed_time(packed: i64) -> i64 {
    let magnitude = packed.unsigned_abs();
    of_clock(magnitude >> 24, magnitude & 0xff_ffff, packed < 0)
}

fn of_clock(clock: u64, us: u64, negative: bool) -> i64 {
    let seconds = (clock >> 12 & 0x3ff) * 3_600 + (clock >> 6 & 63) * 60 + (clock & 63);
    let us = (seconds * 1_000_000 + us) as i64;
    if negative { -us } else { us }
}

/// `TIMESTAMP`: seconds since the Unix epoch, and the microseconds of the second.
pub(in super::super) fn timestamp(raw: &[u8]) -> Result<(i64, i64), Malformed> {
    let mut cursor = Cursor(raw);
    Ok((cursor.uint_be(4)? as i64, fraction(&mut cursor)?))
}

/// As a time is printed, by server and ISO alike.
pub(in super::super) fn time_text(us: i64, digits: u8) -> String {
    let mut out = String::from(if us < 0 { "-" } else { "" });
    clock(&mut out, us.abs(), digits);
    out
}

/// The value of a date.
pub(in super::super) fn date_value(civil: Civil, precision: TimePrecision) -> Value {
    match (civil.days(), precision) {
        (Some(_), TimePrecision::Iso) => Value::text(civil.date_text() + "Z"),
        (Some(days), _) => Value::Int(days),
        (None, _) => Value::text(civil.date_text()),
    }
}

/// The value of a time.
pub(in super::super) fn time_value(us: i64, digits: u8, precision: TimePrecision) -> Value {
    match precision {
        TimePrecision::Adaptive if digits <= 3 => Value::Int(us / 1_000),
        TimePrecision::Milliseconds => Value::Int(us / 1_000),
        TimePrecision::Nanoseconds => Value::Int(us * 1_000),
        TimePrecision::Iso => Value::text(time_text(us, digits) + "Z"),
        TimePrecision::Adaptive | TimePrecision::AdaptiveTimeMicroseconds | TimePrecision::Microseconds => {
            Value::Int(us)
        }
    }
}

/// The value of a date and time without a zone.
pub(in super::super) fn datetime_value(civil: Civil, digits: u8, precision: TimePrecision) -> Value {
    let Some(days) = civil.days() else { return Value::text(civil.text(digits)) };
    let us = days * DAY_US + civil.us;
    match precision {
        TimePrecision::Adaptive | TimePrecision::AdaptiveTimeMicroseconds if digits <= 3 => {
            Value::Int(us.div_euclid(1_000))
        }
        TimePrecision::Milliseconds => Value::Int(us.div_euclid(1_000)),
        TimePrecision::Nanoseconds => us.checked_mul(1_000).map_or_else(|| Value::text(civil.text(digits)), Value::Int),
        TimePrecision::Iso => Value::text(iso(civil, digits)),
        TimePrecision::Adaptive | TimePrecision::AdaptiveTimeMicroseconds | TimePrecision::Microseconds => {
            Value::Int(us)
        }
    }
}

/// The value of a moment: text in UTC, with the digits of its column.
pub(in super::super) fn timestamp_value((seconds, us): (i64, i64), digits: u8) -> Value {
    if seconds == 0 && us == 0 {
        // No moment of the calendar: `TIMESTAMP` begins a second later.
        return Value::text(Civil { year: 0, month: 0, day: 0, us: 0 }.text(digits));
    }
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let us = seconds.rem_euclid(86_400) * 1_000_000 + us;
    Value::text(iso(Civil { year, month, day, us }, digits))
}

fn iso(civil: Civil, digits: u8) -> String {
    let mut out = civil.date_text();
    out.push('T');
    clock(&mut out, civil.us, digits);
    out.push('Z');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn negative_times_keep_their_fractions() {
        // As the server stores -00:00:01.50, -00:00:00.01 and -838:59:59.
        assert_eq!(time(&[0x7f, 0xff, 0xfe, 0xce]).map(|us| time_text(us, 2)), Ok("-00:00:01.50".into()));
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0xff]).map(|us| time_text(us, 2)), Ok("-00:00:00.01".into()));
        assert_eq!(time(&[0x4b, 0x91, 0x05]).map(|us| time_text(us, 0)), Ok("-838:59:59".into()));
        assert_eq!(
            time(&[0x80, 0x00, 0x01, 0x00, 0x00, 0x01]).map(|us| time_text(us, 6)),
            Ok("00:00:01.000001".into())
        );
    }

    #[test]
    fn what_is_no_date_stays_text() {
        let zero = Civil { year: 0, month: 0, day: 0, us: 0 };
        assert_eq!(date_value(zero, TimePrecision::Adaptive), Value::text("0000-00-00"));
        assert_eq!(
            datetime_value(Civil { year: 2020, month: 2, day: 31, us: 0 }, 3, TimePrecision::Adaptive),
            Value::text("2020-02-31 00:00:00.000")
        );
        assert_eq!(timestamp_value((0, 0), 0), Value::text("0000-00-00 00:00:00"));
        assert_eq!(timestamp_value((1, 500_000), 1), Value::text("1970-01-01T00:00:01.5Z"));
    }
}
