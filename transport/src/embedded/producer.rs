//! Appending to the embedded log: records are sorted into blobs here, in the caller's thread, and written by the writer.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::runtime::{Handle, RuntimeFlavor};
use tributary_event::ErrorClass;

use super::Log;
use super::blob::{Blob, BlobBuilder};
use super::catalog::Topic;
use super::store;
use super::writer::Change;
use crate::contract::{Batch, Producer, TransportError, too_large};
use crate::metric;
use crate::numbers::{End, Numbers, Run, topics};
use crate::partition::partition_for_key;

/// Batches above this size are encoded without holding up the other tasks of the runtime.
const LARGE: usize = 128 * 1024;

pub(super) struct EmbeddedProducer {
    pub log: Arc<Log>,
    pub id: Arc<str>,
    pub epoch: u64,
    /// Where the next record without a key goes.
    pub turn: u32,
    /// Builders of earlier batches, whose memory is used again.
    pub spare: Vec<BlobBuilder>,
    /// The numbers of its records, if it gives them any.
    pub numbers: Option<Numbers>,
    /// Where the headers of a numbered record are made.
    pub scratch: Vec<u8>,
}

/// As many builders are kept from batch to batch.
const SPARE: usize = 16;

struct Encoded {
    blobs: Vec<(Arc<Topic>, u32, Vec<Blob>)>,
    /// Where numbers go on.
    ends: Vec<End>,
}

struct Lane {
    topic: Arc<Topic>,
    partition: u32,
    builder: BlobBuilder,
    sealed: Vec<Blob>,
    run: Option<Run>,
}

impl EmbeddedProducer {
    fn encode(&mut self, batch: &Batch) -> Result<Encoded, TransportError> {
        let now = tributary_event::clock::now_us() / 1000;
        let compress = self.log.settings.compress;
        let mut lanes: Vec<Lane> = Vec::new();
        let mut index: HashMap<(u32, u32), usize> = HashMap::new();
        let mut current: Option<(Arc<str>, Arc<Topic>)> = None;
        for record in batch.records() {
            if let Some(text) = too_large(&record, self.log.settings.max_record) {
                return Err(TransportError::new(ErrorClass::Definite, text));
            }
            let topic = match &current {
                Some((name, topic)) if Arc::ptr_eq(name, record.topic) => topic.clone(),
                _ => {
                    let topic = self.log.catalog.topic(record.topic)?;
                    current = Some((record.topic.clone(), topic.clone()));
                    topic
                }
            };
            let partitions = topic.stored.partitions;
            let partition = match record.key {
                Some(key) => partition_for_key(key, partitions),
                None => {
                    self.turn = self.turn.wrapping_add(1);
                    self.turn % partitions.max(1)
                }
            };
            let at = *index.entry((topic.stored.id, partition)).or_insert_with(|| {
                let builder = self.spare.pop().unwrap_or_default();
                let run = self.numbers.as_mut().map(|numbers| numbers.run(&topic.name, partition));
                lanes.push(Lane { topic, partition, builder, sealed: Vec::new(), run });
                lanes.len() - 1
            });
            let lane = &mut lanes[at];
            let record = match &mut lane.run {
                Some(run) => run.number(&record, &mut self.scratch),
                None => record,
            };
            if lane.builder.is_too_full_for(&record) {
                lane.sealed.push(lane.builder.seal(now, None, compress));
            }
            lane.builder.append(&record);
        }
        let mut ends = Vec::new();
        let finish = |mut lane: Lane| {
            if !lane.builder.is_empty() {
                lane.sealed.push(lane.builder.seal(now, None, compress));
            }
            if self.spare.len() < SPARE {
                self.spare.push(lane.builder);
            }
            let topic = lane.topic.name.clone();
            ends.extend(lane.run.map(|run| End { topic, partition: lane.partition, next: run.next() }));
            (lane.topic, lane.partition, lane.sealed)
        };
        Ok(Encoded { blobs: lanes.into_iter().map(finish).collect(), ends })
    }
}

impl EmbeddedProducer {
    /// Reads where numbers go on, if that was not read yet.
    async fn read_numbers(&mut self) -> Result<(), TransportError> {
        let Some(numbers) = self.numbers.as_mut().filter(|numbers| !numbers.are_read()) else { return Ok(()) };
        let prefix = numbers.prefix();
        let read = move |log: &Log| {
            log.store.read(|txn| {
                let mut kept: Vec<(String, Vec<u8>)> = Vec::new();
                for entry in txn.open_table(store::CHECKPOINTS)?.range(prefix.as_str()..)? {
                    let (name, content) = entry?;
                    if !name.value().starts_with(&prefix) {
                        break;
                    }
                    kept.push((name.value().to_owned(), content.value().to_vec()));
                }
                Ok(kept)
            })
        };
        let kept = self.log.blocking(read).await?;
        numbers.read(kept.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
        Ok(())
    }

    /// What is kept of the numbers of a batch.
    fn kept(&self, batch: &Batch, ends: &[End]) -> Vec<(String, Vec<u8>)> {
        let Some(numbers) = &self.numbers else { return Vec::new() };
        topics(batch).iter().map(|topic| (numbers.name(topic), numbers.content(topic, ends))).collect()
    }
}

#[async_trait]
impl Producer for EmbeddedProducer {
    fn max_record(&self) -> usize {
        self.log.settings.max_record
    }

    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.read_numbers().await?;
        let Encoded { blobs, ends } =
            if batch.size() > LARGE && Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
                tokio::task::block_in_place(|| self.encode(batch))?
            } else {
                self.encode(batch)?
            };
        let checkpoint = batch.checkpoint.clone();
        let kept = self.kept(batch, &ends);
        let change = Change::Append { producer: self.id.clone(), epoch: self.epoch, blobs, checkpoint, kept };
        self.log.change(change).await?;
        if let Some(numbers) = &mut self.numbers {
            numbers.durable(&ends);
        }
        metric::appended(batch);
        Ok(())
    }
}
