//! Trouble that lasts: when to tell it, so that a long outage is a few lines in a log and not thousands.

use std::time::{Duration, Instant};

/// The same trouble is told again after this time.
const REMIND: Duration = Duration::from_secs(60);
/// So many kinds of trouble are told within [`REMIND`].
const KINDS: usize = 8;

/// The trouble of one thing that is tried again and again. A failure is told once; then again only if it is of another kind, or
/// lasts a minute longer. Texts that differ in numbers alone are of one kind.
#[derive(Debug, Default)]
pub struct Trouble {
    since: Option<Instant>,
    /// It was told since it began.
    was_told: bool,
    /// What was told in the last minute, also of trouble that is over: what comes and goes is told no more often.
    told: Vec<(String, Instant)>,
}

impl Trouble {
    /// It failed. If that is to be told now: how long it has failed.
    pub fn note(&mut self, why: &str) -> Option<Duration> {
        self.note_at(why, Instant::now())
    }

    fn note_at(&mut self, why: &str, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        self.told.retain(|(_, at)| now.duration_since(*at) < REMIND);
        let kind = kind(why);
        if self.told.len() >= KINDS || self.told.iter().any(|(told, _)| *told == kind) {
            return None;
        }
        self.told.push((kind, now));
        self.was_told = true;
        Some(now.duration_since(since))
    }

    /// It went well. If trouble was told that is over now: how long it lasted.
    pub fn over(&mut self) -> Option<Duration> {
        let since = self.since.take()?;
        std::mem::take(&mut self.was_told).then(|| since.elapsed())
    }

    /// Whether the last try failed.
    pub fn lasts(&self) -> bool {
        self.since.is_some()
    }
}

/// The text without its numbers.
fn kind(why: &str) -> String {
    let mut kind = String::with_capacity(why.len());
    for c in why.chars() {
        match c {
            '0'..='9' if kind.ends_with('#') => {}
            '0'..='9' => kind.push('#'),
            c => kind.push(c),
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_of_an_hour_is_told_once_a_minute() {
        let (mut trouble, start) = (Trouble::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let told: Vec<Duration> =
            (0..7_200).filter_map(|n| trouble.note_at(&format!("no answer within {n} ms"), at(n * 500))).collect();
        assert_eq!(told.len(), 60);
        assert_eq!((told[0], told[59]), (Duration::ZERO, Duration::from_secs(59 * 60)));
        assert!(trouble.lasts() && trouble.over().is_some() && !trouble.lasts());
    }

    #[test]
    fn another_cause_is_told_at_once_and_what_comes_and_goes_is_not() {
        let (mut trouble, now) = (Trouble::default(), Instant::now());
        assert!(trouble.note_at("refused", now).is_some());
        assert!(trouble.note_at("the disk is full", now).is_some());
        assert!(trouble.note_at("refused", now).is_none());
        assert!(trouble.over().is_some());
        assert!(trouble.note_at("refused", now).is_none());
        assert_eq!(trouble.over(), None);
        let told = (0..100_u8).filter(|n| trouble.note_at(&char::from(b'!' + n % 90).to_string(), now).is_some());
        assert!(told.count() <= KINDS);
    }
}
