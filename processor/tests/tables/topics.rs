//! Tables of topics: what they have of a key, and when they say nothing.

use std::time::Duration;

use tributary_dsl::plan::Keep;
use tributary_processor::Answer;

use crate::support::{Bench, plan_of_topic, until};

fn found(json: &str) -> Answer {
    Answer::Found(json.to_owned().into())
}

async fn the_last_record_of_a_key_holds(keep: Keep) {
    let bench = Bench::new().await;
    bench.rates(&[("EUR", Some(r#"{"rate":1}"#)), ("7", Some("7.5")), ("EUR", Some(r#"{"rate":2}"#))]).await;
    let table = bench.of_topic(None, keep, 1 << 20);
    // Before it is whole it says nothing, rather than that something is missing.
    if let Err(error) = table.ask(&["\"EUR\""]).await {
        assert!(error.message.contains("not read to its end"), "{error}");
    }
    let table = table.whole().await;
    let answers = table.ask(&["\"EUR\"", "7", "\"7\"", "\"USD\""]).await.unwrap();
    assert_eq!(answers, [found(r#"{"rate":2}"#), found("7.5"), found("7.5"), Answer::Missing]);
    bench.rates(&[("EUR", None), ("USD", Some("1"))]).await;
    let expected = [Answer::Missing, found("1")];
    until("it follows", async || table.ask(&["\"EUR\"", "\"USD\""]).await.unwrap() == expected).await;
}

#[tokio::test]
async fn the_last_record_of_a_key_holds_until_it_is_taken_out() {
    the_last_record_of_a_key_holds(Keep::Memory).await;
    the_last_record_of_a_key_holds(Keep::Disk).await;
}

#[tokio::test]
async fn a_program_may_say_what_a_record_is_known_by() {
    let bench = Bench::new().await;
    bench
        .rates(&[("1", Some(r#"{"currency":"EUR"}"#)), ("2", Some(r#"{"currency":7}"#)), ("3", Some("no object"))])
        .await;
    let table = bench.of_topic(Some(".currency"), Keep::Memory, 1 << 20).whole().await;
    let answers = table.ask(&["\"EUR\"", "7", "3"]).await.unwrap();
    assert_eq!(answers, [found(r#"{"currency":"EUR"}"#), found(r#"{"currency":7}"#), Answer::Missing]);
}

#[tokio::test]
async fn a_table_above_its_limit_says_so_and_is_not_looked_into() {
    let bench = Bench::new().await;
    let long = format!("\"{}\"", "x".repeat(600));
    bench.rates(&[("EUR", Some("1")), ("USD", Some(&long)), ("GBP", Some(&long))]).await;
    for keep in [Keep::Memory, Keep::Disk] {
        let table = bench.of_topic(None, keep, 1_000);
        until("it is down for that", async || table.why().contains("`limit` of 1000 bytes")).await;
        assert!(table.ask(&["\"EUR\""]).await.unwrap_err().message.contains("raise it"));
        table.stop().await;
        // What was kept on disk goes on from there.
        let table = bench.of_topic(None, keep, 10_000).whole().await;
        assert_eq!(table.ask(&["\"USD\""]).await.unwrap(), [found(&long)]);
        table.stop().await;
    }
}

#[tokio::test]
async fn a_table_that_nobody_writes_says_that_it_is_old() {
    let bench = Bench::new().await;
    let mut batch = tributary_transport::Batch::new();
    batch.push(&"rates".into(), 1, Some(b"EUR"), Some(b"1"));
    use tributary_transport::Transport as _;
    bench.log.appender().await.unwrap().append(&batch).await.unwrap();
    let mut plan = plan_of_topic(None, Keep::Memory, 1 << 20);
    plan.max_age = Some(Duration::from_secs(3600));
    let table = bench.of_topic_with(plan);
    // That it was begun now says nothing about its records.
    until("it is old", async || table.why().contains("its `max_age` is 3600s")).await;
    assert_eq!(table.ask(&["\"EUR\""]).await.unwrap(), [found("1")], "it is looked into all the same");
    bench.rates(&[("EUR", Some("2"))]).await;
    until("it is no longer", async || table.is_whole()).await;
}
