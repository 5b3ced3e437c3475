//! One connector into Kafka, until its input ends: our side of `x bench peers`.
//!
//! `capture <database url> <name> <publication> <brokers> <table,table,…>`
//!
//! Says `ready` when changes from then on are captured.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use anyhow::bail;
use tokio_util::sync::CancellationToken;
use tributary_connector::{ConnectorSettings, SourceSettings};
use tributary_event::Health;
use tributary_transport::{Kafka, KafkaSettings, Transport};

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, name, publication, brokers, tables] = &arguments[..] else {
        bail!("usage: capture <database url> <name> <publication> <brokers> <table,table,…>");
    };
    let mut settings = ConnectorSettings::postgres(name, url.as_str().into(), tables.split(','));
    let SourceSettings::Postgres(postgres) = &mut settings.source;
    publication.clone_into(&mut postgres.publication);
    postgres.messages = true;
    let transport: Arc<dyn Transport> = Arc::new(Kafka::connect(KafkaSettings::single_broker(brokers))?);
    tributary_connector::postgres::prepare(&settings, transport.as_ref(), &|_| Ok(())).await?;
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let task = tokio::spawn(tributary_connector::run(settings, transport, health.part("peers"), shutdown.clone()));
    writeln!(std::io::stdout(), "ready")?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    shutdown.cancel();
    Ok(task.await??)
}
