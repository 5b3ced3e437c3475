//! Rows: a table's schema and the values of its columns.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::table_name::TableName;

/// One column of a table, as the source describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name, exactly as the source has it.
    pub name: ByteString,
    /// The source's name of its type, such as `numeric(10,2)`. Informative.
    pub type_name: ByteString,
}

/// A table at one moment of its life: a new schema is a new value.
#[derive(Debug, PartialEq, Eq)]
pub struct TableSchema {
    /// Schema (PostgreSQL) or database (MySQL).
    pub schema: ByteString,
    /// Table name.
    pub name: ByteString,
    /// Columns in table order.
    pub columns: Vec<Column>,
    /// Indexes into `columns` of the key columns, in key order. Empty: the table has no key.
    pub key: Vec<usize>,
    /// `"name":` of every column as JSON, so that encoding a row copies and does not escape.
    json_names: Vec<String>,
}

impl TableSchema {
    /// A table's schema. `key` holds indexes into `columns`.
    pub fn new(
        schema: impl Into<ByteString>,
        name: impl Into<ByteString>,
        columns: Vec<Column>,
        key: Vec<usize>,
    ) -> Self {
        let json_names = columns
            .iter()
            .map(|c| {
                let mut out = Vec::new();
                crate::debezium::json_string(&mut out, c.name.as_bytes());
                out.push(b':');
                String::from_utf8(out).unwrap_or_default()
            })
            .collect();
        Self { schema: schema.into(), name: name.into(), columns, key, json_names }
    }

    /// Schema and name.
    pub fn table_name(&self) -> TableName {
        TableName::new(self.schema.clone(), self.name.clone())
    }

    /// `schema.table`, as users write it.
    pub fn qualified_name(&self) -> String {
        self.table_name().to_string()
    }

    /// The index of the column `name`.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| &*c.name == name)
    }

    pub(crate) fn json_name(&self, index: usize) -> &str {
        self.json_names.get(index).map_or("\"\":", String::as_str)
    }
}

/// A column's value. Temporal and other rich types are already in the representation of the wire
/// format (Debezium's semantic types); the column's `type_name` says what they were.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// The source did not send it because it did not change (TOAST, minimal row image).
    Unchanged,
    /// It changed, and the source sent only how (a difference of a document, elements of a collection): the value is not known.
    Partial,
    /// A boolean.
    Bool(bool),
    /// A whole number of at most 64 bits.
    Int(i64),
    /// A whole number above those: of an unsigned column of 64 bits.
    UInt(u64),
    /// A number of single precision, printed with the digits it needs.
    Float32(f32),
    /// A number of double precision. Infinities and NaN become the strings JSON consumers know them by.
    Float64(f64),
    /// An exact decimal, as its text; never floating point. `scale` is the column's, if it is fixed.
    Decimal {
        /// The digits as the source printed them: `-12.50`, `NaN`, `Infinity`.
        text: ByteString,
        /// The declared scale of the column.
        scale: Option<u16>,
    },
    /// Text, and every type that travels as text.
    Text(ByteString),
    /// Raw bytes.
    Bytes(Bytes),
    /// An array (of one dimension, or of arrays).
    Array(Vec<Value>),
    /// A structure with named members.
    Object(Vec<(ByteString, Value)>),
}

impl Value {
    /// Text from anything string-like.
    pub fn text(text: impl Into<ByteString>) -> Self {
        Self::Text(text.into())
    }

    /// Whether the event has the value.
    pub fn is_known(&self) -> bool {
        !matches!(self, Self::Unchanged | Self::Partial)
    }
}

/// One image of a row: the values in the order of its schema's columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The table's schema when the change was made.
    pub table: Arc<TableSchema>,
    /// One value a column.
    pub values: Vec<Value>,
}

impl Row {
    /// The value of the column `name`, if the table has it.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(self.table.column(name)?)
    }

    /// Names of the columns whose values the source left out as unchanged.
    pub fn unchanged(&self) -> impl Iterator<Item = &str> {
        self.names(|value| matches!(value, Value::Unchanged))
    }

    /// Names of the columns that changed to values which the source did not send.
    pub fn partial(&self) -> impl Iterator<Item = &str> {
        self.names(|value| matches!(value, Value::Partial))
    }

    fn names(&self, which: fn(&Value) -> bool) -> impl Iterator<Item = &str> {
        self.table.columns.iter().zip(&self.values).filter(move |(_, value)| which(value)).map(|(c, _)| &*c.name)
    }
}
