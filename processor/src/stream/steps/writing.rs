//! What events become in the topics of a stream.

use std::sync::Arc;

use tributary_event::Op;
use tributary_expression::{Value, json};
use tributary_transport::{Batch, Polled};

use super::{DEADLINE, Event, Sink, StepError, Steps, Traveller, traced};

impl Steps {
    /// Adds what a record has become to a batch, for each sink. Where that fails, some of it may have been added.
    pub fn write(&self, record: &Polled, traveller: Traveller, batch: &mut Batch) -> Result<(), StepError> {
        let Traveller { op, events, attributes, traced, .. } = traveller;
        for mut event in events? {
            let attributes = attributes.as_ref().map(|attributes| attributes.of_part(&event.parts));
            for sink in &self.sinks {
                let before = batch.len();
                self.to_topic(sink, record, op, &mut event, batch)?;
                if let Some(attributes) = attributes.as_ref().filter(|_| sink.plan.cloud_events && batch.len() > before)
                {
                    attributes.put_for_others(batch);
                }
                if batch.len() > before {
                    traced::put(traced.as_ref(), batch);
                }
            }
            if let (Some(own), Some(attributes)) = (&self.own, &attributes) {
                put(batch, own, record, record.key.as_deref(), &event);
                attributes.put(batch);
                traced::put(traced.as_ref(), batch);
            }
        }
        Ok(())
    }

    fn to_topic(
        &self,
        sink: &Sink,
        record: &Polled,
        op: Op,
        event: &mut Event,
        batch: &mut Batch,
    ) -> Result<(), StepError> {
        let name = || format!("topic {}", sink.topic);
        if let Some(when) = &sink.plan.when {
            let answer = when.run(&mut event.flow, DEADLINE);
            if answer.map_err(|failure| self.at(&name(), failure.to_string()))? != Value::Boolean(true) {
                return Ok(());
            }
        }
        let key = match &sink.plan.key {
            Some(program) => {
                let key = program.run(&mut event.flow, DEADLINE);
                let key = key.map_err(|failure| self.at(&name(), failure.to_string()))?;
                Some(json::key(&key).ok_or_else(|| self.at(&name(), "the key is null"))?)
            }
            None => record.key.as_ref().map(|key| key.to_vec()),
        };
        if sink.plan.compact && key.is_none() {
            let cause = "the record has no key, and the topic is compacted: say what its `key` is";
            return Err(self.at(&name(), cause));
        }
        match (sink.plan.compact && op == Op::Delete, key.as_deref()) {
            (true, key) => batch.push(&sink.topic, record.timestamp_ms, key, None),
            (false, key) => put(batch, &sink.topic, record, key, event),
        }
        Ok(())
    }
}

/// Adds an event to a batch. What no step changed is passed on as it came.
fn put(batch: &mut Batch, topic: &Arc<str>, record: &Polled, key: Option<&[u8]>, event: &Event) {
    batch.write(
        topic,
        record.timestamp_ms,
        |out| {
            out.extend_from_slice(key.unwrap_or_default());
            key.is_some()
        },
        |out| {
            match event.is_new {
                true => json::write(&event.flow.event, out),
                false => out.extend_from_slice(record.value.as_deref().unwrap_or_default()),
            }
            true
        },
    );
}
