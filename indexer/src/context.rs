//! What the stages of one index share.

use std::sync::{Arc, Mutex, PoisonError};

use tributary_dsl::plan::IndexPlan;
use tributary_event::{HybridClock, Reporter};

use crate::building::brake::Brake;
use crate::graph::Graph;
use crate::letters::book::Book;
use crate::listing::Listings;
use crate::report::Reports;
use crate::resolve::recent::Recent;
use crate::resolve::settle::{Requested, Times};
use crate::store::DocumentStore;

/// One index of a running process.
pub struct IndexContext {
    /// The pipeline's name.
    pub pipeline: String,
    /// Its plan.
    pub plan: IndexPlan,
    /// The graph.
    pub graph: Arc<dyn Graph>,
    /// Its documents.
    pub store: Arc<dyn DocumentStore>,
    /// Stamps of builds and notes of changes are taken from the same clock.
    pub clock: Arc<HybridClock>,
    /// Recent changes and unseen writes.
    pub recent: Recent,
    /// Documents that were asked for of late, by this process.
    pub requested: Mutex<Requested>,
    /// How far the listing of all documents is.
    pub listings: Arc<Listings>,
    /// Stops deletes that are too many.
    pub brake: Brake,
    /// What is known of the pipeline's dead letters.
    pub letters: Arc<Book>,
    /// Open causes.
    pub reports: Reports,
    /// How the graph is.
    pub graph_health: Reporter,
    /// How the store is.
    pub store_health: Reporter,
    /// How the listing of all documents is.
    pub listing_health: Reporter,
    /// Whether deletes go on.
    pub brake_health: Reporter,
    /// Whether the graph knows the roots that were listed.
    pub strangers: Reporter,
    /// Whether the clocks of all processes agree.
    pub clock_health: Reporter,
    /// When changes are looked at again.
    pub times: Times,
}

impl IndexContext {
    /// Whether documents embed vertices of a type, or are of it.
    pub(crate) fn shows(&self, type_name: &str) -> bool {
        type_name == self.plan.root_type || self.plan.edges.iter().any(|edge| edge.child_type == type_name)
    }

    /// Says in health that the graph knows fewer of the roots that were listed for a first build than was said, or not any more.
    pub(crate) fn tell_of_strangers(&self) {
        let note = self.reports.progress.strangers(self.plan.hidden).map(|(unknown, all)| {
            format!(
                "of {all} roots that were listed for the first build, the graph did not know {unknown}: they were deleted meanwhile, or it \
                 hides them (say how many it may: graph: {{ types: {{ {}: {{ hidden: … }} }} }}), or the ids that graph.vertices makes of \
                 these rows are not the graph's",
                self.plan.root_type
            )
        });
        if note.is_some() {
            self.strangers.up();
        }
        self.strangers.note(note);
    }

    /// Notes that builds were asked for because of what happened until `stamp`.
    pub(crate) fn note_requested(&self, documents: &[String], stamp: u64) {
        let mut requested = self.requested.lock().unwrap_or_else(PoisonError::into_inner);
        documents.iter().for_each(|document| requested.note(document, stamp));
    }

    /// Whether a build was asked for because of what happened until `stamp`, or later.
    pub(crate) fn was_requested(&self, document: &str, stamp: u64) -> bool {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner).since(document, stamp)
    }

    /// Forgets what was asked for before.
    pub(crate) fn forget_requested(&self, before: u64) {
        self.requested.lock().unwrap_or_else(PoisonError::into_inner).forget(before);
    }
}

/// A rule that convergence rests on. Tests switch single ones off, to see that they are missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Every change is looked at again when no build is under way that does not know of it.
    Settle,
    /// After a write in doubt, unchanged content is written too.
    Barrier,
    /// What an earlier owner of a partition may still be building is built again after it.
    Doubt,
}

#[cfg(test)]
thread_local! {
    /// The rule that is switched off.
    pub(crate) static MUTANT: std::cell::Cell<Option<Rule>> = const { std::cell::Cell::new(None) };
}

impl IndexContext {
    /// Whether a rule is obeyed: always, but for tests.
    pub(crate) fn obeys(&self, rule: Rule) -> bool {
        let _ = rule;
        #[cfg(test)]
        return MUTANT.get() != Some(rule);
        #[cfg(not(test))]
        true
    }
}
