//! Messages of the log → change events with their place in the transaction, and the mark behind them. Pure.
//!
//! Resumption: the server sends again every transaction whose commit record lies behind the position we start from. The
//! checkpoint names, beside that position, the one transaction of which a first part is durable, and the number of its
//! changes; those changes are decoded once more (so that every count goes on as before) and their events dropped.
//! Changes, not events, are counted: one change can be two events, and both are in one part. Of transactions that are
//! published when they are prepared: see `two_phase`.

mod transactions;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tributary_event::{ChangeEvent, HybridClock, Lsn, Op, SourceInfo, TableSchema};

pub(in crate::postgres) use self::transactions::Transaction;
use super::learn::Within;
use super::pgoutput::{self, Message, Old};
use super::sink::Sink;
use crate::checkpoint::{InProgress, PostgresCheckpoint};
use crate::error::ConnectorError;
use crate::postgres::prepare::renamed;
use crate::postgres::slot::two_phase::Unfinished;
use crate::postgres::tables::relation::Relayed;
use crate::postgres::values::texts::Texts;
use crate::settings::MESSAGES;

/// What a message leaves to be done.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::postgres) enum Next {
    /// Nothing.
    GoOn,
    /// A table is new or has changed: look it up, then [`Assembler::learn`] it, before the next message.
    LookUp,
    /// Types may have changed: forget what is known of them.
    ForgetTypes,
}

/// Puts events together.
pub(in crate::postgres) struct Assembler {
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

impl Assembler {
    /// Goes on behind a mark.
    pub(in crate::postgres) fn new(source: Arc<SourceInfo>, mark: PostgresCheckpoint) -> Self {
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
    pub(in crate::postgres) fn with_texts(self, texts: Arc<Texts>) -> Self {
        Self { texts, ..self }
    }

    /// The position before which everything was given out.
    pub(in crate::postgres) fn lsn(&self) -> Lsn {
        self.mark.lsn
    }

    /// The source as its events name it.
    pub(in crate::postgres) fn source(&self) -> &Arc<SourceInfo> {
        &self.source
    }

    /// Nothing comes before `end`, unless a transaction is under way.
    pub(in crate::postgres) fn keepalive(&mut self, end: Lsn) {
        if self.transaction.is_none() && self.half_done.is_none() {
            self.mark.lsn = self.mark.lsn.max(end);
        }
    }

    /// Whether a part of a transaction is durable, the end of which was not read yet.
    pub(in crate::postgres) fn is_half_done(&self) -> bool {
        self.half_done.is_some()
    }

    /// The transaction that is being read.
    pub(in crate::postgres) fn within(&self) -> Option<Within> {
        self.transaction.as_ref().map(|t| Within { xid: t.xid, prepared: t.prepared })
    }

    /// A table was looked up.
    pub(in crate::postgres) fn learn(&mut self, relation: u32, table: Relayed) {
        self.relations.insert(relation, table);
    }

    /// The mark behind the last message, of which `last` is the last event given out.
    pub(in crate::postgres) fn mark(&mut self, last: Option<&ChangeEvent>) -> PostgresCheckpoint {
        self.mark.sequence = last.map_or(self.mark.sequence, |e| e.sequence);
        self.mark.transaction = match &self.transaction {
            Some(t) if t.has_news() => Some(t.so_far()),
            _ => self.half_done.clone(),
        };
        self.mark.clone()
    }

    /// Takes the message `payload`, which lies within `owner`, and appends its events.
    pub(in crate::postgres) fn message(
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
}

/// Whether changes of the table are wanted. A captured table that goes on under a name that nobody asked for is an error.
fn is_captured(table: &Relayed) -> Result<bool, ConnectorError> {
    let Some(old) = &table.renamed_from else { return Ok(table.wanted) };
    Err(renamed(old, &table.schema.table_name()))
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
mod tests;
