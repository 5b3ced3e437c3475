//! A vertex that millions of documents embed, in the memory of a few pages.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::Selection;
use tributary_event::{ErrorClass, Health, HybridClock};
use tributary_processor::outbox;
use tributary_transport::{Batch as Records, Producer, Transport, TransportError};

use super::*;
use crate::engine::{Indexer, Parts};
use crate::graph::Vertex;
use crate::letters::origins::Origins;
use crate::listing::{Board, Listings};
use crate::model::graph::{ModelGraph, ModelRoots};
use crate::model::process::Gate;
use crate::model::random::Dice;
use crate::model::topics::Topics;
use crate::model::truth::{State, Truth};
use crate::model::world::plan;
use crate::resolve::affected::{Affected, Gathering};
use crate::resolve::order::Watcher;
use crate::resolve::{GROUPS, Waiting};
use crate::store::{
    DocumentStore, DocumentWrite, Head, IdPage, Older, OlderPage, Prepared, SearchRequest, SearchResponse, StoreError,
    StoredDocument, Verdict,
};

/// Set in the process that is measured.
const CHILD: &str = "TRIBUTARY_TEST_MULTITUDE";
/// How many documents there are, if not [`DOCUMENTS`].
const COUNT: &str = "TRIBUTARY_TEST_DOCUMENTS";
/// So many that their ids alone need more than [`MOST`].
const DOCUMENTS: u64 = 1_000_000;
/// What asking for all of them may need beyond what was there before, in bytes.
const MOST: u64 = 24 << 20;

/// Documents that hold one vertex, or so many for each vertex, all written long ago.
struct Multitude {
    documents: u64,
    stamp: u64,
    is_each: bool,
}

impl Multitude {
    fn page(&self, after: Option<&str>, size: usize) -> (Vec<String>, Option<String>) {
        let first = after.map_or(0, |after| after.parse::<u64>().expect("an id of ours") + 1);
        let end = self.documents.min(first + size as u64);
        let ids: Vec<String> = (first..end).map(|id| format!("{id:020}")).collect();
        let next = ids.last().cloned().filter(|_| end < self.documents);
        (ids, next)
    }

    /// Those of vertices whose ids are numbers, of which each is in other documents.
    fn page_of_each(&self, references: &[String], after: Option<&str>, size: usize) -> (Vec<String>, Option<String>) {
        let (of_one, all) = (self.documents, self.documents * references.len() as u64);
        let number =
            |reference: &String| reference.rsplit(':').next().and_then(|id| id.parse::<u64>().ok()).expect("an id");
        let first = after.map_or(0, |after| {
            let id = after.parse::<u64>().expect("an id of ours");
            let at = references.iter().position(|reference| number(reference) == id / of_one).expect("one of these");
            at as u64 * of_one + id % of_one + 1
        });
        let end = all.min(first + size as u64);
        let id = |n: u64| format!("{:020}", number(&references[(n / of_one) as usize]) * of_one + n % of_one);
        let ids: Vec<String> = (first..end).map(id).collect();
        let next = ids.last().cloned().filter(|_| end < all);
        (ids, next)
    }
}

fn unused<T>() -> Result<T, StoreError> {
    Err(StoreError::new(ErrorClass::Fatal, "nobody asks for this here"))
}

#[async_trait]
impl DocumentStore for Multitude {
    async fn prepare(&self, _: &Selection) -> Result<Prepared, StoreError> {
        unused()
    }

    async fn write(&self, _: &[DocumentWrite]) -> Result<Vec<Verdict>, StoreError> {
        unused()
    }

    async fn refresh(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn heads(&self, _: &[String]) -> Result<Vec<Option<Head>>, StoreError> {
        unused()
    }

    async fn lookup(&self, references: &[String], after: Option<&str>, size: usize) -> Result<IdPage, StoreError> {
        let (ids, next) = match self.is_each {
            true => self.page_of_each(references, after, size),
            false => self.page(after, size),
        };
        Ok(IdPage { ids, next })
    }

    async fn older(
        &self,
        references: &[String],
        stamps: Range<u64>,
        after: Option<&str>,
        size: usize,
    ) -> Result<OlderPage, StoreError> {
        if !stamps.contains(&self.stamp) {
            return Ok(OlderPage::default());
        }
        let (ids, next) = self.page(after, size);
        let older = |id| Older { id, stamp: self.stamp, refs: references.to_vec() };
        Ok(OlderPage { documents: ids.into_iter().map(older).collect(), next })
    }

    async fn frequencies(&self, references: &[String]) -> Result<Vec<u64>, StoreError> {
        Ok(vec![self.documents; references.len()])
    }

    async fn newest_stamp(&self) -> Result<u64, StoreError> {
        unused()
    }

    async fn scan(&self, _: Option<&str>, _: usize) -> Result<Vec<String>, StoreError> {
        unused()
    }

    async fn get(&self, _: &str) -> Result<Option<StoredDocument>, StoreError> {
        unused()
    }

    async fn search(&self, _: &SearchRequest) -> Result<SearchResponse, StoreError> {
        unused()
    }

    async fn count(&self) -> Result<u64, StoreError> {
        Ok(self.documents)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// Counts records.
struct Counter(Arc<AtomicU64>);

#[async_trait]
impl Producer for Counter {
    async fn append(&mut self, batch: &Records) -> Result<(), TransportError> {
        self.0.fetch_add(batch.records().count() as u64, Ordering::Relaxed);
        Ok(())
    }
}

fn resolver(store: Multitude, appended: Arc<AtomicU64>) -> (Resolver, tributary_processor::OutboxTask) {
    let plan = plan(Duration::from_millis(1500));
    let (gate, dice, health) = (Arc::new(Gate::new()), Dice::new(1), Health::default());
    let transport: Arc<dyn Transport> = Arc::new(Topics::new(dice.clone()).of(gate.clone()));
    let origins = Arc::new(Origins::new(transport.clone()));
    let watcher = Watcher::new("movies", Vec::new(), transport.clone(), Arc::default(), health.part("order"));
    let truth = Truth::new(State::default());
    let (lag, slow) = (plan.graph.lag, plan.indexes[0].build.deadline);
    let graph = ModelGraph { truth: truth.clone(), dice: dice.clone(), process: gate.clone(), lag, says: false, slow };
    let board = Arc::new(Board::new((&plan.pipeline, "0"), transport.clone(), true));
    let listings = Listings::new("movies", board.clone(), health.part("listing of movies"));
    let name = || "movies".to_owned();
    let parts = Parts {
        transport,
        partitions: 2,
        graph: Arc::new(graph),
        stores: HashMap::from([(name(), Arc::new(store) as _)]),
        board,
        listings: HashMap::from([(name(), Arc::new(listings))]),
        roots: HashMap::from([(name(), Arc::new(ModelRoots { truth, dice, process: gate }) as _)]),
        captured: HashMap::new(),
        health: health.clone(),
        on_change: Arc::new(|_| {}),
        instance: "0".to_owned(),
    };
    let indexer = Indexer::new(&plan, parts).expect("an indexer");
    let context = indexer.indexes()[0].context.clone();
    let (outbox, task) = outbox("resolve", Box::new(Counter(appended)), health.part("out"));
    let resolver = Resolver {
        pipeline: plan.pipeline.clone(),
        vertices: plan.graph.vertices.clone(),
        fan_outs: BTreeMap::new(),
        graph: context.graph.clone(),
        is_sole: true,
        distrusted: std::sync::Mutex::default(),
        fan_out_health: health.reporter("fan-out"),
        clock: context.clock.clone(),
        retry: context.plan.retry.clone(),
        settling: Waiting::new(context.times),
        times: context.times,
        indexes: vec![context],
        outbox,
        concerned: Default::default(),
        watcher: Arc::new(watcher),
        origins,
    };
    (resolver, task)
}

/// Bytes of the process that are not files: now, or the most there were.
fn resident(what: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let line = text.lines().find_map(|line| line.strip_prefix(what)).expect("a line of it");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number") << 10
}

/// Not a test by itself: what [`a_vertex_in_millions_of_documents_needs_the_memory_of_some_pages`] starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_asks_for_all_documents_of_a_vertex() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let documents = std::env::var(COUNT).map_or(DOCUMENTS, |text| text.parse().expect("a number"));
    let appended = Arc::new(AtomicU64::new(0));
    let stamp = HybridClock::earlier(HybridClock::default().now(), Duration::from_secs(3600));
    let (resolver, task) = resolver(Multitude { documents, stamp, is_each: false }, appended.clone());
    let stop = CancellationToken::new();
    let appending = tokio::spawn(task.run(stop.clone()));
    let (index, before) = (resolver.indexes[0].clone(), resident("VmRSS:"));

    let vertex = Vertex::new("Distributor", "1");
    let changed = resolver.clock.now();
    let mut batch = Batch::default();
    batch.changed.note(&vertex, changed);
    let cause = Cause { id: "1".into(), label: "a change".into(), commit_us: 0, affected: 0 };
    let mut affected = Affected::default();
    resolver.look_up(&index, &[vertex], &mut affected, &mut Gathering::default()).await.expect("looked up");
    assert_eq!(affected.len(), documents);
    resolver.request(&index, affected, (&cause, changed), &mut batch).await.expect("noted");
    let late = HybridClock::later(changed, resolver.times.lag);
    resolver.ask_for_supernodes(&index, &mut batch, late).await.expect("asked for");
    batch.cause = Some(cause);
    let missed = resolver.request_missed(&index, &batch, late).await.expect("looked again");
    assert_eq!(missed, 0, "so many documents would be built twice");
    while appended.load(Ordering::Relaxed) < documents {
        tokio::task::yield_now().await;
    }
    assert_eq!(appended.load(Ordering::Relaxed), documents, "each is asked for once");
    let needed = resident("VmHWM:").saturating_sub(before);
    eprintln!("{documents} documents: {:.1} MiB more at most", needed as f64 / (1 << 20) as f64);
    assert!(needed < MOST, "{needed} bytes");
    stop.cancel();
    appending.await.expect("no panic").expect("appended");
}

/// Not a test by itself: what [`many_groups_of_changes_need_the_memory_of_one`] starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_asks_for_the_documents_of_many_vertices() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    const VERTICES: u64 = 100;
    let appended = Arc::new(AtomicU64::new(0));
    let (mut resolver, task) = resolver(Multitude { documents: 1_000, stamp: 1, is_each: true }, appended.clone());
    // As where nobody tests: a thousand documents are not too many for one vertex.
    resolver.settling.supernode = 1_000;
    let stop = CancellationToken::new();
    let appending = tokio::spawn(task.run(stop.clone()));
    let (resolver, before) = (Arc::new(resolver), resident("VmRSS:"));
    let mut groups = JoinSet::new();
    for group in 0..GROUPS as u64 {
        let resolver = resolver.clone();
        groups.spawn(async move {
            let index = resolver.indexes[0].clone();
            // The same ones, so that what is remembered as asked for does not count.
            let vertex = |n: u64| Vertex::new("Distributor", n.to_string());
            let vertices: Vec<Vertex> = (0..VERTICES).map(vertex).collect();
            let (mut affected, mut gathering) = (Affected::default(), Gathering::default());
            resolver.look_up(&index, &vertices, &mut affected, &mut gathering).await.expect("looked up");
            assert_eq!((affected.documents.len() as u64, affected.supernodes.is_empty()), (VERTICES * 1_000, true));
            let cause = Cause { id: group.to_string(), label: "changes".into(), commit_us: 0, affected: 0 };
            resolver.request(&index, affected, (&cause, 1), &mut Batch::default()).await.expect("asked for");
        });
    }
    while let Some(group) = groups.join_next().await {
        group.expect("no panic");
    }
    let documents = GROUPS as u64 * VERTICES * 1_000;
    while appended.load(Ordering::Relaxed) < documents {
        tokio::task::yield_now().await;
    }
    let needed = resident("VmHWM:").saturating_sub(before);
    eprintln!("{documents} documents: {:.1} MiB more at most", needed as f64 / (1 << 20) as f64);
    // All of them at a time need twice as much.
    assert!(needed < 100 << 20, "{needed} bytes");
    stop.cancel();
    appending.await.expect("no panic").expect("appended");
}

#[test]
fn many_groups_of_changes_need_the_memory_of_one() {
    measured("child_that_asks_for_the_documents_of_many_vertices");
}

#[test]
fn a_vertex_in_millions_of_documents_needs_the_memory_of_some_pages() {
    measured("child_that_asks_for_all_documents_of_a_vertex");
}

fn measured(child: &str) {
    let name = format!("resolve::supernodes::tests::{child}");
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
    let output = child.args(["--exact", &name, "--nocapture"]).env(CHILD, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("MiB more at most"), "nothing was measured: {said}");
}
