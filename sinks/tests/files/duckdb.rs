//! What a warehouse sees: DuckDB reads the files, all of a folder at once, with types, and makes the table of them that the events say.

use std::path::Path;

use serde_json::json;
use tributary_dsl::plan::FileFormat;
use tributary_event::Op;
use tributary_processor::sink::{Committed, OutEvent};
use tributary_stack::DuckDb;

use super::{commit, sink};
use crate::support::event;

async fn duckdb() -> Option<DuckDb> {
    let without = std::env::var("TRIBUTARY_TEST_WITHOUT").unwrap_or_default();
    if without.split(',').any(|name| name == "duckdb") {
        eprintln!("NOT TESTED: DuckDB is left out by TRIBUTARY_TEST_WITHOUT");
        return None;
    }
    Some(DuckDb::fetch().await.expect("DuckDB"))
}

/// An event of the order `order`.
fn of(sequence: u64, op: Op, order: u32, content: Option<&'static str>) -> OutEvent {
    let key = format!(r#"{{"id":{order}}}"#);
    OutEvent { op, key: Some(key.into()), content: content.map(Into::into), ..event(sequence) }
}

/// Three files: of orders that are placed, changed, and one of which is deleted; in the last one a field is new and another has no value.
async fn written(folder: &Path, format: FileFormat) {
    let sink = sink(folder, format);
    let first = [
        of(1, Op::Create, 1, Some(r#"{"id":1,"price":1.5,"paid":false,"note":"ü\n'\""}"#)),
        of(2, Op::Create, 2, Some(r#"{"id":2,"price":9007199254740993,"paid":true,"note":null}"#)),
    ];
    let second = [of(3, Op::Update, 1, Some(r#"{"id":1,"price":2.25,"paid":true,"note":"b"}"#))];
    let third = [
        of(4, Op::Delete, 2, Some(r#"{"id":2}"#)),
        of(5, Op::Create, 3, Some(r#"{"id":3,"price":4,"paid":true,"tags":["x",{"y":1}]}"#)),
    ];
    assert_eq!(commit(&sink, None, 2, &first).await, Committed::Done);
    assert_eq!(commit(&sink, Some(2), 7, &second).await, Committed::Done);
    assert_eq!(commit(&sink, Some(7), 9, &third).await, Committed::Done);
}

#[tokio::test]
async fn parquet_is_a_table_with_types() {
    let Some(duckdb) = duckdb().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), FileFormat::Parquet).await;
    let files = format!("read_parquet('{}/**/*.parquet', union_by_name = true)", folder.path().display());
    let types = format!("select column_name, column_type from (describe select * from {files}) order by 1");
    assert_eq!(
        duckdb.rows(&types).await.expect("types"),
        json!([
            ["_id", "VARCHAR"],
            ["_op", "VARCHAR"],
            ["_seq", "BIGINT"],
            ["_source", "VARCHAR"],
            ["_time", "TIMESTAMP WITH TIME ZONE"],
            ["id", "BIGINT"],
            ["note", "VARCHAR"],
            ["paid", "BOOLEAN"],
            // Neither all of the numbers are doubles nor are they integers: in a file of its own that column is text, so it is for all of them.
            ["price", "VARCHAR"],
            ["tags", "VARCHAR"],
        ])
    );
    // The table of now: of each order what its last event says, but for one that is deleted.
    let now = format!(
        "select id, price, paid, note, tags from (select *, row_number() over (partition by id order by _seq desc) as newest from {files}) \
         where newest = 1 and _op <> 'd' order by id"
    );
    assert_eq!(
        duckdb.rows(&now).await.expect("rows"),
        json!([[1, "2.25", true, "b", null], [3, "4", true, null, "[\"x\",{\"y\":1}]"]])
    );
    let odd = format!("select note, epoch_us(_time), _source from {files} where _seq = 1");
    assert_eq!(duckdb.rows(&odd).await.expect("rows"), json!([["ü\n'\"", 1_614_265_330_250_000_i64, "/films/main"]]));
    let once = format!("select count(*), count(distinct _id), min(_seq), max(_seq) from {files}");
    assert_eq!(duckdb.rows(&once).await.expect("rows"), json!([[5, 5, 1, 5]]));
}

#[tokio::test]
async fn lines_are_a_table_too() {
    let Some(duckdb) = duckdb().await else { return };
    let folder = tempfile::tempdir().expect("a folder");
    written(folder.path(), FileFormat::JsonLines).await;
    let files = format!("read_json('{}/**/*.jsonl', union_by_name = true)", folder.path().display());
    let now = format!(
        "select data.id, data.paid, key.id from (select *, row_number() over (partition by key.id order by sequence desc) as newest \
         from {files}) where newest = 1 and op <> 'd' order by 1"
    );
    assert_eq!(duckdb.rows(&now).await.expect("rows"), json!([[1, true, 1], [3, true, 3]]));
}
