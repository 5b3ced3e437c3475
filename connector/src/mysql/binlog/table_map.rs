//! Which table rows are of, and how its columns are stored.
//!
//! Reference: MySQL Source Code Documentation, `Table_map_event`, with its optional metadata.

use super::super::cursor::{Cursor, Malformed};

/// How the values of a column are stored, as far as the event says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct ColumnMap {
    /// The number of its type, without the disguise of `ENUM`, `SET` and `CHAR`.
    pub type_code: u8,
    /// What belongs to the type: lengths, digits.
    pub meta: u16,
    pub nullable: bool,
    /// None: the event does not say.
    pub unsigned: Option<bool>,
    /// The number of the collation.
    pub collation: Option<u32>,
    pub name: Option<String>,
    /// Labels of `ENUM` and `SET`, in the column's character set.
    pub labels: Vec<Vec<u8>>,
    /// Which kind of geometry.
    pub geometry: Option<u64>,
    /// How many numbers a vector has.
    pub dimensions: Option<u64>,
}

/// The most columns that a table can have.
const MOST: usize = 4_096;

/// Which table rows are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct TableMap {
    /// The number by which events of rows name it.
    pub id: u64,
    pub schema: String,
    pub name: String,
    pub columns: Vec<ColumnMap>,
    /// The columns of the primary key, where the event says.
    pub key: Option<Vec<usize>>,
}

/// Numbers of types (`enum_field_types`).
pub(in super::super) mod types {
    pub const DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    pub const BLOB_COMPRESSED: u8 = 140;
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const MEDIUM_BLOB: u8 = 250;
    pub const LONG_BLOB: u8 = 251;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}

use types::*;

/// Whether the signedness of columns counts this type.
fn is_numeric(type_code: u8) -> bool {
    matches!(type_code, TINY | SHORT | INT24 | LONG | LONGLONG | NEWDECIMAL | FLOAT | DOUBLE | YEAR | DECIMAL)
}

/// Whether a list of collations counts this type.
fn is_text(type_code: u8) -> bool {
    matches!(
        type_code,
        VARCHAR
            | VAR_STRING
            | STRING
            | BLOB
            | TINY_BLOB
            | MEDIUM_BLOB
            | LONG_BLOB
            | BLOB_COMPRESSED
            | VARCHAR_COMPRESSED
    )
}

/// The type of a column that is stored as a fixed text: its first byte says what it is, and two of its bits are of the length.
fn disguised(first: u8, second: u8) -> (u8, u16) {
    match first {
        ENUM | SET => (first, u16::from(second)),
        // Lengths above 255 have two bits, inverted, where the type has two that are always set.
        _ if first & 0x30 != 0x30 => (first | 0x30, u16::from(second) | (u16::from(first & 0x30) ^ 0x30) << 4),
        _ => (first, u16::from(second)),
    }
}

impl TableMap {
    /// Reads the event.
    pub(in super::super) fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let id = cursor.uint(6)?;
        cursor.u16()?;
        let mut name = || -> Result<String, Malformed> {
            let length = usize::from(cursor.u8()?);
            let name = String::from_utf8_lossy(cursor.take(length)?).into_owned();
            cursor.u8()?;
            Ok(name)
        };
        let (schema, name) = (name()?, name()?);
        let count = usize::try_from(cursor.lenenc()?).unwrap_or(usize::MAX);
        if count > MOST {
            return Err(Malformed("it has more columns than there can be"));
        }
        let codes = cursor.take(count)?;
        let mut meta = Cursor(cursor.lenenc_bytes()?);
        let mut columns = Vec::with_capacity(count);
        for code in codes {
            let (type_code, meta) = match *code {
                STRING | ENUM | SET => {
                    let (first, second) = (meta.u8()?, meta.u8()?);
                    disguised(first, second)
                }
                NEWDECIMAL => (*code, u16::from(meta.u8()?) << 8 | u16::from(meta.u8()?)),
                VARCHAR | VAR_STRING | BIT | VARCHAR_COMPRESSED => (*code, meta.u16()?),
                FLOAT | DOUBLE | BLOB | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB_COMPRESSED | JSON | GEOMETRY
                | VECTOR | TIMESTAMP2 | DATETIME2 | TIME2 => (*code, u16::from(meta.u8()?)),
                code => (code, 0),
            };
            columns.push(ColumnMap { type_code, meta, ..ColumnMap::default() });
        }
        let nulls = cursor.take(count.div_ceil(8))?;
        for (at, column) in columns.iter_mut().enumerate() {
            column.nullable = nulls[at / 8] >> (at % 8) & 1 == 1;
        }
        let mut table = Self { id, schema, name, columns, key: None };
        while !cursor.is_empty() {
            let kind = cursor.u8()?;
            let field = Cursor(cursor.lenenc_bytes()?);
            table.describe(kind, field)?;
        }
        Ok(table)
    }

    /// One piece of the optional metadata.
    fn describe(&mut self, kind: u8, mut field: Cursor<'_>) -> Result<(), Malformed> {
        let places = |wanted: fn(u8) -> bool, columns: &[ColumnMap]| -> Vec<usize> {
            (0..columns.len()).filter(|at| wanted(columns[*at].type_code)).collect()
        };
        match kind {
            1 => {
                for (at, place) in places(is_numeric, &self.columns).into_iter().enumerate() {
                    let byte = field.0.get(at / 8).ok_or(Malformed("the signs of columns end too early"))?;
                    self.columns[place].unsigned = Some(byte >> (7 - at % 8) & 1 == 1);
                }
            }
            2 | 10 => {
                let wanted = if kind == 2 { is_text } else { |code| matches!(code, ENUM | SET) };
                let places = places(wanted, &self.columns);
                let usual = field.lenenc()? as u32;
                places.iter().for_each(|place| self.columns[*place].collation = Some(usual));
                while !field.is_empty() {
                    let (at, collation) = (field.lenenc()? as usize, field.lenenc()? as u32);
                    let place = places.get(at).ok_or(Malformed("a collation is of no column"))?;
                    self.columns[*place].collation = Some(collation);
                }
            }
            3 | 11 => {
                let wanted = if kind == 3 { is_text } else { |code| matches!(code, ENUM | SET) };
                for place in places(wanted, &self.columns) {
                    self.columns[place].collation = Some(field.lenenc()? as u32);
                }
            }
            4 => {
                for column in &mut self.columns {
                    column.name = Some(String::from_utf8_lossy(field.lenenc_bytes()?).into_owned());
                }
            }
            5 | 6 => {
                let code = if kind == 5 { SET } else { ENUM };
                for column in self.columns.iter_mut().filter(|column| column.type_code == code) {
                    let count = field.lenenc()?;
                    for _ in 0..count {
                        column.labels.push(field.lenenc_bytes()?.to_vec());
                    }
                }
            }
            7 => {
                for place in places(|code| code == GEOMETRY, &self.columns) {
                    self.columns[place].geometry = Some(field.lenenc()?);
                }
            }
            8 | 9 => {
                let mut key = Vec::new();
                while !field.is_empty() {
                    key.push(field.lenenc()? as usize);
                    if kind == 9 {
                        field.lenenc()?;
                    }
                }
                if key.iter().any(|place| *place >= self.columns.len()) {
                    return Err(Malformed("the key names a column that there is not"));
                }
                self.key = Some(key);
            }
            13 => {
                for place in places(|code| code == VECTOR, &self.columns) {
                    self.columns[place].dimensions = Some(field.lenenc()?);
                }
            }
            // Which columns are shown, and what later versions add.
            _ => {}
        }
        Ok(())
    }

    /// Whether the event says everything that values are read by.
    pub(in super::super) fn is_whole(&self) -> bool {
        self.columns.iter().all(|column| {
            column.name.is_some()
                && (!is_numeric(column.type_code) || column.unsigned.is_some())
                && (!is_text(column.type_code) || column.collation.is_some())
        })
    }
}
