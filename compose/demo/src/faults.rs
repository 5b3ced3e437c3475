//! The switches with which a test makes the service slow, absent, picky or wrong, and the counters it reads.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::StatusCode;

use crate::poison::Poison;

/// A handle to a running service's faults; clones share the same switches. Nothing but tests uses it.
///
/// Every switch acts on requests that arrive after it was set.
#[derive(Debug, Clone, Default)]
pub struct Faults(Arc<Switches>);

#[derive(Debug, Default)]
struct Switches {
    delay_micros: AtomicU64,
    late_micros: AtomicU64,
    age_micros: AtomicU64,
    down: AtomicBool,
    max_roots: AtomicUsize,
    renamed: AtomicBool,
    screenings_hidden: AtomicBool,
    most_movies: AtomicUsize,
    movies_denied: AtomicBool,
    hangs: AtomicBool,
    says_position: AtomicBool,
    any_forbidden: AtomicBool,
    forbidden: RwLock<HashSet<String>>,
    any_failing: AtomicBool,
    failing: RwLock<HashSet<String>>,
    status: AtomicU16,
    any_poisoned: AtomicBool,
    poisoned: RwLock<(HashSet<String>, Option<Poison>)>,
    requests: AtomicU64,
    movies_fetched: AtomicU64,
}

impl Faults {
    /// Holds every GraphQL request back for this long before it is answered; zero ends it.
    pub fn set_delay(&self, delay: Duration) {
        self.0.delay_micros.store(micros(delay), SeqCst);
    }

    /// Reads what a request asks for at once, and holds the answer back for this long; zero ends it.
    pub fn set_late(&self, late: Duration) {
        self.0.late_micros.store(micros(late), SeqCst);
    }

    /// Answers from a snapshot of the database that is taken anew only when it is this old, as a cache does; zero ends it.
    pub fn set_age(&self, age: Duration) {
        self.0.age_micros.store(micros(age), SeqCst);
    }

    /// Lets `title` of these movies answer an error; all others work again. As `title` is not nullable, the movie
    /// itself becomes null, with the error under its path. An empty list ends it.
    pub fn fail_ids(&self, ids: Vec<String>) {
        let mut failing = self.0.failing.write().unwrap_or_else(PoisonError::into_inner);
        *failing = ids.into_iter().collect();
        self.0.any_failing.store(!failing.is_empty(), SeqCst);
    }

    /// Lets `title` of these movies answer that we may not see it; all others may be seen again. An empty list ends it.
    pub fn forbid_ids(&self, ids: Vec<String>) {
        let mut forbidden = self.0.forbidden.write().unwrap_or_else(PoisonError::into_inner);
        *forbidden = ids.into_iter().collect();
        self.0.any_forbidden.store(!forbidden.is_empty(), SeqCst);
    }

    /// Answers at most so many movies of those that a list of ids asks for, without a word about the others. Zero, the default,
    /// means all.
    pub fn cut_movies(&self, most: usize) {
        self.0.most_movies.store(most, SeqCst);
    }

    /// Answers null for every movie that is asked for by id, while true.
    pub fn deny_movies(&self, denied: bool) {
        self.0.movies_denied.store(denied, SeqCst);
    }

    /// Says with every answer how far the standby that it reads has come, while true.
    pub fn say_position(&self, says: bool) {
        self.0.says_position.store(says, SeqCst);
    }

    /// Accepts requests and answers none, while true.
    pub fn hang(&self, hangs: bool) {
        self.0.hangs.store(hangs, SeqCst);
    }

    /// Answers 503 to everything, also to `/healthz`, while true.
    pub fn set_down(&self, down: bool) {
        self.0.down.store(down, SeqCst);
    }

    /// Answers everything with this status and a page of HTML, also `/healthz`, as what stands before a service does while
    /// the service is deployed. `None` ends it.
    pub fn set_status(&self, status: Option<StatusCode>) {
        self.0.status.store(status.map_or(0, |status| status.as_u16()), SeqCst);
    }

    /// Lets an answer that holds the title of one of these movies become what nobody can read. An empty list ends it.
    pub fn poison_ids(&self, ids: Vec<String>, poison: Poison) {
        let mut poisoned = self.0.poisoned.write().unwrap_or_else(PoisonError::into_inner);
        *poisoned = (ids.into_iter().collect(), Some(poison));
        self.0.any_poisoned.store(!poisoned.0.is_empty(), SeqCst);
    }

    /// Refuses a query that asks for more than this many root ids in all, as servers that limit complexity do: with
    /// an error without a path, and `data` null. Zero, the default, means no limit.
    pub fn set_max_roots(&self, max_roots: usize) {
        self.0.max_roots.store(max_roots, SeqCst);
    }

    /// Serves another schema while true: `Movie.title` is called `name`.
    pub fn rename_field(&self, renamed: bool) {
        self.0.renamed.store(renamed, SeqCst);
    }

    /// Answers null for screenings by id while true, as readers do that are behind the database's log.
    pub fn hide_screenings(&self, hidden: bool) {
        self.0.screenings_hidden.store(hidden, SeqCst);
    }

    /// GraphQL requests that arrived so far, refused ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.0.requests.load(SeqCst)
    }

    /// Movies answered so far to somebody who asked for them by id (`movies`, `movie`, `nodes`, `node`).
    #[must_use]
    pub fn movies_fetched(&self) -> u64 {
        self.0.movies_fetched.load(SeqCst)
    }

    pub(crate) fn delay(&self) -> Duration {
        Duration::from_micros(self.0.delay_micros.load(SeqCst))
    }

    pub(crate) fn late(&self) -> Duration {
        Duration::from_micros(self.0.late_micros.load(SeqCst))
    }

    pub(crate) fn age(&self) -> Duration {
        Duration::from_micros(self.0.age_micros.load(SeqCst))
    }

    pub(crate) fn hangs(&self) -> bool {
        self.0.hangs.load(SeqCst)
    }

    pub(crate) fn says_position(&self) -> bool {
        self.0.says_position.load(SeqCst)
    }

    pub(crate) fn denies_movies(&self) -> bool {
        self.0.movies_denied.load(SeqCst)
    }

    pub(crate) fn most_movies(&self) -> Option<usize> {
        Some(self.0.most_movies.load(SeqCst)).filter(|most| *most > 0)
    }

    pub(crate) fn forbids(&self, movie: i32) -> bool {
        self.0.any_forbidden.load(SeqCst)
            && self.0.forbidden.read().unwrap_or_else(PoisonError::into_inner).contains(&movie.to_string())
    }

    pub(crate) fn is_down(&self) -> bool {
        self.0.down.load(SeqCst)
    }

    pub(crate) fn hides_screenings(&self) -> bool {
        self.0.screenings_hidden.load(SeqCst)
    }

    pub(crate) fn is_renamed(&self) -> bool {
        self.0.renamed.load(SeqCst)
    }

    pub(crate) fn max_roots(&self) -> Option<usize> {
        Some(self.0.max_roots.load(SeqCst)).filter(|limit| *limit > 0)
    }

    pub(crate) fn fails(&self, movie: i32) -> bool {
        self.0.any_failing.load(SeqCst)
            && self.0.failing.read().unwrap_or_else(PoisonError::into_inner).contains(&movie.to_string())
    }

    pub(crate) fn status(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.0.status.load(SeqCst)).ok()
    }

    pub(crate) fn poisons(&self, movie: i32) -> bool {
        self.0.any_poisoned.load(SeqCst)
            && self.0.poisoned.read().unwrap_or_else(PoisonError::into_inner).0.contains(&movie.to_string())
    }

    pub(crate) fn poison(&self) -> Option<Poison> {
        let poison = self.0.poisoned.read().unwrap_or_else(PoisonError::into_inner).1;
        poison.filter(|_| self.0.any_poisoned.load(SeqCst))
    }

    pub(crate) fn count_request(&self) {
        self.0.requests.fetch_add(1, SeqCst);
    }

    pub(crate) fn count_movies(&self, movies: usize) {
        self.0.movies_fetched.fetch_add(movies as u64, SeqCst);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
