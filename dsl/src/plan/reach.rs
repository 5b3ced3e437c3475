//! How a changed vertex finds its parents: per edge of an index's query, and per type for the graph.

use tributary_event::TableName;

use super::question::Question;

/// One edge of the query: a field that leads from one vertex to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgePlan {
    /// The type the edge starts from.
    pub parent_type: String,
    /// The field.
    pub field: String,
    /// The type it leads to.
    pub child_type: String,
    /// Its place in the document, such as `talents.agent`.
    pub path: String,
    /// How the parents of a changed child are reached. (Documents that embed the child already are found by lookup,
    /// always; this is about edges that the change itself made.)
    pub reach: Reach,
    /// Whether children that a document does not show change it also by going away: they are counted, or shown by their place. Rows
    /// of the edge's tables must name their parents then also as they were before a change.
    pub counted: bool,
}

/// How the parents of a changed child are reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// A field of the child leads back: the graph is asked.
    Inverse {
        /// The path from the child to its parents, such as `movies` or `movies.edges.node`.
        path: Vec<String>,
        /// Whether a hint named it, rather than the schema showing it.
        declared: bool,
    },
    /// These tables' rows map to the parent and the child both (join tables, or a foreign key in the child's table).
    Tables(Vec<TableName>),
    /// A hint says that the edge is kept in the parent's own row, so that a change of the edge is a change of the parent.
    StoredInParent,
}

/// What to ask the graph when vertices of one type changed.
#[derive(Debug, Clone, PartialEq)]
pub struct FanOutPlan {
    /// The type of the changed vertices.
    pub type_name: String,
    /// The fields that lead to parents.
    pub inverses: Vec<InverseField>,
    /// The generated query. Every vertex in it answers `__typename` and, as `id`, its key (as `id_<Type>` where the members of a
    /// union have keys of different types); the inverse fields have the response keys `p0`, `p1`, …
    pub question: Question,
}

/// A field that leads from a changed vertex to its parents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InverseField {
    /// Response key in the generated query: `p0`, `p1`, …
    pub key: String,
    /// The path from the vertex to the parents; more than one segment for connections (`movies.edges.node`).
    pub path: Vec<String>,
    /// The parents' type.
    pub parent_type: String,
}
