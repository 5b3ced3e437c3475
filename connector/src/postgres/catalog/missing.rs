//! Why a table is not found: the names that resemble it.

use super::super::sql::Sql;
use crate::error::ConnectorError;

/// An error for a table that does not exist, with the names that resemble it.
pub(in super::super) async fn no_such_table(
    sql: &Sql,
    name: &(String, String),
) -> Result<ConnectorError, ConnectorError> {
    const SQL: &str = "select n.nspname::text || '.' || c.relname::text from pg_catalog.pg_class c \
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.relkind in ('r', 'p') \
        and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast') order by 1 limit 10000";
    let rows = sql.query("listing tables", SQL, &[]).await?;
    let wanted = format!("{}.{}", name.0, name.1);
    let mut similar: Vec<(usize, String)> = rows
        .iter()
        .map(|row| {
            let known: String = row.get(0);
            let bare = known.split_once('.').map_or("", |(_, t)| t);
            let distance =
                strsim::damerau_levenshtein(&wanted, &known).min(1 + strsim::damerau_levenshtein(&name.1, bare));
            (distance, known)
        })
        .filter(|(distance, _)| *distance <= 3)
        .collect();
    similar.sort();
    let names: Vec<String> = similar.into_iter().take(3).map(|(_, n)| n).collect();
    let remedy = if names.is_empty() {
        "check the name, and that the url names the right database".to_owned()
    } else {
        format!("did you mean {}?", names.join(" or "))
    };
    Ok(ConnectorError::Table { table: wanted, cause: format!("{} has no such table", sql.endpoint().place()), remedy })
}
