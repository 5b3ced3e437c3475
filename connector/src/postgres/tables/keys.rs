//! Pages through the rows of a table in the order of its key, for those who must visit every row: initial builds, tables that streams look
//! into.
//!
//! Keyset pagination: a page starts behind the last key of the page before, so a page costs the same wherever it is,
//! and rows that come and go meanwhile shift nothing.

use tributary_event::{TableName, Value};

use super::absent::no_such_table;
use super::catalog::{self, TableInfo, Which};
use super::publication::Published;
use crate::error::ConnectorError;
use crate::pager::{KeyRow, LONG, no_such_column, patiently};
use crate::postgres::values::charset::Charset;
use crate::postgres::values::texts::Texts;
use crate::postgres::values::value::push_hex;
use crate::postgres::wire::hosts;
use crate::postgres::wire::sql::Sql;
use crate::postgres::wire::sqlstate::{literal, quote};
use crate::settings::{InvalidText, PostgresSettings};

/// Reads pages of keys, or of rows, over one session.
pub struct KeyPager {
    sql: Sql,
    table: TableInfo,
    columns: Vec<usize>,
    /// The condition of rows that have events, if not all have.
    filter: Option<String>,
    /// What becomes of bytes that are no text.
    policy: InvalidText,
    /// How texts are read that come as they are stored, once one has come that the server cannot convert.
    stored: Option<Texts>,
}

/// Stands before the hexadecimal digits of a place that is no text; texts of PostgreSQL do not have it.
const AS_STORED: char = '\0';

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
        Self::over(sql, info, settings, columns).await
    }

    /// Opens a pager over `columns` of a table, as events have them: of the rows and columns that the source's publication has, with values
    /// as the source's settings say. If there are none, over all columns that events have.
    ///
    /// # Errors
    /// As [`Self::open`]; or the publication leaves out changes.
    pub(crate) async fn open_published(
        settings: &PostgresSettings,
        table: &TableName,
        columns: &[String],
    ) -> Result<Self, ConnectorError> {
        let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
        let name = (table.schema.to_string(), table.name.to_string());
        let published = Published::read(&sql, &settings.publication).await?;
        let which = Which::Published(&published);
        let found = catalog::tables_as(&sql, std::slice::from_ref(&name), which, settings.values).await?.pop();
        let Some(info) = found else { return Err(no_such_table(&sql, &name).await?) };
        if !published.left_out.is_empty() {
            let (publication, left_out) = (quote(&settings.publication), published.left_out.join(" and "));
            return Err(ConnectorError::Table {
                table: info.schema.qualified_name(),
                cause: format!(
                    "the publication {publication} leaves out every {left_out}, so nobody would hear of them"
                ),
                remedy: format!(
                    "run: ALTER PUBLICATION {publication} SET (publish = 'insert, update, delete, truncate');"
                ),
            });
        }
        let all: Vec<String> = info.schema.columns.iter().map(|column| column.name.to_string()).collect();
        Self::over(sql, info, settings, if columns.is_empty() { &all } else { columns }).await
    }

    async fn over(
        sql: Sql,
        info: TableInfo,
        settings: &PostgresSettings,
        columns: &[String],
    ) -> Result<Self, ConnectorError> {
        let refuse = |cause: String, remedy: String| {
            Err(ConnectorError::Table { table: info.schema.qualified_name(), cause, remedy })
        };
        if info.schema.key.is_empty() {
            return refuse(
                "it has no primary key to page by".into(),
                "add a primary key; an index can list its roots from the graph as well (roots: { field: … })".into(),
            );
        }
        if info.schema.key.len() < info.primary_key.len() {
            return refuse(
                format!("the publication {} leaves out columns of its primary key", settings.publication),
                "let the publication have all columns of the table".into(),
            );
        }
        let wanted = indexes(&info, columns)?;
        let columns = if wanted.is_empty() { info.schema.key.clone() } else { wanted };
        // Ordering operators of extensions' types are found beside them.
        const OPERATORS: &str = "select pg_catalog.set_config('search_path', 'pg_catalog' || coalesce(string_agg(distinct \
            ', ' || quote_ident(nspname), ''), ''), false) from pg_catalog.pg_amop a join pg_catalog.pg_operator o on o.oid = amopopr \
            join pg_catalog.pg_namespace n on n.oid = o.oprnamespace \
            where amopmethod = 403 and amopstrategy = 5 and nspname <> 'pg_catalog'";
        sql.query("finding ordering operators", OPERATORS, &[]).await?;
        let filter = info.row_filter.clone();
        Ok(Self { sql, table: info, columns, filter, policy: settings.invalid_text, stored: None })
    }

    /// The table.
    pub fn table(&self) -> &TableInfo {
        &self.table
    }

    /// The columns that are read, by their places in the table.
    pub(crate) fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Lets other columns be read.
    pub(crate) fn choose(&mut self, columns: &[String]) -> Result<(), ConnectorError> {
        self.columns = indexes(&self.table, columns)?;
        Ok(())
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
        self.read(&|pager| pager.ordered(after, limit, "")).await
    }

    async fn read(&mut self, statement: &(dyn Fn(&Self) -> String + Sync)) -> Result<Vec<KeyRow>, ConnectorError> {
        const READING: &str = "reading a page of keys";
        let table = self.table.schema.qualified_name();
        let say = || {
            tracing::warn!(
                table,
                "a page of keys takes long: the table is locked, or its key has no index that is in use; to see who holds a lock, \
                 run: select pid, pg_blocking_pids(pid), query from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0;"
            );
        };
        if self.stored.is_none() {
            match patiently(self.sql.converted(&statement(self)), LONG, say).await? {
                Ok(rows) => return rows.iter().map(|row| self.row(&|i| row.get(i).map(str::as_bytes))).collect(),
                Err(error) if error.is_about_text() => self.stored = Some(self.texts().await?),
                Err(error) => return Err(error.classify(self.sql.endpoint(), READING)),
            }
        }
        let statement = statement(self);
        let rows = patiently(self.sql.query(READING, &statement, &[]), LONG, say).await?;
        rows.iter().map(|row| self.row(&|i| row.get(i))).collect()
    }

    /// The last `limit` rows, from the end on.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn last(&mut self, limit: usize) -> Result<Vec<KeyRow>, ConnectorError> {
        self.read(&|pager| pager.ordered(None, limit, " desc")).await
    }

    /// How the database's texts are read as they are stored.
    async fn texts(&self) -> Result<Texts, ConnectorError> {
        const ENCODING: &str = "select getdatabaseencoding()::text";
        let rows = self.sql.query("reading the database's encoding", ENCODING, &[]).await?;
        let encoding: &str = rows.first().map_or("UTF8", |row| row.get(0));
        Ok(Texts::new(self.policy, Charset::load(&self.sql, encoding).await?, encoding))
    }

    /// A row of its cells: the key's, then the columns that were asked for.
    fn row<'r>(&self, cell: &dyn Fn(usize) -> Option<&'r [u8]>) -> Result<KeyRow, ConnectorError> {
        let width = self.table.schema.key.len();
        let place = (0..width).map(|i| place(cell(i).unwrap_or_default(), self.stored.is_some())).collect();
        let mut values = Vec::with_capacity(self.columns.len());
        for (i, &column) in self.columns.iter().enumerate() {
            values.push(match cell(width + i) {
                None => Value::Null,
                Some(raw) => self.value(column, raw, cell)?,
            });
        }
        Ok(KeyRow { values, place })
    }

    fn value<'r>(
        &self,
        column: usize,
        raw: &[u8],
        cell: &dyn Fn(usize) -> Option<&'r [u8]>,
    ) -> Result<Value, ConnectorError> {
        let mut bad = None;
        let value = self.table.codecs.get(column).and_then(|codec| match &self.stored {
            Some(texts) => texts.decode(codec, raw, &mut bad),
            None => codec.decode_owned(raw),
        });
        if let (Some(texts), Some(bad)) = (&self.stored, bad) {
            let key = self.table.schema.key.iter().enumerate();
            let key: Vec<_> = key.map(|(at, &column)| (column, cell(at).map(<[u8]>::to_vec))).collect();
            return Err(texts.refuse(&self.table.schema, column, &key, &bad, false));
        }
        value.ok_or_else(|| {
            let name = self.table.schema.columns.get(column).map_or("?", |c| &*c.name);
            ConnectorError::protocol(
                format!("table {}, column {name}", self.table.schema.qualified_name()),
                "a value is no text of its type",
            )
        })
    }

    /// `direction`: of the order, behind each column.
    fn ordered(&self, after: Option<&[String]>, limit: usize, direction: &str) -> String {
        let schema = &self.table.schema;
        let column = |i: &usize| schema.columns.get(*i).map(|c| quote(&c.name)).unwrap_or_default();
        let list = |indexes: &[usize]| indexes.iter().map(column).collect::<Vec<_>>().join(", ");
        let selected = |i: &usize| match &self.stored {
            None => column(i),
            // The bytes of what the type's output function prints, which no cast does for all types.
            Some(_) => format!(
                "case when {0} is not null then convert_to(format('%s', {0}), getdatabaseencoding()) end",
                column(i)
            ),
        };
        let selected = schema.key.iter().chain(&self.columns).map(selected).collect::<Vec<_>>().join(", ");
        let key = list(&schema.key);
        let behind = after.map(|after| {
            let typed = schema.key.iter().zip(after).map(|(&i, place)| {
                let type_name = schema.columns.get(i).map_or("text", |c| &*c.type_name);
                match place.strip_prefix(AS_STORED) {
                    Some(digits) => format!("convert_from({}, getdatabaseencoding())::{type_name}", literal(digits)),
                    None => format!("{}::{type_name}", literal(place)),
                }
            });
            format!("({key}) > ({})", typed.collect::<Vec<_>>().join(", "))
        });
        let conditions: Vec<String> =
            behind.into_iter().chain(self.filter.iter().map(|filter| format!("({filter})"))).collect();
        let condition = match conditions.as_slice() {
            [] => String::new(),
            conditions => format!(" where {}", conditions.join(" and ")),
        };
        let table = format!("{}.{}", quote(&schema.schema), quote(&schema.name));
        let order = schema.key.iter().map(|i| column(i) + direction).collect::<Vec<_>>().join(", ");
        format!("select {selected} from {table}{condition} order by {order} limit {limit}")
    }
}

/// The places of columns in a table.
fn indexes(table: &TableInfo, columns: &[String]) -> Result<Vec<usize>, ConnectorError> {
    let index = |column: &String| table.schema.column(column).ok_or_else(|| no_such_column(&table.schema, column));
    columns.iter().map(index).collect()
}

/// A part of a row's place: its text, or if that comes as it is stored, whatever its bytes are.
fn place(raw: &[u8], as_stored: bool) -> String {
    match std::str::from_utf8(raw) {
        Ok(text) if !as_stored || raw.is_ascii() => text.to_owned(),
        _ => {
            let mut place = format!("{AS_STORED}\\x");
            push_hex(&mut place, raw);
            place
        }
    }
}
