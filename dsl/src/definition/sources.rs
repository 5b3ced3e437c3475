//! `sources:`: the databases and their tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tributary_event::{TableName, debezium};

use super::{is_name, name_help, tables};
use crate::diagnostic::Spot;
use crate::plan::{
    BinaryHandling, DecimalHandling, InvalidText, PostgresSettings, Secret, SourcePlan, SourceSettings, TimePrecision,
};
use crate::yaml::{Map, Node, Reader};

/// The longest name of a PostgreSQL slot or publication.
const MAX_NAME: usize = 63;
/// The shortest time between two heartbeats.
const LEAST_HEARTBEAT: Duration = Duration::from_secs(1);

/// What is captured.
#[derive(Default)]
pub(super) struct Captured {
    pub plans: Vec<SourcePlan>,
    /// Each table, its source, and where it is written.
    pub tables: Vec<(TableName, String, Spot)>,
    /// Sources that publish prepared transactions when they are prepared, and where that is written.
    pub at_prepare: Vec<(String, Spot)>,
    /// A source could not be read, so that a table's absence from `tables` proves nothing.
    pub unsure: bool,
}

impl Captured {
    pub fn names(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().map(|(table, _, _)| table)
    }

    pub fn source_of(&self, table: &TableName) -> Option<&str> {
        self.tables.iter().find(|(name, _, _)| name == table).map(|(_, source, _)| source.as_str())
    }
}

pub(super) fn read(r: &mut Reader, node: &Arc<Node>, pipeline: &str) -> Captured {
    let mut captured = Captured::default();
    let Some(sources) = r.entries(node, "sources") else { return captured };
    if sources.entries().is_empty() {
        r.error(node.place, "a pipeline needs at least one source", None);
    }
    for (key, node) in sources.entries() {
        if !is_name(&key.name, true) {
            r.error(key.place, format!("`{}` is no name for a source", key.name), Some(name_help(true).into()));
        }
        let path = sources.path_of(&key.name);
        let Some(source) = r.map(node, &path, &["postgres"]) else {
            captured.unsure = true;
            continue;
        };
        let Some(postgres) = r.required(&source, "postgres").cloned() else {
            captured.unsure = true;
            continue;
        };
        let before = r.found.len();
        match postgres_source(r, &postgres, &source.path_of("postgres"), &key.name, pipeline, &mut captured) {
            Some(plan) => {
                captured.plans.push(SourcePlan { name: key.name.clone(), settings: SourceSettings::Postgres(plan) })
            }
            None => captured.unsure = true,
        }
        captured.unsure |= r.found.len() > before;
    }
    captured
}

const KEYS: &[&str] = &[
    "url",
    "password_file",
    "tables",
    "keys",
    "slot",
    "publication",
    "streaming",
    "messages",
    "prepared_transactions",
    "heartbeat",
    "row_filters",
    "decimals",
    "times",
    "binary",
    "hstore",
    "intervals",
    "invalid_text",
];
const INVALID_TEXT: &[(&str, InvalidText)] =
    &[("stop", InvalidText::Stop), ("replace", InvalidText::Replace), ("base64", InvalidText::Base64)];
const DECIMALS: &[(&str, DecimalHandling)] =
    &[("precise", DecimalHandling::Precise), ("string", DecimalHandling::String), ("double", DecimalHandling::Double)];
const TIMES: &[(&str, TimePrecision)] = &[
    ("adaptive", TimePrecision::Adaptive),
    ("adaptive-time-microseconds", TimePrecision::AdaptiveTimeMicroseconds),
    ("milliseconds", TimePrecision::Milliseconds),
    ("microseconds", TimePrecision::Microseconds),
    ("nanoseconds", TimePrecision::Nanoseconds),
    ("iso", TimePrecision::Iso),
];
const BINARY: &[(&str, BinaryHandling)] =
    &[("base64", BinaryHandling::Base64), ("base64url", BinaryHandling::Base64Url), ("hex", BinaryHandling::Hex)];

fn postgres_source(
    r: &mut Reader,
    node: &Arc<Node>,
    path: &str,
    source: &str,
    pipeline: &str,
    captured: &mut Captured,
) -> Option<PostgresSettings> {
    let map = r.map(node, path, KEYS)?;
    let url = url(r, &map);
    let listed = r.required(&map, "tables").cloned().map(|node| list(r, &node, &map, source, captured));
    let keys = map.get("keys").cloned().map(|node| keys(r, &node, &map.path_of("keys"), listed.as_deref()));
    let default = format!("tributary_{}_{}", pipeline.replace('-', "_"), source.replace('-', "_"));
    let slot = identifier(r, &map, "slot", &default);
    let publication = identifier(r, &map, "publication", &default);
    let on_off = [("on", true), ("off", false)];
    let streaming = choice(r, &map, "streaming", &on_off);
    let messages = choice(r, &map, "messages", &on_off);
    let at_prepare = choice(r, &map, "prepared_transactions", &[("at-commit", false), ("at-prepare", true)]);
    if let (Some(true), Some(node)) = (at_prepare, map.get("prepared_transactions")) {
        captured.at_prepare.push((source.to_owned(), r.spot(node.place)));
    }
    let heartbeat = map.get("heartbeat").and_then(|node| r.duration(node, &map.path_of("heartbeat"), LEAST_HEARTBEAT));
    let row_filters = choice(r, &map, "row_filters", &[("refuse", false), ("accept", true)]);
    let decimals = choice(r, &map, "decimals", DECIMALS);
    let times = choice(r, &map, "times", TIMES);
    let binary = choice(r, &map, "binary", BINARY);
    let hstore_as_map = choice(r, &map, "hstore", &[("json", false), ("map", true)]);
    let intervals_as_text = choice(r, &map, "intervals", &[("microseconds", false), ("iso", true)]);
    let invalid_text = choice(r, &map, "invalid_text", INVALID_TEXT);
    Some(PostgresSettings {
        url: url.unwrap_or_else(|| Secret::new("")),
        tables: listed.unwrap_or_default(),
        keys: keys.unwrap_or_default(),
        slot,
        publication,
        decimals: decimals.unwrap_or_default(),
        streaming: streaming.unwrap_or(true),
        messages: messages.unwrap_or(false),
        at_prepare: at_prepare.unwrap_or(false),
        heartbeat,
        row_filters: row_filters.unwrap_or(false),
        times: times.unwrap_or_default(),
        binary: binary.unwrap_or_default(),
        hstore_as_map: hstore_as_map.unwrap_or(false),
        intervals_as_text: intervals_as_text.unwrap_or(false),
        invalid_text: invalid_text.unwrap_or_default(),
    })
}

/// The word of an optional key, if it is one of `words`.
fn choice<T: Copy>(r: &mut Reader, map: &Map, key: &str, words: &[(&str, T)]) -> Option<T> {
    map.get(key).and_then(|node| r.choice(node, &map.path_of(key), words))
}

/// Columns that make the key of a table, in place of its primary key.
fn keys(r: &mut Reader, node: &Node, path: &str, captured: Option<&[TableName]>) -> BTreeMap<TableName, Vec<String>> {
    let mut keys = BTreeMap::new();
    let Some(map) = r.entries(node, path) else { return keys };
    for (key, node) in map.entries() {
        let Some(table) = tables::key(r, key) else { continue };
        if let Some(captured) = captured.filter(|captured| !captured.contains(&table.name)) {
            let names: Vec<String> = captured.iter().map(TableName::to_string).collect();
            let help = format!("the tables of this source are {}", names.join(", "));
            r.error(key.place, format!("`{}` is not captured", key.name), Some(help));
        }
        let path = map.path_of(&key.name);
        let Some(items) = r.list(node, &path) else { continue };
        let columns: Vec<String> = items.iter().filter_map(|item| r.text(item, &path)).map(|text| text.value).collect();
        if items.is_empty() {
            r.error(node.place, format!("`{path}` names no column"), None);
        }
        if keys.insert(table.name, columns).is_some() {
            r.error(key.place, format!("the table `{}` has a key already", key.name), None);
        }
    }
    keys
}

fn list(r: &mut Reader, node: &Node, map: &Map, source: &str, captured: &mut Captured) -> Vec<TableName> {
    let path = map.path_of("tables");
    let mut tables: Vec<TableName> = Vec::new();
    let mut read = Vec::new();
    let Some(items) = r.list(node, &path) else { return tables };
    if items.is_empty() {
        r.error(node.place, format!("`{path}` names no table"), None);
    }
    for item in items {
        let Some(table) = tables::value(r, item, &path) else { continue };
        let topic = |table: &TableName| debezium::topic(source, &table.schema, &table.name);
        if tables.contains(&table.name) {
            r.error(item.place, format!("the table `{}` is listed twice", table.shown), None);
        } else if let Some(other) = tables.iter().find(|other| topic(other) == topic(&table.name)) {
            let message = format!("`{}` and `{other}` would share the topic `{}`", table.name, topic(other));
            let help = "a topic joins the parts of a name by dots, and has `_` for marks that topics may not have:\ncapture one of the two with a source of its own";
            r.error(item.place, message, Some(help.into()));
        } else if let Some(other) = captured.source_of(&table.name) {
            let message = format!("the table `{}` is captured by the source `{other}` already", table.shown);
            let help = "rules of `graph.vertices` name tables without their source:\nput one of the two into a pipeline of its own";
            r.error(item.place, message, Some(help.into()));
        } else {
            tables.push(table.name.clone());
            read.push((table.name, source.to_owned(), table.spot));
        }
    }
    captured.tables.extend(read);
    tables
}

/// A connection URL, with the password of `password_file` put in.
fn url(r: &mut Reader, map: &Map) -> Option<Secret> {
    let node = r.required(map, "url").cloned()?;
    let path = map.path_of("url");
    let text = r.text(&node, &path)?;
    let after = ["postgres://", "postgresql://"].iter().find_map(|scheme| text.value.strip_prefix(scheme));
    let Some(after) = after else {
        let help = "write `postgres://user:password@host:5432/database`";
        r.error(node.place, format!("`{path}` must start with `postgres://`"), Some(help.into()));
        return None;
    };
    let Some(file) = map.get("password_file").cloned() else { return Some(Secret::new(text.value)) };
    let name = r.text(&file, &map.path_of("password_file"))?;
    let password = match r.inputs.file(&name.value) {
        Ok(password) => password,
        Err(cause) => {
            r.error(file.place, format!("the password file cannot be read: {cause}"), None);
            return None;
        }
    };
    let scheme = &text.value[..text.value.len() - after.len()];
    match after.split_once('@') {
        Some((user, rest)) if !user.is_empty() && !user.contains([':', '/']) => {
            let password = percent_encoded(password.trim_end_matches(['\r', '\n']));
            Some(Secret::new(format!("{scheme}{user}:{password}@{rest}")))
        }
        _ => {
            let help = "write `postgres://user@host/database`: the user in the url, the password in the file";
            let message = format!("`{path}` must name a user and no password where there is a `password_file`");
            r.error(node.place, message, Some(help.into()));
            None
        }
    }
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The name of a slot or a publication.
fn identifier(r: &mut Reader, map: &Map, key: &str, default: &str) -> String {
    let path = map.path_of(key);
    let fits = |name: &str| {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        !name.is_empty() && name.len() <= MAX_NAME && name.chars().all(word)
    };
    let Some(node) = map.get(key) else {
        if default.len() > MAX_NAME {
            let message = format!("the name of the {key} would be longer than {MAX_NAME} characters: `{default}`");
            r.error(map.place, message, Some(format!("set `{path}`")));
        }
        return default.to_owned();
    };
    match r.text(node, &path) {
        Some(text) if fits(&text.value) => text.value,
        Some(text) => {
            let help = format!("lower-case letters, digits and `_`, at most {MAX_NAME}");
            r.found.push(text.spot.error(format!("`{}` is no name of a {key}", text.shown)).help(help));
            default.to_owned()
        }
        None => default.to_owned(),
    }
}
