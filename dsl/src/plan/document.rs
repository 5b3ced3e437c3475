//! What one index is: its query, the shape of its documents, and how it is built and stored.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tributary_event::TableName;

use super::Place;
use super::question::{Question, SentAs};
use super::reach::EdgePlan;
use super::settings::{BrakeSettings, BuildSettings, RetrySettings, StorePlan};

/// An index, checked against the graph's schema.
#[derive(Debug, Clone)]
pub struct IndexPlan {
    /// Its name: the alias that readers use.
    pub name: String,
    /// Where it is written.
    pub place: Place,
    /// The type of its root vertices; a document's id is its root's id.
    pub root_type: String,
    /// How documents are fetched: the index's query, our directives left out, `__typename` and the key put in at every vertex.
    pub fetch: Question,
    /// The shape of a document.
    pub selection: Selection,
    /// Every edge of the query, in the order of the query.
    pub edges: Vec<EdgePlan>,
    /// The values of vertices that documents show, of the query's own: the vertex's type, and the field, and where each stands first.
    /// Keys are not among them.
    pub values: BTreeMap<(String, String), Place>,
    /// The share of listed roots, in percent, that the graph may not know.
    pub hidden: u8,
    /// Where the ids of all roots come from.
    pub root_ids: RootIds,
    /// Where documents are kept.
    pub store: StorePlan,
    /// How they are built.
    pub build: BuildSettings,
    /// What happens when a build fails.
    pub retry: RetrySettings,
    /// How many documents may be deleted before deletes wait.
    pub brake: BrakeSettings,
    /// A written document is searchable within about this time.
    pub refresh: Duration,
}

impl IndexPlan {
    /// The types of all vertices that a document can embed, its root's among them.
    pub fn vertex_types(&self) -> BTreeSet<&str> {
        let edges = self.edges.iter().flat_map(|e| [e.parent_type.as_str(), e.child_type.as_str()]);
        edges.chain([self.root_type.as_str()]).collect()
    }
}

/// Selected fields of one object, in order. Fields of fragments are merged in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The fields, by response key.
    pub fields: Vec<SelectedField>,
}

/// One selected field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedField {
    /// Its name in the answer and in the document (the alias, if it has one).
    pub key: String,
    /// The GraphQL field.
    pub name: String,
    /// The type condition of the fragment it stands in, if that is narrower than the object's type.
    pub on: Option<String>,
    /// Added by us (`__typename`, keys, `pageInfo`): used to find vertices, left out of the document.
    pub hidden: bool,
    /// Whether it is the key of its object: the value that the vertex is found by.
    pub identity: bool,
    /// `@flatten`: its value takes the place of the object that it is in, whose other fields are all hidden.
    pub flatten: bool,
    /// Whether the value is a list (of any depth).
    pub list: bool,
    /// A value, or an object with fields of its own.
    pub kind: FieldKind,
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldKind {
    /// A value.
    Leaf(LeafType),
    /// The `pageInfo` of a list that is taken for a whole one: it must not say that there is another page.
    LastPage,
    /// An object.
    Object {
        /// Whether its type is a vertex (has an `id`), so that it counts among the document's references.
        vertex: bool,
        /// `@nested`: each object of the list is searched by itself.
        nested: bool,
        /// Its fields.
        selection: Selection,
    },
}

impl SelectedField {
    /// A field of that name, that is shown, without an alias.
    pub fn new(name: impl Into<String>, kind: FieldKind) -> Self {
        let name = name.into();
        let key = name.clone();
        Self { key, name, on: None, hidden: false, identity: false, flatten: false, list: false, kind }
    }

    /// What the field is in the document: itself, or what takes the place of its object by `@flatten`; and whether that is a
    /// list, for it is one if any level on the way is.
    pub fn shown(&self) -> (&FieldKind, bool) {
        let (mut kind, mut list) = (&self.kind, self.list);
        while let FieldKind::Object { selection, .. } = kind {
            let Some(inner) = selection.fields.iter().find(|field| field.flatten) else { break };
            (kind, list) = (&inner.kind, list || inner.list);
        }
        (kind, list)
    }
}

/// How a value is indexed. Derived from its GraphQL type and directives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafType {
    /// Exact text: filters, sorting, facets. Strings, ids, enums.
    Keyword,
    /// `@text(analyzer:)`: full text, with an exact subfield `raw`.
    Text {
        /// The analyzer; `standard` if none was named.
        analyzer: String,
    },
    /// Whole numbers: Int, and scalars declared `long`.
    Long,
    /// Numbers with fractions: Float, and scalars declared `double`.
    Double,
    /// Boolean.
    Boolean,
    /// Scalars declared `date`: ISO 8601 dates and times.
    Date,
    /// Scalars declared `object`: kept as they are, each member searchable as exact text (`flattened` / `flat_object`).
    Object,
    /// `@ignore`, or scalars declared `ignore`: kept in the document, not searchable.
    Ignore,
}

/// Where the ids of all root vertices come from, for the first build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootIds {
    /// From a source's table, in key order; the id is made by the table's vertex rule for the root type.
    Table {
        /// The source.
        source: String,
        /// The table.
        table: TableName,
    },
    /// From a Relay connection of the graph.
    Paging(Paging),
}

/// How vertices are listed by a Relay connection, page by page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paging {
    /// The generated query, with `$first: Int!` and `$after`. Its vertices answer their key as `id`.
    pub query: String,
    /// The response key of the connection.
    pub key: String,
    /// How the graph takes a cursor.
    pub cursor: SentAs,
}
