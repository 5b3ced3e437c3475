//! What is rare in a log: tables without transactions, savepoints, files that are loaded, statements in place of rows.

use std::collections::BTreeMap;

use crate::server::{Database, databases, without_gtids};
use crate::support::{Record, Recorder, Running};

/// The table that the events make, by id.
fn replayed(records: &[Record], table: &str) -> BTreeMap<i64, String> {
    let mut rows = BTreeMap::new();
    for record in records.iter().filter(|record| record.topic.ends_with(&format!(".{table}"))) {
        let id = record.key.as_ref().and_then(|key| key["id"].as_i64());
        match (record.op(), id) {
            ("t", _) => rows.clear(),
            ("d", Some(id)) => drop(rows.remove(&id)),
            ("c" | "u", Some(id)) => drop(rows.insert(id, record.get("/after/x").as_str().unwrap_or("").to_owned())),
            _ => {}
        }
    }
    rows
}

async fn table(db: &mut Database, table: &str) -> BTreeMap<i64, String> {
    db.rows::<(i64, String)>(&format!("select id, x from {table}")).await.into_iter().collect()
}

/// What may fail.
async fn try_run(db: &mut Database, statement: &str) {
    use mysql_async::prelude::Queryable as _;
    let _ = db.sql.query_drop(statement).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_without_transactions_come_as_they_are() {
    for (mut db, _server) in without_gtids("myisam").await {
        db.run("create table m (id int primary key, x varchar(20)) engine = myisam").await;
        db.run("create table t (id int primary key, x varchar(20))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["m", "t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into m values (1, 'one'), (2, 'two')").await;
        // The first two rows stay.
        try_run(&mut db, "insert into m values (3, 'three'), (4, 'four'), (1, 'again')").await;
        db.run("begin").await;
        db.run("insert into t values (1, 'gone')").await;
        db.run("insert into m values (5, 'kept')").await;
        db.run("update m set x = 'zwei' where id = 2").await;
        db.run("rollback").await;
        db.run("begin").await;
        db.run("insert into t values (2, 'kept')").await;
        db.run("insert into m values (6, 'six')").await;
        db.run("commit").await;
        db.run("delete from m where id = 1").await;
        db.run("insert into t values (99, 'end')").await;
        // m: 1 2 3 4 5, update 2, 6, delete 1 (two records); t: 2 and 99.
        let records = recorder.wait(11).await;
        running.stop().await;
        assert_eq!(replayed(&records, "m"), table(&mut db, "m").await, "{records:#?}");
        assert_eq!(replayed(&records, "t"), table(&mut db, "t").await);
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_savepoint_undoes_is_not_published() {
    for (mut db, _server) in without_gtids("savepoints").await {
        db.run("create table m (id int primary key, x varchar(20)) engine = myisam").await;
        db.run("create table t (id int primary key, x varchar(20))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["m", "t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("begin").await;
        db.run("insert into t values (1, 'kept')").await;
        db.run("savepoint a").await;
        db.run("insert into t values (2, 'gone')").await;
        db.run("rollback to a").await;
        db.run("insert into t values (3, 'kept')").await;
        db.run("commit").await;
        // With a table that has no transactions between.
        db.run("begin").await;
        db.run("insert into t values (4, 'kept')").await;
        db.run("savepoint a").await;
        db.run("insert into t values (5, 'gone')").await;
        db.run("insert into m values (1, 'stays')").await;
        try_run(&mut db, "rollback to a").await;
        db.run("insert into t values (6, 'kept')").await;
        db.run("commit").await;
        db.run("insert into t values (99, 'end')").await;
        let expected = table(&mut db, "t").await.len() + table(&mut db, "m").await.len();
        let records = recorder.wait(expected).await;
        running.stop().await;
        assert_eq!(replayed(&records, "t"), table(&mut db, "t").await, "{records:#?}");
        assert_eq!(replayed(&records, "m"), table(&mut db, "m").await);
        assert_eq!(records.len(), expected);
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_loaded_are_rows() {
    for mut db in databases("load").await {
        db.run("create table t (id int primary key, x varchar(20))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        let file = std::env::temp_dir().join(format!("{}.tsv", db.name));
        let lines: Vec<String> = (1..=5_000).map(|id| format!("{id}\tline {id}\n")).collect();
        std::fs::write(&file, lines.concat()).expect("written");
        db.run(&format!("load data infile '{}' into table t", file.display())).await;
        let records = recorder.wait(5_000).await;
        std::fs::remove_file(&file).expect("removed");
        assert_eq!(replayed(&records, "t"), table(&mut db, "t").await);
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_change_captured_tables_stop_the_source_and_others_do_not() {
    for mut db in databases("statements").await {
        db.run("create table t (id int primary key, x varchar(20))").await;
        db.run("create table other (id int primary key, x varchar(20))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("set session binlog_format = 'STATEMENT'").await;
        db.run("insert into other values (1, 'by a statement')").await;
        db.run("set session binlog_format = 'ROW'").await;
        db.run("insert into t values (1, 'by row')").await;
        recorder.wait(1).await;
        db.run("set session binlog_format = 'STATEMENT'").await;
        db.run("update t set x = 'by a statement'").await;
        let error = running.error().await.to_string();
        assert!(error.contains("a statement that changes it") && error.contains("binlog_format"), "{error}");
        assert_eq!(recorder.len(), 1);
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_loaded_by_statements_stop_the_source() {
    for mut db in databases("loaded").await {
        db.run("create table t (id int primary key, x varchar(20))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        let file = std::env::temp_dir().join(format!("{}.tsv", db.name));
        std::fs::write(&file, "1\tone\n").expect("written");
        db.run("set session binlog_format = 'STATEMENT'").await;
        db.run(&format!("load data infile '{}' into table t", file.display())).await;
        let error = running.error().await.to_string();
        std::fs::remove_file(&file).expect("removed");
        assert!(error.contains("a statement that changes it"), "{error}");
        assert_eq!(recorder.len(), 0);
        db.remove().await;
    }
}
