//! Entries → transactions, whatever the database.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tributary_dsl::plan::SqlPlan;
use tributary_processor::OutsideError;
use tributary_processor::sink::{Committed, Entry, LedgerSink, Mark};
use tributary_transport::TopicPartition;

use super::database::{Database, Session};
use super::failure::Failure;
use super::fold::{self, Row};
use super::marks::Marks;
use super::sessions::{Lent, Sessions};
use super::table::{Table, Target, changes};
use super::write::{self, Care};

/// Rows of before that are removed at once.
const SWEPT: i64 = 1_000;
/// The longest time between two sweeps.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// Beyond this time nothing is swept.
const LONGEST_KEPT: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// How often a transaction is done anew before somebody else has to decide when.
const TRIES: usize = 10;

/// A table of a kind of database.
#[derive(Debug)]
pub(super) struct Writer<D: Database> {
    sessions: Sessions<D>,
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

impl<D: Database> Writer<D> {
    pub(super) fn new(database: D, plan: &SqlPlan, stream: &str, sink: &str) -> Self {
        let target = Target { name: plan.table.clone(), key: plan.row.key.clone(), create: plan.create };
        Self {
            sessions: Sessions::new(database),
            marks: Marks::new(&plan.table, stream, sink),
            target,
            has_marks: AtomicBool::new(false),
            known: Mutex::default(),
            highest: AtomicU64::new(0),
            keep_deleted: plan.keep_deleted.min(LONGEST_KEPT),
            swept: Mutex::default(),
        }
    }

    /// One try at an entry. After an error its transaction is still open, or the session is lost.
    async fn attempt(&self, session: &mut D::Session, entry: &Entry<'_>, care: Care) -> Result<Committed, Failure> {
        session.begin().await?;
        session.lock(&self.marks, entry.place).await?;
        if !self.has_marks.load(Ordering::Relaxed) && !session.has_complete_marks(&self.marks).await? {
            session.begin_definitions(&self.marks.schema).await?;
            self.marks.create(session).await?;
            session.end_definitions().await?;
        }
        if !session.advance(&self.marks, entry).await? {
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

    /// Somebody has to change something first.
    fn fatal(&self, why: String) -> OutsideError {
        OutsideError::fatal(format!("{}: {why}", self.sessions.place()))
    }

    async fn reject(&self, session: &mut D::Session, event: usize, why: String) -> Result<Committed, Failure> {
        session.run("rollback").await?;
        let why = format!("{}: {why}", self.sessions.place());
        Ok(Committed::Rejected { event, why })
    }

    /// The target, able to take the rows; none: it is not there, and nothing needs it.
    async fn table(&self, session: &mut D::Session, rows: &[Row]) -> Result<Option<Arc<Table>>, Failure> {
        let rows: Vec<Row> = rows.iter().filter(|row| !row.key.is_empty()).cloned().collect();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known
            && changes(Some(&known), &self.target, &rows, session.dialect()).is_ok_and(|changes| changes.is_empty())
        {
            return Ok(Some(known));
        }
        // What is against a table that somebody is making just now is no more than a moment's.
        let table = session.table(&self.target).await?;
        let needed = changes(table.as_ref(), &self.target, &rows, session.dialect());
        if needed.is_ok_and(|changes| changes.is_empty()) {
            return Ok(table.map(Arc::new));
        }
        session.begin_definitions(&self.target.name.schema).await?;
        let table = session.table(&self.target).await?;
        for statement in
            changes(table.as_ref(), &self.target, &rows, session.dialect()).map_err(|why| self.fatal(why))?
        {
            session.run(&statement).await.map_err(|failure| match failure {
                // There is no row in such a statement that could be left out.
                Failure::Row(why) => Failure::Outside(self.fatal(why)),
                other => other,
            })?;
        }
        session.end_definitions().await?;
        Ok(session.table(&self.target).await?.map(Arc::new))
    }

    /// Looks whether the table can take rows of these fields, and changes nothing: what it may lack.
    ///
    /// # Errors
    /// Fatal: somebody has to change something first. Transient: the database does not answer now.
    pub(super) async fn check(&self, fields: Option<&[String]>) -> Result<Option<String>, OutsideError> {
        let mut session = self.sessions.get().await?;
        let asked: &mut D::Session = &mut session;
        let table = async {
            asked.begin().await?;
            let table = asked.table(&self.target).await?;
            asked.run("rollback").await?;
            Ok(table)
        };
        let table = table.await.map_err(|failure: Failure| failure.outside(self.sessions.place()))?;
        changes(table.as_ref(), &self.target, &[], session.dialect()).map_err(|why| self.fatal(why))?;
        let lacking = table.iter().flat_map(|table| {
            fields.into_iter().flatten().filter(|field| table.column(field).is_none()).map(String::as_str)
        });
        let lacking: Vec<&str> = lacking.collect();
        let note = (!lacking.is_empty() && !self.target.create).then(|| {
            format!(
                "the table {} lacks columns that its rows can have ({}), and the sink stops at the first that has one: set `create: on`, leave \
                 them out of `row`, or add them",
                self.target.name,
                lacking.join(", ")
            )
        });
        session.give_back();
        Ok(note)
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
    async fn sweep(&self, session: &mut D::Session, pause: Duration) -> Result<u64, Failure> {
        session.begin().await?;
        let highest = self.highest.load(Ordering::Relaxed);
        let mut removed = 0;
        if let Some(old) = session.sample(&self.marks, highest, pause, self.keep_deleted).await? {
            removed = session.remove(&self.target, old, SWEPT).await?;
        }
        session.run("commit").await?;
        Ok(removed)
    }

    /// Gives a session back, after a sweep if it is time for one.
    async fn finish(&self, mut session: Lent<'_, D>) {
        if let Some(pause) = self.is_sweep_due() {
            match self.sweep(&mut session, pause).await {
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
impl<D: Database> LedgerSink for Writer<D> {
    async fn next(&self, place: &TopicPartition) -> Result<Option<Mark>, OutsideError> {
        let mut session = self.sessions.get().await?;
        let asked: &mut D::Session = &mut session;
        let next = async {
            asked.begin().await?;
            asked.lock(&self.marks, place).await?;
            let next = match asked.has_marks(&self.marks).await? {
                true => match asked.mark(&self.marks, place).await? {
                    Some((mark, target)) => {
                        self.marks.are_of(target.as_deref(), mark, asked.dialect()).map_err(|why| self.fatal(why))?;
                        Some(mark)
                    }
                    None => None,
                },
                false => None,
            };
            asked.run("commit").await?;
            Ok(next)
        };
        let next = next.await.map_err(|failure: Failure| failure.outside(self.sessions.place()))?;
        session.give_back();
        Ok(next)
    }

    async fn commit(&self, entry: &Entry<'_>) -> Result<Committed, OutsideError> {
        let mut session = self.sessions.get().await?;
        let (mut care, mut tries) = (Care::Plain, 0);
        loop {
            care = match (self.attempt(&mut session, entry, care).await, care) {
                (Ok(committed), _) => {
                    self.finish(session).await;
                    return Ok(committed);
                }
                (Err(Failure::Row(_)), Care::Plain) => Care::Halving,
                (Err(Failure::Row(_)), Care::Halving) => Care::Immediate,
                (Err(Failure::Again(_)), care) if tries < TRIES => care,
                (Err(failure), _) => {
                    self.forget();
                    return Err(failure.outside(self.sessions.place()));
                }
            };
            tries += 1;
            // The table may want more than when it was looked at: no event is to blame for that.
            self.forget();
            session.run("rollback").await.map_err(|failure| failure.outside(self.sessions.place()))?;
        }
    }
}
