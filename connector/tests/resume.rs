//! Nothing is lost and nothing comes twice, whatever ends the connector or its connection.

use serde_json::Value as Json;

use crate::support::{Database, Record, Recorder, Running, postgres, until};

fn ids(records: &[Record]) -> Vec<i64> {
    records.iter().filter(|r| r.value.is_some()).filter_map(|r| r.get("/after/id").as_i64()).collect()
}

fn assert_each_once(records: &[Record], count: i64) {
    let ids = ids(records);
    assert_eq!(ids.len() as i64, count);
    assert!(ids.iter().copied().eq(1..=count), "not each once, in order");
    let sequences: Vec<u64> = records.iter().filter_map(|r| r.get("/sequence").as_u64()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "sequences do not rise");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_goes_on_where_it_was_interrupted() {
    let db = Database::create("middle").await;
    db.run("create table t (id int primary key, x text); create table u (id int primary key)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    settings.batch.records = 100;
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1, 'first')").await;
    recorder.wait(1).await;
    // Killed three times within one transaction.
    recorder.stand_still_at(Some(1_500));
    db.run(
        "begin; insert into t select g, 'x' from generate_series(2, 5000) g; insert into t select 0, 'zero'; \
            delete from t where id = 0; update t set id = 5001 where id = 5000; commit; \
            insert into t values (5002, 'last')",
    )
    .await;
    let mut running = running;
    for stop in [1_500usize, 3_000, 4_500] {
        let reached = recorder.wait(stop - 600).await.len();
        assert!(reached <= stop);
        let slot = &postgres(&settings).slot;
        until("it stands in the middle", async || {
            recorder.checkpoint_json().is_some_and(|c| c["transaction"]["changes"].as_u64().is_some())
        })
        .await;
        running.kill().await;
        let active = format!("select active::text from pg_replication_slots where slot_name = '{slot}'");
        until("the slot is free", async || db.text(&active).await.as_deref() == Some("false")).await;
        recorder.stand_still_at(Some(stop + 1_500));
        running = Running::start(&settings, &recorder);
    }
    recorder.stand_still_at(None);
    // 1 + 4,999 + create, delete, tombstone + moved: delete, tombstone, create + 1.
    let records = recorder.wait(5_007).await;
    running.stop().await;
    assert_eq!(recorder.len(), 5_007);
    let of_transaction: Vec<Json> =
        records[1..5_006].iter().filter(|r| r.value.is_some()).map(|r| r.get("/transaction/total_order")).collect();
    assert!(of_transaction.iter().map(|o| o.as_u64().unwrap_or(0)).eq(1..=5_003), "orders are not 1..5003");
    let sequences: Vec<u64> = records.iter().filter_map(|r| r.get("/sequence").as_u64()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "sequences do not rise");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_transactions_survive_many_kills() {
    let db = Database::create("kills").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    settings.batch.records = 64;
    let mut running = Running::streaming(&settings, &recorder).await;
    let (mut next, total) = (1, 20_000);
    while next <= total {
        db.run(&format!("insert into t select generate_series({next}, {})", next + 199)).await;
        next += 200;
        if next % 4_000 == 1 {
            running.kill().await;
            running = Running::start(&settings, &recorder);
        }
    }
    let records = recorder.wait(total as usize).await;
    running.stop().await;
    assert_each_once(&records, total);
    assert_eq!(recorder.len() as i64, total);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_walsender_is_replaced() {
    let db = Database::create("walsender").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    for i in 1..=5 {
        db.run(&format!("insert into t values ({i})")).await;
        recorder.wait(i).await;
        let slot = &postgres(&settings).slot;
        let pid = format!("select active_pid::text from pg_replication_slots where slot_name = '{slot}'");
        let before = db.text(&pid).await;
        db.run(&format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{slot}'"
        ))
        .await;
        until("another walsender", async || {
            let now = db.text(&pid).await;
            now.is_some() && now != before
        })
        .await;
    }
    assert_each_once(&recorder.wait(5).await, 5);
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_between_preparing_and_running_are_seen() {
    let db = Database::create("prepared").await;
    db.run("create table t (id int primary key, title varchar(20))").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let prepared = tributary_connector::postgres::prepare(&settings, &recorder, &tributary_connector::Independent)
        .await
        .expect("prepared");
    let columns = &prepared.tables[0].schema.columns;
    assert_eq!(columns.iter().map(|c| &*c.type_name).collect::<Vec<_>>(), ["integer", "character varying(20)"]);
    db.run("insert into t values (1), (2)").await;
    let running = Running::streaming(&settings, &recorder).await;
    assert_each_once(&recorder.wait(2).await, 2);
    running.stop().await;
    // After an orderly stop everything is acknowledged, and the next run begins behind it.
    db.run("insert into t values (3)").await;
    let running = Running::streaming(&settings, &recorder).await;
    assert_each_once(&recorder.wait(3).await, 3);
    running.stop().await;
    assert_eq!(recorder.len(), 3);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connector_waits_and_takes_over() {
    let db = Database::create("standby").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let first = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    let second = Running::start(&settings, &recorder);
    second.wait_down("standby").await;
    // The first goes on undisturbed.
    db.run("insert into t values (2)").await;
    recorder.wait(2).await;
    first.kill().await;
    db.run("insert into t values (3)").await;
    assert_each_once(&recorder.wait(3).await, 3);
    second.wait_up().await;
    second.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transport_that_stands_still_costs_no_session() {
    let db = Database::create("stalled").await;
    db.run("create table t (id int primary key, x text); alter table t alter x set storage external").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    let slot = &postgres(&settings).slot;
    let session = format!("select active_pid::text from pg_replication_slots where slot_name = '{slot}'");
    let before = db.text(&session).await.expect("a session");
    recorder.stand_still_at(Some(0));
    // More than all buffers hold, for longer than the server waits for a reader that says nothing.
    db.run("insert into t select g, repeat(md5(g::text), 3200) from generate_series(1, 1000) g").await;
    tokio::time::sleep(std::time::Duration::from_secs(22)).await;
    assert_eq!(db.text(&session).await.as_deref(), Some(&*before));
    recorder.stand_still_at(None);
    assert_each_once(&recorder.wait(1000).await, 1000);
    assert_eq!(db.text(&session).await.as_deref(), Some(&*before));
    running.stop().await;
    db.remove().await;
}
