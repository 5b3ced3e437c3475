//! The types that columns of the listed tables have in the JSON of events, as the catalog has them now: for who checks programs over
//! events before there are any.
//!
//! Reference: PostgreSQL documentation, "System Catalogs": `pg_attribute` (`attnotnull`, `attstorage`).

use std::collections::HashMap;

use tributary_event::debezium::DecimalMode;
use tributary_event::{ColumnType, JsonType, TableName};

use super::catalog::{self, Types, Which};
use super::publication::Published;
use crate::error::ConnectorError;
use crate::postgres::values::time::Precision;
use crate::postgres::values::value::Codec;
use crate::postgres::wire::hosts;
use crate::postgres::wire::sql::Sql;
use crate::settings::PostgresSettings;

/// What the catalog says of a column beside its type.
struct Storage {
    type_oid: u32,
    modifier: i32,
    is_nullable: bool,
    /// Whether its values may lie outside of the row, so that an update that leaves them alone does not log them.
    is_toasted: bool,
}

/// The columns that events of the listed tables have. A table that does not exist is left out.
///
/// # Errors
/// The server does not answer, or lets us not in.
pub async fn column_types(
    settings: &PostgresSettings,
    decimals: DecimalMode,
) -> Result<Vec<(TableName, Vec<ColumnType>)>, ConnectorError> {
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let published = Published::read(&sql, &settings.publication).await?;
    let tables = catalog::tables(&sql, &settings.table_names(), Which::Published(&published)).await?;
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let stored = storage(&sql, &oids).await?;
    let mut types = Types::new(settings.values);
    types.load(&sql, stored.values().map(|column| column.type_oid)).await?;
    let described = tables.iter().map(|table| {
        // With its whole row as it was, an update has every value.
        let is_whole = table.identity == 'f' && table.odd_partition.is_none();
        let key = &table.schema.key;
        let columns = table.schema.columns.iter().enumerate().filter_map(|(place, column)| {
            let stored = stored.get(&(table.oid, column.name.to_string()))?;
            Some(ColumnType {
                name: column.name.to_string(),
                json: json_type(&types.codec(stored.type_oid, stored.modifier), decimals),
                is_nullable: stored.is_nullable,
                may_be_left_out: stored.is_toasted && !is_whole,
                is_key: key.contains(&place),
            })
        });
        (table.schema.table_name(), columns.collect())
    });
    Ok(described.collect())
}

async fn storage(sql: &Sql, tables: &[u32]) -> Result<HashMap<(u32, String), Storage>, ConnectorError> {
    const SQL: &str = "select attrelid, attname::text, atttypid, atttypmod, attnotnull, attstorage::text <> 'p' \
        from pg_catalog.pg_attribute where attrelid = any($1) and attnum > 0 and not attisdropped";
    let rows = sql.query("reading pg_attribute", SQL, &[&tables]).await?;
    let column = |row: &tokio_postgres::Row| {
        let storage = Storage {
            type_oid: row.get(2),
            modifier: row.get(3),
            is_nullable: !row.get::<_, bool>(4),
            is_toasted: row.get(5),
        };
        ((row.get(0), row.get(1)), storage)
    };
    Ok(rows.iter().map(column).collect())
}

/// What values of a codec are in the JSON of events.
fn json_type(codec: &Codec, decimals: DecimalMode) -> JsonType {
    let or_iso = |precision: &Precision| if *precision == Precision::Iso { JsonType::Text } else { JsonType::Integer };
    match codec {
        Codec::Bool | Codec::Bit => JsonType::Boolean,
        Codec::Int | Codec::Date => JsonType::Integer,
        // NaN and infinities are text.
        Codec::Float4 | Codec::Float8 => JsonType::Number,
        Codec::Numeric(scale) => match (decimals, scale) {
            (DecimalMode::String, _) | (DecimalMode::Precise, Some(_)) => JsonType::Text,
            (DecimalMode::Double, _) => JsonType::Number,
            // An object, or the text of one that is no number.
            (DecimalMode::Precise, None) => JsonType::Any,
        },
        Codec::Money => {
            if decimals == DecimalMode::Double {
                JsonType::Number
            } else {
                JsonType::Text
            }
        }
        Codec::Time(precision) | Codec::Timestamp(precision) => or_iso(precision),
        Codec::Interval(as_text) => {
            if *as_text {
                JsonType::Text
            } else {
                JsonType::Integer
            }
        }
        Codec::Point | Codec::Geometry | Codec::SparseVector | Codec::Hstore(true) => JsonType::Object,
        Codec::Vector | Codec::Array { .. } => JsonType::List,
        Codec::IsoDate
        | Codec::TimestampTz(_)
        | Codec::TimeTz
        | Codec::Bytea(_)
        | Codec::Bits
        | Codec::Text
        | Codec::Hstore(false) => JsonType::Text,
    }
}
