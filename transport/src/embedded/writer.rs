//! The one thread that writes: group commit.
//!
//! Everything that waits (appends, checkpoints, commits of offsets, trimming) goes into one write transaction with one
//! fsync; then all of it becomes visible and all callers are answered. Fencing is decided here too, in the order of
//! requests: once a producer is open, nothing of an older one of the same id can follow.
//!
//! A failure before the commit leaves nothing behind. A failure *in* the commit is cleared up by reopening the file and
//! comparing the number of its last commit, which is tried for as long as it takes: whoever appended waits for the disk.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::{ReadableTable, WriteTransaction};
use tokio::sync::{mpsc, oneshot};
use tributary_event::{ErrorClass, Trouble};

use super::blob::{self, Blob};
use super::catalog::{Catalog, Ends, StoredTopic, Topic, check};
use super::store::{self, Failure, Store, WriteFailure};
use crate::contract::TopicId;
use crate::contract::{Checkpoint, TopicSpec, TransportError};

/// Requests that may wait for the writer.
pub(super) const QUEUE: usize = 64;
/// A transaction takes no further request beyond this many bytes.
const GROUP_BYTES: usize = 16 << 20;
/// Between two looks at the file after a commit of unknown outcome: the first pause, and the longest.
const LOOK: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

pub(super) type Reply<T> = oneshot::Sender<Result<T, TransportError>>;

/// What the writer can do.
pub(super) enum Request {
    /// Opens a producer: answers with its epoch.
    Fence { id: Arc<str>, reply: Reply<u64> },
    /// Any change, durable when answered.
    Change { change: Change, reply: Reply<()> },
}

pub(super) enum Change {
    Append {
        producer: Arc<str>,
        epoch: u64,
        blobs: Vec<(Arc<Topic>, u32, Vec<Blob>)>,
        checkpoint: Option<Checkpoint>,
        /// What else is kept with the checkpoints.
        kept: Vec<(String, Vec<u8>)>,
    },
    Offsets {
        group: String,
        offsets: Vec<(u32, u32, u64)>,
    },
    Ensure {
        topics: Vec<TopicSpec>,
    },
    /// Removes every blob that ends before `below`.
    Trim {
        topic: Arc<Topic>,
        partition: u32,
        below: u64,
    },
    /// Replaces the blobs of these base offsets; without a blob the old one is removed.
    Rewrite {
        topic: Arc<Topic>,
        partition: u32,
        blobs: Vec<(u64, Option<Blob>)>,
    },
}

impl Change {
    fn size(&self) -> usize {
        match self {
            Self::Append { blobs, .. } => blobs.iter().flat_map(|(_, _, b)| b).map(|b| b.bytes.len()).sum(),
            Self::Rewrite { blobs, .. } => blobs.iter().filter_map(|(_, b)| b.as_ref()).map(|b| b.bytes.len()).sum(),
            _ => 0,
        }
    }
}

/// The writer's state; [`Writer::run`] is its thread.
pub(super) struct Writer {
    store: Arc<Store>,
    catalog: Arc<Catalog>,
    requests: mpsc::Receiver<Request>,
    epochs: HashMap<Arc<str>, u64>,
    last_commit: u64,
    trouble: Trouble,
    /// Nobody waits for answers any more.
    closing: Arc<AtomicBool>,
}

/// What a transaction will have changed, if it commits.
#[derive(Default)]
struct Effects {
    ends: HashMap<(u32, u32), (Arc<Topic>, Ends)>,
    topics: Vec<(String, StoredTopic)>,
}

impl Writer {
    pub fn new(
        store: Arc<Store>,
        catalog: Arc<Catalog>,
        last_commit: u64,
        requests: mpsc::Receiver<Request>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        Self { store, catalog, requests, epochs: HashMap::new(), last_commit, trouble: Trouble::default(), closing }
    }

    /// Works until every sender is gone.
    pub fn run(mut self) {
        while let Some(first) = self.requests.blocking_recv() {
            let mut group = Vec::new();
            // Who takes over hears of it when all that came before is durable.
            let mut fences = Vec::new();
            let mut bytes = 0;
            let mut next = Some(first);
            while let Some(request) = next {
                if let Some((change, reply)) = self.admit(request, &mut fences) {
                    bytes += change.size();
                    group.push((change, reply));
                }
                next = if bytes < GROUP_BYTES && group.len() < QUEUE { self.requests.try_recv().ok() } else { None };
            }
            if !group.is_empty() {
                self.commit(group);
            }
            for (reply, epoch) in fences {
                let _ = reply.send(Ok(epoch));
            }
        }
    }

    /// Answers what needs no transaction, and refuses the fenced.
    fn admit(&mut self, request: Request, fences: &mut Vec<(Reply<u64>, u64)>) -> Option<(Change, Reply<()>)> {
        match request {
            Request::Fence { id, reply } => {
                let epoch = self.epochs.entry(id).or_default();
                *epoch += 1;
                fences.push((reply, *epoch));
                None
            }
            Request::Change { change, reply } => {
                if let Change::Append { producer, epoch, .. } = &change
                    && self.epochs.get(producer) != Some(epoch)
                {
                    let text = format!("another producer took over as {producer}; this one must stop");
                    let _ = reply.send(Err(TransportError::new(ErrorClass::Fatal, text)));
                    return None;
                }
                Some((change, reply))
            }
        }
    }

    fn commit(&mut self, group: Vec<(Change, Reply<()>)>) {
        let attempt = self.last_commit + 1;
        let (changes, replies): (Vec<_>, Vec<_>) = group.into_iter().unzip();
        let mut effects = Effects::default();
        let bytes = changes.iter().map(Change::size).sum::<usize>();
        let written = self.store.write(|txn| {
            if bytes > 0 {
                self.store.room(bytes)?;
            }
            txn.open_table(store::META)?.insert("commit", attempt)?;
            changes.iter().try_for_each(|change| apply(txn, &self.catalog, change, &mut effects))?;
            let mut table = txn.open_table(store::ENDS)?;
            for (place, (_, ends)) in &effects.ends {
                table.insert(*place, (ends.low, ends.next, ends.bytes))?;
            }
            Ok(())
        });
        let outcome = match written {
            Ok(()) => Ok(()),
            Err(WriteFailure::Nothing(failure)) => Err(self.store.explain(failure)),
            Err(WriteFailure::Unknown(error)) => self.find_out(attempt, error),
        };
        match outcome {
            Ok(()) => {
                self.last_commit = attempt;
                if let Some(lasted) = self.trouble.over() {
                    tracing::info!(?lasted, "the embedded log writes again");
                }
                for (name, stored) in effects.topics {
                    self.catalog.put(&name, stored);
                }
                let mut changed = HashSet::new();
                for ((_, partition), (topic, ends)) in effects.ends {
                    self.catalog.publish(&topic, partition, ends);
                    changed.insert(topic.name.clone());
                }
                if !changed.is_empty() {
                    self.catalog.announce(&changed);
                }
                for reply in replies {
                    let _ = reply.send(Ok(()));
                }
            }
            // One bad request must not fail its neighbours: each is tried alone.
            Err(error) if replies.len() > 1 && error.class != ErrorClass::Transient => {
                for request in changes.into_iter().zip(replies) {
                    self.commit(vec![request]);
                }
            }
            Err(error) => {
                if let Some(lasts) = self.trouble.note(&error.message) {
                    tracing::warn!(%error, ?lasts, "the embedded log could not write");
                }
                answer(replies, error);
            }
        }
    }

    fn last_stored(&self) -> Result<u64, TransportError> {
        self.store.read(|txn| Ok(txn.open_table(store::META)?.get("commit")?.map_or(0, |number| number.value())))
    }

    /// Finds out whether a failed commit is durable. Until then nothing can be built upon it, and nobody can be answered.
    fn find_out(&mut self, attempt: u64, error: redb::Error) -> Result<(), TransportError> {
        let [mut pause, longest] = LOOK;
        loop {
            let again = match self.last_stored() {
                Ok(last) if last == attempt => return Ok(()),
                Ok(_) => return Err(self.store.explain(Failure::Storage(error))),
                Err(again) => again,
            };
            if self.closing.load(Ordering::Acquire) {
                let text =
                    format!("it is unknown whether the last append is durable; the next start finds out: {again}");
                return Err(TransportError::caused(ErrorClass::Fatal, text, error));
            }
            if let Some(lasts) = self.trouble.note(&again.message) {
                tracing::warn!(error = %again, ?lasts, "waiting for the disk, to see whether the last append is durable");
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
    }
}

/// Tells all callers of one failure.
fn answer(replies: impl IntoIterator<Item = Reply<()>>, error: TransportError) {
    let source = error.source.map(Arc::new);
    for reply in replies {
        let source = source.clone().map(|source| Box::new(Shared(source)) as _);
        let _ = reply.send(Err(TransportError { class: error.class, message: error.message.clone(), source }));
    }
}

/// One cause, told to many.
#[derive(Debug)]
struct Shared(Arc<Box<dyn std::error::Error + Send + Sync>>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl Effects {
    fn ends(&mut self, topic: &Arc<Topic>, partition: u32) -> &mut Ends {
        let now = || topic.partitions.get(partition as usize).map(|p| p.ends()).unwrap_or_default();
        &mut self.ends.entry((topic.stored.id, partition)).or_insert_with(|| (topic.clone(), now())).1
    }
}

fn apply(txn: &WriteTransaction, catalog: &Catalog, change: &Change, effects: &mut Effects) -> Result<(), Failure> {
    match change {
        Change::Append { blobs, checkpoint, kept, .. } => {
            let mut table = txn.open_table(store::BLOBS)?;
            for (topic, partition, blobs) in blobs {
                for blob in blobs {
                    let ends = effects.ends(topic, *partition);
                    table.insert((topic.stored.id, *partition, ends.next), blob.bytes.as_slice())?;
                    ends.next += u64::from(blob.last_delta) + 1;
                    ends.bytes += blob.bytes.len() as u64;
                }
            }
            let mut table = txn.open_table(store::CHECKPOINTS)?;
            if let Some(checkpoint) = checkpoint {
                table.insert(checkpoint.name.as_str(), checkpoint.content.as_ref())?;
            }
            for (name, content) in kept {
                table.insert(name.as_str(), content.as_slice())?;
            }
        }
        Change::Offsets { group, offsets } => {
            let mut table = txn.open_table(store::OFFSETS)?;
            for (topic, partition, offset) in offsets {
                table.insert((group.as_str(), *topic, *partition), *offset)?;
            }
        }
        Change::Ensure { topics } => ensure(txn, catalog, topics, effects)?,
        Change::Trim { topic, partition, below } => trim(txn, topic, *partition, *below, effects)?,
        Change::Rewrite { topic, partition, blobs } => {
            let mut table = txn.open_table(store::BLOBS)?;
            for (base, blob) in blobs {
                let key = (topic.stored.id, *partition, *base);
                let old = match blob {
                    Some(blob) => table.insert(key, blob.bytes.as_slice())?,
                    None => table.remove(key)?,
                };
                let old = old.map_or(0, |guard| guard.value().len()) as u64;
                let ends = effects.ends(topic, *partition);
                let new = blob.as_ref().map_or(0, |b| b.bytes.len()) as u64;
                ends.bytes = (ends.bytes + new).saturating_sub(old);
            }
        }
    }
    Ok(())
}

fn ensure(
    txn: &WriteTransaction,
    catalog: &Catalog,
    topics: &[TopicSpec],
    effects: &mut Effects,
) -> Result<(), Failure> {
    for spec in topics {
        let stored = match catalog.find(&spec.name) {
            Some(topic) => {
                check(&topic, spec).map_err(Failure::Transport)?;
                StoredTopic::new(topic.stored.id, topic.stored.identity, topic.stored.partitions, &spec.retention)
            }
            None => match effects.topics.iter().find(|(name, _)| *name == spec.name) {
                Some((_, stored)) => stored.clone(),
                None => {
                    let mut meta = txn.open_table(store::META)?;
                    let id = meta.get("topic")?.map_or(0, |id| id.value());
                    meta.insert("topic", id + 1)?;
                    StoredTopic::new(id as u32, TopicId::new(), spec.partitions, &spec.retention)
                }
            },
        };
        let json = serde_json::to_vec(&stored).unwrap_or_default();
        txn.open_table(store::TOPICS)?.insert(spec.name.as_str(), json.as_slice())?;
        effects.topics.push((spec.name.clone(), stored));
    }
    Ok(())
}

fn trim(
    txn: &WriteTransaction,
    topic: &Arc<Topic>,
    partition: u32,
    below: u64,
    effects: &mut Effects,
) -> Result<(), Failure> {
    let id = topic.stored.id;
    let mut table = txn.open_table(store::BLOBS)?;
    let mut removed = Vec::new();
    for entry in table.range((id, partition, 0)..(id, partition, below))? {
        let (key, value) = entry?;
        let header = blob::header(value.value()).ok();
        let base = key.value().2;
        let end = base + header.map_or(0, |h| u64::from(h.last_delta)) + 1;
        if end > below {
            break;
        }
        removed.push((base, end, value.value().len() as u64));
    }
    for (base, end, bytes) in removed {
        table.remove((id, partition, base))?;
        let ends = effects.ends(topic, partition);
        ends.low = ends.low.max(end);
        ends.bytes = ends.bytes.saturating_sub(bytes);
    }
    Ok(())
}
