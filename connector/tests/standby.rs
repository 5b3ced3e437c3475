//! Several processes of one source: one publishes, the others wait for their turn, and none takes the other's progress for loss.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value as Json;
use tokio::task::JoinHandle;
use tributary_connector::Independent;
use tributary_connector::postgres::prepare;
use tributary_event::{ErrorClass, HealthState, Lsn};
use tributary_transport::{
    Consumer, ConsumerSettings, Polled, Producer, Purpose, TopicId, TopicPartition, TopicSpec, Transport,
    TransportError, Watermarks,
};

use crate::support::{Database, Record, Recorder, Running, connect, drop_slot, postgres, until};

/// A session that inserts one row after the other, each in a transaction of its own.
struct Writer {
    /// The last row that was committed.
    last: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    async fn start(url: &str) -> Self {
        let sql = connect(url).await;
        let (last, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let (written, ended) = (last.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let insert = sql.prepare("insert into t values ($1)").await.expect("a statement");
            while !ended.load(Ordering::Acquire) {
                let next = written.load(Ordering::Acquire) + 1;
                sql.execute(&insert, &[&next]).await.expect("a row");
                written.store(next, Ordering::Release);
            }
        });
        Self { last, stop, task }
    }

    /// Waits until so many more rows are written.
    async fn go_on(&self, rows: i64) {
        let from = self.last.load(Ordering::Acquire);
        until("rows are written", async || self.last.load(Ordering::Acquire) >= from + rows).await;
    }

    /// Ends the writing; returns how many rows there are.
    async fn stop(self) -> i64 {
        self.stop.store(true, Ordering::Release);
        self.task.await.expect("no panic");
        self.last.load(Ordering::Acquire)
    }
}

/// A transport that answers what a checkpoint was, when the slot has gone on behind it.
struct Overtaken {
    transport: Recorder,
    url: String,
    slot: String,
}

#[async_trait]
impl Transport for Overtaken {
    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        let answer = self.transport.checkpoint(name).await?;
        let read: Option<Lsn> = answer.as_ref().and_then(|content| {
            let checkpoint: Json = serde_json::from_slice(content).expect("JSON");
            serde_json::from_value(checkpoint["lsn"].clone()).ok()
        });
        if let Some(read) = read {
            let sql = connect(&self.url).await;
            let confirmed =
                format!("select confirmed_flush_lsn::text from pg_replication_slots where slot_name = '{}'", self.slot);
            let stands = async || {
                let row = sql.query_one(&confirmed, &[]).await.expect("a slot");
                row.get::<_, String>(0).parse::<Lsn>().expect("a position")
            };
            while stands().await <= read {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        Ok(answer)
    }

    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TransportError> {
        self.transport.ensure_topics(topics).await
    }

    async fn partitions(&self, topic: &str) -> Result<u32, TransportError> {
        self.transport.partitions(topic).await
    }

    async fn producer(&self, name: &str, purpose: Purpose) -> Result<Box<dyn Producer>, TransportError> {
        self.transport.producer(name, purpose).await
    }

    async fn consumer(&self, settings: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        self.transport.consumer(settings).await
    }

    async fn consumers(
        &self,
        leading: ConsumerSettings,
        following: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError> {
        self.transport.consumers(leading, following).await
    }

    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError> {
        self.transport.appender().await
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<Watermarks>, TransportError> {
        self.transport.watermarks(topic).await
    }

    async fn read(&self, place: &TopicPartition, offset: u64, max: usize) -> Result<Vec<Polled>, TransportError> {
        self.transport.read(place, offset, max).await
    }

    async fn topic_id(&self, topic: &str) -> Result<Option<TopicId>, TransportError> {
        self.transport.topic_id(topic).await
    }

    async fn offset_at(&self, place: &TopicPartition, time_ms: i64) -> Result<u64, TransportError> {
        self.transport.offset_at(place, time_ms).await
    }

    async fn probe(&self) -> Result<(), TransportError> {
        self.transport.probe().await
    }
}

fn ids(records: &[Record]) -> Vec<i64> {
    records.iter().filter_map(|r| r.get("/after/id").as_i64()).collect()
}

async fn wait_standby(running: &Running) {
    until("it is a standby", async || running.health.state() == HealthState::Standby).await;
    let part = running.health.parts()["source"].clone();
    assert!(part.why.as_ref().is_some_and(|why| why.contains("another process reads it")), "{part:?}");
}

/// The slot of a busy source is always on its way: what a standby reads of it is older or newer than the checkpoint it has read.
#[tokio::test(flavor = "multi_thread")]
async fn standbys_that_start_beside_a_busy_process_wait_and_take_over() {
    let db = Database::create("busy").await;
    db.run("create table t (id int8 primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let slot = postgres(&settings).slot.clone();
    let mut active = Running::streaming(&settings, &recorder).await;
    let writer = Writer::start(&db.url).await;
    for round in 0..4 {
        writer.go_on(200).await;
        let overtaken = Overtaken { transport: recorder.clone(), url: db.url.clone(), slot: slot.clone() };
        prepare(&settings, &overtaken, &Independent).await.expect("what is captured meanwhile is no loss");
        let standby = Running::start(&settings, &recorder);
        wait_standby(&standby).await;
        writer.go_on(200).await;
        // In good order, and as `kill -9` does.
        if round % 2 == 0 {
            active.stop().await
        } else {
            active.kill().await
        }
        standby.wait_up().await;
        active = standby;
    }
    let count = writer.stop().await;
    let records = recorder.wait(count as usize).await;
    assert!(ids(&records).into_iter().eq(1..=count), "not each once, in order");
    active.stop().await;
    db.remove().await;
}

/// Processes that start at once, before there is a slot: one makes it, which takes as long as an older transaction, and the
/// others do not take it for one whose creation was interrupted.
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_while_the_slot_is_made_wait() {
    let db = Database::create("atonce").await;
    db.run("create table t (id int8 primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let older = connect(&db.url).await;
    older.batch_execute("begin; insert into t values (1)").await.expect("an open transaction");
    let slot = &postgres(&settings).slot;
    let all: Vec<Running> = (0..3).map(|_| Running::start(&settings, &recorder)).collect();
    let being_made = format!("select 'yes' from pg_replication_slots where slot_name = '{slot}' and active");
    until("the slot is being made", async || db.text(&being_made).await.is_some()).await;
    let standby = |one: &&Running| one.health.state() == HealthState::Standby;
    until("two wait for the third", async || all.iter().filter(standby).count() == 2).await;
    let error = prepare(&settings, &recorder, &Independent).await.expect_err("it is not ready");
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(error.to_string().contains("is making it"), "{error}");
    older.batch_execute("commit").await.expect("committed");
    let up = |one: &&Running| one.health.is_up();
    until("one of them streams", async || all.iter().filter(up).count() == 1).await;
    db.run("insert into t values (2)").await;
    assert_eq!(ids(&recorder.wait(1).await), [2]);
    for one in all {
        one.stop().await;
    }
    db.remove().await;
}

/// Who holds the slot finds out that it was moved on while nobody held it; who does not, does not say so.
#[tokio::test(flavor = "multi_thread")]
async fn only_who_holds_the_slot_concludes_that_changes_are_lost() {
    let db = Database::create("moved").await;
    db.run("create table t (id int8 primary key)").await;
    let (recorder, settings) = (Recorder::new(), db.settings(&["t"]));
    let slot = postgres(&settings).slot.clone();
    let running = Running::streaming(&settings, &recorder).await;
    db.run("insert into t values (1)").await;
    recorder.wait(1).await;
    running.stop().await;
    db.run("insert into t values (2)").await;
    until("it is free", async || {
        db.sql.query(&format!("select pg_replication_slot_advance('{slot}', pg_current_wal_lsn())"), &[]).await.is_ok()
    })
    .await;
    prepare(&settings, &recorder, &Independent).await.expect("nobody holds the slot");
    let error = Running::start(&settings, &recorder).error().await.to_string();
    assert!(error.contains("moved forward") && error.contains("reindex"), "{error}");
    assert_eq!(recorder.len(), 1, "nothing is published behind a gap");
    drop_slot(&db.sql, &slot).await;
    db.remove().await;
}
