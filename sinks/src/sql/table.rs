//! The target table: what it has, what rows need of it, and the statements in between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;
use tokio_postgres::types::Type;
use tributary_event::TableName;

use super::failure::Failure;
use super::fold::{DELETED, Row, SEQ};
use super::session::Session;

/// Which table rows go to.
#[derive(Debug)]
pub(super) struct Target {
    /// Its schema and name.
    pub(super) name: TableName,
    /// The same in SQL.
    pub(super) sql: String,
    /// The columns of its key.
    pub(super) key: Vec<String>,
    /// Whether it is made, and gets columns that it lacks.
    pub(super) create: bool,
}

/// A column.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Column {
    /// Its type as SQL writes it.
    pub(super) kind: String,
    /// A row without a value for it is refused.
    pub(super) needed: bool,
    /// It may be null.
    pub(super) nullable: bool,
    /// The database computes it; what rows say of it is left out.
    pub(super) computed: bool,
}

/// A table as it was when it was looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) columns: BTreeMap<String, Column>,
    /// The columns of each unique index that `on conflict` may name.
    unique: Vec<BTreeSet<String>>,
    /// Rows can be written to it.
    is_table: bool,
}

/// A name in SQL, whatever it contains.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Table {
    /// Looks at the table; none: there is none.
    pub(super) async fn read(session: &Session<'_>, target: &Target) -> Result<Option<Self>, Failure> {
        const KIND: &str = "select c.oid, c.relkind in ('r', 'p') from pg_catalog.pg_class c \
             where c.oid = pg_catalog.to_regclass($1)";
        const COLUMNS: &str = "select a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull, a.atthasdef, \
             a.attgenerated <> '' or a.attidentity = 'a', a.attidentity <> '' \
             from pg_catalog.pg_attribute a where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped";
        const UNIQUE: &str = "select array(select a.attname::text from pg_catalog.pg_attribute a \
             where a.attrelid = i.indrelid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
             from pg_catalog.pg_index i where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indimmediate \
             and i.indpred is null and i.indexprs is null";
        let kind = session.query(KIND, &[(&target.sql, Type::TEXT)]).await?;
        let Some(row) = kind.first() else { return Ok(None) };
        let (oid, is_table): (u32, bool) = (row.get(0), row.get(1));
        let mut table = Self { is_table, ..Self::default() };
        for row in session.query(COLUMNS, &[(&oid, Type::OID)]).await? {
            let (not_null, has_default, computed, identity): (bool, bool, bool, bool) =
                (row.get(2), row.get(3), row.get(4), row.get(5));
            let needed = not_null && !has_default && !computed && !identity;
            let column = Column { kind: row.get(1), needed, nullable: !not_null, computed };
            table.columns.insert(row.get(0), column);
        }
        for row in session.query(UNIQUE, &[(&oid, Type::OID)]).await? {
            table.unique.push(row.get::<_, Vec<String>>(0).into_iter().collect());
        }
        Ok(Some(table))
    }
}

/// What a value needs of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Boolean,
    Bigint,
    Numeric,
    Text,
    Jsonb,
}

impl Kind {
    /// The kind of a value; null has none.
    fn of(value: &RawValue) -> Option<Self> {
        let text = value.get();
        Some(match text.as_bytes().first()? {
            b'n' => return None,
            b't' | b'f' => Self::Boolean,
            b'"' => Self::Text,
            b'{' | b'[' => Self::Jsonb,
            _ if text.parse::<i64>().is_ok() => Self::Bigint,
            _ => Self::Numeric,
        })
    }

    /// A kind for both, where there is one; else the first, and the database says what becomes of the other.
    fn and(self, other: Self) -> Self {
        if (self, other) == (Self::Bigint, Self::Numeric) { other } else { self }
    }

    fn sql(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Bigint => "bigint",
            Self::Numeric => "numeric",
            Self::Text => "text",
            Self::Jsonb => "jsonb",
        }
    }
}

/// The kinds of all columns that rows have a value for.
fn kinds(rows: &[Row]) -> BTreeMap<&str, Kind> {
    let mut kinds: BTreeMap<&str, Kind> = BTreeMap::new();
    for row in rows {
        for (name, value) in [Some(&row.key), row.columns.as_ref()].into_iter().flatten().flatten() {
            if let Some(kind) = Kind::of(value) {
                kinds.entry(name).and_modify(|known| *known = known.and(kind)).or_insert(kind);
            }
        }
    }
    kinds
}

/// The statements after which the table can take the rows. Pure. `Err`: what somebody has to do, where that is not ours to do.
pub(super) fn changes(table: Option<&Table>, target: &Target, rows: &[Row]) -> Result<Vec<String>, String> {
    let kinds = kinds(rows);
    let (sql, name) = (&target.sql, &target.name);
    let Some(table) = table else {
        let create = create(target, &kinds);
        return match target.create {
            true => Ok(if rows.is_empty() { Vec::new() } else { create }),
            false => Err(format!("the table {name} does not exist; set `create: true`, or run: {}", create.join(" "))),
        };
    };
    if !table.is_table {
        return Err(format!("{name} is no table, so rows cannot be upserted; name a table"));
    }
    for (own, kind) in [(SEQ, "bigint"), (DELETED, "boolean")] {
        if let Some(column) = table.columns.get(own)
            && column.kind != kind
        {
            return Err(format!(
                "the column {own} of {name} is {}, and must be {kind}; rename or change it",
                column.kind
            ));
        }
    }
    let mut added: Vec<String> = Vec::new();
    for (own, definition) in [(SEQ, "bigint"), (DELETED, "boolean not null default false")] {
        if !table.columns.contains_key(own) {
            added.push(format!("add column {} {definition}", quote(own)));
        }
    }
    let lacking = kinds.iter().filter(|(column, _)| !table.columns.contains_key(**column));
    added.extend(lacking.map(|(column, kind)| format!("add column {} {}", quote(column), kind.sql())));
    if !added.is_empty() && !target.create {
        return Err(format!(
            "the table {name} lacks columns; set `create: true`, remove what is not wanted in `row`, or run: alter table {sql} {};",
            added.join(", ")
        ));
    }
    let key: BTreeSet<String> = target.key.iter().cloned().collect();
    if !table.unique.contains(&key) {
        let columns = list(&target.key);
        return Err(format!(
            "the table {name} has no unique index of its key alone ({columns}); run: alter table {sql} add unique ({columns});"
        ));
    }
    if target.create {
        let wide = |column: &str| table.columns.get(column).is_some_and(|known| known.kind == "bigint");
        let widened = kinds.iter().filter(|(column, kind)| **kind == Kind::Numeric && wide(column));
        added.extend(widened.map(|(column, _)| format!("alter column {} type numeric", quote(column))));
    }
    Ok(if added.is_empty() { added } else { vec![format!("alter table {sql} {};", added.join(", "))] })
}

fn create(target: &Target, kinds: &BTreeMap<&str, Kind>) -> Vec<String> {
    let sql = &target.sql;
    let key = target.key.iter().map(|name| (name.as_str(), kinds.get(name.as_str()).copied().unwrap_or(Kind::Text)));
    let others = kinds.iter().filter(|(name, _)| !target.key.iter().any(|key| key == *name)).map(|(n, k)| (*n, *k));
    let columns: Vec<String> = key.chain(others).map(|(n, kind)| format!("{} {}", quote(n), kind.sql())).collect();
    let (seq, deleted) = (quote(SEQ), quote(DELETED));
    vec![
        format!(
            "create table {sql} ({}, {seq} bigint not null, {deleted} boolean not null default false, primary key ({}));",
            columns.join(", "),
            list(&target.key)
        ),
        format!("create index on {sql} ({seq}) where {deleted};"),
    ]
}

/// Names in SQL, with commas between.
pub(super) fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(create: bool) -> Target {
        Target { name: "public.orders".into(), sql: "\"public\".\"orders\"".into(), key: vec!["id".into()], create }
    }

    fn row(columns: &str) -> Row {
        let values = |text: &str| serde_json::from_str(text).expect("values");
        Row { event: 0, sequence: 1, key: values(r#"{"id":1}"#), columns: Some(values(columns)) }
    }

    fn table(columns: &[(&str, &str)]) -> Table {
        let column = |kind: &str| Column { kind: kind.into(), nullable: true, ..Column::default() };
        let own = [("id", "bigint"), (SEQ, "bigint"), (DELETED, "boolean")];
        let columns = own.iter().chain(columns).map(|(name, kind)| ((*name).to_owned(), column(kind))).collect();
        Table { columns, unique: vec![BTreeSet::from(["id".to_owned()])], is_table: true }
    }

    #[test]
    fn types_are_those_of_the_values() {
        let rows = [
            row(r#"{"a":true,"b":1,"c":1.0,"d":"x","e":[1],"f":{},"g":null,"h":1,"i":9223372036854775808,"j":1e2}"#),
            row(r#"{"h":0.5,"odd\"name":1}"#),
        ];
        let statements = changes(None, &target(true), &rows).expect("statements");
        assert_eq!(
            statements[0],
            "create table \"public\".\"orders\" (\"id\" bigint, \"a\" boolean, \"b\" bigint, \"c\" numeric, \"d\" text, \"e\" jsonb, \
             \"f\" jsonb, \"h\" numeric, \"i\" numeric, \"j\" numeric, \"odd\"\"name\" bigint, \"_seq\" bigint not null, \
             \"_deleted\" boolean not null default false, primary key (\"id\"));"
        );
        assert_eq!(changes(None, &target(true), &[]), Ok(vec![]));
    }

    #[test]
    fn columns_are_added_and_widened() {
        let known = table(&[("a", "bigint"), ("b", "text")]);
        let changed = |columns| changes(Some(&known), &target(true), &[row(columns)]);
        assert_eq!(changed(r#"{"a":1,"b":2,"c":null}"#), Ok(vec![]));
        assert_eq!(
            changed(r#"{"a":1.5,"b":2.5,"c":3}"#),
            Ok(vec![
                "alter table \"public\".\"orders\" add column \"c\" bigint, alter column \"a\" type numeric;"
                    .to_owned()
            ])
        );
    }

    #[test]
    fn what_is_not_ours_to_change_is_told_with_the_statement_that_does() {
        let told = |table: &Table| changes(Some(table), &target(false), &[row(r#"{"a":1}"#)]).expect_err("told");
        assert!(told(&table(&[])).ends_with("run: alter table \"public\".\"orders\" add column \"a\" bigint;"));
        let mut lacking = table(&[("a", "integer")]);
        assert_eq!(changes(Some(&lacking), &target(false), &[row(r#"{"a":1.5}"#)]), Ok(vec![]));
        lacking.columns.remove(SEQ);
        assert!(told(&lacking).contains("add column \"_seq\" bigint"));
        let mut keyless = table(&[("a", "integer")]);
        keyless.unique = vec![["id", "a"].map(str::to_owned).into()];
        assert!(told(&keyless).ends_with("alter table \"public\".\"orders\" add unique (\"id\");"));
        let mut odd = table(&[("a", "integer")]);
        odd.columns.entry(SEQ.into()).or_default().kind = "text".into();
        assert!(told(&odd).contains("must be bigint"));
        assert!(changes(None, &target(false), &[row("{}")]).expect_err("told").contains("create table"));
    }
}
