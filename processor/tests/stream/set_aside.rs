//! What is set aside of a topic that is deleted and made again.

use std::sync::Arc;

use bytes::Bytes;
use tributary_event::PlanHash;
use tributary_processor::Parked;
use tributary_transport::{
    Batch, DeadLetters, Embedded, EmbeddedSettings, Headers, Polled, TopicId, TopicPartition, Transport,
};

fn record(offset: u64, value: &str) -> Polled {
    let place = TopicPartition { topic: "films".into(), partition: 0 };
    let (key, value) = (Some(Bytes::from_static(b"1")), Some(value.to_owned().into()));
    Polled { place, offset, key, value, headers: Headers::NONE, timestamp_ms: 1 }
}

#[tokio::test]
async fn an_event_of_a_topic_that_was_made_anew_is_not_taken_for_one_that_was_set_aside() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Embedded::open(folder.path(), EmbeddedSettings::default()).unwrap());
    let letters = DeadLetters::new(log.clone(), "letters");
    letters.ensure().await.unwrap();
    let topic: Arc<str> = "films".into();
    let [old, new] = [(); 2].map(|()| Some(TopicId::new()));
    let mut producer = log.appender().await.unwrap();
    let plan = Some(PlanHash::of("titles"));
    let parked = Parked::new(letters.clone(), "stream titles").of_plan(plan);
    parked.reads(&topic, old);
    for offset in [3, 7] {
        let mut batch = Batch::new();
        parked.set_aside(&mut batch, &record(offset, "old"), "refused".into(), 1);
        producer.append(&batch).await.unwrap();
    }
    assert!(parked.holds(&record(7, "old")) && parked.before(&record(5, "old")).is_some());
    assert!(parked.before(&record(3, "old")).is_none());

    // It is made anew while the stage runs, and after a start of it.
    let again = Parked::new(letters.clone(), "stream titles");
    again.follow().await.unwrap();
    for parked in [&parked, &again] {
        parked.reads(&topic, new);
        assert!(!parked.holds(&record(7, "new")));
        // It waits behind what was set aside of its key, whatever the offsets.
        assert!(parked.before(&record(0, "new")).is_some());
    }
    let mut batch = Batch::new();
    again.set_aside(&mut batch, &record(3, "new"), "it waits".into(), 1);
    producer.append(&batch).await.unwrap();
    assert!(again.holds(&record(3, "new")));
    let kept = letters.list().await.unwrap();
    assert_eq!(kept.len(), 3);
    let under = |offset: u64, topic| kept.iter().find(|l| (l.offset, l.topic_id) == (offset, topic)).unwrap().plan;
    assert_eq!([under(3, old), under(7, old), under(3, new)], [plan, plan, None]);

    // They are done again in the order in which they were made, whoever reads which letter first.
    letters.replay(None).await.unwrap();
    let last = Parked::new(letters.clone(), "stream titles");
    last.follow().await.unwrap();
    last.reads(&topic, new);
    let mut done = Vec::new();
    while let Some(next) = last.asked_for(|_| true, |_| false).await.unwrap().pop() {
        let mut batch = Batch::new();
        last.take_out(&mut batch, &next);
        producer.append(&batch).await.unwrap();
        last.done(&next);
        done.push((String::from_utf8_lossy(next.record.value.as_deref().unwrap()).into_owned(), next.record.offset));
    }
    assert_eq!(done, [("old".into(), 3), ("old".into(), 7), ("new".into(), 3)]);
    assert_eq!(letters.list().await.unwrap(), []);
}
