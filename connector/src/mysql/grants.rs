//! What the user may do: tried, for privileges come in many ways (roles, groups, a server's own), and refused by the server's own word.

use mysql_async::Row;
use tributary_event::TableName;

use super::prepare::Facts;
use super::wire::log::{Identity, LogStream};
use super::wire::session::{Session, TOGETHER, quoted};
use crate::error::ConnectorError;
use crate::settings::MySqlSettings;

/// Whether the user may read the log, and see the tables.
pub(super) async fn suffice(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
) -> Result<(), ConnectorError> {
    may_read_log(session, facts, settings).await?;
    for tables in settings.tables.chunks(TOGETHER) {
        // Which of them it is that may not be seen, is not there, or is being altered, is asked of each.
        if !may_see_all(session, tables).await? {
            for table in tables {
                may_see(session, table).await?;
            }
        }
    }
    Ok(())
}

/// Whether the user may see the definitions of all these tables, by one statement.
async fn may_see_all(session: &mut Session, tables: &[TableName]) -> Result<bool, ConnectorError> {
    let of = |table: &TableName| format!("select 1 from (select * from {} limit 0) as seen", quoted(table));
    let all: Vec<String> = tables.iter().map(of).collect();
    match session.run("asking for columns", &all.join(" union all ")).await {
        Err(error @ ConnectorError::Unreachable { .. }) => Err(error),
        told => Ok(told.is_ok()),
    }
}

/// Whether the user may read the log: it is asked for from its end on.
async fn may_read_log(session: &mut Session, facts: &Facts, settings: &MySqlSettings) -> Result<(), ConnectorError> {
    let end = facts.end(session).await?;
    // Not that of the source, whose stream this would end.
    let identity = Identity::of(&format!("{} check", settings.identity));
    let begun = async {
        let mut stream =
            LogStream::open(&session.endpoint, session.is_mariadb, &identity, &end, settings.query).await?;
        let first = stream.event().await;
        stream.close().await;
        first.map(drop)
    };
    match begun.await {
        Err(error @ ConnectorError::Privilege { .. }) => Err(error),
        // Whatever else there is, the stream of the source has it too, or not.
        _ => Ok(()),
    }
}

/// Whether the user may see the definition of a table as a whole. A table that is not there, and one that is being altered, are no matter of privileges.
pub(super) async fn may_see(session: &mut Session, table: &TableName) -> Result<(), ConnectorError> {
    let name = quoted(table);
    let all_columns = format!("select * from {name} limit 0");
    match session.rows::<Row>("asking for its columns", &all_columns).await {
        Err(ConnectorError::Privilege { cause, .. }) => Err(ConnectorError::Privilege {
            place: format!("table {table}"),
            cause: format!("its definition cannot be seen, if it exists ({cause})"),
            remedy: format!("GRANT SELECT ON {name} TO {};", session.endpoint.grantee()),
        }),
        _ => Ok(()),
    }
}

/// What a source can do without, and what it does not know then.
pub(super) async fn lacks(session: &mut Session, has_several_hosts: bool) -> Result<Vec<String>, ConnectorError> {
    let mut asked = vec![(
        "show binary logs",
        "how long the server keeps what was not read cannot be told, so there is no warning before changes are lost; and a log that is begun anew (RESET) is seen only while it is shorter than what was read",
    )];
    if has_several_hosts {
        let replicas = if session.is_mariadb { "show all slaves status" } else { "show replica status" };
        asked.push((
            replicas,
            "a replica that is behind after a failover is not told from a server that has lost changes",
        ));
    }
    let mut lacking = Vec::new();
    for (statement, unknown) in asked {
        match session.rows::<Row>(statement, statement).await {
            Err(ConnectorError::Privilege { remedy, .. }) => lacking.push(format!("{unknown}; run: {remedy}")),
            told => drop(told?),
        }
    }
    Ok(lacking)
}
