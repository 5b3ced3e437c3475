//! Topics: the one durable thing between the stages of a pipeline.
//!
//! [`contract`] says what a topic promises; [`embedded`] and [`kafka`] keep the promise; [`dead_letter`] is the
//! topic of events that were set aside. Only this room knows rdkafka and redb.

pub mod contract;
pub mod embedded;
mod metric;
pub mod partition;

pub use contract::{
    Batch, Checkpoint, Consumer, ConsumerSettings, Delivery, Polled, Producer, RecordRef, Retention, TopicPartition,
    TopicSpec, Transport, TransportError, Watermarks,
};
pub use embedded::{Embedded, EmbeddedSettings};
