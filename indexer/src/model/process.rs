//! A process of a world: the real stages over the model's topics, graph and index.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
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

/// Lets a process's calls pass while it is neither frozen nor dead.
pub struct Gate {
    frozen: watch::Sender<bool>,
    killed: watch::Sender<bool>,
}

impl Gate {
    pub fn new() -> Self {
        Self { frozen: watch::Sender::new(false), killed: watch::Sender::new(false) }
    }

    pub async fn pass(&self) {
        let _ = self.frozen.subscribe().wait_for(|frozen| !frozen).await;
        if self.is_killed() {
            // Its task is about to be dropped.
            std::future::pending::<()>().await;
        }
    }

    pub fn is_killed(&self) -> bool {
        *self.killed.borrow()
    }
}

/// What processes share.
#[derive(Clone)]
pub struct Shared {
    pub plan: Plan,
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
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), StageError>>,
}

impl Process {
    /// Starts one, whose clock is wrong by `skew` microseconds.
    pub fn start(shared: &Shared, number: usize, skew: i64) -> Self {
        let gate = Arc::new(Gate::new());
        let (dice, deadline) = (shared.dice.clone(), shared.plan.indexes[0].build.deadline);
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
            health,
            on_change: Arc::new(|_| {}),
            instance,
        };
        let indexer = Indexer::over_clock(&shared.plan, parts, clock).expect("an indexer");
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(indexer.run(shutdown.clone()));
        Self { gate, shutdown, task }
    }

    pub fn freeze(&self, frozen: bool) {
        self.gate.frozen.send_replace(frozen);
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(self) -> Arc<Gate> {
        self.gate.killed.send_replace(true);
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
