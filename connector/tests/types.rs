//! Every type of column: PostgreSQL literal → JSON, from the log and from a page of keys alike.

use serde_json::{Value as Json, json};
use tributary_connector::postgres::{KeyPager, column_types};
use tributary_connector::{BinaryHandling, ConnectorSettings, TimePrecision, ValueOptions};
use tributary_event::debezium::{DecimalMode, encode_value};
use tributary_event::{ColumnType, JsonType};

use crate::support::{Database, Recorder, Running, postgres, postgres_mut};

/// Type of the column, literal, JSON.
fn cases() -> Vec<(&'static str, &'static str, Json)> {
    vec![
        ("bool", "true", json!(true)),
        ("bool", "false", json!(false)),
        ("int2", "-32768", json!(-32768)),
        ("int4", "2147483647", json!(2_147_483_647)),
        ("int8", "-9223372036854775808", json!(i64::MIN)),
        ("oid", "4294967295", json!(4_294_967_295_i64)),
        ("float4", "0.1", json!(0.1)),
        ("float4", "NaN", json!("NaN")),
        ("float8", "1.7976931348623157e308", json!(f64::MAX)),
        ("float8", "-Infinity", json!("-Infinity")),
        ("numeric(10,2)", "-12.5", json!("+x4=")),
        ("numeric(5,-2)", "12345", json!("MAw=")),
        ("numeric", "123456789012345678901234567890.5", json!({"scale": 1, "value": "D5Uan6OihslPDnZsOQ=="})),
        ("numeric", "NaN", json!("NaN")),
        ("money", "-1234.50", json!("/h3G")),
        ("text", "a \"b\" \\ \n ü 🎬", json!("a \"b\" \\ \n ü 🎬")),
        ("text", "", json!("")),
        ("varchar(5)", "abc", json!("abc")),
        ("char(4)", "ab", json!("ab  ")),
        ("name", "relname", json!("relname")),
        ("\"char\"", "x", json!("x")),
        ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("json", "{ \"a\":1 }", json!("{ \"a\":1 }")),
        ("jsonb", "{\"b\":1, \"a\":2}", json!("{\"a\": 2, \"b\": 1}")),
        ("xml", "<a/>", json!("<a/>")),
        ("inet", "192.168.0.1/24", json!("192.168.0.1/24")),
        ("cidr", "10.0.0.0/8", json!("10.0.0.0/8")),
        ("macaddr", "08:00:2b:01:02:03", json!("08:00:2b:01:02:03")),
        ("mood", "sad", json!("sad")),
        ("date", "2020-02-29", json!(18_321)),
        ("date", "0044-03-15 BC", json!(-735_160)),
        ("date", "infinity", json!(2_146_033_979_i64)),
        ("time", "12:34:56.789012", json!(45_296_789_012_i64)),
        ("time(3)", "12:34:56.789", json!(45_296_789)),
        ("time", "24:00:00", json!(86_400_000_000_i64)),
        ("timestamp", "2020-01-02 03:04:05.123456", json!(1_577_934_245_123_456_i64)),
        ("timestamp(3)", "2020-01-02 03:04:05.123", json!(1_577_934_245_123_i64)),
        ("timestamp", "infinity", json!(9_223_372_036_825_200_000_i64)),
        ("timestamp", "-infinity", json!(-9_223_372_036_832_400_000_i64)),
        ("timestamptz", "2020-01-02 03:04:05.123456+02", json!("2020-01-02T01:04:05.123456Z")),
        ("timestamptz", "2020-01-02 03:04:05+00", json!("2020-01-02T03:04:05.000000Z")),
        ("timestamptz(3)", "2020-01-02 03:04:05.5+00", json!("2020-01-02T03:04:05.500Z")),
        ("timestamptz(0)", "2020-01-02 03:04:05+00", json!("2020-01-02T03:04:05Z")),
        ("timestamptz", "infinity", json!("infinity")),
        ("timetz", "13:51:30.5+02", json!("11:51:30.5Z")),
        ("interval", "1 year 2 mons 3 days 04:05:06.5", json!(37_091_106_500_000_i64)),
        ("interval", "-1 day 00:00:01", json!(-86_399_000_000_i64)),
        ("bytea", "\\xdeadbeef", json!("3q2+7w==")),
        ("bytea", "", json!("")),
        ("bit(1)", "1", json!(true)),
        ("bit(10)", "1000000001", json!("AQI=")),
        ("varbit", "101", json!("BQ==")),
        ("positive", "7", json!(7)),
        ("positive[]", "{1,2}", json!([1, 2])),
        ("int4[]", "{1,NULL,3}", json!([1, null, 3])),
        ("int4[]", "{}", json!([])),
        ("int4[]", "[0:1]={4,5}", json!([4, 5])),
        ("int4[][]", "{{1,2},{3,4}}", json!([[1, 2], [3, 4]])),
        ("text[]", "{a,\"b \\\"c\\\" {,}\",NULL,\"\"}", json!(["a", "b \"c\" {,}", null, ""])),
        ("numeric(6,2)[]", "{1.5}", json!(["AJY="])),
        ("timestamptz[]", "{2020-01-02 03:04:05+00}", json!(["2020-01-02T03:04:05.000000Z"])),
        ("mood[]", "{sad,ok}", json!(["sad", "ok"])),
        ("bytea[]", "{\"\\\\xff\"}", json!(["/w=="])),
        ("point", "(1,2)", json!({"x": 1.0, "y": 2.0, "wkb": "AQEAAAAAAAAAAADwPwAAAAAAAABA", "srid": null})),
        ("line", "{1,2,3}", json!("{1,2,3}")),
        ("box", "(3,4),(1,2)", json!("(3,4),(1,2)")),
        ("circle", "<(1,2),3>", json!("<(1,2),3>")),
        ("hstore", "a=>1, \"b \\\"c\"=>NULL", json!("{\"a\":\"1\",\"b \\\"c\":null}")),
        ("hstore[]", "{\"a=>1\"}", json!(["{\"a\":\"1\"}"])),
        ("citext", "Mixed", json!("Mixed")),
        ("ltree", "top.science", json!("top.science")),
        ("cube", "(1, 2)", json!("(1, 2)")),
        ("macaddr8", "08:00:2b:01:02:03:04:05", json!("08:00:2b:01:02:03:04:05")),
        ("regclass", "pg_class", json!("pg_class")),
        ("tsquery", "fat & rat", json!("'fat' & 'rat'")),
        ("numrange", "(1.5,)", json!("(1.5,)")),
        ("tstzrange", "[2020-01-01 00:00:00+00,)", json!("[\"2020-01-01 00:00:00+00\",)")),
        ("int4multirange", "{[1,3),[5,7)}", json!("{[1,3),[5,7)}")),
        ("small", "3", json!(3)),
        ("numeric", "Infinity", json!("Infinity")),
        ("date", "-infinity", json!(-2_147_472_691_i64)),
        ("txid_snapshot", "1:2:", json!("1:2:")),
        ("jsonpath", "$.a", json!("$.\"a\"")),
        ("text[]", "[2:3]={a,b}", json!(["a", "b"])),
        ("int4[]", "{{{1},{2}},{{3},{4}}}", json!([[[1], [2]], [[3], [4]]])),
        ("box[]", "{(3,4),(1,2);(1,1),(0,0)}", json!(["(3,4),(1,2)", "(1,1),(0,0)"])),
        ("int4range", "[1,5)", json!("[1,5)")),
        ("tsvector", "a fat cat", json!("'a' 'cat' 'fat'")),
        ("pair", "(1,x)", json!("(1,x)")),
        ("int2vector", "1 2", json!("1 2")),
        ("pg_lsn", "16/B374D848", json!("16/B374D848")),
        ("text", "NULL", json!("NULL")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_from_the_log_as_from_a_select() {
    let db = Database::create("types").await;
    db.run(
        "create type mood as enum ('sad', 'ok'); create domain positive as int check (value > 0); \
         create domain small as positive check (value < 10); \
         create extension hstore; create extension citext; create extension ltree; create extension cube; \
         create type pair as (n int, t text); alter database postgres reset all",
    )
    .await;
    // Defaults of the database that would change the texts, were they not overruled.
    db.run(&format!(
        "alter database {0} set datestyle = 'German'; alter database {0} set intervalstyle = 'iso_8601'; \
         alter database {0} set timezone = 'Asia/Tokyo'; alter database {0} set bytea_output = 'escape'; \
         alter database {0} set extra_float_digits = 0",
        db.name
    ))
    .await;
    let mut cases = cases();
    if db.version().await < 15 {
        // Negative scales came with 15.
        cases.retain(|(type_name, ..)| *type_name != "numeric(5,-2)");
    }
    let columns: Vec<String> = cases.iter().enumerate().map(|(i, (t, ..))| format!("c{i} {t}")).collect();
    db.run(&format!("create table t (id int primary key, {}, missing text)", columns.join(", "))).await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    let literals: Vec<String> = cases.iter().map(|(_, text, _)| format!("'{}'", text.replace('\'', "''"))).collect();
    db.run(&format!("insert into t values (1, {}, null)", literals.join(", "))).await;
    let record = recorder.wait(1).await.remove(0);
    let mut wrong = Vec::new();
    for (i, (type_name, text, expected)) in cases.iter().enumerate() {
        let actual = record.get(&format!("/after/c{i}"));
        if actual != *expected {
            wrong.push(format!("{type_name} {text:?}: {actual}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(record.get("/after/missing"), Json::Null);
    let names: Vec<String> = (0..cases.len()).map(|i| format!("c{i}")).collect();
    let mut pager = KeyPager::open(postgres(&settings), "t", &names).await.expect("opens");
    let row = pager.page(None, 10).await.expect("a page").remove(0);
    for ((value, name), (type_name, ..)) in row.values.iter().zip(&names).zip(&cases) {
        let mut json = Vec::new();
        encode_value(&mut json, value, DecimalMode::Precise);
        let selected: Json = serde_json::from_slice(&json).expect("JSON");
        assert_eq!(selected, record.get(&format!("/after/{name}")), "{type_name}");
    }
    let described = described(&settings).await;
    for (i, (type_name, text, expected)) in cases.iter().enumerate() {
        let column = &described[i + 1];
        assert!(fits(column.json, expected), "{type_name} {text:?}: {expected} is no {:?}", column.json);
        assert!(column.is_nullable && (column.json != JsonType::Any || type_name.starts_with("numeric")), "{column:?}");
    }
    running.stop().await;
    db.remove().await;
}

async fn described(settings: &ConnectorSettings) -> Vec<ColumnType> {
    column_types(postgres(settings), settings.decimals).await.expect("columns").remove(0).1
}

fn fits(json: JsonType, value: &Json) -> bool {
    match json {
        JsonType::Boolean => value.is_boolean(),
        JsonType::Integer => value.is_i64(),
        JsonType::Number => value.is_number() || value.is_string(),
        JsonType::Text => value.is_string(),
        JsonType::List => value.is_array(),
        JsonType::Object => value.is_object(),
        JsonType::Any => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_may_be_null_or_left_out_are_told() {
    let db = Database::create("described").await;
    db.run("create table t (id int primary key, title text not null, note text, n numeric(10,2) not null)").await;
    let settings = db.settings(&["t", "absent"]);
    let told = async || {
        let columns = described(&settings).await.into_iter();
        columns.map(|c| (c.name, c.is_nullable, c.may_be_left_out)).collect::<Vec<_>>()
    };
    let column = |name: &str, null: bool, left_out: bool| (name.to_owned(), null, left_out);
    let before = [
        column("id", false, false),
        column("title", false, true),
        column("note", true, true),
        column("n", false, true),
    ];
    assert_eq!(told().await, before);
    let keys = described(&settings).await.into_iter().filter(|column| column.is_key);
    assert_eq!(keys.map(|column| column.name).collect::<Vec<_>>(), ["id"]);
    db.run("alter table t replica identity full").await;
    assert!(told().await.iter().all(|(.., left_out)| !left_out));
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decimals_follow_the_mode() {
    for (mode, expected) in [(DecimalMode::String, json!("12.50")), (DecimalMode::Double, json!(12.5))] {
        let db = Database::create("decimals").await;
        db.run("create table t (id int primary key, n numeric(10,2))").await;
        let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
        settings.decimals = mode;
        let running = Running::streaming(&settings, &recorder).await;
        db.run("insert into t values (1, 12.5)").await;
        assert_eq!(recorder.wait(1).await[0].get("/after/n"), expected);
        assert!(fits(described(&settings).await[1].json, &expected));
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn times_bytes_intervals_and_pairs_follow_the_options() {
    let db = Database::create("options").await;
    db.run(
        "create extension hstore; create table t (id int primary key, d date, h time, s timestamp(0), i interval, b bytea, \
         p hstore, a timestamp[])",
    )
    .await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    postgres_mut(&mut settings).values = ValueOptions {
        times: TimePrecision::Iso,
        binary: BinaryHandling::Hex,
        hstore_as_map: true,
        intervals_as_text: true,
    };
    let running = Running::streaming(&settings, &recorder).await;
    db.run(
        "insert into t values (1, '2020-02-29', '12:34:56.7', '2020-01-02 03:04:05', '1 year 2 mons 04:05:06.5', '\\xdead', \
         'a=>1', '{2020-01-02 03:04:05.5}')",
    )
    .await;
    let expected = json!({
        "id": 1, "d": "2020-02-29Z", "h": "12:34:56.7Z", "s": "2020-01-02T03:04:05Z", "i": "P1Y2M0DT4H5M6.5S", "b": "dead",
        "p": {"a": "1"}, "a": ["2020-01-02T03:04:05.5Z"]
    });
    assert_eq!(recorder.wait(1).await[0].get("/after"), expected);
    for column in described(&settings).await {
        assert!(column.json != JsonType::Any && fits(column.json, &expected[&column.name]), "{column:?}");
    }
    running.stop().await;
    db.remove().await;
}

/// Types of extensions that the stack's server does not bring: tested where `TRIBUTARY_TEST_POSTGRES` names one that does.
#[tokio::test(flavor = "multi_thread")]
async fn types_of_other_extensions_arrive_where_the_server_has_them() {
    let point = "AQEAACDmEAAAAAAAAAAA8D8AAAAAAAAAQA==";
    let line = "AQIAAAACAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAPA/AAAAAAAA+D8=";
    let cases = [
        ("postgis", "geometry(Point, 4326)", "SRID=4326;POINT(1 2)", json!({"wkb": point, "srid": 4326})),
        ("postgis", "geometry", "LINESTRING(0 0, 1 1.5)", json!({"wkb": line, "srid": null})),
        ("postgis", "geography", "POINT(1 2)", json!({"wkb": point, "srid": 4326})),
        ("vector", "vector(3)", "[1,-2.5,1e-7]", json!([1.0, -2.5, 1e-7])),
        ("vector", "halfvec(3)", "[1,2.5,-3]", json!([1.0, 2.5, -3.0])),
        ("vector", "sparsevec(5)", "{1:1.5,3:-2}/5", json!({"dimensions": 5, "vector": [[1, 1.5], [3, -2.0]]})),
    ];
    let db = Database::create("extensions").await;
    for extension in ["postgis", "vector"] {
        let available = format!("select name::text from pg_available_extensions where name = '{extension}'");
        if db.text(&available).await.is_none() {
            eprintln!("NOT TESTED: this server has no {extension}");
            continue;
        }
        let cases: Vec<_> = cases.iter().filter(|(of, ..)| *of == extension).collect();
        let columns: Vec<String> = cases.iter().enumerate().map(|(i, (_, t, ..))| format!("c{i} {t}")).collect();
        db.run(&format!("create extension {extension}")).await;
        db.run(&format!("create table {extension}s (id int primary key, {})", columns.join(", "))).await;
        let (recorder, settings) = (Recorder::new(), db.settings(&[&format!("{extension}s")]));
        let running = Running::streaming(&settings, &recorder).await;
        let literals: Vec<String> = cases.iter().map(|(_, _, text, _)| format!("'{text}'")).collect();
        db.run(&format!("insert into {extension}s values (1, {})", literals.join(", "))).await;
        let record = recorder.wait(1).await.remove(0);
        for (i, (_, type_name, text, expected)) in cases.iter().enumerate() {
            assert_eq!(record.get(&format!("/after/c{i}")), *expected, "{type_name} {text}");
        }
        running.stop().await;
    }
    db.remove().await;
}
