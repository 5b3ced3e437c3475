//! The change event: one change of one row, the same whatever database it came from.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::position::{Lsn, Position};
use crate::row::{Row, TableSchema, Value};
use crate::scope::Scope;

/// What a change does. The letters are those of the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// `c`: a row was inserted.
    Create,
    /// `u`: a row was updated; its key did not change.
    Update,
    /// `d`: a row was deleted.
    Delete,
    /// `r`: a row was read by a dump.
    Read,
    /// `t`: the table was truncated; no key, no images.
    Truncate,
    /// `m`: a logical decoding message; no table.
    Message,
}

impl Op {
    /// The letter on the wire.
    pub fn letter(self) -> char {
        match self {
            Self::Create => 'c',
            Self::Update => 'u',
            Self::Delete => 'd',
            Self::Read => 'r',
            Self::Truncate => 't',
            Self::Message => 'm',
        }
    }

    /// The operation of a letter.
    pub fn from_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "c" => Self::Create,
            "u" => Self::Update,
            "d" => Self::Delete,
            "r" => Self::Read,
            "t" => Self::Truncate,
            "m" => Self::Message,
            _ => return None,
        })
    }
}

/// The kind of a source, named as Debezium names its connectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// PostgreSQL.
    PostgreSql,
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
    /// Cassandra.
    Cassandra,
}

impl SourceKind {
    /// The connector's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::PostgreSql => "postgresql",
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
            Self::Cassandra => "cassandra",
        }
    }

    /// The kind of a connector's name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::PostgreSql, Self::MySql, Self::MariaDb, Self::Cassandra].into_iter().find(|k| k.name() == name)
    }
}

/// Which source an event came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceInfo {
    /// The source's name in the pipeline; the topics' prefix.
    pub name: ByteString,
    /// Its kind.
    pub kind: SourceKind,
    /// The database.
    pub database: ByteString,
}

/// An event's place in its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionInfo {
    /// The source's number of the transaction. Where transactions have other names (GTIDs), those are in the position, and on the
    /// wire; this is the number in them.
    pub id: u64,
    /// The event's place among all events of the transaction, from 1.
    pub total_order: u64,
    /// Its place among the events of the same table in the transaction, from 1.
    pub table_order: u64,
}

/// The content of an event of [`Op::Message`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogicalMessage {
    /// The prefix that the writer gave it.
    pub prefix: ByteString,
    /// Its bytes.
    pub content: Bytes,
}

/// Where a transaction was made first, if it was replicated to its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The name that the source gave it (PostgreSQL: of the replication origin).
    pub name: ByteString,
    /// Where it committed there; zero if the source does not say (PostgreSQL: of transactions that it streams in progress).
    pub commit: Lsn,
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeEvent {
    /// Where it comes from.
    pub source: Arc<SourceInfo>,
    /// The table at the moment of the change. For messages: a table without columns.
    pub table: Arc<TableSchema>,
    /// What happened.
    pub op: Op,
    /// The rows that it is of.
    pub scope: Scope,
    /// The row before, as far as the source knows it (PostgreSQL: by replica identity).
    pub before: Option<Row>,
    /// The row after.
    pub after: Option<Row>,
    /// A logical message's content.
    pub message: Option<LogicalMessage>,
    /// Its place in the log.
    pub position: Position,
    /// Its transaction; none for dump events.
    pub transaction: Option<TransactionInfo>,
    /// Where its transaction was made first, if not here.
    pub origin: Option<Arc<Origin>>,
    /// The statement that made it, where the log says and the source was asked for it; perhaps its beginning alone.
    pub query: Option<ByteString>,
    /// When its transaction committed, in microseconds since the Unix epoch.
    pub commit_us: i64,
    /// When the connector decoded it, in microseconds since the Unix epoch.
    pub capture_us: i64,
    /// Strictly rising per connector, also across restarts and failovers.
    pub sequence: u64,
}

impl ChangeEvent {
    /// The row that carries the key: the one after, else the one before.
    pub fn keyed_row(&self) -> Option<&Row> {
        self.after.as_ref().or(self.before.as_ref())
    }

    /// The key columns' values, in key order. Empty for tables without a key, truncates and messages.
    pub fn key(&self) -> Vec<&Value> {
        let Some(row) = self.keyed_row() else { return Vec::new() };
        self.table.key.iter().filter_map(|&i| row.values.get(i)).collect()
    }
}
