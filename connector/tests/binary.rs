//! Streams of binary values: the same events as of text, and text again where a type asks for it.

use serde_json::{Value as Json, json};
use tributary_connector::{BinaryHandling, ConnectorSettings, TimePrecision, ValueOptions};

use crate::support::{Database, Recorder, Running, postgres_mut};

/// Columns of every type that is read in binary form, and what fills them: odd values of the first row on, then chance.
const COLUMNS: &[(&str, &[&str], &str)] = &[
    ("bool", &["true", "false"], "random() < 0.5"),
    ("int2", &["-32768", "32767"], "(random() * 65535 - 32768)::int2"),
    ("int4", &["-2147483648", "2147483647"], "(random() * 4294967295 - 2147483648)::int4"),
    ("int8", &["-9223372036854775808", "9223372036854775807"], "(random() * 1e18)::int8 - 500000000000000000"),
    ("oid", &["4294967295", "0"], "(random() * 4294967295)::int8::oid"),
    ("xid", &["4294967295", "3"], "'7'::xid"),
    ("float4", &["NaN", "-Infinity", "1e-45", "-0"], "((random() - 0.5) * 10 ^ (random() * 60 - 30))::float4"),
    ("float8", &["NaN", "Infinity", "5e-324", "-0"], "(random() - 0.5) * 10 ^ (random() * 200 - 100)"),
    (
        "numeric",
        &["NaN", "0", "0.000", "-0.00000123", "10000", "100000000.00010000", "1e200", "1e-200", "-9999.9999"],
        "trunc((random() - 0.5)::numeric * 10::numeric ^ (g % 40), g % 31)",
    ),
    ("numeric", &["Infinity", "-Infinity", "99999999"], "(random() * 1e8)::int8::numeric * 1000000000000000"),
    ("numeric(20,7)", &["1.5", "-0.0000001"], "(random() - 0.5)::numeric * 1000000000"),
    ("money", &["-92233720368547758.08", "-0.05", "1234.50"], "((random() - 0.5)::numeric * 100000)::money"),
    ("date", &["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "0001-12-31 BC"], "current_date - g * 1000"),
    ("time", &["24:00:00", "00:00:00.000001"], "'00:00'::time + random() * interval '1 day'"),
    ("time(3)", &["23:59:59.999"], "'00:00'::time + random() * interval '1 day'"),
    ("timetz", &["24:00:00+00", "13:51:30.5+02", "00:00:00-15:59:59"], "now()::timetz + random() * interval '1 day'"),
    (
        "timestamp",
        &["infinity", "-infinity", "4713-01-01 00:00:00 BC", "294276-12-31 23:59:59.999999", "1969-12-31 23:59:59.9"],
        "'1990-01-01'::timestamp + (random() - 0.5) * interval '4000 years'",
    ),
    ("timestamp(3)", &["-infinity", "294276-12-31 23:59:59.999"], "now()::timestamp - random() * interval '90 years'"),
    (
        "timestamptz",
        &["infinity", "4713-01-01 00:00:00+00 BC", "0001-12-31 23:59:59.5+00 BC", "294276-12-31 23:59:59.999999+00"],
        "'1990-01-01'::timestamptz + (random() - 0.5) * interval '12000 years'",
    ),
    ("timestamptz(2)", &["1999-12-31 23:59:59.99+00", "-infinity"], "now() - random() * interval '90 years'"),
    (
        "interval",
        &["178000000 years", "-1 mons +2 days -03:04:05.6", "-1000000:00:54.775807", "0"],
        "(random() - 0.5) * interval '9 years 7 mons 3 days 04:05:06.789'",
    ),
    ("bytea", &["", "\\x00ff"], "decode(md5(g::text), 'hex')"),
    ("bit(1)", &["1", "0"], "(g % 2)::bit(1)"),
    ("bit(10)", &["1000000001"], "(g % 1024)::bit(10)"),
    ("varbit", &["", "1", "11111111", "000000001"], "substring(g::bit(32)::varbit from g % 30 + 1)"),
    ("text", &["", "NULL", "a \"b\" \\ \n ü 🎬"], "repeat(md5(g::text), g % 5)"),
    ("varchar(5)", &["abc"], "left(md5(g::text), 5)"),
    ("char(4)", &["ab"], "left(md5(g::text), 3)"),
    ("name", &["relname"], "md5(g::text)::name"),
    ("citext", &["Mixed"], "md5(g::text)::citext"),
    ("mood", &["sad", "it''s ok"], "'sad'::mood"),
    ("json", &["{ \"a\":1 }"], "to_json(g)"),
    ("jsonb", &["{\"b\":1, \"a\":[2.50,null]}", "\"\\u00fc\""], "jsonb_build_object('n', random(), 'g', g)"),
    ("jsonpath", &["$.a[*] ? (@ > 1)"], "'$'::jsonpath"),
    ("uuid", &["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], "md5(g::text)::uuid"),
    (
        "inet",
        &["192.168.0.1/24", "10.0.0.1", "::1", "::", "::1.2.3.4", "::ffff:1.2.3.4/120", "2001:db8::1:0:0:1", "1::/128"],
        "'0.0.0.0'::inet + g * 65537",
    ),
    ("cidr", &["10.0.0.0/8", "10.1.2.3/32", "::ffff:0:0/96", "2001:db8::/32", "::/0"], "'10.0.0.0/8'::cidr"),
    ("macaddr", &["08:00:2b:01:02:03"], "left(md5(g::text), 12)::macaddr"),
    ("macaddr8", &["08:00:2b:01:02:03:04:05"], "left(md5(g::text), 16)::macaddr8"),
    ("pg_lsn", &["16/B374D848", "FFFFFFFF/FFFFFFFF", "0/0"], "'0/0'::pg_lsn + g"),
    ("point", &["(1,2)", "(NaN,-Infinity)", "(1e-300,-0)"], "point(random() * 1e10, -random() / 1e10)"),
    ("positive", &["7"], "g"),
    ("positive[]", &["{1,2}"], "array[g, g + 1]::positive[]"),
    ("int4[]", &["{}", "{1,NULL,3}", "[0:1]={4,5}", "{{{1},{2}},{{3},{4}}}"], "array[g, null, -g]"),
    ("text[]", &["{a,\"b \\\"c\\\" {,}\",NULL,\"\",\"NULL\"}", "[2:3]={a,b}"], "array[md5(g::text), null]"),
    ("numeric(6,2)[]", &["{1.5,NaN}"], "array[(g % 1000)::numeric / 7]"),
    ("timestamptz[]", &["{2020-01-02 03:04:05+00,infinity}"], "array[now()]"),
    ("mood[]", &["{sad}"], "array['sad']::mood[]"),
    ("bytea[]", &["{\"\\\\xff\",NULL}"], "array['\\xdead'::bytea]"),
    ("uuid[]", &["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}"], "array[md5(g::text)::uuid]"),
    ("jsonb[]", &["{\"{\\\"a\\\": 1}\"}"], "array['[1,2]'::jsonb]"),
];

const ROWS: usize = 600;

/// A table of all these columns; the ones whose type the server lacks are left out.
async fn table(db: &Database) -> String {
    db.run(
        "create extension citext; create type mood as enum ('sad', 'it''s ok'); \
         create domain small as int check (value > -5); create domain positive as small check (value > 0)",
    )
    .await;
    let columns: Vec<String> = COLUMNS.iter().enumerate().map(|(i, (t, ..))| format!("c{i} {t}")).collect();
    db.run(&format!("create table t (id int primary key, {}, missing text)", columns.join(", "))).await;
    let values: Vec<String> = COLUMNS
        .iter()
        .map(|(t, odd, any)| {
            let cases: Vec<String> =
                odd.iter().enumerate().map(|(i, text)| format!("when {} then '{text}'::{t}", i + 1)).collect();
            format!("case g {} else ({any})::{t} end", cases.join(" "))
        })
        .collect();
    format!("insert into t select g, {} from generate_series(1, {ROWS}) g", values.join(", "))
}

/// The rows that a source gives for the statements, and the command that began its stream.
async fn rows(db: &Database, settings: &ConnectorSettings, statements: &str, count: usize) -> (Vec<Json>, String) {
    let recorder = Recorder::new();
    let running = Running::streaming(settings, &recorder).await;
    db.run(statements).await;
    let records = recorder.wait(count).await;
    let command = db.stream(settings).await;
    running.stop().await;
    (records.iter().map(|r| json!([r.op(), r.key, r.get("/before"), r.get("/after")])).collect(), command)
}

async fn compare(test: &str, values: ValueOptions) {
    let db = Database::create(test).await;
    let insert = table(&db).await;
    db.run("alter table t replica identity full").await;
    let statements = format!("{insert}; update t set missing = 'x', id = -id where id % 3 = 0; delete from t");
    let count = ROWS + ROWS / 3 * 3 + ROWS * 2;
    let mut settings = db.settings(&["t"]);
    postgres_mut(&mut settings).values = values;
    // Both read the same log: the second slot is made before the first stream begins.
    let mut text = settings.clone();
    text.name.push_str("_text");
    let postgres = postgres_mut(&mut text);
    (postgres.binary, postgres.slot) = (false, format!("{}_text", postgres.slot));
    let recorder = Recorder::new();
    let reading_text = Running::streaming(&text, &recorder).await;
    let (binary, how) = rows(&db, &settings, &statements, count).await;
    assert!(how.contains("binary 'true'"), "{how}");
    let expected = recorder.wait(count).await;
    assert!(!db.stream(&text).await.contains("binary 'true'"));
    assert_eq!((binary.len(), expected.len()), (count, count));
    for (binary, text) in binary.iter().zip(&expected) {
        let text = json!([text.op(), text.key, text.get("/before"), text.get("/after")]);
        for (i, (type_name, ..)) in COLUMNS.iter().enumerate() {
            for image in [2, 3] {
                let place = format!("/{image}/c{i}");
                assert_eq!(binary.pointer(&place), text.pointer(&place), "{type_name} of {}", binary[1]);
            }
        }
        assert_eq!(*binary, text);
    }
    reading_text.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_is_the_same_in_binary_form() {
    compare("binary", ValueOptions::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_forms_of_values_are_the_same_too() {
    let values = ValueOptions {
        times: TimePrecision::Iso,
        binary: BinaryHandling::Hex,
        hstore_as_map: true,
        intervals_as_text: true,
    };
    compare("binary_iso", values).await;
    let values = ValueOptions { times: TimePrecision::Nanoseconds, binary: BinaryHandling::Base64Url, ..values };
    compare("binary_nanos", values).await;
}

/// A column of a type that is read as text alone comes in the middle of a burst, and goes again.
#[tokio::test(flavor = "multi_thread")]
async fn a_type_that_is_read_as_text_makes_the_stream_one_of_text() {
    let db = Database::create("binary_to_text").await;
    db.run("create type pair as (n int, t text); create table t (id int primary key, at timestamptz)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t select g, now() from generate_series(1, 1000) g").await;
    recorder.wait(1000).await;
    assert!(db.stream(&settings).await.contains("binary 'true'"));
    db.run(
        "begin; insert into t select g, now() from generate_series(1001, 2000) g; alter table t add p pair; \
         insert into t select g, now(), (g, 'x')::pair from generate_series(2001, 3000) g; commit; \
         alter table t drop p; insert into t select g, now() from generate_series(3001, 4000) g",
    )
    .await;
    let records = recorder.wait(4000).await;
    let ids: Vec<Json> = records.iter().map(|r| r.get("/after/id")).collect();
    assert_eq!(ids, (1..=4000).map(|n| json!(n)).collect::<Vec<_>>());
    assert_eq!(records[2999].get("/after/p"), json!("(3000,x)"));
    assert!(!db.stream(&settings).await.contains("binary 'true'"));
    running.stop().await;
    // Text from the start, if the type is there then.
    db.run("alter table t add p pair").await;
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (4001, null, (1, 'y'))").await;
    assert_eq!(recorder.wait(4001).await[4000].get("/after/p"), json!("(1,y)"));
    assert!(!db.stream(&settings).await.contains("binary 'true'"));
    running.stop().await;
    db.remove().await;
}
