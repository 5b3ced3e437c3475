//! Tables that the sink makes, and tables that were there before.

use tributary_dsl::plan::{Secret, SqlPlan};
use tributary_event::{ErrorClass, TableName};
use tributary_processor::OutsideError;
use tributary_processor::sink::{Entry, LedgerSink as _, Mark, OutEvent};
use tributary_sinks::Sql;

use super::database::{Database, Kind, on_every_database};
use super::{KEY, done, plan, rejected, sink};
use crate::support::{place, row};

on_every_database!(
    a_table_that_is_changed_meanwhile_is_looked_at_again,
    two_processes_make_a_table_and_its_columns_together,
    rows_in_part_fit_tables_whose_columns_must_not_be_null,
    keys_that_are_equal_to_the_database_alone_are_written_one_after_the_other,
);

const COLUMNS: &str = "select attname, format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'orders'::regclass \
                       and attnum > 0 order by attname";

async fn refused(plan: &SqlPlan, events: &[OutEvent]) -> OutsideError {
    let place = place(0);
    let sink = Sql::new(plan, "refused", "warehouse").expect("a sink");
    sink.commit(&Entry { place: &place, from: None, to: Mark::at(1), events }).await.expect_err("refused")
}

#[tokio::test]
async fn a_table_is_made_and_grows_with_its_rows() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    let sink = sink(&plan(&database, "orders", &["id"]));
    done(
        &sink,
        &[row(1, KEY, Some(r#"{"is":true,"n":1,"x":0.1234567890123456789,"t":"ü","l":[1,{"a":null}],"void":null}"#))],
    )
    .await;
    let columns =
        ["_deleted|boolean", "_seq|bigint", "id|bigint", "is|boolean", "l|jsonb", "n|bigint", "t|text", "x|numeric"];
    assert_eq!(database.rows(COLUMNS).await, columns);
    let all = "select \"is\", n, x, t, l from orders";
    assert_eq!(database.rows(all).await, [r#"t|1|0.1234567890123456789|ü|[1, {"a": null}]"#]);
    done(&sink, &[row(2, KEY, Some(r#"{"n":2.5,"more":9223372036854775807,"void":{"a":1}}"#))]).await;
    assert_eq!(database.rows("select n, more, void from orders").await, [r#"2.5|9223372036854775807|{"a": 1}"#]);
    done(&sink, &[row(3, KEY, Some(r#"{"more":9223372036854775808}"#))]).await;
    assert_eq!(database.rows("select more from orders").await, ["9223372036854775808"]);
    let (event, why) =
        rejected(&sink, &[row(4, KEY, Some(r#"{"t":"fine"}"#)), row(5, r#"{"id":8}"#, Some(r#"{"n":"many"}"#))]).await;
    assert!(event == 1 && why.contains("many"), "{event}: {why}");
    assert_eq!(database.rows("select t, _seq from orders").await, ["ü|3"]);
}

async fn a_table_that_is_changed_meanwhile_is_looked_at_again(database: Database) {
    let plan = plan(&database, "orders", &["id"]);
    let (one, other) = (sink(&plan), sink(&plan));
    done(&one, &[row(1, KEY, Some(r#"{"a":1}"#))]).await;
    done(&other, &[row(2, KEY, Some(r#"{"a":1.5,"b":true}"#))]).await;
    done(&one, &[row(3, KEY, Some(r#"{"a":2.5,"b":false}"#))]).await;
    assert_eq!(database.rows("select b from orders where a = 2.5").await, ["f"]);
    // A column that must not be null, which only a fresh look tells.
    database
        .run(
            "alter table orders add column c varchar(9) not null default 'c'; alter table orders alter column c drop default",
        )
        .await;
    done(&one, &[row(4, KEY, Some(r#"{"a":4}"#))]).await;
    assert_eq!(database.rows("select c from orders where a = 4").await, ["c"]);
    database.run("drop table orders; drop table tributary_marks").await;
    let place = place(0);
    let events = [row(5, KEY, Some(r#"{"a":5}"#))];
    let error = one
        .commit(&Entry { place: &place, from: Some(Mark::at(4)), to: Mark::at(5), events: &events })
        .await
        .expect_err("gone");
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert_eq!(one.next(&place).await, Ok(None));
    done(&one, &events).await;
    assert_eq!(database.rows("select a from orders").await, ["5"]);
}

async fn two_processes_make_a_table_and_its_columns_together(database: Database) {
    let plan = plan(&database, "orders", &["id"]);
    let sinks = [(); 4].map(|()| sink(&plan));
    for round in 0..8u64 {
        let commits = sinks.iter().zip(0u32..).map(|(sink, partition)| {
            let columns = format!("{{\"c{round}\":{partition},\"d{}\":true}}", round * 4 + u64::from(partition));
            let events = [row(round + 1, &format!("{{\"id\":{partition}}}"), Some(&columns))];
            async move {
                let place = place(partition);
                let from = round.checked_sub(1);
                sink.commit(&Entry { place: &place, from: from.map(Mark::at), to: Mark::at(round), events: &events })
                    .await
                    .expect("committed")
            }
        });
        let committed = futures::future::join_all(commits).await;
        assert!(committed.iter().all(|c| *c == tributary_processor::sink::Committed::Done), "{committed:?}");
    }
    assert_eq!(
        database.rows("select id, c0, c7, _seq from orders order by id").await,
        ["0|0|0|8", "1|1|1|8", "2|2|2|8", "3|3|3|8"]
    );
}

#[tokio::test]
async fn columns_of_any_type_take_what_json_says() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    database
        .run(
            "create type mood as enum ('sad', 'happy'); create domain score as int check (value > 0);
             create table orders (id uuid, region char(3), day date, at timestamptz, amount numeric(10, 2), tags text[], mood mood,
                 doc json, bin bytea, score score, grid int[][], span interval, net inet, few smallint, f real,
                 total numeric generated always as (amount * 2) stored, number bigint generated always as identity,
                 _seq bigint, _deleted boolean, primary key (id, region))",
        )
        .await;
    let plan = SqlPlan { create: false, ..plan(&database, "orders", &["id", "region"]) };
    let sink = sink(&plan);
    let key = r#"{"id":"7d444840-9dc0-11d1-b245-5ffdce74fad2","region":"eu"}"#;
    let columns = r#"{"day":"2026-01-31","at":"2026-01-31T09:30:00.25Z","amount":"12345678.90","tags":["a","b,\"c\""],"mood":"happy",
        "doc":{"b":1},"bin":"\\x00ff","score":3,"grid":[[1,2],[3,4]],"span":"1 day 02:00","net":"10.0.0.1/8","few":7,"f":1.5,
        "total":9,"number":99}"#;
    done(&sink, &[row(1, key, Some(columns))]).await;
    let all = "select day, at at time zone 'UTC', amount, tags, mood, doc, bin, score, grid, span, net, few, f, total, number, _deleted from orders";
    let expected = r#"2026-01-31|2026-01-31 09:30:00.25|12345678.90|{a,"b,\"c\""}|happy|{"b": 1}|\x00ff|3|{{1,2},{3,4}}|1 day 02:00:00|10.0.0.1/8|7|1.5|24691357.80|1|f"#;
    assert_eq!(database.rows(all).await, [expected]);
    done(&sink, &[row(2, key, Some(r#"{"tags":null,"amount":0.1}"#))]).await;
    assert_eq!(database.rows("select tags, amount, mood from orders").await, ["-|0.10|happy"]);
    for (columns, told) in
        [(r#"{"mood":"bored"}"#, "bored"), (r#"{"score":0}"#, "score"), (r#"{"few":40000}"#, "smallint")]
    {
        let (event, why) = rejected(&sink, &[row(3, key, Some(columns))]).await;
        assert!(event == 0 && why.contains(told), "{why}");
    }
    done(&sink, &[row(4, key, None)]).await;
    assert_eq!(database.rows("select _seq, _deleted from orders").await, ["4|t"]);
}

async fn rows_in_part_fit_tables_whose_columns_must_not_be_null(database: Database) {
    database
        .run("create table orders (id int primary key, name text not null, n int, _seq bigint, _deleted boolean)")
        .await;
    let sink = sink(&plan(&database, "orders", &["id"]));
    database.run("insert into orders (id, name, n) values (6, 'there before', 1)").await;
    done(&sink, &[row(1, KEY, Some(r#"{"name":"seven","n":1}"#)), row(2, KEY, Some(r#"{"n":2}"#))]).await;
    done(&sink, &[row(3, r#"{"id":6}"#, Some(r#"{"n":3}"#))]).await;
    let all = "select id, name, n, _seq, _deleted from orders order by id";
    assert_eq!(database.rows(all).await, ["6|there before|3|3|f", "7|seven|2|2|f"]);
    // There is no row that could say that 9 was deleted, and none that could be made of a part.
    done(&sink, &[row(4, r#"{"id":9}"#, None), row(5, KEY, None)]).await;
    assert_eq!(database.rows("select id, _seq, _deleted from orders order by id").await, ["6|3|f", "7|5|t"]);
    let (event, why) =
        rejected(&sink, &[row(6, r#"{"id":6}"#, Some(r#"{"n":6}"#)), row(7, r#"{"id":9}"#, Some(r#"{"n":7}"#))]).await;
    assert!(event == 1 && why.contains("name"), "{event}: {why}");
}

async fn keys_that_are_equal_to_the_database_alone_are_written_one_after_the_other(database: Database) {
    database.run("create table orders (id bigint primary key, a int)").await;
    let sink = sink(&plan(&database, "orders", &["id"]));
    done(&sink, &[row(1, r#"{"id":7}"#, Some(r#"{"a":1}"#)), row(2, r#"{"id":"7"}"#, Some(r#"{"a":2}"#))]).await;
    assert_eq!(database.rows("select id, a, _seq from orders").await, ["7|2|2"]);
}

#[tokio::test]
async fn names_may_be_odd() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    let table = TableName::new("odd \"schema", "Select; drop table \"orders\"'--");
    database.run("create schema \"odd \"\"schema\"").await;
    let plan = SqlPlan { table, ..plan(&database, "t", &["the \"key\"", "Größe"]) };
    let sink = sink(&plan);
    let key = r#"{"the \"key\"":"a\"b","Größe":1}"#;
    let columns = r#"{"order":1,"Order":2,"a b":"'; --","$1":3,"100%\\":"x","t":4,"r":5,"excluded":6}"#;
    done(&sink, &[row(1, key, Some(columns))]).await;
    done(&sink, &[row(2, key, Some(r#"{"Order":3,"new \"one\"":true}"#))]).await;
    done(&sink, &[row(3, r#"{"the \"key\"":"c","Größe":1}"#, None)]).await;
    let all = r#"select "order", "Order", "a b", "$1", "100%\", "t", "r", "excluded", "new ""one""", _deleted
        from "odd ""schema"."Select; drop table ""orders""'--" order by "the ""key""""#;
    assert_eq!(database.rows(all).await, ["1|3|'; --|3|x|4|5|6|t|f", "-|-|-|-|-|-|-|-|-|t"]);
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(3))));
}

#[tokio::test]
async fn what_is_not_the_sinks_to_change_stops_it_with_a_remedy() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    let plan = SqlPlan { create: false, ..plan(&database, "orders", &["id"]) };
    let events = [row(1, KEY, Some(r#"{"a":1,"b":"x"}"#))];
    // Each remedy is what the message says, and leads to the next message.
    for _ in 0..4 {
        let error = refused(&plan, &events).await;
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        let (_, remedy) = error.message.split_once("run: ").unwrap_or_else(|| panic!("{error}"));
        database.run(remedy).await;
        if database
            .rows("select 1 from pg_attribute where attrelid = 'orders'::regclass and attname = '_seq'")
            .await
            .is_empty()
        {
            panic!("{error}");
        }
        if error.message.contains("does not exist") {
            database.run("drop table orders; create table orders (id bigint, a int)").await;
        } else if error.message.contains("unique") {
            break;
        }
    }
    done(&sink(&plan), &events).await;
    assert_eq!(database.rows("select id, a, b, _seq from orders").await, ["7|1|x|1"]);
    let nowhere = SqlPlan { table: TableName::new("nowhere", "orders"), ..plan.clone() };
    let error = refused(&nowhere, &events).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("schema"), "{error}");
    database.run("create view seen as select * from orders").await;
    let error = refused(&SqlPlan { table: "public.seen".into(), ..plan }, &events).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("no table"), "{error}");
}

#[tokio::test]
async fn a_role_needs_few_rights_and_is_told_which() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    let role = database.rows("select current_database()").await.remove(0);
    database
        .run(&format!(
            "drop role if exists {role}; create role {role} login password 'secret'; revoke create on schema public from public;
             create table orders (id bigint primary key, a int, _seq bigint, _deleted boolean);
             grant select, insert, update on orders to {role}"
        ))
        .await;
    let mut plan = plan(&database, "orders", &["id"]);
    let mut url = url::Url::parse(&database.url).expect("a URL");
    url.set_username(&role).expect("a user");
    url.set_password(Some("secret")).expect("a password");
    plan.url = Secret::new(url);
    let events = [row(1, KEY, Some(r#"{"a":1}"#))];
    let error = refused(&plan, &events).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("permission denied"), "{error}");
    let (_, remedy) = error.message.split_once("who may run: ").unwrap_or_else(|| panic!("{error}"));
    database.run(remedy).await;
    database
        .run(&format!("grant select, insert, update, delete on tributary_marks, tributary_samples to {role}"))
        .await;
    let sink = sink(&plan);
    done(&sink, &events).await;
    // Rows that were deleted long ago cannot be removed by this role, which stops nothing.
    done(&sink, &[row(2, KEY, None)]).await;
    assert_eq!(database.rows("select id, _seq, _deleted from orders").await, ["7|2|t"]);
    let error = refused(&plan, &[row(3, KEY, Some(r#"{"more":1}"#))]).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("must be owner"), "{error}");
}

#[tokio::test]
async fn values_that_no_database_takes_are_rejected() {
    let database = Database::of(Kind::Postgres).await.expect("PostgreSQL");
    let sink = sink(&plan(&database, "orders", &["id"]));
    let deep = format!(r#"{{"doc":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    done(&sink, &[row(1, KEY, Some(r#"{"doc":{},"text":"x","n":1.5}"#))]).await;
    for columns in [r#"{"text":"a\u0000b"}"#, r#"{"n":1e200000}"#, &deep] {
        let others = [row(2, r#"{"id":1}"#, Some(r#"{"text":"fine"}"#)), row(3, r#"{"id":2}"#, Some(columns))];
        let (event, why) = rejected(&sink, &others).await;
        assert!(event == 1 && why.contains("SQLSTATE"), "{event}: {why}");
    }
    let long = format!(r#"{{"{}":1}}"#, "x".repeat(64));
    let (event, why) = rejected(&sink, &[row(4, KEY, Some(&long))]).await;
    assert!(event == 0 && why.contains("rename"), "{why}");
}
