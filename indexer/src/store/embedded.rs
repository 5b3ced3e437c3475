//! The embedded index: documents in a tantivy index in the data folder, one folder an index.
//!
//! ```text
//!  write ──► bounded queue ──► one thread ──► tantivy's writer ──► commit + reload (on refresh)
//!                                │    ▲
//!                                ▼    │ versions of what is not committed, and the documents themselves
//!  heads, get ──────────────► pending ┘          lookup, scan, search ──► the last commit
//! ```
//!
//! **Versions.** A write is compared with what is pending, then with the tombstones of deletes, then with the last commit
//! ([`versions`]). Tombstones live in memory, and are kept longer than the longest build: a build that could write an older
//! version dies with this process, since only one process can have the folder open for writing, so no tombstone is needed
//! after a restart.
//!
//! **Durability.** A write is in memory until [`refresh`](DocumentStore::refresh), which commits (files and folder are
//! synced) and reloads the reader. Callers that refresh at the same time share one commit. After `kill -9` the folder holds
//! the last commit; tantivy's lock is an advisory lock of the operating system and goes with the process.
//!
//! **Errors.** When a commit fails (a full disk), tantivy's writer is dead. It is dropped and opened again for the next commit,
//! and what was pending is written again from memory: a `refresh` that returns `Ok` is never a lie about earlier writes. While
//! commits fail, pending documents are bounded: further writes get `Retry`.

mod analyzers;
mod content;
mod dates;
mod directory;
mod filters;
mod folder;
mod lookup;
mod query;
mod reading;
mod rebuild;
mod schema;
mod versions;
mod writer;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tantivy::{Index, IndexReader, IndexWriter, Searcher};
use tokio::sync::OnceCell;
use tributary_dsl::plan::Selection;
use tributary_event::ErrorClass;

use self::content::Item;
use self::filters::{ById, Filters};
use self::lookup::Wanted;
use self::schema::Layout;
use self::versions::{Pending, Versions};
use self::writer::Writer;
use super::{
    DocumentStore, DocumentWrite, Head, IdPage, OlderPage, Prepared, SearchRequest, SearchResponse, StoreError,
    StoredDocument, Verdict, unindexed::Unindexed,
};
use crate::documents::mapping::Fields;

/// One embedded index.
pub struct EmbeddedStore {
    folder: PathBuf,
    name: String,
    read_only: bool,
    unindexed: Unindexed,
    opened: OnceCell<Opened>,
}

struct Opened {
    shared: Arc<Shared>,
    /// Absent when opened to read.
    writer: Option<Writer>,
}

/// What readers and the writing thread share.
struct Shared {
    folder: PathBuf,
    name: String,
    index: Index,
    reader: IndexReader,
    layout: Layout,
    filters: Arc<Filters>,
    versions: Mutex<Versions>,
}

impl Shared {
    fn versions(&self) -> std::sync::MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes an id from the writer's next commit on.
    fn delete(&self, writer: &IndexWriter, id: &str) -> Result<(), StoreError> {
        let deleted = writer.delete_query(Box::new(ById::new(&self.filters, id)));
        deleted.map(|_| ()).map_err(|e| self.error("be written", e))
    }

    fn error(&self, doing: &str, error: tantivy::TantivyError) -> StoreError {
        folder::error(&self.folder, doing, error)
    }
}

impl EmbeddedStore {
    /// The index `name` below the data folder. Opens nothing yet.
    pub fn new(data: &Path, name: &str) -> Self {
        let (folder, unindexed) = (folder::of(data, name), Unindexed::new(name));
        Self { folder, name: name.to_owned(), read_only: false, unindexed, opened: OnceCell::new() }
    }

    /// The same, only to read: also while another process writes it. Needs no `prepare`.
    pub fn read_only(data: &Path, name: &str) -> Self {
        Self { read_only: true, ..Self::new(data, name) }
    }

    async fn opened(&self) -> Result<&Opened, StoreError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        if !self.read_only {
            let message = format!("the embedded index `{}` is not open yet: the pipeline is starting", self.name);
            return Err(StoreError::new(ErrorClass::Transient, message));
        }
        let open = || async {
            let (folder, name) = (self.folder.clone(), self.name.clone());
            let shared = blocking(move || folder::open_read_only(&folder, &name)).await?;
            Ok(Opened { shared: Arc::new(shared), writer: None })
        };
        self.opened.get_or_try_init(open).await
    }

    async fn writer(&self) -> Result<(&Arc<Shared>, &Writer), StoreError> {
        let opened = self.opened().await?;
        match &opened.writer {
            Some(writer) => Ok((&opened.shared, writer)),
            None => {
                let message = format!("the embedded index {} was opened to read", self.folder.display());
                Err(StoreError::new(ErrorClass::Fatal, message))
            }
        }
    }

    /// Runs `read` over the last commit, away from the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared, &Searcher) -> tantivy::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let opened = self.opened().await?;
        let (shared, read_only) = (opened.shared.clone(), opened.writer.is_none());
        blocking(move || {
            if read_only {
                shared.reader.reload().map_err(|e| shared.error("be read", e))?;
            }
            read(&shared, &shared.reader.searcher()).map_err(|e| shared.error("be read", e))
        })
        .await
    }
}

/// Whether documents with these fields can be held; the error names an analyzer that is not there.
pub(super) fn check(fields: &Fields) -> Result<(), String> {
    schema::build(fields).map(|_| ())
}

/// Runs blocking work; a panic in it is an error of the call.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::caused(ErrorClass::Fatal, "a task of the embedded index failed", error)),
    }
}

#[async_trait]
impl DocumentStore for EmbeddedStore {
    async fn prepare(&self, shape: &Selection) -> Result<Prepared, StoreError> {
        if self.read_only {
            self.opened().await?;
            return Ok(Prepared::Existing);
        }
        let (folder, name, shape) = (self.folder.clone(), self.name.clone(), shape.clone());
        if self.opened.initialized() {
            return blocking(move || folder::check(&folder, &shape)).await;
        }
        let (shared, prepared) = blocking(move || folder::open(&folder, &name, &shape)).await?;
        let shared = Arc::new(shared);
        let open = || async {
            let shared = shared.clone();
            let writer = blocking({
                let shared = shared.clone();
                move || Writer::start(shared)
            });
            Ok(Opened { writer: Some(writer.await?), shared })
        };
        self.opened.get_or_try_init(open).await?;
        Ok(prepared)
    }

    async fn write(&self, writes: &[DocumentWrite]) -> Result<Vec<Verdict>, StoreError> {
        let (shared, writer) = self.writer().await?;
        let (shared, taken) = (shared.clone(), writes.to_vec());
        let items: Vec<Item> =
            blocking(move || Ok(taken.into_iter().map(|write| content::item(&shared.layout, write)).collect())).await?;
        let unindexed: Vec<Vec<String>> = items.iter().map(Item::unindexed).collect();
        let verdicts = writer.write(items).await?;
        for ((write, fields), verdict) in writes.iter().zip(unindexed).zip(&verdicts) {
            if *verdict == Verdict::Written {
                self.unindexed.count(&write.id, &fields);
            }
        }
        Ok(verdicts)
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        self.writer().await?.1.refresh().await
    }

    async fn heads(&self, ids: &[String]) -> Result<Vec<Option<Head>>, StoreError> {
        let ids = ids.to_vec();
        let opened = self.opened().await?;
        // What is pending first: it leaves `pending` only when the reader already shows it.
        let mut heads = Vec::with_capacity(ids.len());
        let mut unknown = Vec::new();
        {
            let versions = opened.shared.versions();
            for (place, id) in ids.iter().enumerate() {
                match (versions.pending(id), versions.head(id)) {
                    (Some(Pending { stamp, document }), _) => {
                        heads.push(document.as_ref().map(|d| Head { stamp: *stamp, hash: d.hash.clone() }));
                    }
                    (None, Some(head)) if opened.writer.is_some() => heads.push(Some(head)),
                    (None, _) => {
                        heads.push(None);
                        unknown.push(place);
                    }
                }
            }
        }
        if unknown.is_empty() {
            return Ok(heads);
        }
        // Who only reads hears of no write that would make a remembered head old.
        let remember = opened.writer.is_some();
        self.read(move |shared, searcher| {
            for place in unknown {
                heads[place] = reading::head(shared, searcher, &ids[place])?;
                if let Some(head) = heads[place].as_ref().filter(|_| remember) {
                    shared.versions().remember(&ids[place], head);
                }
            }
            Ok(heads)
        })
        .await
    }

    async fn lookup(&self, references: &[String], after: Option<&str>, size: usize) -> Result<IdPage, StoreError> {
        let wanted = Wanted::new(references, None, after, size);
        self.read(move |shared, searcher| lookup::ids(&shared.layout, searcher, &wanted)).await
    }

    async fn older(
        &self,
        references: &[String],
        stamps: Range<u64>,
        after: Option<&str>,
        size: usize,
    ) -> Result<OlderPage, StoreError> {
        let wanted = Wanted::new(references, Some(stamps), after, size);
        self.read(move |shared, searcher| lookup::older(&shared.layout, searcher, &wanted)).await
    }

    async fn frequencies(&self, references: &[String]) -> Result<Vec<u64>, StoreError> {
        let references = references.to_vec();
        self.read(move |shared, searcher| lookup::frequencies(&shared.layout, searcher, &references)).await
    }

    async fn newest_stamp(&self) -> Result<u64, StoreError> {
        self.read(|_, searcher| reading::newest_stamp(searcher)).await
    }

    async fn scan(&self, after: Option<&str>, size: usize) -> Result<Vec<String>, StoreError> {
        let after = after.map(str::to_owned);
        self.read(move |shared, searcher| reading::scan(&shared.layout, searcher, after.as_deref(), size)).await
    }

    async fn get(&self, id: &str) -> Result<Option<StoredDocument>, StoreError> {
        let pending = self.opened().await?.shared.versions().pending(id).cloned();
        let id = id.to_owned();
        match pending {
            Some(Pending { stamp, document }) => Ok(document.map(|d| StoredDocument {
                id,
                content: d.content.clone(),
                refs: d.refs.clone(),
                stamp,
                hash: d.hash.clone(),
            })),
            None => self.read(move |shared, searcher| reading::get(shared, searcher, &id)).await,
        }
    }

    async fn search(&self, request: &SearchRequest) -> Result<SearchResponse, StoreError> {
        super::check_window(request)?;
        let shared = self.opened().await?.shared.clone();
        let query = query::parse(&shared.index, &request.query)?;
        let (from, size) = (request.from, request.size);
        self.read(move |shared, searcher| reading::search(&shared.layout, searcher, &*query, from, size)).await
    }

    async fn count(&self) -> Result<u64, StoreError> {
        self.read(|_, searcher| Ok(searcher.num_docs())).await
    }

    fn is_open(&self) -> bool {
        self.read_only || self.opened.get().is_some()
    }

    async fn probe(&self) -> Result<(), StoreError> {
        match &self.opened().await?.writer {
            Some(writer) => writer.health(),
            None => Ok(()),
        }
    }
}
