//! `indexes:`: their queries, stores and settings.

use std::sync::Arc;
use std::time::Duration;

use super::servers::store;
use super::sources::Captured;
use super::tables::TableText;
use super::{is_name, name_help, tables};
use crate::diagnostic::Spot;
use crate::plan::{BuildSettings, RetrySettings, StorePlan};
use crate::query::{Constants, Document};
use crate::yaml::{Map, Node, Reader, Text};

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

const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) fn read(r: &mut Reader, node: &Arc<Node>, captured: &Captured) -> Vec<IndexText> {
    let mut indexes = Vec::new();
    let Some(entries) = r.entries(node, "indexes") else { return indexes };
    if entries.entries().is_empty() {
        r.error(node.place, "a pipeline needs at least one index", None);
    }
    for (key, node) in entries.entries() {
        if !is_name(&key.name, true) {
            r.error(key.place, format!("`{}` is no name for an index", key.name), Some(name_help(true).into()));
        }
        let keys = ["query", "variables", "roots", "refresh", "build", "retry", "store"];
        let Some(map) = r.map(node, &entries.path_of(&key.name), &keys) else { continue };
        let query = r.required(&map, "query").cloned().and_then(|node| query(r, &node, &map));
        indexes.push(IndexText {
            name: key.name.clone(),
            spot: r.spot(key.place),
            query,
            variables: variables(r, &map),
            roots: map.get("roots").map(|node| roots(r, node, &map, captured).unwrap_or(RootsText::Wrong)),
            refresh: duration(r, &map, "refresh", Duration::from_millis(100), MILLISECOND),
            build: build(r, &map),
            retry: retry(r, &map),
            store: store(r, &map),
        });
    }
    indexes
}

fn query(r: &mut Reader, node: &Arc<Node>, map: &Map) -> Option<Arc<Document>> {
    let file = r.text(node, &map.path_of("query"))?;
    let text = match r.inputs.file(&file.value) {
        Ok(text) => text,
        Err(cause) => {
            let message = format!("the query `{}` cannot be read: {cause}", file.shown);
            r.found.push(file.spot.error(message).help("the path is relative to the pipeline's file"));
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

fn variables(r: &mut Reader, map: &Map) -> Constants {
    let path = map.path_of("variables");
    let Some(entries) = map.get("variables").and_then(|node| r.entries(node, &path)) else { return Constants::new() };
    let values = entries.entries().iter().filter_map(|(key, node)| {
        let value = r.json(node, &entries.path_of(&key.name))?;
        Some((key.name.clone(), (value, r.spot(key.place))))
    });
    values.collect()
}

fn roots(r: &mut Reader, node: &Arc<Node>, map: &Map, captured: &Captured) -> Option<RootsText> {
    let roots = r.map(node, &map.path_of("roots"), &["table", "field"])?;
    match (roots.get("table"), roots.get("field")) {
        (Some(table), None) => {
            let table = tables::value(r, table, &roots.path_of("table"))?;
            if captured.source_of(&table.name).is_none() && !captured.unsure {
                let help = tables::suggestion(&table.name, captured.names());
                let message = format!("no source captures the table `{}`", table.shown);
                r.found.push(table.spot.error(message).maybe_help(help));
                return None;
            }
            Some(RootsText::Table(table))
        }
        (None, Some(field)) => r.text(field, &roots.path_of("field")).map(RootsText::Field),
        _ => {
            let help = "write `{ table: schema.table }` or `{ field: aConnection }`";
            r.error(roots.place, "`roots` needs either a table or a field", Some(help.into()));
            None
        }
    }
}

fn build(r: &mut Reader, map: &Map) -> BuildSettings {
    let default = BuildSettings {
        batch: 100,
        concurrency: 4,
        deadline: Duration::from_secs(10),
        debounce: Duration::from_millis(5),
    };
    let keys = ["batch", "concurrency", "deadline", "debounce"];
    let path = map.path_of("build");
    let Some(map) = map.get("build").and_then(|node| r.map(node, &path, &keys)) else { return default };
    BuildSettings {
        batch: count(r, &map, "batch", default.batch, 10_000),
        concurrency: count(r, &map, "concurrency", default.concurrency, 1000),
        deadline: duration(r, &map, "deadline", default.deadline, MILLISECOND),
        debounce: duration(r, &map, "debounce", default.debounce, Duration::ZERO),
    }
}

fn retry(r: &mut Reader, map: &Map) -> RetrySettings {
    let default = RetrySettings { attempts: 5, initial: Duration::from_millis(200), max: Duration::from_secs(10) };
    let path = map.path_of("retry");
    let Some(map) = map.get("retry").and_then(|node| r.map(node, &path, &["attempts", "initial", "max"])) else {
        return default;
    };
    let attempts = map.get("attempts").and_then(|node| r.number(node, &map.path_of("attempts"), 1..=1_000_000));
    let initial = duration(r, &map, "initial", default.initial, MILLISECOND);
    let longest = duration(r, &map, "max", default.max.max(initial), MILLISECOND);
    if initial > longest {
        r.error(map.key_place("initial"), "the first pause is longer than the longest one", None);
    }
    RetrySettings { attempts: attempts.unwrap_or(default.attempts), initial, max: longest }
}

fn count(r: &mut Reader, map: &Map, key: &str, default: usize, most: usize) -> usize {
    map.get(key).and_then(|node| r.number(node, &map.path_of(key), 1..=most)).unwrap_or(default)
}

fn duration(r: &mut Reader, map: &Map, key: &str, default: Duration, least: Duration) -> Duration {
    map.get(key).and_then(|node| r.duration(node, &map.path_of(key), least)).unwrap_or(default)
}
