//! Pages through the rows of a table in the order of its key, whatever database it is of, for those who must visit every row: initial
//! builds, tables that streams look into.
//!
//! Keyset pagination: a page starts behind the last key of the page before, so a page costs the same wherever it is, and rows that come
//! and go meanwhile shift nothing. A page is of one moment; pages need not be of the same.

mod rows;

use std::time::Duration;

use tributary_event::{TableName, TableSchema, Value};

pub use self::rows::{RowPager, TableRow};
use crate::error::ConnectorError;
use crate::settings::SourceSettings;
use crate::{mysql, postgres};

/// A page that takes longer is worth a word.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// One row of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRow {
    /// The columns that were asked for, as the log would give them.
    pub values: Vec<Value>,
    /// The row's place in key order: what the next page starts behind. Opaque, and fit to be stored.
    pub place: Vec<String>,
}

/// Reads pages of keys, or of rows, over one session.
pub enum KeyPager {
    /// Of PostgreSQL.
    Postgres(Box<postgres::KeyPager>),
    /// Of MySQL or MariaDB.
    MySql(Box<mysql::KeyPager>),
}

impl KeyPager {
    /// Opens a pager over `columns` of a table, or over its primary key if there are none.
    ///
    /// # Errors
    /// There is no such table or column, or the table has no primary key to page by.
    pub async fn open(source: &SourceSettings, table: &TableName, columns: &[String]) -> Result<Self, ConnectorError> {
        Ok(match source {
            SourceSettings::Postgres(settings) => {
                Self::Postgres(Box::new(postgres::KeyPager::open(settings, table, columns).await?))
            }
            SourceSettings::MySql(settings) => {
                Self::MySql(Box::new(mysql::KeyPager::open(settings, table, columns).await?))
            }
        })
    }

    /// Opens a pager over `columns` of a table, as events have them; if there are none, over all columns that events have.
    async fn open_published(
        source: &SourceSettings,
        table: &TableName,
        columns: &[String],
    ) -> Result<Self, ConnectorError> {
        Ok(match source {
            SourceSettings::Postgres(settings) => {
                Self::Postgres(Box::new(postgres::KeyPager::open_published(settings, table, columns).await?))
            }
            SourceSettings::MySql(settings) => {
                Self::MySql(Box::new(mysql::KeyPager::open_published(settings, table, columns).await?))
            }
        })
    }

    /// Returns when pages show whatever the source's log has had before the call. Who lists rows beside the log calls it before the
    /// first page.
    ///
    /// # Errors
    /// The server cannot be reached, or does not tell.
    pub async fn catch_up(&mut self) -> Result<(), ConnectorError> {
        match self {
            // Its log is read as far as everybody sees it.
            Self::Postgres(_) => Ok(()),
            Self::MySql(pager) => pager.catch_up().await,
        }
    }

    /// The next `limit` rows behind `after` (from the start if none). Fewer than `limit`: there are no more.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn page(&mut self, after: Option<&[String]>, limit: usize) -> Result<Vec<KeyRow>, ConnectorError> {
        match self {
            Self::Postgres(pager) => pager.page(after, limit).await,
            Self::MySql(pager) => pager.page(after, limit).await,
        }
    }

    /// The last `limit` rows, from the end on.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn last(&mut self, limit: usize) -> Result<Vec<KeyRow>, ConnectorError> {
        match self {
            Self::Postgres(pager) => pager.last(limit).await,
            Self::MySql(pager) => pager.last(limit).await,
        }
    }

    /// About how many rows the table has, as its statistics say; `None` if there are none yet.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn estimate(&mut self) -> Result<Option<u64>, ConnectorError> {
        match self {
            Self::Postgres(pager) => pager.estimate().await,
            Self::MySql(pager) => pager.estimate().await,
        }
    }

    /// The table, with the key that it is paged by.
    fn schema(&self) -> &TableSchema {
        match self {
            Self::Postgres(pager) => &pager.table().schema,
            Self::MySql(pager) => pager.schema(),
        }
    }

    /// The columns that are read, by their places in the table.
    fn columns(&self) -> &[usize] {
        match self {
            Self::Postgres(pager) => pager.columns(),
            Self::MySql(pager) => pager.columns(),
        }
    }

    /// Lets other columns be read.
    fn choose(&mut self, columns: &[String]) -> Result<(), ConnectorError> {
        match self {
            Self::Postgres(pager) => pager.choose(columns),
            Self::MySql(pager) => pager.choose(columns),
        }
    }
}

/// A table lacks a column that was asked for.
pub(crate) fn no_such_column(table: &TableSchema, column: &str) -> ConnectorError {
    let known: Vec<&str> = table.columns.iter().map(|c| &*c.name).collect();
    ConnectorError::Table {
        table: table.qualified_name(),
        cause: format!("it has no column {column}"),
        remedy: format!("its columns are {}", known.join(", ")),
    }
}

/// Waits for a statement, and says so if that takes long: our sessions have no limits that would end it.
pub(crate) async fn patiently<T>(statement: impl Future<Output = T>, long: Duration, say: impl FnOnce()) -> T {
    tokio::pin!(statement);
    tokio::select! {
        done = &mut statement => done,
        () = tokio::time::sleep(long) => {
            say();
            statement.await
        }
    }
}
