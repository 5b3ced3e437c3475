//! Says, once a document, that the graph answered characters which are none, and which were replaced (see `json`).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use tracing::warn;

use super::response::Item;

/// What stands where there was no character.
const REPLACEMENT: char = '\u{fffd}';
/// Documents that are remembered; all are forgotten when there are more, and may be told again.
const MOST: usize = 10_000;
/// Documents that are named in one line.
const NAMED: usize = 5;

/// The documents that were told of.
#[derive(Debug, Default)]
pub(super) struct Replaced(Mutex<HashSet<(String, String)>>);

impl Replaced {
    /// Tells that in an answer to `query` so many characters were replaced; `texts`: what was answered, by id.
    pub(super) fn tell<'a>(&self, query: &str, replaced: usize, texts: impl Iterator<Item = (&'a str, &'a str)>) {
        if replaced == 0 {
            return;
        }
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= MOST {
            told.clear();
        }
        let holds = |(id, text): (&'a str, &'a str)| text.contains(REPLACEMENT).then_some(id);
        let fresh: Vec<&str> =
            texts.filter_map(holds).filter(|id| told.insert((query.to_owned(), (*id).to_owned()))).collect();
        if fresh.is_empty() {
            return;
        }
        warn!(
            query,
            documents = fresh.len(),
            such_as = fresh[..fresh.len().min(NAMED)].join(", "),
            characters = replaced,
            "the graph answered halves of surrogate pairs, or bytes that are no UTF-8; each was replaced by U+FFFD"
        );
    }

    /// The same for items.
    pub(super) fn tell_items(&self, query: &str, replaced: usize, ids: &[String], items: &[Item]) {
        if replaced == 0 {
            return;
        }
        let text = |item: &Item| match item {
            Item::Found(json) => json.to_string(),
            _ => String::new(),
        };
        let texts: Vec<String> = items.iter().map(text).collect();
        self.tell(query, replaced, ids.iter().zip(&texts).map(|(id, text)| (id.as_str(), text.as_str())));
    }
}
