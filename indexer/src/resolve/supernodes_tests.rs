//! A vertex that millions of documents embed, in the memory of a few pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_event::HybridClock;
use tributary_processor::outbox;
use tributary_transport::{Batch as Records, Producer, TransportError};

use super::*;
use crate::graph::Vertex;
use crate::letters::origins::Origins;
use crate::model::multitude::{Kept, Multitude, documents, is_child, measured, resident};
use crate::resolve::affected::{Affected, Gathering};
use crate::resolve::order::Watcher;
use crate::resolve::{GROUPS, Waiting};

/// What asking for all of them may need beyond what was there before, in bytes.
const MOST: u64 = 24 << 20;

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
    let Kept { plan, indexer, transport, health, .. } = Kept::new(store);
    let origins = Arc::new(Origins::new(transport.clone()));
    let watcher = Watcher::new("movies", Vec::new(), transport, Arc::default(), health.part("order"));
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

/// Not a test by itself: what [`a_vertex_in_millions_of_documents_needs_the_memory_of_some_pages`] starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_asks_for_all_documents_of_a_vertex() {
    if !is_child() {
        return;
    }
    let documents = documents();
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
    if !is_child() {
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
    measured("resolve::supernodes::tests::child_that_asks_for_the_documents_of_many_vertices");
}

#[test]
fn a_vertex_in_millions_of_documents_needs_the_memory_of_some_pages() {
    measured("resolve::supernodes::tests::child_that_asks_for_all_documents_of_a_vertex");
}
