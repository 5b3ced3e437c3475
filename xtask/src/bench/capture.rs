//! `x bench capture`: rows of about 170 bytes, in one transaction and in transactions of 100, drained from the same log by
//! `pg_recvlogical` into nothing, and by our connector into nothing, the embedded log, and Kafka; each several times in turn,
//! of which the best counts, for other guests of the machine only ever make a run slower.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio_postgres::{Client, NoTls};
use tributary_stack::{Kafka, KafkaOptions, Postgres, PostgresOptions};

use super::drained::{self, Figures};
use super::release;
use crate::tools::target;

pub(super) const TABLE: &str =
    "CREATE TABLE bench_row (id bigint PRIMARY KEY, title text, director text, budget numeric(14,2), rating float8,
    released date, updated timestamptz, body text)";

/// How often each is measured.
const ROUNDS: u32 = 3;

pub(super) async fn run(rows: u32) -> Result<()> {
    release().await?;
    let kafka = Kafka::start(KafkaOptions { jvm: super::for_speed(), ..KafkaOptions::default() }).await?;
    let mut figures = Vec::new();
    for (shape, per_transaction) in [("one", rows), ("hundreds", 100)] {
        figures.push(measure(shape, rows, per_transaction, &kafka.bootstrap()).await?);
    }
    kafka.stop().await?;
    println!("{}", figures.join(" "));
    Ok(())
}

async fn measure(shape: &str, rows: u32, per_transaction: u32, brokers: &str) -> Result<String> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = postgres.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driving = tokio::spawn(connection);
    client.batch_execute(TABLE).await?;
    let folder = target().join(format!("bench/{shape}"));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    let transports = [
        ("nowhere", "nowhere".to_owned()),
        ("embedded", format!("embedded:{}", folder.join("log").display())),
        ("kafka", format!("kafka:{brokers}")),
    ];
    let peers = |round| format!("peer_{round}");
    let named = |name: &str, round| format!("{shape}_{name}_{round}");
    for round in 0..ROUNDS {
        for (name, transport) in &transports {
            drained::prepare(&url, &named(name, round), transport, rows).await?;
        }
        client.query("SELECT pg_create_logical_replication_slot($1, 'pgoutput')", &[&peers(round)]).await?;
    }
    fill(&client, rows, per_transaction).await?;
    let end: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    let mut peer_seconds = f64::INFINITY;
    let mut best = transports.each_ref().map(|_| Figures::NONE);
    for round in 0..ROUNDS {
        let publication = format!("tributary_{}", named("nowhere", round));
        peer_seconds = peer_seconds.min(peer(&url, &peers(round), &publication, &end).await?);
        for ((name, transport), best) in transports.iter().zip(&mut best) {
            let run = drained::run(&url, &named(name, round), transport, rows).await?;
            *best = best.better(run);
        }
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
        }
    }
    println!("{shape}: pg_recvlogical {peer_seconds:.2} s");
    let mut figures = format!("{shape}_pg_recvlogical_s={peer_seconds:.2}");
    for ((name, _), figures_of) in transports.iter().zip(best) {
        let Figures { seconds, rss, .. } = figures_of;
        let (ratio, cpu) = (peer_seconds / seconds, figures_of.cpu_per_million(rows));
        println!(
            "{shape}: {name} {seconds:.2} s, {:.0} rows/s, {ratio:.2} of pg_recvlogical's rate, {cpu:.2} CPU-s per million, {rss:.0} MB",
            f64::from(rows) / seconds
        );
        figures += &format!(
            " {shape}_{name}_s={seconds:.2} {shape}_{name}_ratio={ratio:.2} {shape}_{name}_cpu_s_per_million={cpu:.2} {shape}_{name}_rss_mb={rss:.0}"
        );
    }
    drop(client);
    driving.await?.context("closing the connection")?;
    postgres.stop().await?;
    Ok(figures)
}

pub(super) async fn fill(client: &Client, rows: u32, per_transaction: u32) -> Result<()> {
    let fill = format!(
        "DO $$ DECLARE n bigint := 1; BEGIN WHILE n <= {rows} LOOP
         INSERT INTO bench_row SELECT g, 'The Movie Number ' || g, 'Director ' || g % 1000, g * 1.25, g % 100 / 10.0,
             date '1990-01-01' + (g % 10000)::int, now(), repeat(md5(g::text), 2) FROM generate_series(n, least({rows}, n + {per_transaction} - 1)) g;
         n := n + {per_transaction}; COMMIT; END LOOP; END $$"
    );
    client.batch_execute(&fill).await.context("filling the table")
}

async fn peer(url: &str, slot: &str, publication: &str, end: &str) -> Result<f64> {
    let begin = Instant::now();
    let status = Command::new("pg_recvlogical")
        .args(["-d", url, "--slot", slot, "--start", "-f", "/dev/null", "--no-loop", "--endpos", end])
        .args(["-o", "proto_version=1", "-o", &format!("publication_names={publication}")])
        .status()
        .await
        .context("starting pg_recvlogical (Debian: apt-get install postgresql-client)")?;
    if !status.success() {
        bail!("pg_recvlogical failed ({status})");
    }
    Ok(begin.elapsed().as_secs_f64())
}
