//! Commands that run a pipeline, or one that runs: run, reload, reindex.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::info;
use tributary_dsl::Definition;
use tributary_indexer::engine::IndexHandle;
use tributary_indexer::report::ChangeReport;

use crate::cli::exit::Failure;
use crate::cli::output::{change, line, show_first_build};
use crate::definition::{Draft, PipelineFile, read};
use crate::run::Settings;
use crate::run::http::IndexStatus;
use crate::run::record::{self, expect_ok};
use crate::streams::{Reload, Reloaded, STOPPING};

/// How often it is looked whether files have changed.
const LOOK: Duration = Duration::from_millis(500);

/// `run`.
pub async fn run(file: &PipelineFile, quiet: bool, fail_fast: bool, watch: bool) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    let metrics = metrics()?;
    let draft = read(file).await?;
    let plan = if fail_fast { Some(draft.load().await?) } else { None };
    let on_start = Box::new(|indexes: &[IndexHandle]| {
        for index in indexes {
            tokio::spawn(show_first_build(index.clone()));
        }
    });
    let on_change = Arc::new(move |report: &ChangeReport| {
        if !quiet {
            line(&change(report));
        }
    });
    let (watched, files) = (file.clone(), draft.files());
    let on_reload = Box::new(move |reload: mpsc::Sender<Reload>| {
        if watch {
            tokio::spawn(reload_on_changes(watched, files, reload.clone()));
        }
        reload_on_signals(reload);
    });
    let on_listen = Box::new(listening);
    let settings = Settings { draft, plan, fail_fast, on_change, on_listen, on_start, metrics, on_reload };
    Box::pin(crate::run::run(settings, shutdown)).await
}

/// Lets the file be read again at each SIGHUP.
fn reload_on_signals(reload: mpsc::Sender<Reload>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // What comes of it is in the log.
            let wish = Reload { is_dry: false, answer: oneshot::channel().0 };
            if reload.send(wish).await.is_err() {
                return;
            }
        }
    });
}

/// Lets the file be read again when it, or a file that it names, has changed and is left alone for a moment.
async fn reload_on_changes(file: PipelineFile, mut files: Vec<PathBuf>, reload: mpsc::Sender<Reload>) {
    let (mut taken, mut last) = (states(&files), None);
    while !reload.is_closed() {
        tokio::time::sleep(LOOK).await;
        let now = states(&files);
        let is_settled = last.replace(now.clone()).is_some_and(|last| last == now);
        if now == taken || !is_settled {
            continue;
        }
        // It may name other files now. Their states are taken before it is read: whatever changes while it is, or after, is seen.
        let named = Draft::written(&file).ok().map(|draft| draft.files());
        let named = named.map(|files| (states(&files), files));
        if states(&files) != now {
            continue;
        }
        let (asked, answer) = oneshot::channel();
        // What comes of it is in the log.
        if reload.send(Reload { is_dry: false, answer: asked }).await.is_err() {
            return;
        }
        taken = now;
        if let (Ok(Ok(_)), Some(named)) = (answer.await, named) {
            (taken, files) = named;
        }
        last = None;
    }
}

/// How files are now: when they were written, and their sizes.
fn states(files: &[PathBuf]) -> Vec<Option<(SystemTime, u64)>> {
    let state = |file: &PathBuf| {
        let known = std::fs::metadata(file).ok()?;
        Some((known.modified().ok()?, known.len()))
    };
    files.iter().map(state).collect()
}

/// `reload`.
pub async fn reload(file: &PipelineFile, is_dry: bool) -> Result<(), Failure> {
    let draft = read(file).await?;
    draft.text_is_right()?;
    let definition = draft.definition();
    let Some(running) = record::find(definition.data(), definition.pipeline()).await else {
        let name = definition.pipeline();
        return Err(Failure::NotFound(format!("the pipeline {name} does not run on this machine")));
    };
    // An older pipeline, which cannot say what it would do, does nothing either.
    let answer = if is_dry { running.get("/reload").await? } else { running.post_slowly("/reload", &()).await? };
    let reloaded: Reloaded = serde_json::from_value(expect_ok(answer)?)
        .map_err(|e| Failure::Stopped(format!("the running pipeline answered something else: {e}")))?;
    told(&reloaded, is_dry).iter().for_each(|text| line(text));
    match reloaded.refused.as_slice() {
        [] => Ok(()),
        refused => {
            Err(Failure::Stopped(format!("this would be refused, and nothing of it done: {}", refused.join("; "))))
        }
    }
}

/// What a reload did, or would do: a line for each stream that begins anew, with the reason.
fn told(reloaded: &Reloaded, is_dry: bool) -> Vec<String> {
    let Reloaded { started, stopped, restarted, kept, reasons, refused: _ } = reloaded;
    let would = if is_dry { "would be " } else { "" };
    let together =
        |what: &str, streams: &[String]| (!streams.is_empty()).then(|| format!("{what}: {}", streams.join(", ")));
    let mut lines = Vec::new();
    lines.extend(together(&format!("{would}started"), started));
    lines.extend(together(&format!("{would}stopped"), stopped));
    for stream in restarted {
        let why = reasons.get(stream).map_or_else(String::new, |reasons| format!(" ({})", reasons.join("; ")));
        lines.push(format!("{would}restarted: {stream}{why}"));
    }
    lines.extend(together("as before", kept));
    if is_dry && !(stopped.is_empty() && restarted.is_empty()) {
        lines.push(format!(
            "what is stopped or restarted finishes what it has in hand, for {} s at most; what is restarted goes on where it was",
            STOPPING.as_secs()
        ));
    }
    lines
}

/// `reindex`.
pub async fn reindex(file: &PipelineFile, index: Option<&str>) -> Result<(), Failure> {
    let draft = read(file).await?;
    draft.text_is_right()?;
    let definition = draft.definition();
    let names = chosen(definition, index)?;
    // The running pipeline knows the graph.
    if let Some(running) = record::find(definition.data(), definition.pipeline()).await {
        for name in &names {
            expect_ok(running.post(&format!("/indexes/{name}/reindex"), &()).await?)?;
            line(&format!("{name}: the running pipeline builds every document again"));
        }
        for name in &names {
            let path = format!("/indexes/{name}");
            // What waits is up to half a second old: several looks must agree.
            let mut idle = 0;
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let status: IndexStatus = serde_json::from_value(expect_ok(running.get(&path).await?)?)
                    .map_err(|e| Failure::Stopped(format!("the running pipeline answered something else: {e}")))?;
                idle = if !status.listing && status.builds_waiting == Some(0) { idle + 1 } else { 0 };
                if idle >= 3 {
                    line(&counted(name, status.documents.unwrap_or(0), status.dead_letters));
                    break;
                }
            }
        }
        return Ok(());
    }
    let plan = draft.load().await?;
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    let over = shutdown.clone();
    let on_start = Box::new(move |indexes: &[IndexHandle]| {
        let indexes: Vec<IndexHandle> =
            indexes.iter().filter(|i| names.contains(&i.context.plan.name)).cloned().collect();
        tokio::spawn(async move {
            for index in &indexes {
                while let Err(error) = index.reindex().await {
                    line(&format!("{}: {error}; trying again", index.context.plan.name));
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                show_first_build(index.clone()).await;
                let documents = index.context.store.count().await.unwrap_or(0);
                let set_aside = index.context.reports.set_aside.load(Ordering::Acquire);
                line(&counted(&index.context.plan.name, documents, set_aside));
            }
            over.cancel();
        });
    });
    let settings = Settings {
        draft,
        plan: Some(plan),
        fail_fast: false,
        on_change: Arc::new(|_| {}),
        on_listen: Box::new(|_| {}),
        on_start,
        metrics: metrics()?,
        on_reload: Box::new(drop),
    };
    Box::pin(crate::run::run(settings, shutdown)).await
}

fn listening(address: &str) {
    line(&format!("listening on http://{address} (/health, /metrics, /indexes)"));
}

/// What an index holds, and what is missing from it.
fn counted(index: &str, documents: u64, set_aside: u64) -> String {
    match set_aside {
        0 => format!("{index}: {documents} documents"),
        n => format!("{index}: {documents} documents, {n} set aside (tributary dlq list says why)"),
    }
}

fn chosen(definition: &Definition, index: Option<&str>) -> Result<Vec<String>, Failure> {
    let all: Vec<String> = definition.indexes().map(str::to_owned).collect();
    match index {
        None => Ok(all),
        Some(name) if all.iter().any(|n| n == name) => Ok(vec![name.to_owned()]),
        Some(name) => {
            Err(Failure::NotFound(format!("no index {name:?} in this pipeline (it has: {})", all.join(", "))))
        }
    }
}

fn metrics() -> Result<PrometheusHandle, Failure> {
    PrometheusBuilder::new().install_recorder().map_err(|e| Failure::Stopped(format!("cannot start metrics: {e}")))
}

/// The first SIGINT or SIGTERM stops in order; a second one ends the process at once.
fn stop_on_signals(shutdown: CancellationToken) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |e: std::io::Error| Failure::Stopped(format!("cannot listen for signals: {e}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if !first {
                std::process::exit(130);
            }
            info!("stopping; what is in flight is finished first (once more to stop at once)");
            shutdown.cancel();
        }
    });
    Ok(())
}
