//! Where the events of a stream go.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tributary_expression::Program;

use super::OnError;
use crate::plan::{LeafType, Place, Secret, StorePlan};

/// A topic that events go to.
#[derive(Debug, Clone)]
pub struct TopicSink {
    /// Its name.
    pub name: String,
    /// What a record's key is; `None`: the key that the event came with.
    pub key: Option<Program>,
    /// Whether it keeps the last record of each key, and none of a deleted row.
    pub compact: bool,
    /// Whether records say in headers who the event is, as CloudEvents do.
    pub cloud_events: bool,
    /// Which events go there; none: all.
    pub when: Option<Program>,
}

/// A sink outside of the transport.
#[derive(Debug, Clone)]
pub struct DeliveryPlan {
    /// What messages, metrics and its group of readers call it: its kind, or the name it was given.
    pub name: String,
    /// Which events go there; none: all.
    pub when: Option<Program>,
    /// What it is.
    pub sink: SinkPlan,
    /// What becomes of an event that it will never take.
    pub on_error: OnError,
    /// How long an event is tried that it does not take now.
    pub redelivery: Redelivery,
    /// Which events wait for which, where the sink is told of them.
    pub order: DeliveryOrder,
    /// Where it is written.
    pub place: Place,
}

/// Which events of a sink that is told wait until others have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryOrder {
    /// Those of a key for one another.
    Key,
    /// Those of a partition for one another.
    Partition,
    /// None.
    None,
}

/// How long an event is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redelivery {
    /// So long; none: for ever.
    pub within: Option<Duration>,
    /// The longest pause between two tries.
    pub max_pause: Duration,
}

/// The kinds of sinks.
#[derive(Debug, Clone)]
pub enum SinkPlan {
    /// HTTP requests.
    Webhook(WebhookPlan),
    /// A table of a database.
    Sql(SqlPlan),
    /// Files in a folder or a bucket.
    Files(FilesPlan),
    /// A search index.
    Index(IndexSinkPlan),
    /// Workflows of a Conductor server.
    Conductor(ConductorPlan),
}

/// HTTP requests, signed as <https://www.standardwebhooks.com> says.
#[derive(Debug, Clone)]
pub struct WebhookPlan {
    /// Where they go.
    pub url: Secret,
    /// What signs them: the newest first. All of them sign, so that a receiver may know any.
    pub secrets: Vec<Secret>,
    /// Headers of every request.
    pub headers: BTreeMap<String, Secret>,
    /// How an event is wrapped.
    pub format: WebhookFormat,
    /// The longest one request may take.
    pub timeout: Duration,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// Events of one request at most; above 1 the body is a list.
    pub batch: usize,
    /// Whether it may lead into private networks: loopback, link-local and private addresses.
    pub private: bool,
}

/// How an event is wrapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebhookFormat {
    /// The body is the event.
    Plain,
    /// The body is the event, and `ce-` headers tell of it (CloudEvents 1.0, binary mode).
    CloudEventsBinary,
    /// The body is an envelope with the event inside (CloudEvents 1.0, structured mode).
    CloudEventsStructured,
}

/// Workflows of a Conductor server, one for each event.
#[derive(Debug, Clone)]
pub struct ConductorPlan {
    /// Where its API begins.
    pub url: Secret,
    /// The workflow's name.
    pub workflow: String,
    /// Its version; none: the latest.
    pub version: Option<u32>,
    /// What it is started with, an object; none: the event.
    pub input: Option<Program>,
    /// The fields that the input can have.
    pub input_fields: KnownFields,
    /// Which server it is.
    pub flavor: ConductorFlavor,
    /// Headers of every request.
    pub headers: BTreeMap<String, Secret>,
    /// After so long a workflow that was started is found.
    pub settle: Duration,
    /// The longest one request may take.
    pub timeout: Duration,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// Whether it may lead into private networks.
    pub private: bool,
    /// Whether nothing is started, and what would be is told.
    pub dry_run: bool,
}

/// Which server runs the workflows: they know repetitions by different means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConductorFlavor {
    /// Orkes: keeps the key of each start as long as its workflow.
    Orkes,
    /// The open source server: ignores such keys, and can be asked what was started for an event.
    Oss,
}

/// Which row an event is about, for sinks that keep rows.
#[derive(Debug, Clone)]
pub struct RowPlan {
    /// The row; none: `.after` while no step has changed the event, else the event.
    pub row: Option<Program>,
    /// Whether the event is still as it was captured, so that its rows are `.before` and `.after`.
    pub is_envelope: bool,
    /// The fields of the row that are its key.
    pub key: Vec<String>,
    /// Those that it can have.
    pub fields: KnownFields,
}

/// The fields that an object can have, as far as they are known. Columns that are added in the database may make others of them without a word
/// of the pipeline, so they are no part of what it says: all print alike, which is what plans are told apart by.
#[derive(Clone, Default)]
pub struct KnownFields(Option<Vec<String>>);

impl KnownFields {
    /// These; none: it may have any.
    pub fn new(fields: Option<Vec<String>>) -> Self {
        Self(fields)
    }

    /// The fields; none: it may have any.
    pub fn get(&self) -> Option<&[String]> {
        self.0.as_deref()
    }
}

impl fmt::Debug for KnownFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KnownFields")
    }
}

/// A table of a database, whose kind the URL tells.
#[derive(Debug, Clone)]
pub struct SqlPlan {
    /// Connection URL; holds the password.
    pub url: Secret,
    /// Its schema and name.
    pub table: tributary_event::TableName,
    /// Which row an event is about.
    pub row: RowPlan,
    /// Whether the table is made, and gets columns that it lacks.
    pub create: bool,
    /// How long it is known that a row was deleted.
    pub keep_deleted: Duration,
}

/// A search index of rows.
#[derive(Debug, Clone)]
pub struct IndexSinkPlan {
    /// Its name: the alias that readers use.
    pub name: String,
    /// Which row an event is about; its key is the document's id.
    pub row: RowPlan,
    /// The fields of its documents, and how they are indexed.
    pub fields: Vec<(String, LeafType)>,
    /// Where documents are kept.
    pub store: StorePlan,
}

/// Files in a folder, or in a bucket.
#[derive(Debug, Clone)]
pub struct FilesPlan {
    /// Where they are.
    pub place: FilesPlace,
    /// What is in a file.
    pub format: FileFormat,
    /// The most bytes of a file, about.
    pub size: u64,
    /// How long events wait for others at most.
    pub every: Duration,
}

/// Where files are.
#[derive(Debug, Clone)]
pub enum FilesPlace {
    /// A folder of a file system.
    Folder(PathBuf),
    /// A bucket of an object store.
    Bucket(BucketPlan),
}

impl FilesPlace {
    /// Whether files of both are among one another.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Folder(one), Self::Folder(two)) => one == two,
            (Self::Bucket(one), Self::Bucket(two)) => one.url == two.url && one.s3.endpoint == two.s3.endpoint,
            _ => false,
        }
    }
}

impl fmt::Display for FilesPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(bucket) => f.write_str(&bucket.url),
        }
    }
}

/// A bucket of an object store, and where in it.
#[derive(Debug, Clone)]
pub struct BucketPlan {
    /// `s3://`, `gs://` or `az://`, the bucket (a container of Azure), and what the names of all files begin with; without a slash at its end.
    pub url: String,
    /// What is said of S3 beside the environment.
    pub s3: S3Plan,
}

/// How an S3 is reached. What is not said is what the environment says (`AWS_REGION`, …), or the machine's role.
#[derive(Debug, Clone, Default)]
pub struct S3Plan {
    /// The URL of the server; none: that of AWS.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The id of the access key, and the secret of it.
    pub access_key: Option<(Secret, Secret)>,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// A line of JSON for each event.
    JsonLines,
    /// Parquet, a column for each field.
    Parquet,
}
