//! The checkpoint of a MySQL or MariaDB source: from where it resumes, and how it knows that it is the same log.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::position::{FilePosition, GroupId, LogPosition};
use crate::checkpoint::read;
use crate::error::ConnectorError;
use crate::source::Mark;

/// A group of which a first part is durable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct HalfDone {
    /// The group.
    pub group: GroupId,
    /// Its events with rows, of whatever table, that are durable as a whole.
    pub events: u64,
    /// Rows of the next one that are durable.
    pub rows: u64,
}

/// A file of a server's log, told from one that takes its name when the log is begun anew.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogFile {
    /// Whose it is ([`MySqlCheckpoint::server`]).
    pub server: String,
    /// Its name.
    pub name: String,
    /// When the server made it, in seconds since the Unix epoch.
    pub made: u32,
}

/// The content of a checkpoint, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct MySqlCheckpoint {
    /// Version of this format: 1.
    pub version: u32,
    /// What tells the server from others: its UUID; of MariaDB its number, host and port.
    pub server: String,
    /// What was read.
    pub position: LogPosition,
    /// Where that was in the log of the server.
    pub at: FilePosition,
    /// The file of the log in which that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<LogFile>,
    /// XA transactions that were prepared without rows of captured tables, by their names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub prepared: BTreeSet<String>,
    /// The group of which a part is durable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<HalfDone>,
    /// The last sequence number given out.
    pub sequence: u64,
}

impl MySqlCheckpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// The content is of another version, of another kind of source, or no checkpoint at all.
    pub fn decode(name: &str, content: &[u8]) -> Result<Self, ConnectorError> {
        read(name, content, |checkpoint: &Self| checkpoint.version)
    }
}

impl Mark for MySqlCheckpoint {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
