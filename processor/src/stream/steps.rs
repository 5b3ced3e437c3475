//! What the steps of a stream make of one record. Pure.

use std::fmt;
use std::time::Duration;

use tributary_dsl::plan::{StepPlan, StreamPlan, TopicSink};
use tributary_event::Op;
use tributary_expression::{Fields, Flow, Program, Value, json};
use tributary_transport::{Batch, Polled};

/// The longest that a program may take for one event.
const DEADLINE: Duration = Duration::from_millis(50);

/// The steps of a stream, and where it leads.
#[derive(Debug)]
pub(super) struct Steps {
    ops: Vec<Op>,
    /// Each with its name.
    steps: Vec<(String, StepPlan)>,
    /// The filters that come first: of most events nothing else is read than what they look at.
    first: usize,
    looked_at: Fields,
    sinks: Vec<Sink>,
    /// Whether some program looks at what is known beside the event.
    with_metadata: bool,
}

#[derive(Debug)]
struct Sink {
    topic: std::sync::Arc<str>,
    plan: TopicSink,
}

/// Why a record stops a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepError {
    /// The step, or the sink.
    pub step: String,
    /// The cause.
    pub cause: String,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

impl Steps {
    pub fn new(plan: &StreamPlan) -> Self {
        let named = |(place, step): (usize, &StepPlan)| (step.name(place + 1), step.clone());
        let sink = |plan: &TopicSink| Sink { topic: plan.name.as_str().into(), plan: plan.clone() };
        let programs =
            plan.steps.iter().map(StepPlan::program).chain(plan.sinks.iter().filter_map(|sink| sink.key.as_ref()));
        let filters = plan.steps.iter().take_while(|step| matches!(step, StepPlan::Filter(_)));
        let looked_at: Vec<Fields> = filters.map(|step| step.program().fields()).collect();
        Self {
            ops: plan.ops.clone(),
            first: looked_at.len(),
            looked_at: looked_at.into_iter().fold(Fields::default().with("op"), Fields::and),
            steps: plan.steps.iter().enumerate().map(named).collect(),
            with_metadata: programs.into_iter().any(Program::reads_metadata),
            sinks: plan.sinks.iter().map(sink).collect(),
        }
    }

    /// Adds what a record becomes to a batch: nothing, or a record for each sink.
    pub fn run(&self, record: &Polled, batch: &mut Batch) -> Result<(), StepError> {
        // A tombstone follows the event of its delete.
        let Some(value) = &record.value else { return Ok(()) };
        let unreadable = |e: json::ReadError| StepError { step: "event".to_owned(), cause: e.to_string() };
        let fields = if self.first > 0 { &self.looked_at } else { &Fields::All };
        let mut flow = Flow::new(json::read_some(value, fields).map_err(unreadable)?);
        let strange =
            || StepError { step: "event".to_owned(), cause: "it is no change event: it has no `op`".to_owned() };
        let op = op(&flow.event).ok_or_else(strange)?;
        if !self.ops.contains(&op) {
            return Ok(());
        }
        if self.with_metadata {
            flow.metadata = metadata(record);
        }
        let (filters, others) = self.steps.split_at(self.first);
        for (name, filter) in filters {
            if run(filter.program(), &mut flow, name)? != Value::Boolean(true) {
                return Ok(());
            }
        }
        if *fields != Fields::All {
            flow.event = json::read(value).map_err(unreadable)?;
        }
        let mut is_new = false;
        for (name, step) in others {
            let answer = run(step.program(), &mut flow, name)?;
            match step {
                StepPlan::Filter(_) if answer != Value::Boolean(true) => return Ok(()),
                StepPlan::Filter(_) => {}
                StepPlan::Transform(_) => is_new = true,
            }
        }
        for sink in &self.sinks {
            let name = format_args!("topic {}", sink.topic);
            let key = match &sink.plan.key {
                Some(program) => {
                    let name = name.to_string();
                    let key = json::key(&run(program, &mut flow, &name)?);
                    Some(key.ok_or_else(|| StepError { step: name, cause: "the key is null".to_owned() })?)
                }
                None => record.key.as_ref().map(|key| key.to_vec()),
            };
            let is_gone = sink.plan.compact && op == Op::Delete;
            if sink.plan.compact && key.is_none() {
                let cause = "the record has no key, and the topic is compacted: say what its `key` is".to_owned();
                return Err(StepError { step: name.to_string(), cause });
            }
            batch.write(
                &sink.topic,
                record.timestamp_ms,
                |out| {
                    out.extend_from_slice(key.as_deref().unwrap_or_default());
                    key.is_some()
                },
                |out| {
                    match is_new {
                        _ if is_gone => return false,
                        true => json::write(&flow.event, out),
                        // What no step changed is passed on as it came.
                        false => out.extend_from_slice(value),
                    }
                    true
                },
            );
        }
        Ok(())
    }
}

fn run(program: &Program, flow: &mut Flow, step: &str) -> Result<Value, StepError> {
    program.run(flow, DEADLINE).map_err(|failure| StepError { step: step.to_owned(), cause: failure.to_string() })
}

fn op(event: &Value) -> Option<Op> {
    let Value::Object(fields) = event else { return None };
    Op::from_letter(&fields.get("op")?.to_str_lossy()?)
}

/// What is known about an event beside what stands in it.
fn metadata(record: &Polled) -> Value {
    let text = |bytes: &[u8]| Value::from(String::from_utf8_lossy(bytes).into_owned());
    let key = record.key.as_deref().map_or(Value::Null, |key| json::read(key).unwrap_or_else(|_| text(key)));
    let whole = |number: u64| Value::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    Value::Object(
        [
            ("key".into(), key),
            ("topic".into(), Value::from(&*record.place.topic)),
            ("partition".into(), Value::Integer(record.place.partition.into())),
            ("offset".into(), whole(record.offset)),
        ]
        .into(),
    )
}

#[cfg(test)]
#[path = "steps_tests.rs"]
mod tests;
