//! The folder of a partition: what is in it, and how a file comes to be there as a whole, once, and for good.
//!
//! A file is written under another name, forced to disk, and linked to its own name, which fails if there is one; then the folder is
//! forced to disk, and only then the entry is done. What a crash leaves behind has a name that begins with a dot, and is removed by
//! whoever has the lock next.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Mark};
use tributary_transport::TopicPartition;

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
    pub(super) fn redo(&self, mark: Option<Mark>, offset: u64, content: &[u8]) -> Result<Committed, OutsideError> {
        self.make().map_err(|e| self.error(&e))?;
        let _lock = self.lock()?;
        let put = || {
            self.clean()?;
            let kept = self.kept()?;
            if kept.as_ref().map(|kept| kept.mark) != mark {
                return Ok(Committed::Fenced);
            }
            let suffix = kept.map(|kept| kept.suffix()).unwrap_or_default();
            let name = format!("again-{offset:020}{suffix}.{}", self.extension);
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
        let kept = self.kept()?;
        let is_anew = from.is_some_and(|from| from.is_followed_anew(&to));
        // What names say cannot go back, but where they say that it is another topic.
        let goes_back = from.is_some_and(|from| to.next < from.next) && !is_anew;
        // Where the first events of another topic begin is said before their file can be there.
        let is_begun = !is_anew || content.is_none();
        if kept.as_ref().map(|kept| kept.mark) != from || goes_back || !is_begun {
            return Ok(Committed::Fenced);
        }
        let before = kept.is_some_and(|kept| kept.is_named);
        let kept = Kept { mark: to, is_named: before || is_anew };
        if let Some(content) = content {
            let from = from.map_or(0, |from| from.next);
            self.put(&format!("{from:020}-{:020}{}.{}", to.next, kept.suffix(), self.extension), content)?;
        }
        let unfinished = self.unfinished(kept.to_string().as_bytes(), NEXT)?;
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
        let mut kept: Option<Kept> = match fs::read_to_string(self.path.join(NEXT)) {
            Ok(text) => Some(Kept::read(text.trim_end()).ok_or_else(|| {
                let path = self.path.join(NEXT);
                io::Error::new(ErrorKind::InvalidData, format!("{} has no offset in it", path.display()))
            })?),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let suffix = kept.as_ref().map(Kept::suffix).unwrap_or_default();
        for entry in fs::read_dir(&self.path)? {
            // Files of a topic before this one say nothing of it.
            let Some(end) = end(&entry?.file_name().to_string_lossy(), &suffix) else { continue };
            let kept = kept.get_or_insert(Kept { mark: Mark::at(0), is_named: false });
            kept.mark.next = kept.mark.next.max(end);
        }
        Ok(kept)
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

/// What is kept of a partition: an offset, and the topic that it is one of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    mark: Mark,
    /// Whether the topic was made anew since there are files, so that their names say which one they are of.
    is_named: bool,
}

impl Kept {
    /// `7`, `7 <topic>`, or `7 <topic> anew`.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let next = words.next()?.parse().ok()?;
        let topic = words.next().map(str::parse).transpose().ok()?;
        let is_named = match words.next() {
            None => false,
            Some(ANEW) => topic.is_some(),
            Some(_) => return None,
        };
        Some(Self { mark: Mark { next, topic }, is_named })
    }

    /// What the names of files have behind their offsets.
    fn suffix(&self) -> String {
        match self.mark.topic.filter(|_| self.is_named) {
            Some(topic) => format!("-{topic}"),
            None => String::new(),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.mark.next)?;
        if let Some(topic) = self.mark.topic {
            write!(f, " {topic}")?;
            if self.is_named {
                write!(f, " {ANEW}")?;
            }
        }
        f.write_str("\n")
    }
}

const ANEW: &str = "anew";

/// The end of the range that a file's name tells, where this is behind its offsets; none for other files.
fn end(name: &str, suffix: &str) -> Option<u64> {
    let (range, _) = name.split_once('.')?;
    let (from, to) = range.strip_suffix(suffix)?.split_once('-')?;
    let number = |text: &str| (text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok());
    number(from)??;
    number(to)?
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
    use tributary_transport::TopicId;

    use super::*;

    #[test]
    fn the_mark_is_read_as_it_was_written() {
        let topic = Some(TopicId::new());
        for (topic, is_named) in [(None, false), (topic, false), (topic, true)] {
            let kept = Kept { mark: Mark { next: 7, topic }, is_named };
            assert_eq!(Kept::read(kept.to_string().trim_end()), Some(kept));
            let name = format!("{:020}-{:020}{}.jsonl", 3, 9, kept.suffix());
            assert_eq!((end(&name, &kept.suffix()), kept.suffix().is_empty()), (Some(9), !is_named), "{name}");
            assert_eq!(end(&name, "-other"), None);
        }
        for text in ["", "x", "7 no", "7  ", "7 AAAAAAAAAAAAAAAAAAAAAQ no"] {
            assert_eq!(Kept::read(text), None, "{text}");
        }
    }

    #[test]
    fn names_tell_ranges_and_stay_in_the_folder() {
        assert_eq!(end("00000000000000000000-00000000000000000007.jsonl", ""), Some(7));
        assert_eq!(end("00000000000000000000-18446744073709551615.parquet", ""), Some(u64::MAX));
        for other in ["0-7.jsonl", "00000000000000000000-00000000000000000007", "notes.txt", ".next", "-.x", ""] {
            assert_eq!(end(other, ""), None, "{other}");
        }
        assert_eq!((name_of("films.orders_1-a").as_str(), name_of("..").as_str()), ("films.orders_1-a", "%2E%2E"));
        assert_eq!((name_of("a/../b").as_str(), name_of("ü%").as_str()), ("a%2F..%2Fb", "%C3%BC%25"));
    }
}
