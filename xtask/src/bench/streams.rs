//! `x bench streams`: what the steps of a stream cost, and what it costs that somebody could watch them.

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::quantile;
use crate::tools::{cargo, target};

/// So often each figure is taken, in turns with the others.
const ROUNDS: usize = 5;

/// What one run took.
struct Run {
    seconds: f64,
    cpu: f64,
    rss: f64,
}

/// Medians of runs of one kind.
#[derive(Default)]
struct Runs(Vec<Run>);

impl Runs {
    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.0.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        quantile(&figures, 0.5)
    }
}

/// Measures with so many events.
pub(super) async fn run(events: u32) -> Result<()> {
    println!("building the release …");
    let build = ["build", "-q", "--release", "--package", "tributary-processor", "--example", "flow"];
    if !cargo().args(build).status().await.context("starting cargo")?.success() {
        bail!("the build failed; its errors are above");
    }
    let kinds = ["dropped", "mapped"];
    let watchers = ["unwatched", "left", "watched"];
    let mut all: Vec<Vec<Runs>> = kinds.iter().map(|_| watchers.iter().map(|_| Runs::default()).collect()).collect();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        for (kind, of_kind) in kinds.iter().zip(&mut all) {
            for (watcher, runs) in watchers.iter().zip(of_kind) {
                runs.0.push(flow(kind, events, watcher).await?);
            }
        }
    }
    println!("\n{:<8} {:<10} {:>10} {:>14} {:>8}", "events", "steps", "events/s", "CPU-s/million", "MB");
    let mut last = Vec::new();
    for (kind, of_kind) in kinds.iter().zip(&all) {
        for (watcher, runs) in watchers.iter().zip(of_kind) {
            let rate = f64::from(events) / runs.median(|run| run.seconds);
            let cpu = runs.median(|run| run.cpu) * 1e6 / f64::from(events);
            println!("{kind:<8} {watcher:<10} {rate:>10.0} {cpu:>14.2} {:>8.0}", runs.median(|run| run.rss));
            if *watcher == "unwatched" {
                last.push(format!("{kind}_per_second={rate:.0} {kind}_per_core={:.0}", 1e6 / cpu));
            }
        }
        let [unwatched, left, watched] = [0, 1, 2].map(|n| of_kind[n].median(|run| run.cpu));
        last.push(format!("{kind}_tap_left={:.3} {kind}_tap_watched={:.3}", left / unwatched, watched / unwatched));
    }
    println!("\n{}", last.join(" "));
    Ok(())
}

async fn flow(kind: &str, events: u32, watcher: &str) -> Result<Run> {
    let program = target().join("release/examples/flow");
    let output = Command::new(program).args([kind, &events.to_string(), watcher]).output().await.context("flow")?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        bail!("flow {kind}: {}{said}", String::from_utf8_lossy(&output.stderr));
    }
    let figure = |name: &str| {
        let found = said.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|figure| figure.parse::<f64>().ok()).with_context(|| format!("flow does not say {name}: {said}"))
    };
    Ok(Run { seconds: figure("seconds")?, cpu: figure("cpu_seconds")?, rss: figure("rss_mb")? })
}
