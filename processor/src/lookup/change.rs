//! What a record of a topic changes in a table. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;
use serde_json::value::RawValue;
use tracing::warn;
use tributary_dsl::plan::{CapturedTable, LookupTable};
use tributary_event::Op;
use tributary_event::debezium::json_string;
use tributary_expression::{Flow, json};
use tributary_transport::Polled;

use super::DEADLINE;

/// A change of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// A row is there from now on.
    Put {
        key: Bytes,
        /// The number of the change; 0 where there is none.
        sequence: u64,
        row: Bytes,
        /// Columns that `row` lacks, and the row before still has as they are.
        kept: Vec<String>,
        /// Whether the row before may have other values there, or there may be none under this key.
        is_new: bool,
    },
    /// A row is gone.
    Remove { key: Bytes, sequence: u64 },
    /// All rows are gone that no later change has put there.
    Empty { sequence: u64 },
}

impl Change {
    /// The number of the change.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Put { sequence, .. } | Self::Remove { sequence, .. } | Self::Empty { sequence } => *sequence,
        }
    }

    /// A row that was listed.
    pub fn listed(key: &[u8], row: Bytes) -> Self {
        Self::Put { key: of_record(key), sequence: 0, row, kept: Vec::new(), is_new: false }
    }
}

/// A change event, as far as a table looks at it.
#[derive(Deserialize)]
struct Envelope<'a> {
    op: Cow<'a, str>,
    #[serde(borrow, default)]
    after: Option<&'a RawValue>,
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    unchanged: Vec<String>,
    /// They changed, and nobody knows to what.
    #[serde(default)]
    partial: Vec<String>,
    /// The event is of more rows than its key names.
    #[serde(default)]
    scope: Option<Cow<'a, str>>,
    /// Values were left out because the event was too large: they may have changed.
    #[serde(default)]
    whole: Option<String>,
}

/// What a record changes; none: nothing. One that cannot be read is no row, which is told.
pub(super) fn of(plan: &LookupTable, record: &Polled) -> Option<Change> {
    let read = match &plan.captured {
        Some(captured) => of_event(captured, record),
        None => of_row(plan, record),
    };
    read.unwrap_or_else(|error| {
        let record = format!("{}/{}/{}", record.place.topic, record.place.partition, record.offset);
        warn!(table = plan.name, record, error, "a record is no row of its table");
        None
    })
}

/// A record of a topic of rows.
fn of_row(plan: &LookupTable, record: &Polled) -> Result<Option<Change>, String> {
    let key = match (&plan.key, &record.value) {
        (Some(program), Some(value)) => {
            let mut flow = Flow::new(json::read(value).map_err(|e| e.to_string())?);
            let key = program.run(&mut flow, DEADLINE).map_err(|failure| failure.to_string())?;
            json::key(&key).map(|key| normal(&key))
        }
        _ => record.key.as_deref().map(normal),
    };
    Ok(key.map(|key| match &record.value {
        Some(row) => Change::Put { key, sequence: 0, row: row.clone(), kept: Vec::new(), is_new: false },
        None => Change::Remove { key, sequence: 0 },
    }))
}

/// A record of the topic of a captured table.
fn of_event(captured: &CapturedTable, record: &Polled) -> Result<Option<Change>, String> {
    // A tombstone follows the event of its delete.
    let Some(value) = &record.value else { return Ok(None) };
    let event: Envelope = serde_json::from_slice(value).map_err(|e| e.to_string())?;
    let (op, sequence) = (Op::from_letter(&event.op), event.sequence);
    if op == Some(Op::Truncate) {
        return Ok(Some(Change::Empty { sequence }));
    }
    let Some(key) = record.key.as_deref().map(of_record) else { return Ok(None) };
    if let Some(scope) = event.scope.filter(|scope| scope != "row") {
        return Err(format!("it is of the scope {scope}, and rows are kept by their whole keys"));
    }
    if op == Some(Op::Delete) {
        return Ok(Some(Change::Remove { key, sequence }));
    }
    let Some(after) = event.after else { return Ok(None) };
    let is_wanted = |column: &String| captured.columns.is_empty() || captured.columns.contains(column);
    let partial = event.partial.iter().any(is_wanted);
    let kept: Vec<String> = event.unchanged.into_iter().chain(event.partial).filter(is_wanted).collect();
    let row = match captured.columns.as_slice() {
        [] => Bytes::copy_from_slice(after.get().as_bytes()),
        columns => {
            let fields: BTreeMap<Cow<'_, str>, &RawValue> =
                serde_json::from_str(after.get()).map_err(|e| e.to_string())?;
            object(columns.iter().filter_map(|name| fields.get(name.as_str()).map(|value| (name.as_str(), *value))))
        }
    };
    // An insert that lacks values is the second half of an update that changed the key: the row before had another one.
    let is_new = op != Some(Op::Update) || event.whole.is_some() || partial;
    Ok(Some(Change::Put { key, sequence, row, kept, is_new }))
}

/// A row with the columns that it lacks, as the row before has them; none: that does not have all of them.
pub(super) fn completed(row: &[u8], kept: &[String], before: &[u8]) -> Option<Bytes> {
    let fields = |row| serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(row).ok();
    let (mut fields, before) = (fields(row)?, fields(before)?);
    for column in kept {
        fields.insert(column.as_str().into(), before.get(column.as_str())?);
    }
    Some(object(fields.iter().map(|(name, value)| (&**name, *value))))
}

fn object<'a>(fields: impl Iterator<Item = (&'a str, &'a RawValue)>) -> Bytes {
    let mut out = vec![b'{'];
    for (name, value) in fields {
        if out.len() > 1 {
            out.push(b',');
        }
        json_string(&mut out, name.as_bytes());
        out.push(b':');
        out.extend_from_slice(value.get().as_bytes());
    }
    out.push(b'}');
    out.into()
}

/// The key of a record of a captured table: the value of its only column, or an object of all of them.
pub(super) fn of_record(key: &[u8]) -> Bytes {
    match serde_json::from_slice::<BTreeMap<String, Json>>(key) {
        Ok(columns) if columns.len() == 1 => columns.into_values().next().map_or_else(Bytes::new, as_key),
        _ => normal(key),
    }
}

/// A key however it is written: text as it is, anything else as JSON.
pub(super) fn normal(key: &[u8]) -> Bytes {
    serde_json::from_slice::<Json>(key).map_or_else(|_| Bytes::copy_from_slice(key), as_key)
}

fn as_key(key: Json) -> Bytes {
    match key {
        Json::String(text) => text.into_bytes().into(),
        // Whoever asks may name the columns in another order.
        Json::Object(fields) => {
            serde_json::to_vec(&fields.into_iter().collect::<BTreeMap<String, Json>>()).unwrap_or_default().into()
        }
        other => other.to_string().into_bytes().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_dsl::plan::Keep;
    use tributary_transport::{Headers, TopicPartition};

    fn change(columns: &[&str], key: &str, value: Option<&str>) -> Option<Change> {
        let captured = CapturedTable {
            source: "s".into(),
            table: "public.t".parse().expect("a name"),
            columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        };
        let (name, topic, captured) = ("t".to_owned(), "s.public.t".to_owned(), Some(captured));
        let plan = LookupTable { name, topic, captured, key: None, keep: Keep::Memory, limit: 1 << 20, max_age: None };
        let place = TopicPartition { topic: "s.public.t".into(), partition: 0 };
        let (key, value) = (Some(key.to_owned().into()), value.map(|value| value.to_owned().into()));
        of(&plan, &Polled { place, offset: 0, key, value, headers: Headers::NONE, timestamp_ms: 0 })
    }

    fn put(key: &str, sequence: u64, row: &str, kept: &[&str], is_new: bool) -> Option<Change> {
        let kept = kept.iter().map(|column| (*column).to_owned()).collect();
        let (key, row) = (key.to_owned().into(), row.to_owned().into());
        Some(Change::Put { key, sequence, row, kept, is_new })
    }

    #[test]
    fn events_change_rows() {
        let event = r#"{"op":"c","after":{"id":7,"price":1.50,"name":"x"},"sequence":5}"#;
        assert_eq!(
            change(&["name", "price"], r#"{"id":7}"#, Some(event)),
            put("7", 5, r#"{"name":"x","price":1.50}"#, &[], true)
        );
        let event = r#"{"op":"u","after":{"id":7,"name":"x"},"unchanged":["text","more"],"sequence":6}"#;
        let named = put("7", 6, r#"{"name":"x"}"#, &["text"], false);
        assert_eq!(change(&["name", "text"], r#"{"id":7}"#, Some(event)), named);
        let all = put("7", 6, r#"{"id":7,"name":"x"}"#, &["text", "more"], false);
        assert_eq!(change(&[], r#"{"id":7}"#, Some(event)), all);
        let event = r#"{"op":"u","after":{"id":7,"name":"x"},"partial":["text","more"],"sequence":6}"#;
        assert_eq!(
            change(&["name", "text"], r#"{"id":7}"#, Some(event)),
            put("7", 6, r#"{"name":"x"}"#, &["text"], true),
            "what it was before is not what it is"
        );
        let event = r#"{"op":"d","before":{"a":1},"after":null,"scope":"partition","sequence":7}"#;
        assert_eq!(change(&[], r#"{"a":1}"#, Some(event)), None, "no row has that key");
        let event = r#"{"op":"d","before":{"a":1,"b":"x"},"after":null,"sequence":7}"#;
        let gone = Some(Change::Remove { key: r#"{"a":1,"b":"x"}"#.into(), sequence: 7 });
        assert_eq!(change(&[], r#"{"b":"x","a":1}"#, Some(event)), gone);
        assert_eq!(change(&[], r#"{"id":7}"#, Some(r#"{"op":"t","sequence":8}"#)), Some(Change::Empty { sequence: 8 }));
        assert_eq!(change(&[], r#"{"id":7}"#, None), None);
        assert_eq!(change(&[], r#"{"id":7}"#, Some("no event")), None);
    }

    #[test]
    fn a_row_is_completed_by_the_one_before() {
        let kept = ["text".to_owned()];
        let before = br#"{"id":7,"name":"old","text":"long"}"#;
        let row = completed(br#"{"id":7,"name":"new"}"#, &kept, before);
        assert_eq!(row.as_deref(), Some(&br#"{"id":7,"name":"new","text":"long"}"#[..]));
        assert_eq!(completed(br#"{"id":7}"#, &kept, br#"{"id":7}"#), None);
    }
}
