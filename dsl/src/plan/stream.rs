//! Streams: which changes flow, through which steps, where to.

mod lookup;
mod service;
mod sink;
mod step;

pub use lookup::{CapturedTable, Keep, LookupTable};
pub use service::{BreakerSettings, RateLimit, ServiceKind, ServicePlan};
pub use sink::{
    BucketPlan, ConductorFlavor, ConductorPlan, DeliveryOrder, DeliveryPlan, FileFormat, FilesPlace, FilesPlan,
    IndexSinkPlan, KnownFields, Redelivery, RowPlan, S3Plan, SinkPlan, SqlPlan, TopicSink, WebhookFormat, WebhookPlan,
};
pub use step::{
    BatchSettings, CacheSettings, CallPlan, CollapsePlan, DedupePlan, EnrichPlan, FunctionPlan, LookupPlan, Missing,
    OnError, Step, StepPlan, Wait,
};

use tributary_event::{Op, TableName};

/// A stream that was checked.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// Its name.
    pub name: String,
    /// What flows: changes of tables, or what one other topic has.
    pub from: Vec<StreamInput>,
    /// The changes that flow.
    pub ops: Vec<Op>,
    /// Where it begins if it never ran.
    pub start: Start,
    /// What is done with each event.
    pub steps: Vec<Step>,
    /// What becomes of an event that a step fails for.
    pub on_error: OnError,
    /// Bytes that an event may have, as it comes and as a step leaves it.
    pub max_event: u64,
    /// The topics that events go to.
    pub topics: Vec<TopicSink>,
    /// Where else they go, by way of a topic of the stream's own.
    pub deliveries: Vec<DeliveryPlan>,
    /// Whether its events are kept in that topic.
    pub keeps_events: bool,
}

/// The topic of a stream's own, in which its events are that go anywhere else than to topics.
pub fn own_topic(pipeline: &str, stream: &str) -> String {
    format!("{pipeline}.{stream}.events")
}

/// A topic that a stream reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInput {
    /// The topic.
    pub topic: String,
    /// What is in it.
    pub origin: Origin,
}

impl StreamInput {
    /// What messages call it.
    pub fn shown(&self) -> String {
        match &self.origin {
            Origin::Table { table, .. } => table.to_string(),
            Origin::Stream(name) => format!("the stream {name}"),
            Origin::Topic => format!("the topic {}", self.topic),
        }
    }
}

/// What is in a topic that a stream reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The changes of a table.
    Table {
        /// The source that captures it.
        source: String,
        /// The table.
        table: TableName,
    },
    /// The events of another stream, by its name.
    Stream(String),
    /// JSON objects of whoever writes them.
    Topic,
}

/// Where a stream begins that never ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    Now,
    /// With the first record that is still there.
    First,
}
