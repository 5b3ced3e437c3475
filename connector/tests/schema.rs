//! Tables that change while they are captured: their columns, names, identities, partitions, and the publication.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use crate::support::{Database, Record, Recorder, Running, Witness, connect, postgres, postgres_mut, until};

/// The rows that a consumer holds who applied all events.
fn applied(records: &[Record]) -> BTreeMap<i64, Json> {
    let mut rows = BTreeMap::new();
    for record in records.iter().filter(|r| r.value.is_some()) {
        let id = |image: &str| record.get(&format!("/{image}/id")).as_i64();
        match record.op() {
            "d" => drop(rows.remove(&id("before").expect("an id"))),
            _ => drop(rows.insert(id("after").expect("an id"), record.get("/after"))),
        }
    }
    rows
}

async fn selected(db: &Database) -> BTreeMap<i64, Json> {
    let rows = db.sql.query("select id::int8, to_jsonb(t)::text from t", &[]).await.expect("rows");
    rows.iter().map(|row| (row.get(0), serde_json::from_str(row.get(1)).expect("JSON"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_table_within_a_burst_of_writes() {
    let db = Database::create("burst").await;
    db.run("create table t (id int, a text, n int, code int not null default 0, primary key (id)) partition by range (id); \
            create table t0 partition of t for values from (0) to (100000)")
        .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    let writers: Vec<_> = (0..2)
        .map(|writer| {
            let url = db.url.clone();
            tokio::spawn(async move {
                let sql = connect(&url).await;
                for i in 0..1_500 {
                    // Columns come and go, so each statement names what is always there.
                    let id = i * 2 + writer;
                    let write = match i % 5 {
                        4 => format!("delete from t where id = {}", id - 4),
                        3 => format!("update t set code = code + 1 where id = {}", id - 2),
                        _ => format!("insert into t (id) values ({id})"),
                    };
                    sql.batch_execute(&write).await.unwrap_or_else(|e| panic!("{write}: {e:?}"));
                }
            })
        })
        .collect();
    for ddl in [
        "alter table t add b text default 'b'",
        "alter table t0 replica identity full",
        "alter table t rename a to a2",
        "alter table t alter n type bigint",
        "create table t1 partition of t for values from (100000) to (200000)",
        "insert into t (id) values (100001)",
        "alter table t drop a2",
        "alter table t add a json",
        "alter table t alter n type text using n::text",
        "create unique index on t0 (id, code); alter table t0 replica identity default",
        "alter table t rename b to c",
        "insert into t (id, a) values (100002, '{\"x\": 1}')",
        "alter table t detach partition t1",
        "alter table t attach partition t1 for values from (100000) to (200000)",
    ] {
        let seen = recorder.len();
        db.run(ddl).await;
        recorder.wait(seen + 20).await;
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    // Rows of before a column came do not show it until they are written again.
    db.run("update t set code = -1; insert into t (id) values (99999)").await;
    until("the last row arrives", async || applied(&recorder.records()).contains_key(&99_999)).await;
    running.stop().await;
    let (applied, mut selected) = (applied(&recorder.records()), selected(&db).await);
    // A json column travels as its text.
    selected
        .values_mut()
        .filter(|row| !row["a"].is_null())
        .for_each(|row| row["a"] = json!(row["a"].to_string().replace(':', ": ")));
    assert_eq!(applied.len(), selected.len());
    for (id, row) in &selected {
        assert_eq!(applied.get(id), Some(row), "row {id}");
    }
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_captured_table_that_is_renamed_stops_the_source() {
    let db = Database::create("renamed").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    // Nothing was read of the table before it was renamed.
    db.run("alter table t rename to films; insert into films values (2)").await;
    running.wait_down("table public.t: it was renamed to public.films").await;
    running.wait_down("list public.films").await;
    running.stop().await;
    // As it says: nothing was skipped.
    crate::support::postgres_mut(&mut settings).tables = vec!["films".into()];
    let running = Running::streaming(&settings, &recorder).await;
    let records = recorder.wait(1).await;
    running.stop().await;
    assert_eq!(records[0].topic, format!("{}.public.films", db.name));
    assert_eq!(records[0].get("/after/id"), 2);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_created_anew_is_published_again() {
    let db = Database::create("anew").await;
    db.run("create table t (id int primary key, old text)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1, 'x'); drop table t; create table t (id int primary key, n int)").await;
    let publication = &postgres(&settings).publication;
    let published = format!("select count(*)::text from pg_publication_tables where pubname = '{publication}'");
    until("it is published", async || db.text(&published).await.as_deref() == Some("1")).await;
    db.run("insert into t values (2, 3)").await;
    let records = recorder.wait(2).await;
    assert_eq!(records[1].get("/after"), json!({"id": 2, "n": 3}));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_column_lists_of_a_publication_are_respected() {
    let db = Database::create("filters").await;
    db.run("create table t (id int primary key, secret text, n int)").await;
    if db.version().await < 15 {
        // Row filters and column lists came with 15.
        return db.remove().await;
    }
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let publication = &postgres(&settings).publication;
    db.run(&format!("create publication {publication} for table t (id, n) where (id > 10)")).await;
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1, 'x', 1), (11, 'y', 2); update t set id = 12 where id = 1; delete from t where id = 11").await;
    let records = recorder.wait(4).await;
    running.stop().await;
    let ops: Vec<&str> = records.iter().map(Record::op).collect();
    assert_eq!(ops, ["c", "c", "d", "tombstone"]);
    assert_eq!(records[0].get("/after"), json!({"id": 11, "n": 2}));
    assert_eq!(records[1].get("/after"), json!({"id": 12, "n": 1}));
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_columns_arrive_where_they_are_published() {
    let db = Database::create("generated").await;
    db.run("create table t (id int primary key, twice int generated always as (id * 2) stored)").await;
    let published = db.version().await >= 18;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    if published {
        let publication = &postgres(&settings).publication;
        let statement =
            format!("create publication {publication} for table t with (publish_generated_columns = stored)");
        db.run(&statement).await;
    }
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (4)").await;
    let records = recorder.wait(1).await;
    running.stop().await;
    let expected = if published { json!({"id": 4, "twice": 8}) } else { json!({"id": 4}) };
    assert_eq!(records[0].get("/after"), expected);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_key_stands_in_for_a_primary_key() {
    let db = Database::create("declared").await;
    db.run("create table rating (movie int, person int, stars int)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["rating"]));
    postgres_mut(&mut settings).keys = vec![("public".into(), "rating".into(), vec!["person".into(), "movie".into()])];
    let error = Running::start(&settings, &recorder).error().await.to_string();
    assert!(error.contains("REPLICA IDENTITY FULL"), "{error}");
    db.run("alter table rating replica identity full").await;
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into rating values (1, 2, 3); update rating set stars = 4; update rating set movie = 5; delete from rating")
        .await;
    let records = recorder.wait(7).await;
    let keys: Vec<Option<Json>> = records.iter().map(|r| r.key.clone()).collect();
    let [old, new] = [1, 5].map(|movie| Some(json!({"person": 2, "movie": movie})));
    assert_eq!(keys, [&old, &old, &old, &old, &new, &new, &new].map(Clone::clone));
    running.stop().await;
    db.run("alter table rating add primary key (movie, person, stars); alter table rating replica identity default")
        .await;
    let error = Running::start(&settings, &recorder).error().await.to_string();
    assert!(error.contains("lacks the column stars"), "{error}");
    let mut wrong = settings.clone();
    postgres_mut(&mut wrong).keys[0].2.push("starz".into());
    let error = Running::start(&wrong, &recorder).error().await.to_string();
    assert!(error.contains("starz") && error.contains("stars"), "{error}");
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_column_that_was_renamed_while_nobody_read_is_still_the_key() {
    let db = Database::create("key_renamed").await;
    db.run("create table t (id int primary key, x text); alter table t replica identity full").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    Running::streaming(&settings, &recorder).await.stop().await;
    db.run("insert into t values (1, 'a'); alter table t rename column id to number; insert into t values (2, 'b')")
        .await;
    let running = Running::streaming(&settings, &recorder).await;
    let records = recorder.wait(2).await;
    assert_eq!(records[0].key, Some(json!({"id": 1})));
    assert_eq!(records[1].key, Some(json!({"number": 2})));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_logs_less_than_its_root_is_refused() {
    let db = Database::create("odd_partition").await;
    db.run(
        "create table t (id int primary key, body text) partition by range (id); \
         create table low partition of t for values from (0) to (10); alter table t replica identity full",
    )
    .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let error = Running::start(&settings, &recorder).error().await.to_string();
    assert!(error.contains("ALTER TABLE public.low REPLICA IDENTITY FULL"), "{error}");
    db.run("alter table low replica identity full; alter table t alter body set storage external").await;
    let running = Running::streaming(&settings, &recorder).await;
    // A partition that comes later does not inherit the identity: what its log lacks is listed, never taken for null.
    db.run(
        "create table high partition of t for values from (10) to (20); alter table high alter body set storage external; \
         insert into t values (1, repeat('a', 5000)), (11, repeat('b', 5000)); update t set id = id + 1",
    )
    .await;
    let records = recorder.wait(8).await;
    let moved: Vec<_> = records.iter().filter(|r| r.op() == "c").skip(2).collect();
    assert_eq!(moved[0].get("/after/body"), "a".repeat(5000));
    assert_eq!((moved[1].get("/after/body"), moved[1].get("/unchanged")), (serde_json::Value::Null, json!(["body"])));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_columns_are_those_of_the_publication() {
    let db = Database::create("column_list").await;
    let version = db.version().await;
    if version < 15 {
        // Publications had no lists of columns.
        return db.remove().await;
    }
    db.run("create table t (id int primary key, a text, secret text, twice int generated always as (id * 2) stored); create table hollow ()")
        .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let generated = if version < 18 { "" } else { ", twice" };
    let publication = &postgres(&settings).publication;
    db.run(&format!(
        "create publication {publication} for table t (id, a{generated}), hollow with (publish_via_partition_root = true)"
    ))
    .await;
    let columns = async || {
        let refuses = Witness::new(|table| {
            let names: Vec<&str> = table.schema.columns.iter().map(|c| &*c.name).collect();
            Err(names.join(", "))
        });
        let refused = tributary_connector::postgres::prepare(&settings, &recorder, &refuses);
        refused.await.expect_err("refused").to_string()
    };
    assert_eq!(columns().await, format!("id, a{generated}"));
    // Those that it will have, of a table that it lacks.
    db.run(&format!("alter publication {publication} set table hollow")).await;
    assert_eq!(columns().await, "id, a, secret");
    if version >= 18 {
        db.run(&format!("alter publication {publication} set (publish_generated_columns = stored)")).await;
        assert_eq!(columns().await, "id, a, secret, twice");
    }
    db.run(&format!("alter publication {publication} set table t (id, a{generated}), hollow")).await;
    let slots =
        db.text(&format!("select count(*)::text from pg_replication_slots where database = '{}'", db.name)).await;
    assert_eq!(slots.as_deref(), Some("0"), "nothing is made for tables that are refused");
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (3, 'a', 'b')").await;
    let after = recorder.wait(1).await[0].get("/after");
    let expected = if version < 18 { json!({"id": 3, "a": "a"}) } else { json!({"id": 3, "a": "a", "twice": 6}) };
    assert_eq!(after, expected);
    running.stop().await;
    db.remove().await;
}
