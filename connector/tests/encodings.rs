//! Databases of other encodings, and bytes that are no text in theirs.

use serde_json::{Value as Json, json};
use tributary_connector::postgres::KeyPager;
use tributary_connector::{ConnectorError, ConnectorSettings, InvalidText};
use tributary_event::{ErrorClass, Value};

use crate::support::{Database, Recorder, Running, postgres, postgres_mut};

/// The table of these tests: every kind of type that travels as text.
const TABLE: &str = "create extension hstore; create type mood as enum ('ok'); \
    create table t (id int primary key, title text, names varchar[], doc jsonb, pairs hstore, code char(3))";

fn policy(settings: &ConnectorSettings, invalid_text: InvalidText, binary: bool) -> ConnectorSettings {
    let mut settings = settings.clone();
    let postgres = postgres_mut(&mut settings);
    (postgres.invalid_text, postgres.binary) = (invalid_text, binary);
    settings
}

/// A row of text that has these bytes everywhere.
fn insert(id: i32, bytes: &str, encoding: &str) -> String {
    let text = format!("convert_from('\\x{bytes}', '{encoding}')");
    format!(
        "insert into t select {id}, 'a' || x, array['ok', x || ',', null], ('{{\"k\": \"' || x || '\"}}')::jsonb, \
         hstore('k', x), x from (select {text}) v(x);"
    )
}

fn row(text: &str, id: i32) -> Json {
    json!({
        "id": id, "title": format!("a{text}"), "names": ["ok", format!("{text},"), null],
        "doc": format!("{{\"k\": \"{text}\"}}"), "pairs": format!("{{\"k\":\"{text}\"}}"), "code": format!("{text}{}", " ".repeat(3 - text.chars().count())),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_of_a_database_without_an_encoding_follow_the_policy() {
    let db = Database::of_encoding("ascii", "SQL_ASCII").await;
    db.run(TABLE).await;
    let settings = db.settings(&["t"]);
    let (recorder, mut at) = (Recorder::new(), 0);
    let running = Running::streaming(&settings, &recorder).await;
    // Text that is UTF-8 is text.
    db.run(&insert(1, "c3bc", "SQL_ASCII")).await;
    assert_eq!(recorder.wait(1).await[0].get("/after/title"), json!("aü"));
    db.run(&insert(2, "ff", "SQL_ASCII")).await;
    let error = running.error().await;
    let said = error.to_string();
    assert!(matches!(error, ConnectorError::InvalidText { .. }) && error.class() == ErrorClass::Fatal, "{said}");
    for text in [
        "table public.t, column title, row \"id\" = '2'",
        "\\x61ff",
        "SQL_ASCII",
        "invalid_text",
        "UPDATE \"public\".\"t\"",
    ] {
        assert!(said.contains(text), "{said}");
    }
    // Nothing before it was lost, and the policy gets past it, in either form of the stream.
    for binary in [true, false] {
        for (invalid_text, title) in [(InvalidText::Replace, "a\u{fffd}"), (InvalidText::Base64, "Yf8=")] {
            at += 1;
            let settings = policy(&settings, invalid_text, binary);
            let running = Running::streaming(&settings, &recorder).await;
            db.run(&format!("update t set title = title where id = 2; {}", insert(10 + at, "ff", "SQL_ASCII"))).await;
            let count = 1 + usize::try_from(at).expect("a number") * 2 + 1;
            let records = recorder.wait(count).await;
            let after = records[count - 1].get("/after");
            match invalid_text {
                InvalidText::Replace => assert_eq!(after["title"], json!(title)),
                _ => {
                    assert_eq!(after["title"], json!(title));
                    assert_eq!(after["names"], json!(["ok", "/yw=", null]));
                    assert_eq!(after["doc"], json!("eyJrIjogIv8ifQ=="));
                    assert_eq!(after["code"], json!("/yAg"));
                }
            }
            if invalid_text == InvalidText::Replace {
                assert_eq!(after["names"], json!(["ok", "\u{fffd},", null]));
                assert_eq!(after["doc"], json!("{\"k\": \"\u{fffd}\"}"));
                assert_eq!(after["pairs"], json!("{\"k\":\"\u{fffd}\"}"));
            }
            running.stop().await;
        }
    }
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_the_server_cannot_convert_have_a_place_and_a_way_out() {
    let cases = [
        // Encoding, a text and its bytes, bytes that are no character.
        ("WIN1252", "€é", "80e9", "81"),
        ("LATIN1", "é", "e9", ""),
        ("EUC_JP", "～あ", "a1c1a4a2", "a9a1"),
    ];
    for (encoding, text, good, bad) in cases {
        let db = Database::of_encoding("foreign", encoding).await;
        db.run(TABLE).await;
        let settings = db.settings(&["t"]);
        let recorder = Recorder::new();
        let running = Running::streaming(&settings, &recorder).await;
        db.run(&insert(1, good, encoding)).await;
        assert_eq!(recorder.wait(1).await[0].get("/after"), row(text, 1), "{encoding}");
        if bad.is_empty() {
            running.stop().await;
            db.remove().await;
            continue;
        }
        db.run(&format!("{} {}", insert(2, good, encoding), insert(3, bad, encoding))).await;
        let said = running.error().await.to_string();
        for text in ["table public.t, column title, row \"id\" = '3'", &format!("\\x61{bad}"), encoding, "invalid_text"]
        {
            assert!(said.contains(text), "{encoding}: {said}");
        }
        let settings = policy(&settings, InvalidText::Replace, true);
        let running = Running::streaming(&settings, &recorder).await;
        let records = recorder.wait(3).await;
        // What can be converted is the same text as before.
        assert_eq!(records[1].get("/after"), row(text, 2), "{encoding}");
        let replaced = records[2].get("/after/title");
        assert!(replaced.as_str().is_some_and(|t| t.starts_with("a\u{fffd}")), "{encoding}: {replaced}");
        running.stop().await;
        db.remove().await;
    }
}

/// Whoever converts a text, it is the same.
#[tokio::test(flavor = "multi_thread")]
async fn texts_are_converted_here_as_the_server_converts_them() {
    let cases = [
        ("LATIN2", "łódź ¤"),
        ("LATIN9", "€ Œ"),
        ("KOI8R", "Жизнь ©"),
        ("ISO_8859_5", "Жизнь №"),
        ("WIN1251", "Жизнь “”"),
        ("WIN874", "ไทย"),
        ("EUC_KR", "한국어 漢"),
        ("EUC_CN", "中文，"),
        ("EUC_JP", "ひらがな ｱ 丂 －"),
        ("EUC_JIS_2004", "ひらがな か゚"),
        ("EUC_TW", "中文 丳"),
    ];
    for (encoding, text) in cases {
        let db = Database::of_encoding("converted", encoding).await;
        db.run("create table t (id int primary key, title text, names text[])").await;
        let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
        postgres_mut(&mut settings).unconverted = true;
        let running = Running::streaming(&settings, &recorder).await;
        db.run(&format!("insert into t values (1, '{text}', array['{text}', 'a'])")).await;
        let expected = json!({"id": 1, "title": text, "names": [text, "a"]});
        assert_eq!(recorder.wait(1).await[0].get("/after"), expected, "{encoding}");
        running.stop().await;
        db.remove().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_transactions_are_no_exception() {
    let db = Database::of_encoding("large", "SQL_ASCII").await;
    db.run("create table t (id int primary key, title text)").await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    let folder = tempfile::tempdir().expect("a folder");
    let postgres = postgres_mut(&mut settings);
    postgres.streaming = Some(folder.path().to_owned());
    postgres.invalid_text = InvalidText::Base64;
    db.run(&format!("alter database {} set logical_decoding_work_mem = '64kB'", db.name)).await;
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t select g, convert_from('\\xff', 'SQL_ASCII') from generate_series(1, 5000) g").await;
    let records = recorder.wait(5000).await;
    assert!(records.iter().all(|r| r.get("/after/title") == json!("/w==")));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_whose_name_was_no_text_is_read_by_the_policy() {
    let db = Database::of_encoding("column", "SQL_ASCII").await;
    db.run("create table t (id int primary key)").await;
    let rename = |from: &str, to: &str| {
        format!(
            "do $$ begin execute format('alter table t rename column %I to %I', convert_from('\\x{from}', 'SQL_ASCII'), \
             convert_from('\\x{to}', 'SQL_ASCII')); end $$;"
        )
    };
    db.run("alter table t add column x text").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    Running::streaming(&settings, &recorder).await.stop().await;
    // "x" and a byte that is no text, while a row is written; the name of now is text again.
    db.run(&format!("{} insert into t values (1, 'y'); {}", rename("78", "78ff"), rename("78ff", "79"))).await;
    let said = Running::start(&settings, &recorder).error().await.to_string();
    assert!(said.contains("a name of it or of its columns is no text") && said.contains("\\x78ff"), "{said}");
    let running = Running::streaming(&policy(&settings, InvalidText::Replace, true), &recorder).await;
    assert_eq!(recorder.wait(1).await[0].get("/after"), json!({"id": 1, "x\u{fffd}": "y"}));
    running.stop().await;
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_now_that_is_no_text_is_refused_with_statements_that_mend_it() {
    let db = Database::of_encoding("name", "SQL_ASCII").await;
    db.run(
        "create table t (id int primary key); do $$ begin execute format('alter table t add column %I text', \
         convert_from('\\xff61', 'SQL_ASCII')); end $$",
    )
    .await;
    let settings = db.settings(&["t"]);
    let error = Running::start(&settings, &Recorder::new()).error().await;
    let said = error.to_string();
    assert_eq!(error.class(), ErrorClass::Fatal, "{said}");
    let (_, statements) = said.split_once("find it: ").unwrap_or_else(|| panic!("no statement: {said}"));
    let (find, rename) = statements.split_once("; and rename it by table and number: ").expect("two statements");
    let row =
        db.sql.query_one(&find.replace("attrelid::regclass", "attrelid::regclass::text"), &[]).await.expect("found");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i16>(1)), ("t", 2));
    db.run(&rename.replace("schema.table", "public.t").replace("attnum = 1", "attnum = 2")).await;
    let recorder = Recorder::new();
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1, 'x')").await;
    assert_eq!(recorder.wait(1).await[0].get("/after"), json!({"id": 1, "new_name": "x"}));
    running.stop().await;
    db.remove().await;
}

#[tokio::test]
async fn keys_that_are_no_text_are_paged_by_the_policy() {
    for (encoding, bad, good, text) in [("SQL_ASCII", "ff", "c3bc", "ü"), ("WIN1252", "81", "fc", "ü")] {
        let db = Database::of_encoding("keys", encoding).await;
        db.run("create table t (name text, n int, flag bool, code char(3), primary key (name, n))").await;
        db.run(&format!(
            "insert into t select chr(97 + g / 10) || convert_from(case g % 3 when 0 then '\\x{bad}'::bytea when 1 then '\\x{good}' else '' end, \
             '{encoding}'), g, g % 2 = 0, 'x' from generate_series(0, 59) g"
        ))
        .await;
        let settings = db.settings(&["t"]);
        let columns = ["name", "n", "flag", "code"].map(str::to_owned);
        let mut pager = KeyPager::open(postgres(&settings), "t", &columns).await.expect("opens");
        let error = pager.page(None, 7).await.expect_err("no text");
        let said = error.to_string();
        assert!(matches!(error, ConnectorError::InvalidText { .. }), "{said}");
        for text in ["column name", "mend the row", "convert_from('\\x61", "\"n\" = '"] {
            assert!(said.contains(text), "{said}");
        }
        let settings = policy(&settings, InvalidText::Replace, true);
        let mut pager = KeyPager::open(postgres(&settings), "t", &columns).await.expect("opens");
        let (mut after, mut rows): (Option<Vec<String>>, Vec<Vec<Value>>) = (None, Vec::new());
        loop {
            let page = pager.page(after.as_deref(), 7).await.expect("a page");
            let Some(last) = page.last() else { break };
            after = Some(last.place.clone());
            rows.extend(page.into_iter().map(|row| row.values));
            // Places are stored as text, and read again by another process.
            let stored = serde_json::to_string(&after).expect("JSON");
            after = serde_json::from_str(&stored).expect("the same");
        }
        assert_eq!(rows.len(), 60, "{encoding}");
        for row in &rows {
            let [Value::Text(name), Value::Int(n), flag, code] = row.as_slice() else { panic!("{row:?}") };
            let mark = ["\u{fffd}", text, ""][usize::try_from(n % 3).expect("a number")];
            assert_eq!(name[1..], *mark, "{encoding}");
            assert_eq!((flag, code), (&Value::Bool(n % 2 == 0), &Value::text("x  ")));
        }
        db.remove().await;
    }
}
