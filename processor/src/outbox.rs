//! The way out of a stage: gathers records from many tasks into few appends, and marks tickets done when they are durable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, Reporter, Trouble};
use tributary_transport::{Batch, Headers, Producer, record_limit};

use crate::intake::StageError;
use crate::retry::Backoff;
use crate::tickets::{Held, Ticket};

/// A record on its way out.
#[derive(Debug, Clone)]
pub struct OutRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Headers,
}

/// What is done when records are durable.
#[derive(Debug)]
pub enum Receipt {
    /// A record in flight.
    Ticket(Ticket),
    /// A record that was held.
    Held(Held),
}

impl Receipt {
    fn done(self) {
        match self {
            Self::Ticket(ticket) => ticket.done(),
            Self::Held(held) => held.done(),
        }
    }
}

impl From<Ticket> for Receipt {
    fn from(ticket: Ticket) -> Self {
        Self::Ticket(ticket)
    }
}

impl From<Held> for Receipt {
    fn from(held: Held) -> Self {
        Self::Held(held)
    }
}

#[derive(Debug)]
struct Parcel {
    records: Vec<OutRecord>,
    receipts: Vec<Receipt>,
    /// Room that the records take until they are appended.
    room: Option<OwnedSemaphorePermit>,
}

/// Where tasks put their records. Clones feed the same task.
#[derive(Debug, Clone)]
pub struct Outbox {
    parcels: mpsc::Sender<Parcel>,
    room: Arc<Semaphore>,
    limit: usize,
}

/// The task that appends; run it once.
pub struct OutboxTask {
    stage: String,
    parcels: mpsc::Receiver<Parcel>,
    producer: Box<dyn Producer>,
    health: Reporter,
    trouble: Trouble,
}

const PARCELS: usize = 256;
/// Records of one parcel at most.
const PARCEL: usize = 1_000;
/// Records that wait at most.
const ROOM: usize = 32_000;
const BATCH_BYTES: usize = 1 << 20;

/// An outbox in front of a producer.
pub fn outbox(stage: impl Into<String>, producer: Box<dyn Producer>, health: Reporter) -> (Outbox, OutboxTask) {
    let (sender, parcels) = mpsc::channel(PARCELS);
    let outbox =
        Outbox { parcels: sender, room: Arc::new(Semaphore::new(ROOM)), limit: record_limit(producer.max_record()) };
    (outbox, OutboxTask { stage: stage.into(), parcels, producer, health, trouble: Trouble::default() })
}

impl Outbox {
    /// The most bytes that key, value and headers of a record may have.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Hands records over that nobody waits for.
    ///
    /// # Errors
    /// The stage is stopping.
    pub async fn post<I>(&self, records: I) -> Result<(), StageError>
    where
        I: IntoIterator<Item = OutRecord>,
        I::IntoIter: Send,
    {
        self.send(records, Vec::<Receipt>::new()).await
    }

    /// Hands records over. The receipts are done when the records, and all that were handed over before, are durable. Waits for room; an error means that the
    /// stage is stopping.
    ///
    /// Records are taken one by one as there is room, so that a change with millions of consequences needs no more memory
    /// than one with few.
    pub async fn send<I, R>(&self, records: I, receipts: Vec<R>) -> Result<(), StageError>
    where
        I: IntoIterator<Item = OutRecord>,
        I::IntoIter: Send,
        R: Into<Receipt>,
    {
        let mut receipts: Option<Vec<Receipt>> = Some(receipts.into_iter().map(Into::into).collect());
        let mut records = records.into_iter();
        while let Some(last) = receipts.take() {
            let parcel: Vec<OutRecord> = records.by_ref().take(PARCEL).collect();
            let room = match u32::try_from(parcel.len()) {
                Ok(0) | Err(_) => None,
                Ok(records) => Some(self.room.clone().acquire_many_owned(records).await.map_err(|_| stopping())?),
            };
            // The receipts go with the last records.
            let last = if parcel.len() < PARCEL {
                last
            } else {
                receipts = Some(last);
                Vec::new()
            };
            let parcel = Parcel { records: parcel, receipts: last, room };
            self.parcels.send(parcel).await.map_err(|_| stopping())?;
        }
        Ok(())
    }
}

fn stopping() -> StageError {
    StageError::new("outbox", "the stage is stopping")
}

impl OutboxTask {
    /// Appends until shutdown, or until a fatal error. What is not durable then has tickets that are not done.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StageError> {
        let mut batch = Batch::new();
        self.health.up();
        loop {
            let first = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                parcel = self.parcels.recv() => match parcel {
                    Some(parcel) => parcel,
                    None => return Ok(()),
                },
            };
            let (mut receipts, mut rooms) = (Vec::new(), Vec::new());
            batch.clear();
            let mut next = Some(first);
            while let Some(parcel) = next {
                let now_ms = now_us() / 1_000;
                for record in &parcel.records {
                    batch.push(&record.topic, now_ms, record.key.as_deref(), record.value.as_deref());
                    batch.headers(record.headers.view());
                }
                receipts.extend(parcel.receipts);
                rooms.push(parcel.room);
                next = if batch.size() < BATCH_BYTES { self.parcels.try_recv().ok() } else { None };
            }
            if !batch.is_empty() && !self.append(&batch, &shutdown).await? {
                return Ok(());
            }
            receipts.into_iter().for_each(Receipt::done);
        }
    }

    /// Whether the batch became durable before shutdown.
    async fn append(&mut self, batch: &Batch, shutdown: &CancellationToken) -> Result<bool, StageError> {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            match self.producer.append(batch).await {
                Ok(()) => {
                    self.health.up();
                    if let Some(lasted) = self.trouble.over() {
                        info!(stage = self.stage, ?lasted, "appending again");
                    }
                    return Ok(true);
                }
                Err(error) if error.class == ErrorClass::Transient => {
                    if let Some(lasts) = self.trouble.note(&error.message) {
                        warn!(stage = self.stage, error = error.message, ?lasts, "cannot append; trying again");
                    }
                    self.health.down(error.message);
                    tokio::select! {
                        biased;
                        () = shutdown.cancelled() => return Ok(false),
                        () = tokio::time::sleep(backoff.pause()) => {}
                    }
                }
                Err(error) => return Err(StageError::new(&self.stage, error.message)),
            }
        }
    }
}
