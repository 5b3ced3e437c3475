//! What the cases share.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tributary_event::ErrorClass;
use tributary_stack::KafkaOptions;
use tributary_transport::{
    Appending, Assignment, Batch, Consumer, ConsumerSettings, Delivery, Embedded, EmbeddedSettings, Kafka,
    KafkaSettings, Loss, Polled, Producer, Purpose, Retention, TopicPartition, TopicSpec, Transport,
};

/// A case that waits longer than this hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn embedded(directory: &Path) -> Embedded {
    Embedded::open(directory, EmbeddedSettings::default()).unwrap()
}

pub fn kafka_settings() -> KafkaSettings {
    let brokers = std::env::var("TRIBUTARY_TEST_KAFKA").expect("run ./x test: TRIBUTARY_TEST_KAFKA names no broker");
    KafkaSettings { checkpoint_topic: "contract.checkpoints".into(), ..KafkaSettings::single_broker(brokers) }
}

pub fn kafka() -> Kafka {
    Kafka::connect(kafka_settings()).unwrap()
}

/// The shared broker, appended to in this way.
pub fn kafka_by(appending: Appending) -> Kafka {
    Kafka::connect(KafkaSettings { appending, ..kafka_settings() }).unwrap()
}

/// A broker of one's own, of the version that is tested.
pub fn kafka_options() -> KafkaOptions {
    let usual = KafkaOptions::default();
    KafkaOptions { version: std::env::var("TRIBUTARY_TEST_KAFKA_VERSION").unwrap_or(usual.version.clone()), ..usual }
}

/// A transport, and names that no other test uses.
pub struct Bench {
    pub transport: Arc<dyn Transport>,
    prefix: String,
    /// The embedded log, if it is one.
    log: Option<Embedded>,
}

impl Bench {
    pub fn new(transport: Arc<dyn Transport>, case: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let prefix = format!("contract.{case}.{:x}", now ^ (u128::from(std::process::id()) << 64));
        Self { transport, prefix, log: None }
    }

    pub fn on_embedded(log: Embedded, case: &str) -> Self {
        Self { log: Some(log.clone()), ..Self::new(Arc::new(log), case) }
    }

    /// Removes the records of a topic's first partition that stand before an offset, as a person or retention would.
    pub async fn trim(&self, topic: &Arc<str>, below: u64) {
        let place = TopicPartition { topic: topic.clone(), partition: 0 };
        if let Some(log) = &self.log {
            return log.trim(&place, below).await.unwrap();
        }
        kafka().trim(&place, below).await.unwrap();
    }

    /// Appends records one by one, so that their offsets are one behind the other on every transport.
    pub async fn append_each(&self, topic: &Arc<str>, values: &[&str]) {
        let mut appender = self.transport.appender().await.unwrap();
        for value in values {
            self.append(&mut appender, topic, &[("k", value)]).await;
        }
    }

    pub fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A new topic.
    pub async fn topic(&self, name: &str, partitions: u32) -> Arc<str> {
        self.topic_with(name, partitions, Retention::Delete { age: None, bytes: None }).await
    }

    pub async fn topic_with(&self, name: &str, partitions: u32, retention: Retention) -> Arc<str> {
        let name = self.name(name);
        let spec = [TopicSpec { name: name.clone(), partitions, retention }];
        let started = Instant::now();
        // Brokers that were just started may not know of one another yet, so what may pass is tried again.
        while let Err(error) = self.transport.ensure_topics(&spec).await {
            assert!(error.class == ErrorClass::Transient && started.elapsed() < PATIENCE, "{error}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        name.into()
    }

    pub async fn producer(&self) -> Box<dyn Producer> {
        self.transport.producer(&self.name("producer"), Purpose::Source).await.unwrap()
    }

    pub async fn consumer(&self, topic: &str, from_start: bool) -> Box<dyn Consumer> {
        let settings = ConsumerSettings {
            group: self.name("group"),
            topics: vec![topic.to_owned()],
            max_records: 1000,
            from_start,
        };
        self.transport.consumer(settings).await.unwrap()
    }

    pub async fn append(&self, producer: &mut Box<dyn Producer>, topic: &Arc<str>, records: &[(&str, &str)]) {
        let mut batch = Batch::new();
        for (key, value) in records {
            batch.push(topic, 1, Some(key.as_bytes()), Some(value.as_bytes()));
        }
        producer.append(&batch).await.unwrap();
    }

    /// Every record of a topic, read without a group.
    pub async fn all(&self, topic: &Arc<str>) -> Vec<Polled> {
        let mut all = Vec::new();
        let start = std::time::Instant::now();
        let partitions = loop {
            match self.transport.partitions(topic).await {
                // A broker that has just started does not know everything yet.
                Err(error) if error.class == ErrorClass::Transient && start.elapsed() < PATIENCE => {}
                answered => break answered.unwrap(),
            }
        };
        for partition in 0..partitions {
            let place = TopicPartition { topic: topic.clone(), partition };
            all.extend(self.transport.read(&place, 0, usize::MAX).await.unwrap());
        }
        all
    }
}

/// The next delivery; fails instead of hanging.
pub async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("no delivery came").unwrap()
}

/// Reads until there are `count` records. Changes of the assignment are passed over.
pub async fn records(consumer: &mut Box<dyn Consumer>, count: usize) -> Vec<Polled> {
    let mut read = Vec::new();
    while read.len() < count {
        if let Delivery::Records(records) = next(consumer).await {
            read.extend(records);
        }
    }
    read
}

/// Reads until partitions are assigned.
pub async fn assigned(consumer: &mut Box<dyn Consumer>) -> Vec<TopicPartition> {
    assignments(consumer).await.into_iter().map(|assignment| assignment.place).collect()
}

/// Reads until partitions are assigned.
pub async fn assignments(consumer: &mut Box<dyn Consumer>) -> Vec<Assignment> {
    loop {
        if let Delivery::Assigned(assignments) = next(consumer).await {
            return assignments;
        }
    }
}

/// The losses that come next.
pub async fn losses(consumer: &mut Box<dyn Consumer>) -> Vec<Loss> {
    match next(consumer).await {
        Delivery::Lost(losses) => losses,
        other => panic!("nothing was lost: {other:?}"),
    }
}

pub fn text(bytes: &Option<bytes::Bytes>) -> String {
    String::from_utf8(bytes.as_deref().unwrap_or(b"-").to_vec()).unwrap()
}

pub fn values(records: &[Polled]) -> Vec<String> {
    records.iter().map(|record| text(&record.value)).collect()
}

/// What to commit after these records.
pub fn after(records: &[Polled]) -> Vec<(TopicPartition, u64)> {
    let mut offsets = std::collections::HashMap::new();
    for record in records {
        let offset = offsets.entry(record.place.clone()).or_insert(0);
        *offset = record.offset.max(*offset - u64::from(*offset > 0)) + 1;
    }
    offsets.into_iter().collect()
}
