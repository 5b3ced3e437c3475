//! Which vertices changed lately: answers that hold one of them are not kept, or fall.
//!
//! An answer may be older than a change that is told while it is under way: it is kept only if nothing that it holds was told to have changed
//! since it was asked for, nor so shortly before that the service may not have shown it yet (`lag`). That is looked at once more when it is kept, for
//! a change that is told in between looks for what is kept.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::cache::Cache;
use super::typed::SOME;

/// Changes that are remembered at most. Where more come so close to one another, nothing is kept that was asked for before they are over.
const MOST: usize = 200_000;

/// What the answers of all services hold that are kept, and what became of it.
#[derive(Debug)]
pub struct Held {
    /// The types of vertices that may change, and which field is the id of each.
    pub(crate) ids: BTreeMap<String, String>,
    /// So long after a change a service may still answer as before.
    lag: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether every change is told.
    is_followed: bool,
    /// How many changes were told.
    count: u64,
    /// Changes up to this one may have been more than were told.
    doubt: u64,
    /// What changed lately: the number of its last change, and when that was told.
    changed: HashMap<Arc<str>, (u64, Instant)>,
    /// The same in the order of changes.
    order: VecDeque<(u64, Instant, Arc<str>)>,
    /// So long a service may not show what changed and is remembered no more.
    forgotten: Option<Instant>,
    /// Requests under way, by how many changes had been told when they began.
    under_way: BTreeMap<u64, usize>,
    caches: Vec<Weak<Cache>>,
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Begun {
    held: Arc<Held>,
    count: u64,
    at: Instant,
}

impl Held {
    /// `ids`: the types of vertices that may change, and which field is the id of each. `lag`: so long after a change a service may still
    /// answer as before. Nothing is kept until [`Self::is_followed`] was said.
    pub fn new(ids: BTreeMap<String, String>, lag: Duration) -> Arc<Self> {
        Arc::new(Self { ids, lag, state: Mutex::default() })
    }

    /// From now on every change is told.
    pub fn is_followed(&self) {
        let mut state = self.state();
        state.is_followed = true;
        // What is under way may have begun before.
        state.count += 1;
        state.doubt = state.count;
    }

    /// Vertices changed, each by its type and its id.
    pub async fn changed(&self, vertices: impl IntoIterator<Item = (&str, &str)>) {
        let names = vertices.into_iter().filter(|(type_name, _)| self.ids.contains_key(*type_name));
        let names = names.flat_map(|(type_name, id)| {
            [Arc::from(format!("{type_name}:{id}")), Arc::from(format!("{type_name}:{SOME}"))]
        });
        let names: BTreeSet<Arc<str>> = names.collect();
        self.fall(names.into_iter().collect()).await;
    }

    /// Any vertices of a type changed.
    pub async fn emptied(&self, type_name: &str) {
        if self.ids.contains_key(type_name) {
            self.fall(vec![type_name.into()]).await;
        }
    }

    /// Changes may have been missed: nothing that is kept, or under way, is known to hold.
    pub fn missed(&self) {
        let caches = {
            let mut state = self.state();
            state.count += 1;
            state.doubt = state.count;
            state.caches()
        };
        caches.iter().for_each(|cache| cache.empty());
    }

    async fn fall(&self, names: Vec<Arc<str>>) {
        if names.is_empty() {
            return;
        }
        let caches = {
            let mut state = self.state();
            state.count += 1;
            let (count, now) = (state.count, Instant::now());
            for name in &names {
                state.changed.insert(name.clone(), (count, now));
                state.order.push_back((count, now, name.clone()));
            }
            state.forget(now, self.lag, MOST);
            state.caches()
        };
        for cache in caches {
            cache.fall(&names).await;
        }
    }

    /// A cache whose answers fall.
    pub(crate) fn register(&self, cache: &Arc<Cache>) {
        self.state().caches.push(Arc::downgrade(cache));
    }

    /// A request begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Begun {
        let mut state = self.state();
        let count = state.count;
        *state.under_way.entry(count).or_default() += 1;
        drop(state);
        Begun { held: self.clone(), count, at: Instant::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn caches(&mut self) -> Vec<Arc<Cache>> {
        self.caches.retain(|cache| cache.strong_count() > 0);
        self.caches.iter().filter_map(Weak::upgrade).collect()
    }

    /// Forgets changes that no request under way can be older than, and that every service shows.
    fn forget(&mut self, now: Instant, lag: Duration, most: usize) {
        if self.order.len() > most {
            self.order.clear();
            self.changed.clear();
            self.doubt = self.count;
            self.forgotten = Some(now + lag);
        }
        let oldest = self.under_way.keys().next().copied().unwrap_or(self.count);
        while let Some((count, at, name)) = self.order.front() {
            if *count > oldest || now.duration_since(*at) <= lag {
                break;
            }
            if self.changed.get(name).is_some_and(|(last, _)| last == count) {
                self.changed.remove(name);
            }
            self.order.pop_front();
        }
    }
}

impl Begun {
    /// Whether an answer to this request, which holds these, may be kept.
    pub(crate) fn may_be_kept(&self, holds: &[Arc<str>]) -> bool {
        let state = self.held.state();
        let since = self.at.checked_sub(self.held.lag).unwrap_or(self.at);
        let changed =
            |name: &Arc<str>| state.changed.get(name).is_some_and(|(count, at)| *count > self.count || *at >= since);
        let is_past = state.forgotten.is_none_or(|until| until < self.at);
        state.is_followed && state.doubt <= self.count && is_past && !holds.iter().any(changed)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut state = self.held.state();
        if let Some(requests) = state.under_way.get_mut(&self.count) {
            *requests -= 1;
            if *requests == 0 {
                state.under_way.remove(&self.count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(lag: Duration) -> Arc<Held> {
        Held::new(BTreeMap::from([("Movie".to_owned(), "id".to_owned())]), lag)
    }

    fn names<const N: usize>(names: [&str; N]) -> Vec<Arc<str>> {
        names.map(Arc::from).into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_if_nothing_that_it_holds_changed_since_it_was_asked_for() {
        let held = held(Duration::from_secs(1));
        assert!(!held.begin().may_be_kept(&[]), "nobody tells of changes yet");
        let before = held.begin();
        held.is_followed();
        assert!(!before.may_be_kept(&[]));
        let (seven, some) = (names(["Movie", "Movie:7"]), names(["Movie", "Movie:*"]));
        let begun = held.begin();
        assert!(begun.may_be_kept(&seven));
        held.changed([("Movie", "8"), ("Talent", "7")]).await;
        assert!(begun.may_be_kept(&seven) && !begun.may_be_kept(&some));
        held.changed([("Movie", "7")]).await;
        assert!(!begun.may_be_kept(&seven));
        // The service may not show it yet.
        assert!(!held.begin().may_be_kept(&seven));
        tokio::time::advance(Duration::from_millis(1001)).await;
        let later = held.begin();
        assert!(later.may_be_kept(&seven));
        held.emptied("Movie").await;
        assert!(!later.may_be_kept(&seven) && later.may_be_kept(&[]));
        held.missed();
        assert!(!later.may_be_kept(&[]) && held.begin().may_be_kept(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_changes_none_is_remembered_and_nothing_is_kept_until_they_are_past() {
        let held = held(Duration::from_secs(1));
        held.is_followed();
        held.changed([("Movie", "7")]).await;
        held.state().forget(Instant::now(), Duration::from_secs(1), 1);
        assert_eq!(held.state().order.len(), 0);
        assert!(!held.begin().may_be_kept(&[]));
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert!(held.begin().may_be_kept(&names(["Movie:7"])));
    }

    #[tokio::test(start_paused = true)]
    async fn what_changed_long_ago_is_forgotten_unless_something_older_is_under_way() {
        let held = held(Duration::from_secs(1));
        held.is_followed();
        let old = held.begin();
        held.changed([("Movie", "7")]).await;
        tokio::time::advance(Duration::from_secs(9)).await;
        held.changed([("Movie", "8")]).await;
        assert!(!old.may_be_kept(&names(["Movie:7"])));
        drop(old);
        tokio::time::advance(Duration::from_secs(9)).await;
        held.changed([("Movie", "9")]).await;
        let state = held.state();
        assert_eq!((state.changed.len(), state.order.len(), state.under_way.len()), (2, 2, 0));
    }
}
