//! The topic of a pipeline's letters.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tributary_event::ErrorClass;

use super::{DeadLetter, Entry, Original, Outline, WayBack};
use crate::contract::{
    Batch, Polled, Purpose, Retention, TopicId, TopicPartition, TopicSpec, Transport, TransportError, record_limit,
};

/// Records read at a time.
const PAGE: usize = 500;
/// Letters that one replay batch takes, and bytes; one letter may have more.
const REPLAY: usize = 200;
const REPLAY_BYTES: usize = 1 << 20;

/// What a topic of dead letters must be.
pub fn spec(topic: &str) -> TopicSpec {
    TopicSpec { name: topic.to_owned(), partitions: 1, retention: Retention::Compact }
}

/// The dead letters of a pipeline.
#[derive(Clone)]
pub struct DeadLetters {
    transport: Arc<dyn Transport>,
    topic: Arc<str>,
}

impl DeadLetters {
    /// The letters in a topic, by convention `<pipeline>.dead-letters`.
    pub fn new(transport: Arc<dyn Transport>, topic: impl Into<Arc<str>>) -> Self {
        Self { transport, topic: topic.into() }
    }

    /// What the topic must be.
    pub fn spec(&self) -> TopicSpec {
        spec(&self.topic)
    }

    /// Creates the topic if absent.
    pub async fn ensure(&self) -> Result<(), TransportError> {
        self.transport.ensure_topics(&[self.spec()]).await
    }

    /// Adds a letter to a batch; it becomes durable with it.
    pub fn append_to(&self, batch: &mut Batch, letter: &DeadLetter) {
        let (key, value) = letter.encode(record_limit(self.transport.max_record()));
        batch.push(&self.topic, letter.last_failed_us / 1000, Some(&key), Some(&value));
    }

    /// The letters that are there now, oldest failure first; none if the topic does not exist.
    pub async fn list(&self) -> Result<Vec<DeadLetter>, TransportError> {
        let mut letters: BTreeMap<Vec<u8>, DeadLetter> = BTreeMap::new();
        if self.transport.partitions(&self.topic).await? == 0 {
            return Ok(Vec::new());
        }
        for (partition, ends) in self.transport.watermarks(&self.topic).await?.into_iter().enumerate() {
            let place = TopicPartition { topic: self.topic.clone(), partition: partition as u32 };
            let mut from = ends.low;
            while from < ends.high {
                let records = self.transport.read(&place, from, PAGE).await?;
                let Some(last) = records.last() else { break };
                from = last.offset + 1;
                for record in records {
                    let Some(key) = record.key else { continue };
                    match record.value.map(|value| serde_json::from_slice(&value)) {
                        None => drop(letters.remove(key.as_ref())),
                        Some(Ok(letter)) => drop(letters.insert(key.to_vec(), letter)),
                        Some(Err(error)) => {
                            let offset = record.offset;
                            tracing::warn!(topic = %self.topic, partition, offset, %error, "a dead letter cannot be read");
                        }
                    }
                }
            }
        }
        let mut letters: Vec<DeadLetter> = letters.into_values().collect();
        letters.sort_by(|a, b| (a.first_failed_us, &a.id).cmp(&(b.first_failed_us, &b.id)));
        Ok(letters)
    }

    /// What was written and taken out from an offset on, a page at a time, and where the next page starts; empty at the end. Of letters
    /// no more is kept than is asked for.
    pub async fn follow<L: DeserializeOwned>(&self, from: u64) -> Result<(Vec<Entry<L>>, u64), TransportError> {
        let Some(ends) = self.transport.watermarks(&self.topic).await?.into_iter().next() else {
            return Ok((Vec::new(), from));
        };
        let from = from.max(ends.low);
        if from >= ends.high {
            return Ok((Vec::new(), from));
        }
        let records = self.transport.read(&self.partition(), from, PAGE).await?;
        let next = records.last().map_or(from, |last| last.offset + 1);
        let entry = |record: Polled| {
            let letter = match record.value.map(|value| serde_json::from_slice::<L>(&value)) {
                None => None,
                Some(Ok(letter)) => Some(letter),
                // It was told by whoever listed them.
                Some(Err(_)) => return None,
            };
            Some(Entry { id: record.key?, offset: record.offset, letter })
        };
        Ok((records.into_iter().filter_map(entry).collect(), next))
    }

    /// The letter that lies at an offset; none if it is not there any more.
    pub async fn at(&self, offset: u64) -> Result<Option<DeadLetter>, TransportError> {
        let records = self.transport.read(&self.partition(), offset, 1).await?;
        let found = records.into_iter().find(|record| record.offset == offset).and_then(|record| record.value);
        Ok(found.and_then(|value| serde_json::from_slice(&value).ok()))
    }

    fn partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: 0 }
    }

    /// One letter.
    pub async fn get(&self, id: &str) -> Result<Option<DeadLetter>, TransportError> {
        Ok(self.list().await?.into_iter().find(|letter| letter.id == id))
    }

    /// Appends the original records of these letters (of all, without ids) to their topics again and takes the letters
    /// out; stages that do theirs again by themselves are asked to. Returns how many. An id that is not there is an error of class `Definite`, before anything is replayed.
    pub async fn replay(&self, ids: Option<&[String]>) -> Result<usize, TransportError> {
        let mut letters = self.list().await?;
        if let Some(ids) = ids {
            self.are_there(ids, &letters)?;
            // What waits behind a letter is asked for with it.
            let of_key = |letter: &DeadLetter| {
                (letter.stage.clone(), letter.topic.clone(), letter.partition, letter.key.clone())
            };
            let keys: HashSet<_> = letters
                .iter()
                .filter(|letter| letter.way_back != WayBack::Topic && letter.key.is_some() && ids.contains(&letter.id))
                .map(of_key)
                .collect();
            letters.retain(|letter| {
                ids.contains(&letter.id) || letter.way_back != WayBack::Topic && keys.contains(&of_key(letter))
            });
        }
        let (own, letters): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| letter.way_back != WayBack::Topic);
        let mut events = Vec::with_capacity(letters.len());
        for letter in &letters {
            events.push(self.original(letter).await?);
        }
        let asked = self.ask(own).await?;
        Ok(asked + self.send_back(letters.into_iter().zip(events)).await?)
    }

    fn are_there(&self, ids: &[String], letters: &[DeadLetter]) -> Result<(), TransportError> {
        match ids.iter().find(|id| !letters.iter().any(|letter| letter.id == **id)) {
            Some(missing) => {
                let text = format!("there is no dead letter {missing} in {}", self.topic);
                Err(TransportError::new(ErrorClass::Definite, text))
            }
            None => Ok(()),
        }
    }

    /// Takes letters out without doing anything about them: how many. An id that is not there is an error of class `Definite`, before any
    /// is taken out.
    pub async fn discard(&self, ids: &[String]) -> Result<usize, TransportError> {
        self.are_there(ids, &self.list().await?)?;
        let mut batch = Batch::new();
        ids.iter().for_each(|id| self.take_out(&mut batch, id.as_bytes()));
        if !batch.is_empty() {
            self.transport.appender().await?.append(&batch).await?;
        }
        Ok(ids.len())
    }

    /// Asks the stages of letters to do them again: how many.
    async fn ask(&self, letters: Vec<DeadLetter>) -> Result<usize, TransportError> {
        let count = letters.len();
        if count == 0 {
            return Ok(0);
        }
        let mut producer = self.transport.appender().await?;
        let mut batch = Batch::new();
        for letter in letters {
            self.append_to(&mut batch, &DeadLetter { way_back: WayBack::Asked, ..letter });
            if batch.size() >= REPLAY_BYTES {
                producer.append(&batch).await?;
                batch.clear();
            }
        }
        if !batch.is_empty() {
            producer.append(&batch).await?;
        }
        Ok(count)
    }

    /// Adds to a batch that a letter is taken out.
    pub fn take_out(&self, batch: &mut Batch, id: &[u8]) {
        batch.push(&self.topic, tributary_event::clock::now_us() / 1000, Some(id), None);
    }

    /// Replays every letter that `value` gives another value for, which takes the place of its event's. Letters are read a page
    /// at a time, for there may be many.
    pub async fn replay_as(&self, value: impl Fn(&DeadLetter) -> Option<Vec<u8>>) -> Result<usize, TransportError> {
        let mut newest: HashMap<u64, u64> = HashMap::new();
        let (mut from, mut replayed) = (0, 0);
        loop {
            let (entries, next) = self.follow::<Outline>(from).await?;
            for entry in entries {
                let name = xxhash_rust::xxh3::xxh3_64(&entry.id);
                match entry.letter {
                    Some(_) => drop(newest.insert(name, entry.offset)),
                    None => drop(newest.remove(&name)),
                }
            }
            if next == from {
                break;
            }
            from = next;
        }
        let offsets: BTreeSet<u64> = newest.into_values().collect();
        let mut next = offsets.first().copied();
        while let Some(from) = next {
            let records = self.transport.read(&self.partition(), from, PAGE).await?;
            let Some(last) = records.last().map(|record| record.offset) else { break };
            let letters = records.into_iter().filter(|record| offsets.contains(&record.offset));
            let letters = letters.filter_map(|record| serde_json::from_slice::<DeadLetter>(&record.value?).ok());
            let with_value = letters.filter_map(|letter| {
                let (key, value) = (letter.key.clone().map(Bytes::from), Bytes::from(value(&letter)?));
                let original = Original { key, value: Some(value), headers: letter.headers.clone() };
                Some((letter, original))
            });
            replayed += self.send_back(with_value.collect::<Vec<_>>().into_iter()).await?;
            next = offsets.range(last + 1..).next().copied();
        }
        Ok(replayed)
    }

    async fn send_back(
        &self,
        letters: impl ExactSizeIterator<Item = (DeadLetter, Original)>,
    ) -> Result<usize, TransportError> {
        let count = letters.len();
        if count == 0 {
            return Ok(0);
        }
        let mut producer = self.transport.producer(&format!("{}.replay", self.topic), Purpose::Stage).await?;
        let now = tributary_event::clock::now_us() / 1000;
        let mut batch = Batch::new();
        for (letter, original) in letters {
            let topic: Arc<str> = letter.topic.as_str().into();
            batch.push(&topic, now, original.key.as_deref(), original.value.as_deref());
            batch.headers(original.headers.view());
            batch.push(&self.topic, now, Some(letter.id.as_bytes()), None);
            if batch.len() >= 2 * REPLAY || batch.size() >= REPLAY_BYTES {
                producer.append(&batch).await?;
                batch.clear();
            }
        }
        if !batch.is_empty() {
            producer.append(&batch).await?;
        }
        Ok(count)
    }

    /// A letter's event; what was too large for the letter, from where it was read.
    pub async fn original(&self, letter: &DeadLetter) -> Result<Original, TransportError> {
        let place = if letter.value.is_none() { letter.place() } else { None };
        let Some(place) = place else {
            let bytes = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(Bytes::copy_from_slice);
            let (key, value) = (bytes(&letter.key), bytes(&letter.value));
            return Ok(Original { key, value, headers: letter.headers.clone() });
        };
        // Another topic of that name has another event there.
        let is_another = match letter.topic_id {
            Some(_) if self.transport.partitions(&place.topic).await? == 0 => true,
            Some(_) => TopicId::is_other(letter.topic_id, self.transport.topic_id(&place.topic).await?),
            None => false,
        };
        let found = if is_another { Vec::new() } else { self.transport.read(&place, letter.offset, 1).await? };
        let found = found.into_iter().find(|record| record.offset == letter.offset);
        let original = |record: Polled| Original { key: record.key, value: record.value, headers: record.headers };
        found.map(original).ok_or_else(|| {
            let text = format!(
                "dead letter {} cannot be replayed: its event was too large for it, and topic {} {} does not keep offset {} any more",
                letter.id, place.topic, place.partition, letter.offset
            );
            TransportError::new(ErrorClass::Definite, text)
        })
    }
}
