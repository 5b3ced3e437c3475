//! What goes where: the shares of a batch that each partition gets, and requests of a size that brokers take.

use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode as Code;
use tributary_event::ErrorClass;

use super::super::transaction::TOGETHER;
use super::super::wire::{Fault, Partition, partition_of};
use super::KafkaProducer;
use crate::contract::{RecordRef, too_large};
use crate::numbers::{End, Run};

/// Partitions of one request with records.
const PARTITIONS: usize = 500;

/// A batch's records of one partition.
pub(super) struct Share {
    pub topic: Arc<str>,
    pub partition: u32,
    pub leader: i32,
    pub gathered: Partition,
    /// The most that goes together.
    pub together: usize,
    /// How many records it has.
    count: u64,
    /// The numbers of its records, where they have any.
    pub run: Option<Run>,
}

impl Share {
    /// Where its numbers go on behind it.
    pub fn end(&self) -> Option<End> {
        let next = self.run.as_ref()?.next() + self.count;
        Some(End { topic: self.topic.clone(), partition: self.partition, next })
    }
}

impl KafkaProducer {
    /// The partitions that get records, in the order of topics, and which of them each record belongs to. Records of `plain` have no
    /// numbers.
    pub(super) async fn share_out(
        &mut self,
        records: impl Iterator<Item = RecordRef<'_>> + Send,
        plain: &str,
    ) -> Result<(Vec<Share>, Vec<usize>), Fault> {
        let mut places: Vec<usize> = Vec::new();
        let mut found: Vec<(Arc<str>, u32)> = Vec::new();
        // By topic: its number of partitions, and where each stands in `found`.
        let mut topics: Vec<(Arc<str>, Vec<Option<usize>>)> = Vec::new();
        self.keyless = self.keyless.wrapping_add(1);
        for record in records {
            self.check_size(&record)?;
            let known = topics.iter().position(|(topic, _)| Arc::ptr_eq(topic, record.topic));
            let known = known.or_else(|| topics.iter().position(|(topic, _)| topic == record.topic));
            let topic = match known {
                Some(topic) => topic,
                None => {
                    let count = self.cluster.partitions(record.topic).await?;
                    topics.push((record.topic.clone(), vec![None; count as usize]));
                    topics.len() - 1
                }
            };
            let places_of = &mut topics[topic].1;
            let count = places_of.len() as u32;
            let partition = record.key.map_or(self.keyless % count, |key| partition_of(key, count));
            let place = *places_of[partition as usize].get_or_insert_with(|| {
                found.push((record.topic.clone(), partition));
                found.len() - 1
            });
            places.push(place);
        }
        self.in_order(found, places, plain)
    }

    /// Puts the partitions in the order of topics.
    fn in_order(
        &mut self,
        found: Vec<(Arc<str>, u32)>,
        mut places: Vec<usize>,
        plain: &str,
    ) -> Result<(Vec<Share>, Vec<usize>), Fault> {
        let mut order: Vec<usize> = (0..found.len()).collect();
        order.sort_by_key(|at| &found[*at]);
        let mut moved = vec![0; found.len()];
        let mut shares = Vec::with_capacity(found.len());
        for at in order {
            moved[at] = shares.len();
            let (topic, partition) = found[at].clone();
            let leader = self.cluster.leader(&topic, partition).ok_or_else(|| Fault {
                code: Some(Code::LeaderNotAvailable),
                class: ErrorClass::Transient,
                text: format!("partition {partition} of {topic} is gone"),
                topic: None,
            })?;
            let together = self.together.less(&topic).unwrap_or(TOGETHER);
            let key = (topic, partition);
            let sequence = self.turn.sequences.get(&key).copied().unwrap_or(0);
            let numbers = self.numbers.as_mut().filter(|_| *key.0 != *plain);
            let run = numbers.map(|numbers| numbers.run(&key.0, partition));
            let gathered = Partition::new(sequence);
            shares.push(Share { topic: key.0, partition, leader, gathered, together, count: 0, run });
        }
        for place in &mut places {
            *place = moved[*place];
            shares[*place].count += 1;
        }
        Ok((shares, places))
    }

    /// A record that no topic of ours takes is refused before anything is sent.
    fn check_size(&self, record: &RecordRef<'_>) -> Result<(), Fault> {
        match too_large(record, self.settings.max_record) {
            None => Ok(()),
            Some(text) => Err(Fault { code: None, class: ErrorClass::Definite, text, topic: None }),
        }
    }
}

/// Parts of about the size that goes together, whose answers are small.
pub(super) fn by_size<K>(batches: &[(K, u32, Vec<u8>)]) -> impl Iterator<Item = &[(K, u32, Vec<u8>)]> {
    let (mut size, mut count) = (0, 1);
    batches.chunk_by(move |last, next| {
        size += last.2.len();
        count += 1;
        let fits = size + next.2.len() <= TOGETHER && count <= PARTITIONS;
        if !fits {
            (size, count) = (0, 1);
        }
        fits
    })
}
