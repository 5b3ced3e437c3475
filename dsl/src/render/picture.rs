//! `tributary graph`: sources → tables and their topics → vertices → edges → indexes, and streams → steps → sinks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use tributary_event::{TableName, debezium};

use super::{GraphFormat, reach, tables};
use crate::plan::{Origin, Plan, Reach, SinkPlan, Step, StepPlan};

/// The plan as a picture. The same plan gives the same text.
pub fn render_graph(plan: &Plan, format: GraphFormat) -> String {
    let picture = draw(plan);
    match format {
        GraphFormat::Mermaid => mermaid(&picture),
        GraphFormat::Dot => dot(&picture),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Database,
    Table,
    Topic,
    Vertex,
    Index,
    Step,
    Service,
    Sink,
}

#[derive(Default)]
struct Picture {
    /// Label and shape; a node's name is its place.
    nodes: Vec<(String, Shape)>,
    /// From, to, label, and whether the line is dashed.
    lines: Vec<(usize, usize, String, bool)>,
}

impl Picture {
    fn node(&mut self, label: String, shape: Shape) -> usize {
        self.nodes.push((label, shape));
        self.nodes.len() - 1
    }

    fn line(&mut self, from: usize, to: usize, label: &str, dashed: bool) {
        let line = (from, to, label.to_owned(), dashed);
        if !self.lines.contains(&line) {
            self.lines.push(line);
        }
    }
}

fn draw(plan: &Plan) -> Picture {
    let mut picture = Picture::default();
    let mut types: BTreeSet<&str> = plan.indexes.iter().flat_map(|i| i.vertex_types()).collect();
    types.extend(plan.graph.vertices.values().flatten().map(|rule| rule.type_name.as_str()));
    let mut topics = Vec::new();
    for source in &plan.sources {
        let (kind, tables) = tables(&source.settings);
        let database = picture.node(format!("{} ({kind})", source.name), Shape::Database);
        for table in tables {
            let node = picture.node(table.to_string(), Shape::Table);
            let topic = picture.node(debezium::topic(&source.name, &table.schema, &table.name), Shape::Topic);
            picture.line(database, node, "", false);
            picture.line(node, topic, "", false);
            topics.push((topic, table));
        }
    }
    let vertices: BTreeMap<&str, usize> =
        types.into_iter().map(|name| (name, picture.node(name.to_owned(), Shape::Vertex))).collect();
    draw_streams(plan, &mut picture, &topics);
    for (topic, table) in topics {
        for rule in plan.graph.vertices.get(table).into_iter().flatten() {
            if let Some(vertex) = vertices.get(rule.type_name.as_str()) {
                picture.line(topic, *vertex, &rule.id.to_string(), false);
            }
        }
    }
    for index in &plan.indexes {
        // An edge is drawn from the child, for that is the way a change takes.
        for edge in &index.edges {
            let ends = vertices.get(edge.child_type.as_str()).zip(vertices.get(edge.parent_type.as_str()));
            if let Some((child, parent)) = ends {
                let label = format!("{}.{} by {}", edge.parent_type, edge.field, reach(&edge.reach, &edge.child_type));
                picture.line(*child, *parent, &label, !matches!(edge.reach, Reach::Inverse { .. }));
            }
        }
    }
    for index in &plan.indexes {
        let node = picture.node(format!("index {}", index.name), Shape::Index);
        if let Some(root) = vertices.get(index.root_type.as_str()) {
            picture.line(*root, node, "document", false);
        }
    }
    picture
}

/// Steps one after the other, services beside them, and what each sink guarantees.
fn draw_streams(plan: &Plan, picture: &mut Picture, topics: &[(usize, &TableName)]) {
    let names = plan.services.iter().map(|service| format!("service {}", service.name));
    let names = names.chain(plan.tables.iter().map(|table| format!("table {}", table.name)));
    let called = |step: &Step| match &step.plan {
        StepPlan::Call(plan) => Some(format!("function {}", plan.function.name())),
        _ => None,
    };
    let functions: BTreeSet<String> = plan.streams.iter().flat_map(|s| &s.steps).filter_map(called).collect();
    let names = names.chain(functions);
    let services: Vec<(String, usize)> = names.map(|name| (name.clone(), picture.node(name, Shape::Service))).collect();
    for table in &plan.tables {
        let name = format!("table {}", table.name);
        let Some((_, node)) = services.iter().find(|(other, _)| *other == name) else { continue };
        let of = table.captured.as_ref();
        let topic = of.and_then(|of| topics.iter().find(|(_, name)| **name == of.table)).map(|(topic, _)| *topic);
        let topic = topic.unwrap_or_else(|| picture.node(table.topic.clone(), Shape::Topic));
        picture.line(topic, *node, "", false);
    }
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for stream in &plan.streams {
        let begin = picture.node(format!("stream {}", stream.name), Shape::Step);
        for input in &stream.from {
            let from = match &input.origin {
                Origin::Table { table, .. } => topics.iter().find(|(_, name)| *name == table).map(|(topic, _)| *topic),
                Origin::Stream(name) => ends.get(name.as_str()).copied(),
                Origin::Topic => Some(picture.node(input.topic.clone(), Shape::Topic)),
            };
            if let Some(from) = from {
                picture.line(from, begin, "", false);
            }
        }
        let mut last = begin;
        for step in &stream.steps {
            let node = picture.node(format!("{}/{}", stream.name, step.name), Shape::Step);
            picture.line(last, node, "", false);
            let beside = match &step.plan {
                StepPlan::Enrich(plan) => Some((format!("service {}", plan.service), &plan.into)),
                StepPlan::Lookup(plan) => Some((format!("table {}", plan.table), &plan.into)),
                StepPlan::Call(plan) => Some((format!("function {}", plan.function.name()), &plan.into)),
                _ => None,
            };
            if let Some((name, into)) = beside
                && let Some((_, from)) = services.iter().find(|(other, _)| *other == name)
            {
                picture.line(*from, node, &into.to_string(), true);
            }
            last = node;
        }
        ends.insert(&stream.name, last);
        for sink in &stream.topics {
            let node = picture.node(sink.name.clone(), Shape::Topic);
            picture.line(last, node, "exactly once", false);
        }
        for delivery in &stream.deliveries {
            let (label, guarantee) = match &delivery.sink {
                SinkPlan::Webhook(_) => (delivery.name.clone(), "at least once"),
                SinkPlan::Conductor(plan) => (format!("{}: {}", delivery.name, plan.workflow), "at least once"),
                SinkPlan::Sql(plan) => (format!("{}: {}", delivery.name, plan.table), "exactly once"),
                SinkPlan::Files(plan) => (format!("{}: {}", delivery.name, plan.place), "exactly once"),
                SinkPlan::Index(plan) => (format!("index {}", plan.name), "the newest"),
            };
            let node = picture.node(label, Shape::Sink);
            picture.line(last, node, guarantee, false);
        }
    }
}

fn mermaid(picture: &Picture) -> String {
    let mut out = "flowchart LR\n".to_owned();
    let escaped = |text: &str| {
        text.chars()
            .map(|c| if "\"{}<>#|[]&".contains(c) { format!("#{};", u32::from(c)) } else { c.to_string() })
            .collect::<String>()
    };
    for (i, (label, shape)) in picture.nodes.iter().enumerate() {
        let (open, close) = match shape {
            Shape::Database | Shape::Index => ("[(", ")]"),
            Shape::Table => ("[", "]"),
            Shape::Topic => ("[[", "]]"),
            Shape::Vertex => ("([", "])"),
            Shape::Step => ("(", ")"),
            Shape::Service => ("{{", "}}"),
            Shape::Sink => ("[/", "/]"),
        };
        let _ = writeln!(out, "  n{i}{open}\"{}\"{close}", escaped(label));
    }
    for (from, to, label, dashed) in &picture.lines {
        let arrow = if *dashed { "-.->" } else { "-->" };
        let label = if label.is_empty() { String::new() } else { format!("|\"{}\"|", escaped(label)) };
        let _ = writeln!(out, "  n{from} {arrow}{label} n{to}");
    }
    out
}

fn dot(picture: &Picture) -> String {
    let mut out = "digraph tributary {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n".to_owned();
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    for (i, (label, shape)) in picture.nodes.iter().enumerate() {
        let shape = match shape {
            Shape::Database | Shape::Index => "cylinder",
            Shape::Table => "box",
            Shape::Topic => "cds",
            Shape::Vertex => "ellipse",
            Shape::Step => "component",
            Shape::Service => "hexagon",
            Shape::Sink => "parallelogram",
        };
        let _ = writeln!(out, "  n{i} [label=\"{}\", shape={shape}];", escaped(label));
    }
    for (from, to, label, dashed) in &picture.lines {
        let style = if *dashed { ", style=dashed" } else { "" };
        let _ = writeln!(out, "  n{from} -> n{to} [label=\"{}\"{style}];", escaped(label));
    }
    out.push_str("}\n");
    out
}
