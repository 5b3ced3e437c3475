//! Events for sinks.

use tributary_event::Op;
use tributary_processor::sink::OutEvent;

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
    }
}
