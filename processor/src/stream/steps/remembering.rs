//! Steps that remember what came before: `dedupe`, and the key of `collapse`.

use std::time::Duration;

use bytes::Bytes;
use tributary_dsl::plan::{DedupePlan, OnError, Step, StepPlan};
use tributary_expression::json;
use tributary_transport::Polled;

use super::counts::Tally;
use super::{StepError, Steps, Traveller};
use crate::stream::seen::Seen;

impl Steps {
    /// What its step that lets an event of each key go on once remembers, before anything came.
    pub fn seen(&self) -> Option<Seen> {
        self.steps.iter().find_map(|(step, _)| match &step.plan {
            StepPlan::Dedupe(plan) => Some(Seen::new(plan.within, plan.limit)),
            _ => None,
        })
    }

    /// How long keys are remembered, if they are.
    pub fn within(&self) -> Option<Duration> {
        self.steps.iter().find_map(|(step, _)| match &step.plan {
            StepPlan::Dedupe(plan) => Some(plan.within),
            _ => None,
        })
    }

    /// Which events the event of a record belongs to, where some are held; none: no others.
    pub fn key(&self, traveller: &mut Traveller) -> Option<Bytes> {
        let (step, _) = self.steps.get(self.behind)?;
        let StepPlan::Collapse(plan) = &step.plan else { return None };
        let event = traveller.events.as_mut().ok()?.first_mut()?;
        match self.call(step, &plan.by, &mut event.flow) {
            Ok(key) => json::key(&key).map(Bytes::from),
            Err(error) => {
                traveller.events = Err(error);
                None
            }
        }
    }

    /// Counts what became of events at the step that holds them.
    pub fn held(&self, tally: Tally) {
        self.counts.add(self.behind, tally);
    }

    /// Ends events whose key was seen a short while before. Without memory, none is.
    pub(super) fn dedupe(
        &self,
        step: &Step,
        plan: &DedupePlan,
        records: &[&Polled],
        travellers: &mut [Traveller],
        mut seen: Option<&mut Seen>,
    ) {
        for (record, traveller) in records.iter().zip(travellers) {
            if let Some(seen) = &mut seen {
                seen.comes(record.offset, traveller.time_us);
            }
            let Ok(events) = &mut traveller.events else { continue };
            let mut new = Vec::with_capacity(events.len());
            let mut failed = None;
            for mut event in std::mem::take(events) {
                let is_new =
                    self.call(step, &plan.by, &mut event.flow).and_then(|key| match (json::key(&key), &mut seen) {
                        (Some(key), Some(seen)) => seen.is_new(record.offset, &key).map_err(|_| self.full(step, plan)),
                        _ => Ok(true),
                    });
                match is_new {
                    Ok(is_new) => new.extend(is_new.then_some(event)),
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
            traveller.events = failed.map_or(Ok(new), Err);
        }
    }

    fn full(&self, step: &Step, plan: &DedupePlan) -> StepError {
        let cause = format!(
            "the keys that were seen within {:?} take more than its `limit` of {} bytes: raise it, or remember them for a shorter time",
            plan.within, plan.limit
        );
        // It is no fact about this event.
        StepError { on_error: OnError::Stop, ..self.error(step, cause) }
    }
}
