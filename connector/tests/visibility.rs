//! The log is ahead of what others see: a commit is in it before its transaction is visible.

use std::sync::Arc;

use serde_json::json;
use tributary_connector::{ConnectorSettings, PreparedTransactions};
use tributary_stack::{Postgres, PostgresOptions};

use crate::support::{Database, Recorder, Running, Witness, connect, postgres_mut, until, version};

/// Whether commits wait for a standby that there is not.
async fn wait_for_nobody(sql: &tokio_postgres::Client, wait: bool) {
    let set = if wait { "set synchronous_standby_names = 'nobody'" } else { "reset synchronous_standby_names" };
    sql.batch_execute(&format!("alter system {set}")).await.expect("set");
    sql.batch_execute("select pg_reload_conf()").await.expect("reloaded");
    let names = if wait { "nobody" } else { "" };
    until("it is so", async || {
        let row = sql.query_one("show synchronous_standby_names", &[]).await.expect("a row");
        row.get::<_, String>(0) == names
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_transaction_that_nobody_sees_yet_are_held_back() {
    let options = PostgresOptions { version: version().await.to_string(), fsync: false, ..Default::default() };
    let server = Postgres::start(options).await.expect("a server");
    let url = server.url("postgres");
    let sql = connect(&url).await;
    sql.batch_execute("set synchronous_commit = local; create table t (id int primary key)").await.expect("a table");
    let (recorder, settings) = (Recorder::new(), ConnectorSettings::postgres("s", url.as_str().into(), ["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    assert_eq!(running.health.parts()["source"].note, None, "what others see is known");
    sql.batch_execute("insert into t values (1)").await.expect("a row");
    recorder.wait(1).await;

    wait_for_nobody(&sql, true).await;
    let writer = connect(&url).await;
    let insert = tokio::spawn(async move { writer.batch_execute("insert into t values (2)").await });
    let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
    until("its commit waits", async || sql.query_one(waiting, &[]).await.expect("a number").get::<_, i64>(0) > 0).await;
    sql.batch_execute("insert into t values (3)").await.expect("a row");
    let rows = sql.query("select id from t order by id", &[]).await.expect("rows");
    let seen: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(seen, [1, 3], "what is behind it in the log is seen already");
    running.wait_down("is in the log and not visible yet").await;
    assert_eq!(recorder.len(), 1, "order is kept, so what is behind it waits too");

    // It can be stopped meanwhile, and goes on waiting when it is started again.
    running.stop().await;
    let running = Running::start(&settings, &recorder);
    running.wait_down("is in the log and not visible yet").await;
    assert_eq!(recorder.len(), 1);
    wait_for_nobody(&sql, false).await;
    insert.await.expect("no panic").expect("committed");
    let records = recorder.wait(3).await;
    let ids: Vec<_> = records.iter().map(|record| record.get("/after/id")).collect();
    assert_eq!(ids, [json!(1), json!(2), json!(3)]);
    running.wait_up().await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_may_be_ahead_of_what_others_see_says_so() {
    if version().await < 15 {
        return;
    }
    let db = Database::create("ahead").await;
    db.run("create table t (id int primary key)").await;
    let mut settings = db.settings(&["t"]);
    postgres_mut(&mut settings).prepared = PreparedTransactions::AtPrepare;
    let (recorder, witness) = (Recorder::new(), Arc::new(Witness::new(|_| Ok(()))));
    let running = Running::streaming_for(witness.clone(), &settings, &recorder).await;
    let note = || running.health.parts()["source"].note.clone().unwrap_or_default();
    let says = |text: &str| text.contains("when they are prepared") && text.contains("graph.lag must allow");
    assert!(says(&note()), "{}", note());
    // The tables are looked at, and are well: it is said all the same.
    db.run("alter table t add x text").await;
    witness.need_more();
    db.run(&format!("begin; insert into t values (1); prepare transaction '{}'", db.name)).await;
    recorder.wait(1).await;
    assert!(says(&note()), "{}", note());
    db.run(&format!("commit prepared '{}'", db.name)).await;
    running.stop().await;
    db.remove().await;
}

/// A commit that waits for a standby is in the log, and nobody sees it.
#[tokio::test(flavor = "multi_thread")]
async fn types_of_a_transaction_that_nobody_sees_yet_are_waited_for() {
    let options = PostgresOptions { version: version().await.to_string(), fsync: false, ..Default::default() };
    let server = Postgres::start(options).await.expect("a server");
    let url = server.url("postgres");
    let sql = connect(&url).await;
    sql.batch_execute("create table t (id int primary key)").await.expect("a table");
    let (recorder, settings) = (Recorder::new(), ConnectorSettings::postgres("s", url.as_str().into(), ["t", "t2"]));
    sql.batch_execute("create table t2 (id int)").await.expect("a table");
    sql.batch_execute("alter table t2 replica identity full").await.expect("an identity");
    let running = Running::streaming(&settings, &recorder).await;
    sql.batch_execute("insert into t values (1)").await.expect("a row");
    recorder.wait(1).await;

    wait_for_nobody(&sql, true).await;
    let writer = connect(&url).await;
    let migration = tokio::spawn(async move {
        writer
            .batch_execute(
                "create domain whole as int; create domain wholes as int[]; create type mood as enum ('sad', 'ok'); \
                 alter table t add n whole, add ns wholes, add m mood[]; alter table t2 add primary key (id); \
                 insert into t values (2, 7, '{1,2}', '{ok}'); insert into t2 values (5)",
            )
            .await
    });
    let asks =
        "select count(*) from pg_stat_activity where query like '%pg_visible_in_snapshot%' and pid <> pg_backend_pid()";
    until("the connector waits", async || sql.query_one(asks, &[]).await.expect("a number").get::<_, i64>(0) > 0).await;
    assert_eq!(recorder.len(), 1);
    sql.batch_execute("set synchronous_commit = local").await.expect("set");
    wait_for_nobody(&sql, false).await;
    migration.await.expect("no panic").expect("committed");
    let records = recorder.wait(3).await;
    assert_eq!(records[1].get("/after"), json!({"id": 2, "n": 7, "ns": [1, 2], "m": ["ok"]}));
    assert_eq!(records[2].key, Some(json!({"id": 5})));
    running.stop().await;
}
