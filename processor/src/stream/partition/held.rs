//! What a partition does with events that are held for later ones of their key (see [`crate::stream::holding`]). Where the partition
//! stands still, nothing is held: what was goes on early before, or is done again from its record.

use tributary_dsl::plan::{Step, StepPlan};
use tributary_event::Reporter;
use tributary_transport::Polled;

use tokio::time::Instant;

use super::{BATCH, Partition, Standstill};
use crate::stream::holding::{Bounds, Coming, Holding};
use crate::stream::steps::{Steps, Tally, Traveller};
use crate::tickets::Ticket;

/// A record whose event is held.
pub(in crate::stream) struct Waiting {
    record: Polled,
    ticket: Ticket,
    traveller: Traveller,
}

impl Waiting {
    pub(super) fn into_record(self) -> (Polled, Ticket) {
        (self.record, self.ticket)
    }
}

/// What a step holds, if it is one that does.
pub(super) fn holding(step: &Step) -> Option<Holding<Waiting>> {
    let StepPlan::Collapse(plan) = &step.plan else { return None };
    let (period, patience, keys) = (plan.period, plan.patience, plan.keys);
    Some(Holding::new(Bounds { period, patience, keys, bytes: usize::try_from(plan.limit).unwrap_or(usize::MAX) }))
}

impl Partition {
    /// When the next event goes on that is held, if nothing comes before.
    pub(in crate::stream) fn next_due(&self) -> Option<Instant> {
        self.holding.as_ref().filter(|_| self.standstill.is_none()).and_then(Holding::next)
    }

    /// Holds what has come through the steps before.
    pub(super) async fn hold(
        &mut self,
        steps: &Steps,
        made: impl Iterator<Item = ((Polled, Ticket), Traveller)>,
        health: &Reporter,
    ) {
        let mut tally = Tally::default();
        for ((record, mut ticket), mut traveller) in made {
            if self.standstill.is_some() {
                self.waiting.push((record, ticket));
                continue;
            }
            let came = usize::from(!traveller.has_ended() && !traveller.has_failed());
            let key = steps.key(&mut traveller);
            tally.came += came;
            tally.failed += usize::from(came > 0 && traveller.has_failed());
            if let Some(error) = traveller.stops().map(ToString::to_string) {
                self.let_all_go(steps, health).await;
                if self.standstill.is_none() {
                    self.stands_still_at(&record, &error);
                }
                self.waiting.push((record, ticket));
                continue;
            }
            self.next = record.offset + 1;
            let Some(holding) = &mut self.holding else { continue };
            if traveller.has_ended() {
                holding.goes_by(traveller.time_us);
                ticket.done();
                continue;
            }
            ticket.make_room();
            let size =
                record.key.as_ref().map_or(0, |key| key.len()) + record.value.as_ref().map_or(0, |value| value.len());
            let (offset, time_us) = (record.offset, traveller.time_us);
            let what = Waiting { record, ticket, traveller };
            if let Some(before) = holding.push(Coming { offset, time_us, key, size, what }, Instant::now()) {
                tally.ended += 1;
                before.ticket.done();
            }
        }
        steps.held(tally);
        self.let_go(steps, health).await;
    }

    /// Lets go of what has waited long enough.
    pub(super) async fn let_go(&mut self, steps: &Steps, health: &Reporter) {
        let now = Instant::now();
        while self.standstill.is_none() {
            let Some(holding) = &mut self.holding else { return };
            let read = self.next;
            let due: Vec<Waiting> = std::iter::from_fn(|| holding.take(read, now)).take(self.together).collect();
            if due.is_empty() {
                self.done = holding.first().unwrap_or(self.next);
                return;
            }
            self.go_on(steps, due, health).await;
        }
    }

    /// Lets go of everything that is held.
    pub(super) async fn let_all_go(&mut self, steps: &Steps, health: &Reporter) {
        if self.standstill.is_some() {
            return;
        }
        let all = self.holding.as_mut().map(Holding::take_all).unwrap_or_default();
        let mut all = all.into_iter();
        while self.standstill.is_none() {
            let some: Vec<Waiting> = all.by_ref().take(self.together).collect();
            if some.is_empty() {
                self.done = self.next;
                return self.append(health).await;
            }
            self.go_on(steps, some, health).await;
        }
        self.give_back(all.map(Waiting::into_record).collect());
    }

    /// Takes events that were held through the steps behind.
    async fn go_on(&mut self, steps: &Steps, due: Vec<Waiting>, health: &Reporter) {
        let (records, mut travellers): (Vec<_>, Vec<_>) =
            due.into_iter().map(|waiting| ((waiting.record, waiting.ticket), waiting.traveller)).unzip();
        let read: Vec<&Polled> = records.iter().map(|(record, _)| record).collect();
        let came = travellers.iter().filter(|traveller| !traveller.has_failed()).count();
        if let Err(error) = steps.run_behind(&read, &mut travellers).await {
            self.append(health).await;
            if self.standstill.is_none() {
                self.standstill = Some(Standstill { why: error.message, is_broken: false });
            }
            self.give_back(records);
            return;
        }
        steps.held(Tally { went_on: came, ..Tally::default() });
        let mut left = records.into_iter().zip(travellers);
        while let Some(((record, ticket), traveller)) = left.next() {
            if let Err(error) = self.write(steps, &record, traveller) {
                self.append(health).await;
                if self.standstill.is_none() {
                    self.stands_still_at(&record, &error.to_string());
                }
                self.give_back([(record, ticket)].into_iter().chain(left.map(|(record, _)| record)).collect());
                return;
            }
            self.done = record.offset + 1;
            self.made_of.push((record, ticket));
            if self.careful || self.batch.size() >= BATCH {
                self.append(health).await;
                if self.standstill.is_some() {
                    return self.give_back(left.map(|(record, _)| record).collect());
                }
            }
        }
    }
}
