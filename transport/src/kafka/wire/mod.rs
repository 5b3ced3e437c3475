//! Kafka's protocol as our own producer speaks it, to set a property of a topic, and to ask for topics' identities: ten requests, each in the newest version
//! that the broker knows too (`version`).
//!
//! The source of every layout is the Apache Kafka protocol guide (<https://kafka.apache.org/protocol>).

mod cluster;
mod codec;
mod connection;
mod fault;
mod records;
mod request;
mod scram;
mod security;
mod version;

pub(super) use self::cluster::{Ask, Cluster, Coordinator};
pub(super) use self::fault::Fault;
pub(super) use self::records::{Partition, partition_of};
pub(super) use self::request::ProducerId;
pub(super) use self::security::Refusal;
