//! `x bench scale`: a pipeline in front of a graph that is far away, with one, two and four processes: documents a second.
//!
//! Each process asks for so few documents at a time that the graph's latency is what it waits for, and not the machine, which
//! all processes and servers share.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use movie_graph::LoadOptions;
use tokio::process::Child;
use tributary_stack::{Elasticsearch, ElasticsearchOptions, Kafka, KafkaOptions, Postgres, PostgresOptions};

use super::load::Observed;
use super::pipeline::{self, address, start_graph, start_tributary, store, transport};
use super::{for_speed, release, usage};
use crate::parts;
use crate::tools::target;

/// The graph's latency, in milliseconds.
const LATENCY: u64 = 50;
/// Documents a request, and requests in flight: of a process.
const BATCH: u32 = 5;
const CONCURRENCY: u32 = 2;
/// Divisible by every number of processes.
const PARTITIONS: u32 = 12;
const PROCESSES: [usize; 3] = [1, 2, 4];
/// Listings that may pass until each process has its share of the partitions.
const ATTEMPTS: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(900);

pub(super) async fn run(copies: u32) -> Result<()> {
    release().await?;
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = postgres.url("postgres");
    let movies = movie_graph::load(&url, LoadOptions { copies, ..LoadOptions::default() }).await?.movies;
    let kafka = Kafka::start(KafkaOptions { jvm: for_speed(), ..KafkaOptions::default() }).await?;
    let options = ElasticsearchOptions { jvm: for_speed(), ..ElasticsearchOptions::default() };
    let elasticsearch = Elasticsearch::start(options).await?;
    let folder = target().join("bench/scale");
    parts::empty(&folder)?;
    let (mut graph, endpoint) = start_graph(&url, LATENCY).await?;
    let index = format!("    build: {{ batch: {BATCH}, concurrency: {CONCURRENCY} }}\n{}", store(&elasticsearch));
    pipeline::write(&folder, &url, &endpoint, &transport(&kafka, PARTITIONS), &index, "0s")?;

    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
    let mut members: Vec<Member> = Vec::new();
    let mut rates = Vec::new();
    let mut figures = format!("documents={movies} latency_ms={LATENCY} batch={BATCH} concurrency={CONCURRENCY}");
    for count in PROCESSES {
        while members.len() < count {
            let data = folder.join(format!("data-{}", members.len()));
            let process = start_tributary(&pipeline::shipped(), &folder, &data)?;
            let observed = Observed { http: http.clone(), address: address(&data).await? };
            members.push(Member { process, observed });
        }
        first(&members)?.observed.until("*", movies).await?;
        let listing = shared(&members, movies).await?;
        let rate = movies as f64 / listing.seconds;
        println!("{count} processes: {movies} documents in {:.1} s, {rate:.0}/s; {listing}", listing.seconds);
        figures += &format!(" docs_per_s_{count}={rate:.0} cores_{count}={:.2}", listing.cpu / listing.seconds);
        rates.push(rate);
    }
    let [one, two, four] = rates[..] else { bail!("there are three rates") };
    println!("{figures} ratio_2={:.2} ratio_4={:.2}", two / one, four / one);
    for mut member in members {
        member.process.kill().await?;
    }
    graph.kill().await?;
    postgres.stop().await
}

struct Member {
    process: Child,
    observed: Observed,
}

/// One listing of all documents.
struct Listing {
    seconds: f64,
    /// CPU seconds of all processes.
    cpu: f64,
    /// Documents that each process has built.
    built: Vec<u64>,
}

impl std::fmt::Display for Listing {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{:.2} cores of ours, shares {:?}", self.cpu / self.seconds, self.built)
    }
}

fn first(members: &[Member]) -> Result<&Member> {
    members.first().context("there is no process")
}

/// Lists all documents anew until every process has its share: new ones get their partitions meanwhile.
async fn shared(members: &[Member], movies: u64) -> Result<Listing> {
    for _ in 0..ATTEMPTS {
        let listing = list(members, movies).await?;
        // A share is a number of partitions, which hold about as many documents each. At first a listing finds caches cold, or
        // partitions on their way.
        let least = movies as f64 / members.len() as f64 * 0.7;
        if listing.built.iter().all(|built| *built as f64 >= least) {
            return list(members, movies).await;
        }
        println!("not shared yet: {:?}", listing.built);
    }
    bail!("the processes did not share the partitions in {ATTEMPTS} listings")
}

/// Lists all documents anew, from the request until the last one has its verdict.
async fn list(members: &[Member], movies: u64) -> Result<Listing> {
    for member in members {
        member.observed.at_rest().await?;
    }
    let (before, cpu) = (built(members).await?, cpu(members));
    let begin = Instant::now();
    first(members)?.observed.reindex().await?;
    loop {
        let now = built(members).await?;
        let built: Vec<u64> = now.iter().zip(&before).map(|(now, before)| now - before).collect();
        if built.iter().sum::<u64>() >= movies {
            let seconds = begin.elapsed().as_secs_f64();
            return Ok(Listing { seconds, cpu: self::cpu(members) - cpu, built });
        }
        ensure!(begin.elapsed() < PATIENCE, "the listing does not end: {built:?} documents were built");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn built(members: &[Member]) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for member in members {
        all.push(member.observed.built().await?);
    }
    Ok(all)
}

fn cpu(members: &[Member]) -> f64 {
    members.iter().filter_map(|member| Some(usage(member.process.id()?).0)).sum()
}
