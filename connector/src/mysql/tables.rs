//! What the catalog says of tables: their columns, and the key. Of a table there are versions, one behind each definition.

pub(super) mod ahead;
pub(super) mod cascades;
pub(super) mod charsets;
pub(super) mod history;
pub(super) mod mapped;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use tributary_event::TableName;

use super::values::{Described, Kind};
use super::wire::session::{Session, TOGETHER, literal};
use crate::dependent::carried::AsId;
use crate::error::ConnectorError;

/// A column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct ColumnShape {
    pub name: String,
    /// The type as the server writes it.
    pub type_name: String,
    pub nullable: bool,
    pub described: Described,
}

/// A table at one place of the log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shape {
    pub columns: Vec<ColumnShape>,
    /// The columns of the primary key, in its order.
    pub key: Vec<usize>,
}

/// The tables of these names that exist.
pub(super) async fn read(
    session: &mut Session,
    tables: &[TableName],
) -> Result<Vec<(TableName, Shape)>, ConnectorError> {
    let mut shapes = HashMap::with_capacity(tables.len());
    for some in tables.chunks(TOGETHER) {
        read_some(session, some, &mut shapes).await?;
    }
    let shape = |table: &TableName| Some((table.clone(), shapes.get(table)?.clone()));
    Ok(tables.iter().filter_map(shape).collect())
}

/// Those of some tables. The catalog finds also names that differ from theirs in the case of letters.
async fn read_some(
    session: &mut Session,
    tables: &[TableName],
    shapes: &mut HashMap<TableName, Shape>,
) -> Result<(), ConnectorError> {
    let mut schemas: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for table in tables {
        schemas.entry(&table.schema).or_default().push(literal(&table.name));
    }
    let of_schema = |(schema, names): (&&str, &Vec<String>)| {
        format!("table_schema = {} and table_name in ({})", literal(schema), names.join(", "))
    };
    let of = schemas.iter().map(of_schema).collect::<Vec<_>>().join(" or ");
    let kinds = format!("select table_schema, table_name, table_type from information_schema.tables where {of}");
    let kinds: Vec<(String, String, String)> = session.rows("reading information_schema.tables", &kinds).await?;
    for (schema, name, kind) in kinds {
        if kind.contains("BASE TABLE") || kind.contains("VERSIONED") {
            shapes.insert(TableName::new(schema, name), Shape::default());
        }
    }
    let columns = format!(
        "select table_schema, table_name, column_name, data_type, column_type, character_set_name, is_nullable \
         from information_schema.columns where {of} order by ordinal_position"
    );
    type Column = (String, String, String, String, String, Option<String>, String);
    let columns: Vec<Column> = session.rows("reading information_schema.columns", &columns).await?;
    for (schema, table, name, kind, type_name, charset, nullable) in columns {
        if let Some(shape) = shapes.get_mut(&TableName::new(schema, table)) {
            let described = described(kind.to_ascii_lowercase(), &type_name, charset);
            shape.columns.push(ColumnShape { name, type_name, nullable: nullable == "YES", described });
        }
    }
    let keys = format!(
        "select table_schema, table_name, column_name from information_schema.statistics \
         where ({of}) and index_name = 'PRIMARY' order by seq_in_index"
    );
    let keys: Vec<(String, String, String)> = session.rows("reading information_schema.statistics", &keys).await?;
    for (schema, table, name) in keys {
        if let Some(shape) = shapes.get_mut(&TableName::new(schema, table)) {
            let place = shape.place(&name);
            shape.key.extend(place);
        }
    }
    Ok(())
}

impl Shape {
    /// Whether rows of one are read as rows of the other. The words of the catalog for the same may change with the server's version.
    pub(super) fn is_read_as(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&ColumnShape, &ColumnShape)| one.name == other.name && kind(one) == kind(other);
        self.key == other.key
            && self.columns.len() == other.columns.len()
            && self.columns.iter().zip(&other.columns).all(is_same)
    }

    /// The place of a column.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

fn described(kind: String, type_name: &str, charset: Option<String>) -> Described {
    let labels = if matches!(kind.as_str(), "enum" | "set") { labels(type_name) } else { Vec::new() };
    Described {
        unsigned: type_name.to_ascii_lowercase().contains("unsigned"),
        charset,
        labels,
        is_point: kind == "point",
        type_name: kind,
    }
}

/// The labels in `enum('a','it''s')`.
fn labels(type_name: &str) -> Vec<String> {
    let mut labels = Vec::new();
    let mut chars = type_name.chars().skip_while(|c| *c != '\'').peekable();
    while chars.next() == Some('\'') {
        let mut label = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\'' if chars.peek() == Some(&'\'') => {
                    chars.next();
                    label.push('\'');
                }
                '\'' => break,
                '\\' => match chars.next() {
                    Some('n') => label.push('\n'),
                    Some('r') => label.push('\r'),
                    Some('0') => label.push('\0'),
                    Some(c) => label.push(c),
                    None => {}
                },
                c => label.push(c),
            }
        }
        labels.push(label);
        while chars.next_if(|c| *c != '\'').is_some() {}
    }
    labels
}

/// What a column holds, by the catalog alone; `Err`: why that cannot be read.
pub(super) fn kind(column: &ColumnShape) -> Result<Kind, String> {
    let described = &column.described;
    let int = |bytes| Kind::Int { bytes, unsigned: described.unsigned };
    // `decimal(10,2) unsigned`, `datetime(3)`
    let numbers =
        column.type_name.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(numbers, _)| numbers);
    let number = |at: usize| numbers.and_then(|numbers| numbers.split(',').nth(at)?.trim().parse::<u16>().ok());
    let digits = number(0).unwrap_or(0).min(6) as u8;
    let labels = || described.labels.iter().map(|label| label.as_str().into()).collect();
    Ok(match described.type_name.as_str() {
        "tinyint" => int(1),
        "smallint" => int(2),
        "mediumint" => int(3),
        "int" => int(4),
        "bigint" => int(8),
        "year" => Kind::Year,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "decimal" => Kind::Decimal { precision: number(0).unwrap_or(10) as u8, scale: number(1).unwrap_or(0) as u8 },
        "bit" => Kind::Bit { bits: number(0).unwrap_or(1) },
        "date" => Kind::Date,
        "time" => Kind::Time { digits },
        "datetime" => Kind::Datetime { digits },
        "timestamp" => Kind::Timestamp { digits },
        "enum" => Kind::Enum(labels()),
        "set" => Kind::Set(labels()),
        "json" => Kind::Json,
        "vector" => Kind::Vector,
        "uuid" => Kind::Uuid,
        "inet4" => Kind::Inet4,
        "inet6" => Kind::Inet6,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => Kind::Geometry { is_point: described.is_point },
        "char" | "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => {
            let name = described.charset.as_deref().unwrap_or_default();
            match super::values::charset::Charset::named(name) {
                Some(charset) => Kind::Text(charset),
                None => return Err(format!("its character set {name} is not known here: convert it to utf8mb4")),
            }
        }
        // Selected, they have the zeros that the log leaves out.
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Binary { padded: None },
        name => return Err(format!("its type {name} is not known here")),
    })
}

/// What becomes of a column's values where ids are made of them.
pub(super) fn as_id(described: &Described) -> AsId {
    let digits = 0;
    let kind = match described.type_name.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" => Kind::Year,
        "decimal" => Kind::Decimal { precision: 0, scale: 0 },
        "date" => Kind::Date,
        "time" => Kind::Time { digits },
        "datetime" => Kind::Datetime { digits },
        "timestamp" => Kind::Timestamp { digits },
        "float" | "double" => Kind::Double,
        "bit" => Kind::Bit { bits: 1 },
        "json" => Kind::Json,
        "set" => Kind::Set([].into()),
        "enum" => Kind::Enum([].into()),
        "vector" => Kind::Vector,
        "uuid" | "inet4" | "inet6" => Kind::Uuid,
        _ if described.charset.is_some() => Kind::Text(super::values::charset::Charset::Utf8),
        "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" => Kind::Binary { padded: None },
        _ => Kind::Geometry { is_point: false },
    };
    kind.as_id()
}

/// A table that is not there, and what is like it.
pub(super) async fn missing(session: &mut Session, table: &TableName) -> Result<ConnectorError, ConnectorError> {
    let all: Vec<(String, String)> = session
        .rows(
            "reading information_schema.tables",
            "select table_schema, table_name from information_schema.tables where table_type = 'BASE TABLE' and table_schema not in \
             ('mysql', 'sys', 'information_schema', 'performance_schema')",
        )
        .await?;
    let all: Vec<String> = all.into_iter().map(|(schema, name)| TableName::new(schema, name).to_string()).collect();
    let wanted = table.to_string();
    let near = all.iter().max_by(|a, b| strsim::jaro(a, &wanted).total_cmp(&strsim::jaro(b, &wanted)));
    Ok(ConnectorError::Table {
        table: wanted.clone(),
        cause: "it does not exist".into(),
        remedy: match near.filter(|near| strsim::jaro(near, &wanted) > 0.8) {
            Some(near) => format!("did you mean {near}?"),
            None => "list tables as database.table".into(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_their_quotes() {
        assert_eq!(labels("enum('a','it''s','x,y','','b\\\\c')"), ["a", "it's", "x,y", "", "b\\c"]);
        assert_eq!(labels("set('ü')"), ["ü"]);
    }
}
