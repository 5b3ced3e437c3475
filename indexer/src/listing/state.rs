//! How far the listing of an index is: kept as a checkpoint of the transport, and owned by one piece of each process, so that a
//! listing that is asked for is durable before anybody relies on it, and replaces the one that is under way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};
use tracing::info;
use tributary_event::Reporter;
use tributary_event::clock::now_us;
use tributary_transport::{Batch, Checkpoint, Producer, Purpose, Transport, TransportError};

use crate::report::Progress;
use crate::request::names;
use crate::store::Prepared;

/// Clocks of two processes differ by less.
const SKEW_US: i64 = 2_000_000;

/// How far the listing of an index's roots is.
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
    /// When it began, in microseconds since the Unix epoch.
    #[serde(default)]
    pub begun_us: i64,
    /// Why every document is built again, where nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Listing {
    /// A listing that begins now.
    fn begin(new_index: bool, why: Option<String>) -> Self {
        Self { new_index, why, begun_us: now_us(), ..Self::default() }
    }
}

/// The listing of one index.
pub struct Listings {
    /// Name of the checkpoint.
    name: String,
    /// Name of the producer.
    producer: String,
    index: String,
    transport: Arc<dyn Transport>,
    held: Mutex<Held>,
    /// The number of times that a listing began in this process.
    begun: watch::Sender<u64>,
    health: Reporter,
    progress: Arc<Progress>,
}

#[derive(Default)]
struct Held {
    /// Opened when there is something to write.
    producer: Option<Box<dyn Producer>>,
    /// None before it was asked for, or if there never was one.
    listing: Option<Listing>,
    is_known: bool,
}

impl Listings {
    /// The listing of an index of a pipeline; `instance` names this process among others of the pipeline. It may begin anew before
    /// anything else of the index is known.
    pub fn new(
        (pipeline, index, instance): (&str, &str, &str),
        transport: Arc<dyn Transport>,
        health: Reporter,
    ) -> Self {
        Self {
            name: names::listing(pipeline, index),
            producer: format!("{pipeline}.{index}.listing.{instance}"),
            index: index.to_owned(),
            transport,
            held: Mutex::default(),
            begun: watch::Sender::new(0),
            health,
            progress: Arc::new(Progress::unknown()),
        }
    }

    /// The name of the index.
    pub fn index(&self) -> &str {
        &self.index
    }

    /// How the index is, as far as its documents are listed.
    pub fn health(&self) -> &Reporter {
        &self.health
    }

    /// How far the listing is.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// The state when a store has been prepared; begins one if the index has none, is new, or was emptied.
    pub(crate) async fn open(&self, prepared: Prepared, documents: u64) -> Result<(), TransportError> {
        let mut held = self.held.lock().await;
        self.know(&mut held).await?;
        // An index that should have documents and has none was created anew and its process died right then, or was emptied.
        let emptied = documents == 0 && held.listing.as_ref().is_some_and(|l| l.complete && l.listed > 0);
        let is_new = prepared == Prepared::Created;
        if held.listing.is_some() && !is_new && !emptied {
            return Ok(());
        }
        // The index is new, whatever an older one's listing says.
        let new_index = is_new || held.listing.is_some();
        self.replace(&mut held, Listing::begin(new_index, None)).await
    }

    /// Begins to list everything anew, from now on, and returns when that is durable: every document is built again, whatever
    /// happens to this process. `why`: what it is good for, where nobody asked for it.
    ///
    /// # Errors
    /// The transport did not answer; nothing is known.
    pub async fn begin_anew(&self, why: Option<String>) -> Result<(), TransportError> {
        let mut held = self.held.lock().await;
        if let Some(why) = &why {
            info!(index = self.index, why, "every document is built again");
            metrics::counter!("tributary_repairs_total", "index" => self.index.clone()).increment(1);
        }
        self.replace(&mut held, Listing::begin(false, why)).await
    }

    /// The same, unless a listing began after this moment already, in microseconds since the Unix epoch.
    pub(crate) async fn begin_after(&self, moment_us: i64, why: String) -> Result<(), TransportError> {
        let mut held = self.held.lock().await;
        self.know(&mut held).await?;
        if held.listing.as_ref().is_some_and(|listing| listing.begun_us > moment_us + SKEW_US) {
            return Ok(());
        }
        drop(held);
        self.begin_anew(Some(why)).await
    }

    /// The present state, and which of this process's listings it is.
    pub(super) async fn now(&self) -> (Listing, u64) {
        let held = self.held.lock().await;
        (held.listing.clone().unwrap_or_default(), *self.begun.borrow())
    }

    /// Hears of new listings.
    pub(super) fn listen(&self) -> watch::Receiver<u64> {
        self.begun.subscribe()
    }

    /// Appends a page's requests and the state after it, unless another listing began meanwhile. Returns whether it did append.
    pub(super) async fn advance(&self, number: u64, mut batch: Batch, next: Listing) -> Result<bool, TransportError> {
        let mut held = self.held.lock().await;
        if *self.begun.borrow() != number {
            return Ok(false);
        }
        batch.checkpoint = Some(self.checkpoint(&next));
        self.append(&mut held, &batch).await?;
        self.tell(&next);
        held.listing = Some(next);
        Ok(true)
    }

    async fn know(&self, held: &mut Held) -> Result<(), TransportError> {
        if held.is_known {
            return Ok(());
        }
        let content = self.transport.checkpoint(&self.name).await?;
        held.listing = content.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        held.is_known = true;
        if let Some(listing) = &held.listing {
            self.tell(listing);
        }
        Ok(())
    }

    async fn replace(&self, held: &mut Held, listing: Listing) -> Result<(), TransportError> {
        let mut batch = Batch::new();
        batch.checkpoint = Some(self.checkpoint(&listing));
        self.append(held, &batch).await?;
        self.tell(&listing);
        held.listing = Some(listing);
        held.is_known = true;
        self.begun.send_modify(|number| *number += 1);
        Ok(())
    }

    async fn append(&self, held: &mut Held, batch: &Batch) -> Result<(), TransportError> {
        let mut producer = match held.producer.take() {
            Some(producer) => producer,
            None => {
                // The topic of checkpoints, which nobody may have made yet.
                self.transport.ensure_topics(&[]).await?;
                self.transport.producer(&self.producer, Purpose::Stage).await?
            }
        };
        producer.append(batch).await?;
        held.producer = Some(producer);
        Ok(())
    }

    fn checkpoint(&self, listing: &Listing) -> Checkpoint {
        Checkpoint { name: self.name.clone(), content: serde_json::to_vec(listing).unwrap_or_default().into() }
    }

    fn tell(&self, listing: &Listing) {
        self.progress.listing.store(!listing.complete, Ordering::Release);
        self.progress.listed.store(listing.listed, Ordering::Release);
        let why = listing.why.as_ref().filter(|_| !listing.complete);
        self.health.note(why.map(|why| format!("every document is built again: {why}")));
    }
}
