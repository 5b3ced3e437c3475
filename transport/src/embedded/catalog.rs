//! What the embedded log holds, in memory: topics, and the ends of their partitions. Changed only after a commit, so
//! that readers, who look here first, never see a part of a batch.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use redb::ReadTransaction;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tributary_event::ErrorClass;

use super::store::{self, Failure};
use crate::contract::TopicId;
use crate::contract::{Retention, TopicSpec, TransportError, Watermarks};

/// A topic as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredTopic {
    pub id: u32,
    pub partitions: u32,
    pub compact: bool,
    pub retention_ms: Option<u64>,
    pub retention_bytes: Option<u64>,
    /// Its identity. One that was made before there were any gets one when the log is opened.
    #[serde(default)]
    pub identity: TopicId,
}

impl StoredTopic {
    pub fn new(id: u32, identity: TopicId, partitions: u32, retention: &Retention) -> Self {
        let (compact, age, bytes) = match retention {
            Retention::Delete { age, bytes } => (false, *age, *bytes),
            Retention::Compact => (true, None, None),
        };
        let retention_ms = age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        Self { id, partitions, compact, retention_ms, retention_bytes: bytes, identity }
    }
}

/// The ends of one partition.
#[derive(Debug, Default)]
pub(super) struct Partition {
    low: AtomicU64,
    next: AtomicU64,
    bytes: AtomicU64,
}

/// The stored ends of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Ends {
    pub low: u64,
    pub next: u64,
    pub bytes: u64,
}

impl Partition {
    pub fn ends(&self) -> Ends {
        // `low` is read first: it never passes `next`.
        let low = self.low.load(Ordering::Acquire);
        Ends { low, next: self.next.load(Ordering::Acquire), bytes: self.bytes.load(Ordering::Acquire) }
    }

    pub fn watermarks(&self) -> Watermarks {
        let ends = self.ends();
        Watermarks { low: ends.low, high: ends.next }
    }

    fn set(&self, ends: Ends) {
        self.next.store(ends.next, Ordering::Release);
        self.low.store(ends.low, Ordering::Release);
        self.bytes.store(ends.bytes, Ordering::Release);
    }
}

/// A topic in memory.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: Arc<str>,
    pub stored: StoredTopic,
    pub partitions: Arc<[Partition]>,
}

/// All topics, and who waits for something to be appended to them.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    topics: RwLock<HashMap<Arc<str>, Arc<Topic>>>,
    readers: Mutex<Vec<Reader>>,
}

/// Who reads topics: waking those that read others would cost more than the append.
#[derive(Debug)]
struct Reader {
    topics: Vec<String>,
    news: Weak<Notify>,
}

impl Catalog {
    pub fn load(txn: &ReadTransaction) -> Result<Self, Failure> {
        let catalog = Self::default();
        catalog.refresh(txn)?;
        Ok(catalog)
    }

    /// Takes over what is stored.
    pub fn refresh(&self, txn: &ReadTransaction) -> Result<(), Failure> {
        let ends = txn.open_table(store::ENDS)?;
        for entry in redb::ReadableTable::iter(&txn.open_table(store::TOPICS)?)? {
            let (name, stored) = entry?;
            let stored: StoredTopic = serde_json::from_slice(stored.value()).map_err(|error| {
                let text = format!("the description of topic {} is damaged", name.value());
                Failure::Transport(TransportError::caused(ErrorClass::Fatal, text, error))
            })?;
            let topic = self.put(name.value(), stored);
            for (number, partition) in topic.partitions.iter().enumerate() {
                if let Some(found) = redb::ReadableTable::get(&ends, (topic.stored.id, number as u32))? {
                    let (low, next, bytes) = found.value();
                    partition.set(Ends { low, next, bytes });
                }
            }
        }
        Ok(())
    }

    /// Adds a topic, or changes its description.
    pub fn put(&self, name: &str, stored: StoredTopic) -> Arc<Topic> {
        let mut topics = self.topics.write().unwrap_or_else(PoisonError::into_inner);
        let (name, partitions) = match topics.get(name) {
            Some(old) => (old.name.clone(), old.partitions.clone()),
            None => (name.into(), (0..stored.partitions).map(|_| Partition::default()).collect()),
        };
        let topic = Arc::new(Topic { name: name.clone(), stored, partitions });
        topics.insert(name, topic.clone());
        topic
    }

    pub fn find(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The topic, or an error that names it.
    pub fn topic(&self, name: &str) -> Result<Arc<Topic>, TransportError> {
        self.find(name).ok_or_else(|| {
            TransportError::new(
                ErrorClass::Fatal,
                format!("topic {name} does not exist in the embedded log; name it to `ensure_topics` first"),
            )
        })
    }

    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.topics.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Makes new ends visible. Only the writer calls this; [`Catalog::announce`] follows.
    pub fn publish(&self, topic: &Topic, partition: u32, ends: Ends) {
        if let Some(partition) = topic.partitions.get(partition as usize) {
            partition.set(ends);
        }
    }

    /// Wakes whoever reads one of these topics.
    pub fn announce(&self, topics: &HashSet<Arc<str>>) {
        self.wake(|reader| reader.topics.iter().any(|topic| topics.contains(topic.as_str())));
    }

    /// Wakes everybody: a group has changed.
    pub fn announce_to_all(&self) {
        self.wake(|_| true);
    }

    fn wake(&self, whom: impl Fn(&Reader) -> bool) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let news = readers.iter().filter(|reader| whom(reader)).filter_map(|reader| reader.news.upgrade());
        news.for_each(|news| news.notify_one());
    }

    /// What tells one reader of these topics that there may be something new. News that come while it does something else wait for it.
    pub fn listen(&self, topics: &[String]) -> Arc<Notify> {
        let news = Arc::new(Notify::new());
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| reader.news.strong_count() > 0);
        readers.push(Reader { topics: topics.to_vec(), news: Arc::downgrade(&news) });
        news
    }
}

/// Gives identities to topics that were made before there were any.
pub(super) fn complete(topics: &mut redb::Table<'_, &str, &[u8]>) -> Result<(), Failure> {
    let mut without = Vec::new();
    for entry in redb::ReadableTable::iter(topics)? {
        let (name, stored) = entry?;
        // What cannot be read is told when the catalog is.
        if let Ok(mut stored) = serde_json::from_slice::<serde_json::Value>(stored.value())
            && stored.get("identity").is_none()
        {
            stored["identity"] = TopicId::new().to_string().into();
            without.push((name.value().to_owned(), stored.to_string()));
        }
    }
    for (name, stored) in without {
        topics.insert(name.as_str(), stored.as_bytes())?;
    }
    Ok(())
}

/// Whether a topic that exists fits what is asked for.
pub(super) fn check(topic: &Topic, spec: &TopicSpec) -> Result<(), TransportError> {
    let name = &spec.name;
    if topic.stored.partitions < spec.partitions {
        return Err(TransportError::new(
            ErrorClass::Fatal,
            format!(
                "topic {name} has {} partitions and needs {}; the embedded log cannot add partitions without breaking the order of keys: \
                 configure {} partitions, or choose another folder",
                topic.stored.partitions, spec.partitions, topic.stored.partitions
            ),
        ));
    }
    if topic.stored.compact != matches!(spec.retention, Retention::Compact) {
        let word = |compact| if compact { "compact" } else { "delete" };
        return Err(TransportError::new(
            ErrorClass::Fatal,
            format!(
                "topic {name} has retention {} and needs {}; give it another name, or choose another folder",
                word(topic.stored.compact),
                word(!topic.stored.compact)
            ),
        ));
    }
    Ok(())
}
