//! Logical decoding messages.

use serde_json::{Value as Json, json};

use crate::support::{Database, Recorder, Running, postgres_mut};

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_events_of_their_own_topic() {
    let db = Database::create("messages").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    postgres_mut(&mut settings).messages = true;
    let running = Running::streaming(&settings, &recorder).await;
    db.run(
        "begin; insert into t values (1); select pg_logical_emit_message(true, 'outbox', 'in'); insert into t values (2); commit; \
         select pg_logical_emit_message(false, 'outbox', '\\xff00'::bytea); \
         begin; select pg_logical_emit_message(true, 'lost', 'x'); select pg_logical_emit_message(false, 'kept', ''); rollback; \
         insert into t values (3)",
    )
    .await;
    let records = recorder.wait(6).await;
    let ops: Vec<&str> = records.iter().map(|r| r.op()).collect();
    assert_eq!(ops, ["c", "m", "c", "m", "m", "c"]);
    let [within, alone, kept] = [&records[1], &records[3], &records[4]];
    assert_eq!(within.topic, format!("{}.message", db.name));
    assert_eq!(within.key, Some(json!({"prefix": "outbox"})));
    assert_eq!(within.get("/message"), json!({"prefix": "outbox", "content": "aW4="}));
    assert_eq!(within.get("/transaction/total_order"), 2);
    assert_eq!(within.get("/source/txId"), records[0].get("/source/txId"));
    assert_eq!((alone.get("/message/content"), alone.get("/transaction")), (json!("/wA="), Json::Null));
    assert_eq!(kept.get("/message"), json!({"prefix": "kept", "content": ""}));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_arrives_once_across_kills() {
    let db = Database::create("messages_killed").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    postgres_mut(&mut settings).messages = true;
    settings.batch.records = 7;
    let mut running = Running::streaming(&settings, &recorder).await;
    let mut expected = Vec::new();
    for round in 0..10 {
        db.run(&format!(
            "do $$ begin for n in 1..20 loop \
               insert into t values ({round} * 20 + n); \
               perform pg_logical_emit_message(true, 'in', 'i' || {round} * 20 + n); \
               perform pg_logical_emit_message(false, 'out', 'o' || {round} * 20 + n); \
             end loop; end $$"
        ))
        .await;
        // Those outside of the transaction are in the log before it commits.
        let numbers = || (1..=20).map(|n| round * 20 + n);
        expected.extend(numbers().map(|n| format!("o{n}")));
        expected.extend(numbers().map(|n| format!("i{n}")));
        recorder.wait(round * 60 + 10).await;
        running.kill().await;
        running = Running::streaming(&settings, &recorder).await;
    }
    let records = recorder.wait(600).await;
    let messages: Vec<String> = records
        .iter()
        .filter(|r| r.op() == "m")
        .map(|r| {
            use base64::Engine as _;
            let content = r.get("/message/content");
            let bytes = base64::engine::general_purpose::STANDARD.decode(content.as_str().expect("text"));
            String::from_utf8(bytes.expect("base64")).expect("text")
        })
        .collect();
    assert_eq!(messages, expected);
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_was_rolled_back_within_a_large_transaction_never_comes() {
    let db = Database::create("messages_large").await;
    db.run(&format!("alter database {} set logical_decoding_work_mem = '64kB'", db.name)).await;
    db.run("create table t (id int primary key, x text)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    let folder = tempfile::tempdir().expect("a folder");
    let source = postgres_mut(&mut settings);
    (source.messages, source.streaming) = (true, Some(folder.path().join("transactions")));
    let running = Running::streaming(&settings, &recorder).await;
    db.run(
        "begin; savepoint a; select pg_logical_emit_message(true, 'gone', 'x'); \
         insert into t select g, repeat('x', 100) from generate_series(1, 5000) g; rollback to a; \
         select pg_logical_emit_message(true, 'kept', 'x'); insert into t values (0); commit",
    )
    .await;
    let records = recorder.wait(2).await;
    assert_eq!(records[0].get("/message/prefix"), "kept");
    assert_eq!((records[1].get("/after/id"), records.len()), (json!(0), 2));
    running.stop().await;
    db.remove().await;
}
