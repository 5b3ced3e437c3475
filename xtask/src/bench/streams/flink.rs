//! Flink's SQL in one process, with as many tasks as there are cores. From files to files it works as a batch, which is what it is quickest
//! with; from topic to topic exactly once, with a checkpoint a second.

use std::path::Path;

use anyhow::{Context as _, Result};
use tributary_stack::{FlinkMode, run_flink_sql};

use super::{Run, said};

/// What a job reads of an event, in the columns of its tables.
const EVENT: &str = "`after` ROW<id BIGINT, title STRING, runtime_min INT, imdb_votes BIGINT>";
const MADE: &str = "id BIGINT, title STRING, votes BIGINT";

/// What our filter that drops does.
pub(super) const DROPS: &str = "`after`.runtime_min = 1";
/// What our filter and program that map do.
pub(super) const MAPS: &str = "`after`.imdb_votes <> 0";

/// The statements of a job.
pub(super) struct Statements {
    mode: FlinkMode,
    text: String,
}

/// From lines of a file into files of a folder.
pub(super) fn of_lines(passes: &str, from: &Path, to: &Path) -> Statements {
    let table =
        |path: &Path| format!("'connector' = 'filesystem', 'format' = 'json', 'path' = 'file://{}'", path.display());
    Statements { mode: FlinkMode::Batch, text: statements(passes, &table(from), &table(to), "") }
}

/// From the records that a topic has into another one.
pub(super) fn of_topics(passes: &str, brokers: &str, from: &str, to: &str) -> Statements {
    let table = |topic: &str, more: &str| {
        format!(
            "'connector' = 'kafka', 'format' = 'json', 'topic' = '{topic}', 'properties.bootstrap.servers' = '{brokers}', {more}"
        )
    };
    let reads = "'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset', 'properties.isolation.level' = 'read_committed'";
    let writes = format!(
        "'sink.delivery-guarantee' = 'exactly-once', 'sink.transactional-id-prefix' = '{to}', 'properties.transaction.timeout.ms' = '60000'"
    );
    let every = "SET 'execution.checkpointing.interval' = '1 s';\n";
    Statements { mode: FlinkMode::Streaming, text: statements(passes, &table(from, reads), &table(to, &writes), every) }
}

fn statements(passes: &str, from: &str, to: &str, settings: &str) -> String {
    format!(
        "{settings}CREATE TABLE events ({EVENT}) WITH ({from});\nCREATE TABLE made ({MADE}) WITH ({to});\n\
         INSERT INTO made SELECT `after`.id, `after`.title, `after`.imdb_votes FROM events WHERE {passes};\n"
    )
}

/// Runs a job to its end.
pub(super) async fn run(folder: &Path, statements: &Statements) -> Result<Run> {
    let file = folder.join("flink.sql");
    std::fs::write(&file, &statements.text).with_context(|| format!("writing {}", file.display()))?;
    said(&run_flink_sql(statements.mode, &file).await?)
}
