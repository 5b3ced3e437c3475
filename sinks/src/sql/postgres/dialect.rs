//! How PostgreSQL writes definitions.

use super::super::database::Dialect;
use super::super::marks::Marks;
use super::super::table::{Column, Kind};

/// PostgreSQL.
#[derive(Debug, Clone, Copy)]
pub(in crate::sql) struct Postgres;

impl Dialect for Postgres {
    fn quote(&self, name: &str) -> String {
        format!("\"{}\"", name.replace('"', "\"\""))
    }

    fn kind(&self, kind: Kind, _: Option<usize>) -> String {
        match kind {
            Kind::Boolean => "boolean",
            Kind::Bigint => "bigint",
            Kind::Numeric => "numeric",
            Kind::Text => "text",
            Kind::Json => "jsonb",
        }
        .to_owned()
    }

    fn own_kinds(&self) -> [&'static str; 2] {
        ["bigint", "boolean"]
    }

    fn create(&self, table: &str, columns: &str, seq: &str, deleted: &str) -> Vec<String> {
        vec![format!("create table {table} ({columns});"), format!("create index on {table} ({seq}) where {deleted};")]
    }

    fn create_marks(&self, marks: &Marks) -> String {
        let [marks, samples] = marks.tables(self);
        format!(
            "create table if not exists {marks} (stream text, sink text, topic text, \"partition\" bigint, next bigint not null, \
             topic_id text, target text, primary key (stream, sink, topic, \"partition\")); \
             alter table {marks} add column if not exists topic_id text, add column if not exists target text; \
             create table if not exists {samples} (stream text, sink text, at timestamptz, seq bigint not null, \
             primary key (stream, sink, at));"
        )
    }

    fn widen(&self, name: &str, _: &Column) -> Option<String> {
        Some(format!("alter column {} type numeric", self.quote(name)))
    }

    fn unfit_key(&self, _: Kind) -> Option<&'static str> {
        None
    }
}
