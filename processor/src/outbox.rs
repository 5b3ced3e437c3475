//! The way out of a stage: gathers records from many tasks into few appends, and marks tickets done when they are durable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, Reporter};
use tributary_transport::{Batch, Producer};

use crate::intake::StageError;
use crate::retry::Backoff;
use crate::tickets::Ticket;

/// A record on its way out.
#[derive(Debug, Clone)]
pub struct OutRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Parcel {
    records: Vec<OutRecord>,
    tickets: Vec<Ticket>,
}

/// Where tasks put their records. Clones feed the same task.
#[derive(Debug, Clone)]
pub struct Outbox(mpsc::Sender<Parcel>);

/// The task that appends; run it once.
pub struct OutboxTask {
    stage: String,
    parcels: mpsc::Receiver<Parcel>,
    producer: Box<dyn Producer>,
    health: Reporter,
}

const PARCELS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// An outbox in front of a producer.
pub fn outbox(stage: impl Into<String>, producer: Box<dyn Producer>, health: Reporter) -> (Outbox, OutboxTask) {
    let (sender, parcels) = mpsc::channel(PARCELS);
    (Outbox(sender), OutboxTask { stage: stage.into(), parcels, producer, health })
}

impl Outbox {
    /// Hands records over. The tickets are done when the records are durable. Waits for room; an error means that the
    /// stage is stopping.
    pub async fn send(&self, records: Vec<OutRecord>, tickets: Vec<Ticket>) -> Result<(), StageError> {
        let stopping = |_| StageError::new("outbox", "the stage is stopping");
        self.0.send(Parcel { records, tickets }).await.map_err(stopping)
    }
}

impl OutboxTask {
    /// Appends until shutdown, or until a fatal error. What is not durable then has tickets that are not done.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StageError> {
        let mut batch = Batch::new();
        self.health.up();
        loop {
            let first = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                parcel = self.parcels.recv() => match parcel {
                    Some(parcel) => parcel,
                    None => return Ok(()),
                },
            };
            let mut tickets = Vec::new();
            batch.clear();
            let mut next = Some(first);
            while let Some(parcel) = next {
                let now_ms = now_us() / 1_000;
                for record in &parcel.records {
                    batch.push(&record.topic, now_ms, record.key.as_deref(), record.value.as_deref());
                }
                tickets.extend(parcel.tickets);
                next = if batch.size() < BATCH_BYTES { self.parcels.try_recv().ok() } else { None };
            }
            if !batch.is_empty() && !self.append(&batch, &shutdown).await? {
                return Ok(());
            }
            tickets.into_iter().for_each(Ticket::done);
        }
    }

    /// Whether the batch became durable before shutdown.
    async fn append(&mut self, batch: &Batch, shutdown: &CancellationToken) -> Result<bool, StageError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            match self.producer.append(batch).await {
                Ok(()) => {
                    self.health.up();
                    return Ok(true);
                }
                Err(error) if error.class == ErrorClass::Transient => {
                    if self.health.down(error.message.clone()) {
                        warn!(stage = self.stage, error = error.message, "cannot append; trying again");
                    }
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(false),
                        () = tokio::time::sleep(backoff.pause()) => {}
                    }
                }
                Err(error) => return Err(StageError::new(&self.stage, error.message)),
            }
        }
    }
}
