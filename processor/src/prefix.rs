//! The longest done prefix of a partition, as pure data.
//!
//! Records are taken in offset order and become done in any order. The offset that may be committed is that after the
//! longest prefix of taken records that are all done: a crash then repeats what was not done, and skips nothing.
//!
//! A record that is held is worked on, and done much later. Millions may be held, so neighbours are kept as one stretch of offsets: each
//! record stands for the offsets after the one before it, so that stretches have no gaps between them, whatever a partition lacks.

use std::collections::VecDeque;

/// What became of the records of a stretch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// One record, which somebody works on.
    Open,
    Held,
    Done,
}

/// Records that are next to each other: all offsets from the end of the stretch before, up to `last`.
#[derive(Debug)]
struct Stretch {
    last: u64,
    records: usize,
    state: State,
    /// The time of the first of them.
    time_ms: i64,
}

/// Records that are held: all offsets from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The first offset.
    pub first: u64,
    /// The last offset.
    pub last: u64,
    /// How many records have one of them.
    pub records: usize,
}

impl Span {
    /// Adds those right behind. False: others are between them.
    pub fn join(&mut self, behind: Self) -> bool {
        let follows = self.last.checked_add(1) == Some(behind.first);
        if follows {
            (self.last, self.records) = (behind.last, self.records + behind.records);
        }
        follows
    }
}

/// The records of one partition that are in flight.
#[derive(Debug, Default)]
pub struct DonePrefix {
    /// Taken records from the first that is not done, in offset order.
    taken: VecDeque<Stretch>,
    /// How many there are.
    records: usize,
    /// Where the first stretch begins.
    first: u64,
    /// The offset after the last record of the done prefix.
    next: Option<u64>,
    committed: Option<u64>,
}

impl DonePrefix {
    /// Nothing taken yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Everything before this offset is done.
    pub fn done_before(next: u64) -> Self {
        Self { next: Some(next), ..Self::default() }
    }

    /// A record of a time was taken. Offsets rise; one that does not was delivered again and is not tracked twice: false.
    pub fn take(&mut self, offset: u64, time_ms: i64) -> bool {
        let least = self.taken.back().map(|stretch| stretch.last + 1).or(self.next);
        if least.is_some_and(|least| offset < least) {
            return false;
        }
        if self.taken.is_empty() {
            self.first = least.unwrap_or(offset);
        }
        self.records += 1;
        self.taken.push_back(Stretch { last: offset, records: 1, state: State::Open, time_ms });
        true
    }

    /// A record is done. Unknown offsets are ignored.
    pub fn done(&mut self, offset: u64) {
        if let Some(at) = self.open(offset) {
            self.turn(at, State::Done);
        }
    }

    /// A record is held until [`release`](Self::release); none for unknown offsets.
    pub fn hold(&mut self, offset: u64) -> Option<Span> {
        let at = self.open(offset)?;
        let first = self.begin(at);
        self.turn(at, State::Held);
        Some(Span { first, last: offset, records: 1 })
    }

    /// Records that were held are done. Unknown ones are ignored.
    pub fn release(&mut self, span: Span) {
        let at = self.taken.partition_point(|stretch| stretch.last < span.last);
        let Some(stretch) = self.taken.get(at).filter(|stretch| stretch.state == State::Held) else { return };
        let (begin, last, records, time_ms) = (self.begin(at), stretch.last, stretch.records, stretch.time_ms);
        if span.first < begin {
            return;
        }
        let (before, behind) = (span.first - begin, last - span.last);
        let left = records.saturating_sub(span.records);
        // How many of the others are on which side is known where there is one side.
        let left_before = match (before, behind) {
            (0, _) => 0,
            (_, 0) => left,
            _ => (left as u64 * before / (before + behind)) as usize,
        };
        let pieces = [
            (before > 0, span.first.wrapping_sub(1), left_before, State::Held),
            (true, span.last, span.records, State::Done),
            (behind > 0, last, left - left_before, State::Held),
        ];
        self.taken.remove(at);
        let pieces = pieces.into_iter().filter(|(is_there, ..)| *is_there);
        for (place, (_, last, records, state)) in (at..).zip(pieces) {
            self.taken.insert(place, Stretch { last, records, state, time_ms });
        }
        self.turn(at + usize::from(before > 0), State::Done);
    }

    /// The offset to commit, if it is not committed yet.
    pub fn to_commit(&self) -> Option<u64> {
        self.next.filter(|next| self.committed != Some(*next))
    }

    /// An offset was committed.
    pub fn committed(&mut self, offset: u64) {
        self.committed = Some(offset);
    }

    /// The time of the first record that is taken and not done; about that, where some that were held were released before others.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.taken.front().map(|first| first.time_ms)
    }

    /// Records taken and not part of the done prefix. About so many, where some of a stretch that was held were released before others.
    pub fn in_flight(&self) -> usize {
        self.records
    }

    /// The stretch of a record that somebody works on.
    fn open(&self, offset: u64) -> Option<usize> {
        let at = self.taken.partition_point(|stretch| stretch.last < offset);
        self.taken.get(at).is_some_and(|stretch| stretch.last == offset && stretch.state == State::Open).then_some(at)
    }

    /// The first offset of a stretch.
    fn begin(&self, at: usize) -> u64 {
        at.checked_sub(1).and_then(|before| self.taken.get(before)).map_or(self.first, |stretch| stretch.last + 1)
    }

    /// A stretch has a state from now on, and is one with its neighbours that have it too.
    fn turn(&mut self, at: usize, state: State) {
        self.taken[at].state = state;
        for at in [at, at.wrapping_sub(1)] {
            let alike = |at: usize| self.taken.get(at).is_some_and(|stretch| stretch.state == state);
            if alike(at)
                && alike(at.wrapping_add(1))
                && let Some(behind) = self.taken.remove(at + 1)
            {
                self.taken[at].last = behind.last;
                self.taken[at].records += behind.records;
            }
        }
        while self.taken.front().is_some_and(|stretch| stretch.state == State::Done) {
            let Some(done) = self.taken.pop_front() else { break };
            self.records = self.records.saturating_sub(done.records);
            self.first = done.last + 1;
            self.next = Some(self.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_committed_offset_never_passes_a_record_that_is_not_done(
            gaps in proptest::collection::vec(1u64..4, 1..60),
            order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..120),
        ) {
            let offsets: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut prefix = DonePrefix::new();
            for offset in &offsets {
                prop_assert!(prefix.take(*offset, *offset as i64));
            }
            let mut done = std::collections::BTreeSet::new();
            for index in order {
                let offset = offsets[index.index(offsets.len())];
                prefix.done(offset);
                done.insert(offset);
                let expected = offsets.iter().take_while(|o| done.contains(o)).last().map(|o| o + 1);
                prop_assert_eq!(prefix.to_commit(), expected);
                let first = offsets.iter().find(|offset| !done.contains(offset)).map(|offset| *offset as i64);
                prop_assert_eq!(prefix.oldest_ms(), first);
                prop_assert_eq!(prefix.in_flight(), offsets.iter().filter(|o| expected.is_none_or(|e| **o >= e)).count());
            }
        }
    }

    proptest! {
        #[test]
        fn held_records_count_as_taken_until_they_are_released(
            gaps in proptest::collection::vec(1u64..4, 1..60),
            order in proptest::collection::vec((any::<proptest::sample::Index>(), any::<bool>()), 0..200),
        ) {
            let offsets: Vec<u64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut prefix = DonePrefix::new();
            offsets.iter().for_each(|offset| assert!(prefix.take(*offset, 0)));
            let (mut done, mut held) = (std::collections::BTreeSet::new(), std::collections::BTreeMap::new());
            for (index, joined) in order {
                let offset = offsets[index.index(offsets.len())];
                match held.remove(&offset) {
                    None if done.contains(&offset) => {}
                    None => {
                        held.insert(offset, prefix.hold(offset).expect("it is open"));
                        prop_assert!(prefix.hold(offset).is_none());
                    }
                    Some(mut span) => {
                        // With those behind it, if they are held too.
                        let mut all = vec![offset];
                        while joined
                            && let Some((next, behind)) = held.range(offset..).next().map(|(o, s)| (*o, *s))
                            && span.join(behind)
                        {
                            held.remove(&next);
                            all.push(next);
                        }
                        prefix.release(span);
                        done.extend(all);
                    }
                }
                let expected = offsets.iter().take_while(|o| done.contains(o)).last().map(|o| o + 1);
                prop_assert_eq!(prefix.to_commit(), expected);
                prop_assert_eq!(prefix.in_flight() == 0, done.len() == offsets.len());
            }
        }
    }

    #[test]
    fn a_million_held_records_are_a_few_stretches() {
        let (mut prefix, mut spans) = (DonePrefix::new(), Vec::<Span>::new());
        for group in 0..1_000_u64 {
            // There are gaps, and the records of a group are worked on in another order than they came.
            let offsets: Vec<u64> = (0..1_000).map(|n| 3 * (1_000 * group + n)).collect();
            offsets.iter().for_each(|offset| assert!(prefix.take(*offset, 0)));
            let mut held: Vec<Span> = offsets.iter().rev().map(|offset| prefix.hold(*offset).expect("open")).collect();
            held.sort_unstable_by_key(|span| span.first);
            for span in held {
                if !spans.last_mut().is_some_and(|last| last.join(span)) {
                    spans.push(span);
                }
            }
        }
        assert_eq!((prefix.taken.len(), spans.len(), prefix.in_flight()), (1, 1, 1_000_000));
        spans.into_iter().for_each(|span| prefix.release(span));
        assert_eq!((prefix.to_commit(), prefix.in_flight()), (Some(3 * 999_999 + 1), 0));
    }

    #[test]
    fn a_record_delivered_again_is_not_taken_twice() {
        let mut prefix = DonePrefix::new();
        assert!(prefix.take(5, 0));
        assert!(!prefix.take(5, 0));
        prefix.done(5);
        assert!(!prefix.take(5, 0));
        assert_eq!(prefix.to_commit(), Some(6));
        prefix.committed(6);
        assert_eq!(prefix.to_commit(), None);
    }
}
