//! The board: a compacted topic on which the processes of a pipeline write how far the listing of each index is, under which plan,
//! and who lists. All of them read it every second or so.
//!
//! A state counts if its revision is above that of every state of the index before it in the topic; so all readers agree, also
//! where two processes write at once. Processes also say there that they are there (see `peers`). A bid asks whether a process is there that runs the plan which the state names: it is answered
//! by the same state, written once more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as Seal, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tributary_event::HybridClock;
use tributary_transport::{Batch, Polled, Producer, Retention, TopicPartition, TopicSpec, Transport, TransportError};

use super::news::{Heard, News};
use super::peers::{GREETING, Greeting, Peers, SILENCE};
use super::state::Listing;
use crate::request::names;

/// Records of one read at most.
const PAGE: usize = 1_000;
/// A process that has not read the board for so long holds no index: another plan may have begun.
pub(super) const LEASE: Duration = Duration::from_secs(10);

/// The board of a pipeline, as one process sees it.
pub struct Board {
    /// The pipeline.
    pub(super) pipeline: String,
    /// Names this process among others of the pipeline.
    pub(super) instance: String,
    /// Whether there may be others.
    pub(super) shared: bool,
    /// What listings take their moments from.
    pub(super) clock: Arc<HybridClock>,
    pub(super) transport: Arc<dyn Transport>,
    place: TopicPartition,
    reading: Mutex<Reading>,
    seen: Seal<Seen>,
    /// Changes with every reading and writing.
    news: News,
}

/// How far the topic was read.
#[derive(Default)]
struct Reading {
    is_made: bool,
    next: u64,
}

#[derive(Default)]
struct Seen {
    notes: BTreeMap<String, Note>,
    bids: BTreeMap<String, Bid>,
    /// When the last reading began that reached the end.
    confirmed: Option<Instant>,
    peers: Peers,
    /// The deadlines of this process's builds, in milliseconds, by index.
    deadlines: BTreeMap<String, u64>,
    /// When it was last durable that this process is there.
    greeted: Option<Instant>,
}

/// The state of an index.
#[derive(Clone)]
pub(super) struct Note {
    pub listing: Listing,
    /// Offset of the last record that has it; none before it was read.
    pub offset: Option<u64>,
    /// When this process heard of it.
    pub since: Instant,
}

/// A question whether those are there whose plan the state names.
#[derive(Clone)]
pub(super) struct Bid {
    pub by: String,
    pub offset: u64,
}

/// What a record says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Post {
    State(Listing),
    Bid(String),
    Greeting(Greeting),
}

impl Board {
    /// The board of a pipeline. `shared`: whether other processes may work on the pipeline.
    pub fn new((pipeline, instance): (&str, &str), transport: Arc<dyn Transport>, shared: bool) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            instance: instance.to_owned(),
            shared,
            clock: Arc::default(),
            transport,
            place: TopicPartition { topic: names::listings(pipeline).into(), partition: 0 },
            reading: Mutex::default(),
            seen: Seal::default(),
            news: News::default(),
        }
    }

    /// The same, over another clock.
    pub fn over_clock(self, clock: Arc<HybridClock>) -> Self {
        Self { clock, ..self }
    }

    /// Reads what is new.
    pub(super) async fn look(&self) -> Result<(), TransportError> {
        let mut reading = self.reading.lock().await;
        if !reading.is_made {
            let name = self.place.topic.to_string();
            self.transport.ensure_topics(&[TopicSpec { name, partitions: 1, retention: Retention::Compact }]).await?;
            reading.is_made = true;
        }
        let began = Instant::now();
        let ends = self.transport.watermarks(&self.place.topic).await?;
        let Some(ends) = ends.first() else { return Ok(()) };
        if ends.high < reading.next {
            // Somebody made the topic anew.
            *reading = Reading { is_made: true, next: 0 };
            let mut seen = self.seen();
            let (deadlines, greeted) = (std::mem::take(&mut seen.deadlines), seen.greeted);
            *seen = Seen { deadlines, greeted, ..Seen::default() };
        }
        while reading.next < ends.high {
            let records = self.transport.read(&self.place, reading.next.max(ends.low), PAGE).await?;
            let behind = records.last().map_or(0, |last| last.offset + 1);
            reading.next = if records.len() < PAGE { ends.high.max(behind) } else { behind };
            self.take(&records);
        }
        self.seen().confirmed = Some(began);
        self.news.tell();
        Ok(())
    }

    fn take(&self, records: &[Polled]) {
        let mut seen = self.seen();
        for record in records {
            let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
            let Ok(index) = std::str::from_utf8(key) else { continue };
            let index = index.strip_suffix(BID).unwrap_or(index);
            // Or the process that greets.
            match serde_json::from_slice(value) {
                Ok(Post::State(listing)) => seen.note(index, listing, Some(record.offset)),
                Ok(Post::Bid(by)) => {
                    seen.bids.insert(index.to_owned(), Bid { by, offset: record.offset });
                }
                Ok(Post::Greeting(greeting)) => match index.strip_suffix(GREETS) {
                    Some(by) if by != self.instance => {
                        seen.peers.hear(by, greeting, self.clock.wall_us(), Instant::now());
                    }
                    _ => {}
                },
                Err(error) => tracing::warn!(index, %error, "a state of a listing cannot be read and does not count"),
            }
        }
    }

    /// The state of an index, as far as it was read.
    pub(super) fn note(&self, index: &str) -> Option<Note> {
        self.seen().notes.get(index).cloned()
    }

    /// The indexes that the board has.
    pub(super) fn indexes(&self) -> Vec<String> {
        self.seen().notes.keys().cloned().collect()
    }

    /// Whether anything was ever written on it.
    pub(super) async fn is_made(&self) -> Result<bool, TransportError> {
        Ok(self.transport.partitions(&self.place.topic).await? > 0)
    }

    /// The last bid for an index.
    pub(super) fn bid(&self, index: &str) -> Option<Bid> {
        self.seen().bids.get(index).cloned()
    }

    /// Whether the board was read a moment ago: nobody can have begun with another plan, and have gone on to work by it. And whether the
    /// others can know of this process, and how long its builds take.
    pub(super) fn is_fresh(&self) -> bool {
        let is_young = |at: Option<Instant>, than: Duration| at.is_some_and(|at| at.elapsed() < than);
        let seen = self.seen();
        !self.shared || is_young(seen.confirmed, LEASE) && is_young(seen.greeted, SILENCE)
    }

    /// The partitions of a topic.
    pub(crate) async fn partitions(&self, topic: &str) -> Result<u32, TransportError> {
        self.transport.partitions(topic).await
    }

    /// This process builds documents of an index by this deadline.
    pub(crate) fn builds(&self, index: &str, deadline: Duration) {
        let deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        self.seen().deadlines.insert(index.to_owned(), deadline);
    }

    /// Says that this process is there, if it is time to.
    pub(super) async fn greet(&self, producer: &mut Option<Box<dyn Producer>>) -> Result<(), TransportError> {
        let deadlines = {
            let seen = self.seen();
            if seen.greeted.is_some_and(|at| at.elapsed() < GREETING) {
                return Ok(());
            }
            seen.deadlines.clone()
        };
        let mut open = match producer.take() {
            Some(open) => open,
            None => self.transport.appender().await?,
        };
        let (mut batch, began) = (Batch::new(), Instant::now());
        let greeting = Greeting { stamp: self.clock.now(), deadlines };
        self.post(&mut batch, &format!("{}{GREETS}", self.instance), &Post::Greeting(greeting));
        open.append(&batch).await?;
        *producer = Some(open);
        self.seen().greeted = Some(began);
        self.news.tell();
        Ok(())
    }

    /// The longest deadline by which any process builds documents of an index.
    pub(crate) fn longest_deadline(&self, index: &str, own: Duration) -> Duration {
        self.seen().peers.deadline(index, Instant::now()).max(own)
    }

    /// Another process whose clock is ahead of this one's by more than clocks may differ, and by how much at least.
    pub(crate) fn ahead(&self) -> Option<(String, Duration)> {
        self.seen().peers.ahead(Instant::now()).map(|(by, ahead)| (by.to_owned(), ahead))
    }

    /// Waits until the board was read after a moment: then every process is known that greeted before it.
    pub(crate) async fn read_since(&self, moment: Instant) {
        let mut news = self.news.subscribe();
        while self.shared && self.seen().confirmed.is_none_or(|at| at < moment) {
            news.changed().await;
        }
    }

    /// Hears of every reading and writing.
    pub(super) fn news(&self) -> Heard {
        self.news.subscribe()
    }

    /// Adds a state to a batch.
    pub(super) fn push(&self, batch: &mut Batch, index: &str, listing: &Listing) {
        self.post(batch, index, &Post::State(listing.clone()));
    }

    /// Notes a state that was appended.
    pub(super) fn put(&self, index: &str, listing: &Listing) {
        self.seen().note(index, listing.clone(), None);
        self.news.tell();
    }

    /// Asks whether those are there whose plan the state of an index names.
    pub(super) async fn ask(&self, producer: &mut dyn Producer, index: &str) -> Result<(), TransportError> {
        let mut batch = Batch::new();
        self.post(&mut batch, &format!("{index}{BID}"), &Post::Bid(self.instance.clone()));
        producer.append(&batch).await
    }

    fn post(&self, batch: &mut Batch, key: &str, post: &Post) {
        let value = serde_json::to_vec(post).unwrap_or_default();
        batch.push(&self.place.topic, self.clock.wall_us() / 1_000, Some(key.as_bytes()), Some(&value));
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the key of a bid. No index has a blank in its name.
const BID: &str = " bid";
/// Ends the key of a greeting.
const GREETS: &str = " greets";

impl Seen {
    fn note(&mut self, index: &str, listing: Listing, offset: Option<u64>) {
        let since = Instant::now();
        match self.notes.get_mut(index) {
            Some(note) if note.listing.revision > listing.revision => {}
            // One that was written here and is read now, or another one that came too late to count.
            Some(note) if note.listing.revision == listing.revision => {
                if note.listing == listing {
                    note.offset = offset.or(note.offset);
                }
            }
            _ => drop(self.notes.insert(index.to_owned(), Note { listing, offset, since })),
        }
    }
}
