//! The messages by which `pgoutput` streams transactions in progress: bytes → borrowed messages. Pure, as `pgoutput` is.
//!
//! Reference: PostgreSQL documentation, "Logical Replication Message Formats": Stream Start, Stream Stop, Stream Commit,
//! Stream Prepare and Stream Abort (versions 2 to 4 of the protocol), and the transaction id that every message has within a
//! block.

use tributary_event::Lsn;

use super::pgoutput::{DecodeError, Reader};

/// A message of a transaction in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Streaming<'a> {
    /// A block of a top-level transaction begins.
    Start {
        /// The transaction.
        xid: u32,
    },
    /// The block ends.
    Stop,
    /// A message within the block.
    Change {
        /// The transaction or sub-transaction it belongs to.
        xid: u32,
        /// Its kind.
        kind: u8,
        /// What follows kind and transaction id: the same as outside of a block.
        rest: &'a [u8],
    },
    /// Where the transaction was made first: the same as outside of a block.
    Origin {
        /// What follows the kind.
        rest: &'a [u8],
    },
    /// A transaction or sub-transaction was rolled back.
    Abort {
        /// The top-level transaction.
        xid: u32,
        /// What was rolled back; the same if all of it was.
        sub: u32,
    },
    /// A transaction committed, or was prepared.
    Commit {
        /// The top-level transaction.
        xid: u32,
        /// Start of its commit record, or of the record that prepares it.
        commit: Lsn,
        /// The position behind it.
        end: Lsn,
        /// When that was, microseconds since the Unix epoch.
        commit_us: i64,
        /// It is prepared, and may yet be rolled back.
        prepared: bool,
    },
}

/// Reads a message, if it is one of a transaction in progress; `in_block`: the last block has not ended.
///
/// # Errors
/// The bytes break the protocol.
pub fn decode(message: &[u8], in_block: bool) -> Result<Option<Streaming<'_>>, DecodeError> {
    let mut r = Reader(message);
    let kind = r.byte("the kind")?;
    Ok(Some(match (kind, in_block) {
        (b'E', true) => Streaming::Stop,
        // The origin is the one message in a block without a transaction id.
        (b'O', true) => Streaming::Origin { rest: r.0 },
        (b'I' | b'U' | b'D' | b'T' | b'R' | b'Y' | b'M', true) => {
            let xid = r.u32("the xid")?;
            Streaming::Change { xid, kind, rest: r.0 }
        }
        (byte, true) => return Err(DecodeError::Unknown { what: "message in a streamed block", byte }),
        (b'S', false) => Streaming::Start { xid: r.u32("the xid")? },
        (b'A', false) => Streaming::Abort { xid: r.u32("the xid")?, sub: r.u32("the sub-transaction")? },
        (b'c', false) => {
            let xid = r.u32("the xid")?;
            r.byte("the flags")?;
            Streaming::Commit { xid, commit: r.lsn()?, end: r.lsn()?, commit_us: r.time()?, prepared: false }
        }
        (b'p', false) => {
            r.byte("the flags")?;
            let (commit, end, commit_us) = (r.lsn()?, r.lsn()?, r.time()?);
            Streaming::Commit { xid: r.u32("the xid")?, commit, end, commit_us, prepared: true }
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, in_block: bool) {
            let _ = decode(&bytes, in_block);
        }
    }

    #[test]
    fn a_change_in_a_block_names_its_transaction() {
        let change = [b'I', 0, 0, 0, 9, 1, 2, 3];
        assert_eq!(decode(&change, true), Ok(Some(Streaming::Change { xid: 9, kind: b'I', rest: &[1, 2, 3] })));
        assert_eq!(decode(&change, false), Ok(None));
        assert_eq!(decode(b"E", true), Ok(Some(Streaming::Stop)));
        assert!(decode(b"S\0\0\0\x01\x01", true).is_err());
    }

    #[test]
    fn an_abort_is_read_with_and_without_the_position_of_version_4() {
        let short = [b'A', 0, 0, 0, 9, 0, 0, 0, 10];
        let long = [&short[..], &[0; 16]].concat();
        for abort in [&short[..], &long] {
            assert_eq!(decode(abort, false), Ok(Some(Streaming::Abort { xid: 9, sub: 10 })));
        }
    }
}
