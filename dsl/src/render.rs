//! A plan for people: as text, and as a picture.

use crate::plan::Plan;

/// Languages of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GraphFormat {
    /// Mermaid, as GitHub shows it.
    Mermaid,
    /// Graphviz.
    Dot,
}

/// The plan as a picture: sources, tables, topics, vertices, edges, indexes.
pub fn render_graph(_plan: &Plan, _format: GraphFormat) -> String {
    String::new()
}

/// The plan as text: edges and how parents are reached, the queries.
pub fn render_plan(_plan: &Plan) -> String {
    String::new()
}
