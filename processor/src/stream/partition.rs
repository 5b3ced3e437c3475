//! One partition of a stream: its producer, its mark, and what waits where it stands still.

mod held;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::warn;
use tributary_dsl::plan::{OnError, Start, Step, StepPlan};
use tributary_event::{ErrorClass, Reporter};
use tributary_transport::{
    Batch, Checkpoint, Loss, LossCause, Polled, Producer, Purpose, TopicId, TopicPartition, Transport, TransportError,
};

use self::held::Waiting;
use super::beginning::Beginning;
use super::holding::Holding;
use super::seen::Seen;
use super::steps::{StepError, Steps, Traced, Traveller};
use super::{Stream, memory};
use crate::parked::{Again, Parked};
use crate::retry::Backoff;
use crate::tickets::Ticket;

/// Bytes that are appended together, about.
const BATCH: usize = 1 << 20;
/// Records that go through the steps together.
const TURN: usize = 256;
/// The same where a step asks a service, so that a request has many of its keys though most answers are known.
const ASKING_TURN: usize = 2_048;

/// Up to where a partition was read by what is in the sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The offset of the first record that is not.
    next: u64,
    /// The topic that this is an offset of; none where it was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<TopicId>,
}

/// A partition that is this process's.
pub(super) struct Partition {
    place: TopicPartition,
    /// The producer's id, and the mark's name.
    name: String,
    stream: String,
    transport: Arc<dyn Transport>,
    producer: Box<dyn Producer>,
    /// What is read next.
    next: u64,
    /// Which topic it reads.
    topic: Option<TopicId>,
    /// Up to where all that came of records is in the batch, or in the sinks: what is held lies behind it.
    done: u64,
    /// What is held, if the stream holds events.
    holding: Option<Holding<Waiting>>,
    /// What was seen, if the stream remembers that; none: it is not known yet.
    seen: Option<Seen>,
    batch: Batch,
    /// What the batch was made of.
    made_of: Vec<(Polled, Ticket)>,
    /// Why it does not go on.
    standstill: Option<Standstill>,
    /// Records that are not done because of that. They count as in flight, so that the partition is paused before they are many.
    waiting: Vec<(Polled, Ticket)>,
    /// Records that go through the steps together.
    together: usize,
    /// Whether records are appended one by one, as one of them cannot be.
    careful: bool,
    /// What waits behind dead letters.
    parked: Arc<Parked>,
    /// The letters of the batch.
    aside: Vec<Bytes>,
    /// The traces of the batch: of which record each is, what became of it, and why it was set aside, if it was.
    traced: Vec<(Traced, u64, &'static str, Option<String>)>,
    /// What becomes of an event that cannot be appended.
    on_error: OnError,
}

fn together(steps: &[Step]) -> usize {
    let asks = steps.iter().any(|step| matches!(step.plan, StepPlan::Enrich(_)));
    if asks { ASKING_TURN } else { TURN }
}

/// Why a partition does not go on.
struct Standstill {
    why: String,
    /// Whether its producer is of no use any more.
    is_broken: bool,
}

impl Partition {
    /// Takes a partition over from whoever had it.
    pub async fn open(stream: &Stream, beginning: &Beginning, place: &TopicPartition) -> Result<Self, TransportError> {
        let TopicPartition { topic, partition } = place;
        let name = format!("{}.{}.{topic}-{partition}", stream.pipeline, stream.plan.name);
        let producer = stream.transport.producer(&name, Purpose::Stream).await?;
        stream.transport.checkpoints_are_readable().await?;
        let mark = stream.transport.checkpoint(&name).await?;
        let unknown = |e| {
            let message = format!("the mark {name} is not one of a stream: {e}");
            TransportError::caused(ErrorClass::Fatal, message, e)
        };
        let mark: Option<Mark> = mark.map(|mark| serde_json::from_slice(&mark)).transpose().map_err(unknown)?;
        let ends = stream.transport.watermarks(topic).await?;
        let end = ends.get(*partition as usize).map_or(0, |ends| ends.high);
        let topic_id = stream.transport.topic_id(topic).await?;
        stream.parked.reads(topic, topic_id);
        let next = match (mark, stream.plan.start) {
            // A topic that was deleted and made again, however long it is.
            (Some(mark), _) if mark.next > end || TopicId::is_other(mark.topic, topic_id) => {
                stream.lacks(place, mark.next, 0);
                0
            }
            (Some(mark), _) => mark.next,
            (None, Start::First) => 0,
            (None, Start::Now) => beginning.of(place, topic_id, end),
        };
        let mut opened = Self {
            place: place.clone(),
            name,
            stream: stream.plan.name.clone(),
            transport: stream.transport.clone(),
            producer,
            next,
            topic: topic_id,
            done: next,
            holding: stream.plan.steps.iter().find_map(held::holding),
            seen: None,
            batch: Batch::new(),
            made_of: Vec::new(),
            standstill: None,
            waiting: Vec::new(),
            together: together(&stream.plan.steps),
            careful: false,
            parked: stream.parked.clone(),
            aside: Vec::new(),
            traced: Vec::new(),
            on_error: stream.plan.on_error,
        };
        // What the former owner set aside is known before the first record.
        opened.parked.follow().await?;
        // From now on it is known where the stream began.
        if mark != Some(opened.mark()) {
            opened.batch.checkpoint = Some(opened.checkpoint());
            opened.producer.append(&opened.batch).await?;
            opened.batch.clear();
        }
        Ok(opened)
    }

    /// Which one it is.
    pub fn place(&self) -> &TopicPartition {
        &self.place
    }

    fn mark(&self) -> Mark {
        Mark { next: self.done, topic: self.topic }
    }

    fn checkpoint(&self) -> Checkpoint {
        let content = serde_json::to_vec(&self.mark()).unwrap_or_default();
        Checkpoint { name: self.name.clone(), content: Bytes::from(content) }
    }

    /// Why it does not go on, if it does not.
    pub fn standstill(&self) -> Option<&str> {
        self.standstill.as_ref().map(|standstill| standstill.why.as_str())
    }

    /// Records will never come: it goes on behind them, for good. From where on the stream lacks some, if it does. `topic`: which one it
    /// reads now.
    pub async fn skips(
        &mut self,
        steps: &Steps,
        loss: &Loss,
        topic: Option<TopicId>,
        health: &Reporter,
    ) -> Option<u64> {
        let Loss { from, to, cause, .. } = *loss;
        self.let_all_go(steps, health).await;
        // What waits was read before, and is lost with it.
        let waited = self.waiting.first().map(|(record, _)| record.offset);
        self.waiting.clear();
        self.standstill = None;
        // It may have been taken over when the topic had been made anew already.
        let is_known = topic.is_some() && topic == self.topic && self.next <= to && waited.is_none();
        let is_anew = cause == LossCause::MadeAnew && !is_known;
        // A stream that has read nothing begins with what there is.
        let lacks = is_anew || to > self.next && self.next > 0;
        let first = waited.unwrap_or(from).min(from);
        if is_anew || to > self.next {
            (self.next, self.done, self.topic) = (to, to, topic.or(self.topic));
            self.parked.reads(&self.place.topic, self.topic);
            if is_anew {
                self.seen = None;
            }
            self.batch.checkpoint = Some(self.checkpoint());
            self.append(health).await;
        }
        (lacks || waited.is_some()).then_some(first)
    }

    /// Tries again what it stands still at: the program may have had too little time, the producer may have been taken away while the
    /// brokers were.
    pub async fn retry(&mut self, stream: &Stream, beginning: &Beginning, steps: &Steps) {
        let Some(standstill) = &self.standstill else { return };
        if standstill.is_broken {
            match Self::open(stream, beginning, &self.place).await {
                Ok(opened) => {
                    let waiting = std::mem::take(&mut self.waiting);
                    *self = Self { waiting, careful: self.careful, ..opened };
                }
                Err(error) => {
                    self.standstill = Some(Standstill { why: error.message, is_broken: true });
                    return;
                }
            }
        }
        self.standstill = None;
        let waiting = std::mem::take(&mut self.waiting);
        self.work(steps, waiting, &stream.working).await;
    }

    /// Does records, in order, until one of them stops it. Those that are done are in the sinks for good.
    pub async fn work(&mut self, steps: &Steps, records: Vec<(Polled, Ticket)>, health: &Reporter) {
        let mut records: VecDeque<(Polled, Ticket)> = records.into();
        if let Some(first) = records.iter().map(|(record, _)| record.offset).find(|offset| *offset >= self.next) {
            self.remember(steps, first, health).await;
        }
        while self.standstill.is_none() && !records.is_empty() {
            let next = records.iter().position(|(record, _)| record.offset >= self.next).unwrap_or(records.len());
            records.drain(..next).for_each(|(_, ticket)| ticket.done());
            let turn: Vec<(Polled, Ticket)> = records.drain(..records.len().min(self.together)).collect();
            self.turn(steps, turn, health).await;
            tokio::task::yield_now().await;
        }
        self.let_go(steps, health).await;
        self.append(health).await;
        self.careful &= self.standstill.is_some();
        self.waiting.extend(records);
        if let Some((seen, (first, _))) = self.seen.as_mut().zip(self.waiting.first()) {
            seen.go_back(first.offset);
        }
    }

    /// Knows what was seen before the first record that is to be done.
    async fn remember(&mut self, steps: &Steps, first: u64, health: &Reporter) {
        if self.seen.is_some() || self.standstill.is_some() {
            return;
        }
        match memory::before(self.transport.as_ref(), &self.place, first, steps, health).await {
            Ok(seen) => self.seen = seen,
            Err(error) => {
                let why = format!("what was seen before cannot be read: {}", error.message);
                self.standstill = Some(Standstill { why, is_broken: false });
            }
        }
    }

    /// Does some records together.
    async fn turn(&mut self, steps: &Steps, records: Vec<(Polled, Ticket)>, health: &Reporter) {
        let read: Vec<&Polled> = records.iter().map(|(record, _)| record).collect();
        let made = match steps.run(&read, self.seen.as_mut()).await {
            Ok(made) => made,
            Err(error) => {
                self.standstill = Some(Standstill { why: error.message, is_broken: false });
                self.waiting.extend(records);
                return;
            }
        };
        if self.holding.is_some() {
            return self.hold(steps, records.into_iter().zip(made), health).await;
        }
        for ((record, ticket), traveller) in records.into_iter().zip(made) {
            if self.standstill.is_some() {
                self.waiting.push((record, ticket));
                continue;
            }
            if let Err(error) = self.write(steps, &record, traveller) {
                self.append(health).await;
                if self.standstill.is_none() {
                    self.stands_still_at(&record, &error.to_string());
                }
                self.waiting.push((record, ticket));
                continue;
            }
            (self.next, self.done) = (record.offset + 1, record.offset + 1);
            self.made_of.push((record, ticket));
            if self.careful || self.batch.size() >= BATCH {
                self.append(health).await;
            }
        }
    }

    /// Adds what a record has become to the batch, or its letter.
    fn write(&mut self, steps: &Steps, record: &Polled, traveller: Traveller) -> Result<(), StepError> {
        let traced = traveller.traced.clone();
        let outcome = if traveller.has_ended() { "dropped" } else { "passed" };
        // Where nothing comes of it, there is nothing to wait for.
        let before = self.parked.before(record).filter(|_| !traveller.has_ended());
        let cause = match before {
            Some(letter) => format!("it waits behind the dead letter {letter} of its key"),
            None => {
                let before = self.batch.len();
                let Err(error) = steps.write(record, traveller, &mut self.batch) else {
                    self.traced.extend(traced.map(|traced| (traced, record.offset, outcome, None)));
                    return Ok(());
                };
                self.batch.truncate(before);
                if error.on_error == OnError::Stop {
                    return Err(error);
                }
                warn!(stream = self.stream, error = %error, "an event is set aside");
                error.to_string()
            }
        };
        self.traced.extend(traced.map(|traced| (traced, record.offset, "set_aside", Some(cause.clone()))));
        self.set_aside(record, cause);
        Ok(())
    }

    fn set_aside(&mut self, record: &Polled, cause: String) {
        let id = self.parked.set_aside(&mut self.batch, record, cause, 1);
        self.aside.push(id);
    }

    /// Does an event again that was set aside, as somebody asked for it.
    pub async fn redo(&mut self, steps: &Steps, again: &Again, health: &Reporter) {
        if self.standstill.is_some() || !self.parked.is_held(again) {
            return;
        }
        // It counts as new and is not held: where it came to such a step before it was set aside, it was let through.
        let Ok(mut made) = steps.run(&[&again.record], None).await else { return };
        if steps.run_behind(&[&again.record], &mut made).await.is_err() {
            return;
        }
        let Some(traveller) = made.pop() else { return };
        let traced = traveller.traced.clone();
        let mut failed = steps.write(&again.record, traveller, &mut self.batch).err().map(|error| error.to_string());
        if failed.is_none() {
            self.traced.extend(traced.map(|traced| (traced, again.record.offset, "passed", None)));
            self.parked.take_out(&mut self.batch, again);
            self.append(health).await;
            // It cannot be appended: that is a failure of this event, not of what comes.
            if self.careful
                && let Some(standstill) = self.standstill.take_if(|standstill| !standstill.is_broken)
            {
                self.careful = false;
                failed = Some(standstill.why);
            }
        }
        match failed {
            None if self.standstill.is_none() => self.parked.done(again),
            None => {}
            Some(cause) => {
                self.batch.clear();
                self.parked.failed_again(&mut self.batch, again, cause);
                self.append(health).await;
                if self.standstill.is_none() {
                    self.parked.waits_again(again);
                }
            }
        }
    }

    /// Takes letters out that were written once more while they were taken out.
    pub async fn lay_ghosts(&mut self, health: &Reporter) {
        if self.standstill.is_none() {
            self.parked.take_out_ghosts(&mut self.batch);
            self.append(health).await;
        }
    }

    fn stands_still_at(&mut self, record: &Polled, cause: &str) {
        let (TopicPartition { topic, partition }, offset) = (&record.place, record.offset);
        let why = format!(
            "{cause} (the event at {topic}/{partition}/{offset}); change the program, or let a filter before it drop such events, and start \
             again: the stream goes on with this event"
        );
        self.standstill = Some(Standstill { why, is_broken: false });
    }

    /// Appends what has gathered, with the mark. Where that cannot be, it stands still.
    async fn append(&mut self, health: &Reporter) {
        let made_of = std::mem::take(&mut self.made_of);
        if self.batch.is_empty() {
            // Nothing came of the records: the group's offset alone says that they were read.
            self.end_traces();
            made_of.into_iter().for_each(|(_, ticket)| ticket.done());
            self.keep();
            return;
        }
        self.batch.checkpoint = Some(self.checkpoint());
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        let error = loop {
            match self.producer.append(&self.batch).await {
                Ok(()) => {
                    metrics::counter!("tributary_stream_events_total", "stream" => self.stream.clone())
                        .increment(self.batch.len() as u64);
                    self.batch.clear();
                    self.aside.clear();
                    self.end_traces();
                    made_of.into_iter().for_each(|(_, ticket)| ticket.done());
                    self.keep();
                    return;
                }
                Err(error) if error.class == ErrorClass::Transient => {
                    if health.down(error.message.clone()) {
                        warn!(stream = self.stream, error = error.message, "cannot append; trying again");
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => break error,
            }
        };
        self.batch.clear();
        // What is done again has another span then.
        self.traced.clear();
        self.parked.forget(&std::mem::take(&mut self.aside));
        match made_of.as_slice() {
            // It alone is to blame.
            [(record, _)] if error.class == ErrorClass::Definite && self.on_error == OnError::DeadLetter => {
                let record = record.clone();
                self.set_aside(&record, error.message);
                self.made_of = made_of;
                return Box::pin(self.append(health)).await;
            }
            [(record, _)] if error.class == ErrorClass::Definite => {
                let record = record.clone();
                self.stands_still_at(&record, &error.message);
            }
            _ => {
                self.careful = error.class == ErrorClass::Definite;
                let is_broken = error.class != ErrorClass::Definite;
                self.standstill = Some(Standstill { why: error.message, is_broken });
            }
        }
        // They are done again, from where the mark is.
        self.give_back(made_of);
    }

    fn end_traces(&mut self) {
        let TopicPartition { topic, partition } = &self.place;
        let stream = (self.stream.as_str(), self.parked.plan());
        for (traced, offset, outcome, why) in self.traced.drain(..) {
            traced.end(stream, &format!("{topic}/{partition}/{offset}"), outcome, why);
        }
    }

    /// What was seen up to here is so for good.
    fn keep(&mut self) {
        if let Some(seen) = &mut self.seen {
            seen.keep(self.next);
        }
    }

    /// Records are done again, and all that is held after them, when the partition goes on.
    fn give_back(&mut self, records: Vec<(Polled, Ticket)>) {
        let held = self.holding.as_mut().map(Holding::take_all).unwrap_or_default();
        self.waiting.extend(records.into_iter().chain(held.into_iter().map(Waiting::into_record)));
        // All of it was read before what waited already, but for what is given back later.
        self.waiting.sort_by_key(|(record, _)| record.offset);
        if let Some((first, _)) = self.waiting.first() {
            (self.next, self.done) = (first.offset, first.offset);
        }
    }
}
