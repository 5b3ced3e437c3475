//! Events on their way through the steps of a stream, as a tap tells of them: what came, what each service and table said, and whether it
//! has come to its end.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::{Value as Json, json};
use tributary_dsl::plan::{Origin, Step, StepPlan, StreamPlan};
use tributary_expression::{Flow, Path, Program, json as values};
use tributary_processor::Answer;

use super::{AllGiven, add};
use crate::cases::answers::written;
use crate::cases::{Case, Change};

/// The longest that a program may take to say what a key was.
const DEADLINE: Duration = Duration::from_millis(50);

/// The journeys of events of one stream.
pub(super) struct Journeys<'a> {
    plan: &'a StreamPlan,
    /// In the order in which they began.
    all: Vec<Journey>,
    /// By where their events were read.
    places: HashMap<String, usize>,
}

/// What is known of an event.
struct Journey {
    place: String,
    event: Json,
    given: AllGiven,
    /// The events before the step that was told of last, and behind it.
    before: Vec<Json>,
    behind: Vec<Json>,
    step: String,
    has_ended: bool,
}

impl<'a> Journeys<'a> {
    /// Nothing has come.
    pub fn new(plan: &'a StreamPlan) -> Self {
        Self { plan, all: Vec::new(), places: HashMap::new() }
    }

    /// How many have come to their end, none before them not having done so.
    pub fn ended(&self) -> usize {
        self.all.iter().take_while(|journey| journey.has_ended).count()
    }

    /// Takes a line of a tap.
    pub fn add(&mut self, told: &Json) {
        let text = |name: &str| told[name].as_str().unwrap_or_default();
        let (place, step, outcome) = (text("place"), text("step"), text("outcome"));
        let event = told["event"].clone();
        if step == "from" {
            // An event that cannot be read comes to no step.
            if outcome == "passed" {
                self.places.insert(place.to_owned(), self.all.len());
                self.all.push(Journey {
                    place: place.to_owned(),
                    event: event.clone(),
                    given: AllGiven::new(),
                    before: Vec::new(),
                    behind: vec![event],
                    step: step.to_owned(),
                    has_ended: self.plan.steps.is_empty(),
                });
            }
            return;
        }
        // One whose beginning was not seen is left out.
        let Some(journey) = self.places.get(place).and_then(|at| self.all.get_mut(*at)) else { return };
        let Some(at) = self.plan.steps.iter().position(|known| known.name == step) else { return };
        if journey.step != step {
            journey.step = step.to_owned();
            journey.before = std::mem::take(&mut journey.behind);
        }
        if let (Some(known), Some(before)) = (self.plan.steps.get(at), journey.before.get(journey.behind.len())) {
            learn(known, before, &event, outcome, text("cause"), &mut journey.given);
        }
        match outcome {
            "passed" => journey.behind.push(event),
            _ => journey.has_ended = true,
        }
        journey.has_ended |= at + 1 == self.plan.steps.len();
    }

    /// A case for each.
    pub fn cases(self) -> Vec<Case> {
        let plan = self.plan;
        self.all.into_iter().filter(|journey| journey.has_ended).map(|journey| journey.into_case(plan)).collect()
    }
}

/// Learns what was said at a step from what it made of an event.
fn learn(step: &Step, before: &Json, event: &Json, outcome: &str, cause: &str, given: &mut AllGiven) {
    let (name, key, into): (&str, &Program, &Path) = match &step.plan {
        StepPlan::Enrich(plan) => (&plan.service, &plan.key, &plan.into),
        StepPlan::Lookup(plan) => (&plan.table, &plan.key, &plan.into),
        _ => return,
    };
    let Some(key) = key_of(key, before).filter(|key| key != "null") else { return };
    let answer = match outcome {
        "passed" => match found(into, event) {
            Some(value) if value != "null" => Answer::Found(value.into()),
            _ => Answer::Missing,
        },
        "dropped" => Answer::Missing,
        _ if cause.contains("does not know the key") => Answer::Missing,
        _ => Answer::Failed(cause.to_owned()),
    };
    add(given.entry(name.to_owned()).or_default(), &key, answer);
}

/// What an event was asked for with.
fn key_of(program: &Program, event: &Json) -> Option<String> {
    let value = values::read(event.to_string().as_bytes()).ok()?;
    let key = program.run(&mut Flow::new(value), DEADLINE).ok()?;
    let mut text = Vec::new();
    values::write(&key, &mut text);
    Some(written(&text.into()))
}

/// What was put into an event, as JSON.
fn found(into: &Path, event: &Json) -> Option<String> {
    let value = values::read(event.to_string().as_bytes()).ok()?;
    let mut text = Vec::new();
    values::write(into.get(&value)?, &mut text);
    String::from_utf8(text).ok()
}

impl Journey {
    fn into_case(self, plan: &StreamPlan) -> Case {
        let Self { place, event, given, .. } = self;
        let topic = place.rsplitn(3, '/').last().unwrap_or_default();
        let input = plan.from.iter().find(|input| input.topic == topic).or(plan.from.first());
        let named = match input.map(|input| &input.origin) {
            Some(Origin::Table { table, .. }) => table.to_string(),
            Some(Origin::Stream(name)) => name.clone(),
            Some(Origin::Topic) | None => topic.to_owned(),
        };
        let is_change = matches!(input.map(|input| &input.origin), Some(Origin::Table { .. }));
        let change = match is_change {
            true => Change {
                op: event["op"].as_str().unwrap_or_default().to_owned(),
                before: event["before"].clone(),
                after: event["after"].clone(),
                key: None,
                at: None,
                unchanged: serde_json::from_value(event["unchanged"].clone()).ok(),
            },
            false => {
                Change { op: "c".to_owned(), before: json!(null), after: event, key: None, at: None, unchanged: None }
            }
        };
        Case {
            case: format!("recorded of {}, at {place}", plan.name),
            stream: plan.name.clone(),
            given,
            sinks: BTreeMap::new(),
            events: vec![BTreeMap::from([(named, change)])],
            expect: None,
        }
    }
}
