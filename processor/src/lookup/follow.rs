//! Keeps a table up to its topic: lists its rows if it is of a captured table, reads what is new, and says how it is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_dsl::plan::Keep;
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, Reporter};
use tributary_transport::{Polled, TopicId, TopicPartition, Transport, TransportError, Watermarks};

use super::Table;
use super::change::{self, Change};
use super::progress::{Progress, Reading, Stage};
use super::store::{Applied, Sizes, Store, StoreError};
use crate::outside::OutsideError;
use crate::retry::Backoff;

/// Records that are read at a time.
const PAGE: usize = 2_000;
/// How often it is looked for new records.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is asked whether the topic is still the same.
const IDENTITY: Duration = Duration::from_secs(1);
/// How often it is noted that there are none.
const NOTE: i64 = 600_000;
/// The last records of a partition are looked for among so many offsets.
const LAST: u64 = 50;

/// Why a table is not at the ends of its topic.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Transport(#[from] TransportError),
    #[error("{0}")]
    Source(#[from] OutsideError),
    #[error("{0}")]
    Store(#[from] StoreError),
    /// It takes more than its limit.
    #[error("{0}")]
    Limit(String),
}

/// A table that is open.
struct Follower {
    table: Arc<Table>,
    transport: Arc<dyn Transport>,
    store: Arc<Store>,
    progress: Progress,
    /// When the topic's identity was asked for, and what it was.
    identity: Option<(Instant, Option<TopicId>)>,
}

/// What came of reading.
enum Read {
    /// The ends are reached.
    Whole,
    /// It begins anew.
    Anew,
}

fn now_ms() -> i64 {
    now_us() / 1_000
}

impl Table {
    /// Keeps it up to its topic, until shutdown.
    pub async fn follow(self: Arc<Self>, transport: Arc<dyn Transport>, health: Reporter, shutdown: CancellationToken) {
        health.down("it is being read");
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut follower: Option<Follower> = None;
        while !shutdown.is_cancelled() {
            let sequence = follower.as_ref().map_or(0, |follower| follower.progress.sequence);
            let look = self.waiting.begin(sequence);
            let read = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                read = self.look(&mut follower, &transport) => read,
            };
            let pause = match read {
                Ok(()) => {
                    self.waiting.done(look);
                    backoff.reset();
                    if let Some(follower) = &follower {
                        follower.tell(&health);
                    }
                    LOOK
                }
                Err(trouble) => {
                    let why = trouble.to_string();
                    if health.down(why.clone()) {
                        warn!(table = self.plan.name, error = why, "a table cannot be read; trying again");
                    }
                    self.waiting.failed(look, &why);
                    match trouble {
                        // What was written is not known; and a file that failed is opened anew.
                        Trouble::Store(_) => {
                            follower = None;
                            self.write().store = None;
                        }
                        Trouble::Limit(why) => {
                            follower = None;
                            let mut state = self.write();
                            (state.store, state.trouble) = (None, Some(why));
                        }
                        Trouble::Transport(_) | Trouble::Source(_) => {}
                    }
                    backoff.pause()
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(pause) => {}
                () = self.waiting.woken() => {}
            }
        }
        // Whoever follows it next opens the file.
        self.write().store = None;
    }

    async fn look(
        self: &Arc<Self>,
        follower: &mut Option<Follower>,
        transport: &Arc<dyn Transport>,
    ) -> Result<(), Trouble> {
        let trouble = self.write().trouble.clone();
        if let Some(trouble) = trouble {
            return Err(Trouble::Limit(trouble));
        }
        let open = match follower {
            Some(open) => open,
            None => follower.insert(Follower::open(self.clone(), transport.clone()).await?),
        };
        open.catch_up().await?;
        let mut state = self.write();
        if state.store.is_none() {
            state.store = Some(open.store.clone());
        }
        Ok(())
    }
}

impl Follower {
    /// Opens a table, and looks whether what it has is still of its topic.
    async fn open(table: Arc<Table>, transport: Arc<dyn Transport>) -> Result<Self, Trouble> {
        let (store, progress) = match table.plan.keep {
            Keep::Memory => (Store::memory(), Progress::default()),
            Keep::Disk => {
                let file = table.file.clone();
                let opening = tokio::task::spawn_blocking(move || Store::disk(&file)).await;
                opening.map_err(|e| StoreError(format!("opening a table: {e}")))??
            }
        };
        let mark = table.mark();
        let mut open = Self { table, transport, store: Arc::new(store), progress, identity: None };
        if open.progress.stage == Stage::New {
            let anew = open.table.anew();
            // There is nothing that could be forgotten.
            if anew.is_none() && open.table.plan.keep == Keep::Disk {
                let _ = std::fs::remove_file(mark);
            }
            drop(anew);
            return Ok(open);
        }
        let anew = match open.is_other().await? {
            Some(why) => Some(why.to_owned()),
            None => std::fs::read_to_string(mark).ok(),
        };
        match anew {
            Some(why) => open.begin_anew(&why).await?,
            None => info!(table = open.name(), rows = open.store.sizes().rows, "a table goes on where it was"),
        }
        Ok(open)
    }

    fn name(&self) -> &str {
        &self.table.plan.name
    }

    /// Which rows these are, and what they look like.
    fn print(&self) -> String {
        let plan = &self.table.plan;
        let key = plan.key.as_ref().map_or("", |key| key.text());
        let rows = self.table.listing.as_ref().map_or_else(String::new, |listing| listing.print());
        format!("1 {} {key} {rows}", plan.topic)
    }

    /// Why what is kept is not what is to be kept, if that is so.
    async fn is_other(&mut self) -> Result<Option<&'static str>, Trouble> {
        if self.progress.print != self.print() {
            return Ok(Some("the pipeline says something else of it"));
        }
        if self.table.listing.is_none() && self.progress.is_forgotten(now_ms()) {
            return Ok(Some("nobody has read it for so long that keys may have been taken out unseen"));
        }
        let (topic, ends) = self.ends().await?;
        Ok(self.progress.is_over(topic, &ends))
    }

    fn place(&self, partition: usize) -> TopicPartition {
        TopicPartition { topic: self.table.plan.topic.as_str().into(), partition: partition as u32 }
    }

    /// Which topic it is, and where its partitions end. That another one was made under its name is said [`IDENTITY`] later at most: then what
    /// was read meanwhile is forgotten with all else.
    async fn ends(&mut self) -> Result<(Option<TopicId>, Vec<Watermarks>), Trouble> {
        let (topic, name) = (&self.table.plan.topic, &self.table.plan.name);
        let id = match self.identity {
            Some((asked, id)) if asked.elapsed() < IDENTITY => id,
            _ => {
                let id = self.transport.topic_id(topic).await?;
                self.identity = Some((Instant::now(), id));
                id
            }
        };
        let ends = self.transport.watermarks(topic).await?;
        if ends.is_empty() {
            let message = format!("there is no topic {topic} for the table {name}");
            return Err(TransportError::new(ErrorClass::Transient, message).into());
        }
        Ok((id, ends))
    }

    /// Reads until the ends are reached that the topic has after the call.
    async fn catch_up(&mut self) -> Result<(), Trouble> {
        loop {
            let anew = self.table.anew().clone();
            if let Some(why) = anew {
                self.begin_anew(&why).await?;
            }
            if self.progress.stage == Stage::New {
                self.begin().await?;
            }
            while let Stage::Listing(place) = &self.progress.stage {
                let place = place.clone();
                self.list(place.as_deref()).await?;
            }
            if let Read::Whole = self.read().await? {
                return Ok(());
            }
        }
    }

    /// Forgets everything.
    async fn begin_anew(&mut self, why: &str) -> Result<(), Trouble> {
        info!(table = self.name(), topic = self.table.plan.topic, why, "a table is read anew");
        let taken = self.table.anew().take();
        self.table.write().store = None;
        let (store, progress) = (self.store.clone(), Progress::default());
        let cleared = tokio::task::spawn_blocking(move || store.clear(&Progress::default())).await;
        let cleared = cleared.unwrap_or_else(|e| Err(StoreError(format!("clearing a table: {e}"))));
        let mut anew = self.table.anew();
        if let Err(error) = cleared {
            *anew = anew.take().or(taken);
            return Err(error.into());
        }
        self.progress = progress;
        // What came meanwhile has its mark again, for it holds the lock while it makes it.
        if anew.is_none() && self.table.plan.keep == Keep::Disk {
            let _ = std::fs::remove_file(self.table.mark());
        }
        Ok(())
    }

    /// Begins: from the ends of the topic where rows are listed, else from its beginning.
    async fn begin(&mut self) -> Result<(), Trouble> {
        let listing = self.table.listing.clone();
        if let Some(listing) = &listing {
            listing.is_captured().await;
        }
        let (mut partitions, mut newest_ms) = (Vec::new(), None);
        self.identity = None;
        let (topic, ends) = self.ends().await?;
        for (partition, ends) in ends.into_iter().enumerate() {
            let mut next = ends.low;
            if listing.is_some() {
                // How old the table is, its last change says.
                let from = ends.high.saturating_sub(LAST).max(ends.low);
                let last = self.transport.read(&self.place(partition), from, LAST as usize).await?;
                if let Some(last) = last.iter().rfind(|record| record.offset < ends.high) {
                    newest_ms = newest_ms.max(Some(last.timestamp_ms));
                }
                next = ends.high;
            }
            partitions.push(Reading { next });
        }
        let stage = if listing.is_some() { Stage::Listing(None) } else { Stage::Following };
        let (print, seen_ms) = (self.print(), now_ms());
        let newest_ms = newest_ms.or(listing.is_some().then_some(seen_ms));
        let progress = Progress { print, stage, topic, partitions, newest_ms, seen_ms, ..Progress::default() };
        self.apply(Vec::new(), progress).await.map(drop)
    }

    /// Takes a page of rows over.
    async fn list(&mut self, after: Option<&str>) -> Result<(), Trouble> {
        let Some(listing) = self.table.listing.clone() else { return Ok(()) };
        let page = listing.page(after).await?;
        let changes = page.rows.into_iter().map(|(key, row)| Change::listed(&key, row)).collect();
        let stage = match page.next {
            Some(next) => Stage::Listing(Some(next)),
            None => Stage::Following,
        };
        self.apply(changes, Progress { stage, ..self.progress.clone() }).await.map(drop)
    }

    /// Reads what is new, to the ends of all partitions.
    async fn read(&mut self) -> Result<Read, Trouble> {
        let (topic, ends) = self.ends().await?;
        if let Some(why) = self.progress.is_over(topic, &ends) {
            self.begin_anew(why).await?;
            return Ok(Read::Anew);
        }
        let behind = |(read, ends): (&Reading, &Watermarks)| ends.high.saturating_sub(read.next);
        let behind: u64 = self.progress.partitions.iter().zip(&ends).map(behind).sum();
        metrics::gauge!("tributary_table_behind_records", "table" => self.name().to_owned()).set(behind as f64);
        for (partition, ends) in ends.iter().enumerate() {
            let place = self.place(partition);
            while let Some(from) =
                self.progress.partitions.get(partition).map(|p| p.next).filter(|next| *next < ends.high)
            {
                let records = self.transport.read(&place, from, PAGE).await?;
                if records.is_empty() {
                    // What is left has no records in it: marks of transactions.
                    self.progress.partitions.iter_mut().skip(partition).take(1).for_each(|read| read.next = ends.high);
                    break;
                }
                if let Applied::Lacking { key, columns } = self.take(partition, &records).await? {
                    let (key, columns) = (String::from_utf8_lossy(&key).into_owned(), columns.join(", "));
                    let why = format!(
                        "the event of the row {key} lacks {columns}, and no row here has that: its key changed, or the event was too large \
                         (`value` may leave such columns out, and with REPLICA IDENTITY FULL every event has them)"
                    );
                    self.begin_anew(&why).await?;
                    return Ok(Read::Anew);
                }
            }
        }
        let now = now_ms();
        let first = !self.progress.is_whole;
        if first || now - self.progress.seen_ms > NOTE {
            self.apply(Vec::new(), Progress { is_whole: true, seen_ms: now, ..self.progress.clone() }).await?;
        }
        if first {
            let Sizes { rows, bytes } = self.store.sizes();
            info!(table = self.name(), rows, bytes, "a table is whole");
        }
        Ok(Read::Whole)
    }

    /// Takes records of a partition over.
    async fn take(&mut self, partition: usize, records: &[Polled]) -> Result<Applied, Trouble> {
        let changes: Vec<Change> = records.iter().filter_map(|record| change::of(&self.table.plan, record)).collect();
        let mut progress = Progress { seen_ms: now_ms(), ..self.progress.clone() };
        for change in &changes {
            progress.sequence = progress.sequence.max(change.sequence());
            if let Change::Empty { sequence } = change {
                progress.emptied = progress.emptied.max(*sequence);
            }
        }
        if let (Some(reading), Some(last)) = (progress.partitions.get_mut(partition), records.last()) {
            reading.next = last.offset + 1;
            let newest = records.iter().map(|record| record.timestamp_ms).max();
            progress.newest_ms = progress.newest_ms.max(newest);
        }
        self.apply(changes, progress).await
    }

    /// Makes changes and progress durable together, where the table is kept so.
    async fn apply(&mut self, changes: Vec<Change>, progress: Progress) -> Result<Applied, Trouble> {
        let (store, kept, limit) = (self.store.clone(), progress.clone(), self.table.plan.limit);
        let applying = tokio::task::spawn_blocking(move || store.apply(&changes, &kept, limit)).await;
        let applied = applying.map_err(|e| StoreError(format!("changing a table: {e}")))??;
        match &applied {
            Applied::Kept => self.progress = progress,
            Applied::Lacking { .. } => {}
            Applied::TooLarge(sizes) => {
                let (name, rows) = (self.name(), sizes.rows);
                let other = match self.table.plan.keep {
                    Keep::Memory => ", or say `keep: disk` with a larger one",
                    Keep::Disk => "",
                };
                return Err(Trouble::Limit(format!(
                    "the table {name} has more than its `limit` of {limit} bytes, with {rows} rows: raise it{other}"
                )));
            }
        }
        Ok(applied)
    }

    fn tell(&self, health: &Reporter) {
        let plan = &self.table.plan;
        let gauge = |name: &'static str, value: f64| metrics::gauge!(name, "table" => plan.name.clone()).set(value);
        let sizes = self.store.sizes();
        let age =
            self.progress.newest_ms.map(|newest| Duration::from_millis((now_ms() - newest).max(0).cast_unsigned()));
        gauge("tributary_table_behind_records", 0.0);
        gauge("tributary_table_rows", sizes.rows as f64);
        gauge("tributary_table_bytes", sizes.bytes as f64);
        gauge("tributary_table_version", self.progress.version() as f64);
        if let Some(age) = age {
            gauge("tributary_table_age_seconds", age.as_secs_f64());
        }
        match plan.max_age.filter(|max| age.is_none_or(|age| age > *max)) {
            Some(max) => {
                let newest = match age {
                    Some(age) => format!("its newest change is {:?} old", Duration::from_secs(age.as_secs())),
                    None => "it has no change yet".to_owned(),
                };
                let why = format!("{newest}, and its `max_age` is {max:?}: does anybody still write {}?", plan.topic);
                if health.down(why.clone()) {
                    warn!(table = plan.name, error = why, "a table is old");
                }
            }
            None => drop(health.up()),
        }
    }
}
