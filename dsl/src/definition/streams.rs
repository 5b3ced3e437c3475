//! `streams:`: their tables, steps and sinks. Programs are compiled here: what flows into a step is what the one before it leaves.

mod programs;
mod queries;
mod services;
mod sinks;
mod steps;

pub(super) use services::read as services;

use tributary_event::debezium;
use tributary_expression::Shape;

use self::sinks::Surroundings;
use super::sources::Captured;
use crate::diagnostic::Spot;
use crate::keys::values::NameOf;
use crate::keys::{STREAMS, streams as key};
use crate::plan::{ServicePlan, StreamPlan, StreamTable};
use crate::yaml::{Map, Reader};

/// The streams, as far as they could be read.
pub(super) fn read(
    r: &mut Reader,
    pipeline: &Map,
    name: Option<&str>,
    captured: &Captured,
    services: &[(ServicePlan, Spot)],
    indexes: &[String],
) -> Vec<StreamPlan> {
    let mut streams: Vec<StreamPlan> = Vec::new();
    let entries = r.optional(pipeline, &STREAMS);
    for entry in entries.iter().flat_map(|entries| entries.entries().iter().map(move |entry| (entries, entry))) {
        let (entries, entry) = entry;
        let example = "{ from: public.movie, to: [{ topic: { name: movies.changed } }] }";
        NameOf::STREAM.check_key(r, &entry.0);
        let Some(map) = r.entry(entries, entry, &&key::STREAM, example) else { continue };
        let from = from(r, &map, captured);
        let ops = r.optional(&map, &key::OPS).unwrap_or_else(|| key::USUAL.to_vec());
        let on_error = r.value(&map, &key::ON_ERROR);
        let (steps, shape) = steps::read(r, &map, Shape::event(&ops), services);
        let around = Surroundings { pipeline: name, captured, indexes, streams: &streams };
        let (topics, deliveries) = sinks::read(r, &map, shape.as_ref(), &steps, &around);
        let start = r.value(&map, &key::START);
        let name = entry.0.name.clone();
        let keeps_events = !deliveries.is_empty();
        streams.push(StreamPlan { name, from, ops, start, steps, on_error, topics, deliveries, keeps_events });
    }
    services::unused(r, services, &streams);
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
