//! Rows of real PostgreSQL, MySQL and MariaDB. The servers are those of `TRIBUTARY_TEST_POSTGRES`, `…_MYSQL` and `…_MARIADB`, or are
//! started.

mod database;
mod handover;
mod mysql_servers;
mod mysql_tables;
mod random;
mod tables;
mod tls;

use std::time::Duration;

use tributary_dsl::plan::{KnownFields, RowPlan, Secret, SqlPlan};
use tributary_event::TableName;
use tributary_processor::sink::{Committed, Entry, LedgerSink as _, Mark, OutEvent};
use tributary_sinks::Sql;
use tributary_transport::TopicId;

use crate::support::{place, row, truncate};
use database::{Database, Kind, on_every_database};

fn plan(database: &Database, table: &str, key: &[&str]) -> SqlPlan {
    SqlPlan {
        url: Secret::new(&database.url),
        table: TableName::new(database.schema(), table),
        row: RowPlan {
            row: None,
            is_envelope: true,
            key: key.iter().map(|name| (*name).to_owned()).collect(),
            fields: KnownFields::default(),
        },
        create: true,
        keep_deleted: Duration::from_secs(7 * 24 * 60 * 60),
    }
}

fn sink(plan: &SqlPlan) -> Sql {
    Sql::new(plan, "shipped", "warehouse").expect("a sink")
}

/// Commits events after those that the sink has, one offset each.
async fn commit(sink: &Sql, events: &[OutEvent]) -> Committed {
    let place = place(0);
    let from = sink.next(&place).await.expect("a mark");
    let to = from.map_or(0, |mark| mark.next) + events.len() as u64;
    sink.commit(&Entry { place: &place, from, to: Mark::at(to), events }).await.expect("an answer")
}

async fn done(sink: &Sql, events: &[OutEvent]) {
    assert_eq!(commit(sink, events).await, Committed::Done);
}

async fn rejected(sink: &Sql, events: &[OutEvent]) -> (usize, String) {
    match commit(sink, events).await {
        Committed::Rejected { event, why } => (event, why),
        other => panic!("{other:?}"),
    }
}

on_every_database!(
    a_row_is_what_its_last_event_says,
    columns_of_an_event_that_the_table_has_passed_stay_out,
    a_deleted_row_comes_back_by_what_is_newer_alone,
    a_truncate_deletes_what_is_older,
    marks_move_without_events_and_only_from_where_they_are,
    a_mark_is_of_its_topic,
    a_mark_is_of_its_table,
    a_refused_row_is_found_among_many,
    rows_that_were_deleted_long_ago_are_removed,
);

const KEY: &str = r#"{"id":7}"#;

async fn a_row_is_what_its_last_event_says(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    let all = "select id, a, b, _seq, _deleted from orders order by id";
    assert_eq!(sink.next(&place(0)).await, Ok(None));
    done(&sink, &[row(10, KEY, Some(r#"{"id":7,"a":"x","b":1}"#)), row(11, r#"{"id":8}"#, Some(r#"{"a":"y","b":2}"#))])
        .await;
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(2))));
    assert_eq!(sink.next(&place(1)).await, Ok(None));
    assert_eq!(database.rows(all).await, ["7|x|1|10|f", "8|y|2|11|f"]);
    // Columns that an event lacks are left alone; null is a value.
    done(&sink, &[row(12, KEY, Some(r#"{"a":"z"}"#))]).await;
    assert_eq!(database.rows(all).await[0], "7|z|1|12|f");
    done(&sink, &[row(13, KEY, Some(r#"{"b":null}"#))]).await;
    assert_eq!(database.rows(all).await[0], "7|z|-|13|f");
    // What is older loses, in an entry and between entries.
    done(&sink, &[row(5, KEY, Some(r#"{"a":"old","b":9}"#))]).await;
    done(&sink, &[row(15, KEY, Some(r#"{"a":"new"}"#)), row(14, KEY, Some(r#"{"a":"old","b":9}"#))]).await;
    assert_eq!(database.rows(all).await[0], "7|new|-|15|f");
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(7))));
}

async fn columns_of_an_event_that_the_table_has_passed_stay_out(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    done(&sink, &[row(3, KEY, Some(r#"{"a":3,"b":3}"#))]).await;
    done(&sink, &[row(2, KEY, Some(r#"{"a":2,"b":2}"#)), row(4, KEY, Some(r#"{"a":4}"#))]).await;
    assert_eq!(database.rows("select a, b, _seq from orders").await, ["4|3|4"]);
}

async fn a_deleted_row_comes_back_by_what_is_newer_alone(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    let all = "select id, a, b, _seq, _deleted from orders order by id";
    done(&sink, &[row(1, KEY, Some(r#"{"a":1,"b":1}"#))]).await;
    done(&sink, &[row(5, KEY, None), row(6, r#"{"id":8}"#, None)]).await;
    assert_eq!(database.rows("select id, _seq, _deleted from orders order by id").await, ["7|5|t", "8|6|t"]);
    done(&sink, &[row(4, KEY, Some(r#"{"a":4,"b":4}"#)), row(5, r#"{"id":8}"#, Some(r#"{"a":4,"b":4}"#))]).await;
    assert_eq!(database.rows("select id, _seq, _deleted from orders order by id").await, ["7|5|t", "8|6|t"]);
    // What it had before is not what it has now.
    done(&sink, &[row(7, KEY, Some(r#"{"a":7}"#))]).await;
    assert_eq!(database.rows(all).await[0], "7|7|-|7|f");
    done(&sink, &[row(8, KEY, Some(r#"{"b":8}"#)), row(9, KEY, None), row(10, KEY, Some(r#"{"a":10}"#))]).await;
    assert_eq!(database.rows(all).await[0], "7|10|-|10|f");
}

async fn a_truncate_deletes_what_is_older(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    done(&sink, &[truncate(1)]).await;
    let of = |id: u64, sequence| row(sequence, &format!("{{\"id\":{id}}}"), Some(r#"{"a":1}"#));
    done(&sink, &[of(1, 2), of(2, 9)]).await;
    done(&sink, &[of(3, 3), truncate(5), of(4, 6)]).await;
    done(&sink, &[of(1, 4)]).await;
    let all = "select id, _seq, _deleted from orders order by id";
    assert_eq!(database.rows(all).await, ["1|5|t", "2|9|f", "3|5|t", "4|6|f"]);
}

async fn marks_move_without_events_and_only_from_where_they_are(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    let place = place(3);
    let commit = |from: Option<u64>, to| {
        let entry = Entry { place: &place, from: from.map(Mark::at), to: Mark::at(to), events: &[] };
        let sink = &sink;
        async move { sink.commit(&entry).await.expect("an answer") }
    };
    assert_eq!(commit(Some(0), 5).await, Committed::Fenced);
    assert_eq!(commit(None, 5).await, Committed::Done);
    assert_eq!(commit(None, 6).await, Committed::Fenced);
    assert_eq!(commit(Some(4), 6).await, Committed::Fenced);
    assert_eq!(commit(Some(5), 6).await, Committed::Done);
    assert_eq!(sink.next(&place).await, Ok(Some(Mark::at(6))));
    let other = Sql::new(&plan(&database, "orders", &["id"]), "shipped", "lake").expect("a sink");
    assert_eq!(other.next(&place).await, Ok(None));
}

/// A mark is of one topic, also where the one that took its name is as long; one that was made before topics had identities is taken as
/// it is, in a table without a column for them, as there may be in PostgreSQL.
async fn a_mark_is_of_its_topic(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    let place = place(0);
    let commit = async |from, to| {
        let entry = Entry { place: &place, from, to, events: &[] };
        sink.commit(&entry).await.expect("an answer")
    };
    assert_eq!(commit(None, Mark::at(5)).await, Committed::Done);
    if database.kind == Kind::Postgres {
        database.run("alter table tributary_marks drop column topic_id").await;
    }
    let sink = self::sink(&plan(&database, "orders", &["id"]));
    let commit = async |from, to| {
        let entry = Entry { place: &place, from, to, events: &[] };
        sink.commit(&entry).await.expect("an answer")
    };
    assert_eq!(sink.next(&place).await, Ok(Some(Mark::at(5))));
    let [old, new] = [(); 2].map(|()| Some(TopicId::new()));
    let of = |next, topic| Mark { next, topic };
    assert_eq!(commit(Some(Mark::at(5)), of(6, old)).await, Committed::Done);
    assert_eq!(sink.next(&place).await, Ok(Some(of(6, old))));
    for other in [Mark::at(6), of(6, new), of(5, old)] {
        assert_eq!(commit(Some(other), of(7, new)).await, Committed::Fenced);
    }
    assert_eq!(commit(Some(of(6, old)), of(0, new)).await, Committed::Done);
    assert_eq!(sink.next(&place).await, Ok(Some(of(0, new))));
}

/// A sink that is given another table would go on there without the rows of before.
async fn a_mark_is_of_its_table(database: Database) {
    let event = row(5, KEY, Some(r#"{"id":7,"title":"Up"}"#));
    done(&sink(&plan(&database, "orders", &["id"])), &[event]).await;
    // As an earlier version left it.
    database.run("alter table tributary_marks drop column target").await;
    done(&sink(&plan(&database, "orders", &["id"])), &[row(6, KEY, Some(r#"{"id":7,"title":"Down"}"#))]).await;
    let moved = sink(&plan(&database, "o'rders", &["id"]));
    let error = moved.next(&place(0)).await.expect_err("refused");
    let said = error.message;
    assert!(
        said.contains("has written the table orders up to offset") && said.contains("give the sink another name"),
        "{said}"
    );
    assert_eq!(sink(&plan(&database, "orders", &["id"])).next(&place(0)).await.map(|mark| mark.is_some()), Ok(true));
    let named = Sql::new(&plan(&database, "o'rders", &["id"]), "shipped", "lake").expect("a sink");
    assert_eq!(named.next(&place(0)).await, Ok(None));
    // What the message proposes.
    let (_, statement) = said.split_once("run: ").expect("a statement");
    database.run(statement).await;
    assert_eq!(moved.next(&place(0)).await.map(|mark| mark.is_some()), Ok(true));
}

async fn a_refused_row_is_found_among_many(database: Database) {
    database
        .run(
            "create table orders (id bigint primary key, at date, amount int, constraint amount check (amount < 1000))",
        )
        .await;
    let sink = sink(&plan(&database, "orders", &["id"]));
    let of = |n: u64, at: &str, amount: u64| {
        row(n + 1, &format!("{{\"id\":{n}}}"), Some(&format!("{{\"at\":\"{at}\",\"amount\":{amount}}}")))
    };
    let mut events: Vec<OutEvent> = (0..500).map(|n| of(n, "2026-01-31", n)).collect();
    events[123] = of(123, "2026-02-31", 123);
    let (event, why) = rejected(&sink, &events).await;
    assert!(event == 123 && why.contains("2026-02-31"), "{event}: {why}");
    assert_eq!(sink.next(&place(0)).await, Ok(None));
    assert_eq!(database.rows("select count(*) from orders").await, ["0"]);
    events[123] = of(123, "2026-02-28", 1000);
    let (event, why) = rejected(&sink, &events).await;
    assert!(event == 123 && why.contains("amount"), "{event}: {why}");
    events.remove(123);
    done(&sink, &events).await;
    assert_eq!(database.rows("select count(*), sum(_seq) from orders").await, ["499|125126"]);
}

#[tokio::test]
async fn what_is_refused_at_the_end_of_the_transaction_is_found_too() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    database
        .run(
            "create table owners (id bigint primary key); insert into owners values (1);
             create table orders (id bigint primary key, owner bigint references owners deferrable initially deferred)",
        )
        .await;
    let sink = sink(&plan(&database, "orders", &["id"]));
    let of = |n: u64, owner: u64| row(n, &format!("{{\"id\":{n}}}"), Some(&format!("{{\"owner\":{owner}}}")));
    let (event, why) = rejected(&sink, &[of(1, 1), of(2, 1), of(3, 2), of(4, 1)]).await;
    assert!(event == 2 && why.contains("owners"), "{event}: {why}");
    done(&sink, &[of(1, 1), of(2, 1), of(4, 1)]).await;
}

async fn rows_that_were_deleted_long_ago_are_removed(database: Database) {
    let at_once = SqlPlan { keep_deleted: Duration::ZERO, ..plan(&database, "orders", &["id"]) };
    let (sink, keeping) = (sink(&at_once), sink(&plan(&database, "orders", &["id"])));
    let of = |n: u64, columns| row(n, &format!("{{\"id\":{n}}}"), columns);
    done(&keeping, &[of(1, Some("{}")), of(2, None), of(3, None)]).await;
    done(&keeping, &[of(4, None)]).await;
    assert_eq!(database.rows("select id from orders order by id").await, ["1", "2", "3", "4"]);
    done(&sink, &[of(5, Some("{}"))]).await;
    assert_eq!(database.rows("select id from orders order by id").await, ["1", "5"]);
}
