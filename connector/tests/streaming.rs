//! Changes of every kind arrive as the events they should be.

use serde_json::{Value as Json, json};

use crate::support::{Database, Record, Recorder, Running, connect, postgres, until};

fn ops(records: &[Record]) -> Vec<&str> {
    records.iter().map(Record::op).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_every_kind_become_events() {
    let db = Database::create("kinds").await;
    db.run("create table movie (id int primary key, title text); create table genre (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["public.movie", "genre"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run(
        "begin; insert into movie values (1, 'Alien'), (2, 'Brazil'); insert into genre values (1); \
         update movie set title = 'Aliens' where id = 1; delete from movie where id = 2; commit; truncate movie, genre",
    )
    .await;
    let records = recorder.wait(8).await;
    assert_eq!(ops(&records), ["c", "c", "c", "u", "d", "tombstone", "t", "t"]);
    let orders: Vec<Json> = records[..5].iter().map(|r| r.get("/transaction/total_order")).collect();
    assert_eq!(orders, [1, 2, 3, 4, 5].map(Json::from));
    let table_orders: Vec<Json> = records[..5].iter().map(|r| r.get("/transaction/data_collection_order")).collect();
    assert_eq!(table_orders, [1, 2, 1, 3, 4].map(Json::from));
    assert_eq!(records[0].topic, format!("{}.public.movie", db.name));
    assert_eq!(records[0].key, Some(json!({"id": 1})));
    assert_eq!(records[0].get("/after"), json!({"id": 1, "title": "Alien"}));
    assert_eq!(records[3].get("/after/title"), "Aliens");
    assert_eq!(
        (records[4].key.clone(), records[4].get("/before")),
        (Some(json!({"id": 2})), json!({"id": 2, "title": null}))
    );
    assert_eq!((records[5].key.clone(), records[5].value.clone()), (Some(json!({"id": 2})), None));
    assert_eq!((records[6].key.clone(), records[6].get("/after")), (None, Json::Null));
    assert_eq!(records[7].topic, format!("{}.public.genre", db.name));
    let sequences: Vec<u64> = records.iter().filter_map(|r| r.get("/sequence").as_u64()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_key_is_a_delete_and_a_create() {
    let db = Database::create("moved").await;
    db.run(
        "create table pair (b int, x text, a int, primary key (a, b)); \
         create table whole (id int primary key, x text); alter table whole replica identity full",
    )
    .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["pair", "whole"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into pair values (1, 'x', 2); update pair set b = 7; update pair set x = 'y'").await;
    db.run("insert into whole values (1, 'x'); update whole set id = 2; update whole set x = 'y'; delete from whole")
        .await;
    let records = recorder.wait(12).await;
    assert_eq!(ops(&records), ["c", "d", "tombstone", "c", "u", "c", "d", "tombstone", "c", "u", "d", "tombstone"]);
    // Keys keep the order of the primary key, not that of the columns.
    assert_eq!(records[0].key.as_ref().map(ToString::to_string).as_deref(), Some(r#"{"a":2,"b":1}"#));
    assert_eq!(records[1].key, Some(json!({"a": 2, "b": 1})));
    assert_eq!(records[3].key, Some(json!({"a": 2, "b": 7})));
    assert_eq!(records[1].get("/source/txId"), records[3].get("/source/txId"));
    assert_eq!(records[4].get("/before"), Json::Null);
    assert_eq!(records[6].get("/before"), json!({"id": 1, "x": "x"}));
    assert_eq!(records[9].get("/before"), json!({"id": 2, "x": "x"}));
    assert_eq!(records[10].get("/before"), json!({"id": 2, "x": "y"}));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_toasted_value_that_did_not_change_is_listed_or_recovered() {
    let db = Database::create("toast").await;
    db.run(
        "create table doc (id int primary key, n int, body text); alter table doc alter body set storage external; \
         create table full_doc (id int primary key, n int, body text); alter table full_doc alter body set storage external; \
         alter table full_doc replica identity full",
    )
    .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["doc", "full_doc"]));
    let running = Running::streaming(&settings, &recorder).await;
    for table in ["doc", "full_doc"] {
        db.run(&format!("insert into {table} values (1, 1, repeat('x', 20000)); update {table} set n = 2")).await;
    }
    let records = recorder.wait(4).await;
    let whole = "x".repeat(20_000);
    assert_eq!(records[0].get("/after/body"), whole.as_str());
    assert_eq!((records[1].get("/after"), records[1].get("/unchanged")), (json!({"id": 1, "n": 2}), json!(["body"])));
    assert_eq!((records[3].get("/after/body"), records[3].get("/unchanged")), (json!(whole), Json::Null));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_and_tables_that_change_while_streaming_are_followed() {
    let db = Database::create("ddl").await;
    db.run("create table t (id int primary key, a text); create table other (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    // A table that nobody asked for, although it is published.
    db.run(&format!("alter publication {} add table other", postgres(&settings).publication)).await;
    db.run("begin; insert into t values (1, 'x'); alter table t add b numeric(5,1) default 1.5; insert into other values (1); \
            insert into t values (2, 'y'); alter table t drop a; insert into t values (3, 2.5); commit")
        .await;
    let records = recorder.wait(3).await;
    assert_eq!(records[0].get("/after"), json!({"id": 1, "a": "x"}));
    assert_eq!(records[1].get("/after"), json!({"id": 2, "a": "y", "b": "Dw=="}));
    assert_eq!(records[2].get("/after"), json!({"id": 3, "b": "GQ=="}));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_arrive_as_their_root() {
    let db = Database::create("partitions").await;
    db.run("create table t (id int primary key) partition by range (id); \
            create table t1 partition of t for values from (0) to (10); create table t2 partition of t for values from (10) to (20)")
        .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1), (11)").await;
    let records = recorder.wait(2).await;
    assert!(records.iter().all(|r| r.topic == format!("{}.public.t", db.name)), "{records:?}");
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_database_lets_the_log_go() {
    let db = Database::create("idle").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    settings.batch.checkpoint_interval = std::time::Duration::from_millis(50);
    let running = Running::streaming(&settings, &recorder).await;
    // Log of another database only.
    let other = Database::create("busy").await;
    other.run("create table noise as select generate_series(1, 1000) as n").await;
    let end = other.text("select pg_current_wal_lsn()::text").await.expect("a position");
    let slot = &postgres(&settings).slot;
    let query =
        format!("select (confirmed_flush_lsn >= '{end}')::text from pg_replication_slots where slot_name = '{slot}'");
    until("the slot moves on", async || {
        // The walsender tells of a later end of the log when the log moves again.
        other.run("select pg_logical_emit_message(false, 'x', 'y')").await;
        db.text(&query).await.as_deref() == Some("true")
    })
    .await;
    assert_eq!(recorder.len(), 0);
    running.stop().await;
    other.remove().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_before_it_is_durable() {
    let db = Database::create("ack").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    recorder.stand_still_at(Some(1));
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    let before = db.text("select pg_current_wal_lsn()::text").await.expect("a position");
    db.run("insert into t values (2)").await;
    let slot = postgres(&settings).slot.clone();
    let sent = format!(
        "select (r.sent_lsn > '{before}')::text from pg_stat_replication r \
        join pg_replication_slots s on s.active_pid = r.pid where s.slot_name = '{slot}'"
    );
    until("it is sent", async || db.text(&sent).await.as_deref() == Some("true")).await;
    let confirmed = format!(
        "select (confirmed_flush_lsn <= '{before}')::text from pg_replication_slots where slot_name = '{slot}'"
    );
    assert_eq!(db.text(&confirmed).await.as_deref(), Some("true"));
    recorder.stand_still_at(None);
    recorder.wait(2).await;
    until("it is confirmed", async || db.text(&confirmed).await.as_deref() == Some("false")).await;
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_fails_for_a_while_gets_everything_once() {
    let db = Database::create("flaky").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    recorder.fail(3);
    db.run("insert into t select generate_series(1, 10)").await;
    running.wait_down("the broker is away").await;
    let records = recorder.wait(10).await;
    assert_eq!(records.len(), 10);
    running.wait_up().await;
    running.stop().await;
    // A second session sees the same.
    let sql = connect(&db.url).await;
    drop(sql);
    db.remove().await;
}
