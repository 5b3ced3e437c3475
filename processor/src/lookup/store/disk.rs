//! Rows in a file of redb. One transaction has the rows that a batch of records changed and how far the table has come by it, so that after
//! a crash it goes on where it was.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable, Table, TableDefinition};

use super::{Applied, Rows, Sizes, StoreError, apply};
use crate::lookup::change::Change;
use crate::lookup::progress::Progress;

/// Key → the number of the row's last change, and the row.
const ROWS: TableDefinition<&[u8], (u64, &[u8])> = TableDefinition::new("rows");
/// Under `progress` how far the table has come, under `sizes` how much it has, both as JSON.
const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const PROGRESS: &str = "progress";
const SIZES: &str = "sizes";

/// Memory for pages of the file.
const CACHE: usize = 32 << 20;

/// An open file.
pub(in crate::lookup) struct Disk {
    file: PathBuf,
    database: Database,
    /// As they are durable.
    sizes: Mutex<Sizes>,
}

impl Disk {
    /// Opens a file, or makes it; what is in it that cannot be read counts as nothing.
    pub fn open(file: &Path) -> Result<(Self, Progress), StoreError> {
        let unusable =
            |cause: String| StoreError(format!("the file {} of a table cannot be used: {cause}", file.display()));
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(|e| unusable(format!("its folder cannot be made: {e}")))?;
        }
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        let database = builder.create(file).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => {
                unusable("another process, or a stream that comes to its end, has it open".into())
            }
            error => unusable(format!(
                "{error}; check disk and permissions, or remove the file: the table is then read anew"
            )),
        })?;
        let disk = Self { file: file.into(), database, sizes: Mutex::default() };
        let (progress, sizes) = disk.read_meta().map_err(|e| disk.failed(e))?;
        *disk.sizes.lock().unwrap_or_else(PoisonError::into_inner) = sizes;
        Ok((disk, progress))
    }

    fn read_meta(&self) -> Result<(Progress, Sizes), redb::Error> {
        let txn = self.database.begin_write()?;
        // Who reads expects both.
        txn.open_table(ROWS)?;
        let meta = txn.open_table(META)?;
        let (progress, sizes) = (meta.get(PROGRESS)?, meta.get(SIZES)?);
        let progress = progress.and_then(|found| serde_json::from_slice(found.value()).ok());
        let sizes = sizes.and_then(|found| serde_json::from_slice::<(u64, u64)>(found.value()).ok());
        let read = (progress.unwrap_or_default(), sizes.map(|(rows, bytes)| Sizes { rows, bytes }).unwrap_or_default());
        drop(meta);
        txn.commit()?;
        Ok(read)
    }

    fn failed(&self, error: impl Into<redb::Error>) -> StoreError {
        let (file, error) = (self.file.display(), error.into());
        StoreError(format!(
            "the file {file} of a table failed: {error}; check disk and permissions, or remove the file: the table is then read anew"
        ))
    }

    pub fn sizes(&self) -> Sizes {
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn clear(&self, progress: &Progress) -> Result<(), StoreError> {
        let clear = || -> Result<(), redb::Error> {
            let txn = self.database.begin_write()?;
            txn.delete_table(ROWS)?;
            txn.open_table(ROWS)?;
            write_meta(&mut txn.open_table(META)?, progress, Sizes::default())?;
            Ok(txn.commit()?)
        };
        clear().map_err(|e| self.failed(e))?;
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = Sizes::default();
        Ok(())
    }

    pub fn apply(&self, changes: &[Change], progress: &Progress, limit: u64) -> Result<Applied, StoreError> {
        let before = self.sizes();
        let txn = self.database.begin_write().map_err(|e| self.failed(e))?;
        let (applied, sizes) = {
            let table = txn.open_table(ROWS).map_err(|e| self.failed(e))?;
            let mut changing = Changing { disk: self, table };
            apply(&mut changing, before, changes, progress.emptied, limit)?
        };
        if applied != Applied::Kept {
            txn.abort().map_err(|e| self.failed(e))?;
            return Ok(applied);
        }
        let commit = || -> Result<(), redb::Error> {
            write_meta(&mut txn.open_table(META)?, progress, sizes)?;
            Ok(txn.commit()?)
        };
        commit().map_err(|e| self.failed(e))?;
        *self.sizes.lock().unwrap_or_else(PoisonError::into_inner) = sizes;
        Ok(applied)
    }

    pub fn rows(&self, keys: &[Bytes]) -> Result<Option<Vec<Option<Bytes>>>, StoreError> {
        let read = || -> Result<Option<Vec<Option<Bytes>>>, redb::Error> {
            let txn = self.database.begin_read()?;
            let meta = txn.open_table(META)?;
            let progress = meta.get(PROGRESS)?;
            let is_whole = progress.and_then(|found| serde_json::from_slice::<Progress>(found.value()).ok());
            if !is_whole.is_some_and(|progress| progress.is_whole) {
                return Ok(None);
            }
            let table = txn.open_table(ROWS)?;
            let row = |key: &Bytes| Ok(table.get(&key[..])?.map(|found| Bytes::copy_from_slice(found.value().1)));
            keys.iter().map(row).collect::<Result<Vec<_>, redb::Error>>().map(Some)
        };
        read().map_err(|e| self.failed(e))
    }
}

fn write_meta(meta: &mut Table<'_, &str, &[u8]>, progress: &Progress, sizes: Sizes) -> Result<(), redb::Error> {
    meta.insert(PROGRESS, &serde_json::to_vec(progress).unwrap_or_default()[..])?;
    meta.insert(SIZES, &serde_json::to_vec(&(sizes.rows, sizes.bytes)).unwrap_or_default()[..])?;
    Ok(())
}

/// The rows within a transaction.
struct Changing<'t> {
    disk: &'t Disk,
    table: Table<'t, &'static [u8], (u64, &'static [u8])>,
}

impl Rows for Changing<'_> {
    fn get(&self, key: &Bytes) -> Result<Option<(u64, Bytes)>, StoreError> {
        let found = self.table.get(&key[..]).map_err(|e| self.disk.failed(e))?;
        Ok(found.map(|found| (found.value().0, Bytes::copy_from_slice(found.value().1))))
    }

    fn put(&mut self, key: &Bytes, sequence: u64, row: &Bytes) -> Result<Option<usize>, StoreError> {
        let before = self.table.insert(&key[..], (sequence, &row[..])).map_err(|e| self.disk.failed(e))?;
        Ok(before.map(|before| before.value().1.len()))
    }

    fn remove(&mut self, key: &Bytes) -> Result<Option<usize>, StoreError> {
        let before = self.table.remove(&key[..]).map_err(|e| self.disk.failed(e))?;
        Ok(before.map(|before| before.value().1.len()))
    }

    fn remove_before(&mut self, sequence: u64) -> Result<Sizes, StoreError> {
        let mut gone = Sizes::default();
        let stays = |key: &[u8], (changed, row): (u64, &[u8])| {
            let stays = changed >= sequence;
            if !stays {
                gone.rows += 1;
                gone.bytes += (key.len() + row.len()) as u64;
            }
            stays
        };
        self.table.retain(stays).map_err(|e| self.disk.failed(e))?;
        Ok(gone)
    }
}
