//! A process of a world: the real stages over the model's topics, graph and index.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::Plan;
use tributary_event::{Health, HybridClock};
use tributary_processor::StageError;

use super::graph::{ModelGraph, ModelRoots};
use super::random::Dice;
use super::store::{ModelIndex, ModelStore};
use super::topics::Topics;
use super::truth::Truth;
use crate::engine::{Indexer, Parts};
use crate::listing::{Board, Listings};

/// Lets a process's calls pass while it is neither frozen nor dead. Who waits goes on in the order in which they came.
#[derive(Default)]
pub struct Gate {
    frozen: AtomicBool,
    killed: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub fn new() -> Self {
        Self::default()
    }

    pub async fn pass(&self) {
        loop {
            let opened = self.opened.notified();
            if !self.frozen.load(Ordering::Acquire) {
                break;
            }
            opened.await;
        }
        if self.is_killed() {
            // Its task is about to be dropped.
            std::future::pending::<()>().await;
        }
    }

    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }
}

/// What processes share.
#[derive(Clone)]
pub struct Shared {
    pub plan: Plan,
    /// How many times as long the builds of every other process may take.
    pub patience: u32,
    /// Whether many writes are answered far too late.
    pub tardy: bool,
    pub truth: Truth,
    pub topics: Topics,
    pub index: ModelIndex,
    pub dice: Dice,
    /// How far the graph may be behind.
    pub lag: Duration,
    /// Whether the graph says how far it has come.
    pub says: bool,
    pub origin: tokio::time::Instant,
}

pub struct Process {
    pub gate: Arc<Gate>,
    pub health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), StageError>>,
}

impl Process {
    /// Starts one, whose clock is wrong by `skew` microseconds.
    pub fn start(shared: &Shared, number: usize, skew: i64) -> Self {
        let gate = Arc::new(Gate::new());
        let mut plan = shared.plan.clone();
        if number.is_multiple_of(2) {
            plan.indexes[0].build.deadline *= shared.patience;
        }
        let (dice, deadline) = (shared.dice.clone(), plan.indexes[0].build.deadline);
        let transport = Arc::new(shared.topics.of(gate.clone()));
        let health = Health::default();
        let origin = shared.origin;
        let clock = Arc::new(HybridClock::over(move || {
            let elapsed = i64::try_from(origin.elapsed().as_micros()).unwrap_or(i64::MAX);
            1_700_000_000_000_000 + elapsed + skew
        }));
        let instance = number.to_string();
        let board = Board::new((&shared.plan.pipeline, &instance), transport.clone(), true);
        let board = Arc::new(board.over_clock(clock.clone()));
        let listings = Listings::new("movies", board.clone(), health.part("listing of movies"));
        let store = ModelStore {
            index: shared.index.clone(),
            dice: dice.clone(),
            process: gate.clone(),
            slow: deadline / 2,
            lost: deadline * 6,
            late: if shared.tardy { deadline * 4 } else { deadline * 5 / 2 },
            often: if shared.tardy { 3 } else { 25 },
        };
        let graph = ModelGraph {
            truth: shared.truth.clone(),
            dice: dice.clone(),
            process: gate.clone(),
            lag: shared.lag,
            says: shared.says,
            slow: deadline,
        };
        let roots = ModelRoots { truth: shared.truth.clone(), dice, process: gate.clone() };
        let name = || "movies".to_owned();
        let parts = Parts {
            transport,
            partitions: 2,
            graph: Arc::new(graph),
            stores: HashMap::from([(name(), Arc::new(store) as _)]),
            board,
            listings: HashMap::from([(name(), Arc::new(listings))]),
            roots: HashMap::from([(name(), Arc::new(roots) as _)]),
            captured: HashMap::new(),
            health: health.clone(),
            on_change: Arc::new(|_| {}),
            instance,
        };
        let indexer = Indexer::over_clock(&plan, parts, clock).expect("an indexer");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(indexer.run(shutdown.clone()));
        Self { gate, health, shutdown, task }
    }

    pub fn freeze(&self, frozen: bool) {
        self.gate.frozen.store(frozen, Ordering::Release);
        self.gate.opened.notify_waiters();
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(self) -> Arc<Gate> {
        self.gate.killed.store(true, Ordering::Release);
        self.task.abort();
        self.gate
    }

    /// Ends it by a signal.
    pub async fn stop(self) -> Result<(), StageError> {
        self.freeze(false);
        self.shutdown.cancel();
        self.task.await.unwrap_or_else(|e| Err(StageError::new("process", e.to_string())))
    }

    /// Whether it ended by itself, and why.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}
