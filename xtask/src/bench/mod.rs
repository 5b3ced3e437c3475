//! `x bench`: repeatable measurements on real servers; each ends with one line of `key=value` figures.

mod binlog;
mod capture;
mod drained;
mod huge;
mod index;
mod latency;
mod load;
mod peers;
mod pipeline;
mod scale;
mod streams;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use tributary_stack::{KafkaOptions, MySqlProduct};

use crate::interrupt::unless_interrupted;
use crate::tools::cargo;

/// Options of `x bench`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// What to measure
    name: Name,
    /// Rows (capture, peers), events (streams), gigabytes (huge), seconds a rate (latency), or copies of the demo's 3,201 movies (index, scale)
    #[arg(long)]
    size: Option<u32>,
    /// peers: a PostgreSQL server with extensions of its own, by its superuser's URL without a database; emptied!
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// index: on Kafka and Elasticsearch instead of the embedded pair
    #[arg(long)]
    servers: bool,
    /// index: the same of another build of tributary first, for comparison
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
    /// index: `graph.lag` of the pipeline; the demo's graph is on the primary, so none
    #[arg(long, default_value = "0s")]
    lag: String,
    /// index: the graph reads a standby, and says with every answer how far that has replayed the log
    #[arg(long)]
    standby: bool,
    /// capture, latency, huge: out of MySQL's log, beside mysqlbinlog; peers: beside Debezium's connector of MySQL
    #[arg(long, conflicts_with = "mariadb")]
    mysql: bool,
    /// capture, latency, huge: out of MariaDB's log, beside mariadb-binlog; peers: beside Debezium's connector of MariaDB
    #[arg(long)]
    mariadb: bool,
    /// huge: the transaction is compressed in the log, to a fiftieth (MySQL)
    #[arg(long, requires = "mysql")]
    compressed: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Name {
    /// A million rows out of a log (PostgreSQL's, unless said otherwise), beside the server's own reader of it
    Capture,
    /// One transaction of many gigabytes, interrupted twice
    Huge,
    /// Commit to consumer, row by row, and the CPU of an idle connector
    Latency,
    /// Beside Debezium Server: messages of the same changes compared, and the same rows captured
    Peers,
    /// First build, change to searchable, a burst, and the rename of a supernode
    Index,
    /// Documents a second of one, two and four processes, in front of a graph that is far away
    Scale,
    /// Events through the steps of a stream, and what it costs that somebody could watch them
    Streams,
}

/// Runs a measurement.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    match arguments.name {
        Name::Capture if arguments.mysql || arguments.mariadb => {
            let rows = arguments.size.unwrap_or(1_000_000);
            unless_interrupted(Box::pin(binlog::run(product(&arguments), rows))).await?;
        }
        Name::Capture => unless_interrupted(Box::pin(capture::run(arguments.size.unwrap_or(1_000_000)))).await?,
        Name::Huge if arguments.mysql || arguments.mariadb => {
            let gigabytes = arguments.size.unwrap_or(10);
            unless_interrupted(Box::pin(huge::of_binlog(product(&arguments), gigabytes, arguments.compressed))).await?;
        }
        Name::Huge => unless_interrupted(Box::pin(huge::run(arguments.size.unwrap_or(10)))).await?,
        Name::Latency => {
            let product = (arguments.mysql || arguments.mariadb).then(|| product(&arguments));
            unless_interrupted(Box::pin(latency::run(product, arguments.size.unwrap_or(20)))).await?;
        }
        Name::Peers if arguments.mysql || arguments.mariadb => {
            let rows = arguments.size.unwrap_or(300_000);
            unless_interrupted(Box::pin(peers::binlog::run(product(&arguments), rows))).await?;
        }
        Name::Peers => {
            unless_interrupted(Box::pin(peers::run(arguments.size.unwrap_or(300_000), arguments.server))).await?
        }
        Name::Scale => unless_interrupted(Box::pin(scale::run(arguments.size.unwrap_or(1)))).await?,
        Name::Streams => unless_interrupted(Box::pin(streams::run(arguments.size.unwrap_or(500_000)))).await?,
        Name::Index => {
            unless_interrupted(Box::pin(index::run(
                arguments.beside,
                &index::Conditions {
                    copies: arguments.size.unwrap_or(1),
                    servers: arguments.servers,
                    lag: arguments.lag,
                    standby: arguments.standby,
                },
            )))
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn product(arguments: &Arguments) -> MySqlProduct {
    if arguments.mysql { MySqlProduct::MySql } else { MySqlProduct::MariaDb }
}

/// Builds everything as it would be shipped: always the same set, so that nothing is compiled twice.
async fn release() -> Result<()> {
    build(&["--bins", "--examples"]).await
}

/// Builds the process that connectors are measured in, as it would be shipped.
async fn release_of_drain() -> Result<()> {
    build(&["--example", "drain"]).await
}

async fn build(what: &[&str]) -> Result<()> {
    println!("building the release …");
    let status = cargo().args(["build", "-q", "--release", "--workspace"]).args(what).status().await;
    if !status.context("starting cargo")?.success() {
        bail!("the build failed; its errors are above");
    }
    Ok(())
}

/// CPU seconds and peak memory (MB) of a running process.
fn usage(pid: u32) -> (f64, f64) {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let cpu = fields.iter().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0;
    (cpu, memory(pid, "VmHWM:"))
}

/// What the kernel says of a process's memory under a name, in MB; 0 of a process that is over.
fn memory(pid: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

/// The value at a quantile of sorted figures.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = ((sorted.len() as f64 - 1.0) * q).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// A broker's Java machine as Kafka's own start script sets it up. That of our tests takes the least memory and the shortest start,
/// but stops the broker for 50 ms at a time, which would be measured instead of us.
fn as_shipped() -> KafkaOptions {
    let jvm = ["-XX:-UseSerialGC", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35"];
    let jvm = jvm.iter().map(|option| (*option).to_owned()).chain(for_speed()).collect();
    KafkaOptions { heap: "1g".to_owned(), jvm, ..KafkaOptions::default() }
}

/// Options of a Java machine that is to work for long: the servers of tests start quickly instead, and stay slow.
fn for_speed() -> Vec<String> {
    vec!["-XX:TieredStopAtLevel=4".to_owned()]
}
