//! How steps come to the event of a record: as much of it is read as the first steps look at, and the rest once they let it pass; or, where
//! most pass, all of it at once.

use bytes::Bytes;
use tributary_dsl::plan::{Origin, StepPlan};
use tributary_event::Op;
use tributary_expression::{Fields, Flow, Value, json};
use tributary_transport::Polled;

use super::looks::{has_changed, metadata, op};
use super::waits::sequence;
use super::{Event, RECORD, StepError, Steps, Traveller, Who};
use crate::stream::attributes::{Attributes, committed_us};

impl Steps {
    /// When the event of a record was, if it has one that says so.
    pub fn time_us(&self, record: &Polled) -> Option<i64> {
        self.begin(record, 0, false).time_us
    }

    /// Reads a record, whole if that is wanted, and runs so many of the first steps, which only look.
    pub(super) fn begin(&self, record: &Polled, first: usize, whole: bool) -> Traveller {
        let size = record.value.as_ref().map_or(0, Bytes::len);
        let (op, events) = (Op::Update, Ok(Vec::new()));
        let mut traveller =
            Traveller { size, op, looked: None, time_us: None, events, attributes: None, sequence: None, traced: None };
        let mut read = self.read(record, first, whole, &mut traveller);
        if whole && read.as_ref().is_err_and(|error| error.step == RECORD) {
            // What cannot be read whole may still be read in part, and the first steps drop it then: how it was read must not change what
            // becomes of it.
            read = self.read(record, self.first, false, &mut traveller);
        }
        match read {
            Ok(Some(event)) => traveller.events = Ok(vec![event]),
            Ok(None) => {}
            Err(error) => traveller.events = Err(error),
        }
        traveller
    }

    fn read(
        &self,
        record: &Polled,
        first: usize,
        whole: bool,
        traveller: &mut Traveller,
    ) -> Result<Option<Event>, StepError> {
        // A tombstone follows the event of its delete.
        let Some(value) = &record.value else { return Ok(None) };
        let unreadable = |e: json::ReadError| self.at(RECORD, e.to_string());
        let is_pruned = !whole && (first > 0 || !self.with_all);
        let fields = if is_pruned { &self.looked_at } else { &Fields::All };
        let mut flow = Flow::new(json::read_some(value, fields).map_err(unreadable)?);
        let input = self.inputs.iter().find(|input| *input.topic == *record.place.topic);
        let upstream = Attributes::read(record);
        let op = match input.map(|input| &input.origin) {
            // What its programs left need not say it any more.
            Some(Origin::Stream(_)) => upstream.as_ref().map(|upstream| upstream.op),
            Some(Origin::Topic) => Some(Op::Create),
            _ => op(&flow.event),
        };
        if self.with_time {
            let time_us = match input.map(|input| &input.origin) {
                Some(Origin::Stream(_)) => upstream.as_ref().and_then(|upstream| upstream.committed_us),
                Some(Origin::Topic) => None,
                _ => committed_us(&flow.event),
            };
            // Who does not say it is as late as its record.
            traveller.time_us = time_us.or(Some(record.timestamp_ms.saturating_mul(1_000)));
        }
        let op = op.ok_or_else(|| self.at(RECORD, "it is no change event: it has no `op`"))?;
        if !self.ops.contains(&op) {
            return Ok(None);
        }
        (traveller.op, traveller.looked) = (op, Some(0));
        if self.with_metadata {
            flow.metadata = metadata(record);
        }
        for (step, _) in &self.steps[..first] {
            let passes = match &step.plan {
                StepPlan::Filter(program) => self.call(step, program, &mut flow)? == Value::Boolean(true),
                StepPlan::Changed(columns) => op != Op::Update || has_changed(&flow.event, columns),
                _ => true,
            };
            if !passes {
                return Ok(None);
            }
            traveller.looked = traveller.looked.map(|looked| looked + 1);
        }
        if let Some(Who { pipeline, kind }) = &self.who {
            traveller.attributes = Some(match (input.map(|input| &input.origin), upstream) {
                (Some(Origin::Stream(_)), Some(upstream)) => upstream.passed_on(pipeline, kind),
                (Some(Origin::Table { source, .. }), _) => {
                    Attributes::of(&flow.event, op, record, pipeline, source, kind)
                }
                _ => Attributes::of_record(op, record, pipeline, kind),
            });
        }
        if self.with_all && *fields != Fields::All {
            flow.event = json::read(value).map_err(unreadable)?;
        }
        traveller.sequence = sequence(input, &flow.event);
        Ok(Some(Event { flow, is_new: false, parts: Vec::new() }))
    }
}
