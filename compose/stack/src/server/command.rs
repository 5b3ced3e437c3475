//! Runs a tool to its end and turns a failure into an error that shows what the tool said.

use anyhow::{Context as _, Result, bail};
use std::ffi::OsStr;
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs a tool to its end and returns its standard output.
///
/// # Errors
/// If the tool is absent or fails. The error names the command line, the last lines that the tool printed, and `remedy`.
pub async fn run(command: Command, remedy: &str) -> Result<String> {
    run_with_input(command, Vec::new(), remedy).await
}

/// Runs a tool that reads this; else as [`run`].
pub(crate) async fn run_with_input(mut command: Command, input: Vec<u8>, remedy: &str) -> Result<String> {
    let line = describe(&command);
    let starting = || format!("starting `{line}`: {remedy}");
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(starting)?;
    let written = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = written {
            // Whoever does not read to the end says why when it ends.
            let _ = stdin.write_all(&input).await;
        }
    };
    let ((), output) = tokio::join!(write, child.wait_with_output());
    let output = output.with_context(starting)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(text);
    }
    let said = format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    bail!("`{line}` failed ({}): {remedy}\n{}", output.status, tail(&said, 30));
}

/// The last lines of a text, indented.
pub(crate) fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let skipped = lines.len().saturating_sub(count);
    lines[skipped..].iter().map(|line| format!("    {line}\n")).collect()
}

fn describe(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}
