//! What the catalog of MySQL and MariaDB says of a table.

use std::collections::{BTreeMap, BTreeSet};

use super::super::failure::Failure;
use super::super::table::{Column, Table, Target};
use super::dialect::texts;
use super::session::MySqlSession;

/// What a column is, beside what is common to all databases.
struct More {
    kind: String,
    collation: Option<String>,
}

/// Looks at the table; none: there is none.
pub(super) async fn table(session: &mut MySqlSession, target: &Target) -> Result<Option<Table>, Failure> {
    let [schema, name] = texts([&target.name.schema, &target.name.name]);
    let of = format!("table_schema = {schema} and table_name = {name}");
    let engine = format!("select table_type, engine from information_schema.tables where {of}");
    let Some(row) = session.texts(&engine).await?.into_iter().next() else { return Ok(None) };
    let is_table = field(&row, 0) == "BASE TABLE";
    let mut table = Table { is_table, ignores_case: true, ..Table::default() };
    let documents = documents(session, &of, &schema).await?;
    let columns = format!(
        "select column_name, column_type, is_nullable, column_default, extra, collation_name, column_comment \
         from information_schema.columns where {of}"
    );
    let mut more = BTreeMap::new();
    for row in session.texts(&columns).await? {
        let (name, extra) = (field(&row, 0).to_owned(), field(&row, 4).to_ascii_lowercase());
        let kind = match documents.contains(&name) {
            true => "json".to_owned(),
            false => plain(field(&row, 1)),
        };
        let nullable = field(&row, 2) == "YES";
        // MariaDB tells that there is none as the text `NULL`, where null may be.
        let has_default = row.get(3).is_some_and(Option::is_some) && !(nullable && field(&row, 3) == "NULL");
        let computed = extra.contains("generated") && !extra.contains("default_generated");
        let needed = !nullable && !has_default && !computed && !extra.contains("auto_increment");
        more.insert(name.clone(), More { kind: kind.clone(), collation: row.get(5).cloned().flatten() });
        let fixed = has_default || !extra.is_empty() || !field(&row, 6).is_empty();
        table.columns.insert(name, Column { kind, needed, nullable, computed, fixed });
    }
    let mut indexes: BTreeMap<String, (BTreeSet<String>, bool)> = BTreeMap::new();
    let unique = format!(
        "select index_name, column_name, sub_part from information_schema.statistics where {of} and non_unique = 0"
    );
    for row in session.texts(&unique).await? {
        let (columns, is_whole) = indexes.entry(field(&row, 0).to_owned()).or_insert_with(|| (BTreeSet::new(), true));
        // Of an expression there is no column, and of a part of one no more than that tells rows apart.
        *is_whole &= row.get(1).is_some_and(Option::is_some) && row.get(2).is_some_and(Option::is_none);
        columns.insert(field(&row, 1).to_owned());
    }
    for (columns, is_whole) in indexes.into_values() {
        match is_whole {
            true => table.unique.push(columns),
            false => table.more_unique = true,
        }
    }
    table.unfit = unfit(session, target, field(&row, 1), &more);
    Ok(Some(table))
}

fn field(row: &[Option<String>], n: usize) -> &str {
    row.get(n).and_then(Option::as_deref).unwrap_or_default()
}

/// A type as both servers write it: one of them gives integers a width for showing them.
fn plain(told: &str) -> String {
    match told.strip_prefix("bigint(").and_then(|rest| rest.split_once(')')) {
        Some((_, rest)) => format!("bigint{rest}"),
        None => told.to_owned(),
    }
}

/// The columns of documents: MariaDB's are texts with a check.
async fn documents(session: &mut MySqlSession, of: &str, schema: &str) -> Result<BTreeSet<String>, Failure> {
    if !session.is_mariadb() {
        return Ok(BTreeSet::new());
    }
    let checks = format!(
        "select check_clause from information_schema.check_constraints where constraint_schema = {schema} and {}",
        of.split_once(" and ").map_or(of, |(_, name)| name)
    );
    let rows = session.texts(&checks).await?;
    let column = |row: &Vec<Option<String>>| {
        let clause = field(row, 0).strip_prefix("json_valid(`")?.strip_suffix("`)")?;
        Some(clause.replace("``", "`"))
    };
    Ok(rows.iter().filter_map(column).collect())
}

/// What is against a table: without transactions nothing is written once, and a key whose texts are compared by their letters mixes rows.
fn unfit(session: &MySqlSession, target: &Target, engine: &str, columns: &BTreeMap<String, More>) -> Option<String> {
    let (name, sql) = (&target.name, target.sql(session.words()));
    if !engine.eq_ignore_ascii_case("InnoDB") {
        return Some(format!(
            "the table {name} is one of {engine:?}, which has no transactions; run: alter table {sql} engine = InnoDB;"
        ));
    }
    target.key.iter().find_map(|key| {
        let known = columns.iter().find(|(known, _)| known.eq_ignore_ascii_case(key));
        let ((_, More { kind, collation }), column) = (known?, super::dialect::name(key));
        let collation = collation.as_ref().filter(|collation| !collation.ends_with("_bin"))?;
        Some(format!(
            "the column {key:?} of the key of {name} is compared by {collation}, to which keys that differ in case or accents may be \
             one; run: alter table {sql} modify column {column} {kind} character set utf8mb4 collate {} not null;",
            session.words().collation
        ))
    })
}
