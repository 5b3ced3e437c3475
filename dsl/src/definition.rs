//! The pipeline as written: every setting read, nothing checked against the graph yet.

mod graph;
mod indexes;
mod servers;
mod sources;
mod tables;
mod transport;

use graph::VertexText;
pub(crate) use graph::{AccessText, EdgeText, GraphText, Hint, Kept};
pub(crate) use indexes::{IndexText, RootsText};
pub(crate) use tables::{TableText, listed as listed_tables, similar as similar_tables, suggestion as tables_like};

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tributary_event::TableName;

use crate::Inputs;
use crate::diagnostic::{Diagnostic, Spot, sorted};
use crate::plan::{HttpSettings, Secret, SourcePlan, TransportPlan, VertexRule};
use crate::yaml::{self, Map, Node, Reader};

/// The port of the HTTP listener, if none is named.
const PORT: u16 = 7676;

/// A pipeline as written.
#[derive(Debug, Clone)]
pub struct Definition {
    pub(crate) pipeline: String,
    pub(crate) sources: Vec<SourcePlan>,
    /// Sources that publish prepared transactions when they are prepared, and where that is written.
    pub(crate) at_prepare: Vec<(String, Spot)>,
    pub(crate) transport: TransportPlan,
    pub(crate) graph: GraphText,
    pub(crate) indexes: Vec<IndexText>,
    pub(crate) http: HttpSettings,
    pub(crate) data: PathBuf,
    /// Whether there was no error, so that a plan may be made of it.
    pub(crate) complete: bool,
}

impl Definition {
    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }

    /// The databases.
    pub fn sources(&self) -> &[SourcePlan] {
        &self.sources
    }

    /// Where events travel.
    pub fn transport(&self) -> &TransportPlan {
        &self.transport
    }

    /// The names of the indexes.
    pub fn indexes(&self) -> impl Iterator<Item = &str> {
        self.indexes.iter().map(|index| index.name.as_str())
    }

    /// The rules of `graph.vertices` as they are written: whether there are such types is not known yet.
    pub fn vertices(&self) -> BTreeMap<TableName, Vec<VertexRule>> {
        let mut rules: BTreeMap<TableName, Vec<VertexRule>> = BTreeMap::new();
        for VertexText { table, type_name, id } in &self.graph.vertices {
            let rule = VertexRule { type_name: type_name.value.clone(), id: id.clone() };
            rules.entry(table.clone()).or_default().push(rule);
        }
        rules
    }

    /// URL of the GraphQL endpoint.
    pub fn endpoint(&self) -> &str {
        &self.graph.endpoint
    }

    /// Headers for every request to it.
    pub fn headers(&self) -> &BTreeMap<String, Secret> {
        &self.graph.headers
    }

    /// Where the HTTP listener listens.
    pub fn listen(&self) -> SocketAddr {
        self.http.listen
    }

    /// The folder of the pipeline's data.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The schema file to check against instead of asking the endpoint; relative to the pipeline's file.
    pub fn schema_file(&self) -> Option<&str> {
        self.graph.schema_file.as_deref()
    }
}

/// Reads a pipeline's text and the GraphQL files it names. Diagnostics are sorted by place.
///
/// A definition can come with errors: then it is good enough for finding more of them, and [`crate::check()`] refuses it.
pub fn parse(file_name: &str, text: &str, inputs: &dyn Inputs) -> (Option<Definition>, Vec<Diagnostic>) {
    let (text, root, found) = yaml::parse(file_name, text);
    let mut reader = Reader { text, inputs, found };
    let definition = root.and_then(|root| pipeline(&mut reader, &root));
    let found = sorted(reader.found);
    let complete = !found.iter().any(Diagnostic::is_error);
    (definition.map(|definition| Definition { complete, ..definition }), found)
}

fn pipeline(r: &mut Reader, root: &Arc<Node>) -> Option<Definition> {
    const KEYS: [&str; 7] = ["pipeline", "sources", "transport", "graph", "indexes", "http", "data"];
    if matches!(root.kind, yaml::Kind::Null) {
        let help = "start with `pipeline: <name>`, then `sources:`, `graph:` and `indexes:`";
        r.error(root.place, "the pipeline is empty", Some(help.into()));
        return None;
    }
    let map = match &root.kind {
        yaml::Kind::Mapping(_) => r.entries(root, "")?,
        _ => {
            r.error(
                root.place,
                "a pipeline is written as keys and values",
                Some("start with `pipeline: <name>`".into()),
            );
            return None;
        }
    };
    r.refuse_others(&map, &KEYS, &["streams"]);
    if map.get("streams").is_some() {
        let help = "streams come later; remove the key (indexes do not need it)";
        r.error(map.key_place("streams"), "streams are not available in this version", Some(help.into()));
    }
    let pipeline = r.required(&map, "pipeline").cloned().and_then(|node| name(r, &node, "pipeline", false));
    let pipeline = pipeline.unwrap_or_default();
    let sources = r.required(&map, "sources").cloned();
    let captured = sources.map(|node| sources::read(r, &node, &pipeline)).unwrap_or_default();
    let transport = transport::read(r, map.get("transport"));
    let graph = r.required(&map, "graph").cloned().and_then(|node| graph::read(r, &node, &captured));
    let indexes = r.required(&map, "indexes").cloned().map(|node| indexes::read(r, &node, &captured));
    let http = listener(r, &map);
    let data = map.get("data").and_then(|node| r.text(node, "data")).map_or_else(|| "./data".to_owned(), |t| t.value);
    Some(Definition {
        pipeline,
        sources: captured.plans,
        at_prepare: captured.at_prepare,
        transport,
        graph: graph?,
        indexes: indexes.unwrap_or_default(),
        http,
        data: PathBuf::from(data),
        complete: false,
    })
}

fn listener(r: &mut Reader, map: &Map) -> HttpSettings {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let http = map.get("http").and_then(|node| r.map(node, "http", &["listen"]));
    let listen = http.as_ref().and_then(|http| http.get("listen")).cloned();
    let listen = listen.and_then(|node| r.text(&node, "http.listen")).and_then(|text| match text.value.parse() {
        Ok(address) => Some(address),
        Err(_) => {
            let message = format!("`{}` is no address to listen on", text.shown);
            r.found.push(text.spot.error(message).help(format!("write an IP address and a port: {default}")));
            None
        }
    });
    HttpSettings { listen: listen.unwrap_or(default) }
}

/// A name that becomes a part of topics, slots and aliases.
fn name(r: &mut Reader, node: &Node, path: &str, underscore: bool) -> Option<String> {
    let text = r.text(node, path)?;
    if is_name(&text.value, underscore) {
        return Some(text.value);
    }
    let message = format!("`{}` is no name for a {path}", text.shown);
    r.found.push(text.spot.error(message).help(name_help(underscore)));
    None
}

fn is_name(text: &str, underscore: bool) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (underscore && c == '_');
    text.len() <= 100 && text.chars().all(fits) && text.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn name_help(underscore: bool) -> &'static str {
    if underscore { "lower-case letters, digits, `-` and `_`" } else { "lower-case letters, digits and `-`" }
}

/// An HTTP URL without a user in it.
fn http_url(r: &mut Reader, map: &Map, key: &str, instead: &str) -> Option<yaml::Text> {
    let node = r.required(map, key).cloned()?;
    let path = map.path_of(key);
    let text = r.text(&node, &path)?;
    let rest = text.value.strip_prefix("http://").or_else(|| text.value.strip_prefix("https://"));
    let problem = match rest {
        None => Some((format!("`{path}` must start with `http://` or `https://`"), None)),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Some((format!("`{path}` names no host"), None)),
        Some(rest) if rest.split('/').next().is_some_and(|host| host.contains('@')) => {
            Some((format!("`{path}` must not hold a user or a password"), Some(instead.to_owned())))
        }
        Some(_) => None,
    };
    match problem {
        None => Some(text),
        Some((message, help)) => {
            r.found.push(text.spot.error(message).maybe_help(help));
            None
        }
    }
}
