//! Where a source begins that has no checkpoint, and whether the server can go on behind the one that it has.

use std::collections::BTreeSet;

use tributary_event::{ErrorClass, TableName};
use tributary_transport::Transport;

use super::reset::newest;
use super::{Facts, file_end, parsed, read_tables};
use crate::dependent::{Dependent, Doubt};
use crate::error::ConnectorError;
use crate::mysql::checkpoint::MySqlCheckpoint;
use crate::mysql::position::{FilePosition, GtidSet, LogPosition};
use crate::mysql::tables::Shape;
use crate::mysql::wire::failure::AFRESH;
use crate::mysql::wire::session::Session;
use crate::settings::{ConnectorSettings, MySqlSettings};

/// A source without a checkpoint begins where the log ends. If its topics have changes, it ran before, and what came between is in none.
pub(super) async fn doubt_what_was_published(
    settings: &ConnectorSettings,
    mysql: &MySqlSettings,
    transport: &dyn Transport,
    dependent: &dyn Dependent,
) -> Result<(), ConnectorError> {
    let mut doubts = Vec::new();
    for table in &mysql.tables {
        let ends = match transport.watermarks(&settings.topic(&table.schema, &table.name)).await {
            Err(error) if error.class == ErrorClass::Transient => return Err(error.into()),
            // Nobody has made it yet.
            ends => ends.unwrap_or_default(),
        };
        if ends.iter().any(|ends| ends.high > 0) {
            tracing::warn!(
                source = settings.name,
                %table,
                "the table's topic has changes, and there is no checkpoint of the source (was it deleted?): it begins where the log \
                 ends, and what changed before is missing in the topic"
            );
            let why = "the checkpoint of its source is gone".to_owned();
            doubts.push(Doubt { table: table.clone(), why });
        }
    }
    if doubts.is_empty() { Ok(()) } else { dependent.doubt(&doubts).await }
}

/// Where a source begins that never ran, and the tables of that place.
pub(super) async fn first(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
) -> Result<(MySqlCheckpoint, Vec<(TableName, Shape)>), ConnectorError> {
    loop {
        // If they are the same before and after, they are so at every moment between.
        let before = read_tables(session, settings).await?;
        let position = match facts.gtids {
            // What is owned is not in the log yet.
            true => {
                let text: Option<String> =
                    session.one("asking where the log ends", "select @@global.gtid_executed").await?;
                LogPosition::Gtids(parsed(session, &text.unwrap_or_default())?)
            }
            false => facts.end(session).await?,
        };
        let at = match &position {
            LogPosition::File(at) => at.clone(),
            _ => FilePosition::default(),
        };
        if read_tables(session, settings).await? != before {
            continue;
        }
        let server = facts.server.clone();
        let file = newest(session, facts, settings).await?;
        let (prepared, transaction, sequence) = (BTreeSet::new(), None, 0);
        let checkpoint = MySqlCheckpoint { version: 1, server, position, at, file, prepared, transaction, sequence };
        return Ok((checkpoint, before));
    }
}

/// Whether the server can go on behind a checkpoint.
pub(super) async fn continues(
    session: &mut Session,
    facts: &Facts,
    settings: &ConnectorSettings,
    checkpoint: &MySqlCheckpoint,
) -> Result<(), ConnectorError> {
    let place = format!("source {}", settings.name);
    let lost = |cause: String| Err(ConnectorError::lost(place.clone(), cause, AFRESH));
    match (&checkpoint.position, session.is_mariadb, facts.gtids) {
        (LogPosition::Gtids(read), false, true) => {
            let purged: Option<String> = session.one("asking what the log has", "select @@global.gtid_purged").await?;
            let purged: GtidSet = parsed(session, &purged.unwrap_or_default())?;
            // What is being committed was sent already, for as long as a replica keeps the server waiting.
            let LogPosition::Gtids(has) = facts.end(session).await? else { return Ok(()) };
            let lacking = read.without(&has);
            if !lacking.is_empty() {
                return lacks(session, &place, lacking.to_string()).await;
            }
            let gone = purged.without(read);
            if !gone.is_empty() {
                return lost(format!("the server has purged transactions that were not read: {gone}"));
            }
            Ok(())
        }
        (LogPosition::Domains(read), true, _) => {
            let LogPosition::Domains(has) = facts.end(session).await? else { return Ok(()) };
            if !has.reaches(read) {
                return lacks(session, &place, format!("{read}, where its log ends at {has}")).await;
            }
            Ok(())
        }
        (LogPosition::File(read), false, _) => {
            if checkpoint.server != facts.server {
                return lost(format!(
                    "the checkpoint is of the server {}, and this is {}: offsets of one say nothing of the other",
                    checkpoint.server, facts.server
                ));
            }
            let end = file_end(session).await?;
            if !end.reaches(read) {
                return lacks(session, &place, format!("{read}, where its log ends at {end}")).await;
            }
            Ok(())
        }
        (LogPosition::Domains(_), false, _) | (LogPosition::Gtids(_) | LogPosition::File(_), true, _) => {
            lost("the checkpoint is of a server of the other kind".into())
        }
        (LogPosition::Gtids(_), false, false) => lost("gtid_mode was ON, and is not any more".into()),
    }
}

/// The server lacks what was read and published. One that follows another may yet get it, and is waited for; one that does not never will.
async fn lacks(session: &mut Session, place: &str, what: String) -> Result<(), ConnectorError> {
    if session.follows().await? {
        return Err(ConnectorError::Server {
            place: session.endpoint.place(),
            cause: format!("it is a replica that lacks what was read already ({what})"),
            remedy: "the source waits until it has that".into(),
            class: ErrorClass::Transient,
        });
    }
    Err(ConnectorError::lost(
        place,
        format!(
            "changes were published that {} lacks ({what}), and it follows no server that has them: a failover or a backup lost them",
            session.endpoint.place()
        ),
        "where the server before is still there, let this one get those transactions from it; else give the source a new name and run \
         tributary reindex",
    ))
}
