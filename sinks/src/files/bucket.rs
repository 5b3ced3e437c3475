//! The partitions of a stream in a bucket: how a file comes to be there once, where there are no locks and no step changes two objects.
//!
//! The mark of a partition is an object, `.next`, and it alone decides. It is written on the condition that it is still what was read
//! (`If-Match`; the first one: that there is none, `If-None-Match`), and each writing of it is unlike any other, so of two processes that
//! both believe to have the partition one writes it and the other is fenced.
//!
//! ```text
//! 1  put .staged/<number>-<attempt>      the content, where nobody reads
//! 2  put .next, if it is as it was       "9 <topic>", "<number> <attempt> <name of the file>": from here on the entry is done
//! 3  copy .staged/… to its name, then remove .staged/…
//! ```
//!
//! What ends a process between 2 and 3 leaves a mark that names what is left to do, and whoever reads it next does it, before anything
//! else: no later mark is written while a file is missing. To do step 3 twice is to do it once, for the content is the same, and once it
//! is removed from where it was staged there is nothing to copy. (Until then a file that somebody has moved away already may come back:
//! files may be moved away as soon as one that follows them is there.)
//!
//! What was staged and never named is removed by whoever writes the next mark after taking a partition over. `<number>` rises with each
//! mark: what was staged for one that is not later than the one just written can no longer be named by any.

mod http;
mod store;

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt as _, PutMode, UpdateVersion};
use tokio::sync::OnceCell;
use tributary_dsl::plan::BucketPlan;
use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Entry, Mark};
use tributary_transport::{TopicId, TopicPartition};

use super::kept::Kept;

/// Has the mark.
const NEXT: &str = ".next";
/// Where contents wait until their entry is decided.
const STAGED: &str = ".staged";
/// Shows whether the store keeps conditions.
const CONDITIONS: &str = ".conditions";

/// A bucket that keeps the events of a stream.
pub(super) struct Bucket {
    store: Arc<dyn ObjectStore>,
    root: Path,
    /// The sink as messages name it.
    place: String,
    /// Set once it was seen that conditions are kept.
    conditions: OnceCell<()>,
    /// Partitions that were given to this process and in which an earlier owner may have left something.
    taken_over: Mutex<HashSet<TopicPartition>>,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("place", &self.place).finish_non_exhaustive()
    }
}

/// What the mark of a partition says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stand {
    kept: Kept,
    /// How many marks there were before.
    number: u64,
    /// Unlike that of any other mark.
    attempt: String,
    /// The file of the entry that it was written with, if that one had events.
    file: Option<String>,
}

/// A mark as it was found.
struct Found {
    stand: Stand,
    /// What it must still be when the next one is written; none: the names of files told it, there is no mark.
    version: Option<UpdateVersion>,
}

impl Bucket {
    /// Nothing is connected to.
    ///
    /// # Errors
    /// Fatal: the store cannot be used as it is described.
    pub fn new(plan: &BucketPlan, place: &str) -> Result<Self, OutsideError> {
        let (store, root) = store::open(plan).map_err(|e| OutsideError::fatal(format!("{place}: {e}")))?;
        let place = place.to_owned();
        Ok(Self { store, root, place, conditions: OnceCell::new(), taken_over: Mutex::default() })
    }

    /// The mark; none: nothing was committed yet.
    pub async fn next(&self, place: &TopicPartition) -> Result<Option<Mark>, OutsideError> {
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).insert(place.clone());
        let found = self.found(place).await?;
        if let Some(found) = &found {
            self.finish(place, &found.stand).await?;
        }
        Ok(found.map(|found| found.stand.kept.mark))
    }

    /// Puts a file there, if there is something to put, and moves the mark.
    pub async fn commit(
        &self,
        entry: &Entry<'_>,
        extension: &str,
        content: Option<Bytes>,
    ) -> Result<Committed, OutsideError> {
        self.conditions.get_or_try_init(|| self.keeps_conditions()).await?;
        let (place, found) = (entry.place, self.found(entry.place).await?);
        let kept = found.as_ref().map(|found| found.stand.kept);
        let Some(kept) = Kept::after(kept, entry.from, entry.to, content.is_some()) else {
            return Ok(Committed::Fenced);
        };
        if let Some(found) = &found {
            self.finish(place, &found.stand).await?;
        }
        let stand = Stand {
            kept,
            number: found.as_ref().map_or(0, |found| found.stand.number) + 1,
            attempt: TopicId::new().to_string(),
            file: content.as_ref().map(|_| kept.file(entry.from, extension)),
        };
        if let Some(content) = content {
            let path = self.staged(place, &stand);
            self.store.put(&path, content.into()).await.map_err(|e| self.error(&e))?;
        }
        if !self.put_mark(place, &stand, found.and_then(|found| found.version)).await? {
            self.remove(&self.staged(place, &stand)).await?;
            return Ok(Committed::Fenced);
        }
        self.finish(place, &stand).await?;
        self.clean(place, &stand).await?;
        Ok(Committed::Done)
    }

    /// Puts a file there for an event that is behind the mark, once.
    pub async fn redo(
        &self,
        place: &TopicPartition,
        mark: Option<Mark>,
        read_at: Mark,
        extension: &str,
        content: Bytes,
    ) -> Result<Committed, OutsideError> {
        self.conditions.get_or_try_init(|| self.keeps_conditions()).await?;
        let kept = self.found(place).await?.map(|found| found.stand.kept);
        if kept.map(|kept| kept.mark) != mark {
            return Ok(Committed::Fenced);
        }
        let path = self.folder(place).join(Kept::file_again(kept, read_at, extension));
        match self.store.put_opts(&path, content.into(), PutMode::Create.into()).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => Ok(Committed::Done),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// What is there of a partition.
    async fn found(&self, place: &TopicPartition) -> Result<Option<Found>, OutsideError> {
        let path = self.folder(place).join(NEXT);
        let read = async {
            let object = self.store.get(&path).await?;
            let version = UpdateVersion { e_tag: object.meta.e_tag.clone(), version: object.meta.version.clone() };
            Ok((object.bytes().await?, version))
        };
        match read.await {
            Ok((text, version)) => {
                let stand = str::from_utf8(&text).ok().and_then(Stand::read).ok_or_else(|| {
                    let place = &self.place;
                    OutsideError::fatal(format!(
                        "{place}: {path} has no offset in it; write the offset of the next event into it, or restore it"
                    ))
                })?;
                Ok(Some(Found { stand, version: Some(version) }))
            }
            Err(Error::NotFound { .. }) => self.told_by_names(place).await,
            Err(error) => Err(self.error(&error)),
        }
    }

    /// What files say where there is no mark: somebody has put them there, or has removed it.
    async fn told_by_names(&self, place: &TopicPartition) -> Result<Option<Found>, OutsideError> {
        let listed = self.store.list_with_delimiter(Some(&self.folder(place))).await;
        let listed = listed.map_err(|e| self.error(&e))?;
        let kept = Kept::with_names(None, listed.objects.iter().filter_map(|object| object.location.filename()));
        let stand = |kept| Stand { kept, number: 0, attempt: String::new(), file: None };
        Ok(kept.map(|kept| Found { stand: stand(kept), version: None }))
    }

    /// Writes a mark over the one that was found: whether it was still there.
    async fn put_mark(
        &self,
        place: &TopicPartition,
        stand: &Stand,
        before: Option<UpdateVersion>,
    ) -> Result<bool, OutsideError> {
        let path = self.folder(place).join(NEXT);
        let mode = before.map_or(PutMode::Create, PutMode::Update);
        match self.store.put_opts(&path, stand.to_string().into(), mode.into()).await {
            Ok(_) => Ok(true),
            // A request that was sent again after its answer was lost finds its own mark.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                let found = self.found(place).await?;
                Ok(found.is_some_and(|found| found.stand.attempt == stand.attempt))
            }
            Err(error) => Err(self.error(&error)),
        }
    }

    /// Gives the file of an entry that is decided its name, if nobody has done so yet.
    async fn finish(&self, place: &TopicPartition, stand: &Stand) -> Result<(), OutsideError> {
        let Some(file) = &stand.file else { return Ok(()) };
        let staged = self.staged(place, stand);
        match self.store.copy(&staged, &self.folder(place).join(file.as_str())).await {
            Ok(()) => self.remove(&staged).await,
            Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(&error)),
        }
    }

    /// Removes what earlier owners staged in vain, once this process has written a mark.
    async fn clean(&self, place: &TopicPartition, stand: &Stand) -> Result<(), OutsideError> {
        if !self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).contains(place) {
            return Ok(());
        }
        let folder = self.folder(place).join(STAGED);
        let staged: Vec<Path> =
            self.store.list(Some(&folder)).map_ok(|o| o.location).try_collect().await.map_err(|e| self.error(&e))?;
        for path in staged {
            let number = path.filename().and_then(|name| name.split_once('-')?.0.parse::<u64>().ok());
            if number.is_some_and(|number| number <= stand.number) {
                self.remove(&path).await?;
            }
        }
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
        Ok(())
    }

    /// Looks whether the store keeps conditions, without which two processes would write the same events.
    async fn keeps_conditions(&self) -> Result<(), OutsideError> {
        let path = self.root.clone().join(CONDITIONS);
        let put = async |mode: PutMode| {
            self.store.put_opts(&path, "shows that the store keeps conditions\n".into(), mode.into()).await
        };
        match put(PutMode::Create).await {
            Ok(_) | Err(Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(self.error(&error)),
        }
        let unlike = UpdateVersion { e_tag: Some("\"0\"".to_owned()), version: Some("1".to_owned()) };
        for mode in [PutMode::Create, PutMode::Update(unlike)] {
            match put(mode).await {
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {}
                Err(error) => return Err(self.error(&error)),
                Ok(_) => {
                    let place = &self.place;
                    return Err(OutsideError::fatal(format!(
                        "{place}: the store does not keep conditional writes (If-None-Match, If-Match), without which events would be                          there twice; use one that does, or a folder"
                    )));
                }
            }
        }
        Ok(())
    }

    async fn remove(&self, path: &Path) -> Result<(), OutsideError> {
        match self.store.delete(path).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(&error)),
        }
    }

    fn folder(&self, place: &TopicPartition) -> Path {
        self.root.clone().join(&*place.topic).join(place.partition.to_string())
    }

    fn staged(&self, place: &TopicPartition, stand: &Stand) -> Path {
        self.folder(place).join(STAGED).join(format!("{}-{}", stand.number, stand.attempt))
    }

    fn error(&self, error: &Error) -> OutsideError {
        let place = &self.place;
        let fatal = |remedy: &str| OutsideError::fatal(format!("{place}: {error}; {remedy}"));
        match error {
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                fatal("give the pipeline a key, or a role, that may read, write, list and remove there")
            }
            Error::NotFound { .. } => fatal("make the bucket, or name another one"),
            Error::InvalidPath { .. } => fatal("name another folder"),
            Error::NotSupported { .. } | Error::NotImplemented { .. } | Error::UnknownConfigurationKey { .. } => {
                fatal("use another store, or a folder")
            }
            _ => OutsideError::transient(format!("{place}: {error}; it is tried again")),
        }
    }
}

impl Stand {
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let kept = Kept::read(lines.next()?)?;
        // A person who wrote an offset there wrote no second line.
        let Some(line) = lines.next() else {
            return Some(Self { kept, number: 0, attempt: String::new(), file: None });
        };
        let mut words = line.split(' ');
        let (number, attempt) = (words.next()?.parse().ok()?, words.next()?.to_owned());
        Some(Self { kept, number, attempt, file: words.next().map(str::to_owned) })
    }
}

impl fmt::Display for Stand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, number, attempt, file } = self;
        write!(f, "{kept}\n{number} {attempt}")?;
        if let Some(file) = file {
            write!(f, " {file}")?;
        }
        f.write_str("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_is_read_as_it_was_written() {
        let kept = Kept::read("7 AAAAAAAAAAAAAAAAAAAAAQ anew").expect("a mark");
        for file in [None, Some(kept.file(Some(Mark::at(3)), "jsonl"))] {
            let stand = Stand { kept, number: 4, attempt: TopicId::new().to_string(), file };
            assert_eq!(Stand::read(&stand.to_string()), Some(stand));
        }
        assert_eq!(Stand::read("7\n").map(|stand| (stand.kept.mark.next, stand.number)), Some((7, 0)));
        for text in ["", "x\n1 a", "7\nx a", "7\n1"] {
            assert_eq!(Stand::read(text), None, "{text}");
        }
    }
}
