//! The first build, and every later build of everything: lists the ids of all roots and asks for a build of each, in the bulk
//! lane. Where the index is not new, it then asks for a build of every document that is not among them: a root that went away
//! unnoticed (its changes were lost, or the index was restored from a copy) leaves the index so.
//!
//! A page of requests and the place where the next page starts are appended together, so a listing that was interrupted
//! goes on where it stopped. The log is captured from before the first page is read, so what changes meanwhile is built again.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{Backoff, StageError};
use tributary_transport::{Batch, Checkpoint, Producer, Transport, TransportError};
use xxhash_rust::xxh3::xxh3_64;

use crate::context::IndexContext;
use crate::graph::{Graph, GraphError, IdPage};
use crate::report::LISTING;
use crate::request::{BuildRequest, Cause, Lane, names};

/// Ids of one page.
const PAGE: usize = 1000;

/// Where the ids of all roots come from.
#[async_trait]
pub trait RootIdSource: Send + Sync {
    /// The page after `after` (the last page's `next`). Ids of roots that exist throughout come exactly once.
    async fn page(&self, after: Option<&str>, size: usize) -> Result<IdPage, GraphError>;

    /// About how many there are, if that is cheap to know.
    async fn expected(&self) -> Option<u64>;
}

/// Root ids from a Relay connection of the graph.
pub struct GraphRootIds {
    /// The graph.
    pub graph: Arc<dyn Graph>,
    /// The generated query.
    pub query: String,
    /// The response key of the connection.
    pub key: String,
}

#[async_trait]
impl RootIdSource for GraphRootIds {
    async fn page(&self, after: Option<&str>, size: usize) -> Result<IdPage, GraphError> {
        self.graph.root_ids(&self.query, &self.key, after, size.min(100)).await
    }

    async fn expected(&self) -> Option<u64> {
        None
    }
}

/// How far the listing of an index's roots is. Kept as a checkpoint of the transport.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Where the next page starts.
    pub after: Option<String>,
    /// Ids asked for.
    pub listed: u64,
    /// Whether all were.
    pub complete: bool,
    /// Whether the roots are done, and the documents of the index are being listed.
    #[serde(default)]
    pub documents: bool,
    /// Whether the index was empty when this began.
    #[serde(default)]
    pub new_index: bool,
}

impl Listing {
    /// A listing that has not begun.
    pub fn of(new_index: bool) -> Self {
        Self { new_index, ..Self::default() }
    }
}

/// The state of an index's listing; none if it was never begun.
pub async fn state(transport: &dyn Transport, pipeline: &str, index: &str) -> Result<Option<Listing>, TransportError> {
    let content = transport.checkpoint(&names::listing(pipeline, index)).await?;
    Ok(content.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

/// Replaces the state of a listing by one that has not begun.
pub async fn restart(
    producer: &mut dyn Producer,
    pipeline: &str,
    index: &str,
    listing: &Listing,
) -> Result<(), TransportError> {
    let mut batch = Batch::new();
    batch.checkpoint = Some(checkpoint(pipeline, index, listing));
    producer.append(&batch).await
}

fn checkpoint(pipeline: &str, index: &str, listing: &Listing) -> Checkpoint {
    let content = serde_json::to_vec(listing).unwrap_or_default().into();
    Checkpoint { name: names::listing(pipeline, index), content }
}

/// Lists what is left to list, until done, shutdown, or a fatal error.
pub async fn run(
    context: &IndexContext,
    roots: &dyn RootIdSource,
    mut producer: Box<dyn Producer>,
    mut listing: Listing,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    let (pipeline, index) = (&context.pipeline, &context.plan.name);
    let stage = format!("index {index}");
    let topic: Arc<str> = names::builds(pipeline, index, Lane::Bulk).into();
    let progress = &context.reports.progress;
    progress.listed.store(listing.listed, Ordering::Release);
    progress.resumed.store(listing.listed, Ordering::Release);
    progress.restart();
    progress.expected.store(roots.expected().await.unwrap_or(0), Ordering::Release);
    progress.listing.store(true, Ordering::Release);
    info!(index, resumed_at = listing.listed, "building every document");
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    // Hashes of the ids that were listed as roots: of those of this process, for a resumed listing may ask twice.
    let mut roots_listed: HashSet<u64> = HashSet::new();
    while !listing.complete {
        let page = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            page = page(context, roots, &listing, &mut roots_listed) => page,
        };
        let failure = match page {
            Ok(page) => {
                let next = after(&listing, &page);
                let batch = requests(&topic, page.ids, checkpoint(pipeline, index, &next));
                match producer.append(&batch).await {
                    Ok(()) => {
                        context.listing_health.up();
                        progress.listed.store(next.listed, Ordering::Release);
                        listing = next;
                        backoff.reset();
                        continue;
                    }
                    Err(error) => (error.class, error.message),
                }
            }
            Err(failure) => failure,
        };
        if failure.0 != ErrorClass::Transient {
            return Err(StageError::new(stage, failure.1));
        }
        if context.listing_health.down(failure.1.clone()) {
            let outage_s = context.listing_health.outage().as_secs();
            warn!(index, error = failure.1, outage_s, "cannot list the roots; trying again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
    progress.listing.store(false, Ordering::Release);
    info!(index, documents = listing.listed, "all documents are asked for");
    Ok(())
}

/// The next page: ids to build, and where the one after it starts.
async fn page(
    context: &IndexContext,
    roots: &dyn RootIdSource,
    listing: &Listing,
    roots_listed: &mut HashSet<u64>,
) -> Result<IdPage, (ErrorClass, String)> {
    let after = listing.after.as_deref();
    if !listing.documents {
        let page = roots.page(after, PAGE).await.map_err(|e| (e.class, e.message))?;
        if !listing.new_index {
            roots_listed.extend(page.ids.iter().map(|id| xxh3_64(id.as_bytes())));
        }
        return Ok(page);
    }
    let mut ids = context.store.scan(after, PAGE).await.map_err(|e| (e.class, e.message))?;
    let next = if ids.len() == PAGE { ids.last().cloned() } else { None };
    ids.retain(|id| !roots_listed.contains(&xxh3_64(id.as_bytes())));
    Ok(IdPage { ids, next })
}

/// The state after a page.
fn after(listing: &Listing, page: &IdPage) -> Listing {
    let last = page.next.is_none();
    Listing {
        after: page.next.clone(),
        listed: listing.listed + page.ids.len() as u64,
        complete: last && (listing.documents || listing.new_index),
        documents: listing.documents || last,
        new_index: listing.new_index,
    }
}

fn requests(topic: &Arc<str>, ids: Vec<String>, checkpoint: Checkpoint) -> Batch {
    let now = now_us();
    let cause = Cause { id: LISTING.into(), label: "first build".into(), commit_us: now, affected: 0 };
    let mut batch = Batch::new();
    for id in ids {
        let request = BuildRequest { id, cause: cause.clone() };
        batch.push(topic, now / 1_000, Some(request.id.as_bytes()), Some(&request.encode()));
    }
    batch.checkpoint = Some(checkpoint);
    batch
}
