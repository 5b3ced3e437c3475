//! What needs a server of its own: one without GTIDs, whose log is purged.

use std::sync::Arc;

use tributary_connector::ConnectorSettings;
use tributary_event::TableName;
use tributary_stack::{MySql, MySqlOptions, MySqlProduct};

use crate::support::{Recorder, Running, Witness, until};

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

    // Where GTIDs are turned on later, they go on to tell it.
    for setting in
        ["enforce_gtid_consistency = ON", "gtid_mode = OFF_PERMISSIVE", "gtid_mode = ON_PERMISSIVE", "gtid_mode = ON"]
    {
        crate::server::run(&mut sql, &format!("set global {setting}")).await;
    }
    for _ in 0..2 {
        count += 1;
        crate::server::run(&mut sql, &format!("insert into films.t values ({count}, 'x')")).await;
        let running = Running::streaming(&settings, &recorder).await;
        count += 1;
        crate::server::run(&mut sql, &format!("insert into films.t values ({count}, 'x')")).await;
        recorder.wait(count).await;
        running.kill().await;
    }
    let records = recorder.records();
    let ids: Vec<_> = records.iter().filter_map(|r| r.get("/after/id").as_u64()).collect();
    assert!(ids.iter().copied().eq(1..=13), "{ids:?}");
    assert!(records[12].get("/source/gtid").as_str().is_some());

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
    assert_eq!(recorder.len(), 13);
}

/// What the log lost is told by an event of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_says_it_lacks_something_stops_the_source() {
    for product in crate::server::products() {
        let limit = [("max-binlog-stmt-cache-size", "4096"), ("binlog-stmt-cache-size", "4096")];
        let (server, mut sql) = crate::server::start(product, &limit).await;
        crate::server::run(&mut sql, "create table films.m (id int primary key, x varchar(9000)) engine = myisam")
            .await;
        let (recorder, settings) = (Recorder::new(), crate::server::films(&server.server_url(), &["m"]));
        let running = Running::streaming(&settings, &recorder).await;
        crate::server::run(&mut sql, "insert into films.m values (1, 'x')").await;
        recorder.wait(1).await;
        // More than the log has room for: the rows are there and the log has none of them.
        let rows: Vec<String> = (2..20).map(|id| format!("({id}, repeat('x', 4000))")).collect();
        let insert = format!("insert into films.m values {}", rows.join(","));
        let failed = mysql_async::prelude::Queryable::query_drop(&mut sql, &insert).await;
        assert!(failed.is_err(), "{product} logged all of it");
        let error = running.error().await.to_string();
        assert!(error.contains("changes may be missing in the log"), "{error}");
        assert_eq!(recorder.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_encrypted_on_the_disk_is_read() {
    if !crate::server::products().contains(&MySqlProduct::MariaDb) {
        return;
    }
    let folder = tempfile::TempDir::with_prefix_in("keys", "/tmp").expect("a folder");
    let keys = folder.path().join("keys.txt");
    std::fs::write(&keys, "1;770A8A65DA156D24EE2A093277530142770A8A65DA156D24EE2A093277530142\n").expect("written");
    use std::os::unix::fs::PermissionsExt as _;
    for (path, mode) in [(folder.path(), 0o755), (&keys, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("readable");
    }
    let keys = keys.display().to_string();
    let settings = [
        ("plugin-load-add", "file_key_management"),
        ("file-key-management-filename", &*keys),
        ("encrypt-binlog", "ON"),
    ];
    let (server, mut sql) = crate::server::start_with(MySqlProduct::MariaDb, &settings, true).await;
    crate::server::run(&mut sql, "create table films.t (id int primary key, x varchar(20))").await;
    let (recorder, settings) = (Recorder::new(), crate::server::films(&server.server_url(), &["t"]));
    let mut running = Running::streaming(&settings, &recorder).await;
    for id in 1..=4 {
        crate::server::run(&mut sql, &format!("insert into films.t values ({id}, 'a secret')")).await;
        recorder.wait(id).await;
        if id % 2 == 0 {
            running.stop().await;
            crate::server::run(&mut sql, "flush binary logs").await;
            running = Running::streaming(&settings, &recorder).await;
        }
    }
    running.stop().await;
    let logs = std::fs::read_dir(server.data_dir()).expect("the data folder").flatten();
    let logs: Vec<_> = logs.filter(|file| file.file_name().to_string_lossy().starts_with("bin.0")).collect();
    assert!(logs.len() > 1);
    for log in logs {
        let bytes = std::fs::read(log.path()).expect("a file of the log");
        assert!(!bytes.windows(8).any(|window| window == b"a secret"), "{:?} is not encrypted", log.path());
    }
}

/// A log that was begun anew has other changes under the same numbers, files and offsets; also when it is longer than what was read.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_begun_anew_stops_the_source() {
    let off: &[(&str, &str)] = &[("gtid-mode", "OFF"), ("enforce-gtid-consistency", "OFF")];
    let products = crate::server::products();
    let all = [(MySqlProduct::MySql, &[] as &[(&str, &str)]), (MySqlProduct::MySql, off), (MySqlProduct::MariaDb, &[])];
    for (product, options) in all.into_iter().filter(|(product, _)| products.contains(product)) {
        let (server, mut sql) = crate::server::start(product, options).await;
        crate::server::run(&mut sql, "create table t (id int primary key auto_increment, x varchar(20))").await;
        let (recorder, settings) = (Recorder::new(), crate::server::films(&server.server_url(), &["t"]));
        let insert = "insert into t (x) values ('x')";
        for count in 1..=3 {
            // A log with more files, and starts again, are no matter.
            let running = Running::streaming(&settings, &recorder).await;
            crate::server::run(&mut sql, insert).await;
            recorder.wait(count).await;
            running.stop().await;
            crate::server::run(&mut sql, "flush binary logs").await;
        }
        let reset = match product {
            MySqlProduct::MySql => "reset binary logs and gtids",
            MySqlProduct::MariaDb => "reset master",
        };
        // Files are told by the second that they were made in.
        tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
        for is_shorter in [false, true] {
            crate::server::run(&mut sql, reset).await;
            let times = if is_shorter { 1 } else { 40 };
            for n in 0..times {
                crate::server::run(&mut sql, insert).await;
                if n % 4 == 3 {
                    crate::server::run(&mut sql, "flush binary logs").await;
                }
            }
            let error = Running::start(&settings, &recorder).error().await.to_string();
            let says = error.contains("has begun its log anew") || is_shorter && error.contains("lacks");
            assert!(says && error.contains("a new name"), "{product}, shorter: {is_shorter}: {error}");
        }
        // As long as before, and the file that was read is gone.
        for statement in ["flush binary logs", "purge binary logs before now() + interval 1 day"] {
            crate::server::run(&mut sql, statement).await;
        }
        if product == MySqlProduct::MySql && options.is_empty() {
            for _ in 0..40 {
                crate::server::run(&mut sql, insert).await;
            }
            let error = Running::start(&settings, &recorder).error().await.to_string();
            assert!(error.contains("a new name"), "{product}, purged: {error}");
        }
        assert_eq!(recorder.len(), 3);
    }
}

/// Its rows are in the log before the place where the source began, and count behind it.
#[tokio::test(flavor = "multi_thread")]
async fn an_xa_transaction_that_was_prepared_before_the_source_began_is_doubted_when_it_commits() {
    // Of its own: others would hear of it too, for the log does not say what it was about.
    for product in crate::server::products() {
        let (server, mut sql) = crate::server::start(product, &[]).await;
        crate::server::run(&mut sql, "create table t (id int primary key)").await;
        crate::server::run(&mut sql, "create table other (id int primary key)").await;
        // In a session that ends then: one of MariaDB can do nothing else before what it has prepared is over.
        let prepare = async |xid: &str, statement: &str| {
            let mut sql = crate::server::session(&server.url("films")).await;
            let steps =
                [&format!("xa start '{xid}'"), statement, &format!("xa end '{xid}'"), &format!("xa prepare '{xid}'")];
            for step in steps {
                crate::server::run(&mut sql, step).await;
            }
            sql.disconnect().await.expect("disconnects");
        };
        prepare("before", "insert into t values (1)").await;
        prepare("undone", "insert into t values (9)").await;
        let (recorder, settings) = (Recorder::new(), crate::server::films(&server.server_url(), &["t"]));
        let witness = Witness::new(|_| Ok(()));
        let start = async || Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
        let running = start().await;
        // Of these it knows that they have no rows of its tables, also when it was away meanwhile.
        if product == MySqlProduct::MySql {
            prepare("empty", "select * from t").await;
        }
        prepare("other", "insert into other values (1)").await;
        crate::server::run(&mut sql, "insert into t values (2)").await;
        recorder.wait(1).await;
        running.kill().await;
        let running = start().await;
        for end in ["commit 'other'", "commit 'empty'", "rollback 'undone'"] {
            // MariaDB keeps no transaction that has written nothing.
            if product == MySqlProduct::MySql || !end.contains("empty") {
                crate::server::run(&mut sql, &format!("xa {end}")).await;
            }
        }
        crate::server::run(&mut sql, "insert into t values (3)").await;
        recorder.wait(2).await;
        assert_eq!(witness.doubts(), [], "{product}: {:?}", recorder.checkpoint_json());
        crate::server::run(&mut sql, "xa commit 'before'").await;
        let why = async || witness.doubts().first().map(|doubt| doubt.why.clone());
        until("it is doubted", async || why().await.is_some()).await;
        let why = why().await.unwrap_or_default().to_lowercase();
        assert!(why.contains("xa commit") && why.contains("whose rows were not read"), "{why}");
        crate::server::run(&mut sql, "insert into t values (4)").await;
        recorder.wait(3).await;
        if product == MySqlProduct::MariaDb {
            // Its positions cannot leave a transaction out, so that it could be read again.
            prepare("later", "insert into t values (5)").await;
            let error = running.error().await.to_string();
            assert!(error.contains("an XA transaction with rows of captured tables is prepared"), "{error}");
            assert_eq!(recorder.len(), 3);
        } else {
            running.stop().await;
        }
    }
}
