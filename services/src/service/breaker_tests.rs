//! What a breaker promises, over random histories and against a list of all requests.

use proptest::prelude::*;

use super::*;

const PAUSE: Duration = Duration::from_secs(5);
const WINDOW: Duration = Duration::from_secs(20);

fn settings(failures: u8) -> BreakerSettings {
    BreakerSettings { failures, slow: None, window: WINDOW, pause: PAUSE }
}

fn bad() -> Mark {
    Mark::Bad("it failed".to_owned())
}

/// Opens a breaker, and says when it did.
fn opened() -> (Breaker, Duration) {
    let mut breaker = Breaker::new(settings(50));
    let now = Duration::from_secs(100);
    for _ in 0..LEAST {
        assert_eq!(breaker.admit(now), Admission::Pass);
        breaker.record(now, false, bad());
    }
    assert_eq!(breaker.position(), Position::Open);
    (breaker, now)
}

#[test]
fn it_opens_at_the_share_and_not_before_enough_was_asked() {
    let mut breaker = Breaker::new(settings(50));
    for _ in 0..LEAST - 1 {
        breaker.record(Duration::ZERO, false, bad());
        assert_eq!(breaker.position(), Position::Closed);
    }
    let mut breaker = Breaker::new(settings(50));
    for _ in 0..LEAST {
        breaker.record(Duration::ZERO, false, Mark::Good);
    }
    for _ in 0..LEAST - 1 {
        breaker.record(Duration::ZERO, false, bad());
        assert_eq!(breaker.position(), Position::Closed);
    }
    breaker.record(Duration::ZERO, false, bad());
    assert_eq!(breaker.position(), Position::Open);
}

#[test]
fn what_is_older_than_the_window_does_not_count() {
    let mut breaker = Breaker::new(settings(50));
    for _ in 0..LEAST - 1 {
        breaker.record(Duration::ZERO, false, bad());
    }
    breaker.record(WINDOW, false, bad());
    assert_eq!(breaker.position(), Position::Closed);
}

#[test]
fn after_the_pause_one_request_decides() {
    let (mut breaker, at) = opened();
    let early = breaker.admit(at + PAUSE / 2);
    assert_eq!(early, Admission::LeftAlone { left: PAUSE / 2, cause: "it failed".to_owned() });
    assert_eq!(breaker.admit(at + PAUSE), Admission::Trial);
    assert!(matches!(breaker.admit(at + PAUSE), Admission::LeftAlone { .. }), "one at a time");
    breaker.record(at + PAUSE, true, Mark::Nothing);
    assert_eq!(breaker.admit(at + PAUSE), Admission::Trial, "a trial that says nothing is followed by another one");
    breaker.record(at + PAUSE, true, bad());
    assert!(matches!(breaker.admit(at + PAUSE * 2 - Duration::from_nanos(1)), Admission::LeftAlone { .. }));
    assert_eq!(breaker.admit(at + PAUSE * 2), Admission::Trial);
    breaker.record(at + PAUSE * 2, false, bad());
    assert_eq!(breaker.position(), Position::HalfOpen, "requests that were sent before say nothing");
    breaker.record(at + PAUSE * 2, true, Mark::Good);
    assert_eq!((breaker.position(), breaker.admit(at + PAUSE * 2)), (Position::Closed, Admission::Pass));
    for _ in 0..LEAST - 1 {
        breaker.record(at + PAUSE * 2, false, bad());
    }
    assert_eq!(breaker.position(), Position::Closed, "it begins anew");
}

#[derive(Debug, Clone)]
enum Deed {
    Wait(u64),
    Ask,
    End(prop::sample::Index, u8),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed = prop_oneof![
        2 => (0_u64..8_000).prop_map(Deed::Wait),
        4 => Just(Deed::Ask),
        5 => (any::<prop::sample::Index>(), 0_u8..8).prop_map(|(which, how)| Deed::End(which, how)),
    ];
    prop::collection::vec(deed, 0..400)
}

proptest! {
    #[test]
    fn it_does_what_a_list_of_all_requests_says(deeds in deeds(), failures in 1_u8..=100) {
        let mut breaker = Breaker::new(settings(failures));
        let mut now = Duration::ZERO;
        // Requests under way, and whether each is a trial; what ended since it closed, by slot; until when it is open.
        let (mut under_way, mut ended): (Vec<bool>, Vec<(u128, bool)>) = (Vec::new(), Vec::new());
        let mut open_until: Option<Duration> = None;
        for deed in deeds {
            match deed {
                Deed::Wait(millis) => now += Duration::from_millis(millis),
                Deed::Ask => {
                    let trials = under_way.iter().filter(|trial| **trial).count();
                    match breaker.admit(now) {
                        Admission::Pass => { prop_assert_eq!(open_until, None); under_way.push(false); }
                        Admission::Trial => {
                            prop_assert!(open_until.is_some_and(|until| until <= now));
                            prop_assert_eq!(trials, 0);
                            under_way.push(true);
                        }
                        Admission::LeftAlone { .. } => {
                            prop_assert!(open_until.is_some_and(|until| now < until) || trials == 1);
                        }
                    }
                }
                Deed::End(which, how) => {
                    if under_way.is_empty() { continue; }
                    let is_trial = under_way.swap_remove(which.index(under_way.len()));
                    let mark = match how { 0 => Mark::Nothing, 1..=3 => Mark::Good, _ => bad() };
                    breaker.record(now, is_trial, mark.clone());
                    match (is_trial, open_until, &mark) {
                        (true, _, Mark::Good) => { open_until = None; ended.clear(); }
                        (true, _, Mark::Bad(_)) => open_until = Some(now + PAUSE),
                        (false, None, Mark::Good | Mark::Bad(_)) => {
                            let slot = now.as_nanos() / (WINDOW.as_nanos() / 10);
                            ended.push((slot, mark != Mark::Good));
                            let recent: Vec<_> = ended.iter().filter(|(at, _)| at + 10 > slot).collect();
                            let bad = recent.iter().filter(|(_, bad)| *bad).count();
                            let enough = recent.len() >= LEAST as usize;
                            if mark != Mark::Good && enough && bad * 100 >= recent.len() * usize::from(failures) {
                                open_until = Some(now + PAUSE);
                            }
                        }
                        _ => {}
                    }
                }
            }
            prop_assert_eq!(breaker.position() == Position::Closed, open_until.is_none());
        }
        // Whatever happened, a service that works is asked again.
        under_way.into_iter().for_each(|is_trial| breaker.record(now, is_trial, Mark::Good));
        now += PAUSE;
        let is_trial = match breaker.admit(now) {
            Admission::Pass => false,
            Admission::Trial => true,
            Admission::LeftAlone { .. } => return Err(TestCaseError::fail("it stays open")),
        };
        breaker.record(now, is_trial, Mark::Good);
        prop_assert_eq!(breaker.position(), Position::Closed);
    }
}
