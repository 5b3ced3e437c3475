use std::sync::Arc;

use futures::FutureExt;
use tributary_dsl::plan::Start;
use tributary_expression::Shape;
use tributary_transport::{Batch, Headers, TopicPartition};

use super::*;

fn program(text: &str) -> Program {
    Program::compile(text, &Shape::any()).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).0
}

fn steps(ops: &[Op], steps: Vec<StepPlan>, topics: Vec<TopicSink>) -> Steps {
    let from = vec![StreamInput {
        topic: "db.public.movie".into(),
        origin: Origin::Table { source: "db".into(), table: "public.movie".into() },
    }];
    let named = |(place, plan): (usize, StepPlan)| Step {
        name: format!("{}-{}", plan.word(), place + 1),
        plan,
        on_error: None,
    };
    let steps = steps.into_iter().enumerate().map(named).collect();
    let (ops, on_error, start) = (ops.to_vec(), OnError::Stop, Start::Now);
    let plan = StreamPlan {
        name: "s".into(),
        from,
        ops,
        start,
        steps,
        on_error,
        max_event: 8 << 20,
        topics,
        deliveries: vec![],
        keeps_events: false,
    };
    Steps::new(&plan, "test", &|_| None, Arc::default())
}

fn to(key: Option<&str>, compact: bool) -> TopicSink {
    TopicSink { name: "out".into(), key: key.map(program), compact, when: None }
}

fn record(value: Option<&str>) -> Polled {
    Polled {
        place: TopicPartition { topic: Arc::from("db.public.movie"), partition: 3 },
        offset: 7,
        key: Some(r#"{"id":1}"#.into()),
        value: value.map(|value| value.to_owned().into()),
        headers: Headers::NONE,
        timestamp_ms: 5,
    }
}

const ALL: [Op; 4] = [Op::Create, Op::Update, Op::Delete, Op::Read];
const UPDATE: &str = r#"{"op":"u", "before":null, "after":{"id":1,"title":"Alien"}}"#;
const DELETE: &str = r#"{"op":"d","before":{"id":1},"after":null}"#;

fn became(steps: &Steps, value: Option<&str>) -> Result<Vec<(String, Option<String>)>, StepError> {
    let (record, mut batch) = (record(value), Batch::new());
    let made = steps.run(&[&record], None).now_or_never().expect("it waits for nobody").expect("nobody is asked");
    made.into_iter().try_for_each(|made| steps.write(&record, made, &mut batch))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let told = batch.records().map(|r| (r.key.map(text).unwrap_or_default(), r.value.map(text)));
    Ok(told.collect())
}

#[test]
fn an_event_that_no_step_changes_goes_on_as_it_came() {
    let passes = steps(&ALL, vec![StepPlan::Filter(program(r#".op == "u""#))], vec![to(None, false)]);
    assert_eq!(became(&passes, Some(UPDATE)), Ok(vec![(r#"{"id":1}"#.into(), Some(UPDATE.into()))]));
    assert_eq!(became(&passes, Some(DELETE)), Ok(vec![]));
    assert_eq!(became(&passes, None), Ok(vec![]), "a tombstone is no event");
}

#[test]
fn what_a_program_leaves_goes_on_under_the_key_that_is_asked_for() {
    let transform = StepPlan::Transform(program(". = { \"title\": .after.title, \"at\": %offset }"));
    let made = steps(&ALL, vec![transform], vec![to(Some(".title"), false), to(Some("%key.id"), false)]);
    let value = Some(r#"{"at":7,"title":"Alien"}"#.to_owned());
    assert_eq!(became(&made, Some(UPDATE)), Ok(vec![("Alien".into(), value.clone()), ("1".into(), value)]));
}

#[test]
fn a_compacted_topic_forgets_a_row_that_is_deleted() {
    let compacted = steps(&ALL, vec![], vec![to(Some("%key.id"), true)]);
    assert_eq!(became(&compacted, Some(DELETE)), Ok(vec![("1".into(), None)]));
}

#[test]
fn other_operations_do_not_flow() {
    let creates = steps(&[Op::Create], vec![], vec![to(None, false)]);
    assert_eq!(became(&creates, Some(UPDATE)), Ok(vec![]));
}

#[test]
fn what_fails_names_its_step() {
    let fails = |step: StepPlan| became(&steps(&ALL, vec![step], vec![to(None, false)]), Some(UPDATE)).unwrap_err();
    let error = fails(StepPlan::Transform(program(".n = to_int!(.after.title)")));
    assert!(error.step == "transform-1" && error.cause.contains("to_int"), "{error}");
    assert_eq!(fails(StepPlan::Filter(program(r#"abort "no""#))).to_string(), "filter-1: it aborted: no");
    let keyless = steps(&ALL, vec![], vec![to(Some(".nothing"), false)]);
    assert_eq!(became(&keyless, Some(UPDATE)).unwrap_err().to_string(), "topic out: the key is null");
    assert_eq!(became(&keyless, Some("{")).unwrap_err().step, "event");
}
