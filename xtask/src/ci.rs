//! `x ci`: everything that a submission must pass. All checks run even if one fails, so that one run shows everything.

use crate::{test, tools};
use anyhow::{Context as _, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;
use tokio::process::Command;

/// The release of cargo-deny that checks licences, bans and sources.
const CARGO_DENY: &str = "0.20.2";

/// Runs every check, then the tests.
pub(crate) async fn run() -> Result<ExitCode> {
    let mut failed = Vec::new();
    // What the tests need comes through the network meanwhile. What cannot be had, they ask for again, and say.
    let (checked, _) = tokio::join!(checks(&mut failed), Box::pin(test::fetch()));
    checked?;
    let begin = heading("tests");
    let tests = Box::pin(test::run(test::Arguments::default())).await;
    finished("tests", begin);
    match tests {
        Ok(code) if code == ExitCode::SUCCESS => {}
        Ok(_) => failed.push("tests"),
        Err(error) => {
            eprintln!("error: {error:#}");
            failed.push("tests");
        }
    }
    if failed.is_empty() {
        println!("\nall checks passed");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nFAILED: {}", failed.join("; "));
    Ok(ExitCode::FAILURE)
}

/// Everything but the tests.
async fn checks(failed: &mut Vec<&'static str>) -> Result<()> {
    let format = cargo(&["fmt", "--all", "--check"]);
    // Without the engine of WebAssembly: to check its crates takes a minute, and what calls it is a few hundred lines.
    let lints = cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    let mut documentation = cargo(&["doc", "--workspace", "--no-deps"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings");
    for (name, command) in [("format", format), ("lints", lints), ("documentation", documentation)] {
        check(name, command, failed).await?;
    }
    match cargo_deny().await {
        Ok(command) => check("licences, bans and sources", command, failed).await?,
        Err(error) => {
            eprintln!("error: {error:#}");
            failed.push("licences, bans and sources");
        }
    }
    Ok(())
}

async fn check(name: &'static str, mut command: Command, failed: &mut Vec<&'static str>) -> Result<()> {
    let begin = heading(name);
    if !command.status().await.with_context(|| format!("starting the check of {name}"))?.success() {
        failed.push(name);
    }
    finished(name, begin);
    Ok(())
}

fn heading(name: &str) -> Instant {
    println!("\n== {name}");
    Instant::now()
}

fn finished(name: &str, begin: Instant) {
    println!("== {name}: {:.0} s", begin.elapsed().as_secs_f64());
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = tools::cargo();
    command.args(arguments);
    command
}

/// The command that checks licences, bans and sources; cargo-deny is compiled into the cache folder if it is not there.
async fn cargo_deny() -> Result<Command> {
    let root: PathBuf = tributary_stack::cache_folder()?.join(format!("tools/cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        println!("\ninstalling cargo-deny {CARGO_DENY}: this takes minutes, once");
        // Unoptimised: it compiles in half the time, and checks this workspace in a second all the same.
        let mut install = cargo(&["install", "--locked", "--debug", "--quiet", "--version", CARGO_DENY, "cargo-deny"]);
        install.arg("--root").arg(&root);
        tributary_stack::run_command(install, "cargo-deny is needed for the check of licences, bans and sources")
            .await?;
    }
    let mut command = Command::new(program);
    command.current_dir(tools::repository()).args(["check", "licenses", "bans", "sources"]);
    Ok(command)
}
