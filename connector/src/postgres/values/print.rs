//! Numbers of days and microseconds, counted from 2000-01-01 → PostgreSQL's text of dates and times (DateStyle ISO,
//! TimeZone UTC), which `time` reads.
//!
//! Reference: PostgreSQL source, `EncodeDateTime` and `EncodeInterval` in `src/backend/utils/adt/datetime.c`.

use tributary_event::calendar::civil_from_days;

use super::time::DAY_US;
use crate::postgres::stream::pgoutput::EPOCH_2000_US;

/// Days from the Unix epoch to PostgreSQL's, 2000-01-01.
const DAYS_TO_2000: i64 = EPOCH_2000_US / DAY_US;

/// The date of so many days since 2000-01-01.
pub(in crate::postgres) fn date(days: i32) -> String {
    match days {
        i32::MAX => "infinity".into(),
        i32::MIN => "-infinity".into(),
        _ => {
            let (date, era) = civil(i64::from(days));
            date + era
        }
    }
}

/// The timestamp of so many microseconds since 2000-01-01, in the zone that is given.
pub(in crate::postgres) fn timestamp(us: i64, zone: &str) -> String {
    match us {
        i64::MAX => "infinity".into(),
        i64::MIN => "-infinity".into(),
        _ => {
            let (date, era) = civil(us.div_euclid(DAY_US));
            format!("{date} {}{zone}{era}", clock(us.rem_euclid(DAY_US).unsigned_abs()))
        }
    }
}

/// The timestamp of so many microseconds since 2000-01-01 as ISO 8601 has it, with so many digits of a second. `None` for
/// infinite ones and years of other than four digits.
pub(in crate::postgres) fn iso_timestamp(us: i64, digits: u8) -> Option<String> {
    let (year, month, day) = civil_from_days(us.div_euclid(DAY_US) + DAYS_TO_2000);
    if !(1..=9999).contains(&year) {
        return None;
    }
    let of_day = us.rem_euclid(DAY_US);
    let (seconds, fraction) = (of_day / 1_000_000, of_day % 1_000_000);
    let mut out = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |at: usize, width: usize, mut number: i64| {
        for place in (at..at + width).rev() {
            out[place] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    put(0, 4, year);
    put(5, 2, month);
    put(8, 2, day);
    put(11, 2, seconds / 3_600);
    put(14, 2, seconds / 60 % 60);
    put(17, 2, seconds % 60);
    put(20, 6, fraction);
    let zeros = out[20..26].iter().rev().take_while(|b| **b == b'0').count();
    let end = match usize::from(digits).min(6).max(6 - zeros) {
        0 => 19,
        digits => 20 + digits,
    };
    out[end] = b'Z';
    Some(std::str::from_utf8(&out[..=end]).ok()?.to_owned())
}

/// The time of day of so many microseconds; hours go on beyond 24.
pub(in crate::postgres) fn clock(us: u64) -> String {
    let (seconds, fraction) = (us / 1_000_000, us % 1_000_000);
    let mut out = format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        out.push_str(format!(".{fraction:06}").trim_end_matches('0'));
    }
    out
}

/// The time of day in a zone so many seconds to the east of Greenwich.
pub(in crate::postgres) fn timetz(us: u64, east: i32) -> String {
    let (sign, seconds) = (if east < 0 { '-' } else { '+' }, east.unsigned_abs());
    format!("{}{sign}{:02}:{:02}:{:02}", clock(us), seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// An interval, its years as months.
pub(in crate::postgres) fn interval(months: i32, days: i32, us: i64) -> String {
    match (months, days, us) {
        (i32::MAX, i32::MAX, i64::MAX) => "infinity".into(),
        (i32::MIN, i32::MIN, i64::MIN) => "-infinity".into(),
        _ => format!("{months} mons {days} days {}{}", if us < 0 { "-" } else { "" }, clock(us.unsigned_abs())),
    }
}

/// The date of so many days since 2000-01-01, and what follows for years before 1.
fn civil(days: i64) -> (String, &'static str) {
    let (year, month, day) = civil_from_days(days + DAYS_TO_2000);
    let (year, era) = if year > 0 { (year, "") } else { (1 - year, " BC") };
    (format!("{year:04}-{month:02}-{day:02}"), era)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::time;
    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(days in -2_451_545i32..2_145_031_948, us in 0i64..DAY_US, digits in 0u8..=6) {
            prop_assert_eq!(time::date(date(days).as_bytes()), Some(i64::from(days) + DAYS_TO_2000));
            let us = i64::from(days % 106_000_000) * DAY_US + us;
            let printed = timestamp(us, "+00");
            if let Some(iso) = iso_timestamp(us, digits) {
                prop_assert_eq!(time::timestamptz(printed.as_bytes(), digits), Some(iso));
            }
        }
    }

    #[test]
    fn dates_and_times_look_as_the_server_prints_them() {
        assert_eq!(date(0), "2000-01-01");
        assert_eq!(date(-730_119), "0001-01-01");
        assert_eq!(date(-730_120), "0001-12-31 BC");
        assert_eq!(date(i32::MAX), "infinity");
        assert_eq!(timestamp(-1, ""), "1999-12-31 23:59:59.999999");
        assert_eq!(timestamp(86_400_500_000, "+00"), "2000-01-02 00:00:00.5+00");
        assert_eq!(timestamp(i64::MIN, "+00"), "-infinity");
        assert_eq!(clock(86_400_000_000), "24:00:00");
        assert_eq!(timetz(0, -12_600), "00:00:00-03:30:00");
        assert_eq!(interval(14, -3, -1), "14 mons -3 days -00:00:00.000001");
        assert_eq!(iso_timestamp(500_000, 0).as_deref(), Some("2000-01-01T00:00:00.5Z"));
        assert_eq!(iso_timestamp(500_000, 3).as_deref(), Some("2000-01-01T00:00:00.500Z"));
        assert_eq!(iso_timestamp(0, 0).as_deref(), Some("2000-01-01T00:00:00Z"));
        assert_eq!(iso_timestamp(i64::MAX, 6), None);
    }
}
