//! What a connector is told: which database, which tables, and how events travel to their topics.

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tributary_event::TableName;
use tributary_event::debezium::{self, DecimalMode};
use tributary_transport::{Retention, TopicSpec, dead_letter};

use crate::error::ConnectorError;

/// The name by which logical messages travel, as a table's would.
pub(crate) const MESSAGES: &str = "message";

/// A text that must not be printed, such as a URL with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself. Never print it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// How large a batch of records may grow before it is handed to the transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchLimits {
    /// Bytes of keys and values. Up to three batches are in memory at a time.
    pub bytes: usize,
    /// Records.
    pub records: usize,
    /// How long the first record of a batch may wait for company while the transport is idle.
    pub linger: Duration,
    /// How often the position is made durable while nothing of interest changes.
    pub checkpoint_interval: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        Self {
            bytes: 4 << 20,
            records: 20_000,
            linger: Duration::from_millis(1),
            checkpoint_interval: Duration::from_secs(10),
        }
    }
}

/// The topics of a source's tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    /// The least number of partitions.
    pub partitions: u32,
    /// What the topics keep.
    pub retention: Retention,
}

impl Default for TopicSettings {
    fn default() -> Self {
        Self {
            partitions: 1,
            retention: Retention::Delete { age: Some(Duration::from_secs(7 * 24 * 3600)), bytes: None },
        }
    }
}

/// How dates and times travel (Debezium's `time.precision.mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TimePrecision {
    /// Milliseconds for columns of at most three digits, else microseconds.
    #[default]
    Adaptive,
    /// The same, but times of day always in microseconds.
    AdaptiveTimeMicroseconds,
    /// Milliseconds, whatever the column's precision: finer digits are lost.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds; timestamps outside of 1677–2262 stay text.
    Nanoseconds,
    /// ISO 8601 text, in UTC.
    Iso,
}

/// How `bytea` travels (Debezium's `binary.handling.mode`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BinaryHandling {
    /// Base64 (RFC 4648, section 4).
    #[default]
    Base64,
    /// Base64 with the alphabet for URLs (RFC 4648, section 5).
    Base64Url,
    /// Hexadecimal digits.
    Hex,
}

/// How values travel that have more than one customary form. The defaults are Debezium's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ValueOptions {
    /// Dates and times.
    pub times: TimePrecision,
    /// `bytea`.
    pub binary: BinaryHandling,
    /// `hstore` as an object, not as text.
    pub hstore_as_map: bool,
    /// Intervals as ISO 8601 text, not as microseconds.
    pub intervals_as_text: bool,
}

/// What becomes of bytes that are no text in the encoding of their database, in columns of every type that travels as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InvalidText {
    /// The source stops, and names table, column and row.
    #[default]
    Stop,
    /// U+FFFD stands in their place.
    Replace,
    /// The value is base64 of its bytes; of an array, each element that is no text.
    Base64,
}

/// What becomes of values whose type was dropped before anybody looked at it: made, used, and dropped again while the log waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DroppedTypes {
    /// The source stops, and names table and column.
    #[default]
    Stop,
    /// They are published as the text that the server prints.
    Text,
}

/// When the changes of transactions that are prepared (`PREPARE TRANSACTION`) are published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PreparedTransactions {
    /// When they commit (`COMMIT PREPARED`).
    #[default]
    AtCommit,
    /// When they are prepared, which those that are rolled back later are too. From PostgreSQL 15 on. A slot that was read
    /// so once stays with it.
    AtPrepare,
}

/// A PostgreSQL database to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`.
    pub url: Secret,
    /// The tables.
    pub tables: Vec<TableName>,
    /// Keys of tables that have none of their own, or another one than consumers want: schema, table, columns in order.
    pub keys: Vec<(String, String, Vec<String>)>,
    /// The replication slot. Created if it is absent and there is no checkpoint.
    pub slot: String,
    /// The publication. Created if absent; configured tables that it lacks are added.
    pub publication: String,
    /// The folder, of this source alone, that keeps large transactions while they are in progress. Without one the server
    /// keeps them, and sends them when they have committed.
    pub streaming: Option<PathBuf>,
    /// Whether logical decoding messages are captured, into the topic `<name>.message`.
    pub messages: bool,
    /// When the changes of prepared transactions are published.
    pub prepared: PreparedTransactions,
    /// How often a logical decoding message is written while the slot is read, so that its position moves on though the
    /// database is idle. None are written without it.
    pub heartbeat: Option<Duration>,
    /// How values travel.
    pub values: ValueOptions,
    /// Whether the server may send values in their binary form, which costs it less, while every column that is captured
    /// has a type that we read in that form. Events are the same either way.
    pub binary: bool,
    /// What becomes of bytes that are no text.
    pub invalid_text: InvalidText,
    /// What becomes of values whose type nobody knows any more.
    pub dropped_types: DroppedTypes,
    /// Whether the server leaves texts in the encoding of its database, for us to convert. Events are the same either way,
    /// but where the server cannot convert a text, only we can say which.
    pub unconverted: bool,
}

/// A MySQL or MariaDB server to capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MySqlSettings {
    /// `mysql://user:password@host:port?ssl-mode=…`.
    pub url: Secret,
    /// The tables, whose schemas are databases.
    pub tables: Vec<TableName>,
    /// Keys of tables that have none of their own, or another one than consumers want: database, table, columns in order.
    pub keys: Vec<(String, String, Vec<String>)>,
    /// The name by which one process reads at a time, and by which the server knows the reader.
    pub identity: String,
    /// The folder, of this source alone, that keeps a compressed transaction of more than a packet (16 MB) while it is read. Without one it
    /// is in memory.
    pub transactions: Option<PathBuf>,
    /// How values travel.
    pub values: ValueOptions,
    /// What becomes of bytes that are no text.
    pub invalid_text: InvalidText,
    /// Whether events have the statement that made them, where the server keeps it in its log: of each the first 64 KiB.
    pub query: bool,
}

/// What becomes of an event that is larger than the transport takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OversizedPolicy {
    /// The connector stops at it, and says so.
    #[default]
    Stop,
    /// It is published without its largest values, kept whole in a file, and told by a dead letter.
    SetAside,
    /// It is published without its largest values, and names the file that has the whole.
    Spill,
}

impl OversizedPolicy {
    /// Its name in a pipeline; also that of the folder with its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::SetAside => "set-aside",
            Self::Spill => "spill",
        }
    }
}

/// How events are treated that are larger than the transport takes. But for `policy` it may stay empty where that is to stop.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Oversized {
    /// What becomes of them.
    pub policy: OversizedPolicy,
    /// The folder, of this source alone, that keeps whole events.
    pub folder: PathBuf,
    /// The topic of dead letters.
    pub letters: String,
    /// The topic that a dead letter is replayed into.
    pub replays: String,
}

/// Which database a connector captures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceSettings {
    /// PostgreSQL 14 or later.
    Postgres(PostgresSettings),
    /// MySQL 9 or MariaDB 10.11 or later.
    MySql(MySqlSettings),
}

impl SourceSettings {
    /// The tables.
    pub fn tables(&self) -> &[TableName] {
        match self {
            Self::Postgres(postgres) => &postgres.tables,
            Self::MySql(mysql) => &mysql.tables,
        }
    }

    /// Keys of tables that have none of their own, or another one than consumers want.
    pub fn keys(&self) -> &[(String, String, Vec<String>)] {
        match self {
            Self::Postgres(postgres) => &postgres.keys,
            Self::MySql(mysql) => &mysql.keys,
        }
    }
}

/// Everything a connector needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorSettings {
    /// The source's name: prefix of its topics, name of its checkpoint and its producer.
    pub name: String,
    /// The database.
    pub source: SourceSettings,
    /// How exact decimals travel.
    pub decimals: DecimalMode,
    /// What records of changes say, as CloudEvents do, of where they come from; none: they have no such headers.
    pub cloud_events: Option<String>,
    /// Batching.
    pub batch: BatchLimits,
    /// The topics of the tables.
    pub topics: TopicSettings,
    /// What becomes of events that are larger than the transport takes.
    pub oversized: Oversized,
}

impl ConnectorSettings {
    /// A PostgreSQL source with the defaults: slot and publication are called `tributary_<name>`.
    pub fn postgres<T: Into<TableName>>(name: &str, url: Secret, tables: impl IntoIterator<Item = T>) -> Self {
        let own: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
        Self {
            name: name.to_owned(),
            source: SourceSettings::Postgres(PostgresSettings {
                url,
                tables: tables.into_iter().map(Into::into).collect(),
                keys: Vec::new(),
                slot: format!("tributary_{own}"),
                publication: format!("tributary_{own}"),
                streaming: None,
                messages: false,
                prepared: PreparedTransactions::default(),
                heartbeat: None,
                values: ValueOptions::default(),
                invalid_text: InvalidText::default(),
                dropped_types: DroppedTypes::default(),
                binary: true,
                unconverted: false,
            }),
            decimals: DecimalMode::default(),
            cloud_events: None,
            batch: BatchLimits::default(),
            topics: TopicSettings::default(),
            oversized: Oversized::default(),
        }
    }

    /// A MySQL or MariaDB source with the defaults: its identity is `tributary_<name>`.
    pub fn mysql<T: Into<TableName>>(name: &str, url: Secret, tables: impl IntoIterator<Item = T>) -> Self {
        let source = SourceSettings::MySql(MySqlSettings {
            url,
            tables: tables.into_iter().map(Into::into).collect(),
            keys: Vec::new(),
            identity: format!("tributary_{name}"),
            transactions: None,
            values: ValueOptions { times: TimePrecision::AdaptiveTimeMicroseconds, ..ValueOptions::default() },
            invalid_text: InvalidText::default(),
            query: false,
        });
        let url = Secret::new(String::new());
        Self { source, ..Self::postgres(name, url, std::iter::empty::<TableName>()) }
    }

    /// The topic of a table: `<name>.<schema>.<table>`, where characters that topic names may not have become `_`
    /// (as Debezium does).
    pub fn topic(&self, schema: &str, table: &str) -> String {
        debezium::topic(&self.name, schema, table)
    }

    /// The topics of the configured tables, of logical messages if they are captured, and of dead letters if there can be any.
    ///
    /// # Errors
    /// Two tables whose names become the same topic.
    pub fn topic_specs(&self) -> Result<Vec<TopicSpec>, ConnectorError> {
        let (mut specs, mut taken): (Vec<TopicSpec>, HashSet<String>) = Default::default();
        let has_messages = matches!(&self.source, SourceSettings::Postgres(postgres) if postgres.messages);
        let messages = has_messages.then(|| (String::new(), MESSAGES.to_owned()));
        let tables = self.source.tables().iter().map(|table| (table.schema.to_string(), table.name.to_string()));
        for (schema, table) in tables.chain(messages) {
            let name = self.topic(&schema, &table);
            if !taken.insert(name.clone()) {
                return Err(ConnectorError::settings(
                    format!("source {}: tables", self.name),
                    format!("{} and another table would share the topic {name}", TableName::new(schema, table)),
                    "remove the duplicate, or capture one of them with a source of its own",
                ));
            }
            specs.push(TopicSpec {
                name,
                partitions: self.topics.partitions,
                retention: self.topics.retention.clone(),
            });
        }
        if self.oversized.policy != OversizedPolicy::Stop {
            specs.push(dead_letter::spec(&self.oversized.letters));
        }
        Ok(specs)
    }
}

impl PostgresSettings {
    /// Schema and name of each configured table.
    pub fn table_names(&self) -> Vec<(String, String)> {
        self.tables.iter().map(|t| (t.schema.to_string(), t.name.to_string())).collect()
    }

    /// The key that is declared for a table; empty if there is none.
    pub fn key_of(&self, schema: &str, table: &str) -> &[String] {
        self.keys.iter().find(|(s, t, _)| s == schema && t == table).map_or(&[], |(_, _, key)| key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let settings = ConnectorSettings::postgres("Studio-1", "postgres://u:hunter2@h/db".into(), ["movie"]);
        assert!(!format!("{settings:?}").contains("hunter2"));
        let SourceSettings::Postgres(postgres) = &settings.source else { panic!("PostgreSQL") };
        assert_eq!(postgres.slot, "tributary_studio_1");
    }

    #[test]
    fn topic_names_are_legal_and_do_not_collide_silently() {
        let settings = ConnectorSettings::postgres("s", "postgres://h/db".into(), ["public.a b", "public.a_b"]);
        assert_eq!(settings.topic("public", "a b"), "s.public.a_b");
        assert!(settings.topic_specs().is_err());
    }
}
