//! One scenario's world: its own database, GraphQL service, pipeline and process, on servers that are shared or its own.

pub mod hook;
mod nodes;
mod process;
mod streams;
pub mod studio;
pub mod topics;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use movie_graph::{Faults, LoadOptions, Service, truth};
use tributary_stack::{
    Elasticsearch, ElasticsearchOptions, GraphqlProduct, GraphqlServer, Kafka, KafkaOptions, Postgres, PostgresOptions,
};

use crate::client;
use process::Process;

/// How long a condition may take to come true on a slow machine. Only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(180);
/// Movies of a world: as many as the scenarios need, for each of them builds an index of all.
pub const MOVIES: u64 = 1201;
/// All movies that there are.
pub const ALL: u64 = 3201;
/// Between two comparisons of an index with the truth while its pipeline is not at rest.
const BETWEEN_COMPARISONS: Duration = Duration::from_secs(15);

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
    /// A second node of Elasticsearch, which holds a copy of every shard. On a machine without the memory for it there is one
    /// node instead, and no copy; that is said.
    pub copies: bool,
}

pub struct World {
    /// The pipeline's processes, whether they run or not. Most worlds have one. They end before what they use.
    processes: Vec<Process>,
    pub name: String,
    pub sql: tokio_postgres::Client,
    pub service: Option<Service>,
    /// The GraphQL server that somebody else wrote, where the world has one.
    pub graphql: Option<GraphqlServer>,
    pub postgres: Option<Postgres>,
    pub kafka: Option<Kafka>,
    pub elasticsearch: Option<Elasticsearch>,
    /// The node that holds the copies.
    pub second_node: Option<Elasticsearch>,
    pub folder: tempfile::TempDir,
    database_url: String,
    /// What the pipeline connects with: the owner's URL, unless a scenario chose another.
    source_url: String,
    /// What the pipeline's commands are started with beside that.
    pub environment: Vec<(String, String)>,
    graph_url: String,
    /// The folder that its pipeline and its query are copied from.
    definition: PathBuf,
    /// The statement that computes every document.
    documents: String,
    /// Whether the order of lists says nothing: some servers let the database choose it.
    pub unordered: bool,
    /// Whether a process that ends because another one captures in its place is started again, as who runs it would.
    pub supervised: bool,
}

fn shared(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run ./x test, which starts the servers"))
}

pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the test database answers");
    tokio::spawn(connection);
    client
}

impl World {
    /// A world with movies of the demo, a GraphQL service over them, and a pipeline file. Nothing runs yet.
    pub async fn new(name: &str, pair: Pair, own: Own) -> Self {
        Self::of(name, pair, own, MOVIES).await
    }

    /// The same with so many movies.
    pub async fn of(name: &str, pair: Pair, own: Own, movies: u64) -> Self {
        let mut world = Self::bare(name, own).await;
        let options = LoadOptions { movies: movies as usize, ..LoadOptions::default() };
        movie_graph::load(&world.database_url, options).await.expect("the movies are loaded");
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let service = start_service(&world.database_url, listen).await;
        world.graph_url = format!("http://{}/graphql", service.address());
        world.service = Some(service);
        world.write_pipeline(pair, "");
        world
    }

    /// A world over other tables, behind a GraphQL server that somebody else wrote, without a pipeline.
    pub async fn behind(product: GraphqlProduct, name: &str, tables: &str) -> Self {
        let mut world = Self::bare(name, Own::default()).await;
        world.execute(tables).await;
        let server = GraphqlServer::start(product, &world.database_url).await.expect("the GraphQL server starts");
        world.graph_url = server.url().to_owned();
        world.graphql = Some(server);
        world
    }

    /// What the documents must be: a statement that computes each.
    pub fn expect(&mut self, documents: &Path) {
        self.documents = std::fs::read_to_string(documents).expect("the truth");
    }

    /// Gives the world a pipeline: that of a folder with a `pipeline.yaml`, its `movies.graphql`, and the truth in
    /// `documents.sql`.
    pub fn define(&mut self, pair: Pair, definition: &Path) {
        self.expect(&definition.join("documents.sql"));
        self.definition = definition.to_owned();
        self.write_pipeline(pair, "");
    }

    /// A world with an empty database, whose times are in UTC, and no graph.
    async fn bare(name: &str, own: Own) -> Self {
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
        admin.execute(&format!("ALTER DATABASE {database} SET timezone TO 'UTC'"), &[]).await.expect("a time zone");
        let database_url = format!("{server}/{database}");
        let kafka = match own.kafka {
            true => Some(Kafka::start(KafkaOptions::default()).await.expect("Kafka starts")),
            false => None,
        };
        let (elasticsearch, second_node) = match own {
            Own { copies: true, .. } if nodes::fit() => {
                let (first, second) = nodes::two().await;
                (Some(first), Some(second))
            }
            Own { elasticsearch: true, .. } | Own { copies: true, .. } => {
                let node = Elasticsearch::start(ElasticsearchOptions::default()).await.expect("Elasticsearch starts");
                (Some(node), None)
            }
            _ => (None, None),
        };
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            sql: connect(&database_url).await,
            graph_url: String::new(),
            service: None,
            graphql: None,
            definition: PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("compose/demo"),
            documents: truth::DOCUMENTS.to_owned(),
            unordered: false,
            supervised: false,
            processes: vec![Process::new(folder.path().to_owned())],
            folder,
            name,
            postgres,
            kafka,
            elasticsearch,
            second_node,
            source_url: database_url.clone(),
            environment: Vec::new(),
            database_url,
        }
    }

    /// Writes the pipeline: as it is defined, on this world's servers. `extra` goes under the index.
    pub fn write_pipeline(&mut self, pair: Pair, extra: &str) {
        let folder = self.folder.path();
        std::fs::copy(self.definition.join("movies.graphql"), folder.join("movies.graphql")).expect("the query");
        let transport = |brokers: String| {
            format!(
                "transport: {{ kafka: {{ brokers: \"{brokers}\", partitions: 3, replication: 1, min_insync: 1 }} }}\n"
            )
        };
        let (transport, store) = match pair {
            Pair::Embedded => (String::new(), String::new()),
            Pair::KafkaElasticsearch => {
                let url = self.store_url();
                let replicas = u32::from(self.second_node.is_some());
                (
                    transport(self.brokers()),
                    format!("    store: {{ elasticsearch: {{ url: \"{url}\", replicas: {replicas} }} }}\n"),
                )
            }
            Pair::KafkaOpenSearch => {
                let url = self.opensearch_url();
                (transport(self.brokers()), format!("    store: {{ opensearch: {{ url: \"{url}\", replicas: 0 }} }}\n"))
            }
        };
        // Of several processes each is at rest two deadlines after a change, so the default would make every test wait.
        let build = if extra.contains("build:") { "" } else { "    build: { deadline: 5s }\n" };
        let text = std::fs::read_to_string(self.definition.join("pipeline.yaml")).expect("the pipeline's definition");
        let text = text
            // Most graphs may lag, so that is what is tested.
            .replace("  # The service reads the primary, and keeps no answers.\n  lag: 0s\n", "")
            .replace("pipeline: movie-search\n", &format!("pipeline: {}\n{transport}", self.name))
            .replace("  studio:\n", &format!("  {}:\n", self.source()))
            .replace("    refresh: 100ms\n", &format!("    refresh: 100ms\n{store}{build}{extra}"))
            .replace("  movies:\n", &format!("  {}:\n", self.index()));
        std::fs::write(self.pipeline(), text).expect("the pipeline");
    }

    /// Replaces words of the pipeline, which must be there.
    pub fn edit_pipeline(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.pipeline()).expect("the pipeline");
        assert!(text.contains(from), "{from:?} is not in the pipeline:\n{text}");
        std::fs::write(self.pipeline(), text.replace(from, to)).expect("the pipeline");
    }

    /// URL of the GraphQL service.
    pub fn graph_url(&self) -> String {
        self.graph_url.clone()
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

    /// The URL of this world's OpenSearch.
    pub fn opensearch_url(&self) -> String {
        shared("TRIBUTARY_TEST_OPENSEARCH")
    }

    /// The URL of this world's Elasticsearch.
    pub fn store_url(&self) -> String {
        self.elasticsearch.as_ref().map_or_else(|| shared("TRIBUTARY_TEST_ELASTICSEARCH"), Elasticsearch::url)
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
        self.command_of(0, arguments)
    }

    /// The same, with the data folder of a process.
    fn command_of(&self, process: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tributary"));
        command
            .args(arguments)
            .env("STUDIO_URL", &self.source_url)
            .env("GRAPH_URL", &self.graph_url)
            .env("TRIBUTARY_LISTEN", "127.0.0.1:0")
            .env("TRIBUTARY_DATA", self.processes[process].data())
            .env("TRIBUTARY_LOG_FORMAT", "json")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
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
        self.start_process_with(0, options);
    }

    /// Starts a process of the pipeline, counted from 0: each has a data folder and a port of its own.
    pub fn start_process(&mut self, process: usize) {
        self.start_process_with(process, &[]);
    }

    fn start_process_with(&mut self, process: usize, options: &[&str]) {
        while self.processes.len() <= process {
            let folder = self.folder.path().join(format!("process-{}", self.processes.len()));
            std::fs::create_dir(&folder).expect("a folder");
            self.processes.push(Process::new(folder));
        }
        let pipeline = self.pipeline();
        let run = self.command_of(process, &[&["run", pipeline.to_str().expect("a path")], options].concat());
        self.processes[process].start(ignoring_file_size_signals(&run), &self.name);
    }

    /// How many lines of the output of a process's last run hold these words.
    pub fn said(&self, words: &str) -> usize {
        self.processes[0].output().lines().filter(|line| line.contains(words)).count()
    }

    /// The end of the log of each process's last run.
    pub fn log(&self) -> String {
        let mut text = String::new();
        for (number, process) in self.processes.iter().enumerate() {
            let output = process.output();
            let lines: Vec<&str> = output.lines().collect();
            text += &format!("— process {number}:\n{}\n", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
        text
    }

    /// Ends the first process without warning.
    pub fn kill(&mut self) {
        self.kill_process(0);
    }

    /// Ends a process without warning.
    pub fn kill_process(&mut self, process: usize) {
        self.processes[process].kill();
    }

    /// Asks a process to end, and waits until it has.
    pub async fn stop_process(&mut self, process: usize) {
        self.processes[process].terminate();
        let started = Instant::now();
        while self.processes[process].ended().is_none() {
            assert!(started.elapsed() < PATIENCE, "process {process} still runs:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Lets a process stand still, as a machine that is suspended does.
    pub fn pause_process(&mut self, process: usize) {
        self.processes[process].pause();
    }

    /// Lets it go on.
    pub fn resume_process(&mut self, process: usize) {
        self.processes[process].resume();
    }

    /// Asks a process to take what its pipeline's file says now.
    pub fn hang_up(&self, process: usize) {
        self.processes[process].hang_up();
    }

    /// Waits for the process to end by itself: its exit code.
    pub async fn ended(&mut self) -> i32 {
        let started = Instant::now();
        loop {
            if let Some(status) = self.processes[0].ended() {
                return status.code().unwrap_or(-1);
            }
            assert!(started.elapsed() < PATIENCE, "tributary still runs:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Where the first process that runs listens, once it does.
    pub fn address(&self) -> Option<String> {
        self.addresses().into_iter().next()
    }

    /// Where each process that runs listens, of those that do.
    pub fn addresses(&self) -> Vec<String> {
        self.processes.iter().filter_map(|process| process.address(&self.name)).collect()
    }

    /// Waits until something is true of the first process that runs.
    pub async fn until(&mut self, what: &str, condition: impl AsyncFn(&str) -> bool) {
        let of_first = async |addresses: &[String]| match addresses.first() {
            Some(address) => condition(address).await,
            None => false,
        };
        self.until_or(what, of_first, String::new).await;
    }

    /// Waits until every process that was started, and is not paused, listens.
    pub async fn until_all_listen(&mut self) {
        let running = self.processes.iter().filter(|process| process.is_up()).count();
        self.until_or("every process listens", async |addresses| addresses.len() == running, String::new).await;
    }

    /// Waits until something is true of the processes that run; `why` says more if it never is.
    async fn until_or(&mut self, what: &str, condition: impl AsyncFn(&[String]) -> bool, why: impl Fn() -> String) {
        let started = Instant::now();
        loop {
            if condition(&self.addresses()).await {
                return;
            }
            self.start_replaced_while(what);
            assert!(started.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}\n{}\n{}", why(), self.log());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts processes again that ended because another one captures in their place.
    pub fn start_replaced(&mut self) {
        self.start_replaced_while("its next step came");
    }

    fn start_replaced_while(&mut self, what: &str) {
        for process in 0..self.processes.len() {
            let Some(status) = self.processes[process].ended() else { continue };
            let replaced = self.processes[process].output().contains("another process took over");
            assert!(
                self.supervised && replaced,
                "process {process} ended ({status}) while the test waited until {what}:\n{}",
                self.log()
            );
            self.start_process(process);
        }
    }

    /// Waits until all that was committed so far is in the topics: the slot has moved behind it.
    pub async fn until_captured(&self) {
        let row = self.sql.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("a position");
        let end: String = row.get(0);
        let sql = format!(
            "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND confirmed_flush_lsn >= '{end}'"
        );
        let started = Instant::now();
        while self.sql.query_one(&sql, &[]).await.expect("slots").get::<_, i64>(0) != 1 {
            assert!(started.elapsed() < Duration::from_secs(120), "nothing is captured:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the pipeline is at rest, then asserts that the index equals the truth.
    pub async fn assert_converged(&mut self) {
        self.assert_converged_after("all changes").await;
    }

    /// The same; the words say which changes, if it fails. The pipeline is at rest when each process that runs is.
    pub async fn assert_converged_after(&mut self, what: &str) {
        self.assert_right_after(what, true).await;
    }

    /// Waits until the index equals the truth, though the pipeline may not be at rest: something keeps a listing waiting.
    pub async fn assert_right(&mut self) {
        self.assert_right_after("all changes", false).await;
    }

    async fn assert_right_after(&mut self, what: &str, at_rest: bool) {
        let (index, database_url, documents) = (self.index(), self.database_url.clone(), self.documents.clone());
        let unordered = self.unordered;
        let last = std::sync::Mutex::new(Vec::new());
        let running = self.processes.iter().filter(|process| process.is_up()).count();
        // A comparison costs more than all else that runs here: before the pipeline is at rest there is one now and then, so that a
        // failure can say what differs.
        let compared = std::sync::Mutex::new(Instant::now());
        let converged = async |addresses: &[String]| {
            let mut quiet = addresses.len() == running;
            for address in addresses {
                quiet = quiet && client::is_quiet(address, &index).await;
            }
            let Some(address) = addresses.first() else { return false };
            if at_rest && !quiet {
                let mut compared = compared.lock().expect("not poisoned");
                if compared.elapsed() < BETWEEN_COMPARISONS {
                    return false;
                }
                *compared = Instant::now();
            }
            let differences = wrong(&database_url, &documents, unordered, address, &index).await;
            let converged = (quiet || !at_rest) && differences.is_empty();
            let mut last = last.lock().expect("not poisoned");
            *last = differences;
            last.truncate(10);
            last.push(format!("at rest: {quiet}"));
            converged
        };
        let rest = if at_rest { "the pipeline is at rest and " } else { "" };
        self.until_or(&format!("{rest}its index is right, after {what}"), converged, || {
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
        use rustix::process::{Resource, getrlimit, prlimit};
        let process = self.processes[0].id();
        let limit = rustix::process::Rlimit { current: bytes, ..getrlimit(Resource::Fsize) };
        prlimit(Some(process), Resource::Fsize, limit).expect("the limit is set");
    }

    /// The most memory, in bytes, that the first process had at a time since this was asked last.
    pub fn most_memory(&self) -> u64 {
        let of = format!("/proc/{}", self.processes[0].id().as_raw_nonzero());
        let status = std::fs::read_to_string(format!("{of}/status")).expect("it runs");
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
        // (`proc(5)`: `clear_refs`.)
        std::fs::write(format!("{of}/clear_refs"), "5").expect("forgotten");
        most.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    pub fn faults(&self) -> Faults {
        self.service.as_ref().expect("a service").faults()
    }

    pub async fn stop_service(&mut self) {
        self.service.take().expect("a service").stop().await;
    }

    pub async fn start_service_again(&mut self) {
        self.serve_from(&self.database_url.clone()).await;
    }

    /// Serves the graph from another database, at the same address.
    pub async fn serve_from(&mut self, database_url: &str) {
        if let Some(service) = self.service.take() {
            service.stop().await;
        }
        let address = self.graph_url.trim_start_matches("http://").trim_end_matches("/graphql");
        let address = address.parse().expect("the address of the service");
        self.service = Some(start_service(database_url, address).await);
    }
}

/// The same command, started so that a write beyond a file size limit fails instead of ending the process.
fn ignoring_file_size_signals(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
    shell
}

async fn wrong(database_url: &str, documents: &str, unordered: bool, address: &str, index: &str) -> Vec<String> {
    let client = connect(database_url).await;
    let mut expected = truth::documents_of(&client, documents).await.expect("the truth");
    let Some(mut actual) = client::documents(address, index).await else {
        return vec!["the index does not answer".to_owned()];
    };
    if unordered {
        expected.values_mut().chain(actual.values_mut()).for_each(sort_lists);
    }
    truth::differences(&expected, &actual)
}

fn sort_lists(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Array(items) => {
            items.iter_mut().for_each(sort_lists);
            items.sort_by_cached_key(ToString::to_string);
        }
        serde_json::Value::Object(fields) => fields.values_mut().for_each(sort_lists),
        _ => {}
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
