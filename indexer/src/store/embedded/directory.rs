//! The folder as tantivy writes it, with syncs where durability needs them and nowhere else.
//!
//! A commit of one document writes some eight small files. Tantivy's own directory syncs each of them as it is closed, and
//! rewrites and syncs its list of managed files before each: some twenty syncs in a row, and none for the rename that
//! publishes the commit. Here the files of a commit are synced together when the commit needs them, the list is written
//! once, and the folder is synced after the rename too, so that a commit is durable when it returns.
//!
//! What a crash may leave behind is files of a commit that never was, which the list does not name: [`sweep`] removes them.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tantivy::Directory;
use tantivy::directory::error::{DeleteError, LockError, OpenDirectoryError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, DirectoryLock, FileHandle, Lock, MmapDirectory, TerminatingWrite, WatchCallback, WatchHandle,
    WritePtr,
};

const MANAGED: &str = ".managed.json";
const META: &str = "meta.json";
/// Files synced at the same time: the file system makes one journal commit of them.
const TOGETHER: usize = 8;

/// A folder that is synced per commit.
#[derive(Debug, Clone)]
pub(super) struct CommitDirectory {
    folder: PathBuf,
    inner: MmapDirectory,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Closed, and not synced.
    unsynced: HashSet<PathBuf>,
    /// The list of managed files, where it is newer than on disk.
    managed: Option<Vec<u8>>,
}

impl CommitDirectory {
    pub fn open(folder: &Path) -> Result<Self, OpenDirectoryError> {
        Ok(Self { folder: folder.to_owned(), inner: MmapDirectory::open(folder)?, state: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync_files(&self, files: &[PathBuf]) -> io::Result<()> {
        let sync = |path: &PathBuf| match File::open(self.folder.join(path)) {
            Ok(file) => file.sync_data(),
            // Deleted meanwhile: no commit can need it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        };
        for group in files.chunks(TOGETHER) {
            let (first, rest) = group.split_first().map_or((None, group), |(first, rest)| (Some(first), rest));
            std::thread::scope(|scope| {
                let others: Vec<_> = rest.iter().map(|path| scope.spawn(move || sync(path))).collect();
                first.map_or(Ok(()), sync)?;
                let panicked = |_| Err(io::Error::other("a thread that synced a file panicked"));
                others.into_iter().try_for_each(|other| other.join().unwrap_or_else(panicked))
            })?;
        }
        Ok(())
    }
}

impl Directory for CommitDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        self.inner.get_file_handle(path)
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        self.state().unsynced.remove(path);
        self.inner.delete(path)
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        if path == Path::new(MANAGED) && self.state().managed.is_some() {
            return Ok(true);
        }
        self.inner.exists(path)
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let opened = OpenOptions::new().write(true).create_new(true).open(self.folder.join(path));
        let file = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => OpenWriteError::FileAlreadyExists(path.to_owned()),
            _ => OpenWriteError::wrap_io_error(error, path.to_owned()),
        })?;
        Ok(BufWriter::new(Box::new(Closing { file, path: path.to_owned(), state: self.state.clone() })))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        if path == Path::new(MANAGED)
            && let Some(managed) = &self.state().managed
        {
            return Ok(managed.clone());
        }
        self.inner.atomic_read(path)
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        if path == Path::new(MANAGED) {
            self.state().managed = Some(data.to_vec());
            return Ok(());
        }
        if path == Path::new(META) {
            self.sync_directory()?;
        }
        self.inner.atomic_write(path, data)?;
        self.inner.sync_directory()
    }

    /// Makes every closed file durable.
    fn sync_directory(&self) -> io::Result<()> {
        let (files, managed) = {
            let state = self.state();
            (state.unsynced.iter().cloned().collect::<Vec<_>>(), state.managed.clone())
        };
        if files.is_empty() {
            return Ok(());
        }
        self.sync_files(&files)?;
        if let Some(managed) = &managed {
            self.inner.atomic_write(Path::new(MANAGED), managed)?;
        }
        self.inner.sync_directory()?;
        let mut state = self.state();
        files.iter().for_each(|path| {
            state.unsynced.remove(path);
        });
        if state.managed == managed {
            state.managed = None;
        }
        Ok(())
    }

    fn acquire_lock(&self, lock: &Lock) -> Result<DirectoryLock, LockError> {
        self.inner.acquire_lock(lock)
    }

    fn watch(&self, callback: WatchCallback) -> tantivy::Result<WatchHandle> {
        self.inner.watch(callback)
    }
}

/// A file that is noted when it is closed.
struct Closing {
    file: File,
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Write for Closing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl TerminatingWrite for Closing {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.file.flush()?;
        self.state.lock().unwrap_or_else(PoisonError::into_inner).unsynced.insert(self.path.clone());
        Ok(())
    }
}

/// Removes files of segments that are not among the `live` ones (32 hexadecimal digits each). Only for who has the folder's
/// lock, before it writes.
pub(super) fn sweep(folder: &Path, live: &HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.split('.').next()).unwrap_or_default();
        let segment = stem.len() == 32 && stem.bytes().all(|b| b.is_ascii_hexdigit());
        if segment && !live.contains(stem) && std::fs::remove_file(entry.path()).is_ok() {
            tracing::debug!(file = %entry.path().display(), "file of an unfinished commit removed");
        }
    }
}
