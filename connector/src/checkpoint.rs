//! The checkpoint of a PostgreSQL source: from where it resumes, and how it knows that it is the same database.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tributary_event::Lsn;

use crate::error::ConnectorError;
use crate::source::Mark;

/// A transaction of which a first part is durable.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct InProgress {
    /// Start of its commit record, which identifies it.
    pub commit: Lsn,
    /// Number of its changes (messages of the log) whose events are durable.
    pub changes: u64,
    /// Number of its logical messages that are durable. Counted apart, for whether they are captured may change.
    #[serde(default)]
    pub messages: u64,
}

/// The content of a checkpoint, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PostgresCheckpoint {
    /// Version of this format: 1.
    pub version: u32,
    /// The cluster's system identifier (`IDENTIFY_SYSTEM`).
    pub system: String,
    /// The timeline that was read.
    pub timeline: u32,
    /// The database.
    pub database: String,
    /// The slot.
    pub slot: String,
    /// Everything that committed before this is durable: the end of the last finished transaction, or a later
    /// position without any change of interest before it.
    pub lsn: Lsn,
    /// The transaction behind it, if a part of it is durable already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<InProgress>,
    /// The position behind the last finished transaction that had events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Lsn>,
    /// The last sequence number given out.
    pub sequence: u64,
}

/// Reads the checkpoint of a source of either kind, whose format has version 1.
///
/// # Errors
/// The content is of another version, of another kind of source, or no checkpoint at all.
pub(crate) fn read<T: DeserializeOwned>(
    name: &str,
    content: &[u8],
    version: impl Fn(&T) -> u32,
) -> Result<T, ConnectorError> {
    let lost = |cause: String| {
        ConnectorError::lost(
            format!("checkpoint of source {name}"),
            cause,
            "use the version of tributary that wrote it, or give the source a new name to start afresh",
        )
    };
    let checkpoint: T = serde_json::from_slice(content).map_err(|e| lost(format!("it cannot be read: {e}")))?;
    match version(&checkpoint) {
        1 => Ok(checkpoint),
        other => Err(lost(format!("it has version {other}, this program knows version 1"))),
    }
}

impl PostgresCheckpoint {
    /// Reads a checkpoint.
    ///
    /// # Errors
    /// The content is of another version or no checkpoint at all.
    pub fn decode(name: &str, content: &[u8]) -> Result<Self, ConnectorError> {
        read(name, content, |checkpoint: &Self| checkpoint.version)
    }
}

impl Mark for PostgresCheckpoint {
    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_survives_and_nonsense_is_refused() {
        let checkpoint = PostgresCheckpoint {
            version: 1,
            system: "7".into(),
            timeline: 1,
            database: "films".into(),
            slot: "s".into(),
            lsn: Lsn(u64::MAX),
            transaction: Some(InProgress { commit: Lsn(5), changes: 3, messages: 0 }),
            changed: Some(Lsn(4)),
            sequence: u64::MAX >> 1,
        };
        assert_eq!(PostgresCheckpoint::decode("x", &checkpoint.encode()).expect("valid"), checkpoint);
        assert!(PostgresCheckpoint::decode("x", b"{}").is_err());
        let newer = PostgresCheckpoint { version: 2, ..checkpoint };
        assert!(PostgresCheckpoint::decode("x", &newer.encode()).is_err());
    }
}
