//! What servers of MySQL and MariaDB do as a whole: one that takes no writes, that is killed, that keeps its answer to a COMMIT back.

use std::sync::Arc;

use tributary_event::ErrorClass;
use tributary_processor::sink::{Committed, Entry, LedgerSink as _, Mark};
use tributary_stack::{MySql, MySqlOptions, MySqlProduct};

use super::database::{Database, Kind, connect, on_mysql_and_mariadb};
use super::{KEY, commit, done, plan, rejected, sink};
use crate::support::{place, row};

on_mysql_and_mariadb!(
    a_server_that_takes_no_writes_is_waited_for,
    an_answer_to_a_commit_that_is_lost_is_told_by_the_mark,
    a_server_that_is_killed_has_done_what_its_mark_says,
);

/// A server of the test's own, of the same kind, and a database on it.
async fn own(kind: Kind, settings: &[(&str, &str)]) -> (MySql, Database) {
    let product = if kind == Kind::MySql { MySqlProduct::MySql } else { MySqlProduct::MariaDb };
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let version = product.newest().expect("a version");
    let options = MySqlOptions { fsync: false, settings, ..MySqlOptions::of(product, version) };
    let server = MySql::start(options).await.expect("a server starts");
    let database = Database::at(kind, &server.server_url()).await;
    (server, database)
}

async fn a_server_that_takes_no_writes_is_waited_for(of: Database) {
    let (_server, database) = own(of.kind, &[("max-allowed-packet", "1048576")]).await;
    let sink = sink(&plan(&database, "orders", &["id"]));
    done(&sink, &[row(1, KEY, Some(r#"{"a":1}"#))]).await;
    let (on, off) = match of.kind {
        Kind::MySql => {
            ("set global super_read_only = on", "set global super_read_only = off; set global read_only = off")
        }
        _ => (
            "revoke read only admin on *.* from root@'127.0.0.1'; set global read_only = on",
            "set global read_only = off",
        ),
    };
    database.run(on).await;
    // What an administrator may do is decided when he logs in.
    let other = super::sink(&plan(&database, "orders", &["id"]));
    let place = place(0);
    let events = [row(2, KEY, Some(r#"{"a":2}"#))];
    let error = other
        .commit(&Entry { place: &place, from: Some(Mark::at(1)), to: Mark::at(2), events: &events })
        .await
        .expect_err("refused");
    assert!(error.class == ErrorClass::Transient && error.message.contains("primary"), "{error}");
    database.run(off).await;
    assert_eq!(
        other.commit(&Entry { place: &place, from: Some(Mark::at(1)), to: Mark::at(2), events: &events }).await,
        Ok(Committed::Done)
    );
    // More than this server takes at once, in rows that it takes one by one, and then in one row.
    let half = "x".repeat(300_000);
    let many: Vec<_> =
        (10..20).map(|n| row(n, &format!("{{\"id\":{n}}}"), Some(&format!("{{\"t\":\"{half}\"}}")))).collect();
    done(&other, &many).await;
    assert_eq!(database.rows("select count(*) from orders where length(t) = 300000").await, ["10"]);
    let large = format!("{{\"t\":\"{}\"}}", half.repeat(4));
    let (event, why) = rejected(&other, &[row(21, KEY, Some("{}")), row(22, r#"{"id":8}"#, Some(&large))]).await;
    assert!(event == 1 && why.contains("max_allowed_packet"), "{event}: {why}");
}

/// A server that wants a replica's word for each commit, and has no replica, holds the answer back while the commit is done.
async fn an_answer_to_a_commit_that_is_lost_is_told_by_the_mark(of: Database) {
    let (on, off, settings): (_, _, &[(&str, &str)]) = match of.kind {
        Kind::MySql => (
            "set global rpl_semi_sync_source_timeout = 3600000; set global rpl_semi_sync_source_enabled = on",
            "set global rpl_semi_sync_source_enabled = off",
            &[("plugin-load-add", "semisync_source.so")],
        ),
        _ => (
            "set global rpl_semi_sync_master_wait_point = AFTER_SYNC; set global rpl_semi_sync_master_timeout = 3600000; set global rpl_semi_sync_master_enabled = on",
            "set global rpl_semi_sync_master_enabled = off",
            &[],
        ),
    };
    let (_server, database) = own(of.kind, settings).await;
    let plan = plan(&database, "orders", &["id"]);
    let (old, new) = (Arc::new(sink(&plan)), sink(&plan));
    done(&old, &[row(1, KEY, Some(r#"{"a":1}"#))]).await;
    database.run(on).await;
    let dropped = {
        let old = old.clone();
        tokio::spawn(async move { commit(&old, &[row(2, KEY, Some(r#"{"a":2}"#))]).await })
    };
    let waits = "select id from information_schema.processlist where db = database() and info = 'commit'";
    database.until(waits).await;
    dropped.abort();
    assert!(dropped.await.expect_err("aborted").is_cancelled());
    let next = tokio::spawn(async move { new.next(&place(0)).await });
    let asks = "select trx_id from information_schema.innodb_trx where trx_query like '%tributary_marks%for update'";
    database.until(asks).await;
    database.run(off).await;
    assert_eq!(next.await.expect("joined"), Ok(Some(Mark::at(2))));
    assert_eq!(database.rows("select a from orders").await, ["2"]);
}

async fn a_server_that_is_killed_has_done_what_its_mark_says(of: Database) {
    let (server, database) = own(of.kind, &[]).await;
    let sink = sink(&plan(&database, "orders", &["id"]));
    let place = place(0);
    let mut random = fastrand::Rng::with_seed(7);
    let (mut from, mut sequence, mut lost) = (None, 0, 0);
    for _ in 0..4 {
        // After so many commits the next one is under way.
        let wanted = sequence + random.u64(1..40);
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let kill = async {
            told.await.expect("told");
            server.kill().await.expect("killed");
        };
        let write = async {
            loop {
                let events = [row(sequence + 1, KEY, Some(&format!("{{\"n\":{}}}", sequence + 1)))];
                let to = from.unwrap_or_default() + 1;
                match sink
                    .commit(&Entry { place: &place, from: from.map(Mark::at), to: Mark::at(to), events: &events })
                    .await
                {
                    Ok(Committed::Done) => {
                        (from, sequence) = (Some(to), sequence + 1);
                        if sequence == wanted {
                            tell.take().map(|tell| tell.send(()));
                        }
                    }
                    Ok(other) => panic!("{other:?}"),
                    Err(error) => {
                        assert_eq!(error.class, ErrorClass::Transient, "{error}");
                        return;
                    }
                }
            }
        };
        tokio::join!(kill, write);
        server.start_again().await.expect("starts again");
        let mark = loop {
            match sink.next(&place).await {
                Ok(mark) => break mark.map(|mark| mark.next),
                Err(error) => assert_eq!(error.class, ErrorClass::Transient, "{error}"),
            }
        };
        let told = mark.unwrap_or_default();
        assert!(told == from.unwrap_or_default() || told == from.unwrap_or_default() + 1, "{from:?}, but {mark:?}");
        lost += u64::from(mark != from);
        (from, sequence) = (mark, told);
        let after = connect(&database.url).await;
        let rows = if told == 0 { Vec::new() } else { after.rows("select n, _seq from orders").await };
        assert_eq!(rows, if told == 0 { vec![] } else { vec![format!("{told}|{told}")] });
    }
    eprintln!("{sequence} commits, of which the answers to {lost} were lost");
}
