//! Change event → bytes. Appends to the caller's buffer and allocates nothing for common values.

use std::sync::Arc;

use bytestring::ByteString;

use super::DecimalMode;
use super::number::unscaled;
use super::text::{base64, float, integer, json_string};
use crate::change::{ChangeEvent, Op, Origin, SourceInfo};
use crate::position::{LogGroup, Lsn, Position};
use crate::row::{Row, TableSchema, Value};
use crate::scope::{Bound, Scope};

/// Encodes the events of one source. Holds what does not change from event to event, and the text that the events of
/// one table in one transaction share, so that most of an envelope is copied.
#[derive(Debug, Clone)]
pub struct Encoder {
    decimals: DecimalMode,
    source_head: Vec<u8>,
    database: Vec<u8>,
    shared: Shared,
    captured: Captured,
}

/// What the envelopes of the events of one table in one transaction have in common.
#[derive(Debug, Clone, Default)]
struct Shared {
    of: Option<SharedBy>,
    /// From `"source"` to the event's own position.
    head: Vec<u8>,
    /// From there to the position's second mention.
    middle: Vec<u8>,
    /// From there to the event's place in the transaction, or to the operation.
    tail: Vec<u8>,
}

/// Which events have a [`Shared`] in common.
#[derive(Debug, Clone, PartialEq)]
struct SharedBy {
    table: Arc<TableSchema>,
    commit: Option<Lsn>,
    group: Option<Arc<LogGroup>>,
    transaction: Option<u64>,
    commit_us: i64,
    origin: Option<Arc<Origin>>,
    query: Option<ByteString>,
    dump: bool,
}

impl SharedBy {
    fn holds(&self, event: &ChangeEvent) -> bool {
        Arc::ptr_eq(&self.table, &event.table)
            && self.commit == commit(event)
            && self.group.as_ref() == group(event)
            && self.transaction == event.transaction.map(|t| t.id)
            && self.commit_us == event.commit_us
            && self.origin == event.origin
            && is_same(self.query.as_ref(), event.query.as_ref())
            && self.dump == (event.op == Op::Read)
    }
}

/// Whether it is one text in one place. Two that are alike are not compared: rows of a statement have it in common.
fn is_same(one: Option<&ByteString>, other: Option<&ByteString>) -> bool {
    let place = |text: &ByteString| text.as_bytes().as_ptr_range();
    one.map(place) == other.map(place)
}

/// The times at which events were captured: the same for all that were read together.
#[derive(Debug, Clone, Default)]
struct Captured {
    us: i64,
    text: Vec<u8>,
}

fn commit(event: &ChangeEvent) -> Option<Lsn> {
    match event.position {
        Position::Postgres { commit, .. } => Some(commit),
        Position::MySql { .. } | Position::None => None,
    }
}

fn group(event: &ChangeEvent) -> Option<&Arc<LogGroup>> {
    match &event.position {
        Position::MySql { group, .. } => Some(group),
        Position::Postgres { .. } | Position::None => None,
    }
}

impl Encoder {
    /// An encoder for the events of `source`.
    pub fn new(source: &SourceInfo, decimals: DecimalMode) -> Self {
        let mut head = b",\"source\":{\"version\":\"".to_vec();
        head.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
        head.extend_from_slice(b"\",\"connector\":\"");
        head.extend_from_slice(source.kind.name().as_bytes());
        head.extend_from_slice(b"\",\"name\":");
        json_string(&mut head, source.name.as_bytes());
        let mut database = Vec::new();
        json_string(&mut database, source.database.as_bytes());
        let (shared, captured) = (Shared::default(), Captured::default());
        Self { decimals, source_head: head, database, shared, captured }
    }

    /// How exact decimals travel.
    pub fn decimals(&self) -> DecimalMode {
        self.decimals
    }

    /// Appends the envelope.
    pub fn value(&mut self, event: &ChangeEvent, out: &mut Vec<u8>) {
        self.envelope(event, None, out);
    }

    /// Appends the envelope of an event of which values were left out, with the place of the whole event (`whole`).
    pub fn value_in_part(&mut self, event: &ChangeEvent, whole: &str, out: &mut Vec<u8>) {
        self.envelope(event, Some(whole), out);
    }

    fn envelope(&mut self, event: &ChangeEvent, whole: Option<&str>, out: &mut Vec<u8>) {
        if let Some(message) = &event.message {
            out.extend_from_slice(b"{\"message\":{\"prefix\":");
            json_string(out, message.prefix.as_bytes());
            out.extend_from_slice(b",\"content\":");
            base64(out, &message.content);
            out.push(b'}');
        } else {
            out.extend_from_slice(b"{\"before\":");
            image(out, event.before.as_ref(), self.decimals);
            out.extend_from_slice(b",\"after\":");
            image(out, event.after.as_ref(), self.decimals);
        }
        self.frame(event, out);
        out.extend_from_slice(b",\"sequence\":");
        out.extend_from_slice(itoa::Buffer::new().format(event.sequence).as_bytes());
        self.scope(&event.scope, out);
        if let Some(after) = &event.after {
            listed(out, b",\"unchanged\":[", after.unchanged());
            listed(out, b",\"partial\":[", after.partial());
        }
        if let Some(whole) = whole {
            out.extend_from_slice(b",\"whole\":");
            json_string(out, whole.as_bytes());
        }
        out.push(b'}');
    }

    /// Where and when: `source`, `transaction`, `op` and the times of the capture.
    fn frame(&mut self, event: &ChangeEvent, out: &mut Vec<u8>) {
        if !self.shared.of.as_ref().is_some_and(|of| of.holds(event)) {
            self.share(event);
        }
        out.extend_from_slice(&self.shared.head);
        let places = match event.position {
            Position::Postgres { lsn, .. } => Some((lsn.0 as i64, lsn.0 as i64)),
            Position::MySql { offset, row, .. } => Some((offset as i64, i64::from(row))),
            Position::None => None,
        };
        if let Some((first, second)) = places {
            integer(out, first);
            out.extend_from_slice(&self.shared.middle);
            integer(out, second);
        }
        out.extend_from_slice(&self.shared.tail);
        if let Some(t) = event.transaction {
            integer(out, t.total_order as i64);
            out.extend_from_slice(b",\"data_collection_order\":");
            integer(out, t.table_order as i64);
            out.push(b'}');
        }
        out.extend_from_slice(b",\"op\":\"");
        out.push(event.op.letter() as u8);
        if self.captured.us != event.capture_us || self.captured.text.is_empty() {
            self.captured.us = event.capture_us;
            self.captured.text.clear();
            self.captured.text.extend_from_slice(b"\",\"ts_ms\":");
            integer(&mut self.captured.text, event.capture_us / 1_000);
            self.captured.text.extend_from_slice(b",\"ts_us\":");
            integer(&mut self.captured.text, event.capture_us);
            self.captured.text.extend_from_slice(b",\"ts_ns\":");
            integer(&mut self.captured.text, event.capture_us.saturating_mul(1_000));
        }
        out.extend_from_slice(&self.captured.text);
    }

    /// Writes what `event` shares with others of its table and transaction.
    fn share(&mut self, event: &ChangeEvent) {
        let Shared { of, head, middle, tail } = &mut self.shared;
        let dump = event.op == Op::Read;
        *of = Some(SharedBy {
            table: event.table.clone(),
            commit: commit(event),
            group: group(event).cloned(),
            transaction: event.transaction.map(|t| t.id),
            commit_us: event.commit_us,
            origin: event.origin.clone(),
            query: event.query.clone(),
            dump,
        });
        head.clear();
        head.extend_from_slice(&self.source_head);
        head.extend_from_slice(b",\"ts_ms\":");
        integer(head, event.commit_us / 1_000);
        head.extend_from_slice(if dump { b",\"snapshot\":\"true\"" } else { b",\"snapshot\":\"false\"" });
        head.extend_from_slice(b",\"db\":");
        middle.clear();
        tail.clear();
        if let Some(group) = group(event) {
            return share_group(event, group, head, middle, tail);
        }
        head.extend_from_slice(&self.database);
        let rest = match commit(event) {
            Some(commit) => {
                head.extend_from_slice(b",\"sequence\":\"[\\\"");
                integer(head, commit.0 as i64);
                head.extend_from_slice(b"\\\",\\\"");
                middle.extend_from_slice(b"\\\"]\"");
                middle
            }
            None => {
                head.extend_from_slice(b",\"sequence\":null");
                head
            }
        };
        rest.extend_from_slice(b",\"ts_us\":");
        integer(rest, event.commit_us);
        rest.extend_from_slice(b",\"ts_ns\":");
        integer(rest, event.commit_us.saturating_mul(1_000));
        // Messages are of no table.
        let table = if event.op == Op::Message { "" } else { &*event.table.name };
        rest.extend_from_slice(b",\"schema\":");
        json_string(rest, event.table.schema.as_bytes());
        rest.extend_from_slice(b",\"table\":");
        json_string(rest, table.as_bytes());
        rest.extend_from_slice(b",\"txId\":");
        match event.transaction {
            Some(t) => integer(rest, t.id as i64),
            None => rest.extend_from_slice(b"null"),
        }
        if commit(event).is_some() {
            rest.extend_from_slice(b",\"lsn\":");
            tail.extend_from_slice(b",\"xmin\":null,\"origin\":");
            match &event.origin {
                Some(origin) => {
                    json_string(tail, origin.name.as_bytes());
                    tail.extend_from_slice(b",\"origin_lsn\":");
                    match origin.commit {
                        Lsn(0) => tail.extend_from_slice(b"null"),
                        Lsn(commit) => integer(tail, commit as i64),
                    }
                }
                None => tail.extend_from_slice(b"null,\"origin_lsn\":null"),
            }
        }
        tail.extend_from_slice(b"},\"transaction\":");
        match event.transaction {
            Some(t) => {
                tail.extend_from_slice(b"{\"id\":\"");
                integer(tail, t.id as i64);
                if let Some(commit) = commit(event) {
                    tail.push(b':');
                    integer(tail, commit.0 as i64);
                }
                tail.extend_from_slice(b"\",\"total_order\":");
            }
            None => tail.extend_from_slice(b"null"),
        }
    }

    /// Which rows the event is of, if that is not the one of its key.
    fn scope(&self, scope: &Scope, out: &mut Vec<u8>) {
        let Some(word) = scope.word() else { return };
        out.extend_from_slice(b",\"scope\":");
        json_string(out, word.as_bytes());
        let Scope::Range(range) = scope else { return };
        out.extend_from_slice(b",\"range\":{\"from\":");
        self.bound(range.from.as_ref(), out);
        out.extend_from_slice(b",\"to\":");
        self.bound(range.to.as_ref(), out);
        out.push(b'}');
    }

    fn bound(&self, bound: Option<&Bound>, out: &mut Vec<u8>) {
        let Some(bound) = bound else { return out.extend_from_slice(b"null") };
        out.extend_from_slice(b"{\"key\":");
        object(out, &bound.key, self.decimals);
        out.extend_from_slice(if bound.inclusive { b",\"inclusive\":true}" } else { b",\"inclusive\":false}" });
    }
}

/// Names behind `head`, if there are some.
fn listed<'a>(out: &mut Vec<u8>, head: &[u8], names: impl Iterator<Item = &'a str>) {
    let mut first = true;
    for name in names {
        out.extend_from_slice(if first { head } else { b"," });
        json_string(out, name.as_bytes());
        first = false;
    }
    if !first {
        out.push(b']');
    }
}

/// What events of a group of MySQL's or MariaDB's log share: up to the place of an event, up to that of a row, and behind it.
fn share_group(event: &ChangeEvent, group: &LogGroup, head: &mut Vec<u8>, middle: &mut Vec<u8>, tail: &mut Vec<u8>) {
    json_string(head, event.table.schema.as_bytes());
    head.extend_from_slice(b",\"sequence\":null,\"ts_us\":");
    integer(head, event.commit_us);
    head.extend_from_slice(b",\"ts_ns\":");
    integer(head, event.commit_us.saturating_mul(1_000));
    head.extend_from_slice(b",\"table\":");
    json_string(head, event.table.name.as_bytes());
    head.extend_from_slice(b",\"server_id\":");
    integer(head, i64::from(group.server_id));
    head.extend_from_slice(b",\"gtid\":");
    match &group.gtid {
        Some(gtid) => json_string(head, gtid.as_bytes()),
        None => head.extend_from_slice(b"null"),
    }
    head.extend_from_slice(b",\"file\":");
    json_string(head, group.file.as_bytes());
    head.extend_from_slice(b",\"pos\":");
    middle.extend_from_slice(b",\"row\":");
    tail.extend_from_slice(b",\"thread\":");
    match group.thread {
        Some(thread) => integer(tail, i64::from(thread)),
        None => tail.extend_from_slice(b"null"),
    }
    tail.extend_from_slice(b",\"query\":");
    match &event.query {
        Some(query) => json_string(tail, query.as_bytes()),
        None => tail.extend_from_slice(b"null"),
    }
    tail.extend_from_slice(b"},\"transaction\":");
    match event.transaction {
        Some(_) => {
            tail.extend_from_slice(b"{\"id\":");
            json_string(tail, group.id().as_bytes());
            tail.extend_from_slice(b",\"total_order\":");
        }
        None => tail.extend_from_slice(b"null"),
    }
}

/// Appends the key of an event: that of its row, or for a logical message its prefix. False, and nothing appended, if it
/// has none.
pub fn encode_event_key(out: &mut Vec<u8>, event: &ChangeEvent, decimals: DecimalMode) -> bool {
    if let Some(message) = &event.message {
        out.extend_from_slice(b"{\"prefix\":");
        json_string(out, message.prefix.as_bytes());
        out.push(b'}');
        return true;
    }
    event.keyed_row().is_some_and(|row| encode_key(out, row, decimals))
}

/// Appends the key of a row: a JSON object of its key columns. False, and nothing appended, if its table has none.
pub fn encode_key(out: &mut Vec<u8>, row: &Row, decimals: DecimalMode) -> bool {
    if row.table.key.is_empty() {
        return false;
    }
    members(out, &row.table, &row.values, row.table.key.iter().copied(), decimals);
    true
}

fn image(out: &mut Vec<u8>, row: Option<&Row>, decimals: DecimalMode) {
    match row {
        None => out.extend_from_slice(b"null"),
        Some(row) => members(out, &row.table, &row.values, 0..row.values.len(), decimals),
    }
}

fn members(
    out: &mut Vec<u8>,
    table: &TableSchema,
    values: &[Value],
    indexes: impl Iterator<Item = usize>,
    decimals: DecimalMode,
) {
    out.push(b'{');
    let mut first = true;
    for index in indexes {
        let value = values.get(index).unwrap_or(&Value::Null);
        if !value.is_known() {
            continue;
        }
        if !first {
            out.push(b',');
        }
        first = false;
        out.extend_from_slice(table.json_name(index).as_bytes());
        encode_value(out, value, decimals);
    }
    out.push(b'}');
}

/// Appends one value as JSON. [`Value::Unchanged`] and [`Value::Partial`] have no encoding in band and become null here;
/// callers leave such columns out.
pub fn encode_value(out: &mut Vec<u8>, value: &Value, decimals: DecimalMode) {
    match value {
        Value::Null | Value::Unchanged | Value::Partial => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(i) => integer(out, *i),
        Value::UInt(i) => out.extend_from_slice(itoa::Buffer::new().format(*i).as_bytes()),
        Value::Float32(f) => float(out, f64::from(*f), |out| {
            let _ = serde_json::to_writer(out, f);
        }),
        Value::Float64(f) => float(out, *f, |out| {
            let _ = serde_json::to_writer(out, f);
        }),
        Value::Decimal { text, scale } => decimal(out, text, *scale, decimals),
        Value::Text(text) => json_string(out, text.as_bytes()),
        Value::Bytes(bytes) => base64(out, bytes),
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                encode_value(out, item, decimals);
            }
            out.push(b']');
        }
        Value::Object(members) => object(out, members, decimals),
    }
}

fn object(out: &mut Vec<u8>, members: &[(ByteString, Value)], decimals: DecimalMode) {
    out.push(b'{');
    for (i, (name, value)) in members.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        json_string(out, name.as_bytes());
        out.push(b':');
        encode_value(out, value, decimals);
    }
    out.push(b'}');
}

fn decimal(out: &mut Vec<u8>, text: &str, scale: Option<u16>, mode: DecimalMode) {
    match (mode, unscaled(text, scale)) {
        (DecimalMode::Precise, Some((bytes, actual))) => {
            if scale.is_some() {
                base64(out, &bytes);
            } else {
                out.extend_from_slice(b"{\"scale\":");
                integer(out, i64::from(actual));
                out.extend_from_slice(b",\"value\":");
                base64(out, &bytes);
                out.push(b'}');
            }
        }
        // Digits that the source printed are a JSON number already.
        (DecimalMode::Double, Some(_)) => out.extend_from_slice(text.as_bytes()),
        // NaN and infinities have no unscaled value.
        (DecimalMode::String, _) | (_, None) => json_string(out, text.as_bytes()),
    }
}
