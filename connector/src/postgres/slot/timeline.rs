//! Failovers: whether the server that was promoted has everything that was captured from its predecessor.
//!
//! A promoted standby begins a new timeline at the position up to which it had the old one's log. Behind that position the two
//! logs have nothing in common: what was captured from there does not exist any more, and a mark there would skip what the
//! new primary wrote.
//!
//! The checkpoint may be older than the last one of another process that still publishes. What is concluded of it holds all the
//! same: of what is captured later, no less lies behind the end of the old timeline.
//!
//! Reference: PostgreSQL documentation, "Timelines"; "Streaming Replication Protocol", `TIMELINE_HISTORY`.

use tributary_event::{ErrorClass, Lsn};

use crate::checkpoint::PostgresCheckpoint;
use crate::error::ConnectorError;
use crate::postgres::wire::Wire;
use crate::postgres::wire::replication::System;

/// The checkpoint as it stands on the server's timeline.
pub(in crate::postgres) async fn follow(
    wire: &mut Wire,
    system: &System,
    checkpoint: &PostgresCheckpoint,
) -> Result<PostgresCheckpoint, ConnectorError> {
    let mut followed = PostgresCheckpoint { timeline: system.timeline, ..checkpoint.clone() };
    if system.timeline == checkpoint.timeline {
        return Ok(followed);
    }
    if system.timeline < checkpoint.timeline {
        return Err(ConnectorError::Server {
            place: wire.endpoint().place(),
            cause: format!(
                "it is on timeline {}, and the source has followed a promotion to timeline {}: it is a former primary",
                system.timeline, checkpoint.timeline
            ),
            remedy: "stop it or make it a standby of the new primary; until then the source waits".into(),
            class: ErrorClass::Transient,
        });
    }
    let rows = wire.query("TIMELINE_HISTORY", &format!("TIMELINE_HISTORY {}", system.timeline)).await?;
    let content = rows.first().and_then(|row| row.get(1)).cloned().flatten().unwrap_or_default();
    let Some(end) = end_of(&content, checkpoint.timeline) else {
        return Err(lost(checkpoint, system, "does not continue it"));
    };
    // The one is the start of a commit record, the other the end of one.
    let half_done = checkpoint.transaction.as_ref().is_some_and(|t| t.commit >= end);
    if half_done || checkpoint.changed.is_some_and(|changed| changed > end) {
        return Err(lost(checkpoint, system, &format!("left it at {end}, before the last change that was captured")));
    }
    tracing::info!(
        slot = checkpoint.slot,
        from = checkpoint.timeline,
        to = system.timeline,
        %end,
        "following the server to a new timeline"
    );
    followed.lsn = checkpoint.lsn.min(end);
    Ok(followed)
}

/// Where a timeline ended, by the history of a later one. Pure.
fn end_of(history: &str, timeline: u32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let number: u32 = words.next()?.parse().ok()?;
        (number == timeline).then(|| words.next()?.parse().ok())?
    })
}

fn lost(checkpoint: &PostgresCheckpoint, system: &System, what: &str) -> ConnectorError {
    ConnectorError::lost(
        format!("replication slot {}", checkpoint.slot),
        format!(
            "the checkpoint stands at {} of timeline {}, and the server's timeline {} {what}: the server was promoted without \
             all of its predecessor's log, and topics hold changes that it does not have",
            checkpoint.changed.unwrap_or(checkpoint.lsn),
            checkpoint.timeline,
            system.timeline
        ),
        "give the source a new name and dump or reindex its tables; set synchronized_standby_slots on the primary so that \
         changes are captured only when the standby has them",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_tells_where_timelines_ended() {
        let history = "1\t0/3000148\tno recovery target specified\n\n2\t16/B374D848\tbefore 2026\n";
        assert_eq!(end_of(history, 1), Some(Lsn(0x300_0148)));
        assert_eq!(end_of(history, 2), Some(Lsn(0x16_B374_D848)));
        assert_eq!(end_of(history, 3), None);
        assert_eq!(end_of("nonsense", 1), None);
    }
}
