//! Which topics letters are of: one that was deleted and made again has the same name, and another event at the same place.
//!
//! That is asked when partitions become this process's and when one of their topics was made again, for later it may be another topic. What
//! the transport does not tell then is asked when a letter needs it; a letter whose topic is not told even so does without.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::debug;
use tributary_transport::dead_letter::DeadLetter;
use tributary_transport::{TopicId, TopicPartition, Transport};

/// What is known of the topics that a stage reads.
pub struct Origins {
    transport: Arc<dyn Transport>,
    /// None: the transport cannot tell.
    topics: Mutex<HashMap<Arc<str>, Option<TopicId>>>,
}

impl Origins {
    /// Nothing is known yet.
    pub fn new(transport: Arc<dyn Transport>) -> Self {
        Self { transport, topics: Mutex::default() }
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Option<TopicId>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These partitions are read from now on, of whatever topics have their names now.
    pub(crate) async fn read(&self, places: impl Iterator<Item = &TopicPartition>) {
        let names: BTreeSet<&Arc<str>> = places.map(|place| &place.topic).collect();
        self.topics().retain(|name, _| !names.contains(name));
        for name in names {
            if !self.ask(name).await {
                return;
            }
        }
    }

    /// The letter, with its topic.
    pub(crate) async fn of(&self, letter: DeadLetter, place: &TopicPartition) -> DeadLetter {
        let known = || self.topics().get(&place.topic).copied();
        if known().is_none() {
            self.ask(&place.topic).await;
        }
        letter.of_topic(known().flatten())
    }

    /// Whether the transport answers.
    async fn ask(&self, topic: &Arc<str>) -> bool {
        match self.transport.topic_id(topic).await {
            Ok(id) => {
                self.topics().insert(topic.clone(), id);
                true
            }
            Err(error) => {
                debug!(topic = &**topic, error = error.message, "it is not told which topic it is");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tributary_event::ErrorClass;
    use tributary_transport::{Embedded, EmbeddedSettings, Headers, Polled, Retention, TopicSpec};

    use super::*;

    /// At the same place of another topic of that name is another event, and it has another letter.
    #[tokio::test]
    async fn letters_are_of_the_topic_that_was_read() {
        let spec = TopicSpec {
            name: "tables".to_owned(),
            partitions: 1,
            retention: Retention::Delete { age: None, bytes: None },
        };
        let place = TopicPartition { topic: "tables".into(), partition: 0 };
        let (key, value) = (Some("k".into()), Some("no event".into()));
        let record = Polled { place: place.clone(), offset: 7, key, value, headers: Headers::NONE, timestamp_ms: 0 };
        let letter =
            || DeadLetter::of_record("resolve".into(), "replays".into(), &record, ErrorClass::Definite, "odd".into());
        let mut letters = Vec::new();
        for _ in 0..2 {
            let folder = tempfile::tempdir().expect("a folder");
            let log: Arc<dyn Transport> =
                Arc::new(Embedded::open(folder.path(), EmbeddedSettings::default()).expect("a log"));
            let origins = Origins::new(log.clone());
            // It is not there yet.
            assert_eq!(origins.of(letter(), &place).await.topic_id, None);
            log.ensure_topics(std::slice::from_ref(&spec)).await.expect("a topic");
            origins.read([&place].into_iter()).await;
            let made = origins.of(letter(), &place).await;
            assert_eq!(made.topic_id, log.topic_id("tables").await.expect("its identity"));
            letters.push(made);
        }
        assert!(letters[0].topic_id.is_some() && letters[0].subject == letters[1].subject);
        assert_ne!((letters[0].topic_id, &letters[0].id), (letters[1].topic_id, &letters[1].id));
    }
}
