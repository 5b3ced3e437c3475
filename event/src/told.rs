//! Which troubles of a part were told lately. Pure: time is handed in.

/// A trouble is told again after this long, in microseconds.
const AGAIN_US: i64 = 60_000_000;
/// Troubles that differ are told this often within that time.
const MOST: usize = 10;

/// What was told, and when.
#[derive(Debug, Default)]
pub(crate) struct Told(Vec<(String, i64)>);

impl Told {
    /// Whether a trouble is to be told now. It counts as told then.
    pub(crate) fn is_news(&mut self, trouble: &str, now_us: i64) -> bool {
        let trouble = gist(trouble);
        self.0.retain(|(_, at)| (0..AGAIN_US).contains(&(now_us - at)));
        if self.0.len() >= MOST || self.0.iter().any(|(told, _)| *told == trouble) {
            return false;
        }
        self.0.push((trouble, now_us));
        true
    }
}

/// What a trouble is about: its words without those that hold a digit, such as times, ports and the ids of requests, which
/// differ at every try.
fn gist(trouble: &str) -> String {
    let words: Vec<&str> =
        trouble.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit())).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_told_once_a_minute_and_what_differs_at_once_within_bounds() {
        let mut told = Told::default();
        let tell = |told: &mut Told, trouble: &str, second: i64| told.is_news(trouble, second * 1_000_000);
        assert!(tell(&mut told, "refused", 0));
        // Two troubles that take turns are told once each.
        let turns: Vec<bool> = (1..59).map(|s| tell(&mut told, ["timed out", "refused"][s as usize % 2], s)).collect();
        assert_eq!(turns.iter().filter(|news| **news).count(), 1);
        assert!(tell(&mut told, "refused", 60));
        assert!(!tell(&mut told, "refused", 119));
        assert!(tell(&mut told, "refused", 120));
        // A number that differs at every try makes no other trouble.
        assert!(tell(&mut told, "answered 404 Not Found to request 8f3a", 200));
        assert!(!tell(&mut told, "answered 404 Not Found to request 17c0", 201));
        assert!(tell(&mut told, "answered 403 Forbidden to request 17c1", 202));
        // Whatever else changes at every try fills no log.
        let told_of = ('a'..='z').filter(|n| tell(&mut told, &format!("try {n} failed"), 300)).count();
        assert_eq!(told_of, MOST);
        // A clock that was set back does not silence anybody for long.
        assert!(tell(&mut told, "refused", 0));
    }
}
