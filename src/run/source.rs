//! A source of a running pipeline: waits for its server, makes publication and slot ready, and publishes until shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_connector::{ConnectorError, ConnectorSettings, SourceSettings, mysql, postgres};
use tributary_event::{ErrorClass, Reporter};
use tributary_processor::Backoff;
use tributary_transport::Transport;

use crate::cli::exit::Failure;
use crate::dependent::Indexes;

/// A source of a running pipeline.
pub struct Source {
    /// What it captures, and how.
    pub settings: ConnectorSettings,
    /// Where it publishes.
    pub transport: Arc<dyn Transport>,
    /// Who depends on its tables.
    pub dependent: Arc<Indexes>,
    /// How it is.
    pub health: Reporter,
    /// Becomes true when no later change is missed.
    pub captured: watch::Sender<bool>,
}

impl Source {
    /// Runs until shutdown (`Ok`) or a fatal error.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        if !self.prepare(&shutdown).await? {
            return Ok(());
        }
        self.captured.send_replace(true);
        let Self { settings, transport, dependent, health, .. } = self;
        let ended = tributary_connector::run(settings, transport, dependent.clone(), health, shutdown).await;
        ended.map_err(|error| failure(&dependent, &error))
    }

    /// Makes publication and slot ready, or notes where the log is read from.
    async fn prepare_once(&self) -> Result<(), ConnectorError> {
        let (transport, dependent) = (self.transport.as_ref(), self.dependent.as_ref());
        match &self.settings.source {
            SourceSettings::Postgres(_) => postgres::prepare(&self.settings, transport, dependent).await.map(drop),
            SourceSettings::MySql(mysql) => {
                mysql::prepare(&self.settings, mysql, transport, dependent).await?.close().await;
                Ok(())
            }
        }
    }

    /// Waits for the server and makes publication and slot ready. False: shutdown came first.
    async fn prepare(&self, shutdown: &CancellationToken) -> Result<bool, Failure> {
        let name = &self.settings.name;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        loop {
            let prepared = tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                prepared = self.prepare_once() => prepared,
            };
            match prepared {
                Ok(()) => return Ok(true),
                Err(error) if error.is_standby() => {
                    self.health.standby(error.to_string());
                }
                Err(error) if error.class() == ErrorClass::Transient => {
                    if self.health.down(error.to_string()) {
                        let outage_s = self.health.outage().as_secs();
                        warn!(source = name, %error, outage_s, "the source is not ready; waiting");
                    }
                }
                Err(error) => return Err(failure(&self.dependent, &error)),
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(backoff.pause()) => {}
            }
        }
    }
}

fn failure(dependent: &Indexes, error: &ConnectorError) -> Failure {
    Failure::found(&dependent.explain(error))
}
