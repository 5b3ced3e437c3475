//! XA transactions that are prepared: their rows are in the log when they are prepared, and count when they commit. They are kept in memory
//! meanwhile, and left out of what was read, so that the server sends them again after a restart.

use std::collections::HashMap;

use bytes::Bytes;

use crate::mysql::binlog::EventKind;
use crate::mysql::position::GroupId;

/// What is kept at most, bytes.
const MOST: usize = 64 << 20;

/// A group with its table maps and rows.
#[derive(Debug)]
pub(in crate::mysql) struct HeldGroup {
    pub id: GroupId,
    pub events: Vec<(EventKind, Bytes)>,
}

/// Groups that are prepared, by the names of their transactions.
#[derive(Debug, Default)]
pub(in crate::mysql) struct Held {
    groups: HashMap<Vec<u8>, HeldGroup>,
    /// Those of the group that is being read.
    events: Vec<(EventKind, Bytes)>,
    bytes: usize,
}

fn size(events: &[(EventKind, Bytes)]) -> usize {
    events.iter().map(|(_, body)| body.len()).sum()
}

impl Held {
    /// Adds an event of the group that is being read; false: there is no room.
    pub(in crate::mysql) fn add(&mut self, kind: EventKind, body: &Bytes) -> bool {
        self.bytes += body.len();
        self.events.push((kind, Bytes::copy_from_slice(body)));
        self.bytes <= MOST
    }

    /// The events of the group that was read.
    pub(in crate::mysql) fn finish(&mut self) -> Vec<(EventKind, Bytes)> {
        self.bytes -= size(&self.events);
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
