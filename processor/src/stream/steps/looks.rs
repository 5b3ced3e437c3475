//! What steps look at: fields of events that have to be read for them, changes of columns, and what is known beside an event. Pure.

use tributary_dsl::plan::StepPlan;
use tributary_event::Op;
use tributary_expression::{Fields, Value, json};
use tributary_transport::Polled;

/// What a step that only looks looks at.
pub(super) fn fields(step: &StepPlan) -> Fields {
    match step {
        StepPlan::Filter(program) => program.fields(),
        StepPlan::Changed(columns) => columns.iter().fold(Fields::default().with(&["unchanged"]), |fields, column| {
            fields.with(&["before", column.as_str()]).with(&["after", column.as_str()])
        }),
        _ => Fields::All,
    }
}

/// Whether one of these columns changed by an update, as far as the event tells: a value before that is not known may have been another.
pub(super) fn has_changed(event: &Value, columns: &[String]) -> bool {
    let part = |name: &str| event.as_object().and_then(|event| event.get(name));
    let column = |row: &str, name: &str| part(row).and_then(Value::as_object).and_then(|row| row.get(name));
    let unchanged = part("unchanged").and_then(Value::as_array).unwrap_or_default();
    columns.iter().any(|name| {
        let kept = unchanged.iter().any(|kept| kept.to_str_lossy().is_some_and(|kept| kept == name.as_str()));
        !kept && (column("before", name).is_none() || column("before", name) != column("after", name))
    })
}

pub(super) fn op(event: &Value) -> Option<Op> {
    let Value::Object(fields) = event else { return None };
    Op::from_letter(&fields.get("op")?.to_str_lossy()?)
}

/// What is known about an event beside what stands in it. Of several headers of a name the last counts.
pub(crate) fn metadata(record: &Polled) -> Value {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let key = record.key.as_deref().map_or(Value::Null, |key| json::read(key).unwrap_or_else(|_| text(key)));
    let headers = record.headers.view();
    let headers = headers.iter().map(|(name, value)| (name.into(), text(value)));
    let whole = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    Value::Object(
        [
            ("key".into(), key),
            ("topic".into(), Value::from(&*record.place.topic)),
            ("partition".into(), Value::Integer(record.place.partition.into())),
            ("offset".into(), whole(record.offset)),
            ("headers".into(), Value::Object(headers.collect())),
        ]
        .into(),
    )
}

#[cfg(test)]
mod tests {
    use tributary_transport::{Headers, TopicPartition};

    use super::*;

    #[test]
    fn what_is_known_of_a_record_beside_its_value_can_be_asked_for() {
        let headers: [(&str, &[u8]); 3] = [("trace", b"1"), ("trace", b"2"), ("odd", &[0xff])];
        let record = Polled {
            place: TopicPartition { topic: "t".into(), partition: 3 },
            offset: 7,
            key: Some(br#"{"id":1}"#.as_slice().into()),
            value: None,
            headers: Headers::of(headers),
            timestamp_ms: 1,
        };
        let mut known = Vec::new();
        json::write(&metadata(&record), &mut known);
        let expected = "{\"headers\":{\"odd\":\"\u{fffd}\",\"trace\":\"2\"},\"key\":{\"id\":1},\"offset\":7,\"partition\":3,\"topic\":\"t\"}";
        assert_eq!(String::from_utf8_lossy(&known), expected);
    }
}
