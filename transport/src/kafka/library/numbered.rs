//! Which partition the records of a source go to, and their numbers: librdkafka chooses partitions itself only where there are none.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode as Code;
use tributary_event::ErrorClass;

use super::{Failure, LibraryProducer};
use crate::contract::{Batch, TransportError};
use crate::kafka::transaction::Kept;
use crate::kafka::wire::Fault;
use crate::numbers::{End, Run};
use crate::partition::partition_for_key;

impl LibraryProducer {
    /// The partition of each record that gets a number, and which run its number is of.
    pub(super) async fn number(
        &mut self,
        batch: &Batch,
        kept: &mut [Kept],
    ) -> Result<(Vec<(i32, usize)>, Vec<Run>), Fault> {
        let (mut places, mut runs) = (Vec::new(), Vec::new());
        self.ends.clear();
        let Some(numbers) = &mut self.numbers else { return Ok((places, runs)) };
        let (reader, topics) = (self.reader.clone(), kept.iter().map(|kept| kept.of.clone()).collect::<Vec<_>>());
        let ask = move || topics.iter().map(|topic| Ok((topic.clone(), reader.partitions(topic)?))).collect();
        let asked: Result<HashMap<Arc<str>, u32>, TransportError> =
            tokio::task::spawn_blocking(ask).await.map_err(|_| Failure::interrupted().fault)?;
        let failed = |error: TransportError| Fault { code: None, class: error.class, text: error.message, topic: None };
        let counts = asked.map_err(failed)?;
        let mut known: HashMap<(Arc<str>, u32), usize> = HashMap::new();
        self.keyless = self.keyless.wrapping_add(1);
        for record in batch.records() {
            let count = counts.get(record.topic).copied().unwrap_or(0);
            if count == 0 {
                let text = format!("topic {} does not exist", record.topic);
                let code = Some(Code::UnknownTopicOrPartition);
                return Err(Fault { code, class: ErrorClass::Fatal, text, topic: None });
            }
            let partition = record.key.map_or(self.keyless % count, |key| partition_for_key(key, count));
            let run = *known.entry((record.topic.clone(), partition)).or_insert_with(|| {
                let run = numbers.run(record.topic, partition);
                self.ends.push(End { topic: record.topic.clone(), partition, next: run.next() });
                runs.push(run);
                runs.len() - 1
            });
            self.ends[run].next += 1;
            places.push((partition as i32, run));
        }
        for kept in kept {
            kept.content = numbers.content(&kept.of, &self.ends);
        }
        Ok((places, runs))
    }
}
