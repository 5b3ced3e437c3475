//! Names under `tables` that are no tables: what they are, and what to list in their place.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_class` (`relkind`), `pg_rewrite`, `pg_depend`.

use tributary_event::TableName;

use crate::error::ConnectorError;
use crate::postgres::wire::sql::Sql;

/// An error for a name that no table has: what has it, or else which tables' names resemble it.
pub(in crate::postgres) async fn no_such_table(
    sql: &Sql,
    (schema, name): &(String, String),
) -> Result<ConnectorError, ConnectorError> {
    const KIND: &str = "select c.oid, c.relkind::text from pg_catalog.pg_class c \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2";
    let table = TableName::new(schema.as_str(), name.as_str());
    let found = sql.query("reading pg_class", KIND, &[schema, name]).await?;
    let (cause, remedy) = match found.first().map(|row| (row.get::<_, u32>(0), row.get::<_, &str>(1))) {
        Some((view, kind @ ("v" | "m"))) => view_of(sql, view, kind).await?,
        Some((foreign, "f")) => foreign_table(sql, foreign).await?,
        Some((index, "i" | "I")) => index_of(sql, index).await?,
        Some((_, "S")) => ("it is a sequence, whose values are not captured".into(), "take it out of the list".into()),
        Some((_, kind)) => {
            let kind = if kind == "c" { "a composite type" } else { "no table that can be captured" };
            (format!("it is {kind}"), "take it out of the list".into())
        }
        None => (format!("{} has no such table", sql.endpoint().place()), similar(sql, &table).await?),
    };
    Ok(ConnectorError::Table { table: table.to_string(), cause, remedy })
}

fn listed(tables: &[TableName]) -> String {
    tables.iter().map(TableName::to_string).collect::<Vec<_>>().join(", ")
}

async fn view_of(sql: &Sql, view: u32, kind: &str) -> Result<(String, String), ConnectorError> {
    // A view may read views.
    const TABLES: &str = "with recursive reads(oid) as (select $1::oid union \
            select d.refobjid from reads join pg_catalog.pg_rewrite r on r.ev_class = reads.oid \
            join pg_catalog.pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid \
                and d.refclassid = 'pg_class'::regclass) \
        select distinct n.nspname::text, c.relname::text from reads join pg_catalog.pg_class c using (oid) \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p', 'f') order by 1, 2";
    let rows = sql.query("reading what a view reads", TABLES, &[&view]).await?;
    let tables: Vec<TableName> =
        rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect();
    let kind = if kind == "v" { "a view" } else { "a materialized view" };
    let remedy = match tables.as_slice() {
        [] => "take it out of the list: it reads no table".into(),
        tables => format!("list the tables that it reads in its place: {}", listed(tables)),
    };
    Ok((format!("it is {kind}, of which the log has nothing"), remedy))
}

async fn foreign_table(sql: &Sql, table: u32) -> Result<(String, String), ConnectorError> {
    const SERVER: &str = "select s.srvname::text from pg_catalog.pg_foreign_table t \
        join pg_catalog.pg_foreign_server s on s.oid = t.ftserver where t.ftrelid = $1";
    let rows = sql.query("reading pg_foreign_table", SERVER, &[&table]).await?;
    let server = rows.first().map_or("?", |row| row.get(0));
    Ok((
        format!(
            "it is a foreign table: its rows are kept by the foreign server {server}, and the log here has nothing of them"
        ),
        "capture the table where its rows are kept, with a source of its own".into(),
    ))
}

async fn index_of(sql: &Sql, index: u32) -> Result<(String, String), ConnectorError> {
    const TABLE: &str = "select n.nspname::text, c.relname::text from pg_catalog.pg_index i \
        join pg_catalog.pg_class c on c.oid = i.indrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
        where i.indexrelid = $1";
    let rows = sql.query("reading pg_index", TABLE, &[&index]).await?;
    let table = rows.first().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)));
    let remedy = table.map_or("take it out of the list".into(), |table| format!("list its table: {table}"));
    Ok(("it is an index".into(), remedy))
}

/// The names of tables that resemble one.
async fn similar(sql: &Sql, wanted: &TableName) -> Result<String, ConnectorError> {
    const TABLES: &str = "select n.nspname::text, c.relname::text from pg_catalog.pg_class c \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p') \
        and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') order by 1, 2 limit 10000";
    let rows = sql.query("listing tables", TABLES, &[]).await?;
    let distance = |known: &TableName| {
        let bare = 1 + strsim::damerau_levenshtein(&wanted.name, &known.name);
        bare.min(strsim::damerau_levenshtein(&wanted.to_string(), &known.to_string()))
    };
    let mut similar: Vec<(usize, TableName)> = rows
        .iter()
        .map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1)))
        .map(|known| (distance(&known), known))
        .filter(|(distance, known)| *distance <= 3 || known.name.to_lowercase() == wanted.name.to_lowercase())
        .collect();
    similar.sort();
    let names: Vec<String> = similar.into_iter().take(3).map(|(_, known)| known.to_string()).collect();
    Ok(match names.as_slice() {
        [] => "check the name, and that the url names the right database".into(),
        names => format!("did you mean {}?", names.join(" or ")),
    })
}
