//! Dates in the index. tantivy's dates are a 64-bit count of nanoseconds, which reaches from 1677 to 2262 alone. Here the same
//! count is of milliseconds, so that the index holds every date that a search server does; tantivy only compares them.

use tantivy::DateTime;
use tantivy::time::format_description::well_known::Rfc3339;

/// A moment, in milliseconds since 1970, as the index has it.
pub(super) fn indexed(millis: i64) -> DateTime {
    DateTime::from_timestamp_nanos(millis)
}

/// The same as a query's bound, in the form that tantivy's query parser reads.
pub(super) fn bound(millis: i64) -> Option<String> {
    indexed(millis).into_utc().format(&Rfc3339).ok()
}
