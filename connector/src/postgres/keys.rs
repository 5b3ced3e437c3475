//! Pages through the keys of a table in key order, for those who must visit every row: initial builds, dumps.
//!
//! Keyset pagination: a page starts behind the last key of the page before, so a page costs the same wherever it is,
//! and rows that come and go meanwhile shift nothing.

use tributary_event::{TableName, Value};

use super::catalog::{self, TableInfo, Which, no_such_table};
use super::hosts;
use super::sql::Sql;
use super::sqlstate::{literal, quote};
use crate::error::ConnectorError;
use crate::settings::PostgresSettings;

/// One row of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyRow {
    /// The columns that were asked for, as the log would give them.
    pub values: Vec<Value>,
    /// The row's place in key order: what the next page starts behind. Opaque, and fit to be stored.
    pub place: Vec<String>,
}

/// Reads pages of keys over one session.
pub struct KeyPager {
    sql: Sql,
    table: TableInfo,
    columns: Vec<usize>,
}

impl KeyPager {
    /// Opens a pager over `columns` of a table, or over its primary key if there are none.
    ///
    /// # Errors
    /// There is no such table or column, or the table has no primary key to page by.
    pub async fn open(
        settings: &PostgresSettings,
        table: impl Into<TableName>,
        columns: &[String],
    ) -> Result<Self, ConnectorError> {
        let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
        let table = table.into();
        let name = (table.schema.to_string(), table.name.to_string());
        let Some(info) = catalog::tables(&sql, std::slice::from_ref(&name), Which::All).await?.pop() else {
            return Err(no_such_table(&sql, &name).await?);
        };
        let refuse = |cause: String, remedy: String| {
            Err(ConnectorError::Table { table: info.schema.qualified_name(), cause, remedy })
        };
        if info.schema.key.is_empty() {
            return refuse("it has no primary key to page by".into(), "add a primary key".into());
        }
        let mut wanted = Vec::new();
        for column in columns {
            match info.schema.column(column) {
                Some(index) => wanted.push(index),
                None => {
                    let known: Vec<&str> = info.schema.columns.iter().map(|c| &*c.name).collect();
                    return refuse(
                        format!("it has no column {column}"),
                        format!("its columns are {}", known.join(", ")),
                    );
                }
            }
        }
        let columns = if wanted.is_empty() { info.schema.key.clone() } else { wanted };
        Ok(Self { sql, table: info, columns })
    }

    /// The table.
    pub fn table(&self) -> &TableInfo {
        &self.table
    }

    /// About how many rows the table has, as its statistics say; `None` if there are none yet.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn estimate(&self) -> Result<Option<u64>, ConnectorError> {
        // Partitioned tables have no rows of their own.
        let statement = format!(
            "select sum(reltuples)::int8::text from pg_catalog.pg_class c where reltuples >= 0 and relkind <> 'p' and oid in \
             (select relid from pg_catalog.pg_partition_tree({0}) union all select {0})",
            self.table.oid
        );
        let rows = self.sql.texts("estimating the number of rows", &statement).await?;
        Ok(rows.first().and_then(|row| row.get(0)).and_then(|text| text.parse().ok()).filter(|rows| *rows > 0))
    }

    /// The next `limit` rows behind `after` (from the start if none). Fewer than `limit`: there are no more.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn page(&mut self, after: Option<&[String]>, limit: usize) -> Result<Vec<KeyRow>, ConnectorError> {
        let rows = self.sql.texts("reading a page of keys", &self.statement(after, limit)).await?;
        let width = self.table.schema.key.len();
        let mut page = Vec::with_capacity(rows.len());
        for row in &rows {
            let place = (0..width).map(|i| row.get(i).unwrap_or_default().to_owned()).collect();
            let mut values = Vec::with_capacity(self.columns.len());
            for (i, &column) in self.columns.iter().enumerate() {
                values.push(match row.get(width + i) {
                    None => Value::Null,
                    Some(text) => self.value(column, text)?,
                });
            }
            page.push(KeyRow { values, place });
        }
        Ok(page)
    }

    fn value(&self, column: usize, text: &str) -> Result<Value, ConnectorError> {
        let value = self.table.codecs.get(column).and_then(|codec| codec.decode_owned(text.as_bytes()));
        value.ok_or_else(|| {
            let name = self.table.schema.columns.get(column).map_or("?", |c| &*c.name);
            ConnectorError::protocol(
                format!("table {}, column {name}", self.table.schema.qualified_name()),
                "a value is no text of its type",
            )
        })
    }

    fn statement(&self, after: Option<&[String]>, limit: usize) -> String {
        let schema = &self.table.schema;
        let column = |i: &usize| schema.columns.get(*i).map(|c| quote(&c.name)).unwrap_or_default();
        let list = |indexes: &[usize]| indexes.iter().map(column).collect::<Vec<_>>().join(", ");
        let key = list(&schema.key);
        let condition = after.map_or_else(String::new, |after| {
            let typed = schema.key.iter().zip(after).map(|(&i, text)| {
                let type_name = schema.columns.get(i).map_or("text", |c| &*c.type_name);
                format!("{}::{type_name}", literal(text))
            });
            format!(" where ({key}) > ({})", typed.collect::<Vec<_>>().join(", "))
        });
        let table = format!("{}.{}", quote(&schema.schema), quote(&schema.name));
        format!("select {key}, {} from {table}{condition} order by {key} limit {limit}", list(&self.columns))
    }
}
