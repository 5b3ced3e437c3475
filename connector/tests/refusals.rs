//! What cannot work or would lose changes is refused, with the cause and the remedy, and without secrets.

use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tributary_connector::{ConnectorError, ConnectorSettings, Secret};
use tributary_event::ErrorClass;
use tributary_stack::{Postgres, PostgresOptions};

use crate::logs::{listen, warnings, warnings_of_all};
use crate::support::{Database, Recorder, Running, connect, drop_slot, postgres, postgres_mut, server_url, until};

async fn refused(settings: &ConnectorSettings, recorder: &Recorder, texts: &[&str]) {
    let error = Running::start(settings, recorder).error().await;
    assert_eq!(error.class(), ErrorClass::Fatal, "{error}");
    let message = error.to_string();
    for text in texts {
        assert!(message.contains(text), "{message:?} does not say {text:?}");
    }
    assert!(!message.contains("hunter2"), "{message}");
}

/// The settings with another user.
fn with_user(settings: &ConnectorSettings, user: &str, password: &str) -> ConnectorSettings {
    let mut settings = settings.clone();
    let mut url = url::Url::parse(postgres(&settings).url.expose()).expect("a URL");
    url.set_username(user).expect("a user");
    url.set_password(Some(password)).expect("a password");
    postgres_mut(&mut settings).url = Secret::new(url.to_string());
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_cannot_be_captured() {
    let db = Database::create("tables").await;
    db.run("create table movie (id int primary key); create table loose (x int); create unlogged table quick (id int primary key); \
            create table silent (id int primary key); alter table silent replica identity nothing")
        .await;
    let recorder = Recorder::new();
    refused(&db.settings(&["movies"]), &recorder, &["public.movies", "no such table", "did you mean public.movie?"])
        .await;
    refused(&db.settings(&["loose"]), &recorder, &["public.loose", "no primary key", "REPLICA IDENTITY FULL"]).await;
    refused(&db.settings(&["quick"]), &recorder, &["unlogged", "SET LOGGED"]).await;
    refused(&db.settings(&["silent"]), &recorder, &["NOTHING", "REPLICA IDENTITY DEFAULT"]).await;
    refused(&db.settings(&[]), &recorder, &["no tables"]).await;
    // Without a key of its own, but with whole images.
    db.run("alter table loose replica identity full").await;
    let running = Running::streaming(&db.settings(&["loose"]), &recorder).await;
    db.run("insert into loose values (1); delete from loose").await;
    let records = recorder.wait(2).await;
    assert_eq!((records[0].key.clone(), records[1].get("/before/x")), (None, json!(1)));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_that_is_not_ours() {
    let db = Database::create("slots").await;
    db.run("create table t (id int primary key)").await;
    let other = Database::create("slots_other").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let slot = postgres(&settings).slot.clone();
    db.run(&format!("select pg_create_logical_replication_slot('{slot}', 'test_decoding')")).await;
    refused(&settings, &recorder, &["test_decoding", "another name"]).await;
    drop_slot(&db.sql, &slot).await;
    db.run(&format!("select pg_create_physical_replication_slot('{slot}')")).await;
    refused(&settings, &recorder, &["physical"]).await;
    drop_slot(&db.sql, &slot).await;
    other.run(&format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
    refused(&settings, &recorder, &["belongs to the database", &other.name]).await;
    drop_slot(&db.sql, &slot).await;
    let mut odd = settings.clone();
    postgres_mut(&mut odd).slot = "Not-A-Slot".into();
    refused(&odd, &recorder, &["Not-A-Slot", "lower-case"]).await;
    other.remove().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_position() {
    let db = Database::create("lost").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let slot = postgres(&settings).slot.clone();
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    running.stop().await;
    let good = recorder.checkpoint_json().expect("a checkpoint");
    // Another reader moved it on.
    db.run("insert into t values (2)").await;
    until("it is free", async || {
        db.sql.query(&format!("select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"), &[]).await.is_ok()
    })
    .await;
    refused(&settings, &recorder, &[&slot, "moved forward", "reindex"]).await;
    // Another cluster, another database, another slot.
    recorder.set_checkpoint(|c| c["system"] = json!("1"));
    refused(&settings, &recorder, &["system identifier 1"]).await;
    recorder.set_checkpoint(|c| *c = json!({"version": 9}));
    refused(&settings, &recorder, &["checkpoint"]).await;
    recorder.set_checkpoint(|c| *c = good);
    let mut renamed = settings.clone();
    postgres_mut(&mut renamed).slot = format!("{slot}_2");
    refused(&renamed, &recorder, &["was made with the slot"]).await;
    // Dropped.
    drop_slot(&db.sql, &slot).await;
    refused(&settings, &recorder, &[&slot, "does not exist any more", "reindex"]).await;
    let none = format!("select slot_name::text from pg_replication_slots where slot_name = '{slot}'");
    assert_eq!(db.text(&none).await, None, "a lost slot was created again");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_privileges_are_named_with_the_statement_that_grants_them() {
    let db = Database::create("rights").await;
    let role = db.name.clone();
    db.run(&format!("create table t (id int primary key); create role {role} login password 'hunter2'")).await;
    let recorder = Recorder::new();
    let settings = with_user(&db.settings(&["t"]), &role, "hunter2");
    refused(&settings, &recorder, &[&format!("ALTER ROLE \"{role}\" REPLICATION;")]).await;
    db.run(&format!("alter role {role} replication")).await;
    refused(&settings, &recorder, &["GRANT SELECT ON \"public\".\"t\""]).await;
    db.run(&format!("grant select on t to {role}")).await;
    refused(&settings, &recorder, &["GRANT CREATE ON DATABASE", "CREATE PUBLICATION"]).await;
    db.run(&format!("grant create on database {} to {role}", db.name)).await;
    refused(&settings, &recorder, &["does not own the table public.t", "CREATE PUBLICATION"]).await;
    // The least: an administrator makes the publication.
    db.run(&format!("create publication {} for table t", postgres(&settings).publication)).await;
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    running.stop().await;
    // Another table is configured, and the publication is not ours to change.
    db.run(&format!("create table u (id int primary key); grant select on u to {role}")).await;
    let mut more = settings.clone();
    postgres_mut(&mut more).tables.push("u".into());
    refused(&more, &recorder, &["ALTER PUBLICATION", "\"public\".\"u\"", "as the owner of the publication"]).await;
    // As its owner, the connector adds the table itself.
    let mut owner = db.settings(&["t", "u"]);
    owner.name.clone_from(&more.name);
    let running = Running::streaming(&owner, &recorder).await;
    db.run("insert into u values (1)").await;
    recorder.wait(2).await;
    running.stop().await;
    db.run(&format!("drop owned by {role}")).await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_may_not_read_is_granted_at_once() {
    let db = Database::create("closed").await;
    let role = db.name.clone();
    db.run(&format!(
        "create table a (id int primary key); create table b (id int primary key); create schema \"odd one\"; \
         create table \"odd one\".c (id int primary key); create role {role} login replication password 'hunter2'"
    ))
    .await;
    let recorder = Recorder::new();
    let tables = ["a", "b", "odd one.c"];
    db.run(&format!(
        "create publication {} for table a, b, \"odd one\".c",
        postgres(&db.settings(&tables)).publication
    ))
    .await;
    let settings = with_user(&db.settings(&tables), &role, "hunter2");
    let error = Running::start(&settings, &recorder).error().await.to_string();
    let grants = format!(
        "GRANT USAGE ON SCHEMA \"odd one\", \"public\" TO \"{role}\"; GRANT SELECT ON \"public\".\"a\", \"public\".\"b\", \
         \"odd one\".\"c\" TO \"{role}\";"
    );
    assert!(error.contains("public.a") && error.contains("2 others") && error.contains(&grants), "{error}");
    db.run(&grants).await;
    Running::streaming(&settings, &recorder).await.stop().await;
    db.run(&format!("drop owned by {role}")).await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_the_publication_would_hide() {
    let db = Database::create("roots").await;
    db.run("create table t (id int primary key) partition by range (id)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    db.run(&format!("create publication {} for table t", postgres(&settings).publication)).await;
    refused(&settings, &recorder, &["partitioned", "SET (publish_via_partition_root = true)"]).await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_waited_for() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let url = format!("postgres://u:hunter2@127.0.0.1:{port}/d");
    let running = Running::start(&ConnectorSettings::postgres("s", url.as_str().into(), ["t"]), &Recorder::new());
    running.wait_down(&format!("127.0.0.1:{port}")).await;
    let why = running.health.parts()["source"].why.clone().unwrap_or_default();
    assert!(why.contains("cannot be reached") && !why.contains("hunter2"), "{why}");
    running.stop().await;
    let unknown = "postgres://u@host.invalid/d";
    let running = Running::start(&ConnectorSettings::postgres("s", unknown.into(), ["t"]), &Recorder::new());
    running.wait_down("host.invalid").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_once_however_often_it_is_met() {
    listen();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let url = format!("postgres://u@127.0.0.1:{port}/d");
    let running = Running::start(&ConnectorSettings::postgres("away", url.as_str().into(), ["t"]), &Recorder::new());
    for _ in 0..7 {
        // Whoever is let in is thrown out again when it has asked for TLS.
        let (mut connection, _) = listener.accept().await.expect("a connection");
        connection.read_exact(&mut [0; 8]).await.expect("a request");
    }
    running.stop().await;
    let said = warnings("away");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("trying again") && said[0].contains("cannot be reached"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_database_or_role() {
    let mut url = server_url();
    url.set_path("/no_such_database");
    let settings = ConnectorSettings::postgres("s", url.as_str().into(), ["t"]);
    refused(&settings, &Recorder::new(), &["no_such_database", "check the database's name"]).await;
    let db = Database::create("role").await;
    let admin = connect(server_url().as_str()).await;
    let hba = "select count(*)::text from pg_hba_file_rules where auth_method = 'trust'";
    let trusts = admin.query_one(hba, &[]).await.expect("rules").get::<_, String>(0) != "0";
    let stranger = with_user(&db.settings(&["t"]), "no_such_role", "hunter2");
    // Where passwords are asked for, the server does not tell whether the role or the password is wrong.
    refused(&stranger, &Recorder::new(), &[if trusts { "no_such_role" } else { "password" }]).await;
    db.remove().await;
}

/// Lets the server ask the role of this database for its password in a certain way; puts everything back afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_proved_in_every_way_and_wrong_ones_refused() {
    let db = Database::create("passwords").await;
    let role = db.name.clone();
    db.run(&format!("create table t (id int primary key); create role {role} superuser login")).await;
    let old = db.text("select pg_read_file(current_setting('hba_file'))").await.expect("pg_hba.conf");
    let write = async |text: &str| {
        let create = "select lo_from_bytea(0, convert_to($1, 'UTF8'))";
        let object: u32 = db.sql.query_one(create, &[&text]).await.expect("an object").get(0);
        let export = "select lo_export($1, current_setting('hba_file')), lo_unlink($1), pg_reload_conf()";
        db.sql.query(export, &[&object]).await.expect("pg_hba.conf is written");
    };
    let mut outcomes = Vec::new();
    for (method, encryption) in [("scram-sha-256", "scram-sha-256"), ("password", "scram-sha-256"), ("md5", "md5")] {
        db.run(&format!("set password_encryption = '{encryption}'; alter role {role} password 'hunter2 ü'")).await;
        write(&format!("host {} {role} all {method}\n{old}", db.name)).await;
        let rule = format!(
            "select count(*)::text from pg_hba_file_rules where user_name = '{{{role}}}' and auth_method = '{method}'"
        );
        until("the rule is read", async || db.text(&rule).await.as_deref() == Some("1")).await;
        let settings = |password: &str| with_user(&db.settings(&["t"]), &role, password);
        let recorder = Recorder::new();
        let wrong = settings("wrong");
        until("the password is asked for", async || {
            tokio_postgres::connect(postgres(&wrong).url.expose(), tokio_postgres::NoTls).await.is_err()
        })
        .await;
        refused(&wrong, &recorder, &["refused the login", "check the password"]).await;
        let running = Running::start(&settings("hunter2 ü"), &recorder);
        running.wait_up().await;
        running.stop().await;
        outcomes.push(method);
    }
    write(&old).await;
    assert_eq!(outcomes.len(), 3);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_that_the_server_had_to_remove() {
    // A limit for all of the server, so it is a server of its own.
    let database = Database::create("version").await;
    let version = database.version().await;
    let mut settings = vec![
        ("max_slot_wal_keep_size".to_owned(), "48MB".to_owned()),
        ("min_wal_size".to_owned(), "32MB".to_owned()),
        ("max_wal_size".to_owned(), "48MB".to_owned()),
    ];
    if version >= 18 {
        settings.push(("idle_replication_slot_timeout".to_owned(), "1d".to_owned()));
    }
    let options = PostgresOptions { version: version.to_string(), settings, ..PostgresOptions::default() };
    database.remove().await;
    listen();
    let server = Postgres::start(options).await.expect("starts");
    let sql = connect(&server.url("postgres")).await;
    sql.batch_execute("create table t (id int primary key)").await.expect("a table");
    let settings = ConnectorSettings::postgres("limited", server.url("postgres").as_str().into(), ["t"]);
    let recorder = Recorder::new();
    Running::streaming(&settings, &recorder).await.stop().await;
    let warned = warnings_of_all().iter().any(|text| text.contains("SET idle_replication_slot_timeout = 0"));
    assert_eq!(warned, version >= 18, "slots that nobody reads are given up there");
    // Several segments of 16 MB, with nobody to confirm them.
    for _ in 0..8 {
        sql.batch_execute("insert into t select coalesce(max(id), 0) + 1 from t; select pg_switch_wal(); checkpoint")
            .await
            .expect("more log");
    }
    let error = Running::start(&settings, &recorder).error().await;
    assert!(matches!(error, ConnectorError::PositionLost { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("wal_removed") && text.contains("give it a new name"), "{text}");
    // It is not made anew behind the gap.
    let status = sql.query_one("select wal_status from pg_replication_slots", &[]).await.expect("a slot");
    assert_eq!(status.get::<_, &str>(0), "lost");
    server.stop().await.expect("stops");
}
