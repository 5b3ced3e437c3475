//! When the last builds of documents began, so that requests that waited longer need no build: those for one document merge, whatever lane they
//! wait in and however far they are apart in its topic.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Documents whose last build is remembered, at most, of about 100 bytes each.
const MOST: usize = 200_000;

/// Stamps of last builds, by document.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    at: HashMap<Arc<str>, u64>,
    order: VecDeque<(Arc<str>, u64)>,
}

impl Latest {
    /// A build of a document is over that began so.
    pub(crate) fn note(&mut self, id: &Arc<str>, stamp: u64) {
        self.at.insert(id.clone(), stamp);
        self.order.push_back((id.clone(), stamp));
        while self.order.len() > MOST {
            if let Some((id, stamp)) = self.order.pop_front()
                && self.at.get(&id) == Some(&stamp)
            {
                self.at.remove(&id);
            }
        }
    }

    /// Whether a build of a document is remembered that began then or later: what asks for one of that time is served.
    pub(crate) fn serves(&self, id: &str, from: u64) -> bool {
        self.at.get(id).is_some_and(|began| *began >= from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_waited_longer_than_a_build_are_served_by_it() {
        let mut latest = Latest::default();
        latest.note(&"7".into(), 20);
        assert!(latest.serves("7", 20) && latest.serves("7", 19));
        assert!(!latest.serves("7", 21), "what changed behind its beginning is not in it");
        assert!(!latest.serves("8", 1));
        latest.note(&"7".into(), 30);
        assert!(latest.serves("7", 30));
    }

    #[test]
    fn what_was_built_long_ago_is_forgotten_and_what_was_built_again_is_not() {
        let mut latest = Latest::default();
        let id = |n: usize| Arc::<str>::from(n.to_string());
        latest.note(&id(0), 1);
        latest.note(&id(1), 1);
        latest.note(&id(0), 2);
        for n in 2..MOST + 1 {
            latest.note(&id(n), 3);
        }
        assert!(latest.serves("0", 2), "its second build is among the last");
        assert!(!latest.serves("1", 1));
        assert_eq!((latest.order.len(), latest.at.len()), (MOST, MOST));
    }
}
