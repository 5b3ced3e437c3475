//! The loop that drives a source into a producer. It knows traits only.
//!
//! Two tasks: this one reads and encodes, the other appends, so that decoding goes on while an append is under way.
//! Between them go whole batches, three at most (one filling, one waiting, one being appended), so memory is bounded by
//! three times the batch limits whatever the size of a transaction. A mark travels with its batch as the checkpoint, and
//! comes back when it is durable; only then it is acknowledged.
//!
//! A batch is handed over when the writer is free and the batch is full, or its first record has lingered. While the
//! writer is busy the batch grows up to its limits, which makes batches small when there is little to do and large under
//! load.

mod oversized;
mod traced;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tributary_event::clock::now_us;
use tributary_event::debezium::{Encoder, encode_event_key};
use tributary_event::{ChangeEvent, ErrorClass, Op, Reporter, TableSchema, Trouble, traces};
use tributary_transport::{Batch, Checkpoint, CloudEvent, Producer};

use self::oversized::Guard;
use self::traced::Traced;
use crate::error::ConnectorError;
use crate::settings::{BatchLimits, ConnectorSettings};
use crate::source::{Mark, Part, Source};

/// How long an append that failed transiently waits before it is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// What became of the publishing.
pub struct Published {
    /// `Ok` after a shutdown.
    pub result: Result<(), ConnectorError>,
    /// Whether anything was made durable.
    pub progressed: bool,
}

/// Publishes a source until it fails or `shutdown` is cancelled; then what was read is appended and acknowledged.
///
/// Not cancel-safe: if the future is dropped, so is the producer, perhaps in the middle of an append.
pub async fn publish<S: Source>(
    settings: &ConnectorSettings,
    mut source: S,
    encoder: Encoder,
    producer: Box<dyn Producer>,
    health: Reporter,
    shutdown: CancellationToken,
) -> Published {
    // As many as can be under way, so that handing over never waits.
    let (full, batches) = mpsc::channel(2);
    let (durable, done) = mpsc::channel(3);
    let guard = Guard::new(settings, producer.max_record());
    let (source_name, trouble) = (settings.name.clone(), Trouble::default());
    let writer =
        Writer { source: source_name, producer, health, batches, durable, shutdown: shutdown.clone(), trouble };
    let task = AbortOnDropHandle::new(tokio::spawn(writer.run()));
    let mut publisher = Publisher::new(settings, guard, encoder, full, done);
    let read = publisher.run(&mut source, &shutdown).await;
    // What was read completely is published also when the source failed.
    let flushed = publisher.finish(&mut source).await;
    source.close().await;
    let progressed = publisher.progressed;
    drop(publisher);
    let written = task.await.unwrap_or_else(|error| Err(ConnectorError::Task(error.to_string())));
    // The writer's failure is the cause of the reader's.
    Published { result: written.and(read).and(flushed), progressed }
}

/// A batch on its way, and the mark behind it.
struct Load<M> {
    batch: Batch,
    mark: Option<M>,
    commit_us: Option<i64>,
    /// When what was read was done in the database, as the source itself says.
    told_us: Option<i64>,
    /// The captures that are traced.
    traced: Vec<Traced>,
}

impl<M> Load<M> {
    fn empty(batch: Batch) -> Self {
        Self { batch, mark: None, commit_us: None, told_us: None, traced: Vec::new() }
    }
}

struct Publisher<M> {
    name: String,
    limits: BatchLimits,
    guard: Guard,
    encoder: Encoder,
    /// See [`ConnectorSettings::cloud_events`].
    cloud_events: Option<String>,
    topics: Topics,
    filling: Load<M>,
    spare: Vec<Batch>,
    under_way: usize,
    lingers_until: Option<Instant>,
    checkpoint_due: Instant,
    urgent: bool,
    progressed: bool,
    full: Option<mpsc::Sender<Load<M>>>,
    done: mpsc::Receiver<Load<M>>,
    events: metrics::Counter,
    lag: metrics::Gauge,
}

impl<M: Mark> Publisher<M> {
    fn new(
        settings: &ConnectorSettings,
        guard: Guard,
        encoder: Encoder,
        full: mpsc::Sender<Load<M>>,
        done: mpsc::Receiver<Load<M>>,
    ) -> Self {
        let label = settings.name.clone();
        Self {
            name: settings.name.clone(),
            limits: settings.batch.clone(),
            guard,
            encoder,
            cloud_events: settings.cloud_events.clone(),
            topics: Topics { settings: settings.clone(), known: Vec::new() },
            filling: Load::empty(Batch::new()),
            spare: vec![Batch::new(), Batch::new()],
            under_way: 0,
            lingers_until: None,
            // The first mark is made durable at once: a slot that is lost later is then known to be lost.
            checkpoint_due: Instant::now(),
            urgent: false,
            progressed: false,
            full: Some(full),
            done,
            events: metrics::counter!("tributary_connector_events_total", "source" => label.clone()),
            lag: metrics::gauge!("tributary_connector_lag_seconds", "source" => label),
        }
    }

    async fn run<S: Source<Mark = M>>(
        &mut self,
        source: &mut S,
        shutdown: &CancellationToken,
    ) -> Result<(), ConnectorError> {
        let mut part = Part::default();
        loop {
            let deadline = self.deadline();
            if self.writer_is_free() && (self.is_full() || deadline.is_some_and(|d| d <= Instant::now())) {
                self.hand_over()?;
                continue;
            }
            let reading = !self.is_full();
            let waiting = deadline.filter(|_| self.writer_is_free());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                load = self.done.recv() => self.durable(source, load)?,
                news = next_or_keep_alive(source, &mut part, reading) => {
                    news?;
                    self.absorb(&mut part).await?;
                }
                () = sleep_until(waiting.unwrap_or(self.checkpoint_due)), if waiting.is_some() => {}
            }
        }
    }

    /// Appends what is left, and waits until everything is durable.
    async fn finish<S: Source<Mark = M>>(&mut self, source: &mut S) -> Result<(), ConnectorError> {
        while self.filling.mark.is_some() || self.under_way > 0 {
            if self.filling.mark.is_some() && self.writer_is_free() {
                self.hand_over()?;
            }
            // At the end of the channel the writer has stopped, and says why itself.
            match self.done.recv().await {
                Some(load) => self.durable(source, Some(load))?,
                None => break,
            }
        }
        self.full = None;
        Ok(())
    }

    /// When the batch that is filling should go, at the latest.
    fn deadline(&self) -> Option<Instant> {
        self.filling.mark.as_ref()?;
        match self.lingers_until {
            Some(until) => Some(until),
            None if self.urgent => Some(Instant::now()),
            None => Some(self.checkpoint_due),
        }
    }

    fn is_full(&self) -> bool {
        self.filling.batch.size() >= self.limits.bytes || self.filling.batch.len() >= self.limits.records
    }

    fn writer_is_free(&self) -> bool {
        // One batch may wait while another is appended, but only a full one is worth queueing.
        self.under_way == 0 || (self.under_way == 1 && self.is_full())
    }

    /// Takes a part over. On an error nothing of it is in the batch, for the mark behind it never will be.
    async fn absorb(&mut self, part: &mut Part<M>) -> Result<(), ConnectorError> {
        let Some(mark) = part.mark.take() else { return Ok(()) };
        let Load { batch, traced, .. } = &mut self.filling;
        let before = batch.len();
        for event in &part.events {
            let (records, bytes) = (batch.len(), batch.size());
            let topic = self.topics.of(&event.table);
            let told = self.cloud_events.as_deref();
            write_with(batch, topic, &mut self.encoder, (event, told), |encoder, out| encoder.value(event, out));
            // With a delete's tombstone, which has a key at most.
            let size = batch.size() - bytes;
            if !self.guard.fits(size) {
                batch.truncate(records);
                let published = self.guard.publish(batch, topic, &mut self.encoder, event, size).await;
                if published.is_err() {
                    batch.truncate(before);
                    return published;
                }
            }
            traced.extend(Traced::of(event));
        }
        if let Some(last) = part.events.last() {
            self.events.increment(part.events.len() as u64);
            self.filling.commit_us = Some(last.commit_us);
            let linger = self.limits.linger;
            self.lingers_until.get_or_insert_with(|| Instant::now() + linger);
        }
        if let Some(lag) = part.lag {
            self.filling.told_us = Some(now_us().saturating_sub(i64::try_from(lag.as_micros()).unwrap_or(i64::MAX)));
        }
        self.urgent |= part.urgent;
        self.filling.mark = Some(mark);
        part.events.clear();
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), ConnectorError> {
        let batch = self.spare.pop().unwrap_or_default();
        let mut load = std::mem::replace(&mut self.filling, Load::empty(batch));
        load.batch.checkpoint = load.mark.as_ref().map(|m| Checkpoint { name: self.name.clone(), content: m.encode() });
        self.lingers_until = None;
        self.urgent = false;
        self.checkpoint_due = Instant::now() + self.limits.checkpoint_interval;
        let sent = self.full.as_ref().is_some_and(|full| full.try_send(load).is_ok());
        if !sent {
            return Err(ConnectorError::Task("the writer has stopped".into()));
        }
        self.under_way += 1;
        Ok(())
    }

    fn durable<S: Source<Mark = M>>(&mut self, source: &mut S, load: Option<Load<M>>) -> Result<(), ConnectorError> {
        let Some(mut load) = load else { return Err(ConnectorError::Task("the writer has stopped".into())) };
        self.under_way -= 1;
        self.progressed = true;
        if let Some(mark) = &load.mark {
            source.acknowledge(mark);
        }
        let lag = load.told_us.or(load.commit_us).map_or(0, |us| now_us().saturating_sub(us));
        self.lag.set(lag as f64 / 1e6);
        load.traced.drain(..).for_each(|traced| traced.end(&self.name));
        load.batch.clear();
        self.spare.push(load.batch);
        Ok(())
    }
}

/// Reads the next part, or only keeps the connection alive while there is no room for one.
async fn next_or_keep_alive<S: Source>(
    source: &mut S,
    part: &mut Part<S::Mark>,
    reading: bool,
) -> Result<(), ConnectorError> {
    if reading { source.next(part).await } else { source.keep_alive().await }
}

/// Writes an event's record, whose value is written by `value`, and the tombstone behind a delete. `source`: where it comes from, if its
/// record has headers of CloudEvents.
pub(crate) fn write_with(
    batch: &mut Batch,
    topic: &Arc<str>,
    encoder: &mut Encoder,
    (event, source): (&ChangeEvent, Option<&str>),
    value: impl FnOnce(&mut Encoder, &mut Vec<u8>),
) {
    let time = event.capture_us / 1_000;
    let decimals = encoder.decimals();
    let key = |out: &mut Vec<u8>| encode_event_key(out, event, decimals);
    batch.write(topic, time, key, |out| {
        value(encoder, out);
        true
    });
    if let Some(source) = source {
        let (id, kind) = (event.sequence.to_string(), format!("{}.{}", event.table.schema, event.table.name));
        let (op, sequence, committed_us) = (event.op, event.sequence, Some(event.commit_us));
        CloudEvent { id: &id, source, kind: &kind, op, sequence, committed_us }.put_for_others(batch);
    }
    if let Some(context) = traces::of_change(event) {
        batch.header(traces::TRACEPARENT, context.to_string().as_bytes());
    }
    // What a delete of more than a row removes has keys of its own, which no tombstone of this one takes away.
    if event.op == Op::Delete && event.scope.is_row() && !event.table.key.is_empty() {
        batch.write(topic, time, key, |_| false);
    }
}

/// The topics of the tables seen so far.
struct Topics {
    settings: ConnectorSettings,
    known: Vec<(Arc<TableSchema>, Arc<str>)>,
}

impl Topics {
    fn of(&mut self, table: &Arc<TableSchema>) -> &Arc<str> {
        let found = self.known.iter().position(|(known, _)| Arc::ptr_eq(known, table));
        let index = found.unwrap_or_else(|| {
            // A table has one schema at a time; its topic stays.
            self.known.retain(|(known, _)| known.schema != table.schema || known.name != table.name);
            self.known.push((table.clone(), self.settings.topic(&table.schema, &table.name).into()));
            self.known.len() - 1
        });
        &self.known[index].1
    }
}

/// The task that appends.
struct Writer<M> {
    source: String,
    producer: Box<dyn Producer>,
    health: Reporter,
    batches: mpsc::Receiver<Load<M>>,
    durable: mpsc::Sender<Load<M>>,
    shutdown: CancellationToken,
    trouble: Trouble,
}

impl<M: Mark> Writer<M> {
    /// Ends when there are no more batches, or with the first error that is not transient.
    async fn run(mut self) -> Result<(), ConnectorError> {
        while let Some(load) = self.batches.recv().await {
            self.append(&load.batch).await?;
            if self.durable.send(load).await.is_err() {
                break;
            }
        }
        Ok(())
    }

    async fn append(&mut self, batch: &Batch) -> Result<(), ConnectorError> {
        loop {
            match self.producer.append(batch).await {
                Ok(()) => {
                    if self.trouble.lasts() {
                        self.health.up();
                    }
                    if let Some(lasted) = self.trouble.over() {
                        tracing::info!(source = self.source, ?lasted, "the transport accepts events again");
                    }
                    return Ok(());
                }
                Err(error) if error.class == ErrorClass::Transient && !self.shutdown.is_cancelled() => {
                    if let Some(lasts) = self.trouble.note(&error.message) {
                        tracing::warn!(source = self.source, %error, ?lasts, "the transport does not accept events; trying again");
                    }
                    self.health.down(error.message);
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = self.shutdown.cancelled() => {}
            }
        }
    }
}
