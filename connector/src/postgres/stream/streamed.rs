//! Transactions that the server streams while they are in progress: kept in files until they end, then read back in order.
//!
//! The server streams a transaction once it outgrows `logical_decoding_work_mem`, in blocks that belong to one top-level
//! transaction each; every change names the sub-transaction it belongs to. What is aborted is forgotten, what commits is
//! read back as if it had come then, so that consumers see committed transactions in commit order and nothing else.
//!
//! The files are scratch: a transaction whose commit was not reached is streamed again from its beginning after a
//! reconnection, so files are removed at the start, never synced, and their checksums guard against the disk alone.
//!
//! Reference: PostgreSQL documentation, "Logical Streaming Replication Protocol" (Stream Start, Stop, Commit, Prepare, Abort;
//! versions 2 to 4).

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tributary_event::Lsn;
use xxhash_rust::xxh3::xxh3_64;

use super::pgoutput::DecodeError;
use super::streaming::{self, Streaming};
use crate::error::ConnectorError;

/// Changes are written in blocks of about this many bytes.
const BLOCK: usize = 256 << 10;
/// A block's length and checksum.
const BLOCK_HEAD: usize = 12;
/// A change's length, sub-transaction and position.
const RECORD_HEAD: usize = 16;

/// What became of a message.
pub(in crate::postgres) enum Taken {
    /// It is none of a transaction in progress.
    Not,
    /// It was kept, or changed what is kept.
    Kept,
    /// A transaction committed, or was prepared: its changes are to be read now.
    Committed(Replay),
}

/// The transactions in progress.
pub(in crate::postgres) struct Streamed {
    folder: PathBuf,
    open: HashMap<u32, Spill>,
    /// The transaction whose block is being received.
    current: Option<u32>,
    /// Records of the block that is not written yet. Only the current transaction has any.
    block: Vec<u8>,
    bytes: metrics::Gauge,
}

/// What is kept of one transaction. Its file goes with it.
struct Spill {
    path: PathBuf,
    bytes: u64,
    aborted: HashSet<u32>,
}

impl Drop for Spill {
    fn drop(&mut self) {
        // A transaction without changes has no file; one that cannot be removed now is removed at the next start.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Streamed {
    /// Empties the folder, which belongs to this source alone.
    pub(in crate::postgres) fn open(folder: &Path, source: &str) -> Result<Self, ConnectorError> {
        let place = || format!("the folder {} for transactions in progress", folder.display());
        let clean = || {
            match std::fs::remove_dir_all(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            std::fs::create_dir_all(folder)
        };
        clean().map_err(|e| ConnectorError::spill(place(), &e))?;
        let bytes = metrics::gauge!("tributary_connector_spilled_bytes", "source" => source.to_owned());
        bytes.set(0.0);
        Ok(Self { folder: folder.to_owned(), open: HashMap::new(), current: None, block: Vec::new(), bytes })
    }

    /// Takes the message of the log that starts at `start`, if it belongs to a transaction in progress.
    pub(in crate::postgres) fn take(&mut self, payload: &[u8], start: Lsn) -> Result<Taken, ConnectorError> {
        let broken = |e: DecodeError| ConnectorError::protocol(format!("the change at {start}"), e.to_string());
        let Some(message) = streaming::decode(payload, self.current.is_some()).map_err(broken)? else {
            return Ok(Taken::Not);
        };
        match message {
            Streaming::Start { xid } => {
                let path = self.folder.join(format!("{xid}.changes"));
                self.open.entry(xid).or_insert_with(|| Spill { path, bytes: 0, aborted: HashSet::new() });
                self.current = Some(xid);
            }
            Streaming::Origin { rest } => self.keep(self.current.unwrap_or_default(), b'O', rest, start)?,
            Streaming::Stop => {
                self.write()?;
                self.current = None;
                self.block = Vec::new();
            }
            Streaming::Change { xid, kind, rest } => self.keep(xid, kind, rest, start)?,
            Streaming::Abort { xid, sub } if xid == sub => {
                self.open.remove(&xid);
                self.measure();
            }
            Streaming::Abort { xid, sub } => {
                if let Some(spill) = self.open.get_mut(&xid) {
                    spill.aborted.insert(sub);
                }
            }
            Streaming::Commit { xid, commit, end, commit_us, prepared } => {
                let spill = self.open.remove(&xid).ok_or_else(|| {
                    ConnectorError::protocol(format!("the commit at {commit}"), "its transaction was never streamed")
                })?;
                let replay = Replay::open(spill, Committed { xid, commit, end, commit_us, prepared })?;
                self.measure();
                return Ok(Taken::Committed(replay));
            }
        }
        Ok(Taken::Kept)
    }

    /// Appends a message of a transaction or sub-transaction to the block.
    fn keep(&mut self, xid: u32, kind: u8, rest: &[u8], start: Lsn) -> Result<(), ConnectorError> {
        let length = u32::try_from(1 + rest.len()).unwrap_or(u32::MAX);
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(&xid.to_le_bytes());
        self.block.extend_from_slice(&start.0.to_le_bytes());
        self.block.push(kind);
        self.block.extend_from_slice(rest);
        if self.block.len() >= BLOCK { self.write() } else { Ok(()) }
    }

    /// Appends the block to the current transaction's file.
    fn write(&mut self) -> Result<(), ConnectorError> {
        let Some(spill) = self.current.and_then(|xid| self.open.get_mut(&xid)) else { return Ok(()) };
        if self.block.is_empty() {
            return Ok(());
        }
        let mut head = [0; BLOCK_HEAD];
        head[..4].copy_from_slice(&u32::try_from(self.block.len()).unwrap_or(u32::MAX).to_le_bytes());
        head[4..].copy_from_slice(&xxh3_64(&self.block).to_le_bytes());
        let append = || {
            let mut file = OpenOptions::new().create(true).append(true).open(&spill.path)?;
            file.write_all(&head)?;
            file.write_all(&self.block)
        };
        append().map_err(|e| ConnectorError::spill(spill.path.display().to_string(), &e))?;
        spill.bytes += (BLOCK_HEAD + self.block.len()) as u64;
        self.block.clear();
        self.measure();
        Ok(())
    }

    fn measure(&self) {
        self.bytes.set(self.open.values().map(|spill| spill.bytes).sum::<u64>() as f64);
    }
}

/// How a streamed transaction ended.
#[derive(Debug, Clone, Copy)]
pub(in crate::postgres) struct Committed {
    pub xid: u32,
    /// Start of the commit record, or of the record that prepares it.
    pub commit: Lsn,
    /// The position behind it.
    pub end: Lsn,
    /// Microseconds since the Unix epoch.
    pub commit_us: i64,
    /// It is prepared, and may yet be rolled back.
    pub prepared: bool,
}

/// One change that was kept.
pub(in crate::postgres) struct Kept {
    /// Where its record starts.
    pub start: Lsn,
    /// The message as version 1 of the protocol has it.
    pub payload: Bytes,
}

/// A committed transaction that is being read back.
pub(in crate::postgres) struct Replay {
    /// How it ended.
    pub committed: Committed,
    file: Option<File>,
    left: u64,
    block: Bytes,
    spill: Spill,
}

impl Replay {
    fn open(spill: Spill, committed: Committed) -> Result<Self, ConnectorError> {
        let file = match spill.bytes {
            0 => None,
            _ => {
                Some(File::open(&spill.path).map_err(|e| ConnectorError::spill(spill.path.display().to_string(), &e))?)
            }
        };
        Ok(Self { committed, file, left: spill.bytes, block: Bytes::new(), spill })
    }

    /// The next change that was not rolled back; none at the end.
    pub(in crate::postgres) fn next(&mut self) -> Result<Option<Kept>, ConnectorError> {
        loop {
            if self.block.is_empty() && !self.read_block()? {
                return Ok(None);
            }
            let Some((length, sub, start)) = record_head(&self.block) else { return Err(self.damaged()) };
            if self.block.len() < RECORD_HEAD + length || length == 0 {
                return Err(self.damaged());
            }
            let mut record = self.block.split_to(RECORD_HEAD + length);
            let payload = record.split_off(RECORD_HEAD);
            // The server does not describe a table again because the change before which it did so was rolled back.
            if self.spill.aborted.contains(&sub) && !matches!(payload.first(), Some(b'R' | b'Y')) {
                continue;
            }
            return Ok(Some(Kept { start, payload }));
        }
    }

    fn read_block(&mut self) -> Result<bool, ConnectorError> {
        let (Some(file), 1..) = (&mut self.file, self.left) else { return Ok(false) };
        let mut head = [0; BLOCK_HEAD];
        let failed = |e: std::io::Error| ConnectorError::spill(self.spill.path.display().to_string(), &e);
        file.read_exact(&mut head).map_err(failed)?;
        let (length, sum) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
        let whole = BLOCK_HEAD as u64 + u64::from(length);
        if whole > self.left {
            return Err(self.damaged());
        }
        let mut block = vec![0; length as usize];
        file.read_exact(&mut block).map_err(failed)?;
        if xxh3_64(&block).to_le_bytes() != *sum {
            return Err(self.damaged());
        }
        self.left -= whole;
        self.block = block.into();
        Ok(true)
    }

    fn damaged(&self) -> ConnectorError {
        let error = std::io::Error::new(std::io::ErrorKind::InvalidData, "it does not hold what was written");
        ConnectorError::spill(self.spill.path.display().to_string(), &error)
    }
}

fn record_head(block: &[u8]) -> Option<(usize, u32, Lsn)> {
    let head = block.first_chunk::<RECORD_HEAD>()?;
    let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let start = u64::from(number(8)) | u64::from(number(12)) << 32;
    Some((number(0) as usize, number(4), Lsn(start)))
}
