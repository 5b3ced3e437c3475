//! Nothing is lost and nothing comes twice, whatever ends the connector or its connection.

use crate::server::{Database, databases, mysql_mut};
use crate::support::{Record, Recorder, Running, until};

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

async fn insert(db: &mut Database, from: i64, to: i64) {
    let rows: Vec<String> = (from..=to).map(|id| format!("({id}, repeat('x', 40))")).collect();
    db.run(&format!("insert into t values {}", rows.join(","))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_created_updated_moved_deleted_and_truncated() {
    for mut db in databases("ops").await {
        db.run("create table t (id int primary key, title varchar(20)); ").await;
        db.run("create table other (id int primary key)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 'one'), (2, 'two')").await;
        db.run("insert into other values (1)").await;
        db.run("begin").await;
        db.run("update t set title = 'uno' where id = 1").await;
        db.run("update t set id = 3 where id = 2").await;
        db.run("delete from t where id = 3").await;
        db.run("commit").await;
        db.run("truncate table t").await;
        db.run("insert into t values (9, 'last')").await;
        // Two, an update, a move (three records), a delete (two), a truncate, one.
        let records = recorder.wait(10).await;
        running.stop().await;
        let ops: Vec<&str> = records.iter().map(Record::op).collect();
        assert_eq!(ops, ["c", "c", "u", "d", "tombstone", "c", "d", "tombstone", "t", "c"]);
        assert_eq!(records[2].get("/before/title"), "one");
        assert_eq!(records[2].get("/after/title"), "uno");
        let source = records[2].get("/source");
        let kind = if db.is_mariadb { "mariadb" } else { "mysql" };
        assert_eq!(
            (&source["connector"], &source["db"], &source["table"]),
            (&kind.into(), &db.name.as_str().into(), &"t".into())
        );
        assert!(
            source["gtid"].is_string() && source["file"].is_string() && source["pos"].as_u64() > Some(4),
            "{source}"
        );
        let orders: Vec<_> =
            records[2..8].iter().filter(|r| r.value.is_some()).map(|r| r.get("/transaction/total_order")).collect();
        assert_eq!(orders, [1, 2, 3, 4]);
        assert_eq!(records[2].get("/transaction/id"), source["gtid"]);
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_goes_on_where_it_was_interrupted() {
    for mut db in databases("middle").await {
        db.run("create table t (id int primary key, x varchar(40))").await;
        db.run("create table u (id int primary key)").await;
        let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
        settings.batch.records = 100;
        let mut running = Running::streaming(&settings, &recorder).await;
        insert(&mut db, 1, 1).await;
        recorder.wait(1).await;
        // Killed three times within one transaction.
        recorder.stand_still_at(Some(1_500));
        db.run("begin").await;
        db.run("insert into u values (1)").await;
        insert(&mut db, 2, 3_000).await;
        insert(&mut db, 3_001, 5_000).await;
        db.run("commit").await;
        insert(&mut db, 5_001, 5_001).await;
        for stop in [1_500usize, 3_000, 4_500] {
            recorder.wait(stop - 600).await;
            until("it stands in the middle", async || {
                recorder.checkpoint_json().is_some_and(|c| c["transaction"]["events"].as_u64().is_some())
            })
            .await;
            running.kill().await;
            recorder.stand_still_at(Some(stop + 1_500));
            running = Running::start(&settings, &recorder);
        }
        recorder.stand_still_at(None);
        let records = recorder.wait(5_001).await;
        running.stop().await;
        assert_each_once(&records, 5_001);
        let orders = records[1..5_000].iter().map(|r| r.get("/transaction/total_order"));
        assert!(orders.map(|o| o.as_u64().unwrap_or(0)).eq(1..=4_999), "orders are not 1..4999");
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transactions_survive_many_kills() {
    for mut db in databases("kills").await {
        db.run("create table t (id int primary key, x varchar(40))").await;
        let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
        settings.batch.records = 64;
        let mut running = Running::streaming(&settings, &recorder).await;
        let (mut next, total) = (1, 6_000);
        while next <= total {
            insert(&mut db, next, next + 99).await;
            next += 100;
            if next % 1_500 == 1 {
                running.kill().await;
                running = Running::start(&settings, &recorder);
            }
        }
        let records = recorder.wait(total as usize).await;
        running.stop().await;
        assert_each_once(&records, total);
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_connector_waits_and_takes_over() {
    for mut db in databases("standby").await {
        db.run("create table t (id int primary key, x varchar(40))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let first = Running::streaming(&settings, &recorder).await;
        insert(&mut db, 1, 1).await;
        recorder.wait(1).await;
        let second = Running::start(&settings, &recorder);
        second.wait_down("standby").await;
        insert(&mut db, 2, 2).await;
        recorder.wait(2).await;
        first.kill().await;
        insert(&mut db, 3, 3).await;
        assert_each_once(&recorder.wait(3).await, 3);
        second.wait_up().await;
        second.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_thread_that_is_killed_is_replaced() {
    for mut db in databases("dump").await {
        db.run("create table t (id int primary key, x varchar(40))").await;
        // Threads of other tests are left alone.
        let user = format!("u{}", db.name);
        db.run(&format!("create user {user} identified by 'it''s a secret'")).await;
        let client = if db.is_mariadb { "binlog monitor" } else { "replication client" };
        db.run(&format!("grant select, replication slave, {client} on *.* to {user}")).await;
        let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
        mysql_mut(&mut settings).url = db.url.replace("root@", &format!("{user}:it's%20a%20secret@")).as_str().into();
        let running = Running::streaming(&settings, &recorder).await;
        for id in 1..=3 {
            insert(&mut db, id, id).await;
            recorder.wait(id as usize).await;
            let reading = format!(
                "select id from information_schema.processlist where command like 'Binlog Dump%' and user = '{user}'"
            );
            let mut threads: Vec<u64> = Vec::new();
            // One that was let go, such as that of the look whether the log may be read, ends with the next word of the server.
            until("one reads the log", async || {
                threads = db.rows(&reading).await;
                threads.len() == 1
            })
            .await;
            for thread in threads {
                db.run(&format!("kill {thread}")).await;
            }
        }
        insert(&mut db, 4, 4).await;
        assert_each_once(&recorder.wait(4).await, 4);
        running.stop().await;
        db.run(&format!("drop user {user}")).await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xa_transaction_counts_when_it_commits() {
    for mut db in databases("xa").await {
        // MariaDB's positions cannot leave a transaction out.
        if db.is_mariadb {
            db.remove().await;
            continue;
        }
        db.run("create table t (id int primary key, x varchar(40))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        for (name, id) in [("gone", 8), ("kept", 2)] {
            let name = format!("'{name}{}'", db.name);
            db.run(&format!("xa start {name}")).await;
            insert(&mut db, id, id).await;
            db.run(&format!("xa end {name}")).await;
            db.run(&format!("xa prepare {name}")).await;
        }
        insert(&mut db, 1, 1).await;
        recorder.wait(1).await;
        running.kill().await;
        // What is prepared is read again.
        let running = Running::streaming(&settings, &recorder).await;
        let name = db.name.clone();
        db.run(&format!("xa rollback 'gone{name}'")).await;
        db.run(&format!("xa commit 'kept{name}'")).await;
        db.run(&format!("xa start 'one{name}'")).await;
        insert(&mut db, 3, 3).await;
        db.run(&format!("xa end 'one{name}'")).await;
        db.run(&format!("xa commit 'one{name}' one phase")).await;
        insert(&mut db, 4, 4).await;
        assert_each_once(&recorder.wait(4).await, 4);
        running.stop().await;
        let running = Running::streaming(&settings, &recorder).await;
        insert(&mut db, 5, 5).await;
        assert_each_once(&recorder.wait(5).await, 5);
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gtids_may_have_tags() {
    for mut db in databases("tags").await {
        if db.is_mariadb {
            db.remove().await;
            continue;
        }
        db.run("create table t (id int primary key, x varchar(40))").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("set gtid_next = 'automatic:odd_tag'").await;
        insert(&mut db, 1, 1).await;
        recorder.wait(1).await;
        running.kill().await;
        insert(&mut db, 2, 2).await;
        db.run("set gtid_next = 'automatic'").await;
        insert(&mut db, 3, 3).await;
        let running = Running::streaming(&settings, &recorder).await;
        let records = recorder.wait(3).await;
        assert_each_once(&records, 3);
        let gtids: Vec<String> =
            records.iter().map(|r| r.get("/source/gtid").as_str().unwrap_or("").to_owned()).collect();
        assert!(gtids[1].contains(":odd_tag:") && !gtids[2].contains("odd_tag"), "{gtids:?}");
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_read_the_log_is_told_the_grant() {
    for mut db in databases("grants").await {
        db.run("create table t (id int primary key, x varchar(40))").await;
        let user = format!("u{}", db.name);
        db.run(&format!("create user {user} identified by 'secret'")).await;
        let mut settings = db.settings(&["t"]);
        // Without TLS the password is encrypted by itself.
        let url = db.url.replace("root@", &format!("{user}:secret@"));
        mysql_mut(&mut settings).url = format!("{url}?ssl-mode=DISABLED").as_str().into();
        let error = Running::start(&settings, &Recorder::new()).error().await.to_string();
        assert!(error.contains("GRANT REPLICATION SLAVE"), "{error}");
        let client = if db.is_mariadb { "binlog monitor" } else { "replication client" };
        db.run(&format!("grant replication slave, {client} on *.* to {user}")).await;
        let error = Running::start(&settings, &Recorder::new()).error().await.to_string();
        assert!(error.contains("GRANT SELECT ON"), "{error}");
        db.run(&format!("grant select on {}.* to {user}", db.name)).await;
        let recorder = Recorder::new();
        let running = Running::streaming(&settings, &recorder).await;
        insert(&mut db, 1, 1).await;
        recorder.wait(1).await;
        running.stop().await;
        mysql_mut(&mut settings).url = db.url.replace("root@", &format!("{user}:wrong@")).as_str().into();
        let error = Running::start(&settings, &recorder).error().await.to_string();
        assert!(error.contains("refused the login") && !error.contains("wrong"), "{error}");
        db.run(&format!("drop user {user}")).await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_may_be_larger_than_a_packet() {
    for mut db in databases("large").await {
        db.run("create table t (id int primary key, x longblob)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("set global max_allowed_packet = 67108864").await;
        let url = format!("{}/{}", db.url, db.name);
        let mut sql = crate::server::session(&url).await;
        crate::server::run(&mut sql, "insert into t values (1, repeat('x', 20000000)), (2, 'small')").await;
        let records = recorder.wait(2).await;
        // In base64.
        assert_eq!(records[0].get("/after/x").as_str().map(str::len), Some(20_000_000_usize.div_ceil(3) * 4));
        assert_eq!(records[1].get("/after/x"), "c21hbGw=");
        running.stop().await;
        db.remove().await;
    }
}
