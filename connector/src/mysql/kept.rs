//! Events that are not held in memory: written to a file while they arrive, then read back.
//!
//! The file has no name, so it goes with whoever holds it, however that ends. It is scratch and never synced: an event that was not read to its
//! end is sent again after a reconnection. The sums of its blocks guard against the disk alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read, Seek as _, Write as _};
use std::path::Path;

use bytes::{Buf as _, Bytes};
use crc32fast::Hasher;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::ConnectorError;

/// What is written at once, and read at once.
const BLOCK: usize = 256 << 10;
/// So much of what an event begins with stays in memory: its header, and the fields in front of a payload.
const FRONT: usize = 1 << 10;

/// An event of the log.
#[derive(Debug)]
pub(super) enum Event {
    /// In memory.
    Whole(Bytes),
    /// In a file.
    Kept(Kept),
}

impl Event {
    /// Its bytes.
    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Whole(event) => event.len() as u64,
            Self::Kept(kept) => kept.size,
        }
    }
}

impl From<Bytes> for Event {
    fn from(event: Bytes) -> Self {
        Self::Whole(event)
    }
}

/// An event that is arriving.
#[derive(Debug)]
pub(super) struct Keeping {
    file: File,
    /// The file's place, for people.
    place: String,
    front: Vec<u8>,
    /// What is not written yet.
    block: Vec<u8>,
    sums: Vec<u64>,
    hasher: Hasher,
    size: u64,
}

impl Keeping {
    /// Makes the file, and the folder if there is none.
    pub(super) fn begin(folder: &Path) -> Result<Self, ConnectorError> {
        let place = format!("the folder {} for compressed transactions", folder.display());
        // Processes in containers may have the same number, and share the folder.
        let path = folder.join(format!("{:016x}.event", rand::random::<u64>()));
        let make = || {
            fs::create_dir_all(folder)?;
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
            fs::remove_file(&path)?;
            Ok(file)
        };
        let file = make().map_err(|error| ConnectorError::kept(place.as_str(), &error))?;
        let (front, block, sums) = (Vec::new(), Vec::with_capacity(BLOCK), Vec::new());
        Ok(Self { file, place, front, block, sums, hasher: Hasher::new(), size: 0 })
    }

    /// Adds what follows.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Result<(), ConnectorError> {
        let front = bytes.len().min(FRONT - self.front.len());
        self.front.extend(bytes.iter().take(front));
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        let mut rest = bytes;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK {
                self.write()?;
            }
            rest = later;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), ConnectorError> {
        self.file.write_all(&self.block).map_err(|error| ConnectorError::kept(self.place.as_str(), &error))?;
        self.sums.push(xxh3_64(&self.block));
        self.block.clear();
        Ok(())
    }

    /// The event has arrived.
    pub(super) fn finish(mut self) -> Result<Kept, ConnectorError> {
        if !self.block.is_empty() {
            self.write()?;
        }
        self.file.rewind().map_err(|error| ConnectorError::kept(self.place.as_str(), &error))?;
        Ok(Kept {
            front: self.front,
            size: self.size,
            crc: self.hasher.finalize(),
            file: self.file,
            place: self.place,
            sums: self.sums.into_iter(),
            block: Bytes::new(),
            left: self.size,
        })
    }
}

/// An event in a file, read from its first byte on. Of its errors, those of the file are a [`ConnectorError`] within.
#[derive(Debug)]
pub(super) struct Kept {
    /// What it begins with.
    pub front: Vec<u8>,
    /// Its bytes.
    pub size: u64,
    /// The CRC32 of all of them.
    pub crc: u32,
    file: File,
    place: String,
    /// Those of the blocks that were not read yet.
    sums: std::vec::IntoIter<u64>,
    /// What is left of the one that was.
    block: Bytes,
    /// Bytes behind it.
    left: u64,
}

impl Kept {
    fn read_block(&mut self) -> io::Result<()> {
        let Some(sum) = self.sums.next() else { return Ok(()) };
        let mut block = vec![0; usize::try_from(self.left).unwrap_or(BLOCK).min(BLOCK)];
        self.file.read_exact(&mut block)?;
        if xxh3_64(&block) != sum {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it does not hold what was written"));
        }
        self.left -= block.len() as u64;
        self.block = block.into();
        Ok(())
    }
}

impl BufRead for Kept {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.block.is_empty() {
            self.read_block().map_err(|error| io::Error::other(ConnectorError::kept(self.place.as_str(), &error)))?;
        }
        Ok(&self.block)
    }

    fn consume(&mut self, amount: usize) {
        self.block.advance(amount.min(self.block.len()));
    }
}

impl Read for Kept {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(folder: &Path, content: &[u8]) -> Kept {
        let mut keeping = Keeping::begin(folder).expect("a file");
        content.chunks(100_000).for_each(|part| keeping.add(part).expect("added"));
        keeping.finish().expect("an event")
    }

    #[test]
    fn an_event_is_read_back_as_it_came_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let within = folder.path().join("made/here");
        for size in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7] {
            let content: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
            let mut kept = kept(&within, &content);
            assert_eq!((kept.size, kept.crc), (size as u64, crc32fast::hash(&content)));
            assert_eq!(kept.front, content[..size.min(FRONT)]);
            let mut read = Vec::new();
            kept.read_to_end(&mut read).expect("read");
            assert!(read == content, "{size}");
            assert_eq!(fs::read_dir(&within).expect("a folder").count(), 0);
        }
    }

    #[test]
    fn what_the_disk_has_changed_or_lost_is_an_error_that_names_the_folder() {
        use std::os::unix::fs::FileExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let mut changed = kept(folder.path(), &[7; 2 * BLOCK]);
        changed.file.write_all_at(&[8], BLOCK as u64 + 9).expect("written");
        let mut cut = kept(folder.path(), &[7; 2 * BLOCK]);
        cut.file.set_len(BLOCK as u64 + 9).expect("cut");
        for kept in [&mut changed, &mut cut] {
            let mut read = Vec::new();
            let error = kept.read_to_end(&mut read).expect_err("damaged").downcast::<ConnectorError>().expect("ours");
            assert_eq!(read.len(), BLOCK);
            assert_eq!(error.class(), tributary_event::ErrorClass::Transient);
            let text = error.to_string();
            assert!(text.contains(&*folder.path().to_string_lossy()) && text.ends_with("check the disk"), "{text}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "in the way").expect("a file");
        let error = Keeping::begin(&file).expect_err("no folder").to_string();
        assert!(error.contains(&*file.to_string_lossy()), "{error}");
        assert!(error.ends_with("let the user that runs tributary write there"), "{error}");
    }
}
