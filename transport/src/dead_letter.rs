//! Events that were set aside with their cause, and the way back.
//!
//! A letter is a record of a compacted topic, under its id; a tombstone takes it out. Replaying appends the original
//! record to its topic and the tombstone in one batch, so a letter is never both gone and not replayed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_event::ErrorClass;

use crate::contract::{
    Batch, Polled, Purpose, Retention, TopicPartition, TopicSpec, Transport, TransportError, record_limit,
};
use crate::headers::Headers;

/// Records read at a time.
const PAGE: usize = 500;
/// Letters that one replay batch takes, and bytes; one letter may have more.
const REPLAY: usize = 200;
const REPLAY_BYTES: usize = 1 << 20;
/// Characters of a cause that a letter keeps which would be too large otherwise.
const SAID: usize = 2_000;

/// An event that was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its name; the same event set aside again has the same one.
    pub id: String,
    /// The step that gave it up.
    pub stage: String,
    /// Where it was read.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Its key.
    #[serde(default, with = "payload", skip_serializing_if = "Option::is_none")]
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    #[serde(default, with = "payload", skip_serializing_if = "Option::is_none")]
    pub value: Option<Vec<u8>>,
    /// Its headers.
    #[serde(default, skip_serializing_if = "without")]
    pub headers: Headers,
    /// The class of the error.
    pub class: ErrorClass,
    /// The error, in a sentence.
    pub cause: String,
    /// How often it was tried.
    pub attempts: u32,
    /// First failure, microseconds since the Unix epoch.
    pub first_failed_us: i64,
    /// Last failure, microseconds since the Unix epoch.
    pub last_failed_us: i64,
    /// What it is about, for instance `movies/42`.
    pub subject: String,
    /// How often the pipeline tried it again by itself.
    #[serde(default, skip_serializing_if = "Replays::none")]
    pub replays: Replays,
}

/// How often, and when last, a pipeline tried again by itself what it had set aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replays {
    /// How often.
    pub count: u32,
    /// When last, microseconds since the Unix epoch.
    pub last_us: i64,
}

impl Replays {
    fn none(&self) -> bool {
        self.count == 0
    }
}

/// What is known of a letter without its event.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Outline {
    /// The step that gave it up.
    pub stage: String,
    /// The class of the error.
    pub class: ErrorClass,
    /// Last failure, microseconds since the Unix epoch.
    pub last_failed_us: i64,
    /// How often the pipeline tried it again by itself.
    #[serde(default)]
    pub replays: Replays,
}

/// A record of a topic of dead letters: a letter was written, or taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The letter's id.
    pub id: Bytes,
    /// Where it lies.
    pub offset: u64,
    /// None: it was taken out.
    pub letter: Option<Outline>,
}

/// Whether there are no headers.
fn without(headers: &Headers) -> bool {
    headers.view().is_empty()
}

/// What a letter is about, as it is appended again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Original {
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; none is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Headers,
}

impl DeadLetter {
    /// The id of what was read at a place for a subject.
    pub fn id_of(topic: &str, partition: u32, offset: u64, subject: &str) -> String {
        let place = format!("{topic}/{partition}/{offset}/{subject}");
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(place.as_bytes()))
    }

    /// The letter as a record's key and value of at most `limit` bytes together. An event that is too large for that is left out; its
    /// letter says where it still lies. Names that are too large are cut, and end in their hash.
    pub fn encode(&self, limit: usize) -> (Vec<u8>, Vec<u8>) {
        let value = self.value_within(limit);
        if value.len() + self.id.len() <= limit {
            return (self.id.clone().into_bytes(), value);
        }
        let cut = |name: &str| match name.chars().count() {
            0..=SAID => name.to_owned(),
            _ => {
                let beginning: String = name.chars().take(SAID).collect();
                format!("{beginning}…{:016x}", xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
            }
        };
        let (id, subject) = (cut(&self.id), cut(&self.subject));
        let cause = format!("{} (it has no key here, which is too large for a letter)", cut(&self.cause));
        let short = Self { id, subject, cause, key: None, value: None, headers: Headers::NONE, ..self.clone() };
        (short.id.clone().into_bytes(), serde_json::to_vec(&short).unwrap_or_default())
    }

    fn value_within(&self, limit: usize) -> Vec<u8> {
        // A struct of strings, numbers and bytes always has a JSON form.
        let whole = serde_json::to_vec(self).unwrap_or_default();
        if whole.len() + self.id.len() <= limit {
            return whole;
        }
        drop(whole);
        let size = self.value.as_ref().map_or(0, Vec::len);
        let place = self.place().map_or_else(String::new, |TopicPartition { topic, partition }| {
            format!("; it lies in topic {topic} {partition}, offset {}", self.offset)
        });
        let said: String = self.cause.chars().take(SAID).collect();
        let short = Self {
            id: self.id.clone(),
            stage: self.stage.clone(),
            topic: self.topic.clone(),
            key: self.key.clone(),
            value: None,
            headers: Headers::NONE,
            cause: format!("{said} (the event, {size} bytes, is too large for a letter{place})"),
            subject: self.subject.clone(),
            ..*self
        };
        serde_json::to_vec(&short).unwrap_or_default()
    }

    /// Where the event was read, if that is what the letter is about.
    fn place(&self) -> Option<TopicPartition> {
        let topic = self.subject.strip_suffix(&format!("/{}/{}", self.partition, self.offset))?;
        Some(TopicPartition { topic: topic.into(), partition: self.partition })
    }

    /// The key as text, with what is not UTF-8 replaced.
    pub fn key_text(&self) -> Option<String> {
        self.key.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// The value as text, with what is not UTF-8 replaced.
    pub fn value_text(&self) -> Option<String> {
        self.value.as_deref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// Bytes in JSON: text where they are UTF-8, else `{"base64": …}`.
pub(crate) mod payload {
    use serde::{Deserializer, Serializer, de::Error};

    use super::{Deserialize, Engine, STANDARD, Serialize};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Payload {
        Text(String),
        Bytes { base64: String },
    }

    pub fn serialize<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        let payload = bytes.as_deref().map(|bytes| match std::str::from_utf8(bytes) {
            Ok(text) if escaped(bytes) <= bytes.len() / 3 * 4 + 64 => Payload::Text(text.to_owned()),
            _ => Payload::Bytes { base64: STANDARD.encode(bytes) },
        });
        payload.serialize(serializer)
    }

    /// The length of a text in JSON.
    fn escaped(text: &[u8]) -> usize {
        let length = |byte: &u8| match byte {
            b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
            0..0x20 => 6,
            _ => 1,
        };
        text.iter().map(length).sum()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
        Option::<Payload>::deserialize(deserializer)?
            .map(|payload| match payload {
                Payload::Text(text) => Ok(text.into_bytes()),
                Payload::Bytes { base64 } => STANDARD.decode(base64).map_err(D::Error::custom),
            })
            .transpose()
    }
}

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

    /// What was written and taken out from an offset on, a page at a time, and where the next page starts; empty at the end. Only
    /// outlines are kept.
    pub async fn follow(&self, from: u64) -> Result<(Vec<Entry>, u64), TransportError> {
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
            let letter = match record.value.map(|value| serde_json::from_slice::<Outline>(&value)) {
                None => None,
                Some(Ok(outline)) => Some(outline),
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
    /// out. Returns how many. An id that is not there is an error of class `Definite`, before anything is replayed.
    pub async fn replay(&self, ids: Option<&[String]>) -> Result<usize, TransportError> {
        let mut letters = self.list().await?;
        if let Some(ids) = ids {
            if let Some(missing) = ids.iter().find(|id| !letters.iter().any(|letter| letter.id == **id)) {
                let text = format!("there is no dead letter {missing} in {}", self.topic);
                return Err(TransportError::new(ErrorClass::Definite, text));
            }
            letters.retain(|letter| ids.contains(&letter.id));
        }
        let mut events = Vec::with_capacity(letters.len());
        for letter in &letters {
            events.push(self.original(letter).await?);
        }
        self.send_back(letters.into_iter().zip(events)).await
    }

    /// The same for every letter that `value` gives another value for, which takes the place of its event's. Letters are read a page
    /// at a time, for there may be many.
    pub async fn replay_as(&self, value: impl Fn(&DeadLetter) -> Option<Vec<u8>>) -> Result<usize, TransportError> {
        let mut newest: HashMap<u64, u64> = HashMap::new();
        let (mut from, mut replayed) = (0, 0);
        loop {
            let (entries, next) = self.follow(from).await?;
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
        let found = self.transport.read(&place, letter.offset, 1).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let letter = DeadLetter {
            id: DeadLetter::id_of("movies", 3, 17, "movies/42"),
            stage: "index movies".into(),
            topic: "movies".into(),
            partition: 3,
            offset: 17,
            key: Some(br#"{"id":42}"#.to_vec()),
            value: Some(vec![0xff, 0]),
            headers: Headers::of([("trace", &b"7"[..]), ("trace", &[0xff])]),
            class: ErrorClass::Definite,
            cause: "the document was refused".into(),
            attempts: 3,
            first_failed_us: 1,
            last_failed_us: 2,
            subject: "movies/42".into(),
            replays: Replays::default(),
        };
        let json = serde_json::to_value(&letter).unwrap();
        assert_eq!(json["key"], r#"{"id":42}"#);
        assert_eq!(json["value"]["base64"], "/wA=");
        assert_eq!(json["headers"][0]["value"], "7");
        assert_eq!(json["headers"][1]["value"]["base64"], "/w==");
        assert_eq!(serde_json::from_value::<DeadLetter>(json).unwrap(), letter);
        let tombstone = DeadLetter { value: None, ..letter };
        let json = serde_json::to_string(&tombstone).unwrap();
        assert_eq!(serde_json::from_str::<DeadLetter>(&json).unwrap(), tombstone);
        let replayed = DeadLetter { replays: Replays { count: 2, last_us: 7 }, ..tombstone };
        let json = serde_json::to_string(&replayed).unwrap();
        assert_eq!(serde_json::from_str::<DeadLetter>(&json).unwrap(), replayed);
        assert_eq!(serde_json::from_str::<Outline>(&json).unwrap().replays, replayed.replays);
    }

    #[test]
    fn a_letter_fits_whatever_is_in_it() {
        let place = "t/0/7";
        let of = |key: usize, value: usize, id: &str| DeadLetter {
            id: id.to_owned(),
            stage: "resolve".into(),
            topic: "p.replays".into(),
            partition: 0,
            offset: 7,
            key: Some(vec![b'k'; key]),
            value: Some(vec![b'v'; value]),
            headers: Headers::of([("name", &vec![b'h'; value / 2][..])]),
            class: ErrorClass::Definite,
            cause: "€".repeat(10_000),
            attempts: 1,
            first_failed_us: 1,
            last_failed_us: 2,
            subject: id.to_owned(),
            replays: Replays::default(),
        };
        for (letter, whole) in [
            (of(10, 1_000_000, place), false),
            (of(100_000, 10, place), false),
            (of(10, 10, &format!("movies/{}", "€".repeat(100_000))), false),
            (of(10, 10, place), true),
        ] {
            let (key, value) = letter.encode(40_000);
            assert!(key.len() + value.len() <= 40_000, "{} {}", key.len(), value.len());
            let read: DeadLetter = serde_json::from_slice(&value).unwrap();
            assert_eq!(read.id.as_bytes(), key);
            assert_eq!(read == letter, whole);
            assert!(whole || read.value.is_none());
        }
        assert!(String::from_utf8(of(10, 1_000_000, place).encode(40_000).1).unwrap().contains("topic t 0, offset 7"));
    }
}
