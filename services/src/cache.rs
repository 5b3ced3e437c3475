//! Answers that are kept for a while: bounded by the bytes that they take, and what a service did not know for another time than what it knew.

use std::time::{Duration, Instant};

use bytes::Bytes;
use moka::Expiry;
use moka::future::Cache as Kept;
use tributary_dsl::plan::CacheSettings;
use tributary_processor::Answer;

/// About what an entry takes beside its key and its answer, in bytes.
const ENTRY: usize = 160;

/// Answers of a service, by key. Failures are never kept.
#[derive(Debug)]
pub(crate) struct Cache {
    kept: Option<Kept<Bytes, Timed>>,
    lifetimes: Lifetimes,
}

/// An answer, until when it holds by the runtime's clock. That one may run ahead of the system's, in tests and in cases of streams; what
/// frees the room of old answers goes by the system's.
#[derive(Debug, Clone)]
struct Timed {
    answer: Answer,
    until: tokio::time::Instant,
}

impl Cache {
    /// One of these settings; none: it keeps nothing.
    pub(crate) fn new(settings: Option<CacheSettings>) -> Self {
        let lifetimes = settings
            .map_or_else(Lifetimes::default, |settings| Lifetimes { found: settings.ttl, missing: settings.missing });
        let kept = settings.map(|settings| {
            Kept::builder()
                .max_capacity(settings.max)
                .weigher(|key: &Bytes, timed: &Timed| {
                    let answer = if let Answer::Found(json) = &timed.answer { json.len() } else { 0 };
                    u32::try_from(key.len() + answer + ENTRY).unwrap_or(u32::MAX)
                })
                .expire_after(lifetimes)
                .build()
        });
        Self { kept, lifetimes }
    }

    /// Whether it keeps anything.
    pub(crate) fn is_used(&self) -> bool {
        self.kept.is_some()
    }

    /// What is kept for a key.
    pub(crate) async fn get(&self, key: &Bytes) -> Option<Answer> {
        let timed = self.kept.as_ref()?.get(key).await?;
        (tokio::time::Instant::now() < timed.until).then_some(timed.answer)
    }

    /// Keeps an answer, unless it is a failure.
    pub(crate) async fn keep(&self, key: &Bytes, answer: &Answer) {
        if let (Some(kept), Answer::Found(_) | Answer::Missing) = (&self.kept, answer) {
            let now = tokio::time::Instant::now();
            let until = now.checked_add(self.lifetimes.of(answer)).unwrap_or(now);
            kept.insert(key.clone(), Timed { answer: answer.clone(), until }).await;
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

impl Expiry<Bytes, Timed> for Lifetimes {
    fn expire_after_create(&self, _: &Bytes, timed: &Timed, _: Instant) -> Option<Duration> {
        Some(self.of(&timed.answer))
    }

    fn expire_after_update(&self, _: &Bytes, timed: &Timed, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(self.of(&timed.answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn settings(max: u64) -> CacheSettings {
        CacheSettings { ttl: HOUR, missing: HOUR, max }
    }

    #[tokio::test]
    async fn answers_are_kept_and_failures_are_not() {
        let cache = Cache::new(Some(settings(1 << 20)));
        let key = |n: u8| Bytes::copy_from_slice(&[n]);
        cache.keep(&key(1), &Answer::Found("7".into())).await;
        cache.keep(&key(2), &Answer::Missing).await;
        cache.keep(&key(3), &Answer::Failed("x".into())).await;
        assert_eq!(cache.get(&key(1)).await, Some(Answer::Found("7".into())));
        assert_eq!((cache.get(&key(2)).await, cache.get(&key(3)).await), (Some(Answer::Missing), None));
        let none = Cache::new(None);
        none.keep(&key(1), &Answer::Missing).await;
        assert_eq!((none.get(&key(1)).await, none.is_used()), (None, false));
    }

    #[tokio::test]
    async fn what_is_kept_takes_no_more_than_it_may() {
        let cache = Cache::new(Some(settings(64 * 1024)));
        for n in 0..1000_u32 {
            cache.keep(&Bytes::copy_from_slice(&n.to_be_bytes()), &Answer::Found(vec![b'1'; 1024].into())).await;
        }
        let kept = cache.kept.unwrap();
        kept.run_pending_tasks().await;
        assert!(kept.weighted_size() <= 64 * 1024, "{}", kept.weighted_size());
        assert!(kept.entry_count() > 20, "{}", kept.entry_count());
    }

    #[tokio::test]
    async fn what_was_missing_is_asked_for_again_sooner() {
        let lifetimes = Lifetimes { found: HOUR, missing: Duration::from_secs(2) };
        let timed = |answer| Timed { answer, until: tokio::time::Instant::now() };
        let after = |answer| lifetimes.expire_after_create(&Bytes::new(), &timed(answer), Instant::now());
        assert_eq!(after(Answer::Found(Bytes::new())), Some(HOUR));
        assert_eq!(after(Answer::Missing), Some(Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn answers_are_kept_by_the_clock_of_the_runtime() {
        let cache = Cache::new(Some(CacheSettings { missing: Duration::from_secs(2), ..settings(1 << 20) }));
        let key = |n: u8| Bytes::copy_from_slice(&[n]);
        cache.keep(&key(1), &Answer::Found("7".into())).await;
        cache.keep(&key(2), &Answer::Missing).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!((cache.get(&key(1)).await, cache.get(&key(2)).await), (Some(Answer::Found("7".into())), None));
        tokio::time::advance(HOUR).await;
        assert_eq!(cache.get(&key(1)).await, None);
    }
}
