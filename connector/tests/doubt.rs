//! What depends on tables: rows that change without events, and places of the log that carry too little.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::support::{Database, Record, Recorder, Running, Witness, postgres, until};

/// Waits until what is known of the tables has been kept.
async fn wait_known(recorder: &Recorder) {
    until("the tables are known", async || recorder.known_tables().is_some()).await;
}

/// Runs statements while the connector runs, and again while it does not: the same is doubted, of the table `t`.
async fn doubted(test: &str, before: &str, statements: &[(&str, &str)]) {
    let db = Database::create(test).await;
    db.run(before).await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let witness = Witness::new(|_| Ok(()));
    let mut running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    wait_known(&recorder).await;
    assert_eq!(witness.doubts(), []);
    for (n, (statement, why)) in statements.iter().enumerate() {
        let away = n % 2 == 1;
        if away {
            running.stop().await;
            db.run(statement).await;
            running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
        } else {
            db.run(statement).await;
        }
        let doubts = witness.wait(n + 1).await;
        assert_eq!(doubts.len(), n + 1, "{statement}: {doubts:?}");
        assert!(doubts[n].starts_with("public.t: ") && doubts[n].contains(why), "{statement}: {}", doubts[n]);
    }
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_statement_changes_without_events_are_doubted() {
    doubted(
        "rewrites",
        "create type mood as enum ('sad', 'ok'); create table t (id int primary key, n int, name text, m mood[]); \
         insert into t select i, i, i, '{sad}' from generate_series(1, 100) i",
        &[
            ("alter table t add column added text default 'x'", "added that has a value"),
            ("alter table t alter n type bigint using n * 2", "rewrote"),
            ("alter table t add column at timestamptz default clock_timestamp()", "rewrote"),
            ("alter type mood rename value 'sad' to 'glum'", "label"),
            ("alter table t drop column name", "dropped"),
            ("begin; alter table t rename n to x; alter table t rename added to n; alter table t rename x to added; commit", "renamed"),
            ("alter table t rename added to other", "renamed"),
            ("drop table t; create table t (id int primary key)", "another table"),
            ("begin; create table u (like t including all); alter table t rename to v; alter table u rename to t; commit", "another table"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_come_with_rows_or_go_are_doubted() {
    doubted(
        "parts",
        "create table t (id int, p int, primary key (id, p)) partition by list (p); \
         create table t1 partition of t for values in (1); create table t2 partition of t for values in (2); \
         insert into t values (1, 1), (2, 2); \
         create table t3 (id int, p int, primary key (id, p)); insert into t3 values (3, 3); \
         create table m (id int, p int, primary key (id, p)) partition by list (id); \
         create table m4 partition of m for values in (4); insert into m values (4, 4)",
        &[
            ("alter table t attach partition t3 for values in (3)", "attached"),
            ("alter table t attach partition m for values in (4)", "attached"),
            (
                "create table t5 (id int, p int, primary key (id, p)); insert into t5 values (5, 5); \
                 alter table t attach partition t5 for values in (5)",
                "attached",
            ),
            ("truncate t2", "truncated"),
            ("alter table t detach partition t1", "detached"),
            (
                "begin; alter table t detach partition t5; update t5 set id = 6; \
                 alter table t attach partition t5 for values in (5); commit",
                "attached again",
            ),
            ("drop table t3", "dropped"),
        ],
    )
    .await;
}

/// Under a publication that does not name the table, the server lets it be unlogged; of a table of columns of fixed length nothing
/// but its file shows that.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_unlogged_for_a_while_is_doubted() {
    let db = Database::create("unlogged_for_a_while").await;
    db.run("create table t (id int primary key, n int); insert into t select i, i from generate_series(1, 100) i")
        .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    db.run(&format!("create publication {} for all tables", postgres(&settings).publication)).await;
    let witness = Witness::new(|_| Ok(()));
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    wait_known(&recorder).await;
    let unlogged = "begin; alter table t set unlogged; update t set n = n + 1; alter table t set logged; commit";
    db.run(unlogged).await;
    assert!(witness.wait(1).await[0].contains("unlogged"));
    running.stop().await;
    db.run(unlogged).await;
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    assert!(witness.wait(2).await[1].contains("unlogged"));
    running.stop().await;
    // Where the publication names the table, that is refused, and a move is no doubt.
    db.run(&format!("drop publication {0}; create publication {0} for table t", postgres(&settings).publication)).await;
    let refused = db.sql.batch_execute("alter table t set unlogged").await.expect_err("refused");
    let said = refused.as_db_error().map_or("", |error| error.message()).to_owned();
    assert!(said.contains("unlogged"), "{said}");
    db.remove().await;
}

/// What happens every day is not doubted.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_no_row_is_not_doubted() {
    let db = Database::create("harmless").await;
    db.run(
        "create table t (id int primary key, n int, name text default 'x'); \
         insert into t select i, i from generate_series(1, 100) i; \
         create table p (id int, d int, primary key (id, d)) partition by range (d); \
         create table p1 partition of p for values from (0) to (10); create table p3 (like p including all)",
    )
    .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t", "p"]));
    let witness = Witness::new(|_| Ok(()));
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    wait_known(&recorder).await;
    let known = recorder.known_tables();
    // What moves a table and what alters its columns is told apart as long as they are looked at in between.
    db.run("vacuum full t").await;
    db.run("cluster t using t_pkey").await;
    until("the file is known", async || recorder.known_tables() != known).await;
    let known = recorder.known_tables();
    for statement in [
        "alter table t add column plain int",
        "vacuum full t",
        "analyze t",
        "alter table t alter name set default 'y'",
        "create index on t (n)",
        "create table p2 partition of p for values from (10) to (20)",
        "insert into p values (1, 11)",
        "alter table p attach partition p3 for values from (20) to (30)",
        "reindex table t",
        "alter table t alter n set not null",
    ] {
        db.run(statement).await;
    }
    let seen = async || {
        recorder.known_tables().is_some_and(|now| {
            let parts = |known: &serde_json::Value| known["public.p"]["parts"].as_object().map(|parts| parts.len());
            parts(&now) == Some(3) && now["public.t"]["newest"] == json!(4) && Some(now) != known
        })
    };
    until("the tables were looked at again", seen).await;
    db.run("insert into t (id, n) values (1000, 1)").await;
    recorder.wait(2).await;
    running.stop().await;
    // Looked at once more, at the start.
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    db.run("insert into t (id, n) values (1001, 1)").await;
    recorder.wait(3).await;
    running.stop().await;
    assert_eq!(witness.doubts(), []);
    db.remove().await;
}

/// Who reads rows does so from here on, so what changes them is noticed from here on, though nothing was streamed.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_rows_before_the_first_stream_is_doubted() {
    let db = Database::create("prepared_only").await;
    db.run("create table t (id int primary key, n int); insert into t values (1, 1)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let witness = Witness::new(|_| Ok(()));
    tributary_connector::postgres::prepare(&settings, &recorder, &witness).await.expect("prepared");
    assert_eq!(recorder.checkpoint_json(), None);
    db.run("alter table t alter n type bigint using n * 2").await;
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    let doubts = witness.wait(1).await;
    assert!(doubts[0].contains("rewrote"), "{doubts:?}");
    // Nothing that is captured changed, and the place is noted all the same.
    until("a checkpoint", async || recorder.checkpoint_json().is_some()).await;
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_reenters_the_publication_is_doubted() {
    let db = Database::create("reenters").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let witness = Witness::new(|_| Ok(()));
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    wait_known(&recorder).await;
    let publication = &postgres(&settings).publication;
    db.run(&format!("alter publication {publication} drop table t; insert into t values (1)")).await;
    let doubts = witness.wait(1).await;
    assert!(doubts[0].contains("publication"), "{doubts:?}");
    db.run("insert into t values (2)").await;
    assert_eq!(recorder.wait(1).await[0].get("/after/id"), json!(2));
    running.stop().await;
    db.remove().await;
}

/// A column that is needed goes: nothing is published behind that, until the table has it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_needed_and_goes_stops_the_source_before_its_changes() {
    let db = Database::create("column_goes").await;
    db.run("create table t (id int primary key, n int); alter table t replica identity full").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let witness = Witness::of_columns(&["id", "n"]);
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    wait_known(&recorder).await;
    db.run("insert into t values (1, 1)").await;
    recorder.wait(1).await;
    db.run("alter table t rename n to m; insert into t values (2, 2)").await;
    running.wait_down("n lacks").await;
    assert_eq!(recorder.len(), 1);
    db.run("alter table t rename m to n; insert into t values (3, 3)").await;
    running.wait_up().await;
    let records = recorder.wait(3).await;
    let after: Vec<_> = records.iter().map(|r| r.get("/after")).collect();
    assert_eq!(after, [json!({"id": 1, "n": 1}), json!({"id": 2, "m": 2}), json!({"id": 3, "n": 3})]);
    let doubts = witness.doubts();
    assert!(!doubts.is_empty(), "the stretch with another name is doubted");
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_gets_another_type_stops_the_source() {
    let db = Database::create("retyped").await;
    db.run("create table t (id int primary key, n int); alter table t replica identity full").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let witness = Witness::of_columns(&["id", "n"]);
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    db.run("insert into t values (1, 1)").await;
    recorder.wait(1).await;
    db.run("alter table t alter n type numeric; update t set n = 7.0").await;
    running.wait_down("n is no id").await;
    assert_eq!(recorder.len(), 1);
    db.run("alter table t alter n type int").await;
    running.wait_up().await;
    assert_eq!(recorder.wait(2).await[1].op(), "u");
    assert!(!witness.doubts().is_empty());
    running.stop().await;
    db.remove().await;
}

/// Old rows that the log does not have: the stretch between two ALTERs is doubted, also if nobody looked in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_identity_that_was_narrowed_for_a_while_is_doubted() {
    let db = Database::create("narrowed").await;
    db.run(
        "create table t (id int primary key, n int); alter table t replica identity full; insert into t values (1, 1)",
    )
    .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let witness = Witness::of_columns(&["n"]);
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    wait_known(&recorder).await;
    // While it runs and nobody mends it.
    db.run("alter table t replica identity default; update t set n = 2").await;
    running.wait_down("n lacks before").await;
    assert_eq!(recorder.len(), 0);
    db.run("alter table t replica identity full; update t set n = 3").await;
    running.wait_up().await;
    let records = recorder.wait(2).await;
    assert_eq!((records[0].get("/before"), records[1].get("/before/n")), (json!(null), json!(2)));
    let doubts = witness.doubts().len();
    assert!(doubts > 0);
    running.stop().await;
    // While nobody reads, and mended before anybody does.
    db.run("alter table t replica identity default; delete from t; alter table t replica identity full").await;
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    let ops: Vec<String> = recorder.wait(4).await[2..].iter().map(|r| Record::op(r).to_owned()).collect();
    assert_eq!(ops, ["d", "tombstone"]);
    assert!(witness.doubts().len() > doubts, "{:?}", witness.doubts());
    running.stop().await;
    db.remove().await;
}

/// What no relation message tells: rows and operations that the publication leaves out.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_is_narrowed_stops_the_source_until_it_is_mended() {
    let db = Database::create("narrowed_publication").await;
    db.run("create table t (id int primary key, n int)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let publication = postgres(&settings).publication.clone();
    let witness = Witness::new(|carried| match (&carried.row_filter, carried.left_out.first()) {
        (Some(filter), _) => Err(format!("filtered by {filter}")),
        (_, Some(operation)) => Err(format!("no {operation}")),
        _ => Ok(()),
    });
    let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
    wait_known(&recorder).await;
    let mut doubts = 0;
    let mut narrowings =
        vec![("set (publish = 'insert')", "set (publish = 'insert, update, delete, truncate')", "no update")];
    if db.version().await >= 15 {
        narrowings.push(("set table t where (id > 100)", "set table t", "filtered by"));
    }
    for (narrow, mend, text) in narrowings {
        db.run(&format!("alter publication {publication} {narrow}")).await;
        running.wait_down(text).await;
        db.run(&format!("alter publication {publication} {mend}")).await;
        running.wait_up().await;
        let told = witness.wait(doubts + 1).await;
        assert!(told[doubts].starts_with("public.t: "), "{told:?}");
        doubts = told.len();
    }
    running.stop().await;
    db.remove().await;
}

/// The number of statements does not grow with the number of tables.
#[tokio::test(flavor = "multi_thread")]
async fn many_tables_cost_as_many_statements_as_few() {
    let mut statements = Vec::new();
    for (n, tables) in [3, 300].into_iter().enumerate() {
        let db = Database::create(&format!("many{n}")).await;
        let names: Vec<String> = (0..tables).map(|i| format!("t{i}")).collect();
        let create = |name: &String| format!("create table {name} (id int primary key, n numeric(5, 2), name text)");
        db.run(&names.iter().map(create).collect::<Vec<_>>().join(";")).await;
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (recorder, settings) = (Recorder::new(), db.settings(&names));
        let running = Running::streaming(&settings, &recorder).await;
        wait_known(&recorder).await;
        running.stop().await;
        let others =
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
        until("its sessions are over", async || {
            db.sql.query_one(others, &[]).await.expect("a number").get::<_, i64>(0) == 0
        })
        .await;
        // Each statement is a transaction of its own.
        let committed = "select xact_commit from pg_stat_database where datname = current_database()";
        statements.push(db.sql.query_one(committed, &[]).await.expect("a number").get::<_, i64>(0));
        db.remove().await;
    }
    assert!((statements[1] - statements[0]).abs() < 20, "{statements:?}");
}

/// The first change of a table in a session costs no statement if the log has the table as the catalog had it when the session began.
#[tokio::test(flavor = "multi_thread")]
async fn first_changes_of_many_tables_cost_as_many_statements_as_those_of_few() {
    let mut statements = Vec::new();
    for (n, tables) in [3, 300].into_iter().enumerate() {
        let db = Database::create(&format!("first{n}")).await;
        let names: Vec<String> = (0..tables).map(|i| format!("t{i}")).collect();
        let create = |name: &String| {
            format!(
                "create table {name} (id int primary key, n numeric(5, 2), name text, m mood[]); \
                 alter table {name} replica identity full"
            )
        };
        db.run("create type mood as enum ('ok')").await;
        db.run(&names.iter().map(create).collect::<Vec<_>>().join(";")).await;
        let (recorder, settings) =
            (Recorder::new(), db.settings(&names.iter().map(String::as_str).collect::<Vec<_>>()));
        let running = Running::streaming(&settings, &recorder).await;
        wait_known(&recorder).await;
        let committed = async || {
            // Sessions tell what they did when they end.
            let own = "select xact_commit from pg_stat_database where datname = current_database()";
            db.sql.query_one(own, &[]).await.expect("a number").get::<_, i64>(0)
        };
        let insert = |name: &String| format!("insert into {name} values (1, 1.5, 'x', '{{ok}}')");
        db.run(&format!("begin; {}; commit", names.iter().map(insert).collect::<Vec<_>>().join("; "))).await;
        let records = recorder.wait(tables).await;
        assert!(records.iter().all(|record| record.get("/after/m") == json!(["ok"])));
        running.stop().await;
        let others =
            "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
        until("its sessions are over", async || {
            db.sql.query_one(others, &[]).await.expect("a number").get::<_, i64>(0) == 0
        })
        .await;
        statements.push(committed().await);
        db.remove().await;
    }
    assert!((statements[1] - statements[0]).abs() < 100, "{statements:?}");
}

/// More is needed of a table while it is captured: it is checked again at once, nothing is skipped while it falls short, and when
/// it does not any more its rows are doubted. Whether the table was looked at before makes no difference.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_needed_later_is_checked_then() {
    for was_seen in [true, false] {
        let db = Database::create("later").await;
        db.run("create table t (id int primary key, code int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let strict = Arc::new(AtomicBool::new(false));
        let needs = strict.clone();
        let witness = Witness::new(move |carried| match carried.schema.column("code") {
            Some(at) if needs.load(Ordering::Acquire) && !carried.is_logged_before(at) => {
                Err("code lacks before".into())
            }
            _ => Ok(()),
        });
        let running = Running::streaming_for(Arc::new(witness.clone()), &settings, &recorder).await;
        if was_seen {
            wait_known(&recorder).await;
        }
        strict.store(true, Ordering::Release);
        witness.need_more();
        running.wait_down("code lacks before").await;
        db.run("insert into t values (1, 1); update t set code = 2; update t set code = 3").await;
        assert_eq!(recorder.len(), 0, "nothing is captured meanwhile");
        db.run("alter table t replica identity full").await;
        running.wait_up().await;
        db.run("update t set code = 4").await;
        let records = recorder.wait(4).await;
        assert_eq!(records.iter().map(|r| r.get("/after/code")).collect::<Vec<_>>(), [1, 2, 3, 4].map(|n| json!(n)));
        assert!(witness.wait(1).await.iter().any(|doubt| doubt.starts_with("public.t: ")));
        running.stop().await;
        db.remove().await;
    }
}
