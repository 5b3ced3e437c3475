//! What every part says about itself: up, or down since when and why.
//!
//! Parts report as they go; the composition root reads. Reporting is cheap and never blocks for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::now_us;

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
pub struct Health(Arc<Mutex<BTreeMap<String, PartHealth>>>);

impl Health {
    /// A handle for the part `name`, which starts as down ("starting").
    pub fn part(&self, name: impl Into<String>) -> Reporter {
        let reporter = self.reporter(name);
        reporter.down(Reporter::STARTING);
        reporter
    }

    /// Another handle for the part `name`, which stays as it is.
    pub fn reporter(&self, name: impl Into<String>) -> Reporter {
        Reporter { health: self.clone(), name: name.into().into() }
    }

    /// Every part's state now.
    pub fn parts(&self) -> BTreeMap<String, PartHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

    /// The part does not work, and why. Returns whether this is news (a new reason is not).
    pub fn down(&self, why: impl Into<String>) -> bool {
        self.set(false, Some(why.into()))
    }

    /// The part does something beside its usual work, or does not any more; whether it is up stays as it was.
    pub fn note(&self, note: Option<String>) {
        let mut parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(part) = parts.get_mut(&*self.name) {
            part.note = note;
        }
    }

    fn set(&self, up: bool, why: Option<String>) -> bool {
        let mut parts = self.health.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = parts.get(&*self.name);
        let changed = before.is_none_or(|p| p.up != up);
        let since_us = match before {
            Some(p) if !changed => p.since_us,
            _ => now_us(),
        };
        let note = before.and_then(|p| p.note.clone());
        parts.insert(self.name.to_string(), PartHealth { up, since_us, why, note });
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
        assert!(!store.down("timed out"));
        let part = health.parts()["store"].clone();
        assert_eq!((part.since_us, part.why.as_deref()), (since, Some("timed out")));
    }
}
