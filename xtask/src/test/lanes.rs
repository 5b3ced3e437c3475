//! All tests in two lanes that run at the same time: most tests wait most of the time, and cargo runs one program after the other.

use crate::tools;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::fs::File;
use std::process::{ExitStatus, Stdio};
use tokio::process::Command;

/// The test that takes as long as all others together.
const LONGEST: &str = "scenarios";
/// How many tests of a program run at a time.
const THREADS: &str = "RUST_TEST_THREADS";

/// Runs the longest test, whose output is seen at once, and beside it all others, whose output follows.
/// `equip` gives a command what every test needs.
pub(crate) async fn run(equip: impl Fn(&mut Command)) -> Result<ExitStatus> {
    let tests = targets().await?;
    let output = tools::target().join("tests-beside.log");
    let file = File::create(&output).with_context(|| format!("creating {}", output.display()))?;
    let lane = |names: &[&str]| {
        let mut command = tools::cargo();
        command.args(["test", "--no-fail-fast", "--workspace", "--features", tools::WASM]);
        command.args(names);
        equip(&mut command);
        command
    };
    let mut longest = lane(&["--test", LONGEST]);
    let others: Vec<&str> = tests.iter().filter(|name| *name != LONGEST).flat_map(|name| ["--test", name]).collect();
    let mut beside = lane(&[&["--lib", "--bins"], others.as_slice()].concat());
    beside.stdout(file.try_clone()?).stderr(file).stdin(Stdio::null());
    limit(&mut longest, threads());
    limit(&mut beside, threads().saturating_sub(1).max(1));
    println!("tests other than `{LONGEST}` run beside it; what they print follows, and is in {}", output.display());
    let (longest, beside) = (longest.spawn(), beside.spawn());
    let (mut longest, mut beside) = (longest.context("starting cargo")?, beside.context("starting cargo")?);
    let (longest, beside) = tokio::try_join!(longest.wait(), beside.wait())?;
    println!("\n== tests other than `{LONGEST}`");
    let mut text = File::open(&output).with_context(|| format!("opening {}", output.display()))?;
    std::io::copy(&mut text, &mut std::io::stdout())?;
    let mut documentation = lane(&["--doc"]);
    let documentation = documentation.status().await.context("starting cargo")?;
    let all = [longest, beside, documentation];
    Ok(all.into_iter().find(|status| !status.success()).unwrap_or(longest))
}

/// How many tests of one program run at a time: one more than there are cores.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from) + 1
}

/// Lets a command run no more tests at a time, unless the one who runs this says how many.
pub(crate) fn limit(tests: &mut Command, threads: usize) {
    if std::env::var_os(THREADS).is_none() {
        tests.env(THREADS, threads.to_string());
    }
}

/// The names of all test programs of the workspace.
async fn targets() -> Result<Vec<String>> {
    let mut metadata = tools::cargo();
    metadata.args(["metadata", "--no-deps", "--format-version", "1"]).stderr(Stdio::inherit());
    let output = metadata.output().await.context("starting cargo")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("reading what `cargo metadata` says")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let targets = list(&metadata["packages"]).into_iter().flat_map(|package| list(&package["targets"]));
    let is_test = |target: &Value| list(&target["kind"]).iter().any(|kind| kind == "test");
    let mut names: Vec<String> =
        targets.filter(is_test).filter_map(|target| Some(target["name"].as_str()?.to_owned())).collect();
    names.sort();
    names.dedup();
    Ok(names)
}
