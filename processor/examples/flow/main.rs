//! The measured process of `x bench streams`: one stage of a stream over events that are in its topic already, until none is left.
//!
//! ```text
//! flow dropped|mapped <events> unwatched|left|watched    embedded log
//! flow kafka <events> <brokers> <topic>                  the same as mapped, on Kafka; the topic is filled if it is empty
//! flow enriched <events> <url of a service>              embedded log
//! flow webhook|posts <events> <url of a receiver>        embedded log; without anything of ours but the requests
//! flow lines <events> <file>                             measures nothing: the events as lines of JSON
//! ```
//!
//! `dropped`: a filter lets no event pass. `mapped`: a filter lets each pass, a program makes another event of it, and a topic has it exactly
//! once. `left`: somebody watched the stream's steps and has left; `watched`: somebody watches. Prints one line of figures: seconds and CPU
//! seconds of the stage alone, and peak memory. Another process fills its topic.

mod events;
mod plans;
mod receiver;

use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::StreamPlan;
use tributary_event::Health;
use tributary_processor::{Delivery, Enricher, Lag, Parked, Sink, StageError, Stream, Taps};
use tributary_services::{Asking, Service};
use tributary_sinks::Webhook;
use tributary_transport::{
    DeadLetters, Embedded, EmbeddedSettings, Kafka, KafkaSettings, Retention, TopicSpec, Transport, dead_letter,
};

use self::receiver::Counting;

/// The allocator of the command, so that memory is measured as the command uses it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Partitions of topics where several work beside one another, as many as the embedded log gives a topic.
const PARTITIONS: u32 = 4;
const USAGE: &str = "see the head of this program for what it takes";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [kind, events, rest @ ..] = words.as_slice() else { return Err(USAGE.into()) };
    let events: u64 = events.parse()?;
    match (*kind, rest) {
        ("dropped" | "mapped", [watcher]) => {
            let folder = tempfile::tempdir()?;
            filled_by_another(events, &["embedded", path(folder.path())?, events::TABLE, "1"])?;
            let log = embedded(folder.path(), 1).await?;
            let plan = plans::stream(*kind == "mapped", None)?;
            // Of those that are dropped the last one passes.
            let expected = if *kind == "mapped" { events } else { 1 };
            stream(log, plan, "flow", expected, HashMap::new(), watcher).await
        }
        ("kafka", [brokers, topic]) => {
            let out = format!("{topic}-out-{:08x}", std::process::id());
            let kafka = kafka(brokers, &[topic, &out]).await?;
            if count(kafka.as_ref(), topic).await? == 0 {
                filled_by_another(events, &["kafka", brokers, topic])?;
            }
            let mut plan = plans::stream(true, None)?;
            plan.from.iter_mut().for_each(|from| from.topic = (*topic).to_owned());
            plan.topics.iter_mut().for_each(|sink| sink.name = out.clone());
            stream(kafka, plan, &out, events, HashMap::new(), "unwatched").await
        }
        ("enriched", [url]) => {
            let folder = tempfile::tempdir()?;
            filled_by_another(events, &["embedded", path(folder.path())?, events::TABLE, "4"])?;
            let log = embedded(folder.path(), PARTITIONS).await?;
            let enrich = plans::enrich()?;
            let service = Service::new(&plans::service(url), Health::default().part("service"))?;
            let asking: Arc<dyn Enricher> = Asking::new(service, &enrich, None)?;
            let plan = plans::stream(false, Some(enrich))?;
            let enrichers = HashMap::from([(plans::ENRICH.to_owned(), asking)]);
            stream(log, plan, "flow", events, enrichers, "unwatched").await
        }
        ("webhook", [url]) => {
            let folder = tempfile::tempdir()?;
            filled_by_another(events, &["embedded", path(folder.path())?, events::OWN, "4"])?;
            delivered(embedded(folder.path(), PARTITIONS).await?, url, events).await
        }
        ("posts", [url]) => {
            let meter = Meter::start();
            receiver::post(url, events).await?;
            meter.say()
        }
        ("lines", [file]) => events::lines(file.as_ref(), events),
        ("fill", ["embedded", folder, topic, partitions]) => {
            let log = embedded(folder.as_ref(), partitions.parse()?).await?;
            events::fill(log.as_ref(), topic, events).await
        }
        ("fill", ["kafka", brokers, topic]) => {
            events::fill(kafka(brokers, &[topic]).await?.as_ref(), topic, events).await
        }
        _ => Err(USAGE.into()),
    }
}

fn path(folder: &Path) -> Result<&str, Failure> {
    folder.to_str().ok_or_else(|| "the folder for temporary files has no name in UTF-8".into())
}

/// So that the memory of filling is not measured.
fn filled_by_another(events: u64, what: &[&str]) -> Result<(), Failure> {
    let mut filling = std::process::Command::new(std::env::current_exe()?);
    let status = filling.args(["fill", &events.to_string()]).args(what).status()?;
    if status.success() { Ok(()) } else { Err("the topic was not filled".into()) }
}

async fn embedded(folder: &Path, partitions: u32) -> Result<Arc<dyn Transport>, Failure> {
    let log = Embedded::open(folder, EmbeddedSettings::default())?;
    let spec = |name: &str| topic(name, partitions);
    log.ensure_topics(&[spec(events::TABLE), spec(events::OWN), spec("out"), dead_letter::spec("letters")]).await?;
    Ok(Arc::new(log))
}

async fn kafka(brokers: &str, topics: &[&str]) -> Result<Arc<dyn Transport>, Failure> {
    let kafka = Kafka::connect(KafkaSettings::single_broker(brokers))?;
    let mut specs: Vec<TopicSpec> = topics.iter().map(|name| topic(name, PARTITIONS)).collect();
    specs.push(dead_letter::spec("letters"));
    kafka.ensure_topics(&specs).await?;
    Ok(Arc::new(kafka))
}

fn topic(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, retention: Retention::Delete { age: None, bytes: None } }
}

/// Where the ends of a topic's partitions are, together. On Kafka those of transactions are counted too.
async fn count(transport: &dyn Transport, topic: &str) -> Result<u64, Failure> {
    Ok(transport.watermarks(topic).await?.iter().map(|ends| ends.high - ends.low).sum())
}

/// Runs a stream until its topic has what it makes.
async fn stream(
    transport: Arc<dyn Transport>,
    plan: StreamPlan,
    pipeline: &str,
    expected: u64,
    enrichers: HashMap<String, Arc<dyn Enricher>>,
    watcher: &str,
) -> Result<(), Failure> {
    let (health, lag, taps) = (Health::default(), Lag::default(), Arc::<Taps>::default());
    let watching = (watcher != "unwatched").then(|| taps.watch()).filter(|_| watcher == "watched");
    let seeing = tokio::spawn(async move {
        let Some(mut watching) = watching else { return };
        while watching.next().await.is_some() {}
    });
    let out = plan.topics.first().map(|sink| sink.name.clone()).unwrap_or_default();
    let stream = Stream {
        pipeline: pipeline.to_owned(),
        plan: Arc::new(plan),
        transport: transport.clone(),
        enrichers,
        changes: None,
        taps,
        parked: Arc::new(Parked::new(DeadLetters::new(transport.clone(), "letters"), "stream flow")),
        reading: health.part("reader"),
        working: health.part("stream"),
        lag,
    };
    let shutdown = CancellationToken::new();
    let meter = Meter::start();
    let running = tokio::spawn(stream.run(shutdown.clone()));
    while count(transport.as_ref(), &out).await? < expected {
        pause(&running).await?;
    }
    meter.say()?;
    shutdown.cancel();
    running.await??;
    seeing.abort();
    Ok(())
}

/// Runs the delivery to a webhook until all events have arrived.
async fn delivered(log: Arc<dyn Transport>, url: &str, events: u64) -> Result<(), Failure> {
    let (health, lag, plan) = (Health::default(), Lag::default(), plans::webhook(url));
    let counting = Arc::new(Counting::new(Webhook::new(&plan)?));
    let stage = Delivery::stage("flow", "webhook");
    let delivery = Delivery {
        pipeline: "bench".into(),
        stream: "flow".into(),
        plan: Arc::new(plans::delivery(plan)),
        sink: Sink::Told(counting.clone()),
        transport: log.clone(),
        parked: Arc::new(Parked::new(DeadLetters::new(log, "letters"), stage)),
        reading: health.part("reader"),
        working: health.part("sink"),
        lag,
    };
    let shutdown = CancellationToken::new();
    let meter = Meter::start();
    let running = tokio::spawn(delivery.run(shutdown.clone()));
    while counting.arrived() < events {
        pause(&running).await?;
    }
    meter.say()?;
    shutdown.cancel();
    running.await??;
    Ok(())
}

/// A moment, unless the stage has ended.
async fn pause(running: &JoinHandle<Result<(), StageError>>) -> Result<(), Failure> {
    if running.is_finished() {
        return Err("the stage ended by itself".into());
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    Ok(())
}

/// What is measured.
struct Meter {
    begun: Instant,
    cpu: f64,
}

impl Meter {
    fn start() -> Self {
        Self { begun: Instant::now(), cpu: cpu_seconds() }
    }

    fn say(self) -> Result<(), Failure> {
        let (seconds, cpu, rss) = (self.begun.elapsed().as_secs_f64(), cpu_seconds() - self.cpu, peak_memory());
        writeln!(std::io::stdout(), "seconds={seconds:.3} cpu_seconds={cpu:.3} rss_mb={rss:.1}")?;
        Ok(())
    }
}

/// What all threads of this process have worked so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// In megabytes.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
