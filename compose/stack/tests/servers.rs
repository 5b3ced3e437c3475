//! Every part starts, answers, is killed, starts again on the same port with the same data, and stops.
//!
//! `TRIBUTARY_TEST_WITHOUT=kafka,opensearch` leaves parts out on a machine that cannot have them.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use std::time::Instant;
use tributary_stack::{
    Elasticsearch, ElasticsearchOptions, GraphqlProduct, GraphqlServer, Kafka, KafkaOptions, OpenSearch,
    OpenSearchOptions, Postgres, PostgresOptions,
};

pub(crate) fn left_out(part: &str) -> bool {
    let without = std::env::var("TRIBUTARY_TEST_WITHOUT").unwrap_or_default();
    let out = without.split(',').any(|word| word.trim() == part);
    if out {
        eprintln!("{part} is left out by TRIBUTARY_TEST_WITHOUT: not tested");
    }
    out
}

pub(crate) fn seconds(what: &str, begin: Instant) {
    eprintln!("{what}: {:.2} s", begin.elapsed().as_secs_f64());
}

async fn query(url: &str, sql: &str) -> Result<Vec<String>> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let rows = client.simple_query(sql).await?;
    drop(client);
    connection.await??;
    let text = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(rows.iter().filter_map(text).collect())
}

#[tokio::test]
async fn postgres_keeps_committed_rows_over_kill_and_restart() -> Result<()> {
    let begin = Instant::now();
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    seconds("PostgreSQL started", begin);
    let url = postgres.url("postgres");
    assert_eq!(query(&url, "SHOW wal_level").await?, ["logical"]);
    query(&url, "CREATE TABLE t (id int); INSERT INTO t VALUES (7)").await?;

    postgres.kill().await?;
    assert!(query(&url, "SELECT 1").await.is_err());
    let begin = Instant::now();
    postgres.start_again().await?;
    seconds("PostgreSQL started again", begin);
    assert_eq!(query(&url, "SELECT id FROM t").await?, ["7"]);

    query(&url, "ALTER SYSTEM SET max_replication_slots = 3").await?;
    postgres.restart().await?;
    assert_eq!(query(&url, "SHOW max_replication_slots").await?, ["3"]);
    postgres.stop().await?;
    assert!(query(&url, "SELECT 1").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_paused_postgres_stands_still_with_its_workers() -> Result<()> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = postgres.url("postgres");
    let workers = query(&url, "SELECT pid FROM pg_stat_activity WHERE client_port IS NULL").await?;
    let main = postgres.pid().await.context("it runs")?.to_string();
    ensure!(workers.len() > 2, "{workers:?}");
    postgres.pause().await;
    for pid in workers.iter().chain([&main]) {
        let status = format!("/proc/{pid}/status");
        while !std::fs::read_to_string(&status)?.contains("State:\tT") {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }
    postgres.resume().await;
    assert_eq!(query(&url, "SELECT 1").await?, ["1"]);
    Ok(())
}

#[tokio::test]
async fn postgres_checks_a_password_and_takes_settings_and_keeps_a_given_data_folder() -> Result<()> {
    let folder = tempfile::tempdir_in("/tmp")?;
    make_enterable(folder.path())?;
    let options = PostgresOptions {
        password: Some("a b'c/d".to_owned()),
        data_dir: Some(folder.path().join("data")),
        settings: vec![("work_mem".to_owned(), "7MB".to_owned())],
        fsync: false,
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start(options.clone()).await?;
    assert_eq!(query(&postgres.url("postgres"), "SHOW work_mem").await?, ["7MB"]);
    assert_eq!(query(&postgres.url("postgres"), "SHOW fsync").await?, ["off"]);
    let open = format!("postgres://postgres:wrong@127.0.0.1:{}/postgres", postgres.port());
    let refusal = query(&open, "SELECT 1").await.unwrap_err();
    assert!(format!("{refusal:?}").contains("password authentication failed"), "{refusal:?}");
    query(&postgres.url("postgres"), "CREATE DATABASE kept").await?;
    drop(postgres);

    let postgres = Postgres::start(options).await?;
    assert_eq!(query(&postgres.url("kept"), "SELECT current_database()").await?, ["kept"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_its_log() -> Result<()> {
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let error = Postgres::start(PostgresOptions { settings, ..PostgresOptions::default() }).await.unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("unrecognized configuration parameter \"no_such_setting\""), "{text}");
    Ok(())
}

#[tokio::test]
async fn elasticsearch_keeps_documents_over_kill_and_restart() -> Result<()> {
    if left_out("elasticsearch") {
        return Ok(());
    }
    for version in ["9", "8"] {
        let begin = Instant::now();
        let options = ElasticsearchOptions { version: version.to_owned(), ..Default::default() };
        let node = Elasticsearch::start(options).await?;
        seconds("Elasticsearch started", begin);
        write_document(&node.url(), &format!("{version}.")).await?;
        node.kill().await?;
        assert!(reqwest::get(node.url()).await.is_err(), "its processes are gone");
        let begin = Instant::now();
        node.start_again().await?;
        seconds("Elasticsearch started again", begin);
        read_document(&node.url()).await?;
        node.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn opensearch_keeps_documents_over_kill_and_restart() -> Result<()> {
    if left_out("opensearch") {
        return Ok(());
    }
    for version in ["3", "2"] {
        let begin = Instant::now();
        let options = OpenSearchOptions { version: version.to_owned(), ..Default::default() };
        let node = OpenSearch::start(options).await?;
        seconds("OpenSearch started", begin);
        write_document(&node.url(), &format!("{version}.")).await?;
        node.kill().await?;
        assert!(reqwest::get(node.url()).await.is_err(), "its processes are gone");
        let begin = Instant::now();
        node.start_again().await?;
        seconds("OpenSearch started again", begin);
        read_document(&node.url()).await?;
        node.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn kafka_starts_again_after_kill_and_stops() -> Result<()> {
    if left_out("kafka") {
        return Ok(());
    }
    let begin = Instant::now();
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    seconds("Kafka started", begin);
    assert_eq!(kafka.brokers(), 1);
    tokio::net::TcpStream::connect(kafka.bootstrap()).await?;
    kafka.kill().await?;
    assert!(tokio::net::TcpStream::connect(kafka.bootstrap()).await.is_err());
    let begin = Instant::now();
    kafka.start_again().await?;
    seconds("Kafka started again", begin);
    kafka.stop().await
}

#[tokio::test]
async fn three_kafka_brokers_survive_the_loss_of_one() -> Result<()> {
    if left_out("kafka") {
        return Ok(());
    }
    let begin = Instant::now();
    let kafka = Kafka::start(KafkaOptions { brokers: 3, ..KafkaOptions::default() }).await?;
    seconds("three brokers started", begin);
    assert_eq!(kafka.bootstrap().split(',').count(), 3);
    kafka.kill_broker(2).await?;
    kafka.start_broker_again(2).await?;
    kafka.stop().await
}

#[tokio::test]
async fn foreign_graphql_servers_answer_from_the_database_and_again_after_a_kill() -> Result<()> {
    use std::io::Write as _;
    if let Some(cause) = GraphqlProduct::left_out() {
        // The print macros are captured by the harness.
        writeln!(std::io::stderr(), "NOT TESTED: GraphQL servers that others wrote: {cause}")?;
        return Ok(());
    }
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = postgres.url("postgres");
    query(&url, "CREATE TABLE movie (id bigint PRIMARY KEY, title text); INSERT INTO movie VALUES (7, 'Alien')")
        .await?;
    query(&url, "ALTER TABLE movie ADD year int, ADD score numeric, ADD distributor_id int").await?;
    for product in GraphqlProduct::ALL {
        let field = match product {
            GraphqlProduct::Postgraphile4 | GraphqlProduct::Postgraphile4WithFilters => "movieById(id: \"7\")",
            GraphqlProduct::Postgraphile5 => "movieByRowId(rowId: \"7\")",
            GraphqlProduct::Platformatic => "getMovieById(id: \"7\")",
            GraphqlProduct::Apollo => "movie(id: \"7\")",
        };
        let question = json!({ "query": format!("{{ movie: {field} {{ title }} }}") });
        let begin = Instant::now();
        let server = GraphqlServer::start(product, &url).await?;
        seconds(&format!("{product} started"), begin);
        let client = reqwest::Client::new();
        for round in 0..2 {
            let answer: Value = client.post(server.url()).json(&question).send().await?.json().await?;
            ensure!(answer["data"]["movie"]["title"] == "Alien", "{product}, round {round}: {answer}");
            server.kill().await?;
            ensure!(client.post(server.url()).json(&question).send().await.is_err(), "{product} is gone");
            server.start_again().await?;
        }
        server.stop().await?;
    }
    Ok(())
}

async fn write_document(url: &str, version: &str) -> Result<()> {
    let client = reqwest::Client::new();
    let root: Value = client.get(url).send().await?.json().await?;
    let number = root["version"]["number"].as_str().context("no version number")?;
    ensure!(number.starts_with(version), "{number} is not {version}x");
    let mapping = json!({"mappings": {"properties": {"title": {"type": "text", "analyzer": "english"}}}});
    let created = client.put(format!("{url}/movies")).json(&mapping).send().await?;
    ensure!(created.status().is_success(), "no index was made: {}", created.text().await?);
    let document = json!({"title": "The Gardeners"});
    client.put(format!("{url}/movies/_doc/1")).json(&document).send().await?.error_for_status()?;
    Ok(())
}

async fn read_document(url: &str) -> Result<()> {
    let client = reqwest::Client::new();
    client.post(format!("{url}/movies/_refresh")).send().await?.error_for_status()?;
    let query = json!({"query": {"match": {"title": "gardener"}}});
    let found: Value = client.post(format!("{url}/movies/_search")).json(&query).send().await?.json().await?;
    assert_eq!(found["hits"]["hits"][0]["_id"], "1", "{found}");
    Ok(())
}

/// A temporary folder is closed to the account that PostgreSQL runs under when the test runs as root.
pub(crate) fn make_enterable(path: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    Ok(())
}
