//! `x test`: every test, on real servers that this command fetches and starts once.
//!
//! The tests learn the servers' addresses from `TRIBUTARY_TEST_POSTGRES`, `…_KAFKA`, `…_ELASTICSEARCH` and
//! `…_OPENSEARCH`. A test that stops or breaks a server starts one of its own.
//!
//! The connector's tests then run again on the oldest PostgreSQL that is supported.

use crate::interrupt::unless_interrupted;
use crate::parts::Wanted;
use crate::tools;
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use std::process::{ExitCode, ExitStatus};
use std::time::Instant;

/// Options of `x test`.
#[derive(Args, Debug, Default)]
pub(crate) struct Arguments {
    /// Leave out parts that this machine cannot have, and the tests that need them (refused when CI=true)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PARTS")]
    without: Vec<Without>,
    /// Major versions of PostgreSQL: all tests run on the first, those of the connector on each [default: 18,14]
    #[arg(long, value_delimiter = ',', value_name = "VERSIONS")]
    postgres: Vec<String>,
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
}

/// Runs the tests and returns the exit code of `cargo test`.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    if !arguments.without.is_empty() && tools::is_ci() {
        bail!("--without is refused when CI=true: there every part must be tested");
    }
    unless_interrupted(Box::pin(test(arguments))).await
}

async fn test(Arguments { without, postgres, cargo }: Arguments) -> Result<ExitCode> {
    let cargo = if cargo.iter().any(|word| word == "-p" || word == "--package" || word == "--workspace") {
        cargo
    } else {
        [vec!["--workspace".to_owned()], cargo].concat()
    };
    // Compiling first: it needs both the time and the memory that idle servers would take.
    let postgres = if postgres.is_empty() { ["18", "14"].map(str::to_owned).into() } else { postgres };
    let at = cargo.iter().position(|word| word == "--").unwrap_or(cargo.len());
    let (build, filters) = cargo.split_at(at);
    let status = tools::cargo().args(["test", "--no-run"]).args(build).status().await.context("starting cargo")?;
    if !status.success() {
        return Ok(tools::exit_code(status));
    }

    let left_out = |part| without.contains(&part);
    let wanted = Wanted {
        postgres: postgres.first().cloned(),
        kafka: !left_out(Without::Kafka),
        elasticsearch: !left_out(Without::Elasticsearch),
        opensearch: !left_out(Without::Opensearch),
    };
    let begin = Instant::now();
    let advice = "a part of the stack cannot be had on this machine; `x test --without kafka,elasticsearch,opensearch` \
                  leaves parts out, and says so";
    let running = wanted.start().await.context(advice)?;
    let mut tests = tools::cargo();
    tests.args(["test", "--no-fail-fast"]).args(&cargo);
    for (name, variable, address) in running.addresses() {
        println!("{name:<14} {address}");
        tests.env(variable, address);
    }
    println!("servers ready after {:.1} s", begin.elapsed().as_secs_f64());
    let words: Vec<String> =
        without.iter().filter_map(|part| Some(part.to_possible_value()?.get_name().to_owned())).collect();
    if !words.is_empty() {
        println!("NOT TESTED, left out by --without: {}", words.join(", "));
    }
    tests.env("TRIBUTARY_TEST_WITHOUT", words.join(","));
    let mut status = tests.status().await.context("starting cargo")?;
    running.stop().await?;
    for version in postgres.iter().skip(1) {
        let again = connector_tests(version, filters).await?;
        status = if status.success() { again } else { status };
    }
    Ok(tools::exit_code(status))
}

/// Runs the connector's tests on another version of PostgreSQL.
async fn connector_tests(version: &str, filters: &[String]) -> Result<ExitStatus> {
    let running = Wanted { postgres: Some(version.to_owned()), ..Wanted::default() }.start().await?;
    let mut tests = tools::cargo();
    tests.args(["test", "--no-fail-fast", "--workspace", "--test", "postgres"]).args(filters);
    for (name, variable, address) in running.addresses() {
        println!("{name} {version:<3} {address}");
        tests.env(variable, address);
    }
    let status = tests.status().await.context("starting cargo")?;
    running.stop().await?;
    Ok(status)
}
