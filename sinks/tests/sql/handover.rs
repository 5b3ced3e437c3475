//! Two processes that have the same partition, and connections that are lost in the middle.

use std::sync::Arc;

use tributary_event::ErrorClass;
use tributary_processor::sink::{Committed, Entry, LedgerSink as _, Mark, OutEvent};

use super::database::{Connection, Database, Kind, connect, on_every_database};
use super::{KEY, done, plan, sink};
use crate::support::{place, row};

on_every_database!(
    of_two_owners_one_is_fenced_and_changes_nothing,
    a_transaction_whose_backend_is_killed_has_changed_nothing,
    a_mark_is_told_after_the_end_of_a_dropped_call,
    a_lost_connection_is_made_again,
);

/// Whoever writes the table waits for a lock that is held.
async fn held(database: &Database) -> Connection {
    database.run("create table orders (id bigint primary key, a bigint); create table gate (n int primary key)").await;
    database.run("insert into gate values (42)").await;
    let trigger = match database.kind {
        Kind::Postgres => {
            "create function wait() returns trigger language plpgsql as
                 $$ begin perform n from gate for share; return new; end $$;
             create trigger t before insert or update on orders for each row execute function wait()"
        }
        Kind::MySql | Kind::MariaDb => {
            "create trigger t before insert on orders for each row set @gate = (select n from gate lock in share mode)"
        }
    };
    database.run(trigger).await;
    let holder = connect(&database.url).await;
    holder.run("begin").await;
    holder.rows("select n from gate for update").await;
    holder
}

const RELEASE: &str = "rollback";

/// The session that waits for a lock in a statement that is like this, or is not.
fn waiting(database: &Database, is: &str, like: &str) -> String {
    match database.kind {
        Kind::Postgres => format!(
            "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' \
             and query {is} '{like}'"
        ),
        // What a trigger does has a text of its own, or none.
        Kind::MySql | Kind::MariaDb => format!(
            "select p.id from information_schema.innodb_trx t join information_schema.processlist p \
             on p.id = t.trx_mysql_thread_id where p.db = database() and t.trx_state = 'LOCK WAIT' \
             and coalesce(t.trx_query, '') {is} '{like}'"
        ),
    }
}

/// The session that waits for a partition's lock.
fn waiting_for_the_mark(database: &Database) -> String {
    match database.kind {
        Kind::Postgres => waiting(database, "like", "%hashtextextended%"),
        Kind::MySql | Kind::MariaDb => waiting(database, "like", "%tributary_marks%"),
    }
}

/// The session that waits in writing a row.
fn writing(database: &Database) -> String {
    match database.kind {
        Kind::Postgres => waiting(database, "like", "insert into%"),
        Kind::MySql | Kind::MariaDb => waiting(database, "not like", "%tributary_marks%"),
    }
}

/// Ends a session.
async fn end(database: &Database, session: &str) {
    let end = match database.kind {
        Kind::Postgres => format!("select pg_terminate_backend({session})"),
        Kind::MySql | Kind::MariaDb => format!("kill {session}"),
    };
    database.run(&end).await;
}

fn entry_of(events: &[OutEvent], from: Option<u64>) -> (Option<u64>, u64) {
    (from, from.unwrap_or_default() + events.len() as u64)
}

async fn of_two_owners_one_is_fenced_and_changes_nothing(database: Database) {
    let holder = held(&database).await;
    let plan = plan(&database, "orders", &["id"]);
    let (old, new) = (Arc::new(sink(&plan)), Arc::new(sink(&plan)));
    let commit = |sink: &Arc<tributary_sinks::Sql>, sequence, a: u64| {
        let sink = sink.clone();
        tokio::spawn(async move {
            let place = place(0);
            let events = [row(sequence, KEY, Some(&format!("{{\"a\":{a}}}")))];
            let (from, to) = entry_of(&events, None);
            sink.commit(&Entry { place: &place, from: from.map(Mark::at), to: Mark::at(to), events: &events })
                .await
                .expect("an answer")
        })
    };
    let first = commit(&old, 1, 1);
    database.until(&writing(&database)).await;
    // The other one has a newer event even: what counts is the mark.
    let second = commit(&new, 2, 2);
    database.until(&waiting_for_the_mark(&database)).await;
    holder.run(RELEASE).await;
    assert_eq!((first.await.expect("joined"), second.await.expect("joined")), (Committed::Done, Committed::Fenced));
    assert_eq!(database.rows("select a, _seq from orders").await, ["1|1"]);
    assert_eq!(new.next(&place(0)).await, Ok(Some(Mark::at(1))));
    done(&new, &[row(2, KEY, Some(r#"{"a":2}"#))]).await;
    let place = place(0);
    let late = old
        .commit(&Entry { place: &place, from: Some(Mark::at(1)), to: Mark::at(2), events: &[row(9, KEY, None)] })
        .await;
    assert_eq!(late, Ok(Committed::Fenced));
    assert_eq!(database.rows("select a, _seq, _deleted from orders").await, ["2|2|f"]);
}

async fn a_transaction_whose_backend_is_killed_has_changed_nothing(database: Database) {
    let holder = held(&database).await;
    let sink = Arc::new(sink(&plan(&database, "orders", &["id"])));
    let events = [row(1, KEY, Some(r#"{"a":1}"#))];
    let commit = {
        let (sink, events) = (sink.clone(), events.clone());
        tokio::spawn(async move {
            let place = place(0);
            sink.commit(&Entry { place: &place, from: None, to: Mark::at(1), events: &events }).await
        })
    };
    let pid = database.until(&writing(&database)).await;
    end(&database, &pid).await;
    let error = commit.await.expect("joined").expect_err("killed");
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert_eq!(sink.next(&place(0)).await, Ok(None));
    assert!(database.rows("select 1 from orders").await.is_empty());
    holder.run(RELEASE).await;
    done(&sink, &events).await;
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(1))));
    assert_eq!(database.rows("select a from orders").await, ["1"]);
}

async fn a_mark_is_told_after_the_end_of_a_dropped_call(database: Database) {
    let holder = held(&database).await;
    let plan = plan(&database, "orders", &["id"]);
    let (old, new) = (sink(&plan), sink(&plan));
    let dropped = tokio::spawn(async move {
        let place = place(0);
        let events = [row(1, KEY, Some(r#"{"a":1}"#))];
        old.commit(&Entry { place: &place, from: None, to: Mark::at(1), events: &events }).await
    });
    database.until(&writing(&database)).await;
    dropped.abort();
    assert!(dropped.await.expect_err("aborted").is_cancelled());
    let next = tokio::spawn(async move { new.next(&place(0)).await });
    database.until(&waiting_for_the_mark(&database)).await;
    holder.run(RELEASE).await;
    // Nobody asks for the end of what was dropped before it was told to commit.
    assert_eq!(next.await.expect("joined"), Ok(None));
    assert!(database.rows("select 1 from orders").await.is_empty());
}

#[tokio::test]
async fn a_mark_is_told_after_the_end_of_a_transaction_that_nobody_waits_for() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    database
        .run(
            "create table orders (id bigint primary key, a bigint);
             create function wait() returns trigger language plpgsql as
                 $$ begin perform pg_advisory_xact_lock_shared(42); return new; end $$;
             create constraint trigger t after insert or update on orders deferrable initially deferred
                 for each row execute function wait()",
        )
        .await;
    let holder = connect(&database.url).await;
    holder.run("select pg_advisory_lock(42)").await;
    let plan = plan(&database, "orders", &["id"]);
    let (old, new) = (sink(&plan), sink(&plan));
    let dropped = tokio::spawn(async move {
        let place = place(0);
        let events = [row(1, KEY, Some(r#"{"a":1}"#))];
        old.commit(&Entry { place: &place, from: None, to: Mark::at(1), events: &events }).await
    });
    database.until(&waiting(&database, "like", "commit")).await;
    dropped.abort();
    assert!(dropped.await.expect_err("aborted").is_cancelled());
    let next = tokio::spawn(async move { new.next(&place(0)).await });
    database.until(&waiting_for_the_mark(&database)).await;
    holder.run("select pg_advisory_unlock(42)").await;
    assert_eq!(next.await.expect("joined"), Ok(Some(Mark::at(1))));
    assert_eq!(database.rows("select a from orders").await, ["1"]);
}

async fn a_lost_connection_is_made_again(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    done(&sink, &[row(1, KEY, Some(r#"{"a":1}"#))]).await;
    match database.kind {
        Kind::Postgres => {
            let ended = "select pg_terminate_backend(pid, 60000) from pg_stat_activity where application_name = 'tributary' \
                         and datname = current_database()";
            assert_eq!(database.rows(ended).await, ["t"]);
        }
        Kind::MySql | Kind::MariaDb => {
            let others =
                "select id from information_schema.processlist where db = database() and id <> connection_id()";
            for session in database.rows(others).await {
                end(&database, &session).await;
            }
            let none = format!("select 'none' from dual where not exists ({others})");
            database.until(&none).await;
        }
    }
    // Whether the client has heard of it yet decides whether the first try fails.
    if let Err(error) = sink.next(&place(0)).await {
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
    }
    done(&sink, &[row(2, KEY, Some(r#"{"a":2}"#))]).await;
    assert_eq!(database.rows("select a from orders").await, ["2"]);
}
