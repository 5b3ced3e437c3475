//! `x bench huge`: one transaction of many gigabytes, streamed while it is in progress, kept on disk until it commits, and
//! captured into the embedded log; the process is killed twice on the way.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;
use tributary_stack::{Postgres, PostgresOptions};

use super::{release, usage};
use crate::tools::target;

/// The rows are of a megabyte.
const ROWS_PER_GIGABYTE: u32 = 1024;

pub(super) async fn run(gigabytes: u32) -> Result<()> {
    release().await?;
    let rows = gigabytes * ROWS_PER_GIGABYTE;
    let postgres = Postgres::start(PostgresOptions { fsync: false, ..PostgresOptions::default() }).await?;
    let url = postgres.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driving = tokio::spawn(connection);
    client
        .batch_execute(
            "CREATE TABLE bench_row (id bigint PRIMARY KEY, body text); ALTER TABLE bench_row ALTER body SET STORAGE external",
        )
        .await?;
    let folder = target().join("bench/huge");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    let kept = folder.join("transactions");
    let transport = format!("embedded:{}", folder.join("log").display());
    let prepared = drain("prepare", &url, &transport, rows, &kept)?.wait_with_output().await?;
    ensure!(prepared.status.success(), "{}", String::from_utf8_lossy(&prepared.stderr));

    // Killed while the transaction is in progress, and again while it is read back.
    let begin = Instant::now();
    let mut first = drain("run", &url, &transport, rows, &kept)?;
    let fill = format!("INSERT INTO bench_row SELECT g, repeat(md5(g::text), 32768) FROM generate_series(1, {rows}) g");
    let filling = client.batch_execute(&fill);
    let killing = async {
        until("a third is kept", || bytes(&kept) > u64::from(gigabytes) << 28).await?;
        let rss = usage(first.id().unwrap_or_default()).1;
        first.kill().await?;
        Ok::<_, anyhow::Error>(rss)
    };
    let (filled, first_rss) = tokio::join!(filling, killing);
    filled.context("filling the table")?;
    let first_rss = first_rss?;
    println!("{gigabytes} GB committed after {:.0} s", begin.elapsed().as_secs_f64());
    // The log of changes has all rows, so the table need not: the disk holds the transaction twice, not three times.
    client
        .batch_execute("ALTER PUBLICATION tributary_huge SET (publish = 'insert'); TRUNCATE bench_row; CHECKPOINT")
        .await
        .context("emptying the table")?;
    let log = folder.join("log");
    let empty = bytes(&log);
    let mut second = drain("run", &url, &transport, rows, &kept)?;
    // Rows are compressed there to a few kilobytes.
    until("a part is in the log", || bytes(&log) > empty + (u64::from(gigabytes) << 20)).await?;
    let second_rss = usage(second.id().unwrap_or_default()).1;
    second.kill().await?;

    let begin = Instant::now();
    let mut third = drain("run", &url, &transport, rows, &kept)?;
    let end: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    const CONFIRMED: &str = "SELECT count(*) FROM pg_replication_slots WHERE confirmed_flush_lsn >= $1::text::pg_lsn";
    while client.query_one(CONFIRMED, &[&end]).await?.get::<_, i64>(0) == 0 {
        ensure!(third.try_wait()?.is_none(), "the measured process ended");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (seconds, (cpu, third_rss)) = (begin.elapsed().as_secs_f64(), usage(third.id().unwrap_or_default()));
    ensure!(bytes(&kept) == 0, "{} is not empty", kept.display());
    third.kill().await?;
    let verified = drain("verify", &url, &transport, rows, &kept)?.wait_with_output().await?;
    ensure!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    println!("every row once and in order; {seconds:.0} s from the start of the last process");
    drop(client);
    driving.await?.context("closing the connection")?;
    postgres.stop().await?;
    println!(
        "gigabytes={gigabytes} first_rss_mb={first_rss:.0} second_rss_mb={second_rss:.0} last_rss_mb={third_rss:.0} last_s={seconds:.1} last_cpu_s={cpu:.1}"
    );
    std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))
}

fn drain(action: &str, url: &str, transport: &str, rows: u32, kept: &Path) -> Result<Child> {
    Command::new(target().join("release/examples/drain"))
        .args([action, url, "huge", transport, &rows.to_string()])
        .arg(kept)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting the measured process")
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let begin = Instant::now();
    while !condition() {
        if begin.elapsed() > Duration::from_secs(900) {
            bail!("not within a quarter of an hour: {what}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// The bytes of all files below a folder.
fn bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { bytes(&e.path()) } else { e.metadata().map_or(0, |m| m.len()) }).sum()
}
