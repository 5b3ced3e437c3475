//! A table that is kept in memory, where no database is to be reached: in cases of streams. An entry is all or nothing, marks and rows are
//! guarded, and events are folded as with a database; types of columns are not looked at.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};
use tributary_dsl::plan::SqlPlan;
use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Entry, LedgerSink, Mark};
use tributary_transport::TopicPartition;

use super::fold::{self, DELETED, Row, SEQ, Step, Values};

/// The rows of a stream.
#[derive(Debug)]
pub struct InMemory {
    key: Vec<String>,
    content: Mutex<Content>,
}

#[derive(Debug, Clone, Default)]
struct Content {
    marks: BTreeMap<TopicPartition, Mark>,
    /// By their keys.
    rows: BTreeMap<Vec<String>, Kept>,
}

#[derive(Debug, Clone)]
struct Kept {
    sequence: i64,
    key: Values,
    /// None: it was deleted.
    columns: Option<Values>,
}

impl InMemory {
    /// An empty table for a plan.
    pub fn new(plan: &SqlPlan) -> Self {
        Self { key: plan.row.key.clone(), content: Mutex::default() }
    }

    /// The rows that there are, in the order of their keys, with `_seq` and `_deleted`.
    pub fn rows(&self) -> Vec<Json> {
        let json = |value: &RawValue| serde_json::from_str(value.get()).unwrap_or(Json::Null);
        let row = |kept: &Kept| {
            let values = kept.key.iter().chain(kept.columns.iter().flatten());
            let mut row: Map<String, Json> = values.map(|(name, value)| (name.clone(), json(value))).collect();
            row.insert(SEQ.to_owned(), kept.sequence.into());
            row.insert(DELETED.to_owned(), kept.columns.is_none().into());
            Json::Object(row)
        };
        self.content().rows.values().map(row).collect()
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn truncate(&mut self, sequence: i64) {
        for kept in self.rows.values_mut().filter(|kept| kept.sequence < sequence && kept.columns.is_some()) {
            (kept.sequence, kept.columns) = (sequence, None);
        }
    }

    /// Writes a row that is newer than the one that is there.
    fn write(&mut self, row: Row) {
        let identity = fold::identity(&row.key);
        let before = self.rows.get(&identity);
        if before.is_some_and(|kept| kept.sequence >= row.sequence) {
            return;
        }
        // A row that comes after a delete has nothing of the one before it.
        let kept = before.and_then(|kept| kept.columns.clone());
        let columns = row.columns.map(|new| {
            let mut columns = kept.unwrap_or_default();
            columns.extend(new);
            columns
        });
        self.rows.insert(identity, Kept { sequence: row.sequence, key: row.key, columns });
    }
}

#[async_trait]
impl LedgerSink for InMemory {
    async fn next(&self, place: &TopicPartition) -> Result<Option<Mark>, OutsideError> {
        Ok(self.content().marks.get(place).copied())
    }

    async fn commit(&self, entry: &Entry<'_>) -> Result<Committed, OutsideError> {
        let rows = match fold::rows(entry.events, &self.key) {
            Ok(rows) => rows,
            Err((event, why)) => return Ok(Committed::Rejected { event, why }),
        };
        let mut content = self.content();
        if content.marks.get(entry.place).copied() != entry.from {
            return Ok(Committed::Fenced);
        }
        for step in fold::steps(rows, entry.events) {
            match step {
                Step::Truncate { sequence, .. } => content.truncate(sequence),
                Step::Rows(_, rows) => rows.into_iter().for_each(|row| content.write(row)),
            }
        }
        content.marks.insert(entry.place.clone(), entry.to);
        Ok(Committed::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tributary_dsl::plan::{KnownFields, RowPlan, Secret};
    use tributary_event::Op;
    use tributary_processor::sink::OutEvent;

    use super::*;

    fn event(sequence: u64, op: Op, content: Option<&'static str>) -> OutEvent {
        OutEvent {
            id: sequence.to_string(),
            source: "/p/s".into(),
            kind: "k".into(),
            op,
            sequence,
            committed_us: None,
            key: None,
            content: content.map(Into::into),
            row_key: Some(r#"{"id":1}"#.into()),
            span: None,
        }
    }

    async fn given(table: &InMemory, range: std::ops::Range<u64>, events: &[OutEvent]) -> Committed {
        let place = TopicPartition { topic: "t".into(), partition: 0 };
        let from = (range.start > 0).then(|| Mark::at(range.start));
        table.commit(&Entry { place: &place, from, to: Mark::at(range.end), events }).await.expect("it is there")
    }

    #[tokio::test]
    async fn rows_are_those_that_a_database_would_have() {
        let row = RowPlan { row: None, is_envelope: true, key: vec!["id".into()], fields: KnownFields::default() };
        let table = InMemory::new(&SqlPlan {
            url: Secret::new(String::new()),
            table: "public.t".parse().expect("a name"),
            row,
            create: true,
            keep_deleted: std::time::Duration::ZERO,
        });
        let first = [event(3, Op::Create, Some(r#"{"id":1,"a":1,"b":1}"#)), event(4, Op::Update, Some(r#"{"a":2}"#))];
        assert_eq!(given(&table, 0..2, &first).await, Committed::Done);
        let whole = json!([{ "id": 1, "a": 2, "b": 1, "_seq": 4, "_deleted": false }]);
        assert_eq!(json!(table.rows()), whole);
        // Another process was first, and an older event changes nothing.
        assert_eq!(given(&table, 0..2, &first).await, Committed::Fenced);
        assert_eq!(given(&table, 2..3, &first[..1]).await, Committed::Done);
        assert_eq!(json!(table.rows()), whole);
        let gone = [event(5, Op::Delete, None)];
        assert_eq!(given(&table, 3..4, &gone).await, Committed::Done);
        assert_eq!(json!(table.rows()), json!([{ "id": 1, "_seq": 5, "_deleted": true }]));
        assert_eq!(given(&table, 4..5, &[event(6, Op::Create, Some(r#"{"a":7}"#))]).await, Committed::Done);
        assert_eq!(json!(table.rows()), json!([{ "id": 1, "a": 7, "_seq": 6, "_deleted": false }]));
        let unfit = [OutEvent { row_key: None, ..event(7, Op::Create, Some("{}")) }];
        assert!(matches!(given(&table, 5..6, &unfit).await, Committed::Rejected { event: 0, .. }));
    }
}
