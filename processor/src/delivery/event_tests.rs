use std::sync::Arc;

use tributary_dsl::plan::KnownFields;
use tributary_expression::Shape;
use tributary_transport::{Batch, Headers, TopicPartition};

use super::*;

fn record(op: Op, value: &str) -> Polled {
    let topic: Arc<str> = "p.s.events".into();
    let attributes =
        Attributes { id: "7".into(), source: "/p/db".into(), kind: "s".into(), op, sequence: 7, committed_us: Some(5) };
    let mut batch = Batch::new();
    batch.push(&topic, 1, Some(br#"{"id":1}"#), Some(value.as_bytes()));
    attributes.put(&mut batch);
    let put = batch.records().next().expect("one");
    let headers = Headers::of(put.headers.iter());
    let (key, value) = (put.key.map(Bytes::copy_from_slice), put.value.map(Bytes::copy_from_slice));
    Polled { place: TopicPartition { topic, partition: 0 }, offset: 3, key, value, headers, timestamp_ms: 1 }
}

fn plan(row: Option<&str>, is_envelope: bool, key: &[&str]) -> RowPlan {
    let compiled = row.map(|row| Program::compile(row, &Shape::any()).expect("a program").0);
    RowPlan {
        row: compiled,
        is_envelope,
        key: key.iter().map(|key| (*key).to_owned()).collect(),
        fields: KnownFields::default(),
    }
}

fn told(op: Op, value: &str, plan: &RowPlan) -> Result<(Option<String>, Option<String>), String> {
    let event = of(&record(op, value), None, Made::Row(plan))?.expect("an event");
    assert_eq!((event.id.as_str(), &*event.source, event.sequence, event.committed_us), ("7", "/p/db", 7, Some(5)));
    let text = |bytes: Option<Bytes>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok((text(event.row_key), text(event.content)))
}

const UPDATE: &str = r#"{"op":"u","before":{"id":1},"after":{"id":2,"title":"Alien"}}"#;
const DELETE: &str = r#"{"op":"d","before":{"id":1,"title":"Alien"},"after":null}"#;

#[test]
fn a_captured_event_is_its_row() {
    let row = plan(None, true, &["id"]);
    let new = Some(r#"{"id":2,"title":"Alien"}"#.to_owned());
    assert_eq!(told(Op::Update, UPDATE, &row), Ok((Some(r#"{"id":2}"#.into()), new)));
    assert_eq!(told(Op::Delete, DELETE, &row), Ok((Some(r#"{"id":1}"#.into()), None)));
    assert_eq!(told(Op::Truncate, r#"{"op":"t"}"#, &row), Ok((None, None)));
}

#[test]
fn what_a_program_makes_is_a_row_too() {
    let row = plan(Some("{ \"id\": .after.id, \"name\": .after.title, \"of\": %key.id }"), true, &["id"]);
    let made = Some(r#"{"id":2,"name":"Alien","of":1}"#.to_owned());
    assert_eq!(told(Op::Update, UPDATE, &row), Ok((Some(r#"{"id":2}"#.into()), made)));
    assert_eq!(told(Op::Delete, DELETE, &row), Ok((Some(r#"{"id":1}"#.into()), None)));
    // Of what a step left, the record's key is what is known of a row that is gone.
    assert_eq!(told(Op::Delete, "{}", &plan(None, false, &["id"])), Ok((Some(r#"{"id":1}"#.into()), None)));
}

#[test]
fn what_is_not_for_the_sink_is_left_out() {
    let when = Program::compile(".op == \"d\"", &Shape::any()).expect("a program").0;
    assert_eq!(of(&record(Op::Update, UPDATE), Some(&when), Made::Event), Ok(None));
    assert!(of(&record(Op::Delete, DELETE), Some(&when), Made::Event).expect("read").is_some());
}

#[test]
fn what_is_no_row_is_said() {
    let error = told(Op::Update, UPDATE, &plan(None, true, &["id", "country"])).unwrap_err();
    assert_eq!(error, "its key `id`, `country` is absent or null");
    assert!(told(Op::Update, r#"{"after":7}"#, &plan(None, true, &["id"])).unwrap_err().contains("integer"));
    let stranger = Polled { headers: Headers::NONE, ..record(Op::Update, UPDATE) };
    assert!(of(&stranger, None, Made::Event).is_err());
}

#[test]
fn an_input_is_what_a_program_makes_if_it_is_an_object() {
    let made = |program: &str, value: &str| {
        let program = Program::compile(program, &Shape::any()).expect("a program").0;
        let event = of(&record(Op::Update, value), None, Made::Input(&program))?.expect("an event");
        assert!(event.row_key.is_none());
        Ok(event.content.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default())
    };
    let input = made("{ \"movie\": .after.id, \"of\": %key.id }", UPDATE);
    assert_eq!(input, Ok(r#"{"movie":2,"of":1}"#.to_owned()));
    assert_eq!(made("object!(.after)", UPDATE), Ok(r#"{"id":2,"title":"Alien"}"#.to_owned()));
    let error: String = made("object!(.after)", DELETE).unwrap_err();
    assert!(error.starts_with("input: "), "{error}");
    assert!(made(".after", DELETE).unwrap_err().contains("no object"));
}
