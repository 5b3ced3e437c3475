//! The first build, and every later build of everything: lists the ids of all roots and asks for a build of each, in the bulk
//! lane. Where the index is not new, it then asks for a build of every document that is not among them: a root that went away
//! unnoticed (its changes were lost, or the index was restored from a copy) leaves the index so.
//!
//! A page of requests and the place where the next page starts are appended together, so a listing that was interrupted
//! goes on where it stopped. It goes no further while many requests wait, so that none is removed by retention before it is read. The
//! log is captured from before the first page is read, so what changes meanwhile is built again.

mod state;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_dsl::plan::Paging;
use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{Backoff, Lag, StageError};
use tributary_transport::Batch;
use xxhash_rust::xxh3::xxh3_64;

use crate::context::IndexContext;
use crate::graph::{Graph, GraphError, IdPage};
use crate::report::LISTING;
use crate::request::{BuildRequest, Cause, Lane, names};

pub use state::{Listing, Listings};

/// Ids of one page.
const PAGE: usize = 1000;

/// Requests that may wait in the bulk lane before no further page is asked for.
const AHEAD: u64 = 100_000;
/// Between two looks at how many wait.
const LOOK: Duration = Duration::from_millis(200);

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
    /// How they are listed.
    pub paging: Paging,
}

#[async_trait]
impl RootIdSource for GraphRootIds {
    async fn page(&self, after: Option<&str>, size: usize) -> Result<IdPage, GraphError> {
        self.graph.root_ids(&self.paging, after, size.min(100)).await
    }

    async fn expected(&self) -> Option<u64> {
        None
    }
}

/// Lists what is left to list, and again whenever a listing begins anew, until shutdown or a fatal error.
pub async fn run(
    context: &IndexContext,
    roots: &dyn RootIdSource,
    backlog: &Lag,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    let (index, listings) = (&context.plan.name, &context.listings);
    let mut begun = listings.listen();
    loop {
        begun.mark_unchanged();
        let (listing, number) = listings.now().await;
        if !listing.complete {
            let progress = &context.reports.progress;
            progress.resumed.store(listing.listed, Ordering::Release);
            progress.restart();
            progress.expected.store(roots.expected().await.unwrap_or(0), Ordering::Release);
            info!(index, resumed_at = listing.listed, "building every document");
            match list(context, roots, backlog, listing, number, &shutdown).await? {
                End::Complete(documents) => info!(index, documents, "all documents are asked for"),
                End::Replaced => continue,
                End::Shutdown => return Ok(()),
            }
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            // The sender lives as long as the index.
            _ = begun.changed() => {}
        }
    }
}

/// How a listing ended.
enum End {
    /// So many were asked for.
    Complete(u64),
    /// Another one began.
    Replaced,
    Shutdown,
}

async fn list(
    context: &IndexContext,
    roots: &dyn RootIdSource,
    backlog: &Lag,
    mut listing: Listing,
    number: u64,
    shutdown: &CancellationToken,
) -> Result<End, StageError> {
    let (pipeline, index) = (&context.pipeline, &context.plan.name);
    let topic: Arc<str> = names::builds(pipeline, index, Lane::Bulk).into();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    // Hashes of the ids that were listed as roots: of those of this process, for a resumed listing may ask twice.
    let mut roots_listed: HashSet<u64> = HashSet::new();
    while !listing.complete {
        let page = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            page = page_in_time(backlog, context, roots, &listing, &mut roots_listed) => page,
        };
        let failure = match page {
            Ok(page) => {
                let next = after(&listing, &page);
                match context
                    .listings
                    .advance(number, requests(&topic, page.ids, context.clock.now()), next.clone())
                    .await
                {
                    Ok(true) => {
                        context.listing_health.up();
                        listing = next;
                        backoff.reset();
                        continue;
                    }
                    Ok(false) => return Ok(End::Replaced),
                    Err(error) => (error.class, error.message),
                }
            }
            Err(failure) => failure,
        };
        if failure.0 != ErrorClass::Transient {
            return Err(StageError::new(format!("index {index}"), failure.1));
        }
        if context.listing_health.down(failure.1.clone()) {
            let outage_s = context.listing_health.outage().as_secs();
            warn!(index, error = failure.1, outage_s, "cannot list the roots; trying again");
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
    Ok(End::Complete(listing.listed))
}

/// Waits until what was asked for before is built so far that retention cannot take the rest, then gives the next page.
async fn page_in_time(
    backlog: &Lag,
    context: &IndexContext,
    roots: &dyn RootIdSource,
    listing: &Listing,
    roots_listed: &mut HashSet<u64>,
) -> Result<IdPage, (ErrorClass, String)> {
    while backlog.get().is_none_or(|waiting| waiting > AHEAD) {
        tokio::time::sleep(LOOK).await;
    }
    page(context, roots, listing, roots_listed).await
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
        ..listing.clone()
    }
}

fn requests(topic: &Arc<str>, ids: Vec<String>, stamp: u64) -> Batch {
    let now = now_us();
    let cause = Cause { id: LISTING.into(), label: "first build".into(), commit_us: now, affected: 0 };
    let mut batch = Batch::new();
    for id in ids {
        let request = BuildRequest { id, cause: cause.clone(), stamp };
        batch.push(topic, now / 1_000, Some(request.id.as_bytes()), Some(&request.encode()));
    }
    batch
}
