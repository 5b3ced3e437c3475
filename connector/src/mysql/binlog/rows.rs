//! Rows of a table: which columns each image has, and the bytes of their values.
//!
//! Reference: MySQL Source Code Documentation, `Rows_event`, `calc_field_size`, `Partial_update_rows_event` and `Rows_query_event`; MariaDB
//! Knowledge Base, "ANNOTATE_ROWS_EVENT".

use bytestring::ByteString;

use super::super::cursor::{Cursor, Malformed};
use super::table_map::types::*;
use super::table_map::{ColumnMap, TableMap};

/// The option of partial updates: documents travel as differences.
const PARTIAL_JSON: u64 = 1;
/// The flag of the last rows of a statement (`STMT_END_F`).
const STATEMENT_END: u16 = 1;
/// Bytes of a statement that go with its rows.
const STATEMENT: usize = 64 << 10;

/// What happens to the rows of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Change {
    Insert,
    Update,
    Delete,
}

/// The value of a column in one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Image<'a> {
    /// The log does not have it.
    Absent,
    Null,
    Value(&'a [u8]),
    /// What has changed of a document.
    Difference(&'a [u8]),
}

/// The rows of an event, not read yet.
#[derive(Debug, Clone)]
pub(in super::super) struct RowsEvent<'a> {
    /// The number of the table, of which a table map came before.
    pub table: u64,
    change: Change,
    partial: bool,
    before: &'a [u8],
    after: &'a [u8],
    columns: usize,
    rows: Cursor<'a>,
    /// A row was read.
    begun: bool,
}

/// Whether a bit is set.
fn bit(bits: &[u8], at: usize) -> bool {
    bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1)
}

impl<'a> RowsEvent<'a> {
    /// Reads what stands before the rows. `partial`: it is one of partial updates.
    pub(in super::super) fn read(
        body: &'a [u8],
        change: Change,
        version: u8,
        partial: bool,
    ) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let table = cursor.uint(6)?;
        cursor.u16()?;
        if version == 2 {
            let more = usize::from(cursor.u16()?);
            cursor.take(more.checked_sub(2).ok_or(Malformed("its header has no length"))?)?;
        }
        let columns = usize::try_from(cursor.lenenc()?).unwrap_or(usize::MAX);
        let bits = columns.div_ceil(8);
        let first = cursor.take(bits)?;
        let (before, after): (&[u8], &[u8]) = match change {
            Change::Insert => (&[], first),
            Change::Delete => (first, &[]),
            Change::Update => (first, cursor.take(bits)?),
        };
        Ok(Self { table, change, partial, before, after, columns, rows: cursor, begun: false })
    }

    /// Bytes of rows that were not read yet.
    pub(in super::super) fn left(&self) -> usize {
        self.rows.len()
    }

    /// Goes on at a place that [`left`](Self::left) told.
    pub(in super::super) fn resume(&mut self, left: usize) {
        let skip = self.rows.len().saturating_sub(left);
        self.rows.0 = &self.rows.0[skip..];
        self.begun = true;
    }

    /// Reads the next row into two images; false: there is none.
    pub(in super::super) fn next(
        &mut self,
        table: &TableMap,
        before: &mut Vec<Image<'a>>,
        after: &mut Vec<Image<'a>>,
    ) -> Result<bool, Malformed> {
        before.clear();
        after.clear();
        let begun = std::mem::replace(&mut self.begun, true);
        if self.rows.is_empty() {
            // An inserted row of which the log has no column, for all have their defaults (`binlog_row_image = MINIMAL`), has no bytes.
            let is_one = !begun && self.change == Change::Insert && self.after.iter().all(|bits| *bits == 0);
            if is_one {
                after.resize(table.columns.len(), Image::Absent);
            }
            return Ok(is_one);
        }
        if self.columns != table.columns.len() {
            return Err(Malformed("its rows have another number of columns than their table"));
        }
        let left = self.rows.len();
        if self.change != Change::Insert {
            image(&mut self.rows, table, self.before, &[], before)?;
        }
        if self.change != Change::Delete {
            let mut differences: &[u8] = &[];
            if self.partial && self.rows.lenenc()? & PARTIAL_JSON != 0 {
                let documents = table.columns.iter().filter(|column| column.type_code == JSON).count();
                differences = self.rows.take(documents.div_ceil(8))?;
            }
            image(&mut self.rows, table, self.after, differences, after)?;
        }
        if self.rows.len() == left {
            // There would be no end of them.
            return Err(Malformed("a row has no bytes"));
        }
        Ok(true)
    }
}

/// Whether rows are the last ones of their statement. That stands before what may be compressed.
pub(in super::super) fn ends_statement(body: &[u8]) -> bool {
    let mut cursor = Cursor(body);
    cursor.take(6).is_ok() && cursor.u16().is_ok_and(|flags| flags & STATEMENT_END != 0)
}

/// The statement whose rows follow, `ahead` bytes behind the beginning of its event: a copy, of a long one the beginning. It has the
/// character set of its session, so what is no UTF-8 is replaced.
pub(in super::super) fn rows_query(body: &[u8], ahead: usize) -> ByteString {
    let text = body.get(ahead..).unwrap_or_default();
    // Not within a character, of four bytes at most.
    let is_first = |at: &usize| text.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    let end = (STATEMENT - 3..=STATEMENT).rev().find(is_first).unwrap_or(STATEMENT).min(text.len());
    String::from_utf8_lossy(text.get(..end).unwrap_or_default()).into_owned().into()
}

/// The body of an event whose rows are compressed (MariaDB), with rows that are not.
pub(in super::super) fn expanded(body: &[u8], change: Change, version: u8) -> Result<Vec<u8>, Malformed> {
    let read = RowsEvent::read(body, change, version, false)?;
    let mut out = body[..body.len() - read.left()].to_vec();
    out.extend_from_slice(&super::uncompressed(read.rows.0)?);
    Ok(out)
}

/// One image of a row.
fn image<'a>(
    rows: &mut Cursor<'a>,
    table: &TableMap,
    present: &[u8],
    differences: &[u8],
    out: &mut Vec<Image<'a>>,
) -> Result<(), Malformed> {
    let count = (0..table.columns.len()).filter(|at| bit(present, *at)).count();
    let nulls = rows.take(count.div_ceil(8))?;
    let (mut at, mut document) = (0, 0);
    for (place, column) in table.columns.iter().enumerate() {
        if !bit(present, place) {
            out.push(Image::Absent);
            continue;
        }
        let is_difference = column.type_code == JSON && {
            document += 1;
            bit(differences, document - 1)
        };
        let is_null = bit(nulls, at);
        at += 1;
        out.push(match (is_null, is_difference) {
            (true, _) => Image::Null,
            (false, true) => {
                let length = rows.u32()? as usize;
                Image::Difference(rows.take(length)?)
            }
            (false, false) => Image::Value(value(rows, column)?),
        });
    }
    Ok(())
}

/// The bytes of a value, without its length.
fn value<'a>(rows: &mut Cursor<'a>, column: &ColumnMap) -> Result<&'a [u8], Malformed> {
    let meta = usize::from(column.meta);
    let fraction = meta.div_ceil(2);
    let length = match column.type_code {
        TINY | YEAR => 1,
        SHORT => 2,
        INT24 | DATE | NEWDATE | TIME => 3,
        LONG | TIMESTAMP | FLOAT => 4,
        LONGLONG | DOUBLE | DATETIME => 8,
        NULL => 0,
        NEWDECIMAL => super::super::values::decimal::size(meta >> 8, meta & 0xff)
            .ok_or(Malformed("a decimal has more digits than there can be"))?,
        BIT => (meta >> 8) + usize::from(meta & 0xff != 0),
        TIMESTAMP2 => 4 + fraction,
        DATETIME2 => 5 + fraction,
        TIME2 => 3 + fraction,
        ENUM | SET => meta & 0xff,
        STRING | VARCHAR | VAR_STRING | VARCHAR_COMPRESSED => rows.uint(if meta > 255 { 2 } else { 1 })? as usize,
        BLOB | TINY_BLOB | MEDIUM_BLOB | LONG_BLOB | BLOB_COMPRESSED | JSON | GEOMETRY | VECTOR => {
            if !(1..=4).contains(&meta) {
                return Err(Malformed("a length has a size that there is not"));
            }
            rows.uint(meta)? as usize
        }
        _ => return Err(Malformed("a column has a type that is not known")),
    };
    rows.take(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_without_columns_come_to_an_end() {
        let columns = vec![ColumnMap { type_code: TINY, ..ColumnMap::default() }];
        let table = TableMap { id: 1, schema: String::new(), name: String::new(), columns, key: None };
        // One column, which is in none of the images, and a byte behind.
        let body = [1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 7];
        let mut event = RowsEvent::read(&body, Change::Insert, 2, false).expect("an event");
        assert!(event.next(&table, &mut Vec::new(), &mut Vec::new()).is_err());
        // Nothing behind: a row that has its defaults.
        let mut event = RowsEvent::read(&body[..12], Change::Insert, 2, false).expect("an event");
        let (mut before, mut after) = (Vec::new(), Vec::new());
        assert_eq!(event.next(&table, &mut before, &mut after), Ok(true));
        assert_eq!((before.len(), &after[..]), (0, &[Image::Absent][..]));
        assert_eq!(event.next(&table, &mut before, &mut after), Ok(false));
        let mut event = RowsEvent::read(&body[..12], Change::Insert, 2, false).expect("an event");
        event.resume(0);
        assert_eq!(event.next(&table, &mut before, &mut after), Ok(false), "it was given");
    }

    #[test]
    fn of_a_long_statement_there_is_the_beginning() {
        let short = "a".repeat(STATEMENT);
        assert_eq!(rows_query(format!("\0{short}").as_bytes(), 1), short);
        assert_eq!(rows_query(format!("{short}b").as_bytes(), 0), short);
        for (before, whole) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0)] {
            // Four bytes to each, of which the last do not fit.
            let text = rows_query(format!("{}{}", "a".repeat(before), "🎬".repeat(STATEMENT)).as_bytes(), 0);
            assert_eq!((text.len() % 4, text.contains('\u{fffd}')), (whole, false), "{before}");
            assert!(text.len() > STATEMENT - 4 && text.len() <= STATEMENT, "{before}");
        }
        assert_eq!(rows_query(b"\x03a\xfcb", 1), "a\u{fffd}b");
        assert_eq!(rows_query(&[0x80; STATEMENT + 9], 0).chars().count(), STATEMENT);
        assert_eq!((rows_query(b"\0", 1), rows_query(b"", 1)), ("".into(), "".into()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(map in proptest::collection::vec(any::<u8>(), 0..200), rows in proptest::collection::vec(any::<u8>(), 0..200), partial: bool) {
            let table = TableMap::read(&map);
            let columns = [TINY, STRING, NEWDECIMAL, BLOB, JSON, BIT, DATETIME2].map(|type_code| ColumnMap { type_code, meta: 0x0203, ..ColumnMap::default() });
            let fallback = TableMap { id: 1, schema: String::new(), name: String::new(), columns: columns.into(), key: None };
            let table = table.unwrap_or(fallback);
            for version in [1, 2] {
                if let Ok(mut event) = RowsEvent::read(&rows, Change::Update, version, partial) {
                    let (mut before, mut after) = (Vec::new(), Vec::new());
                    while let Ok(true) = event.next(&table, &mut before, &mut after) {}
                }
            }
        }
    }
}
