//! `graph:`: the endpoint, and what the schema cannot say by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use tributary_event::TableName;

use super::TableText;
use super::headers::headers;
use super::sources::Captured;
use crate::diagnostic::Spot;
use crate::keys::graph as key;
use crate::keys::tables::{self, Table};
use crate::plan::{IdTemplate, LeafType, Place, Secret, TemplateError, VertexRule};
use crate::suggest::did_you_mean;
use crate::yaml::{At, Kind, Map, Node, Reader, Text, Tree};

/// `graph:` as written.
#[derive(Debug, Clone)]
pub(crate) struct GraphText {
    pub endpoint: String,
    pub place: Place,
    pub headers: BTreeMap<String, Secret>,
    pub timeout: Duration,
    pub concurrency: usize,
    pub schema_file: Option<String>,
    pub vertices: Vec<VertexText>,
    /// Types that rules of `vertices` name which could not be read.
    pub meant: Vec<String>,
    /// Whether ids that are made of rows are compared with the graph's before a first build.
    pub probe: bool,
    /// How far the graph may be behind the log.
    pub lag: Duration,
    pub types: BTreeMap<String, TypeText>,
    pub edges: Vec<EdgeText>,
    pub scalars: BTreeMap<String, (LeafType, Spot)>,
}

impl GraphText {
    /// No graph: nobody asks it.
    pub fn none() -> Self {
        Self {
            endpoint: String::new(),
            place: Place::default(),
            headers: BTreeMap::new(),
            timeout: key::TIMEOUT.left_out.0,
            concurrency: key::CONCURRENCY.left_out.0,
            schema_file: None,
            vertices: Vec::new(),
            meant: Vec::new(),
            probe: key::PROBE.left_out.0,
            lag: key::LAG.left_out.0,
            types: BTreeMap::new(),
            edges: Vec::new(),
            scalars: BTreeMap::new(),
        }
    }
}

/// A rule of `vertices`.
#[derive(Debug, Clone)]
pub(crate) struct VertexText {
    pub table: TableName,
    pub type_name: Text,
    pub id: IdTemplate,
    /// Where the template stands.
    pub spot: Spot,
}

impl VertexText {
    /// As plans have it.
    pub fn rule(&self) -> VertexRule {
        let place = Place::of(&self.spot);
        VertexRule { type_name: self.type_name.value.clone(), id: self.id.clone(), place }
    }
}

/// An entry of `types`: which field is the key of vertices of the type, and how they are fetched by it.
#[derive(Debug, Clone)]
pub(crate) struct TypeText {
    pub spot: Spot,
    pub key: Option<Text>,
    pub access: Option<AccessText>,
    /// The share of rows, in percent, that the graph may not know.
    pub hidden: u8,
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
    /// Whether the server answers all of the list where it is not told how many.
    pub whole: bool,
}

/// Where an edge is kept.
#[derive(Debug, Clone)]
pub(crate) enum Kept {
    InParent,
    Tables(Vec<TableText>),
}

/// `None`: there is nothing to ask the graph with.
pub(super) fn read(r: &mut Reader, map: &Map, captured: &Captured) -> Option<GraphText> {
    let endpoint = r.required(map, &key::ENDPOINT);
    let headers = headers(r, map, &key::HEADERS);
    let timeout = r.value(map, &key::TIMEOUT);
    let concurrency = r.value(map, &key::CONCURRENCY);
    let schema_file = r.optional(map, &key::SCHEMA);
    if let Some(file) = &schema_file
        && let Err(cause) = r.inputs.file(&file.value)
    {
        let message = format!("the schema `{}` cannot be read: {cause}", file.shown);
        r.found.push(file.spot.error(message).help("the path is relative to the pipeline's file"));
    }
    let vertices = vertices(r, map, captured);
    let probe = r.value(map, &key::PROBE);
    let lag = r.value(map, &key::LAG);
    let types = types(r, map);
    let edges = edges(r, map);
    let scalars = scalars(r, map);
    if map.node(&key::SCHEMA).is_some() && schema_file.is_none() {
        return None;
    }
    let (vertices, meant) = vertices?;
    let place = endpoint.as_ref().map(|text| Place::of(&text.spot)).unwrap_or_default();
    Some(GraphText {
        endpoint: endpoint?.value,
        place,
        headers: headers?,
        timeout,
        concurrency,
        schema_file: schema_file.map(|file| file.value),
        vertices,
        meant,
        probe,
        lag,
        types,
        edges,
        scalars,
    })
}

/// `None`: there are none, which is said; all else that could be said of the graph would follow from it.
fn vertices(r: &mut Reader, graph: &Map, captured: &Captured) -> Option<(Vec<VertexText>, Vec<String>)> {
    let map = r.required(graph, &key::VERTICES)?;
    let (mut rules, mut meant) = (Vec::new(), Vec::new());
    let mut named: Vec<TableName> = Vec::new();
    for entry in map.entries() {
        let name = &entry.0;
        let Some(TableText { name: table, .. }) = tables::key(r, name) else {
            if let (Some(help), Some(error)) = (tables::qualified(&name.name, captured.names()), r.found.last_mut()) {
                error.help = Some(help);
            }
            continue;
        };
        if named.contains(&table) {
            let message = format!("the rules of the table `{}` stand here twice", name.name);
            r.error(name.place, message, Some("put all of them into one list".into()));
        } else {
            let spot = r.spot(name.place);
            captured.known_source(r, &table, &name.name, &spot);
        }
        named.push(table.clone());
        let Some(items) = r.entry(&map, entry, &key::RULES, RULES) else {
            meant.extend(type_of(&entry.1));
            continue;
        };
        let path = map.path_of(&name.name);
        for item in &items {
            let at = At { path: &path, key: None, example: RULE };
            let Some(rule) = r.map(item, at, &key::RULE) else { continue };
            let type_name = r.required(&rule, &key::TYPE);
            let id = r.required(&rule, &key::ID).and_then(|text| Some((template(r, &text)?, text.spot)));
            match (type_name, id) {
                (Some(type_name), Some((id, spot))) => {
                    rules.push(VertexText { table: table.clone(), type_name, id, spot });
                }
                _ => meant.extend(type_of(item)),
            }
        }
    }
    for (table, _, spot) in &captured.tables {
        if !named.contains(table) {
            let warning = spot.warning(format!("no rule of `graph.vertices` names the captured table `{table}`"));
            r.found.push(warning.help("its changes reach no document"));
        }
    }
    Some((rules, meant))
}

/// The type that a rule names which cannot be read.
fn type_of(rule: &Node) -> Option<String> {
    let Tree::Mapping(entries) = &rule.kind else { return None };
    entries.iter().find(|(key, _)| key.name == key::TYPE.name).and_then(|(_, node)| match &node.kind {
        Tree::Scalar(name) => Some(name.clone()),
        _ => None,
    })
}

/// A rule, and a list of them, as remedies.
const RULE: &str = "{ type: Movie, id: \"{id}\" }";
const RULES: &str = "[{ type: Movie, id: \"{id}\" }]";

/// A template with a function, as remedy.
const FUNCTION: &str = "write a function in braces as in `\"{base64(json('Movie', id))}\"`";

fn template(r: &mut Reader, text: &Text) -> Option<IdTemplate> {
    let error = match IdTemplate::parse(&text.value) {
        Ok(template) => return Some(template),
        Err(error) => error,
    };
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let help = match &error {
        TemplateError::UnknownFunction { name, .. } => {
            let names = ["base64", "base64url", "json", "concat", "text", "lower", "upper", "date", "trim"];
            did_you_mean(name, names).unwrap_or_else(|| FUNCTION.to_owned())
        }
        TemplateError::NoColumn if text.value == text.shown && text.value.chars().all(word) => {
            format!("write `\"{{{}}}\"`, if that is the column", text.value)
        }
        TemplateError::Unclosed(_)
        | TemplateError::Unopened(_)
        | TemplateError::Quotes(_)
        | TemplateError::Empty(_)
        | TemplateError::NoColumn => "write a column in braces, such as `\"{movie_id}\"`".to_owned(),
        TemplateError::Arguments { .. } | TemplateError::Expected { .. } => FUNCTION.to_owned(),
    };
    r.found.push(text.spot.error(format!("`{}` is no id template: {error}", text.shown)).help(help));
    None
}

fn types(r: &mut Reader, graph: &Map) -> BTreeMap<String, TypeText> {
    let mut types = BTreeMap::new();
    let Some(entries) = r.optional(graph, &key::TYPES) else { return types };
    for entry in entries.entries() {
        let name = &entry.0;
        let Some(map) = r.entry(&entries, entry, &&key::TYPE_KEYS, "{ id: rowId }") else { continue };
        let id = r.optional(&map, &key::KEY_FIELD);
        let field = r.optional(&map, &key::FIELD);
        let argument = r.optional(&map, &key::ARGUMENT);
        let access = field.zip(argument).map(|(field, argument)| AccessText { field, argument });
        let hidden = r.value(&map, &key::HIDDEN);
        types.insert(name.name.clone(), TypeText { spot: r.spot(name.place), key: id, access, hidden });
    }
    types
}

fn edges(r: &mut Reader, graph: &Map) -> Vec<EdgeText> {
    let mut edges = Vec::new();
    let Some(entries) = r.optional(graph, &key::EDGES) else { return edges };
    for entry in entries.entries() {
        let name = &entry.0;
        let spot = r.spot(name.place);
        let Some((parent, field)) = name.name.split_once('.') else {
            let help = "write the type and its field, such as `Movie.distributor`";
            r.error(name.place, format!("`{}` names no edge", name.name), Some(help.into()));
            continue;
        };
        let Some(map) = r.entry(&entries, entry, &&key::HINT, "{ stored_in: parent }") else { continue };
        if let Some(hint) = hint(r, &map) {
            edges.push(EdgeText { parent: parent.to_owned(), field: field.to_owned(), spot, hint });
        }
    }
    edges
}

/// `None`: a part of it is wrong, which is said.
fn hint(r: &mut Reader, map: &Map) -> Option<Hint> {
    let inverse = r.optional(map, &key::INVERSE);
    let parent = r.optional(map, &key::STORED_IN);
    let tables = r.optional(map, &key::EDGE_TABLES).map(|items| {
        let path = map.path_of(key::EDGE_TABLES.name);
        let at = At { path: &path, key: None, example: "public.movie_talent" };
        items.iter().filter_map(|item| Table.read(r, item, at)).collect()
    });
    let both = map.node(&key::STORED_IN).is_some() && map.node(&key::EDGE_TABLES).is_some();
    let unread = both
        || map.node(&key::INVERSE).is_some() && inverse.is_none()
        || map.node(&key::STORED_IN).is_some() && parent.is_none()
        || map.node(&key::EDGE_TABLES).is_some() && tables.is_none();
    let kept = tables.map(Kept::Tables).or(parent.map(|()| Kept::InParent));
    let whole = r.optional(map, &key::LIMIT).is_some();
    (!unread).then_some(Hint { inverse, kept, whole })
}

fn scalars(r: &mut Reader, graph: &Map) -> BTreeMap<String, (LeafType, Spot)> {
    let mut scalars = BTreeMap::new();
    let Some(entries) = r.optional(graph, &key::SCALARS) else { return scalars };
    for entry in entries.entries() {
        if let Some(leaf) = r.entry(&entries, entry, &key::LEAVES, "keyword") {
            scalars.insert(entry.0.name.clone(), ((leaf.0)(), r.spot(entry.0.place)));
        }
    }
    scalars
}
