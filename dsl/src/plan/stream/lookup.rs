//! Tables that steps of streams look into.

use std::time::Duration;

use tributary_event::TableName;
use tributary_expression::Program;

/// A table that steps look into, whole: what a topic has, or what a captured table has.
#[derive(Debug, Clone)]
pub struct LookupTable {
    /// Its name.
    pub name: String,
    /// The topic that it follows.
    pub topic: String,
    /// The captured table whose rows it has; none: its topic's records are its rows.
    pub captured: Option<CapturedTable>,
    /// What a record of a topic is known by, of its value; none: its key.
    pub key: Option<Program>,
    /// Where its rows are.
    pub keep: Keep,
    /// Bytes that its keys and values may take.
    pub limit: u64,
    /// Its part of `/health` is down while its newest change is older.
    pub max_age: Option<Duration>,
}

/// The table of a source that a table to look into has the rows of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturedTable {
    /// The source.
    pub source: String,
    /// Its table.
    pub table: TableName,
    /// The columns of rows; empty: all that events have.
    pub columns: Vec<String>,
}

/// Where the rows of a table are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// In memory: they are read anew at each start.
    Memory,
    /// In a file in the pipeline's data folder.
    Disk,
}
