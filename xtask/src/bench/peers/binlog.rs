//! `x bench peers --mysql`, `--mariadb`: the same of the binary log, which keeps no place for a reader.

use anyhow::{Context as _, Result, ensure};
use tokio::time::{Duration, Instant, sleep};
use tributary_stack::{Debezium, Kafka, KafkaOptions, MySql, MySqlOptions, MySqlProduct, MySqlSession};

use super::{
    DEFAULT, MICROSECONDS, MILLISECONDS, NANOSECONDS, Options, PATIENCE, compared, figures, into_kafka, start, stop,
};
use crate::bench::binlog::{TABLE, fill, newest, numbers};
use crate::bench::{release, usage};
use crate::parts::empty;
use crate::tools::target;

/// The tables, and what happens to them. Left out: rows with a minimal image, at the first of which Debezium's connector stops, updates with
/// `PARTIAL_JSON`, which it loses, and MariaDB's addresses, with which it cannot read the definition of a table.
const ALL: &str = include_str!("binlog.sql");
const TABLES: &str = "peers.everything,peers.kinds,peers.pairs,peers.nokey,peers.partitioned,peers.myisam,peers.done";
/// The user of Debezium, by whom its reading of the log is known.
const USER: &str = "debezium";

const TEXTS: Options = Options {
    name: "texts",
    ours: "decimals=string,times=iso,binary=hex",
    theirs: &[
        ("decimal.handling.mode", "string"),
        ("time.precision.mode", "isostring"),
        ("binary.handling.mode", "hex"),
    ],
};
const OPTIONS: [Options; 5] = [DEFAULT, TEXTS, MILLISECONDS, MICROSECONDS, NANOSECONDS];

/// The server, and what reads it.
struct Site {
    product: MySqlProduct,
    server: MySql,
    brokers: String,
}

pub(crate) async fn run(product: MySqlProduct, rows: u32) -> Result<()> {
    let version = newest(product)?;
    release().await?;
    // Debezium expects topics to be made by use.
    let settings = vec![("auto.create.topics.enable".to_owned(), "true".to_owned())];
    let kafka =
        Kafka::start(KafkaOptions { jvm: crate::bench::for_speed(), settings, ..KafkaOptions::default() }).await?;
    let server = MySql::start(MySqlOptions {
        fsync: false,
        // Dates that are none are taken.
        settings: vec![("sql-mode".to_owned(), String::new())],
        ..MySqlOptions::of(product, version)
    });
    let site = Site { product, server: server.await?, brokers: kafka.bootstrap() };
    let mut sql = site.server.session("mysql").await?;
    for statement in [&format!("create user {USER} identified by '{USER}'"), &format!("grant all on *.* to {USER}")] {
        sql.run(statement).await?;
    }
    let mut same = true;
    for options in OPTIONS {
        println!("with the options {}:", options.name);
        same &= site.compare(&mut sql, &options).await?;
    }
    let raced = site.race(&mut sql, rows).await?;
    sql.close().await?;
    site.server.stop().await?;
    kafka.stop().await?;
    println!("{raced} messages_alike={same}");
    Ok(())
}

impl Site {
    /// Whether all messages of the same changes are alike, but for differences that are meant. The database is made anew first.
    async fn compare(&self, sql: &mut MySqlSession, options: &Options) -> Result<bool> {
        for statement in ["drop database if exists peers", "create database peers character set utf8mb4", "use peers"] {
            sql.run(statement).await?;
        }
        let (kind, more, tables) = match self.product {
            MySqlProduct::MySql => ("mysql", include_str!("mysql.sql"), "peers.of_mysql"),
            MySqlProduct::MariaDb => ("mariadb", include_str!("mariadb.sql"), "peers.of_mariadb"),
        };
        let tables = format!("{tables},{TABLES}");
        let split = |text: &'static str| text.split_once("-- Changes.").context("a file without changes");
        let [(setup, changes), (setup_of_all, changes_of_all)] = [split(more)?, split(ALL)?];
        for statement in statements(setup).chain(statements(setup_of_all)) {
            sql.run(statement).await?;
        }
        let (us, them) = (format!("ours_{}", options.name), format!("theirs_{}", options.name));
        let mut ours = start(&self.server.server_url(), &us, "", &self.brokers, &tables, options.ours).await?;
        let theirs = Debezium::start(&self.debezium(&them, &tables, options.theirs)?).await?;
        self.until_theirs_reads(sql).await?;
        for statement in statements(changes).chain(statements(changes_of_all)) {
            sql.run(statement).await?;
        }
        for who in [&us, &them] {
            into_kafka(&self.brokers, &format!("{who}.peers.done"), 1).await?;
        }
        stop(&mut ours).await?;
        theirs.stop().await?;
        compared(kind, &self.brokers, &us, &them, &tables).await
    }

    /// The same rows, in transactions of a hundred, captured by each while the other rests.
    async fn race(&self, sql: &mut MySqlSession, rows: u32) -> Result<String> {
        numbers(sql, "race").await?;
        for statement in [TABLE, "create table done (id int primary key)"] {
            sql.run(statement).await?;
        }
        let tables = "race.bench_row,race.done";
        let url = self.server.server_url();
        // Each is started once for its place in the log; theirs keeps one when there was something to read.
        let mut ours = start(&url, "race_ours", "", &self.brokers, tables, "").await?;
        let theirs = Debezium::start(&self.debezium("race_theirs", tables, &[])?).await?;
        self.until_theirs_reads(sql).await?;
        sql.run("insert into done values (1)").await?;
        for who in ["race_ours", "race_theirs"] {
            into_kafka(&self.brokers, &format!("{who}.race.done"), 1).await?;
        }
        sleep(Duration::from_secs(2)).await;
        stop(&mut ours).await?;
        theirs.stop().await?;
        fill(sql, rows, 100).await?;
        sql.run("insert into done values (2)").await?;

        let begin = Instant::now();
        let mut ours = start(&url, "race_ours", "", &self.brokers, tables, "").await?;
        into_kafka(&self.brokers, "race_ours.race.done", 2).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let used = usage(ours.id().unwrap_or_default());
        stop(&mut ours).await?;
        let first = figures("ours", rows, seconds, used);

        let begin = Instant::now();
        let theirs = Debezium::start(&self.debezium("race_theirs", tables, &[])?).await?;
        into_kafka(&self.brokers, "race_theirs.race.done", 2).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let used = usage(theirs.pid().await.unwrap_or_default());
        theirs.stop().await?;
        Ok(format!("{first} {}", figures("debezium", rows, seconds, used)))
    }

    /// Debezium's settings: its defaults for values, its best for speed. What it keeps outlives it.
    fn debezium(&self, name: &str, tables: &str, options: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
        let folder = target().join(format!("bench/debezium-{}-{}-{name}", self.product, std::process::id()));
        if !folder.exists() {
            empty(&folder)?;
        }
        let class = match self.product {
            MySqlProduct::MySql => "io.debezium.connector.mysql.MySqlConnector",
            MySqlProduct::MariaDb => "io.debezium.connector.mariadb.MariaDbConnector",
        };
        let (port, kept) = (self.server.port().to_string(), |file: &str| folder.join(file).display().to_string());
        let (history, offsets) = (kept("history"), kept("offsets"));
        let mut settings = super::sink(&self.brokers);
        let pairs = [
            ("connector.class", class),
            ("offset.storage.file.filename", &offsets),
            ("schema.history.internal", "io.debezium.storage.file.history.FileSchemaHistory"),
            ("schema.history.internal.file.filename", &history),
            ("database.hostname", "127.0.0.1"),
            ("database.port", &port),
            ("database.user", USER),
            ("database.password", USER),
            ("database.server.id", "77001"),
            ("driver.allowPublicKeyRetrieval", "true"),
            ("topic.prefix", name),
            ("table.include.list", tables),
            ("snapshot.mode", "no_data"),
            ("skipped.operations", "none"),
            ("include.schema.changes", "false"),
            ("include.unknown.datatypes", "true"),
            ("provide.transaction.metadata", "true"),
            ("offset.flush.interval.ms", "100"),
            ("max.batch.size", "16384"),
            ("max.queue.size", "65536"),
            ("poll.interval.ms", "10"),
        ];
        let all = pairs.iter().chain(options);
        settings.extend(all.map(|(key, value)| (format!("debezium.source.{key}"), (*value).to_owned())));
        Ok(settings)
    }

    /// Waits until Debezium reads the log.
    async fn until_theirs_reads(&self, sql: &mut MySqlSession) -> Result<()> {
        let reading = format!(
            "select id from information_schema.processlist where user = '{USER}' and command like 'Binlog Dump%'"
        );
        let begin = Instant::now();
        while sql.rows(&reading).await?.is_empty() {
            ensure!(begin.elapsed() < PATIENCE, "Debezium did not begin to read within {PATIENCE:?}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

/// The statements of a text, each of which ends with a line.
fn statements(text: &str) -> impl Iterator<Item = &str> {
    text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty())
}
