//! Tables, keys and publications that change behind the connector's back, and settings of the server that would hide rows.

use serde_json::json;
use tributary_connector::ConnectorError;
use tributary_connector::postgres::KeyPager;

use crate::support::{Database, Record, Recorder, Running, postgres, postgres_mut, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_stored_out_of_line_is_the_key_of_every_event() {
    let db = Database::create("toasted_key").await;
    db.run("create table t (a text, b int, n int, primary key (a, b)); alter table t alter a set storage external")
        .await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    // Longer than an index takes, were it not compressed there.
    db.run("insert into t values (repeat('x', 2600), 1, 1); update t set n = 2; update t set b = 3; delete from t")
        .await;
    let records = recorder.wait(7).await;
    running.stop().await;
    let long = "x".repeat(2600);
    let ops: Vec<&str> = records.iter().map(Record::op).collect();
    assert_eq!(ops, ["c", "u", "d", "tombstone", "c", "d", "tombstone"]);
    for (record, b) in records.iter().zip([1, 1, 1, 1, 3, 3, 3]) {
        assert_eq!(record.key, Some(json!({"a": long, "b": b})));
    }
    assert_eq!(records[1].get("/after"), json!({"a": long, "b": 1, "n": 2}));
    assert_eq!(records[4].get("/after"), json!({"a": long, "b": 3, "n": 2}));
    db.remove().await;
}

/// The server encodes all tables of the publication, and has no binary form for some types.
#[tokio::test(flavor = "multi_thread")]
async fn another_table_that_has_no_binary_form_makes_the_stream_one_of_text() {
    let db = Database::create("no_send").await;
    db.run("create table t (id int primary key); create table other (id int primary key, acl aclitem[])").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let publication = &postgres(&settings).publication;
    db.run(&format!("create publication {publication} for all tables with (publish_via_partition_root = true)")).await;
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1); insert into other values (1, array[makeaclitem(10, 10, 'SELECT', false)]); insert into t values (2)")
        .await;
    let ids: Vec<_> = recorder.wait(2).await.iter().map(|r| r.get("/after/id")).collect();
    assert_eq!(ids, [json!(1), json!(2)]);
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_renamed_while_nobody_read_is_followed_from_its_earlier_name() {
    let db = Database::create("earlier_name").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    until("the table is known", async || recorder.known_tables().is_some()).await;
    running.stop().await;
    db.run("insert into t values (2); alter table t rename to films; insert into films values (3)").await;
    let said = Running::start(&settings, &recorder).error().await.to_string();
    assert!(said.contains("it was renamed to public.films"), "{said}");
    postgres_mut(&mut settings).tables = vec!["films".into()];
    let running = Running::streaming(&settings, &recorder).await;
    let records = recorder.wait(3).await;
    let rows: Vec<_> = records.iter().map(|r| (r.topic.rsplit('.').next().unwrap_or(""), r.get("/after/id"))).collect();
    assert_eq!(rows, [("t", json!(1)), ("films", json!(2)), ("films", json!(3))]);
    // A name that comes while it runs stops the source, whatever the first change is, until it is mended.
    db.run("alter table films rename to pictures; truncate pictures").await;
    running.wait_down("public.pictures").await;
    db.run("alter table pictures rename to films").await;
    running.wait_up().await;
    assert_eq!(recorder.wait(4).await[3].op(), "t");
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_whose_changes_come_under_another_name_are_refused() {
    let db = Database::create("other_name").await;
    db.run(
        "create table t (id int primary key) partition by list (id); create table t1 partition of t default; \
         create table parent (id int primary key); create table heir (primary key (id)) inherits (parent)",
    )
    .await;
    let refused = async |tables: &[&str], text: &str| {
        let said = Running::start(&db.settings(tables), &Recorder::new()).error().await.to_string();
        assert!(said.contains(text), "{said}");
    };
    refused(&["t", "t1"], "table public.t1: the publication").await;
    refused(&["parent"], "list public.heir under tables too").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["parent", "heir"]));
    postgres_mut(&mut settings).publication.push('2');
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into parent values (1); insert into heir values (2)").await;
    let records = recorder.wait(2).await;
    assert!(records[0].topic.ends_with(".parent") && records[1].topic.ends_with(".heir"));
    running.stop().await;
    db.remove().await;
}

/// Older servers read the log with the catalog of its time, and find no publication there.
#[tokio::test(flavor = "multi_thread")]
async fn a_publication_that_was_made_anew_is_told_of() {
    let db = Database::create("made_anew").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    running.stop().await;
    db.run(&format!("drop publication {}; insert into t values (2)", postgres(&settings).publication)).await;
    if db.version().await < 18 {
        let error = Running::start(&settings, &recorder).error().await;
        let said = error.to_string();
        assert!(matches!(error, ConnectorError::PositionLost { .. }), "{said}");
        assert!(said.contains("did not exist at this point of the log") && said.contains("reindex"), "{said}");
    } else {
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (3)").await;
        assert_eq!(recorder.wait(2).await[1].get("/after/id"), json!(3));
        running.stop().await;
    }
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_primary_key_of_a_table_with_whole_images_is_noticed() {
    let db = Database::create("moved_key").await;
    db.run("create table t (id int primary key, code int not null); alter table t replica identity full").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1, 10)").await;
    assert_eq!(recorder.wait(1).await[0].key, Some(json!({"id": 1})));
    db.run("alter table t drop constraint t_pkey, add primary key (code)").await;
    let mut id = 1;
    until("events have the new key", async || {
        id += 1;
        db.run(&format!("insert into t values ({id}, {id}0)")).await;
        recorder.wait(id).await[id - 1].key == Some(json!({"code": id * 10}))
    })
    .await;
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_taken_away_leaves_inserts_their_keys() {
    let db = Database::create("no_identity").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("alter table t replica identity nothing; insert into t values (1)").await;
    assert_eq!(recorder.wait(1).await[0].key, Some(json!({"id": 1})));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_policies_of_the_role_do_not_hide_anything() {
    let db = Database::create("limits").await;
    db.run(&format!(
        "create table t (id int primary key, mine bool); alter table t enable row level security; \
         create policy own on t using (mine); insert into t values (1, true), (2, false); \
         create role {0} login replication password 'x'; grant select on t to {0}; grant create on database {0} to {0}; \
         alter role {0} set lock_timeout = '100ms'; alter table t owner to {0}",
        db.name
    ))
    .await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    let mut url = url::Url::parse(&db.url).expect("a URL");
    url.set_username(&db.name).expect("a user");
    url.set_password(Some("x")).expect("a password");
    postgres_mut(&mut settings).url = url.as_str().into();
    // A slot is made when all transactions of its time have ended: that may take longer than a lock should.
    let other = crate::support::connect(&db.url).await;
    other.batch_execute("begin; create table busy ()").await.expect("a transaction");
    let running = Running::start(&settings, &recorder);
    let waiting = "select count(*)::text from pg_stat_activity where query ilike '%create%replication_slot%' \
        and wait_event_type = 'Lock' and state_change < clock_timestamp() - interval '300 ms'";
    until("it waits", async || db.text(waiting).await.as_deref() == Some("1")).await;
    other.batch_execute("commit").await.expect("committed");
    running.wait_up().await;
    running.stop().await;
    db.run("alter table t force row level security").await;
    let mut pager = KeyPager::open(postgres(&settings), "t", &[]).await.expect("opens");
    let said = pager.page(None, 10).await.expect_err("rows are hidden").to_string();
    assert!(said.contains("row-level security") && said.contains("BYPASSRLS"), "{said}");
    db.run(&format!("alter table t owner to postgres; drop owned by {0}", db.name)).await;
    db.remove().await;
}

/// One whose session was ended while another waited goes on as a standby, and has its turn again.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_of_two_connectors_comes_back_as_a_standby() {
    let db = Database::create("comes_back").await;
    db.run("create table t (id int primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let first = Running::streaming(&settings, &recorder).await;
    let second = Running::start(&settings, &recorder);
    second.wait_down("standby").await;
    let end = format!(
        "select pg_terminate_backend(active_pid)::text from pg_replication_slots where slot_name = '{}' and active",
        postgres(&settings).slot
    );
    until("the second has its turn", async || {
        if !second.health.is_up() {
            db.text(&end).await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        second.health.is_up()
    })
    .await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    first.wait_down("standby").await;
    second.stop().await;
    first.wait_up().await;
    db.run("insert into t values (2)").await;
    let ids: Vec<_> = recorder.wait(2).await.iter().map(|r| r.get("/after/id")).collect();
    assert_eq!(ids, [json!(1), json!(2)]);
    first.stop().await;
    db.remove().await;
}

/// As tools for online changes of schemas do: another table takes the name, and the old one goes on under another for a while.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_swapped_for_another_is_captured_in_its_place() {
    let db = Database::create("swapped").await;
    db.run("create table t (id int primary key); create table shadow (id int primary key, n int)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    db.run("begin; insert into t values (2); alter table t rename to t_old; alter table shadow rename to t; commit")
        .await;
    let published = "select count(*)::text from pg_publication_tables where tablename = 't'";
    until("the new table is published", async || db.text(published).await.as_deref() == Some("1")).await;
    db.run("insert into t_old values (3); insert into t values (4, 4); truncate t_old").await;
    let records = recorder.wait(3).await;
    let rows: Vec<_> = records.iter().map(|r| (r.op(), r.get("/after"))).collect();
    assert_eq!(rows, [("c", json!({"id": 1})), ("c", json!({"id": 2})), ("c", json!({"id": 4, "n": 4}))]);
    assert!(records.iter().all(|record| record.topic.ends_with(".public.t")));
    running.stop().await;
    db.remove().await;
}
