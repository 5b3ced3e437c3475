//! Faults of the connection that the log is read by: bytes that change on their way, events that nobody knows, a network that is cut.

use futures::future::join_all;
use mysql_async::Row;
use tributary_connector::ConnectorSettings;

use crate::relay::{Fault, Passing, Relay, UNKNOWN};
use crate::server::{Database, databases, mysql_mut};
use crate::support::{Record, Recorder, Running, until};

/// What the event that is altered has.
const MARKED: &str = "the marked row";

fn rows(records: &[Record]) -> Vec<(i64, String)> {
    let row = |record: &Record| {
        Some((record.get("/after/id").as_i64()?, record.get("/after/x").as_str().unwrap_or_default().to_owned()))
    };
    records.iter().filter_map(row).collect()
}

fn row(id: i64, text: &str) -> (i64, String) {
    (id, text.to_owned())
}

/// Tables `t`, which is captured, and `other`, behind a relay.
async fn behind_a_relay(db: &mut Database) -> (Relay, ConnectorSettings) {
    for table in ["t", "other"] {
        db.run(&format!("create table {table} (id int primary key, x varchar(40))")).await;
    }
    let sums: Vec<String> = db.rows("select @@global.binlog_checksum").await;
    assert_eq!(sums, ["CRC32"], "the relay alters events that have checksums");
    let (relay, mut settings) = (Relay::before(&db.url).await, db.settings(&["t"]));
    mysql_mut(&mut settings).url = relay.url().into();
    (relay, settings)
}

/// The error names the place of the last event with rows of a record's transaction.
async fn assert_place(db: &mut Database, error: &str, record: &Record, of_transaction: usize) {
    let source = record.get("/source");
    let (file, begin) = (source["file"].as_str().expect("a file"), source["pos"].as_u64().expect("an offset"));
    let told = error.split_once(&format!("the event at {file}:")).map(|(_, rest)| rest);
    let told: Option<u64> = told.and_then(|rest| rest.split(':').next()).and_then(|offset| offset.parse().ok());
    let told = told.unwrap_or_else(|| panic!("no place in {file}: {error}"));
    if db.is_mariadb {
        // Its events do not say where they are within a transaction, and some of them are not sent.
        assert!((begin..begin + 1_000).contains(&told), "{told} is not in the transaction at {begin}: {error}");
        return;
    }
    let events: Vec<Row> = db.rows(&format!("show binlog events in '{file}' from {begin} limit 16")).await;
    let kinds = events.iter().map(|event| (event.get::<String, _>(2), event.get::<u64, _>(1)));
    let inserts = kinds.filter(|(kind, _)| kind.as_ref().is_some_and(|kind| kind.starts_with("Write_rows")));
    let at = inserts.filter_map(|(_, at)| at).nth(of_transaction).expect("an event with rows");
    assert_eq!(told, at, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_was_changed_on_its_way_stops_the_source_and_is_read_again() {
    for mut db in databases("flipped").await {
        let (relay, settings) = behind_a_relay(&mut db).await;
        let recorder = Recorder::new();
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 'before')").await;
        recorder.wait(1).await;
        relay.alter(MARKED, Fault::Flipped);
        db.run(&format!("insert into t values (2, '{MARKED}')")).await;
        db.run("insert into t values (3, 'behind')").await;
        let error = running.error().await.to_string();
        assert!(error.contains("its checksum does not fit its content"), "{error}");
        assert_eq!(rows(&recorder.records()), [row(1, "before")]);
        let running = Running::streaming(&settings, &recorder).await;
        let records = recorder.wait(3).await;
        running.stop().await;
        assert_eq!(rows(&records), [row(1, "before"), row(2, MARKED), row(3, "behind")]);
        assert_place(&mut db, &error, &records[1], 0).await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_nobody_knows_stops_the_source_unless_it_may_be_skipped() {
    for mut db in databases("unknown").await {
        let (relay, settings) = behind_a_relay(&mut db).await;
        let recorder = Recorder::new();
        let running = Running::streaming(&settings, &recorder).await;
        // What is altered has no captured rows, so nothing lacks where it is skipped.
        let transaction = async |db: &mut Database, id: i64| {
            db.run("begin").await;
            db.run(&format!("insert into t values ({id}, 'before')")).await;
            db.run(&format!("insert into other values ({id}, '{MARKED}')")).await;
            db.run(&format!("insert into t values ({}, 'behind')", id + 1)).await;
            db.run("commit").await;
        };
        relay.alter(MARKED, Fault::Ignorable);
        transaction(&mut db, 1).await;
        assert_eq!(rows(&recorder.wait(2).await), [row(1, "before"), row(2, "behind")]);
        assert!(relay.has_altered());
        relay.alter(MARKED, Fault::Unknown);
        transaction(&mut db, 3).await;
        let error = running.error().await.to_string();
        let says =
            error.contains(&format!("its type has the number {UNKNOWN}")) && error.contains("may not be skipped");
        assert!(says && error.contains("a version of tributary that knows it"), "{error}");
        // What came before it in the transaction may be there.
        assert!(recorder.len() <= 3, "{:?}", rows(&recorder.records()));
        let running = Running::streaming(&settings, &recorder).await;
        let records = recorder.wait(4).await;
        running.stop().await;
        let all = [row(1, "before"), row(2, "behind"), row(3, "before"), row(4, "behind")];
        assert_eq!(rows(&records), all);
        assert_place(&mut db, &error, &records[2], 1).await;
        db.remove().await;
    }
}

/// Threads of the server that send the log to a user.
async fn senders(db: &mut Database, user: &str) -> Vec<u64> {
    db.rows(&format!(
        "select id from information_schema.processlist where command like 'Binlog Dump%' and user = '{user}'"
    ))
    .await
}

/// The one that is left, and is not `former`.
async fn sender(db: &mut Database, user: &str, former: Option<u64>) -> u64 {
    let mut all = Vec::new();
    until("one thread sends the log, a new one", async || {
        all = senders(db, user).await;
        matches!(&*all, [one] if Some(*one) != former)
    })
    .await;
    all[0]
}

/// The first process of a source is cut off, and the second takes over, without a word from anybody but the server. `first`: what gets through
/// first when the network comes back.
async fn replaced(mut db: Database, first_through: Passing) {
    db.run("create table t (id int primary key, x varchar(40))").await;
    // So that the threads that send the log are told from those of other tests.
    let user = format!("u{}", db.name);
    db.run(&format!("create user {user} identified by 'secret'")).await;
    let client = if db.is_mariadb { "binlog monitor" } else { "replication client" };
    db.run(&format!("grant select, replication slave, {client} on *.* to {user}")).await;
    let url = db.url.replace("root@", &format!("{user}:secret@"));
    let relay = Relay::before(&url).await;
    let (recorder, mut near) = (Recorder::new(), db.settings(&["t"]));
    let mut far = near.clone();
    mysql_mut(&mut near).url = url.as_str().into();
    mysql_mut(&mut far).url = relay.url().into();
    let first = Running::streaming(&far, &recorder).await;
    db.run("insert into t values (1, '')").await;
    recorder.wait(1).await;
    let left_behind = sender(&mut db, &user, None).await;
    let second = Running::start(&near, &recorder);
    second.wait_down("standby").await;

    relay.pass(Passing::Nothing);
    if first_through == Passing::Events {
        // It is on its way to the first when the second takes over.
        db.run("insert into t values (2, '')").await;
    }
    second.wait_up().await;
    sender(&mut db, &user, Some(left_behind)).await;
    if first_through == Passing::Everything {
        db.run("insert into t values (2, '')").await;
    }
    db.run("insert into t values (3, '')").await;
    recorder.wait(3).await;

    relay.pass(first_through);
    let mut last = None;
    if first_through == Passing::Events {
        // It has a row to publish before it can hear that it was replaced.
        let error = first.error().await.to_string();
        assert!(error.contains("fenced"), "{error}");
    } else {
        first.wait_down("standby").await;
        last = Some(first);
    }
    db.run("insert into t values (4, '')").await;
    recorder.wait(4).await;
    second.wait_up().await;
    second.stop().await;
    db.run("insert into t values (5, '')").await;
    let last = last.unwrap_or_else(|| Running::start(&near, &recorder));
    let records = recorder.wait(5).await;
    last.wait_up().await;
    last.stop().await;
    let ids: Vec<i64> = rows(&records).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    db.run(&format!("drop user {user}")).await;
    db.remove().await;
}

/// At once, for most of it is waiting for the server to end the sessions of who is cut off.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_is_replaced_and_publishes_nothing_more() {
    let (events, everything) = (databases("cut").await, databases("back").await);
    let events = events.into_iter().map(|db| (db, Passing::Events));
    let everything = everything.into_iter().map(|db| (db, Passing::Everything));
    join_all(events.chain(everything).map(|(db, first_through)| Box::pin(replaced(db, first_through)))).await;
}
