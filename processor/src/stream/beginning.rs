//! Where a stream begins that takes what comes from now on: noted for all partitions at once, before any of them is read. Each gets a mark of
//! its own when somebody takes it over, which may be late: what came between must not be left out.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tributary_dsl::plan::{Start, StreamPlan};
use tributary_event::ErrorClass;
use tributary_transport::{Batch, Checkpoint, Purpose, TopicId, TopicPartition, Transport, TransportError};

/// How often it is tried while others try the same, and the pause before each.
const TRIES: u32 = 25;
const PAUSE: Duration = Duration::from_millis(200);

/// The beginning of a stream, by topic; empty where it takes what is there already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beginning(BTreeMap<String, Ends>);

/// Where a topic ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ends {
    /// Which topic it was; none where it was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<TopicId>,
    /// By partition.
    ends: Vec<u64>,
}

impl Beginning {
    /// Notes where a stream begins in those of its topics of which that is not noted yet.
    ///
    /// # Errors
    /// The transport did not answer, or has a note that is none.
    pub async fn note(pipeline: &str, plan: &StreamPlan, transport: &dyn Transport) -> Result<Self, TransportError> {
        if plan.start != Start::Now {
            return Ok(Self::default());
        }
        let name = format!("{pipeline}.{}.beginning", plan.name);
        transport.checkpoints_are_readable().await?;
        let mut tries = 0;
        loop {
            let mut noted = Self::read(&name, transport).await?;
            if !noted.add(plan, transport).await? {
                return Ok(noted);
            }
            let mut batch = Batch::new();
            let content = Bytes::from(serde_json::to_vec(&noted).unwrap_or_default());
            batch.checkpoint = Some(Checkpoint { name: name.clone(), content });
            let mut producer = transport.producer(&name, Purpose::Stage).await?;
            match producer.append(&batch).await {
                Ok(()) => return Ok(noted),
                // Another process notes the same at this moment.
                Err(error) if error.class == ErrorClass::Fatal && tries < TRIES => tries += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn read(name: &str, transport: &dyn Transport) -> Result<Self, TransportError> {
        let unknown = |e| {
            let message = format!("the note {name} of where a stream begins cannot be read: {e}");
            TransportError::caused(ErrorClass::Fatal, message, e)
        };
        let noted = transport.checkpoint(name).await?;
        Ok(noted.map(|noted| serde_json::from_slice(&noted)).transpose().map_err(unknown)?.unwrap_or_default())
    }

    /// Adds the ends of topics that it does not have. False: there are none.
    async fn add(&mut self, plan: &StreamPlan, transport: &dyn Transport) -> Result<bool, TransportError> {
        let mut is_new = false;
        for input in &plan.from {
            if self.0.contains_key(&input.topic) {
                continue;
            }
            let topic = transport.topic_id(&input.topic).await?;
            let ends = transport.watermarks(&input.topic).await?.iter().map(|ends| ends.high).collect();
            self.0.insert(input.topic.clone(), Ends { topic, ends });
            is_new = true;
        }
        Ok(is_new)
    }

    /// Where it begins in a partition without a mark. `topic`: which topic it is now; `end`: where it ends now.
    pub fn of(&self, place: &TopicPartition, topic: Option<TopicId>, end: u64) -> u64 {
        match self.0.get(&*place.topic) {
            // All of a topic that was made anew since, and of a partition that was added, came later.
            Some(noted) if TopicId::is_other(noted.topic, topic) => 0,
            Some(noted) => noted.ends.get(place.partition as usize).copied().filter(|begin| *begin <= end).unwrap_or(0),
            None => end,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use tributary_transport::{Embedded, EmbeddedSettings, Retention, TopicSpec};

    async fn append(log: &Embedded, topic: &str, events: usize) {
        let (mut batch, topic) = (Batch::new(), Arc::from(topic));
        (0..events).for_each(|_| batch.push(&topic, 1, Some(b"key"), Some(b"value")));
        log.producer("writer", Purpose::Source).await.expect("a producer").append(&batch).await.expect("appended");
    }

    async fn make(log: &Embedded, name: &str, partitions: u32) {
        let retention = Retention::Delete { age: None, bytes: None };
        log.ensure_topics(&[TopicSpec { name: name.into(), partitions, retention }]).await.expect("a topic");
    }

    #[tokio::test]
    async fn what_comes_after_the_first_start_belongs_to_a_stream_whenever_it_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Embedded::open(folder.path(), EmbeddedSettings::default()).expect("a log");
        make(&log, "a", 1).await;
        make(&log, "b", 1).await;
        append(&log, "a", 3).await;
        let plan = |topics: &[&str], start| crate::stream::tests::plan(topics, start);
        let first = Beginning::note("p", &plan(&["a"], Start::Now), &log).await.expect("noted");
        append(&log, "a", 2).await;
        append(&log, "b", 4).await;
        let again = Beginning::note("p", &plan(&["a", "b"], Start::Now), &log).await.expect("noted");
        append(&log, "b", 1).await;
        let place = |topic: &str, partition| TopicPartition { topic: topic.into(), partition };
        for noted in [&first, &again] {
            assert_eq!(noted.of(&place("a", 0), None, 5), 3);
        }
        assert_eq!(again.of(&place("b", 0), None, 5), 4, "it was added later");
        assert_eq!(first.of(&place("c", 0), None, 7), 7, "of which nothing is noted");
        assert_eq!(again.of(&place("a", 1), None, 6), 0, "a partition that was added");
        assert_eq!(again.of(&place("a", 0), None, 2), 0, "a topic that was made anew");
        let all = Beginning::note("p", &plan(&["a"], Start::First), &log).await.expect("nothing to note");
        assert_eq!(all, Beginning::default());
    }
}
