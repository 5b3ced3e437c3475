//! What changed of late, and which writes no lookup finds yet: so that most documents which a change would miss within one process
//! are built again at once.
//!
//! Let D embed v. If v changes while D is being built, or before D's write is visible to lookups, a lookup for v misses D.
//!
//! ```text
//! resolve:  note v as changed at T ──► ask who embeds v among unseen writes ──► look v up in the store
//! build:    stamp S ──► fetch ──► write D ──► remember D's refs as unseen ──► any ref changed at or after S? ask for another build
//! refresh:  ─────────────────────────────────────────────────► forget the unseen writes that are now visible
//! ```
//!
//! Either D's refs are remembered before resolve asks, or v was noted before the build checks. Nothing relies on this memory: it
//! knows nothing of other processes and forgets. What it misses, the last look at a change finds (see `resolve::settle`), but later.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
            let Some((_, reference, stamp)) = state.notes.pop_front() else { break };
            if state.changed.get(&reference) == Some(&stamp) {
                state.changed.remove(&reference);
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

    /// A document was written from a fetch stamped `stamp`, and its write is not visible yet. True if one of its references is known
    /// to have changed since: it is to be built again.
    #[must_use]
    pub fn written(&self, document: &Arc<str>, references: &[String], stamp: u64) -> bool {
        let mut state = self.lock();
        for reference in references {
            *state.unseen.entry(reference.clone()).or_default().entry(document.clone()).or_default() += 1;
        }
        let since = |reference: &str| state.changed.get(reference).is_some_and(|at| *at >= stamp);
        references.iter().any(|reference| {
            let of_type = || reference.split_once(':').is_some_and(|(name, _)| since(&format!("{name}:*")));
            since(reference) || of_type()
        })
    }

    /// A write of a document is visible.
    pub fn seen(&self, document: &Arc<str>, references: &[String]) {
        let mut state = self.lock();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn a_change_during_a_build_asks_for_another_build() {
        let recent = Recent::new(Duration::from_secs(1));
        let document: Arc<str> = "1".into();
        assert!(recent.note(&refs(&["Talent:7"]), 100).is_empty());
        assert!(recent.written(&document, &refs(&["Movie:1", "Talent:7"]), 90));
        assert!(!recent.written(&document, &refs(&["Movie:1", "Talent:7"]), 101));
        assert!(!recent.written(&document, &refs(&["Movie:1"]), 90));
    }

    #[test]
    fn a_change_before_a_write_is_visible_finds_the_document() {
        let recent = Recent::new(Duration::from_secs(1));
        let document: Arc<str> = "1".into();
        let embedded = refs(&["Movie:1", "Talent:7"]);
        assert!(!recent.written(&document, &embedded, 100));
        assert!(!recent.written(&document, &embedded, 110));
        recent.seen(&document, &embedded);
        assert_eq!(recent.note(&refs(&["Talent:7", "Movie:1"]), 120), std::slice::from_ref(&document));
        assert_eq!(recent.note(&refs(&["Talent:*"]), 125), std::slice::from_ref(&document));
        recent.seen(&document, &embedded);
        assert!(recent.note(&refs(&["Talent:7"]), 130).is_empty());
    }

    #[test]
    fn a_change_of_a_whole_type_touches_every_vertex_of_it() {
        let recent = Recent::new(Duration::from_secs(1));
        let document: Arc<str> = "1".into();
        recent.note(&refs(&["Talent:*"]), 100);
        assert!(recent.written(&document, &refs(&["Talent:7"]), 100));
        assert!(!recent.written(&document, &refs(&["TalentAgent:7"]), 100));
    }
}
