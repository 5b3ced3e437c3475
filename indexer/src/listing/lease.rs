//! One process's hold on the listing of an index: it reads the state from the board, changes it, and hears what others made of it.
//!
//! Changes of the state go through a producer that is named after the index, not after the process: whoever opens it fences the
//! process that had it, whose next append fails, and which then begins again by reading what the other wrote. So one process at a
//! time lists, and a page and the place behind it are appended together or not at all.
//!
//! # Plans
//!
//! Two plans of one index must not work at the same time: a document that was built by the former one after the latter listed it
//! would stay so. Who starts with a plan that was never replaced begins at once, and writes so on the board. Who runs another plan
//! reads that within a second or two and ends; if it cannot read, it begins no build and takes no events once its last reading is
//! older than [`LEASE`](super::board::LEASE). The new listing begins when that time is over (and the graph's lag), so it has the
//! higher stamps, and fetches what the others resolved as their last. A process that is started again with a plan that was replaced (a rolling
//! deploy restarts an old one; or a person goes back to it) asks on the board first, and is a standby for as long as it is answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;
use tracing::info;
use tributary_event::clock::SKEW;
use tributary_event::{ErrorClass, Reporter};
use tributary_processor::Backoff;
use tributary_transport::{Batch, Producer, Purpose, TopicPartition, TransportError};

use super::board::{Board, LEASE};
use super::news::Heard;
use super::state::{Claim, Listing, Party, opening};
use crate::listing::fingerprint::Fingerprint;
use crate::report::Progress;
use crate::store::Prepared;

/// A lister of which nothing was heard for so long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// A lister that appends nothing says so often that it is there.
const SIGN: Duration = Duration::from_secs(8);
/// A bid that is not answered within this is free to be taken.
const BID: Duration = Duration::from_secs(15);
/// Topics keep records for longer than this before they remove them by age.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// How often a state is changed anew because another process changed it at the same moment.
const TRIES: u32 = 20;

/// The listing of one index.
pub struct Listings {
    index: String,
    board: Arc<Board>,
    /// Opened when there is something to write; closed when another process has taken it.
    producer: Mutex<Option<Box<dyn Producer>>>,
    /// What this process is to the index, once it has a plan.
    party: OnceCell<Party>,
    /// How long the graph may answer what was before, after a change.
    lag: std::sync::OnceLock<Duration>,
    /// Whether this process works on the index, since it has opened it.
    works: AtomicBool,
    /// The number of the last listing that was told.
    told: AtomicU64,
    health: Reporter,
    progress: Arc<Progress>,
}

/// How opening an index ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This process may work.
    Taken,
    /// Others do, and why.
    Waits(String),
    /// It never may, as long as others do; with cause and remedy.
    Refused(String),
}

impl Listings {
    /// The listing of an index. It may begin anew before anything else of the index is known.
    pub fn new(index: &str, board: Arc<Board>, health: Reporter) -> Self {
        Self {
            index: index.to_owned(),
            board,
            producer: Mutex::default(),
            party: OnceCell::new(),
            lag: std::sync::OnceLock::new(),
            works: AtomicBool::new(false),
            told: AtomicU64::new(0),
            health,
            progress: Arc::new(Progress::unknown()),
        }
    }

    /// What processes tell each other.
    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    /// The name of the index.
    pub fn index(&self) -> &str {
        &self.index
    }

    /// Notes that the group which works for the index begins to read a partition, and never had an offset there (or lost it, as
    /// brokers forget those of groups that are away for long): if records are gone there since the index was listed, it is listed
    /// anew.
    pub(crate) async fn joined(&self, place: &TopicPartition) -> Result<(), TransportError> {
        let transport = &self.board.transport;
        let ends = transport.watermarks(&place.topic).await?;
        let Some(ends) = ends.get(place.partition as usize).filter(|ends| ends.low > 0) else { return Ok(()) };
        let first = if ends.low < ends.high { transport.read(place, ends.low, 1).await? } else { Vec::new() };
        // What is gone is older than what is left.
        let moment_us = match first.first() {
            Some(first) => first.timestamp_ms.saturating_mul(1_000),
            None => self.board.clock.wall_us() - i64::try_from(KEPT.as_micros()).unwrap_or(0),
        };
        let why = format!("records of topic {} were removed that were never read for this index", place.topic);
        self.begin_after(moment_us, why).await
    }

    /// How the index is, as far as its documents are listed.
    pub fn health(&self) -> &Reporter {
        &self.health
    }

    /// How far the listing is.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// Says which plan this process runs, and how long the graph may answer what was before. `is_home`: the documents are in this
    /// process's folder, though others may share the transport.
    pub(crate) fn plan(&self, plan: Fingerprint, lag: Duration, is_home: bool) {
        let is_home = is_home && self.board.shared;
        let _ = self.party.set(Party { instance: self.board.instance.clone(), plan, is_home });
        let _ = self.lag.set(lag);
    }

    fn party(&self) -> Party {
        self.party.get().cloned().unwrap_or_else(|| Party { instance: self.board.instance.clone(), ..Party::default() })
    }

    /// Whether this process may work on the index now. May take a while, in which the others are asked.
    pub(crate) async fn turn(&self) -> Result<Turn, TransportError> {
        self.board.look().await?;
        let party = self.party();
        let Some(state) = self.state() else { return Ok(Turn::Taken) };
        let claim = state.claim(&party);
        if claim == Claim::Free || !self.board.shared || !self.is_answered().await? {
            return Ok(Turn::Taken);
        }
        let difference = state.differs(&party).unwrap_or_default();
        Ok(match claim {
            Claim::Elsewhere(home) => Turn::Refused(format!(
                "its documents are in the data folder of another process ({home}), which is running; several processes need a \
                 store that they share: give the index an Elasticsearch or OpenSearch store, or run one process"
            )),
            _ => Turn::Waits(format!(
                "processes with a newer plan of it are running ({difference}); this one is a standby until they have ended"
            )),
        })
    }

    /// Whether a process is there that works by the plan that the state names.
    async fn is_answered(&self) -> Result<bool, TransportError> {
        let asked = {
            let mut held = self.producer.lock().await;
            let mut producer = self.open(&mut held).await?;
            self.board.ask(producer.as_mut(), &self.index).await?;
            Instant::now()
        };
        // The producer is closed: who lists goes on.
        let mut mine = None;
        while asked.elapsed() < BID {
            self.board.look().await?;
            let bid = self.board.bid(&self.index).filter(|bid| bid.by == self.board.instance);
            mine = mine.or(bid.map(|bid| bid.offset));
            let answer = self.board.note(&self.index).and_then(|note| note.offset);
            if mine.is_some() && answer > mine {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(false)
    }

    /// Notes that a store has been prepared; begins a listing if the index has none, is new, was emptied, or was listed under
    /// another plan.
    pub(crate) async fn open_with(&self, prepared: Prepared, documents: u64) -> Result<(), TransportError> {
        let party = self.party();
        let handover = match self.board.shared {
            true => LEASE + SKEW + Duration::from_secs(1),
            false => Duration::ZERO,
        };
        let handover_us = i64::try_from(handover.as_micros()).unwrap_or(i64::MAX);
        let change = |state: Option<&Listing>| {
            opening(state, &party, (prepared, documents), (self.board.clock.wall_us(), handover_us))
        };
        self.board.look().await?;
        if change(self.state().as_ref()).is_some()
            && let Some(begun) = self.update(&mut Batch::new(), change).await?
        {
            self.say_why(&begun);
        }
        self.works.store(true, Ordering::Release);
        self.hear();
        Ok(())
    }

    /// Begins to list everything anew, from now on, and returns when that is durable: every document is built again, whatever
    /// happens to this process. `why`: what it is good for, where nobody asked for it.
    ///
    /// # Errors
    /// The transport did not answer; nothing is known.
    pub async fn begin_anew(&self, why: Option<String>) -> Result<(), TransportError> {
        self.begin(why, |_| true).await
    }

    /// The same, unless a listing began after this moment already, in microseconds since the Unix epoch.
    pub(crate) async fn begin_after(&self, moment_us: i64, why: String) -> Result<(), TransportError> {
        let moment_us = moment_us + i64::try_from(SKEW.as_micros()).unwrap_or(0);
        self.begin(Some(why), |state| state.is_none_or(|state| state.begun_us <= moment_us)).await
    }

    /// Notes that this process runs the pipeline without the index: when a process opens it again, everything is listed anew.
    pub(super) async fn leave(&self) -> Result<(), TransportError> {
        let leave =
            |state: Option<&Listing>| Some(Listing { left: true, ..state.filter(|state| !state.left)?.clone() });
        if leave(self.state().as_ref()).is_some() {
            self.update(&mut Batch::new(), leave).await?;
        }
        Ok(())
    }

    async fn begin(&self, why: Option<String>, must: impl Fn(Option<&Listing>) -> bool) -> Result<(), TransportError> {
        let by = self.party.get().map(|party| party.instance.clone());
        let change = |state: Option<&Listing>| {
            must(state).then(|| Listing {
                by: by.clone(),
                ..Listing::next(state, false, why.clone(), self.board.clock.wall_us())
            })
        };
        if let Some(begun) = self.update(&mut Batch::new(), change).await? {
            self.say_why(&begun);
        }
        Ok(())
    }

    fn say_why(&self, begun: &Listing) {
        if let Some(why) = &begun.why {
            info!(index = self.index, why, "every document is built again");
            metrics::counter!("tributary_repairs_total", "index" => self.index.clone()).increment(1);
        }
    }

    /// The state, as far as it was read.
    pub(super) fn state(&self) -> Option<Listing> {
        self.board.note(&self.index).map(|note| note.listing)
    }

    /// How long until a listing may begin: the graph shows what happened before the moment that the state names, whoever's clock
    /// told it.
    pub(super) fn due(&self, listing: &Listing) -> Duration {
        let lag = self.lag.get().copied().unwrap_or_default();
        let skew = if self.board.shared && !lag.is_zero() { SKEW } else { Duration::ZERO };
        let shown_us = listing.begun_us.saturating_add(i64::try_from((lag + skew).as_micros()).unwrap_or(i64::MAX));
        Duration::from_micros(u64::try_from(shown_us.saturating_sub(self.board.clock.wall_us())).unwrap_or(0))
    }

    /// Hears of every reading and writing of the board.
    pub(super) fn news(&self) -> Heard {
        self.board.news()
    }

    /// The listing, if it is this process's to go on with: it began it, or who did is gone.
    pub(super) async fn take(&self) -> Result<Option<Listing>, TransportError> {
        let party = self.party();
        let Some(note) = self.board.note(&self.index).filter(|note| !note.listing.complete) else { return Ok(None) };
        let state = note.listing;
        if state.differs(&party).is_some() {
            return Ok(None);
        }
        match &state.by {
            Some(by) if *by == party.instance => return Ok(Some(state)),
            Some(by) if self.board.shared && note.since.elapsed() < SILENCE => {
                return Ok(None);
            }
            _ => {}
        }
        let same = |now: &&Listing| now.revision == state.revision;
        let take =
            |now: Option<&Listing>| Some(Listing { by: Some(party.instance.clone()), ..now.filter(same)?.clone() });
        self.update(&mut Batch::new(), take).await
    }

    /// Appends a page's requests and the place behind it, unless another listing began meanwhile, or another process lists. Returns
    /// the state after it, if it did append.
    pub(super) async fn advance(&self, batch: &mut Batch, next: &Listing) -> Result<Option<Listing>, TransportError> {
        let change = |state: Option<&Listing>| {
            let state = state.filter(|state| state.number == next.number && state.by == next.by)?;
            let Listing { after, listed, complete, documents, .. } = next.clone();
            Some(Listing { after, listed, complete, documents, ..state.clone() })
        };
        self.update(batch, change).await
    }

    /// Whether other processes may work on the index.
    pub(crate) fn is_shared(&self) -> bool {
        self.board.shared
    }

    /// Leaves the listing to others.
    pub(super) async fn release(&self) -> Result<(), TransportError> {
        let me = Some(self.board.instance.clone());
        let is_mine = |state: &&Listing| !state.complete && state.by == me;
        let leave = |state: Option<&Listing>| Some(Listing { by: None, ..state.filter(is_mine)?.clone() });
        if self.board.shared && leave(self.state().as_ref()).is_some() {
            self.update(&mut Batch::new(), leave).await?;
        }
        Ok(())
    }

    /// Answers bids of processes that run a plan which was replaced, and says that this one still lists.
    pub(super) async fn attend(&self) -> Result<(), TransportError> {
        self.hear();
        let (Some(note), Some(party)) = (self.board.note(&self.index), self.party.get()) else { return Ok(()) };
        if note.listing.differs(party).is_some() {
            return Ok(());
        }
        let bid = self.board.bid(&self.index).filter(|bid| bid.by != party.instance);
        let unanswered = bid.is_some_and(|bid| note.offset.is_none_or(|offset| offset < bid.offset));
        let lists = !note.listing.complete && note.listing.by.as_ref() == Some(&party.instance);
        if unanswered || lists && note.since.elapsed() > SIGN {
            self.update(&mut Batch::new(), |state| state.cloned()).await?;
        }
        Ok(())
    }

    /// Why this process may not go on, if another plan has taken its place.
    pub(super) fn replaced(&self) -> Option<String> {
        let party = self.party.get().filter(|_| self.works.load(Ordering::Acquire))?;
        let difference = self.state()?.differs(party)?;
        Some(format!(
            "another process of this pipeline has begun to work on the index by another plan ({difference}); documents of two plans \
             would not agree, so this one ends. Start it again with the newer plan; with the plan that it has, it waits until the \
             others have ended"
        ))
    }

    /// Waits until it is sure that no other plan has taken the place of this process's, as of now. What was begun before that is
    /// older than everything which another plan lists.
    pub(crate) async fn hold(&self) {
        let mut news = self.board.news();
        while self.board.shared && (!self.board.is_fresh() || self.replaced().is_some()) {
            news.changed().await;
        }
    }

    async fn open(&self, held: &mut Option<Box<dyn Producer>>) -> Result<Box<dyn Producer>, TransportError> {
        if let Some(producer) = held.take() {
            return Ok(producer);
        }
        // The topic, which nobody may have made yet.
        self.board.look().await?;
        let id = format!("{}.{}.listing", self.board.pipeline, self.index);
        let producer = self.board.transport.producer(&id, Purpose::Stage).await?;
        // What the producer before this one has appended counts; from now on it can append no more.
        self.board.look().await?;
        Ok(producer)
    }

    /// Changes the state and appends it behind the records of a batch. None: `change` found nothing to change.
    async fn update(
        &self,
        batch: &mut Batch,
        change: impl Fn(Option<&Listing>) -> Option<Listing>,
    ) -> Result<Option<Listing>, TransportError> {
        let mut held = self.producer.lock().await;
        let mut tries = 0;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
        loop {
            let is_new = held.is_none();
            let mut producer = self.open(&mut held).await?;
            let state = self.state();
            let Some(next) = change(state.as_ref()) else {
                *held = Some(producer);
                return Ok(None);
            };
            let next = Listing { revision: state.map_or(0, |state| state.revision) + 1, ..next };
            let records = batch.len();
            self.board.push(batch, &self.index, &next);
            let appended = producer.append(batch).await;
            batch.truncate(records);
            let error = match appended {
                Ok(()) => {
                    *held = Some(producer);
                    if !is_new || self.counts(&next).await? {
                        self.board.put(&self.index, &next);
                        self.hear();
                        return Ok(Some(next));
                    }
                    None
                }
                // Another process has the producer now, as long as it does not say the same when it is opened.
                Err(error) if error.class == ErrorClass::Fatal => Some(error),
                Err(error) => return Err(error),
            };
            tries += 1;
            if let Some(error) = error.filter(|_| tries >= TRIES) {
                return Err(error);
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// Whether a state that was appended is the one that readers find.
    async fn counts(&self, appended: &Listing) -> Result<bool, TransportError> {
        let began = Instant::now();
        loop {
            self.board.look().await?;
            match self.state() {
                Some(state) if state.revision >= appended.revision => return Ok(state == *appended),
                _ if began.elapsed() > SILENCE => {
                    let text = format!("index {}: what was written of its listing cannot be read yet", self.index);
                    return Err(TransportError::new(ErrorClass::Transient, text));
                }
                // An unfinished append of a process that was killed is before it.
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Takes notice of the state, and tells it.
    pub(super) fn hear(&self) {
        let Some(listing) = self.state() else { return };
        if self.told.swap(listing.number, Ordering::AcqRel) != listing.number {
            self.progress.restart();
        }
        self.progress.listing.store(!listing.complete, Ordering::Release);
        self.progress.listed.store(listing.listed, Ordering::Release);
        let why = listing.why.as_ref().filter(|_| !listing.complete);
        self.health.note(why.map(|why| format!("every document is built again: {why}")));
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
