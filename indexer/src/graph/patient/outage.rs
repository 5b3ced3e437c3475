//! Whether vertices that the graph fails for, each by itself, fail for a cause that they share. Pure: time is handed in.
//!
//! A graph that reads from several servers answers an error for each document that needs the one which is away, and serves the
//! others. That says nothing about the documents. So a cause that several of them share within a minute is an outage: they wait for
//! its end. Where few fail, and where a cause lasts for an hour, others are asked (see `hearing`).

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// So many vertices with one cause make an outage.
const SEVERAL: usize = 5;
/// A failure that is older says nothing about the present.
const RECENT: Duration = Duration::from_secs(60);
/// A cause that lasts longer is not waited for only because several share it.
const LONGEST: Duration = Duration::from_secs(3600);
/// Causes that are remembered.
const CAUSES: usize = 100;

/// The causes of recent failures.
#[derive(Debug, Default)]
pub(super) struct Outages(HashMap<u64, Shared>);

/// Who failed for one cause.
#[derive(Debug, Default)]
struct Shared {
    /// The vertices that failed last, by hashes of their ids.
    failed: Vec<(u64, Instant)>,
    /// Since when several fail.
    since: Option<Instant>,
}

impl Outages {
    /// A vertex failed: whether for a cause that others share, so that it is to wait.
    pub fn note(&mut self, cause: &str, id: &str, now: Instant) -> bool {
        self.0.retain(|_, shared| shared.failed.iter().any(|(_, at)| now - *at < RECENT));
        let cause = kind(cause);
        if self.0.len() >= CAUSES && !self.0.contains_key(&cause) {
            return false;
        }
        let shared = self.0.entry(cause).or_default();
        let id = xxh3_64(id.as_bytes());
        shared.failed.retain(|(other, at)| *other != id && now - *at < RECENT);
        shared.failed.push((id, now));
        let surplus = shared.failed.len().saturating_sub(SEVERAL);
        shared.failed.drain(..surplus);
        if shared.failed.len() < SEVERAL {
            return shared.since.is_some_and(|since| now - since < LONGEST);
        }
        now - *shared.since.get_or_insert(now) < LONGEST
    }
}

/// What a message is about: its words, but for those with digits, which name vertices, places and times.
pub(super) fn kind(message: &str) -> u64 {
    let words = message.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.chars().any(|c| c.is_ascii_digit()));
    xxh3_64(words.collect::<Vec<_>>().join(" ").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_cause_that_several_share_is_an_outage_until_it_lasts_too_long() {
        let (mut outages, mut now) = (Outages::default(), Instant::now());
        for round in 0..3 {
            for id in ["1", "2", "3", "4"] {
                assert!(!outages.note(&format!("no database (at movies.{id}.title)"), id, now), "{round}");
            }
            assert!(!outages.note("another cause", "5", now));
        }
        assert!(outages.note("no database (at movies.77.title)", "5", now));
        let begun = now;
        while now < begun + LONGEST - SECOND {
            now += 20 * SECOND;
            let waits = now < begun + LONGEST;
            for id in 1..=6 {
                assert_eq!(outages.note("no database (at movies.1.title)", &id.to_string(), now), waits);
            }
        }
        assert!(!outages.note("no database (at movies.1.title)", "1", now + SECOND));
    }

    #[test]
    fn what_is_long_ago_does_not_count() {
        let (mut outages, start) = (Outages::default(), Instant::now());
        for (n, id) in ["1", "2", "3", "4", "5", "6"].into_iter().enumerate() {
            assert!(!outages.note("no database", id, start + 20 * SECOND * u32::try_from(n).unwrap()));
        }
        assert!(outages.0.len() == 1);
        outages.note("other", "1", start + 300 * SECOND);
        assert!(outages.0.len() == 1, "what is over is forgotten");
    }
}
