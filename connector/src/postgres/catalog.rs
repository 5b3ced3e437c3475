//! What the server knows about tables and types, asked for all tables at once: the number of statements does not grow with
//! theirs.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_class`, `pg_attribute`, `pg_index`, `pg_type`.

pub(super) mod state;
mod tables;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use tributary_event::{TableName, TableSchema};

use super::absent::no_such_table;
use super::hosts;
use super::pgoutput::{Relation, RelationColumn};
use super::relation::schema_name;
use super::sql::Sql;
use super::sqlstate::quote;
use super::value::Codec;
use crate::error::ConnectorError;
use crate::settings::PostgresSettings;

pub(super) use tables::{
    Which, columns_of, name_of, primary_key_of, primary_keys_of, table_of, tables, tables_as, type_names,
};
pub(super) use types::{TypeRow, Types};

/// What the log carries of a table: from now on, if the catalog says so, or at one place of it, if a relation message does.
#[derive(Debug, Clone)]
pub struct Carried {
    /// The columns that events have, and the key.
    pub schema: Arc<TableSchema>,
    /// The condition of the publication that a row must meet for its changes to be published.
    pub row_filter: Option<String>,
    /// Of `insert`, `update`, `delete` and `truncate`, those that the publication leaves out.
    pub left_out: Vec<&'static str>,
    /// The publication.
    pub publication: String,
    pub(super) codecs: Vec<Codec>,
    /// By column: whether rows as they were before an update or a delete have its value.
    pub(super) before: Vec<bool>,
}

impl Carried {
    /// Whether the log has the column's value for rows as they were before an update or a delete.
    pub fn is_logged_before(&self, column: usize) -> bool {
        self.before.get(column).copied().unwrap_or(false)
    }

    /// Whether the log has the same columns of the same table, and the same of them for rows as they were.
    pub fn is_like(&self, other: &Self) -> bool {
        let columns = |carried: &Self| -> Vec<_> { carried.schema.columns.iter().map(|c| c.name.clone()).collect() };
        self.schema.table_name() == other.schema.table_name()
            && self.before == other.before
            && columns(self) == columns(other)
    }

    /// Whether ids can be made of the column's values: whether they are the same text in events, in pages of keys and for everyone
    /// else.
    pub fn as_id(&self, column: usize, decimals_are_text: bool) -> AsId {
        match self.codecs.get(column) {
            Some(Codec::Int | Codec::Bool) => AsId::Same,
            Some(Codec::Text) => match self.schema.columns.get(column).map_or("", |c| &*c.type_name) {
                "json" | "jsonb" | "xml" => {
                    AsId::Never("the same value can be written with other blanks and in another order")
                }
                _ => AsId::Same,
            },
            // With all the digits of its scale, or those that were written where there is none.
            Some(Codec::Numeric(_)) if decimals_are_text => AsId::Same,
            Some(Codec::Numeric(_)) => AsId::Decimal,
            Some(Codec::Date | Codec::IsoDate) => AsId::Date,
            Some(Codec::Float4 | Codec::Float8) => {
                AsId::Never("the same number can be written with more digits or fewer")
            }
            Some(Codec::Time(_) | Codec::TimeTz | Codec::Timestamp(_) | Codec::TimestampTz(_)) => AsId::Never(
                "events have it in UTC or as a number, and every graph writes it in its own way: with another zone, `T` or a blank, \
                 more digits of a second or fewer",
            ),
            Some(Codec::Interval(_)) => AsId::Never("the same interval can be written in months, days or hours"),
            Some(Codec::Money) => AsId::Never("it is written with a currency, as the server's locale says"),
            Some(Codec::Bytea(_) | Codec::Bits) => {
                AsId::Never("bytes are base64 in events, and hexadecimal digits or something else in graphs")
            }
            Some(Codec::Bit) => AsId::Never("it is true or false in events, and 1 or 0 elsewhere"),
            Some(Codec::Array { .. } | Codec::Vector | Codec::SparseVector) => AsId::Never("it is a list"),
            Some(Codec::Point | Codec::Geometry | Codec::Hstore(_)) | None => AsId::Never("it is an object in events"),
        }
    }

    /// The table as SQL names it.
    pub fn quoted_name(&self) -> String {
        format!("{}.{}", quote(&self.schema.schema), quote(&self.schema.name))
    }

    /// The publication as SQL names it.
    pub fn quoted_publication(&self) -> String {
        quote(&self.publication)
    }
}

/// What becomes of a column's values where ids are made of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AsId {
    /// They are the same text everywhere.
    Same,
    /// They are the days since 1970-01-01 in events, or a text, and one text can be made of either.
    Date,
    /// They are the same text if the source's decimals travel as text.
    Decimal,
    /// They look different in events and in graphs, and why.
    Never(&'static str),
}

/// A table as the catalog has it now.
#[derive(Debug, Clone)]
pub struct TableInfo {
    /// Its OID.
    pub oid: u32,
    /// The columns that events have, and the key.
    pub schema: Arc<TableSchema>,
    /// Names of the primary key's columns, in key order.
    pub primary_key: Vec<String>,
    /// `pg_class.relkind`: `r` for a table, `p` for a partitioned one.
    pub kind: char,
    /// `pg_class.relreplident`.
    pub identity: char,
    pub(super) identity_index: Vec<String>,
    pub(super) selectable: bool,
    pub(super) owned: bool,
    pub(super) persistent: bool,
    pub(super) codecs: Vec<Codec>,
    /// Of each column the type's OID and its modifier.
    pub(super) types: Vec<(u32, i32)>,
    /// Those of its types, and of their parts, that users and extensions have made.
    pub(super) made_types: BTreeMap<u32, TypeRow>,
    /// The types of all tables that were read with it.
    pub(super) known_types: Arc<Vec<TypeRow>>,
    /// The condition that a row must meet for its changes to be published.
    pub(super) row_filter: Option<String>,
    /// The first column whose values are read as text alone.
    pub(super) text_only: Option<String>,
    /// Tables that inherit from it and are no partitions.
    pub(super) heirs: Vec<TableName>,
    /// The first partition that logs less of old rows than the table's identity says.
    pub(super) odd_partition: Option<String>,
}

impl TableInfo {
    /// Whether the log has the column's value for rows as they were before an update or a delete.
    pub fn is_logged_before(&self, column: usize) -> bool {
        let name = self.schema.columns.get(column).map_or("", |c| &*c.name);
        match self.identity {
            // A partition that logs less has the primary key of the whole.
            _ if self.odd_partition.is_some() => self.primary_key.iter().any(|c| c == name),
            'f' => true,
            'i' => self.identity_index.iter().any(|c| c == name),
            _ => self.primary_key.iter().any(|c| c == name),
        }
    }

    /// Whether a relation message has the table just as it is now.
    pub(super) fn is_alike(&self, relation: &Relation<'_>) -> bool {
        let full = self.identity == 'f';
        let is_alike = |(at, column): (usize, RelationColumn<'_>)| {
            self.schema.columns.get(at).is_some_and(|c| *c.name == *column.name)
                && self.types.get(at) == Some(&(column.type_oid, column.modifier))
                && column.identity == (full || self.is_logged_before(at))
        };
        self.oid == relation.oid
            && (&*self.schema.schema, &*self.schema.name) == (schema_name(relation), relation.name)
            && u32::from(relation.identity) == u32::from(self.identity)
            && relation.columns().count() == self.types.len()
            && relation.columns().enumerate().all(is_alike)
    }

    /// What the log carries of the table from now on, through a publication that leaves out these operations.
    pub(super) fn carried(&self, publication: &str, left_out: &[&'static str]) -> Carried {
        Carried {
            schema: self.schema.clone(),
            row_filter: self.row_filter.clone(),
            left_out: left_out.to_vec(),
            publication: publication.to_owned(),
            codecs: self.codecs.clone(),
            before: (0..self.schema.columns.len()).map(|column| self.is_logged_before(column)).collect(),
        }
    }

    /// Schema and name.
    pub(super) fn name(&self) -> (String, String) {
        (self.schema.schema.to_string(), self.schema.name.to_string())
    }
}

/// The columns, types and key of a table.
///
/// # Errors
/// The server cannot be reached, or has no such table (similar names are suggested).
pub async fn table_columns(
    settings: &PostgresSettings,
    table: impl Into<TableName>,
) -> Result<TableInfo, ConnectorError> {
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let table = table.into();
    let name = (table.schema.to_string(), table.name.to_string());
    match tables(&sql, std::slice::from_ref(&name), Which::All).await?.pop() {
        Some(info) => Ok(info),
        None => Err(no_such_table(&sql, &name).await?),
    }
}
