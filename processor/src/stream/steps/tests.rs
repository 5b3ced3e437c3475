use std::sync::Arc;

use futures::FutureExt;
use tributary_dsl::plan::{FunctionPlan, Origin, Start};
use tributary_expression::{Path, Shape, Signature, Type};
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
    TopicSink { name: "out".into(), key: key.map(program), compact, cloud_events: false, when: None }
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

/// Once most events have come through the first steps, the next ones are read whole before these: what becomes of them does not change.
#[test]
fn events_that_are_read_whole_at_once_become_the_same() {
    let made = || {
        let looks = vec![StepPlan::Filter(program(".after.id == 1")), StepPlan::Changed(vec!["title".into()])];
        let transform = StepPlan::Transform(program(".n = to_int!(.after.id)"));
        steps(&ALL, looks.into_iter().chain([transform]).collect(), vec![to(None, false)])
    };
    let deep = format!(r#"{{"op":"u","after":{{"id":2}},"source":{}{}}}"#, "[".repeat(70), "]".repeat(70));
    let deep_and_wanted = deep.replace(r#""id":2"#, r#""id":1"#);
    let text = r#"{"op":"u","before":{"id":1,"title":"Alien"},"after":{"id":1,"title":"Aliens"}}"#;
    let other = r#"{"op":"u","before":{"id":2,"title":"Alien"},"after":{"id":2,"title":"Aliens"}}"#;
    for event in [UPDATE, DELETE, text, other, deep.as_str(), deep_and_wanted.as_str(), "{", "[]"] {
        let (looking, whole) = (made(), made());
        became(&whole, Some(UPDATE)).expect("it passes");
        assert!(whole.most_pass.load(Ordering::Relaxed) && !looking.most_pass.load(Ordering::Relaxed));
        assert_eq!(became(&whole, Some(event)), became(&looking, Some(event)), "{event}");
    }
    let whole = made();
    became(&whole, Some(UPDATE)).expect("it passes");
    became(&whole, Some(other)).expect("it is dropped");
    assert!(!whole.most_pass.load(Ordering::Relaxed), "one that is dropped changes that again");
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

/// Twice a number; it knows nothing of text, and panics at 13.
fn twice(into: Option<&str>, calls: &Arc<std::sync::atomic::AtomicUsize>) -> StepPlan {
    let calls = calls.clone();
    let body = move |rows: &[Vec<Value>]| {
        calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let twice = |row: &Vec<Value>| match row.first() {
            Some(Value::Integer(13)) => panic!("thirteen"),
            Some(Value::Integer(number)) => Ok(Value::Integer(number * 2)),
            Some(Value::Null) => Err("nothing is given".to_owned()),
            other => Err(format!("{other:?} is no number")),
        };
        Ok(rows.iter().map(twice).collect())
    };
    let function = Signature::new("twice").parameter("number", Type::any()).together(body);
    let into = into.map_or_else(Path::root, |into| Path::parse(into).expect("a path"));
    StepPlan::Call(Box::new(FunctionPlan { function, with: vec![program(".after.id")], into }))
}

/// What has become of records that went through together.
async fn together(steps: &Steps, values: &[&str]) -> Vec<Result<String, String>> {
    let records: Vec<Polled> = values.iter().map(|value| record(Some(value))).collect();
    let run = steps.run(&records.iter().collect::<Vec<_>>(), None).await.expect("nobody is away");
    let became = |(record, made): (&Polled, Traveller)| {
        let mut batch = Batch::new();
        steps.write(record, made, &mut batch).map_err(|error| error.to_string())?;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        Ok(batch.records().map(|record| record.value.map(text).expect("a value")).collect())
    };
    records.iter().zip(run).map(became).collect()
}

#[tokio::test]
async fn a_function_is_called_for_many_events_and_fails_for_one() {
    let update = |id: &str| format!(r#"{{"op":"u","after":{{"id":{id}}}}}"#);
    let (one, none, fault, two) = (update("1"), update("null"), update("13"), update("2"));
    let calls = Arc::default();
    let doubles = steps(&ALL, vec![twice(Some(".twice"), &calls)], vec![to(None, false)]);
    assert_eq!(
        together(&doubles, &[&one, &none, &two]).await,
        [
            Ok(r#"{"after":{"id":1},"op":"u","twice":2}"#.to_owned()),
            Err("call-1: twice: nothing is given".to_owned()),
            Ok(r#"{"after":{"id":2},"op":"u","twice":4}"#.to_owned())
        ]
    );
    assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), 1, "once for all of them");
    let came = together(&doubles, &[&one, &fault, &two]).await;
    assert!(came[0].is_ok() && came[2].is_ok());
    assert_eq!(came[1], Err("call-1: twice: it panicked: thirteen".to_owned()));
    // Each part of what was split is called for, and what fails for one fails for its record alone.
    let split =
        StepPlan::Split { each: Path::parse(".ids").expect("a path"), into: Path::parse(".after.id").expect("a path") };
    let parts = steps(&ALL, vec![split, twice(Some(".twice"), &calls)], vec![to(None, false)]);
    let of = |ids: &str| format!(r#"{{"op":"u","after":{{}},"ids":{ids}}}"#);
    let (whole, broken) = (of("[1,2]"), of("[3,null,4]"));
    let came = together(&parts, &[&broken, &whole, &of("[]")]).await;
    assert_eq!(came[0], Err("call-2: twice: nothing is given".to_owned()));
    assert!(
        came[1].as_ref().is_ok_and(|came| came.contains(r#""twice":2"#) && came.contains(r#""twice":4"#)),
        "{came:?}"
    );
    assert_eq!(came[2], Ok(String::new()));
}

#[tokio::test]
async fn what_takes_the_place_of_an_event_has_fields() {
    let whole = steps(&ALL, vec![twice(None, &Arc::default())], vec![to(None, false)]);
    let came = together(&whole, &[UPDATE]).await;
    assert_eq!(came, [Err("call-1: twice: it answered integer, which cannot take the event's place".to_owned())]);
}

/// It does in the topics that ask for it, and in no other; also of a row that was deleted.
#[test]
fn a_topic_that_asks_for_it_says_who_its_events_are() {
    let told = || TopicSink { cloud_events: true, ..to(None, false) };
    let compacted = TopicSink { cloud_events: true, ..to(Some("%key.id"), true) };
    let steps = steps(&ALL, vec![], vec![to(None, false), told(), compacted]);
    let event = r#"{"op":"d","sequence":9,"source":{"ts_us":1614265330250000},"before":{"id":1},"after":null}"#;
    let (record, mut batch) = (record(Some(event)), Batch::new());
    let made = steps.run(&[&record], None).now_or_never().expect("it waits for nobody").expect("nobody is asked");
    made.into_iter().for_each(|made| steps.write(&record, made, &mut batch).expect("written"));
    let header = |n: usize, name| {
        let headers = batch.records().nth(n).expect("a record").headers;
        headers.get(name).map(|value| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!(header(0, "ce_id"), None);
    for n in [1, 2] {
        assert_eq!(header(n, "ce_id").as_deref(), Some("9"));
        assert_eq!(header(n, "ce_source").as_deref(), Some("/test/s/db"));
        assert_eq!(header(n, "ce_type").as_deref(), Some("s"));
        assert_eq!(header(n, "ce_op").as_deref(), Some("d"));
        assert_eq!(header(n, "ce_time").as_deref(), Some("2021-02-25T15:02:10.250000Z"));
    }
}
