//! Rows behind a savepoint: they count only when the transaction ends, for a statement may undo them before.
//!
//! Servers leave out of their logs what was rolled back to a savepoint, unless a table without transactions was written in the same
//! transaction. Then the log has the savepoint, the rows, and `ROLLBACK TO`. So rows behind a savepoint are kept until the end of the
//! transaction, as long as they fit into memory; those of larger transactions are given out, and what undoes them later stops the source.

use bytes::Bytes;

use super::{Assembler, EventKind};
use crate::error::ConnectorError;

/// Bytes of rows that are kept.
const MOST: usize = 32 << 20;

/// An event, and where it begins.
pub(super) type Kept = (EventKind, Bytes, u64);

/// What came behind the first savepoint of a transaction.
#[derive(Debug, Default)]
pub(super) struct Savepoints {
    events: Vec<Kept>,
    bytes: usize,
    /// Names, and how many events came before each.
    marks: Vec<(String, usize)>,
}

impl Savepoints {
    /// A savepoint; one of the same name is no more.
    fn mark(&mut self, name: &str) {
        let name = name.to_lowercase();
        self.marks.retain(|(known, _)| *known != name);
        self.marks.push((name, self.events.len()));
    }

    /// Undoes what came behind a savepoint, which stays; false: there is none of that name.
    fn undo(&mut self, name: &str) -> bool {
        let name = name.to_lowercase();
        let Some(at) = self.marks.iter().position(|(known, _)| *known == name) else { return false };
        self.marks.truncate(at + 1);
        self.events.truncate(self.marks[at].1);
        self.bytes = self.events.iter().map(|(_, body, _)| body.len()).sum();
        true
    }
}

impl Assembler {
    /// A savepoint is set.
    pub(super) fn savepoint(&mut self, name: &str) {
        if self.is_xa() {
            return;
        }
        // Rows of it that are given stay so: it has outgrown the memory.
        if self.savepoints.is_some() || !self.outgrown {
            self.savepoints.get_or_insert_default().mark(name);
        }
    }

    /// What came behind a savepoint is undone.
    pub(super) fn roll_back_to(&mut self, name: &str) -> Result<(), ConnectorError> {
        let undone = self.savepoints.as_mut().is_some_and(|savepoints| savepoints.undo(name));
        // Without a savepoint in the log, there is none of its rows either. Those of XA transactions are kept as a whole.
        if !undone && (self.events > 0 || self.is_xa()) {
            return Err(self.undone("ROLLBACK TO a savepoint"));
        }
        Ok(())
    }

    fn is_xa(&self) -> bool {
        self.tracker.group.as_ref().is_some_and(|group| group.xa.is_some())
    }

    /// Rows, or their table: kept, if a savepoint came before.
    pub(super) fn body_or_keep(&mut self, kind: EventKind, body: Bytes) -> Result<(), ConnectorError> {
        let begin = self.tracker.begin;
        let Some(savepoints) = &mut self.savepoints else { return self.body(kind, body, begin) };
        savepoints.bytes += body.len();
        // A copy, which does not keep all that was read with it.
        savepoints.events.push((kind, Bytes::copy_from_slice(&body), begin));
        if savepoints.bytes > MOST {
            self.outgrown = true;
            self.give_kept();
        }
        Ok(())
    }

    /// Gives what was kept; whether there is something.
    pub(super) fn give_kept(&mut self) -> bool {
        let Some(savepoints) = self.savepoints.take() else { return false };
        let is_there = !savepoints.events.is_empty();
        self.replay = savepoints.events.into_iter();
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_savepoint_undoes_what_came_behind_it_and_stays() {
        let mut savepoints = Savepoints::default();
        let add = |savepoints: &mut Savepoints, at: u64| {
            savepoints.events.push((EventKind::TableMap, Bytes::new(), at));
        };
        savepoints.mark("a");
        add(&mut savepoints, 1);
        savepoints.mark("b");
        add(&mut savepoints, 2);
        assert!(savepoints.undo("A"));
        assert!(savepoints.events.is_empty() && !savepoints.undo("b"));
        add(&mut savepoints, 3);
        savepoints.mark("a");
        add(&mut savepoints, 4);
        assert!(savepoints.undo("a"));
        assert_eq!(savepoints.events.iter().map(|(.., at)| *at).collect::<Vec<_>>(), [3]);
    }
}
