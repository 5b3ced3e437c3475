//! Settings of the parts of a plan: plain data, checked, with every default filled in.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tributary_event::TableName;

use super::Place;

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one call that needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// A database to capture.
#[derive(Debug, Clone)]
pub struct SourcePlan {
    /// Its name: the prefix of its topics.
    pub name: String,
    /// What it is.
    pub settings: SourceSettings,
    /// Where it is written.
    pub place: Place,
    /// Where its tables are.
    pub places: Vec<(TableName, Place)>,
}

impl SourcePlan {
    /// What it captures.
    pub fn tables(&self) -> &[TableName] {
        self.settings.tables()
    }

    /// Where a table of it is written, or the source itself.
    pub fn place_of(&self, table: &TableName) -> &Place {
        self.places.iter().find(|(name, _)| name == table).map_or(&self.place, |(_, place)| place)
    }
}

/// The kinds of sources.
#[derive(Debug, Clone)]
pub enum SourceSettings {
    /// PostgreSQL, by logical decoding.
    Postgres(PostgresSettings),
    /// MySQL or MariaDB, by the binary log.
    MySql(MySqlSettings),
}

impl SourceSettings {
    /// What it captures.
    pub fn tables(&self) -> &[TableName] {
        match self {
            Self::Postgres(postgres) => &postgres.tables,
            Self::MySql(mysql) => &mysql.tables,
        }
    }

    /// Columns that make the key of a table, in place of its primary key.
    pub fn keys(&self) -> &BTreeMap<TableName, Vec<String>> {
        match self {
            Self::Postgres(postgres) => &postgres.keys,
            Self::MySql(mysql) => &mysql.keys,
        }
    }

    /// How exact decimals travel.
    pub fn decimals(&self) -> DecimalHandling {
        match self {
            Self::Postgres(postgres) => postgres.decimals,
            Self::MySql(mysql) => mysql.decimals,
        }
    }

    /// What keeps the log, or who reads it, by its name at the server.
    pub fn reader(&self) -> &str {
        match self {
            Self::Postgres(postgres) => &postgres.slot,
            Self::MySql(mysql) => &mysql.identity,
        }
    }
}

/// A MySQL or MariaDB source.
#[derive(Debug, Clone)]
pub struct MySqlSettings {
    /// Connection URL; holds the password.
    pub url: Secret,
    /// What to capture; schemas are databases.
    pub tables: Vec<TableName>,
    /// Columns that make the key of a table, in place of its primary key.
    pub keys: BTreeMap<TableName, Vec<String>>,
    /// The name by which one process reads at a time. Default: `tributary_<pipeline>_<source>`.
    pub identity: String,
    /// How exact decimals travel.
    pub decimals: DecimalHandling,
    /// Whether records of changes have headers of CloudEvents.
    pub cloud_events: bool,
    /// How dates and times travel.
    pub times: TimePrecision,
    /// How bytes travel.
    pub binary: BinaryHandling,
    /// What becomes of bytes that are no text.
    pub invalid_text: InvalidText,
    /// Whether events have the statement that made them.
    pub query: bool,
}

/// A PostgreSQL source.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Connection URL; holds the password.
    pub url: Secret,
    /// What to capture.
    pub tables: Vec<TableName>,
    /// Columns that make the key of a table, in place of its primary key.
    pub keys: BTreeMap<TableName, Vec<String>>,
    /// The replication slot. Default: `tributary_<pipeline>_<source>`.
    pub slot: String,
    /// The publication. Default: the same.
    pub publication: String,
    /// How exact decimals travel.
    pub decimals: DecimalHandling,
    /// Whether the server streams large transactions while they are in progress; they are kept in the data folder then.
    pub streaming: bool,
    /// Whether logical decoding messages are captured.
    pub messages: bool,
    /// Whether records of changes have headers of CloudEvents.
    pub cloud_events: bool,
    /// Whether prepared transactions are published when they are prepared, not when they commit.
    pub at_prepare: bool,
    /// How often a heartbeat is written into the log, so that the slot of an idle database moves on; never without it.
    pub heartbeat: Option<Duration>,
    /// Whether the publication may leave out rows of tables that documents show.
    pub row_filters: bool,
    /// How dates and times travel.
    pub times: TimePrecision,
    /// How `bytea` travels.
    pub binary: BinaryHandling,
    /// Whether `hstore` travels as an object.
    pub hstore_as_map: bool,
    /// Whether intervals travel as text.
    pub intervals_as_text: bool,
    /// What becomes of bytes that are no text.
    pub invalid_text: InvalidText,
    /// What becomes of values whose type was dropped before it was looked at.
    pub dropped_types: DroppedTypes,
}

/// What becomes of a text column's bytes that are no text in the server's encoding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InvalidText {
    /// The source stops, and names the row.
    #[default]
    Stop,
    /// U+FFFD stands in their place.
    Replace,
    /// The value travels as base64.
    Base64,
}

/// What becomes of values whose type was dropped before anybody looked at it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DroppedTypes {
    /// The source stops, and names table and column.
    #[default]
    Stop,
    /// They travel as text.
    Text,
}

/// How dates and times travel in topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimePrecision {
    /// As fine as the column.
    #[default]
    Adaptive,
    /// The same, but times of day in microseconds.
    AdaptiveTimeMicroseconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// ISO 8601 text.
    Iso,
}

/// How `bytea` travels in topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BinaryHandling {
    /// Base64.
    #[default]
    Base64,
    /// Base64 with the alphabet for URLs.
    Base64Url,
    /// Hexadecimal digits.
    Hex,
}

/// How exact decimals travel in topics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DecimalHandling {
    /// Base64 of the unscaled value.
    #[default]
    Precise,
    /// The digits.
    String,
    /// A JSON number.
    Double,
}

/// Where events travel.
#[derive(Debug, Clone)]
pub enum TransportPlan {
    /// The embedded log, in the data folder.
    Embedded(EmbeddedSettings),
    /// Kafka.
    Kafka(KafkaSettings),
}

impl TransportPlan {
    /// Partitions of every topic.
    pub fn partitions(&self) -> u32 {
        match self {
            Self::Embedded(settings) => settings.partitions,
            Self::Kafka(settings) => settings.partitions,
        }
    }

    /// How large events may be.
    pub fn records(&self) -> RecordSettings {
        match self {
            Self::Embedded(settings) => settings.records,
            Self::Kafka(settings) => settings.records,
        }
    }

    /// What tables' topics keep.
    pub fn retention(&self) -> &RetentionSettings {
        match self {
            Self::Embedded(settings) => &settings.retention,
            Self::Kafka(settings) => &settings.retention,
        }
    }
}

/// How large an event may be, and what becomes of a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSettings {
    /// Bytes of an event's key and value at most.
    pub max: usize,
    /// What becomes of a larger event.
    pub oversized: Oversized,
}

/// What becomes of an event that is larger than may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Oversized {
    /// The pipeline stops at it.
    #[default]
    Stop,
    /// It is published without its largest values, and the whole is set aside with a dead letter.
    SetAside,
    /// It is published without its largest values, and names the file that has the whole.
    Spill,
}

/// The embedded log.
#[derive(Debug, Clone)]
pub struct EmbeddedSettings {
    /// Partitions of every topic.
    pub partitions: u32,
    /// How large events may be.
    pub records: RecordSettings,
    /// What tables' topics keep.
    pub retention: RetentionSettings,
}

/// What tables' topics keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionSettings {
    /// At least this long; `None` is without limit.
    pub age: Option<Duration>,
    /// At least this many bytes a partition; `None` is without limit.
    pub bytes: Option<u64>,
}

/// A Kafka cluster.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// `host:port`, comma separated.
    pub brokers: String,
    /// Whether topics' safety is checked at start.
    pub durability: Durability,
    /// Partitions of every topic.
    pub partitions: u32,
    /// Replicas of every topic.
    pub replication: u32,
    /// `min.insync.replicas` of every topic.
    pub min_insync: u32,
    /// How large events may be.
    pub records: RecordSettings,
    /// Compression of batches.
    pub compression: Compression,
    /// What tables' topics keep.
    pub retention: RetentionSettings,
    /// Further properties of the client (`security.protocol`, `sasl.password`, …).
    pub properties: BTreeMap<String, Secret>,
}

/// Whether topics' safety is checked at start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// Replication and `min.insync.replicas` of every topic must be as configured.
    #[default]
    Strict,
    /// Topics are taken as they are.
    Relaxed,
}

/// Compression of batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Fast.
    #[default]
    Lz4,
    /// Small.
    Zstd,
}

/// Where documents are kept.
#[derive(Debug, Clone)]
pub enum StorePlan {
    /// The embedded index, in the data folder.
    Embedded,
    /// Elasticsearch 8 or 9.
    Elasticsearch(SearchServer),
    /// OpenSearch 2 or 3.
    OpenSearch(SearchServer),
}

/// A search server.
#[derive(Debug, Clone)]
pub struct SearchServer {
    /// Its URL.
    pub url: String,
    /// User name and password for basic authentication.
    pub basic: Option<(String, Secret)>,
    /// An API key (Elasticsearch).
    pub api_key: Option<Secret>,
    /// PEM file of certificate authorities to trust, instead of the system's.
    pub ca_file: Option<String>,
    /// Primary shards of a new index.
    pub shards: u32,
    /// Replicas of a new index.
    pub replicas: u32,
}

/// How documents are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSettings {
    /// Documents fetched in one request at most.
    pub batch: usize,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// A build older than this is abandoned and asked for again.
    pub deadline: Duration,
    /// How long changes are gathered before a build starts, so that a burst builds a document once.
    pub debounce: Duration,
}

/// What happens when a build fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySettings {
    /// Tries of one document before it becomes a dead letter. (A server that is away is waited for, without limit.)
    pub attempts: u32,
    /// The first pause; doubled each time, with jitter.
    pub initial: Duration,
    /// The longest pause.
    pub max: Duration,
}

/// How many documents may be deleted within a minute, as their roots are missing: the larger of the two numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrakeSettings {
    /// Percent of the documents of the index. With 100 any number may be deleted.
    pub percent: u64,
    /// However few documents the index has.
    pub least: u64,
}

/// The HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Where it listens. Loopback by default.
    pub listen: SocketAddr,
}

/// Where traces are told.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesPlan {
    /// A collector that takes OTLP over HTTP; `/v1/traces` is put behind it.
    pub url: String,
    /// The share of changes whose way is recorded, from 0 to 1.
    pub ratio: f64,
    /// Headers of every request to it.
    pub headers: std::collections::BTreeMap<String, Secret>,
}
