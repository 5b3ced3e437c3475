//! Runs the indexes of a pipeline: one resolve stage, and for each index a build stage, its visibility and its listing.
//!
//! ```text
//! tables' topics, replays ─► intake ─► resolve ─► outbox ─► build topics ─► intake ─► builder ─► store ─► visibility
//!                                                   ▲                                    │
//!                             listing of roots ─────┘                dead letters ◄──────┘
//! ```
//!
//! On shutdown the intakes stop reading and wait a while for what is in flight; then the tasks behind them stop.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_dsl::plan::{IndexPlan, Plan, SourcePlan, SourceSettings};
use tributary_event::{ErrorClass, Health, HybridClock, TableName, debezium};
use tributary_processor::{Backoff, IntakeSettings, Lag, OutboxTask, StageError, intake, outbox};
use tributary_transport::dead_letter::DeadLetters;
use tributary_transport::{ConsumerSettings, Retention, TopicSpec, Transport, TransportError};

use crate::brake::Brake;
use crate::builder::builder;
use crate::context::IndexContext;
use crate::graph::Graph;
use crate::letters::Letters;
use crate::letters::book::Book;
use crate::letters::replay::Keeper;
use crate::listing::{self, Listings, RootIdSource};
use crate::lost::Concerned;
use crate::recent::Recent;
use crate::report::{OnChange, Reports};
use crate::request::{Lane, names};
use crate::resolve::settle::Times;
use crate::resolve::{Resolver, Waiting, resolve_stage};
use crate::store::{DocumentStore, StoreError};
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
    /// How far each index is listed, by name.
    pub listings: HashMap<String, Arc<Listings>>,
    /// The root ids of each index, by name.
    pub roots: HashMap<String, Arc<dyn RootIdSource>>,
    /// Whether the log of each source is captured, by name. Before that no listing begins of an index that shows its tables:
    /// what changes meanwhile would be missed.
    pub captured: HashMap<String, Receiver<bool>>,
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
    /// Bulk requests that no process has finished.
    backlog: Lag,
}

impl IndexHandle {
    /// Build requests that are not finished; none before that is known.
    pub fn builds_waiting(&self) -> Option<u64> {
        self.lags.iter().map(Lag::get).sum()
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
    plan: Plan,
    parts: Parts,
    indexes: Vec<IndexHandle>,
    resolve_lag: Lag,
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
            indexes.push(IndexHandle { context: Arc::new(context), lags: Default::default(), backlog: Lag::default() });
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
            biased;
            ensured = self.ensure_topics() => ensured?,
            () = shutdown.cancelled() => return Ok(()),
        }
        for index in &self.indexes {
            if !prepare(index, &shutdown).await? {
                return Ok(());
            }
        }
        // Tasks behind the intakes live on while the intakes finish.
        let workers = CancellationToken::new();
        let mut tasks: JoinSet<Result<(), StageError>> = JoinSet::new();
        let mut intakes: JoinSet<Result<(), StageError>> = JoinSet::new();
        self.start_keeper(&mut tasks, &workers).await?;
        self.start_resolve(&mut intakes, &mut tasks, &shutdown, &workers).await?;
        for index in &self.indexes {
            self.start_builds(index, &mut intakes, &mut tasks, &shutdown, &workers).await?;
            let (roots, sources) = (self.roots(&index.context.plan)?, self.sources(&index.context.plan));
            tasks.spawn(list(index.context.clone(), roots, sources, index.backlog.clone(), shutdown.clone()));
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

    /// The sources of the tables that an index shows.
    fn sources(&self, index: &IndexPlan) -> Vec<(String, Receiver<bool>)> {
        let shown = index.vertex_types();
        let shows = |source: &&SourcePlan| {
            let SourceSettings::Postgres(postgres) = &source.settings;
            postgres.tables.iter().any(|table| self.shows(&shown, table))
        };
        let sources = self.plan.sources.iter().filter(shows);
        sources.filter_map(|s| Some((s.name.clone(), self.parts.captured.get(&s.name)?.clone()))).collect()
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
        let deadline = self.plan.indexes.iter().map(|i| i.build.deadline).max().unwrap_or_default();
        let times = Times { lag: self.plan.graph.lag, deadline };
        let resolver = Resolver {
            pipeline: pipeline.clone(),
            vertices: self.plan.graph.vertices.clone(),
            fan_outs: self.plan.graph.fan_outs.clone(),
            graph: parts.graph.clone(),
            clock: self.indexes.first().map(|i| i.context.clock.clone()).unwrap_or_default(),
            indexes: self.indexes.iter().map(|i| i.context.clone()).collect(),
            retry: retry.ok_or_else(|| StageError::new("resolve", "the pipeline has no index"))?,
            settling: Waiting::new(times),
            times,
            outbox,
            concerned: self.concerned(),
        };
        let (handler, task) = resolve_stage(resolver);
        tasks.spawn(task.run(workers.clone()));
        let group = consumer_settings(names::resolve_group(pipeline), self.tables());
        let consumer = parts.transport.consumer(group).await.map_err(stage_error("resolve"))?;
        let settings = IntakeSettings { lag: self.resolve_lag.clone(), ..IntakeSettings::new("resolve") };
        let health = parts.health.part("resolve");
        intakes.spawn(intake::run(consumer, Arc::new(handler), settings, health, shutdown.clone()));
        Ok(())
    }

    /// Reads which dead letters there are, and looks after them from then on.
    async fn start_keeper(
        &self,
        tasks: &mut JoinSet<Result<(), StageError>>,
        workers: &CancellationToken,
    ) -> Result<(), StageError> {
        let pipeline = self.plan.pipeline.clone();
        let letters = DeadLetters::new(self.parts.transport.clone(), names::dead_letters(&pipeline));
        let indexes: Vec<_> = self.indexes.iter().map(|index| index.context.clone()).collect();
        let Some(book) = indexes.first().map(|index| index.letters.clone()) else { return Ok(()) };
        // What cannot be read now is read by the keeper.
        if let Err(error) = book.follow(&letters).await
            && error.class != ErrorClass::Transient
        {
            return Err(stage_error("dead letters")(error));
        }
        let (outbox, task) = self.outbox("dead letters").await?;
        tasks.spawn(task.run(workers.clone()));
        tasks.spawn(Keeper { pipeline, book, letters, indexes, outbox }.run(workers.clone()));
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
        let letters = Letters::new(context.clone(), outbox);
        let (handlers, builder) = builder(context.clone(), visibility.clone(), letters);
        tasks.spawn(builder.run(workers.clone()));
        let (seen, token) = (context.clone(), workers.clone());
        tasks.spawn(async move { visibility.run(&seen, token).await });
        // The bulk lane follows the live one, so that one process builds a document. An intake for each lane: what it may have in hand is
        // bounded, and bulk work alone must not use that up.
        let [live, bulk] = [Lane::Live, Lane::Bulk].map(|lane| {
            let topic = names::builds(&context.pipeline, name, lane);
            consumer_settings(names::build_group(&context.pipeline, name, lane), vec![topic])
        });
        let consumers = self.parts.transport.consumers(live, bulk).await.map_err(stage_error(&stage))?;
        let parts = [stage.clone(), format!("{stage} in bulk")];
        let backlogs = [None, Some(index.backlog.clone())];
        let lags = index.lags.iter().cloned().zip(backlogs);
        for (((consumer, handler), (lag, backlog)), part) in consumers.into_iter().zip(handlers).zip(lags).zip(parts) {
            let settings = IntakeSettings { lag, backlog, ..IntakeSettings::new(stage.clone()) };
            let health = self.parts.health.part(part);
            intakes.spawn(intake::run(consumer, Arc::new(handler), settings, health, shutdown.clone()));
        }
        Ok(())
    }

    async fn outbox(&self, stage: &str) -> Result<(tributary_processor::Outbox, OutboxTask), StageError> {
        let producer = self.parts.transport.appender().await.map_err(stage_error(stage))?;
        Ok(outbox(stage, producer, self.parts.health.part(format!("{stage} out"))))
    }

    /// The topics of the tables that touch vertices, each with the table.
    fn table_topics(&self) -> impl Iterator<Item = (String, &TableName)> {
        self.plan.sources.iter().flat_map(|source| {
            let SourceSettings::Postgres(postgres) = &source.settings;
            let mapped = postgres.tables.iter().filter(|table| self.plan.graph.vertices.contains_key(*table));
            mapped.map(|table| (debezium::topic(&source.name, &table.schema, &table.name), table))
        })
    }

    /// What the resolve stage reads: the topics of tables, and that of replayed events.
    fn tables(&self) -> Vec<String> {
        let replays = names::replays(&self.plan.pipeline);
        std::iter::once(replays).chain(self.table_topics().map(|(topic, _)| topic)).collect()
    }

    /// The indexes that show a table's rows; all of them may show a replayed event's.
    fn concerned(&self) -> Concerned {
        let mut concerned = Concerned::default();
        for index in &self.indexes {
            let (plan, listings) = (&index.context.plan, &index.context.listings);
            let shown = plan.vertex_types();
            concerned.add(names::replays(&self.plan.pipeline), listings.clone());
            for (topic, _) in self.table_topics().filter(|(_, table)| self.shows(&shown, table)) {
                concerned.add(topic, listings.clone());
            }
        }
        concerned
    }

    /// Whether vertices of these types come of a table.
    fn shows(&self, types: &BTreeSet<&str>, table: &TableName) -> bool {
        let rules = self.plan.graph.vertices.get(table);
        rules.is_some_and(|rules| rules.iter().any(|rule| types.contains(rule.type_name.as_str())))
    }
}

fn consumer_settings(group: String, topics: Vec<String>) -> ConsumerSettings {
    ConsumerSettings { group, topics, max_records: DELIVERY, from_start: true }
}

fn stage_error(stage: &str) -> impl Fn(TransportError) -> StageError {
    let stage = stage.to_owned();
    move |error| StageError::new(stage.clone(), error.message)
}

/// Makes an index ready: waits for its store, creates it, and finds out what is left to list. False: shutdown came first.
async fn prepare(index: &IndexHandle, shutdown: &CancellationToken) -> Result<bool, StageError> {
    let context = &index.context;
    let stage = format!("index {}", context.plan.name);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let opened = async {
            let prepared = context.store.prepare(&context.plan).await?;
            let documents = context.store.count().await?;
            Ok::<_, StoreError>((prepared, documents, context.store.newest_stamp().await?))
        };
        match opened.await {
            Ok((prepared, documents, newest)) => {
                context.store_health.up();
                // Stamps of this process are above those of the documents that are there, whatever clock made those.
                context.clock.observe(newest);
                if documents > 0 {
                    context.reports.knew(true);
                    // Documents that the graph served once, by which it is known whether it serves.
                    context.graph.remember(&context.plan.name, &context.store.scan(None, 4).await.unwrap_or_default());
                }
                match context.listings.open(prepared, documents).await {
                    Ok(()) => return Ok(true),
                    Err(error) if error.class == ErrorClass::Transient => {
                        if context.listing_health.down(error.message.clone()) {
                            let outage_s = context.listing_health.outage().as_secs();
                            warn!(
                                index = context.plan.name,
                                error = error.message,
                                outage_s,
                                "the transport does not answer; waiting"
                            );
                        }
                    }
                    Err(error) => return Err(stage_error(&stage)(error)),
                }
            }
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
            biased;
            () = shutdown.cancelled() => return Ok(false),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// Lists an index's roots whenever they are to be listed, once the sources that it shows are captured.
async fn list(
    context: Arc<IndexContext>,
    roots: Arc<dyn RootIdSource>,
    sources: Vec<(String, Receiver<bool>)>,
    backlog: Lag,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    let health = &context.listing_health;
    for (source, mut captured) in sources {
        if !*captured.borrow() {
            health.down(format!("its documents are not listed before source {source} is captured"));
        }
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            captured = captured.wait_for(|captured| *captured) => if captured.is_err() { return Ok(()) },
        }
    }
    health.up();
    listing::run(&context, roots.as_ref(), &backlog, shutdown).await
}

/// Waits for shutdown, or for the first stage that fails.
async fn supervise(
    intakes: &mut JoinSet<Result<(), StageError>>,
    tasks: &mut JoinSet<Result<(), StageError>>,
    shutdown: &CancellationToken,
) -> Result<(), StageError> {
    loop {
        let ended = tokio::select! {
            biased;
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
