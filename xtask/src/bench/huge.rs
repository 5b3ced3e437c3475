//! `x bench huge`: one transaction of many gigabytes, streamed while it is in progress, kept on disk until it commits, and
//! captured into the embedded log; the process is killed twice on the way. `--mysql` and `--mariadb`: a binary log has a transaction when it
//! is committed, so nothing is kept, and the process is killed once.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;
use tributary_stack::{MySql, MySqlOptions, MySqlProduct, Postgres, PostgresOptions};

use super::{binlog, drained, release, release_of_drain, usage};
use crate::parts::empty;
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
    empty(&folder)?;
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
    let before = bytes(&log);
    let mut second = drain("run", &url, &transport, rows, &kept)?;
    // Rows are compressed there to a few kilobytes.
    until("a part is in the log", || bytes(&log) > before + (u64::from(gigabytes) << 20)).await?;
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

/// The same of a binary log. `compressed`: as one event of it.
pub(super) async fn of_binlog(product: MySqlProduct, gigabytes: u32, compressed: bool) -> Result<()> {
    const NAME: &str = "huge";
    let version = binlog::newest(product)?;
    release_of_drain().await?;
    let rows = gigabytes * ROWS_PER_GIGABYTE;
    let settings = vec![("max-allowed-packet".to_owned(), "1G".to_owned())];
    let server = MySql::start(MySqlOptions { fsync: false, settings, ..MySqlOptions::of(product, version) }).await?;
    let mut sql = server.session("mysql").await?;
    binlog::numbers(&mut sql, NAME).await?;
    sql.run("create table bench_row (id bigint primary key, body longtext)").await?;
    let folder = target().join("bench/huge");
    empty(&folder)?;
    let (url, log) = (server.server_url(), folder.join("log"));
    let transport = format!("embedded:{}", log.display());
    drained::prepare(&url, NAME, &transport, rows).await?;
    let begin = Instant::now();
    let mut body = "repeat(sha2(n, 256), 16384)".to_owned();
    if compressed {
        sql.run("set session binlog_transaction_compression = on").await?;
        // 25 times 40 KB, of which compression leaves a half of one.
        body = format!("repeat(concat({}), 25)", ["hex(random_bytes(1024))"; 20].join(", "));
    }
    sql.run(&format!("insert into bench_row select n, {body} from numbers where n <= {rows} order by n")).await?;
    println!("{gigabytes} GB committed after {:.0} s", begin.elapsed().as_secs_f64());
    sql.close().await?;

    let (before, nothing) = (bytes(&log), folder.join("nothing"));
    let mut first = drain("run", &url, &transport, rows, &nothing)?;
    // Rows are compressed there to a few kilobytes.
    until("a part is in the log", || bytes(&log) > before + (u64::from(gigabytes) << 20)).await?;
    let first_rss = usage(first.id().unwrap_or_default()).1;
    first.kill().await?;
    let there = drained::count(&url, NAME, &transport, rows).await?;
    ensure!(there < rows, "all rows were there when the process was killed: take more gigabytes");
    let last = drained::run(&url, NAME, &transport, rows - there).await?;
    let all = drained::count(&url, NAME, &transport, rows).await?;
    ensure!(all == rows, "{all} rows are there, not {rows}");
    println!("every row once and in order; {there} before the process was killed");
    server.stop().await?;
    println!(
        "gigabytes={gigabytes} first_rss_mb={first_rss:.0} last_rss_mb={:.0} last_s={:.1} last_cpu_s={:.1}",
        last.rss, last.seconds, last.cpu
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
