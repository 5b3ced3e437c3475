//! The connections to PostgreSQL and the one way in which this service asks it: a prepared statement over a list of
//! ids.

use crate::faults::Faults;
use crate::snapshot::Snapshots;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::{NoTls, Row, types::ToSql};

/// How long a request waits for a connection before it answers an error.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The database could not answer. Cheap to clone, because one failed batch is the answer to many fields.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the movie database could not answer: {0}")]
pub(crate) struct DatabaseError(Arc<str>);

impl From<tokio_postgres::Error> for DatabaseError {
    fn from(error: tokio_postgres::Error) -> Self {
        // The driver's own text is often no more than "db error"; the server's words are in the source.
        Self(match error.source() {
            Some(source) => format!("{error}: {source}").into(),
            None => error.to_string().into(),
        })
    }
}

impl From<deadpool_postgres::PoolError> for DatabaseError {
    fn from(error: deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Backend(error) => error.into(),
            error => Self(error.to_string().into()),
        }
    }
}

/// A pool of connections, opened when first needed.
#[derive(Clone)]
pub(crate) struct Database {
    pool: Pool,
    faults: Faults,
    snapshots: Arc<Snapshots>,
}

impl Database {
    pub(crate) fn new(database_url: &str, pool_size: usize, faults: Faults) -> anyhow::Result<Self> {
        let mut config: tokio_postgres::Config = database_url.parse()?;
        config.application_name("movie-graph").connect_timeout(CONNECTION_TIMEOUT);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let snapshots = Arc::new(Snapshots::new(config.clone()));
        let pool = Pool::builder(Manager::from_config(config, NoTls, recycling))
            .max_size(pool_size.max(1))
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(CONNECTION_TIMEOUT))
            .create_timeout(Some(CONNECTION_TIMEOUT))
            .build()?;
        Ok(Self { pool, faults, snapshots })
    }

    /// Runs a statement that is prepared once per connection.
    pub(crate) async fn query(
        &self,
        sql: &'static str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, DatabaseError> {
        let age = self.faults.age();
        if !age.is_zero() {
            let client = self.snapshots.not_older_than(age).await?;
            return Ok(client.query(sql, parameters).await?);
        }
        let client = self.pool.get().await?;
        let statement = client.prepare_cached(sql).await?;
        Ok(client.query(&statement, parameters).await?)
    }

    /// How far a standby has come in its primary's log; none of a primary. What is read from now on is not older.
    pub(crate) async fn position(&self) -> Option<String> {
        let rows = self.query("SELECT pg_last_wal_replay_lsn()::text WHERE pg_is_in_recovery()", &[]).await;
        rows.ok()?.first()?.get(0)
    }

    /// Closes the connections; a query after that answers an error.
    pub(crate) fn close(&self) {
        self.pool.close();
    }
}
