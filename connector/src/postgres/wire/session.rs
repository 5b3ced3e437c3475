//! What our sessions are told, so that nothing which an administrator sets for a role, a database or the server in general ends
//! them, slows them, changes what values look like, or hides rows.
//!
//! Settings of the client are stronger than those of `ALTER ROLE` and `ALTER DATABASE`, which are stronger than the server's.
//! What only a superuser may set cannot be overruled so; where it stands in the way, the error has the statement that lifts it
//! (see `sqlstate`).
//!
//! Reference: PostgreSQL documentation, "Server Configuration", 19.11 (client connection defaults) and 19.7 (planner).

use std::sync::Arc;

use tokio::sync::Mutex;

use super::endpoint::Endpoint;
use super::sql::Sql;
use super::sqlstate::{quote, through_a_pooler};
use crate::error::ConnectorError;

/// Settings of every session, by names that all servers know from 14 on.
pub(in crate::postgres) const SESSION: &[(&str, &str)] = &[
    ("client_encoding", "UTF8"),
    // The look of values.
    ("datestyle", "ISO, YMD"),
    ("intervalstyle", "postgres"),
    ("timezone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("xmloption", "content"),
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    // How our own statements are read. Names of types and tables that are not the system's are printed with their schema.
    ("search_path", "pg_catalog"),
    ("standard_conforming_strings", "on"),
    ("array_nulls", "on"),
    ("transform_null_equals", "off"),
    // The role that logs in is the one whose privileges are asked for.
    ("role", "none"),
    // Rows that policies hide from the role would be missing without a word.
    ("row_security", "off"),
    // What ends a statement or a session.
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("tcp_user_timeout", "0"),
    ("client_connection_check_interval", "0"),
    ("exit_on_error", "off"),
    ("local_preload_libraries", ""),
    // What makes statements fail or wait.
    ("default_transaction_read_only", "off"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    // A publication need not wait for a synchronous standby that is away: it is made again if it is lost.
    ("synchronous_commit", "local"),
];

/// Settings of replication sessions alone: a server that hears nothing of us any more frees the slot for the next reader
/// within seconds. We send a status every few seconds, also while we do not read; `tcp_user_timeout` would end the session
/// then.
pub(in crate::postgres) const SESSION_REPLICATION: &[(&str, &str)] = &[("wal_sender_timeout", "15000")];

/// Settings that a server may not know, or that have no effect before the first statement, so that they are set by one.
const LATER: &[(&str, &str)] = &[
    // Since 17. A walsender's transaction lasts as long as the transaction that it decodes.
    ("transaction_timeout", "0"),
    // What would make a page of keys read and sort the whole table.
    ("enable_indexscan", "on"),
    ("enable_indexonlyscan", "on"),
    ("enable_bitmapscan", "on"),
    ("enable_sort", "on"),
    ("enable_incremental_sort", "on"),
    ("random_page_cost", "1.1"),
    ("jit", "off"),
];

/// The statement that sets what the server knows of [`LATER`]; its first column is for [`check_told`].
pub(in crate::postgres) fn set_later() -> String {
    let set = |(name, value): &(&str, &str)| {
        format!(
            "case when pg_catalog.current_setting('{name}', true) <> '{value}' \
             then pg_catalog.set_config('{name}', '{value}', false) end"
        )
    };
    let set = LATER.iter().map(set).collect::<Vec<_>>().join(", ");
    format!("select pg_catalog.current_setting('search_path'), {set}")
}

/// Refuses a session that began without our settings: something between us and the server keeps them to itself.
pub(in crate::postgres) fn check_told(endpoint: &Endpoint, search_path: Option<&str>) -> Result<(), ConnectorError> {
    match search_path {
        Some("pg_catalog") => Ok(()),
        _ => Err(through_a_pooler(endpoint, "the settings of the session did not reach the server")),
    }
}

/// Whether a session ended before [`set_later`] could have its effect. Then it is begun anew with those settings from its first
/// moment, for a server that has such a limit knows its name.
pub(in crate::postgres) fn ended_too_early(error: &ConnectorError) -> bool {
    const TRANSACTION_TIMEOUT: &str = "25P04";
    matches!(error, ConnectorError::Database { code, .. } if code == TRANSACTION_TIMEOUT)
}

/// Settings of a session from its first moment on; `all`: also those that older servers do not know.
pub(in crate::postgres) fn from_the_first(all: bool) -> impl Iterator<Item = (&'static str, &'static str)> {
    SESSION.iter().chain(LATER.iter().filter(move |_| all)).copied()
}

/// A session that is made when it is needed, and shared.
pub(in crate::postgres) struct Session {
    endpoint: Endpoint,
    sql: Mutex<Option<Arc<Sql>>>,
}

impl Session {
    pub(in crate::postgres) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, sql: Mutex::new(None) }
    }

    /// The session, made anew if it has ended.
    pub(in crate::postgres) async fn get(&self) -> Result<Arc<Sql>, ConnectorError> {
        let mut sql = self.sql.lock().await;
        match &*sql {
            Some(sql) if !sql.is_closed() => Ok(sql.clone()),
            _ => Ok(sql.insert(Arc::new(Sql::connect(&self.endpoint).await?)).clone()),
        }
    }
}

/// How many sessions a source has at a time: the stream, the catalog, the monitor, and pages of keys.
const NEEDED: i32 = 4;

/// Refuses a limit of the role (its name, its limit) or the database with which the source could never run. Pure.
pub(in crate::postgres) fn check_limits(
    place: String,
    (role, of_role): (&str, i32),
    (database, of_database): (&str, i32),
) -> Result<(), ConnectorError> {
    let refuse = |what: &str, name: &str, limit: i32| {
        let sessions = if limit == 1 { "session" } else { "sessions" };
        Err(ConnectorError::settings(
            place.clone(),
            format!("the {what} {name} may have {limit} {sessions} at a time, and a source needs {NEEDED}"),
            format!("run: ALTER {} {} CONNECTION LIMIT -1;", what.to_uppercase(), quote(name)),
        ))
    };
    match () {
        () if (0..NEEDED).contains(&of_role) => refuse("role", role, of_role),
        () if (0..NEEDED).contains(&of_database) => refuse("database", database, of_database),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_with_which_a_source_cannot_run_are_refused() {
        let says =
            |role, database| check_limits("h".into(), ("ann", role), ("films", database)).map_err(|e| e.to_string());
        assert_eq!((says(-1, -1), says(4, 100)), (Ok(()), Ok(())));
        assert!(says(1, -1).expect_err("refused").contains("1 session at a time"));
        assert!(says(3, 0).expect_err("refused").contains("ALTER ROLE \"ann\" CONNECTION LIMIT -1;"));
        assert!(says(-1, 0).expect_err("refused").contains("ALTER DATABASE \"films\" CONNECTION LIMIT -1;"));
    }
}
