//! The catalog says what tables are now; the log is read at an earlier place. Between the two, definitions may follow that nobody has read yet. So
//! after the catalog was asked, the log is looked through up to where it ended then: if another definition of a table comes there, the catalog
//! had the table as it is behind that one, which does only if no row of the table comes before it.

use std::collections::BTreeSet;

use tributary_event::TableName;

use super::binlog::{EventKind, Payload, StatementKind, TableMap};
use super::position::{FilePosition, LogPosition};
use super::prepare::Facts;
use super::session::Session;
use super::stream::{Identity, LogStream};
use super::tables::{self, Shape};
use super::tracker::{Step, Tracker};
use crate::error::ConnectorError;
use crate::settings::MySqlSettings;

/// The tables as they are at a place of the log, which the catalog may be ahead of. One that is not there any more is left out.
pub(super) async fn look(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
    from: &LogPosition,
    at: &FilePosition,
    tables: &[TableName],
) -> Result<Vec<(TableName, Shape)>, ConnectorError> {
    let shapes = tables::read(session, tables).await?;
    let end = facts.end(session).await?;
    if from.reaches(&end) {
        return Ok(shapes);
    }
    let identity = Identity::of(&format!("{} ahead", settings.identity));
    let mut stream = LogStream::open(&session.endpoint, session.is_mariadb, &identity, from).await?;
    let mut tracker = Tracker::new(from.clone(), at.clone(), facts.has_checksum);
    // Tables with rows before any definition; those with a definition are looked at no more.
    let (mut rows, mut open): (BTreeSet<TableName>, Vec<TableName>) = (BTreeSet::new(), tables.to_vec());
    while !tracker.position.reaches(&end) && !open.is_empty() {
        let event = stream.event().await?;
        let mut within = match tracker.take(&event, false)? {
            Step::Payload(body) => Payload::open(&body).ok(),
            step => {
                examine(step, &mut tracker, &mut rows, &mut open)?;
                None
            }
        };
        while let Some(payload) = &mut within {
            match payload.next() {
                Ok(Some(event)) => {
                    let step = tracker.take(&event, true)?;
                    examine(step, &mut tracker, &mut rows, &mut open)?;
                }
                _ => within = None,
            }
        }
    }
    stream.close().await;
    Ok(shapes)
}

fn examine(
    step: Step,
    tracker: &mut Tracker,
    rows: &mut BTreeSet<TableName>,
    open: &mut Vec<TableName>,
) -> Result<(), ConnectorError> {
    match step {
        Step::Body(EventKind::TableMap, body) => {
            let map = TableMap::read(&body)
                .map_err(|malformed| ConnectorError::protocol(tracker.place(), malformed.to_string()))?;
            rows.insert(TableName::new(map.schema, map.name));
        }
        Step::Statement(statement, kind) => {
            if kind == StatementKind::Definition {
                let concerned = |table: &TableName| statement.may_concern(&table.schema, &table.name);
                if let Some(table) = open.iter().find(|table| concerned(table) && rows.contains(*table)) {
                    return Err(ConnectorError::lost(
                        format!("table {table}"),
                        format!(
                            "its definition changed twice before the first change was read, with rows between the two, so that nobody \
                             knows the columns of those rows ({})",
                            tracker.place()
                        ),
                        "run: SET PERSIST binlog_row_metadata = 'FULL' (MySQL), with which rows tell their columns; and give the source a \
                         new name",
                    ));
                }
                open.retain(|table| !concerned(table));
            }
            if tracker.is_ended_by_statement() {
                tracker.end(false);
            }
        }
        Step::End(_) => drop(tracker.end(false)),
        Step::Nothing | Step::Body(..) | Step::Payload(_) => {}
    }
    Ok(())
}
