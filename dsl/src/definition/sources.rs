//! `sources:`: the databases and their tables.

use std::collections::{BTreeMap, HashMap, HashSet};

use tributary_event::{TableName, debezium};

use crate::diagnostic::Spot;
use crate::keys::tables::{self, Table};
use crate::keys::values::{DatabaseUrl, MAX_SERVER_NAME, MYSQL_URL, NameOf, SOURCE_URL};
use crate::keys::{SOURCES, sources as key};
use crate::plan::{MySqlSettings, Place, PostgresSettings, Secret, SourcePlan, SourceSettings};
use crate::suggest::listed;
use crate::yaml::{At, Items, Key, Kind, Map, Reader, Required};

/// What is captured.
#[derive(Default)]
pub(super) struct Captured {
    pub plans: Vec<SourcePlan>,
    /// Each table, its source, and where it is written.
    pub tables: Vec<(TableName, String, Spot)>,
    /// Sources that publish prepared transactions when they are prepared, and where that is written.
    pub at_prepare: Vec<(String, Spot)>,
    /// Not all tables of all sources could be read, so that one's absence from `tables` proves nothing.
    pub unsure: bool,
}

impl Captured {
    pub fn names(&self) -> impl Iterator<Item = &TableName> {
        self.tables.iter().map(|(table, _, _)| table)
    }

    /// What to do about a table that no source captures.
    pub fn remedy(&self, table: &TableName) -> String {
        tables::similar(table, self.names()).unwrap_or_else(|| format!("add `{table}` to the `tables` of a source"))
    }

    /// The source of a table; where there is none, that is said, unless it may be one of those that could not be read.
    pub fn known_source(&self, r: &mut Reader, table: &TableName, shown: &str, spot: &Spot) -> Option<&str> {
        let source = self.source_of(table);
        if source.is_none() && !self.unsure {
            let message = format!("no source captures the table `{shown}`");
            r.found.push(spot.error(message).help(self.remedy(table)));
        }
        source
    }

    pub fn source_of(&self, table: &TableName) -> Option<&str> {
        self.tables.iter().find(|(name, _, _)| name == table).map(|(_, source, _)| source.as_str())
    }
}

pub(super) fn read(r: &mut Reader, pipeline: &Map, name: Option<&str>) -> Captured {
    let mut captured = Captured::default();
    let Some(sources) = r.required(pipeline, &SOURCES) else {
        captured.unsure = true;
        return captured;
    };
    for entry in sources.entries() {
        let source = &entry.0;
        NameOf::SOURCE.check_key(r, source);
        let example = "{ postgres: { url: \"postgres://app@localhost/studio\", tables: [public.movie] } }";
        let map = r.entry(&sources, entry, &&key::SOURCE, example);
        let settings = map.and_then(|map| {
            if let Some(map) = r.optional(&map, &key::POSTGRES) {
                return Some(SourceSettings::Postgres(postgres(r, &map, &source.name, name, &mut captured)));
            }
            let map = [&key::MYSQL, &key::MARIADB].into_iter().find_map(|key| r.optional(&map, key))?;
            Some(SourceSettings::MySql(mysql(r, &map, &source.name, name, &mut captured)))
        });
        let plan = settings.map(|settings| {
            let own = captured.tables.iter().filter(|(_, of, _)| *of == source.name);
            let places = own.map(|(table, _, spot)| (table.clone(), Place::of(spot))).collect();
            let (name, place) = (source.name.clone(), Place::of(&r.spot(source.place)));
            SourcePlan { name, settings, place, places }
        });
        captured.unsure |= plan.is_none();
        captured.plans.extend(plan);
    }
    captured
}

fn postgres(
    r: &mut Reader,
    map: &Map,
    source: &str,
    pipeline: Option<&str>,
    captured: &mut Captured,
) -> PostgresSettings {
    let url = url(r, map, &key::URL, &SOURCE_URL);
    let listed = list(r, map, source, captured, &key::CAPTURED);
    captured.unsure |= listed.is_none();
    let keys = keys(r, map, listed.as_deref());
    // A pipeline without a name is wrong, which is said; its slots have none either.
    let default = pipeline.map(|name| format!("tributary_{}_{}", name.replace('-', "_"), source.replace('-', "_")));
    let default = default.unwrap_or_default();
    named(r, map, source, &default);
    let at_prepare = r.value(map, &key::PREPARED_TRANSACTIONS);
    if let (true, Some(node)) = (at_prepare, map.node(&key::PREPARED_TRANSACTIONS)) {
        captured.at_prepare.push((source.to_owned(), r.spot(node.place)));
    }
    PostgresSettings {
        url: url.unwrap_or_else(|| Secret::new("")),
        tables: listed.unwrap_or_default(),
        keys,
        slot: r.optional(map, &key::SLOT).unwrap_or_else(|| default.clone()),
        publication: r.optional(map, &key::PUBLICATION).unwrap_or(default),
        decimals: r.value(map, &key::DECIMALS),
        streaming: r.value(map, &key::STREAMING),
        messages: r.value(map, &key::MESSAGES),
        cloud_events: r.value(map, &key::CLOUD_EVENTS),
        at_prepare,
        heartbeat: r.optional(map, &key::HEARTBEAT),
        row_filters: r.value(map, &key::ROW_FILTERS),
        times: r.value(map, &key::TIMES),
        binary: r.value(map, &key::BINARY),
        hstore_as_map: r.value(map, &key::HSTORE),
        intervals_as_text: r.value(map, &key::INTERVALS),
        invalid_text: r.value(map, &key::INVALID_TEXT),
        dropped_types: r.value(map, &key::DROPPED_TYPES),
    }
}

fn mysql(r: &mut Reader, map: &Map, source: &str, pipeline: Option<&str>, captured: &mut Captured) -> MySqlSettings {
    let url = url(r, map, &key::MYSQL_ADDRESS, &MYSQL_URL);
    let listed = list(r, map, source, captured, &key::CAPTURED_OF_DATABASES);
    captured.unsure |= listed.is_none();
    let keys = keys(r, map, listed.as_deref());
    let default = pipeline.map(|name| format!("tributary_{}_{}", name.replace('-', "_"), source.replace('-', "_")));
    MySqlSettings {
        url: url.unwrap_or_else(|| Secret::new("")),
        tables: listed.unwrap_or_default(),
        keys,
        identity: r.optional(map, &key::IDENTITY).unwrap_or_else(|| default.unwrap_or_default()),
        decimals: r.value(map, &key::DECIMALS),
        cloud_events: r.value(map, &key::CLOUD_EVENTS),
        times: r.value(map, &key::MYSQL_TIMES),
        binary: r.value(map, &key::BINARY),
        invalid_text: r.value(map, &key::INVALID_TEXT),
        query: r.value(map, &key::QUERY),
    }
}

/// Columns that make the key of a table, in place of its primary key. `captured`: all tables of the source, if they are known.
fn keys(r: &mut Reader, source: &Map, captured: Option<&[TableName]>) -> BTreeMap<TableName, Vec<String>> {
    let mut keys = BTreeMap::new();
    let Some(map) = r.optional(source, &key::KEYS) else { return keys };
    for entry in map.entries() {
        let name = &entry.0;
        let Some(table) = tables::key(r, name) else { continue };
        if let Some(captured) = captured.filter(|captured| !captured.contains(&table.name)) {
            let help = tables::similar(&table.name, captured)
                .unwrap_or_else(|| "add it to the `tables` of the source, or remove this".to_owned());
            r.error(name.place, format!("the source does not capture the table `{}`", name.name), Some(help));
        }
        let Some(items) = r.entry(&map, entry, &key::COLUMNS, "[id]") else { continue };
        let path = map.path_of(&name.name);
        let at = At { path: &path, key: None, example: "id" };
        let columns = items.iter().filter_map(|item| r.text(item, at)).map(|text| text.value).collect();
        if keys.insert(table.name, columns).is_some() {
            let message = format!("the key of the table `{}` is named twice", name.name);
            r.error(name.place, message, Some("remove one of the two".into()));
        }
    }
    keys
}

/// The tables to capture; `None`: not all of them are known, for one is wrong (which is said).
fn list(
    r: &mut Reader,
    map: &Map,
    source: &str,
    captured: &mut Captured,
    key: &Key<Items, Required>,
) -> Option<Vec<TableName>> {
    let items = r.required(map, key)?;
    let path = map.path_of(key.name);
    let mut tables: Vec<TableName> = Vec::new();
    let (mut known, mut topics) = (HashSet::new(), HashMap::new());
    let others: HashMap<&TableName, &str> =
        captured.tables.iter().map(|(table, source, _)| (table, source.as_str())).collect();
    let mut read = Vec::new();
    let mut all = true;
    for item in &items {
        let at = At { path: &path, key: None, example: "public.movie" };
        let Some(table) = Table.read(r, item, at) else {
            all = false;
            continue;
        };
        let topic = debezium::topic(source, &table.name.schema, &table.name.name);
        if known.contains(&table.name) {
            let message = format!("the table `{}` is listed twice", table.shown);
            r.error(item.place, message, Some("remove one of the two".into()));
        } else if let Some(other) = topics.get(&topic) {
            let message = format!("`{}` and `{other}` would share the topic `{topic}`", table.name);
            let help = "a topic joins the parts of a name by dots, and has `_` for marks that topics may not have:\ncapture one of the two with a source of its own";
            r.error(item.place, message, Some(help.into()));
        } else if let Some(other) = others.get(&table.name) {
            let message = format!("the table `{}` is captured by the source `{other}` already", table.shown);
            let help = "rules of `graph.vertices` name tables without their source:\nput one of the two into a pipeline of its own";
            r.error(item.place, message, Some(help.into()));
        } else {
            known.insert(table.name.clone());
            topics.insert(topic, table.name.clone());
            tables.push(table.name.clone());
            read.push((table.name, source.to_owned(), table.spot));
        }
    }
    captured.tables.extend(read);
    all.then_some(tables)
}

/// A connection URL, with the password of `password_file` put in.
fn url(r: &mut Reader, map: &Map, key: &Key<DatabaseUrl, Required>, kind: &DatabaseUrl) -> Option<Secret> {
    let url = r.required(map, key);
    let file = r.optional(map, &key::PASSWORD_FILE);
    let text = url?;
    if map.node(&key::PASSWORD_FILE).is_none() {
        return Some(Secret::new(text.value));
    }
    let file = file?;
    let password = match r.inputs.file(&file.value) {
        Ok(password) => password,
        Err(cause) => {
            let message = format!("the password file `{}` cannot be read: {cause}", file.shown);
            r.found.push(file.spot.error(message).help("the path is relative to the pipeline's file"));
            return None;
        }
    };
    let after = kind.schemes.iter().find_map(|scheme| text.value.strip_prefix(scheme))?;
    let scheme = &text.value[..text.value.len() - after.len()];
    match after.split_once('@') {
        Some((user, rest)) if !user.is_empty() && !user.contains([':', '/']) => {
            let password = percent_encoded(password.trim_end_matches(['\r', '\n']));
            Some(Secret::new(format!("{scheme}{user}:{password}@{rest}")))
        }
        _ => {
            let scheme = kind.schemes.first().copied().unwrap_or_default();
            let help = format!("write `{scheme}user@host/database`: the user in the url, the password in the file");
            let message =
                format!("`{}` must name a user and no password where there is a `password_file`", map.path_of("url"));
            r.found.push(text.spot.error(message).help(help));
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

/// Whether slot and publication have names, whichever were left out.
fn named(r: &mut Reader, map: &Map, source: &str, default: &str) {
    let keys = [&key::SLOT, &key::PUBLICATION];
    let unnamed: Vec<&str> = keys.into_iter().filter(|key| map.node(*key).is_none()).map(|key| key.name).collect();
    if default.len() > MAX_SERVER_NAME && !unnamed.is_empty() {
        let what = unnamed.join(" and the ");
        let message = format!("`{default}`, the name of the {what}, is longer than {MAX_SERVER_NAME} characters");
        let help = format!("shorten `{source}`, or add {}", listed(unnamed));
        r.error(map.place, message, Some(help));
    }
}
