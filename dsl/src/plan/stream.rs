//! Streams: which changes flow, through which steps, where to.

use tributary_event::{Op, TableName};
use tributary_expression::Program;

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
    pub steps: Vec<StepPlan>,
    /// Where events go.
    pub sinks: Vec<TopicSink>,
}

/// A table of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamTable {
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

/// One step.
#[derive(Debug, Clone)]
pub enum StepPlan {
    /// Events of which it is not true end here.
    Filter(Program),
    /// What it leaves flows on.
    Transform(Program),
}

impl StepPlan {
    /// Its program.
    pub fn program(&self) -> &Program {
        match self {
            Self::Filter(program) | Self::Transform(program) => program,
        }
    }

    /// What messages call it: `filter-1`. `place`: from 1.
    pub fn name(&self, place: usize) -> String {
        match self {
            Self::Filter(_) => format!("filter-{place}"),
            Self::Transform(_) => format!("transform-{place}"),
        }
    }
}

/// A topic that events go to.
#[derive(Debug, Clone)]
pub struct TopicSink {
    /// Its name.
    pub name: String,
    /// What a record's key is; `None`: the key that the event came with.
    pub key: Option<Program>,
    /// Whether it keeps the last record of each key, and none of a deleted row.
    pub compact: bool,
}
