//! The header that every event has, and the kinds of events.

use super::super::cursor::{Cursor, Malformed};

/// Bytes of a header.
pub(in super::super) const HEADER: usize = 19;
/// The flag of events that whoever does not know them may skip.
const IGNORABLE: u16 = 0x80;
/// The flag of events that the server made for this connection alone.
const ARTIFICIAL: u16 = 0x20;
/// The flag of the first event of a file that is being written.
const IN_USE: u16 = 0x1;
/// Bytes of a checksum.
pub(in super::super) const CHECKSUM: usize = 4;
/// The CRC32 of anything that its own CRC32 is behind.
const RESIDUE: u32 = 0x2144_df1c;
const WRONG_SUM: Malformed = Malformed("its checksum does not fit its content");

/// What an event is. Those that mean the same for us share a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum EventKind {
    /// A statement, or the beginning or end of a group.
    Query,
    /// The same, compressed (MariaDB).
    CompressedQuery,
    /// The next event is of another file.
    Rotate,
    /// How events are written.
    FormatDescription,
    /// The end of a group that committed.
    Xid,
    /// The end of a group that is prepared.
    XaPrepare,
    /// The statement whose rows follow, behind so many bytes.
    RowsQuery { ahead: usize },
    /// The table of rows that follow.
    TableMap,
    /// Rows: what happens to them, the version of the event, and whether it is compressed.
    Rows { change: super::Change, version: u8, compressed: bool },
    /// Updates with parts of documents.
    PartialUpdate,
    /// The beginning of a group with a GTID.
    Gtid,
    /// The beginning of a group with a GTID that has a tag.
    TaggedGtid,
    /// The beginning of a group without one.
    Anonymous,
    /// The beginning of a group (MariaDB).
    MariaDbGtid,
    /// Events of one transaction, compressed.
    Payload,
    /// Nothing has happened.
    Heartbeat,
    /// The same, with an offset of 64 bits.
    HeartbeatV2,
    /// Changes may be missing in the log.
    Incident,
    /// A file that is loaded by a statement of the log.
    LoadStatement,
    /// Nothing that changes rows by itself: parameters of statements, sets of GTIDs, comments.
    Nothing,
}

/// Whether the checksum of an event fits, by the CRC32 of the whole, checksum and all.
pub(in super::super) fn is_intact(crc: u32) -> Result<(), Malformed> {
    if crc == RESIDUE { Ok(()) } else { Err(WRONG_SUM) }
}

/// What an event begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Header {
    /// Seconds since the Unix epoch.
    pub timestamp: u32,
    /// The number of its kind.
    pub type_code: u8,
    /// The server that made it first.
    pub server_id: u32,
    /// Its size, with header and checksum.
    pub size: u32,
    /// The lowest 32 bits of the offset behind it; zero where the server does not say.
    pub end: u32,
    pub flags: u16,
}

impl Header {
    /// Reads the header of an event.
    pub(in super::super) fn read(event: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(event);
        Ok(Self {
            timestamp: cursor.u32()?,
            type_code: cursor.u8()?,
            server_id: cursor.u32()?,
            size: cursor.u32()?,
            end: cursor.u32()?,
            flags: cursor.u16()?,
        })
    }

    /// The kind, if it is known. MySQL and MariaDB share the numbers below 39.
    pub(in super::super) fn kind(&self) -> Option<EventKind> {
        use super::Change::{Delete, Insert, Update};
        use EventKind::*;
        let rows = |change, version, compressed| Rows { change, version, compressed };
        Some(match self.type_code {
            2 => Query,
            4 => Rotate,
            15 => FormatDescription,
            16 => Xid,
            18 => LoadStatement,
            19 => TableMap,
            23 => rows(Insert, 1, false),
            24 => rows(Update, 1, false),
            25 => rows(Delete, 1, false),
            26 => Incident,
            27 => Heartbeat,
            // A byte before it says nothing.
            29 => RowsQuery { ahead: 1 },
            30 => rows(Insert, 2, false),
            31 => rows(Update, 2, false),
            32 => rows(Delete, 2, false),
            33 => Gtid,
            34 => Anonymous,
            38 => XaPrepare,
            39 => PartialUpdate,
            40 => Payload,
            41 => HeartbeatV2,
            42 => TaggedGtid,
            160 => RowsQuery { ahead: 0 },
            162 => MariaDbGtid,
            165 => CompressedQuery,
            166 => rows(Insert, 1, true),
            167 => rows(Update, 1, true),
            168 => rows(Delete, 1, true),
            169 => rows(Insert, 2, true),
            170 => rows(Update, 2, true),
            171 => rows(Delete, 2, true),
            // The server stopped; parameters of statements; pieces of files; what may be ignored; sets of GTIDs; what group replication
            // adds. MariaDB: files that are needed, sets of GTIDs, encryption.
            3 | 5 | 9 | 11 | 13 | 14 | 17 | 28 | 35 | 36 | 37 | 161 | 163 | 164 => Nothing,
            _ => return None,
        })
    }

    /// Whether who does not know the kind may go on.
    pub(in super::super) fn is_ignorable(&self) -> bool {
        self.flags & IGNORABLE != 0
    }

    /// Whether the event is in no file.
    pub(in super::super) fn is_artificial(&self) -> bool {
        self.flags & ARTIFICIAL != 0
    }

    /// The body of an event without its checksum, which is compared if there is one.
    pub(in super::super) fn body<'a>(&self, event: &'a [u8], has_checksum: bool) -> Result<&'a [u8], Malformed> {
        if !has_checksum {
            return event.get(HEADER..).ok_or(Malformed("it is shorter than its header"));
        }
        let (content, told) = event.split_last_chunk::<CHECKSUM>().ok_or(Malformed("it has no checksum"))?;
        let mut hasher = crc32fast::Hasher::new();
        let in_use = self.kind() == Some(EventKind::FormatDescription) && self.flags & IN_USE != 0;
        match content.split_at_checked(HEADER) {
            // The flag is set while the file is written, and was not when the sum was made.
            Some((header, rest)) if in_use => {
                let mut header = header.to_vec();
                header[17] &= !(IN_USE as u8);
                hasher.update(&header);
                hasher.update(rest);
            }
            _ => hasher.update(content),
        }
        if hasher.finalize() != u32::from_le_bytes(*told) {
            return Err(WRONG_SUM);
        }
        content.get(HEADER..).ok_or(Malformed("it is shorter than its header"))
    }
}
