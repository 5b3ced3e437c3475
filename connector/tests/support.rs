//! A database for one test, and a transport that remembers what was appended and can stand still.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;
use tributary_connector::{AsId, Carried};
use tributary_connector::{
    ConnectorError, ConnectorSettings, Dependent, Doubt, Independent, PostgresSettings, SourceSettings,
};
use tributary_event::{ErrorClass, Health};
use tributary_transport::{
    Batch, Consumer, ConsumerSettings, Polled, Producer, Purpose, TopicId, TopicPartition, TopicSpec, Transport,
    TransportError, Watermarks,
};

/// No condition takes longer, unless it is never met.
const PATIENCE: Duration = Duration::from_secs(120);

/// The example `drain` that `cargo test` builds beside the tests: a process of its own, whose memory is nobody else's.
pub fn drain() -> PathBuf {
    let test = std::env::current_exe().expect("the test's path");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/debug/deps");
    let program = folder.join("examples/drain");
    assert!(program.is_file(), "{} is missing: run `cargo build --examples`", program.display());
    program
}

pub fn server_url() -> url::Url {
    let text = std::env::var("TRIBUTARY_TEST_POSTGRES").expect("TRIBUTARY_TEST_POSTGRES is not set: run ./x test");
    url::Url::parse(&text).expect("TRIBUTARY_TEST_POSTGRES is a URL")
}

pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("connects");
    tokio::spawn(async move {
        let _ = connection.await;
    });
    client
}

/// A database of its own, with a session in it.
pub struct Database {
    pub name: String,
    pub url: String,
    pub sql: Client,
}

impl Database {
    pub async fn create(test: &str) -> Self {
        Self::create_with(test, "").await
    }

    /// A database of another encoding.
    pub async fn of_encoding(test: &str, encoding: &str) -> Self {
        let options = format!("encoding '{encoding}' lc_collate 'C' lc_ctype 'C' template template0");
        Self::create_with(test, &options).await
    }

    async fn create_with(test: &str, options: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}_{test}", std::process::id());
        let admin = connect(server_url().as_str()).await;
        admin.batch_execute(&format!("create database {name} {options}")).await.expect("a database");
        let mut url = server_url();
        url.set_path(&name);
        let url = url.to_string();
        let sql = connect(&url).await;
        Self { name, url, sql }
    }

    pub async fn run(&self, statements: &str) {
        self.sql.batch_execute(statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }

    /// The server's major version.
    pub async fn version(&self) -> i32 {
        let row = self.sql.query_one("select current_setting('server_version_num')::int4 / 10000", &[]).await;
        row.expect("a version").get(0)
    }

    pub async fn text(&self, query: &str) -> Option<String> {
        self.sql.query_opt(query, &[]).await.expect(query).and_then(|row| row.get(0))
    }

    /// The command that began a source's stream.
    pub async fn stream(&self, settings: &ConnectorSettings) -> String {
        let query = format!(
            "select query from pg_stat_activity a join pg_replication_slots s on s.active_pid = a.pid where slot_name = '{}'",
            postgres(settings).slot
        );
        self.text(&query).await.expect("a stream")
    }

    /// The settings with another user.
    pub fn settings_of(&self, tables: &[&str], user: &str, password: &str) -> ConnectorSettings {
        let mut settings = self.settings(tables);
        let mut url = url::Url::parse(&self.url).expect("a URL");
        url.set_username(user).expect("a user");
        url.set_password(Some(password)).expect("a password");
        postgres_mut(&mut settings).url = url.as_str().into();
        settings
    }

    pub fn settings(&self, tables: &[&str]) -> ConnectorSettings {
        ConnectorSettings::postgres(&self.name, self.url.as_str().into(), tables.iter().copied())
    }

    /// Drops database, slots and, by its name, the role of the test.
    pub async fn remove(self) {
        let Self { name, sql, .. } = self;
        drop(sql);
        let admin = connect(server_url().as_str()).await;
        let slots = format!("select slot_name::text from pg_replication_slots where database = '{name}'");
        for row in admin.query(&slots, &[]).await.expect("slots") {
            let slot: String = row.get(0);
            drop_slot(&admin, &slot).await;
        }
        admin.batch_execute(&format!("drop database {name} with (force)")).await.expect("dropped");
        let _ = admin.batch_execute(&format!("drop role if exists {name}")).await;
    }
}

/// The version that the other tests run on.
pub async fn version() -> i32 {
    let db = Database::create("version").await;
    let version = db.version().await;
    db.remove().await;
    version
}

pub fn postgres(settings: &ConnectorSettings) -> &PostgresSettings {
    let SourceSettings::Postgres(postgres) = &settings.source else { panic!("a PostgreSQL source") };
    postgres
}

pub fn postgres_mut(settings: &mut ConnectorSettings) -> &mut PostgresSettings {
    let SourceSettings::Postgres(postgres) = &mut settings.source else { panic!("a PostgreSQL source") };
    postgres
}

/// Ends whoever reads the slot and drops it.
pub async fn drop_slot(admin: &Client, slot: &str) {
    until("the slot is free", async || {
        let end = "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = $1 and active";
        let _ = admin.query(end, &[&slot]).await;
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = $1";
        admin.query(drop, &[&slot]).await.is_ok()
    })
    .await;
}

/// Asks again and again until the answer is yes.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("not within {PATIENCE:?}: {what}");
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub topic: String,
    pub key: Option<Json>,
    pub value: Option<Json>,
}

impl Record {
    pub fn op(&self) -> &str {
        self.value.as_ref().map_or("tombstone", |v| v["op"].as_str().expect("op"))
    }

    pub fn get(&self, pointer: &str) -> Json {
        self.value.as_ref().and_then(|v| v.pointer(pointer)).cloned().unwrap_or(Json::Null)
    }
}

/// Topic, key and value as they were appended.
type Raw = (String, Option<Vec<u8>>, Option<Vec<u8>>);

#[derive(Default)]
struct Topics {
    records: Vec<Raw>,
    /// By name.
    checkpoints: HashMap<String, Bytes>,
    stand_still_at: Option<usize>,
    failures: u32,
    /// How often the producer of a name was opened.
    generations: HashMap<String, u64>,
}

impl Topics {
    /// The name of the source's own checkpoint, beside which what is known of its tables has another.
    fn source(&self) -> Option<&String> {
        self.checkpoints.keys().find(|name| !name.ends_with(".tables"))
    }
}

/// An atomic, durable transport in memory. It can stand still before the batch that would exceed a number of records, as a
/// process that is killed there would leave it.
#[derive(Clone)]
pub struct Recorder {
    topics: Arc<Mutex<Topics>>,
    news: watch::Sender<usize>,
}

impl Recorder {
    pub fn new() -> Self {
        Self { topics: Arc::default(), news: watch::Sender::new(0) }
    }

    pub fn stand_still_at(&self, records: Option<usize>) {
        self.topics.lock().expect("lock").stand_still_at = records;
        self.news.send_modify(|_| {});
    }

    /// Appends fail transiently so many times.
    pub fn fail(&self, times: u32) {
        self.topics.lock().expect("lock").failures = times;
    }

    pub fn len(&self) -> usize {
        self.topics.lock().expect("lock").records.len()
    }

    pub fn checkpoint_json(&self) -> Option<Json> {
        let topics = self.topics.lock().expect("lock");
        topics.source().map(|name| serde_json::from_slice(&topics.checkpoints[name]).expect("JSON"))
    }

    /// What is known of the tables.
    pub fn known_tables(&self) -> Option<Json> {
        let topics = self.topics.lock().expect("lock");
        let name = topics.checkpoints.keys().find(|name| name.ends_with(".tables"))?;
        Some(serde_json::from_slice(&topics.checkpoints[name]).expect("JSON"))
    }

    pub fn set_checkpoint(&self, change: impl FnOnce(&mut Json)) {
        let mut checkpoint = self.checkpoint_json().expect("a checkpoint");
        change(&mut checkpoint);
        let mut topics = self.topics.lock().expect("lock");
        let name = topics.source().expect("a checkpoint").clone();
        topics.checkpoints.insert(name, checkpoint.to_string().into());
    }

    pub fn records(&self) -> Vec<Record> {
        let parse = |b: &Option<Vec<u8>>| b.as_ref().map(|b| serde_json::from_slice(b).expect("JSON"));
        let topics = self.topics.lock().expect("lock");
        topics
            .records
            .iter()
            .map(|(topic, key, value)| Record { topic: topic.clone(), key: parse(key), value: parse(value) })
            .collect()
    }

    /// Waits until there are so many records, and returns them all.
    pub async fn wait(&self, count: usize) -> Vec<Record> {
        let mut news = self.news.subscribe();
        // The answer borrows from the channel and must not be kept: whoever appends would wait for it.
        let met = tokio::time::timeout(PATIENCE, news.wait_for(|n| *n >= count)).await.is_ok();
        if !met {
            panic!("{} records, not {count}, within {PATIENCE:?}", self.len());
        }
        self.records()
    }
}

struct RecorderProducer(Recorder, String, u64);

#[async_trait]
impl Producer for RecorderProducer {
    async fn append(&mut self, batch: &Batch) -> Result<(), TransportError> {
        let mut news = self.0.news.subscribe();
        loop {
            news.mark_unchanged();
            {
                let mut topics = self.0.topics.lock().expect("lock");
                if topics.generations[&self.1] != self.2 {
                    return Err(TransportError::new(ErrorClass::Fatal, "fenced"));
                }
                if topics.failures > 0 {
                    topics.failures -= 1;
                    return Err(TransportError::new(ErrorClass::Transient, "the broker is away"));
                }
                if topics.stand_still_at.is_none_or(|n| topics.records.len() + batch.len() <= n) {
                    for record in batch.records() {
                        let copy = |b: Option<&[u8]>| b.map(<[u8]>::to_vec);
                        topics.records.push((record.topic.to_string(), copy(record.key), copy(record.value)));
                    }
                    if let Some(checkpoint) = &batch.checkpoint {
                        topics.checkpoints.insert(checkpoint.name.clone(), checkpoint.content.clone());
                    }
                    let count = topics.records.len();
                    self.0.news.send_replace(count);
                    return Ok(());
                }
            }
            news.changed().await.expect("the recorder lives");
        }
    }
}

#[async_trait]
impl Transport for Recorder {
    async fn ensure_topics(&self, _: &[TopicSpec]) -> Result<(), TransportError> {
        Ok(())
    }

    async fn partitions(&self, _: &str) -> Result<u32, TransportError> {
        Ok(1)
    }

    async fn producer(&self, name: &str, _: Purpose) -> Result<Box<dyn Producer>, TransportError> {
        let mut topics = self.topics.lock().expect("lock");
        let generation = topics.generations.entry(name.to_owned()).or_default();
        *generation += 1;
        Ok(Box::new(RecorderProducer(self.clone(), name.to_owned(), *generation)))
    }

    async fn consumer(&self, _: ConsumerSettings) -> Result<Box<dyn Consumer>, TransportError> {
        Err(TransportError::new(ErrorClass::Fatal, "nobody reads here"))
    }

    async fn consumers(
        &self,
        _: ConsumerSettings,
        _: ConsumerSettings,
    ) -> Result<[Box<dyn Consumer>; 2], TransportError> {
        Err(TransportError::new(ErrorClass::Fatal, "nobody reads here"))
    }

    async fn appender(&self) -> Result<Box<dyn Producer>, TransportError> {
        Err(TransportError::new(ErrorClass::Fatal, "nobody appends here without a name"))
    }

    async fn checkpoint(&self, name: &str) -> Result<Option<Bytes>, TransportError> {
        Ok(self.topics.lock().expect("lock").checkpoints.get(name).cloned())
    }

    async fn watermarks(&self, _: &str) -> Result<Vec<Watermarks>, TransportError> {
        Ok(Vec::new())
    }

    async fn read(&self, _: &TopicPartition, _: u64, _: usize) -> Result<Vec<Polled>, TransportError> {
        Ok(Vec::new())
    }

    async fn topic_id(&self, _: &str) -> Result<Option<TopicId>, TransportError> {
        Ok(None)
    }

    async fn offset_at(&self, _: &TopicPartition, _: i64) -> Result<u64, TransportError> {
        Ok(0)
    }

    async fn probe(&self) -> Result<(), TransportError> {
        Ok(())
    }
}

type Check = dyn Fn(&Carried) -> Result<(), String> + Send + Sync;

/// Depends on tables as a test says, and remembers what was doubted.
#[derive(Clone)]
pub struct Witness {
    check: Arc<Check>,
    doubts: Arc<Mutex<Vec<Doubt>>>,
    needs: watch::Sender<u64>,
}

impl Witness {
    pub fn new(check: impl Fn(&Carried) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), doubts: Arc::default(), needs: watch::Sender::new(0) }
    }

    /// Needs columns, also of rows as they were.
    pub fn of_columns(columns: &'static [&'static str]) -> Self {
        Self::new(|carried| {
            columns.iter().try_for_each(|name| match carried.schema.column(name) {
                None => Err(format!("{name} lacks")),
                Some(at) if !carried.is_logged_before(at) => Err(format!("{name} lacks before")),
                Some(at) if carried.as_id(at, false) != AsId::Same => Err(format!("{name} is no id")),
                Some(_) => Ok(()),
            })
        })
    }

    /// It needs more than before.
    pub fn need_more(&self) {
        self.needs.send_modify(|needs| *needs += 1);
    }

    pub fn doubts(&self) -> Vec<Doubt> {
        self.doubts.lock().expect("lock").clone()
    }

    /// Waits until so many things were doubted, and gives why.
    pub async fn wait(&self, count: usize) -> Vec<String> {
        until(&format!("{count} doubts"), async || self.doubts().len() >= count).await;
        self.doubts().into_iter().map(|doubt| format!("{}: {}", doubt.table, doubt.why)).collect()
    }
}

#[async_trait]
impl Dependent for Witness {
    fn check(&self, tables: &[Carried]) -> Result<(), String> {
        tables.iter().try_for_each(|table| (self.check)(table))
    }

    fn needs(&self) -> watch::Receiver<u64> {
        self.needs.subscribe()
    }

    async fn doubt(&self, doubts: &[Doubt]) -> Result<(), ConnectorError> {
        self.doubts.lock().expect("lock").extend(doubts.iter().cloned());
        Ok(())
    }
}

/// A connector that runs.
pub struct Running {
    pub health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ConnectorError>>,
}

impl Running {
    /// Starts a connector and does not wait for anything.
    pub fn start(settings: &ConnectorSettings, transport: &Recorder) -> Self {
        Self::start_for(Arc::new(Independent), settings, transport)
    }

    /// The same, for what depends on the tables.
    pub fn start_for(dependent: Arc<dyn Dependent>, settings: &ConnectorSettings, transport: &Recorder) -> Self {
        let health = Health::default();
        let (reporter, shutdown) = (health.part("source"), CancellationToken::new());
        let transport: Arc<dyn Transport> = Arc::new(transport.clone());
        let task =
            tokio::spawn(tributary_connector::run(settings.clone(), transport, dependent, reporter, shutdown.clone()));
        Self { health, shutdown, task }
    }

    /// Starts a connector and waits until it streams.
    pub async fn streaming(settings: &ConnectorSettings, transport: &Recorder) -> Self {
        Self::streaming_for(Arc::new(Independent), settings, transport).await
    }

    /// The same, for what depends on the tables.
    pub async fn streaming_for(
        dependent: Arc<dyn Dependent>,
        settings: &ConnectorSettings,
        transport: &Recorder,
    ) -> Self {
        let running = Self::start_for(dependent, settings, transport);
        running.wait_up().await;
        running
    }

    pub async fn wait_up(&self) {
        until("the source is up", async || {
            assert!(!self.task.is_finished(), "the connector stopped: {:?}", self.health.parts());
            self.health.is_up()
        })
        .await;
    }

    /// Waits until the source is down for a reason that holds `text`.
    pub async fn wait_down(&self, text: &str) {
        until(&format!("down because of {text}"), async || {
            self.health.parts()["source"].why.as_ref().is_some_and(|why| why.contains(text))
        })
        .await;
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task).await.expect("ends in time");
        ended.expect("no panic").expect("no error");
    }

    /// As `kill -9` does: nothing is finished, nothing is said.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// The error that it ends with.
    pub async fn error(self) -> ConnectorError {
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        let ended = ended.unwrap_or_else(|_| panic!("it goes on: {:?}", self.health.parts()));
        ended.expect("no panic").expect_err("an error")
    }
}
