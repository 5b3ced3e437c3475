//! Sinks that are told: the events of a key one after the other, those of other keys beside them, each until it has arrived or is given
//! up. An event's ticket is done then, so the group's offset follows; after a crash what was not committed is delivered again.
//!
//! Where a sink fails for every event, all of them wait together, and one try after a growing pause finds out whether it is back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};
use tributary_dsl::plan::{OnError, SinkPlan};
use tributary_transport::{Assignment, Batch, Loss, Polled, TopicPartition};

use super::lanes::{Head, Lane, Lanes};
use super::letters::Letters;
use super::{Delivery, LOOK, event};
use crate::intake::{Handler, StageError};
use crate::parked::Again;
use crate::retry::Backoff;
use crate::sink::{DeliverySink, OutEvent, Verdict};
use crate::supervise::panicked;
use crate::tickets::Ticket;

/// So many tries without one that succeeded, and the sink as a whole is left alone for a while.
const FAILURES: u32 = 5;
/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The work of a sink that is told.
pub(super) struct Work {
    delivery: Delivery,
    sink: Arc<dyn DeliverySink>,
    state: Mutex<State>,
    /// Something may be delivered.
    news: Notify,
    /// Something may be asked for.
    look: Notify,
    letters: Letters,
}

#[derive(Default)]
struct State {
    lanes: Lanes<Item>,
    /// Tries since the last success.
    failures: u32,
    /// Until then nothing is tried.
    pause: Option<Instant>,
    /// Lanes that stand still, and why.
    standing: HashMap<Lane, String>,
    /// Letters that are being done again.
    again: HashSet<String>,
}

/// An event to be delivered.
struct Item {
    record: Polled,
    event: Result<OutEvent, String>,
    ticket: Option<Ticket>,
    /// If it was set aside before.
    again: Option<Again>,
}

impl Work {
    pub fn new(delivery: Delivery, sink: Arc<dyn DeliverySink>) -> Self {
        let (state, news, look) = (Mutex::default(), Notify::new(), Notify::new());
        Self { delivery, sink, state, news, look, letters: Letters::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Delivers, as many at a time as the plan says. Ends only by a fault of ours.
    pub async fn run(self: Arc<Self>) -> Result<(), StageError> {
        let width = match &self.delivery.plan.sink {
            SinkPlan::Webhook(plan) => plan.concurrency,
            SinkPlan::Conductor(plan) => plan.concurrency,
            SinkPlan::Index(_) => 2,
            SinkPlan::Sql(_) | SinkPlan::Files(_) => 1,
        };
        let mut tasks = JoinSet::new();
        for _ in 0..width {
            let work = self.clone();
            tasks.spawn(async move { work.deliver().await });
        }
        let work = self.clone();
        tasks.spawn(async move { work.look().await });
        let stage = Delivery::stage(&self.delivery.stream, &self.delivery.plan.name);
        match tasks.join_next().await {
            Some(Err(error)) => Err(panicked(&stage)(format!("a task panicked: {error}"))),
            _ => Ok(()),
        }
    }

    async fn deliver(&self) {
        let most = self.sink.most();
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let now = Instant::now();
            let (heads, next) = {
                let mut state = self.state();
                match state.pause.filter(|until| *until > now) {
                    Some(until) => (Vec::new(), Some(until)),
                    // Whoever comes first finds out.
                    None if state.failures >= FAILURES => {
                        state.pause = Some(now + self.delivery.plan.redelivery.max_pause);
                        (state.lanes.take(1, now), None)
                    }
                    None => (state.lanes.take(most, now), state.lanes.next()),
                }
            };
            if heads.is_empty() {
                match next {
                    Some(at) => {
                        tokio::select! {
                            () = news => {}
                            () = sleep_until(at) => {}
                        }
                    }
                    None => news.await,
                }
                continue;
            }
            let mut told = Vec::with_capacity(heads.len());
            for head in heads {
                match self.parks(&head) {
                    Some(cause) => self.set_aside(head, cause).await,
                    None => told.push(head),
                }
            }
            if !told.is_empty() {
                self.tell(told).await;
            }
        }
    }

    /// Why an event is set aside without a try.
    fn parks(&self, head: &Head<Item>) -> Option<String> {
        if head.item.again.is_some() {
            return None;
        }
        let letter = self.delivery.parked.before(&head.item.record)?;
        Some(format!("it waits behind the dead letter {letter} of its key"))
    }

    /// Tells the sink of events, and sees to what became of them.
    async fn tell(&self, heads: Vec<Head<Item>>) {
        let (mut heads, strange): (Vec<_>, Vec<_>) = heads.into_iter().partition(|head| head.item.event.is_ok());
        for head in strange {
            let cause = head.item.event.as_ref().err().cloned().unwrap_or_default();
            self.give_up(head, cause).await;
        }
        let events: Vec<OutEvent> = heads.iter().filter_map(|head| head.item.event.as_ref().ok()).cloned().collect();
        if events.is_empty() {
            return;
        }
        let begun = Instant::now();
        let answer = self.sink.deliver(&events).await;
        metrics::histogram!(
            "tributary_sink_seconds",
            "stream" => self.delivery.stream.clone(),
            "sink" => self.delivery.plan.name.clone()
        )
        .record(begun.elapsed().as_secs_f64());
        let verdicts = match answer {
            Ok(verdicts) => verdicts,
            Err(error) => {
                self.fails(heads, &error.message, None);
                return;
            }
        };
        for verdict in verdicts.into_iter().rev() {
            let Some(head) = heads.pop() else { break };
            match verdict {
                Verdict::Delivered => self.arrived(head, "delivered").await,
                Verdict::Superseded => self.arrived(head, "superseded").await,
                Verdict::Retry { after, why } => {
                    let within = self.delivery.plan.redelivery.within;
                    match head.since.zip(within).filter(|(since, within)| since.elapsed() >= *within) {
                        Some((_, within)) => {
                            let cause = format!("it was tried for {within:?} in vain; the last time: {why}");
                            self.give_up(head, cause).await;
                        }
                        None => self.fails(vec![head], &why, after),
                    }
                }
                Verdict::Rejected(why) => self.give_up(head, why).await,
            }
        }
        // Of what the sink said nothing, nothing is known.
        if !heads.is_empty() {
            self.fails(heads, "the sink did not say what became of an event", None);
        }
    }

    /// Events are tried again later.
    fn fails(&self, heads: Vec<Head<Item>>, why: &str, after: Option<Duration>) {
        self.delivery.count("retried", heads.len());
        let now = Instant::now();
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        for head in heads {
            let pause = self.pause(head.tries).max(after.unwrap_or_default());
            // Another process has it now.
            let _ = state.lanes.again(head, now, pause);
        }
        if state.failures >= FAILURES {
            let pause = self.pause(state.failures - FAILURES).max(after.unwrap_or_default());
            state.pause = Some(now + pause);
            drop(state);
            if self.delivery.working.down(why) {
                let (stream, sink) = (&self.delivery.stream, &self.delivery.plan.name);
                warn!(stream, sink, error = why, "a sink takes nothing; trying again, nothing is skipped");
            }
        }
        self.news.notify_waiters();
    }

    fn pause(&self, tries: u32) -> Duration {
        Backoff::nth(FIRST_PAUSE, self.delivery.plan.redelivery.max_pause, tries)
    }

    /// An event has arrived.
    async fn arrived(&self, head: Head<Item>, outcome: &'static str) {
        self.delivery.count(outcome, 1);
        if let Some(again) = &head.item.again {
            let mut batch = Batch::new();
            self.delivery.parked.take_out(&mut batch, again);
            self.letters.append(&batch, &self.delivery).await;
            self.delivery.parked.done(again);
            info!(
                stream = self.delivery.stream,
                sink = self.delivery.plan.name,
                letter = again.letter.id,
                "a dead letter arrived"
            );
        }
        let mut state = self.state();
        (state.failures, state.pause) = (0, None);
        state.standing.remove(&head.lane);
        let item = state.lanes.done(head);
        if let Some(again) = item.again {
            state.again.remove(&again.letter.id);
            self.look.notify_one();
        }
        let standing = state.standing.values().next().cloned();
        drop(state);
        if let Some(ticket) = item.ticket {
            ticket.done();
        }
        match standing {
            Some(why) => drop(self.delivery.working.down(why)),
            None => drop(self.delivery.working.up()),
        }
        self.news.notify_waiters();
    }

    /// An event will never arrive.
    async fn give_up(&self, head: Head<Item>, cause: String) {
        if self.delivery.plan.on_error == OnError::DeadLetter {
            self.delivery.count("set_aside", 1);
            warn!(
                stream = self.delivery.stream,
                sink = self.delivery.plan.name,
                error = cause,
                "an event is set aside"
            );
            return self.set_aside(head, cause).await;
        }
        let Polled { place, offset, .. } = &head.item.record;
        let id = head.item.event.as_ref().map_or("", |event| event.id.as_str());
        let why = format!(
            "{cause} (the event {id} at {}/{}/{offset}); later events of its key wait: mend the sink, or say `on_error: dead_letter`",
            place.topic, place.partition
        );
        let now = Instant::now();
        let mut state = self.state();
        let (lane, pause) = (head.lane.clone(), self.pause(head.tries.saturating_add(4)));
        if state.lanes.again(head, now, pause).is_ok() {
            state.standing.insert(lane, why.clone());
            drop(state);
            if self.delivery.working.down(why.clone()) {
                let (stream, sink) = (&self.delivery.stream, &self.delivery.plan.name);
                warn!(stream, sink, error = why, "an event is refused; nothing is skipped");
            }
        }
        self.news.notify_waiters();
    }

    /// Sets an event aside: when its letter is durable, it is done.
    async fn set_aside(&self, head: Head<Item>, cause: String) {
        let mut batch = Batch::new();
        match &head.item.again {
            Some(again) => self.delivery.parked.failed_again(&mut batch, again, cause),
            None => drop(self.delivery.parked.set_aside(&mut batch, &head.item.record, cause, head.tries + 1)),
        }
        self.letters.append(&batch, &self.delivery).await;
        let mut state = self.state();
        state.standing.remove(&head.lane);
        let item = state.lanes.done(head);
        if let Some(again) = item.again {
            state.again.remove(&again.letter.id);
        }
        drop(state);
        if let Some(ticket) = item.ticket {
            ticket.done();
        }
        self.news.notify_waiters();
    }

    /// Looks for letters that are asked for.
    async fn look(&self) {
        loop {
            tokio::select! {
                () = sleep(LOOK) => {}
                () = self.look.notified() => {}
            }
            let parked = &self.delivery.parked;
            if parked.follow().await.is_err() {
                continue;
            }
            let Ok(asked_for) = parked.asked_for(|_| true).await else { continue };
            let mut state = self.state();
            for again in asked_for {
                if state.again.insert(again.letter.id.clone()) {
                    let record = again.record.clone();
                    let event = self.event(&record).unwrap_or_else(|| Err("it has no content".to_owned()));
                    state.lanes.push(lane(&record), Item { record, event, ticket: None, again: Some(again) });
                }
            }
            drop(state);
            self.news.notify_waiters();
        }
    }

    fn event(&self, record: &Polled) -> Option<Result<OutEvent, String>> {
        event::of(record, self.delivery.made()).transpose()
    }
}

fn lane(record: &Polled) -> Lane {
    let key: Option<Bytes> = record.key.clone().filter(|key| !key.is_empty());
    let offset = key.is_none().then_some(record.offset);
    Lane { place: record.place.clone(), key, offset }
}

#[async_trait]
impl Handler for Work {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        let mut state = self.state();
        for (record, ticket) in records {
            match self.event(&record) {
                Some(event) => {
                    state.lanes.push(lane(&record), Item { record, event, ticket: Some(ticket), again: None });
                }
                None => ticket.done(),
            }
        }
        drop(state);
        self.news.notify_waiters();
        Ok(())
    }

    async fn assigned(&self, _: &[Assignment]) -> Result<(), StageError> {
        self.sink.handed_over();
        // What a former owner set aside is known before the first event.
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = self.delivery.parked.follow().await {
            self.delivery.working.down(error.message);
            sleep(backoff.pause()).await;
        }
        Ok(())
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        let mut state = self.state();
        state.lanes.revoke(places);
        state.standing.retain(|lane, _| !places.contains(&lane.place));
        state.again.clear();
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        self.delivery.lacks(losses);
        Ok(())
    }
}
