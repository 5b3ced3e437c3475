//! Tables of what a source captures: rows that were there before their topic was, and events.

use std::sync::atomic::Ordering;

use serde_json::json;
use tributary_dsl::plan::Keep;
use tributary_processor::{Answer, Enricher as _};

use crate::support::{Bench, Source, emptied, event, until};

#[tokio::test]
async fn rows_that_were_there_before_are_listed_and_events_replace_them() {
    for keep in [Keep::Memory, Keep::Disk] {
        let bench = Bench::new().await;
        // Events of before the table was begun, whose rows went on without them.
        bench.events(&[event('c', 1, 1, Some("old")), event('c', 9, 2, Some("gone"))]).await;
        let source = Source::new([(1, 5, "one"), (2, 4, "two"), (3, 4, "three"), (4, 4, "four")]);
        let table = bench.of_source(&source, keep).whole().await;
        assert_eq!(table.row("1").await, Some(json!({ "n": 5, "text": "one" })));
        assert_eq!(table.row("4").await, Some(json!({ "n": 4, "text": "four" })));
        assert_eq!(table.row("9").await, None);
        assert_eq!(source.pages.load(Ordering::SeqCst), 2);
        bench.events(&[event('u', 1, 6, None), event('d', 2, 7, None), event('c', 5, 8, Some("five"))]).await;
        assert_eq!(table.row("1").await, Some(json!({ "n": 6, "text": "one" })), "what did not change stays");
        assert_eq!(table.row("2").await, None);
        assert_eq!(table.row("5").await, Some(json!({ "n": 8, "text": "five" })));
        bench.events(&[event('c', 6, 9, Some("six")), emptied(10), event('c', 7, 11, Some("seven"))]).await;
        for (key, is_there) in [("1", false), ("4", false), ("6", false), ("7", true)] {
            assert_eq!(table.row(key).await.is_some(), is_there, "{key}");
        }
        assert_eq!(source.pages.load(Ordering::SeqCst), 2, "nothing was listed again");
    }
}

#[tokio::test]
async fn nothing_is_listed_before_the_source_is_captured_nor_looked_into_before_it_is_whole() {
    let bench = Bench::new().await;
    let source = Source::new([(1, 1, "one")]);
    source.captured.send_replace(false);
    source.hold();
    let table = bench.of_source(&source, Keep::Memory);
    bench.events(&[event('u', 1, 2, Some("of an event"))]).await;
    assert!(table.ask(&["1"]).await.unwrap_err().message.contains("not read to its end"));
    assert_eq!(source.pages.load(Ordering::SeqCst), 0);
    source.rows.lock().unwrap().insert(1, (2, "of an event".into()));
    source.captured.send_replace(true);
    source.go_on();
    let table = table.whole().await;
    assert_eq!(table.row("1").await, Some(json!({ "n": 2, "text": "of an event" })));
}

#[tokio::test]
async fn a_row_that_lacks_what_nobody_here_has_lets_the_table_be_listed_anew() {
    let bench = Bench::new().await;
    let source = Source::new([(1, 1, "long"), (2, 1, "two")]);
    let table = bench.of_source(&source, Keep::Disk).whole().await;
    // The key changed, and the long text was not sent.
    source.rows.lock().unwrap().remove(&1);
    source.rows.lock().unwrap().insert(3, (3, "long".into()));
    bench.events(&[event('d', 1, 2, None), event('c', 3, 3, None)]).await;
    assert_eq!(table.row("3").await, Some(json!({ "n": 3, "text": "long" })));
    assert_eq!(table.row("1").await, None);
    assert_eq!(source.pages.load(Ordering::SeqCst), 2, "once at first, and once for that");
}

#[tokio::test]
async fn rows_that_changed_without_events_are_listed_anew() {
    for keep in [Keep::Memory, Keep::Disk] {
        let bench = Bench::new().await;
        let source = Source::new([(1, 1, "one")]);
        let table = bench.of_source(&source, keep).whole().await;
        source.rows.lock().unwrap().insert(1, (1, "silently".into()));
        table.table.list_anew("it was unlogged for a while").unwrap();
        until("it is listed anew", async || table.row("1").await == Some(json!({ "n": 1, "text": "silently" }))).await;
        // A doubt that nobody had the time to act on is remembered with what is kept.
        source.rows.lock().unwrap().insert(1, (1, "again".into()));
        source.hold();
        table.table.list_anew("once more").unwrap();
        table.kill().await;
        source.go_on();
        let table = bench.of_source(&source, keep).whole().await;
        assert_eq!(table.row("1").await, Some(json!({ "n": 1, "text": "again" })));
        table.stop().await;
    }
}

#[tokio::test]
async fn who_waits_for_a_position_sees_all_changes_before_it_and_an_idle_topic_keeps_nobody() {
    let bench = Bench::new().await;
    let source = Source::new([(1, 1, "one")]);
    let table = bench.of_source(&source, Keep::Memory).whole().await;
    // Nothing is ever written to its topic, whatever the source does elsewhere.
    table.table.has_passed(Some(1_000)).await.unwrap();
    for n in 1_001..1_200 {
        bench.events(&[event('u', 1, n, Some("x"))]).await;
        table.table.has_passed(Some(n)).await.unwrap();
        let row = json!({ "n": n, "text": "x" }).to_string();
        assert_eq!(table.ask(&["1"]).await.unwrap(), [Answer::Found(row.into())]);
    }
}
