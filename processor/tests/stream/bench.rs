//! A stream of a table on an embedded log.

use std::sync::Arc;
use std::time::Duration;

use std::collections::HashMap;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use tributary_dsl::plan::{OnError, Origin, Start, Step, StepPlan, StreamInput, StreamPlan, TopicSink};
use tributary_event::{Health, HealthState, Op};
use tributary_expression::{Program, Shape};
use tributary_processor::{Lag, Parked, StageError, Stream};
use tributary_transport::{
    Batch, DeadLetters, Embedded, EmbeddedSettings, Polled, Producer, Purpose, Retention, TopicPartition, TopicSpec,
    Transport, dead_letter,
};

pub const TABLE: &str = "db.public.movie";

pub struct Bench {
    _folder: tempfile::TempDir,
    pub log: Arc<Embedded>,
    pub producer: Box<dyn Producer>,
}

impl Bench {
    pub async fn new() -> Self {
        Self::with(1).await
    }

    /// One whose table has so many partitions.
    pub async fn with(partitions: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Embedded::open(folder.path(), EmbeddedSettings::default()).unwrap());
        let retention = Retention::Delete { age: None, bytes: None };
        let spec = |name: &str| TopicSpec { name: name.into(), partitions: 1, retention: retention.clone() };
        let table = TopicSpec { partitions, ..spec(TABLE) };
        log.ensure_topics(&[table, spec("out"), dead_letter::spec("letters")]).await.unwrap();
        let producer = log.producer("test", Purpose::Source).await.unwrap();
        Self { _folder: folder, log, producer }
    }

    /// Appends changes of titles.
    pub async fn append(&mut self, titles: &[&str]) {
        self.append_as("1", titles).await;
    }

    /// The same of the row with this key.
    pub async fn append_as(&mut self, key: &str, titles: &[&str]) {
        let mut batch = Batch::new();
        for title in titles {
            let value = format!(r#"{{"op":"c","before":null,"after":{{"title":"{title}"}}}}"#);
            batch.push(&Arc::from(TABLE), 1, Some(key.as_bytes()), Some(value.as_bytes()));
        }
        self.producer.append(&batch).await.unwrap();
    }

    /// Appends changes: a row's key, when it was committed, and what is in the row.
    pub async fn commit(&mut self, changes: &[(u8, i64, String)]) {
        let mut batch = Batch::new();
        for (key, time_ms, row) in changes {
            let source = format!(r#"{{"ts_ms":{time_ms}}}"#);
            let value = format!(r#"{{"op":"c","before":null,"after":{{"id":{key},{row}}},"source":{source}}}"#);
            // It is captured somewhat later.
            batch.push(&Arc::from(TABLE), time_ms + 7, Some(key.to_string().as_bytes()), Some(value.as_bytes()));
        }
        self.producer.append(&batch).await.unwrap();
    }

    pub async fn records(&self, topic: &str, partition: u32) -> Vec<Polled> {
        let place = TopicPartition { topic: topic.into(), partition };
        let (mut records, mut from) = (Vec::new(), 0);
        loop {
            let page = self.log.read(&place, from, 1_000).await.unwrap();
            let Some(last) = page.last() else { return records };
            from = last.offset + 1;
            records.extend(page);
        }
    }

    /// What the stream made.
    pub async fn out(&self) -> Vec<String> {
        let records = self.records("out", 0).await;
        records
            .iter()
            .map(|record| String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned())
            .collect()
    }

    pub fn start(&self, start: Start, program: &str) -> Running {
        self.start_with(start, program, OnError::Stop)
    }

    pub fn start_with(&self, start: Start, text: &str, on_error: OnError) -> Running {
        self.start_plan(plan(start, vec![StepPlan::Transform(program(text))], on_error))
    }

    pub fn start_plan(&self, plan: StreamPlan) -> Running {
        let health = Health::default();
        let stream = Stream {
            pipeline: "test".into(),
            plan: Arc::new(plan),
            transport: self.log.clone(),
            enrichers: HashMap::new(),
            changes: None,
            taps: Arc::default(),
            parked: Arc::new(Parked::new(DeadLetters::new(self.log.clone(), "letters"), "stream titles")),
            reading: health.part("reader"),
            working: health.part("stream"),
            lag: Lag::default(),
        };
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(stream.run(shutdown.clone()));
        Running { health, shutdown, task }
    }
}

/// A stream of the table into the topic.
pub fn plan(start: Start, steps: Vec<StepPlan>, on_error: OnError) -> StreamPlan {
    let named = |(place, plan): (usize, StepPlan)| Step {
        name: format!("{}-{}", plan.word(), place + 1),
        plan,
        on_error: None,
    };
    StreamPlan {
        name: "titles".into(),
        from: vec![StreamInput {
            topic: TABLE.into(),
            origin: Origin::Table { source: "db".into(), table: "public.movie".into() },
        }],
        ops: vec![Op::Create],
        start,
        steps: steps.into_iter().enumerate().map(named).collect(),
        on_error,
        max_event: 8 << 20,
        deliveries: Vec::new(),
        keeps_events: false,
        topics: vec![TopicSink { name: "out".into(), key: None, compact: false, cloud_events: false, when: None }],
    }
}

pub fn program(text: &str) -> Program {
    Program::compile(text, &Shape::any()).unwrap_or_else(|problems| panic!("{text}: {problems:?}")).0
}

pub struct Running {
    pub health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), StageError>>,
}

impl Running {
    /// Until the stream has partitions.
    pub async fn ready(&self) {
        until("the stream is up", async || self.health.parts()["reader"].up).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Ends it without a word, as a crash does.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// Why it stands still.
    pub async fn stands_still(&self) -> String {
        let mut why = String::new();
        until("it stands still", async || {
            let part = self.health.parts()["stream"].clone();
            why = part.why.filter(|_| part.state == HealthState::Down).unwrap_or_default();
            !why.is_empty()
        })
        .await;
        why
    }
}

pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub const TITLE: &str = ". = { \"title\": .after.title }";

pub fn titles(titles: &[&str]) -> Vec<String> {
    titles.iter().map(|title| format!(r#"{{"title":"{title}"}}"#)).collect()
}
