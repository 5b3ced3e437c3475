//! Events for sinks.

use tributary_event::Op;
use tributary_processor::sink::OutEvent;
use tributary_transport::TopicPartition;

/// An event of a stream, without a row.
pub fn event(sequence: u64) -> OutEvent {
    OutEvent {
        id: sequence.to_string(),
        source: "/films/main".into(),
        kind: "orders.shipped".into(),
        op: Op::Update,
        sequence,
        committed_us: Some(1_614_265_330_250_000),
        key: Some(format!("{{\"id\":{sequence}}}").into()),
        content: Some(format!("{{\"id\":{sequence},\"status\":\"shipped\"}}").into()),
        row_key: None,
        span: None,
    }
}

/// An event of a row: its key, and its columns if it was not deleted.
pub fn row(sequence: u64, key: &str, columns: Option<&str>) -> OutEvent {
    let op = if columns.is_some() { Op::Update } else { Op::Delete };
    let content = columns.map(|columns| columns.to_owned().into());
    OutEvent { op, content, row_key: Some(key.to_owned().into()), ..event(sequence) }
}

/// A truncate of the events' table.
pub fn truncate(sequence: u64) -> OutEvent {
    OutEvent { op: Op::Truncate, key: None, content: None, ..event(sequence) }
}

/// A partition of a topic.
pub fn place(partition: u32) -> TopicPartition {
    TopicPartition { topic: "films.orders".into(), partition }
}
