//! The ledger that closes the race between a change and a build, within one process.
//!
//! Let D embed v. If v changes while D is being built, or before D's write is visible to lookups, a lookup for v misses D.
//! Two memories, consulted in a fixed order, close this:
//!
//! ```text
//! resolve:  note v as changed at T ──► ask who embeds v among unseen writes ──► look v up in the store
//! build:    stamp S ──► fetch ──► write D ──► remember D's refs as unseen ──► any ref changed at or after S? build again
//! refresh:  ─────────────────────────────────────────────────► forget the unseen writes that are now visible
//! ```
//!
//! Either D's refs are remembered before resolve asks (then D is found there, or, if it was forgotten meanwhile, by the
//! store, whose refresh ended before the lookup began), or v was noted before the build checks (then the build sees T ≥ S).
//! A change noted before S was committed before the fetch began, so the fetch saw it. A build that took longer than notes are
//! kept counts as stale.
//!
//! A document whose row changes faster than it is built would be stale every time. But once a write is visible with the
//! references that the document still has, the store answers lookups for them: a later change finds the document by itself and
//! brings its own request, so it makes nobody else's build stale.
//!
//! Across processes the settle pass is to do the same; this ledger does not stand in its way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tributary_event::HybridClock;
use tributary_event::clock::now_us;
use xxhash_rust::xxh3::xxh3_64;

/// Notes that are kept at most, of about 150 bytes each.
const MAX_NOTES: usize = 200_000;

/// Recent changes and unseen writes of one index. Cheap to share.
#[derive(Debug)]
pub struct Recent {
    state: Mutex<State>,
    keep: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// Reference → stamp of its last change.
    changed: HashMap<String, u64>,
    /// Notes in order of time, for forgetting.
    notes: VecDeque<(Instant, String, u64)>,
    /// Reference → documents whose last write embeds it and is not visible yet, with the number of such writes.
    unseen: HashMap<String, HashMap<Arc<str>, usize>>,
    /// Documents whose last build was stale.
    stale: HashMap<Arc<str>, Stale>,
    /// The latest of the notes that were forgotten before their time: builds from before it count as stale.
    forgotten: u64,
}

/// A write of a document that was stale.
#[derive(Debug)]
struct Stale {
    /// Hash of its references.
    references: u64,
    /// The stamp at which a write with these references was visible.
    visible: Option<u64>,
}

impl Recent {
    /// A ledger whose notes outlive builds of at most `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { state: Mutex::default(), keep: deadline * 2 + Duration::from_secs(10) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes references as changed at `stamp`, and answers which unseen writes embed them. A reference `Type:*` stands for all
    /// vertices of a type.
    pub fn note(&self, references: &[String], stamp: u64) -> Vec<Arc<str>> {
        let mut state = self.lock();
        let now = Instant::now();
        while let Some((at, _, _)) = state.notes.front()
            && (now.duration_since(*at) > self.keep || state.notes.len() >= MAX_NOTES)
        {
            let early = now.duration_since(*at) <= self.keep;
            let Some((_, reference, stamp)) = state.notes.pop_front() else { break };
            if state.changed.get(&reference) == Some(&stamp) {
                state.changed.remove(&reference);
            }
            if early {
                state.forgotten = state.forgotten.max(stamp);
            }
        }
        let mut documents: Vec<Arc<str>> = Vec::new();
        for reference in references {
            let last = state.changed.entry(reference.clone()).or_default();
            *last = stamp.max(*last);
            state.notes.push_back((now, reference.clone(), stamp));
            match reference.strip_suffix('*') {
                Some(prefix) => {
                    let of_type = state.unseen.iter().filter(|(r, _)| r.starts_with(prefix));
                    documents.extend(of_type.flat_map(|(_, d)| d.keys().cloned()));
                }
                None => documents.extend(state.unseen.get(reference).into_iter().flat_map(|d| d.keys().cloned())),
            }
        }
        documents.sort_unstable();
        documents.dedup();
        documents
    }

    /// A document was written from a fetch stamped `stamp`, and its write is not visible yet. True if one of its references
    /// changed since: it must be built again.
    #[must_use]
    pub fn written(&self, document: &Arc<str>, references: &[String], stamp: u64) -> bool {
        let mut state = self.lock();
        for reference in references {
            *state.unseen.entry(reference.clone()).or_default().entry(document.clone()).or_default() += 1;
        }
        let Some(oldest) = self.oldest_change(&state, references, stamp) else {
            state.stale.remove(document);
            return false;
        };
        let references = hash(references);
        match state.stale.get(document) {
            Some(known) if known.references == references => {
                let found_by_lookups = known.visible.is_some_and(|visible| visible < oldest);
                if found_by_lookups {
                    state.stale.remove(document);
                }
                !found_by_lookups
            }
            _ => {
                state.stale.insert(document.clone(), Stale { references, visible: None });
                true
            }
        }
    }

    /// Whether one of the references changed at or after `stamp`; for builds that wrote nothing.
    pub fn is_stale(&self, references: &[String], stamp: u64) -> bool {
        self.oldest_change(&self.lock(), references, stamp).is_some()
    }

    /// Of the references that changed at or after `stamp`, the change that is longest ago. All that is known of a reference
    /// is its last change, and that is enough: the build it asks for sees the earlier ones too.
    fn oldest_change(&self, state: &State, references: &[String], stamp: u64) -> Option<u64> {
        let age = now_us() - HybridClock::micros(stamp);
        if stamp <= state.forgotten || u128::try_from(age).is_ok_and(|age| age > self.keep.as_micros()) {
            return Some(0);
        }
        let changed = |reference: &str| state.changed.get(reference).copied().filter(|at| *at >= stamp);
        let of = |reference: &String| {
            let of_type = reference.split_once(':').and_then(|(t, _)| changed(&format!("{t}:*")));
            changed(reference).into_iter().chain(of_type).min()
        };
        references.iter().filter_map(of).min()
    }

    /// A write of a document is visible since `stamp` at the latest.
    pub fn seen(&self, document: &Arc<str>, references: &[String], stamp: u64) {
        let mut state = self.lock();
        if let Some(stale) = state.stale.get_mut(document)
            && stale.visible.is_none()
            && stale.references == hash(references)
        {
            stale.visible = Some(stamp);
        }
        for reference in references {
            let Some(documents) = state.unseen.get_mut(reference) else { continue };
            if let Some(writes) = documents.get_mut(document) {
                *writes -= 1;
                if *writes == 0 {
                    documents.remove(document);
                }
            }
            if documents.is_empty() {
                state.unseen.remove(reference);
            }
        }
    }
}

fn hash(references: &[String]) -> u64 {
    let mut sorted: Vec<&str> = references.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    xxh3_64(sorted.join("\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stamp of about now.
    fn at(n: u64) -> u64 {
        static BASE: std::sync::LazyLock<u64> = std::sync::LazyLock::new(|| HybridClock::default().now());
        *BASE + n
    }

    fn refs(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_change_during_a_build_asks_for_another_build() {
        let recent = Recent::new(Duration::from_secs(1));
        let document: Arc<str> = "1".into();
        assert!(recent.note(&refs(&["Talent:7"]), at(100)).is_empty());
        assert!(recent.written(&document, &refs(&["Movie:1", "Talent:7"]), at(90)));
        assert!(!recent.is_stale(&refs(&["Movie:1", "Talent:7"]), at(101)));
        assert!(!recent.is_stale(&refs(&["Movie:1"]), at(90)));
    }

    #[test]
    fn a_change_before_a_write_is_visible_finds_the_document() {
        let recent = Recent::new(Duration::from_secs(1));
        let document: Arc<str> = "1".into();
        let embedded = refs(&["Movie:1", "Talent:7"]);
        assert!(!recent.written(&document, &embedded, at(100)));
        assert!(!recent.written(&document, &embedded, at(110)));
        recent.seen(&document, &embedded, at(115));
        assert_eq!(recent.note(&refs(&["Talent:7", "Movie:1"]), at(120)), std::slice::from_ref(&document));
        assert_eq!(recent.note(&refs(&["Talent:*"]), at(125)), std::slice::from_ref(&document));
        recent.seen(&document, &embedded, at(128));
        assert!(recent.note(&refs(&["Talent:7"]), at(130)).is_empty());
    }

    #[test]
    fn a_change_of_a_whole_type_touches_every_vertex_of_it() {
        let recent = Recent::new(Duration::from_secs(1));
        recent.note(&refs(&["Talent:*"]), at(100));
        assert!(recent.is_stale(&refs(&["Talent:7"]), at(100)));
        assert!(!recent.is_stale(&refs(&["TalentAgent:7"]), at(100)));
    }

    #[test]
    fn a_document_that_changes_faster_than_it_is_built_is_done_once_lookups_find_it() {
        let recent = Recent::new(Duration::from_secs(1));
        let document: Arc<str> = "1".into();
        let embedded = refs(&["Movie:1", "Talent:7"]);
        recent.note(&refs(&["Movie:1"]), at(100));
        assert!(recent.written(&document, &embedded, at(90)));
        // Not visible yet: a lookup for the next change would miss it.
        recent.note(&refs(&["Movie:1"]), at(120));
        assert!(recent.written(&document, &embedded, at(110)));
        recent.seen(&document, &embedded, at(130));
        assert!(recent.written(&document, &embedded, at(115)), "the change at 120 came before the write was visible");
        recent.note(&refs(&["Movie:1"]), at(140));
        assert!(!recent.written(&document, &embedded, at(135)));
        // With other references, the next change of one of them would miss it again.
        let moved = refs(&["Movie:1", "Talent:8"]);
        recent.note(&refs(&["Talent:8"]), at(160));
        assert!(recent.written(&document, &moved, at(150)));
    }

    #[test]
    fn a_build_that_outlived_the_notes_is_stale() {
        let recent = Recent::new(Duration::from_secs(1));
        // Notes are kept for twelve seconds.
        let old = HybridClock::at(now_us() - 13_000_000);
        assert!(recent.is_stale(&refs(&["Movie:1"]), old));
        assert!(!recent.is_stale(&refs(&["Movie:1"]), HybridClock::default().now()));
    }
}
