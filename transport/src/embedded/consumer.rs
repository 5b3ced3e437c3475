//! Reading the embedded log as a member of a group.
//!
//! Nothing is fetched ahead but the rest of the blobs that were read last, so a caller that stays away costs nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use redb::ReadTransaction;
use tokio::sync::watch;

use super::Log;
use super::catalog::Topic;
use super::read::{Bounds, Stretch, stretch};
use super::store::{self, Failure};
use super::writer::Change;
use crate::contract::{Consumer, ConsumerSettings, Delivery, Polled, TopicPartition, TransportError};
use crate::metric;

/// What one read fetches at most, before decompression of its last blob.
const READ_BYTES: usize = 512 * 1024;

pub(super) struct EmbeddedConsumer {
    log: Arc<Log>,
    settings: ConsumerSettings,
    member: u64,
    news: watch::Receiver<u64>,
    /// The assignment as the caller knows it.
    current: BTreeMap<TopicPartition, Position>,
    pending: VecDeque<Polled>,
    /// The partition that was read last; the next one has its turn.
    last: Option<TopicPartition>,
}

struct Position {
    assignment: u64,
    topic: Arc<Topic>,
    next: u64,
}

impl EmbeddedConsumer {
    pub fn join(log: Arc<Log>, settings: ConsumerSettings) -> Result<Self, TransportError> {
        let news = log.catalog.listen();
        let mut places = Vec::new();
        for name in &settings.topics {
            let topic = log.catalog.topic(name)?;
            places.extend(
                (0..topic.stored.partitions).map(|partition| TopicPartition { topic: topic.name.clone(), partition }),
            );
        }
        let member = log.groups.join(&settings.group, places);
        log.catalog.announce();
        Ok(Self { log, settings, member, news, current: BTreeMap::new(), pending: VecDeque::new(), last: None })
    }

    /// Takes note of one change of the assignment, if there is one.
    async fn rebalance(&mut self) -> Result<Option<Delivery>, TransportError> {
        let target = self.log.groups.assigned(&self.settings.group, self.member);
        let lost: Vec<TopicPartition> = self
            .current
            .iter()
            .filter(|(place, position)| target.get(place) != Some(&position.assignment))
            .map(|(place, _)| place.clone())
            .collect();
        if !lost.is_empty() {
            self.current.retain(|place, _| !lost.contains(place));
            self.pending.retain(|record| !lost.contains(&record.place));
            return Ok(Some(Delivery::Revoked(lost)));
        }
        let mut gained = Vec::new();
        for (place, assignment) in target {
            if !self.current.contains_key(&place) {
                let topic = self.log.catalog.topic(&place.topic)?;
                gained.push((place, assignment, topic));
            }
        }
        if gained.is_empty() {
            return Ok(None);
        }
        let group = self.settings.group.clone();
        let (gained, committed) = self
            .log
            .blocking(move |log| {
                let committed = log.store.read(|txn| {
                    gained
                        .iter()
                        .map(|(place, _, topic)| offset(txn, &group, topic, place.partition))
                        .collect::<Result<Vec<_>, _>>()
                })?;
                Ok((gained, committed))
            })
            .await?;
        let mut news = Vec::new();
        for ((place, assignment, topic), committed) in gained.into_iter().zip(committed) {
            let ends = topic.partitions[place.partition as usize].ends();
            let start = if self.settings.from_start { ends.low } else { ends.next };
            news.push(place.clone());
            self.current.insert(place, Position { assignment, topic, next: committed.unwrap_or(start) });
        }
        Ok(Some(Delivery::Assigned(news)))
    }

    /// The partition whose turn it is and that has something to read.
    fn choose(&self) -> Option<TopicPartition> {
        let has_more = |(place, position): &(&TopicPartition, &Position)| {
            position.topic.partitions.get(place.partition as usize).is_some_and(|p| position.next < p.ends().next)
        };
        let after = self.current.iter().filter(|(place, _)| self.last.as_ref().is_none_or(|last| *place > last));
        after.chain(self.current.iter()).find(has_more).map(|(place, _)| place.clone())
    }

    async fn fetch(&mut self, place: TopicPartition) -> Result<(), TransportError> {
        let Some(position) = self.current.get(&place) else { return Ok(()) };
        let (topic, from, partition) = (position.topic.clone(), position.next, place.partition);
        let bounds = Bounds { records: self.settings.max_records, bytes: READ_BYTES };
        let Stretch { records, next } =
            self.log.blocking(move |log| stretch(&log.store, &topic, partition, from, bounds)).await?;
        if let Some(position) = self.current.get_mut(&place) {
            position.next = next;
        }
        self.pending.extend(records);
        self.last = Some(place);
        Ok(())
    }

    fn committed(&self, txn: &ReadTransaction) -> Result<Vec<Option<u64>>, Failure> {
        self.current.iter().map(|(place, at)| offset(txn, &self.settings.group, &at.topic, place.partition)).collect()
    }
}

fn offset(txn: &ReadTransaction, group: &str, topic: &Topic, partition: u32) -> Result<Option<u64>, Failure> {
    Ok(txn.open_table(store::OFFSETS)?.get((group, topic.stored.id, partition))?.map(|offset| offset.value()))
}

#[async_trait]
impl Consumer for EmbeddedConsumer {
    async fn next(&mut self) -> Result<Delivery, TransportError> {
        loop {
            self.news.mark_unchanged();
            if let Some(delivery) = self.rebalance().await? {
                return Ok(delivery);
            }
            if !self.pending.is_empty() {
                let count = self.pending.len().min(self.settings.max_records.max(1));
                let records: Vec<Polled> = self.pending.drain(..count).collect();
                metric::polled(&self.settings.group, &records);
                return Ok(Delivery::Records(records));
            }
            match self.choose() {
                Some(place) => self.fetch(place).await?,
                None => {
                    // The sender lives in the log, which this consumer holds.
                    let _ = self.news.changed().await;
                }
            }
        }
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        let target = self.log.groups.assigned(&self.settings.group, self.member);
        let offsets: Vec<_> = offsets
            .iter()
            .filter_map(|(place, offset)| {
                let position = self.current.get(place)?;
                let valid = target.get(place) == Some(&position.assignment);
                valid.then_some((position.topic.stored.id, place.partition, *offset))
            })
            .collect();
        if offsets.is_empty() {
            return Ok(());
        }
        self.log.change(Change::Offsets { group: self.settings.group.clone(), offsets }).await
    }

    async fn lag(&mut self) -> Result<u64, TransportError> {
        let committed = self.log.store.read(|txn| self.committed(txn))?;
        let lag = |((place, position), committed): ((&TopicPartition, &Position), Option<u64>)| {
            let ends = position.topic.partitions.get(place.partition as usize).map(|p| p.ends()).unwrap_or_default();
            let start = if self.settings.from_start { ends.low } else { position.next };
            ends.next.saturating_sub(committed.unwrap_or(start).max(ends.low))
        };
        Ok(self.current.iter().zip(committed).map(lag).sum())
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        self.log.groups.leave(&self.settings.group, self.member);
        self.log.catalog.announce();
    }
}
