//! What a process knows of the others that work on its pipeline: how long their builds may take, and whether their clocks agree with its
//! own. Each says so on the board every few seconds, and before its first build. Pure: time is handed in.
//!
//! Changes are looked at again when no build is under way that does not know of them, so whoever looks must know the longest deadline that
//! any process builds by: those of a deployment that is rolled out may differ. And what a clock has stamped that is ahead seems to
//! have seen changes which it has not. That a greeting comes late makes a clock look right, never wrong; so who finds itself behind
//! is behind, and says so, until greetings of half a minute say otherwise.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tributary_event::HybridClock;
use tributary_event::clock::SKEW;

/// How often a process says that it is there.
pub(super) const GREETING: Duration = Duration::from_secs(5);
/// A process that could not say so for so long begins no build. One of which nothing was heard for so long, and for as long as its builds
/// may take, is gone.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// What a process says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// A reading of its clock.
    pub stamp: u64,
    /// The deadline of its builds, in milliseconds, by index.
    pub deadlines: BTreeMap<String, u64>,
}

/// The other processes.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<String, Peer>);

#[derive(Debug)]
struct Peer {
    heard: Instant,
    deadlines: BTreeMap<String, u64>,
    /// By how much its clock is ahead, at least, and when that was heard.
    ahead: (Duration, Instant),
}

impl Peer {
    fn deadline(&self, index: &str) -> Duration {
        Duration::from_millis(self.deadlines.get(index).copied().unwrap_or(0))
    }
}

impl Peers {
    /// Hears a greeting, at a moment of this process's wall clock.
    pub fn hear(&mut self, by: &str, greeting: Greeting, wall_us: i64, now: Instant) {
        let said_us = HybridClock::micros(greeting.stamp);
        let micros = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
        let (age, ahead) = (micros(wall_us - said_us), micros(said_us - wall_us));
        // What was said long ago is read at the start.
        let Some(heard) = now.checked_sub(age) else { return };
        let before = self.0.get(by).map(|peer| peer.ahead);
        // One that says less may be late: it counts when the other one is old.
        let more = before.filter(|(more, at)| *more > ahead && now.saturating_duration_since(*at) < SILENCE);
        let ahead = more.unwrap_or((ahead, now));
        self.0.insert(by.to_owned(), Peer { heard, deadlines: greeting.deadlines, ahead });
    }

    /// The longest deadline that another process builds documents of an index by, whose builds may be under way.
    pub fn deadline(&self, index: &str, now: Instant) -> Duration {
        let deadline = |peer: &Peer| {
            let deadline = peer.deadline(index);
            (now.saturating_duration_since(peer.heard) < SILENCE + deadline * 2 + SKEW).then_some(deadline)
        };
        self.0.values().filter_map(deadline).max().unwrap_or_default()
    }

    /// A process whose clock is ahead by more than clocks may differ, and by how much at least.
    pub fn ahead(&self, now: Instant) -> Option<(&str, Duration)> {
        let there = self.0.iter().filter(|(_, peer)| now.saturating_duration_since(peer.heard) < SILENCE);
        let (by, ahead) = there.map(|(by, peer)| (by.as_str(), peer.ahead.0)).max_by_key(|(_, ahead)| *ahead)?;
        (ahead > SKEW).then_some((by, ahead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: i64 = 1_700_000_000_000_000;

    fn greeting(at_us: i64, deadline: u64) -> Greeting {
        Greeting { stamp: HybridClock::at(at_us), deadlines: BTreeMap::from([("films".to_owned(), deadline)]) }
    }

    #[test]
    fn the_longest_deadline_counts_until_its_builds_are_over() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        assert_eq!(peers.deadline("films", now), Duration::ZERO);
        peers.hear("old", greeting(WALL, 60_000), WALL, now);
        peers.hear("new", greeting(WALL, 10_000), WALL, now);
        assert_eq!(
            (peers.deadline("films", now), peers.deadline("people", now)),
            (Duration::from_secs(60), Duration::ZERO)
        );
        let gone = now + SILENCE + Duration::from_secs(120);
        assert_eq!(peers.deadline("films", gone), Duration::from_secs(60));
        assert_eq!(peers.deadline("films", gone + SKEW), Duration::ZERO);
    }

    #[test]
    fn a_clock_is_ahead_if_it_is_for_sure() {
        let (mut peers, now) = (Peers::default(), Instant::now());
        let ms = |ms: i64| ms * 1_000;
        let seen = |peers: &Peers, at| peers.ahead(at).map(|(_, ahead)| ahead.as_millis());
        for (said, read, ahead) in
            [(0, 0, None), (900, 0, None), (3_000, 1_400, Some(1_600)), (3_000, 2_000, Some(1_600))]
        {
            peers.hear("other", greeting(WALL + ms(said), 1), WALL + ms(read), now);
            assert_eq!(seen(&peers, now), ahead, "{said} {read}");
        }
        peers.hear("other", greeting(WALL + ms(9_000), 1), WALL, now);
        assert!(peers.ahead(now).is_some_and(|(by, _)| by == "other"));
        assert_eq!(peers.ahead(now + SILENCE), None, "it is gone");
        // The clocks agree by now, or greetings come late: that is not told apart at once.
        peers.hear("other", greeting(WALL, 1), WALL, now + SILENCE / 2);
        assert_eq!(seen(&peers, now + SILENCE / 2), Some(9_000));
        peers.hear("other", greeting(WALL, 1), WALL, now + SILENCE);
        assert_eq!(seen(&peers, now + SILENCE), None);
    }
}
