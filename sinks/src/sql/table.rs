//! The target table: what it has, what rows need of it, and the statements in between.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::value::RawValue;
use tributary_event::TableName;

use super::database::Dialect;
use super::fold::{DELETED, Row, SEQ};

/// Which table rows go to.
#[derive(Debug)]
pub(super) struct Target {
    /// Its schema and name.
    pub(super) name: TableName,
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
    /// It has more than a type that a change of the type would lose.
    pub(super) fixed: bool,
}

impl Target {
    /// Its name in SQL.
    pub(super) fn sql(&self, dialect: &dyn Dialect) -> String {
        format!("{}.{}", dialect.quote(&self.name.schema), dialect.quote(&self.name.name))
    }
}

/// A table as it was when it was looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub(super) columns: BTreeMap<String, Column>,
    /// The columns of each unique index that tells the rows of a key apart.
    pub(super) unique: Vec<BTreeSet<String>>,
    /// There is a unique index of another kind.
    pub(super) more_unique: bool,
    /// Rows can be written to it.
    pub(super) is_table: bool,
    /// What else is against it, and the remedy.
    pub(super) unfit: Option<String>,
    /// Names of columns that differ in case are one.
    pub(super) ignores_case: bool,
}

impl Table {
    /// The column of this name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        let alike = || self.columns.iter().find(|(known, _)| self.is_same(known, name)).map(|(_, column)| column);
        self.columns.get(name).or_else(alike)
    }

    /// Whether two names are those of one column.
    pub(super) fn is_same(&self, one: &str, other: &str) -> bool {
        one == other || self.ignores_case && one.eq_ignore_ascii_case(other)
    }

    /// Whether a unique index is one of exactly these columns.
    pub(super) fn is_of(&self, index: &BTreeSet<String>, key: &[String]) -> bool {
        index.len() == key.len() && key.iter().all(|key| index.iter().any(|column| self.is_same(column, key)))
    }
}

/// What a value needs of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Bigint,
    Numeric,
    Text,
    Json,
}

impl Kind {
    /// The kind of a value; null has none.
    pub(super) fn of(value: &RawValue) -> Option<Self> {
        let text = value.get();
        Some(match text.as_bytes().first()? {
            b'n' => return None,
            b't' | b'f' => Self::Boolean,
            b'"' => Self::Text,
            b'{' | b'[' => Self::Json,
            _ if text.parse::<i64>().is_ok() => Self::Bigint,
            _ => Self::Numeric,
        })
    }

    /// A kind for both, where there is one; else the first, and the database says what becomes of the other.
    fn and(self, other: Self) -> Self {
        if (self, other) == (Self::Bigint, Self::Numeric) { other } else { self }
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
pub(super) fn changes(
    table: Option<&Table>,
    target: &Target,
    rows: &[Row],
    dialect: &dyn Dialect,
) -> Result<Vec<String>, String> {
    let kinds = kinds(rows);
    let (sql, name) = (&target.sql(dialect), &target.name);
    let Some(table) = table else {
        let create = create(target, &kinds, dialect)?;
        return match target.create {
            true => Ok(if rows.is_empty() { Vec::new() } else { create }),
            false => Err(format!("the table {name} does not exist; set `create: on`, or run: {}", create.join(" "))),
        };
    };
    if !table.is_table {
        return Err(format!("{name} is no table, so rows cannot be upserted; name a table"));
    }
    for (own, kind) in [SEQ, DELETED].into_iter().zip(dialect.own_kinds()) {
        if let Some(column) = table.column(own)
            && !column.kind.starts_with(kind)
        {
            return Err(format!(
                "the column {own} of {name} is {}, and must be {kind}; rename or change it",
                column.kind
            ));
        }
    }
    let mut added: Vec<String> = Vec::new();
    for (own, definition) in [(SEQ, "bigint"), (DELETED, "boolean not null default false")] {
        if table.column(own).is_none() {
            added.push(format!("add column {} {definition}", dialect.quote(own)));
        }
    }
    let lacking = kinds.iter().filter(|(column, _)| table.column(column).is_none());
    added.extend(
        lacking.map(|(column, kind)| format!("add column {} {}", dialect.quote(column), dialect.kind(*kind, None))),
    );
    if !added.is_empty() && !target.create {
        return Err(format!(
            "the table {name} lacks columns; set `create: on`, remove what is not wanted in `row`, or run: alter table {sql} {};",
            added.join(", ")
        ));
    }
    if !table.unique.iter().any(|index| table.is_of(index, &target.key)) {
        let columns = dialect.list(&target.key);
        let add = dialect.add_unique(&columns);
        return Err(format!(
            "the table {name} has no unique index of its key alone ({columns}); run: alter table {sql} {add};"
        ));
    }
    if let Some(unfit) = &table.unfit {
        return Err(unfit.clone());
    }
    if target.create {
        let narrow = kinds.iter().filter(|(_, kind)| **kind == Kind::Numeric).filter_map(|(column, _)| {
            let known = table.column(column).filter(|known| known.kind == dialect.own_kinds()[0])?;
            dialect.widen(column, known)
        });
        added.extend(narrow);
    }
    Ok(if added.is_empty() { added } else { vec![format!("alter table {sql} {};", added.join(", "))] })
}

fn create(target: &Target, kinds: &BTreeMap<&str, Kind>, dialect: &dyn Dialect) -> Result<Vec<String>, String> {
    let sql = target.sql(dialect);
    let key: Vec<(&str, Kind)> = target
        .key
        .iter()
        .map(|name| (name.as_str(), kinds.get(name.as_str()).copied().unwrap_or(Kind::Text)))
        .collect();
    if let Some((name, why)) = key.iter().find_map(|(name, kind)| Some((name, dialect.unfit_key(*kind)?))) {
        return Err(format!("{name:?} cannot be in the key of {}: {why}", target.name));
    }
    let others = kinds.iter().filter(|(name, _)| !target.key.iter().any(|key| key == *name)).map(|(n, k)| (*n, *k));
    let key = key.iter().map(|(name, kind)| (*name, dialect.kind(*kind, Some(target.key.len()))));
    let others = others.map(|(name, kind)| (name, dialect.kind(kind, None)));
    let columns: Vec<String> = key.chain(others).map(|(n, kind)| format!("{} {kind}", dialect.quote(n))).collect();
    let (seq, deleted) = (dialect.quote(SEQ), dialect.quote(DELETED));
    let columns = format!(
        "{}, {seq} bigint not null, {deleted} boolean not null default false, primary key ({})",
        columns.join(", "),
        dialect.list(&target.key)
    );
    Ok(dialect.create(&sql, &columns, &seq, &deleted))
}

#[cfg(test)]
mod tests {
    use super::super::postgres::Postgres;
    use super::*;

    fn changes(table: Option<&Table>, target: &Target, rows: &[Row]) -> Result<Vec<String>, String> {
        super::changes(table, target, rows, &Postgres)
    }

    fn target(create: bool) -> Target {
        Target { name: "public.orders".into(), key: vec!["id".into()], create }
    }

    fn row(columns: &str) -> Row {
        let values = |text: &str| serde_json::from_str(text).expect("values");
        Row { event: 0, sequence: 1, key: values(r#"{"id":1}"#), columns: Some(values(columns)) }
    }

    fn table(columns: &[(&str, &str)]) -> Table {
        let column = |kind: &str| Column { kind: kind.into(), nullable: true, ..Column::default() };
        let own = [("id", "bigint"), (SEQ, "bigint"), (DELETED, "boolean")];
        let columns = own.iter().chain(columns).map(|(name, kind)| ((*name).to_owned(), column(kind))).collect();
        Table { columns, unique: vec![BTreeSet::from(["id".to_owned()])], is_table: true, ..Table::default() }
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
