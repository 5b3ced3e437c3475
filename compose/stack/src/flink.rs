//! Flink, for comparisons, with its jars from Maven, so no test waits for it: its reader of Debezium's JSON (80 MB), and its SQL (140 MB).

use crate::java::JavaPart;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
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

static SQL: JavaPart = JavaPart {
    name: "flink-sql",
    pom: include_str!("../flink-sql/pom.xml"),
    sources: &[("tributary/stack/RunSql.java", include_str!("../flink-sql/src/tributary/stack/RunSql.java"))],
    main_class: "tributary.stack.RunSql",
    // Memory and compilers as for work that lasts; its serializers look into classes of the runtime.
    options: &[
        "-Xmx1g",
        "-XX:TieredStopAtLevel=4",
        "--add-opens=java.base/java.util=ALL-UNNAMED",
        "--add-opens=java.base/java.lang=ALL-UNNAMED",
        "--add-opens=java.base/java.time=ALL-UNNAMED",
    ],
};

/// How Flink goes about a statement.
#[derive(Clone, Copy, Debug)]
pub enum FlinkMode {
    /// All of its input, then the end.
    Batch,
    /// As input comes.
    Streaming,
}

/// Runs the statements of a file, each of which ends with a semicolon and a line's end, in a process of its own; the last one writes to a
/// table. What it took: `seconds=… cpu_seconds=… rss_mb=…`, without the start of the process, with that of the job.
///
/// # Errors
/// If Flink's jars cannot be fetched, or a statement fails; the error shows what it says.
pub async fn run_flink_sql(mode: FlinkMode, file: &Path) -> Result<String> {
    let installation = SQL.install().await?;
    let mode = match mode {
        FlinkMode::Batch => "batch",
        FlinkMode::Streaming => "streaming",
    };
    let mut tool = installation.tool(SQL.main_class);
    let output = tool.arg(mode).arg(file).kill_on_drop(true).output().await.context("starting Flink")?;
    ensure!(output.status.success(), "Flink failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

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
