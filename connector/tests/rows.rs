//! Pages of rows: what a table had before its events, as its events have it.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tributary_connector::{BinaryHandling, ConnectorError, ConnectorSettings, RowPager, TimePrecision, ValueOptions};
use tributary_event::debezium::DecimalMode;

use crate::support::{Database, Recorder, Running, postgres_mut};

/// All rows, by their keys as text.
async fn rows(settings: &ConnectorSettings, columns: &[&str]) -> Result<BTreeMap<String, Json>, ConnectorError> {
    let columns: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let table = "public.t".parse().expect("a name");
    let mut pager = RowPager::open(&settings.source, &table, &columns, settings.decimals).await?;
    let (mut all, mut after) = (BTreeMap::new(), None::<Vec<String>>);
    loop {
        let (rows, next) = pager.page(after.as_deref()).await?;
        for row in rows {
            let key = String::from_utf8(row.key).expect("text");
            let row = serde_json::from_slice(&row.row).expect("JSON");
            assert!(all.insert(key, row).is_none(), "each row once");
        }
        let Some(next) = next else { return Ok(all) };
        after = Some(next);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_what_its_event_says() {
    let db = Database::create("rows").await;
    db.run(
        "create table t (place int, name text, price numeric(10,2), at timestamp, raw bytea, twice int generated always as (place * 2) \
         stored, none text, primary key (name, place))",
    )
    .await;
    let (recorder, mut settings) = (Recorder::new(), db.settings(&["t"]));
    let values = ValueOptions { times: TimePrecision::Iso, binary: BinaryHandling::Hex, ..ValueOptions::default() };
    postgres_mut(&mut settings).values = values;
    settings.decimals = DecimalMode::String;
    let running = Running::streaming(&settings, &recorder).await;
    db.run(
        "insert into t (place, name, price, at, raw) select g, 'it''s \"' || g % 3, g / 4.0, timestamp '2020-01-02 03:04:05.5' + g * \
         interval '1 s', decode(lpad(to_hex(g), 4, '0'), 'hex') from generate_series(1, 457) g",
    )
    .await;
    let events = recorder.wait(457).await;
    let of_events = |choose: &dyn Fn(&Json) -> Json| -> BTreeMap<String, Json> {
        let row = |event: &crate::support::Record| {
            (event.key.as_ref().expect("a key").to_string(), choose(&event.get("/after")))
        };
        events.iter().map(row).collect()
    };
    let normal = |rows: BTreeMap<String, Json>| -> BTreeMap<String, Json> {
        let key = |key: String| serde_json::from_str::<Json>(&key).expect("JSON").to_string();
        rows.into_iter().map(|(text, row)| (key(text), row)).collect()
    };
    assert_eq!(normal(rows(&settings, &[]).await.expect("rows")), of_events(&Json::clone));
    let chosen = of_events(&|row| serde_json::json!({ "price": row["price"], "name": row["name"] }));
    assert_eq!(normal(rows(&settings, &["price", "name"]).await.expect("rows")), chosen);
    let error = rows(&settings, &["prize"]).await.expect_err("no such column").to_string();
    assert!(error.contains("it has no column prize") && error.contains("price"), "{error}");
    running.stop().await;
    // Consumers want another key.
    postgres_mut(&mut settings).keys = vec![("public".into(), "t".into(), vec!["place".into()])];
    let by_place = rows(&settings, &["name"]).await.expect("rows");
    assert_eq!(by_place.get("{\"place\":7}"), Some(&serde_json::json!({ "name": "it's \"1" })));
    assert_eq!(by_place.len(), 457);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_those_that_have_events() {
    let db = Database::create("rows_published").await;
    db.run("create table t (id int primary key, name text); insert into t select g, 'x' from generate_series(1, 9) g")
        .await;
    let mut settings = db.settings(&["t"]);
    "chosen".clone_into(&mut postgres_mut(&mut settings).publication);
    if db.version().await >= 15 {
        db.run("create publication chosen for table t (id) where (id > 6)").await;
        let found = rows(&settings, &[]).await.expect("rows");
        let expected = [7, 8, 9].map(|id| (format!("{{\"id\":{id}}}"), serde_json::json!({ "id": id })));
        assert_eq!(found, expected.into());
        db.run("drop publication chosen").await;
    }
    db.run("create publication chosen for table t with (publish = 'insert, update, truncate')").await;
    let error = rows(&settings, &[]).await.expect_err("deletes would not be heard of").to_string();
    assert!(error.contains("leaves out every delete") && error.contains("SET (publish"), "{error}");
    db.remove().await;
}
