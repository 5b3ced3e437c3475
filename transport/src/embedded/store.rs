//! The database file of the embedded log: opened by one process, reopened after an I/O error, and the tables in it.
//!
//! redb refuses all further work after an I/O error. The store then closes and reopens the file, which restores the
//! last durable state; so a full disk is survived without a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, TableDefinition, WriteTransaction};
use tributary_event::ErrorClass;

use crate::contract::TransportError;

/// Number of the last commit, under the key `commit`; format of the file, under `format`; next topic id, under `topic`.
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Topic name → its description as JSON.
pub(super) const TOPICS: TableDefinition<&str, &[u8]> = TableDefinition::new("topics");
/// (topic id, partition, base offset) → blob.
pub(super) const BLOBS: TableDefinition<(u32, u32, u64), &[u8]> = TableDefinition::new("blobs");
/// (topic id, partition) → (first kept offset, next offset, stored bytes).
pub(super) const ENDS: TableDefinition<(u32, u32), (u64, u64, u64)> = TableDefinition::new("ends");
/// (group, topic id, partition) → offset of the next record to read.
pub(super) const OFFSETS: TableDefinition<(&str, u32, u32), u64> = TableDefinition::new("offsets");
/// Checkpoint name → content.
pub(super) const CHECKPOINTS: TableDefinition<&str, &[u8]> = TableDefinition::new("checkpoints");

pub(super) const FORMAT: u64 = 1;

/// How long a former owner may take to be gone.
const LEAVING: Duration = Duration::from_secs(2);
/// Bytes that stay free on the disk, for the database's own pages.
const SPARE: u64 = 4 << 20;

/// Why a transaction failed.
#[derive(Debug)]
pub(super) enum Failure {
    Storage(redb::Error),
    Transport(TransportError),
}

impl<E: Into<redb::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Storage(error.into())
    }
}

/// How far a failed write had come.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// Before its commit: it left nothing behind.
    Nothing(Failure),
    /// In its commit: only the reopened file can tell.
    Unknown(redb::Error),
}

/// Free bytes on the disk of a folder, if they can be told.
pub(super) type Space = Box<dyn Fn(&Path) -> Option<u64> + Send + Sync>;

pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// The open database.
pub(super) struct Store {
    directory: PathBuf,
    opener: Opener,
    space: Space,
    database: RwLock<Option<Database>>,
    broken: AtomicBool,
}

impl Store {
    /// Opens the file, creating it if absent.
    pub fn open(directory: &Path, cache_bytes: usize) -> Result<Self, TransportError> {
        fs::create_dir_all(directory).map_err(|error| {
            TransportError::caused(
                ErrorClass::Fatal,
                format!(
                    "the folder {} of the embedded log cannot be created: {error}; create it, or choose another one",
                    directory.display()
                ),
                error,
            )
        })?;
        let file = directory.join("log.redb");
        Self::open_with(
            directory,
            Box::new(move || {
                let mut builder = Database::builder();
                builder.set_cache_size(cache_bytes);
                let shown = file.display().to_string();
                builder.set_repair_callback(move |repair| {
                    tracing::info!(
                        file = shown,
                        progress = repair.progress(),
                        "checking the embedded log after a crash"
                    );
                });
                builder.create(&file)
            }),
            Box::new(|directory| {
                let disk = rustix::fs::statvfs(directory).ok()?;
                Some(disk.f_bavail.saturating_mul(disk.f_frsize))
            }),
        )
    }

    /// Opens the database by `opener`, which is called again after an I/O error.
    pub fn open_with(directory: &Path, opener: Opener, space: Space) -> Result<Self, TransportError> {
        let start = Instant::now();
        let database = loop {
            match opener() {
                // The owner may be a process that was killed a moment ago.
                Err(DatabaseError::DatabaseAlreadyOpen) if start.elapsed() < LEAVING => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                opened => break opened.map_err(|error| open_error(directory, error))?,
            }
        };
        let store = Self {
            directory: directory.into(),
            opener,
            space,
            database: RwLock::new(Some(database)),
            broken: false.into(),
        };
        let owner = directory.join("owner.pid");
        if let Err(error) = fs::write(&owner, format!("{}\n", std::process::id())) {
            tracing::warn!(file = %owner.display(), %error, "the owner's process id cannot be written");
        }
        Ok(store)
    }

    /// Runs a read transaction.
    pub fn read<T>(&self, work: impl FnOnce(&ReadTransaction) -> Result<T, Failure>) -> Result<T, TransportError> {
        self.heal()?;
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*guard else { return Err(self.closed()) };
        let result = database.begin_read().map_err(|e| Failure::Storage(unpoison(e.into()))).and_then(|txn| work(&txn));
        result.map_err(|failure| self.explain(failure))
    }

    /// Runs a write transaction and commits it durably.
    pub fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, Failure>) -> Result<T, WriteFailure> {
        self.heal().map_err(|error| WriteFailure::Nothing(Failure::Transport(error)))?;
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &*guard else { return Err(WriteFailure::Nothing(Failure::Transport(self.closed()))) };
        let txn = database.begin_write().map_err(|error| self.nothing(Failure::Storage(unpoison(error.into()))))?;
        let value = work(&txn).map_err(|failure| self.nothing(failure))?;
        txn.commit().map_err(|error| {
            self.broken.store(true, Ordering::Release);
            WriteFailure::Unknown(error.into())
        })?;
        Ok(value)
    }

    /// Free bytes on the disk, if they can be told.
    pub fn free(&self) -> Option<u64> {
        (self.space)(&self.directory)
    }

    /// Refuses to add this many bytes to a disk that is full: before the database runs into it, which is survived too,
    /// but means to reopen the file.
    pub fn room(&self, bytes: usize) -> Result<(), Failure> {
        let needed = 2 * bytes as u64 + SPARE;
        match self.free() {
            Some(free) if free < needed => {
                let text = format!("{free} bytes are free, {needed} are needed");
                Err(Failure::Storage(redb::Error::Io(std::io::Error::new(std::io::ErrorKind::StorageFull, text))))
            }
            _ => Ok(()),
        }
    }

    fn nothing(&self, failure: Failure) -> WriteFailure {
        if let Failure::Storage(error) = &failure
            && breaks(error)
        {
            self.broken.store(true, Ordering::Release);
        }
        WriteFailure::Nothing(failure)
    }

    /// Reopens the file if an I/O error has closed it.
    pub fn heal(&self) -> Result<(), TransportError> {
        if !self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if self.broken.load(Ordering::Acquire) {
            *guard = None;
            *guard = Some((self.opener)().map_err(|error| self.explain(Failure::Storage(error.into())))?);
            self.broken.store(false, Ordering::Release);
            tracing::info!(directory = %self.directory.display(), "the embedded log is open again");
        }
        Ok(())
    }

    /// Gives free space at the file's end back to the file system. Blocks every other use meanwhile.
    pub fn compact(&self) -> Result<(), TransportError> {
        self.heal()?;
        let mut guard = self.database.write().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = &mut *guard else { return Err(self.closed()) };
        match database.compact() {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(Failure::Storage(error.into()))),
        }
    }

    /// A sentence for a failure, and its class.
    pub fn explain(&self, failure: Failure) -> TransportError {
        let error = match failure {
            Failure::Transport(error) => return error,
            Failure::Storage(error) => error,
        };
        let directory = self.directory.display();
        if breaks(&error) {
            self.broken.store(true, Ordering::Release);
        }
        let (class, message) = match &error {
            redb::Error::Io(io)
                if matches!(
                    io.kind(),
                    std::io::ErrorKind::StorageFull
                        | std::io::ErrorKind::QuotaExceeded
                        | std::io::ErrorKind::FileTooLarge
                ) =>
            {
                (
                    ErrorClass::Transient,
                    format!(
                        "the disk of the embedded log in {directory} is full ({io}); free space, or lower the retention; nothing is lost, and appending goes on when there is space"
                    ),
                )
            }
            redb::Error::Io(io) => (
                ErrorClass::Transient,
                format!(
                    "the embedded log in {directory} cannot be read or written: {io}; check the disk and the folder's permissions"
                ),
            ),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => (
                ErrorClass::Transient,
                format!("the embedded log in {directory} was closed by an earlier I/O error and is being reopened"),
            ),
            redb::Error::Corrupted(what) => (
                ErrorClass::Fatal,
                format!(
                    "the embedded log in {directory} is damaged: {what}; restore the folder from a copy, or remove it and dump the sources again"
                ),
            ),
            other => (ErrorClass::Fatal, format!("the embedded log in {directory} failed: {other}")),
        };
        TransportError::caused(class, message, error)
    }

    fn closed(&self) -> TransportError {
        TransportError::new(
            ErrorClass::Transient,
            format!("the embedded log in {} is closed after an I/O error", self.directory.display()),
        )
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // The lock on the database file is what counts; the file that names the owner is a courtesy.
        let _ = fs::remove_file(self.directory.join("owner.pid"));
    }
}

fn breaks(error: &redb::Error) -> bool {
    matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo | redb::Error::DatabaseClosed)
}

/// redb answers with `LockPoisoned` when a thread panicked inside it; reopening is the remedy as for an I/O error.
fn unpoison(error: redb::Error) -> redb::Error {
    match error {
        redb::Error::LockPoisoned(_) => redb::Error::PreviousIo,
        other => other,
    }
}

fn open_error(directory: &Path, error: DatabaseError) -> TransportError {
    let shown = directory.display();
    let message = match &error {
        DatabaseError::DatabaseAlreadyOpen => {
            let owner = fs::read_to_string(directory.join("owner.pid")).unwrap_or_default();
            let who = match owner.trim() {
                "" => "another process".to_owned(),
                pid if pid == std::process::id().to_string() => "this very process".to_owned(),
                pid => format!("process {pid}"),
            };
            format!(
                "the embedded log in {shown} is in use by {who}; stop it, choose another folder, or use Kafka, which several processes can share"
            )
        }
        DatabaseError::UpgradeRequired(version) => {
            format!(
                "the embedded log in {shown} was written in format {version}, which this version cannot read; use the version that wrote it, or remove the folder and dump the sources again"
            )
        }
        other => format!("the embedded log in {shown} cannot be opened: {other}; check the folder and its permissions"),
    };
    TransportError::caused(ErrorClass::Fatal, message, error)
}
