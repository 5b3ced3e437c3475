//! `tributary plan`: what will be done, in words and queries.

use std::fmt::{Display, Write};
use std::time::Duration;

use super::{public_url, reach, streams, tables};
use crate::plan::{
    FieldKind, Form, GraphPlan, IndexPlan, LeafType, Oversized, Paging, Plan, RecordSettings, RootIds, Selection,
    StorePlan, TransportPlan,
};
use crate::yaml::units;

/// The plan as text: tables and vertices; for each index its fields, its edges and how parents are reached, its queries. The
/// mapping of a store is not in it: that is the store's own.
pub fn render_plan(plan: &Plan) -> String {
    let mut out = String::new();
    line(&mut out, 0, format_args!("pipeline {}", plan.pipeline));
    for source in &plan.sources {
        let (kind, tables) = tables(&source.settings);
        line(&mut out, 0, format_args!("\nsource {} ({kind})", source.name));
        for table in tables {
            let rules = plan.graph.vertices.get(table).map_or(&[][..], Vec::as_slice);
            let vertices: Vec<String> = rules.iter().map(|r| format!("{}:{}", r.type_name, r.id)).collect();
            match vertices.as_slice() {
                [] if plan.indexes.is_empty() => line(&mut out, 1, format_args!("{table}")),
                [] => line(&mut out, 1, format_args!("{table} → no vertex")),
                vertices => line(&mut out, 1, format_args!("{table} → {}", vertices.join(", "))),
            }
        }
    }
    line(&mut out, 0, format_args!("\ntransport: {}", transport(&plan.transport)));
    if !plan.indexes.is_empty() {
        graph(&mut out, &plan.graph);
    }
    for index in &plan.indexes {
        self::index(&mut out, index);
    }
    for service in &plan.services {
        streams::service(&mut out, service);
    }
    for table in &plan.tables {
        streams::table(&mut out, table);
    }
    for stream in &plan.streams {
        streams::stream(&mut out, stream);
    }
    out
}

fn graph(out: &mut String, graph: &GraphPlan) {
    let endpoint = public_url(&graph.endpoint);
    let limits = format!("at most {} requests at a time, {} each", graph.concurrency, time(graph.timeout));
    line(out, 0, format_args!("graph: {endpoint} ({limits})"));
    for fan_out in graph.fan_outs.values() {
        line(out, 0, format_args!("\nwhen a {} changes, its parents are asked for:", fan_out.type_name));
        for inverse in &fan_out.inverses {
            line(out, 1, format_args!("{}: {} → {}", inverse.key, inverse.path.join("."), inverse.parent_type));
        }
        block(out, &fan_out.question.text());
    }
}

fn index(out: &mut String, index: &IndexPlan) {
    line(out, 0, format_args!("\nindex {} of {} in {}", index.name, index.root_type, store(&index.store)));
    let (build, retry) = (&index.build, &index.retry);
    let batch = format!("{} at a time, {} requests, {} each", build.batch, build.concurrency, time(build.deadline));
    line(out, 1, format_args!("builds: {batch}, after {} of gathering", time(build.debounce)));
    let pauses = format!("{} to {} apart", time(retry.initial), time(retry.max));
    line(out, 1, format_args!("tries: {}, {pauses}; searchable within {}", retry.attempts, time(index.refresh)));
    line(out, 1, format_args!("\n  fields:"));
    fields(out, 2, &index.selection);
    line(out, 1, format_args!("\n  edges, and how the parents of a changed vertex are reached:"));
    if index.edges.is_empty() {
        line(out, 2, "none");
    }
    for edge in &index.edges {
        let site = format!("{}.{} → {}", edge.parent_type, edge.field, edge.child_type);
        line(out, 2, format_args!("{site} at {}: {}", edge.path, reach(&edge.reach, &edge.child_type)));
    }
    match &index.root_ids {
        RootIds::Table { source, table } => {
            line(out, 1, format_args!("\n  ids of all roots: the table {table} of {source}"))
        }
        RootIds::Paging(Paging { query, key, .. }) => {
            line(out, 1, format_args!("\n  ids of all roots: pages of {key}"));
            block(out, query);
        }
    }
    let how = match &index.fetch.form {
        Form::Together { variable, .. } => format!("many at a time by ${variable}"),
        Form::Apart(_) => "many at a time, each by an alias of its own".to_owned(),
    };
    line(out, 1, format_args!("\n  documents are fetched {how}:"));
    block(out, &index.fetch.text());
}

fn fields(out: &mut String, depth: usize, selection: &Selection) {
    for field in &selection.fields {
        let list = if field.list { "list of " } else { "" };
        let kind = match &field.kind {
            FieldKind::Leaf(leaf) => leaf_name(leaf),
            FieldKind::LastPage => "whether there is another page".to_owned(),
            FieldKind::Object { vertex, nested, .. } => {
                let nested = if *nested { "nested " } else { "" };
                format!("{nested}{}", if *vertex { "vertex" } else { "object" })
            }
        };
        let on = field.on.as_ref().map(|on| format!(" (of {on})")).unwrap_or_default();
        let name = if field.key == field.name { String::new() } else { format!(" = {}", field.name) };
        let hidden = match (field.hidden, field.flatten) {
            (true, _) => ", hidden",
            (_, true) => ", in the place of its object",
            _ => "",
        };
        line(out, depth, format_args!("{}{name}{on}: {list}{kind}{hidden}", field.key));
        if let FieldKind::Object { selection, .. } = &field.kind {
            fields(out, depth + 1, selection);
        }
    }
}

pub(super) fn leaf_name(leaf: &LeafType) -> String {
    match leaf {
        LeafType::Text { analyzer } => format!("text ({analyzer})"),
        LeafType::Ignore => "not searchable".to_owned(),
        other => format!("{other:?}").to_lowercase(),
    }
}

fn transport(transport: &TransportPlan) -> String {
    let place = match transport {
        TransportPlan::Embedded(embedded) => format!("the embedded log, {} partitions", embedded.partitions),
        TransportPlan::Kafka(kafka) => format!(
            "Kafka at {}, {} partitions, {} replicas, {} in sync",
            kafka.brokers, kafka.partitions, kafka.replication, kafka.min_insync
        ),
    };
    let RecordSettings { max, oversized } = transport.records();
    match oversized {
        Oversized::Stop => place,
        Oversized::SetAside => format!("{place}, events above {max} bytes are set aside"),
        Oversized::Spill => format!("{place}, events above {max} bytes are spilled"),
    }
}

pub(super) fn store(store: &StorePlan) -> String {
    match store {
        StorePlan::Embedded => "the embedded index".to_owned(),
        StorePlan::Elasticsearch(server) => format!("Elasticsearch at {}", public_url(&server.url)),
        StorePlan::OpenSearch(server) => format!("OpenSearch at {}", public_url(&server.url)),
    }
}

pub(super) fn time(duration: Duration) -> String {
    units::print_duration(duration)
}

pub(super) fn size(bytes: u64) -> String {
    units::print_bytes(bytes)
}

pub(super) fn line(out: &mut String, depth: usize, text: impl Display) {
    let text = text.to_string();
    // A text that starts with an empty line brings its own indentation.
    let indent = if text.starts_with('\n') { String::new() } else { "  ".repeat(depth) };
    let _ = writeln!(out, "{indent}{text}");
}

pub(super) fn block(out: &mut String, query: &str) {
    for text in query.lines() {
        line(out, 2, text);
    }
}
