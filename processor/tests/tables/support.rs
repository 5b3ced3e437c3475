//! A log, tables that follow it, and a source that they list rows from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::{CapturedTable, Keep, LookupTable};
use tributary_event::Health;
use tributary_expression::{Program, Shape};
use tributary_processor::{Answer, Enricher, Listing, OutsideError, Page, Table};
use tributary_transport::{Batch, Embedded, EmbeddedSettings, Purpose, Retention, TopicSpec, Transport};

/// The topic of rows, and that of a captured table.
pub const TOPICS: [&str; 2] = ["rates", "studio.public.talent"];

pub struct Bench {
    pub folder: tempfile::TempDir,
    pub log: Arc<Embedded>,
}

/// A table that is followed until it is dropped.
pub struct Followed {
    pub table: Arc<Table>,
    pub health: Health,
    shutdown: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Followed {
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        self.task.take().unwrap().await.unwrap();
    }

    /// As a kill does: wherever it is.
    pub async fn kill(mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.await;
    }

    pub fn is_whole(&self) -> bool {
        self.health.parts()["table"].up
    }

    pub fn why(&self) -> String {
        self.health.parts()["table"].why.clone().unwrap_or_default()
    }

    pub async fn whole(self) -> Self {
        until("it is whole", async || self.is_whole()).await;
        self
    }

    pub async fn ask(&self, keys: &[&str]) -> Result<Vec<Answer>, OutsideError> {
        let keys: Vec<Bytes> = keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())).collect();
        self.table.ask(&keys).await
    }

    /// The row of a key, when everything that was appended before the call is in the table.
    pub async fn row(&self, key: &str) -> Option<Json> {
        loop {
            if self.table.has_passed(None).await.is_ok()
                && let Ok(answers) = self.ask(&[key]).await
            {
                return match answers.first().unwrap() {
                    Answer::Found(row) => Some(serde_json::from_slice(row).unwrap()),
                    Answer::Missing => None,
                    Answer::Failed(why) => panic!("{why}"),
                };
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Bench {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Embedded::open(folder.path().join("log"), EmbeddedSettings::default()).unwrap());
        let bench = Self { folder, log };
        bench.make_topics().await;
        bench
    }

    async fn make_topics(&self) {
        let spec = |name: &str, retention| TopicSpec { name: name.into(), partitions: 2, retention };
        let kept = Retention::Delete { age: None, bytes: None };
        self.log.ensure_topics(&[spec(TOPICS[0], Retention::Compact), spec(TOPICS[1], kept)]).await.unwrap();
    }

    /// Another log in the place of this one.
    pub async fn make_anew(&mut self) {
        let folder = self.folder.path().join("other");
        self.log = Arc::new(Embedded::open(folder, EmbeddedSettings::default()).unwrap());
        self.make_topics().await;
    }

    pub async fn append(&self, topic: &str, records: &[(Option<String>, Option<String>)]) {
        let mut batch = Batch::new();
        for (key, value) in records {
            let (key, value) = (key.as_deref().map(str::as_bytes), value.as_deref().map(str::as_bytes));
            batch.push(&Arc::from(topic), now_ms(), key, value);
        }
        self.log.producer("test", Purpose::Source).await.unwrap().append(&batch).await.unwrap();
    }

    pub async fn rates(&self, records: &[(&str, Option<&str>)]) {
        let records = records.iter().map(|(key, value)| (Some((*key).to_owned()), value.map(str::to_owned)));
        self.append(TOPICS[0], &records.collect::<Vec<_>>()).await;
    }

    pub async fn events(&self, records: &[(Option<String>, Option<String>)]) {
        self.append(TOPICS[1], records).await;
    }

    fn follow(&self, plan: LookupTable, listing: Option<Arc<dyn Listing>>) -> Followed {
        let (health, shutdown) = (Health::default(), CancellationToken::new());
        let table = Table::new(plan, &self.tables(), listing);
        let following = table.clone().follow(self.log.clone(), health.part("table"), shutdown.clone());
        Followed { table, health, shutdown, task: Some(tokio::spawn(following)) }
    }

    pub fn tables(&self) -> PathBuf {
        self.folder.path().join("tables")
    }

    pub fn of_topic(&self, key: Option<&str>, keep: Keep, limit: u64) -> Followed {
        self.follow(plan_of_topic(key, keep, limit), None)
    }

    pub fn of_topic_with(&self, plan: LookupTable) -> Followed {
        self.follow(plan, None)
    }

    pub fn of_source(&self, source: &Arc<Source>, keep: Keep) -> Followed {
        let captured = CapturedTable {
            source: "studio".into(),
            table: "public.talent".parse().unwrap(),
            columns: vec!["n".into(), "text".into()],
        };
        let plan = LookupTable {
            name: "talents".into(),
            topic: TOPICS[1].into(),
            captured: Some(captured),
            key: None,
            keep,
            limit: 1 << 20,
            max_age: None,
        };
        self.follow(plan, Some(source.clone()))
    }
}

pub fn plan_of_topic(key: Option<&str>, keep: Keep, limit: u64) -> LookupTable {
    let key = key.map(|key| Program::compile(key, &Shape::any()).unwrap().0);
    let (name, topic) = ("rates".into(), TOPICS[0].into());
    LookupTable { name, topic, captured: None, key, keep, limit, max_age: None }
}

pub fn now_ms() -> i64 {
    tributary_event::clock::now_us() / 1_000
}

/// A source with a table: rows by id, each with the number of its last change, and a text.
pub struct Source {
    pub rows: Mutex<BTreeMap<i64, (u64, String)>>,
    pub captured: watch::Sender<bool>,
    /// Pages that were read.
    pub pages: AtomicU64,
    /// What the rows look like.
    pub look: Mutex<String>,
    /// Pages that may be read.
    pub permits: Semaphore,
}

impl Source {
    /// Lets no page be read.
    pub fn hold(&self) {
        self.permits.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets pages be read.
    pub fn go_on(&self) {
        self.permits.add_permits(Semaphore::MAX_PERMITS / 4);
    }

    pub fn new(rows: impl IntoIterator<Item = (i64, u64, &'static str)>) -> Arc<Self> {
        let rows = rows.into_iter().map(|(id, n, text)| (id, (n, text.to_owned()))).collect();
        Arc::new(Self {
            rows: Mutex::new(rows),
            captured: watch::Sender::new(true),
            pages: AtomicU64::new(0),
            look: Mutex::default(),
            permits: Semaphore::new(Semaphore::MAX_PERMITS / 2),
        })
    }
}

#[async_trait]
impl Listing for Source {
    fn print(&self) -> String {
        self.look.lock().unwrap().clone()
    }

    async fn is_captured(&self) {
        self.captured.subscribe().wait_for(|captured| *captured).await.unwrap();
    }

    async fn page(&self, after: Option<&str>) -> Result<Page, OutsideError> {
        const SIZE: usize = 3;
        self.permits.acquire().await.unwrap().forget();
        let after: i64 = after.map_or(i64::MIN, |after| after.parse().unwrap());
        let found: Vec<(i64, (u64, String))> = {
            let rows = self.rows.lock().unwrap();
            rows.iter().filter(|(id, _)| **id > after).take(SIZE).map(|(id, row)| (*id, row.clone())).collect()
        };
        self.pages.fetch_add(1, Ordering::SeqCst);
        // Between the moment that a page shows and its arrival others go on.
        self.permits.acquire().await.unwrap().forget();
        let next = (found.len() == SIZE).then(|| found.last().unwrap().0.to_string());
        let row = |(id, (n, text)): (i64, (u64, String))| {
            (key_of(id).into(), json!({ "n": n, "text": text }).to_string().into())
        };
        Ok(Page { rows: found.into_iter().map(row).collect(), next })
    }
}

pub fn key_of(id: i64) -> String {
    format!("{{\"id\":{id}}}")
}

/// A record of a change: `None` as a text is one that the event lacks.
pub fn event(op: char, id: i64, sequence: u64, text: Option<&str>) -> (Option<String>, Option<String>) {
    let after = match (op, text) {
        ('d', _) => Json::Null,
        (_, Some(text)) => json!({ "id": id, "n": sequence, "text": text }),
        (_, None) => json!({ "id": id, "n": sequence }),
    };
    let mut event = json!({ "op": op.to_string(), "before": null, "after": after, "sequence": sequence });
    if op != 'd' && text.is_none() {
        event["unchanged"] = json!(["text"]);
    }
    (Some(key_of(id)), Some(event.to_string()))
}

pub fn emptied(sequence: u64) -> (Option<String>, Option<String>) {
    (None, Some(json!({ "op": "t", "before": null, "after": null, "sequence": sequence }).to_string()))
}

pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}
