//! Heartbeats, if asked for: logical decoding messages without a meaning, written at an interval while the slot is read.
//!
//! A slot of a database where nothing happens stands still in a log that other databases of the server fill, and moves only
//! when the server or what is between says how far the log is. A message of the slot's own database comes through the stream
//! as changes do (where messages are asked for), or makes the server say where it is, and is in no table: nobody has to make
//! one, or to grant more than connecting.
//!
//! Only who reads the slot writes, so a standby process does not. Nobody publishes them, whoever wrote them.
//!
//! Reference: PostgreSQL documentation, `pg_logical_emit_message`.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::error::ConnectorError;
use crate::postgres::wire::endpoint::Endpoint;
use crate::postgres::wire::sql::Sql;
use crate::postgres::wire::sqlstate::{literal, quote};

/// The prefix of the messages.
pub(in crate::postgres) const PREFIX: &str = "tributary.heartbeat";

/// When the next one is due, and what was told about those that could not be written.
pub(in crate::postgres) struct Heartbeat {
    every: Duration,
    next: Instant,
    said: Option<String>,
}

impl Heartbeat {
    /// The first is due at once.
    pub(in crate::postgres) fn new(every: Duration) -> Self {
        Self { every, next: Instant::now(), said: None }
    }

    /// Ends when the next one is due. Cancel-safe.
    pub(in crate::postgres) async fn due(&self) {
        sleep_until(self.next).await;
    }

    /// Writes one, unless the server does not let us; that is told once, until it does.
    ///
    /// # Errors
    /// The connection broke.
    pub(in crate::postgres) async fn beat(
        &mut self,
        sql: &Sql,
        source: &str,
        slot: &str,
    ) -> Result<(), ConnectorError> {
        self.next = Instant::now() + self.every;
        let obstacle = write(sql, slot).await?;
        match &obstacle {
            Some(obstacle) if self.said.as_ref() != Some(obstacle) => {
                tracing::warn!(source, "no heartbeat can be written: {obstacle}");
            }
            None if self.said.is_some() => tracing::info!(source, "heartbeats are written"),
            _ => {}
        }
        self.said = obstacle;
        Ok(())
    }
}

/// Writes a heartbeat; returns cause and remedy if it cannot be.
async fn write(sql: &Sql, slot: &str) -> Result<Option<String>, ConnectorError> {
    const STATE: &str = "select pg_is_in_recovery(), current_setting('server_version_num')::int4";
    let rows = sql.query("asking whether the server can be written to", STATE, &[]).await?;
    let row = rows.first().ok_or_else(|| ConnectorError::protocol(sql.endpoint().place(), "no settings"))?;
    let (standby, version): (bool, i32) = (row.get(0), row.get(1));
    if standby {
        let place = sql.endpoint().place();
        return Ok(Some(format!("{place} is a standby; let the url lead to the primary, or leave heartbeat out")));
    }
    let statement = format!(
        "select pg_catalog.pg_logical_emit_message(false, {}, ''::text) from pg_catalog.pg_replication_slots \
         where slot_name = {} and active",
        literal(PREFIX),
        literal(slot)
    );
    Ok(match sql.execute(&statement).await? {
        Ok(()) => None,
        Err(error) if error.code == "42501" => Some(not_granted(sql.endpoint(), version)),
        Err(error) => Some(error.text()),
    })
}

fn not_granted(endpoint: &Endpoint, version: i32) -> String {
    let role = quote(&endpoint.user);
    // From 17 on the function has one more argument.
    let flush = if version >= 170_000 { ", boolean" } else { "" };
    format!(
        "the role {role} may not execute pg_logical_emit_message; run: \
         GRANT EXECUTE ON FUNCTION pg_catalog.pg_logical_emit_message(boolean, text, text{flush}) TO {role};"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_has_its_remedy() {
        let endpoint = Endpoint::parse(&"postgres://ann@h/films".into()).expect("a URL");
        assert!(not_granted(&endpoint, 160_000).contains("(boolean, text, text) TO \"ann\";"));
        assert!(not_granted(&endpoint, 170_000).contains("(boolean, text, text, boolean) TO \"ann\";"));
    }
}
