//! Rows → statements of MySQL and MariaDB. A row is written if it is newer than the one that is there, so that what is written again
//! changes nothing.
//!
//! `on duplicate key update` does not say which unique index it means: with a second one it would change a row of another key. So it is
//! used where the key's is the only one; else a row is updated where it is, and then inserted where it is not.
//!
//! Assignments are done from left to right, and those behind see what those before have done. Whether a row is newer is asked of `_seq`,
//! and whether it was deleted of `_deleted`: so these two are assigned last.

use super::super::failure::Failure;
use super::super::fold::{DELETED, Row, SEQ, Values};
use super::super::table::{Column, Table, Target};
use super::dialect::name;
use super::literal::literal;
use super::session::MySqlSession;

/// The bytes of statements that are sent at once, unless one row has more.
const PART: usize = 1 << 20;

/// Marks what is older as deleted.
pub(super) async fn truncate(session: &mut MySqlSession, target: &Target, sequence: i64) -> Result<(), Failure> {
    let (seq, deleted, table) = (name(SEQ), name(DELETED), target.sql(session.words()));
    let statement = format!(
        "update {table} set {deleted} = true, {seq} = {sequence} where ({seq} is null or {seq} < {sequence}) and {deleted} is not true"
    );
    session.execute_patiently(&statement).await.map(drop)
}

/// Removes rows that were deleted.
pub(super) async fn remove(session: &mut MySqlSession, target: &Target, old: i64, most: i64) -> Result<u64, Failure> {
    let (seq, deleted, table) = (name(SEQ), name(DELETED), target.sql(session.words()));
    session.execute(&format!("delete from {table} where {deleted} = true and {seq} <= {old} limit {most}")).await
}

/// The statements for rows that have the same columns.
pub(super) struct Statements<'a> {
    table: String,
    /// The key's columns.
    key: Vec<(&'a String, &'a Column)>,
    /// The other ones that are written.
    columns: Vec<(&'a String, &'a Column)>,
    /// Those that keep nothing of what was before a delete.
    stale: Vec<String>,
    /// Those that a new row is refused for the lack of.
    lacking: Vec<String>,
    is_deleted: bool,
    how: How,
}

/// How rows get into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// All at once, whether they are there or not.
    Upsert,
    /// One after the other: updated where it is there, inserted where it is not.
    UpdateThenInsert,
    /// Updated where it is there: of a row that never was there a delete leaves no trace where a trace cannot be had.
    Update,
}

impl<'a> Statements<'a> {
    /// Columns that the table lacks have null in all rows, or they would have been added; those that it computes are left to it.
    pub(super) fn new(target: &'a Target, table: &'a Table, columns: Option<&'a [String]>, sql: String) -> Self {
        let known = |name: &'a String| Some((name, table.column(name)?));
        let written: Vec<(&String, &Column)> =
            columns.unwrap_or_default().iter().filter_map(known).filter(|(_, column)| !column.computed).collect();
        let is_absent = |known: &&String| {
            let is = |name: &str| table.is_same(known, name);
            let own = is(SEQ) || is(DELETED);
            !own && !target.key.iter().any(|key| is(key)) && !written.iter().any(|(written, _)| is(written))
        };
        let absent = || table.columns.iter().filter(|(name, _)| is_absent(name));
        let is_deleted = columns.is_none();
        let is_alone = !table.more_unique && table.unique.iter().all(|index| table.is_of(index, &target.key));
        let lacking: Vec<String> = absent().filter(|(_, column)| column.needed).map(|(n, _)| name(n)).collect();
        let is_lacking = !lacking.is_empty();
        let how = match (is_alone && !is_lacking, is_deleted && is_lacking) {
            (true, _) => How::Upsert,
            (false, true) => How::Update,
            (false, false) => How::UpdateThenInsert,
        };
        let stale = match is_deleted {
            true => Vec::new(),
            false => absent().filter(|(_, column)| column.nullable && !column.computed).map(|(n, _)| name(n)).collect(),
        };
        let key = target.key.iter().filter_map(known).collect();
        Self { table: sql, key, columns: written, stale, lacking, is_deleted, how }
    }

    /// Writes the rows, in parts that the server takes.
    pub(super) async fn run(&self, session: &mut MySqlSession, rows: &[Row]) -> Result<(), Failure> {
        let largest = session.largest();
        let (head, tail) = match self.how {
            How::Upsert => self.upsert(),
            How::UpdateThenInsert | How::Update => (String::new(), String::new()),
        };
        let mut part = String::new();
        for row in rows {
            let text = self.row(row).map_err(Failure::Row)?;
            let around = head.len() + tail.len();
            if around + text.len() > largest {
                return Err(Failure::Row(format!(
                    "its row has {} bytes, and the server takes statements of {largest}; raise max_allowed_packet",
                    text.len()
                )));
            }
            if !part.is_empty() && around + part.len() + text.len() + 1 > PART.min(largest) {
                session.statements(&format!("{head}{}{tail}", std::mem::take(&mut part))).await?;
            }
            if !part.is_empty() {
                part.push(if self.how == How::Upsert { ',' } else { ';' });
            }
            part.push_str(&text);
        }
        if part.is_empty() { Ok(()) } else { session.statements(&format!("{head}{part}{tail}")).await }
    }

    /// What is before the rows, and behind them.
    fn upsert(&self) -> (String, String) {
        let (seq, deleted) = (name(SEQ), name(DELETED));
        let newer = format!("({seq} is null or {seq} < values({seq}))");
        let mut set: Vec<String> = self
            .columns
            .iter()
            .map(|(column, _)| format!("{0} = if({newer}, values({0}), {0})", name(column)))
            .collect();
        set.extend(self.stale.iter().map(|column| format!("{column} = if({newer} and {deleted}, null, {column})")));
        set.push(format!("{deleted} = if({newer}, {}, {deleted})", self.is_deleted));
        set.push(format!("{seq} = if({newer}, values({seq}), {seq})"));
        let head = format!("insert into {} ({}) values ", self.table, self.into());
        (head, format!(" on duplicate key update {}", set.join(", ")))
    }

    /// The columns of an insert.
    fn into(&self) -> String {
        let columns = self.key.iter().chain(&self.columns).map(|(column, _)| name(column));
        columns.chain([name(SEQ), name(DELETED)]).collect::<Vec<_>>().join(", ")
    }

    /// A row as a part of a statement, or as statements. `Err`: why the table cannot take it.
    fn row(&self, row: &Row) -> Result<String, String> {
        let value = |values: Option<&Values>, column: &String, known: &Column| match values.and_then(|v| v.get(column))
        {
            Some(value) => literal(column, known, value),
            None => Ok("null".to_owned()),
        };
        let key: Vec<String> = self.key.iter().map(|(n, c)| value(Some(&row.key), n, c)).collect::<Result<_, _>>()?;
        let columns: Vec<String> =
            self.columns.iter().map(|(n, c)| value(row.columns.as_ref(), n, c)).collect::<Result<_, _>>()?;
        let (sequence, is_deleted) = (row.sequence, self.is_deleted);
        let mut values = key.clone();
        values.extend(columns.iter().cloned());
        values.extend([sequence.to_string(), is_deleted.to_string()]);
        let values = values.join(", ");
        if self.how == How::Upsert {
            return Ok(format!("({values})"));
        }
        let (seq, deleted, table) = (name(SEQ), name(DELETED), &self.table);
        let same: Vec<String> = self.key.iter().zip(&key).map(|((n, _), v)| format!("{} = {v}", name(n))).collect();
        let same = same.join(" and ");
        let mut set: Vec<String> =
            self.columns.iter().zip(&columns).map(|((n, _), v)| format!("{} = {v}", name(n))).collect();
        set.extend(self.stale.iter().map(|column| format!("{column} = if({deleted}, null, {column})")));
        set.extend([format!("{deleted} = {is_deleted}"), format!("{seq} = {sequence}")]);
        let mut all =
            format!("update {table} set {} where {same} and ({seq} is null or {seq} < {sequence})", set.join(", "));
        if self.how == How::UpdateThenInsert {
            // A lack that is not written is an error also where nothing is inserted.
            let lacking: String = self.lacking.iter().map(|column| format!(", {column}")).collect();
            let nulls = ", null".repeat(self.lacking.len());
            all.push_str(&format!(
                ";insert into {table} ({}{lacking}) select {values}{nulls} from dual where not exists (select 1 from {table} as there where {same})",
                self.into()
            ));
        }
        Ok(all)
    }
}
