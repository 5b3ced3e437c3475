//! Pages through the rows of a table in the order of its primary key, with the values that the log would give.
//!
//! A place is compared by the database, by the collation of its column; texts and bytes of it travel as hexadecimal digits, so that they
//! are those of the row whatever their character set is. Rows come in the binary protocol, and texts as they are stored: they are read by
//! the same code as those of the log.

mod cells;
mod visibility;

use std::sync::Arc;

use tributary_event::{TableName, TableSchema};

use self::cells::Cell;
use super::tables;
use super::tables::mapped::{columns, unreadable};
use super::wire::session::{Session, literal, quote};
use crate::error::ConnectorError;
use crate::pager::{KeyRow, LONG, no_such_column, patiently};
use crate::settings::MySqlSettings;

/// Reads pages of keys, or of rows, over one session.
pub struct KeyPager {
    session: Session,
    name: TableName,
    /// With the key that it is paged by.
    schema: Arc<TableSchema>,
    /// How each column of the table is read; `Err`: why not.
    cells: Vec<Result<Cell, String>>,
    columns: Vec<usize>,
}

/// Settings of ours beside those of all sessions: no limits that an administrator set in general, whole sort keys, statements that see
/// one moment and lock nothing, and texts as they are stored.
const SETTINGS: &str = "set session transaction isolation level repeatable read; \
     set session autocommit = 1, sql_big_selects = 1, max_sort_length = 16384, character_set_results = null";

impl KeyPager {
    /// Opens a pager over `columns` of a table, or over its primary key if there are none.
    ///
    /// # Errors
    /// There is no such table or column, or the table has no primary key to page by.
    pub async fn open(
        settings: &MySqlSettings,
        table: impl Into<TableName>,
        columns: &[String],
    ) -> Result<Self, ConnectorError> {
        let mut pager = Self::over(settings, table.into()).await?;
        match columns {
            [] => pager.columns.clone_from(&pager.schema.key),
            columns => pager.choose(columns)?,
        }
        Ok(pager)
    }

    /// Opens a pager over `columns` of a table, as events have them; if there are none, over all columns.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) async fn open_published(
        settings: &MySqlSettings,
        table: &TableName,
        columns: &[String],
    ) -> Result<Self, ConnectorError> {
        let mut pager = Self::over(settings, table.clone()).await?;
        match columns {
            [] => pager.columns = (0..pager.cells.len()).collect(),
            columns => pager.choose(columns)?,
        }
        Ok(pager)
    }

    async fn over(settings: &MySqlSettings, name: TableName) -> Result<Self, ConnectorError> {
        let mut session = Session::open(&settings.url).await?;
        let Some((_, shape)) = tables::read(&mut session, std::slice::from_ref(&name)).await?.pop() else {
            return Err(tables::missing(&mut session, &name).await?);
        };
        if shape.key.is_empty() {
            return Err(ConnectorError::Table {
                table: name.to_string(),
                cause: "it has no primary key to page by".into(),
                remedy: "add a primary key; an index can list its roots from the graph as well (roots: { field: … })"
                    .into(),
            });
        }
        const DOING: &str = "setting the session";
        session.run(DOING, SETTINGS).await?;
        let limit = if session.is_mariadb { "max_statement_time" } else { "max_execution_time" };
        session.run(DOING, &format!("set session {limit} = 0")).await?;
        let cells = shape.columns.iter().map(|column| Cell::new(column, settings)).collect();
        let schema = TableSchema::new(name.schema.clone(), name.name.clone(), columns(&shape), shape.key);
        Ok(Self { session, name, schema: Arc::new(schema), cells, columns: Vec::new() })
    }

    /// The table, with the key that it is paged by.
    pub(crate) fn schema(&self) -> &TableSchema {
        &self.schema
    }

    /// The columns that are read, by their places in the table.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Lets other columns be read.
    pub(crate) fn choose(&mut self, columns: &[String]) -> Result<(), ConnectorError> {
        let place = |column: &String| self.schema.column(column).ok_or_else(|| no_such_column(&self.schema, column));
        self.columns = columns.iter().map(place).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// About how many rows the table has, as its statistics say; `None` if there are none yet.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn estimate(&mut self) -> Result<Option<u64>, ConnectorError> {
        let statement = format!(
            "select table_rows from information_schema.tables where table_schema = {} and table_name = {}",
            literal(&self.name.schema),
            literal(&self.name.name)
        );
        let rows: Option<Option<u64>> = self.session.one("estimating the number of rows", &statement).await?;
        Ok(rows.flatten().filter(|rows| *rows > 0))
    }

    /// Returns when pages show whatever the log has had before the call.
    ///
    /// # Errors
    /// The server cannot be reached, or does not tell.
    pub async fn catch_up(&mut self) -> Result<(), ConnectorError> {
        let table = self.name.to_string();
        let say = || {
            tracing::warn!(
                table,
                "the rows of a table cannot be listed yet: the log has transactions whose commit is not over. With semi-synchronous \
                 replication the server waits for a replica; to see who waits, run: show processlist"
            );
        };
        patiently(visibility::until_seen(&mut self.session), LONG, say).await
    }

    /// The next `limit` rows behind `after` (from the start if none). Fewer than `limit`: there are no more.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn page(&mut self, after: Option<&[String]>, limit: usize) -> Result<Vec<KeyRow>, ConnectorError> {
        let statement = self.ordered(after, limit, "")?;
        self.read(&statement).await
    }

    /// The last `limit` rows, from the end on.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn last(&mut self, limit: usize) -> Result<Vec<KeyRow>, ConnectorError> {
        let statement = self.ordered(None, limit, " desc")?;
        self.read(&statement).await
    }

    async fn read(&mut self, statement: &str) -> Result<Vec<KeyRow>, ConnectorError> {
        let table = self.name.to_string();
        let say = || {
            tracing::warn!(
                table,
                "a page of keys takes long: the table is locked, or its key is not what it is ordered by; to see who holds a lock, run: \
                 show processlist"
            );
        };
        let rows = patiently(self.session.page("reading a page of keys", statement), LONG, say).await;
        let rows = rows.map_err(|error| match error {
            ConnectorError::Privilege { place, cause, .. } => {
                let name = format!("{}.{}", quote(&self.name.schema), quote(&self.name.name));
                let remedy = format!("GRANT SELECT ON {name} TO {};", self.session.endpoint.grantee());
                ConnectorError::Privilege { place, cause, remedy }
            }
            error => error,
        })?;
        rows.into_iter().map(|row| self.row(row)).collect()
    }

    /// A row of its cells: the key's, then the columns that were asked for.
    fn row(&self, cells: Vec<mysql_async::Value>) -> Result<KeyRow, ConnectorError> {
        let width = self.schema.key.len();
        let mut place = Vec::with_capacity(width);
        let mut values = Vec::with_capacity(self.columns.len());
        let order = self.schema.key.iter().chain(&self.columns);
        for (at, (column, raw)) in order.zip(cells).enumerate() {
            let cell = self.cell(*column)?;
            if at < width {
                place.push(cell.place(&raw));
            } else {
                values.push(cell.value(raw).map_err(|why| unreadable(&self.schema, *column, why))?);
            }
        }
        Ok(KeyRow { values, place })
    }

    fn cell(&self, column: usize) -> Result<&Cell, ConnectorError> {
        let wrong = |cause: &str| ConnectorError::Table {
            table: self.name.to_string(),
            cause: format!("column {}: {cause}", self.schema.columns.get(column).map_or("?", |column| &*column.name)),
            remedy: "alter the column".into(),
        };
        let cell = self.cells.get(column).ok_or_else(|| wrong("it is not there"))?;
        cell.as_ref().map_err(|cause| wrong(cause))
    }

    /// `direction`: of the order, behind each column.
    fn ordered(&self, after: Option<&[String]>, limit: usize, direction: &str) -> Result<String, ConnectorError> {
        let name = |at: &usize| {
            let column = self.schema.columns.get(*at);
            format!("t.{}", column.map(|column| quote(&column.name)).unwrap_or_default())
        };
        let selected = self.schema.key.iter().chain(&self.columns).map(|at| Ok(self.cell(*at)?.selected(&name(at))));
        let selected = selected.collect::<Result<Vec<_>, ConnectorError>>()?.join(", ");
        let condition = match after {
            None => String::new(),
            Some(after) => {
                let part = |(at, place): (&usize, &String)| {
                    let typed = self.cell(*at)?.literal(place).ok_or_else(|| {
                        ConnectorError::protocol(format!("table {}", self.name), "a place is none of its key")
                    })?;
                    Ok((name(at), typed))
                };
                let parts = self.schema.key.iter().zip(after).map(part).collect::<Result<Vec<_>, ConnectorError>>()?;
                format!(" where {}", behind(&parts))
            }
        };
        let order = self.schema.key.iter().map(|at| name(at) + direction).collect::<Vec<_>>().join(", ");
        let table = format!("{}.{}", quote(&self.name.schema), quote(&self.name.name));
        Ok(format!("select {selected} from {table} t{condition} order by {order} limit {limit}"))
    }
}

/// That a key lies behind a place. Comparing rows, `(a, b) > (1, 2)`, says the same, and uses no index.
fn behind(parts: &[(String, String)]) -> String {
    let mut condition = String::new();
    for (at, (column, value)) in parts.iter().enumerate().rev() {
        condition = match condition.as_str() {
            "" => format!("{column} > {value}"),
            further => format!("({column} > {value} or {column} = {value} and {further})"),
        };
        if at == 0 && parts.len() > 1 {
            condition = format!("{column} >= {value} and {condition}");
        }
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_several_columns_is_compared_column_by_column() {
        let parts = |names: &[&str]| -> Vec<(String, String)> {
            names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), at.to_string())).collect()
        };
        assert_eq!(behind(&parts(&["a"])), "a > 0");
        assert_eq!(behind(&parts(&["a", "b"])), "a >= 0 and (a > 0 or a = 0 and b > 1)");
        assert_eq!(behind(&parts(&["a", "b", "c"])), "a >= 0 and (a > 0 or a = 0 and (b > 1 or b = 1 and c > 2))");
    }
}
