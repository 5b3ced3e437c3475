//! The document store: writes arrive late, are answered far too late or never, and are visible after a refresh alone.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value as Json;
use tributary_dsl::plan::Selection;
use tributary_event::ErrorClass;

use super::process::Gate;
use super::random::Dice;
use crate::store::{
    Document, DocumentStore, DocumentWrite, Head, IdPage, Older, OlderPage, Prepared, SearchRequest, SearchResponse,
    StoreError, StoredDocument, Verdict, WriteAction,
};

/// The index, shared by the processes of a world.
#[derive(Clone)]
pub struct ModelIndex(Arc<Mutex<Documents>>);

#[derive(Default)]
struct Documents {
    made: bool,
    /// As last written: its stamp, and what was written if it is there.
    live: BTreeMap<String, (u64, Option<Arc<Document>>)>,
    visible: BTreeMap<String, (u64, Option<Arc<Document>>)>,
}

impl ModelIndex {
    pub fn new() -> Self {
        Self(Arc::default())
    }

    fn lock(&self) -> MutexGuard<'_, Documents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What readers find.
    pub fn contents(&self) -> BTreeMap<String, Json> {
        let documents = self.lock();
        let found = documents.live.iter().filter_map(|(id, (_, d))| Some((id.clone(), d.as_ref()?.content.clone())));
        found.collect()
    }
}

/// The index as one process uses it.
pub struct ModelStore {
    pub index: ModelIndex,
    pub dice: Dice,
    pub process: Arc<Gate>,
    /// The longest that a write usually takes to arrive.
    pub slow: Duration,
    /// The longest that a write takes that nobody gets an answer of.
    pub lost: Duration,
    /// The longest that one takes whose answer is waited for all the same.
    pub late: Duration,
    /// One in so many takes so long.
    pub often: usize,
}

impl ModelStore {
    async fn call(&self) -> MutexGuard<'_, Documents> {
        self.process.pass().await;
        tokio::time::sleep(self.dice.time(Duration::from_millis(20))).await;
        self.index.lock()
    }
}

fn put(index: &ModelIndex, writes: &[DocumentWrite]) -> Vec<Verdict> {
    let mut documents = index.lock();
    let write = |write: &DocumentWrite| {
        if let Some((stored, _)) = documents.live.get(&write.id)
            && *stored >= write.stamp
        {
            return Verdict::Superseded { stored: *stored };
        }
        let document = match &write.action {
            WriteAction::Put(document) => Some(document.clone()),
            WriteAction::Delete => None,
        };
        documents.live.insert(write.id.clone(), (write.stamp, document));
        Verdict::Written
    };
    writes.iter().map(write).collect()
}

#[async_trait]
impl DocumentStore for ModelStore {
    async fn prepare(&self, _: &Selection) -> Result<Prepared, StoreError> {
        let mut documents = self.call().await;
        let made = std::mem::replace(&mut documents.made, true);
        Ok(if made { Prepared::Existing } else { Prepared::Created })
    }

    async fn write(&self, writes: &[DocumentWrite]) -> Result<Vec<Verdict>, StoreError> {
        self.process.pass().await;
        // On its way it belongs to nobody: it arrives also if who sent it is dead.
        let (index, writes, lost) = (self.index.clone(), writes.to_vec(), self.dice.one_in(15));
        let late = !lost && self.dice.one_in(self.often);
        let time =
            self.dice.time(if lost { self.lost } else { self.slow }) + if late { self.late } else { Duration::ZERO };
        let arrival = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            put(&index, &writes)
        });
        if lost {
            tokio::time::sleep(self.dice.time(self.slow)).await;
            return Err(StoreError::new(ErrorClass::Transient, "no answer"));
        }
        let verdicts = arrival.await.map_err(|e| StoreError::new(ErrorClass::Transient, e.to_string()))?;
        tokio::time::sleep(self.dice.time(Duration::from_millis(30))).await;
        self.process.pass().await;
        Ok(verdicts)
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        let mut documents = self.call().await;
        documents.visible = documents.live.clone();
        Ok(())
    }

    async fn heads(&self, ids: &[String]) -> Result<Vec<Option<Head>>, StoreError> {
        let documents = self.call().await;
        let head = |id: &String| {
            let (stamp, document) = documents.live.get(id)?;
            Some(Head { stamp: *stamp, hash: document.as_ref()?.hash.clone() })
        };
        Ok(ids.iter().map(head).collect())
    }

    async fn lookup(&self, references: &[String], after: Option<&str>, size: usize) -> Result<IdPage, StoreError> {
        let documents = self.older(references, 0..u64::MAX, after, size).await?;
        Ok(IdPage { ids: documents.documents.into_iter().map(|older| older.id).collect(), next: documents.next })
    }

    async fn older(
        &self,
        references: &[String],
        stamps: Range<u64>,
        after: Option<&str>,
        size: usize,
    ) -> Result<OlderPage, StoreError> {
        let documents = self.call().await;
        let embeds = |(id, (stamp, document)): (&String, &(u64, Option<Arc<Document>>))| {
            let refs = document.as_ref()?.refs.clone();
            let found = stamps.contains(stamp) && refs.iter().any(|r| references.contains(r));
            let later = after.is_none_or(|after| id.as_str() > after);
            (found && later).then(|| Older { id: id.clone(), stamp: *stamp, refs })
        };
        let mut documents: Vec<Older> = documents.visible.iter().filter_map(embeds).collect();
        let more = documents.len() > size;
        documents.truncate(size);
        let next = documents.last().map(|older| older.id.clone()).filter(|_| more);
        Ok(OlderPage { documents, next })
    }

    async fn frequencies(&self, references: &[String]) -> Result<Vec<u64>, StoreError> {
        let documents = self.call().await;
        let holds = |reference: &String| {
            let holders = documents.visible.values().filter_map(|(_, document)| document.as_ref());
            holders.filter(|document| document.refs.contains(reference)).count() as u64
        };
        Ok(references.iter().map(holds).collect())
    }

    async fn newest_stamp(&self) -> Result<u64, StoreError> {
        Ok(self.call().await.visible.values().map(|(stamp, _)| *stamp).max().unwrap_or(0))
    }

    async fn scan(&self, after: Option<&str>, size: usize) -> Result<Vec<String>, StoreError> {
        let documents = self.call().await;
        let there = documents.visible.iter().filter(|(_, (_, document))| document.is_some());
        let later = there.filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
        Ok(later.map(|(id, _)| id.clone()).take(size).collect())
    }

    async fn get(&self, _: &str) -> Result<Option<StoredDocument>, StoreError> {
        Ok(None)
    }

    async fn search(&self, _: &SearchRequest) -> Result<SearchResponse, StoreError> {
        Ok(SearchResponse { total: 0, hits: Vec::new() })
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.call().await.visible.values().filter(|(_, document)| document.is_some()).count() as u64)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
