//! The loop in front of every stage: reads records, hands them on in partition order, bounds what is in flight, commits
//! the longest done prefix.
//!
//! On shutdown it stops reading, gives what is in flight a grace period, commits, and returns. On a `Transient` error of
//! the transport it waits and goes on; on a `Fatal` one, and on any error of the handler, it stops the stage.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_event::{ErrorClass, Reporter};
use tributary_transport::{Consumer, Delivery, Polled, TransportError};

use crate::retry::Backoff;
use crate::tickets::{Ticket, Tickets};

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
}

/// Bounds and cadence of an intake.
#[derive(Debug, Clone)]
pub struct IntakeSettings {
    /// The stage's name, for messages and metrics.
    pub stage: String,
    /// Records in flight at most (one delivery may exceed it).
    pub max_records: usize,
    /// Bytes in flight at most (one delivery may exceed it).
    pub max_bytes: usize,
    /// How often done prefixes are committed.
    pub commit_every: Duration,
    /// How long a shutdown waits for what is in flight.
    pub grace: Duration,
    /// Where the intake tells its lag.
    pub lag: Lag,
}

/// Records that a stage has not finished, as of the last time it looked. Clones share it.
#[derive(Debug, Clone)]
pub struct Lag(Arc<AtomicU64>);

impl Default for Lag {
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

impl Lag {
    /// The lag; none before it was first known.
    pub fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|lag| *lag != u64::MAX)
    }
}

/// How often the lag is looked at.
const LAG_EVERY: Duration = Duration::from_millis(500);

impl IntakeSettings {
    /// Usual bounds.
    pub fn new(stage: impl Into<String>) -> Self {
        Self {
            stage: stage.into(),
            max_records: 20_000,
            max_bytes: 16 << 20,
            commit_every: Duration::from_millis(200),
            grace: Duration::from_secs(5),
            lag: Lag::default(),
        }
    }
}

/// Runs a stage until shutdown or a fatal error.
pub async fn run(
    mut consumer: Box<dyn Consumer>,
    handler: Arc<dyn Handler>,
    settings: IntakeSettings,
    health: Reporter,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    let tickets = Arc::new(Tickets::default());
    let mut commits = interval(settings.commit_every);
    commits.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lags = interval(LAG_EVERY);
    lags.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    health.up();
    loop {
        let (records, bytes) = tickets.in_flight();
        let has_room = records < settings.max_records && bytes < settings.max_bytes;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            _ = commits.tick() => {
                commit(consumer.as_mut(), &tickets, &settings, &health).await?;
            }
            _ = lags.tick() => measure_lag(consumer.as_mut(), &settings).await,
            () = tickets.progress.notified(), if !has_room => {}
            delivery = consumer.next(), if has_room => match delivery {
                Ok(delivery) => {
                    backoff.reset();
                    health.up();
                    // A handler waits while what is behind it is away. What it did not take comes again.
                    tokio::select! {
                        delivered = deliver(delivery, &tickets, handler.as_ref()) => delivered?,
                        () = shutdown.cancelled() => break,
                    }
                }
                Err(error) => {
                    wait_or_stop(error, &settings, &health)?;
                    let pause = backoff.pause();
                    tokio::select! {
                        () = shutdown.cancelled() => break,
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            },
        }
    }
    finish(consumer.as_mut(), &tickets, &settings, &health).await
}

/// A lag that cannot be read now stays as it was; what is wrong shows in the next read of records.
async fn measure_lag(consumer: &mut dyn Consumer, settings: &IntakeSettings) {
    if let Ok(lag) = consumer.lag().await {
        settings.lag.0.store(lag, Ordering::Release);
        metrics::gauge!("tributary_stage_lag_records", "stage" => settings.stage.clone()).set(lag as f64);
    }
}

async fn deliver(delivery: Delivery, tickets: &Arc<Tickets>, handler: &dyn Handler) -> Result<(), StageError> {
    match delivery {
        Delivery::Assigned(places) => places.into_iter().for_each(|place| tickets.assign(place)),
        Delivery::Revoked(places) => places.iter().for_each(|place| tickets.revoke(place)),
        Delivery::Records(records) => {
            let ticketed = |record: Polled| {
                let bytes = record.key.as_ref().map_or(0, |k| k.len()) + record.value.as_ref().map_or(0, |v| v.len());
                let ticket = tickets.issue(&record.place, record.offset, bytes)?;
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

async fn commit(
    consumer: &mut dyn Consumer,
    tickets: &Tickets,
    settings: &IntakeSettings,
    health: &Reporter,
) -> Result<(), StageError> {
    let offsets = tickets.to_commit();
    if offsets.is_empty() {
        return Ok(());
    }
    match consumer.commit(&offsets).await {
        Ok(()) => tickets.committed(&offsets),
        // Nothing is lost: the prefix stays and is committed at the next tick.
        Err(error) => wait_or_stop(error, settings, health)?,
    }
    Ok(())
}

fn wait_or_stop(error: TransportError, settings: &IntakeSettings, health: &Reporter) -> Result<(), StageError> {
    if error.class != ErrorClass::Transient {
        return Err(StageError::new(&settings.stage, error.message));
    }
    if health.down(error.message.clone()) {
        let outage_s = health.outage().as_secs();
        warn!(stage = settings.stage, error = error.message, outage_s, "the transport does not answer; waiting");
    }
    Ok(())
}

async fn finish(
    consumer: &mut dyn Consumer,
    tickets: &Tickets,
    settings: &IntakeSettings,
    health: &Reporter,
) -> Result<(), StageError> {
    let deadline = Instant::now() + settings.grace;
    while tickets.in_flight().0 > 0 {
        if tokio::time::timeout_at(deadline, tickets.progress.notified()).await.is_err() {
            let left = tickets.in_flight().0;
            info!(stage = settings.stage, left, "stopping with records in flight; they come again at the next start");
            break;
        }
    }
    commit(consumer, tickets, settings, health).await
}
