//! `graph:`: the endpoint, and what the schema cannot say by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tributary_event::TableName;

use super::sources::Captured;
use super::tables::TableText;
use super::{http_url, tables};
use crate::diagnostic::Spot;
use crate::plan::{IdTemplate, LeafType, Secret};
use crate::suggest::{did_you_mean, suggestion};
use crate::yaml::{Map, Node, Reader, Text};

/// `graph:` as written.
#[derive(Debug, Clone)]
pub(crate) struct GraphText {
    pub endpoint: String,
    pub headers: BTreeMap<String, Secret>,
    pub timeout: Duration,
    pub concurrency: usize,
    pub schema_file: Option<String>,
    pub vertices: Vec<VertexText>,
    /// Whether ids that are made of rows are compared with the graph's before a first build.
    pub probe: bool,
    pub types: BTreeMap<String, TypeText>,
    pub edges: Vec<EdgeText>,
    pub scalars: BTreeMap<String, (LeafType, Spot)>,
}

/// A rule of `vertices`.
#[derive(Debug, Clone)]
pub(crate) struct VertexText {
    pub table: TableName,
    pub type_name: Text,
    pub id: IdTemplate,
}

/// An entry of `types`: which field is the key of vertices of the type, and how they are fetched by it.
#[derive(Debug, Clone)]
pub(crate) struct TypeText {
    pub spot: Spot,
    pub key: Option<Text>,
    pub access: Option<AccessText>,
}

/// A root field, and its argument that takes ids: a name, or a path into an input object such as `where.id.in`.
#[derive(Debug, Clone)]
pub(crate) struct AccessText {
    pub field: Text,
    pub argument: Text,
}

/// An entry of `edges`.
#[derive(Debug, Clone)]
pub(crate) struct EdgeText {
    pub parent: String,
    pub field: String,
    pub spot: Spot,
    pub hint: Hint,
}

/// How the parents of an edge are reached, by the user's word.
#[derive(Debug, Clone)]
pub(crate) struct Hint {
    /// A field of the child that leads back.
    pub inverse: Option<Text>,
    /// Where the edge itself is kept, if that was said.
    pub kept: Option<Kept>,
}

/// Where an edge is kept.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    InParent,
    Tables(Vec<TableText>),
}

const LEAVES: [(&str, LeafType); 7] = [
    ("long", LeafType::Long),
    ("double", LeafType::Double),
    ("boolean", LeafType::Boolean),
    ("keyword", LeafType::Keyword),
    ("date", LeafType::Date),
    ("object", LeafType::Object),
    ("ignore", LeafType::Ignore),
];

/// `None`: there is nothing to ask the graph with.
pub(super) fn read(r: &mut Reader, node: &Arc<Node>, captured: &Captured) -> Option<GraphText> {
    const KEYS: [&str; 10] =
        ["endpoint", "headers", "timeout", "concurrency", "schema", "vertices", "types", "edges", "scalars", "probe"];
    let map = r.map(node, "graph", &KEYS)?;
    let endpoint = http_url(r, &map, "endpoint", "send it as `graph.headers`");
    let headers = headers(r, &map);
    let least = Duration::from_millis(1);
    let timeout = map.get("timeout").and_then(|node| r.duration(node, &map.path_of("timeout"), least));
    let concurrency = map.get("concurrency").and_then(|node| r.number(node, &map.path_of("concurrency"), 1..=1000));
    let schema_file = map.get("schema").map(|node| r.text(node, &map.path_of("schema")));
    let vertices = r.required(&map, "vertices").cloned().map(|node| vertices(r, &node, captured)).unwrap_or_default();
    let probe =
        map.get("probe").and_then(|node| r.choice(node, &map.path_of("probe"), &[("on", true), ("off", false)]));
    let types = types(r, &map);
    let edges = edges(r, &map);
    let scalars = scalars(r, &map);
    let schema_file = match schema_file {
        None => None,
        Some(file) => Some(file?.value),
    };
    Some(GraphText {
        endpoint: endpoint?.value,
        headers: headers?,
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        concurrency: concurrency.unwrap_or(4),
        schema_file,
        vertices,
        probe: probe.unwrap_or(true),
        types,
        edges,
        scalars,
    })
}

/// `None`: one of them could not be read, so that asking the endpoint could fail for that alone.
fn headers(r: &mut Reader, map: &Map) -> Option<BTreeMap<String, Secret>> {
    let mut headers = Some(BTreeMap::new());
    let Some(entries) = map.get("headers") else { return headers };
    let entries = r.entries(entries, "graph.headers")?;
    for (key, node) in entries.entries() {
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if key.name.is_empty() || !key.name.chars().all(token) {
            r.error(key.place, format!("`{}` is no name of a header", key.name), None);
        }
        match (r.secret(node, &entries.path_of(&key.name)), headers.as_mut()) {
            (Some(value), Some(headers)) => {
                headers.insert(key.name.clone(), value);
            }
            _ => headers = None,
        }
    }
    headers
}

fn vertices(r: &mut Reader, node: &Arc<Node>, captured: &Captured) -> Vec<VertexText> {
    let mut rules = Vec::new();
    let Some(map) = r.entries(node, "graph.vertices") else { return rules };
    let mut named: Vec<TableName> = Vec::new();
    for (key, node) in map.entries() {
        let Some(TableText { name: table, .. }) = tables::key(r, key) else { continue };
        if named.contains(&table) {
            r.error(key.place, format!("the table `{}` has rules already", key.name), None);
        } else if captured.source_of(&table).is_none() && !captured.unsure {
            let help = tables::suggestion(&table, captured.names());
            r.error(key.place, format!("no source captures the table `{}`", key.name), help);
        }
        named.push(table.clone());
        let path = map.path_of(&key.name);
        let Some(items) = r.list(node, &path) else { continue };
        for item in items {
            let Some(rule) = r.map(item, &path, &["type", "id"]) else { continue };
            let type_name = r.required(&rule, "type").cloned().and_then(|node| r.text(&node, &rule.path_of("type")));
            let id = r.required(&rule, "id").cloned().and_then(|node| template(r, &node, &rule.path_of("id")));
            if let (Some(type_name), Some(id)) = (type_name, id) {
                rules.push(VertexText { table: table.clone(), type_name, id });
            }
        }
    }
    for (table, _, spot) in &captured.tables {
        if !named.contains(table) {
            let warning = spot.warning(format!("no rule of `graph.vertices` names the captured table `{table}`"));
            r.found.push(warning.help("its changes reach no document"));
        }
    }
    rules
}

fn template(r: &mut Reader, node: &Node, path: &str) -> Option<IdTemplate> {
    let text = r.text(node, path)?;
    IdTemplate::parse(&text.value)
        .map_err(|e| {
            let help = "write a column in braces, such as `\"{movie_id}\"`";
            r.found.push(text.spot.error(format!("`{}` is no id template: {e}", text.shown)).help(help));
        })
        .ok()
}

fn types(r: &mut Reader, map: &Map) -> BTreeMap<String, TypeText> {
    let mut types = BTreeMap::new();
    let Some(entries) = map.get("types").and_then(|node| r.entries(node, "graph.types")) else { return types };
    for (key, node) in entries.entries() {
        let Some(entry) = r.map(node, &entries.path_of(&key.name), &["id", "field", "argument"]) else { continue };
        let mut text = |name: &str| {
            let node = entry.get(name)?;
            Some(r.text(node, &entry.path_of(name)))
        };
        let (id, field, argument) = (text("id"), text("field"), text("argument"));
        let access = match (field, argument) {
            (Some(field), Some(argument)) => {
                field.zip(argument).map(|(field, argument)| AccessText { field, argument })
            }
            (None, None) => None,
            (one, _) => {
                let (is, lacks) = if one.is_some() { ("field", "argument") } else { ("argument", "field") };
                let help = format!(
                    "write `field: <root field>, argument: <its argument that takes ids>`; `{lacks}` is missing"
                );
                r.error(entry.key_place(is), format!("`{is}` needs `{lacks}` beside it"), Some(help));
                continue;
            }
        };
        types.insert(key.name.clone(), TypeText { spot: r.spot(key.place), key: id.flatten(), access });
    }
    types
}

fn edges(r: &mut Reader, map: &Map) -> Vec<EdgeText> {
    let mut edges = Vec::new();
    let Some(entries) = map.get("edges").and_then(|node| r.entries(node, "graph.edges")) else { return edges };
    for (key, node) in entries.entries() {
        let spot = r.spot(key.place);
        let Some((parent, field)) = key.name.split_once('.') else {
            let help = "write the type and its field, such as `Movie.distributor`";
            r.error(key.place, format!("`{}` names no edge", key.name), Some(help.into()));
            continue;
        };
        let path = entries.path_of(&key.name);
        let Some(entry) = r.map(node, &path, &["inverse", "stored_in", "tables"]) else { continue };
        let inverse = entry.get("inverse").map(|node| r.text(node, &entry.path_of("inverse")));
        let kept = match (entry.get("stored_in"), entry.get("tables")) {
            (Some(node), None) => {
                Some(r.choice(node, &entry.path_of("stored_in"), &[("parent", ())]).map(|()| Kept::InParent))
            }
            (None, Some(node)) => {
                let path = entry.path_of("tables");
                let items = r.list(node, &path).map(<[_]>::to_vec);
                Some(items.map(|items| Kept::Tables(items.iter().filter_map(|i| tables::value(r, i, &path)).collect())))
            }
            (None, None) => None,
            (Some(_), Some(_)) => {
                let message = format!("the edge `{}` is kept in one place", key.name);
                r.error(key.place, message, Some("keep one of `stored_in: parent`, `tables: [<table>]`".into()));
                Some(None)
            }
        };
        let hint = match (inverse, kept) {
            (None, None) => {
                let help = "write one of `inverse: <field>`, `stored_in: parent`, `tables: [<table>]`";
                r.error(key.place, format!("the hint for the edge `{}` says nothing", key.name), Some(help.into()));
                None
            }
            // What could not be read was told.
            (Some(None), _) | (_, Some(None)) => None,
            (inverse, kept) => Some(Hint { inverse: inverse.flatten(), kept: kept.flatten() }),
        };
        if let Some(hint) = hint {
            edges.push(EdgeText { parent: parent.to_owned(), field: field.to_owned(), spot, hint });
        }
    }
    edges
}

fn scalars(r: &mut Reader, map: &Map) -> BTreeMap<String, (LeafType, Spot)> {
    let mut scalars = BTreeMap::new();
    let Some(entries) = map.get("scalars").and_then(|node| r.entries(node, "graph.scalars")) else { return scalars };
    for (key, node) in entries.entries() {
        let path = entries.path_of(&key.name);
        let Some(text) = r.text(node, &path) else { continue };
        let words = || LEAVES.iter().map(|(word, _)| *word).chain(["text"]);
        let leaf = match LEAVES.iter().find(|(word, _)| *word == text.value) {
            Some((_, leaf)) => Some(leaf.clone()),
            None if text.value == "text" => Some(LeafType::Text { analyzer: "standard".into() }),
            None => None,
        };
        match leaf {
            Some(leaf) => {
                scalars.insert(key.name.clone(), (leaf, r.spot(key.place)));
            }
            None => {
                let help = did_you_mean(&text.value, words()).or_else(|| suggestion(&text.value, words()));
                r.found.push(text.spot.error(format!("`{}` is no kind of field", text.shown)).maybe_help(help));
            }
        }
    }
    scalars
}
