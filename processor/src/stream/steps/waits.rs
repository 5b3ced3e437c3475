//! Events that wait until a table has come up to them.

use tributary_dsl::plan::{Origin, StreamInput};
use tributary_expression::Value;

use super::Traveller;
use crate::outside::{Enricher, OutsideError};

/// Waits until an answer has all changes that were made before those of events.
pub(super) async fn wait_for(enricher: &dyn Enricher, travellers: &[Traveller]) -> Result<(), OutsideError> {
    let mut on_their_way = travellers.iter().filter(|traveller| traveller.events.as_ref().is_ok_and(|e| !e.is_empty()));
    let Some(first) = on_their_way.next() else { return Ok(()) };
    // One without a number waits for whatever was there when it was read.
    let last = on_their_way.try_fold(first.sequence, |last, next| last.zip(next.sequence).map(|(a, b)| Some(a.max(b))));
    enricher.has_passed(last.flatten()).await
}

/// The number of a change of a table. What is no such change has none, and is waited for without one.
pub(super) fn sequence(input: Option<&StreamInput>, event: &Value) -> Option<u64> {
    if !matches!(input?.origin, Origin::Table { .. }) {
        return None;
    }
    match event.as_object()?.get("sequence")? {
        Value::Integer(number) => u64::try_from(*number).ok(),
        // A whole number that needs all of 64 bits.
        other => other.to_str_lossy()?.parse().ok(),
    }
}
