//! Transactions that are published when they are prepared: each once, whatever happens before it ends.

use serde_json::json;
use tempfile::TempDir;
use tributary_connector::{ConnectorSettings, PreparedTransactions};

use crate::in_progress::{ids, streaming_database};
use crate::logs::{listen, warnings};
use crate::support::{Database, Record, Recorder, Running, connect, postgres, postgres_mut, until};

/// Asks for transactions when they are prepared; no settings where the server cannot.
async fn at_prepare(test: &str) -> Option<(Database, ConnectorSettings, TempDir)> {
    let (db, mut settings, folder) = streaming_database(test, &["t"]).await;
    db.run("create table t (id int primary key, x text); create table other (id int)").await;
    postgres_mut(&mut settings).prepared = PreparedTransactions::AtPrepare;
    if db.version().await >= 15 {
        return Some((db, settings, folder));
    }
    let error = Running::start(&settings, &Recorder::new()).error().await.to_string();
    assert!(error.contains("which PostgreSQL 14 cannot send") && error.contains("upgrade the server to 15"), "{error}");
    db.remove().await;
    None
}

fn rows(from: i32, to: i32) -> String {
    format!("insert into t select g, repeat('x', 100) from generate_series({from}, {to}) g")
}

impl Database {
    /// Prepares a transaction with these rows, by a name that begins with the database's.
    async fn prepare(&self, gid: &str, from: i32, to: i32) {
        self.run(&format!("begin; {}; prepare transaction '{}_{gid}'", rows(from, to), self.name)).await;
    }

    async fn commit(&self, gid: &str) {
        self.run(&format!("commit prepared '{}_{gid}'", self.name)).await;
    }

    async fn rollback(&self, gid: &str) {
        self.run(&format!("rollback prepared '{}_{gid}'", self.name)).await;
    }
}

/// Makes publication and slot as somebody may have who knew nothing of failovers: PostgreSQL 17 wants it so.
async fn make_slot(db: &Database, settings: &ConnectorSettings) {
    let (slot, publication) = (&postgres(settings).slot, &postgres(settings).publication);
    db.run(&format!("create publication {publication} for table t with (publish_via_partition_root = true)")).await;
    db.run(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
}

/// Kills a connector, and waits until the server has noticed.
async fn kill(running: Running, db: &Database, settings: &ConnectorSettings) {
    running.kill().await;
    until_free(db, settings).await;
}

/// The server notices a moment later that nobody reads a slot any more.
async fn until_free(db: &Database, settings: &ConnectorSettings) {
    let slot = &postgres(settings).slot;
    let active = format!("select active::text from pg_replication_slots where slot_name = '{slot}'");
    until("the slot is free", async || db.text(&active).await.as_deref() == Some("false")).await;
}

fn assert_order(records: &[Record]) {
    let sequences: Vec<u64> = records.iter().filter_map(|r| r.get("/sequence").as_u64()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "sequences do not rise");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_comes_when_it_is_prepared_and_never_again() {
    listen();
    let Some((db, settings, _folder)) = at_prepare("at_prepare").await else { return };
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    // One small, one that is streamed while it is in progress.
    db.prepare("small", 1, 10).await;
    recorder.wait(10).await;
    db.prepare("large", 11, 5_000).await;
    recorder.wait(5_000).await;
    kill(running, &db, &settings).await;
    // Neither comes again with what ends it, also behind a restart.
    let running = Running::streaming(&settings, &recorder).await;
    db.commit("large").await;
    db.rollback("small").await;
    db.run(&rows(5_001, 5_001)).await;
    let records = recorder.wait(5_001).await;
    running.stop().await;
    until_free(&db, &settings).await;
    assert!(ids(&records).into_iter().eq(1..=5_001), "not each once, in order");
    assert_order(&records);
    let said = warnings(&db.name).join("\n");
    assert!(said.contains(&format!("{}_small", db.name)) && said.contains("before the stream began"), "{said}");
    // What was confirmed lies behind all of it.
    let open = format!(
        "select count(*)::text from pg_logical_slot_peek_binary_changes('{0}', null, null, 'proto_version', '3', \
         'publication_names', '{0}', 'two_phase', 'on')",
        postgres(&settings).slot
    );
    let left = if db.version().await >= 15 { db.text(&open).await } else { None };
    assert_eq!(left.as_deref(), Some("0"));
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_in_the_middle_of_a_prepared_transaction_repeats_and_loses_nothing() {
    let Some((db, mut settings, _folder)) = at_prepare("prepare_killed").await else { return };
    let recorder = Recorder::new();
    settings.batch.records = 100;
    let mut running = Running::streaming(&settings, &recorder).await;
    recorder.stand_still_at(Some(1_000));
    db.prepare("small", 1, 300).await;
    db.prepare("large", 301, 5_000).await;
    for (stop, next) in [(1_000, 2_000), (2_000, 4_000)] {
        recorder.wait(stop - 600).await;
        kill(running, &db, &settings).await;
        recorder.stand_still_at(Some(next));
        running = Running::start(&settings, &recorder);
    }
    recorder.wait(3_400).await;
    kill(running, &db, &settings).await;
    // One ends while nobody reads: the server need not send the rest of what never happened.
    db.rollback("large").await;
    db.commit("small").await;
    recorder.stand_still_at(None);
    let running = Running::start(&settings, &recorder);
    db.run(&rows(5_001, 5_001)).await;
    let mut all = Vec::new();
    until("the last row comes", async || {
        all = ids(&recorder.records());
        all.last() == Some(&5_001)
    })
    .await;
    running.stop().await;
    let large = all.len() - 1;
    assert!(all[..large].iter().copied().eq(1..=i64::try_from(large).expect("a number")), "not each once, in order");
    assert_order(&recorder.records());
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_told_only_of_what_was_published() {
    listen();
    let Some((db, settings, _folder)) = at_prepare("rolled_back").await else { return };
    let (recorder, name) = (Recorder::new(), db.name.clone());
    let running = Running::streaming(&settings, &recorder).await;
    db.prepare("ours", 1, 1).await;
    recorder.wait(1).await;
    db.run(&format!("begin; insert into other values (1); prepare transaction '{name}_others'")).await;
    db.rollback("others").await;
    db.rollback("ours").await;
    db.run(&rows(2, 2)).await;
    recorder.wait(2).await;
    running.stop().await;
    let said = warnings(&name);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&format!("{name}_ours")) && said[0].contains("never happened"), "{said:?}");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_before_it_was_asked_for_comes_once_when_it_commits() {
    let Some((db, mut settings, _folder)) = at_prepare("asked_late").await else { return };
    let recorder = Recorder::new();
    settings.batch.records = 100;
    make_slot(&db, &settings).await;
    postgres_mut(&mut settings).prepared = PreparedTransactions::AtCommit;
    let running = Running::streaming(&settings, &recorder).await;
    for (gid, from, to) in [("small", 1, 2_000), ("large", 2_001, 7_000), ("gone", 8_001, 8_010)] {
        db.prepare(gid, from, to).await;
    }
    db.run(&rows(0, 0)).await;
    recorder.wait(1).await;
    running.stop().await;
    postgres_mut(&mut settings).prepared = PreparedTransactions::AtPrepare;
    let mut running = Running::streaming(&settings, &recorder).await;
    db.run(&rows(-1, -1)).await;
    recorder.wait(2).await;
    // Killed in the middle of each, and about where the first ends.
    recorder.stand_still_at(Some(1_000));
    db.rollback("gone").await;
    db.commit("small").await;
    db.commit("large").await;
    for (stop, next) in [(1_000, Some(2_002)), (2_002, Some(4_000)), (4_000, Some(7_002)), (7_002, None)] {
        recorder.wait(stop - 600).await;
        kill(running, &db, &settings).await;
        recorder.stand_still_at(next);
        running = Running::start(&settings, &recorder);
    }
    db.run(&rows(7_001, 7_001)).await;
    let records = recorder.wait(7_003).await;
    running.stop().await;
    let expected = [0, -1].into_iter().chain(1..=7_001);
    assert!(ids(&records).into_iter().eq(expected), "not each once, in order");
    assert_order(&records);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_for_behind_a_transaction_of_which_a_part_is_published() {
    for streamed in [true, false] {
        let Some((db, mut settings, _folder)) = at_prepare("asked_within").await else { return };
        if !streamed {
            postgres_mut(&mut settings).streaming = None;
        }
        let recorder = Recorder::new();
        settings.batch.records = 100;
        make_slot(&db, &settings).await;
        postgres_mut(&mut settings).prepared = PreparedTransactions::AtCommit;
        let running = Running::streaming(&settings, &recorder).await;
        // Both are prepared before the one commits of which a part is published.
        recorder.stand_still_at(Some(1_000));
        db.prepare("open", 10_001, 10_010).await;
        db.prepare("half", 1, 5_000).await;
        db.commit("half").await;
        until("it stands in the middle", async || {
            recorder.checkpoint_json().is_some_and(|c| c["transaction"]["changes"].as_u64().is_some_and(|n| n > 500))
        })
        .await;
        kill(running, &db, &settings).await;
        postgres_mut(&mut settings).prepared = PreparedTransactions::AtPrepare;
        recorder.stand_still_at(None);
        let running = Running::start(&settings, &recorder);
        recorder.wait(5_000).await;
        let two_phase = format!(
            "select two_phase::text from pg_replication_slots where slot_name = '{}'",
            postgres(&settings).slot
        );
        until("the slot sends prepared transactions", async || db.text(&two_phase).await.as_deref() == Some("true"))
            .await;
        db.prepare("new", 5_001, 5_010).await;
        recorder.wait(5_010).await;
        db.commit("open").await;
        recorder.wait(5_020).await;
        db.commit("new").await;
        db.run(&rows(0, 0)).await;
        let records = recorder.wait(5_021).await;
        running.stop().await;
        let expected = (1..=5_010).chain(10_001..=10_010).chain([0]);
        assert!(ids(&records).into_iter().eq(expected), "not each once, in order");
        assert_order(&records);
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_was_asked_once_stays_with_it() {
    let Some((db, settings, _folder)) = at_prepare("asked_once").await else { return };
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    db.prepare("open", 1, 10).await;
    recorder.wait(10).await;
    running.stop().await;
    let mut at_commit = settings.clone();
    postgres_mut(&mut at_commit).prepared = PreparedTransactions::AtCommit;
    let error = Running::start(&at_commit, &recorder).error().await.to_string();
    assert!(error.contains("set prepared_transactions to at-prepare again"), "{error}");
    // Meanwhile nothing was lost.
    db.prepare("later", 11, 20).await;
    db.commit("open").await;
    let running = Running::streaming(&settings, &recorder).await;
    db.commit("later").await;
    db.run(&rows(21, 21)).await;
    let records = recorder.wait(21).await;
    running.stop().await;
    assert!(ids(&records).into_iter().eq(1..=21), "not each once, in order");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_waits_for_a_transaction_that_is_prepared() {
    let Some((db, settings, _folder)) = at_prepare("first_start").await else { return };
    let recorder = Recorder::new();
    db.prepare("before", 1, 10).await;
    let running = Running::start(&settings, &recorder);
    let waits = format!(
        "select count(*)::text from pg_stat_activity where datname = '{}' and wait_event_type = 'Lock' \
         and query like '%pg_create_logical_replication_slot%' and pid <> pg_backend_pid()",
        db.name
    );
    until("the slot waits", async || db.text(&waits).await.as_deref() == Some("1")).await;
    // Who reads rows once the connector is ready finds it committed; the log begins behind it.
    db.commit("before").await;
    running.wait_up().await;
    let seen = connect(&db.url).await.query_one("select count(*) from t", &[]).await.expect("rows").get::<_, i64>(0);
    assert_eq!(seen, 10);
    db.prepare("after", 11, 12).await;
    let records = recorder.wait(2).await;
    assert_eq!((ids(&records), records[0].get("/op")), (vec![11, 12], json!("c")));
    running.stop().await;
    db.commit("after").await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_kept_on_standbys_is_refused_where_both_cannot_be() {
    let Some((db, mut settings, _folder)) = at_prepare("with_failover").await else { return };
    let recorder = Recorder::new();
    postgres_mut(&mut settings).prepared = PreparedTransactions::AtCommit;
    Running::streaming(&settings, &recorder).await.stop().await;
    postgres_mut(&mut settings).prepared = PreparedTransactions::AtPrepare;
    if db.version().await == 17 {
        let error = Running::start(&settings, &recorder).error().await.to_string();
        assert!(error.contains("(FAILOVER false)"), "{error}");
    } else {
        Running::streaming(&settings, &recorder).await.stop().await;
    }
    db.remove().await;
}
