//! Whether the server's log is the one that was read, or was begun anew since (`RESET BINARY LOGS AND GTIDS`, `RESET MASTER`): then its
//! transactions have the same numbers, and its files the same names, as those that were read, and are others. A file is told by when it was made.
//!
//! The description of the format at the begin of each file has that time, and the server gives it with the file's own description wherever it
//! begins to send (MySQL documentation, "Format_description_event").

use super::{Facts, parsed};
use crate::error::ConnectorError;
use crate::mysql::checkpoint::{LogFile, MySqlCheckpoint};
use crate::mysql::position::{FilePosition, GtidSet, LogPosition};
use crate::mysql::stream::tracker::Tracker;
use crate::mysql::wire::failure::AFRESH;
use crate::mysql::wire::log::{Identity, LogStream};
use crate::mysql::wire::session::Session;
use crate::settings::{ConnectorSettings, MySqlSettings};

const DOING: &str = "asking whether the log is the one that was read";

/// An error where the server has begun its log anew since the checkpoint. Of another server than the checkpoint's nothing is said. Where that
/// file is gone, MySQL tells by its GTIDs: all that was read is removed with it, or the log is another one. MariaDB, and offsets, do not tell
/// that from a file that expired.
pub(super) async fn is_the_log_that_was_read(
    session: &mut Session,
    facts: &Facts,
    settings: &ConnectorSettings,
    mysql: &MySqlSettings,
    checkpoint: &MySqlCheckpoint,
) -> Result<(), ConnectorError> {
    let Some(read) = checkpoint.file.as_ref().filter(|file| file.server == facts.server) else { return Ok(()) };
    let Some(logs) = session.logs(DOING).await? else { return Ok(()) };
    let names: Vec<String> = logs.into_iter().map(|(name, _)| name).collect();
    let why = if names.contains(&read.name) {
        match log_file(session, facts, mysql, &read.name).await? {
            Some(file) if file.made != read.made => format!(
                "its file {} was made {} seconds after the one of that name that was read",
                read.name,
                i64::from(file.made) - i64::from(read.made)
            ),
            _ => return Ok(()),
        }
    } else {
        let place = |name: &str| FilePosition { file: name.to_owned(), offset: 0 };
        let is_alike = |name: &&String| base(name) == base(&read.name);
        match (names.iter().rfind(is_alike), &checkpoint.position) {
            (Some(newest), _) if !place(newest).reaches(&place(&read.name)) => {
                format!("its newest file is {newest}, and {} was read", read.name)
            }
            (Some(_), LogPosition::Gtids(position)) if !session.is_mariadb => {
                let purged: Option<String> = session.one(DOING, "select @@global.gtid_purged").await?;
                let kept = position.without(&parsed::<GtidSet>(session, &purged.unwrap_or_default())?);
                if kept.is_empty() {
                    return Ok(());
                }
                format!("{} is gone, in which {kept} was read at the latest, and was not removed with it", read.name)
            }
            _ => return Ok(()),
        }
    };
    Err(ConnectorError::lost(
        format!("source {}", settings.name),
        format!("the server has begun its log anew since it was read last ({why}), so what is in it now was not read"),
        AFRESH,
    ))
}

/// A name without its number.
fn base(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(base, _)| base)
}

/// The newest file of the server's log; none: the user may not see its files, or the server does not say when it made it.
pub(super) async fn newest(
    session: &mut Session,
    facts: &Facts,
    settings: &MySqlSettings,
) -> Result<Option<LogFile>, ConnectorError> {
    match session.logs(DOING).await?.unwrap_or_default().last() {
        Some((name, _)) => log_file(session, facts, settings, name).await,
        None => Ok(None),
    }
}

/// A file of the server's log; none: it does not say when it made it.
async fn log_file(
    session: &Session,
    facts: &Facts,
    settings: &MySqlSettings,
    name: &str,
) -> Result<Option<LogFile>, ConnectorError> {
    let at = FilePosition { file: name.to_owned(), offset: 0 };
    let from = LogPosition::File(at.clone());
    let identity = Identity::of(&format!("{} file", settings.identity));
    let mut stream = LogStream::open(&session.endpoint, session.is_mariadb, &identity, &from, false).await?;
    let mut tracker = Tracker::new(from, at, facts.has_checksum);
    while !tracker.is_described() {
        tracker.take(stream.event().await?, false)?;
    }
    stream.close().await;
    Ok(tracker.file(&facts.server))
}
