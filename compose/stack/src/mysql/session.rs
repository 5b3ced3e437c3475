//! The administrator's session on a server of the stack, for those who know no driver: statements, and answers as text.

use super::MySql;
use anyhow::{Context as _, Result};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, Row, Value};

/// A session; it ends when it is closed or dropped.
#[derive(Debug)]
pub struct MySqlSession(Conn);

impl MySql {
    /// A session of the administrator in a database.
    ///
    /// # Errors
    /// If the server does not answer, or there is no such database.
    pub async fn session(&self, database: &str) -> Result<MySqlSession> {
        let opts = Opts::from_url(&self.url(database)).context("the administrator's URL")?;
        Ok(MySqlSession(Conn::new(opts).await.with_context(|| format!("opening a session in {database}"))?))
    }
}

impl MySqlSession {
    /// Runs a statement.
    ///
    /// # Errors
    /// If the server refuses it.
    pub async fn run(&mut self, statement: &str) -> Result<()> {
        self.0.query_drop(statement).await.with_context(|| statement.to_owned())
    }

    /// The rows of an answer, each value as text; `NULL` is empty.
    ///
    /// # Errors
    /// If the server refuses the query.
    pub async fn rows(&mut self, query: &str) -> Result<Vec<Vec<String>>> {
        let rows: Vec<Row> = self.0.query(query).await.with_context(|| query.to_owned())?;
        let text = |value: Value| match value {
            Value::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::NULL => String::new(),
            other => other.as_sql(false),
        };
        Ok(rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect())
    }

    /// Ends the session.
    ///
    /// # Errors
    /// If the server was gone.
    pub async fn close(self) -> Result<()> {
        self.0.disconnect().await.context("ending a session")
    }
}
