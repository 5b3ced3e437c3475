//! `run`: everything of a pipeline in one process, until it is told to stop or something fatal happens.
//!
//! Order matters at start: the slots of the sources that an index shows exist before its first root is listed, so that no
//! change falls between the first build and the log. Everything else begins at once, whichever source does not answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_connector::{ConnectorError, ConnectorSettings, Dependent, postgres};
use tributary_dsl::plan::Plan;
use tributary_event::{ErrorClass, Health, Reporter, Trouble};
use tributary_indexer::engine::{IndexHandle, Indexer, Parts};
use tributary_indexer::report::OnChange;
use tributary_indexer::request::names;
use tributary_processor::{Backoff, Lag};
use tributary_transport::dead_letter::DeadLetters;
use tributary_transport::{TopicSpec, Transport};

use crate::backends;
use crate::dependent::Indexes;
use crate::exit::Failure;
use crate::http::{Api, serve};
use crate::record;
use crate::waiting::Planned;

/// How a pipeline runs.
pub struct Settings {
    /// What, and where it listens.
    pub planned: Planned,
    /// Whether a graph that refuses our queries, or us, ends it.
    pub fail_fast: bool,
    /// Hears of every finished change.
    pub on_change: OnChange,
    /// Hears of the running parts, once.
    pub on_start: Box<dyn FnOnce(&Running) + Send>,
    /// Metrics; start their recorder once a process.
    pub metrics: PrometheusHandle,
}

/// A pipeline that runs.
pub struct Running {
    /// Where the HTTP listener is.
    pub address: String,
    /// The indexes.
    pub indexes: Vec<IndexHandle>,
    /// Change events that are not resolved.
    pub resolve_lag: Lag,
}

type Tasks = JoinSet<Result<(), Failure>>;

/// Runs until shutdown (`Ok`) or a fatal error.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Failure> {
    let Planned { plan, listener, health } = settings.planned;
    let plan = Arc::new(plan);
    let address = listener.local_addr().map_err(|e| Failure::Stopped(e.to_string()))?;
    let transport = backends::transport(&plan).await?;
    let graph = backends::graph(&plan, settings.fail_fast)?;
    // The lock of the name is held as long as it is used.
    let (instance, _named) = backends::instance(&plan)?;
    let captured: HashMap<_, _> = plan.sources.iter().map(|s| (s.name.clone(), watch::Sender::new(false))).collect();
    let parts = Parts {
        transport: transport.clone(),
        partitions: backends::partitions(&plan),
        graph: graph.clone(),
        stores: backends::stores(&plan)?,
        roots: backends::roots(&plan, &graph)?,
        captured: captured.iter().map(|(name, captured)| (name.clone(), captured.subscribe())).collect(),
        health: health.clone(),
        on_change: settings.on_change,
        instance,
    };
    let indexer = Indexer::new(&plan, parts).map_err(|e| Failure::Stopped(e.to_string()))?;
    let running = Running {
        address: address.to_string(),
        indexes: indexer.indexes().to_vec(),
        resolve_lag: indexer.resolve_lag(),
    };
    let api = Api {
        pipeline: plan.pipeline.clone(),
        health: health.clone(),
        indexes: running.indexes.clone(),
        resolve_lag: running.resolve_lag.clone(),
        letters: DeadLetters::new(transport.clone(), names::dead_letters(&plan.pipeline)),
        metrics: settings.metrics,
    };
    // The listener outlives the stages, so that a stopping pipeline can still be asked how it is.
    let listening = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, Arc::new(api), listening.clone()));
    let recorded = record::write(&plan.data, &plan.pipeline, &running.address)?;
    info!(pipeline = plan.pipeline, address = running.address, "running");
    (settings.on_start)(&running);
    let result = Box::pin(work(&plan, &transport, &health, indexer, captured, &shutdown)).await;
    listening.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), serving).await;
    drop(recorded);
    result
}

/// Runs the sources and the indexer. What needs a source that does not answer waits for it; the rest goes on.
async fn work(
    plan: &Arc<Plan>,
    transport: &Arc<dyn Transport>,
    health: &Health,
    indexer: Indexer,
    captured: HashMap<String, watch::Sender<bool>>,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let mut tasks: Tasks = JoinSet::new();
    let mut captured = captured;
    for source in &plan.sources {
        let Some(captured) = captured.remove(&source.name) else { continue };
        let source = Source {
            settings: backends::connector_settings(plan, source),
            transport: transport.clone(),
            dependent: Arc::new(Indexes::new(plan.clone(), source.clone(), indexer.indexes().to_vec())),
            health: health.part(format!("source {}", source.name)),
            captured,
        };
        let shutdown = shutdown.clone();
        tasks.spawn(async move { Box::pin(source.run(shutdown)).await });
    }
    let stages = shutdown.clone();
    let (topics, transport) = (backends::topics(plan)?, transport.clone());
    tasks.spawn(async move {
        // The indexes read these topics, whether their sources answer or not.
        if !ensure_topics(transport.as_ref(), &topics, &stages).await? {
            return Ok(());
        }
        Box::pin(indexer.run(stages)).await.map_err(|e| Failure::Stopped(e.to_string()))
    });
    supervise(&mut tasks, shutdown).await
}

/// Creates the topics of the tables as soon as the transport lets us. False: shutdown came first.
async fn ensure_topics(
    transport: &dyn Transport,
    topics: &[TopicSpec],
    shutdown: &CancellationToken,
) -> Result<bool, Failure> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut trouble = Trouble::default();
    loop {
        match transport.ensure_topics(topics).await {
            Ok(()) => return Ok(true),
            Err(error) if error.class == ErrorClass::Transient => {
                if let Some(lasting) = trouble.note(&error.message) {
                    let lasting_s = lasting.as_secs();
                    warn!(error = error.message, lasting_s, "cannot create the topics of the tables; trying again");
                }
            }
            Err(error) => return Err(Failure::Stopped(error.message)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(false),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}

/// A source of a running pipeline.
struct Source {
    settings: ConnectorSettings,
    transport: Arc<dyn Transport>,
    dependent: Arc<dyn Dependent>,
    health: Reporter,
    /// Becomes true when no later change is missed.
    captured: watch::Sender<bool>,
}

impl Source {
    async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        if !self.prepare(&shutdown).await? {
            return Ok(());
        }
        self.captured.send_replace(true);
        let Self { settings, transport, dependent, health, captured } = self;
        let ended = tributary_connector::run(settings, transport, dependent, health, shutdown).await;
        // Those who wait for it hear of its end no earlier than of the failure.
        drop(captured);
        ended.map_err(|e| Failure::Stopped(e.to_string()))
    }

    /// Waits for the server and makes publication and slot ready. False: shutdown came first.
    async fn prepare(&self, shutdown: &CancellationToken) -> Result<bool, Failure> {
        let name = &self.settings.name;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let prepared = tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                prepared = postgres::prepare(&self.settings, self.transport.as_ref(), self.dependent.as_ref()) => prepared,
            };
            match prepared {
                Ok(_) => return Ok(true),
                Err(error) if error.class() == ErrorClass::Transient => {
                    if self.health.down(error.to_string()) {
                        let outage_s = self.health.outage().as_secs();
                        warn!(source = name, %error, outage_s, "the source does not answer; waiting");
                    }
                }
                // What the rules say names its place itself.
                Err(ConnectorError::Refused(text)) => return Err(Failure::Stopped(text)),
                Err(error) => return Err(Failure::Stopped(format!("source {name}: {error}"))),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }
}

fn flat(ended: Result<Result<(), Failure>, JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|e| Err(Failure::Stopped(format!("a part panicked: {e}"))))
}

/// Waits for all parts to end; the first failure, or the first end, stops the others.
async fn supervise(tasks: &mut Tasks, shutdown: &CancellationToken) -> Result<(), Failure> {
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended = flat(ended);
        if result.is_ok() {
            result = ended;
        }
        shutdown.cancel();
    }
    result
}
