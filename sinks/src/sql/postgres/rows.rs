//! Rows → statements of PostgreSQL. A row is written if it is newer than the one that is there, so that what is written again changes
//! nothing.

use std::fmt::Write as _;

use tokio_postgres::types::Type;

use super::super::database::Dialect as _;
use super::super::failure::Failure;
use super::super::fold::{DELETED, Row, SEQ};
use super::super::table::{Table, Target};
use super::dialect::Postgres;
use super::session::PostgresSession;

/// Marks what is older as deleted.
pub(super) async fn truncate(session: &PostgresSession, target: &Target, sequence: i64) -> Result<(), Failure> {
    // It touches every row, however many there are.
    session.batch("set local statement_timeout = 0").await?;
    let (seq, deleted) = (Postgres.quote(SEQ), Postgres.quote(DELETED));
    let statement = format!(
        "update {} set {deleted} = true, {seq} = $1 where ({seq} is null or {seq} < $1) and {deleted} is not true",
        target.sql(&Postgres)
    );
    session.execute(&statement, &[(&sequence, Type::INT8)]).await.map(drop)
}

/// Removes rows that were deleted, but for those that somebody else is writing.
pub(super) async fn remove(session: &PostgresSession, target: &Target, old: i64, most: i64) -> Result<u64, Failure> {
    let (table, key) = (target.sql(&Postgres), Postgres.list(&target.key));
    let (seq, deleted) = (Postgres.quote(SEQ), Postgres.quote(DELETED));
    let delete = format!(
        "delete from {table} where ({key}) in (select {key} from {table} where {deleted} and {seq} <= $1 limit {most} \
         for update skip locked) and {deleted} and {seq} <= $1"
    );
    session.execute(&delete, &[(&old, Type::INT8)]).await
}

/// The statements for rows that have the same columns; their parameter is the rows as a list of JSON.
pub(super) struct Statements<'a> {
    /// The key's columns.
    key: &'a [String],
    /// The other ones that are written.
    columns: Vec<&'a String>,
    /// In their order.
    sql: Vec<String>,
}

impl<'a> Statements<'a> {
    /// Columns that the table lacks have null in all rows, or they would have been added; those that it computes are left to it.
    pub(super) fn new(target: &'a Target, table: &Table, columns: Option<&'a [String]>) -> Self {
        let quote = |name: &str| Postgres.quote(name);
        let is_written = |name: &&String| table.columns.get(*name).is_some_and(|column| !column.computed);
        let written: Vec<&String> = columns.unwrap_or_default().iter().filter(is_written).collect();
        let is_absent = |name: &&String| {
            let own = [SEQ, DELETED].contains(&name.as_str());
            !own && !target.key.contains(name) && !written.contains(name)
        };
        let absent = || table.columns.iter().filter(|(name, _)| is_absent(name));
        let (seq, deleted, table_sql) = (quote(SEQ), quote(DELETED), target.sql(&Postgres));
        let is_deleted = columns.is_none();

        // What becomes of a row that is there; `{from}` has the new values.
        let set = |from: &str| {
            let mut set: Vec<String> = written.iter().map(|name| format!("{0} = {from}.{0}", quote(name))).collect();
            set.push(format!("{seq} = {from}.{seq}, {deleted} = {is_deleted}"));
            if !is_deleted {
                // A row that comes after a delete has nothing of the one before it.
                let stale = absent().filter(|(_, column)| column.nullable && !column.computed);
                set.extend(
                    stale.map(|(name, _)| {
                        format!("{0} = case when t.{deleted} is not true then t.{0} end", quote(name))
                    }),
                );
            }
            set.join(", ")
        };
        let newer = |from: &str| format!("(t.{seq} is null or t.{seq} < {from}.{seq})");
        let same = |one: &str, other: &str| {
            let equal = target.key.iter().map(|name| format!("{one}.{0} = {other}.{0}", quote(name)));
            equal.collect::<Vec<_>>().join(" and ")
        };
        let rows = format!("pg_catalog.jsonb_populate_recordset(null::{table_sql}, $1::text::jsonb) as r");
        let into: Vec<String> = target.key.iter().chain(written.iter().copied()).map(|name| quote(name)).collect();
        let values: Vec<String> = into.iter().map(|name| format!("r.{name}")).collect();
        let insert = |only: &str| {
            format!(
                "insert into {table_sql} as t ({}, {seq}, {deleted}) overriding system value \
                 select {}, r.{seq}, {is_deleted} from {rows}{only} \
                 on conflict ({}) do update set {} where {}",
                into.join(", "),
                values.join(", "),
                Postgres.list(&target.key),
                set("excluded"),
                newer("excluded")
            )
        };
        let mut sql = Vec::new();
        if absent().any(|(_, column)| column.needed) {
            // An insert would be refused for what these rows lack, also where they are there already.
            sql.push(format!(
                "update {table_sql} as t set {} from {rows} where {} and {}",
                set("r"),
                same("t", "r"),
                newer("r")
            ));
            // Of a row that never was there a delete leaves no trace where a trace cannot be had.
            if !is_deleted {
                let there = format!("select 1 from {table_sql} as e where {}", same("e", "r"));
                sql.push(insert(&format!(" where not exists ({there})")));
            }
        } else {
            sql.push(insert(""));
        }
        Self { key: &target.key, columns: written, sql }
    }

    pub(super) async fn run(&self, session: &PostgresSession, rows: &[Row]) -> Result<(), Failure> {
        let json = self.json(rows);
        for statement in &self.sql {
            session.execute(statement, &[(&json, Type::TEXT)]).await?;
        }
        Ok(())
    }

    /// Rows as a list of JSON, values as they came.
    fn json(&self, rows: &[Row]) -> String {
        let names: Vec<String> = self.key.iter().chain(self.columns.iter().copied()).map(|name| text(name)).collect();
        let mut json = String::from("[");
        for (n, row) in rows.iter().enumerate() {
            let _ = write!(json, "{}{{\"{SEQ}\":{}", if n == 0 { "" } else { "," }, row.sequence);
            let key = self.key.iter().map(|name| row.key.get(name));
            let columns = self.columns.iter().map(|name| row.columns.as_ref().and_then(|columns| columns.get(*name)));
            for (name, value) in names.iter().zip(key.chain(columns)) {
                let _ = write!(json, ",{name}:{}", value.map_or("null", |value| value.get()));
            }
            json.push('}');
        }
        json.push(']');
        json
    }
}

/// A text as JSON.
fn text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
