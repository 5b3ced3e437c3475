//! `indexes:`: their queries, stores and settings.

use std::sync::Arc;
use std::time::Duration;

use super::TableText;
use super::servers::store;
use super::sources::Captured;
use crate::diagnostic::Spot;
use crate::keys::values::NameOf;
use crate::keys::{INDEXES, indexes as key};
use crate::plan::{BrakeSettings, BuildSettings, RetrySettings, StorePlan};
use crate::query::{Constants, Document};
use crate::yaml::{Any, Map, Reader, Text};

/// An index as written.
#[derive(Debug, Clone)]
pub(crate) struct IndexText {
    pub name: String,
    pub spot: Spot,
    /// `None`: it could not be read or parsed, which was said.
    pub query: Option<Arc<Document>>,
    /// Values of the query's variables, but for the ids.
    pub variables: Constants,
    pub roots: Option<RootsText>,
    pub refresh: Duration,
    pub build: BuildSettings,
    pub retry: RetrySettings,
    pub brake: BrakeSettings,
    pub store: StorePlan,
}

/// Where root ids come from, by the user's word.
#[derive(Debug, Clone)]
pub(crate) enum RootsText {
    Table(TableText),
    Field(Text),
    /// Wrong, which was said.
    Wrong,
}

pub(super) fn read(r: &mut Reader, pipeline: &Map, captured: &Captured) -> Vec<IndexText> {
    let mut indexes = Vec::new();
    let Some(entries) = r.needed(pipeline, &INDEXES) else { return indexes };
    for entry in entries.entries() {
        let name = &entry.0;
        NameOf::INDEX.check_key(r, name);
        let Some(map) = r.entry(&entries, entry, &&key::INDEX, "{ query: movies.graphql }") else { continue };
        let query = r.required(&map, &key::QUERY).and_then(|file| query(r, &file));
        indexes.push(IndexText {
            name: name.name.clone(),
            spot: r.spot(name.place),
            query,
            variables: variables(r, &map),
            roots: map.node(&key::ROOTS).is_some().then(|| roots(r, &map, captured).unwrap_or(RootsText::Wrong)),
            refresh: r.value(&map, &key::REFRESH),
            build: build(r, &map),
            retry: retry(r, &map),
            brake: brake(r, &map),
            store: r.optional(&map, &key::STORE).map_or(StorePlan::Embedded, |map| store(r, &map)),
        });
    }
    indexes
}

fn query(r: &mut Reader, file: &Text) -> Option<Arc<Document>> {
    let text = match r.inputs.file(&file.value) {
        Ok(text) => text,
        Err(cause) => {
            let message = format!("the query `{}` cannot be read: {cause}", file.shown);
            let help = match file.value.contains('{') {
                true => "write the query into a file, and name it here",
                false => "the path is relative to the pipeline's file",
            };
            r.found.push(file.spot.error(message).help(help));
            return None;
        }
    };
    match Document::parse(&file.value, &text) {
        Ok(document) => Some(Arc::new(document)),
        Err(found) => {
            r.found.extend(found);
            None
        }
    }
}

fn variables(r: &mut Reader, index: &Map) -> Constants {
    let Some(map) = r.optional(index, &key::VARIABLES) else { return Constants::new() };
    let values = map.entries().iter().filter_map(|entry| {
        let value = r.entry(&map, entry, &Any, "some")?;
        Some((entry.0.name.clone(), (value, r.spot(entry.0.place))))
    });
    values.collect()
}

fn roots(r: &mut Reader, index: &Map, captured: &Captured) -> Option<RootsText> {
    let map = r.optional(index, &key::ROOTS)?;
    if map.node(&key::FIELD).is_some() {
        return r.optional(&map, &key::FIELD).map(RootsText::Field);
    }
    let table = r.optional(&map, &key::TABLE)?;
    captured.known_source(r, &table.name, &table.shown, &table.spot)?;
    Some(RootsText::Table(table))
}

fn build(r: &mut Reader, index: &Map) -> BuildSettings {
    let Some(map) = r.optional(index, &key::BUILD) else {
        return BuildSettings {
            batch: key::BATCH.left_out.0,
            concurrency: key::CONCURRENCY.left_out.0,
            deadline: key::DEADLINE.left_out.0,
            debounce: key::DEBOUNCE.left_out.0,
        };
    };
    BuildSettings {
        batch: r.value(&map, &key::BATCH),
        concurrency: r.value(&map, &key::CONCURRENCY),
        deadline: r.value(&map, &key::DEADLINE),
        debounce: r.value(&map, &key::DEBOUNCE),
    }
}

fn retry(r: &mut Reader, index: &Map) -> RetrySettings {
    let (attempts, initial) = (key::ATTEMPTS.left_out.0, key::INITIAL.left_out.0);
    let Some(map) = r.optional(index, &key::RETRY) else {
        return RetrySettings { attempts, initial, max: key::LONGEST_PAUSE };
    };
    let attempts = r.value(&map, &key::ATTEMPTS);
    let initial = r.value(&map, &key::INITIAL);
    let max = r.optional(&map, &key::MAX).unwrap_or(key::LONGEST_PAUSE.max(initial));
    if initial > max {
        let message = format!("`{}` ({initial:?}) is longer than `max` ({max:?})", map.path_of("initial"));
        r.error(map.key_place(&key::INITIAL), message, Some("shorten it, or make `max` longer".into()));
    }
    RetrySettings { attempts, initial, max }
}

fn brake(r: &mut Reader, index: &Map) -> BrakeSettings {
    let Some(map) = r.optional(index, &key::BRAKE) else {
        return BrakeSettings { percent: key::PERCENT.left_out.0, least: key::LEAST.left_out.0 };
    };
    BrakeSettings { percent: r.value(&map, &key::PERCENT), least: r.value(&map, &key::LEAST) }
}
