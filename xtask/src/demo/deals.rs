//! `x demo --mysql`, `--mariadb` and `--two-databases`: movies with the deals over them, from other databases than PostgreSQL, or from two.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use movie_graph::deals::{Database, Databases, Service, documents, fill};
use tokio::process::Child;

use super::scenario::{Times, at_rest, compare, until_built};
use super::{Arguments, binary, pipeline, relative, stop, tributary, until_ended};
use crate::interrupt::unless_interrupted;
use crate::parts::{Running, Wanted, empty};
use crate::tools::{repository, target};

/// Where vendors and deals lie, and all else where there is one database.
const DATABASE: &str = "studio";

/// A demo whose servers run.
struct Demo {
    folder: PathBuf,
    servers: Running,
    databases: Databases,
    service: Service,
    pipeline: PathBuf,
}

/// Which database a step changes.
enum In {
    Films,
    Contracts,
}

/// What happens, in order: what a person would call it, where, and the statements.
const STEPS: [(&str, In, &str); 9] = [
    ("a movie is renamed", In::Films, "update movie set title = 'The Land Girls, Restored' where id = 1"),
    (
        "a vendor of hundreds of movies is renamed",
        In::Contracts,
        "update vendor set name = concat(name, ' Pictures') where id = \
         (select vendor_id from (select vendor_id from deal group by vendor_id order by count(*) desc limit 1) most)",
    ),
    (
        "a new director joins two movies",
        In::Films,
        "insert into talent values (900001, 'Ada Lovelace'); insert into movie_talent values (2, 900001), (3, 900001)",
    ),
    (
        "one of the two is moved to another movie",
        In::Films,
        "update movie_talent set movie_id = 4 where movie_id = 3 and talent_id = 900001",
    ),
    (
        "a new vendor signs deals",
        In::Contracts,
        "insert into vendor values (900001, 'Kino Süd', 'Österreich'); \
         insert into deal values (900001, 50, 900001, 1000), (900002, 51, 900001, null), (900003, 51, null, 3000)",
    ),
    (
        "a deal moves to another movie, another is cancelled, a third has a price",
        In::Contracts,
        "update deal set movie_id = 52 where id = 900001; delete from deal where id = 900003; \
         update deal set amount_usd = 2000 where id = 900002",
    ),
    (
        "movies are deleted, and one comes back",
        In::Films,
        "delete from movie where id between 30 and 35; insert into movie (id, title) values (33, 'Back again')",
    ),
    (
        "one transaction touches every film",
        In::Films,
        "begin; update talent set name = concat(name, ' Jr.') where id % 100 = 0; \
         update movie set votes = votes + 1 where id % 50 = 0; delete from movie where id % 500 = 0; commit",
    ),
    (
        "one transaction touches every contract",
        In::Contracts,
        "begin; update vendor set country = 'France' where id % 10 = 0; \
         update deal set vendor_id = null where id % 70 = 0; delete from deal where id % 90 = 0; commit",
    ),
];

/// Runs the demo.
pub(super) async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let demo = unless_interrupted(Box::pin(start(arguments))).await?;
    println!("$ {} run {}\n", relative(&binary()), relative(&demo.pipeline));
    let mut process = tributary(&["run".into(), demo.pipeline.display().to_string()], &[])?;
    let result = if arguments.once {
        unless_interrupted(Box::pin(once(&demo, &mut process))).await
    } else {
        follow(&demo, arguments.two_databases, &mut process).await
    };
    stop(&mut process).await?;
    let Demo { servers, databases, service, .. } = demo;
    drop(service);
    databases.films.close().await;
    databases.contracts.close().await;
    servers.stop().await?;
    result
}

async fn start(arguments: &Arguments) -> Result<Demo> {
    let folder = target().join("demo");
    empty(&folder)?;
    println!("starting servers …");
    let Wanted { postgres, mysql, mariadb, kafka, elasticsearch, opensearch } = Wanted::everything();
    let wanted = Wanted {
        postgres: postgres.filter(|_| arguments.two_databases),
        mysql: mysql.filter(|_| !arguments.mariadb),
        mariadb: mariadb.filter(|_| arguments.mariadb),
        kafka: kafka.filter(|_| arguments.kafka),
        elasticsearch: elasticsearch.filter(|_| arguments.elasticsearch),
        opensearch: opensearch.filter(|_| arguments.opensearch),
    };
    let servers = Box::pin(wanted.start()).await?;
    let Some(mysql) = servers.mysql.as_ref().or(servers.mariadb.as_ref()) else {
        bail!("this machine has no MySQL: it comes from Debian's packages. ./x demo --mariadb may run")
    };
    let create = format!("create database {DATABASE} character set utf8mb4");
    let administrator = Database::open(&mysql.server_url())?;
    administrator.run(&create).await.context("creating the database")?;
    administrator.close().await;
    let contracts_url = mysql.url(DATABASE);
    let films_url = match &servers.postgres {
        Some(postgres) => postgres.url("postgres"),
        None => contracts_url.clone(),
    };
    let databases = Databases { films: Database::open(&films_url)?, contracts: Database::open(&contracts_url)? };
    let movies = fill(&databases).await?;
    let service = Service::start(databases.clone(), ([127, 0, 0, 1], 0).into()).await?;
    for (name, _, address) in servers.addresses() {
        println!("  {name:<14} {address}");
    }
    println!("  {:<14} {}   ({movies} movies)", "GraphQL", service.url());

    let committed = repository().join("compose/demo/deals");
    let name = if arguments.two_databases { "two-databases.yaml" } else { "one-database.yaml" };
    let text = std::fs::read_to_string(committed.join(name)).context("reading the demo's pipeline")?;
    // A source is a server: the database is a part of its tables' names.
    let (studio, contracts) = match arguments.two_databases {
        true => (films_url.clone(), mysql.server_url()),
        false => (mysql.server_url(), String::new()),
    };
    let text = text
        .replace("${STUDIO_URL}", &studio)
        .replace("${CONTRACTS_URL}", &contracts)
        .replace("${GRAPH_URL}", &service.url());
    let kind = if arguments.mariadb { "mariadb:" } else { "mysql:" };
    let text = text.replace("mysql:                                   # or mariadb", kind);
    let pipeline = folder.join("pipeline.yaml");
    let text = pipeline::chosen(&text, &folder, &servers, arguments);
    std::fs::write(&pipeline, text).with_context(|| format!("writing {}", pipeline.display()))?;
    std::fs::copy(committed.join("movies.graphql"), folder.join("movies.graphql")).context("copying the query")?;
    std::fs::write(folder.join("database-url"), &films_url).context("writing the database's address")?;
    std::fs::write(folder.join("contracts-url"), &contracts_url).context("writing the database's address")?;
    Ok(Demo { folder, servers, databases, service, pipeline })
}

/// Runs the steps and compares. Success only if nothing differs.
async fn once(demo: &Demo, process: &mut Child) -> Result<ExitCode> {
    let started = Instant::now();
    let address = until_built(&demo.folder, process).await?;
    let built = started.elapsed();
    for (what, place, statements) in STEPS {
        println!("\n— {what}");
        let database = match place {
            In::Films => &demo.databases.films,
            In::Contracts => &demo.databases.contracts,
        };
        database.run(statements).await.with_context(|| format!("{what}: {statements}"))?;
        at_rest(&address, process).await?;
    }
    let expected = documents(&demo.databases).await?;
    compare(&expected, &address, &demo.pipeline, process, Times { started, built, steps: STEPS.len() }).await
}

/// Shows what to try and runs until interrupted, or until `tributary` ends by itself.
async fn follow(demo: &Demo, two: bool, process: &mut Child) -> Result<ExitCode> {
    until_built(&demo.folder, process).await?;
    let (tributary, pipeline) = (relative(&binary()), relative(&demo.pipeline));
    let contracts = if two { "--contracts " } else { "" };
    println!(
        "
Try, in another terminal:
  ./x sql \"UPDATE movie SET title = 'Alien, again' WHERE id = 5\"
  ./x sql {contracts}\"UPDATE vendor SET name = 'Fox' WHERE name LIKE '20th%'\"
  ./x sql {contracts}\"INSERT INTO deal VALUES (900000, 5, 1, 1000000)\"
  {tributary} get {pipeline} movies 5
  {tributary} search {pipeline} movies 'title:alien'
Every change prints a line here. Ctrl-C stops everything.
"
    );
    until_ended(process).await
}

/// Runs statements on a database of MySQL or MariaDB, and prints rows.
pub(super) async fn sql(url: &str, statements: &str) -> Result<ExitCode> {
    let database = Database::open(url)?;
    let rows = database.rows(statements).await.context("the demo's database does not answer, or refuses")?;
    for row in &rows {
        let cells: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or("∅")).collect();
        println!("{}", cells.join(" | "));
    }
    // How many rows a statement changed is not known here.
    println!("{}", if rows.is_empty() { "done".to_owned() } else { format!("{} rows", rows.len()) });
    database.close().await;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipelines_name_every_place_that_a_run_fills_in() {
        for name in ["one-database.yaml", "two-databases.yaml"] {
            let path = repository().join("compose/demo/deals").join(name);
            let text = std::fs::read_to_string(path).expect("the pipeline");
            for place in
                ["${STUDIO_URL}", "${GRAPH_URL}", "${TRIBUTARY_DATA:-./data}", "    refresh: 100ms\n", "\ngraph:\n"]
            {
                assert!(text.contains(place), "{name}: {place}");
            }
        }
    }
}
