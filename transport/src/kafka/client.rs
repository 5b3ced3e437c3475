//! Settings of Kafka, how they become librdkafka's, and what its errors mean.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tributary_event::ErrorClass;

use super::heard;
use crate::contract::{TransportError, record_limit};

/// How sure an acknowledged record must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Every topic has the configured replication and `min.insync.replicas`, and no unclean leader election; checked
    /// at start.
    Strict,
    /// Topics are taken as they are.
    Relaxed,
}

/// How batches are compressed on their way and on the broker's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// The least CPU.
    Lz4,
    /// The least disk and network.
    Zstd,
}

/// Who speaks to the brokers to append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appending {
    /// Our own protocol for the changes of a source, where it can do what the properties and the brokers want; librdkafka for
    /// everything else.
    Fitting,
    /// librdkafka, always.
    Library,
}

/// How Kafka is used.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaSettings {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// What is checked at start.
    pub durability: Durability,
    /// Partitions of a topic whose spec leaves the number open.
    pub partitions: u32,
    /// Replicas of a partition.
    pub replication: u32,
    /// Replicas that must have a record before it counts as written.
    pub min_insync: u32,
    /// The most bytes that key and value of an event may have, at most [`MAX_RECORD`](crate::MAX_RECORD).
    /// Topics are made to take such records.
    pub max_record: usize,
    /// Compression of appended records.
    pub compression: Compression,
    /// Who appends.
    pub appending: Appending,
    /// The compacted topic of checkpoints. Who appends to it makes others wait that read it while an append of theirs is unfinished.
    pub checkpoint_topic: String,
    /// The topic that had the checkpoints before: read for those that the other one lacks.
    pub former_checkpoint_topic: Option<String>,
    /// Further properties in librdkafka's words (security, time limits …). They win over what is chosen here. Our own protocol
    /// reads those of security, `client.id` and `transaction.timeout.ms`.
    pub properties: BTreeMap<String, String>,
}

impl KafkaSettings {
    /// Settings for a cluster of three or more brokers.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            durability: Durability::Strict,
            partitions: 8,
            replication: 3,
            min_insync: 2,
            max_record: 16 << 20,
            compression: Compression::Lz4,
            appending: Appending::Fitting,
            checkpoint_topic: "tributary.checkpoints".into(),
            former_checkpoint_topic: None,
            properties: BTreeMap::new(),
        }
    }

    /// Settings for a single broker, as on a developer's machine.
    pub fn single_broker(brokers: impl Into<String>) -> Self {
        Self { replication: 1, min_insync: 1, ..Self::new(brokers) }
    }

    /// The most bytes that any record has on its way: with what wraps it, where it cannot be compressed.
    pub(super) fn wire_limit(&self) -> usize {
        let record = record_limit(self.max_record);
        record + record / 4096 + 1024
    }

    /// How much longer than usual the largest record may take, at 1 MiB a second.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs((self.wire_limit() >> 20) as u64)
    }

    /// Properties of every client. `extra` comes before the user's.
    pub(super) fn client(&self, extra: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tributary")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.nagle.disable", "true")
            .set("allow.auto.create.topics", "false")
            .set("receive.message.max.bytes", (self.wire_limit() + (64 << 20)).max(128 << 20).to_string())
            .set("socket.timeout.ms", (Duration::from_secs(60) + self.patience()).as_millis().to_string())
            .set_log_level(RDKafkaLogLevel::Warning);
        for (name, value) in extra {
            config.set(*name, *value);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// A topic that is not there.
    pub(super) fn unknown(&self, topic: &str) -> TransportError {
        let text = format!(
            "topic {topic} does not exist at Kafka {}; create it, or name it to `ensure_topics` first",
            self.brokers
        );
        TransportError::new(ErrorClass::Fatal, text)
    }

    /// An error of a client that could not even be made.
    pub(super) fn refused(&self, what: &str, error: KafkaError) -> TransportError {
        let needs_kerberos = !cfg!(feature = "gssapi") && error.to_string().contains("GSSAPI");
        let remedy = match needs_kerberos {
            true => {
                "Kerberos needs a build with `cargo build --release --features gssapi` (and Cyrus SASL: libsasl2-dev)"
            }
            false => "check the transport's properties",
        };
        let text = format!("{what} for Kafka at {} cannot be set up: {error}; {remedy}", self.brokers);
        TransportError::caused(ErrorClass::Fatal, text, error)
    }

    /// An error of a call: what was done, why it failed, and what to do.
    pub(super) fn failed(&self, what: &str, error: KafkaError) -> TransportError {
        let code = match &error {
            // What an administrator's request was answered for one topic; the library does not count it as a code.
            KafkaError::AdminOp(code) => Some(*code),
            error => error.rdkafka_error_code(),
        };
        let class = code.map_or(ErrorClass::Transient, class);
        let cause = code.map_or_else(|| error.to_string(), |code| code.to_string());
        TransportError { source: Some(error.into()), ..self.answered(what, class, code, &cause) }
    }

    /// An error of a request: what was done, what was answered, and what to do.
    pub(super) fn answered(
        &self,
        what: &str,
        class: ErrorClass,
        code: Option<RDKafkaErrorCode>,
        cause: &str,
    ) -> TransportError {
        let is_away = code.is_some_and(|code| AWAY.contains(&code));
        let why = Some(&self.brokers).filter(|_| is_away).and_then(|brokers| heard::lately(brokers));
        let remedy =
            why.or_else(|| code.and_then(remedy).map(str::to_owned)).map(|r| format!("; {r}")).unwrap_or_default();
        TransportError::new(class, format!("{what} failed at Kafka {}: {cause}{remedy}", self.brokers))
    }
}

impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden: BTreeMap<&str, &str> = self.properties.keys().map(|name| (name.as_str(), "…")).collect();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("durability", &self.durability)
            .field("partitions", &self.partitions)
            .field("replication", &self.replication)
            .field("min_insync", &self.min_insync)
            .field("max_record", &self.max_record)
            .field("compression", &self.compression)
            .field("appending", &self.appending)
            .field("checkpoint_topic", &self.checkpoint_topic)
            .field("former_checkpoint_topic", &self.former_checkpoint_topic)
            .field("properties", &hidden)
            .finish()
    }
}

/// What librdkafka says of brokers that do not answer.
const AWAY: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::MessageTimedOut,
];

/// What may be done about an error of Kafka.
pub(super) fn class(code: RDKafkaErrorCode) -> ErrorClass {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidMessageSize
        | Code::InvalidTimestamp
        | Code::InvalidRecord => ErrorClass::Definite,
        // A broker that has just started does not know every topic yet; librdkafka then finds a partition to be unknown.
        Code::UnknownPartition => ErrorClass::Transient,
        Code::UnknownTopicOrPartition
        | Code::UnknownTopic
        | Code::InvalidTopic
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::SaslAuthenticationFailed
        | Code::Authentication
        | Code::UnsupportedSASLMechanism
        | Code::UnsupportedFeature
        | Code::UnsupportedCompressionType
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedVersion
        | Code::InvalidRequest
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::InvalidTransactionTimeout
        | Code::PolicyViolation
        | Code::Fenced
        | Code::ProducerFenced
        | Code::InvalidProducerEpoch
        | Code::FencedInstanceId
        | Code::Fatal => ErrorClass::Fatal,
        _ => ErrorClass::Transient,
    }
}

fn remedy(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::TopicAuthorizationFailed => "grant the user READ, WRITE, DESCRIBE and CREATE on the topic",
        Code::GroupAuthorizationFailed => "grant the user READ on the consumer group",
        Code::ClusterAuthorizationFailed => "grant the user CREATE and IDEMPOTENT_WRITE on the cluster",
        Code::TransactionalIdAuthorizationFailed => "grant the user WRITE and DESCRIBE on the transactional id",
        Code::SaslAuthenticationFailed | Code::Authentication => {
            "check user and password in the transport's properties"
        }
        Code::MessageSizeTooLarge => {
            "raise `max.message.bytes` of the topic to what the transport's `max_record` needs (its check at the start says how), \
             or lower `max_record`"
        }
        Code::MessageBatchTooLarge => "raise `segment.bytes` of the topic",
        Code::InvalidTimestamp => {
            "set this host's clock and the broker's, or raise `message.timestamp.after.max.ms` and \
             `message.timestamp.before.max.ms` of the topic"
        }
        Code::InvalidReplicationFactor => {
            "there are fewer brokers now than `replication`: start those that are away, or set a lower `replication` under \
             transport.kafka"
        }
        Code::InvalidTransactionTimeout => {
            "raise `transaction.max.timeout.ms` of the brokers, or lower `transaction.timeout.ms`"
        }
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => "create the topic",
        code if AWAY.contains(&code) => "check that the brokers run and can be reached; it is tried again",
        _ => return None,
    })
}

/// Passes librdkafka's messages to the log, in one place and without alarm: calls report their own failures.
pub(super) struct Quiet {
    /// Of whom it hears.
    brokers: String,
}

impl Quiet {
    pub(super) fn of(settings: &KafkaSettings) -> Self {
        Self { brokers: settings.brokers.clone() }
    }
}

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        heard::note(&self.brokers, &error, reason);
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::warn!(facility, message, "librdkafka");
        }
        _ => tracing::debug!(facility, message, "librdkafka"),
    }
}
