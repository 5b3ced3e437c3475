//! The process that captures are measured in, and what its runs need.

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::tools::target;

/// What one run needed.
#[derive(Clone, Copy)]
pub(super) struct Figures {
    pub seconds: f64,
    pub cpu: f64,
    pub rss: f64,
}

impl Figures {
    pub const NONE: Self = Self { seconds: f64::INFINITY, cpu: f64::INFINITY, rss: 0.0 };

    /// The least time of each kind, the most memory.
    pub fn better(self, other: Self) -> Self {
        let (seconds, cpu) = (self.seconds.min(other.seconds), self.cpu.min(other.cpu));
        Self { seconds, cpu, rss: self.rss.max(other.rss) }
    }

    /// CPU seconds for a million rows.
    pub fn cpu_per_million(&self, rows: u32) -> f64 {
        self.cpu * 1e6 / f64::from(rows)
    }
}

/// Prepares a source of this name, so that the log is kept from here on.
pub(super) async fn prepare(url: &str, name: &str, transport: &str, rows: u32) -> Result<()> {
    drain("prepare", url, name, transport, rows).await.map(drop)
}

/// How many of the rows a transport has, from the first one on, each once and in order.
pub(super) async fn count(url: &str, name: &str, transport: &str, rows: u32) -> Result<u32> {
    Ok(figure(&drain("count", url, name, transport, rows).await?, "verified")? as u32)
}

/// The line of latencies at a consumer, measured for so many seconds at each rate.
pub(super) async fn latency(url: &str, name: &str, transport: &str, seconds: u32) -> Result<String> {
    drain("latency", url, name, transport, seconds).await
}

/// Captures the rows into a transport, in a process of its own.
pub(super) async fn run(url: &str, name: &str, transport: &str, rows: u32) -> Result<Figures> {
    let line = drain("run", url, name, transport, rows).await?;
    let figure = |key: &str| figure(&line, key);
    Ok(Figures { seconds: figure("seconds")?, cpu: figure("cpu_s")?, rss: figure("peak_rss_mb")? })
}

fn figure(line: &str, key: &str) -> Result<f64> {
    let found = line.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    found.and_then(|text| text.parse::<f64>().ok()).with_context(|| format!("{key} in {line:?}"))
}

/// `amount`: of rows, or of seconds, as the action has it.
async fn drain(action: &str, url: &str, name: &str, transport: &str, amount: u32) -> Result<String> {
    let output = Command::new(target().join("release/examples/drain"))
        .args([action, url, name, transport, &amount.to_string()])
        .output()
        .await
        .context("starting the measured process")?;
    if !output.status.success() {
        bail!("{action} {name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
