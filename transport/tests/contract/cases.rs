//! What every transport must do.

#![allow(clippy::type_complexity)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tributary_event::ErrorClass;
use tributary_transport::dead_letter::Outline;
use tributary_transport::numbers::SEQUENCE;
use tributary_transport::partition::partition_for_key;
use tributary_transport::{
    Assignment, Batch, Checkpoint, Consumer, ConsumerSettings, DeadLetter, DeadLetters, Delivery, Headers, Loss,
    LossCause, Polled, Purpose, Retention, Sequence, TopicPartition, TopicSpec, Watermarks, WayBack,
};

use crate::tools::{Bench, after, assigned, assignments, losses, next, records, text, values};

pub async fn records_of_a_key_keep_their_order(bench: Bench) {
    let topic = bench.topic("t", 3).await;
    let mut producer = bench.producer().await;
    for round in 0..20 {
        let mut batch = Batch::new();
        for n in 0..50 {
            let (key, value) = (format!("key-{}", n % 7), format!("{}", round * 50 + n));
            batch.push(&topic, 1, Some(key.as_bytes()), Some(value.as_bytes()));
        }
        producer.append(&batch).await.unwrap();
    }
    let mut consumer = bench.consumer(&topic, true).await;
    let mut last: HashMap<String, u64> = HashMap::new();
    let read = records(&mut consumer, 1000).await;
    for record in &read {
        let n: u64 = text(&record.value).parse().unwrap();
        let before = last.insert(text(&record.key), n);
        assert!(before.is_none_or(|before| before < n), "{} after {before:?}", n);
    }
    assert_eq!(read.len(), 1000);
    assert_eq!(last.len(), 7);
}

pub async fn keys_go_where_murmur2_says(bench: Bench) {
    let topic = bench.topic("t", 5).await;
    let mut producer = bench.producer().await;
    let mut batch = Batch::new();
    for n in 0..100 {
        batch.push(&topic, 1, Some(format!(r#"{{"id":{n}}}"#).as_bytes()), Some(b"v"));
    }
    producer.append(&batch).await.unwrap();
    let read = bench.all(&topic).await;
    assert_eq!(read.len(), 100);
    for record in read {
        assert_eq!(record.place.partition, partition_for_key(record.key.as_deref().unwrap(), 5));
    }
}

pub async fn a_batch_and_its_checkpoint_become_visible_together(bench: Bench) {
    let (first, second) = (bench.topic("a", 2).await, bench.topic("b", 1).await);
    let name = bench.name("checkpoint");
    let mut producer = bench.producer().await;
    assert_eq!(bench.transport.checkpoint(&name).await.unwrap(), None);
    for n in 1..=5_u32 {
        let mut batch = Batch::new();
        for i in 0..10 {
            batch.push(&first, 1, Some(format!("{i}").as_bytes()), Some(n.to_string().as_bytes()));
            batch.push(&second, 1, Some(format!("{i}").as_bytes()), Some(n.to_string().as_bytes()));
        }
        batch.checkpoint = Some(Checkpoint { name: name.clone(), content: n.to_string().into() });
        producer.append(&batch).await.unwrap();
        let checkpoint = bench.transport.checkpoint(&name).await.unwrap();
        assert_eq!(checkpoint.as_deref(), Some(n.to_string().as_bytes()));
        assert_eq!(bench.all(&first).await.len(), 10 * n as usize);
        assert_eq!(bench.all(&second).await.len(), 10 * n as usize);
    }
}

pub async fn a_batch_without_records_keeps_its_checkpoint(bench: Bench) {
    bench.topic("t", 1).await;
    let name = bench.name("checkpoint");
    let mut producer = bench.producer().await;
    let checkpoint = Some(Checkpoint { name: name.clone(), content: "here".into() });
    let mut batch = Batch::new();
    batch.checkpoint = checkpoint;
    producer.append(&batch).await.unwrap();
    assert_eq!(bench.transport.checkpoint(&name).await.unwrap().as_deref(), Some(&b"here"[..]));
    assert_eq!(bench.transport.checkpoint(&bench.name("other")).await.unwrap(), None);
}

pub async fn keys_and_values_may_be_absent_or_empty(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    let mut batch = Batch::new();
    let parts: [(Option<&[u8]>, Option<&[u8]>); 4] =
        [(None, Some(b"v")), (Some(b"k"), None), (Some(b""), Some(b"")), (None, None)];
    for (key, value) in parts {
        batch.push(&topic, 1_700_000_000_123, key, value);
    }
    producer.append(&batch).await.unwrap();
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 4).await;
    let mut found: Vec<_> = read.iter().map(|r| (r.key.as_deref(), r.value.as_deref())).collect();
    let mut expected = parts.to_vec();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    assert!(read.iter().all(|record| record.timestamp_ms == 1_700_000_000_123));
}

pub async fn headers_come_back_as_they_were(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let large = vec![b'x'; 100_000];
    let kinds: [Vec<(&str, &[u8])>; 4] = [
        vec![],
        vec![("trace", b"7")],
        vec![("a", &[0, 0xff]), ("b", b""), ("a", b"again"), ("", b"no name"), ("größe", &large)],
        vec![("empty", b"")],
    ];
    let mut batch = Batch::new();
    for (n, headers) in kinds.iter().cycle().take(40).enumerate() {
        // A tombstone and a record without a key have headers too.
        let (key, value) = ((n % 3 > 0).then_some(b"k"), (n % 5 > 0).then(|| n.to_string()));
        batch.push(&topic, 1, key.map(|key| &key[..]), value.as_deref().map(str::as_bytes));
        headers.iter().for_each(|(name, value)| batch.header(name, value));
    }
    // What is taken out again takes its headers with it.
    batch.push(&topic, 1, Some(b"k"), None);
    batch.header("gone", b"too");
    batch.truncate(40);
    let expected: Vec<_> = kinds.iter().cycle().take(40).collect();
    let told = |read: &[Polled]| {
        for (record, expected) in read.iter().zip(expected.iter().chain(&expected)) {
            let without_number = record.headers.view().iter().filter(|(name, _)| *name != SEQUENCE);
            assert_eq!(without_number.collect::<Vec<_>>(), **expected);
        }
    };
    bench.producer().await.append(&batch).await.unwrap();
    bench.transport.appender().await.unwrap().append(&batch).await.unwrap();
    let all = bench.all(&topic).await;
    assert_eq!(all.len(), 80);
    told(&all);
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 80).await;
    told(&read);
    assert_eq!(values(&read), values(&all));
}

/// The numbers of a topic's records, in each partition, and the runs that they are of.
async fn numbers(bench: &Bench, topic: &Arc<str>) -> (Vec<Vec<u64>>, BTreeSet<u64>) {
    let (mut numbers, mut runs): (Vec<Vec<u64>>, _) = (vec![Vec::new(); 3], BTreeSet::new());
    for record in bench.all(topic).await {
        let sequence = Sequence::of(record.headers.view()).unwrap();
        numbers[record.place.partition as usize].push(sequence.number);
        runs.insert(sequence.run);
    }
    (numbers, runs)
}

pub async fn a_source_numbers_its_records_without_a_gap(bench: Bench) {
    let (topic, other) = (bench.topic("t", 3).await, bench.topic("u", 3).await);
    let mut all = 0;
    for round in 0..4 {
        // Taken over by another one each time, as after a crash or a failover.
        let mut producer = bench.producer().await;
        for part in 0..3 {
            let mut batch = Batch::new();
            for n in 0..40 {
                let key = format!("{n}");
                let topic = if n % 4 == part { &other } else { &topic };
                batch.push(topic, 1, (n % 7 > 0).then_some(key.as_bytes()), Some(b"v"));
                all += 1;
            }
            batch.checkpoint = (part == 1).then(|| Checkpoint { name: bench.name("c"), content: "here".into() });
            producer.append(&batch).await.unwrap();
            // What is refused takes no numbers.
            if round == 2 && part == 1 {
                let mut batch = Batch::new();
                batch.push(&topic, 1, Some(b"1"), Some(b"v"));
                batch.push(&bench.name("unknown").into(), 1, None, None);
                producer.append(&batch).await.unwrap_err();
                producer = bench.producer().await;
            }
        }
    }
    let mut seen = 0;
    let kept = bench.transport.numbers().await.unwrap();
    for topic in [&topic, &other] {
        let (numbers, runs) = numbers(&bench, topic).await;
        assert_eq!(runs.len(), 1);
        let kept: Vec<_> = kept.iter().filter(|(of, _)| *of == **topic).collect();
        assert_eq!(kept.len(), 1);
        for (partition, numbers) in numbers.into_iter().enumerate() {
            seen += numbers.len();
            // What is kept beside the checkpoints tells the last of them.
            let last = kept[0].1.last(partition as u32).map(|last| (last.run, last.number));
            assert_eq!(last, numbers.last().map(|number| (*runs.first().unwrap(), *number)));
            assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        }
    }
    assert_eq!(seen, all);
}

pub async fn sources_have_runs_of_their_own(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    for source in ["a", "b", "a", "b"] {
        let mut producer = bench.transport.producer(&bench.name(source), Purpose::Source).await.unwrap();
        bench.append(&mut producer, &topic, &[("k", source), ("k", source)]).await;
    }
    // A stage has none.
    bench.append(&mut bench.transport.appender().await.unwrap(), &topic, &[("k", "c")]).await;
    let mut by_run: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut records = bench.all(&topic).await;
    assert_eq!(Sequence::of(records.pop().unwrap().headers.view()), None);
    for record in records {
        let Sequence { run, number } = Sequence::of(record.headers.view()).unwrap();
        by_run.entry(run).or_default().push(number);
    }
    assert_eq!(by_run.into_values().collect::<Vec<_>>(), [[1, 2, 3, 4], [1, 2, 3, 4]]);
}

pub async fn a_group_resumes_at_its_committed_offsets(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    bench.append(&mut producer, &topic, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 4).await;
    consumer.commit(&after(&read[..2])).await.unwrap();
    drop(consumer);

    let mut consumer = bench.consumer(&topic, true).await;
    assert_eq!(values(&records(&mut consumer, 2).await), ["3", "4"]);
}

pub async fn a_group_without_a_commit_starts_where_it_was_told(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    bench.append(&mut producer, &topic, &[("a", "1")]).await;
    let mut late = bench.consumer(&topic, false).await;
    assigned(&mut late).await;
    // Where the end is, a consumer of Kafka finds out a moment after the assignment; so it is offered records until it
    // has one.
    let mut n = 2;
    let first = loop {
        bench.append(&mut producer, &topic, &[("a", &n.to_string())]).await;
        n += 1;
        let wait = std::time::Duration::from_millis(300);
        if let Ok(Ok(Delivery::Records(records))) = tokio::time::timeout(wait, late.next()).await {
            break values(&records).remove(0);
        }
    };
    assert_ne!(first, "1");
    drop(late);
    let mut early = bench.consumer(&topic, true).await;
    assert_eq!(values(&records(&mut early, 2).await)[..2], ["1", "2"]);
}

pub async fn two_members_share_the_partitions_and_the_last_one_gets_all(bench: Bench) {
    let topic = bench.topic("t", 4).await;
    let mut producer = bench.producer().await;
    let mut first = bench.consumer(&topic, true).await;
    let mut mine: BTreeSet<TopicPartition> = assigned(&mut first).await.into_iter().collect();
    assert_eq!(mine.len(), 4);

    let mut second = bench.consumer(&topic, true).await;
    let mut theirs = BTreeSet::new();
    while mine.len() > 2 || theirs.len() < 2 {
        let (delivery, set) = tokio::select! {
            delivery = next(&mut first) => (delivery, &mut mine),
            delivery = next(&mut second) => (delivery, &mut theirs),
        };
        match delivery {
            Delivery::Assigned(assignments) => set.extend(assignments.into_iter().map(|assignment| assignment.place)),
            Delivery::Revoked(places) => set.retain(|place| !places.contains(place)),
            other => panic!("nothing was appended: {other:?}"),
        }
    }
    assert!(mine.is_disjoint(&theirs));

    let keys: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    bench.append(&mut producer, &topic, &pairs).await;
    let mut read = BTreeSet::new();
    while read.len() < 100 {
        let (delivery, set) = tokio::select! {
            delivery = next(&mut first) => (delivery, &mine),
            delivery = next(&mut second) => (delivery, &theirs),
        };
        if let Delivery::Records(records) = delivery {
            assert!(records.iter().all(|record| set.contains(&record.place)));
            read.extend(values(&records));
        }
    }

    drop(first);
    while theirs.len() < 4 {
        if let Delivery::Assigned(assignments) = next(&mut second).await {
            theirs.extend(assignments.into_iter().map(|assignment| assignment.place));
        }
    }
}

pub async fn a_commit_for_a_revoked_partition_is_ignored(bench: Bench) {
    let topic = bench.topic("t", 2).await;
    let mut producer = bench.producer().await;
    let keys: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    bench.append(&mut producer, &topic, &pairs).await;
    let mut first = bench.consumer(&topic, true).await;
    let read = records(&mut first, 20).await;
    let mut second = bench.consumer(&topic, true).await;
    let lost = loop {
        tokio::select! {
            delivery = next(&mut first) => if let Delivery::Revoked(places) = delivery { break places },
            _ = next(&mut second) => {}
        }
    };
    first.commit(&after(&read)).await.unwrap();
    drop(second);
    drop(first);

    // The partition that was revoked is read again, the other one is not.
    let expected: BTreeSet<String> =
        read.iter().filter(|record| lost.contains(&record.place)).map(|record| text(&record.value)).collect();
    assert!(!expected.is_empty() && expected.len() < 20);
    bench.append(&mut producer, &topic, &[("0", "end"), ("1", "end"), ("2", "end"), ("3", "end"), ("4", "end")]).await;
    let mut again = bench.consumer(&topic, true).await;
    let read = records(&mut again, expected.len() + 5).await;
    let found: BTreeSet<String> = values(&read).into_iter().filter(|value| value != "end").collect();
    assert_eq!(found, expected);
}

fn first(topic: &Arc<str>) -> TopicPartition {
    TopicPartition { topic: topic.clone(), partition: 0 }
}

fn removed(place: TopicPartition, from: u64, to: u64) -> Loss {
    Loss { place, from, to, cause: LossCause::Removed }
}

const TEN: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];

pub async fn an_assignment_says_where_the_group_is(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &TEN).await;
    let place = first(&topic);
    let mut consumer = bench.consumer(&topic, true).await;
    let assignment = Assignment { place: place.clone(), committed: None };
    assert_eq!(assignments(&mut consumer).await, [assignment]);
    let read = records(&mut consumer, 10).await;
    consumer.commit(&after(&read[..4])).await.unwrap();
    drop(consumer);
    let mut consumer = bench.consumer(&topic, true).await;
    let assignment = Assignment { place, committed: Some(4) };
    assert_eq!(assignments(&mut consumer).await, [assignment]);
}

pub async fn records_that_are_gone_are_told_before_those_that_follow(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &TEN).await;
    let place = first(&topic);
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 10).await;
    consumer.commit(&after(&read[..5])).await.unwrap();
    drop(consumer);
    bench.append_each(&topic, &["10", "11"]).await;
    bench.trim(&topic, 10).await;

    let mut consumer = bench.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    assert_eq!(consumer.lag(HashMap::new()).await.unwrap(), 7, "what is gone counts until it is dealt with");
    assert_eq!(losses(&mut consumer).await, [removed(place.clone(), 5, 10)]);
    assert_eq!(values(&records(&mut consumer, 2).await), ["10", "11"]);
    // Once what made up for it is committed, it is told no more.
    consumer.commit(&[(place, 10)]).await.unwrap();
    drop(consumer);
    let mut consumer = bench.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    assert_eq!(values(&records(&mut consumer, 2).await), ["10", "11"]);
}

pub async fn a_group_that_never_committed_hears_of_what_is_gone(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &TEN).await;
    bench.trim(&topic, 3).await;
    let mut consumer = bench.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    assert_eq!(losses(&mut consumer).await, [removed(first(&topic), 0, 3)]);
    assert_eq!(values(&records(&mut consumer, 7).await), TEN[3..]);
}

pub async fn records_that_go_while_a_consumer_is_away_are_told(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut consumer = bench.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    // More than any consumer fetches ahead.
    let filler: String =
        (0..60_000_u32).map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26)).collect();
    let mut appender = bench.transport.appender().await.unwrap();
    for n in 0..400 {
        bench.append(&mut appender, &topic, &[("k", &format!("{n} {filler}"))]).await;
    }
    let mut read: Vec<u64> = records(&mut consumer, 1).await.iter().map(|record| record.offset).collect();
    bench.trim(&topic, 399).await;
    let loss = loop {
        match next(&mut consumer).await {
            Delivery::Records(records) => read.extend(records.iter().map(|record| record.offset)),
            Delivery::Lost(losses) => break losses,
            other => panic!("{other:?}"),
        }
    };
    // What was read before, and what is lost, is everything.
    assert_eq!(read, (0..read.len() as u64).collect::<Vec<_>>());
    assert!(loss[0].from >= read.len() as u64 && loss[0].from < 399 && loss[0].to == 399, "{loss:?}");
    assert_eq!(records(&mut consumer, 1).await[0].offset, 399);
}

/// A key of each of two partitions.
fn keys_of_two() -> [String; 2] {
    [0, 1].map(|partition| {
        let mut keys = (0..).map(|n: u32| n.to_string());
        keys.find(|key| partition_for_key(key.as_bytes(), 2) == partition).unwrap()
    })
}

pub async fn a_paused_partition_waits_and_the_others_go_on(bench: Bench) {
    let topic = bench.topic("t", 2).await;
    let places = [0, 1].map(|partition| TopicPartition { topic: topic.clone(), partition });
    let keys = keys_of_two();
    let mut consumer = bench.consumer(&topic, true).await;
    let mut mine = 0;
    while mine < 2 {
        mine += assigned(&mut consumer).await.len();
    }
    let mut appender = bench.transport.appender().await.unwrap();
    bench.append(&mut appender, &topic, &[(&keys[0], "first"), (&keys[1], "first")]).await;
    let mut read: [Vec<Polled>; 2] = Default::default();
    let mut take = |records: Vec<Polled>| {
        records.into_iter().for_each(|record| read[record.place.partition as usize].push(record));
        [read[0].len(), read[1].len()]
    };
    let mut count = [0, 0];
    // Far more than any consumer fetches ahead, twice, so that it is paused with some of it read and with none.
    let filler = "x".repeat(60_000);
    for round in 1..=2 {
        for _ in 0..150 {
            bench.append(&mut appender, &topic, &[(&keys[0], &filler), (&keys[1], &filler)]).await;
        }
        while count[0] < 150 * (round - 1) + 2 {
            count = take(records(&mut consumer, 1).await);
        }
        consumer.pause(&places[..1]);
        let before = count[0];
        while count[1] < 150 * round + 1 {
            count = take(records(&mut consumer, 1).await);
        }
        assert_eq!(count[0], before, "records of a paused partition came");
        consumer.resume(&places[..1]);
        while count[0] < 150 * round + 1 {
            count = take(records(&mut consumer, 1).await);
        }
    }
    for records in &read {
        let offsets: Vec<u64> = records.iter().map(|record| record.offset).collect();
        assert_eq!(offsets, (0..301).collect::<Vec<_>>());
    }
    // All are paused: what happens to the partitions is heard.
    consumer.pause(&places);
    bench.append(&mut appender, &topic, &[(&keys[0], "last"), (&keys[1], "last")]).await;
    let _second = bench.consumer(&topic, true).await;
    assert!(matches!(next(&mut consumer).await, Delivery::Revoked(_)));
}

pub async fn a_paused_partition_that_comes_back_is_not_paused(bench: Bench) {
    let topic = bench.topic("t", 2).await;
    let places = [0, 1].map(|partition| TopicPartition { topic: topic.clone(), partition });
    let keys = keys_of_two();
    let mut first = bench.consumer(&topic, true).await;
    let mut mine = 0;
    while mine < 2 {
        mine += assigned(&mut first).await.len();
    }
    first.pause(&places);
    let mut second = bench.consumer(&topic, true).await;
    let gone = loop {
        tokio::select! {
            delivery = next(&mut first) => if let Delivery::Revoked(places) = delivery { break places },
            _ = next(&mut second) => {}
        }
    };
    assert_eq!(gone.len(), 1);
    drop(second);
    while mine < 3 {
        mine += assigned(&mut first).await.len();
    }
    let mut appender = bench.transport.appender().await.unwrap();
    bench.append(&mut appender, &topic, &[(&keys[0], "v"), (&keys[1], "v")]).await;
    let read = records(&mut first, 1).await;
    assert_eq!(read.iter().map(|record| record.place.clone()).collect::<Vec<_>>(), gone);
    // The other one still is.
    first.resume(&places);
    assert_ne!(records(&mut first, 1).await[0].place, gone[0]);
}

pub async fn a_loss_of_all_records_is_told(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &TEN).await;
    bench.trim(&topic, 10).await;
    let mut consumer = bench.consumer(&topic, true).await;
    assert_eq!(assignments(&mut consumer).await[0].committed, None);
    let loss = removed(first(&topic), 0, 10);
    assert_eq!(losses(&mut consumer).await, [loss]);
    bench.append_each(&topic, &["10"]).await;
    assert_eq!(values(&records(&mut consumer, 1).await), ["10"]);
}

/// As after a topic was deleted and made again, or the log was put back to an earlier state.
pub async fn a_group_that_is_behind_the_end_begins_anew_and_says_so(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    bench.append_each(&topic, &TEN).await;
    let place = first(&topic);
    let mut consumer = bench.consumer(&topic, true).await;
    records(&mut consumer, 10).await;
    consumer.commit(&[(place.clone(), 50)]).await.unwrap();
    drop(consumer);
    let mut consumer = bench.consumer(&topic, true).await;
    let assignment = Assignment { place: place.clone(), committed: Some(50) };
    assert_eq!(assignments(&mut consumer).await, [assignment]);
    let anew = Loss { place: place.clone(), from: 50, to: 0, cause: LossCause::MadeAnew };
    assert_eq!(losses(&mut consumer).await, [anew]);
    let read = records(&mut consumer, 10).await;
    assert_eq!(values(&read), TEN);
    consumer.commit(&after(&read)).await.unwrap();
    assert_eq!(consumer.lag(HashMap::new()).await.unwrap(), 0);
}

pub async fn an_appender_needs_no_name_and_keeps_the_order(bench: Bench) {
    let topic = bench.topic("t", 3).await;
    let (mut one, mut two) = (bench.transport.appender().await.unwrap(), bench.transport.appender().await.unwrap());
    let mut expected = Vec::new();
    for round in 0..10 {
        for (appender, name) in [(&mut one, "one"), (&mut two, "two")] {
            let mut batch = Batch::new();
            for n in 0..300 {
                let value = format!("{name} {round} {n}");
                batch.push(&topic, 7, Some(format!("{}", n % 11).as_bytes()), Some(value.as_bytes()));
                expected.push(value);
            }
            batch.push(&topic, 7, None, None);
            batch.push(&topic, 7, Some(b""), Some(b""));
            appender.append(&batch).await.unwrap();
        }
    }
    let read = bench.all(&topic).await;
    let mut by_key: HashMap<Vec<u8>, Vec<String>> = HashMap::new();
    for record in read.iter().filter(|record| record.value.as_ref().is_some_and(|value| !value.is_empty())) {
        let key = record.key.clone().unwrap();
        assert_eq!(record.place.partition, partition_for_key(&key, 3));
        assert_eq!(record.timestamp_ms, 7);
        by_key.entry(key.to_vec()).or_default().push(text(&record.value));
    }
    assert_eq!(by_key.values().map(Vec::len).sum::<usize>(), expected.len());
    for values in by_key.values() {
        let order: Vec<usize> = values.iter().map(|value| expected.iter().position(|e| e == value).unwrap()).collect();
        assert!(order.is_sorted());
    }
    assert_eq!(read.iter().filter(|record| record.key.is_none() && record.value.is_none()).count(), 20);
    let empty = |bytes: &Option<bytes::Bytes>| bytes.as_ref().is_some_and(|bytes| bytes.is_empty());
    assert_eq!(read.iter().filter(|record| empty(&record.key) && empty(&record.value)).count(), 20);
}

pub async fn a_consumer_that_follows_another_has_the_same_partitions(bench: Bench) {
    let (live, bulk) = (bench.topic("live", 4).await, bench.topic("bulk", 4).await);
    let settings = |name: &str, topic: &Arc<str>| ConsumerSettings {
        group: bench.name(name),
        topics: vec![topic.to_string()],
        max_records: 100,
        from_start: true,
    };
    let open = async || bench.transport.consumers(settings("live", &live), settings("bulk", &bulk)).await.unwrap();
    let mut consumers: Vec<_> = open().await.into_iter().collect();
    consumers.extend(open().await);
    let mut has = [(); 4].map(|()| BTreeSet::new());
    let is_shared = |has: &[BTreeSet<u32>; 4]| {
        (0..2).all(|member| has[2 * member].len() == 2 && has[2 * member] == has[2 * member + 1])
    };
    while !is_shared(&has) {
        let (consumer, delivery) = any_delivery(&mut consumers).await;
        match delivery {
            Delivery::Assigned(news) => has[consumer].extend(news.iter().map(|news| news.place.partition)),
            Delivery::Revoked(places) => has[consumer].retain(|at| !places.iter().any(|place| place.partition == *at)),
            other => panic!("{other:?}"),
        }
    }
    assert!(has[0].is_disjoint(&has[2]));

    // What one has done in the second topic, the other goes on with.
    let keys: Vec<String> = (0..40).map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    bench.append(&mut bench.transport.appender().await.unwrap(), &bulk, &pairs).await;
    let mut seen = BTreeSet::new();
    while seen.len() < 40 {
        let (consumer, delivery) = any_delivery(&mut consumers).await;
        let Delivery::Records(records) = delivery else { panic!("{delivery:?}") };
        assert!(records.iter().all(|record| has[consumer].contains(&record.place.partition)));
        consumers[consumer].commit(&after(&records)).await.unwrap();
        seen.extend(values(&records));
    }
    assert_eq!(consumers[1].lag(HashMap::new()).await.unwrap() + consumers[3].lag(HashMap::new()).await.unwrap(), 0);
    consumers.truncate(2);
    while has[1].len() < 4 {
        if let (1, Delivery::Assigned(news)) = any_delivery(&mut consumers).await {
            assert!(news.iter().all(|news| news.committed.is_some()), "{news:?}");
            has[1].extend(news.iter().map(|news| news.place.partition));
        }
    }
    bench.append(&mut bench.transport.appender().await.unwrap(), &bulk, &[("new", "new")]).await;
    loop {
        if let (1, Delivery::Records(records)) = any_delivery(&mut consumers).await {
            assert_eq!(values(&records), ["new"]);
            break;
        }
    }
}

/// The next delivery of any of the consumers.
async fn any_delivery(consumers: &mut [Box<dyn Consumer>]) -> (usize, Delivery) {
    let waiting = async {
        loop {
            for (number, consumer) in consumers.iter_mut().enumerate() {
                let wait = std::time::Duration::from_millis(20);
                if let Ok(delivery) = tokio::time::timeout(wait, consumer.next()).await {
                    return (number, delivery.unwrap());
                }
            }
        }
    };
    tokio::time::timeout(crate::tools::PATIENCE, waiting).await.expect("no delivery came")
}

pub async fn a_newer_producer_fences_the_older(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut old = bench.producer().await;
    bench.append(&mut old, &topic, &[("a", "old")]).await;
    let mut new = bench.producer().await;
    let mut batch = Batch::new();
    batch.push(&topic, 1, Some(b"a"), Some(b"late"));
    for _ in 0..2 {
        let error = old.append(&batch).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        assert!(error.to_string().contains("took over"), "{error}");
    }
    for n in 0..4 {
        bench.append(&mut new, &topic, &[("a", &format!("new {n}"))]).await;
    }
    assert_eq!(values(&bench.all(&topic).await), ["old", "new 0", "new 1", "new 2", "new 3"]);
}

/// Several processes open the same producer at once: one of them goes on, and nobody's records are lost or come twice.
pub async fn of_several_that_open_at_once_one_goes_on(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut expected = Vec::new();
    for round in 0..5 {
        let (a, b, c) = tokio::join!(bench.producer(), bench.producer(), bench.producer());
        let mut alive = Vec::new();
        for (n, mut producer) in [a, b, c].into_iter().enumerate() {
            let mut all = true;
            for k in 0..4 {
                let value = format!("{round} {n} {k}");
                let mut batch = Batch::new();
                batch.push(&topic, 1, Some(b"a"), Some(value.as_bytes()));
                match producer.append(&batch).await {
                    Ok(()) => expected.push(value),
                    Err(error) => {
                        assert!(error.to_string().contains("took over"), "{error}");
                        all = false;
                    }
                }
            }
            if all {
                alive.push(n);
            }
        }
        assert_eq!(alive.len(), 1, "round {round}");
    }
    assert_eq!(values(&bench.all(&topic).await), expected);
}

pub async fn a_batch_of_a_hundred_thousand_records_is_one(bench: Bench) {
    const COUNT: usize = 100_000;
    let topic = bench.topic("t", 3).await;
    let name = bench.name("checkpoint");
    let mut producer = bench.producer().await;
    let mut batch = Batch::new();
    let filler = "x".repeat(300);
    for n in 0..COUNT {
        batch.push(&topic, 1, Some(n.to_string().as_bytes()), Some(format!("{n} {filler}").as_bytes()));
    }
    batch.checkpoint = Some(Checkpoint { name: name.clone(), content: "all".into() });
    let mut consumer = bench.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    let transport = bench.transport.clone();
    let appending = async { producer.append(&batch).await.unwrap() };
    let reading = async {
        // The first record is seen only when the checkpoint is.
        let first = records(&mut consumer, 1).await;
        assert!(transport.checkpoint(&name).await.unwrap().is_some());
        let mut read: BTreeSet<String> = first.iter().map(|record| text(&record.key)).collect();
        while read.len() < COUNT {
            read.extend(records(&mut consumer, 1).await.iter().map(|record| text(&record.key)));
        }
    };
    tokio::join!(appending, reading);
}

pub async fn watermarks_and_reads_without_a_group(bench: Bench) {
    let topic = bench.topic("t", 2).await;
    assert_eq!(bench.transport.partitions(&topic).await.unwrap(), 2);
    assert_eq!(bench.transport.partitions(&bench.name("none")).await.unwrap(), 0);
    let empty = Watermarks { low: 0, high: 0 };
    assert_eq!(bench.transport.watermarks(&topic).await.unwrap(), [empty, empty]);
    let mut producer = bench.producer().await;
    let keys: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    bench.append(&mut producer, &topic, &pairs).await;
    let all = bench.all(&topic).await;
    assert_eq!(all.len(), 50);
    for (partition, ends) in bench.transport.watermarks(&topic).await.unwrap().into_iter().enumerate() {
        let place = TopicPartition { topic: topic.clone(), partition: partition as u32 };
        let here: Vec<_> = all.iter().filter(|record| record.place == place).collect();
        assert!(ends.low == 0 && ends.high > here.last().unwrap().offset);
        let some = bench.transport.read(&place, here[3].offset, 5).await.unwrap();
        assert_eq!(some.iter().collect::<Vec<_>>(), here[3..8]);
        assert!(bench.transport.read(&place, ends.high, 5).await.unwrap().is_empty());
        assert!(bench.transport.read(&place, ends.high + 100, 5).await.unwrap().is_empty());
    }
    bench.transport.probe().await.unwrap();
}

pub async fn a_topic_has_an_identity(bench: Bench) {
    let (topic, other) = (bench.topic("t", 2).await, bench.topic("u", 1).await);
    let id = bench.transport.topic_id(&topic).await.unwrap();
    assert!(id.is_some());
    assert_ne!(bench.transport.topic_id(&other).await.unwrap(), id);
    bench.append_each(&topic, &TEN).await;
    // Asked for once more, and made sure of.
    bench.topic("t", 2).await;
    assert_eq!(bench.transport.topic_id(&topic).await.unwrap(), id);
    let error = bench.transport.topic_id(&bench.name("none")).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
}

pub async fn the_first_record_of_a_time_is_found(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let place = first(&topic);
    let at = async |time_ms| bench.transport.offset_at(&place, time_ms).await.unwrap();
    assert_eq!(at(0).await, 0);
    let mut appender = bench.transport.appender().await.unwrap();
    // Times need not rise: of the records of 30, the first one stands before one of 20.
    for times in [&[10, 10, 20][..], &[30, 20], &[30, 40]] {
        let mut batch = Batch::new();
        times.iter().for_each(|time| batch.push(&topic, *time, Some(b"k"), Some(b"v")));
        appender.append(&batch).await.unwrap();
    }
    let ask = async || {
        let mut found = Vec::new();
        for time in [-5, 0, 10, 11, 20, 21, 30, 31, 40, 41, i64::MAX] {
            found.push(at(time).await);
        }
        found
    };
    assert_eq!(ask().await, [0, 0, 0, 2, 2, 3, 3, 6, 6, 7, 7]);
    // What is gone is not found, nor is a time before it.
    bench.trim(&topic, 3).await;
    assert_eq!(ask().await, [3, 3, 3, 3, 3, 3, 3, 6, 6, 7, 7]);
    // What is committed in a transaction is found as well, and the end stands behind what says so.
    let mut batch = Batch::new();
    batch.push(&topic, 50, Some(b"k"), Some(b"v"));
    bench.producer().await.append(&batch).await.unwrap();
    assert_eq!(at(45).await, 7);
    assert!(at(51).await >= 8);
    let none = TopicPartition { topic: bench.name("none").into(), partition: 0 };
    assert_eq!(bench.transport.offset_at(&none, 0).await.unwrap_err().class, ErrorClass::Fatal);
}

pub async fn a_waiting_consumer_hears_of_an_append(bench: Bench) {
    let topic = bench.topic("t", 2).await;
    let mut producer = bench.producer().await;
    let mut consumer = bench.consumer(&topic, true).await;
    assigned(&mut consumer).await;
    for n in 0..20 {
        let value = n.to_string();
        let reading = records(&mut consumer, 1);
        let pairs = [("k", value.as_str())];
        let appending = bench.append(&mut producer, &topic, &pairs);
        let (read, ()) = tokio::join!(reading, appending);
        assert_eq!(values(&read), [value]);
    }
}

pub async fn lag_counts_what_is_not_committed(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    let keys: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), key.as_str())).collect();
    bench.append(&mut producer, &topic, &pairs).await;
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 30).await;
    // Kafka counts the mark of the transaction as well.
    assert!((30..=31).contains(&consumer.lag(HashMap::new()).await.unwrap()));
    consumer.commit(&after(&read[..10])).await.unwrap();
    assert!((20..=21).contains(&consumer.lag(HashMap::new()).await.unwrap()));
    consumer.commit(&after(&read)).await.unwrap();
    assert_eq!(consumer.lag(HashMap::new()).await.unwrap(), 0);
}

pub async fn a_member_without_partitions_has_no_lag(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    bench.append(&mut producer, &topic, &[("a", "1"), ("b", "2")]).await;
    let mut first = bench.consumer(&topic, true).await;
    assigned(&mut first).await;
    let mut second = bench.consumer(&topic, true).await;
    // Until the group has shared its partitions nothing is known, which is not 0.
    let shared = async {
        loop {
            match second.lag(HashMap::new()).await {
                Ok(lag) => break lag,
                Err(error) => assert_eq!(error.class, ErrorClass::Transient, "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    assert_eq!(tokio::time::timeout(crate::tools::PATIENCE, shared).await.expect("no lag is told"), 0);
    assert!(first.lag(HashMap::new()).await.unwrap() >= 2);
}

pub async fn a_topic_with_too_few_partitions_is_refused(bench: Bench) {
    let topic = bench.topic("t", 2).await;
    let retention = Retention::Delete { age: None, bytes: None };
    let spec = |partitions| TopicSpec { name: topic.to_string(), partitions, retention: retention.clone() };
    bench.transport.ensure_topics(&[spec(1), spec(2)]).await.unwrap();
    let error = bench.transport.ensure_topics(&[spec(6)]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    let text = error.to_string();
    assert!(text.contains(&*topic) && text.contains("has 2 partitions and needs 6"), "{text}");
}

pub async fn a_topic_of_another_retention_is_refused(bench: Bench) {
    let topic = bench.topic("t", 1).await;
    let spec = TopicSpec { name: topic.to_string(), partitions: 1, retention: Retention::Compact };
    let error = bench.transport.ensure_topics(&[spec]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.to_string().contains(&*topic), "{error}");
}

pub async fn an_unknown_topic_is_fatal(bench: Bench) {
    bench.topic("known", 1).await;
    let settings = tributary_transport::ConsumerSettings {
        group: bench.name("group"),
        topics: vec![bench.name("unknown")],
        max_records: 10,
        from_start: true,
    };
    let Err(error) = bench.transport.consumer(settings).await else { panic!("an unknown topic was joined") };
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.to_string().contains("does not exist"), "{error}");
}

pub async fn dead_letters_are_listed_and_replayed(bench: Bench) {
    let topic = bench.topic("t", 2).await;
    let letters = DeadLetters::new(bench.transport.clone(), bench.name("dead-letters"));
    letters.ensure().await.unwrap();
    assert_eq!(letters.list().await.unwrap(), []);
    let letter = |n: u64| DeadLetter {
        id: DeadLetter::id_of(&topic, 0, n, &format!("movies/{n}")),
        stage: "index movies".into(),
        topic: topic.to_string(),
        topic_id: None,
        partition: 0,
        offset: n,
        key: Some(format!("key {n}").into_bytes()),
        value: (n != 2).then(|| vec![0xff, n as u8]),
        headers: if n < 3 { Headers::of([("n", &[n as u8][..]), ("n", b"")]) } else { Headers::NONE },
        class: ErrorClass::Definite,
        cause: "refused".into(),
        attempts: 1,
        first_failed_us: n as i64,
        last_failed_us: 1_000_000,
        subject: format!("movies/{n}"),
        replays: Default::default(),
        way_back: WayBack::Topic,
        plan: None,
    };
    let mut producer = bench.producer().await;
    for n in 0..4 {
        let mut batch = Batch::new();
        letters.append_to(&mut batch, &letter(n));
        producer.append(&batch).await.unwrap();
    }
    // Set aside once more: the letter is replaced.
    let again = DeadLetter { attempts: 7, ..letter(1) };
    let mut batch = Batch::new();
    letters.append_to(&mut batch, &again);
    producer.append(&batch).await.unwrap();
    assert_eq!(letters.list().await.unwrap(), [letter(0), again.clone(), letter(2), letter(3)]);
    assert_eq!(letters.get(&again.id).await.unwrap(), Some(again.clone()));
    assert_eq!(letters.get("none").await.unwrap(), None);
    let (mut written, mut from) = (HashMap::new(), 0);
    loop {
        let (entries, next) = letters.follow::<Outline>(from).await.unwrap();
        if next == from || entries.is_empty() {
            break;
        }
        from = next;
        for entry in entries {
            assert_eq!(letters.at(entry.offset).await.unwrap().unwrap().id.as_bytes(), entry.id);
            written.insert(entry.id, entry.letter.unwrap().stage);
        }
    }
    assert_eq!((written.len(), written.values().all(|stage| stage == "index movies")), (4, true));

    let error = letters.replay(Some(&[letter(0).id, "none".into()])).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Definite);
    assert_eq!(letters.replay(Some(&[letter(1).id, letter(2).id])).await.unwrap(), 2);
    assert_eq!(letters.list().await.unwrap(), [letter(0), letter(3)]);
    let taken_out = letters.follow::<Outline>(from).await.unwrap().0;
    assert_eq!(taken_out.iter().filter(|entry| entry.letter.is_none()).count(), 2);
    let replayed = bench.all(&topic).await;
    assert!(replayed.iter().all(|r| r.headers == letter(text(&r.key)[4..].parse().unwrap()).headers));
    let replayed: HashMap<String, Option<Vec<u8>>> =
        replayed.into_iter().map(|r| (text(&r.key), r.value.map(|v| v.to_vec()))).collect();
    assert_eq!(replayed, HashMap::from([("key 1".into(), Some(vec![0xff, 1])), ("key 2".into(), None)]));
    let other = |found: &DeadLetter| (found.id == letter(3).id).then(|| b"other".to_vec());
    assert_eq!(letters.replay_as(other).await.unwrap(), 1);
    assert_eq!(letters.replay_as(other).await.unwrap(), 0);
    assert_eq!(letters.list().await.unwrap(), [letter(0)]);
    assert!(bench.all(&topic).await.iter().any(|r| text(&r.key) == "key 3" && text(&r.value) == "other"));
    assert_eq!(letters.replay(None).await.unwrap(), 1);
    assert_eq!(letters.list().await.unwrap(), []);
    assert_eq!(letters.replay(None).await.unwrap(), 0);
    let _: Arc<str> = topic;
}

pub async fn the_letter_of_an_event_that_is_too_large_for_it_leads_to_the_event(bench: Bench) {
    let (topic, replays) = (bench.topic("t", 1).await, bench.topic("replays", 1).await);
    let letters = DeadLetters::new(bench.transport.clone(), bench.name("dead-letters"));
    letters.ensure().await.unwrap();
    let mut producer = bench.producer().await;
    let large = "large".repeat(1000);
    bench.append(&mut producer, &topic, &[("a", "small")]).await;
    let mut batch = Batch::new();
    batch.push(&topic, 1, Some(b"b"), Some(large.as_bytes()));
    batch.header("of", b"the event");
    producer.append(&batch).await.unwrap();
    let event = bench.all(&topic).await.pop().unwrap();
    let place = format!("{topic}/0/{}", event.offset);
    let letter = DeadLetter {
        id: place.clone(),
        stage: "resolve".into(),
        topic: replays.to_string(),
        topic_id: None,
        partition: 0,
        offset: event.offset,
        key: Some(b"b".to_vec()),
        value: Some(large.clone().into_bytes()),
        headers: Headers::NONE,
        class: ErrorClass::Definite,
        cause: "refused".into(),
        attempts: 1,
        first_failed_us: 1,
        last_failed_us: 1,
        subject: place,
        replays: Default::default(),
        way_back: WayBack::Topic,
        plan: None,
    };
    let (_, short) = letter.encode(2_000);
    assert!(short.len() < 2_000);
    assert_eq!(serde_json::from_slice::<DeadLetter>(&letter.encode(10_000).1).unwrap(), letter);
    let mut batch = Batch::new();
    batch.push(&bench.name("dead-letters").into(), 1, Some(letter.id.as_bytes()), Some(&short));
    producer.append(&batch).await.unwrap();
    let listed = letters.list().await.unwrap();
    assert!(listed[0].cause.contains(&format!("5000 bytes, is too large for a letter; it lies in topic {topic} 0")));
    assert_eq!(letters.replay(None).await.unwrap(), 1);
    let replayed = bench.all(&replays).await;
    assert_eq!((text(&replayed[0].key), text(&replayed[0].value)), ("b".to_owned(), large));
    assert_eq!(replayed[0].headers.view().get("of"), Some(&b"the event"[..]));
    assert_eq!(letters.list().await.unwrap(), []);
}
