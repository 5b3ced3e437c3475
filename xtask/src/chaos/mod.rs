//! `x chaos`: several processes of one pipeline follow a database that several writers change in every way, while everything is
//! killed, stopped, paused and cut off at random; in the end the index must be what the database says.
//!
//! A seed decides what comes. Logs and the pipeline are in `target/chaos`.

mod graph;
mod member;
mod network;
mod relay;
mod schedule;
mod site;
mod verdict;
mod writer;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rand::Rng as _;
use tokio::sync::{Mutex, watch};

use self::network::Namespace;
use self::schedule::{REMOTE, Sequence, Step};
use self::site::Site;
use self::verdict::Verdict;
use self::writer::{Tally, Writer};
use crate::interrupt::unless_interrupted;
use crate::tools::target;
use crate::{answers, parts};

/// How many write to the database at a time.
const WRITERS: u64 = 4;

/// Of the log of a process that ended by itself: where it says why.
const LAST_LINES: usize = 5;

/// Options of `x chaos`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// How long everything is hurt
    #[arg(long, default_value_t = 2)]
    pub(crate) minutes: u32,
    /// Decides what comes; without one it is drawn, and printed
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// What was done, and what came of it.
#[derive(Default)]
struct Report {
    harms: BTreeMap<String, u32>,
    /// Processes that ended although nobody ended them.
    exits: Vec<String>,
}

/// Runs it. Success only if the index is right in the end, and no process ended by itself.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    unless_interrupted(Box::pin(chaos(arguments))).await
}

async fn chaos(Arguments { minutes, seed }: Arguments) -> Result<ExitCode> {
    let seed = seed.unwrap_or_else(|| rand::rng().random_range(1..1_000_000));
    println!("x chaos --minutes {minutes} --seed {seed}");
    let folder = target().join("chaos");
    parts::empty(&folder)?;
    let cuts = Namespace::missing().await;
    if let Some(cause) = cuts {
        println!("NOT DONE: processes {REMOTE:?} are not cut off, nor is a server from them: {cause}");
    }
    // Its graph reads the primary; but that is not what most pipelines say of theirs.
    let lags = seed % 2 == 1;
    println!("graph.lag: {}", if lags { "as it is by default" } else { "0s" });
    let site = Arc::new(Site::start(&folder, cuts.is_none(), lags).await?);
    for number in 0..site.members.len() {
        site.start_member(number).await?;
    }
    let (end, ended) = watch::channel(false);
    let report = Arc::new(Mutex::new(Report::default()));
    let supervision = tokio::spawn(supervise(site.clone(), report.clone(), ended));
    first_documents(&site).await?;

    let tally = Arc::new(Tally::default());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| tokio::spawn(Writer::new(site.database_url(), seed, number).run(tally.clone())))
        .collect();
    let begin = Instant::now();
    let until = begin + Duration::from_secs(60) * minutes;
    let servers = Sequence::Servers { cuts: cuts.is_none() };
    let processes = Sequence::Processes { cuts: cuts.is_none() };
    let hurting =
        [servers, processes].map(|sequence| Box::pin(hurt(site.clone(), report.clone(), sequence, seed, begin, until)));
    let hurt = futures(hurting).await;
    tally.ended.store(true, Ordering::Release);
    for writer in writers {
        writer.await.context("a writer")?;
    }
    hurt?;
    println!(
        "{:>7.1} s  everything is whole again; waiting until the pipeline is at rest",
        begin.elapsed().as_secs_f64()
    );
    let (verdict, rest) = Verdict::at_rest(&site).await?;
    let _ = end.send(true);
    supervision.await.context("the supervision")??;

    let letters = letters(&site).await;
    site.stop().await?;
    let report = std::mem::take(&mut *report.lock().await);
    println!("\nsurvived:");
    for (what, times) in &report.harms {
        println!("  {times:>4} × {what}");
    }
    for line in report.exits.iter().chain(verdict.examples()) {
        println!("  {line}");
    }
    let panics = panics(&site)?;
    panics.iter().for_each(|line| println!("  {line}"));
    println!(
        "seed={seed} minutes={minutes} changes={} refused={} harms={} exits={} panics={} {verdict} rest_s={:.1} letters={letters}",
        tally.carried_out.load(Ordering::Relaxed),
        tally.failed.load(Ordering::Relaxed),
        report.harms.values().sum::<u32>(),
        report.exits.len(),
        panics.len(),
        rest.as_secs_f64()
    );
    let survived = verdict.is_right() && verdict.is_at_rest() && report.exits.is_empty() && panics.is_empty();
    Ok(if survived { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Both to their ends, whatever comes of one of them.
async fn futures<T>([first, second]: [impl Future<Output = Result<T>>; 2]) -> Result<()> {
    let (first, second) = tokio::join!(first, second);
    first.and(second).map(drop)
}

/// Carries out one sequence of harms until the time is over; the last one is healed.
async fn hurt(
    site: Arc<Site>,
    report: Arc<Mutex<Report>>,
    sequence: Sequence,
    seed: u64,
    begin: Instant,
    until: Instant,
) -> Result<()> {
    for step in sequence.steps(seed) {
        let Step { after, target, harm, lasts } = step;
        if Instant::now() + after + lasts > until {
            return Ok(());
        }
        tokio::time::sleep(after).await;
        println!("{:>7.1} s  {target} is {harm} for {:.1} s", begin.elapsed().as_secs_f64(), lasts.as_secs_f64());
        site.hurt(step).await.with_context(|| format!("{target} was to be {harm}"))?;
        tokio::time::sleep(lasts).await;
        site.heal(step).await.with_context(|| format!("{target} had been {harm}, and was to be healed"))?;
        *report.lock().await.harms.entry(format!("{target} {harm}")).or_default() += 1;
    }
    Ok(())
}

/// Starts a process again that ended by itself, as who runs it would, and remembers that it did.
async fn supervise(site: Arc<Site>, report: Arc<Mutex<Report>>, mut ended: watch::Receiver<bool>) -> Result<()> {
    loop {
        for (number, member) in site.members.iter().enumerate() {
            if let Some(status) = member.ended().await? {
                let log = std::fs::read_to_string(member.log()).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
                // One that stood still, or was cut off, while another one took its place as a capturer.
                if last.iter().any(|line| line.contains("another process took over")) {
                    println!("process {number} was replaced as the one that captures; it is started again");
                    *report.lock().await.harms.entry("a capturer was replaced".to_owned()).or_default() += 1;
                } else {
                    let line = format!("process {number} ended by itself ({status}): {}", last.join("\n    "));
                    println!("{line}");
                    report.lock().await.exits.push(line);
                }
                site.start_member(number).await?;
            }
        }
        if tokio::time::timeout(Duration::from_millis(500), ended.changed()).await.is_ok() {
            return Ok(());
        }
    }
}

/// Waits until the first documents of the first build are searchable.
async fn first_documents(site: &Site) -> Result<()> {
    let begin = Instant::now();
    loop {
        for address in site.addresses() {
            let status = answers::get(&address, "/indexes/movies").await.unwrap_or_default();
            if status["documents"].as_u64() > Some(0) {
                return Ok(());
            }
        }
        if begin.elapsed() > Duration::from_secs(120) {
            bail!("no document is searchable after two minutes; the logs are in {}", target().join("chaos").display());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Dead letters, as a process knows them.
async fn letters(site: &Site) -> usize {
    let Some(address) = site.addresses().into_iter().next() else { return 0 };
    let letters = answers::get(&address, "/dead-letters").await.unwrap_or_default();
    letters.as_array().map_or(0, Vec::len)
}

/// What the logs say of panics.
fn panics(site: &Site) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for member in &site.members {
        let log = std::fs::read_to_string(member.log()).context("reading a log")?;
        found.extend(log.lines().filter(|line| line.contains("panicked at")).map(str::to_owned));
    }
    Ok(found)
}
