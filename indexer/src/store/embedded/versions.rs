//! Versions that the last commit does not show yet, and those of deletes. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_128;

use crate::store::Document;

/// How long a delete's version is remembered: longer than the longest build, as `index.gc_deletes` on a server.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(15 * 60);

/// A write that is not committed.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub stamp: u64,
    /// `None` is a delete.
    pub document: Option<Arc<Document>>,
}

/// Versions by id.
#[derive(Debug, Default)]
pub(super) struct Versions {
    pending: HashMap<String, Pending>,
    /// About how many bytes the pending documents are.
    bytes: usize,
    /// Ids by their hash: a million deletes are 64 MB, not several hundred.
    tombstones: HashMap<u128, (u64, Instant)>,
    swept: Option<Instant>,
}

impl Versions {
    /// The pending write of an id.
    pub fn pending(&self, id: &str) -> Option<&Pending> {
        self.pending.get(id)
    }

    /// Every pending write.
    pub fn all_pending(&self) -> impl Iterator<Item = (&String, &Pending)> {
        self.pending.iter()
    }

    /// Whether nothing waits for a commit.
    pub fn is_clean(&self) -> bool {
        self.pending.is_empty()
    }

    /// Bytes that wait for a commit, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The stamp that a write of this id has to exceed, given the committed one.
    pub fn newest(&self, id: &str, committed: Option<u64>) -> Option<u64> {
        if let Some(pending) = self.pending.get(id) {
            return Some(pending.stamp);
        }
        let tombstone = match self.tombstones.is_empty() {
            true => None,
            false => self.tombstones.get(&xxh3_128(id.as_bytes())).map(|(stamp, _)| *stamp),
        };
        committed.max(tombstone)
    }

    /// Notes a write that was taken.
    pub fn note(&mut self, id: String, stamp: u64, document: Option<Arc<Document>>, bytes: usize, now: Instant) {
        let key = xxh3_128(id.as_bytes());
        match document {
            None => self.tombstones.insert(key, (stamp, now)),
            Some(_) => self.tombstones.remove(&key),
        };
        self.bytes += bytes + id.len() + 64;
        self.pending.insert(id, Pending { stamp, document });
    }

    /// Everything pending is committed, and visible.
    pub fn committed(&mut self, now: Instant) {
        self.pending.clear();
        self.bytes = 0;
        if self.pending.capacity() > 100_000 {
            self.pending = HashMap::new();
        }
        let due = |swept: Instant| now.duration_since(swept) > Duration::from_secs(60);
        if self.swept.is_none_or(due) {
            self.tombstones.retain(|_, (_, since)| now.duration_since(*since) < TOMBSTONES_KEPT);
            self.swept = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delete_is_remembered_beyond_its_commit_and_then_forgotten() {
        let start = Instant::now();
        let mut versions = Versions::default();
        versions.note("a".to_owned(), 5, None, 0, start);
        versions.committed(start);
        assert_eq!(versions.newest("a", None), Some(5));
        assert_eq!(versions.newest("a", Some(9)), Some(9));
        versions.committed(start + Duration::from_secs(10 * 60));
        assert_eq!(versions.newest("a", None), Some(5), "a build may take up to ten minutes");
        versions.committed(start + Duration::from_secs(20 * 60));
        assert_eq!(versions.newest("a", None), None);
    }

    #[test]
    fn a_put_takes_the_place_of_a_tombstone() {
        let now = Instant::now();
        let mut versions = Versions::default();
        versions.note("a".to_owned(), 5, None, 0, now);
        let document = Document { content: serde_json::json!({}), refs: Vec::new(), hash: String::new() };
        versions.note("a".to_owned(), 6, Some(Arc::new(document)), 10, now);
        assert_eq!(versions.newest("a", Some(1)), Some(6));
        versions.committed(now);
        assert_eq!(versions.newest("a", Some(6)), Some(6));
        assert_eq!(versions.newest("a", None), None);
    }
}
