//! One scenario's world: its own database, GraphQL service, pipeline and process, on servers that are shared or its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use movie_graph::{Faults, LoadOptions, Service, truth};
use tributary_stack::{Elasticsearch, ElasticsearchOptions, Kafka, KafkaOptions, Postgres, PostgresOptions};

use crate::client;

/// How long a condition may take to come true on a slow machine. Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(180);

/// The two ways to run the same pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pair {
    /// Embedded log and embedded index.
    Embedded,
    /// Kafka and Elasticsearch.
    KafkaElasticsearch,
    /// Kafka and OpenSearch.
    KafkaOpenSearch,
}

/// Which servers a scenario brings itself because it is going to hurt them.
#[derive(Default)]
pub struct Own {
    pub postgres: bool,
    pub kafka: bool,
    pub elasticsearch: bool,
}

pub struct World {
    pub name: String,
    pub sql: tokio_postgres::Client,
    pub service: Option<Service>,
    pub postgres: Option<Postgres>,
    pub kafka: Option<Kafka>,
    pub elasticsearch: Option<Elasticsearch>,
    pub folder: tempfile::TempDir,
    database_url: String,
    /// What the pipeline connects with: the owner's URL, unless a scenario chose another.
    source_url: String,
    graph_address: std::net::SocketAddr,
    process: Option<Child>,
    runs: usize,
}

fn shared(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run ./x test, which starts the servers"))
}

async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the test database answers");
    tokio::spawn(connection);
    client
}

impl World {
    /// A world with the demo's movies, a GraphQL service over them, and a pipeline file. Nothing runs yet.
    pub async fn new(name: &str, pair: Pair, own: Own) -> Self {
        let name = format!("{}-{:06x}", name.replace('_', "-"), rand::random::<u32>() & 0xff_ffff);
        let postgres = match own.postgres {
            true => {
                let options = PostgresOptions { password: Some("of-the-owner".into()), ..PostgresOptions::default() };
                Some(Postgres::start(options).await.expect("PostgreSQL starts"))
            }
            false => None,
        };
        let server = postgres.as_ref().map_or_else(|| shared("TRIBUTARY_TEST_POSTGRES"), Postgres::server_url);
        let database = name.replace('-', "_");
        let admin = connect(&format!("{server}/postgres")).await;
        admin.execute(&format!("CREATE DATABASE {database}"), &[]).await.expect("a database");
        let database_url = format!("{server}/{database}");
        movie_graph::load(&database_url, LoadOptions::default()).await.expect("the movies are loaded");
        let kafka = match own.kafka {
            true => Some(Kafka::start(KafkaOptions::default()).await.expect("Kafka starts")),
            false => None,
        };
        let elasticsearch = match own.elasticsearch {
            true => Some(Elasticsearch::start(ElasticsearchOptions::default()).await.expect("Elasticsearch starts")),
            false => None,
        };
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let service = start_service(&database_url, listen).await;
        let mut world = Self {
            sql: connect(&database_url).await,
            graph_address: service.address(),
            service: Some(service),
            folder: tempfile::tempdir().expect("a folder"),
            process: None,
            runs: 0,
            name,
            postgres,
            kafka,
            elasticsearch,
            source_url: database_url.clone(),
            database_url,
        };
        world.write_pipeline(pair, "");
        world
    }

    /// Writes the pipeline: the demo's, on this world's servers. `extra` goes under the index.
    pub fn write_pipeline(&mut self, pair: Pair, extra: &str) {
        let folder = self.folder.path();
        let demo = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("compose/demo");
        std::fs::copy(demo.join("movies.graphql"), folder.join("movies.graphql")).expect("the query");
        let transport = |brokers: String| {
            format!(
                "transport: {{ kafka: {{ brokers: \"{brokers}\", partitions: 3, replication: 1, min_insync: 1 }} }}\n"
            )
        };
        let (transport, store) = match pair {
            Pair::Embedded => (String::new(), String::new()),
            Pair::KafkaElasticsearch => {
                let url = self
                    .elasticsearch
                    .as_ref()
                    .map_or_else(|| shared("TRIBUTARY_TEST_ELASTICSEARCH"), Elasticsearch::url);
                (
                    transport(self.brokers()),
                    format!("    store: {{ elasticsearch: {{ url: \"{url}\", replicas: 0 }} }}\n"),
                )
            }
            Pair::KafkaOpenSearch => {
                let url = shared("TRIBUTARY_TEST_OPENSEARCH");
                (transport(self.brokers()), format!("    store: {{ opensearch: {{ url: \"{url}\", replicas: 0 }} }}\n"))
            }
        };
        let text = std::fs::read_to_string(demo.join("pipeline.yaml")).expect("the demo's pipeline");
        let text = text
            .replace("pipeline: movie-search\n", &format!("pipeline: {}\n{transport}", self.name))
            .replace("  studio:\n", &format!("  {}:\n", self.source()))
            .replace("    refresh: 100ms\n", &format!("    refresh: 100ms\n{store}{extra}"))
            .replace("  movies:\n", &format!("  {}:\n", self.index()));
        std::fs::write(self.pipeline(), text).expect("the pipeline");
    }

    /// URL of the GraphQL service.
    pub fn graph_url(&self) -> String {
        format!("http://{}/graphql", self.graph_address)
    }

    /// URL of the database, as its owner.
    pub fn database_url(&self) -> String {
        self.database_url.clone()
    }

    /// The index's name: the world's own, for servers are shared.
    pub fn index(&self) -> String {
        self.name.clone()
    }

    /// The source's name, the prefix of its topics; short, for it is part of the slot's name.
    fn source(&self) -> String {
        format!("s{}", &self.name[self.name.len() - 6..])
    }

    /// The brokers of this world's Kafka.
    pub fn brokers(&self) -> String {
        self.kafka.as_ref().map_or_else(|| shared("TRIBUTARY_TEST_KAFKA"), Kafka::bootstrap)
    }

    /// The topic of a table.
    pub fn topic(&self, table: &str) -> String {
        format!("{}.{table}", self.source())
    }

    pub fn pipeline(&self) -> PathBuf {
        self.folder.path().join("pipeline.yaml")
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A `tributary` command on this world's pipeline.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
        command
            .args(arguments)
            .env("STUDIO_URL", &self.source_url)
            .env("GRAPH_URL", self.graph_url())
            .env("TRIBUTARY_LISTEN", "127.0.0.1:0")
            .env("TRIBUTARY_DATA", self.data())
            .env("TRIBUTARY_LOG_FORMAT", "json")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end: exit code, standard output, standard error.
    pub async fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = self.command(arguments);
        let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joined").expect("it runs");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    /// Starts `tributary run`.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts `tributary run` with options.
    pub fn start_with(&mut self, options: &[&str]) {
        assert!(self.process.is_none(), "one process at a time");
        self.runs += 1;
        let _ = std::fs::remove_file(self.record());
        let pipeline = self.pipeline();
        let log = |what: &str| {
            std::fs::File::create(self.folder.path().join(format!("run-{}.{what}", self.runs))).expect("a log")
        };
        let (out, err) = (log("out"), log("log"));
        let run = self.command(&[&["run", pipeline.to_str().expect("a path")], options].concat());
        let mut command = ignoring_file_size_signals(&run);
        self.process = Some(command.stdout(out).stderr(err).spawn().expect("tributary starts"));
    }

    /// How many lines of the last process's output hold these words.
    pub fn said(&self, words: &str) -> usize {
        self.output().lines().filter(|line| line.contains(words)).count()
    }

    /// The end of the last process's log.
    pub fn log(&self) -> String {
        let text = self.output();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    fn output(&self) -> String {
        let read = |what: &str| {
            std::fs::read_to_string(self.folder.path().join(format!("run-{}.{what}", self.runs))).unwrap_or_default()
        };
        format!("{}\n{}", read("out"), read("log"))
    }

    /// Ends the process without warning.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("a process");
        process.kill().expect("SIGKILL");
        process.wait().expect("it ends");
    }

    /// Waits for the process to end by itself: its exit code.
    pub async fn ended(&mut self) -> i32 {
        let started = Instant::now();
        loop {
            let process = self.process.as_mut().expect("a process");
            if let Some(status) = process.try_wait().expect("waitable") {
                self.process = None;
                return status.code().unwrap_or(-1);
            }
            assert!(started.elapsed() < PATIENCE, "tributary still runs:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn record(&self) -> PathBuf {
        self.data().join(format!("{}.running.json", self.name))
    }

    /// Where the running process listens, once it does.
    pub fn address(&self) -> Option<String> {
        let record = std::fs::read(self.record()).ok()?;
        serde_json::from_slice::<serde_json::Value>(&record).ok()?["address"].as_str().map(str::to_owned)
    }

    /// Waits until something is true of the running process.
    pub async fn until(&mut self, what: &str, condition: impl AsyncFn(&str) -> bool) {
        self.until_or(what, condition, String::new).await;
    }

    /// Waits until something is true of the running process; `why` says more if it never is.
    async fn until_or(&mut self, what: &str, condition: impl AsyncFn(&str) -> bool, why: impl Fn() -> String) {
        let started = Instant::now();
        loop {
            if let Some(address) = self.address()
                && condition(&address).await
            {
                return;
            }
            if let Some(status) = self.process.as_mut().and_then(|p| p.try_wait().expect("waitable")) {
                panic!("tributary ended ({status}) while the test waited until {what}:\n{}", self.log());
            }
            assert!(started.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}\n{}\n{}", why(), self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the pipeline is at rest, then asserts that the index equals the truth.
    pub async fn assert_converged(&mut self) {
        let (index, database_url) = (self.index(), self.database_url.clone());
        let last = std::sync::Mutex::new(Vec::new());
        let converged = async |address: &str| {
            let quiet = client::is_quiet(address, &index).await;
            let differences = wrong(&database_url, address, &index).await;
            let converged = quiet && differences.is_empty();
            let mut last = last.lock().expect("not poisoned");
            *last = differences;
            last.truncate(10);
            last.push(format!("at rest: {quiet}"));
            converged
        };
        self.until_or("the pipeline is at rest and its index is right", converged, || {
            last.lock().expect("not poisoned").join("\n")
        })
        .await;
    }

    /// Waits until at least `count` documents are searchable.
    pub async fn until_documents(&mut self, count: u64) {
        let path = format!("/indexes/{}", self.index());
        self.until("enough documents are searchable", async |address| {
            let status = client::get(address, &path).await.unwrap_or_default();
            status["documents"].as_u64().is_some_and(|n| n >= count)
        })
        .await;
    }

    pub async fn execute(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// Connects again after the database was restarted.
    pub async fn reconnect(&mut self) {
        self.sql = connect(&self.database_url).await;
    }

    /// Restarts this world's own PostgreSQL and connects again.
    pub async fn restart_postgres(&mut self) {
        self.postgres.as_ref().expect("own").restart().await.expect("restarted");
        self.reconnect().await;
    }

    /// Lets the pipeline connect as another user.
    pub fn connect_as(&mut self, user: &str, password: &str) {
        let (_, server) = self.database_url.rsplit_once('@').expect("a user in the URL");
        self.source_url = format!("postgres://{user}:{password}@{server}");
    }

    /// Lets the pipeline connect as the database's owner again.
    pub fn connect_as_owner(&mut self) {
        self.source_url.clone_from(&self.database_url);
    }

    /// Sets, or lifts, a limit on the size of every file that the running process writes.
    pub fn limit_files(&self, bytes: Option<u64>) {
        use rustix::process::{Pid, Resource, getrlimit, prlimit};
        let process = self.process.as_ref().expect("a process");
        let limit = rustix::process::Rlimit { current: bytes, ..getrlimit(Resource::Fsize) };
        prlimit(Some(Pid::from_child(process)), Resource::Fsize, limit).expect("the limit is set");
    }

    pub fn faults(&self) -> Faults {
        self.service.as_ref().expect("a service").faults()
    }

    pub async fn stop_service(&mut self) {
        self.service.take().expect("a service").stop().await;
    }

    pub async fn start_service_again(&mut self) {
        self.service = Some(start_service(&self.database_url, self.graph_address).await);
    }
}

/// The same command, started so that a write beyond a file size limit fails instead of ending the process.
fn ignoring_file_size_signals(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    shell
}

async fn wrong(database_url: &str, address: &str, index: &str) -> Vec<String> {
    let client = connect(database_url).await;
    let expected = truth::documents(&client).await.expect("the truth");
    match client::documents(address, index).await {
        Some(actual) => truth::differences(&expected, &actual),
        None => vec!["the index does not answer".to_owned()],
    }
}

async fn start_service(database_url: &str, listen: std::net::SocketAddr) -> Service {
    let settings = || movie_graph::Settings { database_url: database_url.to_owned(), listen, pool_size: 4 };
    let started = Instant::now();
    loop {
        match Service::start(settings()).await {
            Ok(service) => return service,
            // The port of a service that was just stopped may need a moment.
            Err(error) => assert!(started.elapsed() < PATIENCE, "the GraphQL service does not start: {error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
