//! Where the rows of a table are kept, with how far it has come: in memory, or in a file. Changes and progress are there together, or not
//! at all, and who looks sees them together too.

mod disk;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use self::disk::Disk;
use super::change::{Change, completed};
use super::progress::Progress;

/// A store that cannot be used: place, cause, remedy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct StoreError(pub String);

/// What became of changes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// They are kept.
    Kept,
    /// They would take more than the limit, and are not kept.
    TooLarge(Sizes),
    /// They are not kept: a row has columns of which nobody here knows the values.
    Lacking {
        /// The key of the row.
        key: Bytes,
        /// The columns.
        columns: Vec<String>,
    },
}

/// How much a table has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Rows.
    pub rows: u64,
    /// Bytes of all keys and rows.
    pub bytes: u64,
}

/// The rows of a table.
pub(super) enum Store {
    Memory(RwLock<Memory>),
    Disk(Disk),
}

#[derive(Default)]
pub(super) struct Memory {
    rows: HashMap<Bytes, (u64, Bytes)>,
    sizes: Sizes,
    is_whole: bool,
}

/// Rows that are being changed, each with the number of its last change.
trait Rows {
    fn get(&self, key: &Bytes) -> Result<Option<(u64, Bytes)>, StoreError>;
    /// The bytes of the row before.
    fn put(&mut self, key: &Bytes, sequence: u64, row: &Bytes) -> Result<Option<usize>, StoreError>;
    /// The bytes of the row before.
    fn remove(&mut self, key: &Bytes) -> Result<Option<usize>, StoreError>;
    /// Takes out what was last changed before that, and says how much that was.
    fn remove_before(&mut self, sequence: u64) -> Result<Sizes, StoreError>;
}

impl Store {
    /// A store in memory, which has nothing.
    pub fn memory() -> Self {
        Self::Memory(RwLock::default())
    }

    /// The store in a file, which is made if there is none; and how far it has come.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn disk(file: &Path) -> Result<(Self, Progress), StoreError> {
        let (disk, progress) = Disk::open(file)?;
        Ok((Self::Disk(disk), progress))
    }

    /// Takes all rows out.
    ///
    /// # Errors
    /// The file cannot be written; then nothing is changed.
    pub fn clear(&self, progress: &Progress) -> Result<(), StoreError> {
        match self {
            Self::Memory(memory) => {
                *memory.write().unwrap_or_else(PoisonError::into_inner) = Memory::default();
                Ok(())
            }
            Self::Disk(disk) => disk.clear(progress),
        }
    }

    /// Applies changes in their order.
    ///
    /// # Errors
    /// The file cannot be read or written; then nothing is changed.
    pub fn apply(&self, changes: &[Change], progress: &Progress, limit: u64) -> Result<Applied, StoreError> {
        match self {
            Self::Memory(memory) => {
                let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
                let sizes = memory.sizes;
                let (applied, sizes) = apply(&mut memory.rows, sizes, changes, progress.emptied, limit)?;
                // What is not kept is read again from the beginning, or no more.
                (memory.sizes, memory.is_whole) = (sizes, progress.is_whole && applied == Applied::Kept);
                Ok(applied)
            }
            Self::Disk(disk) => disk.apply(changes, progress, limit),
        }
    }

    /// The rows of keys, as they are at one moment; none: they are not all there.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn rows(&self, keys: &[Bytes]) -> Result<Option<Vec<Option<Bytes>>>, StoreError> {
        match self {
            Self::Memory(memory) => {
                let memory = memory.read().unwrap_or_else(PoisonError::into_inner);
                let row = |key| memory.rows.get(key).map(|(_, row)| row.clone());
                Ok(memory.is_whole.then(|| keys.iter().map(row).collect()))
            }
            Self::Disk(disk) => disk.rows(keys),
        }
    }

    /// How much it has.
    pub fn sizes(&self) -> Sizes {
        match self {
            Self::Memory(memory) => memory.read().unwrap_or_else(PoisonError::into_inner).sizes,
            Self::Disk(disk) => disk.sizes(),
        }
    }
}

/// Applies changes to rows, and says how much there is then.
fn apply(
    rows: &mut impl Rows,
    mut sizes: Sizes,
    changes: &[Change],
    mut emptied: u64,
    limit: u64,
) -> Result<(Applied, Sizes), StoreError> {
    for change in changes {
        if change.sequence() != 0 && change.sequence() < emptied {
            continue;
        }
        match change {
            // The same key in another partition, after the topic got more of them.
            Change::Put { key, sequence, .. } | Change::Remove { key, sequence }
                if *sequence != 0 && rows.get(key)?.is_some_and(|(changed, _)| changed > *sequence) => {}
            Change::Put { key, sequence, row, kept, is_new } => {
                let lacks = |key: &Bytes| Applied::Lacking { key: key.clone(), columns: kept.clone() };
                let completed = match (kept.is_empty(), rows.get(key)?) {
                    (true, _) => Some(row.clone()),
                    (false, _) if *is_new => return Ok((lacks(key), sizes)),
                    (false, Some((_, before))) => match completed(row, kept, &before) {
                        Some(row) => Some(row),
                        None => return Ok((lacks(key), sizes)),
                    },
                    // It was updated, and yet it is not here: a listing did not see it, for it was gone by then. The event of that comes.
                    (false, None) => None,
                };
                let Some(row) = completed else { continue };
                let before = rows.put(key, *sequence, &row)?;
                sizes.bytes += (key.len() + row.len()) as u64;
                match before {
                    Some(before) => sizes.bytes = sizes.bytes.saturating_sub((key.len() + before) as u64),
                    None => sizes.rows += 1,
                }
            }
            Change::Remove { key, .. } => {
                if let Some(before) = rows.remove(key)? {
                    sizes.bytes = sizes.bytes.saturating_sub((key.len() + before) as u64);
                    sizes.rows = sizes.rows.saturating_sub(1);
                }
            }
            Change::Empty { sequence } => {
                emptied = emptied.max(*sequence);
                let gone = rows.remove_before(*sequence)?;
                sizes.bytes = sizes.bytes.saturating_sub(gone.bytes);
                sizes.rows = sizes.rows.saturating_sub(gone.rows);
            }
        }
        if sizes.bytes > limit {
            return Ok((Applied::TooLarge(sizes), sizes));
        }
    }
    Ok((Applied::Kept, sizes))
}

impl Rows for HashMap<Bytes, (u64, Bytes)> {
    fn get(&self, key: &Bytes) -> Result<Option<(u64, Bytes)>, StoreError> {
        Ok(HashMap::get(self, key).cloned())
    }

    fn put(&mut self, key: &Bytes, sequence: u64, row: &Bytes) -> Result<Option<usize>, StoreError> {
        Ok(self.insert(key.clone(), (sequence, row.clone())).map(|(_, before)| before.len()))
    }

    fn remove(&mut self, key: &Bytes) -> Result<Option<usize>, StoreError> {
        Ok(HashMap::remove(self, key).map(|(_, before)| before.len()))
    }

    fn remove_before(&mut self, sequence: u64) -> Result<Sizes, StoreError> {
        let mut gone = Sizes::default();
        self.retain(|key, (changed, row)| {
            let stays = *changed >= sequence;
            if !stays {
                gone.rows += 1;
                gone.bytes += (key.len() + row.len()) as u64;
            }
            stays
        });
        Ok(gone)
    }
}
