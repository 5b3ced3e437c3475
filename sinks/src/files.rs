//! Files in a folder, exactly once: `<folder>/<topic>/<partition>/<from>-<to>.jsonl` has the events of a range of offsets.
//!
//! An entry is there when its file has its name. The name says up to where the partition was given, so the folder itself is the
//! ledger, and whoever reads it needs nothing else to know what is there once. Only one thing is beside it: `.next` has the
//! mark too, for entries without events, and so that files may be moved away when they were read. It also says which topic the offsets
//! are of; when that one was deleted and made again, the files of the new one have its identity behind their offsets.
//!
//! Two processes that have a partition during a handover are told apart by a lock of its folder: the name of a file is not enough, for
//! they may have gathered different numbers of events from the same offset on. The lock ends with its process. It is one of the
//! operating system, so a folder that several machines share must be on a file system that locks for all of them (NFS 4 does).

mod folder;
mod lines;
mod parquet;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tributary_dsl::plan::{FileFormat, FilesPlan};
use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Entry, LedgerSink, Mark, OutEvent};
use tributary_transport::TopicPartition;

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

/// A folder that keeps the events of a stream.
///
/// Files are written by threads of the runtime's pool. A call that is dropped may have been committed, which [`LedgerSink::next`] tells.
#[derive(Debug)]
pub struct Files {
    folder: PathBuf,
    format: FileFormat,
    size: u64,
    every: Duration,
    /// The sink as messages name it.
    place: String,
}

impl Files {
    /// The sink `sink` of the stream `stream`, for a plan. Folders are made by the first commit. No other sink may write to the same
    /// folder: it would be fenced.
    pub fn new(plan: &FilesPlan, stream: &str, sink: &str) -> Self {
        Self {
            folder: plan.folder.clone(),
            format: plan.format,
            size: plan.size,
            every: plan.every,
            place: format!("files of {stream}/{sink} in {}", plan.folder.display()),
        }
    }

    fn folder(&self, place: &TopicPartition) -> Folder {
        let extension = match self.format {
            FileFormat::JsonLines => "jsonl",
            FileFormat::Parquet => "parquet",
        };
        Folder::new(&self.folder, place, extension, &self.place)
    }

    /// Renders events, and hands the content of their file on; none: there are no events.
    async fn put(
        &self,
        events: &[OutEvent],
        put: impl FnOnce(Option<&[u8]>) -> Result<Committed, OutsideError> + Send + 'static,
    ) -> Result<Committed, OutsideError> {
        let (events, format, place) = (events.to_vec(), self.format, self.place.clone());
        self.off_the_runtime(move || {
            let content = match format {
                _ if events.is_empty() => None,
                FileFormat::JsonLines => Some(lines::render(&events)),
                FileFormat::Parquet => Some(parquet::render(&events)),
            };
            match content.transpose() {
                Ok(content) => put(content.as_deref()),
                Err(Unfit::Event(event, why)) => Ok(Committed::Rejected { event, why: format!("{place}: {why}") }),
                Err(Unfit::File(why)) => Err(OutsideError::fatal(format!("{place}: {why}; use another format"))),
            }
        })
        .await
    }

    /// Runs what waits for the disk.
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
        let folder = self.folder(place);
        self.off_the_runtime(move || folder.next()).await
    }

    async fn commit(&self, entry: &Entry<'_>) -> Result<Committed, OutsideError> {
        let (folder, from, to) = (self.folder(entry.place), entry.from, entry.to);
        self.put(entry.events, move |content| folder.commit(from, to, content)).await
    }

    async fn redo(
        &self,
        place: &TopicPartition,
        mark: Option<Mark>,
        offset: u64,
        events: &[OutEvent],
    ) -> Result<Committed, OutsideError> {
        let folder = self.folder(place);
        let redo = move |content: Option<&[u8]>| match content {
            Some(content) => folder.redo(mark, offset, content),
            None => Ok(Committed::Done),
        };
        self.put(events, redo).await
    }
}
