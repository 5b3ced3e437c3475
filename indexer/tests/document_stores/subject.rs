//! A store under test: an index of its own, removed at the end.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tributary_dsl::plan::{IndexPlan, SearchServer, StorePlan};
use tributary_indexer::store::{self, DocumentStore, DocumentWrite, IdPage, Verdict};

use super::plans;

pub struct Subject {
    pub plan: IndexPlan,
    pub data: TempDir,
}

impl Subject {
    pub fn embedded() -> Self {
        Self::of(StorePlan::Embedded)
    }

    /// `None` when it is left out.
    pub fn elasticsearch() -> Option<Self> {
        Some(Self::of(StorePlan::Elasticsearch(server("ELASTICSEARCH")?)))
    }

    /// `None` when it is left out.
    pub fn opensearch() -> Option<Self> {
        Some(Self::of(StorePlan::OpenSearch(server("OPENSEARCH")?)))
    }

    pub fn of(store: StorePlan) -> Self {
        let name = format!("test-{}-{:08x}", std::process::id(), rand::random::<u32>());
        Self { plan: plans::movies(&name, store), data: TempDir::new().unwrap() }
    }

    pub fn folder(&self) -> &Path {
        self.data.path()
    }

    pub fn open(&self) -> Arc<dyn DocumentStore> {
        store::open(&self.plan.store, &self.plan.name, self.folder()).unwrap()
    }

    pub async fn prepared(&self) -> Arc<dyn DocumentStore> {
        let store = self.open();
        store.prepare(&self.plan.selection).await.unwrap();
        store
    }

    pub async fn remove(self) {
        if let StorePlan::Elasticsearch(server) | StorePlan::OpenSearch(server) = &self.plan.store {
            let url = format!("{}/{}-000001", server.url, self.plan.name);
            // A server of the test's own goes away as a whole, and may not let this request in.
            let _ = reqwest::Client::new().delete(url).send().await;
        }
    }
}

/// The server of a kind, for example `OPENSEARCH`; `None` when it is left out.
pub fn server(kind: &str) -> Option<SearchServer> {
    if left_out(kind) {
        return None;
    }
    let variable = format!("TRIBUTARY_TEST_{kind}");
    let url = std::env::var(&variable).unwrap_or_else(|_| panic!("{variable} is not set: run ./x test"));
    Some(at(&url))
}

/// Whether this machine cannot have the servers of a kind, which is said.
pub fn left_out(kind: &str) -> bool {
    let without = std::env::var("TRIBUTARY_TEST_WITHOUT").unwrap_or_default();
    let out = without.split(',').any(|word| word.eq_ignore_ascii_case(kind));
    if out {
        eprintln!("{kind} is left out: not tested");
    }
    out
}

/// The server at a URL.
pub fn at(url: &str) -> SearchServer {
    SearchServer {
        url: url.trim_end_matches('/').to_owned(),
        basic: None,
        api_key: None,
        ca_file: None,
        shards: 1,
        replicas: 0,
    }
}

/// Writes, and expects every document to be taken.
pub async fn written(store: &dyn DocumentStore, writes: &[DocumentWrite]) {
    for part in writes.chunks(5_000) {
        let verdicts = store.write(part).await.unwrap();
        assert_eq!(verdicts.len(), part.len());
        assert!(
            verdicts.iter().all(|v| *v == Verdict::Written),
            "{:?}",
            verdicts.iter().find(|v| **v != Verdict::Written)
        );
    }
}

/// Ids in order.
pub fn sorted(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

/// All documents that hold any of the references, read in pages of this size.
pub async fn pages(store: &dyn DocumentStore, references: &[String], size: usize) -> Vec<IdPage> {
    let mut pages: Vec<IdPage> = Vec::new();
    loop {
        let after = pages.last().and_then(|page| page.next.clone());
        let page = store.lookup(references, after.as_deref(), size).await.unwrap();
        let last = page.next.is_none();
        pages.push(page);
        if last {
            return pages;
        }
    }
}

/// The ids of all documents that hold any of the references.
pub async fn lookup(store: &dyn DocumentStore, references: &[String]) -> Vec<String> {
    pages(store, references, 10_000).await.into_iter().flat_map(|page| page.ids).collect()
}
