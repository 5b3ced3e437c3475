//! Sessions at the database: a connection for each entry that is being written, kept for the next one.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;
use tributary_processor::OutsideError;

use super::endpoint::Endpoint;
use super::failure::Failure;

/// Sessions at a time. Entries of more partitions wait for their turn.
const MOST: usize = 8;
/// How long a statement may take, unless the URL says otherwise.
const STATEMENT: Duration = Duration::from_secs(5 * 60);
/// How long a lock is waited for. Whoever holds one for longer is not us.
const LOCK: Duration = Duration::from_secs(60);
/// A transaction whose client is gone ends after this time, so that its locks do.
const IDLE: Duration = Duration::from_secs(60);

/// The sessions of a sink.
pub(super) struct Sessions {
    endpoint: Endpoint,
    idle: Mutex<Vec<Connected>>,
    permits: Semaphore,
}

struct Connected {
    client: Client,
    _connection: AbortOnDropHandle<()>,
}

/// A session, whose connection is closed when it is dropped and not given back: nobody knows in what state it is.
pub(super) struct Session<'a> {
    connected: Connected,
    sessions: &'a Sessions,
    _permit: SemaphorePermit<'a>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("place", &self.endpoint.place).finish_non_exhaustive()
    }
}

impl Sessions {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, idle: Mutex::default(), permits: Semaphore::new(MOST) }
    }

    /// Where the sessions lead.
    pub(super) fn place(&self) -> &str {
        &self.endpoint.place
    }

    /// A session: an idle one, or a new one.
    pub(super) async fn get(&self) -> Result<Session<'_>, OutsideError> {
        let closed = |_| OutsideError::transient(format!("{}: the sink was closed", self.place()));
        let permit = self.permits.acquire().await.map_err(closed)?;
        let idle = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|connected| !connected.client.is_closed());
            idle.pop()
        };
        let connected = match idle {
            Some(connected) => connected,
            None => self.connect().await.map_err(|e| Failure::new(self.place(), &e).outside(self.place()))?,
        };
        Ok(Session { connected, sessions: self, _permit: permit })
    }

    async fn connect(&self) -> Result<Connected, tokio_postgres::Error> {
        let config = &self.endpoint.config;
        let (client, task) = match &self.endpoint.tls {
            Some(tls) => {
                let (client, connection) = config.connect(MakeRustlsConnect::new((**tls).clone())).await?;
                (client, tokio::spawn(run(connection)))
            }
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                (client, tokio::spawn(run(connection)))
            }
        };
        Ok(Connected { client, _connection: AbortOnDropHandle::new(task) })
    }
}

impl Session<'_> {
    /// Begins a transaction, with settings of ours whatever an administrator set for the role: they last as long as the transaction, so
    /// that a pooler may stand between.
    pub(super) async fn begin(&self) -> Result<(), Failure> {
        let statement = if self.sessions.endpoint.limits_statements {
            String::new()
        } else {
            format!("set local statement_timeout = {};", STATEMENT.as_millis())
        };
        // Without a durable commit the mark could be gone after a crash of the server, and the group of readers beyond it.
        self.run(&format!(
            "begin isolation level read committed read write; {statement} set local lock_timeout = {}; \
             set local idle_in_transaction_session_timeout = {}; set local timezone = 'UTC'; set local datestyle = 'ISO, YMD'; \
             select pg_catalog.set_config('synchronous_commit', 'on', true) \
             where pg_catalog.current_setting('synchronous_commit') = 'off';",
            LOCK.as_millis(),
            IDLE.as_millis()
        ))
        .await
    }

    /// Runs statements without parameters for their effect.
    pub(super) async fn run(&self, statements: &str) -> Result<(), Failure> {
        self.connected.client.batch_execute(statements).await.map_err(|e| self.failure(&e))
    }

    /// Runs a statement: how many rows it changed.
    pub(super) async fn execute(
        &self,
        statement: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<u64, Failure> {
        self.connected.client.execute_typed(statement, parameters).await.map_err(|e| self.failure(&e))
    }

    /// Runs a query.
    pub(super) async fn query(
        &self,
        query: &str,
        parameters: &[(&(dyn ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, Failure> {
        self.connected.client.query_typed(query, parameters).await.map_err(|e| self.failure(&e))
    }

    /// Waits until no other transaction has the lock of `name`; it is ours until the transaction ends.
    pub(super) async fn lock(&self, name: &str) -> Result<(), Failure> {
        let lock = "select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1, 0))";
        self.query(lock, &[(&name, Type::TEXT)]).await.map(drop)
    }

    /// Keeps the connection for the next one. Only outside of a transaction.
    pub(super) fn give_back(self) {
        self.sessions.idle.lock().unwrap_or_else(PoisonError::into_inner).push(self.connected);
    }

    fn failure(&self, error: &tokio_postgres::Error) -> Failure {
        Failure::new(self.sessions.place(), error)
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
