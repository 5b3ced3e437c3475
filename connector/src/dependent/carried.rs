//! What a log carries of a table, whatever database it is of.

use std::sync::Arc;

use tributary_event::TableSchema;

/// What the log carries of a table: from now on, if the catalog says so, or at one place of it, if the log does.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The columns that events have, and the key.
    pub schema: Arc<TableSchema>,
    /// Columns that the table has and events do not, where that is known.
    pub unpublished: Vec<String>,
    /// The condition of the publication that a row must meet for its changes to be published (PostgreSQL).
    pub row_filter: Option<String>,
    /// Of `insert`, `update`, `delete` and `truncate`, those that the publication leaves out (PostgreSQL).
    pub left_out: Vec<&'static str>,
    /// The publication as SQL names it (PostgreSQL).
    pub quoted_publication: String,
    /// The table as SQL names it.
    pub quoted_name: String,
    /// How SQL names columns there.
    pub(crate) quote: fn(&str) -> String,
    /// The statement that lets the log have rows as a whole as they were.
    pub whole_rows: String,
    /// By column: what becomes of its values where ids are made of them.
    pub(crate) ids: Vec<AsId>,
    /// By column: whether rows as they were before an update or a delete have its value.
    pub(crate) before: Vec<bool>,
}

impl Carried {
    /// A column as SQL names it.
    pub fn quoted(&self, column: &str) -> String {
        (self.quote)(column)
    }

    /// Whether the log has the column's value for rows as they were before an update or a delete.
    pub fn is_logged_before(&self, column: usize) -> bool {
        self.before.get(column).copied().unwrap_or(false)
    }

    /// Whether the log has the same columns of the same table, and the same of them for rows as they were.
    pub fn is_like(&self, other: &Self) -> bool {
        let columns = |carried: &Self| -> Vec<_> { carried.schema.columns.iter().map(|c| c.name.clone()).collect() };
        self.schema.table_name() == other.schema.table_name()
            && self.before == other.before
            && columns(self) == columns(other)
    }

    /// Whether ids can be made of the column's values: whether they are the same text in events, in pages of keys and for everyone
    /// else.
    pub fn as_id(&self, column: usize, decimals_are_text: bool) -> AsId {
        match self.ids.get(column) {
            Some(AsId::Decimal) if decimals_are_text => AsId::Same,
            Some(id) => *id,
            None => AsId::Never("it is an object in events"),
        }
    }
}

/// What becomes of a column's values where ids are made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsId {
    /// They are the same text everywhere.
    Same,
    /// They are the days since 1970-01-01 in events, or a text, and one text can be made of either.
    Date,
    /// They are the same text if the source's decimals travel as text.
    Decimal,
    /// They look different in events and in graphs, and why.
    Never(&'static str),
}
