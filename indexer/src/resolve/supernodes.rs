//! Vertices that very many documents embed: those documents are asked for in the bulk lane, a page at a time, and are not remembered
//! one by one.
//!
//! They are asked for once for a change: at its first look, or at the late one where the graph lags, for what is built before that may
//! not show it. Before the pages are read the store is refreshed, so a page lacks no document but those that are being built at
//! that moment; and these have stamps that are younger than the longest build. So of documents that hold such a vertex, those
//! alone may have missed its change.

use std::collections::BTreeMap;

use tributary_event::HybridClock;
use tributary_processor::StageError;

use super::settle::Times;
use super::{Batch, Resolver};
use crate::context::IndexContext;
use crate::request::{Cause, Lane};

/// Of the documents that are asked for by a supernode, so many are remembered: those that may be built at once, by the time of the
/// next look.
const REMEMBERED: usize = 50_000;

/// A reference that many documents of an index hold.
#[derive(Debug, Clone)]
pub struct Supernode {
    /// Why its documents are built.
    pub cause: Cause,
    /// How many documents hold it, about.
    pub documents: u64,
    /// The stamp of what is to be seen by those that hold it, once all were asked for.
    pub asked: Option<u64>,
}

impl Supernode {
    /// The stamp below which all documents that hold it were asked for after a change, for their builds were over then.
    pub fn covered_before(&self, changed: u64, times: Times) -> Option<u64> {
        let asked = self.asked.filter(|asked| *asked >= times.shown_from(changed))?;
        Some(HybridClock::earlier(asked, times.longest_build()))
    }

    /// One of two batches that are looked at together.
    pub fn merge(&mut self, other: Self) {
        self.documents = self.documents.max(other.documents);
        self.asked = self.asked.zip(other.asked).map(|(one, other)| one.max(other));
    }
}

impl Resolver {
    /// Asks for the documents of those supernodes of a batch that were not asked for yet.
    pub(super) async fn ask_for_supernodes(
        &self,
        index: &IndexContext,
        batch: &mut Batch,
        stamp: u64,
    ) -> Result<(), StageError> {
        let mut causes: BTreeMap<String, (Cause, Vec<String>)> = BTreeMap::new();
        let supernodes = batch.supernodes.get_mut(&index.plan.name).into_iter().flatten();
        for (reference, supernode) in supernodes.filter(|(_, supernode)| supernode.asked.is_none()) {
            supernode.asked = Some(stamp);
            let none = || (Cause { affected: 0, ..supernode.cause.clone() }, Vec::new());
            let (cause, references) = causes.entry(supernode.cause.id.clone()).or_insert_with(none);
            cause.affected += supernode.documents;
            references.push(reference.clone());
        }
        if causes.is_empty() {
            return Ok(());
        }
        self.refresh(index).await?;
        for (cause, references) in causes.into_values() {
            let (mut after, mut remembered) = (None, 0);
            loop {
                let (documents, next) = self.holders(index, &references, after.as_deref()).await?;
                if remembered < REMEMBERED {
                    remembered += documents.len();
                    index.note_requested(&documents, stamp);
                }
                self.post(index, documents, &cause, (Lane::Bulk, stamp)).await?;
                after = next;
                if after.is_none() {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "supernodes_tests.rs"]
mod tests;
