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

/// Faster than anybody asks the catalog, on a source that runs; changes of another table come between, and of the table where no column changes.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_in_a_burst_are_followed() {
    for mut db in databases("burst").await {
        db.run("create table t (id int primary key)").await;
        db.run("create table other (id int primary key)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t", "other"]));
        let running = Running::streaming(&settings, &recorder).await;
        for n in 0..8 {
            db.run(&format!("alter table t add column c{n} int")).await;
            db.run(&format!("insert into other values ({n})")).await;
        }
        db.run("insert into t values (1, 0, 1, 2, 3, 4, 5, 6, 7)").await;
        // What changes no column may come between rows.
        db.run("create index i on t (c0)").await;
        db.run("update t set c0 = 9").await;
        db.run("alter table t add index j (c1), alter c2 set default 5, comment = 'x'").await;
        let records = recorder.wait(10).await;
        let rows: Vec<_> = records.iter().filter(|r| r.topic.ends_with(".t")).map(|r| r.get("/after")).collect();
        let row = |c0| json!({"id": 1, "c0": c0, "c1": 1, "c2": 2, "c3": 3, "c4": 4, "c5": 5, "c6": 6, "c7": 7});
        assert_eq!(rows, [row(0), row(9)]);
        running.stop().await;
        db.remove().await;
    }
}

/// Where rows tell their columns (MySQL), rows between such definitions are those of their moment too.
#[tokio::test(flavor = "multi_thread")]
async fn rows_between_definitions_in_a_burst_have_the_columns_of_their_moment() {
    let _alone = METADATA.lock().await;
    for mut db in databases("moments").await {
        if db.is_mariadb {
            db.remove().await;
            continue;
        }
        db.run("set global binlog_row_metadata = 'FULL'").await;
        db.run("create table t (id int primary key, a int, b int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        for n in 0..10 {
            db.run(&format!("insert into t (id, a, b) values ({n}, 1, 2)")).await;
            db.run("alter table t rename column a to b, rename column b to a").await;
        }
        let records = recorder.wait(10).await;
        for (n, record) in records.iter().enumerate() {
            assert_eq!(record.get("/after"), json!({"id": n, "a": 1, "b": 2}));
        }
        running.stop().await;
        // Also of a table that took the name, behind which another definition follows that nobody read.
        db.run("create table fresh like t").await;
        db.run("rename table t to t_old, fresh to t").await;
        db.run("insert into t (id, a, b) values (10, 1, 2)").await;
        db.run("alter table t add column c int").await;
        db.run("insert into t (id, a, b, c) values (11, 1, 2, 3)").await;
        let running = Running::streaming(&settings, &recorder).await;
        let records = recorder.wait(12).await;
        assert_eq!(records[10].get("/after"), json!({"id": 10, "a": 1, "b": 2}));
        assert_eq!(records[11].get("/after"), json!({"id": 11, "a": 1, "b": 2, "c": 3}));
        running.stop().await;
        db.run("set global binlog_row_metadata = 'MINIMAL'").await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_the_log_does_not_have_stops_the_source() {
    let _alone = METADATA.lock().await;
    for mut db in databases("unlogged").await {
        db.run("create table t (id int primary key, a int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 10)").await;
        recorder.wait(1).await;
        db.run("set sql_log_bin = 0").await;
        db.run("alter table t add column b varchar(5) first").await;
        db.run("set sql_log_bin = 1").await;
        db.run("insert into t values ('x', 2, 20)").await;
        let error = running.error().await.to_string();
        assert!(error.contains("sql_log_bin = 0") && error.contains("take the table out of the list"), "{error}");
        assert_eq!(recorder.len(), 1);
        db.remove().await;
    }
}

/// Rows look the same in the log whatever their columns are called: the catalog tells, when the source begins again.
#[tokio::test(flavor = "multi_thread")]
async fn names_and_signs_that_change_without_the_log_stop_the_source_when_it_begins_again() {
    let _alone = METADATA.lock().await;
    for mut db in databases("renamed").await {
        db.run("create table t (id int primary key, a int, b int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 10, 11)").await;
        recorder.wait(1).await;
        running.stop().await;
        // As the log has it, and with rows behind it: that is followed.
        db.run("alter table t rename column b to c").await;
        db.run("insert into t values (2, 20, 21)").await;
        let running = Running::streaming(&settings, &recorder).await;
        assert_eq!(recorder.wait(2).await[1].get("/after"), json!({"id": 2, "a": 20, "c": 21}));
        running.stop().await;
        for change in ["rename column c to d", "modify c int unsigned"] {
            db.run("set sql_log_bin = 0").await;
            db.run(&format!("alter table t {change}")).await;
            db.run("set sql_log_bin = 1").await;
            db.run("insert into t values (3, 30, 31)").await;
            let error = Running::start(&settings, &recorder).error().await.to_string();
            assert!(error.contains("sql_log_bin = 0") && error.contains("take the table out of the list"), "{error}");
            assert_eq!(recorder.len(), 2);
            db.run("delete from t where id = 3").await;
            if change.starts_with("rename") {
                db.run("set sql_log_bin = 0").await;
                db.run("alter table t rename column d to c").await;
                db.run("set sql_log_bin = 1").await;
            }
        }
        db.remove().await;
    }
}

/// What changes rows and no column may come between rows and a definition that nobody read; what is done to the key may not be overlooked.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_and_keys_between_definitions_are_followed() {
    for mut db in databases("partitions").await {
        db.run("create table t (id int primary key, a int) partition by range (id) (partition p0 values less than (10), partition p1 values less than (20), partition p2 values less than (30))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 10)").await;
        recorder.wait(1).await;
        running.stop().await;
        db.run("alter table t truncate partition p0, p1").await;
        db.run("insert into t values (2, 11)").await;
        db.run("alter table t drop partition p1, p2").await;
        db.run("insert into t values (3, 12)").await;
        db.run("alter table t add column b int").await;
        db.run("insert into t values (4, 13, 14)").await;
        let running = Running::streaming(&settings, &recorder).await;
        let records = recorder.wait(4).await;
        let rows: Vec<_> = records[1..].iter().map(|r| r.get("/after")).collect();
        assert_eq!(rows, [json!({"id": 2, "a": 11}), json!({"id": 3, "a": 12}), json!({"id": 4, "a": 13, "b": 14})]);
        db.run("alter table t drop index `PRIMARY`, add primary key (id, a)").await;
        db.run("insert into t values (5, 15, 16)").await;
        assert_eq!(recorder.wait(5).await[4].key, Some(json!({"id": 5, "a": 15})));
        running.stop().await;
        db.remove().await;
    }
}
