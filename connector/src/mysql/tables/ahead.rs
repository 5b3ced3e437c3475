//! The catalog says what tables are now; the log is read at an earlier place. Between the two, definitions may follow that nobody has read yet. So
//! after the catalog was asked, the log is looked through up to where it ended then: if another definition of a table comes there, the catalog
//! had the table as it is behind that one, which does only if no row of the table comes before it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tributary_event::{ErrorClass, TableName};

use super::Shape;
use crate::error::ConnectorError;
use crate::mysql::binlog::{EventKind, StatementKind, TableMap, Unreadable};
use crate::mysql::position::{FilePosition, GtidSet, LogPosition};
use crate::mysql::prepare::{Facts, parsed};
use crate::mysql::stream::tracker::{Body, Step, Tracker};
use crate::mysql::wire::log::{Identity, LogStream};
use crate::mysql::wire::session::{Session, quoted};
use crate::settings::MySqlSettings;

/// After so long it is asked again where the log ended. While there is nothing, the server says so more often.
const AGAIN: Duration = Duration::from_secs(3);

/// The tables as they are at a place of the log, which the catalog may be ahead of. One that is not there any more is left out.
pub(in crate::mysql) async fn look(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
    from: &LogPosition,
    at: &FilePosition,
    tables: &[TableName],
) -> Result<Vec<(TableName, Shape)>, ConnectorError> {
    until_defined(session, tables).await?;
    let mut shapes = super::read(session, tables).await?;
    let Some(scan) = scan(session, facts, settings, (from, at), tables).await? else { return Ok(shapes) };
    match scan.doubtful.first() {
        // Where rows tell their columns, only those that do not, for they are older than the setting, need more.
        Some(_) if facts.collations.is_some() => {
            shapes.retain(|(table, _)| !scan.doubtful.iter().any(|(doubtful, _)| doubtful == table));
            Ok(shapes)
        }
        Some((table, place)) => Err(ConnectorError::lost(
            format!("table {table}"),
            format!(
                "its definition changed twice before the first change was read, with rows between the two, so that nobody knows the columns \
                 of those rows ({place})"
            ),
            "run: (MySQL) SET PERSIST binlog_row_metadata = 'FULL', with which rows tell their columns; and give the source a new name",
        )),
        None => Ok(shapes),
    }
}

/// Those of some tables that nothing defines from a place of the log on, up to where it ends now. What the catalog says of them is what it said there.
pub(in crate::mysql) async fn undefined(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
    place: (&LogPosition, &FilePosition),
    tables: &[TableName],
) -> Result<Vec<TableName>, ConnectorError> {
    until_defined(session, tables).await?;
    let scan = scan(session, facts, settings, place, tables).await?;
    Ok(scan.map_or_else(|| tables.to_vec(), |scan| scan.open))
}

/// Whether the catalog shows everything up to a place of the log. One of a replica that is still at it does not, nor is that of other servers known.
pub(in crate::mysql) async fn is_shown(session: &mut Session, position: &LogPosition) -> Result<bool, ConnectorError> {
    let LogPosition::Gtids(read) = position else { return Ok(true) };
    let executed: Option<String> =
        session.one("asking which commits are over", "select @@global.gtid_executed").await?;
    let executed: GtidSet = parsed(session, &executed.unwrap_or_default())?;
    Ok(read.is_subset(&executed))
}

/// Looks the log through, from a place on up to where it ends now, or until each table was defined; none: there is nothing.
async fn scan(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
    (from, at): (&LogPosition, &FilePosition),
    tables: &[TableName],
) -> Result<Option<Scan>, ConnectorError> {
    let mut end = facts.end(session).await?;
    if from.reaches(&end) {
        return Ok(None);
    }
    let identity = Identity::of(&format!("{} ahead", settings.identity));
    let stream = LogStream::open(&session.endpoint, session.is_mariadb, &identity, from, false).await?;
    let mut stream = stream.keeping(settings.transactions.as_deref());
    let mut scan = Scan {
        tracker: Tracker::new(from.clone(), at.clone(), facts.has_checksum),
        rows: BTreeSet::new(),
        open: tables.to_vec(),
        doubtful: Vec::new(),
    };
    let mut asked = Instant::now();
    while !scan.has_reached(&end) && !scan.open.is_empty() {
        if asked.elapsed() > AGAIN {
            // A transaction that was under way may have been rolled back: the log never has it.
            end = end.within(&facts.end(session).await?);
            asked = Instant::now();
            continue;
        }
        let event = stream.event().await?;
        let mut within = match scan.tracker.take(event, false)? {
            Step::Payload(payload) => Some(payload),
            step => {
                scan.examine(step)?;
                None
            }
        };
        while let Some(payload) = &mut within {
            match payload.next() {
                Ok(Some(event)) => {
                    let step = scan.tracker.take(event.into(), true)?;
                    scan.examine(step)?;
                }
                Err(Unreadable::Kept(error)) => return Err(error),
                // The stream stops at what the server has sent so.
                Ok(None) | Err(Unreadable::Malformed(_)) => within = None,
            }
        }
    }
    stream.close().await;
    Ok(Some(scan))
}

/// Waits until definitions that the log has are over: it has them before their commit is, and the catalog shows them behind it alone. Until then
/// they hold a lock that nobody reads the table beside.
async fn until_defined(session: &mut Session, tables: &[TableName]) -> Result<(), ConnectorError> {
    const DOING: &str = "waiting for a definition to be over";
    session.run(DOING, "set lock_wait_timeout = 60").await?;
    for table in tables {
        let read = format!("select 1 from {} limit 0", quoted(table));
        match session.run(DOING, &read).await {
            Err(error) if error.class() == ErrorClass::Transient => return Err(error),
            // It is not there any more, or not to be read: the catalog tells.
            _ => {}
        }
    }
    Ok(())
}

/// What was found on the way.
struct Scan {
    tracker: Tracker,
    /// Tables with rows.
    rows: BTreeSet<TableName>,
    /// Tables without a definition so far.
    open: Vec<TableName>,
    /// Tables with rows before a definition, and where that is.
    doubtful: Vec<(TableName, String)>,
}

impl Scan {
    fn has_reached(&self, end: &LogPosition) -> bool {
        match end {
            // A file may end, and the next one begin, without a transaction.
            LogPosition::File(end) => self.tracker.group.is_none() && self.tracker.at.reaches(end),
            end => self.tracker.position.reaches(end),
        }
    }

    fn examine(&mut self, step: Step) -> Result<(), ConnectorError> {
        match step {
            Step::Body(Body { kind: EventKind::TableMap, content, .. }) => {
                let map = TableMap::read(&content)
                    .map_err(|malformed| ConnectorError::protocol(self.tracker.place(), malformed.to_string()))?;
                self.rows.insert(TableName::new(map.schema, map.name));
            }
            Step::Statement(statement, kind) => {
                if kind == StatementKind::Definition {
                    let concerned = |table: &TableName| {
                        statement.may_concern(&table.schema, &table.name)
                            && !statement.keeps_columns(&table.schema, &table.name)
                    };
                    let defined: Vec<TableName> = self.open.iter().filter(|table| concerned(table)).cloned().collect();
                    self.open.retain(|table| !defined.contains(table));
                    let place = self.tracker.place();
                    let doubtful = defined.into_iter().filter(|table| self.rows.contains(table));
                    self.doubtful.extend(doubtful.map(|table| (table, place.clone())));
                }
                if self.tracker.is_ended_by_statement() {
                    self.tracker.end(false);
                }
            }
            Step::End(_) => drop(self.tracker.end(false)),
            Step::Nothing | Step::Body(..) | Step::Payload(_) => {}
        }
        Ok(())
    }
}
