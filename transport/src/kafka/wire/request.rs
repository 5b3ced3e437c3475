//! The requests and their answers, in every version that is spoken.

use std::sync::Arc;

use super::codec::{Body, Reader, Reply};
use super::connection::Broken;
use super::version::{UNSUPPORTED_VERSION, Versions};
use crate::contract::TopicId;

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

/// Who asks, which brokers show to their administrators.
pub(super) fn api_versions(out: &mut Body<'_>) {
    if out.version >= 3 {
        out.string("tributary");
        out.string(env!("CARGO_PKG_VERSION"));
        out.tags();
    }
}

/// What a broker knows, and whether it answered in the version that it was asked.
pub(super) fn read_api_versions(reply: &Reply) -> Result<(Answer, Versions), Broken> {
    let code = reply.reader().i16()?;
    // Who does not know the version answers in the oldest.
    let mut reader = if code == UNSUPPORTED_VERSION { reply.oldest() } else { reply.reader() };
    reader.i16()?;
    let ranges = reader.array(|r| {
        let range = (r.i16()?, (r.i16()?, r.i16()?));
        r.tags()?;
        Ok(range)
    })?;
    Ok((code, Versions::told(ranges)))
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
    pub id: Option<TopicId>,
    /// The leader of each partition, -1 while there is none.
    pub leaders: Vec<i32>,
}

pub(super) fn metadata(out: &mut Body<'_>, topics: &[Arc<str>]) {
    out.count(topics.len());
    for topic in topics {
        if out.version >= 10 {
            out.i64(0); // no topic id,
            out.i64(0); // in two halves
        }
        out.string(topic);
        out.tags();
    }
    out.bool(false); // topics are created by `ensure_topics` alone
    if (8..=10).contains(&out.version) {
        out.bool(false); // what is allowed on the cluster
    }
    if out.version >= 8 {
        out.bool(false); // what is allowed on the topics
    }
    out.tags();
}

pub(super) fn read_metadata(reply: &Reply) -> Result<Metadata, Broken> {
    let mut reader = reply.reader();
    reader.i32()?; // throttle time
    let brokers = reader.array(|r| {
        let broker = (r.i32()?, (r.string()?, port(r.i32()?)?));
        r.string()?; // rack
        r.tags()?;
        Ok(broker)
    })?;
    reader.string()?; // cluster
    reader.i32()?; // controller
    let topics = reader.array(|r| {
        let (code, name) = (r.i16()?, r.string()?);
        let id = if r.version >= 10 { TopicId::told(r.uuid()?) } else { None };
        r.bool()?; // internal
        let mut partitions = r.array(|r| {
            r.i16()?; // its error: then the leader is -1
            let (partition, leader) = (r.i32()?, r.i32()?);
            if r.version >= 7 {
                r.i32()?; // the leader's epoch
            }
            for _ in ["replicas", "in sync", "offline"] {
                r.array(Reader::i32)?;
            }
            r.tags()?;
            Ok((partition, leader))
        })?;
        if r.version >= 8 {
            r.i32()?; // what is allowed
        }
        r.tags()?;
        partitions.sort_unstable();
        if partitions.iter().enumerate().any(|(n, (partition, _))| i32::try_from(n) != Ok(*partition)) {
            return Err(Broken::nonsense("partitions are not numbered from 0"));
        }
        Ok(TopicMetadata { code, name, id, leaders: partitions.into_iter().map(|(_, leader)| leader).collect() })
    })?;
    Ok(Metadata { brokers, topics })
}

fn port(port: i32) -> Result<u16, Broken> {
    u16::try_from(port).map_err(|_| Broken::nonsense("a port is out of range"))
}

pub(super) fn find_coordinator(out: &mut Body<'_>, transactional_id: &str) {
    const TRANSACTION: i8 = 1;
    if out.version >= 4 {
        out.i8(TRANSACTION);
        out.count(1);
        out.string(transactional_id);
    } else {
        out.string(transactional_id);
        out.i8(TRANSACTION);
    }
    out.tags();
}

pub(super) fn read_coordinator(reply: &Reply) -> Result<(Answer, i32, (String, u16)), Broken> {
    let mut reader = reply.reader();
    reader.i32()?; // throttle time
    if reader.version >= 4 {
        let found = reader.array(|r| {
            r.string()?; // transactional id
            let node = (r.i32()?, r.string()?, r.i32()?);
            let code = r.i16()?;
            r.string()?; // message
            r.tags()?;
            Ok((code, node))
        })?;
        let found = found.into_iter().next().ok_or_else(|| Broken::nonsense("an answer about nobody"))?;
        return coordinator(found);
    }
    let code = reader.i16()?;
    reader.string()?; // message
    coordinator((code, (reader.i32()?, reader.string()?, reader.i32()?)))
}

fn coordinator(
    (code, (node, host, number)): (Answer, (i32, String, i32)),
) -> Result<(Answer, i32, (String, u16)), Broken> {
    Ok((code, node, (host, if code == 0 { port(number)? } else { 0 })))
}

pub(super) fn init_producer_id(out: &mut Body<'_>, transactional_id: &str, timeout_ms: i32, known: ProducerId) {
    out.string(transactional_id);
    out.i32(timeout_ms);
    out.i64(known.id);
    out.i16(known.epoch);
    out.tags();
}

pub(super) fn read_producer_id(reply: &Reply) -> Result<(Answer, ProducerId), Broken> {
    let mut reader = reply.reader();
    reader.i32()?; // throttle time
    Ok((reader.i16()?, ProducerId { id: reader.i64()?, epoch: reader.i16()? }))
}

/// `partitions` in the order of topics.
pub(super) fn add_partitions(out: &mut Body<'_>, id: &str, producer: ProducerId, partitions: &[(Arc<str>, u32)]) {
    out.string(id);
    out.i64(producer.id);
    out.i16(producer.epoch);
    let topics = || partitions.chunk_by(|a, b| a.0 == b.0);
    out.count(topics().count());
    for topic in topics() {
        out.string(&topic[0].0);
        out.count(topic.len());
        topic.iter().for_each(|(_, partition)| out.i32(*partition as i32));
        out.tags();
    }
    out.tags();
}

/// The first error, of so many partitions.
pub(super) fn read_add_partitions(reply: &Reply, asked: usize) -> Result<Answer, Broken> {
    let mut reader = reply.reader();
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
            r.tags()
        })?;
        r.tags()
    })?;
    if answered == asked { Ok(first) } else { Err(Broken::nonsense("an answer about other partitions")) }
}

const OPERATION_NOT_ATTEMPTED: Answer = 55;

pub(super) fn end(out: &mut Body<'_>, id: &str, producer: ProducerId, commit: bool) {
    out.string(id);
    out.i64(producer.id);
    out.i16(producer.epoch);
    out.bool(commit);
    out.tags();
}

pub(super) fn read_end(reply: &Reply) -> Result<Answer, Broken> {
    let mut reader = reply.reader();
    reader.i32()?; // throttle time
    reader.i16()
}

/// One record batch for each partition; `batches` in the order of topics.
pub(super) fn produce(out: &mut Body<'_>, id: &str, timeout_ms: i32, batches: &[(Arc<str>, u32, Vec<u8>)]) {
    out.reserve(batches.iter().map(|(topic, _, records)| topic.len() + records.len() + 16).sum::<usize>() + 64);
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
            out.tags();
        }
        out.tags();
    }
    out.tags();
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

pub(super) fn read_produce(reply: &Reply) -> Result<Produced, Broken> {
    let mut reader = reply.reader();
    let mut produced = Produced::default();
    reader.array(|r| {
        let topic = r.string()?;
        r.array(|r| {
            let (partition, code) = (r.i32()?, r.i16()?);
            for _ in ["base offset", "append time", "start offset"] {
                r.i64()?;
            }
            let mut words = String::new();
            if r.version >= 8 {
                r.array(|r| {
                    r.i32()?; // the record
                    r.string()?; // what is wrong with it
                    r.tags()
                })?;
                words = r.string()?;
            }
            r.tags()?; // with the new leader, which the next question tells too
            if code == 0 {
                produced.kept += 1;
            } else if produced.refused.is_none() {
                let colon = if words.is_empty() { "" } else { ": " };
                let text = format!("partition {partition} of {topic}{colon}{words}");
                produced.refused = Some(Refused { code, topic: topic.clone(), text });
            }
            Ok(())
        })?;
        r.tags()
    })?;
    Ok(produced)
}

/// One property of topics is to have this value; their others stay.
pub(super) fn set_property(out: &mut Body<'_>, topics: &[&str], name: &str, value: &str) {
    out.count(topics.len());
    for topic in topics {
        out.i8(2); // a topic
        out.string(topic);
        out.count(1);
        out.string(name);
        out.i8(0); // set
        out.string(value);
        out.tags();
        out.tags();
    }
    out.bool(false); // do it
    out.tags();
}

/// The first error, with the topic and the broker's words.
pub(super) fn read_set_property(reply: &Reply) -> Result<Option<(Answer, String)>, Broken> {
    let mut reader = reply.reader();
    reader.i32()?; // throttle time
    let answers = reader.array(|r| {
        let (code, words) = (r.i16()?, r.string()?);
        r.i8()?; // a topic
        let topic = r.string()?;
        r.tags()?;
        Ok((code, words, topic))
    })?;
    let refused = answers.into_iter().find(|(code, ..)| *code != 0);
    Ok(refused.map(|(code, words, topic)| (code, format!("topic {topic}: {words}"))))
}

pub(super) fn handshake(out: &mut Body<'_>, mechanism: &str) {
    out.string(mechanism);
}

pub(super) fn read_handshake(reply: &Reply) -> Result<(Answer, Vec<String>), Broken> {
    let mut reader = reply.reader();
    Ok((reader.i16()?, reader.array(Reader::string)?))
}

/// A step of an authentication.
pub(super) fn authenticate(out: &mut Body<'_>, bytes: &[u8]) {
    out.bytes(bytes);
    out.tags();
}

/// What a broker says to a step of an authentication.
pub(super) struct Authenticated {
    pub code: Answer,
    pub message: String,
    pub bytes: Vec<u8>,
    /// Milliseconds until the connection must be made anew; 0 for never.
    pub lifetime_ms: i64,
}

pub(super) fn read_authenticate(reply: &Reply) -> Result<Authenticated, Broken> {
    let mut reader = reply.reader();
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

    use super::super::codec::Reply;
    use super::super::version::Spoken;

    proptest! {
        #[test]
        fn arbitrary_answers_are_read_or_refused(bytes: Vec<u8>, version in 0..14_i16, flexible: bool) {
            let Ok(reply) = Reply::new(bytes, Spoken { key: 0, version, flexible }) else { return Ok(()) };
            let _ = super::read_api_versions(&reply);
            let _ = super::read_metadata(&reply);
            let _ = super::read_coordinator(&reply);
            let _ = super::read_producer_id(&reply);
            let _ = super::read_add_partitions(&reply, 1);
            let _ = super::read_end(&reply);
            let _ = super::read_produce(&reply);
            let _ = super::read_handshake(&reply);
            let _ = super::read_set_property(&reply);
            let _ = super::read_authenticate(&reply);
        }
    }
}
