//! A definition held against the graph's schema.
//!
//! Ids: a vertex's id is the value of its type's key, the field `id` unless `graph.types` names another. What the rules of
//! `graph.vertices` make of rows must be the same text.

mod access;
mod edges;
mod fan_out;
mod partial;
mod prepared;
mod probes;
mod roots;
mod vertices;

use edges::Taken;

pub(crate) use access::way_to;
pub(crate) use fan_out::call;

use std::collections::{BTreeMap, BTreeSet};

use tributary_event::TableName;

use crate::definition::{Definition, EdgeText, GraphText, IndexText};
use crate::diagnostic::{Diagnostic, Spot, sorted};
use crate::plan::{EdgePlan, GraphPlan, IndexPlan, Place, Plan, Reach, RootIds, StorePlan, TransportPlan, VertexRule};
use crate::proposal::alike;
use crate::query::{EdgeSite, Part, Resolved, resolve};
use crate::schema::Schema;
use crate::suggest::did_you_mean;

/// Checks a definition: the plan with warnings, or everything that is wrong (and the warnings). Sorted by place.
///
/// A definition that was parsed with errors is never accepted; the `Err` may be empty then, for those errors were told already.
pub fn check(definition: &Definition, schema: &Schema) -> Result<(Plan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let (keys, unkeyed) = vertices::keys(&definition.graph, schema);
    let schema = &schema.with_keys(keys);
    let mut checker = Checker {
        graph: &definition.graph,
        definition,
        schema,
        vertices: BTreeMap::new(),
        wanted: Vec::new(),
        taken: Vec::new(),
        found: unkeyed,
    };
    // Without indexes no schema is read, and nothing can be held against it.
    if checker.schema.type_names().next().is_some() {
        checker.scalars();
        checker.rules();
        checker.hints();
        checker.declared_ways();
    }
    let indexes: Vec<IndexPlan> = definition.indexes.iter().filter_map(|index| checker.index(index)).collect();
    checker.ways_taken_twice();
    let fan_outs = checker.fan_outs();
    let probes = checker.probes();
    let fine = definition.complete && !checker.found.iter().any(Diagnostic::is_error);
    let (vertices, found) = (checker.vertices, sorted(checker.found));
    if fine && indexes.len() == definition.indexes.len() {
        let graph = GraphPlan { vertices, fan_outs, probes, ..graph(definition) };
        Ok((plan(definition, graph, indexes), found))
    } else {
        Err(found)
    }
}

/// What is known of a definition whose queries are wrong: its rules, as far as the schema has their types. Has no indexes.
pub fn check_rules(definition: &Definition, schema: &Schema) -> Plan {
    let (keys, _) = vertices::keys(&definition.graph, schema);
    let schema = &schema.with_keys(keys);
    let (vertices, wanted, taken, found) = (BTreeMap::new(), Vec::new(), Vec::new(), Vec::new());
    let mut checker = Checker { graph: &definition.graph, definition, schema, vertices, wanted, taken, found };
    checker.rules();
    let probes = checker.probes();
    let graph = GraphPlan { vertices: checker.vertices, probes, ..graph(definition) };
    plan(definition, graph, Vec::new())
}

/// The graph without what was found.
fn graph(definition: &Definition) -> GraphPlan {
    let graph = &definition.graph;
    GraphPlan {
        endpoint: graph.endpoint.clone(),
        place: graph.place.clone(),
        headers: graph.headers.clone(),
        timeout: graph.timeout,
        concurrency: graph.concurrency,
        vertices: BTreeMap::new(),
        fan_outs: BTreeMap::new(),
        probe: graph.probe,
        lag: graph.lag,
        hidden: graph.types.iter().map(|(name, ty)| (name.clone(), ty.hidden)).collect(),
        probes: BTreeMap::new(),
    }
}

fn plan(definition: &Definition, graph: GraphPlan, indexes: Vec<IndexPlan>) -> Plan {
    Plan {
        pipeline: definition.pipeline.clone(),
        sources: definition.sources.clone(),
        transport: definition.transport.clone(),
        graph,
        indexes,
        services: definition.services.clone(),
        tables: definition.tables.clone(),
        streams: definition.streams.clone(),
        http: definition.http.clone(),
        data: definition.data.clone(),
    }
}

struct Checker<'a> {
    definition: &'a Definition,
    graph: &'a GraphText,
    schema: &'a Schema,
    vertices: BTreeMap<TableName, Vec<VertexRule>>,
    /// What fan-out must ask: changed type, path to its parents, their type, and the edge it is for.
    wanted: Vec<Wanted>,
    /// Ways back that nobody declared.
    taken: Vec<Taken>,
    found: Vec<Diagnostic>,
}

struct Wanted {
    child_type: String,
    path: Vec<String>,
    parent_type: String,
    spot: Spot,
}

impl Checker<'_> {
    fn scalars(&mut self) {
        for (name, (_, spot)) in &self.graph.scalars {
            if self.schema.get(name).is_none() {
                let help = did_you_mean(name, self.schema.type_names());
                self.found.push(spot.error(format!("the schema has no scalar `{name}`")).maybe_help(help));
            } else if self.schema.is_composite(name) {
                self.found.push(spot.error(format!("`{name}` is no scalar: it has fields")));
            }
        }
    }

    fn index(&mut self, index: &IndexText) -> Option<IndexPlan> {
        let query = index.query.as_ref()?;
        let (resolved, found) = resolve(query, self.schema, &self.graph.scalars, &index.variables, &self.whole());
        self.found.extend(found);
        let resolved = resolved?;
        self.unmapped(index, &resolved);
        self.prepared(index, &resolved);
        self.alone(index);
        let root_ids = self.roots(index, &resolved.root_type);
        let edges = self.edges(&resolved);
        let hidden = self.graph.types.get(&resolved.root_type).map_or(0, |ty| ty.hidden);
        Some(IndexPlan { hidden, ..assemble(index, resolved, edges, root_ids?) })
    }

    /// The lists that the server answers whole, by the user's word, of every type that a hint is for.
    fn whole(&self) -> BTreeSet<(String, String)> {
        let hints = self.graph.edges.iter().filter(|edge| edge.hint.whole);
        let of = |edge: &EdgeText| {
            let types = self.schema.possible(&edge.parent).into_iter().chain([edge.parent.as_str()]);
            types.map(|name| (name.to_owned(), edge.field.clone())).collect::<Vec<_>>()
        };
        hints.flat_map(of).collect()
    }

    fn edges(&mut self, resolved: &Resolved) -> Vec<EdgePlan> {
        let mut edges = Vec::new();
        for site in &resolved.edges {
            let Some(reach) = self.reach(site) else { continue };
            if let Reach::Inverse { path, .. } = &reach {
                self.want(site, path.clone());
            }
            edges.push(EdgePlan {
                parent_type: site.parent_type.clone(),
                field: site.field.clone(),
                child_type: site.child_type.clone(),
                path: site.path.clone(),
                reach,
                counted: site.partial.as_ref().is_some_and(Part::is_counted),
            });
        }
        edges
    }

    /// The graph is to be asked for the parents of changed children.
    fn want(&mut self, site: &EdgeSite, path: Vec<String>) {
        self.wanted.push(Wanted {
            child_type: site.child_type.clone(),
            path,
            parent_type: site.parent_type.clone(),
            spot: site.spot.clone(),
        });
    }

    /// An index in the folder of one process, behind a transport that several could share.
    fn alone(&mut self, index: &IndexText) {
        let TransportPlan::Kafka(_) = &self.definition.transport else { return };
        if let StorePlan::Embedded = &index.store {
            let message = format!(
                "the documents of `{}` are in this process's data folder, so no other process can run beside it",
                index.name
            );
            let help = "a second one would be refused. To run several, give the index a `store:` that they share:\n\
                        `store: { elasticsearch: { url: \"…\" } }` or `store: { opensearch: { url: \"…\" } }`";
            self.found.push(index.spot.warning(message).help(help));
        }
    }

    /// The tables of all sources.
    fn captured(&self) -> impl Iterator<Item = &TableName> {
        self.definition.sources.iter().flat_map(|source| source.tables())
    }

    /// Vertices in documents that no table maps to: their changes go unnoticed.
    fn unmapped(&mut self, index: &IndexText, resolved: &Resolved) {
        let read = |name: &str| self.graph.vertices.iter().any(|rule| rule.type_name.value == name);
        // A rule that could not be read was told.
        let mapped = |name: &str| read(name) || self.graph.meant.iter().any(|meant| meant == name);
        let mut told: Vec<&str> = Vec::new();
        let root = [(resolved.root_type.as_str(), &index.spot)];
        let others =
            resolved.edges.iter().filter(|site| !site.keyless).map(|site| (site.child_type.as_str(), &site.spot));
        for (name, spot) in root.into_iter().chain(others) {
            if !mapped(name) && !told.contains(&name) {
                told.push(name);
                let message =
                    format!("no table maps to `{name}`, so changes of one never reach the index `{}`", index.name);
                let table = self.captured().find(|table| alike(&table.name) == alike(name));
                let help = match table {
                    Some(table) => format!(
                        "add a rule for its rows to `graph.vertices`, under {table}: {{ type: {name}, id: \"{{…}}\" }}"
                    ),
                    None => {
                        format!("add a rule to `graph.vertices`: `schema.table: [{{ type: {name}, id: \"{{id}}\" }}]`")
                    }
                };
                self.found.push(spot.warning(message).help(help));
            }
        }
    }
}

fn assemble(index: &IndexText, resolved: Resolved, edges: Vec<EdgePlan>, root_ids: RootIds) -> IndexPlan {
    IndexPlan {
        name: index.name.clone(),
        place: Place::of(&index.spot),
        root_type: resolved.root_type,
        fetch: resolved.fetch,
        selection: resolved.selection,
        edges,
        values: resolved.values,
        hidden: 0,
        root_ids,
        store: index.store.clone(),
        build: index.build.clone(),
        retry: index.retry.clone(),
        brake: index.brake.clone(),
        refresh: index.refresh,
    }
}
