//! The folder of a partition: what is in it, and how a file comes to be there as a whole, once, and for good.
//!
//! A file is written under another name, forced to disk, and linked to its own name, which fails if there is one; then the folder is
//! forced to disk, and only then the entry is done. What a crash leaves behind has a name that begins with a dot, and is removed by
//! whoever has the lock next.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Mark};
use tributary_transport::TopicPartition;

use super::kept::Kept;

/// Has the mark.
const NEXT: &str = ".next";
/// Is locked by whoever looks at marks or writes.
const LOCK: &str = ".lock";
/// What names of unfinished files begin with.
const UNFINISHED: &str = ".unfinished-";

/// The folder of a partition.
pub(super) struct Folder {
    root: PathBuf,
    path: PathBuf,
    extension: &'static str,
    /// The sink as messages name it.
    place: String,
}

impl Folder {
    pub(super) fn new(root: &Path, place: &TopicPartition, extension: &'static str, sink: &str) -> Self {
        let path = root.join(name_of(&place.topic)).join(place.partition.to_string());
        Self { root: root.to_owned(), path, extension, place: sink.to_owned() }
    }

    /// The mark; none: nothing was committed yet.
    pub(super) fn next(&self) -> Result<Option<Mark>, OutsideError> {
        if !self.path.is_dir() {
            return Ok(None);
        }
        let _lock = self.lock()?;
        self.kept().map(|kept| kept.map(|kept| kept.mark)).map_err(|e| self.error(&e))
    }

    /// Puts a file there, if there is something to put, and moves the mark.
    pub(super) fn commit(
        &self,
        from: Option<Mark>,
        to: Mark,
        content: Option<&[u8]>,
    ) -> Result<Committed, OutsideError> {
        self.make().map_err(|e| self.error(&e))?;
        let _lock = self.lock()?;
        self.committed(from, to, content).map_err(|e| self.error(&e))
    }

    /// Puts a file there for an event that is behind the mark, once.
    pub(super) fn redo(&self, mark: Option<Mark>, read_at: Mark, content: &[u8]) -> Result<Committed, OutsideError> {
        self.make().map_err(|e| self.error(&e))?;
        let _lock = self.lock()?;
        let put = || {
            self.clean()?;
            let kept = self.kept()?;
            if kept.as_ref().map(|kept| kept.mark) != mark {
                return Ok(Committed::Fenced);
            }
            let name = Kept::file_again(kept, read_at, self.extension);
            if !self.path.join(&name).try_exists()? {
                self.put(&name, content)?;
            }
            Ok(Committed::Done)
        };
        put().map_err(|e| self.error(&e))
    }

    /// Puts a file there, whole and for good.
    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let unfinished = self.unfinished(content, name)?;
        // Fails if there is a file of this name, where a rename would replace it.
        fs::hard_link(&unfinished, self.path.join(name))?;
        fs::remove_file(&unfinished)?;
        sync(&self.path)
    }

    fn committed(&self, from: Option<Mark>, to: Mark, content: Option<&[u8]>) -> io::Result<Committed> {
        self.clean()?;
        let Some(kept) = Kept::after(self.kept()?, from, to, content.is_some()) else { return Ok(Committed::Fenced) };
        if let Some(content) = content {
            self.put(&kept.file(from, self.extension), content)?;
        }
        let unfinished = self.unfinished(format!("{kept}\n").as_bytes(), NEXT)?;
        fs::rename(&unfinished, self.path.join(NEXT))?;
        sync(&self.path)?;
        Ok(Committed::Done)
    }

    /// A file with a content that is on the disk, under a name that nobody reads.
    fn unfinished(&self, content: &[u8], name: &str) -> io::Result<PathBuf> {
        let path = self.path.join(format!("{UNFINISHED}{name}"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        file.write_all(content)?;
        file.sync_all()?;
        Ok(path)
    }

    /// Removes what a crash left behind.
    fn clean(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// The mark: the end of the last file, or what [`NEXT`] says. That one is written after the file, and outlives it.
    fn kept(&self) -> io::Result<Option<Kept>> {
        let kept = match fs::read_to_string(self.path.join(NEXT)) {
            Ok(text) => Some(Kept::read(text.trim_end()).ok_or_else(|| {
                let path = self.path.join(NEXT);
                io::Error::new(ErrorKind::InvalidData, format!("{} has no offset in it", path.display()))
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        Ok(Kept::with_names(kept, names.collect::<io::Result<Vec<String>>>()?))
    }

    /// Makes the folder, so that it is still there after a crash.
    fn make(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(&self.path)?;
        let parents = self.path.ancestors().skip(1).take_while(|path| path.starts_with(&self.root));
        parents.chain(self.root.parent()).filter(|path| !path.as_os_str().is_empty()).try_for_each(sync)
    }

    /// The lock, as long as the file is open.
    fn lock(&self) -> Result<File, OutsideError> {
        let path = self.path.join(LOCK);
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(|e| self.error(&e))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(OutsideError::transient(format!(
                "{}: another process writes to {} now; it is tried again",
                self.place,
                self.path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(OutsideError::fatal(format!(
                "{}: {} cannot be locked ({error}); use a folder of a file system that has locks",
                self.place,
                path.display()
            ))),
        }
    }

    fn error(&self, error: &io::Error) -> OutsideError {
        let (place, path) = (&self.place, self.path.display());
        let fatal = |remedy: &str| OutsideError::fatal(format!("{place}: {error} at {path}; {remedy}"));
        match error.kind() {
            ErrorKind::PermissionDenied => fatal("let the process write there"),
            ErrorKind::ReadOnlyFilesystem => fatal("mount it so that it can be written to"),
            ErrorKind::NotADirectory => fatal("remove the file that is in the way, or name another folder"),
            ErrorKind::Unsupported => fatal("use a folder of a file system that has hard links"),
            ErrorKind::InvalidData => fatal("write the offset of the next event into it, or restore it"),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                OutsideError::transient(format!("{place}: {error} at {path}; it is tried again: make room"))
            }
            _ => OutsideError::transient(format!("{place}: {error} at {path}; it is tried again")),
        }
    }
}

/// Forces a folder's names to disk.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A topic's name as that of a folder. Kafka's names are such already, but for two that mean other folders.
fn name_of(topic: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let all_dots = topic.bytes().all(|byte| byte == b'.');
    let escape = |byte: u8| match plain(byte) && !all_dots {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    topic.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_topics_stay_in_the_folder() {
        assert_eq!((name_of("films.orders_1-a").as_str(), name_of("..").as_str()), ("films.orders_1-a", "%2E%2E"));
        assert_eq!((name_of("a/../b").as_str(), name_of("ü%").as_str()), ("a%2F..%2Fb", "%C3%BC%25"));
    }
}
