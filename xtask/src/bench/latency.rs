//! `x bench latency`: from the commit of one row to a consumer of its topic, at 10 and at 1,000 rows a second, on the embedded
//! log and on Kafka, and what an idle connector costs. `--mysql` and `--mariadb`: from the moment when the row is sent.

use anyhow::{Context, Result};
use tokio_postgres::NoTls;
use tributary_stack::{Kafka, MySql, MySqlOptions, MySqlProduct, Postgres, PostgresOptions};

use super::{binlog, capture, drained, release};
use crate::parts::empty;
use crate::tools::target;

/// Of PostgreSQL, or of a binary log.
pub(super) async fn run(product: Option<MySqlProduct>, seconds: u32) -> Result<()> {
    release().await?;
    let kafka = Kafka::start(super::as_shipped()).await?;
    let folder = target().join("bench/latency");
    empty(&folder)?;
    let transports = [
        ("embedded", format!("embedded:{}", folder.join("log").display())),
        ("kafka", format!("kafka:{}", kafka.bootstrap())),
    ];
    let mut figures = Vec::new();
    for (name, transport) in &transports {
        let source = format!("latency_{name}");
        let line = match product {
            None => of_postgres(&source, transport, seconds).await,
            Some(product) => of_binlog(product, &source, transport, seconds).await,
        };
        let line = line.with_context(|| (*name).to_owned())?;
        println!("{name}: {line}");
        figures.extend(line.split_whitespace().map(|pair| format!("{name}_{pair}")));
    }
    kafka.stop().await?;
    println!("{}", figures.join(" "));
    Ok(())
}

async fn of_postgres(source: &str, transport: &str, seconds: u32) -> Result<String> {
    let postgres = Postgres::start(PostgresOptions::default()).await?;
    let url = postgres.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    let driving = tokio::spawn(connection);
    client.batch_execute(capture::TABLE).await?;
    let line = drained::latency(&url, source, transport, seconds).await?;
    drop(client);
    driving.await?.context("closing the connection")?;
    postgres.stop().await?;
    Ok(line)
}

async fn of_binlog(product: MySqlProduct, source: &str, transport: &str, seconds: u32) -> Result<String> {
    let version = binlog::newest(product)?;
    let server = MySql::start(MySqlOptions::of(product, version)).await?;
    let mut sql = server.session("mysql").await?;
    for statement in [&format!("create database {source}"), &format!("use {source}"), binlog::TABLE] {
        sql.run(statement).await?;
    }
    sql.close().await?;
    let line = drained::latency(&server.server_url(), source, transport, seconds).await?;
    server.stop().await?;
    Ok(line)
}
