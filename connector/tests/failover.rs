//! A primary and its standby: the connector follows a promotion, or refuses to, and never skips a change.

use std::time::Duration;

use tokio_postgres::Client;
use tributary_connector::{ConnectorError, ConnectorSettings};
use tributary_event::ErrorClass;
use tributary_stack::{Postgres, PostgresOptions};

use crate::logs::{listen, warnings_of_all};
use crate::support::{Database, Recorder, Running, connect, postgres, until, version};

struct Pair {
    primary: Postgres,
    standby: Postgres,
}

impl Pair {
    /// A primary with a table, and a standby that streams from it and keeps its slots.
    async fn start(version: i32) -> Self {
        let options = |settings: Vec<(&str, String)>| PostgresOptions {
            version: version.to_string(),
            fsync: false,
            settings: settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ..Default::default()
        };
        let primary = Postgres::start(options(Vec::new())).await.expect("the primary starts");
        let sql = connect(&primary.url("postgres")).await;
        sql.batch_execute("create table t (id int primary key)").await.expect("prepared");
        drop(sql);
        let settings = if version >= 17 { vec![("sync_replication_slots", "on".into())] } else { Vec::new() };
        let standby = primary.standby(options(settings)).await.expect("the standby starts");
        Self { primary, standby }
    }

    fn settings(&self) -> ConnectorSettings {
        let url = format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?connect_timeout=2",
            self.standby.port(),
            self.primary.port()
        );
        ConnectorSettings::postgres("pair", url.as_str().into(), ["t"])
    }

    /// Waits until the standby keeps the slot for good.
    async fn wait_synced(&self, settings: &ConnectorSettings) {
        let sql = connect(&self.standby.url("postgres")).await;
        let synced = "select from pg_replication_slots where slot_name = $1 and synced and not temporary";
        let primary = connect(&self.primary.url("postgres")).await;
        until("the standby keeps the slot", async || {
            // A slot is kept when the standby has reached its position; the log must move for that.
            primary.batch_execute("select pg_log_standby_snapshot()").await.expect("a snapshot");
            tokio::time::sleep(Duration::from_millis(200)).await;
            !sql.query(synced, &[&postgres(settings).slot]).await.expect("slots").is_empty()
        })
        .await;
    }

    async fn promote(&self) -> Client {
        let sql = connect(&self.standby.url("postgres")).await;
        assert!(sql.query_one("select pg_promote()", &[]).await.expect("promoted").get::<_, bool>(0));
        sql
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promotion_under_load_is_followed() {
    let version = version().await;
    if version < 17 {
        return refused_before_17().await;
    }
    let pair = Pair::start(version).await;
    let sql = connect(&pair.primary.url("postgres")).await;
    sql.batch_execute("alter system set synchronized_standby_slots = 'standby'").await.expect("set");
    sql.batch_execute("select pg_reload_conf()").await.expect("reloaded");
    let (recorder, settings) = (Recorder::new(), pair.settings());
    let running = Running::streaming(&settings, &recorder).await;
    pair.wait_synced(&settings).await;
    let load = tokio::spawn(async move {
        let mut id = 0;
        while sql.execute("insert into t values ($1)", &[&id]).await.is_ok() {
            id += 1;
        }
    });
    recorder.wait(300).await;
    pair.primary.kill().await.expect("killed");
    load.await.expect("the load ends with its server");
    let sql = pair.promote().await;
    let before = sql.query_one("select count(*) from t", &[]).await.expect("a count").get::<_, i64>(0);
    assert!(before >= 300, "the promoted server has {before} rows, though more were captured");
    sql.batch_execute("insert into t select g from generate_series(1000001, 1000100) g").await.expect("written");
    let expected = usize::try_from(before).expect("a count") + 100;
    let records = recorder.wait(expected).await;
    running.wait_up().await;
    sql.batch_execute("insert into t values (2000000)").await.expect("written");
    recorder.wait(expected + 1).await;
    running.stop().await;
    assert_eq!(recorder.len(), expected + 1, "something came twice");
    let ids: Vec<i64> = records.iter().map(|r| r.get("/after/id").as_i64().expect("an id")).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "out of order, or twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_promoted_without_captured_changes_is_refused() {
    let version = version().await;
    if version < 17 {
        return;
    }
    let pair = Pair::start(version).await;
    let (recorder, settings) = (Recorder::new(), pair.settings());
    let running = Running::streaming(&settings, &recorder).await;
    let sql = connect(&pair.primary.url("postgres")).await;
    sql.batch_execute("insert into t values (1)").await.expect("written");
    recorder.wait(1).await;
    pair.wait_synced(&settings).await;
    // The standby misses the second row, and nothing makes the primary wait for it.
    pair.standby.kill().await.expect("killed");
    sql.batch_execute("insert into t values (2)").await.expect("written");
    recorder.wait(2).await;
    drop(sql);
    pair.primary.kill().await.expect("killed");
    pair.standby.start_again().await.expect("starts again");
    let sql = pair.promote().await;
    sql.batch_execute("insert into t values (3)").await.expect("written");
    let error = running.error().await;
    assert!(matches!(error, ConnectorError::PositionLost { .. }), "{error}");
    assert!(error.to_string().contains("promoted without all of its predecessor's log"), "{error}");
    assert_eq!(recorder.len(), 2, "changes of the new timeline were captured all the same");
}

/// From 17 on a slot would be made with `failover`, which a standby refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_from_with_a_publication_of_its_primary() {
    listen();
    let version = version().await;
    let pair = Pair::start(version).await;
    let primary = connect(&pair.primary.url("postgres")).await;
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", pair.standby.port());
    let mut settings = ConnectorSettings::postgres("of_standby", url.as_str().into(), ["t"]);
    crate::support::postgres_mut(&mut settings).heartbeat = Some(Duration::from_secs(1));
    let recorder = Recorder::new();
    let error = Running::start(&settings, &recorder).error().await;
    let said = error.to_string();
    assert_eq!(error.class(), ErrorClass::Fatal, "{said}");
    if version < 16 {
        assert!(
            said.contains("it is a standby, whose log PostgreSQL") && said.contains("lead to the primary"),
            "{said}"
        );
        return;
    }
    let (_, statement) = said.split_once("run on the primary: ").unwrap_or_else(|| panic!("no statement: {said}"));
    primary.batch_execute(statement).await.expect("the statement works there");
    let running = Running::start(&settings, &recorder);
    // Nothing happens on the primary, so the standby waits; what helps is said, and helps.
    let about = |text: &str| warnings_of_all().iter().any(|said| said.contains(text));
    until("the wait is told of", async || about("run on the primary: select pg_log_standby_snapshot();")).await;
    until("the source is up", async || {
        primary.batch_execute("select pg_log_standby_snapshot()").await.expect("a snapshot");
        tokio::time::sleep(Duration::from_millis(100)).await;
        running.health.is_up()
    })
    .await;
    primary.batch_execute("insert into t values (1), (2)").await.expect("written");
    let records = recorder.wait(2).await;
    assert_eq!(records[1].get("/after/id"), serde_json::json!(2));
    until("heartbeats are told of", async || about("is a standby; let the url lead to the primary")).await;
    running.stop().await;
    // It resumes there too.
    primary.batch_execute("insert into t values (3)").await.expect("written");
    let running = Running::streaming(&settings, &recorder).await;
    recorder.wait(3).await;
    running.stop().await;
    // A primary is asked for, and there is none in the url.
    let url = format!("{url}?target_session_attrs=primary");
    crate::support::postgres_mut(&mut settings).url = url.as_str().into();
    let running = Running::start(&settings, &recorder);
    running.wait_down("there is no primary among them").await;
    running.stop().await;
}

async fn refused_before_17() {
    let db = Database::create("two_hosts").await;
    db.run("create table t (id int primary key)").await;
    let (_, host) = db.url.split_once('@').expect("a user");
    let address = host.split('/').next().expect("an address");
    let url = db.url.replace(address, &format!("{address},{address}"));
    let settings = ConnectorSettings::postgres(&db.name, url.as_str().into(), ["t"]);
    let error = Running::start(&settings, &Recorder::new()).error().await.to_string();
    assert!(error.contains("stay behind at a failover") && error.contains("upgrade the servers to 17"), "{error}");
    db.remove().await;
}
