//! PostgreSQL's text of dates and times (DateStyle ISO, IntervalStyle postgres, TimeZone UTC) → the numbers and texts
//! that Debezium uses, in its adaptive precision mode.
//!
//! Reference: PostgreSQL documentation, "Date/Time Output"; Debezium documentation, PostgreSQL connector, "Temporal types".
//!
//! What has no exact counterpart: infinite timestamps are ±the constants of PostgreSQL's JDBC driver, as Debezium
//! sends them; infinite dates are the days of +5877611-06-21 and -5877611-06-22; timestamps whose microseconds do not fit 64
//! bits (after the year 294246) stay PostgreSQL's text; years before 1 are astronomical (1 BC is 0000, 2 BC is -0001).

use tributary_event::Value;

use crate::postgres::stream::pgoutput::EPOCH_2000_US;

/// Microseconds that stand for `infinity` (`PGStatement.DATE_POSITIVE_INFINITY`).
pub const POSITIVE_INFINITY_US: i64 = 9_223_372_036_825_200_000;
/// Microseconds that stand for `-infinity` (`PGStatement.DATE_NEGATIVE_INFINITY`).
pub const NEGATIVE_INFINITY_US: i64 = -9_223_372_036_832_400_000;

pub(in crate::postgres) const DAY_US: i64 = 86_400_000_000;

/// In which form times travel that have no zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
    /// ISO 8601, in UTC.
    Iso,
}

/// `2020-01-02`, `infinity`, `0044-03-15 BC` → days since the Unix epoch.
pub(in crate::postgres) fn date(text: &[u8]) -> Option<i64> {
    match text {
        b"infinity" => Some(days(5_877_611, 6, 21)),
        b"-infinity" => Some(days(-5_877_611, 6, 22)),
        _ => {
            let (year, month, day, rest) = civil(text)?;
            let year = era(rest, year)?;
            Some(days(year, month, day))
        }
    }
}

/// `2020-01-02` → `2020-01-02Z`. Infinite dates keep their names.
pub(in crate::postgres) fn iso_date(text: &[u8]) -> Option<Value> {
    if matches!(text, b"infinity" | b"-infinity") {
        return Some(Value::text(std::str::from_utf8(text).ok()?));
    }
    let (year, month, day, rest) = civil(text)?;
    Some(Value::text(iso_civil(era(rest, year)?, month, day) + "Z"))
}

/// `12:34:56.789` → the time since midnight. `24:00:00` is a whole day.
pub(in crate::postgres) fn time(text: &[u8], precision: Precision) -> Option<Value> {
    let (us, rest) = clock(text)?;
    if !rest.is_empty() {
        return None;
    }
    Some(match precision {
        Precision::Millis => Value::Int(us / 1_000),
        Precision::Micros => Value::Int(us),
        Precision::Nanos => Value::Int(us.checked_mul(1_000)?),
        Precision::Iso => Value::text(format!("{}Z", std::str::from_utf8(text).ok()?)),
    })
}

/// `2020-01-02 03:04:05.6` → the time since the Unix epoch.
pub(in crate::postgres) fn timestamp(text: &[u8], precision: Precision) -> Option<Value> {
    let as_it_is = || Some(Value::text(std::str::from_utf8(text).ok()?));
    if precision == Precision::Iso {
        if matches!(text, b"infinity" | b"-infinity") {
            return as_it_is();
        }
        let (year, month, day, rest) = civil(text)?;
        let rest = rest.strip_prefix(b" ")?;
        let (_, tail) = clock(rest)?;
        let clock = std::str::from_utf8(&rest[..rest.len() - tail.len()]).ok()?;
        return Some(Value::text(format!("{}T{clock}Z", iso_civil(era(tail, year)?, month, day))));
    }
    let us = match text {
        b"infinity" if precision == Precision::Nanos => return Some(Value::Int(i64::MAX)),
        b"-infinity" if precision == Precision::Nanos => return Some(Value::Int(i64::MIN)),
        b"infinity" => POSITIVE_INFINITY_US,
        b"-infinity" => NEGATIVE_INFINITY_US,
        _ => {
            let (year, month, day, rest) = civil(text)?;
            let (us, rest) = clock(rest.strip_prefix(b" ")?)?;
            let days = days(era(rest, year)?, month, day);
            match days.checked_mul(DAY_US).and_then(|d| d.checked_add(us)) {
                Some(us) => us,
                None if precision == Precision::Millis => {
                    return Some(Value::Int(days * (DAY_US / 1_000) + us / 1_000));
                }
                None => return as_it_is(),
            }
        }
    };
    match precision {
        Precision::Millis => Some(Value::Int(us.div_euclid(1_000))),
        Precision::Nanos => us.checked_mul(1_000).map(Value::Int).or_else(as_it_is),
        _ => Some(Value::Int(us)),
    }
}

/// Microseconds since PostgreSQL's epoch → milliseconds or microseconds since the Unix epoch, as of the text; `None` for
/// those of which the text is more.
pub(in crate::postgres) fn since_epoch(us: i64, precision: Precision) -> Option<Value> {
    let us = match us {
        i64::MAX => POSITIVE_INFINITY_US,
        i64::MIN => NEGATIVE_INFINITY_US,
        _ => us.checked_add(EPOCH_2000_US)?,
    };
    match precision {
        Precision::Millis => Some(Value::Int(us.div_euclid(1_000))),
        Precision::Micros => Some(Value::Int(us)),
        Precision::Nanos | Precision::Iso => None,
    }
}

/// `2020-01-02 03:04:05.6+00` → `2020-01-02T03:04:05.600000Z`, with so many digits of a second. Infinite ones keep their
/// names.
pub(in crate::postgres) fn timestamptz(text: &[u8], digits: u8) -> Option<String> {
    if matches!(text, b"infinity" | b"-infinity") {
        return Some(std::str::from_utf8(text).ok()?.to_owned());
    }
    let (year, month, day, rest) = civil(text)?;
    let rest = rest.strip_prefix(b" ")?;
    let (_, tail) = clock(rest)?;
    let clock = std::str::from_utf8(&rest[..rest.len() - tail.len()]).ok()?;
    let year = era(tail.strip_prefix(b"+00")?, year)?;
    // The server leaves trailing zeros out.
    let (zeros, printed) = (usize::from(digits), clock.len().saturating_sub("00:00:00.".len()));
    let zeros = &"000000"[..zeros.saturating_sub(printed).min(6)];
    let point = if printed == 0 && !zeros.is_empty() { "." } else { "" };
    // The usual case, as PostgreSQL printed it, without the machinery of formatting.
    if (1..=9999).contains(&year) && tail.len() == 3 {
        let mut out = String::with_capacity(12 + clock.len() + point.len() + zeros.len());
        out.push_str(std::str::from_utf8(text.get(..10)?).ok()?);
        out.push('T');
        for part in [clock, point, zeros, "Z"] {
            out.push_str(part);
        }
        return Some(out);
    }
    Some(format!("{}T{clock}{point}{zeros}Z", iso_civil(year, month, day)))
}

/// A date of ISO 8601: years beyond four digits have a sign, years before 1 are astronomical.
fn iso_civil(year: i64, month: i64, day: i64) -> String {
    match year {
        0..=9999 => format!("{year:04}-{month:02}-{day:02}"),
        10_000.. => format!("+{year}-{month:02}-{day:02}"),
        _ => format!("-{:04}-{month:02}-{day:02}", -year),
    }
}

/// `13:51:30.5+02`, `13:51:30-03:30` → the same time of day in UTC, `11:51:30.5Z`.
pub(in crate::postgres) fn timetz(text: &[u8]) -> Option<String> {
    let (us, zone) = clock(text)?;
    let (sign, digits) = match zone.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let mut seconds = 0;
    for (part, unit) in digits.split(|&b| b == b':').zip([3_600, 60, 1]) {
        seconds += number(part)? * unit;
    }
    let us = if seconds == 0 { us } else { (us - sign * seconds * 1_000_000).rem_euclid(DAY_US) };
    let (s, fraction) = (us / 1_000_000, us % 1_000_000);
    let mut out = format!("{:02}:{:02}:{:02}", s / 3_600, s / 60 % 60, s % 60);
    if fraction != 0 {
        out.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    out.push('Z');
    Some(out)
}

/// `1 year -2 mons +3 days 04:05:06.7` → microseconds, a month being 365.25 / 12 days (Debezium's `MicroDuration`).
pub(in crate::postgres) fn interval(text: &[u8]) -> Option<Value> {
    if matches!(text, b"infinity" | b"-infinity") {
        return Some(Value::Int(if text[0] == b'-' { i64::MIN } else { i64::MAX }));
    }
    let (months, day_count, us) = interval_parts(text)?;
    // A month is 30.4375 days exactly: 2 629 800 seconds.
    let total = i128::from(months) * 2_629_800_000_000 + i128::from(day_count) * i128::from(DAY_US) + i128::from(us);
    Some(Value::Int(i64::try_from(total).unwrap_or(if total < 0 { i64::MIN } else { i64::MAX })))
}

/// The same → `P1Y2M3DT4H5M6.7S`, with every part (Debezium's `Interval`). Infinite intervals keep their names.
pub(in crate::postgres) fn iso_interval(text: &[u8]) -> Option<String> {
    if matches!(text, b"infinity" | b"-infinity") {
        return Some(std::str::from_utf8(text).ok()?.to_owned());
    }
    let (months, days, us) = interval_parts(text)?;
    let (hours, minutes, rest) = (us / 3_600_000_000, us / 60_000_000 % 60, us % 60_000_000);
    let sign = if rest < 0 { "-" } else { "" };
    let (seconds, fraction) = (rest.abs() / 1_000_000, rest.abs() % 1_000_000);
    let fraction = if fraction == 0 { String::new() } else { format!(".{fraction:06}") };
    let fraction = fraction.trim_end_matches('0');
    Some(format!("P{}Y{}M{days}DT{hours}H{minutes}M{sign}{seconds}{fraction}S", months / 12, months % 12))
}

/// Months, days and microseconds.
fn interval_parts(text: &[u8]) -> Option<(i64, i64, i64)> {
    let (mut months, mut day_count, mut us) = (0i64, 0i64, 0i64);
    let mut words = text.split(|&b| b == b' ');
    while let Some(word) = words.next() {
        if word.contains(&b':') {
            let (negative, digits) = match word.split_first()? {
                (b'-', rest) => (true, rest),
                (b'+', rest) => (false, rest),
                _ => (false, word),
            };
            let (value, rest) = unsigned_clock(digits)?;
            if !rest.is_empty() {
                return None;
            }
            us = if negative { 0i64.checked_sub_unsigned(value)? } else { i64::try_from(value).ok()? };
            continue;
        }
        let amount: i64 = std::str::from_utf8(word).ok()?.parse().ok()?;
        match words.next()? {
            b"year" | b"years" => months = months.checked_add(amount.checked_mul(12)?)?,
            b"mon" | b"mons" => months = months.checked_add(amount)?,
            b"day" | b"days" => day_count = day_count.checked_add(amount)?,
            _ => return None,
        }
    }
    Some((months, day_count, us))
}

/// Days since the Unix epoch of a date of the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The year that the text after a date belongs to: unchanged, or counted back from year 1 for ` BC`.
fn era(rest: &[u8], year: i64) -> Option<i64> {
    match rest {
        b"" => Some(year),
        b" BC" => Some(1 - year),
        _ => None,
    }
}

/// `YYYY-MM-DD` with four or more digits of year, and what follows.
fn civil(text: &[u8]) -> Option<(i64, i64, i64, &[u8])> {
    let dash = text.iter().position(|&b| b == b'-').filter(|n| (4..=7).contains(n))?;
    let (year, rest) = text.split_at(dash);
    let (&[b'-', m1, m2, b'-', d1, d2], rest) = rest.split_first_chunk::<6>()? else { return None };
    Some((number(year)?, number(&[m1, m2])?, number(&[d1, d2])?, rest))
}

/// `HH:MM:SS` with an optional fraction, in microseconds, and what follows.
fn clock(text: &[u8]) -> Option<(i64, &[u8])> {
    let (us, rest) = unsigned_clock(text)?;
    Some((i64::try_from(us).ok()?, rest))
}

/// The same. Hours may have more digits (intervals), and the longest negative interval has no positive counterpart.
fn unsigned_clock(text: &[u8]) -> Option<(u64, &[u8])> {
    let colon = text.iter().position(|&b| b == b':').filter(|n| (2..=12).contains(n))?;
    let (hours, rest) = text.split_at(colon);
    let (&[b':', m1, m2, b':', s1, s2], rest) = rest.split_first_chunk::<6>()? else { return None };
    let seconds = number(hours)?.checked_mul(3_600)? + number(&[m1, m2])? * 60 + number(&[s1, s2])?;
    let us = seconds.unsigned_abs().checked_mul(1_000_000)?;
    let Some(fraction) = rest.strip_prefix(b".") else { return Some((us, rest)) };
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    if !(1..=6).contains(&digits) {
        return None;
    }
    let (digits, rest) = fraction.split_at(digits);
    let scale = 10i64.pow(6 - digits.len() as u32);
    Some((us.checked_add_signed(number(digits)? * scale)?, rest))
}

fn number(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0i64, |n, &b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn dates_count_days_from_the_epoch() {
        assert_eq!(date(b"1970-01-01"), Some(0));
        assert_eq!(date(b"2020-02-29"), Some(18_321));
        assert_eq!(date(b"1969-12-31"), Some(-1));
        assert_eq!(date(b"0001-01-01"), Some(-719_162));
        assert_eq!(date(b"0001-12-31 BC"), Some(-719_163));
        assert_eq!(date(b"0044-03-15 BC"), Some(-735_160));
        assert_eq!(date(b"5874897-12-31"), Some(2_145_042_905));
        assert_eq!(date(b"nonsense"), None);
    }

    #[test]
    fn timestamps_keep_their_precision() {
        assert_eq!(
            timestamp(b"2020-01-02 03:04:05.123456", Precision::Micros),
            Some(Value::Int(1_577_934_245_123_456))
        );
        assert_eq!(timestamp(b"2020-01-02 03:04:05.1", Precision::Millis), Some(Value::Int(1_577_934_245_100)));
        assert_eq!(timestamp(b"1969-12-31 23:59:59.999", Precision::Millis), Some(Value::Int(-1)));
        assert_eq!(timestamp(b"infinity", Precision::Micros), Some(Value::Int(POSITIVE_INFINITY_US)));
        assert_eq!(timestamp(b"294276-12-31 23:59:59", Precision::Micros), Some(Value::text("294276-12-31 23:59:59")));
        assert_eq!(timestamp(b"4713-01-01 00:00:00 BC", Precision::Micros), Some(Value::Int(-210_863_520_000_000_000)));
    }

    #[test]
    fn zoned_times_are_printed_in_utc() {
        let zoned = |t: &str| timestamptz(t.as_bytes(), 6);
        assert_eq!(zoned("2020-01-02 03:04:05.123456+00").as_deref(), Some("2020-01-02T03:04:05.123456Z"));
        assert_eq!(zoned("2020-01-02 03:04:05+00").as_deref(), Some("2020-01-02T03:04:05.000000Z"));
        assert_eq!(zoned("2020-01-02 03:04:05.5+00").as_deref(), Some("2020-01-02T03:04:05.500000Z"));
        assert_eq!(timestamptz(b"2020-01-02 03:04:05.5+00", 3).as_deref(), Some("2020-01-02T03:04:05.500Z"));
        assert_eq!(timestamptz(b"2020-01-02 03:04:05+00", 0).as_deref(), Some("2020-01-02T03:04:05Z"));
        assert_eq!(zoned("infinity").as_deref(), Some("infinity"));
        assert_eq!(zoned("0001-01-01 00:00:00+00 BC").as_deref(), Some("0000-01-01T00:00:00.000000Z"));
        assert_eq!(zoned("12020-01-01 00:00:00+00").as_deref(), Some("+12020-01-01T00:00:00.000000Z"));
        assert_eq!(timetz(b"13:51:30.5+02").as_deref(), Some("11:51:30.5Z"));
        assert_eq!(timetz(b"23:00:00-03:30").as_deref(), Some("02:30:00Z"));
        assert_eq!(timetz(b"24:00:00+00").as_deref(), Some("24:00:00Z"));
    }

    #[test]
    fn other_forms_can_be_asked_for() {
        let at = |precision| timestamp(b"2020-01-02 03:04:05.12", precision);
        assert_eq!(at(Precision::Nanos), Some(Value::Int(1_577_934_245_120_000_000)));
        assert_eq!(at(Precision::Iso), Some(Value::text("2020-01-02T03:04:05.12Z")));
        assert_eq!(timestamp(b"infinity", Precision::Nanos), Some(Value::Int(i64::MAX)));
        assert_eq!(timestamp(b"-infinity", Precision::Nanos), Some(Value::Int(i64::MIN)));
        assert_eq!(time(b"03:04:05.5", Precision::Millis), Some(Value::Int(11_045_500)));
        assert_eq!(time(b"03:04:05.5", Precision::Iso), Some(Value::text("03:04:05.5Z")));
        assert_eq!(iso_date(b"0044-03-15 BC"), Some(Value::text("-0043-03-15Z")));
        let interval = |text: &str| iso_interval(text.as_bytes());
        assert_eq!(interval("1 year 2 mons 3 days 04:05:06.78").as_deref(), Some("P1Y2M3DT4H5M6.78S"));
        assert_eq!(interval("-1 days -00:00:00.5").as_deref(), Some("P0Y0M-1DT0H0M-0.5S"));
    }

    #[test]
    fn intervals_become_microseconds() {
        assert_eq!(interval(b"1 year 2 mons 3 days 04:05:06.5"), Some(Value::Int(37_091_106_500_000)));
        assert_eq!(interval(b"-1 days +02:03:00"), Some(Value::Int(-79_020_000_000)));
        assert_eq!(interval(b"00:00:00"), Some(Value::Int(0)));
        assert_eq!(interval(b"-00:00:00.000001"), Some(Value::Int(-1)));
        assert_eq!(interval(b"-2562047788:00:54.775808"), Some(Value::Int(i64::MIN)));
        assert_eq!(interval(b"1 fortnight"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text: Vec<u8>, digits in "[-0-9: .+BCadyonmsi]{0,40}") {
            for text in [&text[..], digits.as_bytes()] {
                let _ = (date(text), iso_date(text), iso_interval(text));
                for precision in [Precision::Millis, Precision::Micros, Precision::Nanos, Precision::Iso] {
                    let _ = (time(text, precision), timestamp(text, precision));
                }
                let _ = (timestamptz(text, 6), timetz(text), interval(text));
            }
        }
    }
}
