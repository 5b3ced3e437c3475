//! Beside the stream: whether the lock is still ours, and how long the server will keep what was not read.
//!
//! The server holds nothing back for a source. It removes files of its log by their age, or by the size of all of them; so a source that falls
//! behind is told long before its place is gone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tributary_event::clock::now_us;
use tributary_event::{Reporter, Trouble};

use super::position::FilePosition;
use super::run::AHEAD;
use super::wire::session::Session;
use crate::error::ConnectorError;
use crate::settings::MySqlSettings;

/// How often it is asked whether the lock is still ours.
const INTERVAL: Duration = Duration::from_secs(5);
/// The log is looked at as often as the lock, divided by this: each file of it is opened.
const SELDOM: u32 = 6;
/// Danger begins when so much of what the server keeps is left.
const LEFT: f64 = 0.25;

/// How far the source has come, for who watches it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Progress(Arc<Mutex<Reached>>);

/// What is durable.
#[derive(Debug, Clone, Default)]
struct Reached {
    at: FilePosition,
    /// When it was committed.
    committed_us: i64,
}

impl Progress {
    pub(super) fn set(&self, at: &FilePosition, committed_us: i64) {
        let mut reached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reached.at.clone_from(at);
        reached.committed_us = committed_us;
    }

    fn get(&self) -> Reached {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the server keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kept {
    /// Bytes of the log that were not read.
    behind: u64,
    /// Bytes that can be written before what was not read is removed; none: size removes nothing.
    bytes_left: Option<u64>,
    /// The same in time.
    time_left: Option<Duration>,
    /// Either is short.
    danger: bool,
}

/// The files of the log with their sizes, in order; none: the reader is in none of them. `limit`: of the size of all files. `expires`: how old
/// they become.
fn kept(
    files: &[(String, u64)],
    reached: &Reached,
    limit: Option<u64>,
    expires: Option<Duration>,
    now_us: i64,
) -> Option<Kept> {
    let own = files.iter().position(|(file, _)| *file == reached.at.file)?;
    let from_own: u64 = files.iter().skip(own).map(|(_, size)| size).sum();
    let behind = from_own.saturating_sub(reached.at.offset);
    let bytes_left = limit.map(|limit| limit.saturating_sub(from_own));
    // A file is as old as what was written to it last, which is younger than what was read of it.
    let age = u64::try_from(now_us.saturating_sub(reached.committed_us)).unwrap_or(0);
    let age = if behind == 0 || reached.committed_us == 0 { Duration::ZERO } else { Duration::from_micros(age) };
    let time_left = expires.map(|expires| expires.saturating_sub(age));
    let short_time = time_left.zip(expires).is_some_and(|(left, all)| left.as_secs_f64() < all.as_secs_f64() * LEFT);
    // A file that is being written is never removed.
    let is_last = own + 1 == files.len();
    let short_size = bytes_left.zip(limit).is_some_and(|(left, all)| (left as f64) < all as f64 * LEFT);
    Some(Kept { behind, bytes_left, time_left, danger: !is_last && (short_time || short_size) })
}

/// Watches; ends with the reason why the stream must begin anew.
pub(super) async fn watch(
    session: &mut Session,
    name: &str,
    mysql: &MySqlSettings,
    progress: &Progress,
    health: &Reporter,
) -> ConnectorError {
    let label = name.to_owned();
    let behind = metrics::gauge!("tributary_connector_log_bytes_behind", "source" => label.clone());
    let bytes_left = metrics::gauge!("tributary_connector_log_bytes_left", "source" => label.clone());
    let seconds_left = metrics::gauge!("tributary_connector_log_seconds_left", "source" => label);
    let mut trouble = Trouble::default();
    let mut round = 0;
    if let Err(error) = session.must_ask().await {
        return error;
    }
    loop {
        match session.is_free(&mysql.identity).await {
            Ok(true) => {}
            Ok(false) => {
                let cause = "another process took it".to_owned();
                return ConnectorError::Locked { name: mysql.identity.clone(), cause };
            }
            Err(error) => return error,
        }
        if round % SELDOM == 0 {
            match look(session, progress).await {
                Ok(Some(kept)) => {
                    behind.set(kept.behind as f64);
                    // Without a limit there is always room, which a gauge says by its absence.
                    kept.bytes_left.into_iter().for_each(|left| bytes_left.set(left as f64));
                    kept.time_left.into_iter().for_each(|left| seconds_left.set(left.as_secs_f64()));
                    tell(name, kept, health, &mut trouble);
                }
                Ok(None) => {}
                Err(error) => return error,
            }
        }
        round += 1;
        tokio::time::sleep(INTERVAL).await;
    }
}

fn tell(name: &str, kept: Kept, health: &Reporter, trouble: &mut Trouble) {
    if !kept.danger {
        if trouble.over().is_some() {
            tracing::info!(source = name, "the server keeps its log for long enough again");
            health.note(Some(AHEAD.to_owned()));
        }
        return;
    }
    let left = match (kept.time_left, kept.bytes_left) {
        (Some(time), None) => format!("in {time:?}"),
        (None, Some(bytes)) => format!("when {bytes} bytes more are written"),
        (time, bytes) => {
            format!("in {:?}, or when {} bytes more are written", time.unwrap_or_default(), bytes.unwrap_or(0))
        }
    };
    let why = format!(
        "the source is {} bytes behind, and the server removes what was not read {left}: let it keep its log for longer \
         (binlog_expire_logs_seconds), or see what holds the source up",
        kept.behind
    );
    if trouble.note("the log is about to be removed").is_some() {
        tracing::warn!(source = name, "{why}");
    }
    health.note(Some(why));
}

/// What the server keeps of its log; none: it does not say, or the reader is in another one's.
async fn look(session: &mut Session, progress: &Progress) -> Result<Option<Kept>, ConnectorError> {
    const DOING: &str = "asking what the server keeps of its log";
    let Some(files) = session.logs(DOING).await? else { return Ok(None) };
    const EXPIRES: &str = "select cast(@@global.binlog_expire_logs_seconds as unsigned)";
    let expires: Option<u64> = session.one(DOING, EXPIRES).await?;
    let limit: Option<u64> = match session.is_mariadb {
        // Since 11.4.
        true => session
            .one::<(String, u64)>(DOING, "show global variables like 'max_binlog_total_size'")
            .await?
            .map(|(_, limit)| limit),
        false => None,
    };
    let expires = expires.filter(|seconds| *seconds > 0).map(Duration::from_secs);
    Ok(kept(&files, &progress.get(), limit.filter(|limit| *limit > 0), expires, now_us()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn files() -> Vec<(String, u64)> {
        [("bin.1", 100), ("bin.2", 1_000), ("bin.3", 50)].map(|(name, size)| (name.to_owned(), size)).into()
    }

    fn reached(file: &str, offset: u64, committed_us: i64) -> Reached {
        Reached { at: FilePosition { file: file.into(), offset }, committed_us }
    }

    #[test]
    fn who_has_read_everything_is_in_no_danger() {
        let now = 10 * HOUR.as_micros() as i64;
        let kept = kept(&files(), &reached("bin.3", 50, 1), Some(60), Some(HOUR), now).expect("known");
        assert_eq!((kept.behind, kept.time_left, kept.danger), (0, Some(HOUR), false));
    }

    #[test]
    fn age_and_size_are_told_before_they_remove_what_was_not_read() {
        let (now, all) = (10 * HOUR.as_micros() as i64, files());
        let ago = |parts: u32| now - (HOUR * parts / 8).as_micros() as i64;
        let behind = |at: &Reached, limit, expires| kept(&all, at, limit, expires, now).expect("known");
        let well = behind(&reached("bin.2", 400, ago(2)), Some(10_000), Some(HOUR));
        let eighths = |parts: u32| Some(HOUR * parts / 8);
        assert_eq!((well.behind, well.bytes_left, well.time_left), (650, Some(8_950), eighths(6)));
        assert!(!well.danger);
        assert!(behind(&reached("bin.2", 400, ago(7)), None, Some(HOUR)).danger);
        assert!(behind(&reached("bin.2", 400, ago(1)), Some(1_200), Some(HOUR)).danger);
        assert!(!behind(&reached("bin.2", 400, ago(7)), None, None).danger, "nothing is removed");
        assert_eq!(kept(&all, &reached("other.1", 4, 1), None, Some(HOUR), now), None);
    }
}
