//! Events of an entry → rows to write, with at most one of a key in a statement. Pure.
//!
//! PostgreSQL refuses to touch a row twice in a statement, so rows of a key go into rounds, one after the other. A round that a later one
//! replaces as a whole is left out: an upsert by one that has all of its columns, anything by a delete. Upserts are not merged into one,
//! for each is guarded by its own sequence: where the table has come further than an event, as after a replay, the columns of that
//! event must stay out though those of a later one go in.
//!
//! A delete is no upsert's to replace: the columns that the row had before it are not those of a row that comes after it.

use std::collections::{BTreeMap, HashMap};

use serde_json::value::RawValue;
use tributary_event::Op;
use tributary_processor::sink::OutEvent;

/// The longest name of a column that each database keeps whole, in bytes: PostgreSQL's NAMEDATALEN, and one less than MySQL's.
pub(super) const LONGEST_NAME: usize = 63;
/// The sequence of a row's last change.
pub(super) const SEQ: &str = "_seq";
/// Whether a row was deleted.
pub(super) const DELETED: &str = "_deleted";

/// Values by column, as JSON.
pub(super) type Values = BTreeMap<String, Box<RawValue>>;

/// An event that no table can take: its place in the entry, and why.
pub(super) type Unfit = (usize, String);

/// What happened to a row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The place of its event in the entry.
    pub(super) event: usize,
    pub(super) sequence: i64,
    pub(super) key: Values,
    /// Its other columns; none: it was deleted.
    pub(super) columns: Option<Values>,
}

/// What is done at once.
#[derive(Debug)]
pub(super) enum Step {
    /// Rows of different keys with the same columns; none: they are deleted.
    Rows(Option<Vec<String>>, Vec<Row>),
    /// All rows of before are deleted.
    Truncate { sequence: i64, event: usize },
}

/// The rows of events, in their order; those of truncates have no key.
pub(super) fn rows(events: &[OutEvent], key: &[String]) -> Result<Vec<Row>, Unfit> {
    events.iter().enumerate().map(|(n, event)| row(n, event, key).map_err(|why| (n, why))).collect()
}

fn row(n: usize, event: &OutEvent, key: &[String]) -> Result<Row, String> {
    let sequence = i64::try_from(event.sequence)
        .map_err(|_| format!("its sequence {} is beyond 63 bits, and the column {SEQ} is a bigint", event.sequence))?;
    if event.op == Op::Truncate {
        return Ok(Row { event: n, sequence, key: Values::new(), columns: None });
    }
    let read = |bytes: &[u8], what: &str| {
        serde_json::from_slice::<Values>(bytes).map_err(|e| format!("{what} is no JSON object: {e}"))
    };
    let mut columns = event.content.as_deref().map(|content| read(content, "its row")).transpose()?;
    let mut given =
        event.row_key.as_deref().map(|key| read(key, "the key of its row")).transpose()?.unwrap_or_default();
    let mut values = Values::new();
    for name in key {
        let of_row = columns.as_mut().and_then(|columns| columns.remove(name));
        match given.remove(name).or(of_row) {
            Some(value) if value.get() != "null" => values.insert(name.clone(), value),
            _ => return Err(format!("its row has no value for {name:?}, a field of the key")),
        };
    }
    for name in columns.iter().flat_map(Values::keys) {
        if [SEQ, DELETED].contains(&name.as_str()) {
            return Err(format!(
                "its row has a field {name:?}, which is a column of the sink's own; rename it in `row`"
            ));
        }
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains('\0') {
            return Err(format!(
                "its row has a field {name:?}, which cannot be the name of a column; rename it in `row`"
            ));
        }
    }
    Ok(Row { event: n, sequence, key: values, columns })
}

/// What a key is told apart by: a text can be written in several ways.
pub(super) fn identity(key: &Values) -> Vec<String> {
    let value = |value: &RawValue| match serde_json::from_str::<String>(value.get()) {
        Ok(text) => format!("\"{text}"),
        Err(_) => value.get().to_owned(),
    };
    key.values().map(|v| value(v)).collect()
}

/// What is to be done, in order.
pub(super) fn steps(rows: Vec<Row>, events: &[OutEvent]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut fold = Fold::default();
    for row in rows {
        if events.get(row.event).is_some_and(|event| event.op == Op::Truncate) {
            std::mem::take(&mut fold).finish(&mut steps);
            steps.push(Step::Truncate { sequence: row.sequence, event: row.event });
        } else {
            fold.add(row);
        }
    }
    fold.finish(&mut steps);
    steps
}

/// The rows that are left of each key, in order.
#[derive(Default)]
struct Fold(HashMap<Vec<String>, Vec<Row>>);

impl Fold {
    fn add(&mut self, row: Row) {
        let rows = self.0.entry(identity(&row.key)).or_default();
        // What comes later but is older changes nothing, here as in the table.
        if rows.last().is_some_and(|last| row.sequence <= last.sequence) {
            return;
        }
        match &row.columns {
            None => rows.clear(),
            Some(new) => rows.retain(|old| match &old.columns {
                Some(old) => !old.keys().all(|name| new.contains_key(name)),
                None => true,
            }),
        }
        rows.push(row);
    }

    fn finish(self, steps: &mut Vec<Step>) {
        let mut rounds: BTreeMap<(usize, Option<Vec<String>>), Vec<Row>> = BTreeMap::new();
        for (round, row) in self.0.into_values().flat_map(|rows| rows.into_iter().enumerate()) {
            let columns = row.columns.as_ref().map(|columns| columns.keys().cloned().collect());
            rounds.entry((round, columns)).or_default().push(row);
        }
        steps.extend(rounds.into_iter().map(|((_, columns), mut rows)| {
            // In the same order whoever writes them, so that two transactions do not wait for each other.
            rows.sort_by_cached_key(|row| identity(&row.key));
            Step::Rows(columns, rows)
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(sequence: u64, content: Option<&str>) -> OutEvent {
        OutEvent {
            id: sequence.to_string(),
            source: "/p/s".into(),
            kind: "k".into(),
            op: Op::Update,
            sequence,
            committed_us: None,
            key: None,
            content: content.map(|content| content.to_owned().into()),
            row_key: Some("{\"id\":1}".into()),
            span: None,
        }
    }

    fn folded(events: &[OutEvent]) -> Vec<String> {
        let rows = rows(events, &["id".to_owned()]).expect("rows");
        let told = |step| match step {
            Step::Rows(columns, rows) => {
                let sequences: Vec<i64> = rows.iter().map(|row| row.sequence).collect();
                format!("{sequences:?} {}", columns.map_or("deleted".to_owned(), |columns| columns.join(",")))
            }
            Step::Truncate { sequence, .. } => format!("truncated {sequence}"),
        };
        steps(rows, events).into_iter().map(told).collect()
    }

    #[test]
    fn what_a_later_event_replaces_is_left_out() {
        assert_eq!(folded(&[event(1, Some(r#"{"a":1,"b":1}"#)), event(2, Some(r#"{"b":2,"a":2}"#))]), ["[2] a,b"]);
        let partial = [
            event(1, Some(r#"{"a":1,"b":1}"#)),
            event(2, Some(r#"{"a":2}"#)),
            event(3, Some(r#"{"b":3}"#)),
            event(4, Some(r#"{"a":4}"#)),
        ];
        assert_eq!(folded(&partial), ["[1] a,b", "[3] b", "[4] a"]);
        assert_eq!(folded(&[event(1, Some("{}")), event(2, None), event(3, None)]), ["[3] deleted"]);
        assert_eq!(folded(&[event(1, None), event(2, Some(r#"{"a":1}"#))]), ["[1] deleted", "[2] a"]);
        assert_eq!(folded(&[event(2, Some(r#"{"a":1}"#)), event(2, None), event(1, None)]), ["[2] a"]);
    }

    #[test]
    fn a_truncate_parts_what_is_before_it_from_what_is_after_it() {
        let truncate = OutEvent { op: Op::Truncate, row_key: None, ..event(2, None) };
        let events = [event(1, Some(r#"{"a":1}"#)), truncate, event(3, Some(r#"{"a":3}"#))];
        assert_eq!(folded(&events), ["[1] a", "truncated 2", "[3] a"]);
    }

    #[test]
    fn keys_are_one_however_their_texts_are_written() {
        let key = |key: &'static str, sequence| OutEvent { row_key: Some(key.into()), ..event(sequence, Some("{}")) };
        assert_eq!(folded(&[key(r#"{"id":"a"}"#, 1), key(r#"{"id":"\u0061"}"#, 2)]), ["[2] "]);
        assert_eq!(folded(&[key(r#"{"id":"1"}"#, 1), key(r#"{"id":1}"#, 2)]), ["[1, 2] "]);
        let long = [key(r#"{"id":12345678901234567890123}"#, 1), key(r#"{"id":12345678901234567890124}"#, 2)];
        assert_eq!(folded(&long), ["[1, 2] "]);
    }

    #[test]
    fn rows_that_no_table_can_take_are_told() {
        let unfit = |event: OutEvent| rows(&[event], &["id".to_owned()]).expect_err("unfit").1;
        assert!(unfit(OutEvent { row_key: None, ..event(1, Some("{}")) }).contains("\"id\""));
        assert!(unfit(OutEvent { row_key: Some(r#"{"id":null}"#.into()), ..event(1, None) }).contains("\"id\""));
        assert!(unfit(event(1, Some(r#"{"_seq":1}"#))).contains("rename"));
        assert!(unfit(event(1, Some(r#"{"":1}"#))).contains("rename"));
        assert!(unfit(event(1, Some("[]"))).contains("JSON object"));
        assert!(unfit(event(u64::MAX, Some("{}"))).contains("63 bits"));
        let long = format!(r#"{{"{}":1}}"#, "ü".repeat(32));
        assert!(unfit(event(1, Some(&long))).contains("rename"));
    }
}
