//! Fetches parts before they are needed, so that tests start at once and do not wait for each other.

use crate::graphql::{self, GraphqlProduct};
use crate::mysql::{self, MySqlProduct};
use crate::wheels::DuckDb;
use crate::{clock, elasticsearch, kafka, opensearch, postgres, s3, search_node};
use anyhow::{Context as _, Result};

/// A part of the stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// PostgreSQL of a major version, for example `18`.
    Postgres(String),
    /// MySQL or MariaDB of a version, for example `11.8`.
    MySql(MySqlProduct, String),
    /// A Kafka broker of a version, for example `4.1`.
    Kafka(String),
    /// An Elasticsearch node of a major version, for example `9`.
    Elasticsearch(String),
    /// An OpenSearch node of a major version, for example `3`.
    OpenSearch(String),
    /// A GraphQL server that others wrote.
    Graphql(GraphqlProduct),
    /// An object store that speaks S3.
    S3,
    /// DuckDB, which reads files of warehouses.
    DuckDb,
    /// A clock that a test sets.
    Clock,
}

/// Fetches and prepares every part that is not in the cache yet. Any number of processes may do so at the same time.
///
/// # Errors
/// At the first part that cannot be had, with its name, the cause and what would help.
pub async fn prefetch(parts: &[Part]) -> Result<()> {
    for part in parts {
        let fetched = match part {
            Part::Postgres(version) => Box::pin(postgres::fetch(version)).await.map(drop),
            Part::MySql(product, version) => Box::pin(mysql::fetch(*product, version)).await.map(drop),
            Part::Kafka(version) => Box::pin(kafka::install(version)).await.map(drop),
            Part::Elasticsearch(version) => Box::pin(elasticsearch::install(version)).await,
            Part::OpenSearch(version) => Box::pin(search_node::install(opensearch::kind(version)?)).await.map(drop),
            Part::Graphql(product) => Box::pin(graphql::install(*product)).await.map(drop),
            Part::S3 => Box::pin(s3::install()).await.map(drop),
            Part::DuckDb => Box::pin(DuckDb::fetch()).await.map(drop),
            Part::Clock => Box::pin(clock::fetch()).await.map(drop),
        };
        fetched.with_context(|| format!("preparing {part}"))?;
    }
    Ok(())
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Postgres(version) => write!(f, "PostgreSQL {version}"),
            Part::MySql(product, version) => write!(f, "{product} {version}"),
            Part::Kafka(version) => write!(f, "Kafka {version}"),
            Part::Elasticsearch(version) => write!(f, "Elasticsearch {version}"),
            Part::OpenSearch(version) => write!(f, "OpenSearch {version}"),
            Part::Graphql(product) => product.fmt(f),
            Part::S3 => f.write_str("S3Proxy"),
            Part::DuckDb => f.write_str("DuckDB"),
            Part::Clock => f.write_str("libfaketime"),
        }
    }
}
