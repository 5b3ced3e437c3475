//! Runs a connector: prepares the source, publishes it, and does both again after a transient failure.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tributary_event::debezium::Encoder;
use tributary_event::{ErrorClass, Reporter};
use tributary_transport::{Producer, Transport};

use crate::error::ConnectorError;
use crate::postgres::{self, PostgresSource};
use crate::publish::publish;
use crate::settings::{ConnectorSettings, SourceSettings};

/// The first wait after a failure; it doubles up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(15);

/// Runs a connector until `shutdown` is cancelled (then what was read is published, acknowledged, and `Ok` returned) or an
/// error that is not transient. Transient failures are retried for ever, with exponential backoff and jitter, and
/// shown by `health`.
///
/// Not cancel-safe: end it through `shutdown`.
///
/// # Errors
/// An error of class `Definite` or `Fatal`, with cause and remedy.
pub async fn run(
    mut settings: ConnectorSettings,
    transport: Arc<dyn Transport>,
    health: Reporter,
    shutdown: CancellationToken,
) -> Result<(), ConnectorError> {
    let mut producer: Option<Box<dyn Producer>> = None;
    let mut wait = FIRST_WAIT;
    loop {
        let mut progressed = false;
        let attempt = attempt(&settings, &*transport, &health, &shutdown, &mut producer, &mut progressed);
        let error = match Box::pin(attempt).await {
            Ok(()) => {
                health.down("stopped");
                return Ok(());
            }
            Err(error) => error,
        };
        if let ConnectorError::TextOnly { .. } = &error {
            tracing::info!(source = settings.name, reason = %error, "streaming anew");
            let SourceSettings::Postgres(postgres) = &mut settings.source;
            postgres.binary = false;
            continue;
        }
        health.down(error.to_string());
        if error.class() != ErrorClass::Transient {
            tracing::error!(source = settings.name, %error, "the connector stops");
            return Err(error);
        }
        if shutdown.is_cancelled() {
            return Ok(());
        }
        if progressed {
            wait = FIRST_WAIT;
        }
        let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.0));
        tracing::warn!(source = settings.name, %error, retry_ms = jittered.as_millis() as u64, "trying again");
        wait = (wait * 2).min(LAST_WAIT);
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

async fn attempt(
    settings: &ConnectorSettings,
    transport: &dyn Transport,
    health: &Reporter,
    shutdown: &CancellationToken,
    producer: &mut Option<Box<dyn Producer>>,
    progressed: &mut bool,
) -> Result<(), ConnectorError> {
    let SourceSettings::Postgres(postgres) = &settings.source;
    let opening = async {
        // The producer comes first: it fences an older one, so the checkpoint that is read next is the last.
        let opened = match producer.take() {
            Some(producer) => producer,
            None => {
                // Opening a producer fences another process of this source: not while that one reads the slot.
                postgres::wait_turn(postgres).await?;
                transport.ensure_topics(&settings.topic_specs()?).await?;
                transport.producer(&settings.name).await?
            }
        };
        let opened = producer.insert(opened);
        let prepared = postgres::prepare(settings, transport, &|_| Ok(())).await?;
        let source = PostgresSource::open(&settings.name, postgres, &prepared).await?;
        Ok::<_, ConnectorError>((opened, source))
    };
    let source = tokio::select! {
        opened = opening => opened?.1,
        () = shutdown.cancelled() => return Ok(()),
    };
    let Some(opened) = producer.take() else { return Ok(()) };
    tracing::info!(source = settings.name, slot = postgres.slot, "streaming");
    health.up();
    let encoder = Encoder::new(source.info(), settings.decimals);
    let publishing = publish(settings, source, encoder, opened, health.clone(), shutdown.clone());
    let published = tokio::select! {
        published = Box::pin(publishing) => published,
        () = postgres::monitor(&settings.name, postgres) => return Ok(()),
    };
    *progressed = published.progressed;
    // A producer that failed is opened anew; one whose source failed goes on.
    *producer = published.producer.filter(|_| !matches!(published.result, Err(ConnectorError::Transport(_))));
    published.result
}
