//! Where streams begin, what they do once, and how they stand still.

use tributary_dsl::plan::{OnError, Start};
use tributary_transport::{Batch, Checkpoint, DeadLetters, TopicId, Transport};

use crate::bench::{Bench, TABLE, TITLE, titles, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_begins_now_never_does_what_came_before() {
    let mut bench = Bench::new().await;
    bench.append(&["before", "also before"]).await;
    // Nothing comes while it runs, and it is killed: it has begun all the same.
    let running = bench.start(Start::Now, TITLE);
    running.ready().await;
    running.kill().await;
    bench.append(&["between"]).await;
    let running = bench.start(Start::Now, TITLE);
    bench.append(&["after"]).await;
    until("both came", async || bench.out().await.len() >= 2).await;
    running.stop().await;
    assert_eq!(bench.out().await, titles(&["between", "after"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_begins_first_does_everything_once_through_kills() {
    let mut bench = Bench::new().await;
    let mut expected = Vec::new();
    for round in 0..10 {
        let title = format!("{round}");
        bench.append(&[&title, "more"]).await;
        expected.extend(titles(&[&title, "more"]));
        let running = bench.start(Start::First, TITLE);
        until("they came", async || bench.out().await.len() >= expected.len()).await;
        running.kill().await;
    }
    let running = bench.start(Start::First, TITLE);
    running.ready().await;
    running.stop().await;
    assert_eq!(bench.out().await, expected);
}

/// A mark is one of a topic, not of its name, however long either is; one that was made before topics had identities is taken as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_mark_is_of_another_topic_begins_with_the_first_record() {
    for (of, expected) in [("", &["three"][..]), ("its own", &["three"]), ("another", &["one", "two", "three"])] {
        let mut bench = Bench::new().await;
        let topic = match of {
            "" => String::new(),
            "its own" => format!(r#","topic":"{}""#, bench.log.topic_id(TABLE).await.unwrap().unwrap()),
            _ => format!(r#","topic":"{}""#, TopicId::new()),
        };
        let mut batch = Batch::new();
        let content = format!(r#"{{"next":2{topic}}}"#).into();
        batch.checkpoint = Some(Checkpoint { name: format!("test.titles.{TABLE}-0"), content });
        bench.producer.append(&batch).await.unwrap();
        bench.append(&["one", "two", "three"]).await;
        let running = bench.start(Start::Now, TITLE);
        until("it has come to the end", async || bench.out().await.last() == titles(&["three"]).last()).await;
        running.stop().await;
        assert_eq!(bench.out().await, titles(expected), "{of}");
        // Once it has begun, that is so for good.
        bench.append(&["four"]).await;
        let running = bench.start(Start::Now, TITLE);
        until("it goes on", async || bench.out().await.last() == titles(&["four"]).last()).await;
        running.stop().await;
        assert_eq!(bench.out().await.len(), expected.len() + 1, "{of}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_still_is_told_and_loses_nothing() {
    let mut bench = Bench::new().await;
    let running = bench.start(Start::First, ".n = to_int!(.after.title)\n. = { \"title\": to_string(.n) }");
    bench.append(&["1", "2", "three", "4"]).await;
    until("it says so", async || {
        let part = running.health.parts()["stream"].clone();
        !part.up && part.why.is_some_and(|why| why.contains("transform-1") && why.contains("db.public.movie/0/2"))
    })
    .await;
    assert_eq!(bench.out().await, titles(&["1", "2"]));
    running.stop().await;
    let running = bench.start(Start::First, TITLE);
    until("it goes on", async || bench.out().await.len() >= 4).await;
    assert!(running.health.parts()["stream"].up);
    running.stop().await;
    assert_eq!(bench.out().await, titles(&["1", "2", "three", "4"]));
}

/// What is set aside keeps later events of its key behind it, and all of them are done in their order when somebody asks, each once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_aside_is_done_again_in_its_order() {
    let mut bench = Bench::new().await;
    let letters = DeadLetters::new(bench.log.clone(), "letters");
    let picky = ".n = to_int!(.after.title)\n. = { \"title\": to_string(.n) }";
    let running = bench.start_with(Start::First, picky, OnError::DeadLetter);
    bench.append_as("1", &["1", "two", "3"]).await;
    bench.append_as("2", &["4", "5"]).await;
    until("the others came", async || bench.out().await.len() >= 3).await;
    assert_eq!(bench.out().await, titles(&["1", "4", "5"]));
    let waiting = letters.list().await.unwrap();
    assert_eq!(waiting.len(), 2, "{waiting:?}");
    assert!(waiting[0].cause.contains("transform-1"), "{waiting:?}");
    assert!(waiting[1].cause.contains(&waiting[0].id), "{waiting:?}");
    // Asked for too early, the first fails again, and the second waits.
    assert_eq!(letters.replay(None).await.unwrap(), 2);
    until("it was tried again", async || letters.list().await.unwrap()[0].attempts == 2).await;
    assert_eq!(bench.out().await.len(), 3);
    running.kill().await;
    let running = bench.start_with(Start::First, TITLE, OnError::DeadLetter);
    bench.append_as("1", &["6"]).await;
    until("it waits too", async || letters.list().await.unwrap().len() == 3).await;
    let ids = [letters.list().await.unwrap()[0].id.clone()];
    assert_eq!(letters.replay(Some(&ids)).await.unwrap(), 3);
    until("all came", async || bench.out().await.len() >= 6).await;
    until("nothing waits", async || letters.list().await.unwrap().is_empty()).await;
    bench.append_as("1", &["7"]).await;
    until("the key flows again", async || bench.out().await.len() >= 7).await;
    running.stop().await;
    assert_eq!(bench.out().await, titles(&["1", "4", "5", "two", "3", "6", "7"]));
}
