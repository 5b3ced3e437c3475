//! `x bench latency`: from the commit of one row to a consumer of its topic, at 10 and at 1,000 rows a second, on the embedded
//! log and on Kafka, and what an idle connector costs.

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio_postgres::NoTls;
use tributary_stack::{Kafka, Postgres, PostgresOptions};

use super::capture::TABLE;
use super::release;
use crate::tools::target;

pub(super) async fn run(seconds: u32) -> Result<()> {
    release().await?;
    let kafka = Kafka::start(super::as_shipped()).await?;
    let folder = target().join("bench/latency");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("emptying {}", folder.display()))?;
    }
    let transports = [
        ("embedded", format!("embedded:{}", folder.join("log").display())),
        ("kafka", format!("kafka:{}", kafka.bootstrap())),
    ];
    let mut figures = Vec::new();
    for (name, transport) in &transports {
        let postgres = Postgres::start(PostgresOptions::default()).await?;
        let url = postgres.url("postgres");
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
        let driving = tokio::spawn(connection);
        client.batch_execute(TABLE).await?;
        let output = Command::new(target().join("release/examples/drain"))
            .args(["latency", &url, &format!("latency_{name}"), transport, &seconds.to_string()])
            .output()
            .await
            .context("starting the measured process")?;
        if !output.status.success() {
            bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
        }
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        println!("{name}: {line}");
        figures.extend(line.split_whitespace().map(|pair| format!("{name}_{pair}")));
        drop(client);
        driving.await?.context("closing the connection")?;
        postgres.stop().await?;
    }
    kafka.stop().await?;
    println!("{}", figures.join(" "));
    Ok(())
}
