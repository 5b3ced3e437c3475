//! `x demo`: starts the demo's servers, fills the database, and runs `tributary` on the demo's pipeline.
//!
//! Everything of a run lies in `target/demo`, which is emptied at the start: the pipeline as it is run, and its data.

mod deals;
mod pipeline;
mod scenario;
mod streams;

use std::fmt;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use movie_graph::{LoadOptions, Service, Settings};
use tokio::process::{Child, Command};

use crate::interrupt::{asked_to_end, unless_interrupted};
use crate::parts::{Running, Wanted, empty};
use crate::tools::{exit_code, repository, target};

/// Options of `x demo`.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct Arguments {
    /// Run a scripted scenario, prove that the index (or every sink) is what the database says, print figures and exit
    #[arg(long)]
    once: bool,
    /// Carry the events through a Kafka broker instead of the embedded log
    #[arg(long)]
    kafka: bool,
    /// Keep the documents in Elasticsearch instead of the embedded index
    #[arg(long, conflicts_with = "opensearch")]
    elasticsearch: bool,
    /// Keep the documents in OpenSearch instead of the embedded index
    #[arg(long)]
    opensearch: bool,
    /// Show a stream instead of an index: rises of budgets, told with what services know, in five kinds of sinks
    #[arg(long, conflicts_with_all = ["kafka", "elasticsearch", "opensearch"])]
    streams: bool,
    /// Keep movies, talents, vendors and deals in MySQL, and let the index follow that
    #[arg(long, conflicts_with_all = ["streams", "mariadb", "two_databases"])]
    mysql: bool,
    /// The same in MariaDB
    #[arg(long, conflicts_with_all = ["streams", "two_databases"])]
    mariadb: bool,
    /// Keep movies and talents in PostgreSQL, vendors and deals in MySQL, and show them in one document
    #[arg(long, conflicts_with = "streams")]
    two_databases: bool,
}

impl Arguments {
    /// Those of the demos that prove most: an index, streams with every kind of sink, and an index over two databases.
    pub(crate) fn proofs(without_mysql: bool) -> Vec<Self> {
        let once = Self { once: true, ..Self::default() };
        let two_databases = (!without_mysql).then(|| Self { two_databases: true, ..once.clone() });
        [once.clone(), Self { streams: true, ..once }].into_iter().chain(two_databases).collect()
    }
}

/// As they are typed, as far as proofs have them.
impl fmt::Display for Arguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.once, " --once"), (self.streams, " --streams"), (self.two_databases, " --two-databases")];
        all.iter().filter(|(is, _)| *is).try_for_each(|(_, option)| f.write_str(option))
    }
}

/// A demo whose servers run.
struct Demo {
    folder: PathBuf,
    database_url: String,
    servers: Running,
    service: Service,
}

/// Runs the demo.
pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode> {
    if arguments.mysql || arguments.mariadb || arguments.two_databases {
        return Box::pin(deals::run(&arguments)).await;
    }
    let demo = unless_interrupted(Box::pin(start(&arguments))).await?;
    if arguments.streams {
        return Box::pin(streams::run(demo, arguments.once)).await;
    }
    let pipeline = pipeline::write(&demo, &arguments)?;
    println!("$ {} run {}\n", relative(&binary()), relative(&pipeline));
    let mut process = tributary(&["run".into(), pipeline.display().to_string()], &[])?;
    let result = if arguments.once {
        unless_interrupted(Box::pin(scenario::run(&demo, &pipeline, &mut process))).await
    } else {
        follow(&demo, &pipeline, &mut process).await
    };
    stop(&mut process).await?;
    demo.service.stop().await;
    demo.servers.stop().await?;
    result
}

async fn start(arguments: &Arguments) -> Result<Demo> {
    let folder = target().join("demo");
    empty(&folder)?;
    println!("starting servers …");
    let Wanted { postgres, kafka, elasticsearch, opensearch, .. } = Wanted::everything();
    let wanted = Wanted {
        postgres,
        kafka: kafka.filter(|_| arguments.kafka),
        elasticsearch: elasticsearch.filter(|_| arguments.elasticsearch),
        opensearch: opensearch.filter(|_| arguments.opensearch),
        ..Wanted::default()
    };
    let servers = Box::pin(wanted.start()).await?;
    let Some(postgres) = &servers.postgres else { bail!("PostgreSQL did not start") };
    let database_url = postgres.url("postgres");
    let loaded = movie_graph::load(&database_url, LoadOptions::default()).await?;
    let settings = Settings { database_url: database_url.clone(), listen: ([127, 0, 0, 1], 0).into(), pool_size: 4 };
    let service = Service::start(settings).await?;
    for (name, _, address) in servers.addresses() {
        println!("  {name:<14} {address}");
    }
    println!("  {:<14} {}   ({} movies)", "GraphQL", service.url(), loaded.movies);
    Ok(Demo { folder, database_url, servers, service })
}

/// Shows what to try and runs until interrupted, or until `tributary` ends by itself.
async fn follow(demo: &Demo, pipeline: &std::path::Path, process: &mut Child) -> Result<ExitCode> {
    scenario::until_built(&demo.folder, process).await?;
    let (tributary, pipeline) = (relative(&binary()), relative(pipeline));
    println!(
        "
Try, in another terminal:
  ./x sql \"UPDATE movie SET title = 'Alien, again' WHERE id = 5\"
  ./x sql \"UPDATE distributor SET name = 'Fox' WHERE name LIKE '20th%'\"
  ./x sql \"INSERT INTO venue VALUES (1, 'Odeon', 'Leeds'); INSERT INTO screening VALUES (1, 5, 1, now())\"
  {tributary} get {pipeline} movies 5
  {tributary} search {pipeline} movies 'title:alien'
Every change prints a line here. Ctrl-C stops everything.
"
    );
    until_ended(process).await
}

/// Returns when the user has asked for the end, or `tributary` has ended by itself.
async fn until_ended(process: &mut Child) -> Result<ExitCode> {
    tokio::select! {
        asked = asked_to_end() => asked.map(|()| ExitCode::SUCCESS),
        status = process.wait() => Ok(exit_code(status.context("waiting for tributary")?)),
    }
}

/// The binary, which `./x` built together with this program.
fn binary() -> PathBuf {
    target().join("debug/tributary")
}

/// A path as a person in the repository's folder would type it.
fn relative(path: &std::path::Path) -> String {
    path.strip_prefix(repository()).unwrap_or(path).display().to_string()
}

fn tributary(arguments: &[String], variables: &[(&str, &str)]) -> Result<Child> {
    let mut command = Command::new(binary());
    command.args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).kill_on_drop(true);
    // A Ctrl-C is ours to pass on, after the children that depend on each other were stopped in order.
    command.process_group(0);
    command.spawn().context("starting tributary")
}

async fn stop(process: &mut Child) -> Result<()> {
    if let Some(pid) = process.id() {
        let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
    }
    if tokio::time::timeout(Duration::from_secs(20), process.wait()).await.is_err() {
        process.kill().await.context("ending tributary")?;
    }
    Ok(())
}

/// `x sql`: runs statements on the running demo's database, and prints rows. `contracts`: on that of deals, where it is another one.
pub(crate) async fn sql(statements: &str, contracts: bool) -> Result<ExitCode> {
    let file = target().join(if contracts { "demo/contracts-url" } else { "demo/database-url" });
    let url = std::fs::read_to_string(&file).context("no such demo runs here (start one with ./x demo)")?;
    if url.starts_with("mysql://") {
        return deals::sql(url.trim(), statements).await;
    }
    let connected = tokio_postgres::connect(url.trim(), tokio_postgres::NoTls).await;
    let (client, connection) =
        connected.context("the demo's database does not answer (start the demo with ./x demo)")?;
    let driving = tokio::spawn(connection);
    let messages = match client.simple_query(statements).await {
        Ok(messages) => messages,
        Err(error) => bail!("{}", error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)),
    };
    for message in messages {
        match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                let cells: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("∅")).collect();
                println!("{}", cells.join(" | "));
            }
            tokio_postgres::SimpleQueryMessage::CommandComplete(rows) => println!("{rows} rows"),
            _ => {}
        }
    }
    drop(client);
    driving.await.context("closing the connection")?.context("closing the connection")?;
    Ok(ExitCode::SUCCESS)
}
