//! `x bench index`: first build against what the GraphQL service itself can answer, change to searchable, a burst of root
//! changes, the rename of a vertex in very many documents with changes beside it, and every document built again.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use movie_graph::{LoadOptions, truth};
use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tributary_stack::{Elasticsearch, ElasticsearchOptions, Kafka, KafkaOptions, Postgres, PostgresOptions};

use super::load::{self, Observed, What, latencies};
use super::pipeline::{self, address, start_graph, start_graph_on_standby, start_tributary, store, transport};
use super::{memory, quantile, release, usage};
use crate::parts::empty;
use crate::tools::{repository, target};

/// Between two looks at how much memory a process has.
const LOOKS: Duration = Duration::from_millis(100);

/// Longer than the default lag of a graph: what is built once more has begun by then.
const SETTLED: Duration = Duration::from_secs(3);

/// Under which it is measured.
pub(super) struct Conditions {
    /// How often the demo's movies are written.
    pub(super) copies: u32,
    /// On Kafka and Elasticsearch.
    pub(super) servers: bool,
    /// `graph.lag`.
    pub(super) lag: String,
    /// The graph reads a standby, and says how far that has come.
    pub(super) standby: bool,
}

/// Measures this build; before it, another program if one is given. Each has servers of its own, one after the other.
pub(super) async fn run(beside: Option<PathBuf>, conditions: &Conditions) -> Result<()> {
    release().await?;
    if let Some(other) = beside {
        println!("measuring {} …", other.display());
        measure(&other, conditions).await?;
        println!("measuring this build …");
    }
    measure(&pipeline::shipped(), conditions).await
}

async fn measure(tributary: &Path, conditions: &Conditions) -> Result<()> {
    let Conditions { copies, servers, ref lag, standby } = *conditions;
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = postgres.url("postgres");
    let loaded = movie_graph::load(&url, LoadOptions { copies, ..LoadOptions::default() }).await?;
    let standby = match standby {
        true => Some(postgres.standby(PostgresOptions::default()).await?),
        false => None,
    };
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driving = tokio::spawn(connection);
    let (kafka, elasticsearch) = if servers {
        let kafka = Kafka::start(KafkaOptions { jvm: super::for_speed(), ..KafkaOptions::default() }).await?;
        (
            Some(kafka),
            Some(
                Elasticsearch::start(ElasticsearchOptions {
                    jvm: super::for_speed(),
                    ..ElasticsearchOptions::default()
                })
                .await?,
            ),
        )
    } else {
        (None, None)
    };
    let folder = target().join("bench/index");
    empty(&folder)?;
    let (mut graph, endpoint) = match &standby {
        Some(standby) => start_graph_on_standby(&standby.url("postgres")).await?,
        None => start_graph(&url, 0).await?,
    };
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
    let graph_rate = graph_capacity(&http, &endpoint, loaded.movies.min(6402)).await?;
    println!("the GraphQL service alone answers {graph_rate:.0} documents/s");
    let transport = kafka.as_ref().map(|kafka| transport(kafka, 4)).unwrap_or_default();
    let store = elasticsearch.as_ref().map(store).unwrap_or_default();
    pipeline::write(&folder, &url, &endpoint, &transport, &store, lag)?;
    let begin = Instant::now();
    let data = folder.join("data");
    let mut process = start_tributary(tributary, &folder, &data)?;
    let pid = process.id().context("tributary ended")?;
    let own = OwnMemory::watch(pid);
    let observed = Observed { http, address: address(&data).await? };
    observed.until("*", loaded.movies).await?;
    let build = begin.elapsed().as_secs_f64();
    observed.at_rest().await?;
    let ((cpu, rss), own_mb) = (usage(pid), own.peak());
    let rate = loaded.movies as f64 / build;
    println!(
        "first build: {} documents in {build:.2} s, {rate:.0}/s, {:.2} of the service's rate, {cpu:.1} CPU-s, {rss:.0} MB, \
         {own_mb} MB of them its own",
        loaded.movies,
        rate / graph_rate
    );
    let mut figures = format!(
        "documents={} servers={servers} lag={lag} standby={} graph_docs_per_s={graph_rate:.0} build_s={build:.2} build_docs_per_s={rate:.0} build_ratio={:.2} build_cpu_s={cpu:.1} build_rss_mb={rss:.0} build_own_mb={own_mb}",
        loaded.movies,
        standby.is_some(),
        rate / graph_rate
    );
    for (what, changes, per_second) in
        [(What::Root, 40, 1), (What::Leaf, 40, 1), (What::Root, 1000, 100), (What::Leaf, 1000, 100)]
    {
        let (before, fetched_before, cpu_before) = (observed.built().await?, observed.fetched().await?, usage(pid).0);
        let found = latencies(&observed, &client, what, changes, per_second).await?;
        let (p50, p99) = (quantile(&found, 0.5), quantile(&found, 0.99));
        // What a change costs is known when it has been looked at for the last time.
        tokio::time::sleep(SETTLED).await;
        observed.at_rest().await?;
        let each = |total: f64| total / f64::from(changes);
        let built = each((observed.built().await? - before) as f64);
        let fetched = each((observed.fetched().await? - fetched_before) as f64);
        let cpu_ms = each((usage(pid).0 - cpu_before) * 1e3);
        println!(
            "{what:?} changes at {per_second}/s: searchable after p50 {p50:.0} ms, p99 {p99:.0} ms; {built:.2} builds, \
             {fetched:.2} documents out of the graph and {cpu_ms:.2} CPU-ms a change"
        );
        let name = format!("{}_{per_second}", format!("{what:?}").to_lowercase());
        figures += &format!(
            " {name}_p50_ms={p50:.0} {name}_p99_ms={p99:.0} {name}_builds_per_change={built:.2} {name}_fetched_per_change={fetched:.2} {name}_cpu_ms_per_change={cpu_ms:.2}"
        );
    }
    for what in [What::Root, What::Leaf] {
        figures += &unsearched(&observed, &client, what, pid).await?;
    }
    figures += &burst(&observed, &client).await?;
    figures += &resolved(&observed, &client).await?;
    figures += &supernode(&observed, &client).await?;
    figures += &everything(&observed, &client, (pid, &own)).await?;
    figures += &verify(&observed, &client).await?;
    let (cpu, rss) = usage(pid);
    println!("{figures} cpu_s={cpu:.1} rss_mb={rss:.0}");
    process.kill().await?;
    graph.kill().await?;
    drop(client);
    driving.await?.context("closing the connection")?;
    if let Some(standby) = standby {
        standby.stop().await?;
    }
    postgres.stop().await
}

/// The most memory of its own that a process has had, as far as it was looked at: without the pages of files that it reads, which the kernel takes back when it
/// needs them.
struct OwnMemory {
    /// In megabytes.
    peak: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl OwnMemory {
    fn watch(pid: u32) -> Self {
        let peak = Arc::<AtomicU64>::default();
        let seen = peak.clone();
        let looking = tokio::spawn(async move {
            loop {
                seen.fetch_max(memory(pid, "RssAnon:") as u64, Ordering::Relaxed);
                tokio::time::sleep(LOOKS).await;
            }
        });
        Self { peak, looking }
    }

    fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// What a change costs when nobody searches for it, at a hundred a second.
async fn unsearched(observed: &Observed, client: &Client, what: What, pid: u32) -> Result<String> {
    const CHANGES: u32 = 2000;
    observed.at_rest().await?;
    let before = usage(pid).0;
    load::make(client, what, (CHANGES, 100), drop).await?;
    tokio::time::sleep(SETTLED).await;
    observed.at_rest().await?;
    let cpu_ms = (usage(pid).0 - before) * 1e3 / f64::from(CHANGES);
    println!("{what:?} changes that nobody searches for: {cpu_ms:.2} CPU-ms a change");
    Ok(format!(" {}_unsearched_cpu_ms_per_change={cpu_ms:.2}", format!("{what:?}").to_lowercase()))
}

/// Five thousand changes of roots in autocommit; seconds from the last one until search shows them all.
async fn burst(observed: &Observed, client: &Client) -> Result<String> {
    observed.at_rest().await?;
    let begin = Instant::now();
    // Every update changes something; what is there in the end tells which was the last of its document.
    let (updates, movies) = (5000, 3201);
    for i in 0..updates {
        let update =
            format!("UPDATE movie SET imdb_votes = {} WHERE id = {}", 777_000_000 + i / movies, 1 + i % movies);
        client.batch_execute(&update).await?;
    }
    let writing = begin.elapsed().as_secs_f64();
    let twice = updates - movies;
    let begin = Instant::now();
    observed.until("imdbVotes:777000001", twice as u64).await?;
    observed.until("imdbVotes:777000000", (movies - twice) as u64).await?;
    let after = begin.elapsed().as_secs_f64();
    println!("burst: 5,000 root changes in {writing:.2} s, all searchable {after:.2} s after the last");
    Ok(format!(" burst_write_s={writing:.2} burst_after_last_s={after:.2}"))
}

/// A hundred thousand rows that no document shows, in one transaction: events a second until all of them were resolved, and looked at for the
/// last time.
async fn resolved(observed: &Observed, client: &Client) -> Result<String> {
    const EVENTS: u32 = 100_000;
    observed.at_rest().await?;
    let begin = Instant::now();
    let rows = format!(
        "INSERT INTO talent (id, name) SELECT 10000000 + i, 'Nobody ' || i FROM generate_series(1, {EVENTS}) i"
    );
    // The last event says that the others are in their topics.
    client
        .batch_execute(&format!("BEGIN; {rows}; UPDATE movie SET imdb_votes = 778000000 WHERE id = 1; COMMIT"))
        .await?;
    observed.until("imdbVotes:778000000", 1).await?;
    observed.at_rest().await?;
    let seconds = begin.elapsed().as_secs_f64();
    let rate = f64::from(EVENTS) / seconds;
    println!(
        "{EVENTS} events that concern no document: resolved for good {seconds:.1} s after the commit began, {rate:.0}/s"
    );
    Ok(format!(" resolved_events_per_s={rate:.0}"))
}

/// Renames the distributor with the most movies; meanwhile other movies change at 20/s.
async fn supernode(observed: &Observed, client: &Client) -> Result<String> {
    observed.at_rest().await?;
    let most = "SELECT distributor_id, count(*) FROM movie WHERE distributor_id IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 1";
    let row = client.query_one(most, &[]).await?;
    let (id, movies): (i32, i64) = (row.get(0), row.get(1));
    client.batch_execute(&format!("UPDATE distributor SET name = 'supernodemark' WHERE id = {id}")).await?;
    let renamed = observed.until("distributor.name:supernodemark", movies as u64);
    let beside = latencies(observed, client, What::Root, 100, 20);
    let (seconds, beside) = tokio::try_join!(Box::pin(renamed), Box::pin(beside))?;
    let (p50, p99) = (quantile(&beside, 0.5), quantile(&beside, 0.99));
    println!(
        "supernode: {movies} documents searchable {seconds:.2} s after the rename; changes beside it p50 {p50:.0} ms, p99 {p99:.0} ms"
    );
    Ok(format!(" supernode_documents={movies} supernode_s={seconds:.2} beside_p50_ms={p50:.0} beside_p99_ms={p99:.0}"))
}

/// Every document is built again, by a listing and then for a table that is emptied.
async fn everything(observed: &Observed, client: &Client, (pid, own): (u32, &OwnMemory)) -> Result<String> {
    observed.at_rest().await?;
    let begin = Instant::now();
    observed.reindex().await?;
    observed.at_rest().await?;
    let (listed, rss_listed, own_listed) = (begin.elapsed().as_secs_f64(), usage(pid).1, own.peak());
    println!("reindex: {listed:.1} s, peak so far {rss_listed:.0} MB, of its own {own_listed} MB");
    let begin = Instant::now();
    client.batch_execute("TRUNCATE movie_talent").await?;
    // A document without talents answers no search for one.
    observed.until("talents.name:*", 0).await?;
    observed.at_rest().await?;
    let (emptied, rss_emptied, own_emptied) = (begin.elapsed().as_secs_f64(), usage(pid).1, own.peak());
    println!(
        "a table that all documents come from is emptied: {emptied:.1} s, peak so far {rss_emptied:.0} MB, of its own \
         {own_emptied} MB"
    );
    Ok(format!(
        " reindex_s={listed:.1} reindex_rss_mb={rss_listed:.0} reindex_own_mb={own_listed} truncate_s={emptied:.1} \
         truncate_rss_mb={rss_emptied:.0} truncate_own_mb={own_emptied}"
    ))
}

/// Compares the first ten thousand documents with the database, and the count of all.
async fn verify(observed: &Observed, client: &Client) -> Result<String> {
    let expected = truth::documents(client).await?;
    let url = format!("http://{}/indexes/movies/search?q=*&size=10000", observed.address);
    let found: Json = observed.http.get(url).send().await?.json().await?;
    if found["total"].as_u64() != Some(expected.len() as u64) {
        bail!("the index holds {} documents, the database {}", found["total"], expected.len());
    }
    let hits = found["hits"].as_array().context("the search answered no hits")?;
    let actual = hits.iter().map(|h| (h["id"].as_str().unwrap_or_default().to_owned(), h["document"].clone()));
    let actual: std::collections::BTreeMap<String, Json> = actual.collect();
    let expected = expected.into_iter().filter(|(id, _)| actual.contains_key(id)).collect();
    let differences = truth::differences(&expected, &actual);
    if let Some(first) = differences.first() {
        bail!("{} differences, the first: {first}", differences.len());
    }
    Ok(format!(" verified={} differences=0", actual.len()))
}

/// Documents per second that the service answers to the index's own query, in batches of 100, four at a time.
async fn graph_capacity(http: &reqwest::Client, endpoint: &str, documents: u64) -> Result<f64> {
    let query = std::fs::read_to_string(repository().join("compose/demo/movies.graphql"))?;
    let query = ["@text(analyzer: \"english\")", "@text", "@nested"].iter().fold(query, |q, d| q.replace(d, ""));
    let begin = Instant::now();
    let ids: Vec<u64> = (1..=documents).collect();
    let mut tasks = tokio::task::JoinSet::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(4));
    for chunk in ids.chunks(100) {
        let ids: Vec<String> = chunk.iter().map(ToString::to_string).collect();
        let request = http.post(endpoint).json(&json!({ "query": query, "variables": { "ids": ids } }));
        let gate = gate.clone();
        tasks.spawn(async move {
            let _place = gate.acquire().await?;
            let answer: Json = request.send().await?.json().await?;
            if answer["data"]["movies"].as_array().is_none() {
                bail!("the GraphQL service answered {answer}");
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(documents as f64 / begin.elapsed().as_secs_f64())
}
