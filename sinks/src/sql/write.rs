//! Rows → statements. A row is written if it is newer than the one that is there, so that what is written again changes nothing.

use std::fmt::Write as _;

use tokio_postgres::types::Type;

use super::failure::Failure;
use super::fold::{DELETED, Row, SEQ, Step, Unfit};
use super::session::Session;
use super::table::{Table, Target, list, quote};

/// How far a row that the database refuses is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Care {
    /// Not at all: the transaction fails.
    Plain,
    /// Statements that fail are taken back, and their rows written by halves.
    Halving,
    /// The same, with constraints that would else be looked at when the transaction ends.
    Immediate,
}

/// Writes all steps. `Ok(Err)`: the row that the database refuses.
pub(super) async fn apply(
    session: &Session<'_>,
    (target, table): (&Target, &Table),
    steps: &[Step],
    care: Care,
) -> Result<Result<(), Unfit>, Failure> {
    if care == Care::Immediate {
        session.run("set constraints all immediate").await?;
    }
    for step in steps {
        match step {
            Step::Truncate { sequence, event } => match truncate(session, target, *sequence).await {
                Err(Failure::Row(why)) if care != Care::Plain => return Ok(Err((*event, why))),
                done => done?,
            },
            Step::Rows(columns, rows) => {
                let statements = Statements::new(target, table, columns.as_deref());
                if care == Care::Plain {
                    statements.run(session, rows).await?;
                } else if let Err(unfit) = by_halves(session, &statements, rows).await? {
                    return Ok(Err(unfit));
                }
            }
        }
    }
    Ok(Ok(()))
}

/// Writes rows that the database may refuse together though it takes each, or of which it may refuse one.
async fn by_halves(
    session: &Session<'_>,
    statements: &Statements<'_>,
    rows: &[Row],
) -> Result<Result<(), Unfit>, Failure> {
    // Parts that are still to be written, the next one last.
    let mut left = vec![rows];
    while let Some(part) = left.pop() {
        session.run("savepoint part").await?;
        match statements.run(session, part).await {
            Ok(()) => session.run("release savepoint part").await?,
            Err(Failure::Row(why)) => {
                session.run("rollback to savepoint part").await?;
                if let [row] = part {
                    return Ok(Err((row.event, why)));
                }
                let (first, second) = part.split_at(part.len() / 2);
                left.extend([second, first]);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(Ok(()))
}

async fn truncate(session: &Session<'_>, target: &Target, sequence: i64) -> Result<(), Failure> {
    // It touches every row, however many there are.
    session.run("set local statement_timeout = 0").await?;
    let (seq, deleted) = (quote(SEQ), quote(DELETED));
    let statement = format!(
        "update {} set {deleted} = true, {seq} = $1 where ({seq} is null or {seq} < $1) and {deleted} is not true",
        target.sql
    );
    session.execute(&statement, &[(&sequence, Type::INT8)]).await.map(drop)
}

/// The statements for rows that have the same columns; their parameter is the rows as a list of JSON.
struct Statements<'a> {
    /// The key's columns.
    key: &'a [String],
    /// The other ones that are written.
    columns: Vec<&'a String>,
    /// In their order.
    sql: Vec<String>,
}

impl<'a> Statements<'a> {
    /// Columns that the table lacks have null in all rows, or they would have been added; those that it computes are left to it.
    fn new(target: &'a Target, table: &Table, columns: Option<&'a [String]>) -> Self {
        let is_written = |name: &&String| table.columns.get(*name).is_some_and(|column| !column.computed);
        let written: Vec<&String> = columns.unwrap_or_default().iter().filter(is_written).collect();
        let is_absent = |name: &&String| {
            let own = [SEQ, DELETED].contains(&name.as_str());
            !own && !target.key.contains(name) && !written.contains(name)
        };
        let absent = || table.columns.iter().filter(|(name, _)| is_absent(name));
        let (seq, deleted, table_sql) = (quote(SEQ), quote(DELETED), &target.sql);
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
                list(&target.key),
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

    async fn run(&self, session: &Session<'_>, rows: &[Row]) -> Result<(), Failure> {
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
