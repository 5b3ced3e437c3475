//! Files in a folder or a bucket, exactly once: `<folder>/<topic>/<partition>/<from>-<to>.jsonl` has the events of a range of offsets.
//!
//! In a folder an entry is there when its file has its name. The name says up to where the partition was given, so the folder itself is the
//! ledger, and whoever reads it needs nothing else to know what is there once. Only one thing is beside it: `.next` has the
//! mark too, for entries without events, and so that files may be moved away when they were read. It also says which topic the offsets
//! are of; when that one was deleted and made again, the files of the new one have its identity behind their offsets.
//!
//! Two processes that have a partition during a handover are told apart by a lock of its folder: the name of a file is not enough, for
//! they may have gathered different numbers of events from the same offset on. The lock ends with its process. It is one of the
//! operating system, so a folder that several machines share must be on a file system that locks for all of them (NFS 4 does).
//!
//! A bucket has no locks, and no step that changes two objects: how an entry is one there, `bucket` argues.

mod bucket;
mod folder;
mod kept;
mod lines;
mod parquet;

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tributary_dsl::plan::{FileFormat, FilesPlace, FilesPlan};
use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Entry, LedgerSink, Mark, OutEvent};
use tributary_transport::TopicPartition;

use bucket::Bucket;
use folder::Folder;

/// Events of a file at most, however small they are: they wait in memory.
const MOST_EVENTS: usize = 500_000;

/// Why events cannot be written.
enum Unfit {
    /// No file can hold this one: its place in the entry, and why.
    Event(usize, String),
    /// Whichever they are.
    File(String),
}

/// What has become of events on their way into a file.
enum Rendered {
    /// Its content; none: there are no events.
    Content(Option<Bytes>),
    /// One of them can be in none.
    Refused(Committed),
}

/// Where files are.
#[derive(Debug)]
enum Home {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

/// A folder or a bucket that keeps the events of a stream.
///
/// Files are made by threads of the runtime's pool. A call that is dropped may have been committed, which [`LedgerSink::next`] tells.
#[derive(Debug)]
pub struct Files {
    home: Home,
    format: FileFormat,
    size: u64,
    every: Duration,
    /// The sink as messages name it.
    place: String,
}

impl Files {
    /// The sink `sink` of the stream `stream`, for a plan. Nothing is connected to; folders are made by the first commit. No other sink
    /// may write to the same folder: it would be fenced.
    ///
    /// # Errors
    /// Fatal: the store cannot be used as it is described.
    pub fn new(plan: &FilesPlan, stream: &str, sink: &str) -> Result<Self, OutsideError> {
        let place = format!("files of {stream}/{sink} in {}", plan.place);
        let home = match &plan.place {
            FilesPlace::Folder(folder) => Home::Folder(folder.clone()),
            FilesPlace::Bucket(bucket) => Home::Bucket(Box::new(Bucket::new(bucket, &place)?)),
        };
        Ok(Self { home, format: plan.format, size: plan.size, every: plan.every, place })
    }

    fn extension(&self) -> &'static str {
        match self.format {
            FileFormat::JsonLines => "jsonl",
            FileFormat::Parquet => "parquet",
        }
    }

    fn folder(&self, root: &Path, place: &TopicPartition) -> Folder {
        Folder::new(root, place, self.extension(), &self.place)
    }

    async fn render(&self, events: &[OutEvent]) -> Result<Rendered, OutsideError> {
        if events.is_empty() {
            return Ok(Rendered::Content(None));
        }
        let (events, format, place) = (events.to_vec(), self.format, self.place.clone());
        self.off_the_runtime(move || {
            let content = match format {
                FileFormat::JsonLines => lines::render(&events),
                FileFormat::Parquet => parquet::render(&events),
            };
            match content {
                Ok(content) => Ok(Rendered::Content(Some(content.into()))),
                Err(Unfit::Event(event, why)) => {
                    Ok(Rendered::Refused(Committed::Rejected { event, why: format!("{place}: {why}") }))
                }
                Err(Unfit::File(why)) => Err(OutsideError::fatal(format!("{place}: {why}; use another format"))),
            }
        })
        .await
    }

    /// Runs what takes a processor, or waits for the disk.
    async fn off_the_runtime<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, OutsideError> + Send + 'static,
    ) -> Result<T, OutsideError> {
        let ended = |e| OutsideError::transient(format!("{}: the thread that writes ended ({e})", self.place));
        tokio::task::spawn_blocking(work).await.map_err(ended)?
    }
}

#[async_trait]
impl LedgerSink for Files {
    fn most(&self) -> (usize, usize) {
        (MOST_EVENTS, usize::try_from(self.size).unwrap_or(usize::MAX).max(1))
    }

    fn linger(&self) -> Duration {
        self.every
    }

    async fn next(&self, place: &TopicPartition) -> Result<Option<Mark>, OutsideError> {
        match &self.home {
            Home::Folder(root) => {
                let folder = self.folder(root, place);
                self.off_the_runtime(move || folder.next()).await
            }
            Home::Bucket(bucket) => bucket.next(place).await,
        }
    }

    async fn commit(&self, entry: &Entry<'_>) -> Result<Committed, OutsideError> {
        let content = match self.render(entry.events).await? {
            Rendered::Content(content) => content,
            Rendered::Refused(refused) => return Ok(refused),
        };
        match &self.home {
            Home::Folder(root) => {
                let (folder, from, to) = (self.folder(root, entry.place), entry.from, entry.to);
                self.off_the_runtime(move || folder.commit(from, to, content.as_deref())).await
            }
            Home::Bucket(bucket) => bucket.commit(entry, self.extension(), content).await,
        }
    }

    async fn redo(
        &self,
        place: &TopicPartition,
        mark: Option<Mark>,
        read_at: Mark,
        events: &[OutEvent],
    ) -> Result<Committed, OutsideError> {
        let content = match self.render(events).await? {
            Rendered::Content(Some(content)) => content,
            Rendered::Content(None) => return Ok(Committed::Done),
            Rendered::Refused(refused) => return Ok(refused),
        };
        match &self.home {
            Home::Folder(root) => {
                let folder = self.folder(root, place);
                self.off_the_runtime(move || folder.redo(mark, read_at, &content)).await
            }
            Home::Bucket(bucket) => bucket.redo(place, mark, read_at, self.extension(), content).await,
        }
    }
}
