//! Build requests: what the resolve stage writes to an index's build topics, and the build stage reads.
//!
//! The key is the document's id, so that all requests for one document lie in one partition and one process builds it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tributary_processor::OutRecord;
use tributary_transport::Headers;

/// How urgent a build is. Each lane has its own topic; `Bulk` never takes the last place of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// Changes of few documents.
    Live,
    /// First builds, reindexes, changes of supernodes.
    Bulk,
}

/// Why a document is to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The same for all requests of one cause, different for any other: the change event's sequence, or a name.
    pub id: String,
    /// For people: `public.movie u {"id":5}`.
    pub label: String,
    /// When the change was committed in the source, in microseconds since the Unix epoch.
    pub commit_us: i64,
    /// How many documents it affects.
    pub affected: u64,
}

/// A request to build one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// The document.
    pub id: String,
    /// Why.
    pub cause: Cause,
    /// The stamp of what is to be seen: a build that began later, by as much as the graph may lag and clocks may differ, serves
    /// the request too.
    #[serde(default)]
    pub stamp: u64,
}

impl BuildRequest {
    /// The record for a topic of builds.
    pub fn into_record(self, topic: &Arc<str>) -> OutRecord {
        let value = Some(self.encode());
        OutRecord { topic: topic.clone(), key: Some(self.id.into_bytes()), value, headers: Headers::NONE }
    }

    /// The record's value.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record's value.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }
}

/// The names of a pipeline's own topics, groups and checkpoints, all in one place.
pub mod names {
    use super::Lane;

    /// The topic of an index's build requests.
    pub fn builds(pipeline: &str, index: &str, lane: Lane) -> String {
        match lane {
            Lane::Live => format!("{pipeline}.{index}.builds"),
            Lane::Bulk => format!("{pipeline}.{index}.builds-bulk"),
        }
    }

    /// The topic of the checkpoints of the pipeline's sources.
    pub fn checkpoints(pipeline: &str) -> String {
        format!("{pipeline}.checkpoints")
    }

    /// The topic of change events that are resolved again: replayed dead letters.
    pub fn replays(pipeline: &str) -> String {
        format!("{pipeline}.replays")
    }

    /// The topic of dead letters.
    pub fn dead_letters(pipeline: &str) -> String {
        format!("{pipeline}.dead-letters")
    }

    /// The group that resolves changes for an index. Each index has its own, so that one whose store is away delays no other.
    pub fn resolve_group(pipeline: &str, index: &str) -> String {
        format!("{pipeline}.{index}.resolve")
    }

    /// The group that reads a lane of an index's build requests.
    pub fn build_group(pipeline: &str, index: &str, lane: Lane) -> String {
        match lane {
            Lane::Live => format!("{pipeline}.{index}.build"),
            Lane::Bulk => format!("{pipeline}.{index}.build-bulk"),
        }
    }

    /// The topic on which processes write how far the listings of the indexes are.
    pub fn listings(pipeline: &str) -> String {
        format!("{pipeline}.listings")
    }
}
