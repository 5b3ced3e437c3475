//! How much a consumer has not committed.

use std::sync::PoisonError;

use rdkafka::Offset;
use rdkafka::consumer::BaseConsumer;
use rdkafka::consumer::Consumer as _;
use tributary_event::ErrorClass;

use super::super::client::KafkaSettings;
use super::super::reader::Reader;
use super::list;
use super::membership::{ANSWER, Context, Membership};
use crate::contract::{TopicPartition, TransportError};

/// So many offsets at the end of a partition may be marks of transactions.
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
            let marks = || self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            if behind == 0 || marks().get(&place) == Some(&(from, ends.high)) {
                continue;
            }
            // The last offsets may be marks of transactions, which nobody reads.
            if behind <= MARKS && from >= ends.low && reader.read(&place, from, 1)?.is_empty() {
                marks().insert(place, (from, ends.high));
                continue;
            }
            lag += behind;
        }
        Ok(lag)
    }
}
