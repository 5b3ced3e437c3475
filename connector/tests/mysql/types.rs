//! Every type of column: literal → JSON.

use mysql_async::prelude::Queryable as _;
use serde_json::{Value as Json, json};
use tributary_connector::RowPager;

use crate::server::{Database, METADATA, databases};
use crate::support::{Recorder, Running};

/// Type of the column, literal, JSON.
fn common() -> Vec<(&'static str, &'static str, Json)> {
    vec![
        ("tinyint", "-128", json!(-128)),
        ("tinyint unsigned", "255", json!(255)),
        ("boolean", "true", json!(1)),
        ("smallint", "-32768", json!(-32_768)),
        ("smallint unsigned", "65535", json!(65_535)),
        ("mediumint", "-8388608", json!(-8_388_608)),
        ("mediumint unsigned", "16777215", json!(16_777_215)),
        ("int", "-2147483648", json!(i32::MIN)),
        ("int unsigned zerofill", "4294967295", json!(u32::MAX)),
        ("bigint", "-9223372036854775808", json!(i64::MIN)),
        ("bigint unsigned", "9223372036854775807", json!(i64::MAX)),
        ("bigint unsigned", "18446744073709551615", json!(u64::MAX)),
        ("float", "0.1", json!(0.1)),
        ("double", "1.7976931348623157e308", json!(f64::MAX)),
        ("double", "-0.1", json!(-0.1)),
        ("decimal(10,2)", "-12.5", json!("+x4=")),
        ("decimal(10,2)", "0", json!("AA==")),
        ("decimal(5,0)", "-99999", json!("/nlh")),
        (
            "decimal(65,30)",
            "-12345678901234567890123456789012345.123456789012345678901234567890",
            json!("4f1D4Wh6dCOTRq+nDL2ygsWAE4T8HZlxwPUu"),
        ),
        ("bit(1)", "b'1'", json!(true)),
        ("bit(10)", "b'1000000001'", json!("AQI=")),
        ("bit(64)", "b'1'", json!("AQAAAAAAAAA=")),
        ("year", "2024", json!(2_024)),
        ("year", "0000", json!(0)),
        ("year", "1901", json!(1_901)),
        ("date", "'2020-02-29'", json!(18_321)),
        ("date", "'0001-01-01'", json!(-719_162)),
        ("date", "'9999-12-31'", json!(2_932_896)),
        ("date", "'0000-00-00'", json!("0000-00-00")),
        ("date", "'2020-02-00'", json!("2020-02-00")),
        ("time", "'-838:59:59'", json!(-3_020_399_000_000_i64)),
        ("time", "'00:00:00'", json!(0)),
        ("time(1)", "'-00:00:00.1'", json!(-100_000)),
        ("time(2)", "'-00:00:01.50'", json!(-1_500_000)),
        ("time(3)", "'-12:34:56.789'", json!(-45_296_789_000_i64)),
        ("time(6)", "'-00:00:00.000001'", json!(-1)),
        ("time(6)", "'12:34:56.789012'", json!(45_296_789_012_i64)),
        ("datetime", "'2020-01-02 03:04:05'", json!(1_577_934_245_000_i64)),
        ("datetime(3)", "'2020-01-02 03:04:05.123'", json!(1_577_934_245_123_i64)),
        ("datetime(6)", "'2020-01-02 03:04:05.123456'", json!(1_577_934_245_123_456_i64)),
        ("datetime(6)", "'1000-01-01 00:00:00.000001'", json!(-30_610_223_999_999_999_i64)),
        ("datetime", "'0000-00-00 00:00:00'", json!("0000-00-00 00:00:00")),
        ("timestamp null", "'2020-01-02 03:04:05'", json!("2020-01-02T03:04:05Z")),
        ("timestamp(6) null", "'2038-01-19 03:14:07.999999'", json!("2038-01-19T03:14:07.999999Z")),
        ("timestamp(3) null", "'1970-01-01 00:00:01.5'", json!("1970-01-01T00:00:01.500Z")),
        ("timestamp null", "'0000-00-00 00:00:00'", json!("0000-00-00 00:00:00")),
        ("char(4)", "'ab'", json!("ab")),
        ("char(255)", "'ü🎬'", json!("ü🎬")),
        ("varchar(5)", "'abc'", json!("abc")),
        ("varchar(300)", "repeat('ü', 300)", json!("ü".repeat(300))),
        ("varchar(20) character set latin1", "'ü€'", json!("ü€")),
        ("char(255) character set latin1", "'é'", json!("é")),
        ("varchar(20) character set latin2", "'łó'", json!("łó")),
        ("varchar(20) character set gbk", "'中文'", json!("中文")),
        ("varchar(20) character set big5", "'中文'", json!("中文")),
        ("varchar(20) character set sjis", "'日本ｱ'", json!("日本ｱ")),
        ("varchar(20) character set ujis", "'日本'", json!("日本")),
        ("varchar(20) character set euckr", "'한국'", json!("한국")),
        ("varchar(20) character set koi8r", "'привет'", json!("привет")),
        ("varchar(20) character set cp1251", "'привет'", json!("привет")),
        ("varchar(20) character set greek", "'αβγ'", json!("αβγ")),
        ("varchar(20) character set hebrew", "'שלום'", json!("שלום")),
        ("varchar(20) character set latin5", "'ğş'", json!("ğş")),
        ("varchar(20) character set latin7", "'ąč'", json!("ąč")),
        ("varchar(20) character set tis620", "'ไทย'", json!("ไทย")),
        ("varchar(20) character set cp850", "'é'", json!("é")),
        ("varchar(20) character set geostd8", "'ქ№'", json!("ქ№")),
        ("varchar(20) character set swe7", "'Åsa'", json!("Åsa")),
        ("varchar(20) character set ucs2", "'ü中'", json!("ü中")),
        ("varchar(20) character set utf16", "'ü🎬'", json!("ü🎬")),
        ("varchar(20) character set utf16le", "'ü🎬'", json!("ü🎬")),
        ("varchar(20) character set utf32", "'ü🎬'", json!("ü🎬")),
        ("varchar(20) character set utf8mb3", "'ü'", json!("ü")),
        ("text", "'a \"b\" \\\\ ü 🎬'", json!("a \"b\" \\ ü 🎬")),
        ("tinytext", "''", json!("")),
        ("longtext", "repeat('x', 70000)", json!("x".repeat(70_000))),
        ("binary(4)", "x'ab00'", json!("qwAAAA==")),
        ("binary(16)", "x'00000000000000000000000000000001'", json!("AAAAAAAAAAAAAAAAAAAAAQ==")),
        ("varbinary(4)", "x'ab00'", json!("qwA=")),
        ("blob", "x'deadbeef'", json!("3q2+7w==")),
        ("enum('a','it''s','ü')", "'it''s'", json!("it's")),
        ("enum('a','b')", "''", json!("")),
        ("enum('é','b') character set latin1", "'é'", json!("é")),
        ("enum('Å','b') character set swe7", "'Å'", json!("Å")),
        ("set('a','b','c')", "'c,a'", json!("a,c")),
        ("set('a','b')", "''", json!("")),
        (
            "point",
            "st_geomfromtext('POINT(1 2)')",
            json!({"x": 1.0, "y": 2.0, "wkb": "AQEAAAAAAAAAAADwPwAAAAAAAABA", "srid": null}),
        ),
        (
            "geometry",
            "st_geomfromtext('POINT(1 2)', 3857)",
            json!({"wkb": "AQEAAAAAAAAAAADwPwAAAAAAAABA", "srid": 3857}),
        ),
    ]
}

/// Of MySQL alone: documents as they are printed.
fn mysql() -> Vec<(&'static str, &'static str, Json)> {
    vec![
        (
            "json",
            r#"'{"b": [1, -2, 1.5, true, null, "ü\\"x"], "a": {}}'"#,
            json!(r#"{"a": {}, "b": [1, -2, 1.5, true, null, "ü\"x"]}"#),
        ),
        ("json", "'18446744073709551615'", json!("18446744073709551615")),
        (
            "json",
            "json_array(cast(1.50 as decimal(10,2)), cast('2020-01-02' as date), cast('03:04:05' as time))",
            json!(r#"[1.50, "2020-01-02", "03:04:05.000000"]"#),
        ),
        ("json", "json_object('a', repeat('x', 70000))", json!(format!("{{\"a\": \"{}\"}}", "x".repeat(70_000)))),
        ("vector(3)", "string_to_vector('[1,-2.5,3]')", json!([1.0, -2.5, 3.0])),
    ]
}

fn mariadb() -> Vec<(&'static str, &'static str, Json)> {
    vec![
        ("json", r#"'{"b": 1}'"#, json!(r#"{"b": 1}"#)),
        ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("inet6", "'2001:db8::ff00:42:8329'", json!("2001:db8::ff00:42:8329")),
        ("inet4", "'192.168.0.1'", json!("192.168.0.1")),
        ("vector(2)", "vec_fromtext('[1,-2.5]')", json!([1.0, -2.5])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_has_its_json() {
    for db in databases("types").await {
        check_types(db).await;
    }
}

async fn check_types(mut db: Database) {
    {
        let mut cases = common();
        for case in if db.is_mariadb { mariadb() } else { mysql() } {
            if db.knows(case.0).await {
                cases.push(case);
            }
        }
        let columns: Vec<String> = cases.iter().enumerate().map(|(at, (kind, ..))| format!("c{at} {kind}")).collect();
        // Two tables, for a row has 65,535 bytes.
        db.run(&format!("create table t (id int primary key, {})", columns.join(", "))).await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        let literals: Vec<&str> = cases.iter().map(|(_, literal, _)| *literal).collect();
        db.run(&format!("insert into t values (1, {})", literals.join(", "))).await;
        db.run("insert into t (id) values (2)").await;
        let records = recorder.wait(2).await;
        let mut wrong = Vec::new();
        for (at, (kind, literal, json)) in cases.iter().enumerate() {
            let got = records[0].get(&format!("/after/c{at}"));
            if got != *json {
                wrong.push(format!("{kind} {literal}: {got} is not {json}"));
            }
            if !records[1].get(&format!("/after/c{at}")).is_null() {
                wrong.push(format!("{kind}: null is {}", records[1].get(&format!("/after/c{at}"))));
            }
        }
        // Rows that are listed are those of the log.
        let table = settings.source.tables()[0].clone();
        let mut pager =
            RowPager::open(&settings.source, &table, &[], settings.decimals).await.expect("a pager of rows");
        let (rows, _) = pager.page(None).await.expect("rows");
        for (record, row) in records.iter().zip(&rows) {
            let (after, listed) = (record.get("/after"), serde_json::from_slice::<Json>(&row.row).expect("JSON"));
            let key: Json = serde_json::from_slice(&row.key).expect("JSON");
            assert_eq!(record.key.as_ref(), Some(&key));
            for (at, (kind, literal, _)) in cases.iter().enumerate() {
                let (logged, listed) = (&after[format!("c{at}")], &listed[format!("c{at}")]);
                if logged != listed {
                    wrong.push(format!("{kind} {literal}: {listed} is listed, and the log has {logged}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{} (MariaDB: {}):\n{}", db.url, db.is_mariadb, wrong.join("\n"));
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_may_lack_what_did_not_change() {
    for mut db in databases("minimal").await {
        db.run("create table t (id int primary key, a int, b text, c int default 7)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 10, 'b', 1)").await;
        for image in ["minimal", "noblob"] {
            db.run(&format!("set session binlog_row_image = '{image}'")).await;
            db.run("update t set a = a + 1").await;
        }
        db.run("set session binlog_row_image = 'minimal'").await;
        db.run("delete from t").await;
        let records = recorder.wait(5).await;
        assert_eq!(records[1].get("/after"), json!({"id": 1, "a": 11}));
        assert_eq!(records[1].get("/unchanged"), json!(["b", "c"]));
        assert_eq!(records[2].get("/after"), json!({"id": 1, "a": 12, "c": 1}));
        assert_eq!(records[2].get("/unchanged"), json!(["b"]));
        assert_eq!((records[3].op(), records[3].get("/before")), ("d", json!({"id": 1})));
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_which_the_log_has_no_column_is_a_row() {
    for mut db in databases("defaults").await {
        db.run("create table t (a int, b int default 7)").await;
        db.run("create table k (id int primary key default 5, x int)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t", "k"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run("set session binlog_row_image = 'minimal'").await;
        db.run("insert into t values ()").await;
        db.run("insert into t values (1, 2)").await;
        let records = recorder.wait(2).await;
        // MariaDB writes what the columns have where the table has no key.
        let after = if db.is_mariadb { json!({"a": null, "b": 7}) } else { json!({}) };
        assert_eq!((records[0].op(), records[0].get("/after")), ("c", after));
        assert_eq!(records[1].get("/after"), json!({"a": 1, "b": 2}));
        db.run("insert into k values ()").await;
        running.wait_down("lacks the column id of its key; run: SET GLOBAL binlog_row_image = 'FULL'").await;
        running.kill().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_without_the_document_before_it_is_named() {
    for mut db in databases("partial").await {
        if db.is_mariadb {
            db.remove().await;
            continue;
        }
        db.run("create table t (id int primary key, a int, d json)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        db.run(r#"insert into t values (1, 1, '{"a": [1, 2], "b": "a text that is longer than what changes"}')"#).await;
        db.run("set session binlog_row_image = 'minimal', binlog_row_value_options = 'PARTIAL_JSON'").await;
        db.run("update t set d = json_set(d, '$.a[0]', 7)").await;
        let records = recorder.wait(2).await;
        assert_eq!(records[1].get("/after"), json!({"id": 1}));
        assert_eq!((records[1].get("/partial"), records[1].get("/unchanged")), (json!(["d"]), json!(["a"])));
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_compressed_or_in_part_comes_as_if_it_were_not() {
    for mut db in databases("compressed").await {
        let document = if db.is_mariadb { "longtext" } else { "json" };
        db.run(&format!("create table t (id int primary key, x varchar(200), d {document})")).await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        let running = Running::streaming(&settings, &recorder).await;
        if db.is_mariadb {
            db.run("set global log_bin_compress = 1, global log_bin_compress_min_len = 10").await;
        } else {
            db.run("set session binlog_transaction_compression = on").await;
        }
        db.run("begin").await;
        for id in 1..=3 {
            db.run(&format!("insert into t values ({id}, repeat('x', 150), '{{\"a\": [1, 2], \"b\": \"bb\"}}')")).await;
        }
        db.run("update t set x = 'y' where id = 2").await;
        db.run("commit").await;
        let mut expected = 4;
        if db.is_mariadb {
            db.run("set global log_bin_compress = 0").await;
        } else {
            db.run("set session binlog_transaction_compression = off, binlog_row_value_options = 'PARTIAL_JSON'").await;
            db.run("update t set d = json_remove(json_set(d, '$.a[0]', 7, '$.b', 'cc'), '$.a[1]') where id = 1").await;
            expected = 5;
        }
        let records = recorder.wait(expected).await;
        let ids: Vec<_> = records[..4].iter().map(|r| r.get("/after/id")).collect();
        assert_eq!(ids, [1, 2, 3, 2]);
        assert_eq!(records[3].get("/after/x"), "y");
        if !db.is_mariadb {
            assert_eq!(records[4].get("/after/d"), r#"{"a": [7], "b": "cc"}"#);
        }
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_tells_everything_needs_no_catalog() {
    let _alone = METADATA.lock().await;
    for mut db in databases("full").await {
        if db.is_mariadb {
            db.remove().await;
            continue;
        }
        db.run("create table t (id int primary key, a int unsigned, e enum('é','b') character set latin1, x varchar(9) character set gbk)").await;
        let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
        db.sql.query_drop("set global binlog_row_metadata = 'FULL'").await.expect("set");
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 4294967295, 'é', '中')").await;
        recorder.wait(1).await;
        running.stop().await;
        // Twice, with rows between, while nobody reads.
        db.run("alter table t rename column a to z").await;
        db.run("insert into t values (2, 1, 'b', '文')").await;
        db.run("alter table t add y int first").await;
        db.run("insert into t values (5, 3, 2, 'b', '')").await;
        let running = Running::streaming(&settings, &recorder).await;
        let records = recorder.wait(3).await;
        assert_eq!(records[0].get("/after"), json!({"id": 1, "a": u32::MAX, "e": "é", "x": "中"}));
        assert_eq!(records[1].get("/after"), json!({"id": 2, "z": 1, "e": "b", "x": "文"}));
        assert_eq!(
            (records[2].get("/after"), records[2].key.clone()),
            (json!({"y": 5, "id": 3, "z": 2, "e": "b", "x": ""}), Some(json!({"id": 3})))
        );
        running.stop().await;
        for db in databases("fulltypes").await.into_iter().filter(|db| !db.is_mariadb) {
            check_types(db).await;
        }
        db.sql.query_drop("set global binlog_row_metadata = 'MINIMAL'").await.expect("set");
        db.remove().await;
    }
}
