//! Runs the indexes of a pipeline, each by itself (`stages`): one whose store is away delays no other, neither at the start nor
//! later. The first that fails for good stops all.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::{Plan, StorePlan};
use tributary_event::{ErrorClass, Health, HybridClock};
use tributary_processor::supervise::panicked;
use tributary_processor::{Lag, StageError, Tasks, outbox, supervise, until_answered};
use tributary_transport::dead_letter::DeadLetters;
use tributary_transport::{Retention, TopicSpec, Transport, TransportError};

use crate::audit::Subject;
use crate::building::brake::Brake;
use crate::context::IndexContext;
use crate::graph::Graph;
use crate::letters::book::Book;
use crate::letters::replay::Keeper;
use crate::listing::fingerprint::Fingerprint;
use crate::listing::{self, Board, Captured, Listings, RootIdSource};
use crate::report::{OnChange, Reports};
use crate::request::{Lane, names};
use crate::resolve::recent::Recent;
use crate::resolve::settle::Times;
use crate::stages::Stages;
use crate::store::DocumentStore;
use crate::watch;

/// Build requests are kept at least this long.
const KEEP_REQUESTS: Duration = Duration::from_secs(7 * 24 * 3600);

/// What an indexer is made of.
pub struct Parts {
    /// The topics.
    pub transport: Arc<dyn Transport>,
    /// Partitions of the pipeline's own topics.
    pub partitions: u32,
    /// The graph.
    pub graph: Arc<dyn Graph>,
    /// The store of each index, by name.
    pub stores: HashMap<String, Arc<dyn DocumentStore>>,
    /// Where the processes of the pipeline write how far its listings are.
    pub board: Arc<Board>,
    /// How far each index is listed, by name.
    pub listings: HashMap<String, Arc<Listings>>,
    /// The root ids of each index, by name.
    pub roots: HashMap<String, Arc<dyn RootIdSource>>,
    /// Whether the log of each source is captured, by name. Before that no listing begins of an index that shows its tables:
    /// what changes meanwhile would be missed.
    pub captured: HashMap<String, Captured>,
    /// Where parts say how they are.
    pub health: Health,
    /// Hears of every finished change.
    pub on_change: OnChange,
    /// Names this process among others of the pipeline; unique.
    pub instance: String,
}

/// One index as others see it.
#[derive(Clone)]
pub struct IndexHandle {
    /// What its stages share.
    pub context: Arc<IndexContext>,
    /// Change events that are not resolved for it.
    pub(crate) changes: Lag,
    /// Build requests that are not finished, by lane.
    pub(crate) builds: [Lag; 2],
    /// Bulk requests that no process has finished.
    pub(crate) backlog: Lag,
}

impl IndexHandle {
    /// Build requests that are not finished; none before that is known.
    pub fn builds_waiting(&self) -> Option<u64> {
        self.builds.iter().map(Lag::get).sum()
    }

    /// Change events that are not resolved for the index; none before that is known.
    pub fn changes_waiting(&self) -> Option<u64> {
        self.changes.get()
    }

    /// Builds every document again. Returns when that is durable: from then on it happens also if this process ends.
    ///
    /// # Errors
    /// The transport did not answer.
    pub async fn reindex(&self) -> Result<(), TransportError> {
        self.context.listings.begin_anew(None).await
    }
}

/// The indexes of a pipeline, ready to run.
pub struct Indexer {
    plan: Arc<Plan>,
    parts: Arc<Parts>,
    indexes: Vec<IndexHandle>,
}

impl Indexer {
    /// Puts the parts together. Touches nothing outside.
    pub fn new(plan: &Plan, parts: Parts) -> Result<Self, StageError> {
        Self::over_clock(plan, parts, Arc::default())
    }

    /// The same, whose stamps are taken from this clock.
    pub(crate) fn over_clock(plan: &Plan, parts: Parts, clock: Arc<HybridClock>) -> Result<Self, StageError> {
        let letters: Arc<Book> = Arc::default();
        let mut indexes = Vec::new();
        for index in &plan.indexes {
            let of = |what: &str| StageError::new(format!("index {}", index.name), format!("{what} was opened for it"));
            let store = parts.stores.get(&index.name).cloned().ok_or_else(|| of("no document store"))?;
            let listings = parts.listings.get(&index.name).cloned().ok_or_else(|| of("no listing"))?;
            let reports = Reports::new(&index.name, parts.on_change.clone(), listings.progress().clone());
            let health = parts.health.part(listings.health().name());
            let context = IndexContext {
                pipeline: plan.pipeline.clone(),
                graph: parts.graph.clone(),
                store,
                clock: clock.clone(),
                recent: Recent::new(index.build.deadline),
                requested: Mutex::default(),
                ids: Mutex::default(),
                newest: AtomicU64::new(0),
                strangers: parts.health.reporter(format!("roots of {}", index.name)),
                clock_health: parts.health.part("clock"),
                times: Times { lag: plan.graph.lag, deadline: index.build.deadline },
                listings,
                brake: Brake::new(index.brake.clone()),
                brake_health: parts.health.part(format!("deletes of {}", index.name)),
                letters: letters.clone(),
                reports,
                graph_health: parts.health.part("graph"),
                store_health: parts.health.part(format!("store of {}", index.name)),
                listing_health: health,
                plan: index.clone(),
            };
            let is_home = matches!(index.store, StorePlan::Embedded);
            parts.board.builds(&index.name, index.build.deadline);
            context.listings.plan(Fingerprint::of(plan, index), plan.graph.lag, is_home);
            let (changes, builds, backlog) = Default::default();
            // Nothing says otherwise before somebody asks for a build.
            context.clock_health.up();
            indexes.push(IndexHandle { context: Arc::new(context), changes, builds, backlog });
        }
        Ok(Self { plan: Arc::new(plan.clone()), parts: Arc::new(parts), indexes })
    }

    /// The indexes.
    pub fn indexes(&self) -> &[IndexHandle] {
        &self.indexes
    }

    /// The indexes as an audit looks at them.
    pub fn subjects(&self) -> Vec<Subject> {
        let subject = |IndexHandle { context, .. }: &IndexHandle| {
            let roots = self.parts.roots.get(&context.plan.name)?.clone();
            let (plan, store, graph) = (context.plan.clone(), context.store.clone(), context.graph.clone());
            Some(Subject { plan, store, roots, graph })
        };
        self.indexes.iter().filter_map(subject).collect()
    }

    /// Runs until shutdown (`Ok`) or a fatal error.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StageError> {
        if !self.ensure_topics(&shutdown).await? {
            return Ok(());
        }
        let mut tasks: Tasks<StageError> = JoinSet::new();
        for index in &self.indexes {
            let stages = Stages { plan: self.plan.clone(), parts: self.parts.clone(), index: index.clone() };
            let shutdown = shutdown.clone();
            tasks.spawn(async move { Box::pin(stages.run(shutdown)).await });
        }
        let workers = CancellationToken::new();
        let mut behind: Tasks<StageError> = JoinSet::new();
        self.start_keeper((&mut tasks, &mut behind), (&shutdown, &workers)).await?;
        let all = self.indexes.iter().map(|index| index.context.listings.clone()).collect();
        tasks.spawn(listing::keep(self.parts.board.clone(), all, shutdown.clone()));
        let contexts = self.indexes.iter().map(|index| index.context.clone()).collect();
        let (graph, transport) = (self.parts.graph.clone(), self.parts.transport.clone());
        let watching = watch::run(self.parts.health.clone(), graph, transport, contexts, shutdown.clone());
        tasks.spawn(async move {
            watching.await;
            Ok(())
        });
        let working = async {
            let ended = supervise(&mut tasks, &shutdown, panicked("indexer")).await;
            workers.cancel();
            ended
        };
        let (ended, failed) = tokio::join!(working, supervise(&mut behind, &shutdown, panicked("indexer")));
        failed.and(ended)
    }

    /// Reads which dead letters there are, and looks after them from then on.
    async fn start_keeper(
        &self,
        (tasks, behind): (&mut Tasks<StageError>, &mut Tasks<StageError>),
        (shutdown, workers): (&CancellationToken, &CancellationToken),
    ) -> Result<(), StageError> {
        let (pipeline, stage) = (self.plan.pipeline.clone(), "dead letters");
        let letters = DeadLetters::new(self.parts.transport.clone(), names::dead_letters(&pipeline));
        let indexes: Vec<_> = self.indexes.iter().map(|index| index.context.clone()).collect();
        let Some(book) = indexes.first().map(|index| index.letters.clone()) else { return Ok(()) };
        // What cannot be read now is read by the keeper.
        if let Err(error) = book.follow(&letters).await
            && error.class != ErrorClass::Transient
        {
            return Err(StageError::new(stage, error.message));
        }
        let health = self.parts.health.part(format!("{stage} out"));
        let opened = until_answered(&health, "open a producer", shutdown, || self.parts.transport.appender()).await;
        let Some(producer) = opened.map_err(|e| StageError::new(stage, e.message))? else { return Ok(()) };
        let (outbox, task) = outbox(stage, producer, health);
        behind.spawn(task.run(workers.clone()));
        tasks.spawn(Keeper { pipeline, book, letters, indexes, outbox }.run(shutdown.clone()));
        Ok(())
    }

    /// Creates the pipeline's own topics. False: shutdown came first.
    async fn ensure_topics(&self, shutdown: &CancellationToken) -> Result<bool, StageError> {
        let pipeline = &self.plan.pipeline;
        let spec = |name| TopicSpec {
            name,
            partitions: self.parts.partitions,
            retention: Retention::Delete { age: Some(KEEP_REQUESTS), bytes: None },
        };
        let mut topics = vec![spec(names::replays(pipeline))];
        for index in &self.plan.indexes {
            topics.extend([Lane::Live, Lane::Bulk].map(|lane| spec(names::builds(pipeline, &index.name, lane))));
        }
        let letters = DeadLetters::new(self.parts.transport.clone(), names::dead_letters(pipeline));
        let health = self.parts.health.part("transport");
        let ensure = || async {
            self.parts.transport.ensure_topics(&topics).await?;
            letters.ensure().await
        };
        let ensured = until_answered(&health, "create topics", shutdown, ensure).await;
        Ok(ensured.map_err(|e| StageError::new("transport", e.message))?.is_some())
    }
}
