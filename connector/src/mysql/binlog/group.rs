//! What stands around changes: beginnings of groups, files, heartbeats.

use super::super::cursor::{Cursor, Malformed};
use super::super::position::{DomainGtid, Gtid};
use super::xa;

/// The flag of MariaDB's groups that are one statement, without an end of their own.
const STANDALONE: u8 = 0x1;
/// The flag of MariaDB's groups with the number of a group commit.
const GROUP_COMMIT: u8 = 0x2;
/// The flag of MariaDB's groups that prepare an XA transaction, of which they have the name.
const PREPARED: u8 = 0x40;

/// Numbers have 63 bits, and tags are letters, digits and `_`: others would be no text that can be read again.
const NO_GTID: Malformed = Malformed("its GTID is none");

/// The beginning of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum GroupStart {
    /// MySQL: its GTID, if it has one, and when it committed on this server, in microseconds since the Unix epoch (zero: it does not say).
    MySql { gtid: Option<Gtid>, commit_us: i64 },
    /// MariaDB: its GTID, whether it is one statement without an end of its own, and the name of the XA transaction that it prepares.
    MariaDb { gtid: DomainGtid, standalone: bool, prepares: Option<Vec<u8>> },
}

impl GroupStart {
    /// Of a group with a GTID, or anonymous.
    pub(in super::super) fn mysql(body: &[u8], anonymous: bool) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        cursor.u8()?;
        let (server, number) = (cursor.array::<16>()?, cursor.u64()?);
        let gtid = match anonymous {
            true => None,
            false => Some(Gtid::checked(server, "", number).ok_or(NO_GTID)?),
        };
        let mut commit_us = 0;
        // Logical timestamps, then when it committed, in seven bytes of which one bit says whether another time follows.
        if cursor.u8() == Ok(2) && cursor.take(16).is_ok() && cursor.len() >= 7 {
            commit_us = (cursor.uint(7)? & !(1 << 55)) as i64;
        }
        Ok(Self::MySql { gtid, commit_us })
    }

    /// Of a group whose GTID has a tag.
    pub(in super::super) fn tagged(body: &[u8]) -> Result<Self, Malformed> {
        const VERSION: u64 = 1;
        let mut cursor = Cursor(body);
        if cursor.varlen()? != VERSION {
            return Err(Malformed("it is written in a version of the format that is not known"));
        }
        let size = usize::try_from(cursor.varlen()?).unwrap_or(usize::MAX);
        let end = body.len().checked_sub(size).ok_or(Malformed("it is shorter than its fields"))?;
        cursor.varlen()?;
        let (mut server, mut tag, mut number, mut commit_us) = ([0; 16], String::new(), 0, 0);
        while cursor.len() > end {
            match cursor.varlen()? {
                1 => {
                    for byte in &mut server {
                        *byte = u8::try_from(cursor.varlen()?).map_err(|_| Malformed("a byte is none"))?;
                    }
                }
                2 => number = cursor.varlen_signed()? as u64,
                3 => {
                    let length = usize::try_from(cursor.varlen()?).unwrap_or(usize::MAX);
                    tag =
                        String::from_utf8(cursor.take(length)?.to_vec()).map_err(|_| Malformed("a tag is no text"))?;
                }
                4 | 5 => {
                    cursor.varlen_signed()?;
                }
                6 => commit_us = cursor.varlen()? as i64,
                _ => {
                    cursor.varlen()?;
                }
            }
        }
        let gtid = Gtid::checked(server, &tag, number).ok_or(NO_GTID)?;
        Ok(Self::MySql { gtid: Some(gtid), commit_us })
    }

    /// Of MariaDB.
    pub(in super::super) fn mariadb(server: u32, body: &[u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor(body);
        let (number, domain, flags) = (cursor.u64()?, cursor.u32()?, cursor.u8()?);
        if flags & GROUP_COMMIT != 0 {
            cursor.u64()?;
        }
        Ok(Self::MariaDb {
            gtid: DomainGtid { domain, server, number },
            standalone: flags & STANDALONE != 0,
            prepares: if flags & PREPARED != 0 { Some(xa::prepared(&mut cursor)?) } else { None },
        })
    }
}

/// Where the log goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Rotation {
    pub file: String,
    pub offset: u64,
}

/// Reads where the log goes on.
pub(in super::super) fn rotation(body: &[u8]) -> Result<Rotation, Malformed> {
    let mut cursor = Cursor(body);
    let offset = cursor.u64()?;
    Ok(Rotation { file: String::from_utf8_lossy(cursor.0).into_owned(), offset })
}

/// Where the server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Heartbeat {
    pub file: String,
    /// All of the offset, or its lowest 32 bits.
    pub offset: Option<u64>,
}

/// Reads a heartbeat of the second version.
pub(in super::super) fn heartbeat(body: &[u8]) -> Result<Heartbeat, Malformed> {
    let mut cursor = Cursor(body);
    let mut heartbeat = Heartbeat { file: String::new(), offset: None };
    while !cursor.is_empty() {
        let kind = cursor.lenenc()?;
        if kind == 0 {
            break;
        }
        let mut field = Cursor(cursor.lenenc_bytes()?);
        match kind {
            1 => heartbeat.file = String::from_utf8_lossy(field.0).into_owned(),
            2 => heartbeat.offset = Some(field.lenenc()?),
            _ => {}
        }
    }
    Ok(heartbeat)
}

/// Whether events that follow have a checksum, by the description of their format.
pub(in super::super) fn format_description(body: &[u8]) -> Result<bool, Malformed> {
    let mut cursor = Cursor(body);
    if cursor.u16()? != 4 {
        return Err(Malformed("the log has a version that is not known"));
    }
    cursor.take(50 + 4)?;
    if usize::from(cursor.u8()?) != super::HEADER {
        return Err(Malformed("headers of events have a length that is not known"));
    }
    // The algorithm, and room for a sum that is always there.
    match cursor.0.split_last_chunk::<5>() {
        Some((_, [0, ..])) => Ok(false),
        Some((_, [1, ..])) => Ok(true),
        _ => Err(Malformed("the algorithm of checksums is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_gtid_has_are_refused() {
        for (number, fits) in
            [(0, false), (1, true), (i64::MAX as u64 - 1, true), (i64::MAX as u64, false), (u64::MAX, false)]
        {
            let body = [&[0][..], &[7; 16], &number.to_le_bytes()].concat();
            assert_eq!(GroupStart::mysql(&body, false).is_ok(), fits, "{number}");
            assert!(GroupStart::mysql(&body, true).is_ok(), "an anonymous group has none");
        }
    }

    #[test]
    fn a_group_with_a_tag_is_read() {
        // Version 1, fields up to GNO: flags, server (bytes above 127 in two), number, tag.
        let mut fields = vec![0 << 1, 1 << 1, 1 << 1];
        for byte in [0x12u8, 0xff].into_iter().chain([7; 14]) {
            if byte < 128 {
                fields.push(byte << 1);
            } else {
                fields.extend_from_slice(&(u16::from(byte) << 2 | 1).to_le_bytes());
            }
        }
        fields.extend_from_slice(&[2 << 1, 9 << 2, 3 << 1, 2 << 1, b'a', b'b']);
        let head = [1 << 1, (3 + fields.len() as u8) << 1, 2 << 1];
        let body = [&head[..], &fields].concat();
        let last = fields.len() - 1;
        for (byte, fits) in [(b'B', true), (b'_', true), (b':', false), (b' ', false), (0, false)] {
            fields[last] = byte;
            assert_eq!(GroupStart::tagged(&[&head[..], &fields].concat()).is_ok(), fits, "{byte}");
        }
        let mut server = [7; 16];
        (server[0], server[1]) = (0x12, 0xff);
        let gtid = Some(Gtid::new(server, "ab", 9));
        assert_eq!(GroupStart::tagged(&body), Ok(GroupStart::MySql { gtid, commit_us: 0 }));
        for cut in 0..body.len() {
            assert!(GroupStart::tagged(&body[..cut]).is_err(), "{cut}");
        }
    }
}
