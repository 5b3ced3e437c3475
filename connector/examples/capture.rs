//! Measures the capture of a million rows against `pg_recvlogical`, on the same log.
//!
//! `cargo run --release -p tributary-connector --example capture -- postgres://postgres@127.0.0.1:5432/bench [rows] [per transaction]`
//!
//! Both drain a slot that was made before the rows were written; the connector's events are encoded and dropped.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use tributary_connector::{ConnectorSettings, SourceSettings};
use tributary_event::{ErrorClass, Health, Lsn};
use tributary_transport::{
    Batch, Consumer, ConsumerSettings, Polled, Producer, TopicPartition, TopicSpec, Transport, TransportError,
    Watermarks,
};

#[derive(Default)]
struct Counts {
    records: AtomicU64,
    bytes: AtomicU64,
    batches: AtomicU64,
}

#[derive(Clone, Default)]
struct Nowhere(Arc<Counts>);

#[async_trait]
impl Producer for Nowhere {
    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        self.0.records.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.0.bytes.fetch_add(batch.size() as u64, Ordering::Relaxed);
        self.0.batches.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[async_trait]
impl Transport for Nowhere {
    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<(), TransportError> {
        Ok(())
    }
    async fn partitions(&self, _: &str) -> Result<u32, TransportError> {
        Ok(1)
    }
    async fn producer(&self, _: &str) -> Result<Box<dyn Producer>, TransportError> {
        Ok(Box::new(self.clone()))
    }
    async fn consumer(&self, _: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        Err(TransportError::new(ErrorClass::Fatal, "nothing is kept"))
    }
    async fn checkpoint(&self, _: &str) -> Result<Option<Bytes>, TransportError> {
        Ok(None)
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

/// CPU seconds of this process (`/proc/self/stat`, user and system, in ticks of 10 ms).
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.iter().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
}

async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = arguments.first().ok_or_else(|| anyhow::anyhow!("name a database by its URL"))?;
    let rows: u64 = arguments.get(1).map_or(Ok(1_000_000), |a| a.parse())?;
    let per_transaction: u64 = arguments.get(2).map_or(Ok(rows), |a| a.parse())?;
    let sql = connect(url).await?;
    sql.batch_execute(
        "drop table if exists bench_row; create table bench_row (id bigint primary key, title text, director text, \
         budget numeric(14,2), rating float8, released date, updated timestamptz, body text)",
    )
    .await?;
    let settings = ConnectorSettings::postgres("bench", url.as_str().into(), ["public.bench_row"]);
    let SourceSettings::Postgres(postgres) = &settings.source;
    for slot in [postgres.slot.as_str(), "bench_peer"] {
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        sql.query(drop, &[&slot]).await?;
    }
    let transport = Nowhere::default();
    tributary_connector::postgres::prepare(&settings, &transport).await?;
    sql.query("select pg_create_logical_replication_slot('bench_peer', 'pgoutput')", &[]).await?;
    let fill = format!(
        "do $$ declare n bigint := 1; begin while n <= {rows} loop insert into bench_row select g, 'The Movie Number ' || g, \
         'Director ' || g % 1000, g * 1.25, g % 100 / 10.0, date '1990-01-01' + (g % 10000)::int, now(), \
         repeat(md5(g::text), 2) from generate_series(n, n + {per_transaction} - 1) g; \
         n := n + {per_transaction}; commit; end loop; end $$"
    );
    sql.batch_execute(&fill).await?;
    let end: String = sql.query_one("select pg_current_wal_lsn()::text", &[]).await?.get(0);
    let end: Lsn = end.parse()?;
    let mut out = std::io::stdout();
    let peer = async || -> anyhow::Result<f64> {
        let begin = Instant::now();
        let status = tokio::process::Command::new("pg_recvlogical")
            .args(["-d", url, "--slot", "bench_peer", "--start", "-f", "/dev/null", "--no-loop"])
            .args(["-o", "proto_version=1", "-o", &format!("publication_names={}", postgres.publication)])
            .args(["--endpos", &end.to_string()])
            .status()
            .await?;
        anyhow::ensure!(status.success(), "pg_recvlogical failed");
        Ok(begin.elapsed().as_secs_f64())
    };
    let (cpu_before, begin) = (cpu(), Instant::now());
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let task = tokio::spawn(tributary_connector::run(
        settings.clone(),
        Arc::new(transport.clone()),
        health.part("bench"),
        shutdown.clone(),
    ));
    while transport.0.records.load(Ordering::Relaxed) < rows && !task.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (ours, cpu_used) = (begin.elapsed().as_secs_f64(), cpu() - cpu_before);
    shutdown.cancel();
    task.await??;
    let theirs = peer().await?;
    let counts = &transport.0;
    writeln!(
        out,
        "rows={rows} per_transaction={per_transaction} ours_s={ours:.2} ours_rows_per_s={:.0} pg_recvlogical_s={theirs:.2} \
         ratio={:.2} cpu_s_per_million={:.2} peak_rss_mb={:.0} batches={} bytes_per_event={}",
        rows as f64 / ours,
        theirs / ours,
        cpu_used * 1e6 / rows as f64,
        peak_rss_mb(),
        counts.batches.load(Ordering::Relaxed),
        counts.bytes.load(Ordering::Relaxed) / rows.max(1),
    )?;
    Ok(())
}
