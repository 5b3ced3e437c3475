//! Topics: the one durable thing between the stages of a pipeline.
//!
//! [`contract`] says what a topic promises; [`embedded`] and [`kafka`] keep the promise; [`dead_letter`] is the
//! topic of events that were set aside. Only this room knows rdkafka and redb.

pub mod contract;
pub mod dead_letter;
pub mod embedded;
pub mod headers;
pub mod kafka;
mod metric;
pub mod numbers;
pub mod order;
pub mod partition;
mod probe;
pub mod tls;

pub use contract::{
    Assignment, Batch, Checkpoint, Consumer, ConsumerSettings, Delivery, Loss, LossCause, MAX_RECORD, Measuring,
    Polled, Producer, Purpose, RecordRef, Retention, TopicId, TopicPartition, TopicSpec, Transport, TransportError,
    Watermarks, as_setting, record_limit,
};
pub use dead_letter::{DeadLetter, DeadLetters, Replays, WayBack};
pub use embedded::{Embedded, EmbeddedSettings};
pub use headers::{CloudEvent, Headers, HeadersRef};
pub use kafka::{Appending, Compression, Durability, Kafka, KafkaSettings};
pub use numbers::Sequence;
