//! Runs the indexes of a pipeline: one resolve stage, and for each index a build stage, its visibility and its listing.
//!
//! ```text
//! tables' topics, replays ─► intake ─► resolve ─► outbox ─► build topics ─► intake ─► builder ─► store ─► visibility
//!                                                   ▲                                    │
//!                             listing of roots ─────┘                dead letters ◄──────┘
//! ```
//!
//! On shutdown the intakes stop reading and wait a while for what is in flight; then the tasks behind them stop.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_dsl::plan::{IndexPlan, Plan, SourceSettings};
use tributary_event::{ErrorClass, Health, HybridClock, Reporter, debezium};
use tributary_processor::{Backoff, IntakeSettings, Lag, OutboxTask, StageError, intake, outbox};
use tributary_transport::dead_letter::DeadLetters;
use tributary_transport::{ConsumerSettings, Producer, Retention, TopicSpec, Transport, TransportError};

use crate::builder::builder;
use crate::context::IndexContext;
use crate::graph::Graph;
use crate::listing::{self, Listing, RootIdSource};
use crate::recent::Recent;
use crate::report::{OnChange, Reports};
use crate::request::{Lane, names};
use crate::resolve::{Resolver, resolve_stage};
use crate::set_aside::SetAside;
use crate::store::{DocumentStore, Prepared, StoreError};
use crate::visibility::Visibility;
use crate::watch;

/// Records of one delivery at most.
const DELIVERY: usize = 2_000;
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
    /// The root ids of each index, by name.
    pub roots: HashMap<String, Arc<dyn RootIdSource>>,
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
    /// Build requests that are not finished, by lane.
    lags: [Lag; 2],
    reindex: Arc<Notify>,
    /// A reindex was asked for and has not begun.
    reindex_asked: Arc<AtomicBool>,
}

impl IndexHandle {
    /// Build requests that are not finished; none before that is known.
    pub fn builds_waiting(&self) -> Option<u64> {
        self.lags.iter().map(Lag::get).sum()
    }

    /// Builds every document again.
    pub fn reindex(&self) {
        // From now on, so that nobody who asks next takes the old listing's end for the new one's.
        self.reindex_asked.store(true, Ordering::Release);
        self.context.reports.progress.listing.store(true, Ordering::Release);
        self.reindex.notify_one();
    }
}

/// The indexes of a pipeline, ready to run.
pub struct Indexer {
    plan: Plan,
    parts: Parts,
    indexes: Vec<IndexHandle>,
    resolve_lag: Lag,
}

impl Indexer {
    /// Puts the parts together. Touches nothing outside.
    pub fn new(plan: &Plan, parts: Parts) -> Result<Self, StageError> {
        let clock = Arc::new(HybridClock::default());
        let mut indexes = Vec::new();
        for index in &plan.indexes {
            let Some(store) = parts.stores.get(&index.name).cloned() else {
                return Err(StageError::new(format!("index {}", index.name), "no document store was opened for it"));
            };
            let context = IndexContext {
                pipeline: plan.pipeline.clone(),
                graph: parts.graph.clone(),
                store,
                clock: clock.clone(),
                recent: Recent::new(index.build.deadline),
                reports: Reports::new(&index.name, parts.on_change.clone()),
                graph_health: parts.health.part("graph"),
                store_health: parts.health.part(format!("store of {}", index.name)),
                listing_health: parts.health.reporter(format!("listing of {}", index.name)),
                plan: index.clone(),
            };
            indexes.push(IndexHandle {
                context: Arc::new(context),
                lags: Default::default(),
                reindex: Arc::default(),
                reindex_asked: Arc::default(),
            });
        }
        Ok(Self { plan: plan.clone(), parts, indexes, resolve_lag: Lag::default() })
    }

    /// The indexes.
    pub fn indexes(&self) -> &[IndexHandle] {
        &self.indexes
    }

    /// Change events that are not resolved.
    pub fn resolve_lag(&self) -> Lag {
        self.resolve_lag.clone()
    }

    /// Runs until shutdown (`Ok`) or a fatal error.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StageError> {
        tokio::select! {
            ensured = self.ensure_topics() => ensured?,
            () = shutdown.cancelled() => return Ok(()),
        }
        let mut listings = Vec::new();
        for index in &self.indexes {
            match prepare(&self.parts, index, &shutdown).await? {
                Some(listing) => listings.push(listing),
                None => return Ok(()),
            }
        }
        // Tasks behind the intakes live on while the intakes finish.
        let workers = CancellationToken::new();
        let mut tasks: JoinSet<Result<(), StageError>> = JoinSet::new();
        let mut intakes: JoinSet<Result<(), StageError>> = JoinSet::new();
        self.start_resolve(&mut intakes, &mut tasks, &shutdown, &workers).await?;
        for (index, listing) in self.indexes.iter().zip(listings) {
            self.start_builds(index, &mut intakes, &mut tasks, &shutdown, &workers).await?;
            tasks.spawn(list(
                self.parts.transport.clone(),
                self.roots(&index.context.plan)?,
                index.clone(),
                listing,
                self.parts.instance.clone(),
                shutdown.clone(),
            ));
        }
        let contexts = self.indexes.iter().map(|index| index.context.clone()).collect();
        let (graph, transport) = (self.parts.graph.clone(), self.parts.transport.clone());
        let watching = watch::run(self.parts.health.clone(), graph, transport, contexts, shutdown.clone());
        tasks.spawn(async move {
            watching.await;
            Ok(())
        });
        let result = supervise(&mut intakes, &mut tasks, &shutdown).await;
        shutdown.cancel();
        let stopped = drain(&mut intakes).await;
        workers.cancel();
        result.and(stopped).and(drain(&mut tasks).await)
    }

    fn roots(&self, index: &IndexPlan) -> Result<Arc<dyn RootIdSource>, StageError> {
        let missing = || StageError::new(format!("index {}", index.name), "nothing was opened that lists its roots");
        self.parts.roots.get(&index.name).cloned().ok_or_else(missing)
    }

    async fn ensure_topics(&self) -> Result<(), StageError> {
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
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let done = async {
                self.parts.transport.ensure_topics(&topics).await?;
                letters.ensure().await
            };
            match done.await {
                Ok(()) => {
                    health.up();
                    return Ok(());
                }
                Err(error) if error.class == ErrorClass::Transient => {
                    if health.down(error.message.clone()) {
                        let outage_s = health.outage().as_secs();
                        warn!(error = error.message, outage_s, "cannot create topics; trying again");
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
                Err(error) => return Err(stage_error("transport")(error)),
            }
        }
    }

    async fn start_resolve(
        &self,
        intakes: &mut JoinSet<Result<(), StageError>>,
        tasks: &mut JoinSet<Result<(), StageError>>,
        shutdown: &CancellationToken,
        workers: &CancellationToken,
    ) -> Result<(), StageError> {
        let (pipeline, parts) = (&self.plan.pipeline, &self.parts);
        let (outbox, task) = self.outbox("resolve").await?;
        tasks.spawn(task.run(workers.clone()));
        let retry = self.plan.indexes.first().map(|i| i.retry.clone());
        let resolver = Resolver {
            pipeline: pipeline.clone(),
            vertices: self.plan.graph.vertices.clone(),
            fan_outs: self.plan.graph.fan_outs.clone(),
            graph: parts.graph.clone(),
            clock: self.indexes.first().map(|i| i.context.clock.clone()).unwrap_or_default(),
            indexes: self.indexes.iter().map(|i| i.context.clone()).collect(),
            retry: retry.ok_or_else(|| StageError::new("resolve", "the pipeline has no index"))?,
            outbox,
        };
        let (handler, task) = resolve_stage(resolver);
        tasks.spawn(task.run(workers.clone()));
        let consumer = self.consumer(names::resolve_group(pipeline), self.tables()).await?;
        let settings = IntakeSettings { lag: self.resolve_lag.clone(), ..IntakeSettings::new("resolve") };
        let health = parts.health.part("resolve");
        intakes.spawn(intake::run(consumer, Arc::new(handler), settings, health, shutdown.clone()));
        Ok(())
    }

    async fn start_builds(
        &self,
        index: &IndexHandle,
        intakes: &mut JoinSet<Result<(), StageError>>,
        tasks: &mut JoinSet<Result<(), StageError>>,
        shutdown: &CancellationToken,
        workers: &CancellationToken,
    ) -> Result<(), StageError> {
        let (context, name) = (&index.context, &index.context.plan.name);
        let stage = format!("build {name}");
        let (outbox, task) = self.outbox(&stage).await?;
        tasks.spawn(task.run(workers.clone()));
        let visibility = Arc::new(Visibility::default());
        let letters = DeadLetters::new(self.parts.transport.clone(), names::dead_letters(&context.pipeline));
        let letters = letters.list().await.map_err(stage_error(&stage))?;
        let set_aside = SetAside::new(context.clone(), outbox, &letters);
        let (handlers, builder) = builder(context.clone(), visibility.clone(), set_aside);
        tasks.spawn(builder.run(workers.clone()));
        let (seen, token) = (context.clone(), workers.clone());
        tasks.spawn(async move { visibility.run(&seen, token).await });
        // An intake for each lane: what it may have in hand is bounded, and bulk work alone must not use that up.
        for ((lane, handler), lag) in [Lane::Live, Lane::Bulk].into_iter().zip(handlers).zip(&index.lags) {
            let topic = names::builds(&context.pipeline, name, lane);
            let consumer = self.consumer(names::build_group(&context.pipeline, name, lane), vec![topic]).await?;
            let settings = IntakeSettings { lag: lag.clone(), ..IntakeSettings::new(stage.clone()) };
            let part = match lane {
                Lane::Live => stage.clone(),
                Lane::Bulk => format!("{stage} in bulk"),
            };
            let health = self.parts.health.part(part);
            intakes.spawn(intake::run(consumer, Arc::new(handler), settings, health, shutdown.clone()));
        }
        Ok(())
    }

    async fn outbox(&self, stage: &str) -> Result<(tributary_processor::Outbox, OutboxTask), StageError> {
        let id = format!("{}.{}.{}", self.plan.pipeline, stage.replace(' ', "."), self.parts.instance);
        let producer = self.parts.transport.producer(&id).await.map_err(stage_error(stage))?;
        Ok(outbox(stage, producer, self.parts.health.part(format!("{stage} out"))))
    }

    async fn consumer(
        &self,
        group: String,
        topics: Vec<String>,
    ) -> Result<Box<dyn tributary_transport::Consumer>, StageError> {
        let settings = ConsumerSettings { group: group.clone(), topics, max_records: DELIVERY, from_start: true };
        self.parts.transport.consumer(settings).await.map_err(stage_error(&group))
    }

    /// The topics of the tables that touch vertices, and that of replayed events.
    fn tables(&self) -> Vec<String> {
        let mut topics = vec![names::replays(&self.plan.pipeline)];
        for source in &self.plan.sources {
            let SourceSettings::Postgres(postgres) = &source.settings;
            let mapped = postgres.tables.iter().filter(|t| self.plan.graph.vertices.contains_key(*t));
            let topic = |table: &String| {
                let (schema, name) = table.split_once('.').unwrap_or(("public", table));
                debezium::topic(&source.name, schema, name)
            };
            topics.extend(mapped.map(topic));
        }
        topics
    }
}

fn stage_error(stage: &str) -> impl Fn(TransportError) -> StageError {
    let stage = stage.to_owned();
    move |error| StageError::new(stage.clone(), error.message)
}

/// Makes an index ready: waits for its store, creates it, and says what is left to list. `None`: shutdown came first.
async fn prepare(
    parts: &Parts,
    index: &IndexHandle,
    shutdown: &CancellationToken,
) -> Result<Option<Listing>, StageError> {
    let context = &index.context;
    let stage = format!("index {}", context.plan.name);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let (prepared, documents) = loop {
        let opened = async {
            let prepared = context.store.prepare(&context.plan).await?;
            Ok::<_, StoreError>((prepared, context.store.count().await?))
        };
        match opened.await {
            Ok(opened) => break opened,
            Err(error) if error.class == ErrorClass::Transient => {
                if context.store_health.down(error.message.clone()) {
                    warn!(
                        index = context.plan.name,
                        error = error.message,
                        outage_s = context.store_health.outage().as_secs(),
                        "the document store does not answer; waiting"
                    );
                }
            }
            Err(error) => return Err(StageError::new(stage, error.message)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    };
    context.store_health.up();
    let transport = parts.transport.as_ref();
    let state = listing::state(transport, &context.pipeline, &context.plan.name).await.map_err(stage_error(&stage))?;
    // An index that should have documents and has none was created anew and its process died right then, or was emptied.
    let emptied = documents == 0 && state.as_ref().is_some_and(|listing| listing.complete && listing.listed > 0);
    match (prepared, state) {
        (Prepared::Existing, Some(listing)) if !emptied => Ok(Some(listing)),
        (prepared, None) => Ok(Some(Listing::of(prepared == Prepared::Created))),
        // The index is new, whatever an older one's listing says.
        (_, Some(_)) => {
            let id = format!("{}.{}.listing.{}", context.pipeline, context.plan.name, parts.instance);
            let mut producer = transport.producer(&id).await.map_err(stage_error(&stage))?;
            let listing = Listing::of(true);
            listing::restart(producer.as_mut(), &context.pipeline, &context.plan.name, &listing)
                .await
                .map_err(stage_error(&stage))?;
            Ok(Some(listing))
        }
    }
}

/// Lists the roots of an index as far as they are not listed, and again whenever a reindex is asked for.
async fn list(
    transport: Arc<dyn Transport>,
    roots: Arc<dyn RootIdSource>,
    index: IndexHandle,
    mut listing: Listing,
    instance: String,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    let (context, name) = (&index.context, &index.context.plan.name);
    let id = format!("{}.{name}.listing.{instance}", context.pipeline);
    loop {
        let progress = &context.reports.progress;
        if listing.complete {
            progress.listing.store(false, Ordering::Release);
            if index.reindex_asked.load(Ordering::Acquire) {
                progress.listing.store(true, Ordering::Release);
            }
        } else {
            let health = &context.listing_health;
            let Some(producer) = producer(transport.as_ref(), &id, health, &shutdown).await? else { return Ok(()) };
            listing::run(context, roots.as_ref(), producer, listing, shutdown.clone()).await?;
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = index.reindex.notified() => {
                index.reindex_asked.store(false, Ordering::Release);
                progress.listing.store(true, Ordering::Release);
                listing = Listing::of(false);
            }
        }
    }
}

/// Opens a producer as soon as the transport lets us. `None`: shutdown came first.
async fn producer(
    transport: &dyn Transport,
    id: &str,
    health: &Reporter,
    shutdown: &CancellationToken,
) -> Result<Option<Box<dyn Producer>>, StageError> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match transport.producer(id).await {
            Ok(producer) => return Ok(Some(producer)),
            Err(error) if error.class == ErrorClass::Transient => {
                if health.down(error.message.clone()) {
                    let outage_s = health.outage().as_secs();
                    warn!(id, error = error.message, outage_s, "cannot open a producer; trying again");
                }
            }
            Err(error) => return Err(stage_error(id)(error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Waits for shutdown, or for the first stage that fails.
async fn supervise(
    intakes: &mut JoinSet<Result<(), StageError>>,
    tasks: &mut JoinSet<Result<(), StageError>>,
    shutdown: &CancellationToken,
) -> Result<(), StageError> {
    loop {
        let ended = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(ended) = intakes.join_next() => ended,
            Some(ended) = tasks.join_next() => ended,
        };
        ended.unwrap_or_else(|e| Err(StageError::new("indexer", format!("a task panicked: {e}"))))?;
    }
}

async fn drain(tasks: &mut JoinSet<Result<(), StageError>>) -> Result<(), StageError> {
    let mut first = Ok(());
    while let Some(ended) = tasks.join_next().await {
        first = first.and(ended.unwrap_or_else(|e| Err(StageError::new("indexer", format!("a task panicked: {e}")))));
    }
    first
}
