//! Rows → change events, as many at a time as there is room for.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tributary_event::{ChangeEvent, Op, Position, Row, Scope, TableSchema, TransactionInfo};

use super::Assembler;
use crate::error::ConnectorError;
use crate::mysql::binlog::{Change, EventKind, RowsEvent, expanded};
use crate::mysql::cursor::Malformed;
use crate::mysql::position::{GroupId, LogPosition};
use crate::mysql::stream::tracker::{Body, Group};
use crate::mysql::tables::mapped::Mapped;

/// Rows that were not all given yet.
#[derive(Debug)]
pub(super) struct Rows {
    body: Bytes,
    change: Change,
    version: u8,
    partial: bool,
    table: Arc<Mapped>,
    left: Option<usize>,
    pub(super) row: u64,
    offset: u64,
    query: Option<ByteString>,
}

/// Where a change lies in the log, and the statement that made it, if it is known.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub offset: u64,
    pub row: u64,
    pub query: Option<&'a ByteString>,
}

impl Assembler {
    /// A table map, or rows, of an event that begins at `offset`.
    pub(super) fn body(&mut self, body: Body, offset: u64) -> Result<(), ConnectorError> {
        let Body { kind, content: body, query } = body;
        let (change, version, partial, compressed) = match kind {
            EventKind::Rows { change, version, compressed } => (change, version, false, compressed),
            EventKind::PartialUpdate => (Change::Update, 2, true, false),
            _ => return self.map(body),
        };
        let body = match compressed {
            true => expanded(&body, change, version).map_err(|malformed| self.malformed(malformed))?.into(),
            false => body,
        };
        let read = RowsEvent::read(&body, change, version, partial).map_err(|malformed| self.malformed(malformed))?;
        /// What stands for no table, at the end of a statement.
        const NO_TABLE: u64 = 0xff_ffff;
        let table = match self.maps.get(&read.table) {
            Some((_, table)) => table.clone(),
            None if read.table == NO_TABLE => None,
            None => return Err(self.malformed(Malformed("its rows are of a table that was not named"))),
        };
        let Some(table) = table else {
            self.events_read += 1;
            return Ok(());
        };
        if matches!(self.tracker.position, LogPosition::Gtids(_))
            && matches!(self.tracker.group, Some(Group { id: GroupId::File(_), .. }))
        {
            return Err(ConnectorError::Server {
                place: self.tracker.place(),
                cause: "a transaction without a GTID follows those that have one, so it cannot be resumed behind it"
                    .into(),
                remedy: "run: SET GLOBAL gtid_mode = ON; and give the source a new name".into(),
                class: tributary_event::ErrorClass::Fatal,
            });
        }
        self.is_expected()?;
        self.rows = Some(Rows { body, change, version, partial, table, left: None, row: 0, offset, query });
        Ok(())
    }

    /// Whether a group may be given while another one is half done.
    pub(super) fn is_expected(&self) -> Result<(), ConnectorError> {
        match (&self.half_done, &self.tracker.group) {
            (Some(half), Some(group)) if half.group != group.id => Err(ConnectorError::lost(
                self.tracker.place(),
                format!("a part of {} was published, and the server sends {} before it", half.group, group.id),
                "the log has changed (a restored backup, or another server?): give the source a new name",
            )),
            _ => Ok(()),
        }
    }

    /// Gives rows until there are enough events.
    pub(super) fn give(
        &mut self,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
        most: usize,
    ) -> Result<(), ConnectorError> {
        let Some(mut rows) = self.rows.take() else { return Ok(()) };
        let read = RowsEvent::read(&rows.body, rows.change, rows.version, rows.partial);
        let mut reader = read.map_err(|malformed| self.malformed(malformed))?;
        if let Some(left) = rows.left {
            reader.resume(left);
        }
        let (mut before, mut after) = (Vec::new(), Vec::new());
        while events.len() < most {
            let next = reader.next(&rows.table.map, &mut before, &mut after);
            if !next.map_err(|malformed| self.malformed(malformed))? {
                self.events_read += 1;
                return Ok(());
            }
            let table = rows.table.clone();
            let place = Place { offset: rows.offset, row: rows.row, query: rows.query.as_ref() };
            rows.row += 1;
            match rows.change {
                Change::Insert => {
                    let after = table.keyed(table.row(&rows.body, &after)?)?;
                    self.push(&table, Op::Create, place, capture_us, (None, Some(after)), events);
                }
                Change::Delete => {
                    let before = table.keyed(table.row(&rows.body, &before)?)?;
                    self.push(&table, Op::Delete, place, capture_us, (Some(before), None), events);
                }
                Change::Update => {
                    let (old, mut new) = (table.row(&rows.body, &before)?, table.row(&rows.body, &after)?);
                    table.complete(&mut new, &after, &old, &before)?;
                    let moved = table.has_moved(&old, &new);
                    let new = table.keyed(new)?;
                    if moved {
                        let old = table.keyed(old)?;
                        self.push(&table, Op::Delete, place, capture_us, (Some(old), None), events);
                        self.push(&table, Op::Create, place, capture_us, (None, Some(new)), events);
                    } else {
                        let old = Row { table: table.schema.clone(), values: old };
                        self.push(&table, Op::Update, place, capture_us, (Some(old), Some(new)), events);
                    }
                }
            }
        }
        rows.left = Some(reader.left());
        self.rows = Some(rows);
        Ok(())
    }

    /// One event, unless it is durable already.
    fn push(
        &mut self,
        table: &Mapped,
        op: Op,
        place: Place<'_>,
        capture_us: i64,
        images: (Option<Row>, Option<Row>),
        events: &mut Vec<ChangeEvent>,
    ) {
        self.event(&table.schema.clone(), op, place, capture_us, images, events);
    }

    pub(super) fn event(
        &mut self,
        schema: &Arc<TableSchema>,
        op: Op,
        Place { offset, row, query }: Place<'_>,
        capture_us: i64,
        (before, after): (Option<Row>, Option<Row>),
        events: &mut Vec<ChangeEvent>,
    ) {
        let Some(group) = &self.tracker.group else { return };
        self.events += 1;
        let table_order = match self
            .orders
            .iter_mut()
            .find(|(known, _)| known.schema == schema.schema && known.name == schema.name)
        {
            Some((_, order)) => {
                *order += 1;
                *order
            }
            None => {
                self.orders.push((schema.clone(), 1));
                1
            }
        };
        let durable = self.half_done.as_ref().is_some_and(|half| {
            half.group == group.id
                && (self.events_read < half.events || self.events_read == half.events && row < half.rows)
        });
        if durable {
            return;
        }
        self.news = true;
        let group_of = group.log.clone();
        let id = group_of.number();
        events.push(ChangeEvent {
            source: self.source.clone(),
            table: schema.clone(),
            op,
            scope: Scope::Row,
            before,
            after,
            message: None,
            position: Position::MySql { group: group_of, offset, row: u32::try_from(row).unwrap_or(u32::MAX) },
            transaction: Some(TransactionInfo { id, total_order: self.events, table_order }),
            origin: None,
            query: query.cloned(),
            commit_us: group.commit_us,
            capture_us,
            sequence: self.clock.tick(group.commit_us),
        });
    }
}
