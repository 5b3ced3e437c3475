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
        self.0.retain(|(_, at)| (0..AGAIN_US).contains(&(now_us - at)));
        if self.0.len() >= MOST || self.0.iter().any(|(told, _)| told == trouble) {
            return false;
        }
        self.0.push((trouble.to_owned(), now_us));
        true
    }
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
        // Whatever changes with each try fills no log.
        let told_of = (0..50).filter(|n| tell(&mut told, &format!("try {n} failed"), 300)).count();
        assert_eq!(told_of, MOST);
        // A clock that was set back does not silence anybody for long.
        assert!(tell(&mut told, "refused", 0));
    }
}
