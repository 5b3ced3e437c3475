//! How far a table has come in its topic and its listing: kept with its rows, in one transaction.

use serde::{Deserialize, Serialize};
use tributary_transport::{Polled, Watermarks};

/// Of a topic that is compacted, what removes a key may be gone after so long (Kafka: `delete.retention.ms`, a day unless somebody says
/// otherwise): who has not looked for half of that reads anew.
const FORGOTTEN: i64 = 12 * 3_600_000;

/// How far a table has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// What rows look like, and where they come from.
    pub print: String,
    pub stage: Stage,
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
    /// The last record that was read: its offset, and what it was.
    pub last: Option<(u64, u64)>,
}

impl Reading {
    /// Takes a record that was read.
    pub fn take(&mut self, record: &Polled) {
        *self = Self { next: record.offset + 1, last: Some((record.offset, print(record))) };
    }

    /// Whether a partition is still the one that was read so far. `found`: the record that stands at the place of the last one, or the
    /// first behind it.
    pub fn is_of(&self, found: Option<&Polled>, ends: Watermarks) -> bool {
        match self.last {
            Some((offset, last)) => {
                let is_there = found.is_some_and(|record| record.offset == offset && print(record) == last);
                // All that was read is gone, and nothing else: a partition that was made anew begins with 0.
                is_there || ends.low == self.next
            }
            None => true,
        }
    }
}

impl Progress {
    /// Why what was read so far says nothing about the topic as it is now, if that is so.
    pub fn is_over(&self, ends: &[Watermarks]) -> Option<&'static str> {
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

/// What a record is, in a few bytes: FNV-1a of key, value and time.
fn print(record: &Polled) -> u64 {
    let time = record.timestamp_ms.to_le_bytes();
    let parts = [record.key.as_deref(), record.value.as_deref(), Some(&time[..])];
    let mut print = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        let length = part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes();
        for byte in length.iter().chain(part.unwrap_or_default()) {
            print = (print ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
    print
}

#[cfg(test)]
mod tests {
    use super::*;
    use tributary_transport::{Headers, TopicPartition};

    fn record(offset: u64, value: &str) -> Polled {
        let place = TopicPartition { topic: "t".into(), partition: 0 };
        let value = Some(value.to_owned().into());
        Polled { place, offset, key: None, value, headers: Headers::NONE, timestamp_ms: 1 }
    }

    #[test]
    fn a_topic_that_was_made_anew_is_known() {
        let mut reading = Reading::default();
        reading.take(&record(4, "x"));
        let ends = |low, high| Watermarks { low, high };
        assert!(reading.is_of(Some(&record(4, "x")), ends(0, 9)));
        for other in [Some(record(4, "y")), Some(record(6, "x")), None] {
            assert!(!reading.is_of(other.as_ref(), ends(0, 9)));
        }
        assert!(reading.is_of(None, ends(5, 5)));
        let progress = Progress { partitions: vec![reading], ..Progress::default() };
        assert_eq!(progress.is_over(&[ends(0, 5)]), None);
        assert_eq!(progress.is_over(&[ends(5, 9)]), None);
        assert!(progress.is_over(&[ends(0, 4)]).is_some());
        assert!(progress.is_over(&[ends(6, 9)]).is_some());
        assert!(progress.is_over(&[]).is_some());
    }
}
