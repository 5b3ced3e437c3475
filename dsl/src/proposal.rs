//! A pipeline proposed from what is there: the graph's schema, and the tables of a database with their keys.
//!
//! Types and tables are matched by their names and fields. A document is the root type with its values, what it belongs to, and the
//! lists of what belongs to it, one level deep. What this cannot know (an id's form, for one) is found by asking the graph; what it
//! gets wrong is told by the check of what was proposed.

mod matching;
mod naming;
mod query;
mod text;

pub(crate) use naming::alike;

use tributary_event::TableName;

use crate::plan::IdTemplate;
use crate::schema::Schema;
use matching::Matches;

/// A table of a database.
#[derive(Debug, Clone)]
pub struct KnownTable {
    /// Its name.
    pub name: TableName,
    /// Its columns.
    pub columns: Vec<String>,
    /// Its primary key; empty if it has none.
    pub key: Vec<String>,
    /// Its foreign keys: columns, and the table whose primary key they name.
    pub references: Vec<(Vec<String>, TableName)>,
}

/// What a proposal is made of.
#[derive(Debug, Clone)]
pub struct Known<'a> {
    /// URL of the graph.
    pub endpoint: &'a str,
    /// The kind of the database, as a source names it: `postgres`, `mysql` or `mariadb`.
    pub kind: &'a str,
    /// Headers for it, and the variables that hold their values.
    pub headers: &'a [(String, String)],
    /// Its schema.
    pub schema: &'a Schema,
    /// The tables of the database.
    pub tables: &'a [KnownTable],
    /// The type of the documents; `None`: the one that most belongs to.
    pub root: Option<&'a str>,
    /// Templates of ids that are known better than by the columns: type, table, template.
    pub templates: &'a [(String, TableName, IdTemplate)],
}

/// A proposed pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The text of `pipeline.yaml`, whose source is `${DATABASE_URL}`.
    pub pipeline: String,
    /// The name of the query's file.
    pub query_file: String,
    /// The query.
    pub query: String,
}

/// Why nothing can be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposalError {
    /// No type has the name.
    #[error("the graph has no type `{0}` that a table of the database resembles; there are: {1}")]
    UnknownRoot(String, String),
    /// Nothing matches.
    #[error(
        "no type of the graph resembles a table of the database (types: {types}; tables: {tables}); is it the database that the \
         graph reads?"
    )]
    NoMatch {
        /// Some of the types.
        types: String,
        /// Some of the tables.
        tables: String,
    },
    /// The root type cannot be fetched.
    #[error(
        "the graph shows no root field that fetches a `{0}` by its `{1}`, so no query can be proposed; write one by hand, or take \
         another type: --root"
    )]
    NoRootField(String, String),
}

/// Proposes a pipeline with one index.
///
/// # Errors
/// Graph and database have nothing in common that an index could be made of.
pub fn propose_pipeline(known: &Known<'_>) -> Result<Proposal, ProposalError> {
    let matches = Matches::find(known.schema, known.tables);
    let schema = known.schema.with_keys(matches.keys());
    let root = matches.root(&schema, known.root)?;
    let index = naming::index(root);
    let query = query::build(&schema, &matches, root)
        .ok_or_else(|| ProposalError::NoRootField(root.to_owned(), schema.key_name(root).to_owned()))?;
    let query_file = format!("{index}.graphql");
    let pipeline = text::pipeline(known, &schema, &matches, &query, &index);
    Ok(Proposal { pipeline, query_file, query: query.text })
}
