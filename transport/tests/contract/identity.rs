//! Topics of Kafka that are deleted and made again: whoever reads them hears of it, and begins with the first record of the new one.

use std::collections::HashMap;
use std::sync::Arc;

use tributary_event::ErrorClass;
use tributary_transport::{Consumer, ConsumerSettings, Delivery, LossCause, Retention, TopicSpec};

use crate::tools::{Bench, PATIENCE, after, assigned, assignments, kafka, losses, records, values};

/// Deletes a topic, and makes it again with records that have these values, one by one.
async fn make_anew(bench: &Bench, topic: &Arc<str>, values: &[&str]) {
    let before = bench.transport.topic_id(topic).await.unwrap();
    kafka().delete_topic(topic).await.unwrap();
    let spec =
        TopicSpec { name: topic.to_string(), partitions: 1, retention: Retention::Delete { age: None, bytes: None } };
    let started = std::time::Instant::now();
    loop {
        // A broker may not have heard of one or the other yet.
        let made = bench.transport.ensure_topics(std::slice::from_ref(&spec)).await;
        if made.is_ok() && bench.transport.topic_id(topic).await.is_ok_and(|now| now != before) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{made:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    bench.append_each(topic, values).await;
}

/// The offsets of a group go with the topic: that it read another one is kept beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_was_away_hears_of_it_however_long_the_new_topic_is() {
    let bench = Bench::new(Arc::new(kafka()), "remade");
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &["1", "2", "3"]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 3).await;
    consumer.commit(&after(&read)).await.unwrap();
    drop(consumer);
    for round in ["a", "b"] {
        make_anew(&bench, &topic, &[round, "5", "6", "7"]).await;
        let mut consumer = bench.consumer(&topic, true).await;
        assigned(&mut consumer).await;
        let loss = losses(&mut consumer).await;
        assert_eq!(loss[0].cause, LossCause::MadeAnew, "{loss:?}");
        assert_eq!((loss.len(), loss[0].to), (1, 0), "{loss:?}");
        let read = records(&mut consumer, 4).await;
        assert_eq!(values(&read), [round, "5", "6", "7"]);
        // As long as nothing is committed, it is told again.
        drop(consumer);
        let mut consumer = bench.consumer(&topic, true).await;
        assigned(&mut consumer).await;
        assert_eq!(losses(&mut consumer).await[0].cause, LossCause::MadeAnew);
        let read = records(&mut consumer, 4).await;
        consumer.commit(&after(&read)).await.unwrap();
        drop(consumer);
        // Dealt with: it is told no more.
        bench.append_each(&topic, &["8"]).await;
        let mut consumer = bench.consumer(&topic, true).await;
        assert_eq!(assignments(&mut consumer).await[0].committed, Some(4));
        let read = records(&mut consumer, 1).await;
        assert_eq!(values(&read), ["8"]);
        consumer.commit(&after(&read)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_reads_hears_of_it() {
    let bench = Bench::new(Arc::new(kafka()), "remade_under_way");
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &["1", "2", "3"]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 3).await;
    consumer.commit(&after(&read)).await.unwrap();
    let remaking = make_anew(&bench, &topic, &["a", "b", "c", "d", "e"]);
    let reading = async {
        // What comes before it is told is read once more after that.
        let mut told = Vec::new();
        let mut read = Vec::new();
        while values(&read).last().is_none_or(|last| last != "e") || told.is_empty() {
            match tokio::time::timeout(PATIENCE, consumer.next()).await.expect("no delivery came") {
                Ok(Delivery::Records(records)) => read.extend(records),
                Ok(Delivery::Lost(losses)) => {
                    told.extend(losses);
                    read.clear();
                }
                Ok(_) => {}
                Err(error) => assert_eq!(error.class, ErrorClass::Transient, "{error}"),
            }
        }
        (told, read, consumer)
    };
    let ((), (told, read, mut consumer)) = tokio::join!(remaking, reading);
    assert!(told.iter().all(|loss| loss.cause == LossCause::MadeAnew && loss.to == 0), "{told:?}");
    assert_eq!(values(&read), ["a", "b", "c", "d", "e"]);
    consumer.commit(&after(&read)).await.unwrap();
    assert_eq!(consumer.lag(HashMap::new()).await.unwrap(), 0);
    drop(consumer);
    bench.append_each(&topic, &["f"]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    assert_eq!(values(&records(&mut consumer, 1).await), ["f"]);
}

/// An offset that was committed after the topic was made anew, by one who had not heard of that, is one of the old topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_offset_is_one_of_the_topic_that_was_read() {
    let bench = Bench::new(Arc::new(kafka()), "late_commit");
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &["1", "2", "3"]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 3).await;
    consumer.commit(&after(&read)).await.unwrap();
    make_anew(&bench, &topic, &["a", "b", "c", "d"]).await;
    // Nothing was heard since, so this says how far the old topic was read.
    let _ = consumer.commit(&after(&read)).await;
    drop(consumer);
    let mut consumer = bench.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    let loss = losses(&mut consumer).await;
    assert_eq!((loss[0].cause, loss[0].to), (LossCause::MadeAnew, 0), "{loss:?}");
    assert_eq!(values(&records(&mut consumer, 4).await), ["a", "b", "c", "d"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_stays_away_ends_who_reads_it() {
    let bench = Bench::new(Arc::new(kafka()), "deleted");
    let topic = bench.topic("t", 1).await;
    let settings = ConsumerSettings {
        group: bench.name("group"),
        topics: vec![topic.to_string()],
        max_records: 10,
        from_start: true,
    };
    let mut consumer: Box<dyn Consumer> = bench.transport.consumer(settings).await.unwrap();
    bench.append_each(&topic, &["1"]).await;
    records(&mut consumer, 1).await;
    kafka().delete_topic(&topic).await.unwrap();
    let mut waited = false;
    let error = loop {
        match tokio::time::timeout(PATIENCE, consumer.next()).await.expect("it waits for ever") {
            Err(error) if error.class == ErrorClass::Transient => waited = true,
            Err(error) => break error,
            Ok(_) => {}
        }
    };
    assert!(waited);
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.to_string().contains("create the topic"), "{error}");
}
