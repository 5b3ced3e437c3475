//! How fast a service is asked: requests in a time, and not at all while it asked to be left alone.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::time::Instant;
use tributary_dsl::plan::RateLimit;

/// The longest that a service is believed when it asks to be left alone. Then it is asked again, and may say so again.
const MOST_PAUSE: Duration = Duration::from_secs(600);

/// The runtime's clock, as time that passed since it was made.
#[derive(Debug, Clone)]
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Requests in a time.
#[derive(Debug)]
pub(crate) struct Rate {
    limiter: RateLimiter<NotKeyed, InMemoryState, RuntimeClock, NoOpMiddleware<Duration>>,
    clock: RuntimeClock,
}

impl Rate {
    /// A limit that is kept in every time of its length, wherever that begins: a tenth of the requests may be sent at once, the others
    /// evenly.
    pub(crate) fn new(limit: RateLimit) -> Self {
        let at_once = NonZeroU32::new(limit.requests / 10).unwrap_or(NonZeroU32::MIN);
        let others = limit.requests.saturating_sub(at_once.get()).saturating_add(1);
        let each = limit.per.div_f64(f64::from(others)).max(Duration::from_nanos(1));
        let quota = Quota::with_period(each).unwrap_or_else(|| Quota::per_second(at_once)).allow_burst(at_once);
        let clock = RuntimeClock(Instant::now());
        Self { limiter: RateLimiter::direct_with_clock(quota, clock.clone()), clock }
    }

    /// Waits until a request may be sent. Whoever is dropped while waiting has taken nothing.
    pub(crate) async fn wait(&self) {
        while let Err(not_yet) = self.limiter.check() {
            let left = not_yet.wait_time_from(self.clock.now());
            // A millisecond is what the runtime's timers tell apart.
            tokio::time::sleep(left.max(Duration::from_millis(1))).await;
        }
    }
}

/// Until when a service asked to be left alone.
#[derive(Debug, Default)]
pub(crate) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    /// It asked to be left alone for so long. The later end counts.
    pub(crate) fn begin(&self, length: Duration) {
        let until = Instant::now() + length.min(MOST_PAUSE);
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(held.map_or(until, |earlier| earlier.max(until)));
    }

    /// How long that still is; none: it may be asked.
    pub(crate) fn left(&self) -> Option<Duration> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.map(|until| until.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

/// How long a `Retry-After` asks for, as seconds or as a date (RFC 9110, section 10.2.3). None: it says neither.
pub(crate) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (text, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:50:07 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:49:07 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_ends_at_the_latest_time_asked_for() {
        let pause = Pause::default();
        assert_eq!(pause.left(), None);
        pause.begin(Duration::from_secs(30));
        pause.begin(Duration::from_secs(10));
        assert_eq!(pause.left(), Some(Duration::from_secs(30)));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(pause.left(), None);
        pause.begin(Duration::MAX);
        assert_eq!(pause.left(), Some(MOST_PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn no_window_holds_more_requests_than_allowed_and_most_of_them_are_sent() {
        for (requests, per) in [(1, 1), (2, 1), (7, 60), (500, 1), (30, 60)] {
            let per = Duration::from_secs(per);
            let rate = Rate::new(RateLimit { requests, per });
            let began = Instant::now();
            let mut sent = Vec::new();
            while began.elapsed() < per * 5 {
                rate.wait().await;
                sent.push(began.elapsed());
            }
            for from in &sent {
                let within = sent.iter().filter(|at| **at >= *from && **at < *from + per).count();
                assert!(within <= requests as usize, "{within} instead of {requests} within {per:?}");
            }
            let due = f64::from(requests) * 5.0;
            assert!(sent.len() as f64 >= due * 0.8, "{} of {due}", sent.len());
        }
    }
}
