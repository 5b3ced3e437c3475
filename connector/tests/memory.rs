//! The connector's memory does not depend on how much a transaction changes.

use std::path::PathBuf;
use std::process::Command;

use crate::support::Database;

/// Peak memory of the process that captures, in MB.
const LIMIT: f64 = 100.0;

/// The example `drain` that `cargo test` builds beside the tests: a process of its own, whose memory is nobody else's.
fn drain() -> PathBuf {
    let test = std::env::current_exe().expect("the test's path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
    let program = folder.join("examples/drain");
    assert!(program.is_file(), "{} is missing: run `cargo build --examples`", program.display());
    program
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_million_rows_is_captured_in_little_memory() {
    captured(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_transaction_of_a_million_rows_is_captured_in_little_memory() {
    captured(true).await;
}

async fn captured(streaming: bool) {
    let db = Database::create("million").await;
    db.run("create table bench_row (id bigint primary key, title text, body text)").await;
    let folder = tempfile::tempdir().expect("a folder");
    let transport = format!("embedded:{}", folder.path().join("log").display());
    let run = async |action: &str| {
        let mut command = Command::new(drain());
        command.args([action, &db.url, &db.name, &transport, "1000000"]);
        if streaming {
            command.arg(folder.path().join("transactions"));
        }
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{action}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run("prepare").await;
    db.run("insert into bench_row select g, 'The Movie Number ' || g, repeat(md5(g::text), 4) from generate_series(1, 1000000) g").await;
    let line = run("run").await;
    let figure = |key: &str| -> f64 {
        let found = line.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{key} is not in {line:?}"))
    };
    assert!(figure("events") >= 1_000_000.0, "{line}");
    assert!(figure("peak_rss_mb") <= LIMIT, "{line}");
    db.remove().await;
}
