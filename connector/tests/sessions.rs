//! What an administrator sets for a role or a database in general neither ends nor slows the sessions of a source.

use std::time::Duration;

use serde_json::json;
use tributary_connector::ConnectorSettings;
use tributary_connector::KeyRow;
use tributary_connector::postgres::KeyPager;
use tributary_event::{ErrorClass, Value};

use crate::support::{Database, Recorder, Running, postgres, postgres_mut, until};

/// Settings by which sessions end, wait, fail, or print other values; those that the server does not know are left out.
const HOSTILE: &[(&str, &str)] = &[
    ("statement_timeout", "1ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "1ms"),
    ("idle_session_timeout", "1ms"),
    ("transaction_timeout", "1ms"),
    ("wal_sender_timeout", "10ms"),
    ("tcp_user_timeout", "1ms"),
    ("client_connection_check_interval", "1ms"),
    ("exit_on_error", "on"),
    ("local_preload_libraries", "no_such_library"),
    ("default_transaction_read_only", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("synchronous_commit", "remote_apply"),
    ("search_path", "evil, pg_catalog"),
    ("row_security", "on"),
    ("client_encoding", "LATIN1"),
    ("datestyle", "German"),
    ("intervalstyle", "iso_8601"),
    ("timezone", "Asia/Tokyo"),
    ("bytea_output", "escape"),
    ("extra_float_digits", "0"),
    ("standard_conforming_strings", "off"),
    ("quote_all_identifiers", "on"),
    ("array_nulls", "off"),
    ("transform_null_equals", "on"),
    ("enable_indexscan", "off"),
    ("enable_indexonlyscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_sort", "off"),
    ("enable_incremental_sort", "off"),
    ("random_page_cost", "1000000"),
    ("jit", "on"),
    ("jit_above_cost", "0"),
];

/// Makes a role of the database's name, which owns the table `t`, and a schema with functions that stand in for the system's.
async fn database(test: &str) -> (Database, ConnectorSettings) {
    let db = Database::create(test).await;
    db.run(&format!(
        "create table t (id int primary key, at date, big text); \
         create role {0} login replication password 'x'; create role {0}_group; grant {0}_group to {0}; \
         alter table t owner to {0}; grant create on database {0} to {0}; \
         create schema evil; grant usage on schema evil to public; \
         create function evil.pg_is_in_recovery() returns bool language plpgsql as $$ begin raise 'evil'; end $$; \
         create function evil.current_setting(text) returns text language plpgsql as $$ begin raise 'evil'; end $$",
        db.name
    ))
    .await;
    let settings = db.settings_of(&["t"], &db.name, "x");
    (db, settings)
}

async fn set(db: &Database, whom: &str) {
    for (name, value) in HOSTILE {
        let known = format!("select name::text from pg_settings where name = '{name}'");
        if db.text(&known).await.is_some() {
            let value = if *name == "search_path" { (*value).to_owned() } else { format!("'{value}'") };
            db.run(&format!("alter {whom} set {name} = {value}")).await;
        }
    }
}

async fn remove(db: Database) {
    db.run(&format!("alter table t owner to current_user; drop owned by {0}; drop role {0}_group", db.name)).await;
    db.remove().await;
}

async fn runs_through(db: &Database, settings: &mut ConnectorSettings) {
    postgres_mut(settings).heartbeat = Some(Duration::from_secs(1));
    let recorder = Recorder::new();
    let running = Running::streaming(settings, &recorder).await;
    // One that takes the server longer to decode than any of the limits.
    db.run("insert into t select g, '2020-02-29', repeat('x', 100) from generate_series(1, 20000) g").await;
    let records = recorder.wait(20_000).await;
    assert_eq!(records[0].get("/after/at"), json!(18_321));
    // Idle for longer than a session may be, a page at a time.
    let mut pager = KeyPager::open(postgres(settings), "t", &[]).await.expect("opens");
    let (mut after, mut count): (Option<Vec<String>>, usize) = (None, 0);
    loop {
        let page: Vec<KeyRow> = pager.page(after.as_deref(), 7_000).await.expect("a page");
        count += page.len();
        let Some(last) = page.last() else { break };
        after = Some(last.place.clone());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(count, 20_000);
    // It is still the first stream, and writes what it is asked to write.
    let beats = format!(
        "select (confirmed_flush_lsn >= pg_current_wal_lsn() - 0)::text from pg_replication_slots where slot_name = '{}'",
        postgres(settings).slot
    );
    until("heartbeats move the position", async || db.text(&beats).await.as_deref() == Some("true")).await;
    assert!(running.health.is_up(), "{:?}", running.health.parts());
    assert_eq!(recorder.len(), 20_000, "something came twice");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_role_are_overruled() {
    let (db, mut settings) = database("hostile_role").await;
    set(&db, &format!("role {}", db.name)).await;
    db.run(&format!("alter role {0} set role = '{0}_group'", db.name)).await;
    runs_through(&db, &mut settings).await;
    remove(db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_database_are_overruled() {
    let (db, mut settings) = database("hostile_database").await;
    set(&db, &format!("database {}", db.name)).await;
    runs_through(&db, &mut settings).await;
    remove(db).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_overruled_is_refused_with_the_statement_that_lifts_it() {
    let (db, settings) = database("stubborn").await;
    let refused = async |lifts: &str| {
        let error = Running::start(&settings, &Recorder::new()).error().await;
        assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
        let said = error.to_string();
        assert!(said.contains(lifts), "{said}");
        let (_, statement) = said.split_once("run: ").unwrap_or_else(|| panic!("no statement: {said}"));
        // As it stands there.
        db.run(statement).await;
    };
    db.run(&format!("alter role {} connection limit 1", db.name)).await;
    refused("CONNECTION LIMIT -1").await;
    db.run(&format!("alter database {} connection limit 2", db.name)).await;
    refused("CONNECTION LIMIT -1").await;
    db.run(&format!("alter role {} set session_preload_libraries = 'no_such_library'", db.name)).await;
    refused("RESET session_preload_libraries").await;
    Running::streaming(&settings, &Recorder::new()).await.stop().await;
    // None at all: whether one will be free some day is not ours to know, so the source waits and says what lifts it.
    db.run(&format!("alter role {} connection limit 0", db.name)).await;
    let running = Running::start(&settings, &Recorder::new());
    running.wait_down("CONNECTION LIMIT -1;").await;
    db.run(&format!("alter role {} connection limit -1", db.name)).await;
    running.wait_up().await;
    running.stop().await;
    remove(db).await;
}

/// The page of an index is one of the index, whatever the planner would think of it.
#[tokio::test]
async fn keys_of_a_type_of_an_extension_are_paged_in_its_order() {
    let db = Database::create("citext_key").await;
    db.run("create schema ext; create extension citext schema ext; create table t (id ext.citext primary key)").await;
    db.run("insert into t select case when g % 2 = 0 then upper(to_hex(g)) else to_hex(g) end from generate_series(1, 500) g")
        .await;
    let mut pager = KeyPager::open(postgres(&db.settings(&["t"])), "t", &[]).await.expect("opens");
    let (mut after, mut ids): (Option<Vec<String>>, Vec<Value>) = (None, Vec::new());
    loop {
        let page = pager.page(after.as_deref(), 7).await.expect("a page");
        let Some(last) = page.last() else { break };
        after = Some(last.place.clone());
        ids.extend(page.into_iter().flat_map(|row| row.values));
    }
    let rows = db.sql.query("select id::text from t order by t.id", &[]).await.expect("rows");
    assert_eq!(ids, rows.iter().map(|row| Value::text(row.get::<_, String>(0))).collect::<Vec<_>>());
    db.remove().await;
}
