//! The changes of a case as records of topics, and what topics have afterwards.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary_dsl::plan::{Origin, StreamPlan};
use tributary_event::Op;
use tributary_processor::stream::put_attributes;
use tributary_transport::{Batch, Polled, TopicPartition, Transport, TransportError};

use super::{Case, Change, input};

/// Changes that come together.
#[derive(Debug)]
pub(super) struct Group {
    /// When, from the beginning of the case.
    pub at: Duration,
    pub batch: Batch,
}

/// The changes of a case. One that says when it was committed comes then, any other one together with the one before it.
pub(super) fn groups(case: &Case, plan: &StreamPlan) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut time_ms = 0;
    let changes = case.events.iter().flatten();
    for (number, (table, change)) in (1_u64..).zip(changes) {
        let Some(input) = input(plan, table) else { continue };
        time_ms = change.at.map_or(time_ms + 1, |at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        if change.at.is_some() || groups.is_empty() {
            groups.push(Group { at: change.at.unwrap_or_default(), batch: Batch::new() });
        }
        let Some(Group { batch, .. }) = groups.last_mut() else { continue };
        let key = key(change).map(|key| key.to_string());
        let value = match &input.origin {
            Origin::Table { .. } => envelope(table, change, number, time_ms),
            // Of these the event is what comes.
            Origin::Stream(_) | Origin::Topic => change.after.clone(),
        };
        let (key, value) = (key.as_deref().map(str::as_bytes), value.to_string());
        batch.push(&input.topic.as_str().into(), time_ms, key, Some(value.as_bytes()));
        if let Origin::Stream(name) = &input.origin {
            let op = Op::from_letter(&change.op).unwrap_or(Op::Create);
            put_attributes(batch, name, op, number, time_ms.saturating_mul(1_000));
        }
    }
    groups
}

/// The key of a change, as a source would give it.
fn key(change: &Change) -> Option<Json> {
    if change.key.is_some() {
        return change.key.clone();
    }
    let row = if change.after.is_null() { &change.before } else { &change.after };
    row.get("id").map(|id| json!({ "id": id }))
}

/// A change as it is in its table's topic.
fn envelope(table: &str, change: &Change, number: u64, time_ms: i64) -> Json {
    let (schema, name) = table.split_once('.').unwrap_or(("", table));
    let mut envelope = json!({
        "before": change.before,
        "after": change.after,
        "source": { "schema": schema, "table": name, "ts_ms": time_ms, "ts_us": time_ms.saturating_mul(1_000) },
        "op": change.op,
        "ts_ms": time_ms,
        "sequence": number,
    });
    if let Some(unchanged) = &change.unchanged {
        envelope["unchanged"] = json!(unchanged);
    }
    envelope
}

/// All records of a topic.
pub(super) async fn read(transport: &dyn Transport, topic: &str) -> Result<Vec<Polled>, TransportError> {
    let mut records = Vec::new();
    for (partition, ends) in (0..).zip(transport.watermarks(topic).await?) {
        let place = TopicPartition { topic: topic.into(), partition };
        let mut from = ends.low;
        while from < ends.high {
            let page = transport.read(&place, from, 500).await?;
            let Some(last) = page.last() else { break };
            from = last.offset + 1;
            records.extend(page);
        }
    }
    Ok(records)
}

/// The value of a record as JSON.
pub(super) fn value(record: &Polled) -> Json {
    record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or(Json::Null)
}
