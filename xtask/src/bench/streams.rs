//! `x bench streams`: what the steps of a stream and its deliveries cost, what it costs that somebody could watch them, and the same work
//! by Benthos' core and by Flink's SQL.

mod flink;
mod peer;
mod receiver;

use std::path::Path;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tributary_stack::{Kafka, KafkaOptions};

use self::peer::Peer;
use self::receiver::Receiver;
use super::{as_shipped, quantile};
use crate::tools::{cargo, target};

/// So often each figure is taken, in turns with the others.
const ROUNDS: usize = 3;
/// Of so many events one is delivered by requests of its own.
const REQUESTS: u32 = 10;

/// What one run took.
struct Run {
    seconds: f64,
    cpu: f64,
    rss: f64,
}

/// Runs of one kind.
struct Runs {
    name: &'static str,
    events: u32,
    runs: Vec<Run>,
}

impl Runs {
    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        quantile(&figures, 0.5)
    }

    fn rate(&self) -> f64 {
        f64::from(self.events) / self.median(|run| run.seconds)
    }

    /// CPU seconds for a million events.
    fn cpu(&self) -> f64 {
        self.median(|run| run.cpu) * 1e6 / f64::from(self.events)
    }
}

/// All that was measured, in the order in which it came first.
#[derive(Default)]
struct Figures(Vec<Runs>);

impl Figures {
    fn take(&mut self, name: &'static str, events: u32, run: Run) {
        match self.0.iter_mut().find(|runs| runs.name == name) {
            Some(runs) => runs.runs.push(run),
            None => self.0.push(Runs { name, events, runs: vec![run] }),
        }
    }

    fn of(&self, name: &str) -> Option<&Runs> {
        self.0.iter().find(|runs| runs.name == name)
    }

    fn cpu(&self, name: &str) -> f64 {
        self.of(name).map_or(f64::NAN, Runs::cpu)
    }

    /// What is told last, beside what stands there already.
    fn say(&self, mut last: Vec<String>) {
        println!(
            "\n{:<18} {:>10} {:>10} {:>14} {:>12} {:>6}",
            "work", "events", "events/s", "CPU-s/million", "a core's/s", "MB"
        );
        for runs in &self.0 {
            let (name, cpu, rss) = (runs.name, runs.cpu(), runs.median(|run| run.rss));
            println!("{name:<18} {:>10} {:>10.0} {cpu:>14.2} {:>12.0} {rss:>6.0}", runs.events, runs.rate(), 1e6 / cpu);
            let key = name.replace(' ', "_");
            last.push(format!(
                "{key}_per_second={:.0} {key}_per_core={:.0} {key}_rss_mb={rss:.0}",
                runs.rate(),
                1e6 / cpu
            ));
        }
        for kind in ["dropped", "mapped"] {
            let unwatched = self.cpu(kind);
            let [left, watched] = ["left", "watched"].map(|watcher| self.cpu(&format!("{kind} {watcher}")) / unwatched);
            last.push(format!("{kind}_tap_left={left:.3} {kind}_tap_watched={watched:.3}"));
        }
        last.push(format!("webhook_overhead_us={:.1}", self.cpu("webhook") - self.cpu("posts")));
        println!("\n{}", last.join(" "));
    }
}

/// Measures with so many events.
pub(super) async fn run(events: u32) -> Result<()> {
    println!("building the release …");
    let build = ["build", "-q", "--release", "--package", "tributary-processor", "--example", "flow"];
    if !cargo().args(build).status().await.context("starting cargo")?.success() {
        bail!("the build failed; its errors are above");
    }
    let peer = Peer::build().await.inspect_err(|why| println!("Benthos is left out: {why:#}")).ok();
    // The others make their topics by using them.
    let settings = [("auto.create.topics.enable", "true"), ("num.partitions", "4")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let kafka = Kafka::start(KafkaOptions { settings, ..as_shipped() }).await?;
    let (brokers, receiver) = (kafka.bootstrap(), Receiver::start().await?);
    let folder = target().join("bench-streams");
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let lines = folder.join("events.jsonl");
    flow(&["lines", &events.to_string(), text(&lines)?]).await?;
    let (few, topic) = (events / REQUESTS, "movies");
    let (hook, service) = (receiver.url("/hook"), receiver.url(""));
    let mut figures = Figures::default();
    let loads = [load()];
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS}");
        for (name, kind, watcher) in [
            ("dropped", "dropped", "unwatched"),
            ("dropped left", "dropped", "left"),
            ("dropped watched", "dropped", "watched"),
            ("mapped", "mapped", "unwatched"),
            ("mapped left", "mapped", "left"),
            ("mapped watched", "mapped", "watched"),
        ] {
            figures.take(name, events, measured(&[kind, &events.to_string(), watcher]).await?);
        }
        for (name, events, kind, place) in [
            ("enriched", events, "enriched", &service),
            ("webhook", few, "webhook", &hook),
            ("posts", few, "posts", &hook),
        ] {
            figures.take(name, events, measured(&[kind, &events.to_string(), place]).await?);
        }
        figures.take("kafka", events, measured(&["kafka", &events.to_string(), &brokers, topic]).await?);
        if let Some(peer) = &peer {
            for (name, config) in [
                ("benthos dropped", peer::of_lines(peer::DROPS, &lines, &folder.join("dropped.jsonl"))),
                ("benthos mapped", peer::of_lines(peer::MAPS, &lines, &folder.join("mapped.jsonl"))),
                ("benthos kafka", peer::of_topics(peer::MAPS, &brokers, topic, &format!("peer-{round}"), events)),
            ] {
                figures.take(name, events, peer.run(&folder, &config).await?);
            }
        }
        for (name, statements) in [
            ("flink dropped", flink::of_lines(flink::DROPS, &lines, &folder.join("flink-dropped"))),
            ("flink mapped", flink::of_lines(flink::MAPS, &lines, &folder.join("flink-mapped"))),
            ("flink kafka", flink::of_topics(flink::MAPS, &brokers, topic, &format!("flink-{round}"))),
        ] {
            figures.take(name, events, flink::run(&folder, &statements).await?);
        }
    }
    kafka.stop().await?;
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    let (requests, keys) = receiver.asked();
    let loads = [loads[0], load()];
    let asked = format!("requests_per_100_misses={:.2}", requests as f64 * 100.0 / keys as f64);
    figures.say(vec![format!("load_before={:.1} load_after={:.1}", loads[0], loads[1]), asked]);
    Ok(())
}

/// The machine's load average of the last minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|figure| figure.parse().ok()).unwrap_or(f64::NAN)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// What `flow` measures.
async fn measured(words: &[&str]) -> Result<Run> {
    said(&flow(words).await?)
}

async fn flow(words: &[&str]) -> Result<String> {
    output(Command::new(target().join("release/examples/flow")).args(words)).await
}

/// What a process prints that ends well.
async fn output(command: &mut Command) -> Result<String> {
    let output = command.kill_on_drop(true).output().await.with_context(|| format!("starting {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?}: {}{said}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// The figures of a line.
fn said(line: &str) -> Result<Run> {
    let figure = |name: &str| {
        let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|figure| figure.parse::<f64>().ok()).with_context(|| format!("{name} is not said: {line}"))
    };
    Ok(Run { seconds: figure("seconds")?, cpu: figure("cpu_seconds")?, rss: figure("rss_mb")? })
}
