//! The intake on the embedded log: nothing that works is cancelled, and commits and the lag go on whatever else waits.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_event::Health;
use tributary_processor::{Handler, IntakeSettings, Lag, StageError, Ticket, intake};
use tributary_transport::{
    Batch, Consumer, ConsumerSettings, Delivery, Embedded, EmbeddedSettings, Loss, Measuring, Polled, Producer,
    Purpose, Retention, TopicPartition, TopicSpec, Transport, TransportError,
};

/// Asks again and again until the answer is yes.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Hands records to the test, which may leave them waiting.
struct Handing(mpsc::Sender<Vec<(Polled, Ticket)>>);

#[async_trait]
impl Handler for Handing {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        self.0.send(records).await.map_err(|_| StageError::new("test", "the test is over"))
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        panic!("{losses:?}")
    }
}

/// Never returns, as when everything behind it is away.
struct Stuck(AtomicU32);

#[async_trait]
impl Handler for Stuck {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        self.0.fetch_add(records.len() as u32, Ordering::SeqCst);
        std::future::pending().await
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        panic!("{losses:?}")
    }
}

struct Bench {
    _folder: tempfile::TempDir,
    log: Embedded,
    producer: Box<dyn Producer>,
    topics: Vec<Arc<str>>,
}

impl Bench {
    /// Two topics of one partition each, on a disk whose reads of records wait for `before_read`.
    async fn new(before_read: impl Fn(&TopicPartition) + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open_slow(folder.path(), EmbeddedSettings::default(), Box::new(before_read)).unwrap();
        let retention = Retention::Delete { age: None, bytes: None };
        let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1, retention: retention.clone() };
        log.ensure_topics(&[spec("quick"), spec("slow")]).await.unwrap();
        let producer = log.producer("test", Purpose::Stage).await.unwrap();
        Self { _folder: folder, log, producer, topics: vec!["quick".into(), "slow".into()] }
    }

    async fn append(&mut self, topic: usize, records: usize) {
        let mut batch = Batch::new();
        for n in 0..records {
            batch.push(&self.topics[topic], 1, Some(n.to_string().as_bytes()), Some(b"value"));
        }
        self.producer.append(&batch).await.unwrap();
    }

    async fn consumer(&self) -> Box<dyn Consumer> {
        let topics = self.topics.iter().map(|topic| topic.to_string()).collect();
        let settings = ConsumerSettings { group: "test".into(), topics, max_records: 100, from_start: true };
        self.log.consumer(settings).await.unwrap()
    }
}

fn start(
    consumer: Box<dyn Consumer>,
    handler: Arc<dyn Handler>,
    lag: &Lag,
    lag_ages: Duration,
) -> (CancellationToken, JoinHandle<Result<(), StageError>>) {
    let shutdown = CancellationToken::new();
    let settings = IntakeSettings {
        // As often as can be, so that a read would be cancelled many times.
        commit_every: Duration::from_millis(1),
        grace: Duration::ZERO,
        lag: lag.clone(),
        lag_ages,
        ..IntakeSettings::new("test")
    };
    let health = Health::default().part("test");
    (shutdown.clone(), tokio::spawn(intake::run(consumer, handler, settings, health, shutdown)))
}

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_read_is_begun_once_and_commits_and_the_lag_go_on_meanwhile() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    let mut bench = Bench::new(move |place| {
        if &*place.topic == "slow" {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            let _ = wait.lock().unwrap().recv();
        }
    })
    .await;
    bench.append(0, 3).await;
    let (handler, mut handed) = mpsc::channel(10);
    let lag = Lag::default();
    let (shutdown, running) = start(bench.consumer().await, Arc::new(Handing(handler)), &lag, LONG);
    let quick = handed.recv().await.unwrap();
    assert_eq!(quick.len(), 3);
    until("the lag is known", async || lag.get() == Some(3)).await;

    // While the disk does not answer, what was done is committed and what comes is counted.
    bench.append(1, 5).await;
    until("the slow read has begun", async || BEGUN.load(Ordering::SeqCst) == 1).await;
    until("what waits is counted", async || lag.get() == Some(8)).await;
    quick.into_iter().for_each(|(_, ticket)| ticket.done());
    until("what is done is committed", async || lag.get() == Some(5)).await;
    bench.append(0, 2).await;
    until("what waits is counted", async || lag.get() == Some(7)).await;
    assert_eq!(BEGUN.load(Ordering::SeqCst), 1, "the read was begun anew");

    drop(release);
    let mut slow = 0;
    let mut read = 0;
    while read < 7 {
        for (record, ticket) in handed.recv().await.unwrap() {
            read += 1;
            slow += u32::from(&*record.place.topic == "slow");
            ticket.done();
        }
    }
    assert_eq!(slow, 5);
    until("all is committed", async || lag.get() == Some(0)).await;
    assert_eq!(BEGUN.load(Ordering::SeqCst), 1);
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_rises_while_a_handler_never_returns() {
    let mut bench = Bench::new(|_| ()).await;
    bench.append(0, 10).await;
    let (handler, lag) = (Arc::new(Stuck(AtomicU32::new(0))), Lag::default());
    let (shutdown, running) = start(bench.consumer().await, handler.clone(), &lag, LONG);
    until("the handler has records", async || handler.0.load(Ordering::SeqCst) > 0).await;
    for appended in 1..=5_u64 {
        until("the lag is what was appended", async || lag.get() == Some(10 * appended)).await;
        bench.append((appended % 2) as usize, 10).await;
    }
    assert_eq!(handler.0.load(Ordering::SeqCst), 10, "more was handed on");
    shutdown.cancel();
    running.await.unwrap().unwrap();
}

/// Whoever never ends his work on a partition is given no more of it than there is room for, and all of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_stands_still_holds_up_no_other() {
    for room in ["records", "bytes", "ahead"] {
        let mut bench = Bench::new(|_| ()).await;
        let (handler, mut handed) = mpsc::channel(10);
        let shutdown = CancellationToken::new();
        let usual = IntakeSettings { grace: Duration::ZERO, ..IntakeSettings::new("test") };
        let settings = match room {
            "records" => IntakeSettings { max_records: 200, ..usual },
            "bytes" => IntakeSettings { max_bytes: 200 * 8, ..usual },
            _ => IntakeSettings { max_ahead: 200, ..usual },
        };
        let (consumer, health) = (bench.consumer().await, Health::default().part("test"));
        let running =
            tokio::spawn(intake::run(consumer, Arc::new(Handing(handler)), settings, health, shutdown.clone()));
        let (mut kept, mut slow, mut quick) = (Vec::new(), 0, 0);
        for _ in 0..10 {
            bench.append(0, 300).await;
            bench.append(1, 300).await;
        }
        while quick < 3_000 {
            for (record, ticket) in handed.recv().await.unwrap() {
                match &*record.place.topic {
                    // Behind one that is never done, others may be.
                    "slow" if room == "ahead" && record.offset > 0 => ticket.done(),
                    "slow" => kept.push(ticket),
                    _ => ticket.done(),
                }
                slow += u32::from(&*record.place.topic == "slow");
                quick += u32::from(&*record.place.topic == "quick");
            }
        }
        assert!((100..500).contains(&slow), "{room}: {slow} records were handed on");
        // When they are done after all, the rest comes.
        kept.into_iter().for_each(Ticket::done);
        while slow < 3_000 {
            for (record, ticket) in handed.recv().await.unwrap() {
                assert_eq!(&*record.place.topic, "slow");
                slow += 1;
                ticket.done();
            }
        }
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}

/// A consumer whose lag, after the first answer, is never told, as when the transport is away.
struct Silent(Box<dyn Consumer>, bool);

#[async_trait]
impl Consumer for Silent {
    async fn next(&mut self) -> Result<Delivery, TransportError> {
        self.0.next().await
    }

    fn pause(&mut self, places: &[TopicPartition]) {
        self.0.pause(places);
    }

    fn resume(&mut self, places: &[TopicPartition]) {
        self.0.resume(places);
    }

    async fn commit(&mut self, offsets: &[(TopicPartition, u64)]) -> Result<(), TransportError> {
        self.0.commit(offsets).await
    }

    fn lag(&mut self, come_to: HashMap<TopicPartition, u64>) -> Measuring {
        match std::mem::replace(&mut self.1, true) {
            false => self.0.lag(come_to),
            true => Box::pin(std::future::pending()),
        }
    }

    fn backlog(&mut self) -> Measuring {
        self.0.backlog()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lag_that_cannot_be_measured_for_long_is_unknown_and_records_go_on() {
    let mut bench = Bench::new(|_| ()).await;
    let (handler, mut handed) = mpsc::channel(10);
    let lag = Lag::default();
    let consumer = Box::new(Silent(bench.consumer().await, false));
    let ages = Duration::from_millis(700);
    let (shutdown, running) = start(consumer, Arc::new(Handing(handler)), &lag, ages);
    until("the lag is known", async || lag.get() == Some(0)).await;
    until("the lag is unknown", async || lag.get().is_none()).await;
    bench.append(0, 1).await;
    handed.recv().await.unwrap().into_iter().for_each(|(_, ticket)| ticket.done());
    shutdown.cancel();
    running.await.unwrap().unwrap();
}
