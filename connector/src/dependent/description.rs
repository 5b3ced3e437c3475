//! What a database has, for who proposes what to do with it.

use tributary_event::TableName;

/// A foreign key: its columns, and the table whose primary key they name.
pub type Reference = (Vec<String>, TableName);

/// A table, and how it hangs together with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Its name.
    pub name: TableName,
    /// Its columns, in their order.
    pub columns: Vec<String>,
    /// The columns of its primary key, in the key's order; empty if it has none.
    pub key: Vec<String>,
    /// Its foreign keys: columns, and the table whose primary key they name.
    pub references: Vec<Reference>,
}
