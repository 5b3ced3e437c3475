//! The part of a trace that a stream is: a span for the way of each record that is traced, from its reading until what came of it is durable,
//! and one inside of it for each step. A step takes records together; its span is that of all of them.

use tributary_dsl::plan::Step;
use tributary_event::PlanHash;
use tributary_event::clock::now_us;
use tributary_event::traces::{self, Begun, Context, SpanKind, TRACEPARENT};
use tributary_transport::{Batch, Polled};

use super::{Steps, Traveller};

/// The way of a record that is traced.
#[derive(Debug, Clone)]
pub(in crate::stream) struct Traced(Box<Begun>);

impl Traced {
    /// That of a record that begins its way now, if it is traced.
    pub fn of(record: &Polled) -> Option<Self> {
        if !traces::is_on() {
            return None;
        }
        let parent = traces::continued(record.headers.view().get(TRACEPARENT))?;
        Some(Self(Box::new(Begun::after(parent))))
    }

    fn context(&self) -> Context {
        self.0.context
    }

    /// The step that ends next.
    fn step(&self) -> Context {
        self.0.next_part()
    }

    /// What came of it under a plan is durable, or it was set aside, and why.
    pub fn end(self, (stream, plan): (&str, Option<PlanHash>), record: &str, outcome: &str, error: Option<String>) {
        let mut attributes = vec![
            ("tributary.stream", stream.to_owned()),
            ("tributary.record", record.to_owned()),
            ("tributary.outcome", outcome.to_owned()),
        ];
        attributes.extend(plan.map(|plan| ("tributary.plan", plan.to_string())));
        self.0.end(format!("stream {stream}"), SpanKind::Consumer, attributes, error);
    }
}

/// Gives the record that was added to a batch last the context of what it came of.
pub(super) fn put(traced: Option<&Traced>, batch: &mut Batch) {
    if let Some(traced) = traced {
        batch.header(TRACEPARENT, traced.context().to_string().as_bytes());
    }
}

/// When a step begins, if any of its records is traced.
pub(super) fn begin(travellers: &[Traveller]) -> Option<i64> {
    travellers.iter().any(|traveller| traveller.traced.is_some()).then(now_us)
}

/// The step that records come to, as the first one that is traced has it: what is asked for all of them together came of it.
pub(super) fn step(travellers: &[Traveller]) -> Option<Context> {
    let comes = |traveller: &&Traveller| traveller.events.as_ref().is_ok_and(|events| !events.is_empty());
    travellers.iter().filter(comes).find_map(|traveller| traveller.traced.as_ref()).map(Traced::step)
}

impl Steps {
    /// The steps that come first were passed, up to the one at which a record ended.
    pub(super) fn looked(&self, first: usize, begun_us: Option<i64>, travellers: &mut [Traveller]) {
        let Some(begun_us) = begun_us else { return };
        for traveller in travellers {
            let (looked, is_over) = (traveller.looked, traveller.has_ended() || traveller.has_failed());
            let (Some(traced), Some(passed)) = (&mut traveller.traced, looked) else { continue };
            let error = traveller.events.as_ref().err().map(|error| error.cause.clone());
            for (place, (step, _)) in self.steps.iter().enumerate().take(first) {
                match place.cmp(&passed) {
                    std::cmp::Ordering::Less => part(traced, step, begun_us, "passed", None),
                    std::cmp::Ordering::Equal if is_over => {
                        let outcome = if error.is_some() { "failed" } else { "dropped" };
                        part(traced, step, begun_us, outcome, error.clone());
                    }
                    _ => break,
                }
            }
        }
    }

    /// A step was passed. `before`: how many events each record was; none: it had failed.
    pub(super) fn passed(
        &self,
        step: &Step,
        begun_us: Option<i64>,
        before: &[Option<usize>],
        travellers: &mut [Traveller],
    ) {
        let Some(begun_us) = begun_us else { return };
        for (before, traveller) in before.iter().zip(travellers) {
            let came = before.is_some_and(|count| count > 0);
            let Some(traced) = traveller.traced.as_mut().filter(|_| came) else { continue };
            match &traveller.events {
                Ok(events) if events.is_empty() => part(traced, step, begun_us, "dropped", None),
                Ok(_) => part(traced, step, begun_us, "passed", None),
                Err(error) => part(traced, step, begun_us, "failed", Some(error.cause.clone())),
            }
        }
    }
}

fn part(traced: &mut Traced, step: &Step, begun_us: i64, outcome: &str, error: Option<String>) {
    traced.0.part(format!("step {}", step.name), SpanKind::Internal, begun_us, outcome, error);
}
