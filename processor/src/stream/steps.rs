//! What the steps of a stream make of records. A run of records goes through one step after the other together, so that a service is
//! asked for many keys at a time; what comes of each record is kept apart, in the order in which they came.

mod looks;
mod waits;

pub(crate) use self::looks::metadata;
use self::looks::{fields, has_changed, op};
use self::waits::{sequence, wait_for};

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tributary_dsl::plan::{
    Missing, OnError, Origin, Step, StepPlan, StreamInput, StreamPlan, TopicSink, Wait, own_topic,
};
use tributary_event::Op;
use tributary_expression::{Fields, Flow, Program, Value, json};
use tributary_transport::{Batch, Polled};

use super::attributes::Attributes;
use super::tap::{Outcome, Taps};
use crate::outside::{Answer, Enricher, OutsideError};

/// Bytes that all parts of an event that is split may have together, about.
const SPLIT: usize = 256 << 20;
/// The longest that a program may take for one event.
const DEADLINE: Duration = Duration::from_millis(50);

/// The steps of a stream, and where it leads.
pub(super) struct Steps {
    ops: Vec<Op>,
    /// What is in the topics that it reads.
    inputs: Vec<StreamInput>,
    steps: Vec<(Step, Option<Arc<dyn Enricher>>)>,
    on_error: OnError,
    /// The steps that come first and only look: of most events nothing else is read than what they look at.
    first: usize,
    looked_at: Fields,
    /// Whether events that came through those are read whole.
    with_all: bool,
    sinks: Vec<Sink>,
    /// The topic of the stream's own, if it has one, and what events are there.
    own: Option<Own>,
    /// Whether some program looks at what is known beside the event.
    with_metadata: bool,
    stream: Arc<str>,
    taps: Arc<Taps>,
}

struct Sink {
    topic: Arc<str>,
    plan: TopicSink,
}

struct Own {
    topic: Arc<str>,
    pipeline: String,
    kind: Arc<str>,
}

/// Why a record does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepError {
    /// The step, or the sink.
    pub step: String,
    /// The cause.
    pub cause: String,
    /// What becomes of the record.
    pub on_error: OnError,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}

/// What a record has become so far.
pub(super) struct Traveller {
    /// Bytes of the record.
    size: usize,
    op: Op,
    /// None: it does not go on.
    events: Result<Vec<Event>, StepError>,
    /// Who it is outside of the transport, if that is asked for.
    attributes: Option<Attributes>,
    /// The number of the change that it came of, if it is known.
    sequence: Option<u64>,
}

impl Traveller {
    /// Whether nothing comes of the record.
    pub fn has_ended(&self) -> bool {
        self.events.as_ref().is_ok_and(Vec::is_empty)
    }
}

/// An event that a record has become.
struct Event {
    flow: Flow,
    /// Whether a step changed it.
    is_new: bool,
    /// Its places among the parts of what was split, from 1.
    parts: Vec<u32>,
}

impl Steps {
    /// The steps of a plan; `enricher` gives what asks the service of a step.
    pub fn new(
        plan: &StreamPlan,
        pipeline: &str,
        enricher: &dyn Fn(&str) -> Option<Arc<dyn Enricher>>,
        taps: Arc<Taps>,
    ) -> Self {
        let sink = |plan: &TopicSink| Sink { topic: plan.name.as_str().into(), plan: plan.clone() };
        let programs = plan
            .steps
            .iter()
            .filter_map(|step| step.plan.program())
            .chain(plan.topics.iter().flat_map(|sink| sink.key.iter().chain(&sink.when)));
        let looks = |step: &&Step| matches!(step.plan, StepPlan::Filter(_) | StepPlan::Changed(_));
        let first: Vec<&Step> = plan.steps.iter().take_while(looks).collect();
        let own = plan.keeps_events.then(|| Own {
            topic: own_topic(pipeline, &plan.name).into(),
            pipeline: pipeline.to_owned(),
            kind: plan.name.as_str().into(),
        });
        let looked_at = first.iter().map(|step| fields(&step.plan)).fold(Fields::default().with(&["op"]), Fields::and);
        let looked_at = match own {
            Some(_) => Attributes::FIELDS.iter().fold(looked_at, |fields, path| fields.with(path)),
            None => looked_at,
        };
        Self {
            ops: plan.ops.clone(),
            inputs: plan.from.clone(),
            first: first.len(),
            with_all: plan.steps.len() > first.len()
                || plan.topics.iter().any(|sink| sink.key.is_some() || sink.when.is_some()),
            looked_at,
            steps: plan.steps.iter().map(|step| (step.clone(), enricher(&step.name))).collect(),
            on_error: plan.on_error,
            with_metadata: programs.into_iter().any(Program::reads_metadata),
            sinks: plan.topics.iter().map(sink).collect(),
            own,
            stream: plan.name.as_str().into(),
            taps,
        }
    }

    /// Runs records through all steps: what each has become, in their order.
    ///
    /// # Errors
    /// A service does not answer.
    pub async fn run(&self, records: &[&Polled]) -> Result<Vec<Traveller>, OutsideError> {
        let is_watched = self.taps.is_watched();
        // Whoever watches wants to see events whole, and each step by itself.
        let first = if is_watched { 0 } else { self.first };
        let mut travellers: Vec<Traveller> =
            records.iter().map(|record| self.begin(record, first, is_watched)).collect();
        if is_watched {
            self.tap("from", records, &travellers, &[]);
        }
        for (step, enricher) in &self.steps[first..] {
            let before = if is_watched { events(&travellers) } else { Vec::new() };
            match &step.plan {
                StepPlan::Enrich(_) | StepPlan::Lookup(_) => {
                    let unasked = || OutsideError::fatal(format!("{}: there is nobody to ask", step.name));
                    let enricher = enricher.as_deref().ok_or_else(unasked)?;
                    if matches!(&step.plan, StepPlan::Lookup(plan) if plan.wait == Wait::Position) {
                        wait_for(enricher, &travellers).await?;
                    }
                    self.enrich(step, enricher, &mut travellers).await?;
                }
                _ => travellers.iter_mut().for_each(|traveller| self.step(step, traveller)),
            }
            if is_watched {
                self.tap(&step.name, records, &travellers, &before);
            }
        }
        Ok(travellers)
    }

    /// Tells watchers what became of events at a step. What failed before, or ended before, is not told again.
    fn tap(&self, step: &str, records: &[&Polled], travellers: &[Traveller], before: &[Vec<Value>]) {
        for (place, (record, traveller)) in records.iter().zip(travellers).enumerate() {
            let came = before.get(place).map_or(&[][..], Vec::as_slice);
            let tell = |event: Value, outcome| self.taps.tell(&self.stream, step, record, event, outcome);
            match &traveller.events {
                Ok(events) if events.is_empty() => {
                    came.iter().for_each(|event| tell(event.clone(), Outcome::Dropped));
                }
                Ok(events) => events.iter().for_each(|event| tell(event.flow.event.clone(), Outcome::Passed)),
                Err(error) if error.step == step || step == "from" => {
                    let event = came.first().cloned().unwrap_or(Value::Null);
                    tell(event, Outcome::Failed(error.cause.clone()));
                }
                Err(_) => {}
            }
        }
    }

    fn error(&self, step: &Step, cause: impl Into<String>) -> StepError {
        StepError { step: step.name.clone(), cause: cause.into(), on_error: step.on_error.unwrap_or(self.on_error) }
    }

    fn at(&self, step: &str, cause: impl Into<String>) -> StepError {
        StepError { step: step.to_owned(), cause: cause.into(), on_error: self.on_error }
    }

    /// Reads a record, and runs the first steps, which only look.
    fn begin(&self, record: &Polled, first: usize, whole: bool) -> Traveller {
        let size = record.value.as_ref().map_or(0, Bytes::len);
        let mut traveller =
            Traveller { size, op: Op::Update, events: Ok(Vec::new()), attributes: None, sequence: None };
        let mut read = self.read(record, first, whole, &mut traveller);
        if whole && read.is_err() {
            // What nobody watches may be read in part only; whether somebody watches changes nothing.
            read = self.read(record, self.first, false, &mut traveller);
        }
        match read {
            Ok(Some(event)) => traveller.events = Ok(vec![event]),
            Ok(None) => {}
            Err(error) => traveller.events = Err(error),
        }
        traveller
    }

    fn read(
        &self,
        record: &Polled,
        first: usize,
        whole: bool,
        traveller: &mut Traveller,
    ) -> Result<Option<Event>, StepError> {
        // A tombstone follows the event of its delete.
        let Some(value) = &record.value else { return Ok(None) };
        let unreadable = |e: json::ReadError| self.at("event", e.to_string());
        let is_pruned = !whole && (first > 0 || !self.with_all);
        let fields = if is_pruned { &self.looked_at } else { &Fields::All };
        let mut flow = Flow::new(json::read_some(value, fields).map_err(unreadable)?);
        let input = self.inputs.iter().find(|input| *input.topic == *record.place.topic);
        let upstream = Attributes::read(record);
        let op = match input.map(|input| &input.origin) {
            // What its programs left need not say it any more.
            Some(Origin::Stream(_)) => upstream.as_ref().map(|upstream| upstream.op),
            Some(Origin::Topic) => Some(Op::Create),
            _ => op(&flow.event),
        };
        let op = op.ok_or_else(|| self.at("event", "it is no change event: it has no `op`"))?;
        if !self.ops.contains(&op) {
            return Ok(None);
        }
        traveller.op = op;
        if self.with_metadata {
            flow.metadata = metadata(record);
        }
        for (step, _) in &self.steps[..first] {
            let passes = match &step.plan {
                StepPlan::Filter(program) => self.call(step, program, &mut flow)? == Value::Boolean(true),
                StepPlan::Changed(columns) => op != Op::Update || has_changed(&flow.event, columns),
                _ => true,
            };
            if !passes {
                return Ok(None);
            }
        }
        if let Some(own) = &self.own {
            traveller.attributes = Some(match (input.map(|input| &input.origin), upstream) {
                (Some(Origin::Stream(_)), Some(upstream)) => upstream.passed_on(&own.pipeline, &own.kind),
                (Some(Origin::Table { source, .. }), _) => {
                    Attributes::of(&flow.event, op, record, &own.pipeline, source, &own.kind)
                }
                _ => Attributes::of_record(op, record, &own.pipeline, &own.kind),
            });
        }
        if self.with_all && *fields != Fields::All {
            flow.event = json::read(value).map_err(unreadable)?;
        }
        traveller.sequence = sequence(input, &flow.event);
        Ok(Some(Event { flow, is_new: false, parts: Vec::new() }))
    }

    fn call(&self, step: &Step, program: &Program, flow: &mut Flow) -> Result<Value, StepError> {
        program.run(flow, DEADLINE).map_err(|failure| self.error(step, failure.to_string()))
    }

    /// Runs a step that asks nobody.
    fn step(&self, step: &Step, traveller: &mut Traveller) {
        let Ok(events) = &mut traveller.events else { return };
        let mut made = Vec::with_capacity(events.len());
        for mut event in std::mem::take(events) {
            let stepped = match &step.plan {
                StepPlan::Filter(program) => self
                    .call(step, program, &mut event.flow)
                    .map(|answer| made.extend((answer == Value::Boolean(true)).then_some(event))),
                StepPlan::Changed(columns) => {
                    let passes = traveller.op != Op::Update || has_changed(&event.flow.event, columns);
                    made.extend(passes.then_some(event));
                    Ok(())
                }
                StepPlan::Transform(program) => self.call(step, program, &mut event.flow).map(|_| {
                    event.is_new = true;
                    made.push(event);
                }),
                StepPlan::Split { each, into } => match each.get(&event.flow.event) {
                    Some(Value::Array(elements)) if elements.len().saturating_mul(traveller.size) > SPLIT => {
                        let (parts, size) = (elements.len(), traveller.size);
                        Err(self.error(step, format!(
                            "{each} has {parts} elements, and each would carry an event of {size} bytes; take what is not needed out of it \
                             before"
                        )))
                    }
                    Some(Value::Array(elements)) => {
                        let elements = elements.clone();
                        made.extend(elements.into_iter().zip(1..).map(|(element, part)| {
                            let mut flow = event.flow.clone();
                            into.put(&mut flow.event, element);
                            Event { flow, is_new: true, parts: [&event.parts[..], &[part]].concat() }
                        }));
                        Ok(())
                    }
                    None | Some(Value::Null) => Ok(()),
                    Some(other) => Err(self.error(step, format!("{each} is no list, but {}", other.kind()))),
                },
                StepPlan::Enrich(_) | StepPlan::Lookup(_) => Ok(()),
            };
            if let Err(error) = stepped {
                traveller.events = Err(error);
                return;
            }
        }
        traveller.events = Ok(made);
    }

    /// Asks a service, or a table, for the keys of all events together.
    async fn enrich(
        &self,
        step: &Step,
        enricher: &dyn Enricher,
        travellers: &mut [Traveller],
    ) -> Result<(), OutsideError> {
        let (who, key, into, missing) = match &step.plan {
            StepPlan::Enrich(plan) => (&plan.service, &plan.key, &plan.into, plan.missing),
            StepPlan::Lookup(plan) => (&plan.table, &plan.key, &plan.into, plan.missing),
            _ => return Ok(()),
        };
        let mut keys: Vec<Bytes> = Vec::new();
        let mut asked: Vec<Vec<Option<usize>>> = Vec::with_capacity(travellers.len());
        for traveller in travellers.iter_mut() {
            let mut of_this = Vec::new();
            if let Ok(events) = &mut traveller.events {
                let mut failed = None;
                for event in events {
                    match self.call(step, key, &mut event.flow) {
                        // Nobody knows anything of null.
                        Ok(Value::Null) => of_this.push(None),
                        Ok(key) => {
                            let mut text = Vec::new();
                            json::write(&key, &mut text);
                            of_this.push(Some(keys.len()));
                            keys.push(text.into());
                        }
                        Err(error) => {
                            failed = Some(error);
                            break;
                        }
                    }
                }
                if let Some(error) = failed {
                    keys.truncate(of_this.iter().flatten().next().copied().unwrap_or(keys.len()));
                    traveller.events = Err(error);
                    of_this.clear();
                }
            }
            asked.push(of_this);
        }
        let answers = if keys.is_empty() { Vec::new() } else { enricher.ask(&keys).await? };
        for (traveller, asked) in travellers.iter_mut().zip(asked) {
            let Ok(events) = &mut traveller.events else { continue };
            let mut made = Vec::with_capacity(events.len());
            let mut failed = None;
            for (mut event, place) in std::mem::take(events).into_iter().zip(asked) {
                let answer = place.and_then(|place| answers.get(place)).unwrap_or(&Answer::Missing);
                let found = match answer {
                    Answer::Found(answer) => {
                        json::read(answer).map(Some).map_err(|e| self.error(step, format!("the answer of {who}: {e}")))
                    }
                    Answer::Failed(why) => Err(self.error(step, why.clone())),
                    Answer::Missing => match missing {
                        Missing::Keep => Ok(Some(Value::Null)),
                        Missing::Drop => Ok(None),
                        Missing::Error => {
                            let key = place.and_then(|place| keys.get(place)).map(|key| String::from_utf8_lossy(key));
                            let key = key.unwrap_or_else(|| "null".into());
                            Err(self.error(step, format!("{who} does not know the key {key}")))
                        }
                    },
                };
                match found {
                    Ok(None) => {}
                    Ok(Some(value)) => {
                        into.put(&mut event.flow.event, value);
                        event.is_new = true;
                        made.push(event);
                    }
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
            traveller.events = failed.map_or(Ok(made), Err);
        }
        Ok(())
    }

    /// Adds what a record has become to a batch, for each sink. Where that fails, some of it may have been added.
    pub fn write(&self, record: &Polled, traveller: Traveller, batch: &mut Batch) -> Result<(), StepError> {
        let Traveller { op, events, attributes, .. } = traveller;
        for mut event in events? {
            for sink in &self.sinks {
                self.to_topic(sink, record, op, &mut event, batch)?;
            }
            if let (Some(own), Some(attributes)) = (&self.own, &attributes) {
                put(batch, &own.topic, record, record.key.as_deref(), &event);
                attributes.of_part(&event.parts).put(batch);
            }
        }
        Ok(())
    }

    fn to_topic(
        &self,
        sink: &Sink,
        record: &Polled,
        op: Op,
        event: &mut Event,
        batch: &mut Batch,
    ) -> Result<(), StepError> {
        let name = || format!("topic {}", sink.topic);
        if let Some(when) = &sink.plan.when {
            let answer = when.run(&mut event.flow, DEADLINE);
            if answer.map_err(|failure| self.at(&name(), failure.to_string()))? != Value::Boolean(true) {
                return Ok(());
            }
        }
        let key = match &sink.plan.key {
            Some(program) => {
                let key = program.run(&mut event.flow, DEADLINE);
                let key = key.map_err(|failure| self.at(&name(), failure.to_string()))?;
                Some(json::key(&key).ok_or_else(|| self.at(&name(), "the key is null"))?)
            }
            None => record.key.as_ref().map(|key| key.to_vec()),
        };
        if sink.plan.compact && key.is_none() {
            let cause = "the record has no key, and the topic is compacted: say what its `key` is";
            return Err(self.at(&name(), cause));
        }
        match (sink.plan.compact && op == Op::Delete, key.as_deref()) {
            (true, key) => batch.push(&sink.topic, record.timestamp_ms, key, None),
            (false, key) => put(batch, &sink.topic, record, key, event),
        }
        Ok(())
    }
}

/// The events as they are.
fn events(travellers: &[Traveller]) -> Vec<Vec<Value>> {
    let of = |traveller: &Traveller| {
        let events = traveller.events.as_ref().map_or(&[][..], Vec::as_slice);
        events.iter().map(|event| event.flow.event.clone()).collect()
    };
    travellers.iter().map(of).collect()
}

/// Adds an event to a batch. What no step changed is passed on as it came.
fn put(batch: &mut Batch, topic: &Arc<str>, record: &Polled, key: Option<&[u8]>, event: &Event) {
    batch.write(
        topic,
        record.timestamp_ms,
        |out| {
            out.extend_from_slice(key.unwrap_or_default());
            key.is_some()
        },
        |out| {
            match event.is_new {
                true => json::write(&event.flow.event, out),
                false => out.extend_from_slice(record.value.as_deref().unwrap_or_default()),
            }
            true
        },
    );
}

#[cfg(test)]
mod tests;
