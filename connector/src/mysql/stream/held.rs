//! XA transactions that are prepared: their rows are in the log when they are prepared, and count when they commit. They are kept in memory
//! meanwhile, and left out of what was read, so that the server sends them again after a restart.

use std::collections::{HashMap, HashSet};

use super::tracker::{Body, room};
use crate::mysql::binlog::EventKind;
use crate::mysql::cursor::Cursor;
use crate::mysql::position::GroupId;

/// What is kept at most, bytes.
const MOST: usize = 64 << 20;
/// What an event takes beside its content, bytes.
const EVENT: usize = 64;

/// A group with its table maps and rows.
#[derive(Debug)]
pub(in crate::mysql) struct HeldGroup {
    pub id: GroupId,
    pub events: Vec<Body>,
}

/// Groups that are prepared, by the names of their transactions.
#[derive(Debug, Default)]
pub(in crate::mysql) struct Held {
    groups: HashMap<Vec<u8>, HeldGroup>,
    /// Those of the group that is being read.
    events: Vec<Body>,
    /// The numbers of its captured tables.
    tables: HashSet<u64>,
    bytes: usize,
}

fn size(events: &[Body]) -> usize {
    room(events) + events.len() * EVENT
}

impl HeldGroup {
    /// Whether rows of captured tables are in it.
    pub(in crate::mysql) fn has_captured_rows(&self) -> bool {
        self.events.iter().any(|event| event.kind == EventKind::TableMap)
    }
}

impl Held {
    /// The group that is being read names a table.
    pub(in crate::mysql) fn map(&mut self, table: u64, is_captured: bool) {
        match is_captured {
            true => _ = self.tables.insert(table),
            false => _ = self.tables.remove(&table),
        }
    }

    /// Whether an event with rows is of a captured table of the group that is being read: all begin with the table's number.
    pub(in crate::mysql) fn has_table_of(&self, rows: &[u8]) -> bool {
        Cursor(rows).uint(6).is_ok_and(|number| self.tables.contains(&number))
    }

    /// Adds an event of the group that is being read; false: there is no room.
    pub(in crate::mysql) fn add(&mut self, event: &Body) -> bool {
        let before = self.events.last();
        self.bytes += room(before.into_iter().chain([event])) - room(before) + EVENT;
        self.events.push(event.copied());
        self.bytes <= MOST
    }

    /// The events of the group that was read.
    pub(in crate::mysql) fn finish(&mut self) -> Vec<Body> {
        self.bytes -= size(&self.events);
        self.tables.clear();
        std::mem::take(&mut self.events)
    }

    /// Keeps a group.
    pub(in crate::mysql) fn keep(&mut self, name: Vec<u8>, group: HeldGroup) {
        self.bytes += size(&group.events);
        self.groups.insert(name, group);
    }

    /// The group of a transaction, which is kept no longer.
    pub(in crate::mysql) fn take(&mut self, name: &[u8]) -> Option<HeldGroup> {
        let group = self.groups.remove(name)?;
        self.bytes -= size(&group.events);
        Some(group)
    }
}
