//! A session at PostgreSQL.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row as Answer};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;
use tributary_processor::sink::{Entry, Mark};
use tributary_transport::TopicPartition;

use super::super::database::{Database, Dialect, Session};
use super::super::failure::Failure;
use super::super::fold::Row;
use super::super::marks::Marks;
use super::super::table::{Table, Target};
use super::dialect::Postgres;
use super::endpoint::Endpoint;
use super::failure::failure;
use super::{catalog, marks, rows};

/// How long a statement may take, unless the URL says otherwise.
const STATEMENT: Duration = Duration::from_secs(5 * 60);
/// How long a lock is waited for. Whoever holds one for longer is not us.
const LOCK: Duration = Duration::from_secs(60);
/// A transaction whose client is gone ends after this time, so that its locks do.
const IDLE: Duration = Duration::from_secs(60);

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("place", &self.place).finish_non_exhaustive()
    }
}

#[async_trait]
impl Database for Endpoint {
    type Session = PostgresSession;

    fn place(&self) -> &str {
        &self.place
    }

    async fn connect(&self) -> Result<PostgresSession, Failure> {
        let of = |error: tokio_postgres::Error| failure(&self.place, &error);
        let (client, task) = match &self.tls {
            Some(tls) => {
                let (client, connection) =
                    self.config.connect(MakeRustlsConnect::new((**tls).clone())).await.map_err(of)?;
                (client, tokio::spawn(run(connection)))
            }
            None => {
                let (client, connection) = self.config.connect(NoTls).await.map_err(of)?;
                (client, tokio::spawn(run(connection)))
            }
        };
        let (place, limits_statements) = (self.place.clone(), self.limits_statements);
        Ok(PostgresSession { client, place, limits_statements, _connection: AbortOnDropHandle::new(task) })
    }
}

/// A connection of ours.
pub(in crate::sql) struct PostgresSession {
    client: Client,
    place: String,
    limits_statements: bool,
    _connection: AbortOnDropHandle<()>,
}

impl PostgresSession {
    /// Runs statements without parameters for their effect.
    pub(super) async fn batch(&self, statements: &str) -> Result<(), Failure> {
        self.client.batch_execute(statements).await.map_err(|e| failure(&self.place, &e))
    }

    /// Runs a statement: how many rows it changed.
    pub(super) async fn execute(
        &self,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<u64, Failure> {
        self.client.execute_typed(statement, parameters).await.map_err(|e| failure(&self.place, &e))
    }

    /// Runs a query.
    pub(super) async fn query(
        &self,
        query: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Answer>, Failure> {
        self.client.query_typed(query, parameters).await.map_err(|e| failure(&self.place, &e))
    }

    /// Waits until no other transaction has the lock of `name`; it is ours until the transaction ends.
    async fn lock_name(&self, name: &str) -> Result<(), Failure> {
        let lock = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))";
        self.query(lock, &[(&name, Type::TEXT)]).await.map(drop)
    }
}

#[async_trait]
impl Session for PostgresSession {
    fn dialect(&self) -> &'static dyn Dialect {
        &Postgres
    }

    fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// With settings of ours whatever an administrator set for the role: they last as long as the transaction, so
    /// that a pooler may stand between.
    async fn begin(&mut self) -> Result<(), Failure> {
        let statement = if self.limits_statements {
            String::new()
        } else {
            format!("set local statement_timeout = {};", STATEMENT.as_millis())
        };
        // Without a durable commit the mark could be gone after a crash of the server, and the group of readers beyond it.
        self.batch(&format!(
            "begin isolation level read committed read write; {statement} set local lock_timeout = {}; \
             set local idle_in_transaction_session_timeout = {}; set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; \
             select pg_catalog.set_config('synchronous_commit', 'on', true) \
             where pg_catalog.current_setting('synchronous_commit') = 'off';",
            LOCK.as_millis(),
            IDLE.as_millis()
        ))
        .await
    }

    async fn run(&mut self, statements: &str) -> Result<(), Failure> {
        self.batch(statements).await
    }

    async fn lock(&mut self, marks: &Marks, place: &TopicPartition) -> Result<(), Failure> {
        self.lock_name(&marks.lock(&Postgres, place)).await
    }

    async fn begin_definitions(&mut self, schema: &str) -> Result<(), Failure> {
        self.lock_name(&format!("definitions of {}", Postgres.quote(schema))).await
    }

    /// Definitions are a part of the transaction.
    async fn end_definitions(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    async fn table(&mut self, target: &Target) -> Result<Option<Table>, Failure> {
        catalog::table(self, target).await
    }

    async fn has_marks(&mut self, marks: &Marks) -> Result<bool, Failure> {
        marks::are_there(self, marks).await
    }

    async fn has_complete_marks(&mut self, marks: &Marks) -> Result<bool, Failure> {
        marks::are_complete(self, marks).await
    }

    async fn mark(&mut self, marks: &Marks, place: &TopicPartition) -> Result<Option<(Mark, Option<String>)>, Failure> {
        marks::next(self, marks, place).await
    }

    async fn advance(&mut self, marks: &Marks, entry: &Entry<'_>) -> Result<bool, Failure> {
        marks::advance(self, marks, entry).await
    }

    async fn sample(
        &mut self,
        marks: &Marks,
        seq: u64,
        pause: Duration,
        keep: Duration,
    ) -> Result<Option<i64>, Failure> {
        marks::sample(self, marks, seq, pause, keep).await
    }

    async fn check_at_once(&mut self) -> Result<(), Failure> {
        self.batch("set constraints all immediate").await
    }

    async fn write(
        &mut self,
        target: &Target,
        table: &Table,
        columns: Option<&[String]>,
        rows: &[Row],
    ) -> Result<(), Failure> {
        rows::Statements::new(target, table, columns).run(self, rows).await
    }

    async fn truncate(&mut self, target: &Target, sequence: i64) -> Result<(), Failure> {
        rows::truncate(self, target, sequence).await
    }

    async fn remove(&mut self, target: &Target, old: i64, most: i64) -> Result<u64, Failure> {
        rows::remove(self, target, old, most).await
    }
}

async fn run<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // A failure reaches whoever queries next; here it is only worth a line for the curious.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a session of a sink ended");
    }
}
