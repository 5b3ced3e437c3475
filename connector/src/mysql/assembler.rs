//! Events of the log → change events with their place in their group, and the mark behind them. Pure.
//!
//! Resumption: the server sends again every group that the position does not have. The checkpoint names, beside the position, the one group of
//! which a first part is durable, with the number of its events with rows, and of rows in the next one; those are read once more (so that every
//! count goes on as before) and their changes dropped.

mod groups;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tributary_event::{
    ChangeEvent, HybridClock, Op, Position, Row, SourceInfo, TableName, TableSchema, TransactionInfo,
};

use super::binlog::{Change, EventKind, Payload, RowsEvent, TableMap, expanded};
use super::charsets::Collations;
use super::checkpoint::{HalfDone, MySqlCheckpoint};
use super::cursor::Malformed;
use super::held::Held;
use super::mapped::Mapped;
use super::position::{FilePosition, GroupId, LogPosition};
use super::tables::Shape;
use super::tracker::{Group, Step, Tracker};
use crate::error::ConnectorError;
use crate::settings::MySqlSettings;

/// What an event leaves to be done.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing.
    GoOn,
    /// A definition may have changed these tables: look them up, then [`Assembler::define`] them, before the next event.
    Define(Vec<TableName>, GroupId),
}

/// Rows that were not all given yet.
#[derive(Debug)]
struct Rows {
    body: Bytes,
    change: Change,
    version: u8,
    partial: bool,
    table: Arc<Mapped>,
    left: Option<usize>,
    row: u64,
    offset: u64,
}

/// Puts events together.
pub(super) struct Assembler {
    source: Arc<SourceInfo>,
    settings: MySqlSettings,
    tracker: Tracker,
    server: String,
    shapes: HashMap<TableName, Shape>,
    /// Where the log says everything of tables by itself, the character sets of its collations.
    collations: Option<Collations>,
    /// By the number of the table: the map as it came, and the table, if it is captured.
    maps: HashMap<u64, (Bytes, Option<Arc<Mapped>>)>,
    clock: HybridClock,
    half_done: Option<HalfDone>,
    rows: Option<Rows>,
    payload: Option<Payload>,
    held: Held,
    /// Events of a prepared transaction, while they are given.
    replay: std::vec::IntoIter<(EventKind, Bytes)>,
    /// Events with rows of the group that were read as a whole.
    events_read: u64,
    /// Change events of the group.
    events: u64,
    /// Those of each of its tables.
    orders: Vec<(Arc<TableSchema>, u64)>,
    /// Something of the group was given that was not durable before.
    news: bool,
    sequence: u64,
    /// Groups that were read.
    groups: u64,
    /// What ends the group when the rest of it was given.
    ends: Option<Vec<GroupId>>,
}

impl Assembler {
    /// Goes on behind a mark.
    pub(super) fn new(
        source: Arc<SourceInfo>,
        settings: &MySqlSettings,
        mark: MySqlCheckpoint,
        shapes: HashMap<TableName, Shape>,
        collations: Option<Collations>,
        has_checksum: bool,
    ) -> Self {
        Self {
            source,
            settings: settings.clone(),
            tracker: Tracker::new(mark.position, mark.at, has_checksum),
            server: mark.server,
            shapes,
            collations,
            maps: HashMap::new(),
            clock: HybridClock::starting_after(mark.sequence),
            half_done: mark.transaction,
            rows: None,
            payload: None,
            held: Held::default(),
            replay: Vec::new().into_iter(),
            events_read: 0,
            events: 0,
            orders: Vec::new(),
            news: false,
            sequence: mark.sequence,
            groups: 0,
            ends: None,
        }
    }

    /// The source as its events name it.
    pub(super) fn source(&self) -> &Arc<SourceInfo> {
        &self.source
    }

    /// What was read.
    pub(super) fn position(&self) -> &LogPosition {
        &self.tracker.position
    }

    /// Behind the last event.
    pub(super) fn at(&self) -> &FilePosition {
        &self.tracker.at
    }

    /// How many groups were read.
    pub(super) fn groups(&self) -> u64 {
        self.groups
    }

    /// Whether there is something to give before the next event of the log.
    pub(super) fn is_busy(&self) -> bool {
        self.rows.is_some() || self.payload.is_some() || self.replay.len() > 0 || self.ends.is_some()
    }

    /// The mark behind what was given, of which `last` is the last.
    pub(super) fn mark(&mut self, last: Option<&ChangeEvent>) -> MySqlCheckpoint {
        self.sequence = last.map_or(self.sequence, |event| event.sequence);
        let transaction = match &self.tracker.group {
            Some(group) if self.news => {
                let rows = self.rows.as_ref().map_or(0, |rows| rows.row);
                Some(HalfDone { group: group.id.clone(), events: self.events_read, rows })
            }
            _ => self.half_done.clone(),
        };
        MySqlCheckpoint {
            version: 1,
            server: self.server.clone(),
            position: self.tracker.position.clone(),
            at: self.tracker.at.clone(),
            transaction,
            sequence: self.sequence,
        }
    }

    /// These tables were looked up: they are so from here on, or not known.
    pub(super) fn define(&mut self, tables: &[TableName], shapes: Vec<(TableName, Shape)>) {
        tables.iter().for_each(|table| drop(self.shapes.remove(table)));
        self.shapes.extend(shapes);
        self.maps.clear();
        // Only now is the definition behind us: a mark that has it finds the tables that it made.
        if self.tracker.is_ended_by_statement() {
            self.close(false);
        }
    }

    /// Gives what is left of what came before.
    pub(super) fn go_on(
        &mut self,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
        most: usize,
    ) -> Result<Next, ConnectorError> {
        if self.rows.is_some() {
            self.give(capture_us, events, most)?;
            return Ok(Next::GoOn);
        }
        if let Some((kind, body)) = self.replay.next() {
            self.body(kind, body)?;
            return Ok(Next::GoOn);
        }
        if let Some(ids) = self.ends.take() {
            ids.iter().for_each(|id| self.tracker.read(id));
            self.close(false);
            return Ok(Next::GoOn);
        }
        let next = match &mut self.payload {
            Some(payload) => payload.next(),
            None => return Ok(Next::GoOn),
        };
        match next.map_err(|malformed| self.malformed(malformed))? {
            Some(event) => self.take(&event, true, capture_us, events),
            None => {
                self.payload = None;
                Ok(Next::GoOn)
            }
        }
    }

    /// Takes an event. `inner`: it came within another one.
    pub(super) fn take(
        &mut self,
        event: &Bytes,
        inner: bool,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<Next, ConnectorError> {
        let file = self.tracker.at.file.clone();
        let step = self.tracker.take(event, inner)?;
        if file != self.tracker.at.file {
            // Numbers of tables begin anew.
            self.maps.clear();
        }
        match step {
            Step::Nothing => {}
            Step::Payload(body) => {
                self.payload = Some(Payload::open(&body).map_err(|malformed| self.malformed(malformed))?);
            }
            Step::Body(kind, body) => match &self.tracker.group {
                Some(Group { xa: Some(_), .. }) => self.hold(kind, body)?,
                _ => self.body(kind, body)?,
            },
            Step::Statement(statement, kind) => return self.statement(&statement, kind, capture_us, events),
            Step::End(end) => self.end(end)?,
        }
        Ok(Next::GoOn)
    }

    fn malformed(&self, malformed: Malformed) -> ConnectorError {
        ConnectorError::protocol(self.tracker.place(), malformed.to_string())
    }

    fn is_captured(&self, table: &TableMap) -> bool {
        self.settings.tables.iter().any(|t| *t.schema == *table.schema && *t.name == *table.name)
    }

    /// A table map, or rows.
    fn body(&mut self, kind: EventKind, body: Bytes) -> Result<(), ConnectorError> {
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
        let offset = self.tracker.begin;
        self.rows = Some(Rows { body, change, version, partial, table, left: None, row: 0, offset });
        Ok(())
    }

    /// Whether a group may be given while another one is half done.
    fn is_expected(&self) -> Result<(), ConnectorError> {
        match (&self.half_done, &self.tracker.group) {
            (Some(half), Some(group)) if half.group != group.id => Err(ConnectorError::lost(
                self.tracker.place(),
                format!("a part of {} was published, and the server sends {} before it", half.group, group.id),
                "the log has changed (a restored backup, or another server?): give the source a new name",
            )),
            _ => Ok(()),
        }
    }

    fn map(&mut self, body: Bytes) -> Result<(), ConnectorError> {
        let map = TableMap::read(&body).map_err(|malformed| self.malformed(malformed))?;
        if self.maps.get(&map.id).is_some_and(|(known, _)| *known == body) {
            return Ok(());
        }
        let (id, mut table) = (map.id, None);
        if self.is_captured(&map) {
            let name = TableName::new(map.schema.as_str(), map.name.as_str());
            let whole = self.collations.as_ref().filter(|_| map.is_whole());
            table = Some(Arc::new(Mapped::new(map, self.shapes.get(&name), whole, &self.settings)?));
        }
        // A copy, which does not keep all that was read with it.
        self.maps.insert(id, (Bytes::copy_from_slice(&body), table));
        Ok(())
    }

    /// Gives rows until there are enough events.
    fn give(&mut self, capture_us: i64, events: &mut Vec<ChangeEvent>, most: usize) -> Result<(), ConnectorError> {
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
            let place = (rows.offset, rows.row);
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
        place: (u64, u64),
        capture_us: i64,
        images: (Option<Row>, Option<Row>),
        events: &mut Vec<ChangeEvent>,
    ) {
        self.event(&table.schema.clone(), op, place, capture_us, images, events);
    }

    fn event(
        &mut self,
        schema: &Arc<TableSchema>,
        op: Op,
        (offset, row): (u64, u64),
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
            before,
            after,
            message: None,
            position: Position::MySql { group: group_of, offset, row: u32::try_from(row).unwrap_or(u32::MAX) },
            transaction: Some(TransactionInfo { id, total_order: self.events, table_order }),
            origin: None,
            commit_us: group.commit_us,
            capture_us,
            sequence: self.clock.tick(group.commit_us),
        });
    }

    /// The group is over. `but`: it is read again the next time.
    fn close(&mut self, but: bool) {
        let group = self.tracker.end(but);
        self.groups += 1;
        if let (Some(half), Some(group)) = (&self.half_done, &group)
            && half.group == group.id
        {
            self.half_done = None;
        }
        (self.events_read, self.events, self.news) = (0, 0, false);
        self.orders.clear();
    }
}
