//! Sessions of SQL: the catalog, settings, and the lock by which one process reads at a time.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable as _};
use mysql_async::{Conn, DriverError, Error};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tributary_event::{ErrorClass, TableName};

use super::certified::certified_name;
use super::endpoint::{self, Endpoint};
use super::failure::classify;
use crate::error::ConnectorError;
use crate::net::tls::TlsMode;
use crate::settings::Secret;

/// How many tables one statement asks about, or one packet of statements: the way to the server is gone once for all of them.
pub(in crate::mysql) const TOGETHER: usize = 250;
/// How long a session that watches may ask nothing before the server ends it; it asks every few seconds.
const SILENCE: Duration = Duration::from_secs(15);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Settings of ours, whatever an administrator set in general. Who is gone is noticed by the server within a day, and sooner by TCP. A table
/// that is being altered is not waited for.
const SETTINGS: &str = "set session time_zone = '+00:00', sql_mode = '', wait_timeout = 86400, group_concat_max_len = 1000000, \
     lock_wait_timeout = 5; set names utf8mb4";

/// A session.
pub(in crate::mysql) struct Session {
    connection: Conn,
    pub endpoint: Endpoint,
    /// Which of the two servers it is.
    pub is_mariadb: bool,
    /// As it prints it.
    pub version: String,
}

impl Session {
    /// Opens a session at the first server of a URL that can be reached and accepts writes, or else at the first that can be reached.
    pub(in crate::mysql) async fn open(url: &Secret) -> Result<Self, ConnectorError> {
        let endpoints = endpoint::endpoints(url)?;
        let alone = endpoints.len() == 1;
        let (mut unreachable, mut replica, mut definite) = (Vec::new(), None, None);
        for endpoint in endpoints {
            match Self::connect(&endpoint).await {
                Ok(session) if alone => return Ok(session),
                Ok(mut session) => match session.is_read_only().await? {
                    false => return Ok(session),
                    true => replica = replica.or(Some(session)),
                },
                Err(ConnectorError::Unreachable { place, cause }) => unreachable.push(format!("{place}: {cause}")),
                Err(error) => definite = definite.or(Some(error)),
            }
        }
        match (replica, definite) {
            (Some(replica), _) => Ok(replica),
            (None, Some(error)) => Err(error),
            (None, None) => Err(ConnectorError::unreachable("the servers of the source's url", unreachable.join("; "))),
        }
    }

    /// Opens a session at a server.
    pub(in crate::mysql) async fn connect(endpoint: &Endpoint) -> Result<Self, ConnectorError> {
        let wait = endpoint.connect_timeout;
        let name = match endpoint.checks_authority_alone() {
            false => None,
            true => match timeout(wait, Box::pin(certified_name(endpoint))).await {
                Ok(name) => name?,
                Err(_) => {
                    return Err(ConnectorError::unreachable(endpoint.place(), format!("no answer within {wait:?}")));
                }
            },
        };
        let login = async |plain: bool| {
            let options = endpoint.options(plain, name.clone())?;
            // In a task of its own: the driver panics where what a server draws for `parsec` ends with a zero, one time in 256. It is drawn anew
            // for the next login.
            match timeout(wait, AbortOnDropHandle::new(tokio::spawn(Conn::new(options)))).await {
                Ok(Ok(opened)) => Ok(opened),
                Ok(Err(failed)) => Err(ConnectorError::unreachable(
                    endpoint.place(),
                    format!("the driver failed at the login ({failed})"),
                )),
                Err(_) => Err(ConnectorError::unreachable(endpoint.place(), format!("no answer within {wait:?}"))),
            }
        };
        let opened = match login(false).await? {
            Err(Error::Driver(DriverError::NoClientSslFlagFromServer)) if endpoint.trust().mode == TlsMode::Prefer => {
                login(true).await?
            }
            opened => opened,
        };
        let connection = opened.map_err(|error| classify(endpoint, "logging in", &error))?;
        let mut session = Self { connection, endpoint: endpoint.clone(), is_mariadb: false, version: String::new() };
        session.run("setting the session", SETTINGS).await?;
        let told: Option<(String, String)> =
            session.one("reading the version", "select version(), current_user()").await?;
        let (version, account) = told.unwrap_or_default();
        (session.version, session.endpoint.account) = (version, Some(account));
        session.is_mariadb = session.version.contains("MariaDB");
        Ok(session)
    }

    /// Runs statements for their effect.
    pub(in crate::mysql) async fn run(&mut self, doing: &str, sql: &str) -> Result<(), ConnectorError> {
        let done = timeout(PATIENCE, self.connection.query_drop(sql)).await;
        self.answered(doing, done)
    }

    /// Rows of a query.
    pub(in crate::mysql) async fn rows<T: FromRow + Send + 'static>(
        &mut self,
        doing: &str,
        sql: &str,
    ) -> Result<Vec<T>, ConnectorError> {
        let done = timeout(PATIENCE, self.connection.query(sql)).await;
        self.answered(doing, done)
    }

    /// Rows of a query, in the binary protocol: numbers exactly as they are stored. It is waited for as long as it takes.
    pub(in crate::mysql) async fn page(
        &mut self,
        doing: &str,
        sql: &str,
    ) -> Result<Vec<Vec<mysql_async::Value>>, ConnectorError> {
        let read = async {
            let statement = self.connection.prep(sql).await?;
            let rows: Vec<mysql_async::Row> = self.connection.exec(&statement, ()).await?;
            self.connection.close(statement).await?;
            Ok(rows.into_iter().map(mysql_async::Row::unwrap).collect())
        };
        let read: Result<_, Error> = read.await;
        read.map_err(|error| classify(&self.endpoint, doing, &error))
    }

    /// The first row of a query.
    pub(in crate::mysql) async fn one<T: FromRow + Send + 'static>(
        &mut self,
        doing: &str,
        sql: &str,
    ) -> Result<Option<T>, ConnectorError> {
        Ok(self.rows(doing, sql).await?.into_iter().next())
    }

    /// The row that each of several statements gives; none: that one was refused. They go together, up to the first that is refused.
    pub(in crate::mysql) async fn each(
        &mut self,
        doing: &str,
        statements: &[String],
    ) -> Result<Vec<Option<mysql_async::Row>>, ConnectorError> {
        let mut all = Vec::with_capacity(statements.len());
        while let Some(some) = statements.get(all.len()..).and_then(|left| left.chunks(TOGETHER).next()) {
            let end = all.len() + some.len();
            let asking = async {
                let mut sets = self.connection.query_iter(some.join("; ")).await?;
                while !sets.is_empty() {
                    sets.for_each(|row| all.push(Some(row))).await?;
                }
                sets.drop_result().await
            };
            let done = timeout(PATIENCE, asking).await;
            match self.answered(doing, done) {
                Ok(()) if all.len() == end => {}
                Ok(()) => {
                    let cause = format!("{doing}: a statement gave another number of rows than one");
                    return Err(ConnectorError::protocol(self.endpoint.place(), cause));
                }
                Err(error @ ConnectorError::Unreachable { .. }) => return Err(error),
                Err(_) => all.push(None),
            }
        }
        Ok(all)
    }

    fn answered<T>(
        &self,
        doing: &str,
        done: Result<Result<T, Error>, tokio::time::error::Elapsed>,
    ) -> Result<T, ConnectorError> {
        match done {
            Ok(done) => done.map_err(|error| classify(&self.endpoint, doing, &error)),
            Err(_) => Err(ConnectorError::unreachable(
                self.endpoint.place(),
                format!("{doing}: no answer within {PATIENCE:?}"),
            )),
        }
    }

    async fn is_read_only(&mut self) -> Result<bool, ConnectorError> {
        Ok(self.one("asking whether it is a replica", "select @@global.read_only").await?.unwrap_or(0) != 0)
    }

    /// Whether the server has its changes from another one: it takes none of its own, or says from where it reads them, which it does not
    /// tell everybody.
    pub(in crate::mysql) async fn follows(&mut self) -> Result<bool, ConnectorError> {
        if self.is_read_only().await? {
            return Ok(true);
        }
        let show = if self.is_mariadb { "show all slaves status" } else { "show replica status" };
        let rows: Vec<mysql_async::Row> = self.rows("asking whether it is a replica", show).await?;
        let reads = |row: &mysql_async::Row| {
            let names = ["Replica_IO_Running", "Slave_IO_Running"];
            let state = names.iter().find_map(|name| row.get_opt::<String, _>(*name)?.ok());
            state.is_some_and(|state| !state.eq_ignore_ascii_case("No"))
        };
        Ok(rows.iter().any(reads))
    }

    /// The files of its log and their sizes in bytes, the newest last; none: the user may not see them.
    pub(in crate::mysql) async fn logs(&mut self, doing: &str) -> Result<Option<Vec<(String, u64)>>, ConnectorError> {
        let rows: Vec<mysql_async::Row> = match self.rows(doing, "show binary logs").await {
            Err(ConnectorError::Privilege { .. }) => return Ok(None),
            rows => rows?,
        };
        let file = |row: &mysql_async::Row| Some((row.get::<String, _>(0)?, row.get::<u64, _>(1)?));
        Ok(Some(rows.iter().filter_map(file).collect()))
    }

    /// Takes the lock of a name, waiting a second for a session that is ending, which the session holds until it ends; an error that says who holds it, if another one does.
    pub(in crate::mysql) async fn lock(&mut self, name: &str) -> Result<(), ConnectorError> {
        let quoted = literal(&lock_name(name));
        let got: Option<Option<i64>> = self.one("taking the lock", &format!("select get_lock({quoted}, 1)")).await?;
        if got.flatten() == Some(1) {
            return Ok(());
        }
        let holder: Option<Option<u64>> =
            self.one("asking who holds the lock", &format!("select is_used_lock({quoted})")).await?;
        let holder = holder.flatten().map_or_else(String::new, |session| format!(" (session {session})"));
        Err(ConnectorError::Locked { name: name.to_owned(), cause: format!("another process holds it{holder}") })
    }

    /// Lets the server end the session, and free its locks, once it has asked nothing for a while: a process whose machine or network is gone
    /// ends no session, and whoever waits for its lock could not take over.
    pub(in crate::mysql) async fn must_ask(&mut self) -> Result<(), ConnectorError> {
        let ends = format!("set session wait_timeout = {}", SILENCE.as_secs());
        self.run("limiting how long the session may ask nothing", &ends).await
    }

    /// Whether the lock is free, or held by this session.
    pub(in crate::mysql) async fn is_free(&mut self, name: &str) -> Result<bool, ConnectorError> {
        let quoted = literal(&lock_name(name));
        let free = format!("select is_used_lock({quoted}) is null or is_used_lock({quoted}) = connection_id()");
        Ok(self.one::<i64>("asking for the lock", &free).await?.unwrap_or(0) != 0)
    }

    /// Ends in order. Best effort.
    pub(in crate::mysql) async fn close(self) {
        let _ = timeout(Duration::from_secs(1), self.connection.disconnect()).await;
    }

    /// An error of the server's settings.
    pub(in crate::mysql) fn unfit(&self, cause: impl Into<String>, remedy: impl Into<String>) -> ConnectorError {
        ConnectorError::Server {
            place: self.endpoint.place(),
            cause: cause.into(),
            remedy: remedy.into(),
            class: ErrorClass::Fatal,
        }
    }
}

/// Names of locks have 64 characters at most: longer ones end with a digest of the whole.
fn lock_name(name: &str) -> String {
    if name.len() <= 64 {
        return name.to_owned();
    }
    let digest = xxhash_rust::xxh3::xxh3_64(name.as_bytes());
    let head: String = name.chars().take(40).collect();
    format!("{head}-{digest:016x}")
}

/// A text as SQL writes it.
pub(in crate::mysql) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A name as SQL writes it.
pub(in crate::mysql) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table's name as SQL writes it.
pub(in crate::mysql) fn quoted(table: &TableName) -> String {
    format!("{}.{}", quote(&table.schema), quote(&table.name))
}
