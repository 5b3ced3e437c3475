//! Sinks with a ledger: the events of a partition gather, and are given to the sink together with the offset that it keeps beside them.
//! What it keeps decides where a partition goes on, so nothing is there twice, whoever is killed and whoever takes over.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_dsl::plan::OnError;
use tributary_transport::{Assignment, Batch, Loss, Polled, TopicPartition, TransportError};

use super::letters::Letters;
use super::{Delivery, LOOK, event};
use crate::intake::{Handler, StageError};
use crate::outside::OutsideError;
use crate::parked::Again;
use crate::retry::Backoff;
use crate::sink::{Committed, Entry, LedgerSink, OutEvent};
use crate::tickets::Ticket;

/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How often gathered events are looked at.
const TICK: Duration = Duration::from_millis(100);

/// The work of a sink with a ledger.
pub(super) struct Work {
    shared: Arc<Shared>,
    partitions: Mutex<HashMap<TopicPartition, Partition>>,
}

struct Shared {
    delivery: Delivery,
    sink: Arc<dyn LedgerSink>,
    letters: Letters,
    shutdown: CancellationToken,
}

/// What is known of a partition.
struct Partition {
    place: TopicPartition,
    /// Where the ledger stands.
    mark: Option<u64>,
    gathered: Vec<Gathered>,
    bytes: usize,
    since: Option<Instant>,
    /// Why it does not go on, and when it is tried again.
    standstill: Option<(String, Instant)>,
    tries: u32,
}

struct Gathered {
    record: Polled,
    ticket: Ticket,
    /// None: nothing for the sink.
    event: Result<Option<OutEvent>, String>,
}

impl Work {
    pub fn new(delivery: Delivery, sink: Arc<dyn LedgerSink>, shutdown: CancellationToken) -> Self {
        let shared = Arc::new(Shared { delivery, sink, letters: Letters::default(), shutdown });
        Self { shared, partitions: Mutex::default() }
    }

    /// Commits what has gathered for long enough, tries again what stands still, and does again what is asked for.
    pub async fn run(&self) {
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
            self.commit(&mut partitions, due).await;
            if looked.elapsed() >= LOOK {
                looked = now;
                self.redo(&mut partitions).await;
            }
            self.tell(&partitions);
        }
    }

    /// Commits what partitions have gathered, each by itself.
    async fn commit(&self, partitions: &mut HashMap<TopicPartition, Partition>, places: Vec<TopicPartition>) {
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
            match committed {
                Ok(partition) => drop(partitions.insert(partition.place.clone(), partition)),
                // Its tickets are dropped with it, so its records come again to whoever has the partition next.
                Err(error) => warn!(%error, "a task of a sink panicked"),
            }
        }
    }

    async fn redo(&self, partitions: &mut HashMap<TopicPartition, Partition>) {
        let parked = &self.shared.delivery.parked;
        if parked.follow().await.is_err() {
            return;
        }
        loop {
            let mine: Vec<TopicPartition> = partitions.keys().cloned().collect();
            let Ok(asked_for) = parked.asked_for(|place| mine.contains(place)).await else { return };
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
        match partitions.values().find_map(|partition| partition.standstill.as_ref()) {
            Some((why, _)) => {
                if working.down(why.clone()) {
                    warn!(stream, sink = plan.name, error = why, "a sink stands still; nothing is skipped");
                }
            }
            None => drop(working.up()),
        }
    }
}

impl Partition {
    /// Takes a partition over: where its ledger stands. `committed`: the group's offset.
    async fn open(shared: &Shared, place: &TopicPartition, committed: Option<u64>) -> Result<Self, OutsideError> {
        let away = |error: TransportError| OutsideError { class: error.class, message: error.message };
        let ends = shared.delivery.transport.watermarks(&place.topic).await.map_err(away)?;
        let end = ends.get(place.partition as usize).map_or(0, |ends| ends.high);
        let mark = shared.sink.next(place).await?;
        // The group's offset follows the mark, so there was one.
        if let Some(committed) = committed.filter(|committed| *committed > 0 && mark.is_none()) {
            let TopicPartition { topic, partition } = place;
            return Err(OutsideError::fatal(format!(
                "the sink knows nothing of partition {partition} of {topic}, of which it was given everything up to {committed}: is it \
                 another table or folder, or was it emptied? Give the sink another `name` to let it begin anew"
            )));
        }
        let (gathered, bytes, since, standstill, tries) = (Vec::new(), 0, None, None, 0);
        let mut opened = Self { place: place.clone(), mark, gathered, bytes, since, standstill, tries };
        if let Some(mark) = mark.filter(|mark| *mark > end) {
            shared.delivery.lacks(&[Loss { place: place.clone(), from: mark, to: 0 }]);
            opened.start_anew(shared, 0).await?;
        }
        Ok(opened)
    }

    /// The topic was made anew: the ledger begins with it.
    async fn start_anew(&mut self, shared: &Shared, to: u64) -> Result<(), OutsideError> {
        match self.give(shared, &[], to).await? {
            Committed::Done => {
                self.mark = Some(to);
                Ok(())
            }
            Committed::Fenced | Committed::Rejected { .. } => {
                let TopicPartition { topic, partition } = &self.place;
                Err(OutsideError::fatal(format!(
                    "the topic {topic} was made anew, and what the sink keeps of partition {partition} is of the old one; give the sink \
                     another `name`"
                )))
            }
        }
    }

    fn gather(&mut self, shared: &Shared, record: Polled, ticket: Ticket) {
        if self.mark.is_some_and(|mark| record.offset < mark) {
            ticket.done();
            return;
        }
        self.bytes += record.value.as_ref().map_or(0, bytes::Bytes::len);
        self.since.get_or_insert_with(Instant::now);
        let event = event::of(&record, shared.delivery.made());
        self.gathered.push(Gathered { record, ticket, event });
    }

    /// Gives the sink what has gathered. Afterwards nothing is gathered, or the partition stands still.
    async fn commit(&mut self, shared: &Shared) {
        self.standstill = None;
        while !self.gathered.is_empty() && self.standstill.is_none() {
            self.commit_some(shared).await;
        }
        if self.gathered.is_empty() {
            (self.since, self.bytes, self.tries) = (None, 0, 0);
        }
    }

    async fn commit_some(&mut self, shared: &Shared) {
        let most = shared.sink.most().0.max(1);
        let mut count = 0;
        let mut events = Vec::new();
        let mut refused = None;
        // Which of the gathered ones each event is.
        let mut places = Vec::new();
        let mut batch = Batch::new();
        for gathered in self.gathered.iter().take(most) {
            if let Some(letter) = shared.delivery.parked.before(&gathered.record) {
                let cause = format!("it waits behind the dead letter {letter} of its key");
                shared.delivery.parked.set_aside(&mut batch, &gathered.record, cause, 1);
            } else {
                match &gathered.event {
                    Ok(Some(event)) => {
                        places.push(count);
                        events.push(event.clone());
                    }
                    Ok(None) => {}
                    Err(why) => {
                        refused = Some((count, why.clone()));
                        break;
                    }
                }
            }
            count += 1;
        }
        // Letters are durable before the mark goes past their events. One that is written twice has the same id.
        shared.letters.append(&batch, &shared.delivery).await;
        if count > 0 {
            let to = self.gathered.get(count - 1).map_or(0, |gathered| gathered.record.offset + 1);
            match self.give(shared, &events, to).await {
                Ok(Committed::Done) => {
                    self.mark = Some(to);
                    self.gathered.drain(..count).for_each(|gathered| gathered.ticket.done());
                    shared.delivery.count("delivered", events.len());
                    count = 0;
                }
                Ok(Committed::Fenced) => return self.look_again(shared, "another process had the partition").await,
                Ok(Committed::Rejected { event, why }) => {
                    let place = places.get(event).copied().unwrap_or(0);
                    return self.refuse(shared, place, &why).await;
                }
                Err(error) => return self.look_again(shared, &error.message).await,
            }
        }
        if let Some((_, why)) = refused {
            self.refuse(shared, count, &why).await;
        }
    }

    async fn give(&self, shared: &Shared, events: &[OutEvent], to: u64) -> Result<Committed, OutsideError> {
        let begun = Instant::now();
        let entry = Entry { place: &self.place, from: self.mark, to, events };
        let committed = shared.sink.commit(&entry).await;
        metrics::histogram!(
            "tributary_sink_seconds",
            "stream" => shared.delivery.stream.clone(),
            "sink" => shared.delivery.plan.name.clone()
        )
        .record(begun.elapsed().as_secs_f64());
        committed
    }

    /// Nobody knows what became of an entry, or where the ledger stands: it is asked.
    async fn look_again(&mut self, shared: &Shared, why: &str) {
        shared.delivery.count("retried", 1);
        self.tries = self.tries.saturating_add(1);
        match shared.sink.next(&self.place).await {
            Ok(mark) => {
                let before = self.mark;
                self.mark = mark;
                let mark = mark.unwrap_or(0);
                let done = self.gathered.iter().take_while(|gathered| gathered.record.offset < mark).count();
                self.gathered.drain(..done).for_each(|gathered| gathered.ticket.done());
                // It was done after all, or by another one.
                if self.mark != before && self.tries < 3 {
                    return;
                }
                self.stand_still(shared, why.to_owned());
            }
            Err(error) => self.stand_still(shared, error.message),
        }
    }

    fn stand_still(&mut self, shared: &Shared, why: String) {
        let pause = Backoff::nth(FIRST_PAUSE, shared.delivery.plan.redelivery.max_pause, self.tries);
        self.standstill = Some((why, Instant::now() + pause));
    }

    /// One of the gathered events will never be taken.
    async fn refuse(&mut self, shared: &Shared, place: usize, why: &str) {
        let Some(gathered) = self.gathered.get_mut(place) else { return };
        if shared.delivery.plan.on_error == OnError::DeadLetter {
            let (stream, sink) = (&shared.delivery.stream, &shared.delivery.plan.name);
            warn!(stream, sink, error = why, "an event is set aside");
            let mut batch = Batch::new();
            shared.delivery.parked.set_aside(&mut batch, &gathered.record, why.to_owned(), 1);
            gathered.event = Ok(None);
            shared.letters.append(&batch, &shared.delivery).await;
            shared.delivery.count("set_aside", 1);
            return;
        }
        // Those before it are not held up.
        if place > 0 {
            let behind = self.gathered.split_off(place);
            Box::pin(self.commit(shared)).await;
            self.gathered.extend(behind);
            if self.standstill.is_some() {
                return;
            }
        }
        let Some(Gathered { record, .. }) = self.gathered.first() else { return };
        let TopicPartition { topic, partition } = &record.place;
        let why = format!(
            "{why} (the event at {topic}/{partition}/{}); its partition waits: mend the sink, or say `on_error: dead_letter`",
            record.offset
        );
        self.tries = self.tries.saturating_add(1).max(4);
        self.stand_still(shared, why);
    }

    /// Does an event again that was set aside.
    async fn redo(&mut self, shared: &Shared, again: &Again) {
        if self.standstill.is_some() {
            return;
        }
        let refused = match event::of(&again.record, shared.delivery.made()) {
            Err(why) => Some(why),
            Ok(event) => {
                let (events, to): (Vec<OutEvent>, u64) = (event.into_iter().collect(), self.mark.unwrap_or(0));
                match self.give(shared, &events, to).await {
                    Ok(Committed::Done) => None,
                    Ok(Committed::Rejected { why, .. }) => Some(why),
                    Ok(Committed::Fenced) => return self.look_again(shared, "another process had the partition").await,
                    Err(error) => return self.look_again(shared, &error.message).await,
                }
            }
        };
        let mut batch = Batch::new();
        match &refused {
            None => shared.delivery.parked.take_out(&mut batch, again),
            Some(why) => shared.delivery.parked.failed_again(&mut batch, again, why.clone()),
        }
        shared.letters.append(&batch, &shared.delivery).await;
        if refused.is_none() {
            self.mark = Some(self.mark.unwrap_or(0));
            shared.delivery.parked.done(again);
            let (stream, sink) = (&shared.delivery.stream, &shared.delivery.plan.name);
            info!(stream, sink, letter = again.letter.id, "a dead letter was taken");
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
        self.commit(&mut partitions, due).await;
        self.tell(&partitions);
        Ok(())
    }

    async fn assigned(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        let delivery = &self.shared.delivery;
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = delivery.parked.follow().await {
            delivery.working.down(error.message);
            sleep(backoff.pause()).await;
        }
        for Assignment { place, committed } in assignments {
            let mut backoff = Backoff::new(Duration::from_millis(200), delivery.plan.redelivery.max_pause);
            let partition = loop {
                match Partition::open(&self.shared, place, *committed).await {
                    Ok(partition) => break partition,
                    Err(error) => {
                        if delivery.working.down(error.message.clone()) {
                            let (stream, sink) = (&delivery.stream, &delivery.plan.name);
                            warn!(stream, sink, error = error.message, "a sink does not answer; trying again");
                        }
                        tokio::select! {
                            () = self.shared.shutdown.cancelled() => return Ok(()),
                            () = sleep(backoff.pause()) => {}
                        }
                    }
                }
            };
            self.partitions.lock().await.insert(place.clone(), partition);
        }
        Ok(())
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        self.partitions.lock().await.retain(|place, _| !places.contains(place));
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        self.shared.delivery.lacks(losses);
        let mut partitions = self.partitions.lock().await;
        for Loss { place, from, to } in losses {
            let Some(partition) = partitions.get_mut(place) else { continue };
            partition.gathered.clear();
            partition.standstill = None;
            // A topic that was made anew begins below the mark.
            if to < from
                && let Err(error) = partition.start_anew(&self.shared, *to).await
            {
                partition.stand_still(&self.shared, error.message);
            }
        }
        Ok(())
    }
}
