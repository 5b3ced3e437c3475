//! The measured process of `x bench capture` and `x bench latency`: one connector into one transport, until a number of
//! events is durable.
//!
//! `drain prepare|run <database url> <name> nowhere|embedded:<folder>|kafka:<brokers> <events>`
//!
//! With a folder, transactions in progress are streamed and kept there.
//!
//! Of MySQL and MariaDB the table is `bench_row` of the database of that name, and large compressed transactions are kept in a folder for
//! temporary files.
//!
//! `prepare` makes publication and slot, or notes where the log ends; `run` drains and prints one line of figures: seconds, CPU seconds, peak memory.
//!
//! `drain verify|count <database url> <name> embedded:<folder>|kafka:<brokers> <events>`
//!
//! reads the topic and fails unless it holds rows with the ids from 1 up, each once and in order; `verify` also unless that is the number
//! of events, and `count` says how many there are.
//!
//! `drain latency <database url> <name> embedded:<folder>|kafka:<brokers> <seconds>`
//!
//! inserts rows, each in a transaction of its own, and prints the milliseconds from the commit to a consumer of the topic: quantiles
//! at 10 and at 1,000 rows a second, then the share of a core when idle. PostgreSQL's log has the time of the commit; of MySQL and
//! MariaDB it counts from the moment when the row is sent to the server (MariaDB's log has seconds only), so the commit is in it.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use bytes::Bytes;
use mysql_async::prelude::Queryable as _;
use tokio_util::sync::CancellationToken;
use tributary_connector::{ConnectorSettings, Independent, SourceSettings};
use tributary_event::{Health, TableName};
use tributary_transport::{
    Batch, Consumer, ConsumerSettings, Delivery, Embedded, EmbeddedSettings, Kafka, KafkaSettings, Polled, Producer,
    Purpose, TopicId, TopicPartition, TopicSpec, Transport, TransportError, Watermarks,
};

/// Counts what became durable on its way into a transport; without one, drops it.
struct Counting {
    transport: Option<Arc<dyn Transport>>,
    events: Arc<AtomicU64>,
    /// Where checkpoints are kept without a transport: a server that keeps no place for us is read from one.
    folder: PathBuf,
}

struct CountingProducer {
    producer: Option<Box<dyn Producer>>,
    events: Arc<AtomicU64>,
    /// The first checkpoint of each name is kept there.
    folder: PathBuf,
}

#[async_trait]
impl Producer for CountingProducer {
    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        match (&mut self.producer, &batch.checkpoint) {
            (Some(producer), _) => producer.append(batch).await?,
            (None, Some(checkpoint)) if batch.size() == 0 => {
                let file = self.folder.join(&checkpoint.name);
                if !file.exists() {
                    std::fs::create_dir_all(&self.folder)
                        .and_then(|()| std::fs::write(file, &checkpoint.content))
                        .map_err(|e| TransportError::new(tributary_event::ErrorClass::Fatal, e.to_string()))?;
                }
            }
            (None, _) => {}
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
    async fn producer(&self, id: &str, purpose: Purpose) -> Result<Box<dyn Producer>, TransportError> {
        let producer = match &self.transport {
            Some(transport) => Some(transport.producer(id, purpose).await?),
            None => None,
        };
        Ok(Box::new(CountingProducer { producer, events: self.events.clone(), folder: self.folder.clone() }))
    }
    async fn consumer(&self, _: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        Err(TransportError::new(tributary_event::ErrorClass::Fatal, "nothing is read here"))
    }
    async fn consumers(
        &self,
        _: ConsumerSettings,
        _: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError> {
        Err(TransportError::new(tributary_event::ErrorClass::Fatal, "nothing is read here"))
    }
    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError> {
        Err(TransportError::new(tributary_event::ErrorClass::Fatal, "nothing is appended here without a name"))
    }
    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        match &self.transport {
            Some(transport) => transport.checkpoint(name).await,
            None => Ok(std::fs::read(self.folder.join(name)).ok().map(Bytes::from)),
        }
    }
    async fn watermarks(&self, _: &str) -> Result<Vec<Watermarks>, TransportError> {
        Ok(Vec::new())
    }
    async fn read(&self, _: &TopicPartition, _: u64, _: usize) -> Result<Vec<Polled>, TransportError> {
        Ok(Vec::new())
    }
    async fn topic_id(&self, _: &str) -> Result<Option<TopicId>, TransportError> {
        Ok(None)
    }
    async fn offset_at(&self, _: &TopicPartition, _: i64) -> Result<u64, TransportError> {
        Ok(0)
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
            "usage: drain prepare|run|verify|count|latency <database url> <name> nowhere|embedded:<folder>|kafka:<brokers> \
             <events|seconds> [folder]"
        );
    };
    let wanted: u64 = events.parse().context("the number of events")?;
    let is_postgres = url.starts_with("postgres");
    let mut settings = match is_postgres {
        true => ConnectorSettings::postgres(name, url.as_str().into(), ["public.bench_row"]),
        false => ConnectorSettings::mysql(name, url.as_str().into(), [&TableName::new(name.as_str(), "bench_row")]),
    };
    let kept = std::env::temp_dir().join(format!("drain-{name}"));
    match &mut settings.source {
        SourceSettings::Postgres(postgres) => postgres.streaming = folder.first().map(Into::into),
        SourceSettings::MySql(mysql) => mysql.transactions = Some(kept.clone()),
    }
    let counting = Counting { transport: open(transport)?, events: Arc::default(), folder: kept };
    let durable = counting.events.clone();
    if action == "latency" {
        let transport = counting.transport.context("latency is measured at a consumer: name a transport")?;
        return latency(settings, transport, url, Duration::from_secs(wanted)).await;
    }
    if action == "verify" || action == "count" {
        let transport = counting.transport.context("a transport")?;
        let rows = verified(&settings, transport.as_ref()).await?;
        if action == "verify" && rows != wanted {
            bail!("{rows} rows are there, not {wanted}");
        }
        return writeln!(std::io::stdout(), "verified={rows}").context("saying it");
    }
    if action == "prepare" {
        if counting.transport.is_none() && counting.folder.exists() {
            // What another server left under that name.
            std::fs::remove_dir_all(&counting.folder).context("removing an old checkpoint")?;
        }
        return prepare(&settings, &counting).await;
    }
    let begin = Instant::now();
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let task = tokio::spawn(tributary_connector::run(
        settings,
        Arc::new(counting),
        Arc::new(Independent),
        health.part("bench"),
        shutdown.clone(),
    ));
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

/// Makes publication and slot, or notes where the log ends.
async fn prepare(settings: &ConnectorSettings, transport: &dyn Transport) -> anyhow::Result<()> {
    match &settings.source {
        SourceSettings::Postgres(_) => {
            tributary_connector::postgres::prepare(settings, transport, &Independent).await?;
        }
        SourceSettings::MySql(mysql) => {
            tributary_connector::mysql::prepare(settings, mysql, transport, &Independent).await?.close().await;
        }
    }
    Ok(())
}

/// A session that inserts rows.
enum Writer {
    Postgres(tokio_postgres::Client, tokio_postgres::Statement),
    MySql(mysql_async::Conn, mysql_async::Statement),
}

impl Writer {
    async fn connect(settings: &ConnectorSettings, url: &str) -> anyhow::Result<Self> {
        if let SourceSettings::Postgres(_) = &settings.source {
            let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            let insert = client.prepare("INSERT INTO bench_row (id, title) VALUES ($1, 'The Movie')").await?;
            return Ok(Self::Postgres(client, insert));
        }
        let mut session = mysql_async::Conn::new(mysql_async::Opts::from_url(url)?).await?;
        let insert = format!("INSERT INTO {}.bench_row (id, title) VALUES (?, ?)", settings.name);
        let insert = session.prep(insert).await?;
        Ok(Self::MySql(session, insert))
    }

    async fn insert(&mut self, id: i64) -> anyhow::Result<()> {
        match self {
            Self::Postgres(client, insert) => client.execute(&*insert, &[&id]).await.map(drop)?,
            Self::MySql(session, insert) => {
                let sent = tributary_event::clock::now_us().to_string();
                session.exec_drop(&*insert, (id, sent)).await?;
            }
        }
        Ok(())
    }
}

/// When the row was sent to the server, where it says so.
fn sent_us(event: &tributary_event::ChangeEvent) -> Option<i64> {
    let row = event.after.as_ref()?;
    match row.values.get(row.table.column("title")?)? {
        tributary_event::Value::Text(sent) => sent.parse().ok(),
        _ => None,
    }
}

/// How many rows the topic holds, with the ids from 1 up, each once and in order.
async fn verified(settings: &ConnectorSettings, transport: &dyn Transport) -> anyhow::Result<u64> {
    let spec = settings.topic_specs()?.into_iter().next().context("a topic")?;
    let place = TopicPartition { topic: spec.name.into(), partition: 0 };
    let mut decoder = tributary_event::debezium::Decoder::new();
    let (mut offset, mut last) = (0, 0);
    loop {
        let records = transport.read(&place, offset, 16).await?;
        let Some(end) = records.last() else { return Ok(last) };
        offset = end.offset + 1;
        for record in &records {
            let event = decoder.decode(record.key.as_deref(), record.value.as_deref())?.context("a change")?;
            let row = event.after.as_ref().context("a row")?;
            let id = row.table.column("id").and_then(|at| row.values.get(at));
            last += 1;
            if id != Some(&tributary_event::Value::Int(last.try_into()?)) {
                bail!("the event {last} is of the row {id:?}");
            }
        }
    }
}

/// Measures for so long at each rate.
async fn latency(
    settings: ConnectorSettings,
    transport: Arc<dyn Transport>,
    url: &str,
    each: Duration,
) -> anyhow::Result<()> {
    let topics: Vec<String> = settings.topic_specs()?.into_iter().map(|spec| spec.name).collect();
    let mut writer = Writer::connect(&settings, url).await?;
    prepare(&settings, transport.as_ref()).await?;
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let task = tokio::spawn(tributary_connector::run(
        settings,
        transport.clone(),
        Arc::new(Independent),
        health.part("bench"),
        shutdown.clone(),
    ));
    let group = ConsumerSettings { group: "latency".into(), topics, max_records: 1000, from_start: true };
    let mut consumer = transport.consumer(group).await?;
    let (heard, mut hears) = tokio::sync::mpsc::channel::<f64>(1 << 16);
    tokio::spawn(async move {
        let mut decoder = tributary_event::debezium::Decoder::new();
        while let Ok(delivery) = consumer.next().await {
            let now = tributary_event::clock::now_us();
            let Delivery::Records(records) = delivery else { continue };
            for record in records {
                let event = decoder.decode(record.key.as_deref(), record.value.as_deref());
                let Ok(Some(event)) = event else { continue };
                let committed = sent_us(&event).unwrap_or(event.commit_us);
                if heard.send((now - committed) as f64 / 1_000.0).await.is_err() {
                    return;
                }
            }
        }
    });
    let (mut id, mut line) = (0_i64, String::new());
    // A broker that has just started compiles its code while it runs it: it is warmed first.
    for (rate, count, counts) in
        [(1_000, 15_000, false), (10_u32, 10 * each.as_secs(), true), (1_000, 1_000 * each.as_secs(), true)]
    {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
        let mut found = Vec::new();
        for n in 0..count + 20 {
            ticks.tick().await;
            id += 1;
            writer.insert(id).await?;
            // The first ones open connections and fill caches.
            let skip = n < 20;
            while let Ok(ms) = hears.try_recv() {
                found.extend((!skip).then_some(ms));
            }
        }
        while let Ok(Some(ms)) = tokio::time::timeout(Duration::from_secs(2), hears.recv()).await {
            found.push(ms);
        }
        found.sort_by(f64::total_cmp);
        let at = |q: f64| found.get((found.len() as f64 * q) as usize).copied().unwrap_or(f64::NAN);
        if counts {
            line += &format!("rate{rate}_p50_ms={:.2} rate{rate}_p99_ms={:.2} ", at(0.5), at(0.99));
        }
    }
    let before = cpu_seconds();
    tokio::time::sleep(each).await;
    let idle = (cpu_seconds() - before) / each.as_secs_f64() * 100.0;
    shutdown.cancel();
    task.await??;
    writeln!(std::io::stdout(), "{line}idle_cpu_percent={idle:.2}")?;
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
