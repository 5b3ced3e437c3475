//! What is wrong with services and receivers in a case, and until when by the clock of the case.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::period;

/// What is wrong for a while. With neither `for` nor `times` it is so to the end.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trouble {
    /// Requests are answered by this status of HTTP.
    #[serde(default)]
    pub status: Option<u16>,
    /// And say to come back after so long.
    #[serde(default, deserialize_with = "period")]
    retry_after: Option<Duration>,
    /// Or there is no connection, and why.
    #[serde(default)]
    pub away: Option<String>,
    /// Answers take so long. Alone, they are good ones.
    #[serde(default, deserialize_with = "period")]
    pub slow: Option<Duration>,
    /// So long, from the end of the trouble before; of the first one from the beginning of the case.
    #[serde(default, rename = "for", deserialize_with = "period")]
    lasts: Option<Duration>,
    /// For so many requests.
    #[serde(default)]
    times: Option<u32>,
}

impl Trouble {
    /// The header that asks to come back later.
    pub fn retry_after(&self) -> Option<String> {
        self.retry_after.map(|pause| pause.as_secs().to_string())
    }
}

/// Troubles, one after the other.
#[derive(Debug)]
pub(super) struct Troubles(Mutex<State>);

#[derive(Debug)]
struct State {
    left: VecDeque<Trouble>,
    /// Since when the first of them is.
    since: Instant,
    /// How many requests it has met.
    met: u32,
    /// Whether one is over.
    has_passed: bool,
}

impl Troubles {
    /// They begin now.
    pub fn new(troubles: &[Trouble]) -> Self {
        Self(Mutex::new(State {
            left: troubles.iter().cloned().collect(),
            since: Instant::now(),
            met: 0,
            has_passed: false,
        }))
    }

    /// What a request meets now.
    pub fn meet(&self) -> Option<Trouble> {
        let mut state = self.now();
        state.met += 1;
        state.left.front().cloned()
    }

    /// Whether there is one that will pass, and that somebody is about to meet if it passes by that.
    pub fn will_pass(&self) -> bool {
        let state = self.now();
        let Some(trouble) = state.left.front() else { return false };
        trouble.lasts.is_some() || trouble.times.is_some() && (state.met > 0 || state.has_passed)
    }

    /// Those that are not over.
    fn now(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(trouble) = state.left.front() {
            let over = trouble.lasts.map(|lasts| state.since + lasts);
            let since = match (over, trouble.times) {
                (Some(over), _) if over <= Instant::now() => over,
                (_, Some(times)) if state.met >= times => Instant::now(),
                _ => break,
            };
            state.left.pop_front();
            (state.since, state.met, state.has_passed) = (since, 0, true);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn troubles_pass_by_time_or_by_number() {
        let text = "[{ status: 503, for: 60s }, { away: gone, times: 2 }, { slow: 2s, for: 10s }]";
        let troubles: Vec<Trouble> = serde_saphyr::from_str(text).expect("troubles");
        let troubles = Troubles::new(&troubles);
        let met = || troubles.meet().map(|trouble| (trouble.status, trouble.away, trouble.slow));
        assert!(troubles.will_pass());
        assert_eq!(met(), Some((Some(503), None, None)));
        tokio::time::advance(Duration::from_secs(60)).await;
        for _ in 0..2 {
            assert_eq!(met(), Some((None, Some("gone".into()), None)));
        }
        assert_eq!(met(), Some((None, None, Some(Duration::from_secs(2)))));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!((met(), troubles.will_pass()), (None, false));
        let for_ever = Troubles::new(&[Trouble { status: Some(401), ..Trouble::default() }]);
        assert!(for_ever.meet().is_some() && !for_ever.will_pass());
    }
}
