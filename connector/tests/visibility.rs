//! The log is ahead of what others see: a commit is in it before its transaction is visible.

use serde_json::json;
use tributary_connector::ConnectorSettings;
use tributary_stack::{Postgres, PostgresOptions};

use crate::support::{Recorder, Running, connect, until, version};

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

    sql.batch_execute("alter system set synchronous_standby_names = 'nobody'").await.expect("set");
    sql.batch_execute("select pg_reload_conf()").await.expect("reloaded");
    until("commits wait", async || {
        let row = sql.query_one("show synchronous_standby_names", &[]).await.expect("a row");
        row.get::<_, String>(0) == "nobody"
    })
    .await;
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
    sql.batch_execute("alter system reset synchronous_standby_names").await.expect("reset");
    sql.batch_execute("select pg_reload_conf()").await.expect("reloaded");
    migration.await.expect("no panic").expect("committed");
    let records = recorder.wait(3).await;
    assert_eq!(records[1].get("/after"), json!({"id": 2, "n": 7, "ns": [1, 2], "m": ["ok"]}));
    assert_eq!(records[2].key, Some(json!({"id": 5})));
    running.stop().await;
}
