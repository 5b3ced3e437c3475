//! The checked plan: everything a process needs to run a pipeline, with no question left open.

mod document;
mod place;
mod question;
mod reach;
mod settings;
mod stream;
mod template;

pub use document::{FieldKind, IndexPlan, LeafType, Paging, RootIds, SelectedField, Selection};
pub use place::Place;
pub use question::{Apart, Form, Question, Representation, SentAs};
pub use reach::{EdgePlan, FanOutPlan, InverseField, Reach};
pub use settings::{
    BinaryHandling, BrakeSettings, BuildSettings, Compression, DecimalHandling, DroppedTypes, Durability,
    EmbeddedSettings, HttpSettings, InvalidText, KafkaSettings, MySqlSettings, Oversized, PostgresSettings,
    RecordSettings, RetentionSettings, RetrySettings, SearchServer, Secret, SourcePlan, SourceSettings, StorePlan,
    TimePrecision, TracesPlan, TransportPlan,
};
pub use stream::{
    BatchSettings, BreakerSettings, BucketPlan, CacheSettings, CallPlan, CapturedTable, CollapsePlan, ConductorFlavor,
    ConductorPlan, DedupePlan, DeliveryOrder, DeliveryPlan, EnrichPlan, FileFormat, FilesPlace, FilesPlan,
    FunctionPlan, IndexSinkPlan, Keep, KnownFields, LookupPlan, LookupTable, Missing, OnError, Origin, RateLimit,
    Redelivery, RowPlan, S3Plan, ServiceKind, ServicePlan, SinkPlan, SqlPlan, Start, Step, StepPlan, StreamInput,
    StreamPlan, TopicSink, Wait, WebhookFormat, WebhookPlan, own_topic,
};
pub use template::{Columns, IdTemplate, IdValue, Look, TemplateError, propose};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tributary_event::TableName;

/// A pipeline that was checked.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Its name: prefix of groups, state and internal topics.
    pub pipeline: String,
    /// The databases.
    pub sources: Vec<SourcePlan>,
    /// Where events travel.
    pub transport: TransportPlan,
    /// The graph that documents are built from.
    pub graph: GraphPlan,
    /// The indexes.
    pub indexes: Vec<IndexPlan>,
    /// The services that steps of streams ask.
    pub services: Vec<ServicePlan>,
    /// The tables that steps of streams look into.
    pub tables: Vec<LookupTable>,
    /// The streams.
    pub streams: Vec<StreamPlan>,
    /// The HTTP listener.
    pub http: HttpSettings,
    /// The folder of everything embedded.
    pub data: PathBuf,
}

/// The graph and how tables map to its vertices.
#[derive(Debug, Clone)]
pub struct GraphPlan {
    /// URL of the GraphQL endpoint.
    pub endpoint: String,
    /// Where that is written.
    pub place: Place,
    /// Headers sent with every request.
    pub headers: BTreeMap<String, Secret>,
    /// The longest one request may take.
    pub timeout: Duration,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// Tables → the vertices that a change of a row touches.
    pub vertices: BTreeMap<TableName, Vec<VertexRule>>,
    /// What to ask the graph when a vertex of a type changes, by type. Types that need no fan-out are absent.
    pub fan_outs: BTreeMap<String, FanOutPlan>,
    /// Whether ids that are made of rows are compared with the graph's before a first build.
    pub probe: bool,
    /// How far the graph may be behind the log.
    pub lag: Duration,
    /// The share of rows, in percent, that the graph may not know, by type. Of others it knows all.
    pub hidden: BTreeMap<String, u8>,
    /// How vertices of the types that tables map to can be looked at.
    pub probes: BTreeMap<String, Probe>,
}

/// How vertices of a type can be looked at, to see whether the graph knows the ids that are made of rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Probe {
    /// Asks for some by their ids; `None`: the schema shows no way.
    pub question: Option<Question>,
    /// Lists some.
    pub listing: Option<Paging>,
    /// Plain values of the type beside its key, which may be what rows have.
    pub others: Vec<String>,
}

/// One vertex that a row's change touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VertexRule {
    /// The GraphQL type.
    pub type_name: String,
    /// How its id is made of the row's columns.
    pub id: IdTemplate,
    /// Where it is written.
    pub place: Place,
}
