//! Through Kafka: what is published is there once for who reads what was committed, however often the source ends in its midst; and a
//! source whose checkpoint is gone says what it does not know.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_connector::{ConnectorError, ConnectorSettings};
use tributary_event::Health;
use tributary_transport::{Kafka, KafkaSettings, TopicPartition, Transport};

use crate::server::databases;
use crate::support::{Witness, until};

const ROUNDS: i64 = 4;
const UPDATES: i64 = 150;

/// The values of `x` behind each change of a topic, as who reads what was committed has them.
async fn values(kafka: &dyn Transport, topic: &str) -> Vec<i64> {
    let mut values = Vec::new();
    let ends = kafka.watermarks(topic).await.unwrap_or_default();
    for (partition, ends) in ends.into_iter().enumerate() {
        let place = TopicPartition { topic: topic.into(), partition: partition as u32 };
        let mut offset = ends.low;
        loop {
            let some = kafka.read(&place, offset, 1_000).await.expect("records");
            let Some(last) = some.last() else { break };
            offset = last.offset + 1;
            let value = |value: &[u8]| serde_json::from_slice::<Json>(value).expect("JSON")["after"]["x"].as_i64();
            values.extend(some.iter().filter_map(|record| value(record.value.as_deref()?)));
        }
    }
    values
}

struct Source {
    health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ConnectorError>>,
}

impl Source {
    fn start(settings: &ConnectorSettings, kafka: KafkaSettings, witness: &Arc<Witness>) -> Self {
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        // A client of its own, as another process has one.
        let transport = Arc::new(Kafka::connect(kafka).expect("settings"));
        let reporter = health.part("source");
        let task = tributary_connector::run(settings.clone(), transport, witness.clone(), reporter, shutdown.clone());
        Self { health, shutdown, task: tokio::spawn(task) }
    }

    async fn up(&self) {
        until("the source is up", async || {
            assert!(!self.task.is_finished(), "it stopped: {:?}", self.health.parts());
            self.health.is_up()
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_there_once_and_a_checkpoint_that_is_gone_is_told() {
    let Ok(brokers) = std::env::var("TRIBUTARY_TEST_KAFKA") else {
        eprintln!("NOT TESTED: TRIBUTARY_TEST_KAFKA is not set");
        return;
    };
    for mut db in databases("kafka").await {
        db.run("create table t (id int primary key, x bigint not null)").await;
        db.run("insert into t values (1, 0)").await;
        let checkpoint_topic = format!("{}.checkpoints", db.name);
        let kafka_settings = || {
            let checkpoint_topic = checkpoint_topic.clone();
            KafkaSettings { checkpoint_topic, ..KafkaSettings::single_broker(brokers.as_str()) }
        };
        let kafka = Kafka::connect(kafka_settings()).expect("settings");
        let (settings, topic) = (db.settings(&["t"]), format!("{0}.{0}.t", db.name));
        let witness = Arc::new(Witness::new(|_| Ok(())));
        let mut source = Source::start(&settings, kafka_settings(), &witness);
        source.up().await;
        for round in 0..ROUNDS {
            for update in 1..=UPDATES {
                db.run("update t set x = x + 1").await;
                if update == UPDATES / 2 {
                    source.task.abort();
                    let _ = source.task.await;
                    source = Source::start(&settings, kafka_settings(), &witness);
                }
            }
            let count = ((round + 1) * UPDATES) as usize;
            until("all are there", async || values(&kafka, &topic).await.len() >= count).await;
        }
        assert_eq!(values(&kafka, &topic).await, (1..=ROUNDS * UPDATES).collect::<Vec<_>>());
        assert_eq!(witness.doubts(), []);
        source.shutdown.cancel();
        source.task.await.expect("no panic").expect("no error");
        // What nobody reads then is in no topic, and that is told.
        kafka.delete_topic(&checkpoint_topic).await.expect("deleted");
        until("it is gone", async || kafka.partitions(&checkpoint_topic).await.map_or(true, |count| count == 0)).await;
        db.run("update t set x = -1").await;
        let source = Source::start(&settings, kafka_settings(), &witness);
        source.up().await;
        db.run("update t set x = -2").await;
        until("it goes on", async || values(&kafka, &topic).await.last() == Some(&-2)).await;
        assert_eq!(values(&kafka, &topic).await.len() as i64, ROUNDS * UPDATES + 1);
        let doubts = witness.doubts();
        assert!(doubts.iter().any(|doubt| *doubt.table.name == *"t" && doubt.why.contains("checkpoint")), "{doubts:?}");
        source.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(60), source.task).await.expect("it ends");
        ended.expect("no panic").expect("no error");
        db.remove().await;
    }
}
