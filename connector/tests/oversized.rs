//! Events that are larger than the transport takes, on Kafka and on the embedded log.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_connector::{ConnectorError, ConnectorSettings, Oversized, OversizedPolicy};
use tributary_event::{ErrorClass, Health};
use tributary_transport::{
    DeadLetters, Embedded, EmbeddedSettings, Kafka, KafkaSettings, Retention, TopicPartition, TopicSpec, Transport,
};

use crate::support::{Database, postgres_mut, until};

/// What a transport of these tests takes.
const LIMIT: usize = 100_000;
/// A text that is larger.
const BODY: &str = "repeat(md5('body'), 10000)";

fn kafka(max_record: usize) -> Arc<dyn Transport> {
    let brokers = std::env::var("TRIBUTARY_TEST_KAFKA").expect("TRIBUTARY_TEST_KAFKA is not set: run ./x test");
    let checkpoint_topic = "connector.checkpoints".into();
    let settings = KafkaSettings { max_record, checkpoint_topic, ..KafkaSettings::single_broker(brokers) };
    Arc::new(Kafka::connect(settings).expect("settings"))
}

fn embedded(folder: &Path, max_record: usize) -> Arc<dyn Transport> {
    let settings = EmbeddedSettings { max_record, ..EmbeddedSettings::default() };
    Arc::new(Embedded::open(folder.join("log"), settings).expect("it opens"))
}

/// A connector that runs into a real transport.
struct Running {
    health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ConnectorError>>,
}

impl Running {
    fn start(settings: &ConnectorSettings, transport: &Arc<dyn Transport>) -> Self {
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let reporter = health.part("source");
        let run = tributary_connector::run(
            settings.clone(),
            transport.clone(),
            Arc::new(tributary_connector::Independent),
            reporter,
            shutdown.clone(),
        );
        Self { health, shutdown, task: tokio::spawn(run) }
    }

    /// The slot exists: what changes from now on is captured.
    async fn streaming(&self) {
        until("the source is up", async || {
            assert!(!self.task.is_finished(), "it stopped: {:?}", self.health.parts());
            self.health.is_up()
        })
        .await;
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("no panic").expect("no error");
    }

    async fn error(self) -> ConnectorError {
        self.task.await.expect("no panic").expect_err("an error")
    }
}

/// Every event of a topic.
async fn events(transport: &Arc<dyn Transport>, topic: &str) -> Vec<Json> {
    let mut events = Vec::new();
    for partition in 0..transport.partitions(topic).await.expect("partitions") {
        let place = TopicPartition { topic: topic.into(), partition };
        for record in transport.read(&place, 0, usize::MAX).await.expect("records") {
            events.extend(record.value.map(|value| serde_json::from_slice::<Json>(&value).expect("JSON")));
        }
    }
    events
}

async fn wait(transport: &Arc<dyn Transport>, topic: &str, count: usize) -> Vec<Json> {
    until("the events are there", async || events(transport, topic).await.len() >= count).await;
    events(transport, topic).await
}

async fn table(test: &str) -> Database {
    let db = Database::create(test).await;
    db.run("create table doc (id bigint primary key, parent bigint, title text, body text)").await;
    db.run("alter table doc alter body set storage external").await;
    db
}

#[tokio::test(flavor = "multi_thread")]
async fn on_kafka_the_connector_stops_at_it_and_goes_on_there_when_it_fits() {
    let db = table("oversized_stop").await;
    let settings = db.settings(&["doc"]);
    let topic = settings.topic("public", "doc");
    let small = kafka(LIMIT);
    let running = Running::start(&settings, &small);
    running.streaming().await;
    db.run("insert into doc values (1, 0, 'one', 'small')").await;
    wait(&small, &topic, 1).await;
    db.run(&format!(
        "begin; insert into doc values (2, 0, 'two', 'small'); insert into doc values (3, 0, 'three', {BODY}); \
         insert into doc values (4, 0, 'four', 'small'); commit; insert into doc values (5, 0, 'five', 'small')"
    ))
    .await;
    let mut error = running.error().await;
    let mut needed = 0;
    for _ in 0..2 {
        assert_eq!(error.class(), ErrorClass::Fatal);
        let text = error.to_string();
        for words in
            ["table public.doc", r#"{"id":3}"#, "max_record is 100000", "oversized: set-aside", "oversized: spill"]
        {
            assert!(text.contains(words), "{words:?} is missing in: {text}");
        }
        let (_, rest) = text.split_once("transport to ").expect("a remedy");
        needed = rest.split("KiB").next().and_then(|n| n.parse::<usize>().ok()).expect("a size") << 10;
        assert!((320_000..330_000).contains(&needed), "{text}");
        // Every start comes as far, and loses nothing.
        error = Running::start(&settings, &small).error().await;
    }
    let large = kafka(needed);
    let running = Running::start(&settings, &large);
    let events = wait(&large, &topic, 5).await;
    let ids: Vec<i64> = events.iter().filter_map(|event| event["after"]["id"].as_i64()).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    assert_eq!(events[2]["after"]["body"].as_str().map(str::len), Some(320_000));
    running.stop().await;
    db.remove().await;
}

/// Inserts, updates and deletes a large row of a table that logs whole rows, and writes a large message. Returns what was
/// published of the table, and of messages.
async fn captured(
    db: &Database,
    transport: &Arc<dyn Transport>,
    settings: &ConnectorSettings,
) -> (Vec<Json>, Vec<Json>) {
    db.run("alter table doc replica identity full").await;
    let running = Running::start(settings, transport);
    running.streaming().await;
    db.run(&format!("insert into doc values (1, 7, 'one', 'small'), (2, 7, 'two', {BODY})")).await;
    db.run("update doc set parent = 8 where id = 2").await;
    db.run("delete from doc where id = 2").await;
    db.run("select pg_logical_emit_message(true, 'large', repeat('m', 200000))").await;
    db.run("insert into doc values (3, 7, 'three', 'small')").await;
    let events = wait(transport, &settings.topic("public", "doc"), 5).await;
    running.stop().await;
    (events, self::events(transport, &settings.topic("", "message")).await)
}

fn with_policy(db: &Database, folder: &Path, policy: OversizedPolicy) -> ConnectorSettings {
    let mut settings = db.settings(&["doc"]);
    postgres_mut(&mut settings).messages = true;
    settings.oversized = Oversized {
        policy,
        folder: folder.join("oversized"),
        letters: format!("{}.dead-letters", db.name),
        replays: format!("{}.replays", db.name),
    };
    settings
}

fn whole(event: &Json) -> Json {
    let path = event["whole"].as_str().expect("the file of the whole event");
    serde_json::from_slice(&std::fs::read(path).expect("the file")).expect("JSON")
}

/// What every policy but to stop publishes.
fn assert_published(events: &[Json], messages: &[Json]) {
    let ops: Vec<_> = events.iter().map(|event| (event["op"].as_str(), event["whole"].is_string())).collect();
    let expected = [("c", false), ("c", true), ("u", true), ("d", true), ("c", false)];
    assert_eq!(ops, expected.map(|(op, whole)| (Some(op), whole)));
    let [_, insert, update, delete, _] = events else { panic!("{events:?}") };
    assert_eq!(insert["after"], serde_json::json!({"id": 2, "parent": 7, "title": "two"}));
    assert_eq!(insert["unchanged"], serde_json::json!(["body"]));
    // Where the row belonged before stays, so that what embeds it there is found.
    assert_eq!(update["before"], serde_json::json!({"id": 2, "parent": 7, "title": "two"}));
    assert_eq!(update["after"], serde_json::json!({"id": 2, "parent": 8, "title": "two"}));
    assert_eq!(delete["before"], serde_json::json!({"id": 2, "parent": 8, "title": "two"}));
    for (event, image) in [(insert, "after"), (update, "after"), (update, "before"), (delete, "before")] {
        let whole = whole(event);
        assert_eq!(whole[image]["body"].as_str().map(str::len), Some(320_000), "{image}");
        assert_eq!((&whole["source"], &whole["sequence"]), (&event["source"], &event["sequence"]));
    }
    let [message] = messages else { panic!("{messages:?}") };
    assert_eq!(message["message"], serde_json::json!({"prefix": "large", "content": ""}));
    assert!(whole(message)["message"]["content"].as_str().is_some_and(|content| content.len() > 200_000));
}

async fn spilled(transport: Arc<dyn Transport>, folder: &Path, test: &str) {
    let db = table(test).await;
    let settings = with_policy(&db, folder, OversizedPolicy::Spill);
    let (events, messages) = captured(&db, &transport, &settings).await;
    assert_published(&events, &messages);
    let letters = DeadLetters::new(transport, settings.oversized.letters.as_str());
    assert_eq!(letters.list().await.expect("letters"), []);
    db.remove().await;
}

async fn set_aside(transport: Arc<dyn Transport>, folder: &Path, test: &str) {
    let db = table(test).await;
    let settings = with_policy(&db, folder, OversizedPolicy::SetAside);
    let (events, messages) = captured(&db, &transport, &settings).await;
    assert_published(&events, &messages);
    let letters = DeadLetters::new(transport.clone(), settings.oversized.letters.as_str());
    let listed = letters.list().await.expect("letters");
    assert_eq!(listed.len(), 4);
    for words in ["table public.doc", r#"{"id":2}"#, "max_record is 100000", "body (after)", ".json"] {
        assert!(listed[0].cause.contains(words), "{words:?} is missing in: {}", listed[0].cause);
    }
    assert!(listed[0].cause.contains(events[1]["whole"].as_str().expect("a path")), "{}", listed[0].cause);
    // Replaying takes the letters out, and shows what was published to whoever builds from it.
    let replays = settings.oversized.replays.clone();
    let spec =
        TopicSpec { name: replays.clone(), partitions: 1, retention: Retention::Delete { age: None, bytes: None } };
    transport.ensure_topics(&[spec]).await.expect("a topic");
    assert_eq!(letters.replay(None).await.expect("replayed"), 4);
    assert_eq!(letters.list().await.expect("letters"), []);
    let replayed = self::events(&transport, &replays).await;
    assert_eq!(replayed.len(), 4);
    assert_eq!(replayed[0]["after"], events[1]["after"]);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_spilled_on_kafka() {
    let folder = tempfile::tempdir().expect("a folder");
    spilled(kafka(LIMIT), folder.path(), "oversized_spill").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_spilled_on_the_embedded_log() {
    let folder = tempfile::tempdir().expect("a folder");
    spilled(embedded(folder.path(), LIMIT), folder.path(), "oversized_spill").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_set_aside_on_kafka() {
    let folder = tempfile::tempdir().expect("a folder");
    set_aside(kafka(LIMIT), folder.path(), "oversized_set_aside").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_set_aside_on_the_embedded_log() {
    let folder = tempfile::tempdir().expect("a folder");
    set_aside(embedded(folder.path(), LIMIT), folder.path(), "oversized_set_aside").await;
}
