//! How much a consumer has not committed.

use std::sync::PoisonError;

use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use tributary_event::ErrorClass;

use super::super::client::KafkaSettings;
use super::super::reader::Reader;
use super::list;
use super::membership::{ANSWER, Context, Membership, Tail};
use crate::contract::{TopicPartition, TransportError};

/// So few offsets at the end of a partition are probably marks of transactions.
const MARKS: u64 = 8;

impl Membership {
    /// Asks for everything that the lag is made of: few questions, whatever the number of partitions. Blocking.
    pub(super) fn lag(
        &self,
        kafka: &KafkaSettings,
        client: &BaseConsumer<Context>,
        reader: &Reader,
        from_start: bool,
    ) -> Result<u64, TransportError> {
        let unknown = || TransportError::new(ErrorClass::Transient, "the group has not assigned partitions yet");
        self.behind(self.known().ok_or_else(unknown)?, kafka, client, reader, from_start)
    }

    /// The same of these partitions.
    pub(super) fn behind(
        &self,
        places: Vec<TopicPartition>,
        kafka: &KafkaSettings,
        client: &BaseConsumer<Context>,
        reader: &Reader,
        from_start: bool,
    ) -> Result<u64, TransportError> {
        let transient = |text: &str| TransportError::new(ErrorClass::Transient, text);
        if places.is_empty() {
            return Ok(0);
        }
        let asked = list(places.iter().map(|place| (place, Offset::Invalid)));
        let committed = client
            .committed_offsets(asked, ANSWER)
            .map_err(|error| kafka.failed("asking for committed offsets", error))?;
        let ends = reader.ends_of(&places)?;
        let mut lag = 0;
        for place in places {
            let Some(ends) = ends.get(&place) else { return Err(transient("the end of a partition is not known")) };
            let found = committed.find_partition(&place.topic, place.partition as i32).map(|found| found.offset());
            let from = match found {
                Some(Offset::Offset(offset)) => offset as u64,
                _ if from_start => ends.low,
                _ => ends.high,
            };
            // Offsets that are gone count until their loss is dealt with; a topic that was made anew has all before it.
            let behind = ends.high.checked_sub(from).unwrap_or(ends.high - ends.low);
            if behind > 0 && (from < ends.low || self.has_records(reader, &place, (from, ends.high))?) {
                lag += behind;
            }
        }
        Ok(lag)
    }

    /// Whether there is a record between a committed offset and the end. There may be none: marks of transactions have offsets, and
    /// so have the records of aborted ones, which nobody is given. To look costs a request, so a committed offset is looked at once,
    /// and again only if it ends what was empty before; a long stretch not before the committed offset stood still for two
    /// measurements.
    fn has_records(
        &self,
        reader: &Reader,
        place: &TopicPartition,
        (from, high): (u64, u64),
    ) -> Result<bool, TransportError> {
        let tails = || self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tails().get(place).copied();
        let tail = match known {
            Some(Tail::Record(at)) if at == from => return Ok(true),
            Some(Tail::Nothing(at, end)) if (at, end) == (from, high) => return Ok(false),
            Some(Tail::Unknown(at) | Tail::Nothing(at, _)) if at == from => None,
            _ if high - from > MARKS => Some(Tail::Unknown(from)),
            _ => None,
        };
        let tail = match tail {
            Some(tail) => tail,
            None if reader.read(place, from, 1)?.is_empty() => Tail::Nothing(from, high),
            None => Tail::Record(from),
        };
        tails().insert(place.clone(), tail);
        Ok(!matches!(tail, Tail::Nothing(..)))
    }
}
