//! The clock of a case. Whoever waits for a time waits for nothing: the runtime's clock goes forward to it as soon as everybody waits. What
//! threads outside of the runtime do takes real time, and the clock stands still until they answer.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};

use async_trait::async_trait;
use bytes::Bytes;
use tributary_processor::OutsideError;
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};
use tributary_transport::{
    Batch, Consumer, ConsumerSettings, Delivery, Measuring, Polled, Producer, Purpose, TopicId, TopicPartition,
    TopicSpec, Transport, TransportError, Watermarks,
};

/// Holds the clock until it is dropped: the runtime's clock goes forward by itself only while none of its blocking threads works.
struct Held {
    _end: mpsc::Sender<()>,
}

impl Held {
    fn new() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || ended.recv());
        Self { _end: end }
    }
}

/// Waits for what is done elsewhere, while the clock stands still.
async fn still<T>(work: impl Future<Output = T>) -> T {
    let _held = Held::new();
    work.await
}

/// The embedded log, whose work takes no time of the case. What it reads it reads in blocking threads of the runtime; what it writes, a
/// thread of its own does.
pub(super) struct Still(pub Arc<dyn Transport>);

struct StillProducer(Box<dyn Producer>);

struct StillConsumer(Box<dyn Consumer>);

#[async_trait]
impl Producer for StillProducer {
    fn max_record(&self) -> usize {
        self.0.max_record()
    }

    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        still(self.0.append(batch)).await
    }
}

#[async_trait]
impl Consumer for StillConsumer {
    /// It waits for records as others wait for times. A read that is under way is one of the runtime's blocking threads.
    async fn next(&mut self) -> Result<Delivery, TransportError> {
        self.0.next().await
    }

    fn pause(&mut self, places: &[TopicPartition]) {
        self.0.pause(places);
    }

    fn resume(&mut self, places: &[TopicPartition]) {
        self.0.resume(places);
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        still(self.0.commit(offsets)).await
    }

    fn lag(&mut self, come_to: HashMap<TopicPartition, u64>) -> Measuring {
        self.0.lag(come_to)
    }

    fn backlog(&mut self) -> Measuring {
        self.0.backlog()
    }
}

#[async_trait]
impl Transport for Still {
    fn max_record(&self) -> usize {
        self.0.max_record()
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TransportError> {
        still(self.0.ensure_topics(topics)).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, TransportError> {
        self.0.partitions(topic).await
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<TopicId>, TransportError> {
        self.0.topic_id(topic).await
    }

    async fn producer(&self, id: &str, purpose: Purpose) -> Result<Box<dyn Producer>, TransportError> {
        Ok(Box::new(StillProducer(still(self.0.producer(id, purpose)).await?)))
    }

    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError> {
        Ok(Box::new(StillProducer(still(self.0.appender()).await?)))
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        Ok(Box::new(StillConsumer(still(self.0.consumer(settings)).await?)))
    }

    async fn consumers(
        &self,
        leading: ConsumerSettings,
        following: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError> {
        let [leading, following] = still(self.0.consumers(leading, following)).await?;
        Ok([Box::new(StillConsumer(leading)), Box::new(StillConsumer(following))])
    }

    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        self.0.checkpoint(name).await
    }

    async fn checkpoints_are_readable(&self) -> Result<(), TransportError> {
        self.0.checkpoints_are_readable().await
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<Watermarks>, TransportError> {
        self.0.watermarks(topic).await
    }

    async fn read(&self, place: &TopicPartition, offset: u64, max: usize) -> Result<Vec<Polled>, TransportError> {
        self.0.read(place, offset, max).await
    }

    async fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<u64, TransportError> {
        self.0.offset_at(place, time_ms).await
    }

    async fn probe(&self) -> Result<(), TransportError> {
        self.0.probe().await
    }
}

/// A sink whose work takes no time of the case.
pub(super) struct StillSink<S>(pub S);

#[async_trait]
impl<S: DeliverySink> DeliverySink for StillSink<S> {
    fn most(&self) -> usize {
        self.0.most()
    }

    fn handed_over(&self) {
        self.0.handed_over();
    }

    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError> {
        still(self.0.deliver(events)).await
    }
}
