//! The first build, and every later build of everything: lists the ids of all roots and asks for a build of each, in the bulk
//! lane. Where the index is not new, it then asks for a build of every document that is not among them: a root that went away
//! unnoticed (its changes were lost, or the index was restored from a copy) leaves the index so.
//!
//! A page of requests and the place where the next page starts are appended together, so a listing that was interrupted
//! goes on where it stopped. It goes no further while many requests wait, so that none is removed by retention before it is read. The
//! log is captured from before the first page is read, so what changes meanwhile is built again; what changed before that is shown by
//! the graph when the listing begins (see `shown`).

mod absent;
mod board;
pub(crate) mod fingerprint;
mod guarded;
mod ids;
mod lease;
mod news;
mod peers;
mod shown;
mod state;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::info;
use tributary_dsl::plan::Paging;
use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{FailedCall, Lag, StageError, until_answered};
use tributary_transport::{Batch, TransportError};

use crate::context::IndexContext;
use crate::graph::{Graph, GraphError, IdPage};
use crate::report::LISTING;
use crate::request::{BuildRequest, Cause, Lane, names};

pub use absent::Absent;
pub use board::Board;
pub(crate) use guarded::Guarded;
use ids::Ids;
pub use lease::Listings;
pub(crate) use lease::Turn;
pub(crate) use shown::Sources;
pub use shown::{Captured, SourceLog};
pub use state::Listing;

/// Ids of one page.
const PAGE: usize = 1000;

/// Requests that may wait in the bulk lane before no further page is asked for.
const AHEAD: u64 = 100_000;
/// Between two looks at how many wait.
const BACKLOG: Duration = Duration::from_millis(200);

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

/// How often the board is read.
const LOOK: Duration = Duration::from_millis(1_500);
/// How long a process that stops tries to leave its listing to others.
const LEAVING: Duration = Duration::from_secs(2);

/// Reads what other processes write on the board, and says there that this one is there, until shutdown or until one has taken the place of this process's plan.
pub(crate) async fn keep(
    board: Arc<Board>,
    all: Vec<Arc<Listings>>,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    if !board.shared {
        shutdown.cancelled().await;
        return Ok(());
    }
    let mut producer = None;
    loop {
        let read = async {
            board.look().await?;
            board.greet(&mut producer).await?;
            for listings in &all {
                listings.attend().await?;
            }
            Ok::<_, TransportError>(())
        };
        match read.await {
            // That the transport is away is said by those who need it.
            Err(error) if error.class != ErrorClass::Transient => {
                return Err(StageError::new("listings", error.message));
            }
            _ => {}
        }
        if let Some((index, why)) = all.iter().find_map(|l| Some((l.index(), l.replaced()?))) {
            return Err(StageError::new(format!("index {index}"), why));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Lists what is left to list, and again whenever a listing begins anew, until shutdown or a fatal error. Of several processes one
/// lists; the others wait until it is gone.
pub(crate) async fn run(
    context: &IndexContext,
    (roots, sources): (&dyn RootIdSource, &Sources),
    backlog: &Lag,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    let (index, listings) = (&context.plan.name, &context.listings);
    let stage = format!("index {index}");
    let mut news = listings.news();
    loop {
        news.forget();
        let what = "learn whether its roots are to be listed";
        let taken = until_answered(&context.listing_health, what, &shutdown, || listings.take()).await;
        let Some(taken) = taken.map_err(|e| StageError::new(&stage, e.message))? else { return Ok(()) };
        let wait = match taken {
            Some(listing) if listings.due(&listing).is_zero() => {
                if !sources.until_shown(context, &shutdown).await? {
                    let _ = tokio::time::timeout(LEAVING, listings.release()).await;
                    return Ok(());
                }
                let progress = &context.reports.progress;
                progress.resumed.store(listing.listed, Ordering::Release);
                progress.restart();
                progress.new_index.store(listing.new_index, Ordering::Release);
                progress.expected.store(roots.expected().await.unwrap_or(0), Ordering::Release);
                info!(index, resumed_at = listing.listed, "building every document");
                match list(context, roots, &|| backlog.get(), listing, &shutdown).await? {
                    End::Complete(documents) => info!(index, documents, "all documents are asked for"),
                    End::Replaced => {}
                    End::Shutdown => {
                        let _ = tokio::time::timeout(LEAVING, listings.release()).await;
                        return Ok(());
                    }
                }
                continue;
            }
            Some(listing) => listings.due(&listing),
            None => Duration::MAX,
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(wait.min(LOOK)) => {}
            () = news.changed() => {}
        }
    }
}

/// How a listing ended.
enum End {
    /// So many were asked for.
    Complete(u64),
    /// Another one began, or another process goes on with it.
    Replaced,
    Shutdown,
}

async fn list(
    context: &IndexContext,
    roots: &dyn RootIdSource,
    backlog: &(impl Fn() -> Option<u64> + Sync),
    mut listing: Listing,
    shutdown: &CancellationToken,
) -> Result<End, StageError> {
    let (pipeline, index) = (&context.pipeline, &context.plan.name);
    let (stage, health) = (format!("index {index}"), &context.listing_health);
    let topic: Arc<str> = names::builds(pipeline, index, Lane::Bulk).into();
    // The ids that were listed as roots: those of this process, for a resumed listing may ask twice.
    let roots_listed: Mutex<Ids> = Mutex::default();
    while !listing.complete {
        let ask = || page_in_time(backlog, context, roots, &listing, &roots_listed);
        let asked = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(End::Shutdown),
            asked = until_answered(health, "list the roots", shutdown, ask) => asked,
        };
        let Some(page) = asked.map_err(|e| StageError::new(&stage, e.message))? else { return Ok(End::Shutdown) };
        let next = after(&listing, &page);
        let batch = Mutex::new(requests(&topic, page.ids, context.clock.now()));
        let append = || async {
            let mut batch = batch.lock().await;
            context.listings.advance(&mut batch, &next).await
        };
        let appended = until_answered(health, "ask for builds of the roots", shutdown, append).await;
        match appended.map_err(|e| StageError::new(&stage, e.message))? {
            Some(Some(state)) => listing = state,
            Some(None) => return Ok(End::Replaced),
            None => return Ok(End::Shutdown),
        }
    }
    Ok(End::Complete(listing.listed))
}

/// Waits until what was asked for before is built so far that retention cannot take the rest, then gives the next page.
async fn page_in_time(
    backlog: impl Fn() -> Option<u64>,
    context: &IndexContext,
    roots: &dyn RootIdSource,
    listing: &Listing,
    roots_listed: &Mutex<Ids>,
) -> Result<IdPage, PageError> {
    until_short(backlog).await;
    page(context, roots, listing, roots_listed).await
}

/// Waits until fewer requests wait than a listing may be ahead of builds; where nobody knows how many do, there may be any number.
async fn until_short(waiting: impl Fn() -> Option<u64>) {
    while waiting().is_none_or(|waiting| waiting > AHEAD) {
        tokio::time::sleep(BACKLOG).await;
    }
}

/// A page that could not be had.
struct PageError {
    class: ErrorClass,
    message: String,
}

impl FailedCall for PageError {
    fn class(&self) -> ErrorClass {
        self.class
    }

    fn message(&self) -> &str {
        &self.message
    }
}

/// The next page: ids to build, and where the one after it starts.
async fn page(
    context: &IndexContext,
    roots: &dyn RootIdSource,
    listing: &Listing,
    roots_listed: &Mutex<Ids>,
) -> Result<IdPage, PageError> {
    let after = listing.after.as_deref();
    if !listing.documents {
        // An index that is not new was built with the ids of these roots: if the graph does not know them now, that is waited for.
        let waits =
            |class| if class == ErrorClass::Fatal && !listing.new_index { ErrorClass::Transient } else { class };
        let failed = |e: GraphError| PageError { class: waits(e.class), message: e.message };
        let page = roots.page(after, PAGE).await.map_err(failed)?;
        if !listing.new_index {
            let mut listed = roots_listed.lock().await;
            page.ids.iter().for_each(|id| listed.add(id));
        }
        return Ok(page);
    }
    let scanned = context.store.scan(after, PAGE).await;
    let mut ids = scanned.map_err(|e| PageError { class: e.class, message: e.message })?;
    let next = if ids.len() == PAGE { ids.last().cloned() } else { None };
    let mut roots_listed = roots_listed.lock().await;
    ids.retain(|id| !roots_listed.contains(id));
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

#[cfg(test)]
mod multitude_tests;

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_listing_waits_while_the_bulk_lane_is_long_or_nobody_knows_how_long_it_is() {
        let waiting = Cell::new(None);
        let mut listing = pin!(until_short(|| waiting.get()));
        for count in [None, Some(AHEAD + 1), Some(u64::MAX - 1), None] {
            waiting.set(count);
            tokio::time::sleep(10 * BACKLOG).await;
            assert!(poll!(&mut listing).is_pending(), "{count:?}");
        }
        waiting.set(Some(AHEAD));
        tokio::time::sleep(2 * BACKLOG).await;
        assert!(poll!(&mut listing).is_ready());
    }
}
