//! What stands around the changes of rows: beginnings and ends of transactions, logical messages, tables that were emptied.

use std::sync::Arc;

use bytes::Bytes;
use tributary_event::{ChangeEvent, LogicalMessage, Lsn, Op, Origin, Position, Scope, TransactionInfo};

use super::{Assembler, Next, find, is_captured};
use crate::checkpoint::InProgress;
use crate::error::ConnectorError;
use crate::postgres::slot::heartbeat;
use crate::postgres::stream::pgoutput::{Message, Oids};
use crate::postgres::stream::sink::Sink;
use crate::postgres::stream::streamed::Committed;

/// The transaction that is being read.
pub(in crate::postgres) struct Transaction {
    pub xid: u32,
    pub commit: Lsn,
    pub commit_us: i64,
    /// Changes read so far.
    pub changes: u64,
    /// Logical messages read so far.
    pub messages: u64,
    /// Changes whose events are durable already.
    pub durable_changes: u64,
    /// Logical messages that are durable already.
    pub durable_messages: u64,
    /// Events so far.
    pub events: u64,
    /// It is prepared, and may yet be rolled back.
    pub(super) prepared: bool,
    /// It was prepared before the server was asked to send it then.
    pub(super) late: bool,
    /// Where it was made first.
    pub origin: Option<Arc<Origin>>,
}

impl Transaction {
    /// Whether something of it was read that is not durable yet.
    pub(super) fn has_news(&self) -> bool {
        self.events > 0 && (self.changes > self.durable_changes || self.messages > self.durable_messages)
    }

    /// What is durable of it when everything that was read is.
    pub(super) fn so_far(&self) -> InProgress {
        InProgress {
            commit: self.commit,
            changes: self.changes.max(self.durable_changes),
            messages: self.messages.max(self.durable_messages),
        }
    }
}

impl Assembler {
    /// A transaction that was streamed in progress has committed, or was prepared: its changes follow, then
    /// [`end`](Self::end).
    pub(in crate::postgres) fn committed(&mut self, how: Committed) -> Result<(), ConnectorError> {
        self.begin(how.commit, how.commit_us, how.xid, how.prepared)
    }

    /// The transaction whose changes were given is over.
    pub(in crate::postgres) fn end(&mut self, end: Lsn) {
        let ended = self.transaction.take();
        if ended.as_ref().is_some_and(|t| t.events > 0) {
            self.mark.changed = self.mark.changed.max(Some(end));
        }
        if let Some(t) = ended.as_ref().filter(|t| t.prepared) {
            self.unfinished.given(t.xid, t.events > 0);
        }
        if let Some(t) = ended.as_ref().filter(|t| t.late) {
            // It is sent again until it has committed, of which we are told next.
            self.half_done = Some(t.so_far());
            return;
        }
        let done = ended.map(|t| t.commit);
        if self.half_done.as_ref().is_some_and(|h| Some(h.commit) == done) {
            self.half_done = None;
        }
        self.mark.lsn = self.mark.lsn.max(end);
    }

    /// A prepared transaction whose changes were given has ended.
    fn prepared_ended(&mut self, end: Lsn) {
        if self.half_done.as_ref().is_some_and(|h| h.commit < self.mark.lsn) {
            // It came late, so this is its own end.
            self.half_done = None;
        }
        self.keepalive(end);
    }

    /// The messages around the changes of rows.
    pub(super) fn frame(
        &mut self,
        message: &Message<'_>,
        payload: &[u8],
        start: Lsn,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<Next, ConnectorError> {
        match message {
            Message::Begin { commit, commit_us, xid, prepared } => self.begin(*commit, *commit_us, *xid, *prepared)?,
            Message::Commit { end, .. } => self.end(*end),
            Message::CommitPrepared { end, xid } => {
                self.unfinished.committed(*xid);
                self.prepared_ended(*end);
            }
            Message::RollbackPrepared { end, xid, gid } => {
                self.unfinished.rolled_back(&self.source.name, *xid, gid);
                self.prepared_ended(*end);
            }
            Message::Relation(relation) => {
                let known = self.relations.get(&relation.oid).is_some_and(|k| *k.message == *payload);
                return Ok(if known { Next::GoOn } else { Next::LookUp });
            }
            Message::Truncate(tables) => self.truncate(*tables, start, capture_us, events)?,
            Message::Origin { commit, name } => {
                if let Some(transaction) = &mut self.transaction {
                    transaction.origin = Some(Arc::new(Origin { name: (*name).into(), commit: *commit }));
                }
            }
            Message::Type { .. } => return Ok(Next::ForgetTypes),
            Message::Logical { transactional: false, lsn, prefix: heartbeat::PREFIX, .. } => {
                // As any message: whatever committed before it has been read.
                self.mark.lsn = self.mark.lsn.max(*lsn);
            }
            Message::Logical { transactional, lsn, prefix, content } => {
                let message = LogicalMessage { prefix: (*prefix).into(), content: Bytes::copy_from_slice(content) };
                self.logical(*transactional, *lsn, message, capture_us, events)?;
            }
            _ => {}
        }
        Ok(Next::GoOn)
    }

    fn begin(&mut self, commit: Lsn, commit_us: i64, xid: u32, prepared: bool) -> Result<(), ConnectorError> {
        // What was prepared behind the mark and given then is never sent again.
        let late = prepared && commit < self.mark.lsn;
        let (durable_changes, durable_messages) = match &self.half_done {
            Some(half) if half.commit == commit => (half.changes, half.messages),
            Some(half) => {
                return Err(ConnectorError::lost(
                    format!("replication slot {}", self.mark.slot),
                    format!(
                        "{} changes of the transaction that committed at {} were published, and the server does not \
                         send that transaction again but one that committed at {commit}",
                        half.changes, half.commit
                    ),
                    "the log has changed (a restored backup or a promoted standby?); dump the tables again under a new \
                     source name",
                ));
            }
            // Sent again although it was finished: nothing of it is new.
            None if commit < self.mark.lsn && !late => (u64::MAX, u64::MAX),
            None => (0, 0),
        };
        self.transaction = Some(Transaction {
            xid,
            commit,
            commit_us,
            changes: 0,
            messages: 0,
            durable_changes,
            durable_messages,
            events: 0,
            prepared,
            late,
            origin: None,
        });
        Ok(())
    }

    /// A message that `pg_logical_emit_message` wrote at `lsn`.
    fn logical(
        &mut self,
        transactional: bool,
        lsn: Lsn,
        message: LogicalMessage,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<(), ConnectorError> {
        let (commit, commit_us, transaction, origin) = if transactional {
            let Some(t) = &mut self.transaction else {
                return Err(ConnectorError::protocol("a transactional message", "it came outside of a transaction"));
            };
            (t.messages, t.events) = (t.messages + 1, t.events + 1);
            if t.messages <= t.durable_messages {
                return Ok(());
            }
            let place = TransactionInfo { id: u64::from(t.xid), total_order: t.events, table_order: t.messages };
            (t.commit, t.commit_us, Some(place), t.origin.clone())
        } else {
            // The position is that behind its record, where the next one starts.
            if lsn <= self.mark.lsn {
                // Sent again although it is durable.
                return Ok(());
            }
            // Every transaction that committed before it has been read, for the log is read in order.
            self.mark.lsn = lsn;
            self.mark.changed = self.mark.changed.max(Some(lsn));
            (lsn, capture_us, None, None)
        };
        events.push(ChangeEvent {
            source: self.source.clone(),
            table: self.messages.clone(),
            op: Op::Message,
            scope: Scope::Row,
            before: None,
            after: None,
            message: Some(message),
            position: Position::Postgres { lsn, commit },
            transaction,
            origin,
            query: None,
            commit_us,
            capture_us,
            sequence: self.clock.tick(commit_us),
        });
        Ok(())
    }

    fn truncate(
        &mut self,
        tables: Oids<'_>,
        start: Lsn,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<(), ConnectorError> {
        // One message is one change, whatever number of tables it names.
        if let Some(t) = &mut self.transaction {
            t.changes += 1;
        }
        for relation in tables.iter() {
            let (table, transaction) = find(&mut self.relations, &mut self.transaction, relation)?;
            if is_captured(table)? {
                let mut sink =
                    Sink { source: &self.source, clock: &self.clock, table, transaction, start, capture_us, events };
                sink.push(Op::Truncate, None, None);
            }
        }
        Ok(())
    }
}
