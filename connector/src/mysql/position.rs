//! Places in a binary log, and how a source knows what it has read: sets of GTIDs (MySQL), one number a domain (MariaDB), or a file and an
//! offset where there are no GTIDs.

mod domains;
mod gtid_set;

use std::fmt;

pub use domains::{DomainGtid, Domains};
pub use gtid_set::{Gtid, GtidSet};

/// A text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no {1}")]
pub struct ParsePositionError(pub String, pub &'static str);

/// A file of the log, and an offset in it. Offsets may exceed 32 bits.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FilePosition {
    /// The name, as the server has it.
    pub file: String,
    /// Bytes before it.
    pub offset: u64,
}

impl FilePosition {
    /// The number of the file, if its name ends with one.
    fn number(&self) -> Option<u64> {
        self.file.rsplit('.').next()?.parse().ok()
    }

    /// Whether it lies at or behind another one of the same server.
    pub fn reaches(&self, other: &Self) -> bool {
        if self.file == other.file {
            return self.offset >= other.offset;
        }
        self.number() >= other.number()
    }
}

impl fmt::Display for FilePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)
    }
}

/// What of a log was read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogPosition {
    /// MySQL with GTIDs: these transactions.
    Gtids(GtidSet),
    /// MariaDB: all up to these, by domain.
    Domains(Domains),
    /// Without GTIDs: everything before.
    File(FilePosition),
}

impl LogPosition {
    /// Whether everything that `other` has was read. Positions of different kinds have nothing in common.
    pub fn reaches(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Gtids(a), Self::Gtids(b)) => b.is_subset(a),
            (Self::Domains(a), Self::Domains(b)) => a.reaches(b),
            (Self::File(a), Self::File(b)) => a.reaches(b),
            _ => false,
        }
    }

    /// What of it is also in another one of the same server, where transactions are told one by one; all of it elsewhere.
    pub fn within(self, other: &Self) -> Self {
        match (self, other) {
            (Self::Gtids(a), Self::Gtids(b)) => Self::Gtids(a.without(&a.without(b))),
            (all, _) => all,
        }
    }

    /// A group was read, which ends at a place.
    pub fn insert(&mut self, id: &GroupId, end: &FilePosition) {
        match (self, id) {
            (Self::Gtids(set), GroupId::Gtid(gtid)) => set.insert(gtid),
            (Self::Domains(domains), GroupId::Domain(gtid)) => domains.insert(gtid),
            (Self::File(at), _) => at.clone_from(end),
            _ => {}
        }
    }

    /// Whether a transaction was read.
    pub fn contains(&self, id: &GroupId) -> bool {
        match (self, id) {
            (Self::Gtids(set), GroupId::Gtid(gtid)) => set.contains(gtid),
            (Self::Domains(domains), GroupId::Domain(gtid)) => domains.contains(gtid),
            (Self::File(at), GroupId::File(id)) => at.reaches(id) && at != id,
            _ => false,
        }
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gtids(set) => set.fmt(f),
            Self::Domains(domains) => domains.fmt(f),
            Self::File(position) => position.fmt(f),
        }
    }
}

/// What tells a group of events from others: its GTID, or where it begins.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupId {
    /// MySQL's GTID.
    Gtid(Gtid),
    /// MariaDB's GTID.
    Domain(DomainGtid),
    /// Where it begins.
    File(FilePosition),
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gtid(gtid) => gtid.fmt(f),
            Self::Domain(gtid) => gtid.fmt(f),
            Self::File(position) => position.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_by_their_numbers() {
        let at = |file: &str, offset| FilePosition { file: file.into(), offset };
        assert!(at("bin.1000000", 4).reaches(&at("bin.999999", 1 << 33)));
        assert!(at("bin.000002", 5_000_000_000).reaches(&at("bin.000002", 4_999_999_999)));
        assert!(!at("bin.000001", 9).reaches(&at("bin.000002", 4)));
    }
}
