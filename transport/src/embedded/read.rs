//! Reading committed records of the embedded log.

use redb::ReadTransaction;
use tributary_event::ErrorClass;

use super::blob;
use super::catalog::{Ends, Topic};
use super::store::{self, Failure, Store};
use crate::contract::{Polled, TopicPartition, TransportError};

/// Blobs that are looked at in one transaction: a long one keeps what was removed meanwhile on the disk.
const AT_ONCE: usize = 1_000;

/// A stretch of a partition.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    pub records: Vec<Polled>,
    /// Where to read on; past gaps that compaction left.
    pub next: u64,
    /// The first offset that was kept when this was read: what stood before it had been removed by then.
    pub low: u64,
    /// Bytes of its blobs, decompressed.
    pub bytes: usize,
}

/// How much one call reads; at least one blob.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub records: usize,
    pub bytes: usize,
}

/// Reads whole blobs from `from` until a bound is reached. Blocking.
pub(super) fn stretch(
    store: &Store,
    topic: &Topic,
    partition: u32,
    from: u64,
    bounds: Bounds,
) -> Result<Stretch, TransportError> {
    let ends = of_partition(topic, partition)?;
    let from = from.max(ends.low);
    if from >= ends.next {
        return Ok(Stretch { next: from, low: ends.low, ..Stretch::default() });
    }
    store.read(|txn| {
        let stored = txn.open_table(store::ENDS)?.get((topic.stored.id, partition))?;
        let low = stored.map_or(0, |ends| ends.value().0);
        Ok(Stretch { low, ..in_transaction(txn, topic, partition, from.max(low), ends.next, bounds)? })
    })
}

/// The first offset of a record of this time or later, or the end. Looks at all that is kept before it. Blocking.
pub(super) fn offset_at(store: &Store, topic: &Topic, partition: u32, time_ms: i64) -> Result<u64, TransportError> {
    let ends = of_partition(topic, partition)?;
    let mut at = ends.low;
    while at < ends.next {
        let found = store.read(|txn| {
            let table = txn.open_table(store::BLOBS)?;
            for (count, entry) in
                table.range((topic.stored.id, partition, at)..(topic.stored.id, partition, ends.next))?.enumerate()
            {
                let (key, value) = entry?;
                let base = key.value().2;
                if count == AT_ONCE {
                    return Ok((base, false));
                }
                let damaged = |cause| Failure::Transport(damaged(topic, partition, base, cause));
                if let Some(delta) = blob::first_at(value.value(), time_ms).map_err(damaged)? {
                    return Ok((base + u64::from(delta), true));
                }
            }
            Ok((ends.next, false))
        })?;
        match found {
            (offset, true) => return Ok(offset),
            (next, false) => at = next,
        }
    }
    Ok(ends.next)
}

fn of_partition(topic: &Topic, partition: u32) -> Result<Ends, TransportError> {
    topic.partitions.get(partition as usize).map(|p| p.ends()).ok_or_else(|| {
        let (name, count) = (&topic.name, topic.partitions.len());
        let text = format!("topic {name} has {count} partitions and no partition {partition}");
        TransportError::new(ErrorClass::Fatal, text)
    })
}

fn in_transaction(
    txn: &ReadTransaction,
    topic: &Topic,
    partition: u32,
    from: u64,
    end: u64,
    bounds: Bounds,
) -> Result<Stretch, Failure> {
    let id = topic.stored.id;
    let place = TopicPartition { topic: topic.name.clone(), partition };
    let table = txn.open_table(store::BLOBS)?;
    let mut stretch = Stretch { next: from, ..Stretch::default() };
    let take = |value: &[u8], base: u64, stretch: &mut Stretch| {
        let damaged = |cause| Failure::Transport(damaged(topic, partition, base, cause));
        let header = blob::header(value).map_err(damaged)?;
        let after = base + u64::from(header.last_delta) + 1;
        if after > from {
            blob::decode(value, &place, base, from, &mut stretch.records).map_err(damaged)?;
            stretch.next = after;
            stretch.bytes += header.raw_length as usize;
        }
        Ok::<_, Failure>(stretch.records.len() >= bounds.records || stretch.bytes >= bounds.bytes)
    };
    // A range looks at the blobs at both of its ends, whatever their size; most reads begin where a blob does and go on where
    // the next one does, which needs one at a time.
    loop {
        let at = stretch.next;
        if at >= end {
            break;
        }
        if let Some(value) = table.get((id, partition, at))? {
            if take(value.value(), at, &mut stretch)? {
                return Ok(stretch);
            }
            continue;
        }
        // In the middle of a blob, or in a gap that compaction left.
        let before = match at == from {
            true => table.range((id, partition, 0)..(id, partition, at))?.next_back().transpose()?,
            false => None,
        };
        if let Some((key, value)) = before
            && take(value.value(), key.value().2, &mut stretch)?
        {
            return Ok(stretch);
        }
        if stretch.next == at {
            let next = table.range((id, partition, at)..(id, partition, end))?.next().transpose()?;
            let Some((key, _)) = next else { break };
            stretch.next = key.value().2;
        }
    }
    stretch.next = stretch.next.max(end);
    Ok(stretch)
}

fn damaged(topic: &Topic, partition: u32, base: u64, cause: &str) -> TransportError {
    TransportError::new(
        ErrorClass::Fatal,
        format!(
            "the embedded log is damaged at topic {}, partition {partition}, offset {base}: {cause}; restore the folder \
             from a copy, or remove it and dump the sources again",
            topic.name
        ),
    )
}
