//! The tables of a server, or of one of its databases, with their keys, for who proposes what to do with them.
//!
//! Reference: MySQL Reference Manual, "INFORMATION_SCHEMA Tables": `TABLES`, `COLUMNS`, `STATISTICS`, `KEY_COLUMN_USAGE`.

use std::collections::{BTreeMap, HashMap};

use tributary_event::TableName;

use super::wire::session::{Session, literal};
use crate::dependent::description::{Description, Reference};
use crate::error::ConnectorError;
use crate::settings::Secret;

/// Columns of foreign keys: where they are, by what name, which column, and what they name.
type KeyColumn = (String, String, String, String, String, String, String);

/// Describes the tables that the user may see, the server's own left out; sorted by name. A URL with a database: those of it alone.
///
/// # Errors
/// The server does not answer, or lets us not in.
pub async fn describe(url: &Secret) -> Result<Vec<Description>, ConnectorError> {
    let mut session = Session::open(url).await?;
    let of = match database(url.expose()) {
        Some(name) => format!("table_schema = {}", literal(&name)),
        None => "table_schema not in ('mysql', 'sys', 'information_schema', 'performance_schema')".to_owned(),
    };
    let tables: Vec<(String, String)> = session
        .rows(
            "reading information_schema.tables",
            &format!(
                "select table_schema, table_name from information_schema.tables where {of} and table_type in ('BASE TABLE', \
                 'SYSTEM VERSIONED') order by 1, 2"
            ),
        )
        .await?;
    let of_tables = |rows: Vec<(String, String, String)>| {
        let mut all: HashMap<(String, String), Vec<String>> = HashMap::new();
        rows.into_iter().for_each(|(schema, name, column)| all.entry((schema, name)).or_default().push(column));
        all
    };
    let columns = format!(
        "select table_schema, table_name, column_name from information_schema.columns where {of} order by ordinal_position"
    );
    let mut columns = of_tables(session.rows("reading information_schema.columns", &columns).await?);
    let keys = format!(
        "select table_schema, table_name, column_name from information_schema.statistics where {of} and index_name = 'PRIMARY' \
         order by seq_in_index"
    );
    let keys = of_tables(session.rows("reading information_schema.statistics", &keys).await?);
    let foreign = format!(
        "select table_schema, table_name, constraint_name, column_name, referenced_table_schema, referenced_table_name, \
         referenced_column_name from information_schema.key_column_usage where {of} and referenced_table_name is not null \
         order by constraint_name, ordinal_position"
    );
    let foreign: Vec<KeyColumn> = session.rows("reading information_schema.key_column_usage", &foreign).await?;
    session.close().await;
    let mut references = references(foreign, &keys);
    let describe = |table: (String, String)| Description {
        name: TableName::new(table.0.as_str(), table.1.as_str()),
        columns: columns.remove(&table).unwrap_or_default(),
        key: keys.get(&table).cloned().unwrap_or_default(),
        references: references.remove(&table).unwrap_or_default(),
    };
    Ok(tables.into_iter().map(describe).collect())
}

/// The foreign keys of tables that name a primary key.
fn references(
    columns: Vec<KeyColumn>,
    keys: &HashMap<(String, String), Vec<String>>,
) -> HashMap<(String, String), Vec<Reference>> {
    /// Columns of a foreign key, the table that they name, and its columns.
    type Key = (Vec<String>, (String, String), Vec<String>);
    let mut all: BTreeMap<(String, String, String), Key> = BTreeMap::new();
    for (schema, name, constraint, column, to_schema, to, to_column) in columns {
        let key = all.entry((schema, name, constraint)).or_insert_with(|| (Vec::new(), (to_schema, to), Vec::new()));
        key.0.push(column);
        key.2.push(to_column);
    }
    let mut references: HashMap<(String, String), Vec<Reference>> = HashMap::new();
    for ((schema, name, _), (own, to, named)) in all {
        if keys.get(&to) == Some(&named) {
            references.entry((schema, name)).or_default().push((own, TableName::new(to.0.as_str(), to.1.as_str())));
        }
    }
    references
}

/// The database that a URL names.
fn database(url: &str) -> Option<String> {
    let behind = url.split_once("://")?.1;
    let path = behind.split_once('/')?.1;
    let name = path.split('?').next().unwrap_or_default();
    let encoded = format!("x={}", name.replace('+', "%2B"));
    let decoded = url::form_urlencoded::parse(encoded.as_bytes()).next()?.1.into_owned();
    (!decoded.is_empty()).then_some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_name_a_database() {
        assert_eq!(database("mysql://u:p%2F@h:1/films?ssl-mode=REQUIRED").as_deref(), Some("films"));
        assert_eq!(database("mysql://u@h/a%20b").as_deref(), Some("a b"));
        assert_eq!(database("mysql://u@h,i:33"), None);
        assert_eq!(database("mysql://u@h/?ssl-mode=REQUIRED"), None);
    }

    #[test]
    fn a_reference_names_a_whole_primary_key() {
        let table = |name: &str| ("s".to_owned(), name.to_owned());
        let keys = HashMap::from([
            (table("movie"), vec!["id".to_owned()]),
            (table("hall"), vec!["house".to_owned(), "number".to_owned()]),
        ]);
        let column = |constraint: &str, column: &str, to: &str, named: &str| -> KeyColumn {
            ["s", "screening", constraint, column, "s", to, named].map(str::to_owned).into()
        };
        let found = references(
            vec![
                column("a", "house", "hall", "house"),
                column("a", "hall", "hall", "number"),
                column("b", "movie_id", "movie", "id"),
                column("c", "isan", "movie", "isan"),
            ],
            &keys,
        );
        let expected = vec![
            (vec!["house".to_owned(), "hall".to_owned()], TableName::new("s", "hall")),
            (vec!["movie_id".to_owned()], TableName::new("s", "movie")),
        ];
        assert_eq!(found, HashMap::from([(table("screening"), expected)]));
    }
}
