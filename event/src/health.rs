//! What every part says about itself: up, a standby, or down, since when and why.
//!
//! Parts report as they go; the composition root reads. Reporting is cheap and never blocks for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::now_us;
use crate::trouble::Trouble;

/// What a part does now. The later, the worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// Its work.
    Up,
    /// Nothing, for another process does its work; it takes over when that one ends.
    Standby,
    /// It has not said anything yet.
    Starting,
    /// It cannot do its work.
    Down,
}

impl HealthState {
    /// Whether nothing is to be mended.
    pub fn is_healthy(self) -> bool {
        self <= Self::Standby
    }
}

/// The state of one part.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartHealth {
    /// Whether nothing of the part is to be mended.
    pub up: bool,
    /// What the part does now.
    pub state: HealthState,
    /// Since when it is so, in microseconds since the Unix epoch.
    pub since_us: i64,
    /// Why it is down, or whom it is a standby of. Never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it does beside its usual work, and why. Never a secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// The parts of a running process and their states. Clones share the same parts.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<String, Part>>>);

/// A part's state, and what was said of it.
#[derive(Debug)]
struct Part {
    health: PartHealth,
    trouble: Trouble,
}

impl Health {
    /// A handle for the part `name`, which starts as [`HealthState::Starting`].
    pub fn part(&self, name: impl Into<String>) -> Reporter {
        let reporter = self.reporter(name);
        reporter.set(HealthState::Starting, Some("starting".to_owned()));
        reporter
    }

    /// Another handle for the part `name`, which stays as it is.
    pub fn reporter(&self, name: impl Into<String>) -> Reporter {
        Reporter { health: self.clone(), name: name.into().into() }
    }

    /// A part is no longer there.
    pub fn forget(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Every part's state now.
    pub fn parts(&self) -> BTreeMap<String, PartHealth> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(name, part)| (name.clone(), part.health.clone())).collect()
    }

    /// The state of the whole: that of the part that is worst off.
    pub fn state(&self) -> HealthState {
        self.parts().values().map(|part| part.state).max().unwrap_or(HealthState::Up)
    }

    /// Whether every part does its work.
    pub fn is_up(&self) -> bool {
        self.state() == HealthState::Up
    }
}

/// One part's way to say how it is. Clones speak for the same part.
#[derive(Debug, Clone)]
pub struct Reporter {
    health: Health,
    name: Arc<str>,
}

impl Reporter {
    /// The part's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part works. Returns whether this is news.
    pub fn up(&self) -> bool {
        self.set(HealthState::Up, None)
    }

    /// Another process does the part's work, and which. Returns whether this is news.
    pub fn standby(&self, why: impl Into<String>) -> bool {
        self.set(HealthState::Standby, Some(why.into()))
    }

    /// The part does not work, and why. Returns whether this is to be told in the log: the same trouble is told once a minute
    /// at most, whoever reports it, so that a long outage does not fill the log.
    pub fn down(&self, why: impl Into<String>) -> bool {
        let why = why.into();
        self.set(HealthState::Down, Some(why.clone()));
        let mut parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get_mut(&*self.name).is_some_and(|part| part.trouble.note(&why).is_some())
    }

    /// How long the part has been down; zero if it is not.
    pub fn outage(&self) -> Duration {
        let parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = parts.get(&*self.name).filter(|part| !part.health.up).map(|part| part.health.since_us);
        Duration::from_micros(since.map_or(0, |since| u64::try_from(now_us() - since).unwrap_or(0)))
    }

    /// The part does something beside its usual work, or does not any more; whether it is up stays as it was.
    pub fn note(&self, note: Option<String>) {
        let mut parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get_mut(&*self.name) {
            part.health.note = note;
        }
    }

    fn set(&self, state: HealthState, why: Option<String>) -> bool {
        let mut parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        let up = state.is_healthy();
        let fresh = PartHealth { up, state, since_us: now_us(), why, note: None };
        let Some(part) = parts.get_mut(&*self.name) else {
            parts.insert(self.name.to_string(), Part { health: fresh, trouble: Trouble::default() });
            return true;
        };
        // A part that fails as it starts has been away since it began.
        let changed = part.health.up != up || up && part.health.state != state;
        if up {
            part.trouble.over();
        }
        let since_us = if changed { fresh.since_us } else { part.health.since_us };
        part.health = PartHealth { since_us, note: part.health.note.take(), ..fresh };
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_down_until_it_says_otherwise_and_keeps_the_moment_of_the_change() {
        let health = Health::default();
        let store = health.part("store");
        assert!(!health.is_up());
        assert!(store.up());
        assert!(health.is_up());
        assert!(store.down("connection refused"));
        let since = health.parts()["store"].since_us;
        assert!(store.down("timed out"));
        assert!(!store.down("connection refused"));
        assert!(!store.down("timed out"));
        let part = health.parts()["store"].clone();
        assert_eq!((part.since_us, part.why.as_deref()), (since, Some("timed out")));
    }

    #[test]
    fn a_part_that_starts_and_fails_tells_why() {
        let health = Health::default();
        let source = health.part("source");
        assert!(source.down("connection refused"));
        assert!(!health.reporter("source").down("connection refused"));
        source.up();
        assert_eq!(source.outage(), Duration::ZERO);
        assert!(!source.down("connection refused"), "a flickering outage is told no more often than a lasting one");
    }

    #[test]
    fn a_standby_is_healthy_and_does_nothing() {
        let health = Health::default();
        let (store, source) = (health.part("store"), health.part("source"));
        store.up();
        assert_eq!(health.state(), HealthState::Starting);
        assert!(source.standby("another process reads it"));
        assert!(!source.standby("another process reads it"));
        assert_eq!((health.state(), health.is_up(), health.state().is_healthy()), (HealthState::Standby, false, true));
        assert!(source.up(), "it takes over");
        assert!(health.is_up());
        store.down("timed out");
        source.standby("another process reads it");
        assert_eq!(health.state(), HealthState::Down);
        let json = serde_json::to_value(health.parts()).expect("JSON");
        assert_eq!((&json["source"]["up"], &json["source"]["state"]), (&true.into(), &"standby".into()));
    }
}
