//! Sinks with a ledger: the events of a partition gather, and are given to the sink together with the offset that it keeps beside them.
//! What it keeps decides where a partition goes on, so nothing is there twice, whoever is killed and whoever takes over.

mod partition;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_transport::{Assignment, Batch, Loss, LossCause, Polled, TopicPartition};

use self::partition::{Partition, away};
use super::letters::Letters;
use super::{Delivery, LOOK};
use crate::intake::{Handler, StageError};
use crate::outside::OutsideError;
use crate::retry::Backoff;
use crate::sink::LedgerSink;
use crate::supervise::panicked;
use crate::tickets::Ticket;

/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often gathered events are looked at.
const TICK: Duration = Duration::from_millis(100);

/// The work of a sink with a ledger.
pub(super) struct Work {
    shared: Arc<Shared>,
    partitions: Mutex<HashMap<TopicPartition, Partition>>,
    /// Why partitions cannot be taken over, while that is so.
    opening: std::sync::Mutex<Option<String>>,
}

struct Shared {
    delivery: Delivery,
    sink: Arc<dyn LedgerSink>,
    letters: Letters,
    shutdown: CancellationToken,
}

impl Work {
    pub fn new(delivery: Delivery, sink: Arc<dyn LedgerSink>, shutdown: CancellationToken) -> Self {
        let shared = Arc::new(Shared { delivery, sink, letters: Letters::default(), shutdown });
        Self { shared, partitions: Mutex::default(), opening: std::sync::Mutex::default() }
    }

    /// Commits what has gathered for long enough, tries again what stands still, and does again what is asked for.
    ///
    /// # Errors
    /// A fault of ours.
    pub async fn run(&self) -> Result<(), StageError> {
        let mut looked = Instant::now();
        loop {
            sleep(TICK).await;
            let mut partitions = self.partitions.lock().await;
            let linger = self.shared.sink.linger();
            let now = Instant::now();
            let is_due = |partition: &Partition| match &partition.standstill {
                Some((_, at)) => *at <= now,
                None => partition.since.is_some_and(|since| now - since >= linger),
            };
            let due: Vec<TopicPartition> =
                partitions.iter().filter(|(_, partition)| is_due(partition)).map(|(place, _)| place.clone()).collect();
            self.commit(&mut partitions, due).await?;
            if looked.elapsed() >= LOOK {
                looked = now;
                self.redo(&mut partitions).await;
            }
            self.tell(&partitions);
        }
    }

    /// Commits what partitions have gathered, each by itself.
    async fn commit(
        &self,
        partitions: &mut HashMap<TopicPartition, Partition>,
        places: Vec<TopicPartition>,
    ) -> Result<(), StageError> {
        let mut committing = JoinSet::new();
        for place in places {
            let Some(mut partition) = partitions.remove(&place) else { continue };
            let shared = self.shared.clone();
            committing.spawn(async move {
                partition.commit(&shared).await;
                partition
            });
        }
        while let Some(committed) = committing.join_next().await {
            let Delivery { stream, plan, .. } = &self.shared.delivery;
            let stage = Delivery::stage(stream, &plan.name);
            let partition = committed.map_err(|error| panicked(&stage)(format!("a task panicked: {error}")))?;
            partitions.insert(partition.place.clone(), partition);
        }
        Ok(())
    }

    async fn redo(&self, partitions: &mut HashMap<TopicPartition, Partition>) {
        let parked = &self.shared.delivery.parked;
        if parked.follow().await.is_err() {
            return;
        }
        let mut ghosts = Batch::new();
        parked.take_out_ghosts(&mut ghosts);
        self.shared.letters.append(&ghosts, &self.shared.delivery).await;
        loop {
            let free = partitions.iter().filter(|(_, partition)| partition.standstill.is_none());
            let mine: Vec<TopicPartition> = free.map(|(place, _)| place.clone()).collect();
            let asked_for = parked.asked_for(|place| mine.contains(place), |_| false).await;
            let Ok(asked_for) = asked_for else { return };
            let before = parked.count();
            for again in asked_for {
                if let Some(partition) = partitions.get_mut(&again.record.place) {
                    partition.redo(&self.shared, &again).await;
                }
            }
            if parked.count() == before {
                return;
            }
        }
    }

    /// Says whether all partitions go on.
    fn tell(&self, partitions: &HashMap<TopicPartition, Partition>) {
        let Delivery { stream, plan, working, .. } = &self.shared.delivery;
        let opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let standstill = partitions.values().find_map(|partition| partition.standstill.as_ref());
        match opening.or_else(|| standstill.map(|(why, _)| why.clone())) {
            Some(why) => {
                if working.down(why.clone()) {
                    warn!(stream, sink = plan.name, error = why, "a sink stands still; nothing is skipped");
                }
            }
            None => drop(working.up()),
        }
    }
}

#[async_trait]
impl Handler for Work {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        let mut partitions = self.partitions.lock().await;
        let (most, most_bytes) = self.shared.sink.most();
        let at_once = self.shared.sink.linger().is_zero();
        let mut due: Vec<TopicPartition> = Vec::new();
        for (record, ticket) in records {
            // Of one that was revoked meanwhile, the records are another process's.
            let Some(partition) = partitions.get_mut(&record.place) else { continue };
            partition.gather(&self.shared, record, ticket);
            let is_full = partition.gathered.len() >= most || partition.bytes >= most_bytes;
            if (is_full || at_once) && partition.standstill.is_none() && !due.contains(&partition.place) {
                due.push(partition.place.clone());
            }
        }
        // As much gathers as an intake lets in: the fullest makes room.
        let free = || partitions.values().filter(|partition| partition.standstill.is_none());
        let gathered: usize = free().map(|partition| partition.gathered.len()).sum();
        let bytes: usize = free().map(|partition| partition.bytes).sum();
        if gathered >= room(self.shared.sink.as_ref()).0 / 2 || bytes >= room(self.shared.sink.as_ref()).1 / 2 {
            let fullest = free().max_by_key(|partition| partition.bytes).map(|partition| partition.place.clone());
            due.extend(fullest.filter(|fullest| !due.contains(fullest)));
        }
        self.commit(&mut partitions, due).await?;
        self.tell(&partitions);
        Ok(())
    }

    async fn assigned(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        let mut pauses = self.pauses();
        while let Err(error) = self.shared.delivery.parked.follow().await {
            self.waits_for(away(error).message, &mut pauses).await;
        }
        self.set_opening(None);
        for Assignment { place, committed } in assignments {
            let mut partition = Partition::taken_over(place, *committed);
            // One whose ledger does not answer holds up no other.
            partition.open(&self.shared).await;
            self.partitions.lock().await.insert(place.clone(), partition);
        }
        self.tell(&*self.partitions.lock().await);
        Ok(())
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        self.partitions.lock().await.retain(|place, _| !places.contains(place));
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        for loss in losses {
            let Loss { place, from, to, cause } = loss;
            let is_anew = *cause == LossCause::MadeAnew;
            let mut partitions = self.partitions.lock().await;
            let Some(mut partition) = partitions.remove(place) else { continue };
            drop(partitions);
            let mut pauses = self.pauses();
            if is_anew {
                // The group's offset is one of a topic that is gone.
                partition.unopened = partition.unopened.map(|_| None);
            }
            // What was read before is still there to be given, unless the sink will never take it.
            loop {
                if !is_anew {
                    partition.commit(&self.shared).await;
                }
                match partition.standstill.clone().filter(|_| !is_anew && !partition.is_refused) {
                    Some((why, _)) => self.waits_for(why, &mut pauses).await,
                    None => break,
                }
            }
            // It may have been taken over when the topic had been made anew already.
            if !(is_anew && partition.is_at(&self.shared, *to).await) {
                let first = partition.gathered.first().map_or(*from, |gathered| gathered.record.offset);
                self.shared.delivery.lacks(&[Loss { from: first, ..loss.clone() }]);
            }
            partition.gathered.clear();
            (partition.bytes, partition.since, partition.standstill) = (0, None, None);
            // Offsets behind them are committed when this returns, so the mark is there before.
            loop {
                let moved = match (partition.open(&self.shared).await, is_anew) {
                    (false, _) => Err(OutsideError::transient("the sink does not say where it stands")),
                    // A topic that was made anew may begin below the mark.
                    (true, true) => partition.start_anew(&self.shared, *to).await,
                    (true, false) => partition.goes_on_at(&self.shared, *to).await,
                };
                match moved {
                    Ok(()) => break,
                    Err(error) => {
                        let why = partition.standstill.take().map_or(error.message, |(why, _)| why);
                        self.waits_for(why, &mut pauses).await;
                    }
                }
            }
            self.set_opening(None);
            self.partitions.lock().await.insert(place.clone(), partition);
        }
        Ok(())
    }
}

impl Work {
    fn pauses(&self) -> Backoff {
        Backoff::new(FIRST_PAUSE, self.shared.delivery.plan.redelivery.max_pause)
    }

    fn set_opening(&self, why: Option<String>) {
        *self.opening.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// The same, for as long as it takes: at shutdown it does not return, and is dropped.
    async fn waits_for(&self, why: String, pauses: &mut Backoff) {
        if !self.waits(&OutsideError::transient(why), pauses).await {
            std::future::pending::<()>().await;
        }
    }

    /// Says why a partition cannot be taken over now, and waits before the next try. False: shutdown came first.
    async fn waits(&self, error: &OutsideError, pauses: &mut Backoff) -> bool {
        let Delivery { stream, plan, working, .. } = &self.shared.delivery;
        self.set_opening(Some(error.message.clone()));
        if working.down(error.message.clone()) {
            warn!(stream, sink = plan.name, error = error.message, "a sink does not go on; trying again");
        }
        tokio::select! {
            () = self.shared.shutdown.cancelled() => false,
            () = sleep(pauses.pause()) => true,
        }
    }
}

/// Records, and bytes of them, that may gather in all partitions together.
pub(super) fn room(sink: &dyn LedgerSink) -> (usize, usize) {
    let (records, bytes) = sink.most();
    (records.clamp(20_000, 500_000), bytes.saturating_mul(2).max(16 << 20))
}
