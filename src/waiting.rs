//! The very start of `run`: asks the graph for its schema until it tells it, and serves `/health` meanwhile.
//!
//! A graph that is being deployed is away, or what stands before it answers 404, 403 or a redirect. A pipeline that ended then
//! would end at each of its starts. A mistake in the definition looks the same, so what is said names the cause and what to check.

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};
use tributary_dsl::plan::Plan;
use tributary_event::Health;
use tributary_processor::Backoff;

use crate::definition::{Draft, NoSchema};
use crate::exit::Failure;
use crate::http::{Waiting, listen, serve_waiting};
use crate::record::{self, Recorded};

/// A pipeline that may start.
pub struct Planned {
    /// What runs.
    pub plan: Plan,
    /// Where others ask how it is.
    pub listener: TcpListener,
    /// How it is.
    pub health: Health,
}

/// Waits until there is a plan. `None`: shutdown came first.
pub async fn until_planned(
    draft: &Draft,
    metrics: &PrometheusHandle,
    shutdown: &CancellationToken,
) -> Result<Option<Planned>, Failure> {
    let health = Health::default();
    let graph = health.reporter("graph");
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut served: Option<Served> = None;
    let plan = loop {
        let asked = tokio::select! {
            () = shutdown.cancelled() => None,
            schema = draft.schema() => Some(schema),
        };
        let error = match asked {
            Some(Ok(schema)) => break draft.plan(&schema)?,
            Some(Err(NoSchema::Graph(error))) => error.message,
            Some(Err(NoSchema::Failure(failure))) => return Err(failure),
            None => return Ok(None),
        };
        draft.text_is_right()?;
        let news = graph.down(error.clone());
        if served.is_none() {
            served = Some(Served::start(draft, &health, metrics).await?);
        }
        if news {
            warn!(
                error,
                outage_s = graph.outage().as_secs(),
                "the graph does not tell its schema; asking again until it does. If this does not pass, graph.endpoint or \
                 graph.headers may be wrong (run with --fail-fast to end instead of waiting)"
            );
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    };
    let listener = match served {
        Some(served) => {
            info!(after_s = graph.outage().as_secs(), "the graph tells its schema; starting");
            served.end().await?
        }
        None => listen(plan.http.listen).await?,
    };
    Ok(Some(Planned { plan, listener, health }))
}

/// The listener while there is no plan.
struct Served {
    task: JoinHandle<std::io::Result<()>>,
    /// Ends the task when dropped.
    end: DropGuard,
    /// The same listener once more, so that nobody else gets its port in between.
    listener: std::net::TcpListener,
    _recorded: Recorded,
}

impl Served {
    async fn start(draft: &Draft, health: &Health, metrics: &PrometheusHandle) -> Result<Self, Failure> {
        let definition = draft.definition();
        let failed = |e: std::io::Error| Failure::Stopped(format!("cannot listen on {}: {e}", definition.listen()));
        let first = listen(definition.listen()).await?;
        let address = first.local_addr().map_err(failed)?.to_string();
        let first = first.into_std().map_err(failed)?;
        let listener = first.try_clone().map_err(failed)?;
        let first = TcpListener::from_std(first).map_err(failed)?;
        let recorded = record::write(definition.data(), definition.pipeline(), &address)?;
        let waiting =
            Waiting { pipeline: definition.pipeline().to_owned(), health: health.clone(), metrics: metrics.clone() };
        let end = CancellationToken::new();
        let task = tokio::spawn(serve_waiting(first, waiting, end.clone()));
        info!(address, "listening; /health says what is waited for");
        Ok(Self { task, end: end.drop_guard(), listener, _recorded: recorded })
    }

    /// Stops serving. Who connects meanwhile is answered by whoever takes the listener.
    async fn end(self) -> Result<TcpListener, Failure> {
        drop(self.end);
        // A connection that somebody keeps open holds nothing up.
        let _ = tokio::time::timeout(Duration::from_secs(2), self.task).await;
        TcpListener::from_std(self.listener).map_err(|e| Failure::Stopped(format!("cannot listen any more: {e}")))
    }
}
