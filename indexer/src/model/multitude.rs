//! An index of millions of documents that need no memory, so that what the indexer needs for them can be measured.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tributary_dsl::plan::{Plan, Selection};
use tributary_event::{ErrorClass, Health};
use tributary_transport::Transport;

use super::graph::{ModelGraph, ModelRoots};
use super::process::Gate;
use super::random::Dice;
use super::topics::Topics;
use super::truth::{State, Truth};
use super::world::plan;
use crate::engine::{Indexer, Parts};
use crate::listing::{Board, Listings};
use crate::store::{
    DocumentStore, DocumentWrite, Head, IdPage, Older, OlderPage, Prepared, SearchRequest, SearchResponse, StoreError,
    StoredDocument, Verdict,
};

/// Set in the process that is measured.
const CHILD: &str = "TRIBUTARY_TEST_MULTITUDE";
/// How many documents there are, if not [`DOCUMENTS`].
const COUNT: &str = "TRIBUTARY_TEST_DOCUMENTS";
/// So many that their ids alone need more than any test allows.
const DOCUMENTS: u64 = 1_000_000;

/// Documents that hold one vertex, or so many for each vertex, all written long ago.
pub(crate) struct Multitude {
    pub(crate) documents: u64,
    pub(crate) stamp: u64,
    pub(crate) is_each: bool,
}

impl Multitude {
    /// The ids behind one.
    pub(crate) fn page(&self, after: Option<&str>, size: usize) -> (Vec<String>, Option<String>) {
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

    async fn scan(&self, after: Option<&str>, size: usize) -> Result<Vec<String>, StoreError> {
        Ok(self.page(after, size).0)
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

/// An indexer of the model's plan, over such an index.
pub(crate) struct Kept {
    pub(crate) plan: Plan,
    pub(crate) indexer: Indexer,
    pub(crate) topics: Topics,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) health: Health,
}

impl Kept {
    pub(crate) fn new(store: Multitude) -> Self {
        let plan = plan(Duration::from_millis(1500));
        let (gate, dice, health) = (Arc::new(Gate::new()), Dice::new(1), Health::default());
        let topics = Topics::new(dice.clone());
        let transport: Arc<dyn Transport> = Arc::new(topics.of(gate.clone()));
        let truth = Truth::new(State::default());
        let (lag, slow) = (plan.graph.lag, plan.indexes[0].build.deadline);
        let graph =
            ModelGraph { truth: truth.clone(), dice: dice.clone(), process: gate.clone(), lag, says: false, slow };
        let board = Arc::new(Board::new((&plan.pipeline, "0"), transport.clone(), true));
        let listings = Listings::new("movies", board.clone(), health.part("listing of movies"));
        let name = || "movies".to_owned();
        let parts = Parts {
            transport: transport.clone(),
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
        Self { plan, indexer, topics, transport, health }
    }
}

/// How many documents there are.
pub(crate) fn documents() -> u64 {
    std::env::var(COUNT).map_or(DOCUMENTS, |text| text.parse().expect("a number"))
}

/// Whether this process is one whose memory is measured.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Bytes of the process that are not files: now, or the most there were.
pub(crate) fn resident(what: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("our own status");
    let line = text.lines().find_map(|line| line.strip_prefix(what)).expect("a line of it");
    line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().expect("a number") << 10
}

/// Runs a test of this program in a process of its own, which tells what it needed.
pub(crate) fn measured(name: &str) {
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
    let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}{said}", String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("MiB more at most"), "nothing was measured: {said}");
}
