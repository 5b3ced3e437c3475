//! A table of the log: what its map says, what is known of it, and how its rows become those of events. Pure.

use std::sync::Arc;

use bytes::Bytes;
use tributary_event::{Column, Row, TableName, TableSchema, Value};

use super::Shape;
use super::charsets::Collations;
use crate::error::ConnectorError;
use crate::mysql::binlog::{ColumnMap, Image, TableMap, types};
use crate::mysql::values::{Codec, Described, Kind, Unreadable, json};
use crate::settings::MySqlSettings;

/// A captured table, as one table map has it.
#[derive(Debug)]
pub(in crate::mysql) struct Mapped {
    pub map: TableMap,
    pub schema: Arc<TableSchema>,
    codecs: Vec<Codec>,
}

/// A row cannot be read.
pub(in crate::mysql) fn unreadable(table: &TableSchema, column: usize, why: Unreadable) -> ConnectorError {
    let name = table.columns.get(column).map_or("?", |column| &*column.name);
    let place = format!("table {}, column {name}", table.qualified_name());
    match why {
        Unreadable::Malformed(malformed) => ConnectorError::protocol(place, malformed.to_string()),
        Unreadable::NoText => ConnectorError::InvalidText {
            place,
            cause: "a value has bytes that are no text in the column's character set".into(),
            remedy: "mend the row, or set invalid_text for the source".into(),
        },
    }
}

/// Whether a column of the log can be one of the catalog.
fn fits(map: &ColumnMap, described: &Described) -> bool {
    use types::*;
    let codes: &[u8] = match described.type_name.as_str() {
        "tinyint" => &[TINY],
        "smallint" => &[SHORT],
        "mediumint" => &[INT24],
        "int" => &[LONG],
        "bigint" => &[LONGLONG],
        "float" => &[FLOAT],
        "double" => &[DOUBLE],
        "decimal" => &[NEWDECIMAL],
        "bit" => &[BIT],
        "year" => &[YEAR],
        "date" => &[DATE, NEWDATE],
        "time" => &[TIME, TIME2],
        "datetime" => &[DATETIME, DATETIME2],
        "timestamp" => &[TIMESTAMP, TIMESTAMP2],
        "char" | "binary" => &[STRING],
        "varchar" | "varbinary" => &[VARCHAR, VAR_STRING, VARCHAR_COMPRESSED],
        "tinyblob" | "blob" | "mediumblob" | "longblob" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            &[BLOB, TINY_BLOB, MEDIUM_BLOB, LONG_BLOB, BLOB_COMPRESSED]
        }
        "json" => &[JSON, BLOB],
        "enum" => &[ENUM],
        "set" => &[SET],
        "vector" => &[VECTOR, VARCHAR, VAR_STRING],
        "uuid" | "inet6" | "inet4" => &[STRING],
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => &[GEOMETRY],
        _ => return true,
    };
    codes.contains(&map.type_code)
}

impl Mapped {
    /// Puts together what the log and the catalog say. `whole`: the log says everything by itself.
    pub(in crate::mysql) fn new(
        map: TableMap,
        shape: Option<&Shape>,
        whole: Option<&Collations>,
        settings: &MySqlSettings,
    ) -> Result<Self, ConnectorError> {
        let table = TableName::new(map.schema.as_str(), map.name.as_str());
        let wrong = |cause: String, remedy: String| ConnectorError::Table { table: table.to_string(), cause, remedy };
        let place = format!("table {table}");
        let of_log;
        let shape = match (whole, shape) {
            (Some(collations), _) => {
                of_log = described(&map, collations).map_err(|cause| wrong(cause, "convert it to utf8mb4".into()))?;
                &of_log
            }
            (None, Some(shape)) => shape,
            (None, None) => {
                return Err(ConnectorError::lost(place, "its columns are not known at this place of the log", UNKNOWN));
            }
        };
        let same = shape.columns.len() == map.columns.len()
            && shape.columns.iter().zip(&map.columns).all(|(column, map)| {
                fits(map, &column.described) && map.name.as_ref().is_none_or(|name| *name == column.name)
            });
        if !same {
            let cause = format!(
                "its rows in the log have {} columns that are not the {} which are known at this place: its definition changed without \
                 the log (sql_log_bin = 0?), or it has columns that the catalog does not show",
                map.columns.len(),
                shape.columns.len()
            );
            return Err(ConnectorError::lost(place, cause, UNKNOWN));
        }
        let mut codecs = Vec::with_capacity(map.columns.len());
        for (map, column) in map.columns.iter().zip(&shape.columns) {
            let kind = Kind::of(map, &column.described).map_err(|cause| {
                wrong(
                    format!("column {}: {cause}", column.name),
                    "alter the column, or take the table out of the list".into(),
                )
            })?;
            codecs.push(Codec::new(kind, settings.values, settings.invalid_text));
        }
        let schema = Arc::new(schema(&table, shape, settings)?);
        Ok(Self { map, schema, codecs })
    }

    /// Reads an image of a row, which lies within `owner`.
    pub(in crate::mysql) fn row(&self, owner: &Bytes, images: &[Image<'_>]) -> Result<Vec<Value>, ConnectorError> {
        let mut values = Vec::with_capacity(images.len());
        for (at, (image, codec)) in images.iter().zip(&self.codecs).enumerate() {
            values.push(match image {
                Image::Absent => Value::Unchanged,
                Image::Difference(_) => Value::Partial,
                Image::Null => Value::Null,
                Image::Value(raw) => codec.decode(owner, raw).map_err(|why| unreadable(&self.schema, at, why))?,
            });
        }
        Ok(values)
    }

    /// Completes a row that was updated by what it was before, as far as the log has that.
    pub(in crate::mysql) fn complete(
        &self,
        after: &mut [Value],
        images: &[Image<'_>],
        before: &[Value],
        before_images: &[Image<'_>],
    ) -> Result<(), ConnectorError> {
        for (at, value) in after.iter_mut().enumerate() {
            match (images.get(at), before_images.get(at)) {
                (Some(Image::Absent), Some(Image::Value(_) | Image::Null)) => *value = before[at].clone(),
                (Some(Image::Difference(difference)), Some(Image::Value(raw))) => {
                    let malformed = |why| unreadable(&self.schema, at, Unreadable::Malformed(why));
                    let mut document = json::read(raw).map_err(malformed)?;
                    document.apply(difference).map_err(malformed)?;
                    *value = Value::text(json::print(&document));
                }
                // Without the document before it, a difference is no value: it stays in part.
                _ => {}
            }
        }
        Ok(())
    }

    /// A row whose key is known.
    pub(in crate::mysql) fn keyed(&self, values: Vec<Value>) -> Result<Row, ConnectorError> {
        if let Some(place) = self.schema.key.iter().find(|place| matches!(values.get(**place), Some(Value::Unchanged)))
        {
            let name = self.schema.columns.get(*place).map_or("?", |column| &*column.name);
            return Err(ConnectorError::Table {
                table: self.schema.qualified_name(),
                cause: format!("a row in the log lacks the column {name} of its key"),
                remedy: "run: SET GLOBAL binlog_row_image = 'FULL'; and keep it in the server's configuration; sessions keep theirs until they end".into(),
            });
        }
        Ok(Row { table: self.schema.clone(), values })
    }

    /// Whether the key of a row changed.
    pub(in crate::mysql) fn has_moved(&self, before: &[Value], after: &[Value]) -> bool {
        self.schema.key.iter().any(|place| {
            let (before, after) = (&before[*place], &after[*place]);
            !matches!(before, Value::Unchanged) && before != after
        })
    }
}

/// What to do about a table whose columns are not known.
pub(in crate::mysql) const UNKNOWN: &str = "take the table out of the list and put it in again, or give the source a new name; to be safe from it (MySQL), run: SET \
     PERSIST binlog_row_metadata = 'FULL';";

/// The columns that events have.
pub(in crate::mysql) fn columns(shape: &Shape) -> Vec<Column> {
    let column = |column: &super::ColumnShape| Column {
        name: column.name.as_str().into(),
        type_name: column.type_name.as_str().into(),
    };
    shape.columns.iter().map(column).collect()
}

/// The columns and the key that events have.
pub(in crate::mysql) fn schema(
    table: &TableName,
    shape: &Shape,
    settings: &MySqlSettings,
) -> Result<TableSchema, ConnectorError> {
    let declared = settings.keys.iter().find(|(s, t, _)| **s == *table.schema && **t == *table.name);
    let key = match declared {
        None => shape.key.clone(),
        Some((_, _, names)) => {
            let place = |name: &String| {
                shape.place(name).ok_or_else(|| ConnectorError::Table {
                    table: table.to_string(),
                    cause: format!("its key names the column {name}, which it does not have"),
                    remedy: format!(
                        "its columns are {}",
                        shape.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ")
                    ),
                })
            };
            names.iter().map(place).collect::<Result<_, _>>()?
        }
    };
    Ok(TableSchema::new(table.schema.clone(), table.name.clone(), columns(shape), key))
}

/// What the log says of a table by itself.
fn described(map: &TableMap, collations: &Collations) -> Result<Shape, String> {
    let mut shape = Shape { columns: Vec::new(), key: map.key.clone().unwrap_or_default() };
    for column in &map.columns {
        let name = column.name.clone().unwrap_or_default();
        let charset = column.collation.map(|collation| {
            collations.charset(collation).map(str::to_owned).unwrap_or_else(|| format!("of the collation {collation}"))
        });
        let mut labels = Vec::new();
        for label in &column.labels {
            let known = charset.as_deref().and_then(crate::mysql::values::charset::Charset::named);
            let owner = Bytes::copy_from_slice(label);
            let text = known.and_then(|known| known.decode(&owner, &owner, false));
            let text = match text {
                Some(text) => text.to_string(),
                None => String::from_utf8(label.clone()).map_err(|_| format!("column {name}: a label is no text"))?,
            };
            labels.push(text);
        }
        let unsigned = column.unsigned.unwrap_or(false);
        let described =
            Described { unsigned, charset, labels, is_point: column.geometry == Some(1), type_name: String::new() };
        let type_name = type_name(column, &described);
        shape.columns.push(super::ColumnShape { name, type_name, nullable: column.nullable, described });
    }
    Ok(shape)
}

/// The name of a type, as far as the log has it.
fn type_name(column: &ColumnMap, described: &Described) -> String {
    use types::*;
    let is_text = described.charset.as_deref().is_some_and(|charset| charset != "binary");
    let name = match column.type_code {
        TINY => "tinyint",
        SHORT => "smallint",
        INT24 => "mediumint",
        LONG => "int",
        LONGLONG => "bigint",
        FLOAT => "float",
        DOUBLE => "double",
        NEWDECIMAL => return format!("decimal({},{})", column.meta >> 8, column.meta & 0xff),
        BIT => "bit",
        YEAR => "year",
        DATE | NEWDATE => "date",
        TIME | TIME2 => "time",
        DATETIME | DATETIME2 => "datetime",
        TIMESTAMP | TIMESTAMP2 => "timestamp",
        STRING if is_text => "char",
        STRING => "binary",
        VARCHAR | VAR_STRING if is_text => "varchar",
        VARCHAR | VAR_STRING => "varbinary",
        BLOB | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB if is_text => "text",
        BLOB | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB => "blob",
        ENUM => "enum",
        SET => "set",
        JSON => "json",
        GEOMETRY => "geometry",
        VECTOR => "vector",
        _ => "",
    };
    if described.unsigned { format!("{name} unsigned") } else { name.to_owned() }
}
