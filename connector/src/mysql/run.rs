//! One attempt to capture a source, from the lock to the end of the stream.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use tributary_event::Reporter;
use tributary_event::debezium::Encoder;
use tributary_transport::{Purpose, Transport};

use super::inspect::notes;
use super::monitor::watch;
use super::prepare::{checkpoint, prepare};
use super::stream::source::MySqlSource;
use crate::dependent::Dependent;
use crate::error::ConnectorError;
use crate::publish::{Published, publish};
use crate::settings::{ConnectorSettings, MySqlSettings};

/// Of every source: nothing says when a commit is over that the log has already.
pub(super) const AHEAD: &str = "an event may come before everybody sees its change (the server sends it before its commit is over): graph.lag must \
     allow for that";

/// Captures the source until it fails or `shutdown` is cancelled; `None`: that came before it streamed.
pub(crate) async fn attempt(
    settings: &ConnectorSettings,
    mysql: &MySqlSettings,
    transport: &Arc<dyn Transport>,
    dependent: &Arc<dyn Dependent>,
    health: &Reporter,
    shutdown: &CancellationToken,
    streamed: &mut bool,
) -> Result<Option<Published>, ConnectorError> {
    let opening = async {
        let prepared = match prepare(settings, mysql, transport.as_ref(), dependent.as_ref()).await {
            Err(error @ ConnectorError::PositionLost { .. }) => {
                // Is it that of the last checkpoint?
                transport.checkpoints_are_readable().await?;
                return Err(error);
            }
            prepared => prepared?,
        };
        // Opening a producer fences any other process of this source. Only who holds the lock does so.
        let producer = transport.producer(&settings.name, Purpose::Source).await?;
        transport.checkpoints_are_readable().await?;
        if checkpoint(settings, transport.as_ref()).await?.as_ref() != Some(&prepared.checkpoint) {
            // We would begin behind a checkpoint that was not its last; it will be the next time.
            let cause = "another process of this source was still publishing".to_owned();
            return Err(ConnectorError::Locked { name: mysql.identity.clone(), cause });
        }
        let opened = MySqlSource::open(&settings.name, mysql, &prepared, transport.clone(), dependent.clone()).await?;
        Ok::<_, ConnectorError>((producer, opened, prepared))
    };
    let (producer, source, mut prepared) = tokio::select! {
        opened = opening => opened?,
        () = shutdown.cancelled() => return Ok(None),
    };
    for note in notes(&mut prepared.session, mysql).await? {
        tracing::warn!(source = settings.name, "{note}");
    }
    tracing::info!(source = settings.name, position = %prepared.checkpoint.position, version = prepared.session.version, "streaming");
    health.up();
    health.note(Some(AHEAD.to_owned()));
    *streamed = true;
    let encoder = Encoder::new(source.info(), settings.decimals);
    let progress = source.progress().clone();
    let publishing = publish(settings, source, encoder, producer, health.clone(), shutdown.clone());
    let mut session = prepared.session;
    let published = tokio::select! {
        published = Box::pin(publishing) => published,
        reason = watch(&mut session, &settings.name, mysql, &progress, health) => return Err(reason),
    };
    session.close().await;
    Ok(Some(published))
}
