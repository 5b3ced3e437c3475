//! What the server keeps for the slot, as metrics: how much log, and whether it may be lost.

use std::time::Duration;

use super::hosts;
use super::sql::Sql;
use crate::error::ConnectorError;
use crate::settings::PostgresSettings;

const INTERVAL: Duration = Duration::from_secs(10);

/// Reports the slot's state until it is dropped. Failures are left to the stream, which meets them too.
pub(crate) async fn monitor(name: &str, settings: &PostgresSettings) {
    loop {
        if let Err(error) = watch(name, settings).await {
            tracing::debug!(source = name, %error, "the slot's state cannot be read");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn watch(name: &str, settings: &PostgresSettings) -> Result<(), ConnectorError> {
    const SQL: &str = "select pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
        else pg_current_wal_lsn() end, restart_lsn)::float8, wal_status, safe_wal_size::float8 \
        from pg_catalog.pg_replication_slots where slot_name = $1::text::name";
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let mut warned = false;
    loop {
        for row in sql.query("reading the slot's state", SQL, &[&settings.slot]).await? {
            let (retained, status, safe): (Option<f64>, Option<String>, Option<f64>) =
                (row.get(0), row.get(1), row.get(2));
            metrics::gauge!("tributary_connector_wal_retained_bytes", "source" => name.to_owned())
                .set(retained.unwrap_or(0.0));
            if let Some(safe) = safe {
                metrics::gauge!("tributary_connector_wal_safe_bytes", "source" => name.to_owned()).set(safe);
            }
            let endangered = status.as_deref() == Some("unreserved");
            if endangered && !warned {
                tracing::warn!(
                    source = name,
                    slot = settings.slot,
                    "the server is about to remove log that this slot still needs; raise max_slot_wal_keep_size"
                );
            }
            warned = endangered;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
