//! The measured process of `x bench capture`: one connector into one transport, until a number of events is durable.
//!
//! `drain prepare|run <database url> <name> nowhere|embedded:<folder>|kafka:<brokers> <events>`
//!
//! With a folder, transactions in progress are streamed and kept there.
//!
//! `prepare` makes publication and slot; `run` drains and prints one line of figures: seconds, CPU seconds, peak memory.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tributary_connector::{ConnectorSettings, SourceSettings};
use tributary_event::Health;
use tributary_transport::{
    Batch, Consumer, ConsumerSettings, Embedded, EmbeddedSettings, Kafka, KafkaSettings, Polled, Producer,
    TopicPartition, TopicSpec, Transport, TransportError, Watermarks,
};

/// Counts what became durable on its way into a transport; without one, drops it.
struct Counting {
    transport: Option<Arc<dyn Transport>>,
    events: Arc<AtomicU64>,
}

struct CountingProducer {
    producer: Option<Box<dyn Producer>>,
    events: Arc<AtomicU64>,
}

#[async_trait]
impl Producer for CountingProducer {
    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        if let Some(producer) = &mut self.producer {
            producer.append(batch).await?;
        }
        self.events.fetch_add(batch.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Transport for Counting {
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TransportError> {
        match &self.transport {
            Some(transport) => transport.ensure_topics(topics).await,
            None => Ok(()),
        }
    }
    async fn partitions(&self, topic: &str) -> Result<u32, TransportError> {
        match &self.transport {
            Some(transport) => transport.partitions(topic).await,
            None => Ok(1),
        }
    }
    async fn producer(&self, id: &str) -> Result<Box<dyn Producer>, TransportError> {
        let producer = match &self.transport {
            Some(transport) => Some(transport.producer(id).await?),
            None => None,
        };
        Ok(Box::new(CountingProducer { producer, events: self.events.clone() }))
    }
    async fn consumer(&self, _: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        Err(TransportError::new(tributary_event::ErrorClass::Fatal, "nothing is read here"))
    }
    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        match &self.transport {
            Some(transport) => transport.checkpoint(name).await,
            None => Ok(None),
        }
    }
    async fn watermarks(&self, _: &str) -> Result<Vec<Watermarks>, TransportError> {
        Ok(Vec::new())
    }
    async fn read(&self, _: &TopicPartition, _: u64, _: usize) -> Result<Vec<Polled>, TransportError> {
        Ok(Vec::new())
    }
    async fn probe(&self) -> Result<(), TransportError> {
        Ok(())
    }
}

fn open(transport: &str) -> anyhow::Result<Option<Arc<dyn Transport>>> {
    Ok(match transport.split_once(':') {
        None => None,
        Some(("embedded", folder)) => Some(Arc::new(Embedded::open(folder, EmbeddedSettings::default())?)),
        Some(("kafka", brokers)) => Some(Arc::new(Kafka::connect(KafkaSettings::single_broker(brokers))?)),
        Some((other, _)) => bail!("no transport {other:?}"),
    })
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [action, url, name, transport, events, folder @ ..] = &arguments[..] else {
        bail!(
            "usage: drain prepare|run <database url> <name> nowhere|embedded:<folder>|kafka:<brokers> <events> [folder]"
        );
    };
    let wanted: u64 = events.parse().context("the number of events")?;
    let mut settings = ConnectorSettings::postgres(name, url.as_str().into(), ["public.bench_row"]);
    let SourceSettings::Postgres(postgres) = &mut settings.source;
    postgres.streaming = folder.first().map(Into::into);
    let counting = Counting { transport: open(transport)?, events: Arc::default() };
    let durable = counting.events.clone();
    if action == "prepare" {
        tributary_connector::postgres::prepare(&settings, &counting, &|_| Ok(())).await?;
        return Ok(());
    }
    let begin = Instant::now();
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let task =
        tokio::spawn(tributary_connector::run(settings, Arc::new(counting), health.part("bench"), shutdown.clone()));
    while durable.load(Ordering::Relaxed) < wanted && !task.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let seconds = begin.elapsed().as_secs_f64();
    let cpu = cpu_seconds();
    shutdown.cancel();
    task.await??;
    let events = durable.load(Ordering::Relaxed);
    writeln!(
        std::io::stdout(),
        "events={events} seconds={seconds:.3} cpu_s={cpu:.3} peak_rss_mb={:.0}",
        peak_rss_mb()
    )?;
    Ok(())
}

/// CPU seconds of this process: user and system, in ticks of 10 ms (`proc(5)`, `/proc/[pid]/stat`).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}
