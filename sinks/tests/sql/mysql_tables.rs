//! Tables of MySQL and MariaDB: what is made there, what was there before, and what they would do otherwise than PostgreSQL.

use tributary_dsl::plan::{Secret, SqlPlan};
use tributary_event::{ErrorClass, TableName};
use tributary_processor::OutsideError;
use tributary_processor::sink::{Entry, LedgerSink as _, Mark, OutEvent};
use tributary_sinks::Sql;

use super::database::{Database, Kind, connect, on_mysql_and_mariadb};
use super::{KEY, done, plan, rejected, sink};
use crate::support::{place, row};

on_mysql_and_mariadb!(
    a_table_is_made_and_grows_with_its_rows,
    keys_that_differ_in_case_accents_or_spaces_stay_apart,
    names_may_be_odd,
    what_is_not_the_sinks_to_change_stops_it_with_a_remedy,
    a_second_unique_index_is_no_key,
    columns_take_what_json_says_or_refuse_it,
    a_user_needs_few_rights_and_is_told_which,
    a_deadlock_is_tried_again,
);

async fn refused(plan: &SqlPlan, events: &[OutEvent]) -> OutsideError {
    let place = place(0);
    let sink = Sql::new(plan, "refused", "warehouse").expect("a sink");
    sink.commit(&Entry { place: &place, from: None, to: Mark::at(1), events }).await.expect_err("refused")
}

async fn a_table_is_made_and_grows_with_its_rows(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id"]));
    let first = r#"{"is":true,"n":1,"x":0.1234567890123456789,"t":"ü","l":[1,{"a":null}],"void":null}"#;
    done(&sink, &[row(1, KEY, Some(first))]).await;
    let columns = "select column_name, data_type from information_schema.columns where table_schema = database() and \
                   table_name = 'orders' order by cast(column_name as binary)";
    let json = if database.kind == Kind::MySql { "l|json" } else { "l|longtext" };
    let expected =
        ["_deleted|tinyint", "_seq|bigint", "id|bigint", "is|tinyint", json, "n|bigint", "t|longtext", "x|decimal"];
    assert_eq!(database.rows(columns).await, expected);
    let all = "select `is`, n, x = 0.1234567890123456789, t, json_extract(l, '$[1].a') from orders";
    assert_eq!(database.rows(all).await, ["t|1|1|ü|null"]);
    done(&sink, &[row(2, KEY, Some(r#"{"n":2.5,"more":9223372036854775807,"void":{"a":1}}"#))]).await;
    let all = "select n = 2.5, more, json_extract(void, '$.a') from orders";
    assert_eq!(database.rows(all).await, ["1|9223372036854775807|1"]);
    done(&sink, &[row(3, KEY, Some(r#"{"more":9223372036854775808}"#))]).await;
    assert_eq!(database.rows("select more = 9223372036854775808 from orders").await, ["1"]);
    let (event, why) =
        rejected(&sink, &[row(4, KEY, Some(r#"{"t":"fine"}"#)), row(5, r#"{"id":8}"#, Some(r#"{"n":"many"}"#))]).await;
    assert!(event == 1 && why.contains("many"), "{event}: {why}");
    assert_eq!(database.rows("select t, _seq from orders").await, ["ü|3"]);
}

async fn keys_that_differ_in_case_accents_or_spaces_stay_apart(database: Database) {
    let sink = sink(&plan(&database, "orders", &["id", "lang"]));
    let keys = ["a", "A", "á", "a ", "\u{e4}", "a\u{308}", "ß", "ss", ""];
    let events: Vec<OutEvent> = keys
        .iter()
        .zip(1..)
        .map(|(key, n)| row(n, &format!("{{\"id\":\"{key}\",\"lang\":\"en\"}}"), Some(&format!("{{\"n\":{n}}}"))))
        .collect();
    done(&sink, &events).await;
    done(&sink, &[row(20, r#"{"id":"A","lang":"en"}"#, None)]).await;
    assert_eq!(
        database.rows("select n from orders where not _deleted order by n").await,
        ["1", "3", "4", "5", "6", "7", "8", "9"]
    );
    let long = format!("{{\"id\":\"{}\",\"lang\":\"en\"}}", "x".repeat(385));
    let (event, why) = rejected(&sink, &[row(21, &long, Some("{}"))]).await;
    assert!(event == 0 && why.contains("too long"), "{event}: {why}");
    let of_lists = plan(&database, "lists", &["id"]);
    let error = refused(&of_lists, &[row(1, r#"{"id":[1]}"#, Some("{}"))]).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("indexed"), "{error}");
}

async fn names_may_be_odd(database: Database) {
    let sink = sink(&plan(&database, "Select`; drop table '\"--", &["the `key"]));
    let key = r#"{"the `key":1}"#;
    done(&sink, &[row(1, key, Some(r#"{"order":"it's","a?b":"\\'; --","$1":3,"A b":"\u0000","{}":5}"#))]).await;
    done(&sink, &[row(2, key, Some(r#"{"order":"\\"}"#)), row(3, r#"{"the `key":2}"#, None)]).await;
    let all = "select `the ``key`, `order`, `a?b`, `$1`, length(`A b`), `{}`, _deleted from `Select``; drop table '\"--` order by 1";
    assert_eq!(database.rows(all).await, ["1|\\|\\'; --|3|1|5|f", "2|-|-|-|-|-|t"]);
    assert_eq!(sink.next(&place(0)).await, Ok(Some(Mark::at(3))));
}

async fn what_is_not_the_sinks_to_change_stops_it_with_a_remedy(database: Database) {
    let plan = SqlPlan { create: false, ..plan(&database, "orders", &["id"]) };
    let events = [row(1, r#"{"id":"x"}"#, Some(r#"{"a":1,"b":"x"}"#))];
    // Each remedy is what the message says, and leads to the next message.
    let mut told = Vec::new();
    for _ in 0..5 {
        let error = refused(&plan, &events).await;
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        let (_, remedy) = error.message.split_once("run: ").unwrap_or_else(|| panic!("{error}"));
        database.run(remedy).await;
        if told.is_empty() {
            database.run("drop table orders").await;
            database
                .run("create table orders (id varchar(20), a int) engine = MyISAM character set utf8mb4 collate utf8mb4_general_ci")
                .await;
        }
        told.push(error.message);
    }
    let words =
        ["does not exist", "lacks columns", "no unique index", "no transactions", "compared by utf8mb4_general_ci"];
    for (message, word) in told.iter().zip(words) {
        assert!(message.contains(word), "{message}");
    }
    done(&sink(&plan), &events).await;
    assert_eq!(database.rows("select id, a, b, _seq from orders").await, ["x|1|x|1"]);
    let nowhere = SqlPlan { table: TableName::new("nowhere", "orders"), create: true, ..plan.clone() };
    let error = refused(&nowhere, &events).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("nowhere"), "{error}");
    database.run("create view seen as select * from orders").await;
    let error = refused(&SqlPlan { table: TableName::new(database.schema(), "seen"), ..plan }, &events).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("no table"), "{error}");
}

async fn a_second_unique_index_is_no_key(database: Database) {
    database.run("create table orders (id bigint primary key, mail varchar(99) unique, n int)").await;
    let sink = sink(&plan(&database, "orders", &["id"]));
    let of = |n: u64, id: u64, columns: &str| row(n, &format!("{{\"id\":{id}}}"), Some(columns));
    done(&sink, &[of(1, 1, r#"{"mail":"a","n":1}"#), of(2, 2, r#"{"mail":"b","n":2}"#)]).await;
    // A row of another key must not be changed for having the same mail.
    let (event, why) = rejected(&sink, &[of(3, 2, r#"{"n":3}"#), of(4, 3, r#"{"mail":"a","n":4}"#)]).await;
    assert!(event == 1 && why.contains("mail"), "{event}: {why}");
    assert_eq!(database.rows("select id, mail, n, _seq from orders order by id").await, ["1|a|1|1", "2|b|2|2"]);
    done(&sink, &[of(3, 2, r#"{"n":3}"#), of(4, 3, r#"{"mail":"c","n":4}"#), row(5, r#"{"id":1}"#, None)]).await;
    done(&sink, &[of(4, 1, r#"{"n":4}"#), of(6, 1, r#"{"n":6}"#), row(7, r#"{"id":9}"#, None)]).await;
    let all = "select id, mail, n, _seq, _deleted from orders order by id";
    assert_eq!(database.rows(all).await, ["1|-|6|6|f", "2|b|3|3|f", "3|c|4|4|f", "9|-|-|7|t"]);
}

async fn columns_take_what_json_says_or_refuse_it(database: Database) {
    database
        .run(
            "create table orders (id char(36) character set ascii collate ascii_bin, region varchar(3) collate utf8mb4_bin, day date,
                 at timestamp(6) null, moment datetime(3), amount numeric(10, 2), mood enum('sad', 'happy'), doc json, bin varbinary(9),
                 score int, constraint score check (score > 0), f double, few smallint unsigned, flag boolean, words varchar(9),
                 total numeric(12, 2) generated always as (amount * 2) stored, _seq bigint, _deleted boolean, primary key (id, region))",
        )
        .await;
    let plan = SqlPlan { create: false, ..plan(&database, "orders", &["id", "region"]) };
    let sink = sink(&plan);
    let key = r#"{"id":"7d444840-9dc0-11d1-b245-5ffdce74fad2","region":"eu"}"#;
    let columns = r#"{"day":"2026-01-31","at":"2026-01-31T10:30:00.25+01:00","moment":"2026-01-31T09:30:00.25Z","amount":"12345678.90",
        "mood":"happy","doc":{"b":"it's \\ \"so\""},"bin":"a","score":3,"f":1.5e3,"few":"40000","flag":true,"words":12,"total":9}"#;
    done(&sink, &[row(1, key, Some(columns))]).await;
    let all = "select day, at, moment, amount, mood, json_unquote(json_extract(doc, '$.b')), bin, score, f, few, flag, words, total, _deleted from orders";
    let expected = "2026-01-31|2026-01-31 09:30:00.250000|2026-01-31 09:30:00.250|12345678.90|happy|it's \\ \"so\"|a|3|1500|40000|t|12|24691357.80|f";
    assert_eq!(database.rows(all).await, [expected]);
    done(&sink, &[row(2, key, Some(r#"{"doc":"text","amount":0.1}"#))]).await;
    assert_eq!(database.rows("select doc, amount, mood from orders").await, ["\"text\"|0.10|happy"]);
    for (columns, told) in [
        (r#"{"mood":"bored"}"#, "mood"),
        (r#"{"score":0}"#, "score"),
        (r#"{"few":70000}"#, "few"),
        // PostgreSQL refuses it; these would round it.
        (r#"{"few":1.5}"#, "smallint"),
        (r#"{"words":"longer than nine"}"#, "words"),
        (r#"{"day":"2026-02-31"}"#, "2026-02-31"),
        (r#"{"f":1e200000}"#, "f"),
        (r#"{"amount":"x"}"#, "amount"),
    ] {
        let others = [row(3, key, Some(r#"{"score":4}"#)), row(4, key, Some(columns))];
        let (event, why) = rejected(&sink, &others).await;
        assert!(event == 1 && why.contains(told), "{columns}: {event}: {why}");
    }
    let deep = format!(r#"{{"doc":{}{}}}"#, "[".repeat(200_000), "]".repeat(200_000));
    let (event, why) = rejected(&sink, &[row(5, key, Some(&deep))]).await;
    assert!(event == 0 && why.contains("doc"), "{event}: {why}");
    done(&sink, &[row(6, key, None)]).await;
    assert_eq!(database.rows("select _seq, _deleted from orders").await, ["6|t"]);
}

async fn a_user_needs_few_rights_and_is_told_which(database: Database) {
    let user = database.schema().to_owned();
    database.run("create table orders (id bigint primary key, a int, _seq bigint, _deleted boolean)").await;
    database
        .run(&format!(
            "drop user if exists {user}@'127.0.0.1'; create user {user}@'127.0.0.1' identified by 'secret';
             grant select, insert, update on {user}.orders to {user}@'127.0.0.1'"
        ))
        .await;
    let mut plan = plan(&database, "orders", &["id"]);
    let mut url = url::Url::parse(&database.url).expect("a URL");
    url.set_username(&user).expect("a user");
    url.set_password(Some("wrong")).expect("a password");
    plan.url = Secret::new(url.clone());
    let events = [row(1, KEY, Some(r#"{"a":1}"#))];
    let error = refused(&plan, &events).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("Access denied"), "{error}");
    url.set_password(Some("secret")).expect("a password");
    plan.url = Secret::new(url.clone());
    let error = refused(&plan, &events).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("denied"), "{error}");
    let (_, remedy) = error.message.split_once("who may run: ").unwrap_or_else(|| panic!("{error}"));
    database.run(remedy).await;
    for table in ["tributary_marks", "tributary_samples"] {
        database.run(&format!("grant select, insert, update, delete on {user}.{table} to {user}@'127.0.0.1'")).await;
    }
    let sink = sink(&plan);
    done(&sink, &events).await;
    // Rows that were deleted long ago cannot be removed by this user, which stops nothing.
    done(&sink, &[row(2, KEY, None)]).await;
    assert_eq!(database.rows("select id, _seq, _deleted from orders").await, ["7|2|t"]);
    let error = refused(&plan, &[row(3, KEY, Some(r#"{"more":1}"#))]).await;
    assert!(error.class == ErrorClass::Fatal && error.message.contains("grant"), "{error}");
}

async fn a_deadlock_is_tried_again(database: Database) {
    let sink = std::sync::Arc::new(sink(&plan(&database, "orders", &["id"])));
    let both = |n: u64| [1, 2].map(|id| row(n + id, &format!("{{\"id\":{id}}}"), Some(&format!("{{\"a\":{n}}}"))));
    done(&sink, &both(10)).await;
    let other = connect(&database.url).await;
    // Who has done more is not the one that is rolled back.
    let many = vec!["(1)"; 2_000].join(",");
    other.run(&format!("create table much (n int); begin; insert into much values {many}")).await;
    other.run("update orders set a = 0 where id = 2").await;
    let commit = {
        let sink = sink.clone();
        tokio::spawn(async move { super::commit(&sink, &both(20)).await })
    };
    let waits = "select 1 from information_schema.innodb_trx t join information_schema.processlist p on p.id = t.trx_mysql_thread_id \
                 where p.db = database() and t.trx_state = 'LOCK WAIT' and t.trx_query like 'insert into%orders%'";
    database.until(waits).await;
    other.run("update orders set a = 0 where id = 1").await;
    other.run("commit").await;
    assert_eq!(commit.await.expect("joined"), tributary_processor::sink::Committed::Done);
    assert_eq!(database.rows("select id, a, _seq from orders order by id").await, ["1|20|21", "2|20|22"]);
}
