//! Reading which documents embed a vertex costs the memory of a page, however many they are.
//!
//! One test, for it measures the whole process.

#![allow(clippy::unwrap_used)]

#[path = "document_stores/plans.rs"]
#[allow(dead_code)]
mod plans;
#[path = "document_stores/subject.rs"]
#[allow(dead_code)]
mod subject;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tributary_indexer::store::DocumentStore;

use self::plans::put;
use self::subject::{Subject, written};

const DOCUMENTS: usize = 320_100;
const PAGE: usize = 2_000;
/// Bytes above those of a first page. All the ids together need more.
const LIMIT: usize = 8 << 20;

/// Bytes of the process that are not files.
fn anonymous() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<usize>().unwrap() << 10
}

/// The most memory that the process had since this was made.
struct Peak {
    most: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Peak {
    fn watch() -> Self {
        let (most, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (noted, ended) = (most.clone(), done.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                noted.fetch_max(anonymous(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        Self { most, done, thread }
    }

    fn end(self) -> usize {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.most.load(Ordering::Relaxed)
    }
}

/// Calls `page` until there is no next one; the number of documents, and the memory needed beyond that of the first page.
async fn measured(page: impl AsyncFn(Option<String>) -> (usize, Option<String>)) -> (usize, usize) {
    let first = Peak::watch();
    let (_, second) = page(None).await;
    page(second).await;
    let before = first.end();
    let peak = Peak::watch();
    let (mut found, mut after) = (0, None);
    loop {
        let (documents, next) = page(after).await;
        found += documents;
        after = next;
        if after.is_none() {
            return (found, peak.end().saturating_sub(before));
        }
    }
}

async fn pages(kind: &str, subject: Subject) {
    let store: Arc<dyn DocumentStore> = subject.prepared().await;
    for part in (0..DOCUMENTS).collect::<Vec<_>>().chunks(5_000) {
        let document = |n: &usize| put(&format!("m{n:06}"), 1, json!({}), &["Genre:drama", &format!("Movie:m{n:06}")]);
        written(&*store, &part.iter().map(document).collect::<Vec<_>>()).await;
    }
    store.refresh().await.unwrap();
    drop(store);
    // A store that wrote may merge its segments meanwhile, which takes memory too.
    let store = subject.prepared().await;
    let drama = ["Genre:drama".to_owned()];
    let lookups = measured(async |after| {
        let page = store.lookup(&drama, after.as_deref(), PAGE).await.unwrap();
        (page.ids.iter().collect::<HashSet<_>>().len(), page.next)
    });
    let lookups = lookups.await;
    let older = measured(async |after| {
        let page = store.older(&drama, 0..2, after.as_deref(), PAGE).await.unwrap();
        (page.documents.len(), page.next)
    });
    let older = older.await;
    let scans = measured(async |after| {
        let ids = store.scan(after.as_deref(), PAGE).await.unwrap();
        (ids.len(), ids.last().cloned())
    });
    let scans = scans.await;
    let mib = |(_, bytes): (usize, usize)| bytes as f64 / (1 << 20) as f64;
    eprintln!("{kind}: lookup {:.1}, older {:.1}, scan {:.1} MiB beyond a page", mib(lookups), mib(older), mib(scans));
    for (what, (found, bytes)) in [("lookup", lookups), ("older", older), ("scan", scans)] {
        assert_eq!(found, DOCUMENTS, "{kind}: {what}");
        assert!(bytes <= LIMIT, "{kind}: {what} needs {bytes} bytes more than a page");
    }
    assert_eq!(store.frequencies(&drama).await.unwrap(), [DOCUMENTS as u64]);
    drop(store);
    subject.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supernode_is_read_in_the_memory_of_a_page() {
    pages("embedded", Subject::embedded()).await;
    // The client of OpenSearch is the same code.
    if let Some(subject) = Subject::elasticsearch() {
        pages("Elasticsearch", subject).await;
    }
}
