//! Two processes that have the same partition, and connections that are lost in the middle.

use std::sync::Arc;

use tributary_event::ErrorClass;
use tributary_processor::sink::{Committed, Entry, LedgerSink as _, Mark, OutEvent};

use super::{KEY, done, plan, sink};
use crate::support::{Database, connect, place, row};

/// Whoever writes the table waits, at `when`, for a lock that is held.
async fn held(database: &Database, trigger: &str) -> tokio_postgres::Client {
    database
        .run(&format!(
            "create table orders (id bigint primary key, a bigint);
             create function wait() returns trigger language plpgsql as
                 $$ begin perform pg_advisory_xact_lock_shared(42); return new; end $$;
             create {trigger} on orders {} for each row execute function wait()",
            if trigger.contains("constraint") { "deferrable initially deferred" } else { "" }
        ))
        .await;
    let holder = connect(&database.url).await;
    holder.batch_execute("select pg_advisory_lock(42)").await.expect("locked");
    holder
}

const RELEASE: &str = "select pg_advisory_unlock(42)";

/// The backend that waits for a lock in a statement like this.
fn waiting(like: &str) -> String {
    format!(
        "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query ilike '{like}'"
    )
}

fn entry_of(events: &[OutEvent], from: Option<u64>) -> (Option<u64>, u64) {
    (from, from.unwrap_or_default() + events.len() as u64)
}

#[tokio::test]
async fn of_two_owners_one_is_fenced_and_changes_nothing() {
    let database = Database::create().await;
    let holder = held(&database, "trigger t before insert or update").await;
    let plan = plan(&database, "public.orders", &["id"]);
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
    database.until(&waiting("insert into%")).await;
    // The other one has a newer event even: what counts is the mark.
    let second = commit(&new, 2, 2);
    database.until(&waiting("%hashtextextended%")).await;
    holder.batch_execute(RELEASE).await.expect("released");
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

#[tokio::test]
async fn a_transaction_whose_backend_is_killed_has_changed_nothing() {
    let database = Database::create().await;
    let holder = held(&database, "trigger t before insert or update").await;
    let sink = Arc::new(sink(&plan(&database, "public.orders", &["id"])));
    let events = [row(1, KEY, Some(r#"{"a":1}"#))];
    let commit = {
        let (sink, events) = (sink.clone(), events.clone());
        tokio::spawn(async move {
            let place = place(0);
            sink.commit(&Entry { place: &place, from: None, to: Mark::at(1), events: &events }).await
        })
    };
    let pid = database.until(&waiting("insert into%")).await;
    database.run(&format!("select pg_terminate_backend({pid})")).await;
    let error = commit.await.expect("joined").expect_err("killed");
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert_eq!(sink.next(&place(0)).await, Ok(None));
    assert!(database.rows("select 1 from orders").await.is_empty());
    holder.batch_execute(RELEASE).await.expect("released");
    done(&sink, &events).await;
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(1))));
    assert_eq!(database.rows("select a from orders").await, ["1"]);
}

#[tokio::test]
async fn a_mark_is_told_after_the_end_of_a_transaction_that_nobody_waits_for() {
    let database = Database::create().await;
    let holder = held(&database, "constraint trigger t after insert or update").await;
    let plan = plan(&database, "public.orders", &["id"]);
    let (old, new) = (sink(&plan), sink(&plan));
    let dropped = tokio::spawn(async move {
        let place = place(0);
        let events = [row(1, KEY, Some(r#"{"a":1}"#))];
        old.commit(&Entry { place: &place, from: None, to: Mark::at(1), events: &events }).await
    });
    database.until(&waiting("commit")).await;
    dropped.abort();
    assert!(dropped.await.expect_err("aborted").is_cancelled());
    let next = tokio::spawn(async move { new.next(&place(0)).await });
    database.until(&waiting("%hashtextextended%")).await;
    holder.batch_execute(RELEASE).await.expect("released");
    assert_eq!(next.await.expect("joined"), Ok(Some(Mark::at(1))));
    assert_eq!(database.rows("select a from orders").await, ["1"]);
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let database = Database::create().await;
    let sink = sink(&plan(&database, "public.orders", &["id"]));
    done(&sink, &[row(1, KEY, Some(r#"{"a":1}"#))]).await;
    let ended = "select pg_terminate_backend(pid, 60000) from pg_stat_activity where application_name = 'tributary' \
                 and datname = current_database()";
    assert_eq!(database.rows(ended).await, ["t"]);
    // Whether the client has heard of it yet decides whether the first try fails.
    if let Err(error) = sink.next(&place(0)).await {
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
    }
    done(&sink, &[row(2, KEY, Some(r#"{"a":2}"#))]).await;
    assert_eq!(database.rows("select a from orders").await, ["2"]);
}
