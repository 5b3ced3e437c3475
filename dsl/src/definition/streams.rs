//! `streams:`: their tables, programs and sinks. Programs are compiled here: what flows into a step is what the one before it leaves.

use tributary_event::debezium;
use tributary_expression::{Problem, Program, Shape};

use super::sources::Captured;
use crate::diagnostic::{Diagnostic, Spot};
use crate::keys::values::NameOf;
use crate::keys::{STREAMS, streams as key};
use crate::plan::{OnError, Step, StepPlan, StreamPlan, StreamTable, TopicSink};
use crate::yaml::{At, Described, Map, Place, Reader, Text};

/// The streams, as far as they could be read.
pub(super) fn read(r: &mut Reader, pipeline: &Map, name: Option<&str>, captured: &Captured) -> Vec<StreamPlan> {
    let mut streams: Vec<StreamPlan> = Vec::new();
    let Some(entries) = r.optional(pipeline, &STREAMS) else { return streams };
    for entry in entries.entries() {
        let example = "{ from: public.movie, to: [{ topic: { name: movies.changed } }] }";
        NameOf::STREAM.check_key(r, &entry.0);
        let Some(map) = r.entry(&entries, entry, &&key::STREAM, example) else { continue };
        let from = from(r, &map, captured);
        let ops = r.optional(&map, &key::OPS).unwrap_or_else(|| key::USUAL.to_vec());
        let (steps, shape) = steps(r, &map, Shape::event(&ops));
        let taken: Vec<&TopicSink> = streams.iter().flat_map(|stream| &stream.topics).collect();
        let topics = sinks(r, &map, shape.as_ref(), name, captured, &taken);
        let start = r.value(&map, &key::START);
        let (name, on_error, deliveries) = (entry.0.name.clone(), OnError::Stop, Vec::new());
        streams.push(StreamPlan { name, from, ops, start, steps, on_error, topics, deliveries });
    }
    streams
}

fn from(r: &mut Reader, stream: &Map, captured: &Captured) -> Vec<StreamTable> {
    let mut tables: Vec<StreamTable> = Vec::new();
    for table in r.required(stream, &key::FROM).into_iter().flatten() {
        let Some(source) = captured.known_source(r, &table.name, &table.shown, &table.spot) else { continue };
        if tables.iter().any(|other| other.table == table.name) {
            let message = format!("the table `{}` is listed twice", table.shown);
            r.found.push(table.spot.error(message).help("remove one of the two"));
            continue;
        }
        let topic = debezium::topic(source, &table.name.schema, &table.name.name);
        tables.push(StreamTable { source: source.to_owned(), table: table.name, topic });
    }
    tables
}

/// The steps, and the shape of what comes out of the last one, if all could be compiled.
fn steps(r: &mut Reader, stream: &Map, first: Shape) -> (Vec<Step>, Option<Shape>) {
    let (mut steps, mut shape) = (Vec::new(), Some(first));
    let path = stream.path_of(key::STEPS.name);
    for node in r.optional(stream, &key::STEPS).into_iter().flatten() {
        let at = At { path: &path, key: None, example: "{ filter: .op == \"c\" }" };
        let Some(map) = r.map(&node, at, &key::STEP) else {
            shape = None;
            continue;
        };
        if let Some(text) = r.optional(&map, &key::FILTER) {
            let compiled = program(r, &map, &key::FILTER, &text, shape.as_ref());
            if let Some(compiled) = &compiled
                && !compiled.is_condition()
            {
                let message =
                    format!("a filter says whether an event flows on, and this answers {}", compiled.answer());
                r.found
                    .push(text.spot.error(message).help("compare it with something, such as `.after.price != null`"));
            }
            only_looks(r, compiled.as_ref(), &text, "a filter");
            shape = shape.filter(|_| compiled.is_some());
            steps.extend(compiled.map(|program| named(steps.len(), StepPlan::Filter(program))));
        } else if let Some(text) = r.optional(&map, &key::TRANSFORM) {
            let compiled = program(r, &map, &key::TRANSFORM, &text, shape.as_ref());
            if compiled.as_ref().is_some_and(Program::only_looks) {
                let warning = text.spot.warning("this program changes nothing of the event");
                r.found.push(warning.help("assign something, such as `.title = .after.title`, or remove the step"));
            }
            shape = compiled.as_ref().map(Program::leaves);
            if let Some(left) = shape.as_ref().filter(|left| !left.is_object()) {
                let message = format!("after this there is no event, for `.` is {left:?}");
                r.found.push(text.spot.error(message).help("an event has fields: `. = { \"title\": .after.title }`"));
            }
            steps.extend(compiled.map(|program| named(steps.len(), StepPlan::Transform(program))));
        } else {
            shape = None;
        }
    }
    (steps, shape)
}

/// A step that was given no name, behind so many others.
fn named(before: usize, plan: StepPlan) -> Step {
    Step { name: format!("{}-{}", plan.word(), before + 1), plan, on_error: None }
}

fn sinks(
    r: &mut Reader,
    stream: &Map,
    shape: Option<&Shape>,
    pipeline: Option<&str>,
    captured: &Captured,
    taken: &[&TopicSink],
) -> Vec<TopicSink> {
    let mut sinks: Vec<TopicSink> = Vec::new();
    let path = stream.path_of(key::TO.name);
    for node in r.required(stream, &key::TO).into_iter().flatten() {
        let at = At { path: &path, key: None, example: "{ topic: { name: movies.changed } }" };
        let Some(map) = r.map(&node, at, &key::SINK).and_then(|map| r.optional(&map, &key::TOPIC)) else { continue };
        let Some(name) = r.required(&map, &key::TOPIC_NAME) else { continue };
        if let Some(problem) = refused(&name.value, pipeline, captured) {
            r.found.push(name.spot.error(problem).help("give it a name of its own"));
            continue;
        }
        if taken.iter().copied().chain(&sinks).any(|other| other.name == name.value) {
            let message = format!("the topic `{}` is written by two streams, or twice", name.shown);
            r.found.push(name.spot.error(message).help("give one of the two another name"));
            continue;
        }
        let text = r.optional(&map, &key::TOPIC_KEY);
        let key = text.and_then(|text| {
            let key = program(r, &map, &key::TOPIC_KEY, &text, shape);
            only_looks(r, key.as_ref(), &text, "a key");
            key
        });
        sinks.push(TopicSink { name: name.value, key, compact: r.value(&map, &key::COMPACT) });
    }
    sinks
}

/// Refuses a program that changes the event where nobody expects it.
fn only_looks(r: &mut Reader, program: Option<&Program>, text: &Text, what: &str) {
    if program.is_some_and(|program| !program.only_looks()) {
        let message = format!("{what} changes nothing of the event, and this does");
        r.found.push(text.spot.error(message).help("put the change into a `transform` before it"));
    }
}

/// Why a topic may not be written.
fn refused(name: &str, pipeline: Option<&str>, captured: &Captured) -> Option<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.len() > 249 || !name.chars().all(legal) || name.chars().all(|c| c == '.') {
        return Some(format!("`{name}` is no name of a topic (letters, digits, `.`, `_` and `-`, 249 at most)"));
    }
    let topic = |(table, source, _): &(tributary_event::TableName, String, Spot)| {
        debezium::topic(source, &table.schema, &table.name)
    };
    if captured.tables.iter().any(|captured| topic(captured) == name) {
        return Some(format!("`{name}` is the topic of a table that is captured"));
    }
    let inside = pipeline.is_some_and(|pipeline| name.strip_prefix(pipeline).is_some_and(|rest| rest.starts_with('.')));
    inside.then(|| format!("topics whose names begin with `{}.` are the pipeline's own", pipeline.unwrap_or_default()))
}

/// Compiles a program, and tells what is wrong with it where it is written. Without a shape an earlier step was wrong, which was told.
fn program(r: &mut Reader, map: &Map, key: &dyn Described, text: &Text, shape: Option<&Shape>) -> Option<Program> {
    let shape = shape?;
    let place = map.node(key).map(|node| node.place);
    let (compiled, problems) = match Program::compile(&text.value, shape) {
        Ok((program, warnings)) => (Some(program.written_as(&text.shown)), warnings),
        Err(problems) => (None, problems),
    };
    for problem in problems {
        let spot = place.map_or_else(|| text.spot.clone(), |place| spot(r, place, &text.value, &problem));
        let found = diagnostic(&spot, &problem);
        r.found.push(found);
    }
    compiled
}

fn diagnostic(spot: &Spot, problem: &Problem) -> Diagnostic {
    let found = if problem.is_error { spot.error(&problem.message) } else { spot.warning(&problem.message) };
    found.maybe_help(problem.help.clone())
}

/// Where a part of a program stands in the pipeline's text: on the line of its value, or on one of the lines below it.
fn spot(r: &Reader, place: Place, program: &str, problem: &Problem) -> Spot {
    let before = program.get(..problem.start).unwrap_or_default();
    let (number, line_start) = (before.matches('\n').count(), before.rfind('\n').map_or(0, |at| at + 1));
    let line = program.lines().nth(number).unwrap_or_default();
    let column = program.get(line_start..problem.start).unwrap_or_default().chars().count();
    let part = program.get(problem.start..problem.end).unwrap_or_default();
    let length = part.lines().next().unwrap_or_default().chars().count().max(1);
    // A block begins below its mark.
    let first = r.text.line(place.start.0);
    let from: usize = first.chars().take(place.start.1.saturating_sub(1)).map(char::len_utf8).sum();
    let is_block = first.get(from..).is_some_and(|value| value.starts_with(['|', '>']));
    let number = place.start.0 + number + usize::from(is_block);
    match r.text.line(number).find(line).filter(|_| !line.is_empty()) {
        Some(at) => {
            let indent = r.text.line(number).get(..at).unwrap_or_default().chars().count();
            Spot::new(&r.text, number, indent + column + 1, length)
        }
        None => r.spot(place),
    }
}
