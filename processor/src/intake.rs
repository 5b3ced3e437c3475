//! The loop in front of every stage: reads records, hands them on in partition order, bounds what is in flight by pausing partitions,
//! commits the longest done prefix.
//!
//! Commits and the lag are seen to beside that, also while the handler waits or the transport is away. Nothing that works is
//! cancelled for them: reads belong to the consumer, the handler's future is kept, and a lag is measured by a task of its own.
//!
//! On shutdown it stops reading, gives what is in flight a grace period, commits, and returns. On a `Transient` error of
//! the transport it waits and goes on; on a `Fatal` one, and on any error of the handler, it stops the stage.

use std::collections::HashSet;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, Reporter, Trouble};
use tributary_transport::{Assignment, Consumer, Delivery, Loss, LossCause, Polled, TopicPartition, TransportError};

use crate::retry::Backoff;
use crate::tickets::{Room, Ticket, Tickets};

/// Why a stage stopped.
#[derive(Debug, thiserror::Error)]
#[error("{stage}: {message}")]
pub struct StageError {
    /// The stage.
    pub stage: String,
    /// Place, cause, remedy.
    pub message: String,
}

impl StageError {
    /// An error.
    pub fn new(stage: impl Into<String>, message: impl Into<String>) -> Self {
        Self { stage: stage.into(), message: message.into() }
    }
}

/// What a stage does with records.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Takes records over, in partition order. Returns as soon as they are taken, not when they are done: each ticket is
    /// done later, when everything its record caused has its final verdict. May wait for room (back-pressure).
    /// An error stops the stage; tickets of records that were not done are dropped, so that they come again.
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError>;

    /// Partitions became this stage's. Their records come after this returned.
    async fn assigned(&self, _assignments: &[Assignment]) -> Result<(), StageError> {
        Ok(())
    }

    /// Partitions are another process's from now on: it gets the records that are not done. Their tickets no longer count, so what
    /// is left of their work may be dropped.
    async fn revoked(&self, _places: &[TopicPartition]) -> Result<(), StageError> {
        Ok(())
    }

    /// Records are gone that nobody had read. When this returns, whatever makes up for them is durable: only then offsets behind them
    /// are committed. Tickets of these partitions no longer count.
    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError>;
}

/// Bounds and cadence of an intake.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// The stage's name, for messages and metrics.
    pub stage: String,
    /// Records in flight, from which on a partition that has more than its share of them is paused until it has less, so that one that
    /// stands still holds up no other. All together never have twice as many (and one delivery of each).
    pub max_records: usize,
    /// Bytes in flight, likewise.
    pub max_bytes: usize,
    /// Records whose offsets cannot be committed yet, though they may be done: behind one that is not; likewise.
    pub max_ahead: usize,
    /// How often done prefixes are committed.
    pub commit_every: Duration,
    /// How long a shutdown waits for what is in flight.
    pub grace: Duration,
    /// Where the intake tells its lag.
    pub lag: Lag,
    /// Where it tells the lag of all processes together, if somebody wants to know.
    pub backlog: Option<Lag>,
    /// A measurement of the lag that is older than this says nothing.
    pub lag_ages: Duration,
}

/// Records that a stage has not finished, as of a moment ago. Clones share it.
#[derive(Debug, Clone)]
pub struct Lag(Arc<AtomicU64>);

impl Default for Lag {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Lag {
    /// The lag; none while it is not known: before it was first measured, and when it cannot be measured for long.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|lag| *lag != u64::MAX)
    }

    fn set(&self, lag: Option<u64>) {
        self.0.store(lag.unwrap_or(u64::MAX), Ordering::Release);
    }
}

/// How often the lag is measured.
const LAG_EVERY: Duration = Duration::from_millis(500);

impl IntakeSettings {
    /// Usual bounds.
    pub fn new(stage: impl Into<String>) -> Self {
        Self {
            stage: stage.into(),
            max_records: 20_000,
            max_bytes: 16 << 20,
            max_ahead: usize::MAX,
            commit_every: Duration::from_millis(200),
            grace: Duration::from_secs(5),
            lag: Lag::default(),
            backlog: None,
            lag_ages: Duration::from_secs(10),
        }
    }
}

/// Runs a stage until shutdown or a fatal error.
pub async fn run(
    consumer: Box<dyn Consumer>,
    handler: Arc<dyn Handler>,
    settings: IntakeSettings,
    health: Reporter,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    health.up();
    let beside = Beside::new(&settings);
    let lag = metrics::gauge!("tributary_stage_lag_records", "stage" => health.name().to_owned());
    let age = metrics::gauge!("tributary_stage_lag_seconds", "stage" => health.name().to_owned());
    let intake = Intake {
        consumer,
        tickets: Arc::default(),
        paused: HashSet::new(),
        settings,
        health,
        beside,
        lag,
        age,
        measured: Instant::now(),
        reading: Trouble::default(),
        committing: Trouble::default(),
    };
    intake.run(handler.as_ref(), &shutdown).await
}

/// What is due beside the records.
enum Due {
    Commit,
    /// The lag is to be measured.
    Measure,
    /// It was measured.
    Lag(Result<u64, TransportError>),
}

/// Knows what is due when.
struct Beside {
    commits: Interval,
    lags: Interval,
    /// The measurement that is under way, one at most.
    measuring: JoinSet<Result<u64, TransportError>>,
}

impl Beside {
    fn new(settings: &IntakeSettings) -> Self {
        let every = |period| {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            interval
        };
        Self { commits: every(settings.commit_every), lags: every(LAG_EVERY), measuring: JoinSet::new() }
    }

    /// Waits until something is due, and does nothing else. Cancel-safe.
    async fn due(&mut self) -> Due {
        tokio::select! {
            biased;
            _ = self.commits.tick() => Due::Commit,
            _ = self.lags.tick() => Due::Measure,
            Some(measured) = self.measuring.join_next() => Due::Lag(measured.unwrap_or_else(|error| {
                Err(TransportError::caused(ErrorClass::Transient, "measuring the lag was interrupted", error))
            })),
        }
    }
}

struct Intake {
    consumer: Box<dyn Consumer>,
    tickets: Arc<Tickets>,
    /// Partitions that no more is read of for now.
    paused: HashSet<TopicPartition>,
    settings: IntakeSettings,
    health: Reporter,
    beside: Beside,
    lag: metrics::Gauge,
    /// How old the oldest record is that was read and is not done.
    age: metrics::Gauge,
    /// When the lag was last measured.
    measured: Instant,
    reading: Trouble,
    committing: Trouble,
}

impl Intake {
    async fn run(mut self, handler: &dyn Handler, shutdown: &CancellationToken) -> Result<(), StageError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        loop {
            self.make_room();
            let delivery = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                due = self.beside.due() => {
                    self.see_to(due).await?;
                    continue;
                }
                () = self.tickets.progress.notified(), if !self.paused.is_empty() => continue,
                delivery = self.consumer.next() => delivery,
            };
            let goes_on = match delivery {
                Ok(delivery) => {
                    backoff.reset();
                    self.reading.over();
                    self.well();
                    // A handler waits while what is behind it is away. What it did not take comes again.
                    let tickets = self.tickets.clone();
                    self.meanwhile(pin!(deliver(delivery, &tickets, handler)), shutdown).await?
                }
                Err(error) => {
                    let lasts = self.reading.note(&error.message);
                    self.wait_or_stop(error, lasts, "the transport does not answer; waiting")?;
                    let pause = sleep(backoff.pause());
                    let pause = async {
                        pause.await;
                        Ok(())
                    };
                    self.meanwhile(pin!(pause), shutdown).await?
                }
            };
            if !goes_on {
                break;
            }
        }
        self.finish().await
    }

    /// Pauses partitions that have more than their share of the room, while there is none, and resumes those that do not.
    fn make_room(&mut self) {
        let IntakeSettings { max_records: records, max_bytes: bytes, max_ahead: ahead, .. } = self.settings;
        let crowded = self.tickets.crowded(Room { records, bytes, ahead });
        let gone_on: Vec<TopicPartition> = self.paused.difference(&crowded).cloned().collect();
        if !gone_on.is_empty() {
            self.consumer.resume(&gone_on);
        }
        // Again each time: one that was given away and came back is not paused.
        if !crowded.is_empty() {
            self.consumer.pause(&crowded.iter().cloned().collect::<Vec<_>>());
        }
        self.paused = crowded;
    }

    /// Sees to what is due until `work` is done; false: shutdown came first.
    async fn meanwhile(
        &mut self,
        mut work: Pin<&mut impl Future<Output = Result<(), StageError>>>,
        shutdown: &CancellationToken,
    ) -> Result<bool, StageError> {
        loop {
            let due = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(false),
                done = work.as_mut() => return done.map(|()| true),
                due = self.beside.due() => due,
            };
            let (seen_to, done) = both(self.see_to(due), work.as_mut()).await;
            seen_to?;
            if let Some(done) = done {
                return done.map(|()| true);
            }
        }
    }

    async fn see_to(&mut self, due: Due) -> Result<(), StageError> {
        match due {
            Due::Commit => return self.commit().await,
            Due::Measure => {
                if self.beside.measuring.is_empty() {
                    self.measure();
                }
                if self.measured.elapsed() > self.settings.lag_ages {
                    self.settings.lag.set(None);
                    self.lag.set(f64::NAN);
                    self.age.set(f64::NAN);
                }
            }
            Due::Lag(Ok(lag)) => {
                self.measured = Instant::now();
                self.settings.lag.set(Some(lag));
                self.lag.set(lag as f64);
                let oldest_ms = self.tickets.oldest_ms().filter(|_| lag > 0);
                self.age.set(oldest_ms.map_or(0.0, |oldest_ms| (now_us() / 1_000 - oldest_ms).max(0) as f64 / 1_000.0));
            }
            // What is wrong shows in the next read of records, or in the age of the last measurement.
            Due::Lag(Err(_)) => {}
        }
        Ok(())
    }

    /// Begins to measure the lag, and then, if it is wanted, that of all processes.
    fn measure(&mut self) {
        // What is held was worked on already.
        let lag = self.consumer.lag(self.tickets.come_to());
        let backlog = self.settings.backlog.clone().map(|wanted| (wanted, self.consumer.backlog()));
        self.beside.measuring.spawn(async move {
            let lag = lag.await;
            if let Some((wanted, backlog)) = backlog {
                wanted.set(backlog.await.ok());
            }
            lag
        });
    }

    async fn commit(&mut self) -> Result<(), StageError> {
        let offsets = self.tickets.to_commit();
        if offsets.is_empty() {
            return Ok(());
        }
        match self.consumer.commit(&offsets).await {
            Ok(()) => {
                self.tickets.committed(&offsets);
                self.committing.over();
                self.well();
            }
            // Nothing is lost: the prefix stays and is committed at the next tick.
            Err(error) => {
                let lasts = self.committing.note(&error.message);
                self.wait_or_stop(error, lasts, "offsets cannot be committed; trying again")?;
            }
        }
        Ok(())
    }

    /// Something went well; perhaps something else does not.
    fn well(&self) {
        if !self.reading.lasts() && !self.committing.lasts() {
            self.health.up();
        }
    }

    /// Tells trouble if it is to be told. An error that does not pass stops the stage.
    fn wait_or_stop(&self, error: TransportError, lasts: Option<Duration>, what: &str) -> Result<(), StageError> {
        if error.class != ErrorClass::Transient {
            return Err(StageError::new(&self.settings.stage, error.message));
        }
        if let Some(lasts) = lasts {
            warn!(stage = self.health.name(), error = error.message, ?lasts, "{what}");
        }
        self.health.down(error.message);
        Ok(())
    }

    async fn finish(mut self) -> Result<(), StageError> {
        let deadline = Instant::now() + self.settings.grace;
        while self.tickets.in_flight().0 > 0 {
            if timeout_at(deadline, self.tickets.progress.notified()).await.is_err() {
                let left = self.tickets.in_flight().0;
                let stage = &self.settings.stage;
                info!(stage, left, "stopping with records in flight; they come again at the next start");
                break;
            }
        }
        self.commit().await
    }
}

/// Waits for the first, and meanwhile goes on with the second, whose end is given if it came.
async fn both<A: Future, B: Future>(first: A, mut second: Pin<&mut B>) -> (A::Output, Option<B::Output>) {
    let mut first = pin!(first);
    let mut ended = None;
    loop {
        tokio::select! {
            biased;
            output = first.as_mut() => return (output, ended),
            output = second.as_mut(), if ended.is_none() => ended = Some(output),
        }
    }
}

async fn deliver(delivery: Delivery, tickets: &Arc<Tickets>, handler: &dyn Handler) -> Result<(), StageError> {
    match delivery {
        Delivery::Assigned(assignments) => {
            for Assignment { place, committed } in &assignments {
                tickets.assign(place.clone(), committed.is_some());
            }
            handler.assigned(&assignments).await?;
            // From now on the group has an offset, also where nothing comes for long: one that has none had it taken away.
            let unknown = assignments.iter().filter(|assignment| assignment.committed.is_none());
            unknown.for_each(|assignment| tickets.skip(&assignment.place, 0));
        }
        Delivery::Revoked(places) => {
            places.iter().for_each(|place| tickets.revoke(place));
            handler.revoked(&places).await?;
        }
        Delivery::Lost(losses) => {
            for Loss { place, from, to, cause } in &losses {
                let (topic, partition) = (&*place.topic, place.partition);
                let what = match cause {
                    LossCause::Removed => "records are gone that were not read yet",
                    LossCause::MadeAnew => "a topic was deleted and made again; what of it was not read yet is gone",
                };
                warn!(topic, partition, from, to, "{what}");
            }
            handler.lost(&losses).await?;
            losses.iter().for_each(|loss| tickets.skip(&loss.place, loss.to));
        }
        Delivery::Records(records) => {
            let ticketed = |record: Polled| {
                let ticket = tickets.issue(&record)?;
                Some((record, ticket))
            };
            let records: Vec<_> = records.into_iter().filter_map(ticketed).collect();
            if !records.is_empty() {
                handler.handle(records).await?;
            }
        }
    }
    Ok(())
}
