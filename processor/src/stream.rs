//! Streams: change events in, through the steps of a plan, into topics; each event once.
//!
//! Every partition of the stream's tables has a producer of its own. What a run of records has become is appended together with the
//! offset up to which it was read, the partition's mark: both are durable, or none. Whoever takes the partition over opens the producer
//! anew, which ends what its former owner still does, and goes on from the mark. The group's offsets follow, and may be behind: what lies
//! before the mark is not done twice.
//!
//! Where a step fails, its partition stands still: nothing is skipped, `/health` says which event it is and what to do, and other streams
//! and indexes go on. So do other partitions, until as many records wait as may be in flight.

mod attributes;
mod beginning;
mod holding;
mod memory;
mod partition;
mod seen;
mod steps;
pub mod tap;

pub(crate) use self::attributes::Attributes;
pub(crate) use self::steps::metadata;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Mutex, Notify};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_dsl::plan::StreamPlan;
use tributary_event::{ErrorClass, Op, Reporter};
use tributary_transport::{
    Assignment, Batch, Consumer, ConsumerSettings, Loss, Polled, TopicPartition, Transport, TransportError,
};

use self::beginning::Beginning;
use self::partition::Partition;
use self::steps::Steps;
use self::tap::Taps;
use crate::answered::until_answered;
use crate::intake::{self, Handler, IntakeSettings, Lag, StageError};
use crate::outside::{Changes, Enricher};
use crate::parked::Parked;
use crate::tickets::Ticket;

/// Records of one delivery at most. What becomes of those of a partition is appended together, and a broker needs some time for each
/// transaction, however small.
const DELIVERY: usize = 8_000;
/// Partitions that are taken over at a time.
const OPENING: usize = 16;
/// How often letters are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What stands still is tried again after so many looks.
const AGAIN: u32 = 5;

/// Gives the record that was added to a batch last the headers of an event of a stream, as if it had come of a change with a number.
pub fn put_attributes(batch: &mut Batch, stream: &str, op: Op, sequence: u64, committed_us: i64) {
    let (id, source, kind) = (sequence.to_string(), format!("/test/{stream}").into(), stream.into());
    Attributes { id, source, kind, op, sequence, committed_us: Some(committed_us) }.put(batch);
}

/// A stream of a pipeline that runs.
pub struct Stream {
    /// The pipeline's name.
    pub pipeline: String,
    /// What it does.
    pub plan: Arc<StreamPlan>,
    /// Where events come from and go to.
    pub transport: Arc<dyn Transport>,
    /// What asks the services of its steps, by the steps' names.
    pub enrichers: HashMap<String, Arc<dyn Enricher>>,
    /// Who hears of its records before its steps do.
    pub changes: Option<Arc<dyn Changes>>,
    /// Who watches.
    pub taps: Arc<Taps>,
    /// What its steps have set aside.
    pub parked: Arc<Parked>,
    /// How its reader is.
    pub reading: Reporter,
    /// How its steps and its sinks are.
    pub working: Reporter,
    /// How many events it has not done.
    pub lag: Lag,
}

impl Stream {
    /// The stage of its dead letters, and its name in messages.
    pub fn stage(name: &str) -> String {
        format!("stream {name}")
    }

    /// The group that reads it.
    pub fn group(&self) -> String {
        format!("{}.{}.stream", self.pipeline, self.plan.name)
    }

    /// Runs until shutdown or a fatal error.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StageError> {
        let stage = Self::stage(&self.plan.name);
        let failed = |message: String| StageError::new(&stage, message);
        let note = || Beginning::note(&self.pipeline, &self.plan, self.transport.as_ref());
        let noted = until_answered(&self.reading, "note where a stream begins", &shutdown, note).await;
        let Some(beginning) = noted.map_err(|e| failed(e.message))? else { return Ok(()) };
        let settings = ConsumerSettings {
            group: self.group(),
            topics: self.plan.from.iter().map(|table| table.topic.clone()).collect(),
            max_records: DELIVERY,
            // Where the stream begins is its marks' matter.
            from_start: true,
        };
        let join = || self.transport.consumer(settings.clone());
        let joined = until_answered(&self.reading, "join the group of a stream", &shutdown, join).await;
        let Some(consumer): Option<Box<dyn Consumer>> = joined.map_err(|e| failed(e.message))? else { return Ok(()) };
        let settings = IntakeSettings { lag: self.lag.clone(), ..IntakeSettings::new(&*stage) };
        let reading = self.reading.clone();
        self.working.up();
        let work = Arc::new(Work {
            steps: Arc::new(self.steps()),
            stream: Arc::new(self),
            beginning,
            partitions: Mutex::default(),
            shutdown: shutdown.clone(),
            opening: AtomicBool::default(),
            news: Notify::new(),
        });
        let retrying = async {
            for look in 1_u32.. {
                tokio::time::sleep(LOOK).await;
                if look.is_multiple_of(AGAIN) {
                    work.retry().await;
                }
                work.redo().await;
            }
        };
        tokio::select! {
            ended = intake::run(consumer, work.clone(), settings, reading, shutdown) => ended,
            () = retrying => Ok(()),
            ended = work.let_go() => ended,
        }
    }

    fn steps(&self) -> Steps {
        let enricher = |step: &str| self.enrichers.get(step).cloned();
        Steps::new(&self.plan, &self.pipeline, &enricher, self.taps.clone())
    }

    /// Records of a partition are gone that the stream has not done, and nothing makes up for them.
    fn lacks(&self, place: &TopicPartition, from: u64, to: u64) {
        let (stream, topic, partition) = (&self.plan.name, &*place.topic, place.partition);
        metrics::counter!("tributary_stream_lost_records_total", "stream" => stream.clone())
            .increment(to.saturating_sub(from).max(1));
        warn!(
            stream,
            topic,
            partition,
            from,
            to,
            "records were removed from a topic before the stream read them, or the topic was made anew; its sinks lack what they would \
             have become (raise the retention of the transport)"
        );
    }
}

/// The work on the partitions that are this process's.
struct Work {
    stream: Arc<Stream>,
    beginning: Beginning,
    steps: Arc<Steps>,
    partitions: Mutex<HashMap<TopicPartition, Partition>>,
    shutdown: CancellationToken,
    /// Whether a partition is being taken over, which says itself how that goes.
    opening: AtomicBool,
    /// Something may be held.
    news: Notify,
}

#[async_trait]
impl Handler for Work {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        if let Some(changes) = &self.stream.changes {
            changes.are_read(&records.iter().map(|(record, _)| record).collect::<Vec<_>>()).await;
        }
        let mut by_place: HashMap<TopicPartition, Vec<(Polled, Ticket)>> = HashMap::new();
        for record in records {
            by_place.entry(record.0.place.clone()).or_default().push(record);
        }
        self.work(by_place).await
    }

    async fn assigned(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        self.opening.store(true, Ordering::Release);
        self.partitions.lock().await.retain(|place, _| !assignments.iter().any(|given| given.place == *place));
        let open = || self.open(assignments);
        let what = "take partitions of a stream over";
        let opened = until_answered(&self.stream.working, what, &self.shutdown, open).await;
        let Some(()) = opened.map_err(|e| self.failed(e.message))? else { return Ok(()) };
        self.opening.store(false, Ordering::Release);
        self.tell(&*self.partitions.lock().await);
        Ok(())
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        let mut partitions = self.partitions.lock().await;
        partitions.retain(|place, _| !places.contains(place));
        self.tell(&partitions);
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        for loss in losses {
            let ask = || self.stream.transport.topic_id(&loss.place.topic);
            let asked = until_answered(&self.stream.working, "find out which topic it is", &self.shutdown, ask).await;
            let Some(topic) = asked.map_err(|e| self.failed(e.message))? else { return Ok(()) };
            let mut partitions = self.partitions.lock().await;
            let Some(partition) = partitions.get_mut(&loss.place) else { continue };
            if let Some(first) = partition.skips(&self.steps, loss, topic, &self.stream.working).await {
                self.stream.lacks(&loss.place, first, loss.to);
            }
        }
        let partitions = self.partitions.lock().await;
        self.tell(&partitions);
        Ok(())
    }
}

impl Work {
    /// What ends the stage.
    fn failed(&self, message: String) -> StageError {
        StageError::new(Stream::stage(&self.stream.plan.name), message)
    }

    /// Takes partitions over that are not taken over yet, some at a time: a broker takes its time to fence a former owner.
    async fn open(&self, assignments: &[Assignment]) -> Result<(), TransportError> {
        let taken: HashSet<TopicPartition> = self.partitions.lock().await.keys().cloned().collect();
        let mut left = assignments.iter().filter(|assignment| !taken.contains(&assignment.place));
        let (mut opening, mut partitions, mut outcome) = (FuturesUnordered::new(), Vec::new(), Ok(()));
        loop {
            for Assignment { place, .. } in left.by_ref().take(OPENING - opening.len()) {
                opening.push(Partition::open(&self.stream, &self.beginning, place));
            }
            // Nothing else is waited for meanwhile: what is half open may hold what whoever has the partitions waits for.
            match opening.next().await {
                None => break,
                Some(Ok(partition)) => partitions.push((partition.place().clone(), partition)),
                Some(Err(error)) if outcome.is_ok() || error.class != ErrorClass::Transient => outcome = Err(error),
                Some(Err(_)) => {}
            }
        }
        self.partitions.lock().await.extend(partitions);
        outcome
    }

    /// Does records of partitions, each by itself, and lets go of what they have held long enough.
    async fn work(&self, by_place: HashMap<TopicPartition, Vec<(Polled, Ticket)>>) -> Result<(), StageError> {
        let mut partitions = self.partitions.lock().await;
        let mut working = JoinSet::new();
        for (place, records) in by_place {
            // Of one that was revoked meanwhile, the records are another process's.
            let Some(mut partition) = partitions.remove(&place) else { continue };
            let (steps, health) = (self.steps.clone(), self.stream.working.clone());
            working.spawn(async move {
                partition.work(&steps, records, &health).await;
                (place, partition)
            });
        }
        while let Some(worked) = working.join_next().await {
            let (place, partition) = worked.map_err(|e| self.failed(format!("a task panicked: {e}")))?;
            partitions.insert(place, partition);
        }
        self.tell(&partitions);
        drop(partitions);
        self.news.notify_one();
        Ok(())
    }

    /// Lets go of what is held, when it is due.
    async fn let_go(&self) -> Result<(), StageError> {
        loop {
            let next = self.partitions.lock().await.values().filter_map(Partition::next_due).min();
            match next {
                None => self.news.notified().await,
                Some(next) => {
                    tokio::select! {
                        () = sleep_until(next) => {}
                        () = self.news.notified() => continue,
                    }
                    let now = Instant::now();
                    let is_due = |partition: &Partition| partition.next_due().is_some_and(|due| due <= now);
                    let partitions = self.partitions.lock().await;
                    let due = partitions.iter().filter(|(_, partition)| is_due(partition));
                    let due = due.map(|(place, _)| (place.clone(), Vec::new())).collect();
                    drop(partitions);
                    self.work(due).await?;
                }
            }
        }
    }

    /// Tries again what stands still.
    async fn retry(&self) {
        let mut partitions = self.partitions.lock().await;
        for partition in partitions.values_mut().filter(|partition| partition.standstill().is_some()) {
            partition.retry(&self.stream, &self.beginning, &self.steps).await;
        }
        self.tell(&partitions);
    }

    /// Does again what was set aside and is asked for.
    async fn redo(&self) {
        // Whoever needs the transport says that it is away; letters can wait.
        if self.stream.parked.follow().await.is_err() {
            return;
        }
        let mut partitions = self.partitions.lock().await;
        if let Some(partition) = partitions.values_mut().next() {
            partition.lay_ghosts(&self.stream.working).await;
        }
        // What stands still would keep its letters, and those of others from being read.
        let free = partitions.iter().filter(|(_, partition)| partition.standstill().is_none());
        let mine: HashSet<TopicPartition> = free.map(|(place, _)| place.clone()).collect();
        loop {
            let asked_for = self.stream.parked.asked_for(|place| mine.contains(place), |_| false).await;
            let Ok(asked_for) = asked_for else { return };
            let before = self.stream.parked.count();
            for again in &asked_for {
                if let Some(partition) = partitions.get_mut(&again.record.place) {
                    partition.redo(&self.steps, again, &self.stream.working).await;
                }
            }
            // What is next for a key may be done at once.
            if self.stream.parked.count() == before {
                return;
            }
        }
    }

    /// Says whether all partitions go on.
    fn tell(&self, partitions: &HashMap<TopicPartition, Partition>) {
        if self.opening.load(Ordering::Acquire) {
            return;
        }
        match partitions.values().find_map(Partition::standstill) {
            Some(why) => {
                if self.stream.working.down(why) {
                    warn!(stream = self.stream.plan.name, error = why, "a stream stands still; nothing is skipped");
                }
            }
            None => {
                self.stream.working.up();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tributary_dsl::plan::{OnError, Origin, Start, StreamInput, StreamPlan};

    /// A stream without steps over topics.
    pub(super) fn plan(topics: &[&str], start: Start) -> StreamPlan {
        let input = |topic: &&str| StreamInput { topic: (*topic).into(), origin: Origin::Topic };
        StreamPlan {
            name: "s".into(),
            from: topics.iter().map(input).collect(),
            ops: Vec::new(),
            start,
            steps: Vec::new(),
            on_error: OnError::Stop,
            max_event: 8 << 20,
            deliveries: Vec::new(),
            keeps_events: false,
            topics: Vec::new(),
        }
    }
}
