//! The messages of the `pgoutput` plugin, versions 1 and 3 (prepared transactions): bytes → borrowed messages. Pure: no I/O, no panics, and nothing
//! is allocated by a length that the bytes claim.
//!
//! Reference: PostgreSQL documentation, "Logical Replication Message Formats".

use tributary_event::Lsn;

/// Microseconds between the Unix epoch and PostgreSQL's epoch, 2000-01-01.
pub const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// A message that breaks the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It ends before its last field.
    #[error("the message ends in the middle of {0}")]
    Short(&'static str),
    /// A byte that should name a kind names none.
    #[error("unknown {what} {byte:#04x}")]
    Unknown {
        /// What the byte should have named.
        what: &'static str,
        /// The byte.
        byte: u8,
    },
    /// A name is no UTF-8.
    #[error("{0} is no UTF-8")]
    Utf8(&'static str),
}

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins, all of which has committed, or is prepared.
    Begin {
        /// Start of its commit record, or of the record that prepares it.
        commit: Lsn,
        /// When that was, microseconds since the Unix epoch.
        commit_us: i64,
        /// Transaction id.
        xid: u32,
        /// It is prepared, and may yet be rolled back.
        prepared: bool,
    },
    /// A transaction ends; or its changes do, and it is prepared.
    Commit {
        /// Start of its commit record, or of the record that prepares it.
        commit: Lsn,
        /// The position behind it.
        end: Lsn,
        /// When that was, microseconds since the Unix epoch.
        commit_us: i64,
    },
    /// A transaction has committed whose changes were sent as those of a prepared one.
    CommitPrepared {
        /// The position behind the record.
        end: Lsn,
        /// Transaction id.
        xid: u32,
    },
    /// A prepared transaction was rolled back; its changes were sent, unless it was prepared before they were asked for.
    RollbackPrepared {
        /// The position behind the record.
        end: Lsn,
        /// Transaction id.
        xid: u32,
        /// The name it was prepared under.
        gid: &'a str,
    },
    /// The transaction was replicated to this server from elsewhere.
    Origin {
        /// Where it committed there.
        commit: Lsn,
        /// The origin's name.
        name: &'a str,
    },
    /// A table's columns, sent before its first change and after they changed.
    Relation(Relation<'a>),
    /// A type that is not built in, sent before the relation that uses it.
    Type {
        /// Its OID.
        oid: u32,
        /// Its schema.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// The table's OID.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// The table's OID.
        relation: u32,
        /// The row before, as far as it was logged.
        old: Old<'a>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// The table's OID.
        relation: u32,
        /// The row before, as far as it was logged.
        old: Old<'a>,
    },
    /// Tables were truncated by one statement.
    Truncate(Oids<'a>),
    /// Bytes written by `pg_logical_emit_message`.
    Logical {
        /// Whether it belongs to the transaction around it.
        transactional: bool,
        /// Its position.
        lsn: Lsn,
        /// Its prefix.
        prefix: &'a str,
        /// Its content.
        content: &'a [u8],
    },
}

/// A table as it is in the log at this point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation<'a> {
    /// Its OID.
    pub oid: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Replica identity, as `pg_class.relreplident`: `d`, `n`, `f` or `i`.
    pub identity: u8,
    columns: u16,
    bytes: &'a [u8],
}

/// A column of a [`Relation`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Whether it is part of the replica identity.
    pub identity: bool,
    /// Its name.
    pub name: &'a str,
    /// OID of its type.
    pub type_oid: u32,
    /// `atttypmod`.
    pub modifier: i32,
}

impl<'a> Relation<'a> {
    /// The columns, in order.
    pub fn columns(&self) -> impl Iterator<Item = RelationColumn<'a>> + use<'a> {
        let mut reader = Reader(self.bytes);
        // The bytes were checked when the message was read, so this ends at the last column and not before.
        (0..self.columns).map_while(move |_| reader.column().ok())
    }
}

/// The image before a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Old<'a> {
    /// Not logged: the key did not change.
    None,
    /// The columns of the replica identity; all others are null.
    Key(Tuple<'a>),
    /// The whole row (`REPLICA IDENTITY FULL`).
    Full(Tuple<'a>),
}

/// OIDs of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Oids<'a>(&'a [u8]);

impl<'a> Oids<'a> {
    /// The OIDs, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.0.as_chunks::<4>().0.iter().map(|b| u32::from_be_bytes(*b))
    }
}

/// The columns of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    columns: u16,
    bytes: &'a [u8],
}

/// One column of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    /// SQL NULL.
    Null,
    /// TOASTed, and not changed by the update.
    Unchanged,
    /// The text that the type's output function gives.
    Text(&'a [u8]),
    /// The bytes that the type's send function gives. Only when asked for.
    Binary(&'a [u8]),
}

impl<'a> Tuple<'a> {
    /// Number of columns.
    pub fn len(&self) -> usize {
        usize::from(self.columns)
    }

    /// The columns, in order.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'a>> + use<'a> {
        let mut reader = Reader(self.bytes);
        (0..self.columns).map_while(move |_| reader.cell().ok())
    }

    /// The column `index`.
    pub fn cell(&self, index: usize) -> Option<Cell<'a>> {
        self.cells().nth(index)
    }
}

/// Reads one message.
///
/// # Errors
/// The bytes break the protocol.
pub fn decode(message: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut r = Reader(message);
    Ok(match r.byte("the kind")? {
        b'I' => {
            let relation = r.u32("the relation")?;
            r.expect(b'N')?;
            Message::Insert { relation, new: r.tuple()? }
        }
        b'U' => {
            let relation = r.u32("the relation")?;
            let old = match r.byte("the image")? {
                b'K' => Old::Key(r.tuple()?),
                b'O' => Old::Full(r.tuple()?),
                b'N' => return Ok(Message::Update { relation, old: Old::None, new: r.tuple()? }),
                byte => return Err(DecodeError::Unknown { what: "image", byte }),
            };
            r.expect(b'N')?;
            Message::Update { relation, old, new: r.tuple()? }
        }
        b'D' => {
            let relation = r.u32("the relation")?;
            let old = match r.byte("the image")? {
                b'K' => Old::Key(r.tuple()?),
                b'O' => Old::Full(r.tuple()?),
                byte => return Err(DecodeError::Unknown { what: "image", byte }),
            };
            Message::Delete { relation, old }
        }
        b'B' => Message::Begin { commit: r.lsn()?, commit_us: r.time()?, xid: r.u32("the xid")?, prepared: false },
        b'C' | b'P' => {
            r.byte("the flags")?;
            Message::Commit { commit: r.lsn()?, end: r.lsn()?, commit_us: r.time()? }
        }
        b'b' => {
            let (commit, _end) = (r.lsn()?, r.lsn()?);
            Message::Begin { commit, commit_us: r.time()?, xid: r.u32("the xid")?, prepared: true }
        }
        b'K' => {
            r.byte("the flags")?;
            let (_commit, end, _time) = (r.lsn()?, r.lsn()?, r.time()?);
            Message::CommitPrepared { end, xid: r.u32("the xid")? }
        }
        b'r' => {
            r.byte("the flags")?;
            let (_prepared, end, _times) = (r.lsn()?, r.lsn()?, (r.time()?, r.time()?));
            Message::RollbackPrepared { end, xid: r.u32("the xid")?, gid: r.text("the name")? }
        }
        b'R' => Message::Relation(r.relation()?),
        b'T' => {
            let count = r.u32("the number of tables")? as usize;
            r.byte("the options")?;
            let bytes = count.checked_mul(4).ok_or(DecodeError::Short("the tables"))?;
            Message::Truncate(Oids(r.take(bytes, "the tables")?))
        }
        b'Y' => Message::Type { oid: r.u32("the type")?, schema: r.text("the schema")?, name: r.text("the name")? },
        b'O' => Message::Origin { commit: r.lsn()?, name: r.text("the origin")? },
        b'M' => {
            let transactional = r.byte("the flags")? & 1 == 1;
            let (lsn, prefix) = (r.lsn()?, r.text("the prefix")?);
            let length = r.u32("the length")? as usize;
            Message::Logical { transactional, lsn, prefix, content: r.take(length, "the content")? }
        }
        byte => return Err(DecodeError::Unknown { what: "message", byte }),
    })
}

/// Reads fields one after another.
pub(in crate::postgres) struct Reader<'a>(pub(in crate::postgres) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.0.split_at_checked(n).ok_or(DecodeError::Short(what))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(DecodeError::Short(what))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(in crate::postgres) fn byte(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(what).map(|[b]| b)
    }

    fn expect(&mut self, kind: u8) -> Result<(), DecodeError> {
        match self.byte("the image")? {
            byte if byte == kind => Ok(()),
            byte => Err(DecodeError::Unknown { what: "image", byte }),
        }
    }

    fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    pub(in crate::postgres) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    pub(in crate::postgres) fn lsn(&mut self) -> Result<Lsn, DecodeError> {
        self.array("a position").map(|b| Lsn(u64::from_be_bytes(b)))
    }

    pub(in crate::postgres) fn time(&mut self) -> Result<i64, DecodeError> {
        self.array("a time").map(|b| i64::from_be_bytes(b).saturating_add(EPOCH_2000_US))
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let end = memchr::memchr(0, self.0).ok_or(DecodeError::Short(what))?;
        let text = self.take(end, what)?;
        self.0 = &self.0[1..];
        std::str::from_utf8(text).map_err(|_| DecodeError::Utf8(what))
    }

    fn relation(&mut self) -> Result<Relation<'a>, DecodeError> {
        let oid = self.u32("the relation")?;
        let (schema, name) = (self.text("the schema")?, self.text("the name")?);
        let identity = self.byte("the replica identity")?;
        let columns = self.u16("the number of columns")?;
        let bytes = self.0;
        for _ in 0..columns {
            self.column()?;
        }
        Ok(Relation { oid, schema, name, identity, columns, bytes: &bytes[..bytes.len() - self.0.len()] })
    }

    fn column(&mut self) -> Result<RelationColumn<'a>, DecodeError> {
        Ok(RelationColumn {
            identity: self.byte("a column's flags")? & 1 == 1,
            name: self.text("a column's name")?,
            type_oid: self.u32("a column's type")?,
            modifier: self.array("a column's modifier").map(i32::from_be_bytes)?,
        })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        let columns = self.u16("the number of columns")?;
        let bytes = self.0;
        for _ in 0..columns {
            self.cell()?;
        }
        Ok(Tuple { columns, bytes: &bytes[..bytes.len() - self.0.len()] })
    }

    fn cell(&mut self) -> Result<Cell<'a>, DecodeError> {
        Ok(match self.byte("a column's kind")? {
            b't' => Cell::Text(self.sized()?),
            b'n' => Cell::Null,
            b'u' => Cell::Unchanged,
            b'b' => Cell::Binary(self.sized()?),
            byte => return Err(DecodeError::Unknown { what: "column kind", byte }),
        })
    }

    fn sized(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32("a column's length")? as usize;
        self.take(length, "a column's value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(cells: &[Option<&str>]) -> Vec<u8> {
        let mut out = (cells.len() as u16).to_be_bytes().to_vec();
        for cell in cells {
            match cell {
                None => out.push(b'n'),
                Some(text) => {
                    out.push(b't');
                    out.extend((text.len() as u32).to_be_bytes());
                    out.extend(text.as_bytes());
                }
            }
        }
        out
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in prop::sample::select(b"IUDBCRTYOMbPKr".to_vec()), rest: Vec<u8>) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            let _ = decode(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic_and_their_rows_stay_within(at in 0usize..60, byte: u8, cut in 0usize..60) {
            let mut message = vec![b'U', 0, 0, 0, 7, b'O'];
            message.extend(row(&[Some("one"), None, Some("three")]));
            message.push(b'N');
            message.extend(row(&[Some("1"), Some(""), None]));
            if let Some(b) = message.get_mut(at) {
                *b = byte;
            }
            message.truncate(message.len().saturating_sub(cut));
            if let Ok(Message::Update { new, .. }) = decode(&message) {
                prop_assert_eq!(new.cells().count(), new.len());
            }
        }
    }

    #[test]
    fn an_update_gives_both_images() {
        let mut message = vec![b'U', 0, 0, 0, 7, b'K'];
        message.extend(row(&[Some("1"), None]));
        message.push(b'N');
        message.extend(row(&[Some("2"), Some("x")]));
        let Ok(Message::Update { relation: 7, old: Old::Key(old), new }) = decode(&message) else {
            panic!("an update")
        };
        assert_eq!(old.cell(0), Some(Cell::Text(b"1")));
        assert_eq!(new.cells().collect::<Vec<_>>(), [Cell::Text(b"2"), Cell::Text(b"x")]);
    }

    #[test]
    fn a_relation_lists_its_columns() {
        let mut message = b"R\0\0\0\x09public\0movie\0d\0\x01\x01id\0".to_vec();
        message.extend(23u32.to_be_bytes());
        message.extend((-1i32).to_be_bytes());
        let Ok(Message::Relation(relation)) = decode(&message) else { panic!("a relation") };
        assert_eq!((relation.oid, relation.schema, relation.name, relation.identity), (9, "public", "movie", b'd'));
        let column = RelationColumn { identity: true, name: "id", type_oid: 23, modifier: -1 };
        assert_eq!(relation.columns().collect::<Vec<_>>(), [column]);
    }

    #[test]
    fn messages_of_prepared_transactions() {
        let lsn = |n: u64| n.to_be_bytes();
        let tail = [&0i64.to_be_bytes()[..], &7u32.to_be_bytes(), b"gid\0"].concat();
        let begin = [&b"b"[..], &lsn(1), &lsn(2), &tail].concat();
        let expected = Message::Begin { commit: Lsn(1), commit_us: EPOCH_2000_US, xid: 7, prepared: true };
        assert_eq!(decode(&begin), Ok(expected));
        let prepare = [&b"P\0"[..], &lsn(1), &lsn(2), &tail].concat();
        let expected = Message::Commit { commit: Lsn(1), end: Lsn(2), commit_us: EPOCH_2000_US };
        assert_eq!(decode(&prepare), Ok(expected));
        let commit = [&b"K\0"[..], &lsn(3), &lsn(4), &tail].concat();
        assert_eq!(decode(&commit), Ok(Message::CommitPrepared { end: Lsn(4), xid: 7 }));
        let rollback = [&b"r\0"[..], &lsn(2), &lsn(4), &lsn(0), &tail].concat();
        assert_eq!(decode(&rollback), Ok(Message::RollbackPrepared { end: Lsn(4), xid: 7, gid: "gid" }));
    }
}
