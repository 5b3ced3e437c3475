//! Runs a case: its changes in topics of an embedded log in a folder of its own, through the stream as pipelines run it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;
use tributary_dsl::Definition;
use tributary_dsl::plan::{CollapsePlan, Origin, Start, Step, StepPlan, StreamPlan, own_topic};
use tributary_event::{Health, HealthState, Op};
use tributary_processor::stream::put_attributes;
use tributary_processor::{Enricher, Lag, Parked, Stream};
use tributary_transport::{
    Batch, DeadLetters, Embedded, EmbeddedSettings, Polled, Purpose, Retention, TopicPartition, TopicSpec, Transport,
    TransportError, dead_letter,
};

use super::answers::Answers;
use super::{Case, Change, Letter, Record, Way, input};

/// A case that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(30);
/// How often it is looked whether a case has come to its end.
const LOOK: Duration = Duration::from_millis(10);
/// So long an event is held at most.
const PATIENCE: Duration = Duration::from_millis(100);
/// Kills of a case that is run so.
const KILLS: u32 = 12;

/// What came of a case.
#[derive(Debug, Default)]
pub(super) struct Came {
    pub events: Vec<Json>,
    pub topics: BTreeMap<String, Vec<Record>>,
    pub letters: Vec<Letter>,
    pub stands_still: Option<String>,
}

/// Runs a case. `Err`: it could not be run to its end, and why.
pub(super) async fn run(definition: &Definition, case: &Case, plan: StreamPlan, way: Way) -> Result<Came, String> {
    let said = |e: TransportError| e.message;
    let folder = tempfile::tempdir().map_err(|e| format!("no folder for the case: {e}"))?;
    let log = Embedded::open(folder.path(), EmbeddedSettings::default()).map_err(said)?;
    let transport: Arc<dyn Transport> = Arc::new(log);
    let pipeline = definition.pipeline().to_owned();
    let steps = plan.steps.iter().map(impatient).collect();
    let plan = Arc::new(StreamPlan { start: Start::First, keeps_events: true, steps, ..plan });
    let own = own_topic(&pipeline, &plan.name);
    let spec = |name: &str| TopicSpec {
        name: name.to_owned(),
        partitions: 1,
        retention: Retention::Delete { age: None, bytes: None },
    };
    let mut topics: Vec<TopicSpec> = plan.from.iter().map(|from| spec(&from.topic)).collect();
    topics.extend(plan.topics.iter().map(|sink| spec(&sink.name)));
    topics.extend([spec(&own), dead_letter::spec("letters")]);
    transport.ensure_topics(&topics).await.map_err(said)?;
    append(transport.as_ref(), case, &plan).await.map_err(said)?;
    let services = definition.services().iter().map(|service| service.name.as_str());
    let tables = definition.tables().iter().map(|table| table.name.as_str());
    let answered = |name| (name, Arc::new(Answers::new(name, case.given.get(name))));
    let services: HashMap<&str, Arc<Answers>> = services.chain(tables).map(answered).collect();
    let enrichers: HashMap<String, Arc<dyn Enricher>> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.plan {
            StepPlan::Enrich(enrich) => Some((step.name.clone(), services.get(enrich.service.as_str())?)),
            StepPlan::Lookup(lookup) => Some((step.name.clone(), services.get(lookup.table.as_str())?)),
            _ => None,
        })
        .map(|(step, answers)| (step, answers.clone() as Arc<dyn Enricher>))
        .collect();
    let letters = DeadLetters::new(transport.clone(), "letters");
    let stream = || {
        let (health, lag) = (Health::default(), Lag::default());
        let stream = Stream {
            pipeline: pipeline.clone(),
            plan: plan.clone(),
            transport: transport.clone(),
            enrichers: enrichers.clone(),
            changes: None,
            taps: Arc::default(),
            parked: Arc::new(Parked::new(letters.clone(), Stream::stage(&plan.name))),
            reading: health.part("reader"),
            working: health.part("stream"),
            lag: lag.clone(),
        };
        (stream, health, lag)
    };
    if way == Way::Crashing {
        for _ in 0..KILLS {
            let running = tokio::spawn(stream().0.run(CancellationToken::new()));
            tokio::time::sleep(Duration::from_millis(fastrand::u64(0..25))).await;
            running.abort();
            let _ = running.await;
        }
    }
    let (last, health, lag) = stream();
    let shutdown = CancellationToken::new();
    let mut running = tokio::spawn(last.run(shutdown.clone()));
    let ending = async {
        loop {
            tokio::time::sleep(LOOK).await;
            let parts = health.parts();
            let stream = parts.get("stream").filter(|part| part.state == HealthState::Down);
            let stands_still = stream.and_then(|part| part.why.clone());
            if stands_still.is_some() || lag.get() == Some(0) {
                break stands_still;
            }
        }
    };
    let stands_still = tokio::select! {
        ended = &mut running => {
            let why = ended.map_or_else(|e| e.to_string(), |ended| ended.err().map_or_else(String::new, |e| e.to_string()));
            return Err(format!("the stream ended: {why}"));
        }
        ended = tokio::time::timeout(LONGEST, ending) => {
            ended.map_err(|_| format!("it did not come to its end within {LONGEST:?}"))?
        }
    };
    // One that stands still has records in flight, and would wait for them.
    if stands_still.is_some() {
        running.abort();
    }
    shutdown.cancel();
    let _ = running.await;
    if let Some(problem) = services.values().find_map(|answers| answers.unanswered()) {
        return Err(problem);
    }
    let mut came = Came { stands_still, ..Came::default() };
    came.events = read(transport.as_ref(), &own).await.map_err(said)?.iter().map(value).collect();
    for sink in &plan.topics {
        let records = read(transport.as_ref(), &sink.name).await.map_err(said)?;
        let told = |record: &Polled| Record { key: text(record.key.as_deref()), value: value(record) };
        came.topics.insert(sink.name.clone(), records.iter().map(told).collect());
    }
    let set_aside = letters.list().await.map_err(said)?;
    let told = |letter: tributary_transport::DeadLetter| Letter { key: letter.key_text(), cause: letter.cause };
    came.letters = set_aside.into_iter().map(told).collect();
    Ok(came)
}

/// A step as it is in a case: all changes are there at once, so that nothing comes after a while that would have to be waited for.
fn impatient(step: &Step) -> Step {
    let plan = match &step.plan {
        StepPlan::Collapse(plan) => {
            let patience = plan.patience.min(PATIENCE);
            StepPlan::Collapse(Box::new(CollapsePlan { patience, ..(**plan).clone() }))
        }
        other => other.clone(),
    };
    Step { plan, ..step.clone() }
}

async fn append(transport: &dyn Transport, case: &Case, plan: &StreamPlan) -> Result<(), TransportError> {
    let mut producer = transport.producer("cases", Purpose::Stage).await?;
    let (mut batch, mut time_ms) = (Batch::new(), 0);
    let changes = case.events.iter().flatten();
    for (number, (table, change)) in (1_u64..).zip(changes) {
        let Some(input) = input(plan, table) else { continue };
        time_ms = change.at.map_or(time_ms + 1, |at| i64::try_from(at.as_millis()).unwrap_or(i64::MAX));
        let key = key(change).map(|key| key.to_string());
        let value = match &input.origin {
            Origin::Table { .. } => envelope(table, change, number, time_ms),
            // Of these the event is what comes.
            Origin::Stream(_) | Origin::Topic => change.after.clone(),
        };
        let (key, value) = (key.as_deref().map(str::as_bytes), value.to_string());
        batch.push(&input.topic.as_str().into(), time_ms, key, Some(value.as_bytes()));
        if let Origin::Stream(name) = &input.origin {
            let op = Op::from_letter(&change.op).unwrap_or(Op::Create);
            put_attributes(&mut batch, name, op, number, time_ms.saturating_mul(1_000));
        }
    }
    if batch.is_empty() { Ok(()) } else { producer.append(&batch).await }
}

/// The key of a change, as a source would give it.
fn key(change: &Change) -> Option<Json> {
    if change.key.is_some() {
        return change.key.clone();
    }
    let row = if change.after.is_null() { &change.before } else { &change.after };
    row.get("id").map(|id| json!({ "id": id }))
}

/// A change as it is in its table's topic.
fn envelope(table: &str, change: &Change, number: u64, time_ms: i64) -> Json {
    let (schema, name) = table.split_once('.').unwrap_or(("", table));
    let mut envelope = json!({
        "before": change.before,
        "after": change.after,
        "source": { "schema": schema, "table": name, "ts_ms": time_ms, "ts_us": time_ms.saturating_mul(1_000) },
        "op": change.op,
        "ts_ms": time_ms,
        "sequence": number,
    });
    if let Some(unchanged) = &change.unchanged {
        envelope["unchanged"] = json!(unchanged);
    }
    envelope
}

async fn read(transport: &dyn Transport, topic: &str) -> Result<Vec<Polled>, TransportError> {
    let mut records = Vec::new();
    for (partition, ends) in transport.watermarks(topic).await?.into_iter().enumerate() {
        let place = TopicPartition { topic: topic.into(), partition: partition as u32 };
        let mut from = ends.low;
        while from < ends.high {
            let page = transport.read(&place, from, 500).await?;
            let Some(last) = page.last() else { break };
            from = last.offset + 1;
            records.extend(page);
        }
    }
    Ok(records)
}

fn value(record: &Polled) -> Json {
    record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or(Json::Null)
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
