//! Rows behind a savepoint: they count only when the transaction ends, for a statement may undo them before.
//!
//! Servers leave out of their logs what was rolled back to a savepoint, unless a table without transactions was written in the same
//! transaction. Then the log has the savepoint, the rows, and `ROLLBACK TO`. So rows behind a savepoint are kept until the end of the
//! transaction, as long as they fit into memory; those of larger transactions are given out, and what undoes them later stops the source.

use super::super::tracker::{Body, room};
use super::Assembler;
use crate::error::ConnectorError;

/// Bytes of rows that are kept.
const MOST: usize = 32 << 20;

/// An event, and where it begins.
pub(super) type Kept = (Body, u64);

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

    /// Keeps an event; false: there is no room for more.
    fn keep(&mut self, body: &Body, begin: u64) -> bool {
        let before = self.events.last().map(|(before, _)| before);
        self.bytes += room(before.into_iter().chain([body])) - room(before);
        self.events.push((body.copied(), begin));
        self.bytes <= MOST
    }

    /// Undoes what came behind a savepoint, which stays; false: there is none of that name.
    fn undo(&mut self, name: &str) -> bool {
        let name = name.to_lowercase();
        let Some(at) = self.marks.iter().position(|(known, _)| *known == name) else { return false };
        self.marks.truncate(at + 1);
        self.events.truncate(self.marks[at].1);
        self.bytes = room(self.events.iter().map(|(body, _)| body));
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
    pub(super) fn body_or_keep(&mut self, body: Body) -> Result<(), ConnectorError> {
        let begin = self.tracker.begin;
        let Some(savepoints) = &mut self.savepoints else { return self.body(body, begin) };
        if !savepoints.keep(&body, begin) {
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
    use bytes::Bytes;

    use super::*;
    use crate::mysql::binlog::EventKind;

    fn body(content: &'static [u8], query: Option<&bytestring::ByteString>) -> Body {
        Body { kind: EventKind::TableMap, content: Bytes::from_static(content), query: query.cloned() }
    }

    #[test]
    fn a_statement_is_counted_once_and_no_more_when_it_is_undone() {
        let mut savepoints = Savepoints::default();
        let queries: [bytestring::ByteString; 2] = ["0123456789".into(), "01234".into()];
        savepoints.mark("a");
        for (query, bytes) in [(Some(0), 13), (Some(0), 16), (Some(1), 24), (None, 27), (Some(1), 35)] {
            assert!(savepoints.keep(&body(b"abc", query.map(|at: usize| &queries[at])), 1));
            assert_eq!(savepoints.bytes, bytes);
            if bytes == 16 {
                savepoints.mark("b");
            }
        }
        assert!(savepoints.undo("b"));
        assert_eq!(savepoints.bytes, 16);
        assert!(savepoints.undo("a"));
        assert_eq!(savepoints.bytes, 0);
    }

    #[test]
    fn a_savepoint_undoes_what_came_behind_it_and_stays() {
        let mut savepoints = Savepoints::default();
        let add = |savepoints: &mut Savepoints, at: u64| {
            savepoints.keep(&body(b"", None), at);
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
        assert_eq!(savepoints.events.iter().map(|(_, at)| *at).collect::<Vec<_>>(), [3]);
    }
}
