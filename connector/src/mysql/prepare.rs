//! Makes a source ready: the server fits, this process is the one that reads, the tables are there, and where to begin is durable.
//!
//! There is no slot: the server keeps nothing for us, so a position is durable before anybody relies on the capture. One process reads at a
//! time, the one that holds a lock of the server by the source's name; the lock goes with its session.

mod place;
mod reset;

use std::collections::{HashMap, HashSet};

use tributary_event::TableName;
use tributary_transport::{Batch, Checkpoint, Purpose, Transport};

use self::place::{continues, doubt_what_was_published, first};
use self::reset::is_the_log_that_was_read;
use super::checkpoint::MySqlCheckpoint;
use super::grants;
use super::position::{Domains, FilePosition, GtidSet, LogPosition};
use super::tables::ahead;
use super::tables::charsets::Collations;
use super::tables::history::History;
use super::tables::mapped::{UNKNOWN, schema};
use super::tables::{self, Shape};
use super::wire::failure::is_unknown_statement;
use super::wire::session::Session;
use crate::dependent::carried::Carried;
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
    /// What tells it from others: its UUID; of MariaDB its number, host and port.
    pub server: String,
    pub has_checksum: bool,
    /// Where the log says everything of tables by itself.
    pub collations: Option<Collations>,
    /// Whether rows are in the log as a whole.
    pub whole_rows: bool,
    /// MySQL with GTIDs.
    pub(super) gtids: bool,
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
        (facts.server, facts.gtids) = (uuid, gtids.eq_ignore_ascii_case("ON"));
        if metadata.eq_ignore_ascii_case("FULL") {
            facts.collations = Some(Collations::read(session).await?);
        }
    } else {
        // Servers of a cluster may share their number.
        const WHO: &str = "select concat(@@global.server_id, '@', @@hostname, ':', @@port)";
        facts.server = session.one(DOING, WHO).await?.unwrap_or_default();
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

/// Makes the topics, takes the lock and makes everything ready; where the source never ran, it notes where it begins.
///
/// # Errors
/// The server does not fit or cannot be reached, a table is missing, the log was lost, or another process captures the source.
pub async fn prepare(
    settings: &ConnectorSettings,
    mysql: &MySqlSettings,
    transport: &dyn Transport,
    dependent: &dyn Dependent,
) -> Result<Prepared, ConnectorError> {
    transport.ensure_topics(&settings.topic_specs()?).await?;
    let mut session = Session::open(&mysql.url).await?;
    let mut facts = facts(&mut session).await?;
    session.lock(&mysql.identity).await?;
    let mut known = checkpoint(settings, transport).await?;
    if known.is_none() {
        // A process that was killed may have left something unfinished that hides it. Opening a producer ends what is this source's.
        drop(transport.producer(&settings.name, Purpose::Source).await?);
        transport.checkpoints_are_readable().await?;
        known = checkpoint(settings, transport).await?;
    }
    if facts.gtids && known.as_ref().is_some_and(|known| matches!(known.position, LogPosition::File(_))) {
        // What was read before has no GTIDs, so no set of them says what was read.
        facts.gtids = false;
        let what = "gtid_mode was turned on since it began: the source goes on by files and offsets, and can follow no other server; for that give it a new name";
        tracing::info!(source = settings.name, "{what}");
    }
    if known.is_none() {
        // Else the stream asks for it at once.
        grants::suffice(&mut session, &facts, mysql).await?;
    }
    let wanted = read_tables(&mut session, mysql).await?;
    suffice(&wanted, mysql, &facts, dependent)?;
    let mut history = History::load(&settings.name, transport).await?;
    let before = history.clone();
    let mut checkpoint = match known {
        Some(checkpoint) => {
            continues(&mut session, &facts, settings, &checkpoint).await?;
            is_the_log_that_was_read(&mut session, &facts, settings, mysql, &checkpoint).await?;
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
    are_as_the_log_has_them(&mut session, &facts, mysql, &checkpoint, (&wanted, &shapes)).await?;
    if !unknown.is_empty() {
        if !checkpoint.prepared.is_empty() {
            // They may have rows of tables that are newly listed. Durable before those tables are known.
            checkpoint.prepared.clear();
            note(settings, transport, &checkpoint).await?;
        }
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
        note(settings, transport, &checkpoint).await?;
    }
    Ok(Prepared { session, checkpoint, shapes, history, facts })
}

/// Whether the tables are what they were at the checkpoint, but for what definitions say that are still to be read: an error if one was changed
/// without the log. Where the log tells the columns with the rows, that does no harm.
async fn are_as_the_log_has_them(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
    checkpoint: &MySqlCheckpoint,
    (now, then): (&[(TableName, Shape)], &HashMap<TableName, Shape>),
) -> Result<(), ConnectorError> {
    let is_other = |(table, now): &&(TableName, Shape)| then.get(table).is_some_and(|then| !then.is_read_as(now));
    let others: Vec<TableName> = now.iter().filter(is_other).map(|(table, _)| table.clone()).collect();
    if others.is_empty() || facts.collations.is_some() {
        return Ok(());
    }
    let place = (&checkpoint.position, &checkpoint.at);
    let undefined = ahead::undefined(session, facts, settings, place, &others).await?;
    // A definition that was read of another server may be under way here, or have been when the catalog was asked.
    if !ahead::is_shown(session, &checkpoint.position).await? {
        return Ok(());
    }
    let now = tables::read(session, &undefined).await?;
    let Some((table, _)) = now.iter().find(is_other) else { return Ok(()) };
    // Columns that may not be seen are not there for the catalog.
    grants::may_see(session, table).await?;
    Err(ConnectorError::lost(
        format!("table {table}"),
        "its columns are not those that it had when it was read last, and the log has no definition of it since: it was changed without the log \
         (sql_log_bin = 0?), and nobody knows which rows came before that",
        UNKNOWN,
    ))
}

/// Makes a checkpoint durable. The source's lock is held.
async fn note(
    settings: &ConnectorSettings,
    transport: &dyn Transport,
    checkpoint: &MySqlCheckpoint,
) -> Result<(), ConnectorError> {
    let mut batch = Batch::new();
    batch.checkpoint = Some(Checkpoint { name: settings.name.clone(), content: checkpoint.encode() });
    transport.producer(&settings.name, Purpose::Source).await?.append(&batch).await?;
    Ok(())
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
            whole_rows: "SET GLOBAL binlog_row_image = 'FULL';".into(),
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
