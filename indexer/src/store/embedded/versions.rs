//! Versions that the last commit does not show yet, those of deletes, and the heads of documents that were written or asked for
//! lately: looking one up in the index costs a search in every segment. Pure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::xxh3_128;

use crate::store::{Document, Head};

/// How long a delete's version is remembered: longer than the longest build, as `index.gc_deletes` on a server.
const TOMBSTONES_KEPT: Duration = Duration::from_secs(15 * 60);

/// Heads of one generation: two generations of 64 bytes an entry are 16 MB at most.
const GENERATION: usize = 128 << 10;

/// Heads of documents that exist, by the hash of their ids, in two generations: when the younger is full, the older goes.
#[derive(Debug, Default)]
struct Heads {
    young: HashMap<u128, (u64, u128)>,
    old: HashMap<u128, (u64, u128)>,
}

impl Heads {
    fn get(&self, key: u128) -> Option<(u64, u128)> {
        self.young.get(&key).or_else(|| self.old.get(&key)).copied()
    }

    fn insert(&mut self, key: u128, head: (u64, u128)) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, head);
    }

    fn remove(&mut self, key: u128) {
        self.young.remove(&key);
        self.old.remove(&key);
    }
}

/// A content hash as a number; none if it is written in another way than ours, which only costs a look into the index.
fn number(hash: &str) -> Option<u128> {
    let number = u128::from_str_radix(hash, 16).ok()?;
    (text(number) == hash).then_some(number)
}

fn text(number: u128) -> String {
    format!("{number:032x}")
}

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
    heads: Heads,
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

    /// The head of a document that exists, pending or committed, if it is remembered.
    pub fn head(&self, id: &str) -> Option<Head> {
        let (stamp, hash) = self.heads.get(xxh3_128(id.as_bytes()))?;
        Some(Head { stamp, hash: text(hash) })
    }

    /// Remembers a head that was found in a commit, unless something newer is known of the document.
    pub fn remember(&mut self, id: &str, head: &Head) {
        let key = xxh3_128(id.as_bytes());
        let known = self.heads.get(key).is_some() || self.tombstones.contains_key(&key);
        if let Some(hash) = number(&head.hash).filter(|_| !known) {
            self.heads.insert(key, (head.stamp, hash));
        }
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
        match &document {
            None => self.tombstones.insert(key, (stamp, now)),
            Some(_) => self.tombstones.remove(&key),
        };
        match document.as_ref().and_then(|document| number(&document.hash)) {
            Some(hash) => self.heads.insert(key, (stamp, hash)),
            None => self.heads.remove(key),
        }
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
    fn a_head_that_was_read_never_hides_a_newer_write() {
        let now = Instant::now();
        let document =
            |hash: &str| Document { content: serde_json::json!({}), refs: Vec::new(), hash: hash.to_owned() };
        let head = |stamp, hash: u128| Head { stamp, hash: text(hash) };
        let mut versions = Versions::default();
        versions.remember("a", &head(1, 10));
        assert_eq!(versions.head("a"), Some(head(1, 10)));
        versions.note("a".to_owned(), 5, Some(Arc::new(document(&text(50)))), 10, now);
        versions.remember("a", &head(1, 10));
        assert_eq!(versions.head("a"), Some(head(5, 50)));
        versions.committed(now);
        assert_eq!(versions.head("a"), Some(head(5, 50)), "a commit changes no head");
        versions.note("a".to_owned(), 6, None, 0, now);
        versions.remember("a", &head(5, 50));
        assert_eq!(versions.head("a"), None, "it is deleted");
        versions.note("b".to_owned(), 7, Some(Arc::new(document("not ours"))), 10, now);
        assert_eq!(versions.head("b"), None);
    }

    #[test]
    fn heads_are_bounded() {
        let mut heads = Heads::default();
        for key in 0..5 * GENERATION as u128 {
            heads.insert(key, (1, key));
        }
        assert!(heads.young.len() + heads.old.len() <= 2 * GENERATION);
        assert_eq!(heads.get(5 * GENERATION as u128 - 1), Some((1, 5 * GENERATION as u128 - 1)));
        assert_eq!(heads.get(0), None);
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
