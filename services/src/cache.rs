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
pub(crate) struct Cache(Option<Kept<Bytes, Answer>>);

impl Cache {
    /// One of these settings; none: it keeps nothing.
    pub(crate) fn new(settings: Option<CacheSettings>) -> Self {
        Self(settings.map(|settings| {
            Kept::builder()
                .max_capacity(settings.max)
                .weigher(|key: &Bytes, answer: &Answer| {
                    let answer = if let Answer::Found(json) = answer { json.len() } else { 0 };
                    u32::try_from(key.len() + answer + ENTRY).unwrap_or(u32::MAX)
                })
                .expire_after(Lifetimes { found: settings.ttl, missing: settings.missing })
                .build()
        }))
    }

    /// Whether it keeps anything.
    pub(crate) fn is_used(&self) -> bool {
        self.0.is_some()
    }

    /// What is kept for a key.
    pub(crate) async fn get(&self, key: &Bytes) -> Option<Answer> {
        self.0.as_ref()?.get(key).await
    }

    /// Keeps an answer, unless it is a failure.
    pub(crate) async fn keep(&self, key: &Bytes, answer: &Answer) {
        if let (Some(kept), Answer::Found(_) | Answer::Missing) = (&self.0, answer) {
            kept.insert(key.clone(), answer.clone()).await;
        }
    }
}

struct Lifetimes {
    found: Duration,
    missing: Duration,
}

impl Lifetimes {
    fn of(&self, answer: &Answer) -> Duration {
        if matches!(answer, Answer::Found(_)) { self.found } else { self.missing }
    }
}

impl Expiry<Bytes, Answer> for Lifetimes {
    fn expire_after_create(&self, _: &Bytes, answer: &Answer, _: Instant) -> Option<Duration> {
        Some(self.of(answer))
    }

    fn expire_after_update(&self, _: &Bytes, answer: &Answer, _: Instant, _: Option<Duration>) -> Option<Duration> {
        Some(self.of(answer))
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
        let kept = cache.0.unwrap();
        kept.run_pending_tasks().await;
        assert!(kept.weighted_size() <= 64 * 1024, "{}", kept.weighted_size());
        assert!(kept.entry_count() > 20, "{}", kept.entry_count());
    }

    #[tokio::test]
    async fn what_was_missing_is_asked_for_again_sooner() {
        let lifetimes = Lifetimes { found: HOUR, missing: Duration::from_secs(2) };
        let after = |answer: &Answer| lifetimes.expire_after_create(&Bytes::new(), answer, Instant::now());
        assert_eq!(after(&Answer::Found(Bytes::new())), Some(HOUR));
        assert_eq!(after(&Answer::Missing), Some(Duration::from_secs(2)));
    }
}
