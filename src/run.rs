//! `run`: everything of a pipeline in one process, until it is told to stop or something fatal happens.
//!
//! Order matters at start: slots exist before the first root is listed, so that no change falls between the first build
//! and the log.

use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tributary_connector::ConnectorError;
use tributary_connector::postgres::TableInfo;
use tributary_dsl::plan::Plan;
use tributary_event::{ErrorClass, Health};
use tributary_indexer::engine::{IndexHandle, Indexer, Parts};
use tributary_indexer::report::OnChange;
use tributary_indexer::request::names;
use tributary_processor::{Backoff, Lag};
use tributary_transport::Transport;
use tributary_transport::dead_letter::DeadLetters;

use crate::backends;
use crate::exit::Failure;
use crate::http::{Api, serve};
use crate::record;
use crate::rules;
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
    let address = listener.local_addr().map_err(|e| Failure::Stopped(e.to_string()))?;
    let transport = backends::transport(&plan).await?;
    let graph = backends::graph(&plan, settings.fail_fast)?;
    // The lock of the name is held as long as it is used.
    let (instance, _named) = backends::instance(&plan)?;
    let parts = Parts {
        transport: transport.clone(),
        partitions: backends::partitions(&plan),
        graph: graph.clone(),
        stores: backends::stores(&plan)?,
        roots: backends::roots(&plan, &graph)?,
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
    let result = Box::pin(work(&plan, &transport, &health, indexer, &shutdown)).await;
    listening.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), serving).await;
    drop(recorded);
    result
}

/// Prepares the sources, then runs them and the indexer.
async fn work(
    plan: &Plan,
    transport: &Arc<dyn Transport>,
    health: &Health,
    indexer: Indexer,
    shutdown: &CancellationToken,
) -> Result<(), Failure> {
    let mut tasks: Tasks = JoinSet::new();
    for source in &plan.sources {
        let connector = backends::connector_settings(plan, source);
        let check = |tables: &[TableInfo]| rules::check(plan, source, tables);
        // A source that waits for its server does not hide that another one failed.
        let ready = tokio::select! {
            ready = prepare_source(&connector, transport.as_ref(), &check, health, shutdown) => ready?,
            Some(ended) = tasks.join_next() => {
                shutdown.cancel();
                let others = supervise(&mut tasks, shutdown).await;
                return flat(ended).and(others);
            }
        };
        if !ready {
            return supervise(&mut tasks, shutdown).await;
        }
        let reporter = health.part(format!("source {}", source.name));
        let (transport, shutdown) = (transport.clone(), shutdown.clone());
        tasks.spawn(async move {
            tributary_connector::run(connector, transport, reporter, shutdown)
                .await
                .map_err(|e| Failure::Stopped(e.to_string()))
        });
    }
    let stages = shutdown.clone();
    tasks.spawn(async move { Box::pin(indexer.run(stages)).await.map_err(|e| Failure::Stopped(e.to_string())) });
    supervise(&mut tasks, shutdown).await
}

/// Waits for the source's server and makes publication, slot and topics ready. False: shutdown came first.
async fn prepare_source(
    settings: &tributary_connector::ConnectorSettings,
    transport: &dyn Transport,
    check: &(dyn Fn(&[TableInfo]) -> Result<(), String> + Sync),
    health: &Health,
    shutdown: &CancellationToken,
) -> Result<bool, Failure> {
    let name = &settings.name;
    let reporter = health.part(format!("source {name}"));
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let prepare = async {
            tributary_connector::postgres::prepare(settings, transport, check).await?;
            // The indexes read these topics, whether the connector's turn has come or not.
            transport.ensure_topics(&settings.topic_specs()?).await?;
            Ok::<_, ConnectorError>(())
        };
        match prepare.await {
            Ok(()) => return Ok(true),
            Err(error) if error.class() == ErrorClass::Transient => {
                if reporter.down(error.to_string()) {
                    let outage_s = reporter.outage().as_secs();
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
