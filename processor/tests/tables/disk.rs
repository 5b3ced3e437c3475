//! What a table on disk has after a start: all that it had, or, where that is no longer right, all anew.

use std::sync::atomic::Ordering;

use serde_json::json;
use tributary_dsl::plan::Keep;
use tributary_processor::Answer;

use crate::support::{Bench, Source, event};

#[tokio::test]
async fn it_goes_on_where_it_was() {
    let bench = Bench::new().await;
    let source = Source::new([(1, 1, "one"), (2, 1, "two"), (3, 1, "three")]);
    let table = bench.of_source(&source, Keep::Disk).whole().await;
    bench.events(&[event('u', 1, 2, Some("of an event"))]).await;
    assert_eq!(table.row("1").await, Some(json!({ "n": 2, "text": "of an event" })));
    let pages = source.pages.load(Ordering::SeqCst);
    table.stop().await;
    bench.events(&[event('u', 2, 3, Some("meanwhile"))]).await;
    let table = bench.of_source(&source, Keep::Disk).whole().await;
    assert_eq!(table.row("1").await, Some(json!({ "n": 2, "text": "of an event" })));
    assert_eq!(table.row("2").await, Some(json!({ "n": 3, "text": "meanwhile" })));
    assert_eq!(table.row("3").await, Some(json!({ "n": 1, "text": "three" })));
    assert_eq!(source.pages.load(Ordering::SeqCst), pages, "nothing was listed again");
    table.stop().await;
    // In memory it is.
    bench.of_source(&source, Keep::Memory).whole().await.stop().await;
    assert!(source.pages.load(Ordering::SeqCst) > pages);
}

#[tokio::test]
async fn rows_that_look_otherwise_are_listed_anew() {
    let bench = Bench::new().await;
    let source = Source::new([(1, 1, "one")]);
    bench.of_source(&source, Keep::Disk).whole().await.stop().await;
    *source.look.lock().unwrap() = "other columns".to_owned();
    source.rows.lock().unwrap().insert(1, (1, "otherwise".into()));
    let table = bench.of_source(&source, Keep::Disk).whole().await;
    assert_eq!(table.row("1").await, Some(json!({ "n": 1, "text": "otherwise" })));
}

#[tokio::test]
async fn a_topic_that_was_made_anew_is_known_however_long_it_is() {
    let mut bench = Bench::new().await;
    let source = Source::new([(1, 1, "one")]);
    bench.events(&[event('u', 1, 2, Some("a")), event('u', 1, 3, Some("b"))]).await;
    bench.rates(&[("EUR", Some("1")), ("USD", Some("1"))]).await;
    bench.of_source(&source, Keep::Disk).whole().await.stop().await;
    bench.of_topic(None, Keep::Disk, 1 << 20).whole().await.stop().await;
    bench.make_anew().await;
    source.rows.lock().unwrap().insert(1, (9, "after that".into()));
    for n in 4..20 {
        bench.events(&[event('u', 7, n, Some("x"))]).await;
        bench.rates(&[("EUR", Some("2")), ("GBP", Some("2"))]).await;
    }
    let table = bench.of_source(&source, Keep::Disk).whole().await;
    assert_eq!(table.row("1").await, Some(json!({ "n": 9, "text": "after that" })));
    let rates = bench.of_topic(None, Keep::Disk, 1 << 20).whole().await;
    let answers = rates.ask(&["\"EUR\"", "\"USD\""]).await.unwrap();
    assert_eq!(answers, [Answer::Found("2".into()), Answer::Missing]);
}
