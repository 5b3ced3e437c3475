//! Names with marks in them, names that are no tables, and databases with another name.

use serde_json::json;
use tributary_connector::postgres::KeyPager;
use tributary_event::Value;

use crate::support::{Database, Record, Recorder, Running, connect, postgres, postgres_mut, server_url};

const ODD: &str = "\"my.schema\".\"odd}\"\"table\"";

#[tokio::test(flavor = "multi_thread")]
async fn names_with_marks_are_captured_and_paged() {
    let db = Database::create("odd_names").await;
    db.run(&format!(
        "create schema \"my.schema\"; create table {ODD} (\"odd}} \"\"id\"\"\" int primary key, \"Größe.in m\" text); \
         create table \"Ünder Score\" (id int primary key); create table \"a.b\" (id int, x int); \
         alter table \"a.b\" replica identity full"
    ))
    .await;
    let tables = [ODD, "public.Ünder Score", "public.\"a.b\""];
    let (recorder, mut settings) = (Recorder::new(), db.settings(&tables));
    postgres_mut(&mut settings).keys = vec![("public".into(), "a.b".into(), vec!["x".into()])];
    let running = Running::streaming(&settings, &recorder).await;
    db.run(&format!(
        "insert into {ODD} values (1, 'x'); insert into \"Ünder Score\" values (2); insert into \"a.b\" values (3, 4)"
    ))
    .await;
    let records = recorder.wait(3).await;
    let topics: Vec<&str> = records.iter().map(|r| r.topic.strip_prefix(&*db.name).unwrap_or(&r.topic)).collect();
    assert_eq!(topics, [".my.schema.odd__table", ".public._nder_Score", ".public.a.b"]);
    assert_eq!(records[0].get("/after"), json!({"odd} \"id\"": 1, "Größe.in m": "x"}));
    assert_eq!(records[0].get("/source/table"), json!("odd}\"table"));
    assert_eq!(records[2].key, Some(json!({"x": 4})));
    let mut pager = KeyPager::open(postgres(&settings), ODD, &["Größe.in m".into()]).await.expect("opens");
    let page = pager.page(None, 10).await.expect("a page");
    assert_eq!(page[0].values, [Value::text("x")]);
    assert!(pager.page(Some(&page[0].place), 10).await.expect("a page").is_empty());
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_table_is_named_with_what_to_list_instead() {
    let db = Database::create("no_tables").await;
    db.run(
        "create table movie (id int primary key); create schema \"x.y\"; create table \"x.y\".talent (id int primary key); \
         create view cast_view as select m.id from movie m join \"x.y\".talent t on t.id = m.id; \
         create view over_view as select * from cast_view; create materialized view stored as select * from over_view; \
         create view constant as select 1 as one; create sequence numbers; create type pair as (a int, b int); \
         create extension postgres_fdw; create server far foreign data wrapper postgres_fdw; \
         create foreign table remote (id int) server far; create table \"Mixed\" (id int primary key)",
    )
    .await;
    let cases: &[(&str, &[&str])] = &[
        ("cast_view", &["it is a view", "in its place: public.movie, \"x.y\".talent"]),
        ("over_view", &["it is a view", "public.movie, \"x.y\".talent"]),
        ("stored", &["it is a materialized view", "public.movie, \"x.y\".talent"]),
        ("constant", &["it reads no table"]),
        ("remote", &["it is a foreign table", "the foreign server far", "with a source of its own"]),
        ("numbers", &["it is a sequence", "take it out"]),
        ("movie_pkey", &["it is an index", "list its table: public.movie"]),
        ("pair", &["it is a composite type"]),
        ("mixed", &["no such table", "did you mean public.Mixed?"]),
        ("\"x.y\".talents", &["no such table", "did you mean \"x.y\".talent?"]),
    ];
    for (table, texts) in cases {
        let said = Running::start(&db.settings(&[table]), &Recorder::new()).error().await.to_string();
        for text in *texts {
            assert!(said.contains(text), "{table}: {said}");
        }
    }
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_renamed_goes_on_where_it_was() {
    let db = Database::create("renamed").await;
    db.run("create table t (id int primary key); insert into t values (0)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    running.stop().await;
    db.run("insert into t values (2)").await;
    let (before, after) = (db.name.clone(), format!("{}_new", db.name));
    drop(db);
    let admin = connect(server_url().as_str()).await;
    crate::support::until("nobody is in it", async || {
        admin.batch_execute(&format!("alter database {before} rename to {after}")).await.is_ok()
    })
    .await;
    // The old name is nobody's now.
    let said = Running::start(&settings, &recorder).error().await.to_string();
    assert!(said.contains("does not exist") && said.contains("if it was renamed"), "{said}");
    let mut url = server_url();
    url.set_path(&after);
    postgres_mut(&mut settings).url = url.as_str().into();
    let db = Database { name: after.clone(), url: url.to_string(), sql: connect(url.as_str()).await };
    for expected in [2, 3] {
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (3) on conflict do nothing").await;
        let records: Vec<Record> = recorder.wait(3).await;
        assert_eq!(records[expected - 1].get("/after/id"), json!(expected));
        assert_eq!(records[expected - 1].get("/source/db"), json!(after));
        running.stop().await;
    }
    assert_eq!(recorder.checkpoint_json().expect("a checkpoint")["database"], json!(after));
    assert_eq!(recorder.len(), 3, "something came twice");
    db.remove().await;
}
