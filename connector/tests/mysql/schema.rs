//! Definitions between rows.

use serde_json::json;

use crate::server::{METADATA, databases};
use crate::support::{Recorder, Running};

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_those_of_the_moment() {
    for mut db in databases("alter").await {
        db.run("create table t (id int primary key, a int, b int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 10, 20)").await;
        recorder.wait(1).await;
        db.run("alter table t add c varchar(10) after id").await;
        db.run("insert into t values (2, 'c', 11, 21)").await;
        recorder.wait(2).await;
        // Names are swapped, with the same types.
        db.run("alter table t rename column a to x, rename column b to a").await;
        db.run("insert into t values (3, 'c', 12, 22)").await;
        recorder.wait(3).await;
        // The table is replaced, as tools that alter online do.
        db.run("create table t_new (id int primary key, c text, extra datetime(3))").await;
        db.run("rename table t to t_old, t_new to t").await;
        db.run("insert into t values (4, 'd', '2020-01-02 03:04:05.678')").await;
        let records = recorder.wait(4).await;
        let after: Vec<_> = records.iter().map(|r| r.get("/after")).collect();
        assert_eq!(
            after,
            [
                json!({"id": 1, "a": 10, "b": 20}),
                json!({"id": 2, "c": "c", "a": 11, "b": 21}),
                json!({"id": 3, "c": "c", "x": 12, "a": 22}),
                json!({"id": 4, "c": "d", "extra": 1_577_934_245_678_i64}),
            ]
        );
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_a_definition_and_its_rows_finds_the_columns_of_each() {
    for mut db in databases("between").await {
        db.run("create table t (id int primary key, a int, b int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 10, 20)").await;
        recorder.wait(1).await;
        running.kill().await;
        // Nobody reads: the rows before the definition are those of the columns before.
        db.run("insert into t values (2, 11, 21)").await;
        db.run("alter table t rename column a to x, rename column b to a").await;
        db.run("insert into t values (3, 12, 22)").await;
        recorder.stand_still_at(Some(2));
        let running = Running::start(&settings, &recorder);
        recorder.wait(2).await;
        running.kill().await;
        recorder.stand_still_at(None);
        let running = Running::start(&settings, &recorder);
        let records = recorder.wait(3).await;
        assert_eq!(records[1].get("/after"), json!({"id": 2, "a": 11, "b": 21}));
        assert_eq!(records[2].get("/after"), json!({"id": 3, "x": 12, "a": 22}));
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_definitions_with_rows_between_them_that_nobody_read_are_told() {
    let _alone = METADATA.lock().await;
    for mut db in databases("twice").await {
        db.run("create table t (id int primary key, a int, b int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 10, 20)").await;
        recorder.wait(1).await;
        running.stop().await;
        db.run("alter table t rename column a to x").await;
        db.run("insert into t values (2, 11, 21)").await;
        db.run("alter table t rename column b to a").await;
        let running = Running::start(&settings, &recorder);
        let error = running.error().await.to_string();
        assert!(error.contains("definition changed twice") && error.contains("binlog_row_metadata"), "{error}");
        assert_eq!(recorder.len(), 1);
        db.remove().await;
    }
}
