//! Headers between librdkafka's form and ours.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::BufMut;
use rdkafka::Message as _;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, Headers as _, OwnedHeaders};

use crate::contract::TopicPartition;
use crate::headers::{HeadersRef, put, room};

/// Headers as librdkafka takes them.
pub(super) fn owned(headers: HeadersRef<'_>) -> Option<OwnedHeaders> {
    let add = |all: OwnedHeaders, (name, value)| all.insert(Header { key: name, value: Some(value) });
    (!headers.is_empty()).then(|| headers.iter().fold(OwnedHeaders::new(), add))
}

/// The headers of a message, and the room that they take. The client panics at a name that is no UTF-8, which Kafka does not allow
/// but brokers keep: the record is read without its headers then.
pub(super) fn of<'m>(message: &'m BorrowedMessage<'_>, place: &TopicPartition) -> Option<(&'m BorrowedHeaders, usize)> {
    let headers = message.headers()?;
    let size = || headers.iter().map(|header| room(header.key.len(), header.value.map_or(0, <[u8]>::len))).sum();
    let size = catch_unwind(AssertUnwindSafe(size));
    if size.is_err() {
        let (topic, partition, offset) = (&place.topic, place.partition, message.offset());
        tracing::warn!(%topic, partition, offset, "a record is read without its headers: a name among them is no UTF-8");
    }
    size.ok().map(|size| (headers, size))
}

/// Appends headers.
pub(super) fn write(headers: &BorrowedHeaders, out: &mut impl BufMut) {
    headers.iter().for_each(|header| put(out, header.key, header.value.unwrap_or_default()));
}
