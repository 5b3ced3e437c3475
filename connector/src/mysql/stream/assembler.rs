//! Events of the log → change events with their place in their group, and the mark behind them. Pure.
//!
//! Resumption: the server sends again every group that the position does not have. The checkpoint names, beside the position, the one group of
//! which a first part is durable, with the number of its events with rows, and of rows in the next one; those are read once more (so that every
//! count goes on as before) and their changes dropped.

mod groups;
mod rows;
mod savepoints;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tributary_event::{ChangeEvent, HybridClock, SourceInfo, TableName, TableSchema};

use self::rows::Rows;
use self::savepoints::{Kept, Savepoints};
use super::held::Held;
use super::tracker::{Group, Step, Tracker};
use crate::error::ConnectorError;
use crate::mysql::binlog::{EventKind, Payload, TableMap, Unlogged};
use crate::mysql::checkpoint::{HalfDone, MySqlCheckpoint};
use crate::mysql::cursor::Malformed;
use crate::mysql::kept::Event;
use crate::mysql::position::{FilePosition, GroupId, LogPosition};
use crate::mysql::prepare::Facts;
use crate::mysql::tables::Shape;
use crate::mysql::tables::charsets::Collations;
use crate::mysql::tables::mapped::Mapped;
use crate::settings::MySqlSettings;

/// What an event leaves to be done.
#[derive(Debug)]
pub(in crate::mysql) enum Next {
    /// Nothing.
    GoOn,
    /// Tables may be others from here on: look them up, then [`Assembler::define`] them, before the next event.
    Define(Definition),
}

/// A definition in which captured tables are named.
#[derive(Debug)]
pub(in crate::mysql) struct Definition {
    /// Those whose columns or key may be others.
    pub tables: Vec<TableName>,
    /// Its group.
    pub group: GroupId,
    /// What it may do to rows of them without events.
    pub unlogged: Vec<(TableName, Unlogged)>,
    /// How it begins.
    pub text: String,
}

/// Puts events together.
pub(in crate::mysql) struct Assembler {
    source: Arc<SourceInfo>,
    settings: MySqlSettings,
    tracker: Tracker,
    /// The server that is read, and the one that the checkpoint is of.
    reading: String,
    server: String,
    /// XA transactions that were prepared without rows of captured tables.
    prepared: BTreeSet<String>,
    shapes: HashMap<TableName, Shape>,
    /// Where the log says everything of tables by itself, the character sets of its collations.
    collations: Option<Collations>,
    /// By the number of the table: the map as it came, and the table, if it is captured.
    maps: HashMap<u64, (Bytes, Option<Arc<Mapped>>)>,
    clock: HybridClock,
    half_done: Option<HalfDone>,
    rows: Option<Rows>,
    payload: Option<Payload>,
    /// Bytes of events that came within others.
    unpacked: u64,
    held: Held,
    /// What came behind a savepoint of the group.
    savepoints: Option<Savepoints>,
    /// That was more than is kept, and was given.
    outgrown: bool,
    /// Events of a prepared transaction, or behind a savepoint, while they are given.
    replay: std::vec::IntoIter<Kept>,
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
    /// When the last of them committed.
    committed_us: i64,
    /// What ends the group when the rest of it was given.
    ends: Option<Vec<GroupId>>,
}

impl Assembler {
    /// Goes on behind a mark.
    pub(in crate::mysql) fn new(
        source: Arc<SourceInfo>,
        settings: &MySqlSettings,
        mark: MySqlCheckpoint,
        shapes: HashMap<TableName, Shape>,
        facts: &Facts,
    ) -> Self {
        Self {
            source,
            settings: settings.clone(),
            tracker: Tracker::new(mark.position, mark.at, facts.has_checksum).with_queries(settings.query),
            reading: facts.server.clone(),
            server: mark.server,
            prepared: mark.prepared,
            shapes,
            collations: facts.collations.clone(),
            maps: HashMap::new(),
            clock: HybridClock::starting_after(mark.sequence),
            half_done: mark.transaction,
            rows: None,
            payload: None,
            unpacked: 0,
            held: Held::default(),
            savepoints: None,
            outgrown: false,
            replay: Vec::new().into_iter(),
            events_read: 0,
            events: 0,
            orders: Vec::new(),
            news: false,
            sequence: mark.sequence,
            groups: 0,
            committed_us: 0,
            ends: None,
        }
    }

    /// The source as its events name it.
    pub(in crate::mysql) fn source(&self) -> &Arc<SourceInfo> {
        &self.source
    }

    /// What was read.
    pub(in crate::mysql) fn position(&self) -> &LogPosition {
        &self.tracker.position
    }

    /// Behind the last event.
    pub(in crate::mysql) fn at(&self) -> &FilePosition {
        &self.tracker.at
    }

    /// How many groups were read.
    pub(in crate::mysql) fn groups(&self) -> u64 {
        self.groups
    }

    /// When what was read last was committed, in microseconds since the Unix epoch; zero: nothing was.
    pub(in crate::mysql) fn committed_us(&self) -> i64 {
        self.tracker.group.as_ref().map_or(self.committed_us, |group| group.commit_us)
    }

    /// How long ago what was read was committed, whether it had captured rows or not; none: the log does not say.
    pub(in crate::mysql) fn lag(&self, now_us: i64) -> Option<Duration> {
        let committed_us = self.committed_us();
        let us = u64::try_from(now_us.saturating_sub(committed_us)).unwrap_or(0);
        (committed_us > 0).then_some(Duration::from_micros(us))
    }

    /// Whether there is something to give before the next event of the log.
    pub(in crate::mysql) fn is_busy(&self) -> bool {
        self.rows.is_some() || self.payload.is_some() || self.replay.len() > 0 || self.ends.is_some()
    }

    /// The mark behind what was given, of which `last` is the last.
    pub(in crate::mysql) fn mark(&mut self, last: Option<&ChangeEvent>) -> MySqlCheckpoint {
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
            file: self.tracker.file(&self.reading),
            prepared: self.prepared.clone(),
            transaction,
            sequence: self.sequence,
        }
    }

    /// These tables were looked up: they are so from here on, or not known.
    pub(in crate::mysql) fn define(&mut self, tables: &[TableName], shapes: Vec<(TableName, Shape)>) {
        tables.iter().for_each(|table| drop(self.shapes.remove(table)));
        self.shapes.extend(shapes);
        self.maps.clear();
        // Only now is the definition behind us: a mark that has it finds the tables that it made.
        if self.tracker.is_ended_by_statement() {
            self.close(false);
        }
    }

    /// Gives what is left of what came before.
    pub(in crate::mysql) fn go_on(
        &mut self,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
        most: usize,
    ) -> Result<Next, ConnectorError> {
        if self.rows.is_some() {
            self.give(capture_us, events, most)?;
            return Ok(Next::GoOn);
        }
        if let Some((body, begin)) = self.replay.next() {
            self.body(body, begin)?;
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
        match next.map_err(|why| why.at(self.tracker.place()))? {
            Some(event) => {
                self.unpacked += event.len() as u64;
                self.take(event.into(), true, capture_us, events)
            }
            None => {
                self.payload = None;
                Ok(Next::GoOn)
            }
        }
    }

    /// Takes an event. `inner`: it came within another one.
    pub(in crate::mysql) fn take(
        &mut self,
        event: Event,
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
            Step::Payload(payload) => self.payload = Some(payload),
            Step::Body(body) => match &self.tracker.group {
                Some(Group { xa: Some(_), .. }) => self.hold(&body)?,
                _ => self.body_or_keep(body)?,
            },
            Step::Statement(statement, kind) => return self.statement(&statement, kind, capture_us, events),
            Step::End(end) => self.end(end)?,
        }
        Ok(Next::GoOn)
    }

    /// How many bytes of events came within others so far.
    pub(in crate::mysql) fn unpacked(&self) -> u64 {
        self.unpacked
    }

    fn malformed(&self, malformed: Malformed) -> ConnectorError {
        ConnectorError::protocol(self.tracker.place(), malformed.to_string())
    }

    fn is_captured(&self, table: &TableMap) -> bool {
        self.settings.tables.iter().any(|t| *t.schema == *table.schema && *t.name == *table.name)
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

    /// The group is over. `but`: it is read again the next time.
    fn close(&mut self, but: bool) {
        let group = self.tracker.end(but);
        self.groups += 1;
        self.committed_us = group.as_ref().map_or(self.committed_us, |group| group.commit_us);
        if let (Some(half), Some(group)) = (&self.half_done, &group)
            && half.group == group.id
        {
            self.half_done = None;
        }
        (self.events_read, self.events, self.news) = (0, 0, false);
        (self.savepoints, self.outgrown) = (None, false);
        self.orders.clear();
    }
}

#[cfg(test)]
mod tests;
