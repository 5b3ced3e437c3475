//! What the stages of one index share.

use std::sync::Arc;

use tributary_dsl::plan::IndexPlan;
use tributary_event::{HybridClock, Reporter};

use crate::brake::Brake;
use crate::graph::Graph;
use crate::letters::book::Book;
use crate::listing::Listings;
use crate::recent::Recent;
use crate::report::Reports;
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
}
