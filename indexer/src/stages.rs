//! The stages of one index, from the changes of tables to searchable documents.
//!
//! ```text
//! tables' topics, replays ─► intake ─► resolve ─► outbox ─► build topics ─► intake ─► builder ─► store ─► visibility
//!                                                   ▲                                    │
//!                             listing of roots ─────┘                dead letters ◄──────┘
//! ```
//!
//! On shutdown the intakes stop reading and wait a while for what is in flight; then the tasks behind them stop.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::{IndexPlan, Plan, SourcePlan};
use tributary_event::debezium;
use tributary_processor::supervise::panicked;
use tributary_processor::{
    IntakeSettings, Lag, OutboxTask, StageError, Tasks, intake, outbox, supervise, until_answered,
};
use tributary_transport::ConsumerSettings;

use crate::building::builder::builder;
use crate::building::visibility::Visibility;
use crate::context::IndexContext;
use crate::engine::{IndexHandle, Parts};
use crate::graph::WITNESSES;
use crate::letters::Letters;
use crate::letters::origins::Origins;
use crate::listing::fingerprint::shown_tables;
use crate::listing::{self, Guarded, RootIdSource, Sources, Turn};
use crate::request::{Lane, names};
use crate::resolve::lost::Concerned;
use crate::resolve::order::Watcher;
use crate::resolve::{Resolver, Waiting, resolve_stage};
use crate::store::StoreError;

/// Records of one delivery at most.
const DELIVERY: usize = 2_000;
/// How often a standby asks whether its turn has come.
const TURN: Duration = Duration::from_secs(10);

/// One index of a process.
pub(crate) struct Stages {
    pub plan: Arc<Plan>,
    pub parts: Arc<Parts>,
    pub index: IndexHandle,
}

/// Tasks of an index: those in front read and list, and end with the process's shutdown; those behind work until the former have
/// ended.
struct Running {
    front: Tasks<StageError>,
    behind: Tasks<StageError>,
    shutdown: CancellationToken,
    workers: CancellationToken,
}

impl Stages {
    /// Makes the index ready and runs its stages, until shutdown (`Ok`) or a fatal error.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), StageError> {
        if !self.prepare(&shutdown).await? {
            return Ok(());
        }
        let workers = CancellationToken::new();
        let mut running = Running { front: JoinSet::new(), behind: JoinSet::new(), shutdown, workers };
        self.start_resolve(&mut running).await?;
        self.start_builds(&mut running).await?;
        let roots = self.roots()?;
        running.front.spawn(list(
            self.index.context.clone(),
            roots,
            self.sources(),
            self.index.backlog.clone(),
            running.shutdown.clone(),
        ));
        let Running { mut front, mut behind, shutdown, workers } = running;
        let name = format!("index {}", self.index_plan().name);
        let reading = async {
            let ended = supervise(&mut front, &shutdown, panicked(&name)).await;
            workers.cancel();
            ended
        };
        // What fails behind stops what is in front of it, which then stops the rest.
        let (ended, failed) = tokio::join!(reading, supervise(&mut behind, &shutdown, panicked(&name)));
        failed.and(ended)
    }

    fn context(&self) -> &Arc<IndexContext> {
        &self.index.context
    }

    fn index_plan(&self) -> &IndexPlan {
        &self.index.context.plan
    }

    /// Waits for the store and for a process that works by another plan, makes the index ready, and finds out what is left to
    /// list. False: shutdown came first.
    async fn prepare(&self, shutdown: &CancellationToken) -> Result<bool, StageError> {
        let context = self.context();
        let (store, listing) = (&context.store_health, &context.listing_health);
        if !self.wait_for_turn(shutdown).await? {
            return Ok(false);
        }
        let open = || async {
            let prepared = context.store.prepare(&context.plan.selection).await?;
            let documents = context.store.count().await?;
            Ok::<_, StoreError>((prepared, documents, context.store.newest_stamp().await?))
        };
        let opened = until_answered(store, "make the index ready", shutdown, open).await;
        let Some((prepared, documents, newest)) = opened.map_err(|e| self.failed(e.message))? else { return Ok(false) };
        // Stamps of this process are above those of the documents that are there, whatever clock made those.
        context.clock.observe(newest);
        if documents > 0 {
            context.reports.knew(true);
            // Documents that the graph served once, by which it is known whether it serves.
            context.graph.remember(&context.plan, &context.store.scan(None, WITNESSES).await.unwrap_or_default());
        }
        let open = || context.listings.open_with(prepared, documents);
        let opened = until_answered(listing, "learn what is left to list", shutdown, open).await;
        Ok(opened.map_err(|e| self.failed(e.message))?.is_some())
    }

    /// Waits while processes work on the index beside which this one must not. False: shutdown came first.
    async fn wait_for_turn(&self, shutdown: &CancellationToken) -> Result<bool, StageError> {
        let (listings, health) = (&self.context().listings, &self.context().listing_health);
        let mut said = None;
        loop {
            let turn = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(false),
                turn = until_answered(health, "learn who works on the index", shutdown, || listings.turn()) => turn,
            };
            let Some(turn) = turn.map_err(|e| self.failed(e.message))? else { return Ok(false) };
            match turn {
                Turn::Taken => return Ok(true),
                Turn::Refused(why) => return Err(self.failed(why)),
                Turn::Waits(why) => {
                    health.standby(&*why);
                    if said.as_ref() != Some(&why) {
                        tracing::info!(index = self.index_plan().name, why, "a standby");
                    }
                    said = Some(why);
                }
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(TURN) => {}
            }
        }
    }

    fn roots(&self) -> Result<Arc<dyn RootIdSource>, StageError> {
        let missing = || self.failed("nothing was opened that lists its roots".to_owned());
        self.parts.roots.get(&self.index_plan().name).cloned().ok_or_else(missing)
    }

    /// The sources of the tables that the index shows: nothing is listed before each is captured.
    fn sources(&self) -> Sources {
        let shows = |source: &&SourcePlan| shown_tables(&self.plan, source, self.index_plan()).next().is_some();
        let shown = self.plan.sources.iter().filter(shows);
        let of = shown.filter_map(|s| Some((s.name.clone(), self.parts.captured.get(&s.name)?.clone()))).collect();
        Sources::new(of, self.plan.sources.len() == 1)
    }

    async fn start_resolve(&self, running: &mut Running) -> Result<(), StageError> {
        let (pipeline, context, index) = (&self.plan.pipeline, self.context(), self.index_plan());
        let stage = format!("resolve {}", index.name);
        let Some((outbox, task)) = self.outbox(&stage, &running.shutdown).await? else { return Ok(()) };
        running.behind.spawn(task.run(running.workers.clone()));
        let shown = index.vertex_types();
        let fan_outs = self.plan.graph.fan_outs.iter().filter(|(type_name, _)| shown.contains(type_name.as_str()));
        let concerned = Arc::new(self.concerned());
        let order = self.parts.health.part(format!("order of {}", index.name));
        let numbered = self.tables();
        let watcher = Watcher::new(&index.name, numbered, self.parts.transport.clone(), concerned.clone(), order);
        let fan_out_health = self.parts.health.reporter(format!("fan-out of {}", index.name));
        let resolver = Resolver {
            pipeline: pipeline.clone(),
            vertices: self.plan.graph.vertices.clone(),
            fan_outs: fan_outs.map(|(type_name, plan)| (type_name.clone(), plan.clone())).collect(),
            graph: self.parts.graph.clone(),
            distrusted: Mutex::default(),
            is_sole: self.plan.sources.len() == 1,
            fan_out_health,
            clock: context.clock.clone(),
            indexes: vec![context.clone()],
            retry: index.retry.clone(),
            settling: Waiting::new(context.times),
            times: context.times,
            outbox,
            concerned,
            watcher: Arc::new(watcher),
            origins: Arc::new(Origins::new(self.parts.transport.clone())),
        };
        let (handler, task) = resolve_stage(resolver);
        running.behind.spawn(task.run(running.workers.clone()));
        let group = names::resolve_group(pipeline, &index.name);
        let (transport, part) = (&self.parts.transport, self.parts.health.reporter("transport"));
        let group = reader(group, self.topics());
        let join = || transport.consumer(group.clone());
        let joined = until_answered(&part, "join a group of readers", &running.shutdown, join).await;
        let Some(consumer) = joined.map_err(|e| self.failed(e.message))? else { return Ok(()) };
        let consumer = Box::new(Guarded::new(consumer, context.listings.clone()));
        let settings = IntakeSettings { lag: self.index.changes.clone(), ..IntakeSettings::new(&*stage) };
        let health = self.parts.health.part(stage);
        running.front.spawn(intake::run(consumer, Arc::new(handler), settings, health, running.shutdown.clone()));
        Ok(())
    }

    async fn start_builds(&self, running: &mut Running) -> Result<(), StageError> {
        let (context, name) = (self.context(), &self.index_plan().name);
        let stage = format!("build {name}");
        let Some((outbox, task)) = self.outbox(&stage, &running.shutdown).await? else { return Ok(()) };
        running.behind.spawn(task.run(running.workers.clone()));
        let visibility = Arc::new(Visibility::default());
        let letters = Letters::new(context.clone(), outbox, Origins::new(self.parts.transport.clone()));
        let (handlers, builder) = builder(context.clone(), visibility.clone(), letters);
        running.behind.spawn(builder.run(running.workers.clone()));
        let (seen, token) = (context.clone(), running.workers.clone());
        running.behind.spawn(async move { visibility.run(&seen, token).await });
        // The bulk lane follows the live one, so that one process builds a document. An intake for each lane: what it may have in hand
        // is bounded, and bulk work alone must not use that up.
        let [live, bulk] = [Lane::Live, Lane::Bulk].map(|lane| {
            let topic = names::builds(&context.pipeline, name, lane);
            reader(names::build_group(&context.pipeline, name, lane), vec![topic])
        });
        let (transport, part) = (&self.parts.transport, self.parts.health.reporter("transport"));
        let join = || transport.consumers(live.clone(), bulk.clone());
        let joined = until_answered(&part, "join a group of readers", &running.shutdown, join).await;
        let Some(consumers) = joined.map_err(|e| self.failed(e.message))? else { return Ok(()) };
        let parts = [stage.clone(), format!("{stage} in bulk")];
        let backlogs = [None, Some(self.index.backlog.clone())];
        let lags = self.index.builds.iter().cloned().zip(backlogs);
        for (((consumer, handler), (lag, backlog)), part) in consumers.into_iter().zip(handlers).zip(lags).zip(parts) {
            let settings = IntakeSettings { lag, backlog, ..IntakeSettings::new(stage.clone()) };
            let (health, shutdown) = (self.parts.health.part(part), running.shutdown.clone());
            running.front.spawn(intake::run(consumer, Arc::new(handler), settings, health, shutdown));
        }
        Ok(())
    }

    /// An outbox of a stage; none: shutdown came first.
    async fn outbox(
        &self,
        stage: &str,
        shutdown: &CancellationToken,
    ) -> Result<Option<(tributary_processor::Outbox, OutboxTask)>, StageError> {
        let health = self.parts.health.part(format!("{stage} out"));
        let opened = until_answered(&health, "open a producer", shutdown, || self.parts.transport.appender()).await;
        let producer = opened.map_err(|e| StageError::new(stage, e.message))?;
        Ok(producer.map(|producer| outbox(stage, producer, health)))
    }

    /// The topics of the tables whose rows are vertices that the index shows, and that of replayed events.
    fn topics(&self) -> Vec<String> {
        let mut topics = vec![names::replays(&self.plan.pipeline)];
        topics.extend(self.tables());
        topics
    }

    /// The topics of the tables whose rows are vertices that the index shows.
    fn tables(&self) -> Vec<String> {
        let mut topics = Vec::new();
        for source in &self.plan.sources {
            let shown = shown_tables(&self.plan, source, self.index_plan());
            topics.extend(shown.map(|table| debezium::topic(&source.name, &table.schema, &table.name)));
        }
        topics
    }

    /// The index, for whatever is lost of what the stage reads.
    fn concerned(&self) -> Concerned {
        let mut concerned = Concerned::default();
        self.topics().into_iter().for_each(|topic| concerned.add(topic, self.context().listings.clone()));
        concerned
    }

    fn failed(&self, message: String) -> StageError {
        StageError::new(format!("index {}", self.index_plan().name), message)
    }
}

fn reader(group: String, topics: Vec<String>) -> ConsumerSettings {
    ConsumerSettings { group, topics, max_records: DELIVERY, from_start: true }
}

/// Lists an index's roots whenever they are to be listed, once the sources that it shows are captured.
async fn list(
    context: Arc<IndexContext>,
    roots: Arc<dyn RootIdSource>,
    sources: Sources,
    backlog: Lag,
    shutdown: CancellationToken,
) -> Result<(), StageError> {
    if !sources.until_captured(&context, &shutdown).await {
        return Ok(());
    }
    listing::run(&context, (roots.as_ref(), &sources), &backlog, shutdown).await
}
