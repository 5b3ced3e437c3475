//! Messages of the log → change events with their place in the transaction, and the mark behind them. Pure.
//!
//! Resumption: the server sends again every transaction whose commit record lies behind the position we start from. The
//! checkpoint names, beside that position, the one transaction of which a first part is durable, and the number of its
//! changes; those changes are decoded once more (so that every count goes on as before) and their events dropped.
//! Changes, not events, are counted: one change can be two events, and both are in one part. Of transactions that are
//! published when they are prepared: see `two_phase`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tributary_event::{
    ChangeEvent, HybridClock, LogicalMessage, Lsn, Op, Origin, Position, SourceInfo, TableSchema, TransactionInfo,
};

use super::heartbeat;
use super::pgoutput::{self, Message, Oids, Old};
use super::relation::Relayed;
use super::sink::Sink;
use super::streamed::Committed;
use super::texts::Texts;
use super::two_phase::Unfinished;
use crate::checkpoint::{InProgress, PostgresCheckpoint};
use crate::error::ConnectorError;
use crate::settings::MESSAGES;

/// What a message leaves to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    GoOn,
    /// A table is new or has changed: look it up, then [`Assembler::learn`] it, before the next message.
    LookUp,
    /// Types may have changed: forget what is known of them.
    ForgetTypes,
}

/// Puts events together.
pub(super) struct Assembler {
    source: Arc<SourceInfo>,
    relations: HashMap<u32, Relayed>,
    /// Stands for the table of logical messages.
    messages: Arc<TableSchema>,
    clock: HybridClock,
    transaction: Option<Transaction>,
    /// The transaction of which a part was durable when we started, until it has passed.
    half_done: Option<InProgress>,
    /// The transactions that were given when they were prepared.
    unfinished: Unfinished,
    /// How names are read.
    texts: Arc<Texts>,
    mark: PostgresCheckpoint,
}

/// The transaction that is being read.
pub(super) struct Transaction {
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
    prepared: bool,
    /// It was prepared before the server was asked to send it then.
    late: bool,
    /// Where it was made first.
    pub origin: Option<Arc<Origin>>,
}

impl Transaction {
    /// Whether something of it was read that is not durable yet.
    fn has_news(&self) -> bool {
        self.events > 0 && (self.changes > self.durable_changes || self.messages > self.durable_messages)
    }

    /// What is durable of it when everything that was read is.
    fn so_far(&self) -> InProgress {
        InProgress {
            commit: self.commit,
            changes: self.changes.max(self.durable_changes),
            messages: self.messages.max(self.durable_messages),
        }
    }
}

impl Assembler {
    /// Goes on behind a mark.
    pub(super) fn new(source: Arc<SourceInfo>, mark: PostgresCheckpoint) -> Self {
        Self {
            source,
            relations: HashMap::new(),
            messages: Arc::new(TableSchema::new("", MESSAGES, Vec::new(), Vec::new())),
            clock: HybridClock::starting_after(mark.sequence),
            transaction: None,
            half_done: mark.transaction.clone(),
            unfinished: Unfinished::default(),
            texts: Arc::default(),
            mark,
        }
    }

    /// The same, with texts that are read in this way.
    pub(super) fn with_texts(self, texts: Arc<Texts>) -> Self {
        Self { texts, ..self }
    }

    /// The position before which everything was given out.
    pub(super) fn lsn(&self) -> Lsn {
        self.mark.lsn
    }

    /// The source as its events name it.
    pub(super) fn source(&self) -> &Arc<SourceInfo> {
        &self.source
    }

    /// Nothing comes before `end`, unless a transaction is under way.
    pub(super) fn keepalive(&mut self, end: Lsn) {
        if self.transaction.is_none() && self.half_done.is_none() {
            self.mark.lsn = self.mark.lsn.max(end);
        }
    }

    /// Whether a part of a transaction is durable, the end of which was not read yet.
    pub(super) fn is_half_done(&self) -> bool {
        self.half_done.is_some()
    }

    /// A transaction that was streamed in progress has committed, or was prepared: its changes follow, then
    /// [`end`](Self::end).
    pub(super) fn committed(&mut self, how: Committed) -> Result<(), ConnectorError> {
        self.begin(how.commit, how.commit_us, how.xid, how.prepared)
    }

    /// The transaction whose changes were given is over.
    pub(super) fn end(&mut self, end: Lsn) {
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

    /// The transaction that is being read, if it has committed: it may still be invisible to a session that asks for it.
    pub(super) fn committed_xid(&self) -> Option<u32> {
        self.transaction.as_ref().filter(|t| !t.prepared).map(|t| t.xid)
    }

    /// A table was looked up.
    pub(super) fn learn(&mut self, relation: u32, table: Relayed) {
        self.relations.insert(relation, table);
    }

    /// The mark behind the last message, of which `last` is the last event given out.
    pub(super) fn mark(&mut self, last: Option<&ChangeEvent>) -> PostgresCheckpoint {
        self.mark.sequence = last.map_or(self.mark.sequence, |e| e.sequence);
        self.mark.transaction = match &self.transaction {
            Some(t) if t.has_news() => Some(t.so_far()),
            _ => self.half_done.clone(),
        };
        self.mark.clone()
    }

    /// Takes the message `payload`, which lies within `owner`, and appends its events.
    pub(super) fn message(
        &mut self,
        owner: &Bytes,
        payload: &[u8],
        start: Lsn,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<Next, ConnectorError> {
        let texts = self.texts.clone();
        let (readable, _) = texts.message(payload);
        let message = pgoutput::decode(&readable)
            .map_err(|e| ConnectorError::protocol(format!("the change at {start}"), e.to_string()))?;
        let relation = match message {
            Message::Insert { relation, .. } | Message::Update { relation, .. } | Message::Delete { relation, .. } => {
                relation
            }
            _ => return self.frame(&message, payload, start, capture_us, events),
        };
        let (table, transaction) = find(&mut self.relations, &mut self.transaction, relation)?;
        transaction.changes += 1;
        if !is_captured(table)? {
            return Ok(Next::GoOn);
        }
        let mut sink = Sink { source: &self.source, clock: &self.clock, table, transaction, start, capture_us, events };
        match message {
            Message::Insert { new, .. } => {
                let after = sink.table.row(owner, &new)?;
                sink.push(Op::Create, None, Some(after));
            }
            Message::Update { old, new, .. } => sink.update(owner, &old, &new)?,
            Message::Delete { old: Old::Key(old) | Old::Full(old), .. } => {
                let before = sink.table.row(owner, &old)?;
                sink.push(Op::Delete, Some(before), None);
            }
            _ => {}
        }
        Ok(Next::GoOn)
    }

    /// The messages around the changes of rows.
    fn frame(
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
            before: None,
            after: None,
            message: Some(message),
            position: Position::Postgres { lsn, commit },
            transaction,
            origin,
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

/// Whether changes of the table are wanted. A captured table that goes on under a name that nobody asked for is an error.
fn is_captured(table: &Relayed) -> Result<bool, ConnectorError> {
    let Some(old) = &table.renamed_from else { return Ok(table.wanted) };
    let new = table.schema.qualified_name();
    Err(ConnectorError::Table {
        table: old.clone(),
        cause: format!("it was renamed to {new} while it was captured, and {new} is not listed"),
        remedy: format!(
            "list {new} under tables in its place (its changes go to a topic of their own), and start again"
        ),
    })
}

/// The table and the transaction of a change.
fn find<'a>(
    relations: &'a mut HashMap<u32, Relayed>,
    transaction: &'a mut Option<Transaction>,
    relation: u32,
) -> Result<(&'a mut Relayed, &'a mut Transaction), ConnectorError> {
    let Some(transaction) = transaction else {
        return Err(ConnectorError::protocol("a change", "it came outside of a transaction"));
    };
    let Some(table) = relations.get_mut(&relation) else {
        return Err(ConnectorError::protocol(
            format!("a change of relation {relation}"),
            "it came before the relation's columns",
        ));
    };
    Ok((table, transaction))
}

#[cfg(test)]
mod tests {
    use super::super::relation::Decoder;
    use super::super::value::Codec;
    use super::*;

    const ROW: u32 = 9;

    fn begin(commit: u64) -> Vec<u8> {
        [&b"B"[..], &commit.to_be_bytes(), &0i64.to_be_bytes(), &7u32.to_be_bytes()].concat()
    }

    fn commit(commit: u64) -> Vec<u8> {
        [&b"C\0"[..], &commit.to_be_bytes(), &(commit + 8).to_be_bytes(), &0i64.to_be_bytes()].concat()
    }

    fn insert(id: u8) -> Vec<u8> {
        [&b"I"[..], &ROW.to_be_bytes(), b"N\0\x01t\0\0\0\x01", &[b'0' + id]].concat()
    }

    fn assembler(lsn: u64, transaction: Option<InProgress>) -> Assembler {
        let source =
            SourceInfo { name: "s".into(), kind: tributary_event::SourceKind::PostgreSql, database: "d".into() };
        let mark = PostgresCheckpoint {
            version: 1,
            system: "7".into(),
            timeline: 1,
            database: "d".into(),
            slot: "slot".into(),
            lsn: Lsn(lsn),
            transaction,
            changed: None,
            sequence: 5,
        };
        let mut assembler = Assembler::new(Arc::new(source), mark);
        let message =
            [&b"R"[..], &ROW.to_be_bytes(), b"public\0t\0d\0\x01\x01id\0", &[0, 0, 0, 23, 255, 255, 255, 255]].concat();
        let Ok(Message::Relation(relation)) = pgoutput::decode(&message) else { panic!("a relation") };
        let decoders = vec![Decoder { codec: Codec::Int, form: None }];
        let table = Relayed::new(
            &relation,
            Bytes::new(),
            &("public".into(), "t".into()),
            &["id".into()],
            decoders,
            vec!["integer".into()],
            true,
        );
        assembler.learn(ROW, table);
        assembler
    }

    fn feed(assembler: &mut Assembler, messages: Vec<Vec<u8>>) -> Result<Vec<ChangeEvent>, ConnectorError> {
        let mut events = Vec::new();
        for message in messages {
            let owner = Bytes::from(message);
            assembler.message(&owner, &owner, Lsn(1), 0, &mut events)?;
        }
        Ok(events)
    }

    #[test]
    fn a_half_done_transaction_goes_on_behind_its_durable_changes() {
        let mut whole = assembler(100, None);
        let all = feed(&mut whole, vec![begin(200), insert(1), insert(2), insert(3)]).expect("events");
        let middle = whole.mark(all.last());
        assert_eq!(
            (middle.lsn, middle.transaction),
            (Lsn(100), Some(InProgress { commit: Lsn(200), changes: 3, messages: 0 }))
        );
        let mut resumed = assembler(100, Some(InProgress { commit: Lsn(200), changes: 2, messages: 0 }));
        let transaction = vec![begin(200), insert(1), insert(2), insert(3), commit(200)];
        let rest = feed(&mut resumed, transaction).expect("events");
        assert_eq!(rest.len(), 1);
        assert_eq!((rest[0].transaction, rest[0].after.clone()), (all[2].transaction, all[2].after.clone()));
        let end = resumed.mark(rest.last());
        assert_eq!((end.lsn, end.transaction), (Lsn(208), None));
        assert!(end.sequence > 5);
    }

    #[test]
    fn a_mark_among_durable_changes_still_names_them() {
        let half = InProgress { commit: Lsn(200), changes: 2, messages: 0 };
        let mut resumed = assembler(100, Some(half.clone()));
        resumed.keepalive(Lsn(500));
        assert!(feed(&mut resumed, vec![begin(200), insert(1)]).expect("events").is_empty());
        let mark = resumed.mark(None);
        assert_eq!((mark.lsn, mark.transaction), (Lsn(100), Some(half)));
    }

    #[test]
    fn a_finished_transaction_that_is_sent_again_gives_nothing() {
        let mut resumed = assembler(300, None);
        let again = vec![begin(200), insert(1), commit(200), begin(300), insert(2), commit(300)];
        assert_eq!(feed(&mut resumed, again).expect("events").len(), 1);
    }

    #[test]
    fn a_heartbeat_moves_the_mark_alone() {
        let message = |prefix: &str, lsn: u64| {
            [&b"M\0"[..], &lsn.to_be_bytes(), prefix.as_bytes(), b"\0", &0u32.to_be_bytes()].concat()
        };
        let mut idle = assembler(100, None);
        let events = feed(&mut idle, vec![message("outbox", 200), message(heartbeat::PREFIX, 300)]).expect("events");
        let mark = idle.mark(events.last());
        assert_eq!((events.len(), mark.lsn, mark.changed), (1, Lsn(300), Some(Lsn(200))));
    }

    #[test]
    fn a_half_done_transaction_that_is_gone_means_a_lost_position() {
        let mut resumed = assembler(100, Some(InProgress { commit: Lsn(200), changes: 2, messages: 0 }));
        let error = feed(&mut resumed, vec![begin(300)]).expect_err("lost");
        assert!(matches!(error, ConnectorError::PositionLost { .. }), "{error}");
    }

    fn begin_prepared(prepare: u64) -> Vec<u8> {
        let (lsn, end) = (prepare.to_be_bytes(), (prepare + 8).to_be_bytes());
        [&b"b"[..], &lsn, &end, &0i64.to_be_bytes(), &7u32.to_be_bytes(), b"gid\0"].concat()
    }

    fn prepare(prepare: u64) -> Vec<u8> {
        let (lsn, end) = (prepare.to_be_bytes(), (prepare + 8).to_be_bytes());
        [&b"P\0"[..], &lsn, &end, &0i64.to_be_bytes(), &7u32.to_be_bytes(), b"gid\0"].concat()
    }

    fn commit_prepared(commit: u64) -> Vec<u8> {
        let (lsn, end) = (commit.to_be_bytes(), (commit + 8).to_be_bytes());
        [&b"K\0"[..], &lsn, &end, &0i64.to_be_bytes(), &7u32.to_be_bytes(), b"gid\0"].concat()
    }

    #[test]
    fn a_prepared_transaction_is_done_when_its_changes_are() {
        let mut fresh = assembler(100, None);
        let events = feed(&mut fresh, vec![begin_prepared(200), insert(1), prepare(200)]).expect("events");
        let mark = fresh.mark(events.last());
        assert_eq!((events.len(), mark.lsn, mark.transaction), (1, Lsn(208), None));
        assert!(feed(&mut fresh, vec![commit_prepared(300)]).expect("nothing").is_empty());
        assert_eq!(fresh.mark(None).lsn, Lsn(308));
    }

    #[test]
    fn a_transaction_that_was_prepared_before_the_mark_is_done_when_it_has_committed() {
        let late = || vec![begin_prepared(50), insert(1), insert(2), prepare(50)];
        let mut fresh = assembler(100, None);
        let events = feed(&mut fresh, late()).expect("events");
        let mark = fresh.mark(events.last());
        let done = InProgress { commit: Lsn(50), changes: 2, messages: 0 };
        assert_eq!((events.len(), mark.lsn, mark.transaction), (2, Lsn(100), Some(done.clone())));
        // A keepalive meanwhile says nothing, for the server would send it again.
        fresh.keepalive(Lsn(500));
        assert_eq!(fresh.mark(None).lsn, Lsn(100));
        let mut resumed = assembler(100, Some(done));
        assert!(feed(&mut resumed, late()).expect("nothing").is_empty());
        for assembler in [&mut fresh, &mut resumed] {
            feed(assembler, vec![commit_prepared(300)]).expect("nothing");
            let mark = assembler.mark(None);
            assert_eq!((mark.lsn, mark.transaction), (Lsn(308), None));
        }
    }

    #[test]
    fn changes_out_of_place_are_refused() {
        assert!(feed(&mut assembler(0, None), vec![insert(1)]).is_err());
        let mut unknown = insert(1);
        unknown[4] = 8;
        assert!(feed(&mut assembler(0, None), vec![begin(1), unknown]).is_err());
    }
}
