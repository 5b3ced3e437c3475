//! `x bench capture --mysql`, `--mariadb`: rows of about 170 bytes, in one transaction and in transactions of 100, drained from the same log
//! by the server's own reader (decoding to text, and as raw bytes) and by our connector into nothing and into the embedded log; each
//! several times in turn, of which the best counts, for other guests of the machine only ever make a run slower.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::Command;
use tributary_stack::{LogReader, MySql, MySqlOptions, MySqlProduct, MySqlSession};

use super::drained::{self, Figures};
use super::{release_of_drain, usage};
use crate::parts::empty;
use crate::tools::target;

/// Of numbers from 1 to a million.
const MOST_ROWS: u32 = 1_000_000;
const DATABASE: &str = "bench";
pub(super) const TABLE: &str =
    "create table bench_row (id bigint primary key, title varchar(100), director varchar(100), budget decimal(14,2),
    rating double, released date, updated timestamp(6) null, body text)";

/// A row with the number `n`.
const ROW: &str = "n, concat('The Movie Number ', n), concat('Director ', n % 1000), n * 1.25, n % 100 / 10.0,
    date_add('1990-01-01', interval n % 10000 day), now(6), sha2(n, 256)";

const NUMBERS: &str =
    "insert into numbers select a.d + 10 * b.d + 100 * c.d + 1000 * e.d + 10000 * f.d + 100000 * g.d + 1
    from digits a, digits b, digits c, digits e, digits f, digits g";

/// How often each is measured.
const ROUNDS: u32 = 3;

pub(super) async fn run(product: MySqlProduct, rows: u32) -> Result<()> {
    ensure!(rows <= MOST_ROWS, "--size: {MOST_ROWS} rows at most");
    let version = newest(product)?;
    release_of_drain().await?;
    let reader = LogReader::fetch(product, version).await?;
    let mut last = String::new();
    for (shape, per_transaction) in [("one transaction", rows), ("transactions of 100", 100)] {
        let server = MySql::start(MySqlOptions { fsync: false, ..MySqlOptions::of(product, version) }).await?;
        last = measure(&server, rows, per_transaction, &reader).await?;
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        println!("{product} {version}, {shape}, load average {}:", load.split(' ').next().unwrap_or_default());
        println!("{last}");
        server.stop().await?;
    }
    println!("{last}");
    Ok(())
}

/// The newest version that this machine can have.
pub(super) fn newest(product: MySqlProduct) -> Result<&'static str> {
    product.newest().with_context(|| format!("{product}: {}", product.left_out().unwrap_or("none")))
}

/// Figures of every reader, from a server that was just started.
async fn measure(server: &MySql, rows: u32, per_transaction: u32, reader: &LogReader) -> Result<String> {
    let folder = target().join("bench/binlog");
    empty(&folder)?;
    let mut sql = server.session("mysql").await?;
    let first_file = prepared(&mut sql).await?;
    let url = server.server_url();
    let log = |round: u32| folder.join(format!("log{round}"));
    let embedded = |round: u32| format!("embedded:{}", log(round).display());
    drained::prepare(&url, DATABASE, "nowhere", rows).await?;
    for round in 0..ROUNDS {
        drained::prepare(&url, DATABASE, &embedded(round), rows).await?;
    }
    fill(&mut sql, rows, per_transaction).await?;
    sql.close().await?;
    let mut best =
        [("verbose", Figures::NONE), ("raw", Figures::NONE), ("nowhere", Figures::NONE), ("embedded", Figures::NONE)];
    for round in 0..ROUNDS {
        let raw = format!("--result-file={}/raw-", folder.display());
        let runs = [
            read(reader.command(server, &["--verbose"], &first_file)?, &folder).await?,
            read(reader.command(server, &["--raw", &raw], &first_file)?, &folder).await?,
            drained::run(&url, DATABASE, "nowhere", rows).await?,
            drained::run(&url, DATABASE, &embedded(round), rows).await?,
        ];
        for ((_, best), run) in best.iter_mut().zip(runs) {
            *best = best.better(run);
        }
        std::fs::remove_dir_all(log(round)).with_context(|| format!("removing {}", log(round).display()))?;
    }
    let said: Vec<String> = best.iter().map(|(who, figures)| said(who, figures, rows)).collect();
    Ok(said.join(" "))
}

fn said(who: &str, figures: &Figures, rows: u32) -> String {
    let (rate, cpu) = (f64::from(rows) / figures.seconds, figures.cpu_per_million(rows));
    format!("rate_{who}={rate:.0} cpu_{who}={cpu:.2} rss_{who}={:.0}", figures.rss)
}

/// Makes the tables; the file of the log that the rows will be in.
async fn prepared(sql: &mut MySqlSession) -> Result<String> {
    numbers(sql, DATABASE).await?;
    for statement in [TABLE, "flush binary logs"] {
        sql.run(statement).await?;
    }
    let files = sql.rows("show binary logs").await?;
    files.into_iter().next_back().and_then(|row| row.into_iter().next()).context("the server keeps no log")
}

/// Makes a database with the numbers that rows are made of, and goes to it.
pub(super) async fn numbers(sql: &mut MySqlSession, database: &str) -> Result<()> {
    for statement in [
        &format!("create database {database}"),
        &format!("use {database}"),
        "create table digits (d int primary key)",
        "insert into digits values (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "create table numbers (n int primary key)",
        NUMBERS,
    ] {
        sql.run(statement).await?;
    }
    Ok(())
}

pub(super) async fn fill(sql: &mut MySqlSession, rows: u32, per_transaction: u32) -> Result<()> {
    let mut from = 1;
    while from <= rows {
        let to = rows.min(from + per_transaction - 1);
        let range = format!("where n between {from} and {to} order by n");
        sql.run(&format!("insert into bench_row select {ROW} from numbers {range}")).await?;
        from = to + 1;
    }
    Ok(())
}

/// Lets the server's own reader read to the end of the log.
async fn read(mut command: Command, folder: &Path) -> Result<Figures> {
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let begin = Instant::now();
    let mut child = command.spawn().context("starting the server's own reader")?;
    let pid = child.id().context("it has ended")?;
    let mut used = (0.0, 0.0);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        let (cpu, rss) = usage(pid);
        used = (cpu.max(used.0), rss.max(used.1));
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    let seconds = begin.elapsed().as_secs_f64();
    if !status.success() {
        let said = child.wait_with_output().await?;
        bail!("the server's own reader failed: {}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(Figures { seconds, cpu: used.0, rss: used.1 })
}
