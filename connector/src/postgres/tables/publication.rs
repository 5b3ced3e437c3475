//! The publication: created if absent, completed if tables are missing, refused if it would hide changes.
//!
//! Reference: PostgreSQL documentation, `CREATE PUBLICATION`, "Logical Replication", Security.

use std::collections::HashMap;

use tributary_event::ErrorClass;

use super::catalog::TableInfo;
use crate::error::ConnectorError;
use crate::postgres::wire::endpoint::Endpoint;
use crate::postgres::wire::sql::Sql;
use crate::postgres::wire::sqlstate::{ServerError, quote};

/// What a publication has.
pub(in crate::postgres) struct Published {
    /// By schema and name.
    tables: HashMap<(String, String), Entry>,
    /// Whether it has the stored generated columns of tables that are added without a list of columns.
    pub(in crate::postgres) stored_generated: bool,
    /// Of `insert`, `update`, `delete` and `truncate`, those that it leaves out.
    pub(in crate::postgres) left_out: Vec<&'static str>,
}

/// What it has of a table.
struct Entry {
    /// Their names; unknown before PostgreSQL 15, where it has all of them.
    columns: Option<Vec<String>>,
    /// The condition that a row must meet.
    row_filter: Option<String>,
}

impl Published {
    /// What the publication has now; nothing if there is none.
    pub(in crate::postgres) async fn read(sql: &Sql, publication: &str) -> Result<Self, ConnectorError> {
        // The view got its columns with 15; a table without columns has null there.
        const SQL: &str = "select schemaname::text, tablename::text, case when to_jsonb(p) ? 'attnames' then \
                array(select jsonb_array_elements_text(coalesce(nullif(to_jsonb(p) -> 'attnames', 'null'), '[]'))) end, \
                to_jsonb(p) ->> 'rowfilter' \
            from pg_catalog.pg_publication_tables p where pubname = $1::text::name";
        // The last since 18.
        const FACTS: &str = "select pubinsert, pubupdate, pubdelete, pubtruncate, coalesce(to_jsonb(p) ->> 'pubgencols' = 's', false) \
            from pg_catalog.pg_publication p where pubname = $1::text::name";
        let tables = sql.query("reading pg_publication_tables", SQL, &[&publication]).await?;
        let facts = sql.query("reading pg_publication", FACTS, &[&publication]).await?;
        let facts = facts.first();
        let left_out = ["insert", "update", "delete", "truncate"].into_iter().enumerate();
        let left_out = left_out.filter(|(i, _)| facts.is_some_and(|row| !row.get::<_, bool>(*i))).map(|(_, name)| name);
        let entry = |row: &tokio_postgres::Row| {
            ((row.get(0), row.get(1)), Entry { columns: row.get(2), row_filter: row.get(3) })
        };
        Ok(Self {
            tables: tables.iter().map(entry).collect(),
            stored_generated: facts.is_some_and(|row| row.get(4)),
            left_out: left_out.collect(),
        })
    }

    fn entry(&self, schema: &str, table: &str) -> Option<&Entry> {
        self.tables.get(&(schema.to_owned(), table.to_owned()))
    }

    /// The published columns of a table; none if it is not published yet, or has all of them.
    pub(in crate::postgres) fn columns(&self, schema: &str, table: &str) -> Option<&[String]> {
        self.entry(schema, table)?.columns.as_deref()
    }

    /// The condition that a table's rows must meet, if there is one.
    pub(in crate::postgres) fn row_filter(&self, schema: &str, table: &str) -> Option<&str> {
        self.entry(schema, table)?.row_filter.as_deref()
    }

    /// The tables that the publication lacks.
    pub(in crate::postgres) fn missing(&self, tables: &[TableInfo]) -> Vec<TableInfo> {
        let is_missing = |table: &&TableInfo| !self.tables.contains_key(&table.name());
        tables.iter().filter(is_missing).cloned().collect()
    }
}

/// Makes sure that the publication has the tables; gives those that it lacked.
pub(in crate::postgres) async fn ensure(
    sql: &Sql,
    endpoint: &Endpoint,
    publication: &str,
    tables: &[TableInfo],
) -> Result<Vec<TableInfo>, ConnectorError> {
    let lacked = complete(sql, endpoint, publication, tables).await?;
    if lacked.is_empty() {
        return Ok(lacked);
    }
    match Published::read(sql, publication).await?.missing(&lacked).first() {
        None => Ok(lacked),
        Some(table) => Err(ConnectorError::Table {
            table: table.schema.qualified_name(),
            cause: format!("the publication {publication} publishes the table that it is a partition of in its place"),
            remedy: "list that table instead, or capture the partition with a source of its own".into(),
        }),
    }
}

/// Makes the publication, or adds the tables that it lacks; gives those that were added.
async fn complete(
    sql: &Sql,
    endpoint: &Endpoint,
    publication: &str,
    tables: &[TableInfo],
) -> Result<Vec<TableInfo>, ConnectorError> {
    const FACTS: &str = "select pubviaroot, pubinsert, pubupdate, pubdelete, pubtruncate \
        from pg_catalog.pg_publication where pubname = $1::text::name";
    let names = |tables: &[&TableInfo]| {
        let quoted = tables.iter().map(|t| format!("{}.{}", quote(&t.schema.schema), quote(&t.schema.name)));
        quoted.collect::<Vec<_>>().join(", ")
    };
    let rows = sql.query("reading pg_publication", FACTS, &[&publication]).await?;
    let Some(facts) = rows.first() else {
        let all: Vec<&TableInfo> = tables.iter().collect();
        let statement = format!(
            "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)",
            quote(publication),
            names(&all)
        );
        tracing::info!(publication, "creating the publication");
        return match sql.execute(&statement).await? {
            Ok(()) => Ok(tables.to_vec()),
            // Another process was faster; it is checked like any other.
            Err(error) if matches!(error.code.as_str(), "42710" | "23505") => {
                Box::pin(complete(sql, endpoint, publication, tables)).await
            }
            Err(error) => Err(refused(&error, endpoint, publication, tables, &statement)),
        };
    };
    let operations = ["insert", "update", "delete", "truncate"];
    let left_out: Vec<&str> =
        operations.iter().enumerate().filter(|(i, _)| !facts.get::<_, bool>(i + 1)).map(|(_, o)| *o).collect();
    if !left_out.is_empty() {
        tracing::warn!(publication, ?left_out, "the publication leaves operations out; their changes will not be seen");
    }
    if let (false, Some(table)) = (facts.get::<_, bool>(0), tables.iter().find(|t| t.kind == 'p')) {
        return Err(ConnectorError::Table {
            table: table.schema.qualified_name(),
            cause: format!(
                "it is partitioned, and the publication {publication} publishes its partitions in its place"
            ),
            remedy: format!("run: ALTER PUBLICATION {} SET (publish_via_partition_root = true);", quote(publication)),
        });
    }
    let missing = Published::read(sql, publication).await?.missing(tables);
    if missing.is_empty() {
        return Ok(missing);
    }
    let statement =
        format!("ALTER PUBLICATION {} ADD TABLE {}", quote(publication), names(&missing.iter().collect::<Vec<_>>()));
    match sql.execute(&statement).await? {
        Ok(()) => {
            tracing::info!(publication, tables = missing.len(), "tables were added to the publication");
            Ok(missing)
        }
        // Added by another process meanwhile.
        Err(error) if error.code == "42710" => Ok(missing),
        Err(error) => Err(refused(&error, endpoint, publication, tables, &statement)),
    }
}

/// The error of a publication that could not be made or changed, with what an administrator should run.
fn refused(
    error: &ServerError,
    endpoint: &Endpoint,
    publication: &str,
    tables: &[TableInfo],
    statement: &str,
) -> ConnectorError {
    if error.code == "25006" {
        return ConnectorError::Server {
            place: endpoint.place(),
            cause: format!("it is a standby, where the publication {publication} cannot be made or changed"),
            remedy: format!("run on the primary: {statement};"),
            class: ErrorClass::Fatal,
        };
    }
    if error.code != "42501" {
        return error.classify(endpoint, "creating the publication");
    }
    let mut remedy = format!("{statement};  -- as the owner of the tables or a superuser");
    if error.message.contains("for database") {
        remedy = format!(
            "GRANT CREATE ON DATABASE {} TO {};  -- or, as the tables' owner: {statement};",
            quote(&endpoint.database),
            quote(&endpoint.user)
        );
    } else if error.message.contains("owner of publication") {
        remedy = format!("{statement};  -- as the owner of the publication or a superuser");
    } else if let Some(table) = tables.iter().find(|t| !t.owned).filter(|_| error.message.contains("owner of table")) {
        return ConnectorError::Privilege {
            place: format!("publication {publication}"),
            cause: format!("the role {} does not own the table {}", endpoint.user, table.schema.qualified_name()),
            remedy,
        };
    }
    ConnectorError::Privilege {
        place: format!("publication {publication}"),
        cause: format!("the role {} may not do this: {}", endpoint.user, error.text()),
        remedy,
    }
}
