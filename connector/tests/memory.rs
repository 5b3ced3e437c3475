//! The connector's memory does not depend on how much a transaction changes.

use std::process::Command;

use crate::support::{Database, drain};

/// Peak memory of the process that captures, in MB.
const LIMIT: f64 = 100.0;

/// What is captured: the other columns of the table, and how many rows of which values.
struct Shape {
    columns: String,
    rows: u32,
    values: String,
}

fn many_rows() -> Shape {
    let columns = "title text, body text".to_owned();
    Shape { columns, rows: 1_000_000, values: "'The Movie Number ' || g, repeat(md5(g::text), 4)".to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_million_rows_is_captured_in_little_memory() {
    captured(many_rows(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_transaction_of_a_million_rows_is_captured_in_little_memory() {
    captured(many_rows(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_megabyte_are_captured_in_little_memory() {
    let shape = || Shape {
        columns: "title text, body text".to_owned(),
        rows: 300,
        values: "'The Movie Number ' || g, repeat(md5(g::text), 32768)".to_owned(),
    };
    captured(shape(), false).await;
    captured(shape(), true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_five_hundred_columns_is_captured_in_little_memory() {
    let columns: Vec<String> = (0..499).map(|n| format!("c{n} int")).collect();
    let values: Vec<String> = (0..499).map(|n| format!("g + {n}")).collect();
    captured(Shape { columns: columns.join(", "), rows: 20_000, values: values.join(", ") }, false).await;
}

async fn captured(shape: Shape, streaming: bool) {
    let Shape { columns, rows, values } = shape;
    let db = Database::create("memory").await;
    db.run(&format!("create table bench_row (id bigint primary key, {columns})")).await;
    if columns.contains("body") {
        db.run("alter table bench_row alter body set storage external").await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let transport = format!("embedded:{}", folder.path().join("log").display());
    let run = async |action: &str| {
        let mut command = Command::new(drain());
        command.args([action, &db.url, &db.name, &transport, &rows.to_string()]);
        if streaming {
            command.arg(folder.path().join("transactions"));
        }
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{action}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    run("prepare").await;
    db.run(&format!("insert into bench_row select g, {values} from generate_series(1, {rows}) g")).await;
    let line = run("run").await;
    let figure = |key: &str| -> f64 {
        let found = line.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        found.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{key} is not in {line:?}"))
    };
    assert!(figure("events") >= f64::from(rows), "{line}");
    assert!(figure("peak_rss_mb") <= LIMIT, "{line}");
    eprintln!("{}", line.trim());
    db.remove().await;
}
