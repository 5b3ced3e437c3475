//! Sinks that are told: the events of a key one after the other, those of other keys beside them (or as the sink's `order` says), each
//! until it has arrived or is given up. An event's ticket is done then, so the group's offset follows; after a crash what was not committed is delivered again.
//!
//! Where a sink fails for every event, all of them wait together, and one try after a growing pause finds out whether it is back.

mod state;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};
use tributary_dsl::plan::{OnError, SinkPlan};
use tributary_transport::{Assignment, Batch, Loss, LossCause, Polled, TopicPartition, TransportError};

use self::state::{Fate, Item, State};
use super::lanes::{Head, Lane};
use super::letters::Letters;
use super::{Delivery, LOOK};
use crate::intake::{Handler, StageError};
use crate::retry::Backoff;
use crate::sink::{DeliverySink, OutEvent, Verdict};
use crate::supervise::panicked;
use crate::tickets::Ticket;

/// So many tries without one that succeeded, and the sink as a whole is left alone for a while.
const FAILURES: u32 = 5;
/// Letters that are done again at a time, about.
const AT_A_TIME: usize = 200;
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
            let (heads, next, is_test) = {
                let mut state = self.state();
                match state.pause.filter(|until| *until > now) {
                    Some(until) => (Vec::new(), Some(until), false),
                    None if state.failures >= FAILURES && state.is_tested => (Vec::new(), None, false),
                    // Whoever comes first finds out.
                    None if state.failures >= FAILURES => {
                        let heads = state.lanes.take(1, now);
                        state.is_tested = !heads.is_empty();
                        (heads, state.lanes.next(), true)
                    }
                    None => (state.lanes.take(most, now), state.lanes.next(), false),
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
                match self.fate(&head) {
                    Fate::Told => told.push(head),
                    Fate::Parked(cause) => self.set_aside(head, cause).await,
                    Fate::Over => self.leave(head),
                }
            }
            if !told.is_empty() {
                self.tell_sink(told).await;
            }
            if is_test {
                self.state().is_tested = false;
                self.news.notify_waiters();
            }
        }
    }

    /// What is to be done with an event before the sink is told of it.
    fn fate(&self, head: &Head<Item>) -> Fate {
        let parked = &self.delivery.parked;
        match &head.item.again {
            Some(again) if parked.is_held(again) => Fate::Told,
            // Another process did it, or somebody gave it up.
            Some(_) => Fate::Over,
            None if parked.holds(&head.item.record) => Fate::Over,
            None => match parked.before(&head.item.record) {
                Some(letter) => Fate::Parked(format!("it waits behind the dead letter {letter} of its key")),
                None => Fate::Told,
            },
        }
    }

    /// Nothing is to be done about an event any more.
    fn leave(&self, head: Head<Item>) {
        let mut state = self.state();
        let item = state.lanes.done(head);
        if let Some(again) = &item.again {
            state.again.remove(&again.letter.id);
        }
        drop(state);
        if let Some(ticket) = item.ticket {
            ticket.done();
        }
        self.news.notify_waiters();
    }

    /// Tells the sink of events, and sees to what became of them.
    async fn tell_sink(&self, heads: Vec<Head<Item>>) {
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
                self.is_away(&error.message);
                self.try_later(heads, None);
                return;
            }
        };
        // A sink that puts everything off is away.
        let mut put_off: Option<String> = None;
        let mut is_answered = false;
        for verdict in verdicts.into_iter().rev() {
            let Some(head) = heads.pop() else { break };
            match verdict {
                Verdict::Delivered => {
                    is_answered = true;
                    self.arrived(head, "delivered", begun).await;
                }
                Verdict::Superseded => {
                    is_answered = true;
                    self.arrived(head, "superseded", begun).await;
                }
                Verdict::Retry { after, why } => {
                    let within = self.delivery.plan.redelivery.within;
                    match head.since.zip(within).filter(|(since, within)| since.elapsed() >= *within) {
                        Some((_, within)) => {
                            let cause = format!("it was tried for {within:?} in vain; the last time: {why}");
                            self.give_up(head, cause).await;
                        }
                        None => self.try_later(vec![head], after),
                    }
                    put_off = Some(why);
                }
                Verdict::Rejected(why) => {
                    is_answered = true;
                    self.give_up(head, why).await;
                }
            }
        }
        // Of what the sink said nothing, nothing is known.
        if !heads.is_empty() {
            self.try_later(heads, None);
            put_off.get_or_insert_with(|| "the sink did not say what became of an event".to_owned());
        }
        match put_off.filter(|_| !is_answered) {
            Some(why) => self.is_away(&why),
            None => self.is_back(),
        }
    }

    /// Events are tried again later.
    fn try_later(&self, heads: Vec<Head<Item>>, after: Option<Duration>) {
        self.delivery.count("retried", heads.len());
        let now = Instant::now();
        let mut state = self.state();
        for head in heads {
            let pause = self.pause(head.tries).max(after.unwrap_or_default());
            if let Err(item) = state.lanes.again(head, now, pause) {
                // Another process has it now.
                item.again.into_iter().for_each(|again| drop(state.again.remove(&again.letter.id)));
            }
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// A call came to nothing, whatever it was about.
    fn is_away(&self, why: &str) {
        let now = Instant::now();
        let mut state = self.state();
        // What was under way when the pause began says nothing new.
        if state.pause.is_none_or(|until| until <= now) {
            state.failures = state.failures.saturating_add(1);
            if state.failures >= FAILURES {
                state.pause = Some(now + self.pause(state.failures - FAILURES));
            }
        }
        state.trouble = why.to_owned();
        drop(state);
        self.tell();
        self.news.notify_waiters();
    }

    /// The sink answers.
    fn is_back(&self) {
        let mut state = self.state();
        (state.failures, state.pause) = (0, None);
        drop(state);
        self.tell();
        self.news.notify_waiters();
    }

    /// Says how the sink is.
    fn tell(&self) {
        let why = {
            let state = self.state();
            let away = (state.failures >= FAILURES).then(|| state.trouble.clone());
            state.opening.clone().or(away).or_else(|| state.standing.values().next().cloned())
        };
        let (stream, sink) = (&self.delivery.stream, &self.delivery.plan.name);
        match why {
            Some(why) => {
                if self.delivery.working.down(why.clone()) {
                    warn!(
                        stream,
                        sink,
                        error = why,
                        "a sink does not take everything; it is tried again, nothing is skipped"
                    );
                }
            }
            None => drop(self.delivery.working.up()),
        }
    }

    /// Between two tries: twice as long each time, and some less, so that keys do not come all at once.
    fn pause(&self, tries: u32) -> Duration {
        Backoff::nth(FIRST_PAUSE, self.delivery.plan.redelivery.max_pause, tries)
    }

    /// An event has arrived.
    async fn arrived(&self, head: Head<Item>, outcome: &'static str, begun: Instant) {
        self.delivery.count(outcome, 1);
        let took = head.since.unwrap_or(begun).elapsed();
        self.delivery.traced(head.item.traced(), took, outcome, head.tries + 1, None);
        if let Some(again) = &head.item.again {
            let mut batch = Batch::new();
            self.delivery.parked.take_out(&mut batch, again);
            self.letters.append(&batch, &self.delivery).await;
            self.delivery.parked.done(again);
            let (stream, sink) = (&self.delivery.stream, &self.delivery.plan.name);
            info!(stream, sink, letter = again.letter.id, "a dead letter arrived");
            self.look.notify_one();
        }
        self.state().standing.remove(&head.lane);
        self.leave(head);
    }

    /// An event will never arrive.
    async fn give_up(&self, head: Head<Item>, cause: String) {
        if !self.state().lanes.is_ours(&head) {
            // Whoever has its partition now finds out itself.
            return self.leave(head);
        }
        if self.delivery.plan.on_error == OnError::DeadLetter {
            self.delivery.count("set_aside", 1);
            let took = head.since.map(|since| since.elapsed()).unwrap_or_default();
            self.delivery.traced(head.item.traced(), took, "set_aside", head.tries + 1, Some(&cause));
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
        self.state().standing.insert(head.lane.clone(), why);
        let now = Instant::now();
        let pause = self.pause(head.tries.saturating_add(4));
        let _ = self.state().lanes.again(head, now, pause);
        self.tell();
        self.news.notify_waiters();
    }

    /// Sets an event aside: when its letter is durable, it is done.
    async fn set_aside(&self, head: Head<Item>, cause: String) {
        let parked = &self.delivery.parked;
        let mut batch = Batch::new();
        match &head.item.again {
            Some(again) => parked.failed_again(&mut batch, again, cause),
            None => drop(parked.set_aside(&mut batch, &head.item.record, cause, head.tries + 1)),
        }
        self.letters.append(&batch, &self.delivery).await;
        if let Some(again) = &head.item.again {
            parked.waits_again(again);
        }
        self.state().standing.remove(&head.lane);
        self.leave(head);
        self.tell();
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
            let mut ghosts = Batch::new();
            parked.take_out_ghosts(&mut ghosts);
            if !ghosts.is_empty() {
                self.letters.append(&ghosts, &self.delivery).await;
                self.tell();
            }
            let (mine, under_way) = {
                let state = self.state();
                (state.mine.clone(), state.again.keys().cloned().collect::<HashSet<_>>())
            };
            if under_way.len() >= AT_A_TIME {
                continue;
            }
            let asked_for = parked.asked_for(|place| mine.contains(place), |id| under_way.contains(id)).await;
            let Ok(asked_for) = asked_for else { continue };
            let mut state = self.state();
            for again in asked_for {
                // It may have been revoked while letters were read.
                if !state.mine.contains(&again.record.place) {
                    continue;
                }
                state.again.insert(again.letter.id.clone(), again.record.place.clone());
                let record = again.record.clone();
                let event = self.event(&record).unwrap_or_else(|| Err("it is not for this sink".to_owned()));
                state.lanes.push(self.lane(&record), Item { record, event, ticket: None, again: Some(again) });
            }
            drop(state);
            self.news.notify_waiters();
        }
    }

    fn event(&self, record: &Polled) -> Option<Result<OutEvent, String>> {
        self.delivery.event(record).transpose()
    }

    fn lane(&self, record: &Polled) -> Lane {
        Lane::of(self.delivery.plan.order, record)
    }
}

impl Work {
    /// Finds out which topic partitions are of, and what was set aside.
    async fn opens(&self, places: impl Iterator<Item = &TopicPartition>) -> Result<(), TransportError> {
        let topics: HashSet<&Arc<str>> = places.map(|place| &place.topic).collect();
        for topic in topics {
            self.delivery.parked.reads(topic, self.delivery.transport.topic_id(topic).await?);
        }
        self.delivery.parked.follow().await
    }
}

#[async_trait]
impl Handler for Work {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        let mut state = self.state();
        for (record, ticket) in records {
            match self.event(&record) {
                Some(event) => {
                    state.lanes.push(self.lane(&record), Item { record, event, ticket: Some(ticket), again: None });
                }
                None => ticket.done(),
            }
        }
        drop(state);
        self.news.notify_waiters();
        Ok(())
    }

    async fn assigned(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        self.sink.handed_over();
        // What a former owner set aside is known before the first event.
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = self.opens(assignments.iter().map(|assignment| &assignment.place)).await {
            self.state().opening = Some(error.message);
            self.tell();
            sleep(backoff.pause()).await;
        }
        let mut state = self.state();
        state.opening = None;
        state.mine.extend(assignments.iter().map(|assignment| assignment.place.clone()));
        drop(state);
        self.tell();
        Ok(())
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        let mut state = self.state();
        state.lanes.revoke(places);
        state.mine.retain(|place| !places.contains(place));
        state.standing.retain(|lane, _| !places.contains(&lane.place));
        state.again.retain(|_, place| !places.contains(place));
        drop(state);
        self.tell();
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        self.delivery.lacks(losses);
        let anew = losses.iter().filter(|loss| loss.cause == LossCause::MadeAnew);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = self.opens(anew.clone().map(|loss| &loss.place)).await {
            self.state().opening = Some(error.message);
            self.tell();
            sleep(backoff.pause()).await;
        }
        self.state().opening = None;
        self.tell();
        Ok(())
    }
}
