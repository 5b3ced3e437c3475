//! The demo's pipeline as the benchmarks run it: its graph, its files, its processes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::{Child, Command};
use tributary_stack::{Elasticsearch, Kafka};

use crate::answers;
use crate::tools::{repository, target};

/// How long something may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts the GraphQL service, which holds every answer back for `delay` milliseconds: its process and its endpoint.
pub(super) async fn start_graph(database: &str, delay: u64) -> Result<(Child, String)> {
    graph(database, &["--delay", &delay.to_string()]).await
}

async fn graph(database: &str, options: &[&str]) -> Result<(Child, String)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    drop(listener);
    let child = Command::new(target().join("release/movie-graph"))
        .args(["--database-url", database, "--listen", &address.to_string()])
        .args(options)
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("starting movie-graph")?;
    let begin = Instant::now();
    while reqwest::get(format!("http://{address}/healthz")).await.is_err() {
        if begin.elapsed() > PATIENCE {
            bail!("movie-graph does not answer at {address}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((child, format!("http://{address}/graphql")))
}

/// The same, in front of a standby: it says with every answer how far that has come.
pub(super) async fn start_graph_on_standby(database: &str) -> Result<(Child, String)> {
    graph(database, &["--say-position"]).await
}

/// The pipeline's key `transport` on a broker.
pub(super) fn transport(kafka: &Kafka, partitions: u32) -> String {
    let brokers = kafka.bootstrap();
    format!(
        "transport:\n  kafka: {{ brokers: \"{brokers}\", partitions: {partitions}, replication: 1, min_insync: 1 }}\n"
    )
}

/// The index's key `store` on a node.
pub(super) fn store(elasticsearch: &Elasticsearch) -> String {
    format!("    store: {{ elasticsearch: {{ url: \"{}\", replicas: 0 }} }}\n", elasticsearch.url())
}

/// Writes the pipeline and its query: `transport` is a key of the pipeline, `index` are keys of the index.
pub(super) fn write(
    folder: &Path,
    database: &str,
    endpoint: &str,
    transport: &str,
    index: &str,
    lag: &str,
) -> Result<()> {
    let demo = repository().join("compose/demo");
    let text = std::fs::read_to_string(demo.join("pipeline.yaml"))?
        .replace("${STUDIO_URL}", database)
        .replace("${GRAPH_URL}", endpoint)
        .replace("${TRIBUTARY_LISTEN:-127.0.0.1:7676}", "127.0.0.1:0")
        .replace("lag: 0s", &format!("lag: {lag}"))
        .replace("    refresh: 100ms\n", &format!("    refresh: 100ms\n{index}"))
        .replace("\ngraph:\n", &format!("\n{transport}graph:\n"));
    std::fs::write(folder.join("pipeline.yaml"), text)?;
    std::fs::copy(demo.join("movies.graphql"), folder.join("movies.graphql"))?;
    Ok(())
}

/// The command as it would be shipped.
pub(super) fn shipped() -> PathBuf {
    target().join("release/tributary")
}

/// Starts a process of the pipeline in this folder, with a data folder of its own.
pub(super) fn start_tributary(tributary: &Path, folder: &Path, data: &Path) -> Result<Child> {
    Command::new(tributary)
        .args(["run", "--quiet"])
        .arg(folder.join("pipeline.yaml"))
        .env("TRIBUTARY_DATA", data)
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", tributary.display()))
}

/// Where the process with this data folder listens.
pub(super) async fn address(data: &Path) -> Result<String> {
    let begin = Instant::now();
    loop {
        if let Some(address) = answers::address(data) {
            return Ok(address);
        }
        if begin.elapsed() > PATIENCE {
            bail!("tributary does not listen; its log is above");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
