//! What only Kafka has.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use tributary_event::ErrorClass;
use tributary_stack::KafkaOptions;
use tributary_transport::{
    Appending, Batch, Compression, Consumer, Kafka, KafkaSettings, Purpose, Retention, TopicSpec, Transport,
    record_limit,
};

use crate::tools::{Bench, PATIENCE, after, kafka, kafka_by, kafka_options, kafka_settings, records, values};

async fn property(topic: &str, name: &str) -> String {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka_settings().brokers).create().unwrap();
    let asked = [ResourceSpecifier::Topic(topic)];
    let found = admin.describe_configs(&asked, &AdminOptions::new()).await.unwrap();
    found[0].as_ref().unwrap().get(name).unwrap().value.clone().unwrap()
}

#[tokio::test]
async fn a_new_topic_has_the_configured_retention_and_safety() {
    let bench = Bench::new(std::sync::Arc::new(kafka()), "retention");
    let delete = Retention::Delete { age: Some(Duration::from_secs(3600)), bytes: Some(1 << 30) };
    let topic = bench.topic_with("delete", 2, delete).await;
    assert_eq!(property(&topic, "cleanup.policy").await, "delete");
    assert_eq!(property(&topic, "retention.ms").await, "3600000");
    assert_eq!(property(&topic, "retention.bytes").await, "1073741824");
    assert_eq!(property(&topic, "min.insync.replicas").await, "1");
    assert_eq!(property(&topic, "unclean.leader.election.enable").await, "false");
    let topic = bench.topic_with("compact", 1, Retention::Compact).await;
    assert_eq!(property(&topic, "cleanup.policy").await, "compact");
}

#[tokio::test]
async fn strict_durability_refuses_a_topic_with_too_few_replicas() {
    let bench = Bench::new(std::sync::Arc::new(kafka()), "strict");
    let topic = bench.topic("t", 1).await;
    let strict = Kafka::connect(KafkaSettings { replication: 3, min_insync: 2, ..kafka_settings() }).unwrap();
    let retention = Retention::Delete { age: None, bytes: None };
    let spec = tributary_transport::TopicSpec { name: topic.to_string(), partitions: 1, retention };
    let error = strict.ensure_topics(&[spec]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    let text = error.to_string();
    assert!(text.contains("1 of the 3 copies") && text.contains("write `replication: 1`"), "{text}");
}

/// What nothing but the number of brokers stands in the way of is waited for, and told with what to write instead.
#[tokio::test]
async fn more_copies_than_brokers_are_told_with_what_to_write() {
    let bench = Bench::new(std::sync::Arc::new(kafka()), "copies");
    let spec =
        TopicSpec { name: bench.name("t"), partitions: 1, retention: Retention::Delete { age: None, bytes: None } };
    let default = Kafka::connect(KafkaSettings::new(kafka_settings().brokers)).unwrap();
    let error = default.ensure_topics(std::slice::from_ref(&spec)).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    let text = error.to_string();
    assert!(text.contains("1 broker now") && text.contains("replication: 1 }"), "{text}");
    kafka().ensure_topics(&[spec]).await.unwrap();
}

/// A broker that is alone and was configured for three, as it comes: Kafka's own topics cannot be made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_waits_for_others_is_told_with_what_to_configure() {
    let stock = [
        ("offsets.topic.replication.factor", "3"),
        ("transaction.state.log.replication.factor", "3"),
        ("transaction.state.log.min.isr", "2"),
    ];
    let settings = stock.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let alone = KafkaOptions { settings, ..kafka_options() };
    let alone = tributary_stack::Kafka::start(alone).await.unwrap();
    let transport = Kafka::connect(KafkaSettings::single_broker(alone.bootstrap())).unwrap();
    let error = transport.ensure_topics(&[]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    let text = error.to_string();
    for (name, value) in stock {
        assert!(text.contains(&format!("{name}={value}")), "{text}");
    }
    assert!(text.contains("set these to 1"), "{text}");
}

/// Records of a transaction that was aborted: they have offsets, and nobody is given them.
async fn abort(id: &str, topic: &str, records: u32) {
    let (id, topic) = (id.to_owned(), topic.to_owned());
    let aborting = move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", kafka_settings().brokers)
            .set("transactional.id", &id)
            .create()
            .unwrap();
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for number in 0..records {
            let value = number.to_string();
            producer.send(BaseRecord::<(), str>::to(&topic).payload(&value).partition(0)).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        producer.abort_transaction(PATIENCE).unwrap();
    };
    tokio::task::spawn_blocking(aborting).await.unwrap();
}

async fn no_lag(consumer: &mut Box<dyn Consumer>) {
    let started = Instant::now();
    while consumer.lag(HashMap::new()).await.unwrap() > 0 {
        assert!(started.elapsed() < PATIENCE, "there is a lag although every record is committed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_aborted_transaction_left_at_the_end_is_no_lag() {
    let bench = Bench::new(Arc::new(kafka()), "aborted");
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    bench.append(&mut producer, &topic, &[("a", "1")]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    let read = records(&mut consumer, 1).await;
    consumer.commit(&after(&read)).await.unwrap();
    abort(&format!("{topic}.aborter"), &topic, 40).await;
    no_lag(&mut consumer).await;
    abort(&format!("{topic}.aborter"), &topic, 40).await;
    bench.append(&mut producer, &topic, &[("a", "2")]).await;
    let read = records(&mut consumer, 1).await;
    assert!(consumer.lag(HashMap::new()).await.unwrap() >= 1, "it is not committed");
    assert!(consumer.lag(HashMap::new()).await.unwrap() >= 1, "nor is it at the second look");
    consumer.commit(&after(&read)).await.unwrap();
    no_lag(&mut consumer).await;
}

/// A transaction with a record of the topic, as a process that died in the middle of an append left it.
async fn leave_open(id: &str, topic: &str) {
    let dead: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka_settings().brokers)
        .set("transactional.id", id)
        .create()
        .unwrap();
    let (limit, topic) = (Duration::from_secs(30), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        dead.init_transactions(limit).unwrap();
        dead.begin_transaction().unwrap();
        dead.send(BaseRecord::to(&topic).key("k").payload("half")).map_err(|(error, _)| error).unwrap();
        dead.flush(limit).unwrap();
        std::mem::forget(dead);
    })
    .await
    .unwrap();
}

async fn an_unfinished_transaction_is_never_seen_and_ends_when_its_producer_is_opened_again(appending: Appending) {
    let bench = Bench::new(std::sync::Arc::new(kafka_by(appending)), "unfinished");
    let topic = bench.topic("t", 1).await;
    let id = bench.name("producer");
    leave_open(&id, &topic).await;
    assert!(bench.all(&topic).await.is_empty());

    let mut producer = bench.transport.producer(&id, Purpose::Source).await.unwrap();
    let mut batch = Batch::new();
    batch.push(&topic, 1, Some(b"k"), Some(b"whole"));
    producer.append(&batch).await.unwrap();
    let mut consumer = bench.consumer(&topic, true).await;
    assert_eq!(values(&records(&mut consumer, 1).await), ["whole"]);
    assert_eq!(values(&bench.all(&topic).await), ["whole"]);
}

async fn a_record_that_is_too_large_fails_alone_and_the_producer_goes_on(appending: Appending) {
    let small = Kafka::connect(KafkaSettings { max_record: 2000, ..kafka_settings() }).unwrap();
    let bench = Bench::new(std::sync::Arc::new(small), "too-large");
    let topic = bench.topic("t", 1).await;
    let large = Bench::new(std::sync::Arc::new(kafka_by(appending)), "too-large");
    let mut producer = large.producer().await;
    let mut batch = Batch::new();
    batch.push(&topic, 1, Some(b"k"), Some(b"small"));
    batch.push(
        &topic,
        1,
        Some(b"k"),
        Some(&(0..30_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<u8>>()),
    );
    let error = producer.append(&batch).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Definite, "{error}");
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
    bench.append(&mut producer, &topic, &[("k", "next")]).await;
    assert_eq!(values(&bench.all(&topic).await), ["next"]);
}

/// Bytes that do not become fewer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn a_topic_is_raised_to_max_record_and_takes_the_largest_record(appending: Appending) {
    let small = Kafka::connect(KafkaSettings { max_record: 100_000, ..kafka_settings() }).unwrap();
    let before = Bench::new(std::sync::Arc::new(small), "raised");
    let hour = Retention::Delete { age: Some(Duration::from_secs(3600)), bytes: None };
    let topic = before.topic_with("t", 1, hour.clone()).await;
    let taken = property(&topic, "max.message.bytes").await.parse::<usize>().unwrap();
    assert!((record_limit(100_000)..300_000).contains(&taken), "{taken}");
    for compression in [Compression::Lz4, Compression::Zstd] {
        let settings = KafkaSettings { max_record: 3_000_000, compression, appending, ..kafka_settings() };
        let bench = Bench::new(std::sync::Arc::new(Kafka::connect(settings).unwrap()), "raised");
        let spec = TopicSpec { name: topic.to_string(), partitions: 1, retention: hour.clone() };
        bench.transport.ensure_topics(&[spec]).await.unwrap();
        assert!(property(&topic, "max.message.bytes").await.parse::<usize>().unwrap() > record_limit(3_000_000));
        // What else it was told stays.
        assert_eq!(property(&topic, "retention.ms").await, "3600000");
        let mut producer = bench.producer().await;
        let mut batch = Batch::new();
        let value = noise(record_limit(3_000_000) - 1);
        batch.push(&topic, 1, Some(b"k"), Some(&value));
        producer.append(&batch).await.unwrap();
        let mut consumer = bench.consumer(&topic, true).await;
        let read = records(&mut consumer, 1).await;
        assert_eq!(read.last().unwrap().value.as_deref(), Some(&value[..]));
        batch.clear();
        batch.push(&topic, 1, Some(b"k"), Some(&noise(record_limit(3_000_000))));
        let error = producer.append(&batch).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Definite, "{error}");
        assert!(error.to_string().contains("raise the transport's `max_record`"), "{error}");
    }
}

#[tokio::test]
async fn brokers_that_take_less_than_max_record_are_told_at_the_start_with_a_remedy_that_works() {
    let large = Kafka::connect(KafkaSettings { max_record: 128 << 20, ..kafka_settings() }).unwrap();
    let error = large.ensure_topics(&[]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    let text = error.to_string();
    assert!(text.contains("104857600") && text.contains("socket.request.max.bytes"), "{text}");
    let remedy = text.rsplit(' ').next().and_then(|size| size.strip_suffix("MiB")).unwrap().parse::<usize>().unwrap();
    let lowered = Kafka::connect(KafkaSettings { max_record: remedy << 20, ..kafka_settings() }).unwrap();
    let checkpoints = Bench::new(std::sync::Arc::new(lowered), "brokers");
    checkpoints.topic("t", 1).await;
}

async fn checkpoints_behind_an_unfinished_transaction_of_another_are_waited_for(appending: Appending) {
    let bench = Bench::new(std::sync::Arc::new(kafka()), "hidden");
    let checkpoint_topic = bench.name("checkpoints");
    let settings = KafkaSettings { checkpoint_topic: checkpoint_topic.clone(), appending, ..kafka_settings() };
    let transport = Kafka::connect(settings).unwrap();
    transport.ensure_topics(&[]).await.unwrap();
    let mut producer = transport.producer(&bench.name("ours"), Purpose::Source).await.unwrap();
    let another = bench.name("another");
    leave_open(&another, &checkpoint_topic).await;
    let mut batch = Batch::new();
    batch.checkpoint = Some(tributary_transport::Checkpoint { name: "ours".into(), content: "1".into() });
    producer.append(&batch).await.unwrap();
    let error = transport.checkpoints_are_readable().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient, "{error}");
    assert!(error.to_string().contains("unfinished transaction"), "{error}");
    // The other comes back.
    drop(transport.producer(&another, Purpose::Source).await.unwrap());
    transport.checkpoints_are_readable().await.unwrap();
    assert_eq!(transport.checkpoint("ours").await.unwrap().as_deref(), Some(b"1".as_slice()));
}

#[tokio::test]
async fn checkpoints_are_found_where_they_were_kept_before() {
    let bench = Bench::new(Arc::new(kafka()), "moved");
    let (before, now) = (bench.name("before"), bench.name("now"));
    let checkpoint = |content: &'static str| {
        let mut batch = Batch::new();
        batch.checkpoint = Some(tributary_transport::Checkpoint { name: "ours".into(), content: content.into() });
        batch
    };
    let settings = KafkaSettings { checkpoint_topic: before.clone(), ..kafka_settings() };
    let transport = Kafka::connect(settings.clone()).unwrap();
    transport.ensure_topics(&[]).await.unwrap();
    let id = bench.name("ours");
    let mut producer = transport.producer(&id, Purpose::Source).await.unwrap();
    producer.append(&checkpoint("1")).await.unwrap();
    let settings = KafkaSettings { checkpoint_topic: now, former_checkpoint_topic: Some(before.clone()), ..settings };
    let transport = Kafka::connect(settings).unwrap();
    assert_eq!(transport.checkpoint("ours").await.unwrap().as_deref(), Some(b"1".as_slice()));
    transport.ensure_topics(&[]).await.unwrap();
    assert_eq!(transport.checkpoint("another").await.unwrap(), None);
    // What another left unfinished there concerns only whose checkpoint is still there.
    let another = bench.name("another");
    leave_open(&another, &before).await;
    assert_eq!(transport.checkpoint("ours").await.unwrap_err().class, ErrorClass::Transient);
    let mut producer = transport.producer(&id, Purpose::Source).await.unwrap();
    producer.append(&checkpoint("2")).await.unwrap();
    transport.checkpoints_are_readable().await.unwrap();
    assert_eq!(transport.checkpoint("ours").await.unwrap().as_deref(), Some(b"2".as_slice()));
    drop(transport.producer(&another, Purpose::Source).await.unwrap());
}

async fn a_process_that_wakes_up_late_leaves_its_successor_alone(appending: Appending) {
    let bench = Bench::new(std::sync::Arc::new(kafka_by(appending)), "late");
    let topic = bench.topic("t", 1).await;
    for appended_before in [0, 1, 2] {
        let mut old = bench.producer().await;
        for _ in 0..appended_before {
            bench.append(&mut old, &topic, &[("k", "old")]).await;
        }
        let mut new = bench.producer().await;
        for _ in 0..3 {
            bench.append(&mut new, &topic, &[("k", "new")]).await;
        }
        let mut batch = Batch::new();
        batch.push(&topic, 1, Some(b"k"), Some(b"late"));
        let error = old.append(&batch).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
        for _ in 0..3 {
            bench.append(&mut new, &topic, &[("k", "new")]).await;
        }
    }
    let read = values(&bench.all(&topic).await);
    assert_eq!(read.iter().filter(|value| *value == "new").count(), 18);
    assert!(!read.contains(&"late".to_owned()), "{read:?}");
}

async fn a_topic_that_takes_little_at_a_time_gets_all(appending: Appending) {
    let small = Kafka::connect(KafkaSettings { max_record: 20_000, appending, ..kafka_settings() }).unwrap();
    let bench = Bench::new(std::sync::Arc::new(small), "little");
    let topic = bench.topic("t", 1).await;
    let mut producer = bench.producer().await;
    let mut batch = Batch::new();
    for n in 0..500_u32 {
        // Not to be compressed.
        let noise: Vec<u8> =
            (0..1000_u32).flat_map(|m| (n * 1000 + m).wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        batch.push(&topic, 1, Some(&n.to_be_bytes()), Some(&noise));
    }
    producer.append(&batch).await.unwrap();
    producer.append(&batch).await.unwrap();
    assert_eq!(bench.all(&topic).await.len(), 1000);
    bench.transport.appender().await.unwrap().append(&batch).await.unwrap();
    assert_eq!(bench.all(&topic).await.len(), 1500);
}

const CHILD: &str = "TRIBUTARY_TEST_CHILD_TOPIC";
const CHILDS_PURPOSE: &str = "TRIBUTARY_TEST_CHILD_PURPOSE";

/// Not a test by itself: the process that [`readers_wait_for_seconds`] kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_appends_pages_until_it_is_killed() {
    let Ok(topic) = std::env::var(CHILD) else { return };
    let topic: Arc<str> = topic.into();
    let purpose = std::env::var(CHILDS_PURPOSE).unwrap();
    let purpose = [Purpose::Stage, Purpose::Stream].into_iter().find(|known| format!("{known:?}") == purpose).unwrap();
    let mut producer = kafka().producer(&format!("{topic}.child"), purpose).await.unwrap();
    let mut batch = Batch::new();
    for n in 0..20_000_u32 {
        batch.push(&topic, 1, Some(&n.to_be_bytes()), Some(n.to_string().repeat(40).as_bytes()));
    }
    loop {
        producer.append(&batch).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_wait_for_seconds_when_a_stage_is_killed_in_the_middle_of_an_append() {
    readers_wait_for_seconds(Purpose::Stage).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_wait_for_seconds_when_a_stream_is_killed_in_the_middle_of_an_append() {
    readers_wait_for_seconds(Purpose::Stream).await;
}

/// The dead process's successor has another name, so nobody ends what it left unfinished but the brokers.
async fn readers_wait_for_seconds(purpose: Purpose) {
    let bench = Bench::new(Arc::new(kafka()), "killed");
    let topic = bench.topic("t", 1).await;
    let [committed, uncommitted] = ["read_committed", "read_uncommitted"].map(|isolation| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", kafka_settings().brokers).set("isolation.level", isolation);
        config.create::<BaseConsumer>().unwrap()
    });
    let end = |consumer: &BaseConsumer| consumer.fetch_watermarks(&topic, 0, PATIENCE).unwrap().1;
    // Of a transaction that is committed this moment, readers wait for the end.
    let is_open = async || {
        let appended = end(&uncommitted) as u64;
        bench.transport.watermarks(&topic).await.unwrap()[0].high < appended
    };
    loop {
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kafka::child_that_appends_pages_until_it_is_killed"])
            .env(CHILD, &*topic)
            .env(CHILDS_PURPOSE, format!("{purpose:?}"))
            .spawn()
            .unwrap();
        let (start, mut has_begun) = (Instant::now(), false);
        while !has_begun && start.elapsed() < PATIENCE {
            has_begun = end(&uncommitted) > end(&committed);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_begun, "the child appends nothing");
        if is_open().await {
            break;
        }
    }
    let killed = Instant::now();
    bench.append_each(&topic, &["behind it"]).await;
    let mut consumer = bench.consumer(&topic, true).await;
    while values(&records(&mut consumer, 1).await).last().unwrap() != "behind it" {}
    // Brokers look every ten seconds for transactions that took too long, and one with much to do somewhat later. Of a source they
    // would wait for minutes.
    assert!(killed.elapsed() < Purpose::Source.limit() / 4, "{:?}", killed.elapsed());
}

#[tokio::test]
async fn brokers_that_are_away_are_transient_and_named() {
    let mut settings = KafkaSettings::single_broker("127.0.0.1:1");
    settings.properties.insert("sasl.password".into(), "hunter2".into());
    assert!(!format!("{settings:?}").contains("hunter2"));
    let away = Kafka::connect(settings).unwrap();
    let error = away.probe().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

crate::either_way! {
    an_unfinished_transaction_is_never_seen_and_ends_when_its_producer_is_opened_again,
    a_record_that_is_too_large_fails_alone_and_the_producer_goes_on,
    a_topic_is_raised_to_max_record_and_takes_the_largest_record,
    checkpoints_behind_an_unfinished_transaction_of_another_are_waited_for,
    a_process_that_wakes_up_late_leaves_its_successor_alone,
    a_topic_that_takes_little_at_a_time_gets_all,
}

/// A process that appends through librdkafka takes over from one that has two identities, and the other way round.
#[tokio::test]
async fn either_way_of_appending_fences_the_other() {
    for before in 0..3 {
        let [ours, library] = [Appending::Fitting, Appending::Library].map(kafka_by);
        let bench = Bench::new(std::sync::Arc::new(ours), "ways");
        let topic = bench.topic("t", 1).await;
        let id = bench.name("producer");
        let mut batch = Batch::new();
        batch.push(&topic, 1, Some(b"k"), Some(b"v"));
        let mut old = bench.transport.producer(&id, Purpose::Source).await.unwrap();
        for way in [Appending::Library, Appending::Fitting] {
            for _ in 0..before {
                old.append(&batch).await.unwrap();
            }
            let transport: &dyn Transport = if way == Appending::Library { &library } else { &*bench.transport };
            let mut new = transport.producer(&id, Purpose::Source).await.unwrap();
            // Not even what the older one would append with its other identity.
            for _ in 0..2 {
                let error = old.append(&batch).await.unwrap_err();
                assert_eq!(error.class, ErrorClass::Fatal, "{error}");
                assert!(error.to_string().contains("another process took over"), "{error}");
            }
            new.append(&batch).await.unwrap();
            old = new;
        }
        assert_eq!(bench.all(&topic).await.len(), 2 * before + 2);
    }
}
