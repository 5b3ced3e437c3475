//! Flink's reader of Debezium's JSON, for comparisons: its jars from Maven, 80 MB, so no test waits for it.

use crate::java::JavaPart;
use anyhow::{Context as _, Result, ensure};
use std::process::Stdio;
use tokio::io::AsyncWriteExt as _;

static PART: JavaPart = JavaPart {
    name: "flink",
    pom: include_str!("../flink/pom.xml"),
    sources: &[(
        "tributary/stack/ReadDebeziumJson.java",
        include_str!("../flink/src/tributary/stack/ReadDebeziumJson.java"),
    )],
    main_class: "tributary.stack.ReadDebeziumJson",
    options: &[],
};

/// What Flink makes of messages of a table with the columns `id`, `n` and `body`, a line of JSON each: a line for each row,
/// with its kind (`+I`, `-U`, `+U`, `-D`).
///
/// # Errors
/// If Flink's jars cannot be fetched, or Flink refuses a message; the error shows what it says.
pub async fn read_with_flink(messages: &str) -> Result<String> {
    let installation = PART.install().await?;
    let mut tool = installation.tool(PART.main_class);
    tool.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = tool.spawn().context("starting Flink's reader")?;
    let mut input = child.stdin.take().context("its input")?;
    let (written, output) = tokio::join!(
        async move {
            input.write_all(messages.as_bytes()).await?;
            input.shutdown().await
        },
        child.wait_with_output()
    );
    let output = output?;
    ensure!(output.status.success(), "Flink refused a message: {}", String::from_utf8_lossy(&output.stderr));
    written.context("writing to Flink's reader")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
