//! Rows of a PostgreSQL table, exactly once: an entry is one transaction, with the mark of its partition.
//!
//! The transaction begins with a compare-and-swap of the mark. Of two processes that have a partition during a handover, the second one
//! waits for the first and then finds the mark elsewhere: it is fenced, and has changed nothing.
//!
//! Whether a transaction whose client lost its connection came to its end, nobody knows but the database. Whoever asks for a mark
//! therefore waits for the lock that every such transaction holds to its end.
//!
//! Beside that, a row is written only if it is newer (`_seq`) than the one that is there, so that a partition may also be read again
//! from any offset. A deleted row stays as a mark of its own (`_deleted`) for a while: an older event must not bring it back.

mod endpoint;
mod failure;
mod fold;
mod marks;
mod session;
mod table;
mod write;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio_postgres::types::Type;
use tributary_dsl::plan::SqlPlan;
use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Entry, LedgerSink, Mark};
use tributary_transport::TopicPartition;

use endpoint::Endpoint;
use failure::Failure;
use fold::{DELETED, Row, SEQ};
use marks::Marks;
use session::{Session, Sessions};
use table::{Table, Target, changes, list, quote};
use write::Care;

/// Rows of before that are removed at once.
const SWEPT: i64 = 1_000;
/// The longest time between two sweeps.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Beyond this time nothing is swept.
const LONGEST_KEPT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A table that keeps the rows of a stream.
///
/// Connects when it is asked for something first, and again whenever a connection is lost. Entries of up to eight partitions are written at
/// a time. A call that is dropped may have been committed, which [`LedgerSink::next`] tells.
#[derive(Debug)]
pub struct Sql {
    sessions: Sessions,
    target: Target,
    marks: Marks,
    /// There are tables of marks.
    has_marks: AtomicBool,
    /// The target as it was seen last.
    known: Mutex<Option<Arc<Table>>>,
    /// The highest sequence that was committed.
    highest: AtomicU64,
    keep_deleted: Duration,
    swept: Mutex<Option<Instant>>,
}

impl Sql {
    /// The sink `sink` of the stream `stream`, for a plan. Nothing is connected to; marks are kept under the two names.
    ///
    /// # Errors
    /// Fatal: the URL or a name cannot be used.
    pub fn new(plan: &SqlPlan, stream: &str, sink: &str) -> Result<Self, OutsideError> {
        let mut endpoint = Endpoint::parse(&plan.url).map_err(OutsideError::fatal)?;
        let (table, key) = (&plan.table, &plan.row.key);
        endpoint.place = format!("{}, table {table}", endpoint.place);
        let names = key.iter().map(String::as_str).chain([&*table.schema, &*table.name]);
        let unfit = |name: &&str| name.is_empty() || name.len() > fold::LONGEST_NAME || name.contains('\0');
        if let Some(name) = names.into_iter().find(unfit) {
            return Err(OutsideError::fatal(format!(
                "{}: {name:?} cannot be the name of a table or column; use 1 to {} bytes",
                endpoint.place,
                fold::LONGEST_NAME
            )));
        }
        if key.is_empty() {
            return Err(OutsideError::fatal(format!("{}: rows have no key; name its fields in `key`", endpoint.place)));
        }
        let target = Target {
            sql: format!("{}.{}", quote(&table.schema), quote(&table.name)),
            name: table.clone(),
            key: key.clone(),
            create: plan.create,
        };
        Ok(Self {
            sessions: Sessions::new(endpoint),
            target,
            marks: Marks::new(table, stream, sink),
            has_marks: AtomicBool::new(false),
            known: Mutex::default(),
            highest: AtomicU64::new(0),
            keep_deleted: plan.keep_deleted.min(LONGEST_KEPT),
            swept: Mutex::default(),
        })
    }

    /// One try at an entry. After an error its transaction is still open, or the session is lost.
    async fn attempt(&self, session: &Session<'_>, entry: &Entry<'_>, care: Care) -> Result<Committed, Failure> {
        session.begin().await?;
        session.lock(&self.marks.lock(entry.place)).await?;
        if !self.has_marks.load(Ordering::Relaxed) && !self.marks.are_complete(session).await? {
            self.lock_definitions(session).await?;
            self.marks.create(session).await?;
        }
        if !self.marks.advance(session, entry).await? {
            session.run("rollback").await?;
            return Ok(Committed::Fenced);
        }
        let rows = match fold::rows(entry.events, &self.target.key) {
            Ok(rows) => rows,
            Err((event, why)) => return self.reject(session, event, why).await,
        };
        let table = if rows.is_empty() { None } else { self.table(session, &rows).await? };
        if let Some(table) = &table {
            let steps = fold::steps(rows, entry.events);
            if let Err((event, why)) = write::apply(session, (&self.target, table), &steps, care).await? {
                return self.reject(session, event, why).await;
            }
        }
        session.run("commit").await?;
        self.has_marks.store(true, Ordering::Relaxed);
        if table.is_some() {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = table;
        }
        let highest = entry.events.iter().map(|event| event.sequence).max().unwrap_or_default();
        self.highest.fetch_max(highest, Ordering::Relaxed);
        Ok(Committed::Done)
    }

    async fn reject(&self, session: &Session<'_>, event: usize, why: String) -> Result<Committed, Failure> {
        session.run("rollback").await?;
        let why = format!("{}: {why}", self.sessions.place());
        Ok(Committed::Rejected { event, why })
    }

    /// Definitions are changed by one transaction at a time, before it writes a row: one that waits here has no lock of the table that
    /// the other one waits for.
    async fn lock_definitions(&self, session: &Session<'_>) -> Result<(), Failure> {
        session.lock(&format!("definitions of {}", quote(&self.target.name.schema))).await
    }

    /// The target, able to take the rows; none: it is not there, and nothing needs it.
    async fn table(&self, session: &Session<'_>, rows: &[Row]) -> Result<Option<Arc<Table>>, Failure> {
        let rows: Vec<Row> = rows.iter().filter(|row| !row.key.is_empty()).cloned().collect();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known
            && changes(Some(&known), &self.target, &rows).is_ok_and(|changes| changes.is_empty())
        {
            return Ok(Some(known));
        }
        let fatal = |why| OutsideError::fatal(format!("{}: {why}", self.sessions.place()));
        let table = Table::read(session, &self.target).await?;
        if changes(table.as_ref(), &self.target, &rows).map_err(fatal)?.is_empty() {
            return Ok(table.map(Arc::new));
        }
        self.lock_definitions(session).await?;
        let table = Table::read(session, &self.target).await?;
        for statement in changes(table.as_ref(), &self.target, &rows).map_err(fatal)? {
            session.run(&statement).await.map_err(|failure| match failure {
                // There is no row in such a statement that could be left out.
                Failure::Row(why) => Failure::Outside(fatal(why)),
                other => other,
            })?;
        }
        Ok(Table::read(session, &self.target).await?.map(Arc::new))
    }

    /// What is known of tables may no longer be so.
    fn forget(&self) {
        self.has_marks.store(false, Ordering::Relaxed);
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Whether rows that were deleted long ago are to be removed now; then the next time is a while later.
    fn is_sweep_due(&self) -> Option<Duration> {
        let pause = (self.keep_deleted / 20).min(LONGEST_PAUSE);
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let due = swept.is_none_or(|at| at.elapsed() >= pause);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        (due && known).then(|| {
            *swept = Some(Instant::now());
            pause
        })
    }

    /// Removes some rows that were deleted longer ago than they are kept: how many.
    ///
    /// A row does not say when it was deleted, but sequences rise with time: what is not above a sequence that was committed so long ago
    /// was deleted before that.
    async fn sweep(&self, session: &Session<'_>, pause: Duration) -> Result<u64, Failure> {
        session.begin().await?;
        let highest = self.highest.load(Ordering::Relaxed);
        let mut removed = 0;
        if let Some(old) = self.marks.sample(session, highest, pause, self.keep_deleted).await? {
            let (table, key, seq, deleted) = (&self.target.sql, list(&self.target.key), quote(SEQ), quote(DELETED));
            let delete = format!(
                "delete from {table} where ({key}) in (select {key} from {table} where {deleted} and {seq} <= $1 limit {SWEPT} \
                 for update skip locked) and {deleted} and {seq} <= $1"
            );
            removed = session.execute(&delete, &[(&old, Type::INT8)]).await?;
        }
        session.run("commit").await?;
        Ok(removed)
    }

    /// Gives a session back, after a sweep if it is time for one.
    async fn finish(&self, session: Session<'_>) {
        if let Some(pause) = self.is_sweep_due() {
            match self.sweep(&session, pause).await {
                Ok(removed) if removed >= SWEPT as u64 => {
                    *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
                Ok(_) => {}
                Err(failure) => {
                    let error = failure.outside(self.sessions.place());
                    tracing::warn!(%error, "rows that were deleted long ago cannot be removed; the sink goes on without it");
                    return;
                }
            }
        }
        session.give_back();
    }
}

#[async_trait]
impl LedgerSink for Sql {
    async fn next(&self, place: &TopicPartition) -> Result<Option<Mark>, OutsideError> {
        let session = self.sessions.get().await?;
        let next = async {
            session.begin().await?;
            session.lock(&self.marks.lock(place)).await?;
            let next = match self.marks.exist(&session).await? {
                true => self.marks.next(&session, place).await?,
                false => None,
            };
            session.run("commit").await?;
            Ok(next)
        };
        let next = next.await.map_err(|failure: Failure| failure.outside(self.sessions.place()))?;
        session.give_back();
        Ok(next)
    }

    async fn commit(&self, entry: &Entry<'_>) -> Result<Committed, OutsideError> {
        let session = self.sessions.get().await?;
        let mut care = Care::Plain;
        loop {
            care = match (self.attempt(&session, entry, care).await, care) {
                (Ok(committed), _) => {
                    self.finish(session).await;
                    return Ok(committed);
                }
                (Err(Failure::Row(_)), Care::Plain) => Care::Halving,
                (Err(Failure::Row(_)), Care::Halving) => Care::Immediate,
                (Err(failure), _) => {
                    self.forget();
                    return Err(failure.outside(self.sessions.place()));
                }
            };
            // The table may want more than when it was looked at: no event is to blame for that.
            self.forget();
            session.run("rollback").await.map_err(|failure| failure.outside(self.sessions.place()))?;
        }
    }
}
