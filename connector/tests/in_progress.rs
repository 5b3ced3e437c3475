//! Transactions that the server streams while they are in progress: nothing of them is seen before their commit, nothing
//! that was rolled back ever, and all of them in commit order.

use std::path::{Path, PathBuf};

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tributary_connector::ConnectorSettings;

use crate::support::{Database, Record, Recorder, Running, connect, postgres, postgres_mut, until};

/// A database whose transactions are streamed as soon as they hold a few hundred changes, and settings that ask for it.
pub async fn streaming_database(test: &str, tables: &[&str]) -> (Database, ConnectorSettings, TempDir) {
    let db = Database::create(test).await;
    db.run(&format!("alter database {} set logical_decoding_work_mem = '64kB'", db.name)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = db.settings(tables);
    postgres_mut(&mut settings).streaming = Some(folder.path().join("transactions"));
    (db, settings, folder)
}

fn files(settings: &ConnectorSettings) -> Vec<PathBuf> {
    let folder = postgres(settings).streaming.clone().expect("a folder");
    let entries = std::fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok).map(|e| e.path()).collect());
    entries.unwrap_or_default()
}

fn bytes(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |m| m.len())
}

/// Waits until so many transactions are kept, each in more than one block.
async fn wait_kept(settings: &ConnectorSettings, transactions: usize) {
    until("transactions are kept", async || {
        let files = files(settings);
        files.len() == transactions && files.iter().all(|f| bytes(f) > 300_000)
    })
    .await;
}

pub fn ids(records: &[Record]) -> Vec<i64> {
    records.iter().filter_map(|r| r.get("/after/id").as_i64()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_in_progress_come_at_their_commits_without_what_was_rolled_back() {
    let (db, settings, _folder) = streaming_database("in_progress", &["t"]).await;
    db.run("create table t (id int primary key, x text)").await;
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    let protocol = if db.version().await < 16 { "'2', streaming 'on'" } else { "'4', streaming 'parallel'" };
    assert!(db.stream(&settings).await.contains(&format!("proto_version {protocol}")));
    // Two at the same time, with parts that are rolled back, one of which changes the table itself.
    let (one, two, gone) = (connect(&db.url).await, connect(&db.url).await, connect(&db.url).await);
    let fill =
        |from: i32| format!("insert into t select g, repeat('x', 100) from generate_series({from}, {from} + 4999) g;");
    one.batch_execute(&format!("begin; {}", fill(10_000))).await.expect("one");
    two.batch_execute(&format!("begin; {} savepoint a; {}", fill(20_000), fill(30_000))).await.expect("two");
    gone.batch_execute(&format!("begin; {}", fill(40_000))).await.expect("gone");
    wait_kept(&settings, 3).await;
    let alter = "savepoint b; alter table t add y int; update t set y = 1;";
    two.batch_execute("rollback to a;").await.expect("rolled back");
    one.batch_execute("savepoint c; insert into t values (1, 'kept'); release c;").await.expect("released");
    gone.batch_execute("rollback").await.expect("rolled back");
    db.run("insert into t values (2, 'between')").await;
    assert_eq!(ids(&recorder.wait(1).await), [2], "something came before its commit");
    two.batch_execute("commit").await.expect("committed");
    one.batch_execute("update t set x = 'changed' where id = 10000; delete from t where id = 10001; commit")
        .await
        .expect("committed");
    // 5,000 of the second; 5,000 and one row, an update, a delete and its tombstone of the first.
    let records = recorder.wait(1 + 5_000 + 5_004).await;
    assert!(ids(&records[1..5_001]).into_iter().eq(20_000..25_000), "the second did not come first and whole");
    let first = &records[5_001..];
    let expected: Vec<i64> = (10_000..15_000).chain([1, 10_000]).collect();
    assert_eq!(ids(first), expected);
    assert_eq!(first.last().map(Record::op), Some("tombstone"));
    let transaction = |r: &Record| r.get("/transaction/id");
    assert!(first.iter().filter(|r| r.value.is_some()).all(|r| transaction(r) == transaction(&first[0])));
    assert!(files(&settings).is_empty(), "files were left: {:?}", files(&settings));
    // A change of the table that is rolled back, in a transaction whose other changes use the table as it was.
    let savepoint = format!("begin; {} {alter} rollback to b; {} commit", fill(50_000), fill(60_000));
    one.batch_execute(&savepoint).await.expect("committed");
    let records = recorder.wait(10_005 + 10_000).await;
    assert!(ids(&records[10_005..]).into_iter().eq((50_000..55_000).chain(60_000..65_000)));
    assert!(records[10_005..].iter().all(|r| r.get("/after/y").is_null() && r.op() == "c"));
    running.stop().await;
    assert_eq!(recorder.len(), 20_005);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_transaction_goes_on_where_it_was_interrupted() {
    let (db, mut settings, _folder) = streaming_database("kept_resume", &["t"]).await;
    db.run("create table t (id int primary key, x text)").await;
    settings.batch.records = 100;
    let recorder = Recorder::new();
    let mut running = Running::streaming(&settings, &recorder).await;
    let writer = connect(&db.url).await;
    let fill = "begin; insert into t select g, repeat('x', 100) from generate_series(1, 5000) g";
    writer.batch_execute(fill).await.expect("filled");
    wait_kept(&settings, 1).await;
    // Killed while it is in progress, and within it after its commit.
    let restart = async |running: Running| {
        running.kill().await;
        let active =
            format!("select active::text from pg_replication_slots where slot_name = '{}'", postgres(&settings).slot);
        until("the slot is free", async || db.text(&active).await.as_deref() == Some("false")).await;
        Running::start(&settings, &recorder)
    };
    running = restart(running).await;
    wait_kept(&settings, 1).await;
    assert_eq!(recorder.len(), 0);
    recorder.stand_still_at(Some(2_000));
    writer.batch_execute("commit").await.expect("committed");
    until("it stands in the middle", async || {
        recorder.checkpoint_json().is_some_and(|c| c["transaction"]["changes"].as_u64().is_some_and(|n| n > 1_000))
    })
    .await;
    running = restart(running).await;
    recorder.stand_still_at(None);
    db.run("insert into t values (5001, 'last')").await;
    let records = recorder.wait(5_001).await;
    running.stop().await;
    assert!(ids(&records).into_iter().eq(1..=5_001), "not each once, in order");
    let orders = records[..5_000].iter().filter_map(|r| r.get("/transaction/total_order").as_u64());
    assert!(orders.eq(1..=5_000));
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_comes_when_it_is_committed() {
    let (db, settings, _folder) = streaming_database("prepared", &["t"]).await;
    db.run("create table t (id int primary key, x text)").await;
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    let name = &db.name;
    let prepare = |gid: &str, from: i32| {
        let fill = format!("insert into t select g, repeat('x', 100) from generate_series({from}, {from} + 4999) g");
        format!("begin; {fill}; prepare transaction '{name}_{gid}'")
    };
    db.run(&prepare("kept", 1)).await;
    db.run(&prepare("gone", 10_001)).await;
    wait_kept(&settings, 2).await;
    db.run("insert into t values (0, 'before')").await;
    db.run(&format!("rollback prepared '{name}_gone'")).await;
    db.run(&format!("commit prepared '{name}_kept'")).await;
    let records = recorder.wait(5_001).await;
    running.stop().await;
    assert!(ids(&records).into_iter().eq(0..=5_000));
    assert_eq!(recorder.len(), 5_001);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_written_stops_the_source_and_loses_nothing() {
    let (db, settings, folder) = streaming_database("spill_full", &["t"]).await;
    db.run("create table t (id int primary key, x text)").await;
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    // Root may write anywhere, but nobody creates a file in a folder that is not there.
    std::fs::remove_dir(postgres(&settings).streaming.as_ref().expect("a folder")).expect("removed");
    std::fs::write(folder.path().join("transactions"), "in the way").expect("a file");
    db.run("insert into t select g, repeat('x', 100) from generate_series(1, 5000) g").await;
    running.wait_down("transactions").await;
    assert_eq!(recorder.len(), 0);
    let why = running.health.parts()["source"].why.clone().expect("why");
    assert!(why.contains("let the user that runs tributary write there") && why.contains("streaming to off"), "{why}");
    std::fs::remove_file(folder.path().join("transactions")).expect("removed");
    let records = recorder.wait(5_000).await;
    running.stop().await;
    assert!(ids(&records).into_iter().eq(1..=5_000));
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_came_from_elsewhere_name_their_origin() {
    let (db, settings, _folder) = streaming_database("origin", &["t"]).await;
    db.run("create table t (id int primary key, x text)").await;
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    let origin = format!("north_{}", db.name);
    db.run(&format!(
        "select pg_replication_origin_create('{origin}'); select pg_replication_origin_session_setup('{origin}')"
    ))
    .await;
    // One that comes whole, and one that is streamed while it is in progress.
    for (position, rows) in [("0/99", 1), ("0/AA", 20_000)] {
        db.run(&format!(
            "begin; select pg_replication_origin_xact_setup('{position}', now()); \
             insert into t select g, repeat('x', 50) from generate_series({rows} + 1, 2 * {rows}) g; commit"
        ))
        .await;
    }
    db.run("select pg_replication_origin_session_reset()").await;
    db.run("insert into t values (0)").await;
    let records = recorder.wait(20_002).await;
    let named = |n: usize| (records[n].get("/source/origin"), records[n].get("/source/origin_lsn"));
    assert_eq!(named(0), (json!(origin), json!(0x99)));
    // While it is in progress the server does not know where it will have committed.
    assert_eq!(named(1), (json!(origin), Json::Null));
    assert_eq!(named(20_000), (json!(origin), Json::Null));
    assert_eq!(named(20_001), (Json::Null, Json::Null));
    running.stop().await;
    db.run(&format!("select pg_replication_origin_drop('{origin}')")).await;
    db.remove().await;
}
