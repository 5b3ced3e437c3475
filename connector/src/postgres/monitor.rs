//! Beside the stream: what the server keeps for the slot, as metrics, whether the captured tables are still published, and
//! heartbeats.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tributary_event::ErrorClass;

use super::absent::no_such_table;
use super::catalog::{self, TableInfo, Which};
use super::heartbeat::Heartbeat;
use super::hosts;
use super::prepare::check;
use super::publication::{self, Published};
use super::sql::Sql;
use crate::error::ConnectorError;
use crate::settings::PostgresSettings;

const INTERVAL: Duration = Duration::from_secs(5);

/// The primary keys of tables whose identity is `FULL`, by OID: of these the log does not tell.
type Keys = HashMap<u32, Vec<String>>;

/// Watches until the stream, which began with these tables, must begin anew, and says why. Failures are left to the stream,
/// which meets them too.
pub(crate) async fn monitor(name: &str, settings: &PostgresSettings, tables: &[TableInfo]) -> ConnectorError {
    let mut keys: Keys = tables.iter().filter(|t| t.identity == 'f').map(|t| (t.oid, t.primary_key.clone())).collect();
    let mut heartbeat = settings.heartbeat.map(Heartbeat::new);
    loop {
        match watch(name, settings, &mut keys, &mut heartbeat).await {
            Ok(table) => {
                return ConnectorError::Server {
                    place: format!("table {table}"),
                    cause: "it has another primary key".into(),
                    remedy: "the stream begins anew with it".into(),
                    class: ErrorClass::Transient,
                };
            }
            Err(error) => tracing::debug!(source = name, %error, "the slot's state cannot be read"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Ends with the name of a table that has got another key.
async fn watch(
    name: &str,
    settings: &PostgresSettings,
    keys: &mut Keys,
    heartbeat: &mut Option<Heartbeat>,
) -> Result<String, ConnectorError> {
    let sql = Sql::connect(&hosts::find(&settings.url).await?).await?;
    let (mut endangered, mut said) = (false, String::new());
    loop {
        endangered = slot(&sql, name, settings, endangered).await?;
        let published = Published::read(&sql, &settings.publication).await?;
        let found = catalog::tables(&sql, &settings.table_names(), Which::Published(&published)).await?;
        for table in found.iter().filter(|table| table.identity == 'f') {
            if keys.insert(table.oid, table.primary_key.clone()).is_some_and(|key| key != table.primary_key) {
                return Ok(table.schema.qualified_name());
            }
        }
        // The same trouble is told once.
        match tables(&sql, name, settings, &found).await {
            Ok(()) => said.clear(),
            Err(error) if error.to_string() == said => {}
            Err(error) => {
                tracing::warn!(source = name, %error, "a table is not captured");
                said = error.to_string();
            }
        }
        let next = Instant::now() + INTERVAL;
        match heartbeat {
            Some(heartbeat) => beat_until(next, heartbeat, &sql, name, settings).await?,
            None => sleep_until(next).await,
        }
    }
}

/// Writes heartbeats as they become due, for so long.
async fn beat_until(
    end: Instant,
    heartbeat: &mut Heartbeat,
    sql: &Sql,
    name: &str,
    settings: &PostgresSettings,
) -> Result<(), ConnectorError> {
    loop {
        tokio::select! {
            () = heartbeat.due() => {}
            () = sleep_until(end) => return Ok(()),
        }
        heartbeat.beat(sql, name, &settings.slot).await?;
    }
}

/// The states that a slot's log can be in (`pg_replication_slots.wal_status`).
const STATES: [&str; 4] = ["reserved", "extended", "unreserved", "lost"];
/// A warning is due when less than this part of what the server keeps at most is left.
const LITTLE: f64 = 0.25;

/// Reports the slot's state; returns whether its log is about to be lost.
async fn slot(sql: &Sql, name: &str, settings: &PostgresSettings, warned: bool) -> Result<bool, ConnectorError> {
    const SQL: &str = "select pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() \
        else pg_current_wal_lsn() end, restart_lsn)::float8, wal_status, safe_wal_size::float8, \
        (select setting::float8 * 1048576 from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size') \
        from pg_catalog.pg_replication_slots where slot_name = $1::text::name";
    let mut endangered = false;
    for row in sql.query("reading the slot's state", SQL, &[&settings.slot]).await? {
        let (retained, status): (Option<f64>, Option<String>) = (row.get(0), row.get(1));
        let (safe, most): (Option<f64>, Option<f64>) = (row.get(2), row.get(3));
        metrics::gauge!("tributary_connector_wal_retained_bytes", "source" => name.to_owned())
            .set(retained.unwrap_or(0.0));
        if let Some(safe) = safe {
            metrics::gauge!("tributary_connector_wal_safe_bytes", "source" => name.to_owned()).set(safe);
        }
        for state in STATES {
            metrics::gauge!("tributary_connector_slot_state", "source" => name.to_owned(), "state" => state)
                .set(f64::from(u8::from(status.as_deref() == Some(state))));
        }
        let little = safe.zip(most).is_some_and(|(safe, most)| safe < most * LITTLE);
        endangered = little || status.as_deref() == Some("unreserved");
        if endangered && !warned {
            tracing::warn!(
                source = name,
                slot = settings.slot,
                safe_bytes = safe,
                "the server will soon remove log that this slot still needs; raise max_slot_wal_keep_size"
            );
        }
    }
    Ok(endangered)
}

/// A table that was dropped and created again, or taken out of the publication, is published again; what happened to it
/// meanwhile is not in the log.
async fn tables(sql: &Sql, name: &str, settings: &PostgresSettings, found: &[TableInfo]) -> Result<(), ConnectorError> {
    let missing: Vec<TableInfo> = publication::missing(sql, &settings.publication, found).await?;
    let check =
        |table: &TableInfo| check(table, sql.endpoint(), settings.key_of(&table.schema.schema, &table.schema.name));
    missing.iter().try_for_each(check)?;
    if !missing.is_empty() {
        publication::ensure(sql, sql.endpoint(), &settings.publication, &missing).await?;
    }
    for table in missing {
        tracing::warn!(
            source = name,
            table = table.schema.qualified_name(),
            publication = settings.publication,
            "the table was not published (created anew, or taken out?) and is again; changes that were made meanwhile are \
             not in the log: reindex"
        );
        metrics::counter!("tributary_connector_tables_lost_total", "source" => name.to_owned()).increment(1);
    }
    // New partitions do not inherit the identity of their root.
    found.iter().try_for_each(check)?;
    let names = settings.table_names();
    let is_found =
        |name: &&(String, String)| found.iter().any(|t| *t.schema.schema == *name.0 && *t.schema.name == *name.1);
    match names.iter().find(|name| !is_found(name)) {
        Some(gone) => Err(no_such_table(sql, gone).await?),
        None => Ok(()),
    }
}
