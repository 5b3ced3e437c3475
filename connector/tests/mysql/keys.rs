//! Pages of keys: each row once, in the order of the database, whatever the key is.

use std::time::Duration;

use tributary_connector::mysql::KeyPager;
use tributary_connector::{ConnectorSettings, MySqlSettings, RowPager, SourceSettings};
use tributary_event::Value;

use crate::server::{databases, films, product, products, run, session, start, start_with};
use crate::support::{Recorder, Running};

fn mysql(settings: &ConnectorSettings) -> &MySqlSettings {
    let SourceSettings::MySql(mysql) = &settings.source else { panic!("a MySQL source") };
    mysql
}

/// Types of keys, and rows of each: literals of which no two are alike to the key.
fn keys(is_mariadb: bool) -> Vec<(&'static str, Vec<String>)> {
    let quoted = |texts: &[&str]| texts.iter().map(|text| format!("'{text}'")).collect::<Vec<_>>();
    let plain = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let many = |form: &dyn Fn(u64) -> String| (0..40).map(form).collect::<Vec<_>>();
    let words =
        quoted(&["", "a", "B", "ä b", "Zz", "zzz", "straße", "it''s", "\\\\", "名前", "_", "%", "10", "9", "ø"]);
    let mut all = vec![
        ("int", plain(&["-2147483648", "-1", "0", "1", "7", "2147483647"])),
        ("int unsigned zerofill", many(&|n| (n * 101_010_101).to_string())),
        ("bigint unsigned", many(&|n| (u64::MAX - n * 400_000_000_000_000_000).to_string())),
        ("decimal(20,5)", many(&|n| format!("{}{}.{n:05}", if n % 2 == 0 { "-" } else { "" }, n * 7_919))),
        (
            "double",
            plain(&["-1.5e300", "-0.1", "0", "1e-300", "0.1", "0.30000000000000004", "1e22", "1.7976931348623157e308"]),
        ),
        ("float", plain(&["-3.4e38", "-0.1", "0", "1e-30", "0.1", "0.2", "16777217", "3.4e38"])),
        ("bit(20)", many(&|n| format!("b'{:b}'", n * 26_000))),
        ("year", plain(&["0000", "1901", "1970", "2000", "2024", "2069", "2155"])),
        ("date", quoted(&["0000-00-00", "0001-01-01", "2020-02-00", "2020-02-29", "9999-12-31"])),
        ("time(3)", quoted(&["-838:59:59", "-00:00:00.001", "00:00:00", "00:00:00.001", "12:34:56.789", "838:59:59"])),
        ("datetime(6)", many(&|n| format!("'20{n:02}-01-02 03:04:05.{n:06}'"))),
        ("timestamp(2)", many(&|n| format!("'2020-03-29 0{}:59:59.{n:02}'", n % 4))),
        ("varchar(60)", words.clone()),
        ("varchar(60) collate utf8mb4_bin", [words.clone(), quoted(&["A", "b", "Ä B", "zZ"])].concat()),
        ("varchar(60) collate utf8mb4_spanish2_ci", quoted(&["ch", "cz", "d", "ll", "lz", "m", "ñ", "n", "nz", "o"])),
        ("varchar(60) character set latin1 collate latin1_german2_ci", quoted(&["ad", "az", "ä", "b", "sz", "ß", "t"])),
        ("char(20) character set utf16", quoted(&["a", "ü", "z", "🎬", "中"])),
        ("varchar(20) character set sjis", quoted(&["日本", "ｱ", "a", "ソ"])),
        ("varchar(20) character set cp850", quoted(&["a", "é", "ß", "Ø"])),
        ("varchar(20) character set swe7", quoted(&["a", "Åsa", "Ö", "é", "z"])),
        ("varchar(700) character set latin1", many(&|n| format!("concat(repeat('x', 600), '{n:02}')"))),
        ("binary(16)", many(&|n| format!("x'{:032x}'", u128::from(n) << 122 | u128::from(n)))),
        ("varbinary(8)", plain(&["x''", "x'00'", "x'0000'", "x'00ff'", "x'27'", "x'5c'", "x'ff'", "x'ff00'"])),
        ("enum('z','a','it''s','m')", quoted(&["a", "z", "m", "it''s"])),
        ("set('z','a','m')", quoted(&["", "a", "z", "m", "a,z", "z,a,m"])),
    ];
    if is_mariadb {
        let uuid = |n: u64| format!("'{n:02x}0ebc99-{n:04x}-4ef8-bb6d-6bb9bd380a{n:02x}'");
        all.push(("uuid", many(&uuid)));
        all.push(("inet6", quoted(&["::", "::ffff:10.0.0.1", "2001:db8::ff00:42:8329", "fe80::1", "ff02::2"])));
        all.push(("inet4", quoted(&["0.0.0.0", "9.0.0.1", "10.0.0.1", "255.255.255.255"])));
    }
    all
}

/// All rows of a table, so many a page.
async fn paged(pager: &mut KeyPager, size: usize) -> Vec<Vec<Value>> {
    let (mut all, mut after) = (Vec::new(), None::<Vec<String>>);
    loop {
        let page = pager.page(after.as_deref(), size).await.expect("a page");
        let last = page.len() < size;
        after = page.last().map(|row| row.place.clone()).or(after);
        all.extend(page.into_iter().map(|row| row.values));
        if last {
            return all;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_visit_every_key_once_and_are_those_of_the_log() {
    for mut db in databases("keys").await {
        let all = keys(db.is_mariadb);
        let names: Vec<String> = (0..all.len()).map(|at| format!("t{at}")).collect();
        for (name, (kind, _)) in names.iter().zip(&all) {
            db.run(&format!("create table {name} (k {kind}, v int, primary key (k))")).await;
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (recorder, settings) = (Recorder::new(), db.settings(&names));
        let running = Running::streaming(&settings, &recorder).await;
        let mut count = 0;
        for (name, (_, rows)) in names.iter().zip(&all) {
            let rows: Vec<String> = rows.iter().enumerate().map(|(at, key)| format!("({key}, {at})")).collect();
            db.run(&format!("insert into {name} values {}", rows.join(", "))).await;
            count += rows.len();
        }
        let records = recorder.wait(count).await;
        for (name, (kind, rows)) in names.iter().zip(&all) {
            let table = tributary_event::TableName::new(db.name.as_str(), *name);
            let expected: Vec<i64> = db.rows(&format!("select v from {name} order by k")).await;
            let expected: Vec<Vec<Value>> = expected.into_iter().map(|v| vec![Value::Int(v)]).collect();
            assert_eq!(expected.len(), rows.len(), "{kind}");
            for size in [1, 3, 1_000] {
                let mut pager = KeyPager::open(mysql(&settings), table.clone(), &["v".into()]).await.expect("opens");
                assert_eq!(paged(&mut pager, size).await, expected, "{kind}, {size} a page");
                let last = pager.last(2).await.expect("the last rows");
                let last: Vec<_> = last.into_iter().map(|row| row.values).collect();
                assert_eq!(last, expected.iter().rev().take(2).cloned().collect::<Vec<_>>(), "{kind}");
            }
            let mut pager = RowPager::open(&settings.source, &table, &[], settings.decimals).await.expect("opens");
            let (rows, next) = pager.page(None).await.expect("rows");
            assert_eq!(next, None);
            let topic = format!("{}.{}.{name}", settings.name, db.name);
            for row in rows {
                let key: serde_json::Value = serde_json::from_slice(&row.key).expect("JSON");
                let listed: serde_json::Value = serde_json::from_slice(&row.row).expect("JSON");
                let same =
                    |record: &&crate::support::Record| record.topic == topic && record.key.as_ref() == Some(&key);
                let record = records.iter().find(same).unwrap_or_else(|| panic!("{kind}: the log has no key {key}"));
                assert_eq!(record.get("/after"), listed, "{kind}");
            }
        }
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_several_columns_are_paged_in_their_order() {
    for mut db in databases("composite").await {
        db.run(
            "create table t (name varchar(40) collate utf8mb4_general_ci, `odd ``name` int, size float, v int, \
             primary key (size, name, `odd ``name`))",
        )
        .await;
        for from in 0..4 {
            let row = |n: i32| {
                format!("('{}{}', {n}, {}, {n})", if n % 2 == 0 { "é" } else { "E" }, n % 3, f64::from(n % 5) / 10.0)
            };
            let rows: Vec<String> = (from * 100..(from + 1) * 100).map(row).collect();
            db.run(&format!("insert into t values {}", rows.join(", "))).await;
        }
        let expected: Vec<i64> = db.rows("select v from t order by size, name, `odd ``name`").await;
        let expected: Vec<Vec<Value>> = expected.into_iter().map(|v| vec![Value::Int(v)]).collect();
        let settings = db.settings(&["t"]);
        let table = settings.source.tables()[0].clone();
        for size in [1, 7, 399, 400] {
            let mut pager = KeyPager::open(mysql(&settings), table.clone(), &["v".into()]).await.expect("opens");
            assert_eq!(paged(&mut pager, size).await, expected, "{size} a page");
        }
        let mut keys = KeyPager::open(mysql(&settings), table, &[]).await.expect("opens");
        let row = keys.page(None, 1).await.expect("a page").remove(0);
        assert_eq!(row.values.len(), 3, "its key");
        assert!(keys.page(Some(&["1; drop table t".into(), "zz".into(), "x".into()]), 1).await.is_err());
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_named_in_its_own_sql() {
    for mut db in databases("pages_missing").await {
        db.run("create table movie (id int primary key, title text)").await;
        db.run("create table loose (x int)").await;
        let settings = db.settings(&["movie"]);
        let name = db.name.clone();
        let error = async |table: &str, columns: &[String]| {
            let table = tributary_event::TableName::new(name.as_str(), table);
            KeyPager::open(mysql(&settings), table, columns).await.err().expect("an error").to_string()
        };
        assert!(error("movies", &[]).await.contains(&format!("did you mean {name}.movie?")));
        assert!(error("movie", &["titel".into()]).await.contains("its columns are id, title"));
        assert!(error("loose", &[]).await.contains("no primary key"));
        // Who may see a table and not its rows is told how to be let.
        let user = format!("see_{}", &name[..name.len().min(24)]);
        db.run(&format!("create user {user} identified by 'x'")).await;
        db.run(&format!("grant insert on {name}.* to {user}")).await;
        let url = db.url.replace("mysql://root", &format!("mysql://{user}:x"));
        let theirs = ConnectorSettings::mysql("s", url.as_str().into(), [settings.source.tables()[0].clone()]);
        let mut pager = KeyPager::open(mysql(&theirs), settings.source.tables()[0].clone(), &[]).await.expect("opens");
        let refused = pager.page(None, 1).await.expect_err("refused").to_string();
        assert!(refused.contains(&format!("GRANT SELECT ON `{name}`.`movie` TO '{user}'@'%';")), "{refused}");
        db.run(&format!("drop user {user}")).await;
        db.remove().await;
    }
}

/// A row whose commit waits for a replica that never comes is in the log, and nobody sees it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_are_listed_when_everybody_sees_what_the_log_has() {
    for product in products() {
        let is_mariadb = product == self::product(true);
        let settings: &[(&str, &str)] = match is_mariadb {
            true => &[
                ("rpl-semi-sync-master-wait-point", "AFTER_SYNC"),
                ("rpl-semi-sync-master-timeout", "3600000"),
                ("rpl-semi-sync-master-wait-no-slave", "ON"),
            ],
            false => &[],
        };
        let (server, mut sql) = start(product, settings).await;
        let enabled = if is_mariadb { "rpl_semi_sync_master_enabled" } else { "rpl_semi_sync_source_enabled" };
        if !is_mariadb {
            run(&mut sql, "install plugin rpl_semi_sync_source soname 'semisync_source.so'").await;
            run(&mut sql, "set global rpl_semi_sync_source_timeout = 3600000").await;
        }
        run(&mut sql, "create table t (id int primary key)").await;
        run(&mut sql, "insert into t values (1)").await;
        let settings = films(&server.server_url(), &["t"]);
        let mut pager =
            KeyPager::open(mysql(&settings), settings.source.tables()[0].clone(), &[]).await.expect("opens");
        pager.catch_up().await.expect("nothing is under way");
        run(&mut sql, &format!("set global {enabled} = on")).await;
        let mut other = session(&server.url("films")).await;
        let waits = tokio::spawn(async move { run(&mut other, "insert into t values (2)").await });
        let ids = async |pager: &mut KeyPager| paged(pager, 10).await;
        let seen = [vec![Value::Int(1)], vec![Value::Int(2)]];
        crate::support::until("it is being committed", async || {
            let waiting =
                "select count(*) from information_schema.processlist where state like 'Waiting for semi-sync%'";
            use mysql_async::prelude::Queryable as _;
            sql.query_first::<i64, _>(waiting).await.expect("an answer") == Some(1)
        })
        .await;
        assert_eq!(ids(&mut pager).await, seen[..1], "{product}: nobody sees it");
        {
            let mut catching_up = Box::pin(pager.catch_up());
            let early = tokio::time::timeout(Duration::from_millis(500), &mut catching_up).await;
            assert!(early.is_err(), "{product}: the log has what nobody sees");
            run(&mut sql, &format!("set global {enabled} = off")).await;
            catching_up.await.expect("everybody sees it");
        }
        assert_eq!(ids(&mut pager).await, seen, "{product}");
        waits.await.expect("inserted");
        drop(server);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_gtids_rows_are_not_listed_beside_the_log() {
    for product in products().into_iter().filter(|found| *found == product(false)) {
        let off = [("gtid-mode", "OFF"), ("enforce-gtid-consistency", "OFF")];
        let (server, mut sql) = start_with(product, &off, false).await;
        run(&mut sql, "create table t (id int primary key)").await;
        let settings = films(&server.server_url(), &["t"]);
        let mut pager =
            KeyPager::open(mysql(&settings), settings.source.tables()[0].clone(), &[]).await.expect("opens");
        assert_eq!(pager.page(None, 10).await.expect("a page"), []);
        let refused = pager.catch_up().await.expect_err("refused").to_string();
        assert!(refused.contains("gtid_mode = ON"), "{refused}");
        drop(server);
    }
}

/// A table that is listed anew may have changed while nobody looked: whoever derived something of it hears so.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_listed_anew_is_in_doubt() {
    for mut db in databases("listed_anew").await {
        db.run("create table t (id int primary key)").await;
        db.run("create table later (id int primary key)").await;
        let recorder = Recorder::new();
        let running = Running::streaming(&db.settings(&["t"]), &recorder).await;
        db.run("insert into t values (1)").await;
        recorder.wait(1).await;
        running.stop().await;
        let witness = std::sync::Arc::new(crate::support::Witness::new(|_| Ok(())));
        let both = db.settings(&["t", "later"]);
        let running = Running::streaming_for(witness.clone(), &both, &recorder).await;
        let doubts: Vec<String> = witness.doubts().iter().map(|doubt| doubt.table.name.to_string()).collect();
        assert_eq!(doubts, ["later"]);
        running.stop().await;
        let again = std::sync::Arc::new(crate::support::Witness::new(|_| Ok(())));
        let running = Running::streaming_for(again.clone(), &both, &recorder).await;
        assert_eq!(again.doubts(), []);
        running.stop().await;
        db.remove().await;
    }
}
