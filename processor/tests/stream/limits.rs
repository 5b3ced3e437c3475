//! Events that are too large or too deep fail at their step, and end nothing else.

use tributary_dsl::plan::{OnError, Start, StepPlan, StreamPlan};
use tributary_transport::DeadLetters;

use crate::bench::{Bench, TITLE, plan, program, titles, until};

fn small(steps: Vec<StepPlan>, on_error: OnError) -> StreamPlan {
    StreamPlan { max_event: 2_000, ..plan(Start::First, steps, on_error) }
}

fn transform(text: &str) -> StepPlan {
    StepPlan::Transform(program(text))
}

fn filter(text: &str) -> StepPlan {
    StepPlan::Filter(program(text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_event_stands_still_or_is_set_aside_or_is_filtered_out() {
    let mut bench = Bench::new().await;
    let long = "x".repeat(3_000);
    bench.append_as("1", &["a"]).await;
    bench.append_as("2", &[&long]).await;
    bench.append_as("3", &["b"]).await;
    let running = bench.start_plan(small(vec![transform(TITLE)], OnError::Stop));
    let why = running.stands_still().await;
    assert!(why.contains("`max_event` is 2000") && why.contains("db.public.movie/0/1"), "{why}");
    assert_eq!(bench.out().await, titles(&["a"]));
    running.kill().await;
    let running = bench.start_plan(small(vec![transform(TITLE)], OnError::DeadLetter));
    until("others came", async || bench.out().await.len() >= 2).await;
    let letters = DeadLetters::new(bench.log.clone(), "letters");
    assert_eq!(letters.list().await.unwrap().len(), 1);
    running.kill().await;
    bench.append_as("2", &[&long]).await;
    bench.append_as("4", &["c"]).await;
    // What a filter that stands first drops is never read whole.
    let steps = vec![filter("length!(.after.title) < 100"), transform(TITLE)];
    let running = bench.start_plan(small(steps, OnError::Stop));
    until("the last came", async || bench.out().await.len() >= 3).await;
    running.stop().await;
    assert_eq!(bench.out().await, titles(&["a", "b", "c"]));
}

/// A program that puts the event into a field of itself, ten times, and again for each of these, and so on.
fn growing(times: u32) -> String {
    let (begin, end) = ("for_each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10]) -> |_i, _v| { ", " }");
    (0..times).fold(". = { \"x\": . }".to_owned(), |inside, _| format!("{begin}{inside}{end}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_step_makes_too_large_or_too_deep_fails_there() {
    let mut bench = Bench::new().await;
    bench.append_as("1", &["a"]).await;
    let nested = format!("{}1{}", "{\"a\":".repeat(70), "}".repeat(70));
    let cases = [
        (". = { \"t\": [.after.title + \"\"] }\n.u = replace(\"aaaaaaaaaa\", \"a\", replace(\"bbbbbbbbbb\", \"b\", \"cccccccccccccccccccccccccccccccc\"))".replace(" + \"\"", ""), "more than 2000 bytes"),
        (format!(". = {nested}"), "more than 64 values inside of one another"),
        // It would grow until there is no stack, or no time.
        (growing(2), "more than 64 values inside of one another"),
        (growing(4), "transform-1"),
    ];
    for (text, expected) in cases {
        let running = bench.start_plan(small(vec![transform(&text)], OnError::Stop));
        let why = running.stands_still().await;
        assert!(why.contains("transform-1") && why.contains(expected), "{text}: {why}");
        running.kill().await;
    }
    let running = bench.start_plan(small(vec![transform(TITLE)], OnError::Stop));
    until("it goes on", async || bench.out().await.len() == 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_comes_too_deep_is_set_aside() {
    let mut bench = Bench::new().await;
    let letters = DeadLetters::new(bench.log.clone(), "letters");
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    bench.commit(&[(1, 0, format!(r#""title":{deep}"#))]).await;
    bench.append_as("2", &["b"]).await;
    let running = bench.start_plan(plan(Start::First, vec![transform(TITLE)], OnError::DeadLetter));
    until("the other came", async || bench.out().await.len() == 1).await;
    let waiting = letters.list().await.unwrap();
    assert!(waiting[0].cause.contains("more than 64 values inside of one another"), "{waiting:?}");
    running.stop().await;
    assert_eq!(bench.out().await, titles(&["b"]));
}
