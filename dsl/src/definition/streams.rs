//! `streams:`: their tables, steps and sinks. Programs are compiled here: what flows into a step is what the one before it leaves.

mod answers;
mod calls;
mod functions;
mod lookups;
mod programs;
mod queries;
mod remembering;
mod secrets;
mod services;
mod sinks;
mod steps;

pub(super) use functions::read as functions;
pub(super) use lookups::read as lookup_tables;
pub(super) use services::read as services;

use std::collections::BTreeMap;

use tributary_event::{ColumnType, TableName, debezium};
use tributary_expression::Shape;

use self::remembering::Ground;
use self::sinks::Surroundings;
use super::TableText;
use super::sources::Captured;
use crate::diagnostic::Spot;
use crate::keys::values::NameOf;
use crate::keys::{STREAMS, streams as key};
use crate::plan::{
    LookupTable, Origin, ServicePlan, SourcePlan, Start, StreamInput, StreamPlan, TransportPlan, own_topic,
};
use crate::suggest::suggestion;
use crate::yaml::{Map, Place, Reader};

/// What steps can ask.
pub(super) struct Asked<'a> {
    /// The services, and where they are named.
    pub services: &'a [(ServicePlan, Spot)],
    /// The tables.
    pub tables: &'a [LookupTable],
}

/// The streams, as far as they could be read.
pub(super) fn read(
    r: &mut Reader,
    pipeline: &Map,
    name: Option<&str>,
    captured: &Captured,
    transport: &TransportPlan,
    asked: &Asked,
    indexes: &[String],
) -> Vec<StreamPlan> {
    let keys: Vec<_> = captured.plans.iter().map(keys_of).collect();
    let mut streams: Vec<StreamPlan> = Vec::new();
    let mut shapes: Vec<(String, Option<Shape>)> = Vec::new();
    let mut places = Vec::new();
    let mut written_at = Vec::new();
    let entries = r.optional(pipeline, &STREAMS);
    let (inputs, functions) = (r.inputs, r.functions.clone());
    for entry in entries.iter().flat_map(|entries| entries.entries().iter().map(move |entry| (entries, entry))) {
        let (entries, entry) = entry;
        let example = "{ from: public.movie, to: [{ topic: { name: movies.changed } }] }";
        NameOf::STREAM.check_key(r, &entry.0);
        let Some(map) = r.entry(entries, entry, &&key::STREAM, example) else { continue };
        // One that is written in Rust has functions of its own.
        let own = inputs.streams().iter().find(|stream| stream.name() == entry.0.name);
        r.functions = own.map_or_else(|| functions.clone(), |own| functions.clone().and(own.functions()));
        let input = r.required(&map, &key::FROM);
        written_at.push(map.node(&key::FROM).map_or(entry.0.place, |node| node.place));
        let from = from(r, input, captured, &mut streams, name);
        let ops = r.optional(&map, &key::OPS);
        let shape = match from.first().map(|input| &input.origin) {
            Some(Origin::Stream(other)) => {
                shapes.iter().find(|(name, _)| name == other).and_then(|(_, shape)| shape.clone())
            }
            Some(Origin::Topic) => Some(Shape::any()),
            _ => {
                let columns: Option<Vec<Vec<ColumnType>>> = from.iter().map(|input| columns(r, input)).collect();
                Some(Shape::event(ops.as_deref().unwrap_or(&key::USUAL), columns.as_deref()))
            }
        };
        let is_of_tables = from.iter().all(|input| matches!(input.origin, Origin::Table { .. }));
        let ops = ops.unwrap_or_else(|| if is_of_tables { key::USUAL.to_vec() } else { key::LETTERS.to_vec() });
        let on_error = r.value(&map, &key::ON_ERROR);
        let sources = lookups::sources(&from, &streams);
        let ground = Ground { from: &from, transport, keys: &keys, sources: sources.as_ref() };
        let (steps, shape) = steps::read(r, &map, shape, asked, &ground);
        let max_event = r.value(&map, &key::MAX_EVENT);
        let around = Surroundings { pipeline: name, captured, indexes, streams: &streams, from: &from, ops: &ops };
        let (topics, deliveries) = sinks::read(r, &map, shape.as_ref(), &steps, &around);
        let start = r.optional(&map, &key::START).unwrap_or(match from.first().map(|input| &input.origin) {
            Some(Origin::Stream(_)) => Start::First,
            _ => Start::Now,
        });
        let (name, keeps_events) = (entry.0.name.clone(), !deliveries.is_empty());
        shapes.push((name.clone(), shape));
        places.push((entry.0.place, map.node(&key::TO).is_some()));
        streams.push(StreamPlan {
            name,
            from,
            ops,
            start,
            steps,
            on_error,
            max_event,
            topics,
            deliveries,
            keeps_events,
        });
    }
    r.functions = functions;
    for (stream, (place, written)) in streams.iter().zip(places) {
        // A sink that is wrong was told of.
        if !written && !stream.keeps_events {
            let message = format!("nothing comes of the stream `{}`", stream.name);
            let help = "write where its events go, such as `to: [{ topic: { name: movies.changed } }]`";
            r.error(place, message, Some(help.to_owned()));
        }
    }
    loops(r, &streams, &written_at);
    services::unused(r, asked.services, &streams);
    streams
}

/// The keys of its tables that a source says.
fn keys_of(source: &SourcePlan) -> &BTreeMap<TableName, Vec<String>> {
    source.settings.keys()
}

/// The columns of a table that is read, as far as they are known.
fn columns(r: &Reader, input: &StreamInput) -> Option<Vec<ColumnType>> {
    match &input.origin {
        Origin::Table { table, .. } => r.inputs.columns(table),
        Origin::Topic | Origin::Stream(_) => None,
    }
}

/// Refuses streams that read what comes of them, by way of topics.
fn loops(r: &mut Reader, streams: &[StreamPlan], places: &[Place]) {
    let writes = |stream: &StreamPlan, topic: &str| stream.topics.iter().any(|sink| sink.name == topic);
    for (stream, place) in streams.iter().zip(places) {
        // All that comes of it, directly or through others.
        let (mut reached, mut next) = (Vec::<&str>::new(), vec![stream]);
        while let Some(one) = next.pop() {
            for other in streams {
                let reads = other.from.iter().any(|input| match &input.origin {
                    Origin::Stream(name) => *name == one.name,
                    Origin::Topic => writes(one, &input.topic),
                    Origin::Table { .. } => false,
                });
                if reads && !reached.contains(&other.name.as_str()) {
                    reached.push(&other.name);
                    next.push(other);
                }
            }
        }
        if reached.contains(&stream.name.as_str()) {
            let message = format!("the stream `{}` reads what comes of it, without end", stream.name);
            r.error(*place, message, Some("let one of the streams on the way write another topic".to_owned()));
        }
    }
}

fn from(
    r: &mut Reader,
    input: Option<key::InputText>,
    captured: &Captured,
    streams: &mut [StreamPlan],
    pipeline: Option<&str>,
) -> Vec<StreamInput> {
    match input {
        None => Vec::new(),
        Some(key::InputText::Tables(tables)) => self::tables(r, tables, captured),
        Some(key::InputText::Topic(name)) => {
            vec![StreamInput { topic: name.value, origin: Origin::Topic }]
        }
        Some(key::InputText::Stream(name)) => {
            let Some(other) = streams.iter_mut().find(|other| other.name == name.value) else {
                let message = format!("there is no stream `{}` before this one", name.shown);
                let names: Vec<String> = streams.iter().map(|other| other.name.clone()).collect();
                let help = suggestion(&name.value, names.iter().map(String::as_str));
                r.found.push(name.spot.error(message).maybe_help(help));
                return Vec::new();
            };
            other.keeps_events = true;
            let topic = own_topic(pipeline.unwrap_or_default(), &name.value);
            vec![StreamInput { topic, origin: Origin::Stream(name.value) }]
        }
    }
}

fn tables(r: &mut Reader, written: Vec<TableText>, captured: &Captured) -> Vec<StreamInput> {
    let mut tables: Vec<StreamInput> = Vec::new();
    for table in written {
        let Some(source) = captured.known_source(r, &table.name, &table.shown, &table.spot) else { continue };
        let topic = debezium::topic(source, &table.name.schema, &table.name.name);
        if tables.iter().any(|other| other.topic == topic) {
            let message = format!("the table `{}` is listed twice", table.shown);
            r.found.push(table.spot.error(message).help("remove one of the two"));
            continue;
        }
        let origin = Origin::Table { source: source.to_owned(), table: table.name };
        tables.push(StreamInput { topic, origin });
    }
    tables
}
