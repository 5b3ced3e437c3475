//! What goes on, whatever ends the process that holds the rest.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PERIOD: i64 = 10;

fn holding(keys: usize, bytes: usize) -> Holding<usize> {
    let period = Duration::from_micros(PERIOD as u64);
    Holding::new(Bounds { period, patience: Duration::from_secs(10), keys, bytes })
}

/// One event: its key (0: it has none), and how much later than the one before it is.
type Event = (u8, i64);

fn coming(log: &[Event], times: &[i64], at: usize) -> Coming<usize> {
    let key = (log[at].0 > 0).then(|| Bytes::copy_from_slice(&[log[at].0]));
    Coming { offset: at as u64, time_us: Some(times[at]), key, size: 1, what: at }
}

/// What happens beside the events.
#[derive(Debug, Clone, Copy)]
enum Turn {
    /// So many events come.
    Read(usize),
    /// The clock goes on by so many seconds.
    Wait(u64),
    /// What has gone on is durable with its mark.
    Append,
    /// The process ends; another one goes on from the mark.
    Kill,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        4 => (1_usize..8).prop_map(Turn::Read),
        2 => (0_u64..12).prop_map(Turn::Wait),
        3 => Just(Turn::Append),
        1 => Just(Turn::Kill),
    ];
    proptest::collection::vec(turn, 1..80)
}

/// What is in the sink in the end.
fn sink(log: &[Event], turns: &[Turn], keys: usize, bytes: usize) -> Vec<usize> {
    let mut now_us = 0;
    let times: Vec<i64> = log
        .iter()
        .map(|(_, later)| {
            now_us += later;
            now_us
        })
        .collect();
    let (mut now, mut read, mut mark) = (Instant::now(), 0, 0);
    let (mut held, mut batch, mut sink) = (holding(keys, bytes), Vec::new(), Vec::new());
    let enough = [Turn::Read(log.len()), Turn::Wait(30), Turn::Append];
    for turn in turns.iter().chain(&enough) {
        match turn {
            Turn::Read(count) => {
                let end = (read + count).min(log.len());
                for coming in (read..end).map(|at| coming(log, &times, at)) {
                    held.push(coming, now);
                }
                read = end;
            }
            Turn::Wait(seconds) => now += Duration::from_secs(*seconds),
            Turn::Append => {
                sink.append(&mut batch);
                mark = held.first().map_or(read, |first| first as usize);
            }
            Turn::Kill => {
                batch.clear();
                held = holding(keys, bytes);
                read = mark;
            }
        }
        while let Some(at) = held.take(read as u64, now) {
            batch.push(at);
        }
        assert!(held.waiting.len() <= keys && held.bytes <= bytes, "beyond its bounds");
        assert!(held.last.values().all(|offset| held.waiting.contains_key(offset)), "keys of what is gone");
    }
    assert_eq!(held.first(), None, "all goes on in the end");
    sink
}

proptest! {
    /// Each event that goes on does so once and in its order, and each that does not is followed in time by one of its key that does; a
    /// kill may add a period to that.
    #[test]
    fn the_last_of_each_key_goes_on_once(
        log in proptest::collection::vec((0_u8..4, 0_i64..6), 1..80), turns in turns(), keys in 1_usize..9, bytes in 1_usize..9,
    ) {
        let sink = sink(&log, &turns, keys, bytes);
        let kills = turns.iter().filter(|turn| matches!(turn, Turn::Kill)).count() as i64;
        prop_assert!(sink.is_sorted_by(|one, other| one < other), "twice, or out of order: {:?}", sink);
        let mut now_us = 0;
        let times: Vec<i64> = log.iter().map(|(_, later)| { now_us += later; now_us }).collect();
        for (at, (key, _)) in log.iter().enumerate() {
            let next = sink.iter().copied().find(|next| *next >= at && log[*next].0 == *key);
            prop_assert!(next.is_some(), "{} is lost", at);
            let next = next.unwrap_or_default();
            prop_assert!(next == at || *key > 0 && times[next] - times[at] < PERIOD * (1 + kills), "{} was taken for {}", next, at);
        }
        let fold = |events: &mut dyn Iterator<Item = usize>| -> BTreeMap<u8, usize> { events.map(|at| (log[at].0, at)).collect() };
        prop_assert_eq!(fold(&mut sink.iter().copied()), fold(&mut (0..log.len())));
    }

    /// Where nothing is killed and there is room, a burst that is shorter than the period becomes one event.
    #[test]
    fn a_burst_becomes_one(keys in proptest::collection::vec(1_u8..4, 1..40), reads in proptest::collection::vec(1_usize..8, 1..40)) {
        let log: Vec<Event> = keys.iter().map(|key| (*key, 0)).collect();
        let turns: Vec<Turn> = reads.into_iter().flat_map(|count| [Turn::Read(count), Turn::Append]).collect();
        let mut last: Vec<usize> = log.iter().enumerate().map(|(at, (key, _))| (*key, at)).collect::<BTreeMap<_, _>>().into_values().collect();
        last.sort_unstable();
        prop_assert_eq!(sink(&log, &turns, 9, 99), last);
    }
}

#[test]
fn a_key_that_never_ceases_goes_on() {
    let mut held = holding(100, 100);
    let now = Instant::now();
    // Each event of the second key would hold the first one up, which comes again and again.
    let log: Vec<Event> = (0..60).map(|at| (1 + at % 2, 1)).collect();
    let times: Vec<i64> = (1..=60).collect();
    let mut went_on = Vec::new();
    for at in 0..log.len() {
        held.push(coming(&log, &times, at), now);
        while let Some(gone) = held.take(at as u64 + 1, now) {
            went_on.push(gone);
            assert!(at - gone <= 2 * PERIOD as usize, "it waited too long");
        }
    }
    assert!(went_on.len() >= 6, "{went_on:?}");
}

#[test]
fn what_is_held_for_long_goes_on_before_too_much_lies_behind_it() {
    let mut held = holding(100, 100);
    let now = Instant::now();
    held.push(Coming { offset: 7, time_us: None, key: Some(Bytes::from_static(b"a")), size: 1, what: 7 }, now);
    assert_eq!(held.take(7 + SPAN, now), None);
    assert_eq!(held.next(), Some(now + Duration::from_secs(10)));
    assert_eq!(held.take(8 + SPAN, now), Some(7));
}
