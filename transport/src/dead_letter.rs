//! Events that were set aside with their cause, and the way back.
//!
//! A letter is a record of a compacted topic, under its id; a tombstone takes it out. Replaying appends the original
//! record to its topic and the tombstone in one batch, so a letter is never both gone and not replayed.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_event::ErrorClass;

use crate::contract::{Batch, Purpose, Retention, TopicPartition, TopicSpec, Transport, TransportError, record_limit};

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
}

impl DeadLetter {
    /// The id of what was read at a place for a subject.
    pub fn id_of(topic: &str, partition: u32, offset: u64, subject: &str) -> String {
        let place = format!("{topic}/{partition}/{offset}/{subject}");
        format!("{:016x}", xxhash_rust::xxh3::xxh3_64(place.as_bytes()))
    }

    /// The letter as a record's value of at most `limit` bytes. An event that is too large for that is left out; its letter says
    /// where it still lies.
    pub fn encode(&self, limit: usize) -> Vec<u8> {
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
mod payload {
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
        let json = letter.encode(record_limit(self.transport.max_record()));
        batch.push(&self.topic, letter.last_failed_us / 1000, Some(letter.id.as_bytes()), Some(&json));
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
        if letters.is_empty() {
            return Ok(0);
        }
        let mut producer = self.transport.producer(&format!("{}.replay", self.topic), Purpose::Stage).await?;
        let now = tributary_event::clock::now_us() / 1000;
        let mut batch = Batch::new();
        for letter in &letters {
            let topic: Arc<str> = letter.topic.as_str().into();
            let left_out = if letter.value.is_none() { self.left_out(letter).await? } else { None };
            let value = letter.value.as_deref().or(left_out.as_deref());
            batch.push(&topic, now, letter.key.as_deref(), value);
            batch.push(&self.topic, now, Some(letter.id.as_bytes()), None);
            if batch.len() >= 2 * REPLAY || batch.size() >= REPLAY_BYTES {
                producer.append(&batch).await?;
                batch.clear();
            }
        }
        if !batch.is_empty() {
            producer.append(&batch).await?;
        }
        Ok(letters.len())
    }

    /// The value of an event that was too large for its letter, from where it was read; none if it had none.
    async fn left_out(&self, letter: &DeadLetter) -> Result<Option<Bytes>, TransportError> {
        let Some(place) = letter.place() else { return Ok(None) };
        let found = self.transport.read(&place, letter.offset, 1).await?;
        let found = found.into_iter().find(|record| record.offset == letter.offset);
        found.map(|record| record.value).ok_or_else(|| {
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
            class: ErrorClass::Definite,
            cause: "the document was refused".into(),
            attempts: 3,
            first_failed_us: 1,
            last_failed_us: 2,
            subject: "movies/42".into(),
        };
        let json = serde_json::to_value(&letter).unwrap();
        assert_eq!(json["key"], r#"{"id":42}"#);
        assert_eq!(json["value"]["base64"], "/wA=");
        assert_eq!(serde_json::from_value::<DeadLetter>(json).unwrap(), letter);
        let tombstone = DeadLetter { value: None, ..letter };
        let json = serde_json::to_string(&tombstone).unwrap();
        assert_eq!(serde_json::from_str::<DeadLetter>(&json).unwrap(), tombstone);
    }
}
