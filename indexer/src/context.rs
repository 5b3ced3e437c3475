//! What the stages of one index share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;
use tributary_dsl::plan::IndexPlan;
use tributary_event::clock::SKEW;
use tributary_event::{HybridClock, Reporter};

use crate::building::brake::Brake;
use crate::graph::{Graph, Vertex};
use crate::letters::book::Book;
use crate::listing::Listings;
use crate::report::Reports;
use crate::resolve::likeness::Likeness;
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
    /// Whether the ids of changed vertices look like those that documents embed.
    pub ids: Mutex<Likeness>,
    /// The newest stamp that was found at a document.
    pub newest: AtomicU64,
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
    /// When changes are looked at again, as far as this process's own builds go.
    pub times: Times,
}

/// Between two looks at clocks that do not agree.
const CLOCKS: Duration = Duration::from_millis(200);

impl IndexContext {
    /// When changes are looked at again: no process builds for longer than these say.
    pub(crate) fn times(&self) -> Times {
        if !self.obeys(Rule::Deadlines) {
            return self.times;
        }
        let deadline = self.listings.board().longest_deadline(&self.plan.name, self.times.deadline);
        Times { deadline, ..self.times }
    }

    /// A document embeds these references.
    pub(crate) fn embeds(&self, references: &[String]) {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).embedded(references);
    }

    /// Documents were looked up that embed vertices.
    pub(crate) fn looked_up(&self, vertices: &[&Vertex], found: bool) {
        let said = self.ids.lock().unwrap_or_else(PoisonError::into_inner).looked_up(vertices, found);
        if let Some(said) = said {
            warn!(index = self.plan.name, "{said}");
        }
    }

    /// A document has this stamp.
    pub(crate) fn found_stamp(&self, stamp: u64) {
        self.newest.fetch_max(stamp, Ordering::AcqRel);
    }

    /// Waits while another clock is ahead of this one by more than the clocks of two processes may differ: what is built by such clocks
    /// would seem to have seen changes that it has not. `stamp`: that of who asks for something, or 0.
    pub(crate) async fn agree_on_time(&self, stamp: u64) {
        while let Some(why) = self.disagreement(stamp) {
            if self.clock_health.down(why.clone()) {
                warn!(index = self.plan.name, "{why}");
            }
            tokio::time::sleep(CLOCKS).await;
        }
        self.clock_health.up();
    }

    fn disagreement(&self, stamp: u64) -> Option<String> {
        if !self.obeys(Rule::Clocks) {
            return None;
        }
        let wall_us = self.clock.wall_us();
        let ahead = |stamp: u64| {
            let ahead = Duration::from_micros(u64::try_from(HybridClock::micros(stamp) - wall_us).unwrap_or(0));
            (ahead > SKEW).then_some(ahead)
        };
        let remedy =
            "nothing is built, and no change is looked at again, until they agree: synchronize the clocks (NTP)";
        let behind = |ahead: Duration, whose: &str| {
            format!(
                "the clock of this machine is {} ms behind that of {whose}, or it was set back; {remedy}",
                ahead.as_millis()
            )
        };
        if let Some(ahead) = ahead(stamp) {
            return Some(behind(ahead, "a process that asks for builds"));
        }
        if let Some((by, ahead)) = self.listings.board().ahead() {
            return Some(behind(ahead, &format!("process {by}")));
        }
        let ahead = ahead(self.newest.load(Ordering::Acquire))?;
        let once =
            "; if all clocks are right now, and one was wrong once, delete the index in its store: it is built anew";
        Some(behind(ahead, "a process that built documents") + once)
    }

    /// Waits until it is certain that no build is under way any more that began before a moment, by whichever process.
    pub(crate) async fn builds_are_over(&self, moment: Instant) {
        // Who is there by then has said how long its builds take, and by which clock it stamps them.
        self.listings.board().read_since(moment).await;
        self.agree_on_time(0).await;
        loop {
            let over = moment + self.times().longest_build();
            if over <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(over).await;
        }
    }

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
    /// Where the graph lags, it is asked once more who shows what changed, when it knows what it did not know at first.
    LateLook,
    /// What was written so late that a change may have looked for it in vain is built again.
    LateWrite,
    /// Changes are looked at again when the longest deadline is over that any process has.
    Deadlines,
    /// Nobody builds, or looks at changes again, whose clock is behind another one's.
    Clocks,
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
