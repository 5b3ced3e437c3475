//! What happened to a change: how many documents it affected, what became of them, and when that was searchable.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tributary_event::clock::now_us;

use crate::request::Cause;

/// What became of one document of a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Built and written.
    Built,
    /// Built; its content was the same, so nothing was written.
    Unchanged,
    /// Gone from the graph, so deleted.
    Deleted,
    /// Set aside as a dead letter.
    DeadLetter,
}

/// A cause whose documents all have their verdict, as far as this process builds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeReport {
    /// The index.
    pub index: String,
    /// The change, for people.
    pub label: String,
    /// Documents it affected.
    pub affected: u64,
    /// Of these: built and written.
    pub built: u64,
    /// Built, and found the same.
    pub unchanged: u64,
    /// Deleted.
    pub deleted: u64,
    /// Set aside.
    pub dead_letters: u64,
    /// Built by other processes, or by this one before it was started.
    pub elsewhere: u64,
    /// From the change's commit in the source until its last document, of those that were built here, was searchable.
    pub latency: Duration,
}

/// Hears of every finished cause.
pub type OnChange = Arc<dyn Fn(&ChangeReport) + Send + Sync>;

/// The first build, as it goes.
#[derive(Debug, Default)]
pub struct Progress {
    /// Root ids to list, if known (0 is unknown).
    pub expected: AtomicU64,
    /// Root ids asked for so far.
    pub listed: AtomicU64,
    /// Of these, asked for by an earlier process.
    pub resumed: AtomicU64,
    /// Documents of a listing that were built in this process: written, or found the same.
    built: AtomicU64,
    /// Documents of a listing that were deleted, as their root is gone.
    deleted: AtomicU64,
    /// Documents of a listing that were set aside as dead letters.
    set_aside: AtomicU64,
    /// Whether roots are being listed, or it is not known yet whether they must be.
    pub listing: AtomicBool,
    /// Whether the index is new, so that all that it is asked for is listed roots.
    pub new_index: AtomicBool,
}

/// Documents of a listing with a verdict in this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// In the index: written, or found the same.
    pub built: u64,
    /// Deleted, as their root is gone.
    pub deleted: u64,
    /// Set aside as dead letters.
    pub set_aside: u64,
}

impl Verdicts {
    /// Of any kind.
    pub fn all(self) -> u64 {
        self.built + self.deleted + self.set_aside
    }
}

impl Progress {
    /// Before it is known whether roots must be listed.
    pub(crate) fn unknown() -> Self {
        Self { listing: AtomicBool::new(true), ..Self::default() }
    }

    /// The verdicts so far.
    pub fn verdicts(&self) -> Verdicts {
        let [built, deleted, set_aside] =
            [&self.built, &self.deleted, &self.set_aside].map(|count| count.load(Ordering::Acquire));
        Verdicts { built, deleted, set_aside }
    }

    /// How many of how many listed roots of a new index the graph does not know, if those are more than so many percent.
    pub fn strangers(&self, hidden: u8) -> Option<(u64, u64)> {
        let unknown = self.deleted.load(Ordering::Acquire);
        let all = self.expected.load(Ordering::Acquire).max(self.listed.load(Ordering::Acquire)).max(unknown);
        let too_many = self.new_index.load(Ordering::Acquire) && unknown * 100 > u64::from(hidden) * all;
        too_many.then_some((unknown, all))
    }

    /// Another listing begins.
    pub(crate) fn restart(&self) {
        [&self.built, &self.deleted, &self.set_aside].into_iter().for_each(|count| count.store(0, Ordering::Release));
    }

    fn count(&self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Built | Outcome::Unchanged => &self.built,
            Outcome::Deleted => &self.deleted,
            Outcome::DeadLetter => &self.set_aside,
        };
        count.fetch_add(1, Ordering::AcqRel);
    }
}

/// Open causes of one index.
pub struct Reports {
    index: String,
    open: Mutex<Causes>,
    on_change: OnChange,
    /// The first build, as it goes.
    pub progress: Arc<Progress>,
    /// Documents that are set aside, as far as this process knows: those at its start, and its own since.
    pub set_aside: AtomicU64,
    /// Roots that the graph did not know, before it knew one; `u64::MAX` since then.
    unknown: AtomicU64,
}

/// Causes of which some documents have their verdict.
#[derive(Default)]
struct Causes {
    by_id: HashMap<String, Open>,
    /// Their ids, and when each is to be looked at, in that order: one without news since then has the rest of its documents elsewhere.
    due: VecDeque<(i64, String)>,
}

struct Open {
    report: ChangeReport,
    /// When the last document had its verdict.
    news_us: i64,
}

impl Causes {
    /// Takes out those that have had no news for a while, and the oldest beyond `most`.
    fn take_over(&mut self, now_us: i64, most: usize) -> Vec<ChangeReport> {
        let mut over = Vec::new();
        while let Some((due_us, _)) = self.due.front()
            && (*due_us <= now_us || self.by_id.len() > most)
        {
            let Some((_, id)) = self.due.pop_front() else { break };
            let Some(open) = self.by_id.get(&id) else { continue };
            let again_us = open.news_us + SILENT_US;
            if again_us > now_us && self.by_id.len() <= most {
                self.due.push_back((again_us, id));
            } else if let Some(open) = self.by_id.remove(&id) {
                over.push(open.report);
            }
        }
        over
    }
}

/// The cause of all requests of a listing of roots; they are progress, not changes.
pub const LISTING: &str = "listing";
/// The cause of requests for documents that a person lets be deleted.
pub const RESUMED: &str = "deletes resumed";
/// A cause without news for so long has the rest of its documents in another process.
const SILENT_US: i64 = 20_000_000;
/// So many roots in a row that the graph does not know, and none that it does, are worth a warning.
const STRANGERS: u64 = 5;
const MAX_OPEN: usize = 100_000;

impl Reports {
    /// Reports for one index, whose listings tell their progress here.
    pub fn new(index: impl Into<String>, on_change: OnChange, progress: Arc<Progress>) -> Self {
        Self {
            index: index.into(),
            open: Mutex::default(),
            on_change,
            progress,
            set_aside: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
        }
    }

    /// Notes whether the graph knew a root. True once: when it has known none of the first few, so that the ids that are made of rows
    /// may not be the graph's.
    pub fn knew(&self, known: bool) -> bool {
        if known {
            self.unknown.store(u64::MAX, Ordering::Release);
            return false;
        }
        let count = |n: u64| (n < u64::MAX).then(|| n.saturating_add(1));
        self.unknown.fetch_update(Ordering::AcqRel, Ordering::Acquire, count) == Ok(STRANGERS - 1)
    }

    /// A change affected no document of this index.
    pub fn nothing(&self, cause: &Cause) {
        (self.on_change)(&self.empty(cause, latency(cause.commit_us)));
    }

    /// One document of a cause has its verdict, and what was written is searchable.
    pub fn finished(&self, cause: &Cause, outcome: Outcome) {
        metrics::counter!("tributary_documents_total", "index" => self.index.clone(), "outcome" => name(outcome))
            .increment(1);
        if cause.id == LISTING {
            self.progress.count(outcome);
            return;
        }
        if cause.id == RESUMED {
            return;
        }
        let latency = latency(cause.commit_us);
        metrics::histogram!("tributary_change_to_searchable_seconds", "index" => self.index.clone())
            .record(latency.as_secs_f64());
        for report in self.verdict(cause, outcome, latency) {
            (self.on_change)(&report);
        }
    }

    /// Counts a verdict. Gives the causes that are over.
    fn verdict(&self, cause: &Cause, outcome: Outcome, latency: Duration) -> Vec<ChangeReport> {
        let now_us = now_us();
        let mut all = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.by_id.contains_key(&cause.id) {
            all.due.push_back((now_us + SILENT_US, cause.id.clone()));
            let report = ChangeReport { elsewhere: cause.affected, ..self.empty(cause, latency) };
            all.by_id.insert(cause.id.clone(), Open { report, news_us: now_us });
        }
        let mut over = all.take_over(now_us, MAX_OPEN);
        let Some(open) = all.by_id.get_mut(&cause.id) else { return over };
        let report = &mut open.report;
        match outcome {
            Outcome::Built => report.built += 1,
            Outcome::Unchanged => report.unchanged += 1,
            Outcome::Deleted => report.deleted += 1,
            Outcome::DeadLetter => report.dead_letters += 1,
        }
        report.elsewhere = report.elsewhere.saturating_sub(1);
        report.latency = latency;
        open.news_us = now_us;
        if report.elsewhere == 0
            && let Some(open) = all.by_id.remove(&cause.id)
        {
            over.push(open.report);
        }
        over
    }

    fn empty(&self, cause: &Cause, latency: Duration) -> ChangeReport {
        ChangeReport {
            index: self.index.clone(),
            label: cause.label.clone(),
            affected: cause.affected,
            built: 0,
            unchanged: 0,
            deleted: 0,
            dead_letters: 0,
            elsewhere: 0,
            latency,
        }
    }
}

fn latency(commit_us: i64) -> Duration {
    Duration::from_micros(u64::try_from(now_us() - commit_us).unwrap_or(0))
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Built => "built",
        Outcome::Unchanged => "unchanged",
        Outcome::Deleted => "deleted",
        Outcome::DeadLetter => "dead_letter",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_that_the_graph_does_not_know_are_told_of_where_they_are_more_than_may_be_hidden() {
        let progress = Progress::default();
        progress.listed.store(100, Ordering::Release);
        (0..6).for_each(|_| progress.count(Outcome::Deleted));
        assert_eq!(progress.strangers(0), None, "roots that went away since are deleted of an index that is not new");
        progress.new_index.store(true, Ordering::Release);
        assert_eq!((progress.strangers(0), progress.strangers(5)), (Some((6, 100)), Some((6, 100))));
        assert_eq!(progress.strangers(6), None);
        progress.restart();
        assert_eq!(progress.strangers(0), None);
    }

    #[test]
    fn a_cause_is_reported_once_when_its_last_document_has_a_verdict() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let sink = heard.clone();
        let reports = Reports::new(
            "movies",
            Arc::new(move |r: &ChangeReport| sink.lock().expect("a lock").push(r.clone())),
            Arc::default(),
        );
        let cause = Cause { id: "1".into(), label: "public.movie u".into(), commit_us: now_us(), affected: 3 };
        reports.finished(&cause, Outcome::Built);
        reports.finished(&cause, Outcome::Unchanged);
        assert!(heard.lock().expect("a lock").is_empty());
        reports.finished(&cause, Outcome::Deleted);
        let heard = heard.lock().expect("a lock");
        assert_eq!(heard.len(), 1);
        assert_eq!((heard[0].built, heard[0].unchanged, heard[0].deleted), (1, 1, 1));
    }

    #[test]
    fn causes_with_documents_elsewhere_are_told_when_there_is_no_news_of_them() {
        let reports = Reports::new("movies", Arc::new(|_: &ChangeReport| {}), Arc::default());
        let cause = |id: &str| Cause { id: id.into(), label: id.into(), commit_us: now_us(), affected: 3 };
        for _ in 0..2 {
            assert!(reports.verdict(&cause("1"), Outcome::Built, Duration::from_millis(7)).is_empty());
        }
        assert!(reports.verdict(&cause("2"), Outcome::Built, Duration::ZERO).is_empty());
        let mut open = reports.open.lock().expect("a lock");
        assert!(open.take_over(now_us(), 5).is_empty());
        let over = open.take_over(now_us(), 1);
        assert_eq!((over.len(), over[0].built, over[0].elsewhere), (1, 2, 1));
        assert_eq!(over[0].latency, Duration::from_millis(7));
        let over = open.take_over(now_us() + 2 * SILENT_US, 5);
        assert_eq!((over.len(), over[0].label.as_str(), open.due.len(), open.by_id.len()), (1, "2", 0, 0));
    }

    #[test]
    fn a_cause_with_news_stays_open() {
        let reports = Reports::new("movies", Arc::new(|_: &ChangeReport| {}), Arc::default());
        let cause = Cause { id: "1".into(), label: String::new(), commit_us: now_us(), affected: 3 };
        reports.verdict(&cause, Outcome::Built, Duration::ZERO);
        let mut open = reports.open.lock().expect("a lock");
        let later = now_us() + SILENT_US + 1;
        open.by_id.get_mut("1").expect("open").news_us = later - 5;
        assert!(open.take_over(later, 5).is_empty());
        assert_eq!((open.due.len(), open.by_id.len()), (1, 1));
    }

    #[test]
    fn roots_that_nobody_knows_are_told_of_once() {
        let told = |knew: &[bool]| {
            let reports = Reports::new("movies", Arc::new(|_: &ChangeReport| {}), Arc::default());
            knew.iter().filter(|known| reports.knew(**known)).count()
        };
        assert_eq!(told(&[false; 4]), 0);
        assert_eq!(told(&[false; 12]), 1);
        assert_eq!(told(&[false, false, true, false, false, false, false, false, false]), 0);
    }

    #[test]
    fn what_was_set_aside_does_not_count_as_built() {
        let reports = Reports::new("movies", Arc::new(|_: &ChangeReport| {}), Arc::default());
        let cause = Cause { id: LISTING.into(), label: "first build".into(), commit_us: now_us(), affected: 0 };
        for outcome in [Outcome::Built, Outcome::Unchanged, Outcome::Deleted, Outcome::DeadLetter] {
            reports.finished(&cause, outcome);
        }
        let verdicts = reports.progress.verdicts();
        assert_eq!((verdicts, verdicts.all()), (Verdicts { built: 2, deleted: 1, set_aside: 1 }, 4));
        reports.progress.restart();
        assert_eq!(reports.progress.verdicts(), Verdicts::default());
    }
}
