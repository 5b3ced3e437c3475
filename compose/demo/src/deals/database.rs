//! One way to ask PostgreSQL, MySQL and MariaDB: SQL that all of them understand, answered as texts.

use std::fmt;

use anyhow::Context as _;
use deadpool_postgres::{Manager, Pool};
use mysql_async::prelude::Queryable as _;
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// The most connections at a time.
const CONNECTIONS: usize = 8;

/// A row: of each column its text, or null.
pub type Row = Vec<Option<String>>;

/// A database.
#[derive(Clone)]
pub enum Database {
    /// Of PostgreSQL.
    Postgres(Pool),
    /// Of MySQL or MariaDB.
    MySql(mysql_async::Pool),
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres(_) => "PostgreSQL",
            Self::MySql(_) => "MySQL",
        })
    }
}

impl Database {
    /// The database of a URL, `postgres://…` or `mysql://…`. It may be absent until it is asked.
    ///
    /// # Errors
    /// If the URL cannot be understood.
    pub fn open(url: &str) -> anyhow::Result<Self> {
        if url.starts_with("mysql://") {
            let constraints = mysql_async::PoolConstraints::new(0, CONNECTIONS).context("the pool's size")?;
            let options = mysql_async::Opts::from_url(url).context("the database's URL")?;
            let pool = mysql_async::PoolOpts::default().with_constraints(constraints);
            let options = mysql_async::OptsBuilder::from_opts(options).pool_opts(pool);
            return Ok(Self::MySql(mysql_async::Pool::new(options)));
        }
        let config: tokio_postgres::Config = url.parse().context("the database's URL")?;
        let pool = Pool::builder(Manager::new(config, NoTls)).max_size(CONNECTIONS).build()?;
        Ok(Self::Postgres(pool))
    }

    /// The rows of statements, those of the last one that has any.
    ///
    /// # Errors
    /// If the database does not answer, or refuses.
    pub async fn rows(&self, sql: &str) -> anyhow::Result<Vec<Row>> {
        match self {
            Self::Postgres(pool) => {
                let messages = pool.get().await?.simple_query(sql).await?;
                let row = |message: &SimpleQueryMessage| match message {
                    SimpleQueryMessage::Row(row) => {
                        Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
                    }
                    _ => None,
                };
                Ok(messages.iter().filter_map(row).collect())
            }
            Self::MySql(pool) => {
                let mut connection = pool.get_conn().await?;
                let mut result = connection.query_iter(sql).await?;
                let mut rows: Vec<Row> = Vec::new();
                while !result.is_empty() {
                    let found: Vec<mysql_async::Row> = result.collect().await?;
                    if !found.is_empty() {
                        rows = found.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect();
                    }
                }
                drop(result);
                Ok(rows)
            }
        }
    }

    /// Runs statements in one session.
    ///
    /// # Errors
    /// If the database does not answer, or refuses one of them.
    pub async fn run(&self, sql: &str) -> anyhow::Result<()> {
        match self {
            Self::Postgres(pool) => pool.get().await?.batch_execute(sql).await?,
            Self::MySql(pool) => pool.get_conn().await?.query_drop(sql).await?,
        }
        Ok(())
    }

    /// A text as SQL writes it there.
    #[must_use]
    pub fn literal(&self, text: &str) -> String {
        let text = text.replace('\'', "''");
        match self {
            Self::Postgres(_) => format!("'{text}'"),
            Self::MySql(_) => format!("'{}'", text.replace('\\', "\\\\")),
        }
    }

    /// Closes the connections.
    pub async fn close(self) {
        match self {
            Self::Postgres(pool) => pool.close(),
            // Whoever asks it no more has no use for what it says.
            Self::MySql(pool) => drop(pool.disconnect().await),
        }
    }
}

fn text(value: mysql_async::Value) -> Option<String> {
    match value {
        mysql_async::Value::NULL => None,
        mysql_async::Value::Bytes(text) => Some(String::from_utf8_lossy(&text).into_owned()),
        other => Some(other.as_sql(true)),
    }
}
