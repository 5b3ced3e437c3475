//! Whether a session sees what the log has: the server sends a transaction to its replicas before the commit is over, with
//! semi-synchronous replication (`AFTER_SYNC`) long before.
//!
//! * MySQL with GTIDs: a transaction owns its GTID from before it is written to the log until its commit is over and everybody sees it. So
//!   when none of those that are owned is owned any more, everything is seen that the log had when they were asked for.
//! * MariaDB: a consistent snapshot has its exact place in the log (`binlog_snapshot_position`), so one at or behind the log's end shows all
//!   before that, and so does whatever is read later.
//! * MySQL without GTIDs says neither.

use std::time::Duration;

use crate::error::ConnectorError;
use crate::mysql::position::{FilePosition, GtidSet};
use crate::mysql::prepare::{file_end, parsed, without_owners};
use crate::mysql::wire::session::Session;

const DOING: &str = "asking which commits are not over";
/// Commits take milliseconds, where nobody waits for a replica.
const PAUSE: Duration = Duration::from_millis(20);

/// Returns when whatever the log has had before the call is seen.
pub(super) async fn until_seen(session: &mut Session) -> Result<(), ConnectorError> {
    if session.is_mariadb {
        let end = file_end(session).await?;
        while !snapshot(session).await?.reaches(&end) {
            tokio::time::sleep(PAUSE).await;
        }
        return Ok(());
    }
    let mode: Option<String> = session.one(DOING, "select @@global.gtid_mode").await?;
    if !mode.is_some_and(|mode| mode.eq_ignore_ascii_case("ON")) {
        return Err(session.unfit(
            "without GTIDs the server does not say which changes of its log are seen, so rows cannot be listed beside it",
            "run: SET PERSIST gtid_mode = ON; (by its steps: OFF_PERMISSIVE, ON_PERMISSIVE, ON, with enforce_gtid_consistency = ON); an \
             index can list its roots from the graph as well (roots: { field: … }), and a table of `tables` can be read from a topic",
        ));
    }
    let mut open = owned(session).await?;
    while !open.is_empty() {
        tokio::time::sleep(PAUSE).await;
        let over = open.without(&owned(session).await?);
        open = open.without(&over);
    }
    Ok(())
}

/// The transactions of MySQL that are under way, as far as they have GTIDs.
async fn owned(session: &mut Session) -> Result<GtidSet, ConnectorError> {
    let owned: Option<String> = session.one(DOING, "select @@global.gtid_owned").await?;
    parsed(session, &without_owners(&owned.unwrap_or_default()))
}

/// The place in the log of what is seen in MariaDB now.
async fn snapshot(session: &mut Session) -> Result<FilePosition, ConnectorError> {
    session.run(DOING, "start transaction with consistent snapshot").await?;
    let rows: Vec<(String, String)> = session.rows(DOING, "show status like 'binlog\\_snapshot\\_%'").await?;
    session.run(DOING, "rollback").await?;
    let value = |name: &str| rows.iter().find(|row| row.0.eq_ignore_ascii_case(name)).map(|row| row.1.clone());
    let position = (value("binlog_snapshot_file"), value("binlog_snapshot_position").and_then(|at| at.parse().ok()));
    match position {
        (Some(file), Some(offset)) if !file.is_empty() => Ok(FilePosition { file, offset }),
        _ => Err(session.unfit(
            "it does not say which place of its log a snapshot shows",
            "an index can list its roots from the graph as well (roots: { field: … })",
        )),
    }
}
