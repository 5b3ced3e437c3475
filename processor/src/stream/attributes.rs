//! Who an event is outside of the transport: attributes of CloudEvents, as headers of the records in a stream's own topic, and in those of
//! users that ask for them.

use std::fmt::Write as _;
use std::sync::Arc;

use tributary_event::Op;
use tributary_expression::Value;
use tributary_transport::headers::cloud_event::{COMMITTED, ID, KIND, OP, SEQUENCE, SOURCE};
use tributary_transport::{Batch, CloudEvent, Polled};

/// Attributes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub id: String,
    pub source: Arc<str>,
    pub kind: Arc<str>,
    pub op: Op,
    pub sequence: u64,
    pub committed_us: Option<i64>,
}

/// When a change event was committed.
pub(super) fn committed_us(event: &Value) -> Option<i64> {
    number(event, &["source", "ts_us"]).or(number(event, &["source", "ts_ms"]).map(|ms| ms.saturating_mul(1_000)))
}

fn number(event: &Value, path: &[&str]) -> Option<i64> {
    let found = path.iter().try_fold(event, |value, name| value.as_object()?.get(*name));
    found.and_then(|value| match value {
        Value::Integer(number) => Some(*number),
        // A whole number that needs all of 64 bits.
        value => value.to_str_lossy()?.parse().ok(),
    })
}

impl Attributes {
    /// The fields of a change event that they are made of.
    pub const FIELDS: [&[&str]; 3] = [&["sequence"], &["source", "ts_us"], &["source", "ts_ms"]];

    /// Those of a change event. One without a number is known by where it lies.
    pub fn of(event: &Value, op: Op, record: &Polled, pipeline: &str, source: &str, kind: &Arc<str>) -> Self {
        let sequence = number(event, &["sequence"]).and_then(|number| u64::try_from(number).ok());
        let id = match sequence {
            Some(sequence) => sequence.to_string(),
            None => format!("{}-{}-{}", record.place.topic, record.place.partition, record.offset),
        };
        let committed_us = committed_us(event);
        // Another stream makes another event of the same change.
        let source = format!("/{pipeline}/{kind}/{source}").into();
        Self { id, source, kind: kind.clone(), op, sequence: sequence.unwrap_or(record.offset), committed_us }
    }

    /// Those of an event of another stream, in this one.
    pub fn passed_on(self, pipeline: &str, kind: &Arc<str>) -> Self {
        let of = self.source.rsplit('/').next().unwrap_or_default();
        Self { source: format!("/{pipeline}/{kind}/{of}").into(), kind: kind.clone(), ..self }
    }

    /// Those of a record that somebody else wrote: it is known by where it lies.
    pub fn of_record(op: Op, record: &Polled, pipeline: &str, kind: &Arc<str>) -> Self {
        Self {
            id: format!("{}-{}-{}", record.place.topic, record.place.partition, record.offset),
            source: format!("/{pipeline}/{kind}/{}", record.place.topic).into(),
            kind: kind.clone(),
            op,
            sequence: record.offset,
            committed_us: Some(record.timestamp_ms.saturating_mul(1_000)),
        }
    }

    /// Those of a part of what was split.
    pub fn of_part(&self, parts: &[u32]) -> Self {
        let mut of_part = self.clone();
        parts.iter().for_each(|part| {
            let _ = write!(of_part.id, ".{part}");
        });
        of_part
    }

    /// Adds them to the record that was added to a batch last.
    pub fn put(&self, batch: &mut Batch) {
        self.cloud_event().put(batch);
    }

    /// The same, for a topic that others read.
    pub fn put_for_others(&self, batch: &mut Batch) {
        self.cloud_event().put_for_others(batch);
    }

    fn cloud_event(&self) -> CloudEvent<'_> {
        let Self { id, source, kind, op, sequence, committed_us } = self;
        CloudEvent { id, source, kind, op: *op, sequence: *sequence, committed_us: *committed_us }
    }

    /// Those of a record that was read; none: it has none.
    pub fn read(record: &Polled) -> Option<Self> {
        let headers = record.headers.view();
        let text = |name| std::str::from_utf8(headers.get(name)?).ok();
        Some(Self {
            id: text(ID)?.to_owned(),
            source: text(SOURCE)?.into(),
            kind: text(KIND)?.into(),
            op: Op::from_letter(text(OP)?)?,
            sequence: text(SEQUENCE)?.parse().ok()?,
            committed_us: text(COMMITTED).and_then(|us| us.parse().ok()),
        })
    }
}
