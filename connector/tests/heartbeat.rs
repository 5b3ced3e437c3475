//! Heartbeats: the position of an idle database moves on, and nobody sees them.

use std::time::Duration;

use serde_json::json;
use tributary_connector::{ConnectorSettings, Secret};

use crate::logs::{listen, warnings};
use crate::support::{Database, Recorder, Running, postgres, postgres_mut, until};

/// How many heartbeats the log of this database has since `watch`.
async fn heartbeats(db: &Database) -> i64 {
    let peek = format!(
        "select count(*) from pg_logical_slot_peek_binary_changes('{0}_peek', null, null, 'proto_version', '1', \
         'publication_names', '{1}', 'messages', 'true') where position('tributary.heartbeat'::bytea in data) > 0",
        db.name,
        postgres(&db.settings(&["t"])).publication
    );
    db.sql.query_one(&peek, &[]).await.expect("messages").get(0)
}

/// A slot to look at the log with.
async fn watch(db: &Database) {
    db.run(&format!("select pg_create_logical_replication_slot('{}_peek', 'pgoutput')", db.name)).await;
}

async fn database(test: &str) -> (Database, ConnectorSettings) {
    let db = Database::create(test).await;
    let mut settings = db.settings(&["t"]);
    db.run(&format!(
        "create table t (id int primary key); create publication {} for table t with (publish_via_partition_root = true)",
        postgres(&settings).publication
    ))
    .await;
    settings.batch.checkpoint_interval = Duration::from_millis(50);
    postgres_mut(&mut settings).heartbeat = Some(Duration::from_millis(50));
    (db, settings)
}

/// Waits until what the log holds now is confirmed, while another database fills it.
async fn wait_confirmed(db: &Database, settings: &ConnectorSettings, busy: &Database) {
    let end = db.text("select pg_current_wal_lsn()::text").await.expect("a position");
    let confirmed = format!(
        "select (confirmed_flush_lsn > '{end}')::text from pg_replication_slots where slot_name = '{}'",
        postgres(settings).slot
    );
    until("the position moves on", async || {
        busy.run("insert into t values (1)").await;
        db.text(&confirmed).await.as_deref() == Some("true")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_position_of_an_idle_database_moves_on_and_nothing_is_published() {
    let busy = Database::create("busy").await;
    busy.run("create table t (id int)").await;
    for messages in [true, false] {
        let (db, mut settings) = database("idle").await;
        postgres_mut(&mut settings).messages = messages;
        watch(&db).await;
        let recorder = Recorder::new();
        let running = Running::streaming(&settings, &recorder).await;
        for _ in 0..3 {
            wait_confirmed(&db, &settings, &busy).await;
        }
        until("there are heartbeats", async || heartbeats(&db).await >= 3).await;
        assert_eq!(recorder.len(), 0, "{:?}", recorder.records());
        // A user's own come, another connector's heartbeats do not.
        db.run(
            "select pg_logical_emit_message(false, 'tributary.heartbeat', 'another'); \
             select pg_logical_emit_message(false, 'outbox', 'x'); \
             begin; select pg_logical_emit_message(true, 'outbox', 'y'); insert into t values (1); commit",
        )
        .await;
        let expected = if messages { vec!["m", "m", "c"] } else { vec!["c"] };
        recorder.wait(expected.len()).await;
        wait_confirmed(&db, &settings, &busy).await;
        // Resuming from the position of a heartbeat repeats nothing.
        running.kill().await;
        let running = Running::streaming(&settings, &recorder).await;
        wait_confirmed(&db, &settings, &busy).await;
        running.stop().await;
        let records = recorder.records();
        assert_eq!(records.iter().map(|r| r.op()).collect::<Vec<_>>(), expected);
        if messages {
            assert_eq!(records[0].get("/message/prefix"), json!("outbox"));
        }
        db.remove().await;
    }
    busy.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn none_are_written_unless_asked_for() {
    let (db, mut settings) = database("silent").await;
    postgres_mut(&mut settings).heartbeat = None;
    watch(&db).await;
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    running.stop().await;
    assert_eq!(heartbeats(&db).await, 0);
    db.remove().await;
}

/// The warnings about heartbeats.
fn told(db: &Database) -> Vec<String> {
    warnings(&db.name).into_iter().filter(|text| text.contains("heartbeat")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_written_though_transactions_are_read_only_by_default() {
    let (db, settings) = database("read_only").await;
    watch(&db).await;
    db.run(&format!("alter database {} set default_transaction_read_only = on", db.name)).await;
    let running = Running::streaming(&settings, &Recorder::new()).await;
    until("heartbeats are written", async || heartbeats(&db).await > 0).await;
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_privilege_that_lacks_is_told_once_with_the_grant() {
    listen();
    let (db, mut settings) = database("revoked").await;
    let role = db.name.clone();
    watch(&db).await;
    db.run(&format!(
        "create role {role} login replication password 'secret'; grant usage on schema public to {role}; \
         grant select on t to {role}; \
         do $$ declare f regprocedure; begin \
           for f in select oid from pg_proc where proname = 'pg_logical_emit_message' loop \
             execute format('revoke execute on function %s from public', f); \
           end loop; end $$"
    ))
    .await;
    let mut url = url::Url::parse(&db.url).expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("secret")).expect("a password");
    postgres_mut(&mut settings).url = Secret::new(url.to_string());
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    until("it is told", async || !told(&db).is_empty()).await;
    let said = told(&db).remove(0);
    let (_, remedy) = said.split_once("run: ").expect("a remedy");
    db.run(remedy.split_once(';').expect("a statement").0).await;
    until("heartbeats are written", async || heartbeats(&db).await > 0).await;
    assert_eq!(told(&db).len(), 1, "{:?}", told(&db));
    running.stop().await;
    db.run(&format!("drop owned by {role}")).await;
    db.remove().await;
}
