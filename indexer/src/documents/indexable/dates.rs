//! Dates as documents and queries write them: ISO 8601 down from the year, or milliseconds since 1970. Pure.
//!
//! This reads what Elasticsearch and OpenSearch both read with [`DATE_FORMAT`](crate::documents::mapping::DATE_FORMAT), and as the same
//! moment. Where they differ nothing is read: years of five digits and more, a negative number of five to ten digits (a year for
//! one, milliseconds for the other), a time after a mere year (at which Elasticsearch 8 has been seen to stop), names of
//! time zones.

use serde_json::Value as Json;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The year 999,999,999: the last that the servers can show.
const MAX: i64 = 31_556_889_864_403_199;

/// A date in a document, in milliseconds since 1970; parts of a millisecond are cut off towards the past.
pub fn millis(value: &Json) -> Option<i64> {
    match unambiguous(value).as_ref().unwrap_or(value) {
        // The servers read a number as its text: 1979 is a year.
        Json::Number(number) => Some(span(&number.to_string())?.0),
        Json::String(text) => Some(span(text)?.0),
        _ => None,
    }
}

/// What stands for a number that one of the servers would take for a year, and that must be milliseconds.
pub fn unambiguous(value: &Json) -> Option<Json> {
    let number = value.as_i64()?;
    (-9_999_999_999..=-10_000).contains(&number).then(|| Json::String(format!("{number}.0")))
}

/// The first and last millisecond of what a text names: `1979-05-25` is a day long, `1979-05-25T18` an hour. A year or a month
/// is its first day, as on the search servers, which fill in a missing month or day by 1 at both ends of a range.
pub fn span(text: &str) -> Option<(i64, i64)> {
    if !text.is_ascii() {
        return None;
    }
    let (first, length) = calendar(text).or_else(|| Some((epoch(text)?, 1)))?;
    (-MAX..=MAX).contains(&first).then(|| (first, first + length - 1))
}

/// `[-]digits[.digits]`.
fn epoch(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-');
    let negative = digits.is_some();
    let (whole, fraction) = match digits.unwrap_or(text).split_once('.') {
        None => (digits.unwrap_or(text), None),
        Some((whole, fraction)) => (whole, Some(fraction)),
    };
    let number = |text: &str| (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then_some(());
    number(whole)?;
    if let Some(fraction) = fraction {
        number(fraction)?;
        (fraction.len() <= 6).then_some(())?;
    }
    if negative && fraction.is_none() && (4..=10).contains(&whole.len()) {
        return None;
    }
    let whole: i64 = whole.parse().ok()?;
    let part = fraction.is_some_and(|fraction| fraction.bytes().any(|b| b != b'0'));
    Some(if negative { -whole - i64::from(part) } else { whole })
}

/// `[-]year[-month[-day[T[hour[:minute[:second[.fraction]]][zone]]]]]`: its first millisecond and its length.
fn calendar(text: &str) -> Option<(i64, i64)> {
    let mut rest = Rest(text);
    let before_christ = rest.take('-');
    let year = rest.number(4)?;
    let year = if before_christ { -Some(year).filter(|year| *year > 0)? } else { year };
    if rest.0.is_empty() {
        return Some((day(year, 1, 1)? * DAY, DAY));
    }
    let month = rest.after('-')?;
    if rest.0.is_empty() {
        return Some((day(year, month, 1)? * DAY, DAY));
    }
    let midnight = day(year, month, rest.after('-')?)? * DAY;
    if rest.0.is_empty() {
        return Some((midnight, DAY));
    }
    rest.take('T').then_some(())?;
    if rest.0.is_empty() {
        return Some((midnight, DAY));
    }
    let (mut moment, mut length) = (midnight + rest.below(24)? * HOUR, HOUR);
    if rest.take(':') {
        (moment, length) = (moment + rest.below(60)? * MINUTE, MINUTE);
        if rest.take(':') {
            (moment, length) = (moment + rest.below(60)? * SECOND, SECOND);
            if rest.take('.') || rest.take(',') {
                (moment, length) = (moment + rest.fraction()?, 1);
            }
        }
    }
    Some((moment - rest.zone()?, length))
}

/// What is left of a text.
struct Rest<'a>(&'a str);

impl Rest<'_> {
    fn take(&mut self, mark: char) -> bool {
        match self.0.strip_prefix(mark) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    /// A number of exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        if !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        self.0 = rest;
        number.parse().ok()
    }

    fn after(&mut self, mark: char) -> Option<i64> {
        self.take(mark).then_some(())?;
        self.number(2)
    }

    fn below(&mut self, limit: i64) -> Option<i64> {
        self.number(2).filter(|number| *number < limit)
    }

    /// The milliseconds of up to nine digits.
    fn fraction(&mut self) -> Option<i64> {
        let length = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        let millis: String = digits.chars().chain("00".chars()).take(3).collect();
        if (1..=9).contains(&length) { millis.parse().ok() } else { None }
    }

    /// `Z`, `±hh`, `±hhmm`, `±hh:mm`, `±hh:mm:ss` up to 18 hours, or nothing: what is to be taken off. It ends the text.
    fn zone(mut self) -> Option<i64> {
        if self.0.is_empty() || self.0 == "Z" {
            return Some(0);
        }
        let west = self.take('-');
        if !west {
            self.take('+').then_some(())?;
        }
        let mut offset = self.number(2)? * HOUR;
        if self.take(':') {
            offset += self.below(60)? * MINUTE;
            if self.take(':') {
                offset += self.below(60)? * SECOND;
            }
        } else if !self.0.is_empty() {
            offset += self.below(60)? * MINUTE;
        }
        (self.0.is_empty() && offset <= 18 * HOUR).then_some(if west { -offset } else { offset })
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar, which is taken back beyond its beginning; `None` if there is no
/// such day. (Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March, so that a leap day is last.)
fn day(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + i64::from(leap),
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468)
}
