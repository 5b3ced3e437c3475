//! Looking again at what changed: late, when a graph that lags shows it, and for the last time, when no build is under way that does
//! not know of it (see `settle`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use tributary_processor::StageError;
use tributary_transport::TopicPartition;

use super::affected::{Affected, Gathering, SUPERNODE};
use super::settle::{Batch, Look, Settling, Times};
use super::{Resolver, note};
use crate::context::{IndexContext, Rule};
use crate::graph::{GraphError, Vertex};
use crate::request::Cause;

/// Batches that are looked at again at a time.
const LOOKS: usize = 4;

/// The changes that are to be looked at again, and who waits for them.
#[derive(Debug)]
pub struct Waiting {
    settling: Mutex<Settling>,
    /// There is something to look at, or room for more.
    news: Notify,
    /// Who has it may gather very many documents.
    pub(super) many: Arc<Semaphore>,
    /// A vertex that more documents embed has its documents built in the bulk lane.
    pub(super) supernode: usize,
}

impl Waiting {
    /// Nothing waits.
    pub fn new(times: Times) -> Self {
        Self {
            settling: Mutex::new(Settling::new(times)),
            news: Notify::new(),
            many: Arc::new(Semaphore::new(1)),
            supernode: SUPERNODE,
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Settling> {
        self.settling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolver {
    /// Leaves changes to be looked at again. Waits while too many wait.
    pub(super) async fn wait_for_looks(&self, batch: Batch) {
        loop {
            let room = self.settling.news.notified();
            {
                let mut settling = self.settling.lock();
                if settling.has_room() {
                    settling.add(batch, Instant::now());
                    break;
                }
            }
            room.await;
        }
        self.settling.news.notify_waiters();
    }

    /// Looks again at what changed, until shutdown.
    pub(super) async fn settle(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), StageError> {
        // Several at a time: where very many documents are asked for, that takes minutes.
        let mut looks: JoinSet<Result<(), StageError>> = JoinSet::new();
        loop {
            let news = self.settling.news.notified();
            let next = if looks.len() < LOOKS { self.settling.lock().next(self.longest_build()) } else { None };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(looked) = looks.join_next() => {
                    looked.map_err(|e| StageError::new("resolve", format!("a task panicked: {e}")))??;
                    self.settling.news.notify_waiters();
                }
                () = async { sleep_until(next.unwrap_or_else(Instant::now)).await }, if next.is_some() => {
                    let due = self.settling.lock().due(Instant::now(), self.longest_build());
                    let Some((look, due, batch)) = due else { continue };
                    let resolver = self.clone();
                    looks.spawn(async move {
                        match look {
                            Look::Late => Box::pin(resolver.look_late(batch, due)).await,
                            Look::Last => Box::pin(resolver.look_last(batch, due)).await,
                        }
                    });
                    // There is room for more that wait.
                    self.settling.news.notify_waiters();
                }
                () = news => {}
            }
        }
    }

    /// The graph shows now what it may not have shown at the first look.
    async fn look_late(&self, mut batch: Batch, due: Instant) -> Result<(), StageError> {
        for index in &self.indexes {
            index.agree_on_time(0).await;
        }
        let stamp = self.clock.now();
        let asks = self.indexes.iter().all(|index| index.obeys(Rule::LateLook));
        let (parents, unanswered) = self.parents(batch.asked.keys().filter(|_| asks)).await?;
        for (vertex, (place, offset)) in &batch.asked {
            if let Some(error) = unanswered.get(vertex) {
                self.set_aside(place, *offset, error).await?;
            }
        }
        let changed_at = batch.changed.iter().map(|(_, _, stamp)| stamp).max().unwrap_or(stamp);
        let news: Vec<Vertex> = parents.into_iter().filter(|parent| batch.changed.last(parent).is_none()).collect();
        news.iter().for_each(|vertex| batch.changed.note(vertex, changed_at));
        let mut gathering = Gathering::default();
        for index in &self.indexes {
            let mut affected = Affected { documents: note(index, &news, self.clock.now()), ..Affected::default() };
            self.look_up(index, &news, &mut affected, &mut gathering).await?;
            affected.documents.extend(self.unsure_roots(index, &batch).await?);
            // Supernodes first: what is asked for because of them was not missed.
            let supernodes = Affected { supernodes: std::mem::take(&mut affected.supernodes), ..Affected::default() };
            self.request_again(index, supernodes, &mut batch, stamp).await?;
            self.ask_for_supernodes(index, &mut batch, stamp).await?;
            self.request_again(index, affected, &mut batch, stamp).await?;
            self.request_missed(index, &batch, stamp).await?;
        }
        batch.asked.clear();
        self.settling.lock().looked_late(batch, due);
        Ok(())
    }

    /// The longest that any build takes.
    fn longest_build(&self) -> Duration {
        self.indexes.iter().map(|index| index.times().longest_build()).max().unwrap_or_default()
    }

    /// Nobody builds any more from before the graph showed the changes, at `shown`.
    async fn look_last(&self, batch: Batch, shown: Instant) -> Result<(), StageError> {
        for index in &self.indexes {
            index.builds_are_over(shown).await;
        }
        let stamp = self.clock.now();
        for index in self.indexes.iter().filter(|index| index.obeys(Rule::Settle)) {
            self.refresh(index).await?;
            self.request_missed(index, &batch, stamp).await?;
        }
        self.list_emptied(&batch.emptied).await?;
        let first = batch.changed.iter().map(|(_, _, stamp)| stamp).min().unwrap_or(stamp);
        self.indexes.iter().for_each(|index| index.forget_requested(first));
        self.outbox.send(Vec::new(), batch.held).await
    }

    async fn request_again(
        &self,
        index: &IndexContext,
        affected: Affected,
        batch: &mut Batch,
        stamp: u64,
    ) -> Result<(), StageError> {
        let Some(cause) = batch.cause.clone().filter(|_| affected.len() > 0) else { return Ok(()) };
        tell_missed(index, affected.len());
        let cause = Cause { id: format!("{}/{stamp}", cause.id), ..cause };
        self.request(index, affected, (&cause, stamp), batch).await
    }

    /// A dead letter of an event with a vertex whose parents could not be asked for.
    async fn set_aside(&self, place: &TopicPartition, offset: u64, error: &GraphError) -> Result<(), StageError> {
        match self.watcher.record(place, offset, &self.fan_out_health).await? {
            Some(record) => self.outbox.post([self.letter_of(&record, error).await]).await,
            // It is gone meanwhile, so that there is nothing to set aside.
            None => {
                let why = format!("an event of topic {} was removed before it was resolved", place.topic);
                self.concerned.list_anew(place, &why).await
            }
        }
    }
}

/// Documents missed a change at first.
pub(super) fn tell_missed(index: &IndexContext, documents: u64) {
    let name = &index.plan.name;
    debug!(index = name, documents, "documents missed a change at first, and are built again");
    metrics::counter!("tributary_missed_documents_total", "index" => name.clone()).increment(documents);
}
