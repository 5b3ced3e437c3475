//! The longest done prefix of a partition, as pure data.
//!
//! Records are taken in offset order and become done in any order. The offset that may be committed is that after the
//! longest prefix of taken records that are all done: a crash then repeats what was not done, and skips nothing.

use std::collections::VecDeque;

/// The records of one partition that are in flight.
#[derive(Debug, Default)]
pub struct DonePrefix {
    /// Taken records from the first that is not done, in offset order.
    taken: VecDeque<Taken>,
    /// The offset after the last record of the done prefix.
    next: Option<u64>,
    committed: Option<u64>,
}

#[derive(Debug)]
struct Taken {
    offset: u64,
    is_done: bool,
    /// The record's time.
    time_ms: i64,
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
        let least = self.taken.back().map(|last| last.offset + 1).or(self.next);
        if least.is_some_and(|least| offset < least) {
            return false;
        }
        self.taken.push_back(Taken { offset, is_done: false, time_ms });
        true
    }

    /// A record is done. Unknown offsets are ignored.
    pub fn done(&mut self, offset: u64) {
        if let Ok(at) = self.taken.binary_search_by_key(&offset, |taken| taken.offset) {
            self.taken[at].is_done = true;
        }
        while let Some(done) = self.taken.pop_front_if(|first| first.is_done) {
            self.next = Some(done.offset + 1);
        }
    }

    /// The offset to commit, if it is not committed yet.
    pub fn to_commit(&self) -> Option<u64> {
        self.next.filter(|next| self.committed != Some(*next))
    }

    /// An offset was committed.
    pub fn committed(&mut self, offset: u64) {
        self.committed = Some(offset);
    }

    /// The time of the first record that is taken and not done.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.taken.front().map(|first| first.time_ms)
    }

    /// Records taken and not part of the done prefix.
    pub fn in_flight(&self) -> usize {
        self.taken.len()
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
