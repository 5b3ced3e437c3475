//! Runs a connector: prepares the source, publishes it, and does both again after a transient failure.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio_util::sync::CancellationToken;
use tributary_event::debezium::Encoder;
use tributary_event::{ErrorClass, Reporter, Trouble};
use tributary_transport::{Producer, Purpose, Transport};

use crate::dependent::Dependent;
use crate::error::ConnectorError;
use crate::mysql;
use crate::postgres::{self, Known, PostgresSource, Prepared, Watch};
use crate::publish::publish;
use crate::settings::{ConnectorSettings, PostgresSettings, SourceSettings};
use crate::source::Source as _;

/// The first wait after a failure; it doubles up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(15);
/// A standby asks more often whether its turn has come.
const STANDBY_WAIT: Duration = Duration::from_secs(1);

/// Runs a connector until `shutdown` is cancelled (then what was read is published, acknowledged, and `Ok` returned) or an
/// error that is not transient. Transient failures are retried for ever, with exponential backoff and jitter, and
/// shown by `health`; so is, once it has streamed, what an administrator can mend on the server (see
/// [`ConnectorError::is_mendable`]). While another process reads the slot it is a standby, which is no trouble.
///
/// Not cancel-safe: end it through `shutdown`.
///
/// # Errors
/// An error of class `Definite` or `Fatal`, with cause and remedy.
pub async fn run(
    mut settings: ConnectorSettings,
    transport: Arc<dyn Transport>,
    dependent: Arc<dyn Dependent>,
    health: Reporter,
    shutdown: CancellationToken,
) -> Result<(), ConnectorError> {
    let mut wait = FIRST_WAIT;
    let mut streamed = false;
    let mut trouble = Trouble::default();
    loop {
        let mut progressed = false;
        let ended = match &settings.source {
            SourceSettings::Postgres(postgres) => {
                let flags = (&mut streamed, &mut progressed);
                Box::pin(attempt((&settings, postgres), &*transport, &dependent, &health, &shutdown, flags)).await
            }
            SourceSettings::MySql(mysql) => {
                let attempt =
                    mysql::attempt(&settings, mysql, &transport, &dependent, &health, &shutdown, &mut streamed);
                Box::pin(attempt).await.and_then(|published| match published {
                    Some(published) => {
                        progressed = published.progressed;
                        published.result
                    }
                    None => Ok(()),
                })
            }
        };
        let error = match ended {
            Ok(()) => {
                health.down("stopped");
                return Ok(());
            }
            Err(error) => error,
        };
        if let ConnectorError::TextOnly { .. } = &error {
            tracing::info!(source = settings.name, reason = %error, "streaming anew");
            if let SourceSettings::Postgres(postgres) = &mut settings.source {
                postgres.binary = false;
            }
            continue;
        }
        if let ConnectorError::Unconverted { .. } = &error {
            tracing::info!(source = settings.name, reason = %error, "streaming anew");
            if let SourceSettings::Postgres(postgres) = &mut settings.source {
                postgres.unconverted = true;
            }
            continue;
        }
        let standby = error.is_standby();
        let news = if standby { health.standby(error.to_string()) } else { health.down(error.to_string()) };
        let waits = error.class() == ErrorClass::Transient || streamed && error.is_mendable();
        if !waits {
            tracing::error!(source = settings.name, %error, "the connector stops");
            return Err(error);
        }
        if shutdown.is_cancelled() {
            return Ok(());
        }
        if progressed {
            wait = FIRST_WAIT;
            trouble.over();
        }
        if standby {
            wait = wait.min(STANDBY_WAIT);
            trouble.over();
            if news {
                tracing::info!(source = settings.name, reason = %error, "a standby until its turn comes");
            }
        }
        let jittered = wait.mul_f64(rand::rng().random_range(0.5..1.0));
        if let Some(lasting) = (!standby).then(|| trouble.note(&error.to_string())).flatten() {
            let (retry_ms, lasting_s) = (jittered.as_millis() as u64, lasting.as_secs());
            tracing::warn!(source = settings.name, %error, retry_ms, lasting_s, "trying again");
        }
        wait = (wait * 2).min(LAST_WAIT);
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Takes publishing over, as the reader of the slot: nobody else publishes from then on, and nothing is missing before that.
async fn take_over(
    (settings, postgres): (&ConnectorSettings, &PostgresSettings),
    transport: &dyn Transport,
    prepared: &Prepared,
) -> Result<(Box<dyn Producer>, Known), ConnectorError> {
    // Opening a producer fences any other process of this source. Only who reads the slot does so, and opens it anew
    // each time, for while we were away another may have had its turn.
    let producer = transport.producer(&settings.name, Purpose::Source).await?;
    transport.checkpoints_are_readable().await?;
    if postgres::checkpoint(settings, transport).await? != prepared.checkpoint {
        // We began to read behind a checkpoint that was not its last; it will be the next time.
        let cause = "another process of this source was still publishing".to_owned();
        return Err(ConnectorError::SlotInUse { slot: postgres.slot.clone(), cause });
    }
    if let Some(checkpoint) = &prepared.checkpoint {
        // Slot and checkpoint are ours now, so neither moves while they are compared.
        postgres::continues(&postgres.slot, postgres::position(postgres).await?, checkpoint)?;
    }
    Ok((producer, Known::load(&settings.name, transport).await?))
}

async fn attempt(
    (settings, postgres): (&ConnectorSettings, &PostgresSettings),
    transport: &dyn Transport,
    dependent: &Arc<dyn Dependent>,
    health: &Reporter,
    shutdown: &CancellationToken,
    (streamed, progressed): (&mut bool, &mut bool),
) -> Result<(), ConnectorError> {
    let opening = async {
        postgres::wait_turn(postgres).await?;
        let prepared = match postgres::prepare(settings, transport, dependent.as_ref()).await {
            Err(error @ ConnectorError::PositionLost { .. }) => {
                // Is it that of the last checkpoint?
                transport.checkpoints_are_readable().await?;
                return Err(error);
            }
            prepared => prepared?,
        };
        let mut source =
            PostgresSource::open(&settings.name, postgres, &prepared, dependent.clone(), health.clone()).await?;
        let (producer, known) = tokio::select! {
            taken = take_over((settings, postgres), transport, &prepared) => taken?,
            Err(error) = source.keep_alive() => return Err(error),
        };
        Ok::<_, ConnectorError>((producer, source, prepared, known))
    };
    let (producer, source, prepared, known) = tokio::select! {
        opened = opening => opened?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let ahead = source.is_ahead().map(|why| {
        format!("an event may come before everybody sees its change ({why}): graph.lag must allow for that")
    });
    tracing::info!(source = settings.name, slot = postgres.slot, visible = ahead.is_none(), ahead, "streaming");
    health.up();
    health.note(ahead.clone());
    *streamed = true;
    let watch = Watch {
        name: &settings.name,
        settings: postgres,
        prepared: &prepared,
        dependent: dependent.as_ref(),
        transport,
        health,
        ahead: ahead.as_deref(),
    };
    let encoder = Encoder::new(source.info(), settings.decimals);
    let publishing = publish(settings, source, encoder, producer, health.clone(), shutdown.clone());
    let published = tokio::select! {
        published = Box::pin(publishing) => published,
        reason = postgres::monitor(watch, known) => return Err(reason),
    };
    *progressed = published.progressed;
    published.result
}
