//! A plan for people: as text, and as a picture. Nothing secret is in either.

mod picture;
mod streams;
mod text;

pub use picture::render_graph;
pub use text::render_plan;

use tributary_event::TableName;

use crate::plan::{Reach, SourceSettings};

/// Languages of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphFormat {
    /// Mermaid, as GitHub shows it.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// How parents are reached, in words.
fn reach(reach: &Reach, child: &str) -> String {
    match reach {
        Reach::Inverse { path, declared } => {
            let declared = if *declared { " (declared)" } else { "" };
            format!("the graph's {child}.{}{declared}", path.join("."))
        }
        Reach::Tables(tables) => {
            let names: Vec<String> = tables.iter().map(TableName::to_string).collect();
            format!("rows of {}", names.join(", "))
        }
        Reach::StoredInParent => "stored in the parent (declared)".to_owned(),
    }
}

fn tables(settings: &SourceSettings) -> (&'static str, &[TableName]) {
    match settings {
        SourceSettings::Postgres(postgres) => ("PostgreSQL", &postgres.tables),
        SourceSettings::MySql(mysql) => ("MySQL", &mysql.tables),
    }
}

/// A URL without user, password and query, which may be secret.
fn public_url(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, path)| (host, path));
    let host = host.rsplit('@').next().unwrap_or_default();
    let slash = if path.is_empty() { "" } else { "/" };
    format!("{scheme}://{host}{slash}{path}")
}
