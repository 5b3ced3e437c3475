//! A record of a stream's own topic → the event that a sink gets.

use std::time::Duration;

use bytes::Bytes;
use tributary_dsl::plan::RowPlan;
use tributary_event::Op;
use tributary_event::traces::{self, Context, TRACEPARENT};
use tributary_expression::{Failure, Flow, Program, Value, json};
use tributary_transport::Polled;

use crate::sink::OutEvent;
use crate::stream::{Attributes, metadata};

/// The longest that a program may take for one event.
const DEADLINE: Duration = Duration::from_millis(50);

/// What a sink gets of an event.
#[derive(Debug, Clone, Copy)]
pub(super) enum Made<'a> {
    /// All of it.
    Event,
    /// The row that it is about.
    Row(&'a RowPlan),
    /// What a program makes of it, an object.
    Input(&'a Program),
}

/// The event of a record; none: it is none, or is not for the sink. `Err`: what a sink gets of it cannot be said, and why.
pub(super) fn of(record: &Polled, when: Option<&Program>, made: Made) -> Result<Option<OutEvent>, String> {
    let Some(value) = record.value.clone() else { return Ok(None) };
    if let Some(when) = when {
        let event = json::read(&value).map_err(|e| e.to_string())?;
        let answer = run(record, when, event).map_err(|failure| format!("when: {failure}"))?;
        if answer != Value::Boolean(true) {
            return Ok(None);
        }
    }
    let attributes = Attributes::read(record).ok_or("it is no event of a stream: its headers do not say who it is")?;
    let Attributes { id, source, kind, op, sequence, committed_us } = attributes;
    let key = record.key.clone();
    let (content, span) = (Some(value), traces::continued(record.headers.view().get(TRACEPARENT)).map(Context::child));
    let event = OutEvent { id, source, kind, op, sequence, committed_us, key, content, row_key: None, span };
    match made {
        // It is of the table, not of a row.
        Made::Row(_) if op == Op::Truncate => Ok(Some(OutEvent { content: None, ..event })),
        Made::Row(row) => of_row(record, row, event).map(Some),
        Made::Input(program) => of_input(record, program, event).map(Some),
        Made::Event => Ok(Some(event)),
    }
}

fn of_input(record: &Polled, program: &Program, event: OutEvent) -> Result<OutEvent, String> {
    let value = json::read(event.content.as_deref().unwrap_or_default()).map_err(|e| e.to_string())?;
    let input = run(record, program, value).map_err(|failure| format!("input: {failure}"))?;
    match input {
        Value::Object(_) => Ok(OutEvent { content: Some(text(&input)), ..event }),
        other => Err(format!("its input is no object, but {}", other.kind())),
    }
}

/// What a program answers.
fn run(record: &Polled, program: &Program, value: Value) -> Result<Value, Failure> {
    let mut flow = Flow::new(value);
    if program.reads_metadata() {
        flow.metadata = metadata(record);
    }
    program.run(&mut flow, DEADLINE)
}

fn text(value: &Value) -> Bytes {
    let mut out = Vec::new();
    json::write(value, &mut out);
    out.into()
}

fn of_row(record: &Polled, plan: &RowPlan, event: OutEvent) -> Result<OutEvent, String> {
    let value = json::read(event.content.as_deref().unwrap_or_default()).map_err(|e| e.to_string())?;
    let before = part(&value, "before").filter(|_| plan.is_envelope).cloned();
    let row = match &plan.row {
        Some(program) => run(record, program, value).map_err(|failure| format!("row: {failure}"))?,
        None if plan.is_envelope => part(&value, "after").cloned().unwrap_or(Value::Null),
        None => value,
    };
    let is_gone = event.op == Op::Delete;
    if !is_gone && !matches!(row, Value::Object(_)) {
        return Err(format!("its row is no object, but {}", row.kind()));
    }
    let of_record = record.key.as_deref().and_then(|key| json::read(key).ok());
    // A row that was deleted is known by what it was, or by the record's key.
    let candidates = [Some(row.clone()), before.filter(|_| is_gone), of_record.filter(|_| is_gone)];
    let row_key = candidates.iter().flatten().find_map(|candidate| key_of(candidate, &plan.key)).ok_or_else(|| {
        let columns = plan.key.iter().map(|column| format!("`{column}`")).collect::<Vec<_>>().join(", ");
        format!("its key {columns} is absent or null")
    })?;
    let content = (!is_gone).then(|| text(&row));
    Ok(OutEvent { row_key: Some(text(&row_key)), content, ..event })
}

fn part<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    value.as_object()?.get(name)
}

/// The values of the key's columns, if all of them are there.
fn key_of(row: &Value, columns: &[String]) -> Option<Value> {
    let row = row.as_object()?;
    let value = |column: &String| {
        let value = row.get(column.as_str()).filter(|value| !value.is_null())?;
        Some((column.as_str().into(), value.clone()))
    };
    columns.iter().map(value).collect::<Option<_>>().map(Value::Object)
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
