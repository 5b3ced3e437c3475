//! Dates as documents and queries write them: ISO 8601 down from the year, or milliseconds since 1970.

use serde_json::Value as Json;
use tantivy::DateTime;
use tantivy::time::format_description::well_known::Rfc3339;
use tantivy::time::{Duration, OffsetDateTime};

/// A date in a document.
pub(super) fn of(value: &Json) -> Option<DateTime> {
    let moment = match value {
        Json::Number(number) => from_millis(number.as_i64().or_else(|| number.as_f64().map(|n| n as i64))?)?,
        Json::String(text) => span(text)?.0,
        _ => return None,
    };
    Some(indexed(moment))
}

/// The first and last moment of what a text names: `1979-05-25` is a day long, `1979-05-25T18` an hour. A year or a month is its
/// first day, as on the search servers, which fill in a missing month or day by 1 at both ends of a range.
pub(super) fn span(text: &str) -> Option<(OffsetDateTime, OffsetDateTime)> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.len() > 4 && digits.bytes().all(|b| b.is_ascii_digit()) {
        let moment = from_millis(text.parse().ok()?)?;
        return Some((moment, moment));
    }
    let (date, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let (clock, zone) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, ""),
    };
    let zone = match zone.len() {
        0 | 1 => "Z".to_owned(),
        3 => format!("{zone}:00"),
        5 if !zone.contains(':') => format!("{}:{}", &zone[..3], &zone[3..]),
        _ => zone.to_owned(),
    };
    let date = match date.len() {
        4 => format!("{date}-01-01"),
        7 => format!("{date}-01"),
        _ => date.to_owned(),
    };
    let (clock, length) = match clock.len() {
        0 => ("00:00:00".to_owned(), Duration::DAY),
        2 => (format!("{clock}:00:00"), Duration::HOUR),
        5 => (format!("{clock}:00"), Duration::MINUTE),
        8 => (clock.to_owned(), Duration::SECOND),
        _ => (clock.to_owned(), Duration::MILLISECOND),
    };
    let first = OffsetDateTime::parse(&format!("{date}T{clock}{zone}"), &Rfc3339).ok()?;
    let last = first.checked_add(length)?.checked_sub(Duration::MILLISECOND)?;
    Some((first, last))
}

/// As a query's bound: within what the index can hold.
pub(super) fn bound(moment: OffsetDateTime) -> Option<String> {
    indexed(moment).into_utc().format(&Rfc3339).ok()
}

fn from_millis(millis: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok()
}

/// The index counts nanoseconds in 64 bits: dates before 1677 and after 2262 are indexed as its ends. The document keeps
/// them as they are.
fn indexed(moment: OffsetDateTime) -> DateTime {
    DateTime::try_from_utc(moment).unwrap_or(if moment.year() < 1970 { DateTime::MIN } else { DateTime::MAX })
}
