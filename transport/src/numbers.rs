//! Running numbers: by them a reader sees that records are missing, came twice, or came in another order.
//!
//! A producer of [`Purpose::Source`](crate::Purpose::Source) gives every record a number in the header [`SEQUENCE`]:
//! `<run>:<number>`, in each partition of a topic from 1 on, each one more than the last. The numbers that come next are kept with the
//! checkpoints, and become durable with the records that got the ones before, or not at all. So they go on over restarts, crashes and a
//! change of the process without a gap; if the end of a partition is lost while they are kept, they go on behind it, and the gap
//! stays to be seen; and who appends again what was appended before, because the checkpoint was put back, gives the same numbers again.
//!
//! A run is named by chance when a producer has none for a topic: for the first time, or because checkpoints were lost. Numbers of
//! different runs say nothing about each other.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

use crate::contract::{Batch, RecordRef};
use crate::headers::{HeadersRef, put};

/// The header that has a record's number.
pub const SEQUENCE: &str = "tributary-sequence";

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sequence {
    /// The run.
    pub run: u64,
    /// The record's number in it, within its partition, from 1 on.
    pub number: u64,
}

impl Sequence {
    /// The number of a record, if it has one.
    pub fn of(headers: HeadersRef<'_>) -> Option<Self> {
        if headers.is_empty() {
            return None;
        }
        let text = std::str::from_utf8(headers.get(SEQUENCE)?).ok()?;
        let (run, number) = text.split_once(':')?;
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, number: number.parse().ok()? })
    }
}

impl std::fmt::Display for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}:{}", self.run, self.number)
    }
}

/// The numbers of a topic that were given last, as they are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    run: u64,
    /// By partition; 0 where there was no record yet.
    next: Vec<u64>,
}

impl Numbered {
    /// The number of the last record of a partition, if any was given.
    pub fn last(&self, partition: u32) -> Option<Sequence> {
        let next = self.next.get(partition as usize).copied()?;
        (next > 1).then(|| Sequence { run: self.run, number: next - 1 })
    }

    fn parse(content: &[u8]) -> Option<Self> {
        let (run, next) = std::str::from_utf8(content).ok()?.split_once(':')?;
        let next = next.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { run: u64::from_str_radix(run, 16).ok()?, next })
    }
}

/// Between the name of a producer and that of a topic. No checkpoint has such a name.
const BETWEEN: &str = "\0numbers\0";

/// What is kept under the name of a checkpoint, if that is numbers: their topic, and which were given.
pub(crate) fn kept(name: &str, content: &[u8]) -> Option<(String, Numbered)> {
    Some((name.split_once(BETWEEN)?.1.to_owned(), Numbered::parse(content)?))
}

/// Gives the records of one partition their numbers, within a batch.
#[derive(Debug)]
pub(crate) struct Run {
    /// What the header begins with.
    text: Vec<u8>,
    next: u64,
}

impl Run {
    /// The number of the next record.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The record with its number, whose headers lie in `scratch`.
    pub fn number<'a>(&mut self, record: &RecordRef<'a>, scratch: &'a mut Vec<u8>) -> RecordRef<'a> {
        const RUN: usize = 17;
        self.text.truncate(RUN);
        self.text.extend_from_slice(itoa::Buffer::new().format(self.next).as_bytes());
        self.next += 1;
        scratch.clear();
        scratch.extend_from_slice(record.headers.bytes());
        put(scratch, SEQUENCE, &self.text);
        RecordRef { headers: HeadersRef::written(scratch), ..*record }
    }
}

/// Where a partition's numbers go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub topic: Arc<str>,
    pub partition: u32,
    pub next: u64,
}

/// The numbers that a producer gives next.
#[derive(Debug)]
pub(crate) struct Numbers {
    id: Arc<str>,
    /// None before those were read that were kept.
    topics: Option<BTreeMap<Arc<str>, Numbered>>,
}

impl Numbers {
    /// Those of the producer `id`, which are not read yet.
    pub fn new(id: &str) -> Self {
        Self { id: id.into(), topics: None }
    }

    pub fn are_read(&self) -> bool {
        self.topics.is_some()
    }

    /// What the names begin with under which they are kept.
    pub fn prefix(&self) -> String {
        format!("{}{BETWEEN}", self.id)
    }

    /// The name under which those of a topic are kept.
    pub fn name(&self, topic: &str) -> String {
        self.prefix() + topic
    }

    /// Takes over what was kept. What cannot be read begins a new run.
    pub fn read<'k>(&mut self, kept: impl IntoIterator<Item = (&'k str, &'k [u8])>) {
        let prefix = self.prefix();
        let topics = kept
            .into_iter()
            .filter_map(|(name, content)| Some((name.strip_prefix(&prefix)?.into(), Numbered::parse(content)?)));
        self.topics = Some(topics.collect());
    }

    /// The numbers of the next records of a partition.
    pub fn run(&mut self, topic: &Arc<str>, partition: u32) -> Run {
        let topics = self.topics.get_or_insert_default();
        let begin = || Numbered { run: RandomState::new().hash_one(std::process::id()), next: Vec::new() };
        let topic = topics.entry(topic.clone()).or_insert_with(begin);
        let next = topic.next.get(partition as usize).copied().unwrap_or(0).max(1);
        Run { text: format!("{:016x}:", topic.run).into_bytes(), next }
    }

    /// What is kept of a topic once these are durable.
    pub fn content(&self, topic: &str, ends: &[End]) -> Vec<u8> {
        let Some(known) = self.topics.as_ref().and_then(|topics| topics.get(topic)) else { return Vec::new() };
        let mut next = known.next.clone();
        ends.iter().filter(|end| *end.topic == *topic).for_each(|end| set(&mut next, end));
        let next: Vec<String> = next.iter().map(u64::to_string).collect();
        format!("{:016x}:{}", known.run, next.join(",")).into_bytes()
    }

    /// These are durable.
    pub fn durable(&mut self, ends: &[End]) {
        for end in ends {
            if let Some(topic) = self.topics.as_mut().and_then(|topics| topics.get_mut(&end.topic)) {
                set(&mut topic.next, end);
            }
        }
    }
}

fn set(next: &mut Vec<u64>, end: &End) {
    let partition = end.partition as usize;
    next.resize(next.len().max(partition + 1), 0);
    next[partition] = end.next;
}

/// The topics of a batch.
pub(crate) fn topics(batch: &Batch) -> Vec<Arc<str>> {
    let mut topics: Vec<Arc<str>> = Vec::new();
    let mut last: Option<&Arc<str>> = None;
    for record in batch.records() {
        if last.is_some_and(|last| Arc::ptr_eq(last, record.topic)) {
            continue;
        }
        last = Some(record.topic);
        if !topics.contains(record.topic) {
            topics.push(record.topic.clone());
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_where_they_were_kept() {
        let (topic, other): (Arc<str>, Arc<str>) = ("t".into(), "u".into());
        let mut numbers = Numbers::new("p");
        numbers.read([]);
        let record = RecordRef { topic: &topic, key: None, value: None, headers: HeadersRef::NONE, timestamp_ms: 0 };
        let mut run = numbers.run(&topic, 2);
        let mut scratch = Vec::new();
        let of = |record: RecordRef<'_>| Sequence::of(record.headers).unwrap();
        let first = of(run.number(&record, &mut scratch));
        assert_eq!((first.number, of(run.number(&record, &mut scratch)).number), (1, 2));
        let end = End { topic: topic.clone(), partition: 2, next: run.next() };
        let kept = numbers.content(&topic, std::slice::from_ref(&end));
        // Nothing was durable: the same again.
        assert_eq!(numbers.run(&topic, 2).next(), 1);
        numbers.durable(&[end]);
        assert_eq!((numbers.run(&topic, 2).next(), numbers.run(&topic, 0).next()), (3, 1));
        let mut later = Numbers::new("p");
        let (name, foreign) = (later.name("t"), Numbers::new("q").name("u"));
        later.read([(name.as_str(), &kept[..]), (foreign.as_str(), b"00:7")]);
        assert_eq!(of(later.run(&topic, 2).number(&record, &mut scratch)), Sequence { number: 3, ..first });
        let new = of(later.run(&other, 0).number(&record, &mut scratch));
        assert!(new.number == 1 && new.run != first.run);
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "1", "x:1", "1:", "1:x", "1:-1"] {
            let headers = crate::headers::Headers::of([(SEQUENCE, text.as_bytes())]);
            assert_eq!(Sequence::of(headers.view()), None, "{text}");
        }
        let sequence = Sequence { run: 10, number: 7 };
        let headers = crate::headers::Headers::of([(SEQUENCE, sequence.to_string().as_bytes())]);
        assert_eq!(Sequence::of(headers.view()), Some(sequence));
    }
}
