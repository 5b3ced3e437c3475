//! One partition of a stream: its producer, and its mark.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::warn;
use tributary_event::{ErrorClass, Reporter};
use tributary_transport::{Batch, Checkpoint, Polled, Producer, Purpose, TopicPartition, TransportError};

use super::Stream;
use super::steps::Steps;
use crate::retry::Backoff;
use crate::tickets::Ticket;

/// Bytes that are appended together, about.
const BATCH: usize = 1 << 20;

/// Up to where a partition was read by what is in the sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// The offset of the first record that is not.
    next: u64,
}

pub(super) struct Partition {
    /// The producer's id, and the mark's name.
    name: String,
    stream: String,
    producer: Box<dyn Producer>,
    next: u64,
    batch: Batch,
    /// Why it does not go on.
    standstill: Option<String>,
}

impl Partition {
    /// Takes a partition over from whoever had it.
    pub async fn open(stream: &Stream, place: &TopicPartition) -> Result<Self, TransportError> {
        let TopicPartition { topic, partition } = place;
        let name = format!("{}.{}.{topic}-{partition}", stream.pipeline, stream.plan.name);
        let producer = stream.transport.producer(&name, Purpose::Stage).await?;
        stream.transport.checkpoints_are_readable().await?;
        let mark = stream.transport.checkpoint(&name).await?;
        let unknown = |e| {
            let message = format!("the mark {name} is not one of a stream: {e}");
            TransportError::caused(ErrorClass::Fatal, message, e)
        };
        let mark: Mark = mark.map_or(Ok(Mark { next: 0 }), |mark| serde_json::from_slice(&mark)).map_err(unknown)?;
        let (stream, batch) = (stream.plan.name.clone(), Batch::new());
        Ok(Self { name, stream, producer, next: mark.next, batch, standstill: None })
    }

    /// Why it does not go on, if it does not.
    pub fn standstill(&self) -> Option<&str> {
        self.standstill.as_deref()
    }

    /// Records before this offset will never come.
    pub fn goes_on_from(&mut self, next: u64) {
        self.next = next;
    }

    /// Does records, in order, until one of them stops it. Those that are done are in the sinks for good.
    pub async fn work(&mut self, steps: &Steps, records: Vec<(Polled, Ticket)>, health: &Reporter) {
        let mut tickets = Vec::with_capacity(records.len());
        for (record, ticket) in records {
            if self.standstill.is_some() {
                return;
            }
            if record.offset < self.next {
                ticket.done();
                continue;
            }
            let before = self.batch.len();
            if let Err(error) = steps.run(&record, &mut self.batch) {
                self.batch.truncate(before);
                if self.append(std::mem::take(&mut tickets), health).await {
                    let TopicPartition { topic, partition } = &record.place;
                    self.standstill = Some(format!(
                        "{error} (the event at {topic}/{partition}/{}); change the program, or let a filter before it drop such events, and \
                         start again: the stream goes on with this event",
                        record.offset
                    ));
                }
                return;
            }
            self.next = record.offset + 1;
            tickets.push(ticket);
            if self.batch.size() >= BATCH && !self.append(std::mem::take(&mut tickets), health).await {
                return;
            }
        }
        self.append(tickets, health).await;
    }

    /// Appends what has gathered, with the mark. False: it stands still.
    async fn append(&mut self, tickets: Vec<Ticket>, health: &Reporter) -> bool {
        if self.batch.is_empty() {
            // Nothing came of the records: the group's offset alone says that they were read.
            tickets.into_iter().for_each(Ticket::done);
            return true;
        }
        let content = serde_json::to_vec(&Mark { next: self.next }).unwrap_or_default();
        self.batch.checkpoint = Some(Checkpoint { name: self.name.clone(), content: Bytes::from(content) });
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            match self.producer.append(&self.batch).await {
                Ok(()) => break,
                Err(error) if error.class == ErrorClass::Transient => {
                    if health.down(error.message.clone()) {
                        warn!(stream = self.stream, error = error.message, "cannot append; trying again");
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => {
                    self.standstill = Some(error.message);
                    return false;
                }
            }
        }
        metrics::counter!("tributary_stream_events_total", "stream" => self.stream.clone())
            .increment(self.batch.len() as u64);
        self.batch.clear();
        tickets.into_iter().for_each(Ticket::done);
        true
    }
}
