//! What is told of a trouble that lasts: once, again when it changes, and at most once a minute how long it has lasted. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// The same is told again after this long; a trouble that has not been met for so long is over.
const AGAIN: Duration = Duration::from_secs(60);
/// Kinds of trouble that are told apart, at most.
const KINDS: usize = 16;

/// A trouble, as it comes again and again.
#[derive(Debug, Default)]
pub struct Trouble {
    /// When it began, and when it was met last.
    met: Option<(Instant, Instant)>,
    /// What was told, and when.
    told: Vec<(String, Instant)>,
}

impl Trouble {
    /// It is met, in these words. Whether they are to be told: then, how long it has lasted.
    pub fn met(&mut self, words: &str, now: Instant) -> Option<Duration> {
        let began = match self.met {
            Some((began, last)) if now - last < AGAIN => began,
            _ => {
                self.told.clear();
                now
            }
        };
        self.met = Some((began, now));
        self.told.retain(|(_, when)| now - *when < AGAIN);
        let kind = kind(words);
        if self.told.len() >= KINDS || self.told.iter().any(|(told, _)| *told == kind) {
            return None;
        }
        self.told.push((kind, now));
        Some(now - began)
    }
}

/// The words without their numbers: ports, processes and times differ each time, and are no news.
fn kind(words: &str) -> String {
    let mut kind = String::with_capacity(words.len());
    for c in words.chars() {
        match c {
            c if !c.is_ascii_digit() => kind.push(c),
            _ if kind.ends_with('#') => {}
            _ => kind.push('#'),
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_outage_is_told_once_a_minute_and_each_of_its_causes() {
        let (mut trouble, begin) = (Trouble::default(), Instant::now());
        let mut told = Vec::new();
        // Two causes in turn, every 250 milliseconds, for five minutes.
        for i in 0..1200u32 {
            let words = if i % 2 == 0 { format!("port {i} refused") } else { format!("process {i} reads it") };
            told.extend(trouble.met(&words, begin + Duration::from_millis(250) * i));
        }
        let seconds: Vec<u64> = told.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [0, 0, 60, 60, 120, 120, 180, 180, 240, 240]);
        // What is met after a while is another trouble.
        let later = begin + Duration::from_secs(600);
        assert_eq!(trouble.met("port 1 refused", later), Some(Duration::ZERO));
        assert_eq!(trouble.met("no route", later), Some(Duration::ZERO));
    }

    #[test]
    fn words_without_end_are_not_all_told() {
        let (mut trouble, begin) = (Trouble::default(), Instant::now());
        let told = (0..1000).filter(|i| trouble.met(&"x".repeat(*i), begin).is_some()).count();
        assert_eq!(told, KINDS);
    }
}
