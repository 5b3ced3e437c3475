//! Kafka's protocol as the producer speaks it, and to set a property of a topic: nine requests, each in one version that
//! brokers from 2.5 to 4 know.
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

pub(super) use self::cluster::{Ask, Cluster, Coordinator};
pub(super) use self::fault::Fault;
pub(super) use self::records::{Partition, partition_of};
pub(super) use self::request::ProducerId;
