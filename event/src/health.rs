//! What every part says about itself: up, or down since when and why.
//!
//! Parts report as they go; the composition root reads. Reporting is cheap and never blocks for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::now_us;
use crate::trouble::Trouble;

/// The state of one part.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct PartHealth {
    /// Whether the part does its work now.
    pub up: bool,
    /// Since when it is so, in microseconds since the Unix epoch.
    pub since_us: i64,
    /// Why it is down, or what it is waiting for while it starts. Never a secret.
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
    /// A handle for the part `name`, which starts as down ("starting").
    pub fn part(&self, name: impl Into<String>) -> Reporter {
        let reporter = self.reporter(name);
        reporter.set(false, Some(Reporter::STARTING.to_owned()));
        reporter
    }

    /// Another handle for the part `name`, which stays as it is.
    pub fn reporter(&self, name: impl Into<String>) -> Reporter {
        Reporter { health: self.clone(), name: name.into().into() }
    }

    /// Every part's state now.
    pub fn parts(&self) -> BTreeMap<String, PartHealth> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().map(|(name, part)| (name.clone(), part.health.clone())).collect()
    }

    /// Whether every part is up.
    pub fn is_up(&self) -> bool {
        self.parts().values().all(|p| p.up)
    }
}

/// One part's way to say how it is. Clones speak for the same part.
#[derive(Debug, Clone)]
pub struct Reporter {
    health: Health,
    name: Arc<str>,
}

impl Reporter {
    /// Why a part is down that has not said anything yet.
    pub const STARTING: &str = "starting";

    /// The part's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The part works. Returns whether this is news.
    pub fn up(&self) -> bool {
        self.set(true, None)
    }

    /// The part does not work, and why. Returns whether this is to be told in the log: the same trouble is told once a minute
    /// at most, whoever reports it, so that a long outage does not fill the log.
    pub fn down(&self, why: impl Into<String>) -> bool {
        let why = why.into();
        self.set(false, Some(why.clone()));
        let mut parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.get_mut(&*self.name).is_some_and(|part| part.trouble.note(&why).is_some())
    }

    /// How long the part has been down; zero if it is up.
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

    fn set(&self, up: bool, why: Option<String>) -> bool {
        let mut parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = PartHealth { up, since_us: now_us(), why, note: None };
        let Some(part) = parts.get_mut(&*self.name) else {
            parts.insert(self.name.to_string(), Part { health: fresh, trouble: Trouble::default() });
            return true;
        };
        let changed = part.health.up != up;
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
}
