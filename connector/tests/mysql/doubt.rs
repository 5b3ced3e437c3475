//! Definitions that change rows without events: whoever derives something of the rows is told, whether the connector ran or not.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;

use crate::server::{databases, run};
use crate::support::{Recorder, Running, Witness, until};

/// What was doubted; what is told again, for the process was stopped before it had passed the place, counts once.
fn whys(witness: &Witness) -> BTreeSet<String> {
    witness.doubts().into_iter().map(|doubt| doubt.why).collect()
}

/// Alternately while the connector runs and while it does not.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_definition_changes_without_events_are_doubted() {
    for mut db in databases("doubt").await {
        db.run("create table t (id int primary key, n int, name varchar(80)) partition by range (id) (partition a values less than (10), partition b values less than (20), partition c values less than (30), partition d values less than (40))").await;
        db.run("create table spare (id int primary key, n int, name varchar(80))").await;
        db.run("insert into t values (1, 1, 'a'), (11, 1, 'b'), (21, 1, 'c'), (31, 1, 'd')").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let witness = Witness::new(|_| Ok(()));
        let start = async || Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
        let mut running = Some(start().await);
        let mut statements = vec![
            "alter table t truncate partition a",
            "ALTER TABLE t DROP PARTITION b",
            "alter table t exchange partition c with table spare",
            "alter table t add column added int not null default 5",
            "alter table t modify name varbinary(90)",
            "alter table t drop column added",
            "alter table t rename column n to m",
            "rename table t to t_old, spare to t",
            "drop table t",
        ];
        if db.is_mariadb {
            statements.insert(0, "set statement lock_wait_timeout = 5 for alter table t truncate partition d");
        }
        for (n, statement) in statements.iter().enumerate() {
            if n % 2 == 1
                && let Some(running) = running.take()
            {
                running.stop().await;
            }
            run(&mut db.sql, statement).await;
            if *statement == "drop table t" {
                run(&mut db.sql, "create table t (id int primary key)").await;
            }
            if running.is_none() {
                running = Some(start().await);
            }
            let of_it = format!("({}", statement.get(..12).expect("a statement")).to_lowercase();
            let is_doubted = || {
                let doubts = witness.doubts();
                doubts.last().is_some_and(|doubt| {
                    *doubt.table.name == *"t" && doubt.why.replace('`', "").to_lowercase().contains(&of_it)
                })
            };
            until(&format!("{statement} is doubted"), async || whys(&witness).len() == n + 1 && is_doubted()).await;
        }
        db.run("insert into t values (2)").await;
        recorder.wait(1).await;
        running.expect("it runs").stop().await;
        assert_eq!(whys(&witness).len(), statements.len(), "{:?}", witness.doubts());
        db.remove().await;
    }
}

/// What happens every day is not.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_no_row_is_not_doubted() {
    for mut db in databases("harmless").await {
        db.run(
            "create table t (id int primary key, n int) partition by range (id) (partition a values less than (10))",
        )
        .await;
        db.run("create table spare (id int primary key, n int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let witness = Witness::new(|_| Ok(()));
        let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
        for statement in [
            "alter table t add column plain int",
            "alter table t add column if_null varchar(5) null default null, add index (n), algorithm = inplace",
            "alter table t add partition (partition b values less than (20))",
            "alter table t reorganize partition a into (partition a1 values less than (5), partition a2 values less than (10))",
            "alter table t engine = InnoDB",
            "alter table t comment = 'drop column n'",
            "create index i on t (plain)",
            "drop index i on t",
            "create table if not exists t (id int)",
            "alter table t optimize partition a1, a2",
            "optimize table t",
            "analyze table t",
            "drop temporary table if exists t",
            "alter table spare add column t int not null default 5",
        ] {
            db.run(statement).await;
        }
        db.run("insert into t (id, n) values (1, 2)").await;
        let records = recorder.wait(1).await;
        assert_eq!(records[0].get("/after"), json!({"id": 1, "n": 2, "plain": null, "if_null": null}));
        running.stop().await;
        assert_eq!(witness.doubts(), []);
        db.remove().await;
    }
}

/// Its rows may change under another name, which nobody captures.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_renamed_away_stops_the_source_until_it_is_back_or_its_new_name_is_listed() {
    for mut db in databases("away").await {
        db.run("create table t (id int primary key)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let witness = Witness::new(|_| Ok(()));
        let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
        db.run("insert into t values (1)").await;
        recorder.wait(1).await;
        db.run("rename table t to elsewhere").await;
        running.wait_down("it was renamed while it was captured").await;
        assert_eq!(witness.doubts(), []);
        db.run("rename table elsewhere to t").await;
        running.wait_up().await;
        db.run("insert into t values (2)").await;
        assert_eq!(recorder.wait(2).await[1].get("/after/id"), json!(2));
        // It went, and it came.
        assert_eq!(witness.wait(2).await.len(), 2);
        db.run("alter table t rename to elsewhere").await;
        running.wait_down("under tables in its place").await;
        db.run("insert into elsewhere values (3)").await;
        running.kill().await;
        let running = Running::streaming(&db.settings(&["elsewhere"]), &recorder).await;
        let records = recorder.wait(3).await;
        assert_eq!((records[2].topic.ends_with(".elsewhere"), records[2].get("/after/id")), (true, json!(3)));
        running.stop().await;
        db.remove().await;
    }
}
