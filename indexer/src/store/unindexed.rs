//! Says which fields have values that are kept and cannot be searched.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// What was said of one index.
#[derive(Debug)]
pub(super) struct Unindexed {
    index: String,
    /// Fields that were named in the log: once each, since every document may have such a value.
    named: Mutex<HashSet<String>>,
}

impl Unindexed {
    pub fn new(index: &str) -> Self {
        Self { index: index.to_owned(), named: Mutex::default() }
    }

    /// Counts the fields of a document that was written.
    pub fn count(&self, id: &str, fields: &[String]) {
        for field in fields {
            let labels = [("index", self.index.clone()), ("field", field.clone())];
            metrics::counter!("tributary_unindexed_values_total", &labels).increment(1);
            let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
            if named.insert(field.clone()) {
                tracing::warn!(
                    index = self.index,
                    field,
                    document = id,
                    "a value that no store can index is kept and cannot be searched; further ones of this field are \
                     counted in tributary_unindexed_values_total, and found by `_unindexed:{field}`"
                );
            }
        }
    }
}
