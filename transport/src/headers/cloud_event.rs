//! Who an event is, to whoever reads it anywhere: attributes of CloudEvents as headers of its record (the Kafka protocol binding of
//! CloudEvents 1.0, binary mode), with extensions for what kind of change it was, its number and its moment.

use tributary_event::Op;
use tributary_event::moment::rfc3339;

use crate::contract::Batch;

/// The header of its id.
pub const ID: &str = "ce_id";
/// That of what its id is unique in.
pub const SOURCE: &str = "ce_source";
/// That of what it is.
pub const KIND: &str = "ce_type";
/// That of the version of the specification.
pub const VERSION: &str = "ce_specversion";
/// That of when it was.
pub const TIME: &str = "ce_time";
/// That of what happened to the row, a letter.
pub const OP: &str = "ce_op";
/// That of the number of the change in its source.
pub const SEQUENCE: &str = "ce_sequence";
/// That of when it was committed, microseconds since the Unix epoch.
pub const COMMITTED: &str = "ce_committedus";
/// That of what the value is.
pub const CONTENT: &str = "content-type";

/// The attributes of an event.
#[derive(Debug, Clone, Copy)]
pub struct CloudEvent<'a> {
    /// Its id.
    pub id: &'a str,
    /// What its id is unique in.
    pub source: &'a str,
    /// What it is.
    pub kind: &'a str,
    /// What happened to the row.
    pub op: Op,
    /// The number of the change in its source.
    pub sequence: u64,
    /// When it was committed, microseconds since the Unix epoch, if that is known.
    pub committed_us: Option<i64>,
}

impl CloudEvent<'_> {
    /// Adds them to the record that was added to a batch last: what our own stages want to know.
    pub fn put(&self, batch: &mut Batch) {
        batch.header(VERSION, b"1.0");
        batch.header(ID, self.id.as_bytes());
        batch.header(SOURCE, self.source.as_bytes());
        batch.header(KIND, self.kind.as_bytes());
        batch.header(OP, self.op.letter().to_string().as_bytes());
        batch.header(SEQUENCE, itoa::Buffer::new().format(self.sequence).as_bytes());
        if let Some(us) = self.committed_us {
            batch.header(COMMITTED, itoa::Buffer::new().format(us).as_bytes());
        }
    }

    /// The same, with what others want to know of an event in JSON: its moment as text, and that it is JSON.
    pub fn put_for_others(&self, batch: &mut Batch) {
        self.put(batch);
        if let Some(time) = self.committed_us.and_then(rfc3339) {
            batch.header(TIME, time.as_bytes());
        }
        batch.header(CONTENT, b"application/json");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn attributes_are_headers_of_the_last_record() {
        let (id, source, kind) = ("7.2", "/films/main", "public.movie");
        let event =
            CloudEvent { id, source, kind, op: Op::Update, sequence: 7, committed_us: Some(1_614_265_330_250_000) };
        let mut batch = Batch::new();
        let topic: Arc<str> = "t".into();
        for is_for_others in [false, true] {
            batch.push(&topic, 1, Some(b"k"), Some(b"{}"));
            if is_for_others { event.put_for_others(&mut batch) } else { event.put(&mut batch) }
        }
        CloudEvent { committed_us: None, ..event }.put_for_others(&mut batch);
        let own = "ce_specversion=1.0 ce_id=7.2 ce_source=/films/main ce_type=public.movie ce_op=u ce_sequence=7";
        let text = |n: usize| {
            let record = batch.records().nth(n).map(|record| record.headers).unwrap_or_default();
            let parts: Vec<String> =
                record.iter().map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
            parts.join(" ")
        };
        assert_eq!(text(0), format!("{own} ce_committedus=1614265330250000"));
        let all = format!(
            "{own} ce_committedus=1614265330250000 ce_time=2021-02-25T15:02:10.250000Z content-type=application/json"
        );
        assert_eq!(text(1), format!("{all} {own} content-type=application/json"));
    }
}
