//! How far a table has come in its topic and its listing: kept with its rows, in one transaction.

use serde::{Deserialize, Serialize};
use tributary_transport::{TopicId, Watermarks};

/// Of a topic that is compacted, what removes a key may be gone after so long (Kafka: `delete.retention.ms`, a day unless somebody says
/// otherwise): who has not looked for half of that reads anew.
const FORGOTTEN: i64 = 12 * 3_600_000;

/// How far a table has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// What rows look like, and where they come from.
    pub print: String,
    pub stage: Stage,
    /// The topic that offsets are of; none where that was not told, or not kept.
    #[serde(default)]
    pub topic: Option<TopicId>,
    pub partitions: Vec<Reading>,
    /// Whether it can be looked into: it had come to the ends of its topic.
    pub is_whole: bool,
    /// Changes before this one, of rows, say nothing any more: the table was emptied.
    pub emptied: u64,
    /// The highest number of a change that was read.
    pub sequence: u64,
    /// When its newest change was made, as its record says; of a captured table without one, when it was listed. Milliseconds since the Unix
    /// epoch.
    pub newest_ms: Option<i64>,
    /// When it was known to be at the ends of its topic, about.
    pub seen_ms: i64,
}

/// What is done with a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Nothing yet.
    #[default]
    New,
    /// Its rows are listed, from behind this place on.
    Listing(Option<String>),
    /// Its topic is followed.
    Following,
}

/// How far a partition was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reading {
    /// The offset that is read next.
    pub next: u64,
}

impl Progress {
    /// Why what was read so far says nothing about the topic as it is now, if that is so.
    pub fn is_over(&self, topic: Option<TopicId>, ends: &[Watermarks]) -> Option<&'static str> {
        if TopicId::is_other(self.topic, topic) {
            return Some("its topic was made anew");
        }
        if ends.len() != self.partitions.len() {
            return Some("its topic has another number of partitions, and its keys lie elsewhere");
        }
        if self.partitions.iter().zip(ends).any(|(read, ends)| ends.high < read.next) {
            return Some("its topic was made anew");
        }
        let is_behind = |(read, ends): (&Reading, &Watermarks)| ends.low > read.next;
        self.partitions
            .iter()
            .zip(ends)
            .any(is_behind)
            .then_some("its topic no longer has records that it had not read")
    }

    /// Whether what takes a key out may have come and gone meanwhile.
    pub fn is_forgotten(&self, now_ms: i64) -> bool {
        now_ms - self.seen_ms > FORGOTTEN
    }

    /// A number that rises with every record that was read, and is the same in all processes that have read the same.
    pub fn version(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.next).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_was_made_anew_is_known() {
        let ends = |low, high| Watermarks { low, high };
        let [one, other] = [(); 2].map(|()| Some(TopicId::new()));
        let progress = Progress { topic: one, partitions: vec![Reading { next: 5 }], ..Progress::default() };
        for topic in [one, None] {
            assert_eq!(progress.is_over(topic, &[ends(0, 5)]), None);
            assert_eq!(progress.is_over(topic, &[ends(5, 9)]), None);
            assert!(progress.is_over(topic, &[ends(0, 4)]).is_some());
            assert!(progress.is_over(topic, &[ends(6, 9)]).is_some());
            assert!(progress.is_over(topic, &[]).is_some());
        }
        assert!(progress.is_over(other, &[ends(0, 5)]).is_some());
        assert_eq!(Progress { topic: None, ..progress }.is_over(other, &[ends(0, 5)]), None);
    }

    #[test]
    fn what_was_kept_before_topics_had_identities_is_read() {
        let text = r#"{"print":"1","stage":"Following","partitions":[{"next":5,"last":[4,7]}],"is_whole":true,"emptied":0,"sequence":9,
                       "newest_ms":null,"seen_ms":1}"#;
        let progress: Progress = serde_json::from_str(text).unwrap();
        assert_eq!((progress.topic, progress.partitions), (None, vec![Reading { next: 5 }]));
    }
}
