//! The rows of a table, as its events have them, for whoever keeps the table whole: those that were there before its topic was.

use tributary_event::debezium::{DecimalMode, encode_value, json_string};
use tributary_event::{TableName, Value};

use super::KeyPager;
use crate::error::ConnectorError;
use crate::settings::SourceSettings;

/// Rows of a page at first, and at most.
const ROWS: (usize, usize) = (100, 5_000);
/// Bytes that a page should have, about.
const BYTES: usize = 4 << 20;

/// Reads pages of rows over one session.
pub struct RowPager {
    pager: KeyPager,
    /// Names of the columns that are read: those of the key first.
    names: Vec<String>,
    /// How many of them are the key.
    key: usize,
    decimals: DecimalMode,
    /// Rows of the next page.
    size: usize,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// The key, as records of the table's topic have it.
    pub key: Vec<u8>,
    /// The columns that were asked for, as JSON.
    pub row: Vec<u8>,
}

impl RowPager {
    /// Opens a pager over columns of a table; over all that its events have, if none are named.
    ///
    /// # Errors
    /// There is no such table or column, or the table has no primary key to page by.
    pub async fn open(
        source: &SourceSettings,
        table: &TableName,
        columns: &[String],
        decimals: DecimalMode,
    ) -> Result<Self, ConnectorError> {
        let mut pager = KeyPager::open_published(source, table, columns).await?;
        let is_it = |(of, name, _): &&(String, String, Vec<String>)| **of == *table.schema && **name == *table.name;
        let schema = pager.schema();
        let name = |index: &usize| schema.columns.get(*index).map(|column| column.name.to_string());
        let key: Vec<String> = match source.keys().iter().find(is_it) {
            Some((_, _, columns)) => columns.clone(),
            None => schema.key.iter().filter_map(name).collect(),
        };
        let wanted = pager.columns().iter().filter_map(name);
        let names: Vec<String> = key.iter().cloned().chain(wanted).collect();
        pager.choose(&names)?;
        Ok(Self { pager, key: key.len(), names, decimals, size: ROWS.0 })
    }

    /// The next rows behind a place (from the start if there is none), and the place behind them, if there may be more. They are all of one
    /// moment.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses.
    pub async fn page(
        &mut self,
        after: Option<&[String]>,
    ) -> Result<(Vec<TableRow>, Option<Vec<String>>), ConnectorError> {
        if after.is_none() {
            self.pager.catch_up().await?;
        }
        let found = self.pager.page(after, self.size).await?;
        let next = (found.len() == self.size).then(|| found.last().map(|row| row.place.clone())).flatten();
        let mut bytes = 0;
        let mut rows = Vec::with_capacity(found.len());
        for row in &found {
            let (key, wanted) = row.values.split_at(self.key.min(row.values.len()));
            let (key_names, names) = self.names.split_at(self.key);
            let row = TableRow { key: self.object(key_names, key), row: self.object(names, wanted) };
            bytes += row.key.len() + row.row.len();
            rows.push(row);
        }
        self.size = match bytes {
            0..BYTES => (self.size * 2).min(ROWS.1),
            bytes if bytes > BYTES * 2 => (self.size / 2).max(1),
            _ => self.size,
        };
        Ok((rows, next))
    }

    fn object(&self, names: &[String], values: &[Value]) -> Vec<u8> {
        let mut out = vec![b'{'];
        for (name, value) in names.iter().zip(values) {
            if out.len() > 1 {
                out.push(b',');
            }
            json_string(&mut out, name.as_bytes());
            out.push(b':');
            encode_value(&mut out, value, self.decimals);
        }
        out.push(b'}');
        out
    }
}
