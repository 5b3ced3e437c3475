//! Holds events back until everybody who asks the server sees their transactions.
//!
//! A commit is in the log before its transaction is visible: for microseconds as a rule, and for as long as a synchronous standby
//! is away that commits wait for. Who hears of a change then and looks, sees the row as it was before. So parts are held until the
//! server's own snapshot has all their transactions. One question answers for everything that was visible then, so that a stream
//! that catches up asks seldom, and one that is idle never.
//!
//! Transactions do not become visible in the order of the log, so it is not enough to ask for the last one.
//!
//! Reference: PostgreSQL documentation, "Transaction ID and Snapshot Information Functions" (`pg_current_snapshot`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use tributary_event::{ChangeEvent, ErrorClass, Reporter};

use super::learn::Within;
use crate::error::ConnectorError;
use crate::postgres::wire::session::Session;
use crate::postgres::wire::sql::Sql;
use crate::settings::PreparedTransactions;

/// Between two questions whether a transaction is visible, at first and at most.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LAST_WAIT: Duration = Duration::from_millis(100);
/// Events that are held for longer are told of.
const LONG: Duration = Duration::from_secs(1);

const QUESTION: &str = "select pg_catalog.pg_current_snapshot()::text, pg_catalog.pg_is_in_recovery()::text";
const ACTION: &str = "asking which transactions are visible";
/// The SQLSTATE of a privilege that lacks.
const NOT_ALLOWED: &str = "42501";

/// Which transactions are visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::postgres) struct Snapshot {
    /// Every id from this one on is not.
    end: u64,
    /// Ids below that are not either; sorted.
    in_progress: Vec<u64>,
}

impl Snapshot {
    /// Reads `xmin:xmax:xip,xip`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (_, end, ids) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
        let ids = ids.split(',').filter(|id| !id.is_empty()).map(str::parse);
        let mut in_progress = ids.collect::<Result<Vec<u64>, _>>().ok()?;
        in_progress.sort_unstable();
        Some(Self { end, in_progress })
    }

    /// Whether a transaction is visible, or was rolled back, of whose id the log has the lower half: the whole one is that which is
    /// nearest to the newest.
    pub(in crate::postgres) fn sees(&self, id: u32) -> bool {
        let distance = id.wrapping_sub(self.end as u32).cast_signed();
        let id = self.end.saturating_add_signed(i64::from(distance));
        id < self.end && self.in_progress.binary_search(&id).is_err()
    }

    /// The first transaction of these events that is not visible.
    fn missing(&self, events: &[ChangeEvent]) -> Option<u32> {
        let mut last = None;
        let mut ids =
            events.iter().filter_map(|event| event.transaction.as_ref().map(|transaction| transaction.id as u32));
        ids.find(|id| last.replace(*id) != Some(*id) && !self.sees(*id))
    }
}

/// What is held back until a transaction is visible. It is told if that takes long.
#[derive(Debug, Clone)]
pub(in crate::postgres) struct Held {
    source: String,
    health: Reporter,
    since: Option<Instant>,
    told: bool,
}

impl Held {
    pub fn new(source: &str, health: Reporter) -> Self {
        Self { source: source.to_owned(), health, since: None, told: false }
    }

    /// The transaction is not visible yet.
    pub fn still(&mut self, transaction: u32) {
        let held = self.since.get_or_insert_with(Instant::now).elapsed();
        if held < LONG {
            return;
        }
        self.told = true;
        let why = format!(
            "transaction {transaction} is in the log and not visible yet, and is published when it is: its commit waits, mostly \
             for a synchronous standby that is away (start that again, or take it out of synchronous_standby_names)"
        );
        if self.health.down(why.clone()) {
            tracing::warn!(source = self.source, ?held, why, "events are held back");
        }
    }

    /// It is.
    pub fn over(&mut self) {
        let since = self.since.take();
        if std::mem::take(&mut self.told) {
            self.health.up();
            let held = since.map(|since| since.elapsed());
            tracing::info!(source = self.source, ?held, "the transaction is visible");
        }
    }
}

/// Knows which transactions are visible on the server that is streamed from.
pub(in crate::postgres) struct Visibility {
    session: Arc<Session>,
    snapshot: Snapshot,
    /// A question is a task of its own: who is dropped while it waits only stops waiting, and the next one goes on.
    asked: Option<AbortOnDropHandle<Result<Snapshot, ConnectorError>>>,
    held: Held,
    /// When the next question is due.
    due: Instant,
    wait: Duration,
}

impl Visibility {
    /// Why it cannot be known, if so: events are then given out as they come.
    pub async fn open(
        session: Arc<Session>,
        prepared: PreparedTransactions,
        held: Held,
    ) -> Result<Result<Self, &'static str>, ConnectorError> {
        if prepared == PreparedTransactions::AtPrepare {
            return Ok(Err("transactions are published when they are prepared, before anybody sees them"));
        }
        let snapshot = match ask(&session).await {
            Ok(snapshot) => snapshot,
            Err(Unanswered::Standby) => {
                return Ok(Err(
                    "it is read from a standby, and what is visible there is not what others see elsewhere",
                ));
            }
            Err(Unanswered::Failed(ConnectorError::Database { code, .. })) if code == NOT_ALLOWED => {
                return Ok(Err("the role may not call pg_current_snapshot"));
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Ok(Self { session, snapshot, asked: None, held, due: Instant::now(), wait: FIRST_WAIT }))
    }

    /// Whether all these events are known to be visible, without a question.
    pub fn sees(&self, events: &[ChangeEvent]) -> bool {
        self.snapshot.missing(events).is_none()
    }

    /// Waits until all these events are visible. Cancel-safe, if it is called again with the same ones.
    pub async fn until_seen(&mut self, events: &[ChangeEvent]) -> Result<(), ConnectorError> {
        while let Some(missing) = self.snapshot.missing(events) {
            self.held.still(missing);
            sleep_until(self.due).await;
            let question = || {
                let session = self.session.clone();
                AbortOnDropHandle::new(tokio::spawn(async move { Ok(ask(&session).await?) }))
            };
            let answer = self.asked.get_or_insert_with(question).await;
            self.asked = None;
            self.snapshot = answer.map_err(|error| ConnectorError::Task(error.to_string()))??;
            self.due = Instant::now() + self.wait;
            self.wait = (self.wait * 2).min(LAST_WAIT);
        }
        self.held.over();
        (self.due, self.wait) = (Instant::now(), FIRST_WAIT);
        Ok(())
    }
}

/// Why there is no answer.
enum Unanswered {
    /// The server is a standby.
    Standby,
    /// It failed.
    Failed(ConnectorError),
}

impl From<ConnectorError> for Unanswered {
    fn from(error: ConnectorError) -> Self {
        Self::Failed(error)
    }
}

impl From<Unanswered> for ConnectorError {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::Failed(error) => error,
            Unanswered::Standby => Self::Server {
                place: ACTION.to_owned(),
                cause: "the server has become a standby".to_owned(),
                remedy: "the stream begins anew".to_owned(),
                class: ErrorClass::Transient,
            },
        }
    }
}

async fn ask(session: &Session) -> Result<Snapshot, Unanswered> {
    let sql = session.get().await?;
    let rows = sql.texts(ACTION, QUESTION).await?;
    let cell = |at: usize| rows.first().and_then(|row| row.get(at));
    if cell(1) != Some("false") {
        return Err(Unanswered::Standby);
    }
    let snapshot = cell(0).and_then(Snapshot::parse);
    Ok(snapshot
        .ok_or_else(|| ConnectorError::protocol(sql.endpoint().place(), "pg_current_snapshot() gave no snapshot"))?)
}

/// Which transactions are visible now; none where that cannot be known.
pub(in crate::postgres) async fn now_visible(session: &Session) -> Result<Option<Snapshot>, ConnectorError> {
    match ask(session).await {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(Unanswered::Standby) => Ok(None),
        Err(Unanswered::Failed(ConnectorError::Database { code, .. })) if code == NOT_ALLOWED => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a transaction that the log has is visible, or was rolled back.
pub(in crate::postgres) async fn until_over(sql: &Sql, within: Within, held: &mut Held) -> Result<(), ConnectorError> {
    // The log has the lower half of the transaction's id; the whole one is that which is nearest to the newest.
    const SQL: &str = "with s as (select s, pg_snapshot_xmax(s)::text::numeric as top from pg_current_snapshot() as s), \
        d as (select s, top, $1::int8 - mod(top, 4294967296)::int8 as d from s), \
        f as (select s, top + case when d > 2147483647 then d - 4294967296 when d < -2147483648 then d + 4294967296 else d end as id from d) \
        select id < 3 or pg_visible_in_snapshot(id::text::xid8, s) \
            or $2 and pg_xact_status(id::text::xid8) = 'aborted' from f";
    let mut wait = FIRST_WAIT;
    loop {
        let rows = sql.query("asking for a transaction", SQL, &[&i64::from(within.xid), &within.prepared]).await?;
        if rows.first().is_none_or(|row| row.get::<_, Option<bool>>(0) != Some(false)) {
            held.over();
            return Ok(());
        }
        if !within.prepared {
            held.still(within.xid);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LAST_WAIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_sees_what_is_over() {
        let snapshot = Snapshot::parse("100:105:100,103").expect("a snapshot");
        let seen: Vec<u32> = (98..108).filter(|id| snapshot.sees(*id)).collect();
        assert_eq!(seen, [98, 99, 101, 102, 104]);
        let none = Snapshot::parse("7:7:").expect("a snapshot");
        assert!(none.sees(6) && !none.sees(7));
        for text in ["", "1:2", "a:b:c", "1:2:x"] {
            assert_eq!(Snapshot::parse(text), None, "{text}");
        }
    }

    #[test]
    fn ids_are_those_nearest_to_the_newest() {
        // The counter has just begun its third round of 2^32.
        let newest = 2_u64 << 32 | 5;
        let snapshot = Snapshot { end: newest, in_progress: vec![(1 << 32) | 0xffff_fff0, 2 << 32 | 2] };
        assert!(snapshot.sees(4) && snapshot.sees(0xffff_ffff) && snapshot.sees(0xffff_ffef));
        assert!(!snapshot.sees(2), "it is in progress");
        assert!(!snapshot.sees(0xffff_fff0), "it is in progress since before the round");
        assert!(!snapshot.sees(5) && !snapshot.sees(1_000), "they begin later");
    }
}
