//! Answers that are kept for a while: bounded by the bytes that they take, and what a service did not know for another time than what it knew.
//! Those of which it is known which vertices they hold fall when one of them changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::future::Cache as Kept;
use tributary_dsl::plan::CacheSettings;
use tributary_processor::Answer;

use super::held::{Begun, Held};
use super::typed::untyped;

/// About what an entry takes beside its key and its answer, in bytes.
const ENTRY: usize = 160;
/// About what it takes that a vertex is held by it.
const HOLD: usize = 64;

/// Answers of a service, by key. Failures are never kept.
#[derive(Debug)]
pub(crate) struct Cache {
    kept: Option<Kept<Bytes, Entry>>,
    lifetimes: Lifetimes,
    holders: Arc<Holders>,
    falls: Option<Falls>,
}

/// By what answers fall.
#[derive(Debug)]
pub(crate) struct Falls {
    pub held: Arc<Held>,
    /// Names that fields have in answers and not in the schema.
    pub aliases: HashSet<String>,
}

/// An answer, what it holds, and until when it counts by the runtime's clock. That one may run ahead of the system's, in tests and in cases
/// of streams; what frees the room of old answers goes by the system's.
#[derive(Debug, Clone)]
struct Entry {
    answer: Answer,
    until: tokio::time::Instant,
    holds: Arc<[Arc<str>]>,
}

/// Keys whose answers hold something, and how many entries say so: an entry is noted before it is there, and struck out when it is gone.
#[derive(Debug, Default)]
struct Holders(Mutex<HashMap<Arc<str>, HashMap<Bytes, usize>>>);

impl Holders {
    fn all(&self) -> MutexGuard<'_, HashMap<Arc<str>, HashMap<Bytes, usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: &Bytes, holds: &[Arc<str>]) {
        let mut all = self.all();
        for name in holds {
            *all.entry(name.clone()).or_default().entry(key.clone()).or_default() += 1;
        }
    }

    fn strike_out(&self, key: &Bytes, holds: &[Arc<str>]) {
        let mut all = self.all();
        for name in holds {
            let Some(keys) = all.get_mut(name) else { continue };
            if let Some(entries) = keys.get_mut(key) {
                *entries -= 1;
                if *entries == 0 {
                    keys.remove(key);
                }
            }
            if keys.is_empty() {
                all.remove(name);
            }
        }
    }

    fn of(&self, names: &[Arc<str>]) -> BTreeSet<Bytes> {
        let all = self.all();
        names.iter().filter_map(|name| all.get(name)).flat_map(|keys| keys.keys().cloned()).collect()
    }
}

impl Cache {
    /// One of these settings; none: it keeps nothing.
    pub(crate) fn new(settings: Option<CacheSettings>, falls: Option<Falls>) -> Arc<Self> {
        let holders: Arc<Holders> = Arc::default();
        let struck = holders.clone();
        let lifetimes = settings
            .map_or_else(Lifetimes::default, |settings| Lifetimes { found: settings.ttl, missing: settings.missing });
        let kept = settings.map(|settings| {
            Kept::builder()
                .max_capacity(settings.max)
                .weigher(|key: &Bytes, entry: &Entry| {
                    let answer = if let Answer::Found(json) = &entry.answer { json.len() } else { 0 };
                    let holds: usize = entry.holds.iter().map(|name| name.len() + HOLD).sum();
                    u32::try_from(key.len() + answer + holds + ENTRY).unwrap_or(u32::MAX)
                })
                .expire_after(lifetimes)
                .eviction_listener(move |key, entry: Entry, _| struck.strike_out(&key, &entry.holds))
                .build()
        });
        let cache = Arc::new(Self { kept, lifetimes, holders, falls });
        if let Some(falls) = &cache.falls {
            falls.held.register(&cache);
        }
        cache
    }

    /// Whether it keeps anything.
    pub(crate) fn is_used(&self) -> bool {
        self.kept.is_some()
    }

    /// What is kept for a key.
    pub(crate) async fn get(&self, key: &Bytes) -> Option<Answer> {
        let entry = self.kept.as_ref()?.get(key).await?;
        (tokio::time::Instant::now() < entry.until).then_some(entry.answer)
    }

    /// Requests for keys begin, whose answers may be kept.
    pub(crate) fn begin(&self) -> Option<Begun> {
        self.falls.as_ref().map(|falls| falls.held.begin())
    }

    /// The answer as it is handed on. It is kept, unless it is a failure, or something that it holds changed since it was asked for.
    pub(crate) async fn take(&self, key: &Bytes, answer: Answer, begun: Option<&Begun>) -> Answer {
        let (answer, holds): (Answer, Arc<[Arc<str>]>) = match (answer, &self.falls) {
            (Answer::Found(json), Some(falls)) => {
                let (json, holds) = untyped(&json, &falls.held.ids, &falls.aliases);
                (Answer::Found(json), holds.into_iter().collect())
            }
            (answer, _) => (answer, [].into()),
        };
        let may_be_kept = || begun.is_none_or(|begun| begun.may_be_kept(&holds));
        if let (Some(kept), Answer::Found(_) | Answer::Missing) = (&self.kept, &answer)
            && may_be_kept()
        {
            self.holders.note(key, &holds);
            let now = tokio::time::Instant::now();
            let until = now.checked_add(self.lifetimes.of(&answer)).unwrap_or(now);
            let entry = Entry { answer: answer.clone(), until, holds: holds.clone() };
            kept.insert(key.clone(), entry).await;
            // What changed in between did not find it.
            if !may_be_kept() {
                kept.invalidate(key).await;
            }
        }
        answer
    }

    /// Drops the answers that hold one of these.
    pub(crate) async fn fall(&self, names: &[Arc<str>]) {
        let Some(kept) = &self.kept else { return };
        for key in self.holders.of(names) {
            kept.invalidate(&key).await;
        }
    }

    /// Drops all answers.
    pub(crate) fn empty(&self) {
        if let Some(kept) = &self.kept {
            kept.invalidate_all();
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Lifetimes {
    found: Duration,
    missing: Duration,
}

impl Lifetimes {
    fn of(&self, answer: &Answer) -> Duration {
        if matches!(answer, Answer::Found(_)) { self.found } else { self.missing }
    }
}

impl Expiry<Bytes, Entry> for Lifetimes {
    fn expire_after_create(&self, _: &Bytes, entry: &Entry, _: Instant) -> Option<Duration> {
        Some(self.of(&entry.answer))
    }

    fn expire_after_update(&self, _: &Bytes, entry: &Entry, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(self.of(&entry.answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn settings(max: u64) -> CacheSettings {
        CacheSettings { ttl: HOUR, missing: HOUR, max, changes: true }
    }

    #[tokio::test]
    async fn answers_are_kept_and_failures_are_not() {
        let cache = Cache::new(Some(settings(1 << 20)), None);
        let key = |n: u8| Bytes::copy_from_slice(&[n]);
        cache.take(&key(1), Answer::Found("7".into()), None).await;
        cache.take(&key(2), Answer::Missing, None).await;
        cache.take(&key(3), Answer::Failed("x".into()), None).await;
        assert_eq!(cache.get(&key(1)).await, Some(Answer::Found("7".into())));
        assert_eq!((cache.get(&key(2)).await, cache.get(&key(3)).await), (Some(Answer::Missing), None));
        let none = Cache::new(None, None);
        none.take(&key(1), Answer::Missing, None).await;
        assert_eq!((none.get(&key(1)).await, none.is_used()), (None, false));
    }

    #[tokio::test]
    async fn what_is_kept_takes_no_more_than_it_may() {
        let cache = Cache::new(Some(settings(64 * 1024)), None);
        for n in 0..1000_u32 {
            cache.take(&Bytes::copy_from_slice(&n.to_be_bytes()), Answer::Found(vec![b'1'; 1024].into()), None).await;
        }
        let kept = cache.kept.as_ref().unwrap();
        kept.run_pending_tasks().await;
        assert!(kept.weighted_size() <= 64 * 1024, "{}", kept.weighted_size());
        assert!(kept.entry_count() > 20, "{}", kept.entry_count());
    }

    #[tokio::test]
    async fn what_was_missing_is_asked_for_again_sooner() {
        let lifetimes = Lifetimes { found: HOUR, missing: Duration::from_secs(2) };
        let entry = |answer| Entry { answer, until: tokio::time::Instant::now(), holds: [].into() };
        let after = |answer| lifetimes.expire_after_create(&Bytes::new(), &entry(answer), Instant::now());
        assert_eq!(after(Answer::Found(Bytes::new())), Some(HOUR));
        assert_eq!(after(Answer::Missing), Some(Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn answers_that_hold_what_changed_fall_and_nothing_is_left_of_them() {
        let held = Held::new([("Movie".to_owned(), "id".to_owned())].into(), Duration::ZERO);
        let falls = Falls { held: held.clone(), aliases: HashSet::new() };
        let cache = Cache::new(Some(settings(1 << 20)), Some(falls));
        held.is_followed();
        let keep = async |key: &'static str, id: &str| {
            let begun = cache.begin();
            let json = format!(r#"{{"tributary_type":"Movie","id":{id}}}"#);
            cache.take(&key.into(), Answer::Found(json.into()), begun.as_ref()).await
        };
        for (key, id) in [("a", "7"), ("b", "8"), ("b", "9"), ("c", "[]")] {
            assert_eq!(keep(key, id).await, Answer::Found(format!(r#"{{"id":{id}}}"#).into()));
        }
        let kept = async |key: &'static str| cache.get(&key.into()).await.is_some();
        held.changed([("Movie", "8")]).await;
        // Of c it is not known which one it holds.
        assert_eq!((kept("a").await, kept("b").await, kept("c").await), (true, true, false));
        held.changed([("Movie", "7"), ("Movie", "9")]).await;
        assert_eq!((kept("a").await, kept("b").await), (false, false));
        keep("a", "7").await;
        held.emptied("Movie").await;
        assert!(!kept("a").await);
        keep("a", "7").await;
        held.missed();
        assert!(!kept("a").await);
        cache.kept.as_ref().unwrap().run_pending_tasks().await;
        assert_eq!(cache.holders.all().len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_by_the_clock_of_the_runtime() {
        let cache = Cache::new(Some(CacheSettings { missing: Duration::from_secs(2), ..settings(1 << 20) }), None);
        let key = |n: u8| Bytes::copy_from_slice(&[n]);
        cache.take(&key(1), Answer::Found("7".into()), None).await;
        cache.take(&key(2), Answer::Missing, None).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((cache.get(&key(1)).await, cache.get(&key(2)).await), (Some(Answer::Found("7".into())), None));
        tokio::time::advance(HOUR).await;
        assert_eq!(cache.get(&key(1)).await, None);
    }
}
