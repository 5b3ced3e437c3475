//! Places in a source's log. Each kind is a newtype with its own order, parse and print.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytestring::ByteString;

/// A PostgreSQL log sequence number: a byte position in the write-ahead log.
/// Printed as in `pg_lsn`: two hexadecimal halves, `16/B374D848`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

/// The text is not an LSN.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an LSN (two hexadecimal numbers with a slash between, such as 16/B374D848)")]
pub struct ParseLsnError(pub String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let half = |s: &str| {
            let digits = (1..=8).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(s, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self(half(high)? << 32 | half(low)?)))
            .ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

/// The group of events of a MySQL or MariaDB log, mostly a transaction, that a change is of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogGroup {
    /// Its GTID, as the server prints it; none where the server gives none.
    pub gtid: Option<ByteString>,
    /// The file of the log.
    pub file: ByteString,
    /// The server that made it first.
    pub server_id: u32,
    /// The session that made it, if the log says.
    pub thread: Option<u32>,
    /// Where it begins in the file.
    pub offset: u64,
}

impl LogGroup {
    /// What tells it from others, as Debezium prints it.
    pub fn id(&self) -> String {
        match &self.gtid {
            Some(gtid) => gtid.to_string(),
            None => format!("file={},pos={}", self.file, self.offset),
        }
    }

    /// The number in its GTID; where it begins, if it has none.
    pub fn number(&self) -> u64 {
        let number = self.gtid.as_ref().and_then(|gtid| gtid.rsplit([':', '-']).next()?.parse().ok());
        number.unwrap_or(self.offset)
    }
}

/// The place of one change in its source's log. Positions of different kinds have no order between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// PostgreSQL: where the change's record starts, and where its transaction's commit record starts.
    Postgres {
        /// The change's own record.
        lsn: Lsn,
        /// The commit record of its transaction; the order of transactions.
        commit: Lsn,
    },
    /// MySQL and MariaDB: where the change's event begins, and which of its rows it is.
    MySql {
        /// The group that it is of.
        group: Arc<LogGroup>,
        /// Where the event with the change begins in the group's file.
        offset: u64,
        /// The change's place among the rows of the event, from 0.
        row: u32,
    },
    /// A dump event or a decoded message that carries no position.
    None,
}

impl Position {
    /// Whether a reader of the database that stands at `reader` (as PostgreSQL's `pg_last_wal_replay_lsn()` prints it) sees the change.
    /// None: the change has no position, or that is not one of its kind.
    pub fn is_seen_at(&self, reader: &str) -> Option<bool> {
        match self {
            // A reader stands behind the last record that it has replayed.
            Self::Postgres { commit, .. } => reader.trim().parse::<Lsn>().ok().map(|reader| reader > *commit),
            Self::MySql { .. } | Self::None => None,
        }
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        match (self, other) {
            (Self::Postgres { lsn: a, commit: c }, Self::Postgres { lsn: b, commit: d }) => Some((c, a).cmp(&(d, b))),
            (Self::MySql { group: a, offset, row }, Self::MySql { group: b, offset: o, row: r })
                if a.file == b.file =>
            {
                Some((offset, row).cmp(&(o, r)))
            }
            (Self::None, Self::None) => Some(std::cmp::Ordering::Equal),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_lsn_survives_print_and_parse_and_keeps_order(a: u64, b: u64) {
            prop_assert_eq!(Lsn(a).to_string().parse(), Ok(Lsn(a)));
            prop_assert_eq!(Lsn(a) < Lsn(b), a < b);
        }
    }

    #[test]
    fn a_reader_sees_what_lies_before_its_position() {
        let change = Position::Postgres { lsn: Lsn(5), commit: Lsn(0x1_0000_0010) };
        assert_eq!(change.is_seen_at("1/10"), Some(false), "the commit record itself is not replayed yet");
        assert_eq!(change.is_seen_at(" 1/11 "), Some(true));
        assert_eq!((change.is_seen_at("soon"), Position::None.is_seen_at("1/11")), (None, None));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "/", "1", "1/", "g/1", "123456789/0", "+1/2"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
