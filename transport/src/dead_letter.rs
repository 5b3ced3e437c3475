//! Events that were set aside with their cause, and the way back.
//!
//! A letter is a record of a compacted topic, under its id; a tombstone takes it out. Replaying appends the original
//! record to its topic and the tombstone in one batch, so a letter is never both gone and not replayed.

mod letters;

pub use letters::{DeadLetters, spec};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, PlanHash};

use crate::contract::{Polled, TopicId, TopicPartition};
use crate::headers::Headers;

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
    /// The identity of the topic where it was read, which another one of that name does not have; none where it was not told, or not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
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
    /// How it is done again.
    #[serde(default, skip_serializing_if = "WayBack::is_topic")]
    pub way_back: WayBack,
    /// The plan of the stream that gave it up; none where no stream did, or where that was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanHash>,
}

/// How the event of a letter is done again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WayBack {
    /// It is appended to its topic again.
    #[default]
    Topic,
    /// Its stage does it again when it is asked to, as only that keeps the order: later events of its key are set aside behind it.
    Stage,
    /// Its stage was asked to.
    Asked,
}

impl WayBack {
    fn is_topic(&self) -> bool {
        *self == Self::Topic
    }
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

/// What a stage that keeps the order of keys must know of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Parked {
    /// The step that gave it up.
    pub stage: String,
    /// Where it was read.
    pub topic: String,
    /// The identity of that topic, if it was told and kept.
    #[serde(default)]
    pub topic_id: Option<TopicId>,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// Its key.
    #[serde(default, with = "payload")]
    pub key: Option<Vec<u8>>,
    /// How it is done again.
    #[serde(default)]
    pub way_back: WayBack,
}

/// A record of a topic of dead letters: a letter was written, or taken out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<L = Outline> {
    /// The letter's id.
    pub id: Bytes,
    /// Where it lies.
    pub offset: u64,
    /// What was asked for of it. None: it was taken out.
    pub letter: Option<L>,
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

    /// The letter of a record that could not be taken, now for the first time; replayed, it goes to `topic`.
    pub fn of_record(stage: String, topic: String, record: &Polled, class: ErrorClass, cause: String) -> Self {
        let place = &record.place;
        let subject = format!("{}/{}/{}", place.topic, place.partition, record.offset);
        let now = now_us();
        Self {
            id: subject.clone(),
            stage,
            topic,
            topic_id: None,
            partition: place.partition,
            offset: record.offset,
            key: record.key.as_deref().map(<[u8]>::to_vec),
            value: record.value.as_deref().map(<[u8]>::to_vec),
            headers: record.headers.clone(),
            class,
            cause,
            attempts: 1,
            first_failed_us: now,
            last_failed_us: now,
            subject,
            replays: Replays::default(),
            way_back: WayBack::Topic,
            plan: None,
        }
    }

    /// The same of a topic whose identity is known: an event at the same place of another topic of that name has another letter.
    pub fn of_topic(self, topic_id: Option<TopicId>) -> Self {
        let id = match topic_id {
            Some(topic) => format!("{}/{topic}", self.id),
            None => self.id,
        };
        Self { id, topic_id, ..self }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_text_where_they_can_be() {
        let letter = DeadLetter {
            id: DeadLetter::id_of("movies", 3, 17, "movies/42"),
            stage: "index movies".into(),
            topic: "movies".into(),
            topic_id: Some(TopicId::new()),
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
            way_back: WayBack::Topic,
            plan: None,
        };
        let json = serde_json::to_value(&letter).unwrap();
        assert_eq!(json["key"], r#"{"id":42}"#);
        assert_eq!(json["value"]["base64"], "/wA=");
        assert_eq!(json["headers"][0]["value"], "7");
        assert_eq!(json["headers"][1]["value"]["base64"], "/w==");
        assert_eq!(serde_json::from_value::<DeadLetter>(json).unwrap(), letter);
        // A letter of before plans were told has none.
        assert!(!serde_json::to_string(&letter).unwrap().contains("plan"));
        let tombstone = DeadLetter { value: None, plan: Some(PlanHash::of("a plan")), ..letter };
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
            topic_id: None,
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
            way_back: WayBack::Topic,
            plan: None,
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
