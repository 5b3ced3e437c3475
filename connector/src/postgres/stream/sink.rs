//! A change of a row → its events. Pure.

use std::sync::Arc;

use bytes::Bytes;
use tributary_event::{ChangeEvent, HybridClock, Lsn, Op, Position, Row, Scope, SourceInfo, TransactionInfo};

use super::assembler::Transaction;
use super::pgoutput::{Old, Tuple};
use crate::error::ConnectorError;
use crate::postgres::tables::relation::Relayed;

/// Where the events of one message go.
pub(in crate::postgres) struct Sink<'a> {
    pub source: &'a Arc<SourceInfo>,
    pub clock: &'a HybridClock,
    pub table: &'a mut Relayed,
    pub transaction: &'a mut Transaction,
    pub start: Lsn,
    pub capture_us: i64,
    pub events: &'a mut Vec<ChangeEvent>,
}

impl Sink<'_> {
    /// An update; one that changes the key is a delete and a create.
    pub(in crate::postgres) fn update(
        &mut self,
        owner: &Bytes,
        old: &Old<'_>,
        new: &Tuple<'_>,
    ) -> Result<(), ConnectorError> {
        let mut after = self.table.row(owner, new)?;
        let moved = match old {
            Old::None => false,
            Old::Key(tuple) | Old::Full(tuple) => self.table.key_changed(tuple, new),
        };
        let before = match old {
            Old::None => None,
            Old::Key(tuple) => {
                // It comes too if it is the same and stored out of line: the new row lacks it then.
                let key = self.table.row(owner, tuple)?;
                Relayed::recover(&mut after, &key);
                // An identity that is not our key: its old values are no image of the row.
                moved.then_some(key)
            }
            Old::Full(tuple) => {
                let before = self.table.row(owner, tuple)?;
                Relayed::recover(&mut after, &before);
                Some(before)
            }
        };
        if moved {
            self.push(Op::Delete, before, None);
            self.push(Op::Create, None, Some(after));
        } else {
            self.push(Op::Update, before, Some(after));
        }
        Ok(())
    }

    /// One event, unless it is durable already.
    pub(in crate::postgres) fn push(&mut self, op: Op, before: Option<Row>, after: Option<Row>) {
        let transaction = &mut *self.transaction;
        transaction.events += 1;
        let table_order = self.table.next_event(transaction.commit.0);
        if transaction.changes <= transaction.durable_changes {
            return;
        }
        self.events.push(ChangeEvent {
            source: self.source.clone(),
            table: self.table.schema.clone(),
            op,
            scope: Scope::Row,
            before,
            after,
            message: None,
            position: Position::Postgres { lsn: self.start, commit: transaction.commit },
            transaction: Some(TransactionInfo {
                id: u64::from(transaction.xid),
                total_order: transaction.events,
                table_order,
            }),
            origin: transaction.origin.clone(),
            query: None,
            commit_us: transaction.commit_us,
            capture_us: self.capture_us,
            sequence: self.clock.tick(transaction.commit_us),
        });
    }
}
