//! One connector into Kafka, until its input ends: our side of `x bench peers`.
//!
//! `capture <database url> <name> <publication> <brokers> <table,table,…> [option=value,…]`
//!
//! Of MySQL and MariaDB the publication is empty, and tables are named with their database.
//!
//! The options are those of values: `decimals`, `times`, `binary`, `hstore`, `intervals`, as `pipeline.yaml` has them.
//!
//! Says `ready` when changes from then on are captured.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use anyhow::bail;
use tokio_util::sync::CancellationToken;
use tributary_connector::{BinaryHandling, ConnectorSettings, Independent, SourceSettings, TimePrecision};
use tributary_event::Health;
use tributary_event::debezium::DecimalMode;
use tributary_transport::{Kafka, KafkaSettings, Transport};

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, name, publication, brokers, tables, options @ ..] = &arguments[..] else {
        bail!("usage: capture <database url> <name> <publication> <brokers> <table,table,…> [option=value,…]");
    };
    let mut settings = match url.starts_with("postgres") {
        true => ConnectorSettings::postgres(name, url.as_str().into(), tables.split(',')),
        false => ConnectorSettings::mysql(name, url.as_str().into(), tables.split(',')),
    };
    let values = match &mut settings.source {
        SourceSettings::Postgres(postgres) => {
            publication.clone_into(&mut postgres.publication);
            postgres.messages = true;
            &mut postgres.values
        }
        SourceSettings::MySql(mysql) => &mut mysql.values,
    };
    for option in options.iter().flat_map(|text| text.split(',')) {
        match option {
            "decimals=string" => settings.decimals = DecimalMode::String,
            "decimals=double" => settings.decimals = DecimalMode::Double,
            "times=adaptive_time_microseconds" => values.times = TimePrecision::AdaptiveTimeMicroseconds,
            "times=milliseconds" => values.times = TimePrecision::Milliseconds,
            "times=microseconds" => values.times = TimePrecision::Microseconds,
            "times=nanoseconds" => values.times = TimePrecision::Nanoseconds,
            "times=iso" => values.times = TimePrecision::Iso,
            "binary=base64_url" => values.binary = BinaryHandling::Base64Url,
            "binary=hex" => values.binary = BinaryHandling::Hex,
            "hstore=map" => values.hstore_as_map = true,
            "intervals=text" => values.intervals_as_text = true,
            other => bail!("the option {other} is not known"),
        }
    }
    let transport: Arc<dyn Transport> = Arc::new(Kafka::connect(KafkaSettings::single_broker(brokers))?);
    match &settings.source {
        SourceSettings::Postgres(_) => {
            tributary_connector::postgres::prepare(&settings, transport.as_ref(), &Independent).await?;
        }
        SourceSettings::MySql(mysql) => {
            let prepared = tributary_connector::mysql::prepare(&settings, mysql, transport.as_ref(), &Independent);
            prepared.await?.close().await;
        }
    }
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let task = tokio::spawn(tributary_connector::run(
        settings,
        transport,
        Arc::new(Independent),
        health.part("peers"),
        shutdown.clone(),
    ));
    writeln!(std::io::stdout(), "ready")?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    shutdown.cancel();
    Ok(task.await??)
}
