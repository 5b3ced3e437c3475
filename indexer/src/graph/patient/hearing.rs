//! Whether a vertex that fails while others are served fails for itself, or because something behind the graph is away that others need
//! as well. Pure: time is handed in.
//!
//! For each cause it is remembered who was served before the cause was first heard of. Some of those are asked for once more: if one
//! that nobody touched fails for the same cause now, the cause is not the vertex, and the vertex waits, for however long that lasts.
//! Who is asked for because it changed itself bears no witness: it may fail for itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::witness::Whom;

/// Those who are asked at a time.
const ASKED: usize = 4;
/// What was said holds for so long.
const FRESH: Duration = Duration::from_secs(5);
/// A cause of which nothing was heard for so long is over.
const OVER: Duration = Duration::from_secs(3600);
/// Causes that are remembered.
const CAUSES: usize = 100;

/// The causes that were heard of.
#[derive(Debug, Default)]
pub(super) struct Hearings(BTreeMap<(Whom, u64), Hearing>);

#[derive(Debug)]
struct Hearing {
    /// Who was served before, first those who were found to fail.
    witnesses: VecDeque<String>,
    heard: Instant,
    /// What the last ones said: whether any failed.
    said: Option<(bool, Instant)>,
}

/// What is known of a cause.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is not the vertex's.
    Shared,
    /// It is the vertex's, as far as anybody knows.
    Own,
    /// That is for these to say.
    Ask(Vec<String>),
}

impl Hearings {
    /// Vertices failed for a cause. `served`: who was served lately, the last one first.
    pub fn open(
        &mut self,
        (whom, cause): (&Whom, u64),
        failed: &[&String],
        served: impl FnOnce() -> Vec<String>,
        now: Instant,
    ) -> Known {
        self.0.retain(|_, hearing| now - hearing.heard < OVER);
        let key = (whom.clone(), cause);
        if self.0.len() >= CAUSES && !self.0.contains_key(&key) {
            return Known::Own;
        }
        let none = || Hearing { witnesses: VecDeque::new(), heard: now, said: None };
        let hearing = self.0.entry(key).or_insert_with(none);
        hearing.heard = now;
        if hearing.witnesses.is_empty() {
            hearing.witnesses = served().into();
        }
        hearing.witnesses.retain(|witness| !failed.contains(&witness));
        match hearing.said {
            Some((shared, at)) if now - at < FRESH => return if shared { Known::Shared } else { Known::Own },
            _ if hearing.witnesses.is_empty() => return Known::Own,
            _ => {}
        }
        Known::Ask(hearing.witnesses.iter().take(ASKED).cloned().collect())
    }

    /// What those said who were asked: who of them failed for the cause. Whether it is shared.
    pub fn answered(
        &mut self,
        (whom, cause): (&Whom, u64),
        asked: &[String],
        failed: &[&String],
        now: Instant,
    ) -> bool {
        let Some(hearing) = self.0.get_mut(&(whom.clone(), cause)) else { return !failed.is_empty() };
        hearing.witnesses.retain(|witness| !asked.contains(witness));
        let (failing, served): (Vec<_>, Vec<_>) = asked.iter().cloned().partition(|witness| failed.contains(&witness));
        // Whoever failed is asked first the next time, and whoever did not last.
        hearing.witnesses.extend(served);
        failing.into_iter().rev().for_each(|witness| hearing.witnesses.push_front(witness));
        hearing.said = Some((!failed.is_empty(), now));
        !failed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::witness::Kind;
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_was_served_before_says_whether_a_cause_is_shared() {
        let whom = Whom { kind: Kind::Documents, name: "films".into(), type_name: "Film".into() };
        let (mut hearings, mut now, cause) = (Hearings::default(), Instant::now(), (&whom, 7));
        let (one, six) = (names(&["1"]), names(&["1", "2", "3", "4", "5", "6"]));
        let failed: Vec<&String> = one.iter().collect();
        let Known::Ask(asked) = hearings.open(cause, &failed, || six.clone(), now) else {
            panic!("nothing is known yet")
        };
        assert_eq!(asked, names(&["2", "3", "4", "5"]), "it bears no witness of itself");
        assert!(!hearings.answered(cause, &asked, &[], now));
        assert_eq!(hearings.open(cause, &failed, Vec::new, now), Known::Own);
        now += FRESH;
        // Others are asked the next time, and one of them fails.
        let asked = names(&["6", "2", "3", "4"]);
        assert_eq!(hearings.open(cause, &failed, Vec::new, now), Known::Ask(asked.clone()));
        assert!(hearings.answered(cause, &asked, &[&asked[0]], now));
        assert_eq!(hearings.open(cause, &failed, Vec::new, now), Known::Shared);
        // For as long as it does.
        for _ in 0..1_000 {
            now += FRESH;
            let Known::Ask(asked) = hearings.open(cause, &failed, Vec::new, now) else { panic!("it is asked") };
            assert_eq!(asked[0], "6");
            assert!(hearings.answered(cause, &asked, &[&asked[0]], now));
        }
        // It changed itself meanwhile.
        let six = names(&["6"]);
        let failed: Vec<&String> = six.iter().collect();
        now += FRESH;
        assert!(matches!(hearings.open(cause, &failed, Vec::new, now), Known::Ask(asked) if asked[0] != "6"));
        assert_eq!(hearings.open((&whom, 8), &failed, Vec::new, now), Known::Own, "nobody was served before");
    }
}
