//! The pipeline as written: every setting read, nothing checked against the graph yet.

mod graph;
mod headers;
mod indexes;
mod prints;
mod servers;
mod sources;
mod streams;
mod traces;
mod transport;

pub(crate) use crate::keys::tables::{
    TableText, listed as listed_tables, similar as similar_tables, suggestion as tables_like,
};
pub(crate) use graph::{AccessText, EdgeText, GraphText, Hint, Kept};
pub(crate) use indexes::{IndexText, RootsText};
pub use prints::{Prints, StreamPrint};

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tributary_event::TableName;

use crate::diagnostic::{Diagnostic, Spot, sorted};
use crate::keys;
use crate::plan::{
    HttpSettings, LookupTable, Secret, ServicePlan, SourcePlan, StorePlan, StreamPlan, TracesPlan, TransportPlan,
    VertexRule,
};
use crate::written;
use crate::yaml::{self, At, Node, Reader, Tree};
use crate::{ComponentLimits, Inputs};

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
    pub(crate) services: Vec<ServicePlan>,
    pub(crate) tables: Vec<LookupTable>,
    /// The WebAssembly components by their names.
    pub(crate) components: BTreeMap<String, ComponentLimits>,
    pub(crate) streams: Vec<StreamPlan>,
    pub(crate) http: HttpSettings,
    pub(crate) traces: Option<Arc<TracesPlan>>,
    pub(crate) data: PathBuf,
    /// What is written, part by part.
    pub(crate) prints: Prints,
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

    /// Where the documents of an index are.
    pub fn store(&self, index: &str) -> Option<&StorePlan> {
        self.indexes.iter().find(|known| known.name == index).map(|known| &known.store)
    }

    /// The streams.
    pub fn streams(&self) -> &[StreamPlan] {
        &self.streams
    }

    /// The services that steps of streams ask.
    pub fn services(&self) -> &[ServicePlan] {
        &self.services
    }

    /// The tables that steps of streams look into.
    pub fn tables(&self) -> &[LookupTable] {
        &self.tables
    }

    /// The WebAssembly components that programs and steps of streams may call, by their names, and what a call of each may take.
    pub fn components(&self) -> &BTreeMap<String, ComponentLimits> {
        &self.components
    }

    /// What it says, part by part.
    pub fn prints(&self) -> &Prints {
        &self.prints
    }

    /// The rules of `graph.vertices` as they are written: whether there are such types is not known yet.
    pub fn vertices(&self) -> BTreeMap<TableName, Vec<VertexRule>> {
        let mut rules: BTreeMap<TableName, Vec<VertexRule>> = BTreeMap::new();
        for rule in &self.graph.vertices {
            rules.entry(rule.table.clone()).or_default().push(rule.rule());
        }
        rules
    }

    /// The types of the vertices that these rules make, and which field is the id of each.
    pub fn vertex_ids(&self) -> BTreeMap<String, String> {
        let id = |type_name: &str| {
            let key = self.graph.types.get(type_name).and_then(|of| of.key.as_ref());
            key.map_or("id", |key| key.value.as_str()).to_owned()
        };
        let types = self.graph.vertices.iter().map(|rule| rule.rule().type_name);
        types.map(|type_name| (type_name.clone(), id(&type_name))).collect()
    }

    /// How far the graph may be behind the log.
    pub fn lag(&self) -> Duration {
        self.graph.lag
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

    /// Where traces are told; none: there are none.
    pub fn traces(&self) -> Option<&Arc<TracesPlan>> {
        self.traces.as_ref()
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
    let functions = inputs.functions();
    let mut reader = Reader { text, others: Vec::new(), inputs, found, root: &keys::PIPELINE, functions };
    if root.is_none() && reader.found.is_empty() {
        let spot = Spot::new(&reader.text, 1, 1, 1);
        reader.found.push(spot.error("the pipeline is empty").help(START));
    }
    let root = root.map(|root| written::joined(&mut reader, root));
    let definition = root.as_ref().and_then(|root| pipeline(&mut reader, root));
    let definition = match (definition, &root) {
        (Some(definition), Some(root)) if !reader.found.iter().any(Diagnostic::is_error) => {
            let prints = prints::read(&mut reader, root, &definition.streams);
            Some(Definition { prints, ..definition })
        }
        (definition, _) => definition,
    };
    let found = sorted(reader.found);
    let complete = !found.iter().any(Diagnostic::is_error);
    (definition.map(|definition| Definition { complete, ..definition }), found)
}

/// How a pipeline begins.
const START: &str = "start with `pipeline: <name>`, then `sources:`, `graph:` and `indexes:`, or `streams:`";

fn pipeline(r: &mut Reader, root: &Arc<Node>) -> Option<Definition> {
    match &root.kind {
        Tree::Mapping(_) => {}
        Tree::Null => {
            r.error(root.place, "the pipeline is empty", Some(START.into()));
            return None;
        }
        _ => {
            r.error(root.place, "a pipeline is written as keys and values", Some(START.into()));
            return None;
        }
    }
    let map = r.map(root, At { path: "", key: None, example: "" }, &keys::PIPELINE)?;
    let name = r.required(&map, &keys::NAME);
    let captured = sources::read(r, &map, name.as_deref());
    let transport = transport::read(r, &map);
    // Streams alone need no graph.
    let alone =
        map.node(&keys::STREAMS).is_some() && map.node(&keys::INDEXES).is_none() && map.node(&keys::GRAPH).is_none();
    let graph = match alone {
        true => Some(GraphText::none()),
        false => r.needed(&map, &keys::GRAPH).and_then(|map| graph::read(r, &map, &captured)),
    };
    let indexes = if alone { Vec::new() } else { indexes::read(r, &map, &captured) };
    let services = streams::services(r, &map);
    let tables = streams::lookup_tables(r, &map, &captured);
    let components = streams::functions(r, &map);
    let names: Vec<String> = indexes.iter().map(|index| index.name.clone()).collect();
    let streams = streams::read(
        r,
        &map,
        name.as_deref(),
        &captured,
        &transport,
        &streams::Asked { services: &services, tables: &tables },
        &names,
    );
    let listen = match r.optional(&map, &keys::HTTP) {
        Some(http) => r.value(&http, &keys::LISTEN),
        None => keys::LISTEN.left_out.0,
    };
    let traces = traces::read(r, &map);
    let data = r.value(&map, &keys::DATA);
    // Without any source, all that could be said of tables would follow from that.
    if captured.plans.is_empty() {
        return None;
    }
    Some(Definition {
        pipeline: name.unwrap_or_default(),
        sources: captured.plans,
        at_prepare: captured.at_prepare,
        transport,
        graph: graph?,
        indexes,
        tables,
        components,
        services: services.into_iter().map(|(service, _)| service).collect(),
        streams,
        http: HttpSettings { listen },
        traces,
        data: PathBuf::from(data.as_ref()),
        prints: Prints::default(),
        complete: false,
    })
}
