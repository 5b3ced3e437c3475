//! The topics of a world, as they are read and written beside its pipeline.

use tributary_transport::{Embedded, EmbeddedSettings, Kafka, KafkaSettings, Polled, TopicPartition, Transport};

use super::{Pair, World};

impl World {
    /// The transport of its pipeline. The embedded log has one process: the pipeline's must be over.
    pub fn transport(&self, pair: Pair) -> Box<dyn Transport> {
        match pair {
            Pair::Embedded => {
                Box::new(Embedded::open(self.data().join("log"), EmbeddedSettings::default()).expect("nobody has it"))
            }
            _ => {
                // The index has the pipeline's name.
                let checkpoint_topic = format!("{}.checkpoints", self.index());
                let settings = KafkaSettings { checkpoint_topic, ..KafkaSettings::single_broker(self.brokers()) };
                Box::new(Kafka::connect(settings).expect("settings"))
            }
        }
    }
}

/// All records of a topic, by partition; none of a topic that is not there.
pub async fn records(transport: &dyn Transport, topic: &str) -> Vec<Vec<Polled>> {
    let mut all = Vec::new();
    for (partition, ends) in transport.watermarks(topic).await.unwrap_or_default().into_iter().enumerate() {
        let place = TopicPartition { topic: topic.into(), partition: partition as u32 };
        let (mut records, mut offset) = (Vec::new(), ends.low);
        loop {
            let some = transport.read(&place, offset, 5_000).await.expect("records");
            let Some(last) = some.last() else { break };
            offset = last.offset + 1;
            records.extend(some);
        }
        all.push(records);
    }
    all
}
