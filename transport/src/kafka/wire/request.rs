//! The requests and their answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::codec::{Put, Reader};
use super::connection::Broken;

/// A request's number and the version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Api {
    pub key: i16,
    pub version: i16,
    /// Its header and fields are of the flexible kind.
    pub flexible: bool,
    pub name: &'static str,
}

const fn api(key: i16, version: i16, name: &'static str) -> Api {
    Api { key, version, flexible: false, name }
}

pub(super) const PRODUCE: Api = api(0, 8, "Produce");
pub(super) const METADATA: Api = api(3, 5, "Metadata");
pub(super) const FIND_COORDINATOR: Api = api(10, 1, "FindCoordinator");
pub(super) const SASL_HANDSHAKE: Api = api(17, 1, "SaslHandshake");
pub(super) const API_VERSIONS: Api = api(18, 0, "ApiVersions");
pub(super) const INIT_PRODUCER_ID: Api = Api { flexible: true, ..api(22, 3, "InitProducerId") };
pub(super) const ADD_PARTITIONS: Api = api(24, 1, "AddPartitionsToTxn");
pub(super) const END: Api = api(26, 1, "EndTxn");
pub(super) const SASL_AUTHENTICATE: Api = api(36, 1, "SaslAuthenticate");
pub(super) const ALTER_CONFIGS: Api = api(44, 0, "IncrementalAlterConfigs");

/// What a broker must know.
pub(super) const NEEDED: [Api; 6] = [PRODUCE, METADATA, FIND_COORDINATOR, INIT_PRODUCER_ID, ADD_PARTITIONS, END];

/// An error code of an answer, 0 for none.
pub(in crate::kafka) type Answer = i16;

/// The identity that a coordinator gave to a transactional id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kafka) struct ProducerId {
    pub id: i64,
    pub epoch: i16,
}

impl ProducerId {
    /// Asks for a new one, which fences whoever has the transactional id.
    pub const NONE: Self = Self { id: -1, epoch: -1 };
}

/// The requests that a broker knows: their first and last versions.
pub(super) struct Versions {
    pub code: Answer,
    ranges: BTreeMap<i16, (i16, i16)>,
}

impl Versions {
    pub fn know(&self, api: Api) -> bool {
        self.ranges.get(&api.key).is_some_and(|(first, last)| (*first..=*last).contains(&api.version))
    }
}

pub(super) fn read_api_versions(answer: &[u8]) -> Result<Versions, Broken> {
    let mut reader = Reader::new(answer);
    let code = reader.i16()?;
    let ranges = reader.array(|r| Ok((r.i16()?, (r.i16()?, r.i16()?))))?;
    Ok(Versions { code, ranges: ranges.into_iter().collect() })
}

/// What a broker says of topics and of its cluster.
pub(super) struct Metadata {
    /// Node → host and port.
    pub brokers: Vec<(i32, (String, u16))>,
    pub topics: Vec<TopicMetadata>,
}

pub(super) struct TopicMetadata {
    pub code: Answer,
    pub name: String,
    /// The leader of each partition, -1 while there is none.
    pub leaders: Vec<i32>,
}

pub(super) fn metadata(out: &mut Vec<u8>, topics: &[Arc<str>]) {
    out.count(topics.len());
    topics.iter().for_each(|topic| out.string(topic));
    out.bool(false); // topics are created by `ensure_topics` alone
}

pub(super) fn read_metadata(answer: &[u8]) -> Result<Metadata, Broken> {
    let mut reader = Reader::new(answer);
    reader.i32()?; // throttle time
    let brokers = reader.array(|r| {
        let broker = (r.i32()?, (r.string()?, port(r.i32()?)?));
        r.string()?; // rack
        Ok(broker)
    })?;
    reader.string()?; // cluster
    reader.i32()?; // controller
    let topics = reader.array(|r| {
        let (code, name) = (r.i16()?, r.string()?);
        r.bool()?; // internal
        let mut partitions = r.array(|r| {
            r.i16()?; // its error: then the leader is -1
            let (partition, leader) = (r.i32()?, r.i32()?);
            for _ in ["replicas", "in sync", "offline"] {
                r.array(Reader::i32)?;
            }
            Ok((partition, leader))
        })?;
        partitions.sort_unstable();
        if partitions.iter().enumerate().any(|(n, (partition, _))| i32::try_from(n) != Ok(*partition)) {
            return Err(Broken::nonsense("partitions are not numbered from 0"));
        }
        Ok(TopicMetadata { code, name, leaders: partitions.into_iter().map(|(_, leader)| leader).collect() })
    })?;
    Ok(Metadata { brokers, topics })
}

fn port(port: i32) -> Result<u16, Broken> {
    u16::try_from(port).map_err(|_| Broken::nonsense("a port is out of range"))
}

pub(super) fn find_coordinator(out: &mut Vec<u8>, transactional_id: &str) {
    out.string(transactional_id);
    out.i8(1); // of transactions
}

pub(super) fn read_coordinator(answer: &[u8]) -> Result<(Answer, i32, (String, u16)), Broken> {
    let mut reader = Reader::new(answer);
    reader.i32()?; // throttle time
    let code = reader.i16()?;
    reader.string()?; // message
    let node = reader.i32()?;
    let (host, number) = (reader.string()?, reader.i32()?);
    Ok((code, node, (host, if code == 0 { port(number)? } else { 0 })))
}

pub(super) fn init_producer_id(out: &mut Vec<u8>, transactional_id: &str, timeout_ms: i32, known: ProducerId) {
    out.unsigned(transactional_id.len() as u64 + 1);
    out.extend_from_slice(transactional_id.as_bytes());
    out.i32(timeout_ms);
    out.i64(known.id);
    out.i16(known.epoch);
    out.unsigned(0); // no tagged fields
}

pub(super) fn read_producer_id(answer: &[u8]) -> Result<(Answer, ProducerId), Broken> {
    let mut reader = Reader::new(answer);
    reader.i32()?; // throttle time
    Ok((reader.i16()?, ProducerId { id: reader.i64()?, epoch: reader.i16()? }))
}

/// `partitions` in the order of topics.
pub(super) fn add_partitions(out: &mut Vec<u8>, id: &str, producer: ProducerId, partitions: &[(Arc<str>, u32)]) {
    out.string(id);
    out.i64(producer.id);
    out.i16(producer.epoch);
    let topics = || partitions.chunk_by(|a, b| a.0 == b.0);
    out.count(topics().count());
    for topic in topics() {
        out.string(&topic[0].0);
        out.count(topic.len());
        topic.iter().for_each(|(_, partition)| out.i32(*partition as i32));
    }
}

/// The first error, of so many partitions.
pub(super) fn read_add_partitions(answer: &[u8], asked: usize) -> Result<Answer, Broken> {
    let mut reader = Reader::new(answer);
    reader.i32()?; // throttle time
    let (mut first, mut answered) = (0, 0);
    reader.array(|r| {
        r.string()?;
        r.array(|r| {
            r.i32()?;
            let code = r.i16()?;
            answered += 1;
            // An attempt that was not made because of another partition tells nothing of its own.
            if code != 0 && (first == 0 || first == OPERATION_NOT_ATTEMPTED) {
                first = code;
            }
            Ok(())
        })
    })?;
    if answered == asked { Ok(first) } else { Err(Broken::nonsense("an answer about other partitions")) }
}

const OPERATION_NOT_ATTEMPTED: Answer = 55;

pub(super) fn end(out: &mut Vec<u8>, id: &str, producer: ProducerId, commit: bool) {
    out.string(id);
    out.i64(producer.id);
    out.i16(producer.epoch);
    out.bool(commit);
}

pub(super) fn read_end(answer: &[u8]) -> Result<Answer, Broken> {
    let mut reader = Reader::new(answer);
    reader.i32()?; // throttle time
    reader.i16()
}

/// One record batch for each partition; `batches` in the order of topics.
pub(super) fn produce(out: &mut Vec<u8>, id: &str, timeout_ms: i32, batches: &[(Arc<str>, u32, Vec<u8>)]) {
    out.reserve_exact(batches.iter().map(|(topic, _, records)| topic.len() + records.len() + 16).sum::<usize>() + 64);
    out.string(id);
    out.i16(-1); // every replica in sync
    out.i32(timeout_ms);
    let topics = || batches.chunk_by(|a, b| a.0 == b.0);
    out.count(topics().count());
    for topic in topics() {
        out.string(&topic[0].0);
        out.count(topic.len());
        for (_, partition, records) in topic {
            out.i32(*partition as i32);
            out.bytes(records);
        }
    }
}

/// What a leader says to records.
#[derive(Default)]
pub(super) struct Produced {
    /// Partitions whose records are kept.
    pub kept: usize,
    pub refused: Option<Refused>,
}

/// The first error.
pub(super) struct Refused {
    pub code: Answer,
    pub topic: String,
    /// The place, and the broker's words.
    pub text: String,
}

pub(super) fn read_produce(answer: &[u8]) -> Result<Produced, Broken> {
    let mut reader = Reader::new(answer);
    let mut produced = Produced::default();
    reader.array(|r| {
        let topic = r.string()?;
        r.array(|r| {
            let (partition, code) = (r.i32()?, r.i16()?);
            for _ in ["base offset", "append time", "start offset"] {
                r.i64()?;
            }
            r.array(|r| {
                r.i32()?;
                r.string()
            })?;
            let words = r.string()?;
            if code == 0 {
                produced.kept += 1;
            } else if produced.refused.is_none() {
                let colon = if words.is_empty() { "" } else { ": " };
                let text = format!("partition {partition} of {topic}{colon}{words}");
                produced.refused = Some(Refused { code, topic: topic.clone(), text });
            }
            Ok(())
        })
    })?;
    Ok(produced)
}

/// One property of topics is to have this value; their others stay.
pub(super) fn set_property(out: &mut Vec<u8>, topics: &[&str], name: &str, value: &str) {
    out.count(topics.len());
    for topic in topics {
        out.i8(2); // a topic
        out.string(topic);
        out.count(1);
        out.string(name);
        out.i8(0); // set
        out.string(value);
    }
    out.bool(false); // do it
}

/// The first error, with the topic and the broker's words.
pub(super) fn read_set_property(answer: &[u8]) -> Result<Option<(Answer, String)>, Broken> {
    let mut reader = Reader::new(answer);
    reader.i32()?; // throttle time
    let answers = reader.array(|r| {
        let (code, words) = (r.i16()?, r.string()?);
        r.i8()?;
        Ok((code, words, r.string()?))
    })?;
    let refused = answers.into_iter().find(|(code, ..)| *code != 0);
    Ok(refused.map(|(code, words, topic)| (code, format!("topic {topic}: {words}"))))
}

pub(super) fn read_handshake(answer: &[u8]) -> Result<(Answer, Vec<String>), Broken> {
    let mut reader = Reader::new(answer);
    Ok((reader.i16()?, reader.array(Reader::string)?))
}

/// What a broker says to a step of an authentication.
pub(super) struct Authenticated {
    pub code: Answer,
    pub message: String,
    pub bytes: Vec<u8>,
    /// Milliseconds until the connection must be made anew; 0 for never.
    pub lifetime_ms: i64,
}

pub(super) fn read_authenticate(answer: &[u8]) -> Result<Authenticated, Broken> {
    let mut reader = Reader::new(answer);
    Ok(Authenticated {
        code: reader.i16()?,
        message: reader.string()?,
        bytes: reader.bytes()?.to_vec(),
        lifetime_ms: reader.i64()?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_answers_are_read_or_refused(bytes: Vec<u8>) {
            let _ = super::read_api_versions(&bytes);
            let _ = super::read_metadata(&bytes);
            let _ = super::read_coordinator(&bytes);
            let _ = super::read_producer_id(&bytes);
            let _ = super::read_add_partitions(&bytes, 1);
            let _ = super::read_end(&bytes);
            let _ = super::read_produce(&bytes);
            let _ = super::read_handshake(&bytes);
            let _ = super::read_set_property(&bytes);
            let _ = super::read_authenticate(&bytes);
        }
    }
}
