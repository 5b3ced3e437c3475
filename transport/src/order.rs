//! What the running numbers of a partition's records say to its reader: whether any are missing, came twice, or late.

use std::collections::VecDeque;

use crate::contract::Polled;
use crate::numbers::Sequence;

/// Runs of a partition that are remembered; there is one as long as nothing is made anew.
const RUNS: usize = 16;
/// Gaps of a run that are remembered, in which a record that comes late is known to be late.
const GAPS: usize = 64;

/// What is wrong with a record's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Records before it are missing: the first and the last of their numbers.
    Missing {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// A record with its number came before.
    Doubled {
        /// The number.
        number: u64,
    },
    /// It comes behind one that should follow it.
    Reordered {
        /// Its number.
        number: u64,
        /// That of the record that should follow it.
        behind: u64,
    },
}

impl Finding {
    /// How many records it is about.
    pub fn records(self) -> u64 {
        match self {
            Self::Missing { from, to } => to - from + 1,
            Self::Doubled { .. } | Self::Reordered { .. } => 1,
        }
    }
}

/// What is known of one partition, of whose records each is taken once, in the order of offsets.
#[derive(Debug, Default)]
pub struct Order {
    /// Records before this offset were taken.
    next: u64,
    /// The newest last.
    runs: Vec<Run>,
}

#[derive(Debug)]
struct Run {
    run: u64,
    /// The first that was read.
    first: u64,
    /// The highest that was read.
    last: u64,
    gaps: VecDeque<(u64, u64)>,
}

impl Order {
    /// Takes the next record. One that was taken already, and comes again because its reader began again, says nothing.
    pub fn take(&mut self, record: &Polled) -> Option<Finding> {
        if record.offset < self.next {
            return None;
        }
        self.next = record.offset + 1;
        let Sequence { run, number } = Sequence::of(record.headers.view())?;
        let Some(at) = self.runs.iter().rposition(|known| known.run == run) else {
            if self.runs.len() >= RUNS {
                self.runs.remove(0);
            }
            self.runs.push(Run { run, first: number, last: number, gaps: VecDeque::new() });
            return None;
        };
        self.runs[at].take(number)
    }

    /// The offset behind the last record that was taken; 0 before any was.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// What is missing if the partition has no further record, and this is the last number that was given in it. Where nothing of
    /// its run was read, that is not known.
    pub fn lacks(&self, given: Sequence) -> Option<Finding> {
        let known = self.runs.iter().rfind(|known| known.run == given.run)?;
        (known.last < given.number).then(|| Finding::Missing { from: known.last + 1, to: given.number })
    }

    /// The end of the partition is gone, up to this number: that is told once.
    pub fn lost(&mut self, given: Sequence) -> Option<Finding> {
        let finding = self.lacks(given)?;
        if let (Finding::Missing { from, to }, Some(known)) =
            (finding, self.runs.iter_mut().rfind(|known| known.run == given.run))
        {
            known.last = to;
            known.note(from, to);
        }
        Some(finding)
    }

    /// Takes what stands before the first record that was taken, which may be taken by now.
    pub fn before(&mut self, earlier: &[Polled]) -> Vec<Finding> {
        let mut before = Self::default();
        for record in earlier {
            before.take(record);
        }
        let mut findings = Vec::new();
        for earlier in before.runs {
            match self.runs.iter_mut().find(|known| known.run == earlier.run) {
                Some(known) if known.first > earlier.last + 1 => {
                    let (from, to) = (earlier.last + 1, known.first - 1);
                    known.note(from, to);
                    findings.push(Finding::Missing { from, to });
                }
                Some(known) if known.first <= earlier.last => findings.push(Finding::Doubled { number: known.first }),
                Some(_) => {}
                None => self.runs.push(Run { first: earlier.last, gaps: VecDeque::new(), ..earlier }),
            }
        }
        findings
    }
}

impl Run {
    fn take(&mut self, number: u64) -> Option<Finding> {
        if number == self.last + 1 {
            self.last = number;
            return None;
        }
        if number > self.last {
            let (from, to) = (self.last + 1, number - 1);
            self.last = number;
            self.note(from, to);
            return Some(Finding::Missing { from, to });
        }
        let Some(at) = self.gaps.iter().position(|(from, to)| (*from..=*to).contains(&number)) else {
            return Some(Finding::Doubled { number });
        };
        let (from, to) = self.gaps.remove(at)?;
        for (from, to) in [(from, number - 1), (number + 1, to)] {
            if from <= to {
                self.note(from, to);
            }
        }
        Some(Finding::Reordered { number, behind: self.last })
    }

    fn note(&mut self, from: u64, to: u64) {
        if self.gaps.len() >= GAPS {
            self.gaps.pop_front();
        }
        self.gaps.push_back((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::TopicPartition;
    use crate::headers::Headers;
    use crate::numbers::SEQUENCE;

    fn record(offset: u64, run: u64, number: u64) -> Polled {
        let sequence = Sequence { run, number }.to_string();
        let headers = Headers::of([(SEQUENCE, sequence.as_bytes())]);
        let place = TopicPartition { topic: "t".into(), partition: 0 };
        Polled { place, offset, key: None, value: None, headers, timestamp_ms: 0 }
    }

    fn findings(numbers: &[u64]) -> Vec<Finding> {
        let mut order = Order::default();
        let records = numbers.iter().enumerate().map(|(offset, number)| record(offset as u64, 1, *number));
        records.filter_map(|record| order.take(&record)).collect()
    }

    #[test]
    fn what_is_wrong_is_told_once() {
        use Finding::{Doubled, Missing, Reordered};
        assert_eq!(findings(&[5, 6, 7]), []);
        assert_eq!(findings(&[1, 2, 5, 6]), [Missing { from: 3, to: 4 }]);
        assert_eq!(findings(&[1, 2, 2, 3]), [Doubled { number: 2 }]);
        assert_eq!(findings(&[1, 3, 2, 4]), [Missing { from: 2, to: 2 }, Reordered { number: 2, behind: 3 }]);
        let (late, again) = (Reordered { number: 3, behind: 5 }, Doubled { number: 3 });
        assert_eq!(findings(&[1, 5, 3, 3, 6]), [Missing { from: 2, to: 4 }, late, again]);
        // What stands before the first is not known.
        assert_eq!(findings(&[5, 4]), [Doubled { number: 4 }]);
    }

    #[test]
    fn an_end_that_is_gone_is_told_once() {
        let mut order = Order::default();
        let given = |run, number| Sequence { run, number };
        assert_eq!(order.lacks(given(1, 5)), None, "nothing of the run was read");
        order.take(&record(0, 1, 3));
        assert_eq!((order.lacks(given(1, 3)), order.lacks(given(2, 9))), (None, None));
        let missing = Finding::Missing { from: 4, to: 5 };
        assert_eq!((order.lacks(given(1, 5)), order.lost(given(1, 5))), (Some(missing), Some(missing)));
        assert_eq!(order.lost(given(1, 5)), None);
        // Who comes after all is late, and what goes on behind the end is no gap.
        assert_eq!(order.take(&record(1, 1, 4)), Some(Finding::Reordered { number: 4, behind: 5 }));
        assert_eq!(order.take(&record(2, 1, 6)), None);
        // What stood before the first record tells the run as well.
        let mut order = Order::default();
        order.before(&[record(7, 1, 7)]);
        assert_eq!(order.lacks(given(1, 8)), Some(Finding::Missing { from: 8, to: 8 }));
    }

    #[test]
    fn records_that_are_read_again_and_other_runs_say_nothing() {
        let mut order = Order::default();
        for (offset, run, number) in [(0, 1, 7), (1, 2, 1), (2, 1, 8), (1, 2, 1), (2, 1, 8), (3, 2, 2), (4, 3, 50)] {
            assert_eq!(order.take(&record(offset, run, number)), None);
        }
        let headers = Headers::NONE;
        assert_eq!(order.take(&Polled { headers, ..record(5, 1, 99) }), None);
        assert_eq!(order.take(&record(6, 1, 9)), None);
    }

    #[test]
    fn what_stands_before_the_first_record_is_looked_at_before_or_after_it() {
        let earlier = [record(3, 1, 3), record(4, 1, 4)];
        for (first, expected) in [(5, None), (7, Some(Finding::Missing { from: 5, to: 6 }))] {
            let mut order = Order::default();
            order.before(&earlier);
            assert_eq!(order.take(&record(9, 1, first)), expected);
            let mut order = Order::default();
            assert_eq!(order.take(&record(9, 1, first)), None);
            assert_eq!(order.before(&earlier), expected.into_iter().collect::<Vec<_>>());
        }
        let mut order = Order::default();
        order.take(&record(9, 1, 4));
        assert_eq!(order.before(&earlier), [Finding::Doubled { number: 4 }]);
    }
}
