//! The thread that removes what need not be kept: retention by age and size, and compaction.
//!
//! Retention removes whole blobs, oldest first, by the time they were appended. What a group has not read yet stays, whatever its age
//! and size, while there is room on the disk ([`EmbeddedSettings::keep_free`]). Compaction looks at a partition when
//! half of it may be stale: it notes the last offset of up to [`KEYS`] keys, newest first, and rewrites the blobs that
//! hold older records of those keys. Blobs are rewritten from old to new, so a tombstone never goes before what it hides.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use redb::ReadableTable as _;
use tokio::sync::{mpsc, oneshot};
use tributary_event::Trouble;
use xxhash_rust::xxh3::xxh3_128;

use super::EmbeddedSettings;
use super::blob::{self, Blob, BlobBuilder};
use super::catalog::{Catalog, Topic};
use super::groups::Groups;
use super::read::{Bounds, stretch};
use super::store::{self, Store};
use super::writer::{Change, Request};
use crate::contract::{Polled, RecordRef, TransportError};

/// Keys that one compaction looks at, which bounds its memory.
const KEYS: usize = 200_000;
/// Blobs that one transaction removes or rewrites.
const BLOBS: usize = 64;
/// Partitions smaller than this are not compacted.
const SMALL: u64 = 64 * 1024;

pub(super) struct Janitor {
    pub store: Arc<Store>,
    pub catalog: Arc<Catalog>,
    pub settings: EmbeddedSettings,
    pub groups: Arc<Groups>,
    pub writer: mpsc::Sender<Request>,
    /// Bytes of a partition after its last compaction.
    pub compacted: HashMap<(u32, u32), u64>,
    pub trouble: Trouble,
    /// There is too little room for what was not read.
    pub short: Trouble,
}

impl Janitor {
    /// Works until the sender of `stop` is gone.
    pub fn run(mut self, stop: &Receiver<()>) {
        while stop.recv_timeout(self.settings.check_every) == Err(RecvTimeoutError::Timeout) {
            let mut well = true;
            for topic in self.catalog.all() {
                for partition in 0..topic.stored.partitions {
                    let done = match topic.stored.compact {
                        true => self.compact(&topic, partition),
                        false => self.retain(&topic, partition),
                    };
                    if let Err(error) = done {
                        well = false;
                        if let Some(lasts) = self.trouble.note(&error.message) {
                            tracing::warn!(topic = %topic.name, partition, %error, ?lasts, "old records could not be removed");
                        }
                    }
                }
            }
            if well {
                self.trouble.over();
            }
        }
    }

    fn change(&self, change: Change) -> Result<(), TransportError> {
        let (reply, answer) = oneshot::channel();
        if self.writer.blocking_send(Request::Change { change, reply }).is_err() {
            return Ok(());
        }
        answer.blocking_recv().unwrap_or(Ok(()))
    }

    /// The first offset that a group has not read, of those that read the topic.
    fn unread(&self, topic: &Topic, partition: u32) -> Result<u64, TransportError> {
        let mut groups: HashMap<String, u64> =
            self.groups.readers(&topic.name).into_iter().map(|group| (group, 0)).collect();
        self.store.read(|txn| {
            for entry in txn.open_table(store::OFFSETS)?.iter()? {
                let (key, offset) = entry?;
                let (group, of, at) = key.value();
                if of == topic.stored.id {
                    let read = groups.entry(group.to_owned()).or_default();
                    *read = if at == partition { offset.value() } else { *read };
                }
            }
            Ok(())
        })?;
        Ok(groups.into_values().min().unwrap_or(u64::MAX))
    }

    /// Whether the disk has room for what was not read.
    fn has_room(&self) -> bool {
        self.store.free().is_none_or(|free| free >= self.settings.keep_free)
    }

    fn retain(&mut self, topic: &Arc<Topic>, partition: u32) -> Result<(), TransportError> {
        let unread = self.unread(topic, partition)?;
        let has_room = self.has_room();
        let now = tributary_event::clock::now_us() / 1000;
        let id = topic.stored.id;
        loop {
            let ends = topic.partitions[partition as usize].ends();
            let (below, count) = self.store.read(|txn| {
                let mut kept = ends.bytes;
                let mut below = 0;
                let mut count = 0;
                for entry in txn.open_table(store::BLOBS)?.range((id, partition, 0)..(id, partition, ends.next))? {
                    let (key, value) = entry?;
                    let size = value.value().len() as u64;
                    let Ok(header) = blob::header(value.value()) else { break };
                    let old = topic.stored.retention_ms.is_some_and(|age| now - header.written_ms > age as i64);
                    let big = topic.stored.retention_bytes.is_some_and(|most| kept.saturating_sub(size) >= most);
                    let after = key.value().2 + u64::from(header.last_delta) + 1;
                    if !(old || big) || count == BLOBS || (after > unread && has_room) {
                        break;
                    }
                    kept -= size.min(kept);
                    below = after;
                    count += 1;
                }
                Ok((below, count))
            })?;
            if count == 0 {
                return Ok(());
            }
            let name = &topic.name;
            if below > unread
                && let Some(lasts) = self.short.note("the disk is short of room")
            {
                let free = self.settings.keep_free;
                tracing::warn!(topic = %name, partition, unread, below, ?lasts, "records that were not read are removed, for less than {free} bytes are free on the disk");
            }
            self.change(Change::Trim { topic: topic.clone(), partition, below })?;
            metrics::counter!("tributary_topic_trimmed_blobs_total", "topic" => name.to_string())
                .increment(count as u64);
        }
    }

    fn compact(&mut self, topic: &Arc<Topic>, partition: u32) -> Result<(), TransportError> {
        let ends = topic.partitions[partition as usize].ends();
        let after_last = self.compacted.get(&(topic.stored.id, partition)).copied().unwrap_or(0);
        if ends.bytes < self.settings.compact_from.unwrap_or(SMALL) || ends.bytes < after_last * 2 {
            return Ok(());
        }
        let bases = self.store.read(|txn| {
            let table = txn.open_table(store::BLOBS)?;
            let range = table.range((topic.stored.id, partition, 0)..(topic.stored.id, partition, ends.next))?;
            Ok(range.map(|entry| entry.map(|(key, _)| key.value().2)).collect::<Result<Vec<u64>, _>>()?)
        })?;
        let mut last: HashMap<u128, u64> = HashMap::new();
        for base in bases.iter().rev() {
            for record in self.blob(topic, partition, *base)?.iter().rev() {
                if let Some(key) = &record.key {
                    last.entry(xxh3_128(key)).or_insert(record.offset);
                }
            }
            if last.len() >= KEYS {
                break;
            }
        }
        for bases in bases.chunks(BLOBS) {
            let mut blobs = Vec::new();
            for base in bases {
                blobs.extend(self.rewrite(topic, partition, *base, &last)?.map(|blob| (*base, blob)));
            }
            if !blobs.is_empty() {
                self.change(Change::Rewrite { topic: topic.clone(), partition, blobs })?;
            }
        }
        let bytes = topic.partitions[partition as usize].ends().bytes;
        self.compacted.insert((topic.stored.id, partition), bytes);
        tracing::debug!(topic = %topic.name, partition, before = ends.bytes, after = bytes, "compacted");
        Ok(())
    }

    /// The blob without its stale records; `None` if it has none, `Some(None)` if it has no others.
    fn rewrite(
        &self,
        topic: &Arc<Topic>,
        partition: u32,
        base: u64,
        last: &HashMap<u128, u64>,
    ) -> Result<Option<Option<Blob>>, TransportError> {
        let records = self.blob(topic, partition, base)?;
        let now = tributary_event::clock::now_us() / 1000;
        let Some((written_ms, last_delta)) = self.store.read(|txn| {
            let found = txn.open_table(store::BLOBS)?.get((topic.stored.id, partition, base))?;
            Ok(found.and_then(|value| blob::header(value.value()).ok()).map(|h| (h.written_ms, h.last_delta)))
        })?
        else {
            return Ok(None);
        };
        let tombstones_go = now - written_ms > self.settings.keep_tombstones.as_millis() as i64;
        let stays = |record: &&Polled| match &record.key {
            None => true,
            Some(key) => match last.get(&xxh3_128(key)) {
                Some(offset) if *offset > record.offset => false,
                Some(_) => record.value.is_some() || !tombstones_go,
                None => true,
            },
        };
        let kept: Vec<&Polled> = records.iter().filter(stays).collect();
        if kept.len() == records.len() {
            return Ok(None);
        }
        if kept.is_empty() {
            return Ok(Some(None));
        }
        let mut builder = BlobBuilder::default();
        for record in kept {
            let (key, value, headers) = (record.key.as_deref(), record.value.as_deref(), record.headers.view());
            let view = RecordRef { topic: &topic.name, key, value, headers, timestamp_ms: record.timestamp_ms };
            builder.push((record.offset - base) as u32, &view);
        }
        Ok(Some(Some(builder.seal(written_ms, Some(last_delta), self.settings.compress))))
    }

    fn blob(&self, topic: &Topic, partition: u32, base: u64) -> Result<Vec<Polled>, TransportError> {
        Ok(stretch(&self.store, topic, partition, base, Bounds { records: 1, bytes: 1 })?.records)
    }
}
