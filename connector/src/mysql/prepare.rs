//! Makes a source ready: the server fits, this process is the one that reads, the tables are there, and where to begin is durable.
//!
//! There is no slot: the server keeps nothing for us, so a position is durable before anybody relies on the capture. One process reads at a
//! time, the one that holds a lock of the server by the source's name; the lock goes with its session.

use std::collections::{HashMap, HashSet};

use tributary_event::{ErrorClass, TableName};
use tributary_transport::{Batch, Checkpoint, Purpose, Transport};

use super::checkpoint::MySqlCheckpoint;
use super::grants;
use super::position::{Domains, FilePosition, GtidSet, LogPosition};
use super::tables::ahead;
use super::tables::charsets::Collations;
use super::tables::history::History;
use super::tables::mapped::schema;
use super::tables::{self, Shape};
use super::wire::failure::is_unknown_statement;
use super::wire::session::Session;
use crate::carried::Carried;
use crate::dependent::{Dependent, Doubt};
use crate::error::ConnectorError;
use crate::settings::{ConnectorSettings, MySqlSettings};
use crate::source::Mark as _;

/// What the stream begins with.
pub struct Prepared {
    /// The session that holds the lock.
    pub(super) session: Session,
    /// Where to begin.
    pub checkpoint: MySqlCheckpoint,
    pub(super) shapes: HashMap<TableName, Shape>,
    pub(super) history: History,
    pub(super) facts: Facts,
}

impl Prepared {
    /// Gives the lock back.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// What the server says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub uuid: String,
    pub has_checksum: bool,
    /// Where the log says everything of tables by itself.
    pub collations: Option<Collations>,
    /// Whether rows are in the log as a whole.
    pub whole_rows: bool,
    /// MySQL with GTIDs.
    gtids: bool,
}

/// Checks the server.
pub(super) async fn facts(session: &mut Session) -> Result<Facts, ConnectorError> {
    const SQL: &str =
        "select @@global.log_bin, @@global.binlog_format, @@global.binlog_row_image, @@global.binlog_checksum";
    const DOING: &str = "reading the server's settings";
    let row: Option<(i64, String, String, String)> = session.one(DOING, SQL).await?;
    let (log_bin, format, image, checksum) = row.unwrap_or_default();
    if log_bin == 0 {
        return Err(session.unfit("it keeps no binary log", "start it with log_bin and a server_id"));
    }
    if !format.eq_ignore_ascii_case("ROW") {
        return Err(session.unfit(
            format!("binlog_format is {format}, and rows are in the log with ROW alone"),
            "run: SET GLOBAL binlog_format = 'ROW'; sessions keep theirs until they end",
        ));
    }
    let mut facts = Facts {
        has_checksum: checksum.eq_ignore_ascii_case("CRC32"),
        whole_rows: image.eq_ignore_ascii_case("FULL"),
        ..Facts::default()
    };
    if !session.is_mariadb {
        let row: Option<(String, String, String)> =
            session.one(DOING, "select @@server_uuid, @@global.gtid_mode, @@global.binlog_row_metadata").await?;
        let (uuid, gtids, metadata) = row.unwrap_or_default();
        (facts.uuid, facts.gtids) = (uuid, gtids.eq_ignore_ascii_case("ON"));
        if metadata.eq_ignore_ascii_case("FULL") {
            facts.collations = Some(Collations::read(session).await?);
        }
    }
    Ok(facts)
}

pub(super) fn parsed<T: std::str::FromStr<Err = super::position::ParsePositionError>>(
    session: &Session,
    text: &str,
) -> Result<T, ConnectorError> {
    text.parse().map_err(|e: super::position::ParsePositionError| {
        ConnectorError::protocol(session.endpoint.place(), e.to_string())
    })
}

/// GTIDs that are owned, each of which is followed by its sessions (`uuid:7#21:9#22`), without those.
pub(super) fn without_owners(owned: &str) -> String {
    let mut owner = false;
    let mut kept = owned.to_owned();
    kept.retain(|c| {
        owner = c == '#' || owner && c.is_ascii_digit();
        !owner
    });
    kept
}

/// Everything that anybody sees has been written before this, or is in it.
pub(super) async fn end_of_log(session: &mut Session, gtids: bool) -> Result<LogPosition, ConnectorError> {
    const DOING: &str = "asking where the log ends";
    if session.is_mariadb {
        let text: Option<String> = session.one(DOING, "select @@global.gtid_binlog_pos").await?;
        return Ok(LogPosition::Domains(parsed::<Domains>(session, &text.unwrap_or_default())?));
    }
    if gtids {
        // What is seen is owned until it is executed; so in this order.
        let row: Option<(String, String)> =
            session.one(DOING, "select @@global.gtid_owned, @@global.gtid_executed").await?;
        let (owned, executed) = row.unwrap_or_default();
        let mut set: GtidSet = parsed(session, &executed)?;
        set.extend(&parsed(session, &without_owners(&owned))?);
        return Ok(LogPosition::Gtids(set));
    }
    Ok(LogPosition::File(file_end(session).await?))
}

pub(super) async fn file_end(session: &mut Session) -> Result<FilePosition, ConnectorError> {
    const DOING: &str = "asking where the log ends";
    let read = |row: Option<mysql_async::Row>| {
        row.and_then(|row| Some(FilePosition { file: row.get::<String, _>(0)?, offset: row.get::<u64, _>(1)? }))
    };
    let row = match session.one(DOING, "show binary log status").await {
        // Before 8.2 it was called otherwise.
        Err(error) if is_unknown_statement(&error) => session.one(DOING, "show master status").await?,
        row => row?,
    };
    read(row).ok_or_else(|| session.unfit("it keeps no binary log", "start it with log_bin and a server_id"))
}

/// The checkpoint of a source.
pub(crate) async fn checkpoint(
    settings: &ConnectorSettings,
    transport: &dyn Transport,
) -> Result<Option<MySqlCheckpoint>, ConnectorError> {
    let content = transport.checkpoint(&settings.name).await?;
    content.map(|content| MySqlCheckpoint::decode(&settings.name, &content)).transpose()
}

/// Takes the lock and makes everything ready; where the source never ran, it notes where it begins.
///
/// # Errors
/// The server does not fit or cannot be reached, a table is missing, the log was lost, or another process captures the source.
pub async fn prepare(
    settings: &ConnectorSettings,
    mysql: &MySqlSettings,
    transport: &dyn Transport,
    dependent: &dyn Dependent,
) -> Result<Prepared, ConnectorError> {
    let mut session = Session::open(&mysql.url).await?;
    let facts = facts(&mut session).await?;
    session.lock(&mysql.identity).await?;
    let known = checkpoint(settings, transport).await?;
    if known.is_none() {
        // Else the stream asks for it at once.
        grants::suffice(&mut session, &facts, mysql).await?;
    }
    let wanted = read_tables(&mut session, mysql).await?;
    suffice(&wanted, mysql, &facts, dependent)?;
    let mut history = History::load(&settings.name, transport).await?;
    let before = history.clone();
    let checkpoint = match known {
        Some(checkpoint) => {
            continues(&mut session, &facts, settings, &checkpoint).await?;
            history.prune(&mysql.tables, &checkpoint.position);
            checkpoint
        }
        None => {
            history = History::default();
            doubt_what_was_published(settings, mysql, transport, dependent).await?;
            let (checkpoint, shapes) = first(&mut session, &facts, mysql).await?;
            shapes.into_iter().for_each(|(table, shape)| history.add(&table, None, shape));
            checkpoint
        }
    };
    let mut shapes = HashMap::new();
    let mut unknown = Vec::new();
    for table in &mysql.tables {
        match history.at(table, &checkpoint.position) {
            Some(shape) => drop(shapes.insert(table.clone(), shape.clone())),
            None => unknown.push(table.clone()),
        }
    }
    if !unknown.is_empty() {
        // Newly listed: as they are now, unless they were others since.
        let known = ahead::look(&mut session, &facts, mysql, &checkpoint.position, &checkpoint.at, &unknown).await?;
        for (table, shape) in known {
            tracing::warn!(source = settings.name, %table, "the table is captured from now on; earlier changes may be missing in its topic");
            let why = "it was not captured before".to_owned();
            dependent.doubt(&[Doubt { table: table.clone(), why }]).await?;
            history.add(&table, None, shape.clone());
            shapes.insert(table, shape);
        }
    }
    if history != before {
        history.keep(&settings.name, transport).await?;
    }
    if self::checkpoint(settings, transport).await?.is_none() {
        let mut batch = Batch::new();
        batch.checkpoint = Some(Checkpoint { name: settings.name.clone(), content: checkpoint.encode() });
        transport.producer(&settings.name, Purpose::Source).await?.append(&batch).await?;
    }
    Ok(Prepared { session, checkpoint, shapes, history, facts })
}

/// A source without a checkpoint begins where the log ends. If its topics have changes, it ran before, and what came between is in none.
async fn doubt_what_was_published(
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

impl Facts {
    /// Where the log ends.
    pub(super) async fn end(&self, session: &mut Session) -> Result<LogPosition, ConnectorError> {
        end_of_log(session, self.gtids).await
    }
}

/// The listed tables; an error if one is missing.
pub(super) async fn read_tables(
    session: &mut Session,
    settings: &MySqlSettings,
) -> Result<Vec<(TableName, Shape)>, ConnectorError> {
    let found = tables::read(session, &settings.tables).await?;
    let names: HashSet<&TableName> = found.iter().map(|(name, _)| name).collect();
    if let Some(table) = settings.tables.iter().find(|table| !names.contains(table)) {
        grants::may_see(session, table).await?;
        return Err(tables::missing(session, table).await?);
    }
    Ok(found)
}

/// Whether the log carries what is needed of the tables.
pub(super) fn suffice(
    tables: &[(TableName, Shape)],
    settings: &MySqlSettings,
    facts: &Facts,
    dependent: &dyn Dependent,
) -> Result<(), ConnectorError> {
    let mut carried = Vec::new();
    for (table, shape) in tables {
        let schema = schema(table, shape, settings)?;
        for column in &shape.columns {
            let charset = column.described.charset.as_deref();
            if let Some(charset) = charset.filter(|name| super::values::charset::Charset::named(name).is_none()) {
                return Err(ConnectorError::Table {
                    table: table.to_string(),
                    cause: format!(
                        "the column {} has the character set {charset}, which is not known here",
                        column.name
                    ),
                    remedy: "convert it to utf8mb4".into(),
                });
            }
        }
        let before = (0..shape.columns.len()).map(|at| facts.whole_rows || schema.key.contains(&at)).collect();
        carried.push(Carried {
            quoted_name: super::wire::session::quoted(table),
            quote: super::wire::session::quote,
            whole_rows: "SET PERSIST binlog_row_image = 'FULL';".into(),
            ids: shape.columns.iter().map(|column| tables::as_id(&column.described)).collect(),
            schema: schema.into(),
            unpublished: Vec::new(),
            row_filter: None,
            left_out: Vec::new(),
            quoted_publication: String::new(),
            before,
        });
    }
    dependent.check(&carried).map_err(ConnectorError::Refused)
}

/// Where a source begins that never ran, and the tables of that place.
async fn first(
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
        let server = facts.uuid.clone();
        let checkpoint = MySqlCheckpoint { version: 1, server, position, at, transaction: None, sequence: 0 };
        return Ok((checkpoint, before));
    }
}

/// Whether the server can go on behind a checkpoint.
async fn continues(
    session: &mut Session,
    facts: &Facts,
    settings: &ConnectorSettings,
    checkpoint: &MySqlCheckpoint,
) -> Result<(), ConnectorError> {
    let place = format!("source {}", settings.name);
    let lost = |cause: String| Err(ConnectorError::lost(place.clone(), cause, super::wire::failure::AFRESH));
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
        (LogPosition::File(read), false, false) => {
            if checkpoint.server != facts.uuid {
                return lost(format!(
                    "the checkpoint is of the server {}, and this is {}: offsets of one say nothing of the other",
                    checkpoint.server, facts.uuid
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
        (LogPosition::File(_), false, true) => lost("gtid_mode is ON, and was not when the source began".into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_of_gtids_are_left_out_and_nothing_else() {
        let owned = "3e11fa47-71ca-11e1-9e33-c80aa9429562:5#12:7#13,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:tag:1#9";
        let kept = without_owners(owned);
        assert_eq!(kept, "3e11fa47-71ca-11e1-9e33-c80aa9429562:5:7,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:tag:1");
        assert!(kept.parse::<GtidSet>().is_ok());
        assert_eq!(without_owners("").parse::<GtidSet>(), Ok(GtidSet::default()));
    }
}
