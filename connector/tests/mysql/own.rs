//! What needs a server of its own: one without GTIDs, whose log is purged.

use tributary_connector::ConnectorSettings;
use tributary_event::TableName;
use tributary_stack::{MySql, MySqlOptions, MySqlProduct};

use crate::support::{Recorder, Running};

#[tokio::test(flavor = "multi_thread")]
async fn without_gtids_files_and_offsets_tell_what_was_read() {
    if std::env::var("TRIBUTARY_TEST_MYSQL").is_err() {
        eprintln!("NOT TESTED: TRIBUTARY_TEST_MYSQL is not set");
        return;
    }
    let Some(version) = MySqlProduct::MySql.newest() else { return };
    let settings = [("gtid-mode", "OFF"), ("enforce-gtid-consistency", "OFF"), ("binlog-checksum", "NONE")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let options = MySqlOptions { fsync: false, settings, ..MySqlOptions::of(MySqlProduct::MySql, version) };
    let server = MySql::start(options).await.expect("a server");
    let mut sql = crate::server::session(&server.url("mysql")).await;
    crate::server::run(&mut sql, "create database films").await;
    crate::server::run(&mut sql, "create table films.t (id int primary key, x varchar(9))").await;
    let table = TableName::new("films", "t");
    let settings = ConnectorSettings::mysql("films", server.server_url().as_str().into(), [&table]);
    let recorder = Recorder::new();
    let mut count = 0;
    for _ in 0..3 {
        let running = Running::streaming(&settings, &recorder).await;
        for _ in 0..3 {
            count += 1;
            crate::server::run(&mut sql, &format!("insert into films.t values ({count}, 'x')")).await;
            crate::server::run(&mut sql, "flush binary logs").await;
        }
        recorder.wait(count).await;
        running.kill().await;
    }
    let records = recorder.records();
    let ids: Vec<_> = records.iter().filter_map(|r| r.get("/after/id").as_u64()).collect();
    assert!(ids.iter().copied().eq(1..=9), "{ids:?}");
    assert!(records[0].get("/source/gtid").is_null());
    assert!(records[0].get("/transaction/id").as_str().is_some_and(|id| id.starts_with("file=bin.")));

    // Statements of rows are told, and skip nothing.
    crate::server::run(&mut sql, "set session binlog_format = 'STATEMENT'").await;
    crate::server::run(&mut sql, "update films.t set x = 'y'").await;
    let error = Running::start(&settings, &recorder).error().await.to_string();
    assert!(error.contains("a statement that changes it") && error.contains("binlog_format"), "{error}");

    // A log that was purged is told.
    for statement in ["flush binary logs", "flush binary logs", "purge binary logs before now() + interval 1 day"] {
        crate::server::run(&mut sql, statement).await;
    }
    let error = Running::start(&settings, &recorder).error().await.to_string();
    assert!(error.contains("changes since then are lost"), "{error}");
    assert_eq!(recorder.len(), 9);
}
