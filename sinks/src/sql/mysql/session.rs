//! A session at MySQL or MariaDB.

use std::future::Future;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, DriverError, Error, Row as Answer, Value};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tributary_processor::OutsideError;
use tributary_processor::sink::{Entry, Mark};
use tributary_transport::TopicPartition;

use super::super::database::{Database, Dialect, Session};
use super::super::failure::Failure;
use super::super::fold::Row;
use super::super::marks::Marks;
use super::super::table::{Table, Target};
use super::dialect::{MARIADB, MYSQL, MySql};
use super::endpoint::Endpoint;
use super::failure::failure;
use super::{catalog, marks, rows};

/// How long a login may take.
const LOGIN: Duration = Duration::from_secs(10);
/// How long an answer is waited for, but for that of a statement that touches every row.
const STATEMENT: Duration = Duration::from_secs(5 * 60);
/// How long a connection that nobody uses is kept. The server ends it soon after, with its transaction and locks if it has one: so does
/// it with that of a client that is gone.
const IDLE: Duration = Duration::from_secs(30);
/// Whose turn it is to change definitions.
const DEFINITIONS: &str = "tributary definitions";

/// Settings of ours, whatever an administrator set in general. A row that is not as the table wants it is an error, and texts are as they
/// are; locks are waited for as long as PostgreSQL's.
const SETTINGS: &str = "set session sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_ZERO_IN_DATE,NO_ZERO_DATE,\
     ERROR_FOR_DIVISION_BY_ZERO', time_zone = '+00:00', autocommit = 1, innodb_lock_wait_timeout = 60, lock_wait_timeout = 60, \
     wait_timeout = 60, foreign_key_checks = 1, unique_checks = 1; set names utf8mb4";

#[async_trait]
impl Database for Endpoint {
    type Session = MySqlSession;

    fn place(&self) -> &str {
        &self.place
    }

    async fn connect(&self) -> Result<MySqlSession, Failure> {
        let mut connection = match self.login(self.options.clone()).await {
            Err(Error::Driver(DriverError::NoClientSslFlagFromServer)) if self.may_be_plain => {
                self.login(self.options.clone().ssl_opts(None)).await
            }
            result => result,
        }
        .map_err(|error| failure(&self.place, &error))?;
        let server: Result<Option<(String, u64)>, Error> = async {
            connection.query_drop(SETTINGS).await?;
            connection.query_first("select version(), @@max_allowed_packet").await
        }
        .await;
        let (version, packet) = server.map_err(|error| failure(&self.place, &error))?.unwrap_or_default();
        Ok(MySqlSession {
            connection,
            place: self.place.clone(),
            words: if version.contains("MariaDB") { &MARIADB } else { &MYSQL },
            // A packet has a little more than the statement.
            largest: usize::try_from(packet).unwrap_or(usize::MAX).saturating_sub(1_024),
            used: Instant::now(),
            is_defining: false,
        })
    }
}

impl Endpoint {
    async fn login(&self, options: mysql_async::OptsBuilder) -> Result<Conn, Error> {
        // In a task of its own: the driver panics where what a server draws for `parsec` ends with a zero, one time in 256. It is drawn anew for the
        // next login.
        match timeout(LOGIN, AbortOnDropHandle::new(tokio::spawn(Conn::new(options)))).await {
            Ok(Ok(result)) => result,
            Ok(Err(failed)) => Err(std::io::Error::other(format!("the driver failed at the login ({failed})")).into()),
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

/// A connection of ours.
pub(in crate::sql) struct MySqlSession {
    connection: Conn,
    place: String,
    words: &'static MySql,
    largest: usize,
    used: Instant,
    /// It may have the turn to change definitions.
    is_defining: bool,
}

impl MySqlSession {
    /// The words of this server.
    pub(super) fn words(&self) -> &'static MySql {
        self.words
    }

    /// Which of the two it is.
    pub(super) fn is_mariadb(&self) -> bool {
        self.words == &MARIADB
    }

    /// The longest statement that the server takes, bytes.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Runs statements for their effect.
    pub(super) async fn statements(&mut self, text: &str) -> Result<(), Failure> {
        self.used = Instant::now();
        within(&self.place, STATEMENT, self.connection.query_drop(text)).await
    }

    /// Runs a statement: how many rows it found to change.
    pub(super) async fn execute(&mut self, statement: &str) -> Result<u64, Failure> {
        self.statements(statement).await?;
        Ok(self.connection.affected_rows())
    }

    /// As [`MySqlSession::execute`]; an error of this number means none.
    pub(super) async fn execute_unless(&mut self, statement: &str, number: u16) -> Result<u64, Failure> {
        let answer = async {
            match self.connection.query_drop(statement).await {
                Err(Error::Server(error)) if error.code == number => Ok(false),
                result => result.map(|()| true),
            }
        };
        let done = within(&self.place, STATEMENT, answer).await?;
        Ok(if done { self.connection.affected_rows() } else { 0 })
    }

    /// As [`MySqlSession::execute`], however long it takes.
    pub(super) async fn execute_patiently(&mut self, statement: &str) -> Result<u64, Failure> {
        let answer = self.connection.query_drop(statement).await;
        answer.map_err(|error| failure(&self.place, &error))?;
        self.used = Instant::now();
        Ok(self.connection.affected_rows())
    }

    /// The first column of a query's rows.
    pub(super) async fn numbers(&mut self, query: &str) -> Result<Vec<i64>, Failure> {
        within(&self.place, STATEMENT, self.connection.query(query)).await
    }

    /// The rows of a query as texts.
    pub(super) async fn texts(&mut self, query: &str) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let rows: Vec<Answer> = within(&self.place, STATEMENT, self.connection.query(query)).await?;
        let text = |value| match value {
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            _ => None,
        };
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }
}

/// Waits for an answer. After the time the connection is of no use, and is not given back.
async fn within<T>(place: &str, time: Duration, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Failure> {
    match timeout(time, answer).await {
        Ok(result) => result.map_err(|error| failure(place, &error)),
        Err(_) => Err(Failure::Outside(OutsideError::transient(format!(
            "{place}: no answer within {} s; it is tried again",
            time.as_secs()
        )))),
    }
}

#[async_trait]
impl Session for MySqlSession {
    fn dialect(&self) -> &'static dyn Dialect {
        self.words
    }

    fn is_open(&self) -> bool {
        self.used.elapsed() < IDLE
    }

    /// Without locks of gaps, which transactions of different keys would wait for.
    async fn begin(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.is_defining) {
            self.statements("do release_all_locks()").await?;
        }
        self.statements("set transaction isolation level read committed; start transaction").await
    }

    async fn run(&mut self, statements: &str) -> Result<(), Failure> {
        self.statements(statements).await
    }

    /// The lock is that of the mark's row: whoever asks for it takes it.
    async fn lock(&mut self, _: &Marks, _: &TopicPartition) -> Result<(), Failure> {
        Ok(())
    }

    /// A definition ends the transaction before it, so it is given up first.
    async fn begin_definitions(&mut self, _: &str) -> Result<(), Failure> {
        self.statements("rollback").await?;
        self.is_defining = true;
        let lock = format!("select coalesce(get_lock('{DEFINITIONS}', 60), 0)");
        match self.numbers(&lock).await?.first() {
            Some(1) => Ok(()),
            _ => Err(Failure::Again("another session has been changing tables for a minute".to_owned())),
        }
    }

    async fn end_definitions(&mut self) -> Result<(), Failure> {
        self.statements("do release_all_locks()").await?;
        self.is_defining = false;
        Err(Failure::Again("tables were changed".to_owned()))
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

    /// There are no constraints that wait.
    async fn check_at_once(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    async fn write(
        &mut self,
        target: &Target,
        table: &Table,
        columns: Option<&[String]>,
        rows: &[Row],
    ) -> Result<(), Failure> {
        let sql = target.sql(self.words);
        rows::Statements::new(target, table, columns, sql).run(self, rows).await
    }

    async fn truncate(&mut self, target: &Target, sequence: i64) -> Result<(), Failure> {
        rows::truncate(self, target, sequence).await
    }

    async fn remove(&mut self, target: &Target, old: i64, most: i64) -> Result<u64, Failure> {
        rows::remove(self, target, old, most).await
    }
}
