//! When a service is left alone: a pure state machine over the time that passed since it was made.
//!
//! ```text
//!             too many of a window failed or were slow
//!   closed ────────────────────────────────────────────► open
//!     ▲                                                  │  ▲
//!     │ the trial went well             the pause is over │  │ the trial failed
//!     └──────────────────────── half-open ◄──────────────┘──┘
//! ```
//!
//! A window is counted in slots of a tenth of its time, so that its memory does not grow with the rate of requests.

use std::collections::VecDeque;
use std::time::Duration;

use tributary_dsl::plan::BreakerSettings;

/// Of fewer requests in a window, a share says nothing.
pub(crate) const LEAST: u32 = 10;
/// Parts of a window that are forgotten one after the other.
const SLOTS: u32 = 10;

/// Whether a request may be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It may.
    Pass,
    /// It may, and decides whether others may. No other is sent before [`Breaker::record`] was told how it went.
    Trial,
    /// It may not.
    LeftAlone {
        /// For so long, as far as is known.
        left: Duration,
        /// Why.
        cause: String,
    },
}

/// How a request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The service did its work.
    Good,
    /// It did not, or too slowly, and why.
    Bad(String),
    /// It says nothing about the service.
    Nothing,
}

/// What it does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Position {
    /// Requests are sent.
    Closed,
    /// One is sent.
    HalfOpen,
    /// None is sent.
    Open,
}

/// The breaker of a service.
#[derive(Debug)]
pub(crate) struct Breaker {
    settings: BreakerSettings,
    state: State,
}

#[derive(Debug)]
enum State {
    Closed(Window),
    Open { until: Duration, cause: String },
    HalfOpen { is_trying: bool, cause: String },
}

impl Breaker {
    /// One that is closed.
    pub(crate) fn new(settings: BreakerSettings) -> Self {
        Self { settings, state: State::Closed(Window::default()) }
    }

    /// What it does now.
    pub(crate) fn position(&self) -> Position {
        match self.state {
            State::Closed(_) => Position::Closed,
            State::Open { .. } => Position::Open,
            State::HalfOpen { .. } => Position::HalfOpen,
        }
    }

    /// Whether a request may be sent now.
    pub(crate) fn admit(&mut self, now: Duration) -> Admission {
        if let State::Open { until, cause } = &self.state {
            if now < *until {
                return Admission::LeftAlone { left: *until - now, cause: cause.clone() };
            }
            self.state = State::HalfOpen { is_trying: false, cause: cause.clone() };
        }
        match &mut self.state {
            State::HalfOpen { is_trying: true, cause } => {
                Admission::LeftAlone { left: Duration::ZERO, cause: cause.clone() }
            }
            State::HalfOpen { is_trying, .. } => {
                *is_trying = true;
                Admission::Trial
            }
            State::Closed(_) | State::Open { .. } => Admission::Pass,
        }
    }

    /// How a request went that was admitted, as a trial or not.
    pub(crate) fn record(&mut self, now: Duration, is_trial: bool, mark: Mark) {
        match (&mut self.state, is_trial, mark) {
            (State::HalfOpen { is_trying, .. }, true, Mark::Nothing) => *is_trying = false,
            (State::HalfOpen { .. }, true, Mark::Good) => self.state = State::Closed(Window::default()),
            (State::HalfOpen { .. }, true, Mark::Bad(cause)) => self.open(now, cause),
            (State::Closed(window), false, Mark::Good) => window.add(now, self.settings.window, false),
            (State::Closed(window), false, Mark::Bad(cause)) => {
                window.add(now, self.settings.window, true);
                if window.is_too_bad(self.settings.failures) {
                    self.open(now, cause);
                }
            }
            // Requests that were sent before it opened say nothing about what is now.
            _ => {}
        }
    }

    fn open(&mut self, now: Duration, cause: String) {
        self.state = State::Open { until: now.saturating_add(self.settings.pause), cause };
    }
}

/// How the requests of a time went.
#[derive(Debug, Default)]
struct Window {
    slots: VecDeque<Slot>,
}

#[derive(Debug)]
struct Slot {
    number: u128,
    all: u32,
    bad: u32,
}

impl Window {
    fn add(&mut self, now: Duration, length: Duration, is_bad: bool) {
        let number = slot(now, length);
        while self.slots.front().is_some_and(|first| first.number + u128::from(SLOTS) <= number) {
            self.slots.pop_front();
        }
        match self.slots.back_mut() {
            // Not `==`: two callers may tell their times in another order than they took them.
            Some(last) if last.number >= number => last.add(is_bad),
            _ => {
                let mut fresh = Slot { number, all: 0, bad: 0 };
                fresh.add(is_bad);
                self.slots.push_back(fresh);
            }
        }
    }

    fn is_too_bad(&self, percent: u8) -> bool {
        let sum = |count: fn(&Slot) -> u32| self.slots.iter().map(|slot| u64::from(count(slot))).sum::<u64>();
        let (all, bad) = (sum(|slot| slot.all), sum(|slot| slot.bad));
        all >= u64::from(LEAST) && bad * 100 >= all * u64::from(percent)
    }
}

impl Slot {
    fn add(&mut self, is_bad: bool) {
        self.all = self.all.saturating_add(1);
        self.bad = self.bad.saturating_add(u32::from(is_bad));
    }
}

/// The number of the slot of a time.
fn slot(now: Duration, length: Duration) -> u128 {
    now.as_nanos() / (length.as_nanos() / u128::from(SLOTS)).max(1)
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
