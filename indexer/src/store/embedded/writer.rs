//! The one thread that writes an embedded index.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tantivy::indexer::{IndexWriterOptions, LogMergePolicy};
use tantivy::{IndexWriter, Searcher, TantivyDocument};
use tokio::sync::{mpsc, oneshot};
use tributary_event::ErrorClass;

use super::content::{self, Change, Item};
use super::{Shared, directory, reading};
use crate::store::{StoreError, Verdict};

/// Calls that wait for the thread.
const QUEUE: usize = 16;
/// Calls that may share one commit.
const SHARED_COMMIT: usize = 256;
/// Memory of tantivy's indexing thread: the least it takes. Every commit walks through a table whose size follows from this.
const ARENA: usize = 15_000_000;
/// Pending bytes above which the thread commits by itself. While commits fail, it takes nothing more.
const MAX_PENDING: usize = 24 << 20;
/// Pause asked for while commits fail.
const PAUSE: Duration = Duration::from_secs(1);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

enum Command {
    Write(Vec<Item>, Reply<Vec<Verdict>>),
    Refresh(Reply<()>),
}

/// Handle of the thread. Dropping it ends the thread after the call it is at, without a commit, and waits for that: the
/// folder can be opened again at once.
pub(super) struct Writer {
    queue: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
    /// Why the last commit failed, if it did.
    trouble: Arc<Mutex<Option<String>>>,
}

impl Writer {
    /// Opens tantivy's writer (which takes the folder's lock) and starts the thread.
    pub fn start(shared: Arc<Shared>) -> Result<Self, StoreError> {
        let (queue, commands) = mpsc::channel(QUEUE);
        let trouble = Arc::new(Mutex::new(None));
        let mut scribe = Scribe { searcher: shared.reader.searcher(), shared, writer: None, trouble: trouble.clone() };
        scribe.open()?;
        scribe.sweep()?;
        let name = format!("index-{}", scribe.shared.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || scribe.run(commands));
        let thread = thread.map_err(|e| StoreError::caused(ErrorClass::Transient, "no thread can be started", e))?;
        Ok(Self { queue: Some(queue), thread: Some(thread), trouble })
    }

    pub async fn write(&self, items: Vec<Item>) -> Result<Vec<Verdict>, StoreError> {
        self.call(|reply| Command::Write(items, reply)).await
    }

    pub async fn refresh(&self) -> Result<(), StoreError> {
        self.call(Command::Refresh).await
    }

    /// Why the last commit failed, if it did.
    pub fn health(&self) -> Result<(), StoreError> {
        match &*self.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(reason) => Err(StoreError::new(ErrorClass::Transient, reason.clone())),
        }
    }

    async fn call<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, StoreError> {
        let stopped = || StoreError::new(ErrorClass::Fatal, "the writing thread of the embedded index has stopped");
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or_else(stopped)?;
        queue.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the writing thread of an embedded index panicked");
        }
    }
}

/// The thread's state.
struct Scribe {
    shared: Arc<Shared>,
    /// Absent after an error, until the next commit.
    writer: Option<IndexWriter<TantivyDocument>>,
    /// The last commit.
    searcher: Searcher,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Scribe {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.blocking_recv() {
            let mut waiting = Vec::new();
            self.take(command, &mut waiting);
            if waiting.is_empty() {
                continue;
            }
            // Who came meanwhile shares the commit.
            for _ in 0..SHARED_COMMIT {
                let Ok(command) = commands.try_recv() else { break };
                self.take(command, &mut waiting);
            }
            let result = self.commit();
            for reply in waiting {
                // A caller that went away does not mind.
                let _ = reply.send(result.as_ref().copied().map_err(|e| StoreError::new(e.class, e.message.clone())));
            }
        }
    }

    fn take(&mut self, command: Command, waiting: &mut Vec<Reply<()>>) {
        match command {
            Command::Write(items, reply) => {
                let _ = reply.send(self.write(items));
            }
            Command::Refresh(reply) => waiting.push(reply),
        }
    }

    fn write(&mut self, items: Vec<Item>) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts = Vec::with_capacity(items.len());
        let mut busy: Option<Verdict> = None;
        for item in items {
            let full = busy.is_none() && self.shared.versions().bytes() > MAX_PENDING;
            if full && let Err(error) = self.commit() {
                busy = Some(Verdict::Retry { after: PAUSE, reason: error.message });
            }
            verdicts.push(match &busy {
                Some(busy) => busy.clone(),
                None => self.write_one(item)?,
            });
        }
        Ok(verdicts)
    }

    fn write_one(&mut self, item: Item) -> Result<Verdict, StoreError> {
        let Item { id, stamp, change } = item;
        let (document, indexed) = match change {
            Change::Reject(reason) => return Ok(Verdict::Rejected { reason }),
            Change::Put(document, indexed) => (Some(document), Some(indexed)),
            Change::Delete => (None, None),
        };
        let remembered = self.shared.versions().head(&id);
        let committed = match remembered {
            Some(head) => Some(head.stamp),
            None => reading::stamp(&self.shared, &self.searcher, &id).map_err(|e| self.shared.error("be read", e))?,
        };
        let (newest, pending) = {
            let versions = self.shared.versions();
            (versions.newest(&id, committed), versions.pending(&id).is_some())
        };
        if let Some(stored) = newest.filter(|newest| stamp <= *newest) {
            return Ok(Verdict::Superseded { stored });
        }
        // A document that was never there needs no deletion, which every segment would have to look for.
        let replaces = committed.is_some() || pending;
        let bytes = indexed.as_ref().map_or(0, |indexed| indexed.bytes);
        if let Some(writer) = &self.writer {
            if replaces {
                self.shared.delete(writer, &id)?;
            }
            if indexed.is_some_and(|indexed| writer.add_document(indexed.document).is_err()) {
                // The writer is dead; what it had is pending, and goes to the next one.
                self.writer = None;
            }
        }
        // The document is held as parsed JSON, which is a few times its text.
        self.shared.versions().note(id, stamp, document, bytes * 2, Instant::now());
        Ok(Verdict::Written)
    }

    /// Removes what an earlier process left unfinished.
    fn sweep(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let live = shared.index.searchable_segment_ids().map_err(|e| shared.error("be read", e))?;
        directory::sweep(&shared.folder, &live.iter().map(|id| id.uuid_string()).collect());
        Ok(())
    }

    /// Opens tantivy's writer, and gives it what is pending.
    fn open(&mut self) -> Result<(), StoreError> {
        let shared = &self.shared;
        let options =
            IndexWriterOptions::builder().memory_budget_per_thread(ARENA).num_worker_threads(1).num_merge_threads(1);
        let writer: IndexWriter<TantivyDocument> =
            shared.index.writer_with_options(options.build()).map_err(|e| shared.error("be opened for writing", e))?;
        // Commits come several times a second and are small. The default policy takes everything below 10,000 documents as
        // one layer, and would rewrite thousands of documents for every eight commits.
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(6);
        policy.set_min_layer_size(200);
        policy.set_level_log_size(1.5);
        policy.set_del_docs_ratio_before_merge(0.5);
        writer.set_merge_policy(Box::new(policy));
        let versions = shared.versions();
        for (id, pending) in versions.all_pending() {
            shared.delete(&writer, id)?;
            if let Some(document) = &pending.document {
                let indexed = content::indexed(&shared.layout, id, pending.stamp, document);
                let indexed = indexed.map_err(|reason| StoreError::new(ErrorClass::Fatal, reason))?;
                writer.add_document(indexed.document).map_err(|e| shared.error("be written", e))?;
            }
        }
        drop(versions);
        self.writer = Some(writer);
        Ok(())
    }

    /// Makes everything pending durable and visible.
    fn commit(&mut self) -> Result<(), StoreError> {
        if self.shared.versions().is_clean() {
            return Ok(());
        }
        let started = Instant::now();
        let result = self.try_commit();
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = result.as_ref().err().map(|e| e.message.clone());
        if let Err(error) = &result {
            // Its files of this commit are garbage, which the next writer collects.
            self.writer = None;
            tracing::debug!(index = self.shared.name, error = error.message, "commit failed");
        }
        metrics::histogram!("tributary_store_commit_seconds", "index" => self.shared.name.clone())
            .record(started.elapsed());
        result
    }

    fn try_commit(&mut self) -> Result<(), StoreError> {
        if self.writer.is_none() {
            self.open()?;
        }
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.commit().map_err(|e| self.shared.error("be written", e))?;
        self.shared.reader.reload().map_err(|e| self.shared.error("be read", e))?;
        self.searcher = self.shared.reader.searcher();
        self.shared.filters.keep(&self.searcher);
        // Only now: who misses a document here finds it in the reader.
        self.shared.versions().committed(Instant::now());
        Ok(())
    }
}
