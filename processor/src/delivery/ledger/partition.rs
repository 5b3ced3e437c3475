//! One partition of a sink with a ledger: what has gathered, where the ledger stands, and why it does not go on.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tracing::{info, warn};
use tributary_dsl::plan::OnError;
use tributary_transport::{Batch, Loss, LossCause, Polled, TopicId, TopicPartition, TransportError};

use super::{FIRST_PAUSE, Shared};
use crate::outside::OutsideError;
use crate::parked::Again;
use crate::retry::Backoff;
use crate::sink::{Committed, Entry, Mark, OutEvent};
use crate::tickets::Ticket;

/// What is known of a partition.
pub(super) struct Partition {
    pub place: TopicPartition,
    /// The group's offset, as long as the ledger was not asked where it stands.
    pub unopened: Option<Option<u64>>,
    /// Where the ledger stands.
    pub mark: Option<Mark>,
    /// Which topic it is of.
    pub topic: Option<TopicId>,
    pub gathered: Vec<Gathered>,
    pub bytes: usize,
    pub since: Option<Instant>,
    /// Why it does not go on, and when it is tried again.
    pub standstill: Option<(String, Instant)>,
    /// Whether it stands still as the sink will never take an event.
    pub is_refused: bool,
    pub tries: u32,
}

pub(super) struct Gathered {
    pub record: Polled,
    pub ticket: Ticket,
    /// None: nothing for the sink.
    pub event: Result<Option<OutEvent>, String>,
}

impl Partition {
    /// A partition whose ledger was not asked yet. `committed`: the group's offset.
    pub fn taken_over(place: &TopicPartition, committed: Option<u64>) -> Self {
        Self {
            place: place.clone(),
            unopened: Some(committed),
            mark: None,
            topic: None,
            gathered: Vec::new(),
            bytes: 0,
            since: None,
            standstill: None,
            is_refused: false,
            tries: 0,
        }
    }

    /// Asks the ledger where it stands, if that was not done yet. False: it does not say, and the partition stands still.
    pub async fn open(&mut self, shared: &Shared) -> bool {
        let Some(committed) = self.unopened else { return true };
        match self.ask(shared, committed).await {
            Ok(()) => {
                self.unopened = None;
                self.let_go();
                true
            }
            Err(error) => {
                self.tries = self.tries.saturating_add(1);
                self.stand_still(shared, error.message);
                false
            }
        }
    }

    /// What is before the mark is done.
    fn let_go(&mut self) {
        let next = self.next();
        let done = self.gathered.iter().take_while(|gathered| gathered.record.offset < next).count();
        self.gathered.drain(..done).for_each(|gathered| gathered.ticket.done());
    }

    fn next(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.next)
    }

    async fn ask(&mut self, shared: &Shared, committed: Option<u64>) -> Result<(), OutsideError> {
        let ends = shared.delivery.transport.watermarks(&self.place.topic).await.map_err(away)?;
        let end = ends.get(self.place.partition as usize).map_or(0, |ends| ends.high);
        self.topic = shared.delivery.transport.topic_id(&self.place.topic).await.map_err(away)?;
        shared.delivery.parked.reads(&self.place.topic, self.topic);
        self.mark = shared.sink.next(&self.place).await?;
        // A topic that was deleted and made again, however long it is.
        let is_gone = |mark: &Mark| TopicId::is_other(mark.topic, self.topic);
        // The group's offset follows the mark, unless it is of a topic that is gone.
        let is_behind = |committed: &u64| *committed <= end && self.next() < *committed;
        if let Some(committed) = committed.filter(is_behind).filter(|_| !self.mark.as_ref().is_some_and(is_gone)) {
            return Err(behind(&self.place, self.mark, committed));
        }
        if let Some(mark) = self.mark.filter(|mark| mark.next > end || is_gone(mark)) {
            let place = self.place.clone();
            shared.delivery.lacks(&[Loss { place, from: mark.next, to: 0, cause: LossCause::MadeAnew }]);
            self.start_anew(shared, 0).await?;
        }
        Ok(())
    }

    /// Whether the ledger stands at an offset of the topic that there is now, and nothing has gathered.
    pub async fn is_at(&self, shared: &Shared, next: u64) -> bool {
        let topic = shared.delivery.transport.topic_id(&self.place.topic).await.ok().flatten();
        topic.is_some() && self.mark == Some(Mark { next, topic }) && self.gathered.is_empty()
    }

    /// The topic was made anew: the ledger begins with it.
    pub async fn start_anew(&mut self, shared: &Shared, to: u64) -> Result<(), OutsideError> {
        self.topic = shared.delivery.transport.topic_id(&self.place.topic).await.map_err(away)?;
        shared.delivery.parked.reads(&self.place.topic, self.topic);
        match self.give(shared, &[], to).await? {
            Committed::Done => {
                self.mark = Some(self.mark_at(to));
                Ok(())
            }
            Committed::Fenced | Committed::Rejected { .. } => {
                let TopicPartition { topic, partition } = &self.place;
                Err(OutsideError::fatal(format!(
                    "the topic {topic} was made anew, and what the sink keeps of partition {partition} is of the old one; give the sink \
                     another `name`, and one of files another `folder`"
                )))
            }
        }
    }

    /// Events up to an offset are gone: the ledger goes on there.
    pub async fn goes_on_at(&mut self, shared: &Shared, to: u64) -> Result<(), OutsideError> {
        if self.mark.is_some_and(|mark| mark.next >= to) {
            return Ok(());
        }
        match self.give(shared, &[], to).await? {
            Committed::Done => self.mark = Some(self.mark_at(to)),
            Committed::Fenced | Committed::Rejected { .. } => self.mark = shared.sink.next(&self.place).await?,
        }
        match self.mark.is_some_and(|mark| mark.next >= to) {
            true => Ok(()),
            false => Err(OutsideError::transient("another process had the partition")),
        }
    }

    pub fn gather(&mut self, shared: &Shared, record: Polled, ticket: Ticket) {
        if record.offset < self.next() {
            ticket.done();
            return;
        }
        self.bytes += record.value.as_ref().map_or(0, Bytes::len);
        self.since.get_or_insert_with(Instant::now);
        let event = shared.delivery.event(&record);
        self.gathered.push(Gathered { record, ticket, event });
    }

    /// Gives the sink what has gathered. Afterwards nothing is gathered, or the partition stands still.
    pub async fn commit(&mut self, shared: &Shared) {
        self.standstill = None;
        self.is_refused = false;
        if !self.open(shared).await {
            return;
        }
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
            if shared.delivery.parked.holds(&gathered.record) {
                // It was set aside before it came once more.
            } else if let Some(letter) = shared.delivery.parked.before(&gathered.record) {
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
                    self.mark = Some(self.mark_at(to));
                    let took = self.since.map(|since| since.elapsed()).unwrap_or_default();
                    for gathered in self.gathered.drain(..count) {
                        if matches!(gathered.event, Ok(Some(_))) {
                            shared.delivery.traced((&gathered.record, None), took, "delivered", self.tries + 1, None);
                        }
                        gathered.ticket.done();
                    }
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

    fn mark_at(&self, next: u64) -> Mark {
        Mark { next, topic: self.topic }
    }

    async fn give(&self, shared: &Shared, events: &[OutEvent], to: u64) -> Result<Committed, OutsideError> {
        let begun = Instant::now();
        let entry = Entry { place: &self.place, from: self.mark, to: self.mark_at(to), events };
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
            Ok(mark) if mark.map_or(0, |mark| mark.next) < self.next() => {
                let error = behind(&self.place, mark, self.next());
                self.stand_still(shared, error.message);
            }
            Ok(mark) => {
                let before = self.mark;
                self.mark = mark;
                self.let_go();
                // It was done after all, or by another one.
                if self.mark != before && self.tries < 3 {
                    return;
                }
                self.stand_still(shared, why.to_owned());
            }
            Err(error) => self.stand_still(shared, error.message),
        }
    }

    pub fn stand_still(&mut self, shared: &Shared, why: String) {
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
            shared.delivery.traced((&gathered.record, None), Duration::ZERO, "set_aside", 1, Some(why));
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
        self.is_refused = true;
        self.stand_still(shared, why);
    }

    /// Does an event again that was set aside.
    pub async fn redo(&mut self, shared: &Shared, again: &Again) {
        if self.standstill.is_some() || !shared.delivery.parked.is_held(again) {
            return;
        }
        let refused = match shared.delivery.event(&again.record) {
            Err(why) => Some(why),
            Ok(event) => {
                let events: Vec<OutEvent> = event.into_iter().collect();
                let read_at = Mark { next: again.record.offset, topic: again.letter.topic_id };
                match shared.sink.redo(&self.place, self.mark, read_at, &events).await {
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
        if refused.is_some() {
            shared.delivery.parked.waits_again(again);
        } else {
            shared.delivery.parked.done(again);
            let (stream, sink) = (&shared.delivery.stream, &shared.delivery.plan.name);
            info!(stream, sink, letter = again.letter.id, "a dead letter was taken");
        }
    }
}

pub(super) fn away(error: TransportError) -> OutsideError {
    OutsideError { class: error.class, message: error.message }
}

/// The ledger knows less than the sink was given.
fn behind(place: &TopicPartition, mark: Option<Mark>, given: u64) -> OutsideError {
    let TopicPartition { topic, partition } = place;
    let knows = mark.map_or("nothing".to_owned(), |mark| format!("{}", mark.next));
    OutsideError::fatal(format!(
        "the sink was given partition {partition} of {topic} up to {given}, and its mark there is {knows}: is it another table or folder, \
         or was an older state of it restored? Give the sink another `name`, and one of files another `folder`, to let it begin anew"
    ))
}
