//! `x bench peers`: our connector and Debezium Server on the same changes, both into Kafka. First every message is compared with
//! its twin, over a table with every type and tables with every kind of change, with the defaults and with other options for
//! values; then both capture the same rows. `--mysql` and `--mariadb`: the same of a binary log (`binlog.rs`).

pub(super) mod binlog;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio_postgres::{Client, NoTls};
use tributary_stack::{Debezium, Kafka, KafkaOptions, Postgres, PostgresOptions, read_with_flink};

use super::{capture, release, usage};
use crate::tools::target;

/// The tables, and what happens to them.
const SETUP: &str = include_str!("setup.sql");
const CHANGES: &str = include_str!("changes.sql");
/// Types of extensions that the stack's PostgreSQL does not bring, on a server that has them.
const EXTENSIONS: [(&str, &str); 2] =
    [("postgis", include_str!("postgis.sql")), ("vector", include_str!("vector.sql"))];
/// Options for values.
struct Options {
    name: &'static str,
    ours: &'static str,
    theirs: &'static [(&'static str, &'static str)],
}

const DEFAULT: Options = Options { name: "default", ours: "", theirs: &[] };
const MILLISECONDS: Options = Options {
    name: "milliseconds",
    ours: "decimals=double,times=milliseconds,binary=base64_url",
    theirs: &[
        ("decimal.handling.mode", "double"),
        ("time.precision.mode", "connect"),
        ("binary.handling.mode", "base64-url-safe"),
    ],
};
const MICROSECONDS: Options =
    Options { name: "microseconds", ours: "times=microseconds", theirs: &[("time.precision.mode", "microseconds")] };
const NANOSECONDS: Options =
    Options { name: "nanoseconds", ours: "times=nanoseconds", theirs: &[("time.precision.mode", "nanoseconds")] };
const TEXTS: Options = Options {
    name: "texts",
    ours: "decimals=string,times=iso,binary=hex,hstore=map,intervals=text",
    theirs: &[
        ("decimal.handling.mode", "string"),
        ("time.precision.mode", "isostring"),
        ("binary.handling.mode", "hex"),
        ("hstore.handling.mode", "map"),
        ("interval.handling.mode", "string"),
    ],
};
const OPTIONS: [Options; 5] = [DEFAULT, TEXTS, MILLISECONDS, MICROSECONDS, NANOSECONDS];
const TABLES: &str = "public.everything,public.kinds,public.whole,public.pairs,public.nokey";
const PATIENCE: Duration = Duration::from_secs(300);

/// On a server of the caller's, by its superuser's URL without a database, or on one of the stack.
pub(super) async fn run(rows: u32, server: Option<String>) -> Result<()> {
    release().await?;
    // Debezium expects topics to be made by use.
    let settings = vec![("auto.create.topics.enable".to_owned(), "true".to_owned())];
    let kafka = Kafka::start(KafkaOptions { jvm: super::for_speed(), settings, ..KafkaOptions::default() }).await?;
    let (postgres, url) = match server {
        Some(server) => (None, format!("{}/postgres", server.trim_end_matches('/'))),
        None => {
            let postgres = Postgres::start(PostgresOptions::default()).await?;
            let url = postgres.url("postgres");
            (Some(postgres), url)
        }
    };
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driving = tokio::spawn(connection);
    let mut same = true;
    for options in OPTIONS {
        println!("with the options {}:", options.name);
        same &= compare(&client, &url, &kafka.bootstrap(), &options).await?;
    }
    let flink_rows = flink(&kafka.bootstrap()).await?;
    let figures = race(&client, &url, &kafka.bootstrap(), rows).await?;
    drop(client);
    driving.await?.context("closing the connection")?;
    if let Some(postgres) = postgres {
        postgres.stop().await?;
    }
    kafka.stop().await?;
    println!("{figures} messages_alike={same} flink_rows_alike={flink_rows}");
    Ok(())
}

/// Whether all messages of the same changes are alike, but for differences that are meant. The database is emptied first.
async fn compare(client: &Client, url: &str, brokers: &str, options: &Options) -> Result<bool> {
    client.batch_execute("DROP PUBLICATION IF EXISTS peers; DROP SCHEMA public CASCADE; CREATE SCHEMA public").await?;
    client.batch_execute(SETUP).await.context("making the tables")?;
    let mut tables = TABLES.to_owned();
    let mut changes = CHANGES.to_owned();
    for (extension, sql) in EXTENSIONS {
        const AVAILABLE: &str = "SELECT FROM pg_available_extensions WHERE name = $1";
        if client.query_opt(AVAILABLE, &[&extension]).await?.is_none() {
            println!("this server has no {extension}: its types are not compared");
            continue;
        }
        let (setup, rows) = sql.split_once("-- Changes.").context("a file without changes")?;
        client.batch_execute(setup).await.with_context(|| format!("making the table of {extension}"))?;
        tables = format!("{tables},public.of_{extension}");
        changes.push_str(rows);
    }
    client.batch_execute("CREATE PUBLICATION peers FOR ALL TABLES WITH (publish_via_partition_root = true)").await?;
    let (us, them) = (format!("ours_{}", options.name), format!("theirs_{}", options.name));
    let slots = [format!("tributary_{us}"), them.clone()];
    let slots = slots.each_ref().map(String::as_str);
    let mut ours = start(url, &us, "peers", brokers, &tables, options.ours).await?;
    let mut settings = debezium(url, &them, "peers", brokers, &tables)?;
    settings.extend(options.theirs.iter().map(|(key, value)| (format!("debezium.source.{key}"), (*value).to_owned())));
    let theirs = Debezium::start(&settings).await?;
    until_active(client, &slots).await?;
    client.batch_execute(&changes).await.context("changing rows")?;
    let end: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
    until_confirmed(client, &slots, &end).await?;
    stop(&mut ours).await?;
    theirs.stop().await?;
    for slot in slots {
        client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await?;
    }
    compared("postgres", brokers, &us, &them, &format!("{tables},message")).await
}

/// Whether the messages of these topics are alike, but for what is meant of this kind of database.
async fn compared(kind: &str, brokers: &str, us: &str, them: &str, topics: &str) -> Result<bool> {
    let status = Command::new(target().join("release/examples/compare"))
        .args([kind, brokers, us, them, topics])
        .status()
        .await
        .context("starting the comparison")?;
    Ok(status.success())
}

/// Waits until a topic's first partition has so many messages.
async fn into_kafka(brokers: &str, topic: &str, messages: u32) -> Result<()> {
    let mut waiting = Command::new(target().join("release/examples/compare"));
    waiting.args(["wait", brokers, topic, &messages.to_string()]).kill_on_drop(true);
    let status = tokio::time::timeout(PATIENCE, waiting.status()).await;
    let status = status.with_context(|| format!("topic {topic} had no {messages} messages within {PATIENCE:?}"))?;
    if !status.context("starting to wait for messages")?.success() {
        bail!("waiting for messages of topic {topic} failed");
    }
    Ok(())
}

/// What Flink's `debezium-json` makes of a table's messages, ours and theirs: the number of rows, which must be the same ones.
async fn flink(brokers: &str) -> Result<usize> {
    let mut read = Vec::new();
    for who in ["ours", "theirs"] {
        let output = Command::new(target().join("release/examples/compare"))
            .args(["print", brokers, &format!("{who}_default.public.whole")])
            .output()
            .await
            .context("reading the topic")?;
        if !output.status.success() {
            bail!("reading the topic: {}", String::from_utf8_lossy(&output.stderr));
        }
        // Flink knows no truncation, which Debezium leaves out by default, and a publication can.
        let messages = String::from_utf8(output.stdout)?;
        let messages: Vec<&str> = messages.lines().filter(|line| !line.contains(r#""op":"t""#)).collect();
        read.push(read_with_flink(&messages.join("\n")).await?);
    }
    let [ours, theirs] = &read[..] else { bail!("two were read") };
    if ours != theirs || ours.is_empty() {
        bail!("Flink reads of ours:\n{ours}and of theirs:\n{theirs}");
    }
    println!("Flink reads the same {} rows of both", ours.lines().count());
    Ok(ours.lines().count())
}

/// The same rows, in transactions of a hundred, captured by each while the other rests.
async fn race(client: &Client, url: &str, brokers: &str, rows: u32) -> Result<String> {
    client.batch_execute(capture::TABLE).await?;
    client.batch_execute("DROP PUBLICATION IF EXISTS race").await?;
    client
        .batch_execute("CREATE PUBLICATION race FOR TABLE bench_row WITH (publish_via_partition_root = true)")
        .await?;
    // Each is started once for its slot.
    let mut ours = start(url, "race_ours", "race", brokers, "public.bench_row", "").await?;
    until_active(client, &["tributary_race_ours"]).await?;
    stop(&mut ours).await?;
    client.batch_execute("SELECT pg_create_logical_replication_slot('race_theirs', 'pgoutput')").await?;
    capture::fill(client, rows, 100).await?;
    let end: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);

    let begin = Instant::now();
    let mut ours = start(url, "race_ours", "race", brokers, "public.bench_row", "").await?;
    until_confirmed(client, &["tributary_race_ours"], &end).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let used = usage(ours.id().unwrap_or_default());
    stop(&mut ours).await?;
    let first = figures("ours", rows, seconds, used);

    let begin = Instant::now();
    let theirs = Debezium::start(&debezium(url, "race_theirs", "race", brokers, "public.bench_row")?).await?;
    until_confirmed(client, &["race_theirs"], &end).await?;
    let seconds = begin.elapsed().as_secs_f64();
    let used = usage(theirs.pid().await.unwrap_or_default());
    theirs.stop().await?;
    for slot in ["tributary_race_ours", "race_theirs"] {
        client.execute("SELECT pg_drop_replication_slot($1)", &[&slot]).await?;
    }
    Ok(format!("{first} {}", figures("debezium", rows, seconds, used)))
}

/// From the start of the process, so that what it needs to start counts.
fn figures(who: &str, rows: u32, seconds: f64, (cpu, rss): (f64, f64)) -> String {
    let rows = f64::from(rows);
    println!("{who}: {:.0} rows/s, {:.1} CPU-s per million, {rss:.0} MB", rows / seconds, cpu * 1e6 / rows);
    format!("{who}_s={seconds:.2} {who}_cpu_s_per_million={:.1} {who}_rss_mb={rss:.0}", cpu * 1e6 / rows)
}

async fn start(url: &str, name: &str, publication: &str, brokers: &str, tables: &str, options: &str) -> Result<Child> {
    let mut child = Command::new(target().join("release/examples/capture"))
        .args([url, name, publication, brokers, tables])
        .args((!options.is_empty()).then_some(options))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting our connector")?;
    let mut said = String::new();
    BufReader::new(child.stdout.take().context("its output")?).read_line(&mut said).await?;
    if said.trim() != "ready" {
        bail!("our connector did not start: {said}");
    }
    Ok(child)
}

async fn stop(child: &mut Child) -> Result<()> {
    drop(child.stdin.take());
    let status = child.wait().await?;
    if !status.success() {
        bail!("our connector failed ({status})");
    }
    Ok(())
}

/// Debezium's settings: its defaults for values, its best for speed.
fn debezium(url: &str, name: &str, publication: &str, brokers: &str, tables: &str) -> Result<Vec<(String, String)>> {
    let config: tokio_postgres::Config = url.parse().context("the server's URL")?;
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let host = match config.get_hosts().first() {
        Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
        _ => bail!("Debezium needs a TCP address: name the host in the url"),
    };
    let user = config.get_user().unwrap_or("postgres").to_owned();
    let password = String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned();
    let (port, tables) = (port.to_string(), tables.to_owned());
    let source = |key: &str| format!("debezium.source.{key}");
    let pairs = [
        (source("connector.class"), "io.debezium.connector.postgresql.PostgresConnector"),
        (source("database.hostname"), &host),
        (source("database.port"), &port),
        (source("database.user"), &user),
        (source("database.password"), &password),
        (source("database.dbname"), "postgres"),
        (source("topic.prefix"), name),
        (source("plugin.name"), "pgoutput"),
        (source("slot.name"), name),
        (source("publication.name"), publication),
        (source("publication.autocreate.mode"), "disabled"),
        (source("table.include.list"), &tables),
        (source("snapshot.mode"), "no_data"),
        (source("skipped.operations"), "none"),
        (source("include.unknown.datatypes"), "true"),
        (source("provide.transaction.metadata"), "true"),
        (source("offset.flush.interval.ms"), "100"),
        (source("max.batch.size"), "16384"),
        (source("max.queue.size"), "65536"),
        (source("poll.interval.ms"), "10"),
    ];
    let mut settings = sink(brokers);
    settings.extend(pairs.into_iter().map(|(key, value)| (key, value.to_owned())));
    Ok(settings)
}

/// Its settings of the way into Kafka.
fn sink(brokers: &str) -> Vec<(String, String)> {
    let serializer = "org.apache.kafka.common.serialization.StringSerializer";
    let producer = |key: &str| format!("debezium.sink.kafka.producer.{key}");
    let pairs = [
        ("debezium.sink.type".to_owned(), "kafka"),
        (producer("bootstrap.servers"), brokers),
        (producer("key.serializer"), serializer),
        (producer("value.serializer"), serializer),
        (producer("linger.ms"), "20"),
        (producer("batch.size"), "262144"),
        (producer("compression.type"), "lz4"),
        ("debezium.format.value.schemas.enable".to_owned(), "false"),
        ("debezium.format.key.schemas.enable".to_owned(), "false"),
    ];
    pairs.into_iter().map(|(key, value)| (key, value.to_owned())).collect()
}

async fn until_active(client: &Client, slots: &[&str]) -> Result<()> {
    const SQL: &str = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = ANY($1) AND active";
    until(client, SQL, &[&slots], slots).await
}

async fn until_confirmed(client: &Client, slots: &[&str], end: &str) -> Result<()> {
    const SQL: &str = "SELECT count(*) FROM pg_replication_slots \
        WHERE slot_name = ANY($1) AND confirmed_flush_lsn >= $2::text::pg_lsn";
    until(client, SQL, &[&slots, &end], slots).await
}

async fn until(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    slots: &[&str],
) -> Result<()> {
    let begin = Instant::now();
    while client.query_one(sql, parameters).await?.get::<_, i64>(0) < slots.len() as i64 {
        if begin.elapsed() > PATIENCE {
            bail!("the slots {slots:?} did not get there within {PATIENCE:?}");
        }
        // Debezium confirms what it has passed on only with a later change.
        client.batch_execute("SELECT pg_logical_emit_message(false, 'end', '')").await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
