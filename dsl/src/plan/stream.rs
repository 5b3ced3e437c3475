//! Streams: which changes flow, through which steps, where to.

mod service;
mod sink;
mod step;

pub use service::{BreakerSettings, RateLimit, ServiceKind, ServicePlan};
pub use sink::{
    ConductorFlavor, ConductorPlan, DeliveryPlan, FileFormat, FilesPlan, IndexSinkPlan, Redelivery, RowPlan, SinkPlan,
    SqlPlan, TopicSink, WebhookFormat, WebhookPlan,
};
pub use step::{BatchSettings, CacheSettings, CallPlan, EnrichPlan, Missing, OnError, Step, StepPlan};

use tributary_event::{Op, TableName};

/// A stream that was checked.
#[derive(Debug, Clone)]
pub struct StreamPlan {
    /// Its name.
    pub name: String,
    /// The tables whose changes flow.
    pub from: Vec<StreamTable>,
    /// The changes that flow.
    pub ops: Vec<Op>,
    /// Where it begins if it never ran.
    pub start: Start,
    /// What is done with each event.
    pub steps: Vec<Step>,
    /// What becomes of an event that a step fails for.
    pub on_error: OnError,
    /// The topics that events go to.
    pub topics: Vec<TopicSink>,
    /// Where else they go, by way of a topic of the stream's own.
    pub deliveries: Vec<DeliveryPlan>,
    /// Whether its events are kept in that topic.
    pub keeps_events: bool,
}

/// A table of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTable {
    /// The source that captures it.
    pub source: String,
    /// The table.
    pub table: TableName,
    /// The topic of its changes.
    pub topic: String,
}

/// Where a stream begins that never ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what comes from now on.
    Now,
    /// With the first record that is still there.
    First,
}
