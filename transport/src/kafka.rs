//! Kafka: topics on a cluster, through librdkafka, but for the changes of a source: who appends them speaks to the brokers itself
//! (`wire`) where it can.
//!
//! A batch is one transaction with its checkpoint, which is a record of the compacted checkpoint topic (`producer`, or through
//! librdkafka, `library`; what they share, `transaction`); what needs neither goes through librdkafka's idempotent producer
//! (`appender`).
//! Groups are Kafka's (`consumer`); everything that needs no group goes through one `reader`; topics are created and
//! checked in `topics`.

mod appender;
mod client;
mod consumer;
mod headers;
mod heard;
mod identity;
mod library;
mod mailbox;
mod producer;
mod reader;
mod topics;
mod transaction;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tributary_event::ErrorClass;

use self::appender::KafkaAppender;
use self::client::Quiet;
pub use self::client::{Appending, Compression, Durability, KafkaSettings};
use self::consumer::KafkaConsumer;
use self::library::LibraryProducer;
use self::producer::KafkaProducer;
use self::reader::Reader;
use self::topics::{Found, Members};
use self::wire::{Cluster, Refusal};
use crate::contract::TopicId;
use crate::contract::{
    Consumer, ConsumerSettings, Polled, Producer, Purpose, Retention, TopicPartition, TopicSpec, Transport,
    TransportError, Watermarks,
};
use crate::numbers::Numbered;
use crate::probe::Probe;

/// How long a new topic may take to be known everywhere.
const KNOWN: Duration = Duration::from_secs(30);

/// Topics on Kafka. Clones share its connections.
#[derive(Clone)]
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    reader: Arc<Reader>,
    admin: Arc<AdminClient<Quiet>>,
    /// The brokers take the largest record.
    brokers_fit: Arc<AtomicBool>,
    probe: Arc<Probe>,
}

impl Kafka {
    /// Checks the settings. Brokers that are away are no error yet: every call reports them, and [`Transport::probe`].
    pub fn connect(settings: KafkaSettings) -> Result<Self, TransportError> {
        // Of properties that are wrong, ours tells more than librdkafka.
        if let Err(Refusal::Wrong(cause)) = Cluster::new(&settings) {
            let text = format!("Kafka at {} cannot be used: {cause} (in the transport's properties)", settings.brokers);
            return Err(TransportError::new(ErrorClass::Fatal, text));
        }
        let reader = Arc::new(Reader::new(&settings)?);
        let admin = settings
            .client(&[])
            .create_with_context(Quiet::of(&settings))
            .map_err(|error| settings.refused("the administration client", error))?;
        Ok(Self {
            settings: Arc::new(settings),
            reader,
            admin: Arc::new(admin),
            brokers_fit: Arc::default(),
            probe: Arc::default(),
        })
    }

    /// Removes the records of a partition that stand before an offset, whether they were read or not.
    pub async fn trim(&self, place: &TopicPartition, below: u64) -> Result<(), TransportError> {
        let failed = |error| self.settings.failed(&format!("removing records of {}", place.topic), error);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&place.topic, place.partition as i32, Offset::Offset(below as i64))
            .map_err(failed)?;
        let done = self.admin.delete_records(&list, &AdminOptions::new()).await.map_err(failed)?;
        done.elements().iter().try_for_each(|element| element.error()).map_err(failed)
    }

    /// Deletes a topic with all that is in it, and with what groups have committed of it.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), TransportError> {
        let failed = |error| self.settings.failed(&format!("deleting topic {topic}"), error);
        let deleted = self.admin.delete_topics(&[topic], &AdminOptions::new()).await.map_err(failed)?;
        deleted.into_iter().try_for_each(|one| one.map(drop).map_err(|(_, code)| failed(KafkaError::AdminOp(code))))
    }

    /// Once is enough: what a broker takes changes only with a restart of it.
    async fn check_brokers(&self) -> Result<(), TransportError> {
        if self.brokers_fit.load(Ordering::Acquire) {
            return Ok(());
        }
        let members = self.blocking(|_, reader| {
            let metadata = reader.metadata()?;
            let is_made = |name: &str| metadata.topics().iter().any(|t| t.name() == name && !t.partitions().is_empty());
            Ok(Members {
                ids: metadata.brokers().iter().map(|broker| broker.id()).collect(),
                offsets: is_made("__consumer_offsets"),
                transactions: is_made("__transaction_state"),
            })
        });
        topics::check_brokers(&self.admin, &self.settings, &members.await?).await?;
        self.brokers_fit.store(true, Ordering::Release);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&KafkaSettings, &Arc<Reader>) -> Result<T, TransportError> + Send + 'static,
    ) -> Result<T, TransportError> {
        let (settings, reader) = (self.settings.clone(), self.reader.clone());
        let done = tokio::task::spawn_blocking(move || work(&settings, &reader)).await;
        done.unwrap_or_else(|error| {
            Err(TransportError::caused(ErrorClass::Fatal, "a call of Kafka was interrupted", error))
        })
    }

    /// What the cluster has of these topics, and how many brokers it has.
    async fn found(&self, names: &[String]) -> Result<(Vec<Found>, usize), TransportError> {
        let names = names.to_vec();
        self.blocking(move |_, reader| {
            let metadata = reader.metadata()?;
            let topics = metadata.topics().iter();
            let ready = topics.filter(|t| t.error().is_none() && names.iter().any(|name| name == t.name()));
            let found = ready
                .map(|t| Found {
                    name: t.name().to_owned(),
                    partitions: t.partitions().len() as u32,
                    replication: t.partitions().iter().map(|p| p.replicas().len() as u32).min().unwrap_or(0),
                })
                .collect();
            Ok((found, metadata.brokers().len()))
        })
        .await
    }
}

#[async_trait]
impl Transport for Kafka {
    fn max_record(&self) -> usize {
        self.settings.max_record
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TransportError> {
        let mut specs: Vec<TopicSpec> = Vec::with_capacity(topics.len() + 1);
        let checkpoints =
            TopicSpec { name: self.settings.checkpoint_topic.clone(), partitions: 1, retention: Retention::Compact };
        for spec in topics.iter().cloned().chain([checkpoints]) {
            if !specs.iter().any(|known| known.name == spec.name) {
                let partitions = if spec.partitions == 0 { self.settings.partitions } else { spec.partitions };
                specs.push(TopicSpec { partitions, ..spec });
            }
        }
        let names: Vec<String> = specs.iter().map(|spec| spec.name.clone()).collect();
        let (found, brokers) = self.found(&names).await?;
        let absent: Vec<&TopicSpec> = specs.iter().filter(|s| !found.iter().any(|f| f.name == s.name)).collect();
        if !absent.is_empty() {
            topics::check_count(&self.settings, brokers)?;
            topics::create(&self.admin, &self.settings, &absent).await?;
        }
        let start = Instant::now();
        let found = loop {
            let (found, _) = self.found(&names).await?;
            if found.len() == names.len() {
                break found;
            }
            if start.elapsed() > KNOWN {
                let text = format!("new topics are still unknown to Kafka {} after {KNOWN:?}", self.settings.brokers);
                return Err(TransportError::new(ErrorClass::Transient, text));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        self.reader.saw(names.iter().cloned());
        self.check_brokers().await?;
        let properties = topics::properties(&self.admin, &self.settings, &names).await?;
        let properties = topics::enlarge(&self.admin, &self.settings, &names, properties).await?;
        for (spec, properties) in specs.iter().zip(&properties) {
            if let Some(found) = found.iter().find(|found| found.name == spec.name) {
                topics::check(&self.settings, spec, found, properties)?;
            }
        }
        Ok(())
    }

    async fn partitions(&self, topic: &str) -> Result<u32, TransportError> {
        let topic = topic.to_owned();
        self.blocking(move |_, reader| reader.partitions(&topic)).await
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<TopicId>, TransportError> {
        let topic: Arc<str> = topic.into();
        self.blocking(move |settings, reader| {
            let start = Instant::now();
            loop {
                match reader.identities.of(std::slice::from_ref(&topic), Duration::ZERO)?.get(&topic) {
                    Some(id) => return Ok(*id),
                    None if reader.partitions(&topic)? == 0 => return Err(settings.unknown(&topic)),
                    // One broker knows it, and another one does not yet.
                    None if start.elapsed() < KNOWN => std::thread::sleep(Duration::from_millis(20)),
                    None => {
                        let text = format!("brokers of Kafka {} do not know topic {topic} yet", settings.brokers);
                        return Err(TransportError::new(ErrorClass::Transient, text));
                    }
                }
            }
        })
        .await
    }

    async fn producer(&self, id: &str, purpose: Purpose) -> Result<Box<dyn Producer>, TransportError> {
        let limit = transaction::limit(&self.settings, purpose)?;
        let why = match (self.settings.appending, purpose) {
            (Appending::Fitting, Purpose::Source | Purpose::Stream) => {
                match KafkaProducer::open(&self.settings, &self.reader, id, (purpose, limit)).await {
                    Ok(producer) => {
                        tracing::info!(producer = id, "appending by our own protocol");
                        return Ok(Box::new(producer));
                    }
                    Err(fault) if fault.is_unspoken() => fault.text,
                    Err(fault) => {
                        let what = format!("opening the producer {id}");
                        return Err(self.settings.answered(&what, fault.class, fault.code, &fault.text));
                    }
                }
            }
            (Appending::Fitting, Purpose::Stage) => "it has little to append".into(),
            (Appending::Library, _) => "it was asked for".into(),
        };
        tracing::info!(producer = id, why, "appending through librdkafka");
        Ok(Box::new(LibraryProducer::open(&self.settings, &self.reader, id, (purpose, limit)).await?))
    }

    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError> {
        Ok(Box::new(KafkaAppender::open(&self.settings, &self.reader)?))
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        let consumer = self.blocking(move |kafka, reader| KafkaConsumer::join(kafka, reader.clone(), settings)).await?;
        Ok(Box::new(consumer))
    }

    async fn consumers(
        &self,
        leading: ConsumerSettings,
        following: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError> {
        let join = move |kafka: &KafkaSettings, reader: &Arc<Reader>| {
            KafkaConsumer::join_and_follow(kafka, reader.clone(), leading, following)
        };
        Ok(self.blocking(join).await?.map(|consumer| Box::new(consumer) as Box<dyn Consumer>))
    }

    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        let name = name.to_owned();
        self.blocking(move |_, reader| reader.checkpoint(&name)).await
    }

    async fn numbers(&self) -> Result<Vec<(String, Numbered)>, TransportError> {
        self.blocking(|_, reader| reader.numbers()).await
    }

    async fn checkpoints_are_readable(&self) -> Result<(), TransportError> {
        self.blocking(|_, reader| reader.checkpoints_are_readable()).await
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<Watermarks>, TransportError> {
        let topic: Arc<str> = topic.into();
        self.blocking(move |settings, reader| {
            let partitions = reader.partitions(&topic)?;
            if partitions == 0 {
                return Err(settings.unknown(&topic));
            }
            (0..partitions)
                .map(|partition| reader.committed_ends(&TopicPartition { topic: topic.clone(), partition }))
                .collect()
        })
        .await
    }

    async fn read(&self, place: &TopicPartition, offset: u64, max: usize) -> Result<Vec<Polled>, TransportError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let place = place.clone();
        self.blocking(move |_, reader| reader.read(&place, offset, max)).await
    }

    async fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<u64, TransportError> {
        let place = place.clone();
        self.blocking(move |_, reader| reader.offset_at(&place, time_ms)).await
    }

    async fn probe(&self) -> Result<(), TransportError> {
        let reader = self.reader.clone();
        self.probe.ask(|| tokio::task::spawn_blocking(move || reader.metadata().map(drop))).await
    }
}
