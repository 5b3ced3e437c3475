//! `x test`: every test, on real servers that this command fetches and starts once.
//!
//! The tests learn the servers' addresses from `TRIBUTARY_TEST_POSTGRES`, `…_MYSQL`, `…_MARIADB`, `…_KAFKA`, `…_ELASTICSEARCH` and
//! `…_OPENSEARCH`. A test that stops or breaks a server starts one of its own.
//!
//! The connector's tests then run again on the oldest PostgreSQL that is supported, and those of the document stores on the
//! oldest Elasticsearch and OpenSearch, and those of binary logs on older MariaDB. What depends on the version of a broker is tested again on the oldest Kafka, and on the last one
//! before 4; `--kafka 4.1,4.3,3.9,2.8` runs all tests of the transport on each. In the end there are the demos, and two minutes of `x chaos`.
//! Where `CI` is set, old search servers, brokers and MariaDB are left out, and the oldest PostgreSQL has the tests of its values and of starts again.

mod lanes;

use crate::chaos;
use crate::demo;
use crate::interrupt::unless_interrupted;
use crate::parts::Wanted;
use crate::tools;
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;
use tokio::process::Command;
use tributary_stack::{Clock, GraphqlProduct, MySqlProduct, Part, prefetch};

/// Versions of Kafka on which those tests run that depend on it, where nobody asks for others.
const OTHER_BROKERS: [&str; 2] = ["3.9", "2.8"];
/// How those tests begin.
const BY_VERSION: &str = "versions::";
/// How long everything is hurt in the end.
const CHAOS_MINUTES: u32 = 2;

/// Options of `x test`.
#[derive(Args, Debug, Default)]
pub(crate) struct Arguments {
    /// Leave out parts that this machine cannot have, and the tests that need them (refused when CI=true)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    without: Vec<Without>,
    /// Major versions of PostgreSQL: all tests run on the first, those of the connector on each [default: 18,14]
    #[arg(long, value_delimiter = ',', value_name = "VERSIONS")]
    postgres: Vec<String>,
    /// Major versions of Elasticsearch: all tests run on the first, those of the document stores on each [default: 9,8]
    #[arg(long, value_delimiter = ',', value_name = "VERSIONS")]
    elasticsearch: Vec<String>,
    /// Major versions of OpenSearch, likewise [default: 3,2]
    #[arg(long, value_delimiter = ',', value_name = "VERSIONS")]
    opensearch: Vec<String>,
    /// Versions of Kafka: all tests run on the first, those of the transport on each [default: 4.1, and what depends on the version on 3.9 and 2.8]
    #[arg(long, value_delimiter = ',', value_name = "VERSIONS")]
    kafka: Vec<String>,
    /// Versions of MariaDB: all tests run on the first, those of binary logs on each [default: those that this machine can have]
    #[arg(long, value_delimiter = ',', value_name = "VERSIONS")]
    mariadb: Vec<String>,
    /// What `cargo test` gets instead of `--workspace`, for example `-p tributary-indexer -- store`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    cargo: Vec<String>,
}

/// A part that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Without {
    Kafka,
    Elasticsearch,
    Opensearch,
    Mysql,
    Mariadb,
    /// An object store
    S3,
    /// DuckDB, which pip fetches
    Duckdb,
    /// GraphQL servers that others wrote, which npm fetches
    Foreign,
}

/// Runs the tests and returns the exit code of `cargo test`.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    if !arguments.without.is_empty() && tools::is_ci() {
        bail!("--without is refused when CI=true: there every part must be tested");
    }
    unless_interrupted(Box::pin(test(arguments))).await
}

/// Fetches what all tests need, so that it is there when they begin.
pub(crate) async fn fetch() -> Result<()> {
    prefetch(&Versions::of(&Arguments::default()).parts()).await
}

/// The versions of every server that are tested; those that all tests run on come first.
struct Versions {
    postgres: Vec<String>,
    elasticsearch: Vec<String>,
    opensearch: Vec<String>,
    kafka: Vec<String>,
    mariadb: Vec<String>,
    /// Those of Kafka on which a few tests run.
    others: &'static [&'static str],
    without: Vec<Without>,
}

impl Versions {
    /// In an hour of continuous integration there is room for a few tests on the oldest PostgreSQL, and for no other old server.
    fn of(arguments: &Arguments) -> Self {
        let Arguments { without, postgres, elasticsearch, opensearch, kafka, mariadb, cargo } = arguments;
        let is_short = tools::is_ci();
        let unless = |part, versions| if without.contains(&part) { Vec::new() } else { versions };
        let of_stores =
            |asked: &[String], both: [&str; 2]| if is_short { or(asked, [both[0]]) } else { or(asked, both) };
        let mariadbs = MySqlProduct::MariaDb.versions().iter().take(if is_short { 1 } else { usize::MAX });
        let to_have = mariadbs.map(|version| (*version).to_owned()).collect();
        let has_others = kafka.is_empty() && cargo.is_empty() && !without.contains(&Without::Kafka) && !is_short;
        Self {
            postgres: or(postgres, ["18", "14"]),
            elasticsearch: unless(Without::Elasticsearch, of_stores(elasticsearch, ["9", "8"])),
            opensearch: unless(Without::Opensearch, of_stores(opensearch, ["3", "2"])),
            kafka: unless(Without::Kafka, or(kafka, ["4.1"])),
            mariadb: unless(Without::Mariadb, if mariadb.is_empty() { to_have } else { mariadb.clone() }),
            others: if has_others { &OTHER_BROKERS } else { &[] },
            without: without.clone(),
        }
    }

    /// The servers that all tests run on.
    fn wanted(&self) -> Wanted {
        let mysql = MySqlProduct::MySql;
        let leaves_mysql_out = self.without.contains(&Without::Mysql) || mysql.left_out().is_some();
        Wanted {
            postgres: self.postgres.first().cloned(),
            mysql: mysql.newest().filter(|_| !leaves_mysql_out).map(str::to_owned),
            mariadb: self.mariadb.first().cloned(),
            kafka: self.kafka.first().cloned(),
            elasticsearch: self.elasticsearch.first().cloned(),
            opensearch: self.opensearch.first().cloned(),
        }
    }

    /// All that can be fetched before the tests begin.
    fn parts(&self) -> Vec<Part> {
        let mut parts = self.wanted().parts();
        parts.extend(self.postgres.iter().skip(1).cloned().map(Part::Postgres));
        // Without npm their tests say one by one that they are left out.
        if !self.without.contains(&Without::Foreign) && GraphqlProduct::left_out().is_none() {
            parts.extend(GraphqlProduct::ALL.map(Part::Graphql));
        }
        if !self.without.contains(&Without::S3) {
            parts.push(Part::S3);
        }
        if !self.without.contains(&Without::Duckdb) {
            parts.push(Part::DuckDb);
        }
        if Clock::left_out().is_none() {
            parts.push(Part::Clock);
        }
        parts
    }
}

async fn test(arguments: Arguments) -> Result<ExitCode> {
    let versions = Versions::of(&arguments);
    let Arguments { without, cargo, .. } = arguments;
    let everything = cargo.is_empty();
    let cargo = if cargo.iter().any(|word| word == "-p" || word == "--package" || word == "--workspace") {
        cargo
    } else {
        [["--workspace", "--features", tools::WASM].map(str::to_owned).into(), cargo].concat()
    };
    let is_short = tools::is_ci();
    if let (true, Some(cause)) = (is_short, GraphqlProduct::left_out()) {
        bail!("{cause}: with CI=true every part must be tested, GraphQL servers that others wrote too");
    }
    let at = cargo.iter().position(|word| word == "--").unwrap_or(cargo.len());
    let (build, filters) = cargo.split_at(at);
    let mut compiling = tools::cargo();
    compiling.args(["test", "--no-run"]).args(build);
    let advice = "a part of the stack cannot be had on this machine; `x test --without \
                  kafka,elasticsearch,opensearch,mysql,mariadb,s3,foreign` leaves parts out, and says so";
    // The one needs the processor, the other the network. Servers start later: they would take time and memory from the compiler.
    let parts = versions.parts();
    let (compiled, fetched) = tokio::join!(compiling.status(), Box::pin(prefetch(&parts)));
    let status = compiled.context("starting cargo")?;
    if !status.success() {
        return Ok(tools::exit_code(status));
    }
    fetched.context(advice)?;

    let left_out = |part| without.contains(&part);
    let begin = Instant::now();
    let running = versions.wanted().start().await.context(advice)?;
    let mysql = versions.wanted().mysql;
    let Versions { postgres, elasticsearch, opensearch, kafka, mariadb, others, .. } = versions;
    for product in [MySqlProduct::MySql, MySqlProduct::MariaDb] {
        if let Some(cause) = product.left_out() {
            println!("NOT TESTED: tables of {product}: {cause}");
        }
    }
    for (name, _, address) in running.addresses() {
        println!("{name:<14} {address}");
    }
    println!("servers ready after {:.1} s", begin.elapsed().as_secs_f64());
    let words: Vec<String> =
        without.iter().filter_map(|part| Some(part.to_possible_value()?.get_name().to_owned())).collect();
    if !words.is_empty() {
        println!("NOT TESTED, left out by --without: {}", words.join(", "));
    }
    if let Some(cause) = GraphqlProduct::left_out() {
        let products = GraphqlProduct::ALL.map(|product| product.to_string()).join(", ");
        println!("NOT TESTED: pipelines in front of {products}: {cause}");
    }
    let without = words.join(",");
    let equip = |tests: &mut Command| {
        for (_, variable, address) in running.addresses() {
            tests.env(variable, address);
        }
        if let Some(version) = kafka.first() {
            tests.env("TRIBUTARY_TEST_KAFKA_VERSION", version);
        }
        tests.env("TRIBUTARY_TEST_WITHOUT", &without);
        // Tests name the servers they need.
        if !words.is_empty() && at == cargo.len() {
            tests.arg("--");
        }
        words.iter().for_each(|word| _ = tests.arg("--skip").arg(word));
    };
    let mut status = if everything {
        lanes::run(equip).await?
    } else {
        let mut tests = tools::cargo();
        tests.args(["test", "--no-fail-fast"]).args(&cargo);
        equip(&mut tests);
        lanes::limit(&mut tests, lanes::threads());
        tests.status().await.context("starting cargo")?
    };
    running.stop().await?;
    let few = ["--", "resume::", "types::"].map(str::to_owned);
    let on_old = if is_short && everything { &few } else { filters };
    for version in postgres.into_iter().skip(1) {
        let wanted = Wanted { postgres: Some(version), kafka: kafka.first().cloned(), ..Wanted::default() };
        let again = tests_on(wanted, "postgres", on_old, &without).await?;
        status = if status.success() { again } else { status };
    }
    for version in mariadb.into_iter().skip(1) {
        // Tests want one of each.
        let wanted = Wanted { mysql: mysql.clone(), mariadb: Some(version), ..Wanted::default() };
        let again = tests_on(wanted, "mysql", filters, &without).await?;
        status = if status.success() { again } else { status };
    }
    for version in kafka.iter().skip(1) {
        let wanted = Wanted { kafka: Some(version.clone()), ..Wanted::default() };
        let again = tests_on(wanted, "contract", filters, &without).await?;
        status = if status.success() { again } else { status };
    }
    for version in others {
        let wanted = Wanted { kafka: Some((*version).to_owned()), ..Wanted::default() };
        let alone = ["--".to_owned(), BY_VERSION.to_owned()];
        let again = tests_on(wanted, "contract", &alone, &without).await?;
        status = if status.success() { again } else { status };
    }
    // The shorter list goes on with its last version: the tests want one of each.
    let nth = |versions: &[String], n: usize| versions.get(n).or(versions.last()).cloned();
    for n in 1..elasticsearch.len().max(opensearch.len()) {
        let (elasticsearch, opensearch) = (nth(&elasticsearch, n), nth(&opensearch, n));
        let wanted = Wanted { elasticsearch, opensearch, ..Wanted::default() };
        let again = tests_on(wanted, "document_stores", filters, &without).await?;
        status = if status.success() { again } else { status };
    }
    if !everything {
        return Ok(tools::exit_code(status));
    }
    let shown = demos(left_out(Without::Mysql) || MySqlProduct::MySql.left_out().is_some()).await;
    if left_out(Without::Kafka) || left_out(Without::Elasticsearch) {
        return Ok(if status.success() { shown } else { tools::exit_code(status) });
    }
    let survived = chaos::run(chaos::Arguments { minutes: CHAOS_MINUTES, seed: None }).await?;
    Ok(match (status.success(), shown == ExitCode::SUCCESS) {
        (false, _) => tools::exit_code(status),
        (true, false) => shown,
        (true, true) => survived,
    })
}

/// The demos, each of which proves what it shows.
async fn demos(without_mysql: bool) -> ExitCode {
    for arguments in demo::Arguments::proofs(without_mysql) {
        println!("\nx demo{arguments}");
        match Box::pin(demo::run(arguments)).await {
            Ok(ExitCode::SUCCESS) => {}
            Ok(failed) => return failed,
            Err(error) => {
                eprintln!("error: {error:#}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The versions that were asked for, or these.
fn or<const N: usize>(asked: &[String], otherwise: [&str; N]) -> Vec<String> {
    if asked.is_empty() { otherwise.map(str::to_owned).into() } else { asked.to_vec() }
}

/// Runs one room's tests on other versions of the servers.
async fn tests_on(wanted: Wanted, room: &str, filters: &[String], without: &str) -> Result<ExitStatus> {
    let parts: Vec<String> = wanted.parts().iter().map(ToString::to_string).collect();
    println!("again on {}", parts.join(" and "));
    let kafka = wanted.kafka.clone();
    let running = wanted.start().await?;
    let mut tests = tools::cargo();
    tests.args(["test", "--no-fail-fast", "--workspace", "--features", tools::WASM, "--test", room]).args(filters);
    // Those that start brokers of their own.
    if let Some(version) = kafka {
        tests.env("TRIBUTARY_TEST_KAFKA_VERSION", version);
    }
    if !without.is_empty() && filters.is_empty() {
        tests.arg("--");
    }
    for part in without.split(',').filter(|part| !part.is_empty()) {
        tests.arg("--skip").arg(part);
    }
    for (name, variable, address) in running.addresses() {
        println!("{name:<14} {address}");
        tests.env(variable, address);
    }
    tests.env("TRIBUTARY_TEST_WITHOUT", without);
    let status = tests.status().await.context("starting cargo")?;
    running.stop().await?;
    Ok(status)
}
