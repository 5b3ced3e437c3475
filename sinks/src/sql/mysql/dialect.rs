//! How MySQL and MariaDB write definitions.

use super::super::database::Dialect;
use super::super::marks::Marks;
use super::super::table::{Column, Kind};
use super::literal::quote;
use super::marks::targets;

/// A server of one of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MySql {
    /// By which texts are compared byte by byte, spaces at their ends included. The two have no such collation in common.
    pub(super) collation: &'static str,
}

/// MySQL's own.
pub(super) static MYSQL: MySql = MySql { collation: "utf8mb4_0900_bin" };
/// MariaDB's.
pub(super) static MARIADB: MySql = MySql { collation: "utf8mb4_nopad_bin" };

/// The bytes that an index takes of a row.
const INDEX: usize = 3_072;
/// The bytes of a character.
const CHARACTER: usize = 4;
/// The most characters of a text in a key.
const LONGEST: usize = 512;

/// A name, whatever it contains.
pub(super) fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl Dialect for MySql {
    fn quote(&self, text: &str) -> String {
        name(text)
    }

    /// Numbers with 35 digits before the point, and 30 behind it: as many as there can be.
    fn kind(&self, kind: Kind, in_key_of: Option<usize>) -> String {
        match (kind, in_key_of) {
            (Kind::Boolean, _) => "boolean".to_owned(),
            (Kind::Bigint, _) => "bigint".to_owned(),
            (Kind::Numeric, _) => "decimal(65,30)".to_owned(),
            (Kind::Text, None) => "longtext".to_owned(),
            (Kind::Text | Kind::Json, Some(columns)) => {
                format!("varchar({})", (INDEX / CHARACTER / columns.max(1)).min(LONGEST))
            }
            (Kind::Json, None) => "json".to_owned(),
        }
    }

    fn own_kinds(&self) -> [&'static str; 2] {
        ["bigint", "tinyint"]
    }

    fn create(&self, table: &str, columns: &str, seq: &str, deleted: &str) -> Vec<String> {
        let options = format!("engine = InnoDB default character set utf8mb4 collate {}", self.collation);
        vec![format!("create table {table} ({columns}, key ({deleted}, {seq})) {options};")]
    }

    fn create_marks(&self, marks: &Marks) -> String {
        // The two have no statement in common that adds a column where it is not there.
        let targets = targets(&marks.schema);
        let [marks, samples] = marks.tables(self);
        let widen = quote(&format!("alter table {marks} add column target varchar(250)"));
        let options = format!("engine = InnoDB default character set utf8mb4 collate {}", self.collation);
        format!(
            "create table if not exists {marks} (stream varchar(250), sink varchar(250), topic varchar(250), `partition` bigint, \
             next bigint not null, topic_id varchar(64), target varchar(250), primary key (stream, sink, topic, `partition`)) {options}; \
             create table if not exists {samples} (stream varchar(250), sink varchar(250), at datetime(6), seq bigint not null, \
             primary key (stream, sink, at)) {options}; \
             set @widen = (select if(count(*) = 0, {widen}, 'do 0') from {targets}); \
             prepare widen from @widen; execute widen; deallocate prepare widen;"
        )
    }

    /// Its definition is written anew, so it must be no more than a type.
    fn widen(&self, column: &str, known: &Column) -> Option<String> {
        let null = if known.nullable { "null" } else { "not null" };
        let kind = self.kind(Kind::Numeric, None);
        (!known.fixed).then(|| format!("modify column {} {kind} {null}", name(column)))
    }

    fn unfit_key(&self, kind: Kind) -> Option<&'static str> {
        (kind == Kind::Json).then_some("lists and objects cannot be indexed; make a text of it in `row`")
    }
}

/// Names of a schema and a table as texts.
pub(super) fn texts(names: [&str; 2]) -> [String; 2] {
    names.map(quote)
}
