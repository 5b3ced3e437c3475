//! What the server knows about tables and types, asked for all tables at once: the number of statements does not grow with
//! theirs.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_class`, `pg_attribute`, `pg_index`, `pg_type`.

pub(in crate::postgres) mod state;
mod tables;
mod types;

use std::collections::BTreeMap;
use std::sync::Arc;

use tributary_event::{TableName, TableSchema};

use super::absent::no_such_table;
use super::relation::schema_name;
use crate::dependent::carried::{AsId, Carried};
use crate::error::ConnectorError;
use crate::postgres::stream::pgoutput::{Relation, RelationColumn};
use crate::postgres::values::value::Codec;
use crate::postgres::wire::hosts;
use crate::postgres::wire::sql::Sql;
use crate::postgres::wire::sqlstate::quote;
use crate::settings::PostgresSettings;

pub(in crate::postgres) use tables::{
    Which, columns_of, name_of, primary_key_of, primary_keys_of, table_of, tables, tables_as, type_names,
};
pub(in crate::postgres) use types::{TypeRow, Types};

/// What becomes of values of a codec, of a column with this name of its type, where ids are made of them.
pub(in crate::postgres) fn as_id(codec: &Codec, type_name: &str) -> AsId {
    match codec {
        Codec::Int | Codec::Bool => AsId::Same,
        Codec::Text => match type_name {
            "json" | "jsonb" | "xml" => {
                AsId::Never("the same value can be written with other blanks and in another order")
            }
            _ => AsId::Same,
        },
        // With all the digits of its scale, or those that were written where there is none.
        Codec::Numeric(_) => AsId::Decimal,
        Codec::Date | Codec::IsoDate => AsId::Date,
        Codec::Float4 | Codec::Float8 => AsId::Never("the same number can be written with more digits or fewer"),
        Codec::Time(_) | Codec::TimeTz | Codec::Timestamp(_) | Codec::TimestampTz(_) => AsId::Never(
            "events have it in UTC or as a number, and every graph writes it in its own way: with another zone, `T` or a blank, \
             more digits of a second or fewer",
        ),
        Codec::Interval(_) => AsId::Never("the same interval can be written in months, days or hours"),
        Codec::Money => AsId::Never("it is written with a currency, as the server's locale says"),
        Codec::Bytea(_) | Codec::Bits => {
            AsId::Never("bytes are base64 in events, and hexadecimal digits or something else in graphs")
        }
        Codec::Bit => AsId::Never("it is true or false in events, and 1 or 0 elsewhere"),
        Codec::Array { .. } | Codec::Vector | Codec::SparseVector => AsId::Never("it is a list"),
        Codec::Point | Codec::Geometry | Codec::Hstore(_) => AsId::Never("it is an object in events"),
    }
}

/// What becomes of the values of each column of a table.
pub(in crate::postgres) fn as_ids<'a>(schema: &TableSchema, codecs: impl Iterator<Item = &'a Codec>) -> Vec<AsId> {
    codecs.zip(&schema.columns).map(|(codec, column)| as_id(codec, &column.type_name)).collect()
}

/// A table as SQL names it.
pub(in crate::postgres) fn quoted(schema: &TableSchema) -> String {
    format!("{}.{}", quote(&schema.schema), quote(&schema.name))
}

/// The statement that lets the log have rows as a whole as they were.
pub(in crate::postgres) fn whole_rows(schema: &TableSchema) -> String {
    format!("ALTER TABLE {} REPLICA IDENTITY FULL;", quoted(schema))
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
    pub(in crate::postgres) identity_index: Vec<String>,
    pub(in crate::postgres) selectable: bool,
    pub(in crate::postgres) owned: bool,
    pub(in crate::postgres) persistent: bool,
    pub(in crate::postgres) codecs: Vec<Codec>,
    /// Columns that the table has and events do not.
    pub(in crate::postgres) unpublished: Vec<String>,
    /// Of each column the type's OID and its modifier.
    pub(in crate::postgres) types: Vec<(u32, i32)>,
    /// Those of its types, and of their parts, that users and extensions have made.
    pub(in crate::postgres) made_types: BTreeMap<u32, TypeRow>,
    /// The types of all tables that were read with it.
    pub(in crate::postgres) known_types: Arc<Vec<TypeRow>>,
    /// The condition that a row must meet for its changes to be published.
    pub(in crate::postgres) row_filter: Option<String>,
    /// The first column whose values are read as text alone.
    pub(in crate::postgres) text_only: Option<String>,
    /// Tables that inherit from it and are no partitions.
    pub(in crate::postgres) heirs: Vec<TableName>,
    /// The first partition that logs less of old rows than the table's identity says.
    pub(in crate::postgres) odd_partition: Option<String>,
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
    pub(in crate::postgres) fn is_alike(&self, relation: &Relation<'_>) -> bool {
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
    pub(in crate::postgres) fn carried(&self, publication: &str, left_out: &[&'static str]) -> Carried {
        Carried {
            schema: self.schema.clone(),
            unpublished: self.unpublished.clone(),
            row_filter: self.row_filter.clone(),
            left_out: left_out.to_vec(),
            quoted_publication: quote(publication),
            quoted_name: quoted(&self.schema),
            quote,
            whole_rows: whole_rows(&self.schema),
            ids: as_ids(&self.schema, self.codecs.iter()),
            before: (0..self.schema.columns.len()).map(|column| self.is_logged_before(column)).collect(),
        }
    }

    /// Schema and name.
    pub(in crate::postgres) fn name(&self) -> (String, String) {
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
