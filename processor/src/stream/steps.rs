//! What the steps of a stream make of records. A run of records goes through one step after the other together, so that a service is
//! asked for many keys at a time; what comes of each record is kept apart, in the order in which they came.

mod asking;
mod calls;
mod counts;
mod error;
mod looks;
mod reading;
mod remembering;
mod traced;
mod waits;
mod writing;

pub(super) use self::counts::Tally;
pub(super) use self::error::StepError;
pub(crate) use self::looks::metadata;
pub(super) use self::traced::Traced;

use self::counts::Counts;
use self::looks::{fields, has_changed};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tributary_dsl::plan::{OnError, Step, StepPlan, StreamInput, StreamPlan, TopicSink, own_topic};
use tributary_event::Op;
use tributary_expression::json::Excess;
use tributary_expression::{Fields, Flow, Program, Value, json};
use tributary_transport::Polled;

use super::attributes::Attributes;
use super::seen::Seen;
use super::tap::{Outcome, Taps};
use crate::outside::{Enricher, OutsideError};

/// Bytes that all parts of an event that is split may have together, about.
const SPLIT: usize = 256 << 20;
/// The longest that a program may take for one event.
const DEADLINE: Duration = Duration::from_millis(50);
/// Where an event fails that cannot be read.
const RECORD: &str = "event";

/// The steps of a stream, and where it leads.
pub(super) struct Steps {
    ops: Vec<Op>,
    /// What is in the topics that it reads.
    inputs: Vec<StreamInput>,
    steps: Vec<(Step, Option<Arc<dyn Enricher>>)>,
    /// The place of the step that holds events; behind the last where none does.
    behind: usize,
    on_error: OnError,
    /// Bytes that an event may have.
    max_event: usize,
    /// The steps that come first and only look: nothing else is read than what they look at, unless most events pass them.
    first: usize,
    looked_at: Fields,
    /// Whether events that came through those are read whole.
    with_all: bool,
    /// Whether more than two thirds of the last records came through the first steps. Then the next ones are read whole at once, which costs
    /// less than to read some fields first and then everything.
    most_pass: AtomicBool,
    sinks: Vec<Sink>,
    /// The topic of the stream's own, if it has one.
    own: Option<Arc<str>>,
    /// What events are to others, if that is wanted of any topic.
    who: Option<Who>,
    /// Whether some program looks at what is known beside the event.
    with_metadata: bool,
    /// Whether it is asked for when events were.
    with_time: bool,
    stream: Arc<str>,
    taps: Arc<Taps>,
    counts: Counts,
}

struct Sink {
    topic: Arc<str>,
    plan: TopicSink,
}

struct Who {
    pipeline: String,
    kind: Arc<str>,
}

/// What a record has become so far.
pub(super) struct Traveller {
    /// Bytes of the record.
    size: usize,
    op: Op,
    /// Of the steps that come first and only look, it has come through so many; none: it came to no step.
    looked: Option<usize>,
    /// When its event was, in microseconds since the Unix epoch, if that is asked for and there is one.
    pub time_us: Option<i64>,
    /// None: it does not go on.
    events: Result<Vec<Event>, StepError>,
    /// Who it is outside of the transport, if that is asked for.
    attributes: Option<Attributes>,
    /// The number of the change that it came of, if it is known.
    sequence: Option<u64>,
    /// Its part of a trace, if it is traced.
    pub traced: Option<Traced>,
}

impl Traveller {
    /// Whether nothing comes of the record.
    pub fn has_ended(&self) -> bool {
        self.events.as_ref().is_ok_and(Vec::is_empty)
    }

    /// Why the partition does not go on behind it, if it does not.
    pub fn stops(&self) -> Option<&StepError> {
        self.events.as_ref().err().filter(|error| error.on_error == OnError::Stop)
    }

    /// Whether a step failed for it.
    pub fn has_failed(&self) -> bool {
        self.events.is_err()
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
            .flat_map(|step| step.plan.programs())
            .chain(plan.topics.iter().flat_map(|sink| sink.key.iter().chain(&sink.when)));
        let looks = |step: &&Step| matches!(step.plan, StepPlan::Filter(_) | StepPlan::Changed(_));
        let first: Vec<&Step> = plan.steps.iter().take_while(looks).collect();
        let own = plan.keeps_events.then(|| own_topic(pipeline, &plan.name).into());
        let is_told = plan.keeps_events || plan.topics.iter().any(|topic| topic.cloud_events);
        let who = is_told.then(|| Who { pipeline: pipeline.to_owned(), kind: plan.name.as_str().into() });
        let looked_at = first.iter().map(|step| fields(&step.plan)).fold(Fields::default().with(&["op"]), Fields::and);
        let with_time = plan.steps.iter().any(|step| matches!(step.plan, StepPlan::Dedupe(_) | StepPlan::Collapse(_)));
        let looked_at = match who.is_some() || with_time {
            true => Attributes::FIELDS.iter().fold(looked_at, |fields, path| fields.with(path)),
            false => looked_at,
        };
        let holds = |step: &Step| matches!(step.plan, StepPlan::Collapse(_));
        Self {
            behind: plan.steps.iter().position(holds).unwrap_or(plan.steps.len()),
            max_event: usize::try_from(plan.max_event).unwrap_or(usize::MAX),
            with_time,
            counts: Counts::new(&plan.name, plan.steps.iter().map(|step| step.name.as_str())),
            ops: plan.ops.clone(),
            inputs: plan.from.clone(),
            first: first.len(),
            with_all: plan.steps.len() > first.len()
                || plan.topics.iter().any(|sink| sink.key.is_some() || sink.when.is_some()),
            most_pass: AtomicBool::new(false),
            looked_at,
            steps: plan.steps.iter().map(|step| (step.clone(), enricher(&step.name))).collect(),
            on_error: plan.on_error,
            with_metadata: programs.into_iter().any(Program::reads_metadata),
            sinks: plan.topics.iter().map(sink).collect(),
            own,
            who,
            stream: plan.name.as_str().into(),
            taps,
        }
    }

    /// Runs records through all steps, or up to the one that holds events: what each has become, in their order. What a step has seen is
    /// `seen`; without it, no event has been.
    ///
    /// # Errors
    /// A service does not answer.
    pub async fn run(&self, records: &[&Polled], mut seen: Option<&mut Seen>) -> Result<Vec<Traveller>, OutsideError> {
        let is_watched = self.taps.is_watched();
        // Whoever watches wants to see events whole, and each step by itself.
        let first = if is_watched { 0 } else { self.first };
        let is_read_whole = first > 0 && self.with_all && self.most_pass.load(Ordering::Relaxed);
        let begun = Instant::now();
        let begin = |record: &&Polled| {
            let traced = Traced::of(record);
            let fits = record.value.as_ref().is_none_or(|value| value.len() <= self.max_event);
            Traveller { traced, ..self.begin(record, first, is_watched || is_read_whole && fits) }
        };
        let mut travellers: Vec<Traveller> = records.iter().map(begin).collect();
        if !is_watched {
            let has_passed = |traveller: &&Traveller| !traveller.has_ended() && !traveller.has_failed();
            let passed = travellers.iter().filter(has_passed).count();
            self.most_pass.store(passed * 3 > travellers.len() * 2, Ordering::Relaxed);
        }
        self.counts.began(&travellers, first, begun.elapsed());
        let began_us = traced::begin(&travellers);
        self.looked(first, began_us, &mut travellers);
        if is_watched {
            self.tap("from", records, &travellers, &[]);
        }
        for place in first..self.behind {
            if place == self.first {
                travellers.iter_mut().for_each(|traveller| self.let_in(traveller));
            }
            self.pass(place, records, &mut travellers, seen.as_deref_mut()).await?;
        }
        if self.behind == self.first {
            travellers.iter_mut().for_each(|traveller| self.let_in(traveller));
        }
        Ok(travellers)
    }

    /// The same through the steps behind the one that holds events.
    ///
    /// # Errors
    /// A service does not answer.
    pub async fn run_behind(&self, records: &[&Polled], travellers: &mut [Traveller]) -> Result<(), OutsideError> {
        for place in self.behind + 1..self.steps.len() {
            self.pass(place, records, travellers, None).await?;
        }
        Ok(())
    }

    /// Lets a step see records again that were done before, and does nothing else with them.
    pub fn remember(&self, records: &[&Polled], seen: &mut Seen) {
        let mut travellers: Vec<Traveller> =
            records.iter().map(|record| self.begin(record, self.first, false)).collect();
        travellers.iter_mut().for_each(|traveller| self.let_in(traveller));
        for (step, _) in &self.steps[self.first..] {
            if let StepPlan::Dedupe(plan) = &step.plan {
                return self.dedupe(step, plan, records, &mut travellers, Some(seen));
            }
            self.step_all(step, &mut travellers);
        }
    }

    /// One step for all records.
    async fn pass(
        &self,
        place: usize,
        records: &[&Polled],
        travellers: &mut [Traveller],
        seen: Option<&mut Seen>,
    ) -> Result<(), OutsideError> {
        let Some((step, enricher)) = self.steps.get(place) else { return Ok(()) };
        let is_watched = self.taps.is_watched();
        let shown = if is_watched { events(travellers) } else { Vec::new() };
        let (before, begun, begun_us) = (Counts::before(travellers), Instant::now(), traced::begin(travellers));
        match &step.plan {
            StepPlan::Enrich(_) | StepPlan::Lookup(_) => {
                let unasked = || OutsideError::fatal(format!("{}: there is nobody to ask", step.name));
                self.enrich(step, enricher.as_deref().ok_or_else(unasked)?, travellers).await?;
                travellers.iter_mut().for_each(|traveller| self.bound(step, traveller));
            }
            StepPlan::Call(plan) => {
                self.call_function(step, plan, travellers).await?;
                travellers.iter_mut().for_each(|traveller| self.bound(step, traveller));
            }
            StepPlan::Dedupe(plan) => self.dedupe(step, plan, records, travellers, seen),
            _ => self.step_all(step, travellers),
        }
        self.counts.passed(place, &before, travellers, begun.elapsed());
        self.passed(step, begun_us, &before, travellers);
        if is_watched {
            self.tap(&step.name, records, travellers, &shown);
        }
        Ok(())
    }

    fn step_all(&self, step: &Step, travellers: &mut [Traveller]) {
        for traveller in travellers {
            self.step(step, traveller);
            if step.plan.changes() {
                self.bound(step, traveller);
            }
        }
    }

    /// Refuses an event that is larger than it may be.
    fn let_in(&self, traveller: &mut Traveller) {
        if traveller.size > self.max_event && traveller.events.as_ref().is_ok_and(|events| !events.is_empty()) {
            let (size, most) = (traveller.size, self.max_event);
            let cause = format!(
                "it has {size} bytes, and the stream's `max_event` is {most}: raise it, or filter such events out before"
            );
            traveller.events = Err(self.at(RECORD, cause));
        }
    }

    /// Refuses an event that a step has made larger or deeper than it may be.
    fn bound(&self, step: &Step, traveller: &mut Traveller) {
        let Ok(events) = &mut traveller.events else { return };
        let Some(excess) = events.iter().find_map(|event| json::fits(&event.flow.event, self.max_event).err()) else {
            return;
        };
        std::mem::take(events).into_iter().for_each(|event| json::dismantle(event.flow.event));
        let cause = match excess {
            Excess::Deep => format!("it leaves more than {} values inside of one another", json::DEPTH),
            Excess::Large => format!(
                "it leaves an event of more than {} bytes, the stream's `max_event`: raise it, or let the step leave less",
                self.max_event
            ),
        };
        traveller.events = Err(self.error(step, cause));
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
                // These look at several events together.
                StepPlan::Enrich(_)
                | StepPlan::Lookup(_)
                | StepPlan::Call(_)
                | StepPlan::Dedupe(_)
                | StepPlan::Collapse(_) => {
                    made.push(event);
                    Ok(())
                }
            };
            if let Err(error) = stepped {
                traveller.events = Err(error);
                return;
            }
        }
        traveller.events = Ok(made);
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

#[cfg(test)]
mod tests;
