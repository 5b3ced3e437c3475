//! Where a reader of the log stands: the file and the offset, the group that is being read, and what was read before it.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tributary_event::LogGroup;

use crate::error::ConnectorError;
use crate::mysql::binlog::{
    EventKind, GroupStart, HEADER, Header, Payload, Statement, StatementKind, ends_statement, format_description,
    heartbeat, is_intact, rotation, rows_query,
};
use crate::mysql::checkpoint::LogFile;
use crate::mysql::cursor::Malformed;
use crate::mysql::kept::{Event, Kept};
use crate::mysql::position::{FilePosition, GroupId, LogPosition};

const OTHER_SIZE: Malformed = Malformed("it has another size than it says");

/// The group that is being read.
#[derive(Debug, Clone)]
pub(in crate::mysql) struct Group {
    pub id: GroupId,
    pub log: Arc<LogGroup>,
    /// When it committed, in microseconds since the Unix epoch.
    pub commit_us: i64,
    /// It has an end of its own.
    pub begun: bool,
    /// The XA transaction that it is of.
    pub xa: Option<Vec<u8>>,
    /// The statement whose rows are read, where that is asked for. It goes with its last rows, with any other statement, and with the group.
    query: Option<ByteString>,
}

/// A table map, or rows.
#[derive(Debug)]
pub(in crate::mysql) struct Body {
    pub kind: EventKind,
    pub content: Bytes,
    /// The statement that they are of, if it is known.
    pub query: Option<ByteString>,
}

impl Body {
    /// A copy, which does not keep all that was read with it. Those of one statement have its text in common.
    pub(in crate::mysql) fn copied(&self) -> Self {
        Self { kind: self.kind, content: Bytes::copy_from_slice(&self.content), query: self.query.clone() }
    }
}

/// What bodies take in memory, bytes. A statement is counted once for all that follow one another.
pub(in crate::mysql) fn room<'a>(bodies: impl IntoIterator<Item = &'a Body>) -> usize {
    let place = |body: &Body| body.query.as_ref().map(|query| query.as_bytes().as_ptr());
    let (mut bytes, mut last) = (0, None);
    for body in bodies {
        let is_other = place(body) != last;
        let query = body.query.as_ref().filter(|_| is_other).map_or(0, |query| query.len());
        (bytes, last) = (bytes + body.content.len() + query, place(body));
    }
    bytes
}

/// How a group ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::mysql) enum End {
    Committed,
    Prepared,
    RolledBack,
}

/// What an event is, when the tracker has taken what concerns it.
#[derive(Debug)]
pub(in crate::mysql) enum Step {
    /// Nothing is left to do.
    Nothing,
    /// A table map, or rows.
    Body(Body),
    /// A transaction in one event.
    Payload(Payload),
    /// A statement. It ends the group, unless the group has an end of its own.
    Statement(Statement, StatementKind),
    /// The group ends; nothing of it is left.
    End(End),
}

/// Follows the log.
#[derive(Debug)]
pub(in crate::mysql) struct Tracker {
    pub position: LogPosition,
    /// Behind the last event.
    pub at: FilePosition,
    /// Where the last event begins.
    pub begin: u64,
    pub group: Option<Group>,
    has_checksum: bool,
    /// Whether bodies have the statement that they are of.
    with_queries: bool,
    /// The file whose description came last, and when it was made, in seconds since the Unix epoch.
    described: Option<(String, u32)>,
}

impl Tracker {
    pub(in crate::mysql) fn new(position: LogPosition, at: FilePosition, has_checksum: bool) -> Self {
        Self { position, at, begin: 0, group: None, has_checksum, with_queries: false, described: None }
    }

    /// The same, whose bodies have the statement that they are of if `asked`.
    pub(in crate::mysql) fn with_queries(self, asked: bool) -> Self {
        Self { with_queries: asked, ..self }
    }

    /// The place of the last event, for people.
    pub(in crate::mysql) fn place(&self) -> String {
        format!("the event at {}:{}", self.at.file, self.begin)
    }

    /// Whether the description of a file's format has come.
    pub(in crate::mysql) fn is_described(&self) -> bool {
        self.described.is_some()
    }

    /// The file that is being read, of a server; the one before, until the description of its format has come.
    pub(in crate::mysql) fn file(&self, server: &str) -> Option<LogFile> {
        let (name, made) = self.described.clone().filter(|(_, made)| *made > 0)?;
        Some(LogFile { server: server.to_owned(), name, made })
    }

    fn wrong(&self, malformed: Malformed) -> ConnectorError {
        ConnectorError::protocol(self.place(), malformed.to_string())
    }

    /// Takes an event. `inner`: it came within another one, and lies nowhere itself.
    pub(in crate::mysql) fn take(&mut self, event: Event, inner: bool) -> Result<Step, ConnectorError> {
        let event = match event {
            Event::Whole(event) => event,
            Event::Kept(kept) => return self.take_kept(kept),
        };
        let header = Header::read(&event).map_err(|e| self.wrong(e))?;
        if header.size as usize != event.len() {
            return Err(self.wrong(OTHER_SIZE));
        }
        let kind = header.kind();
        let mut has_checksum = self.has_checksum && !inner;
        // It says of itself whether it has one.
        let describes = kind == Some(EventKind::FormatDescription);
        if describes {
            has_checksum = format_description(event.get(HEADER..).unwrap_or_default()).map_err(|e| self.wrong(e))?;
        }
        // So that what is wrong with it is told with its own place.
        self.advance(&header, inner);
        // Before its kind is believed: one that is not known may be one that was changed on its way.
        let body = header.body(&event, has_checksum).map_err(|e| self.wrong(e))?;
        if describes {
            self.has_checksum = has_checksum;
            self.described = Some((self.at.file.clone(), header.timestamp));
        }
        let Some(kind) = kind else {
            if header.is_ignorable() {
                return Ok(Step::Nothing);
            }
            return Err(ConnectorError::Server {
                place: self.place(),
                cause: format!(
                    "its type has the number {}, which is not known here, and it may not be skipped",
                    header.type_code
                ),
                remedy: "use a version of tributary that knows it".into(),
                class: tributary_event::ErrorClass::Fatal,
            });
        };
        self.step(&header, kind, event.slice_ref(body)).map_err(|e| self.wrong(e))
    }

    /// Takes a payload that is in a file.
    fn take_kept(&mut self, kept: Kept) -> Result<Step, ConnectorError> {
        let header = Header::read(&kept.front).map_err(|e| self.wrong(e))?;
        if u64::from(header.size) != kept.size {
            return Err(self.wrong(OTHER_SIZE));
        }
        self.advance(&header, false);
        if self.has_checksum {
            is_intact(kept.crc).map_err(|e| self.wrong(e))?;
        }
        Payload::open_kept(kept, self.has_checksum).map(Step::Payload).map_err(|why| why.at(self.place()))
    }

    /// Moves behind an event. Offsets have 64 bits, of which headers have the lowest 32, and sometimes none.
    fn advance(&mut self, header: &Header, inner: bool) {
        if inner
            || header.is_artificial()
            || matches!(header.kind(), Some(EventKind::Heartbeat | EventKind::HeartbeatV2))
        {
            return;
        }
        let counted = self.at.offset.saturating_add(u64::from(header.size));
        self.at.offset = match u64::from(header.end) {
            0 if header.kind() == Some(EventKind::FormatDescription) => self.at.offset,
            0 => counted,
            low => {
                let end = counted & !0xffff_ffff | low;
                if end < self.at.offset { end.saturating_add(1 << 32) } else { end }
            }
        };
        self.begin = self.at.offset.saturating_sub(u64::from(header.size));
    }

    fn step(&mut self, header: &Header, kind: EventKind, body: Bytes) -> Result<Step, Malformed> {
        match kind {
            EventKind::Rotate => {
                let rotation = rotation(&body)?;
                if !rotation.file.is_empty() {
                    self.at = FilePosition { file: rotation.file, offset: rotation.offset };
                }
            }
            EventKind::FormatDescription | EventKind::Nothing | EventKind::Heartbeat => {}
            EventKind::HeartbeatV2 => {
                heartbeat(&body)?;
            }
            EventKind::Gtid => self.begin(header, GroupStart::mysql(&body, false)?),
            EventKind::Anonymous => self.begin(header, GroupStart::mysql(&body, true)?),
            EventKind::TaggedGtid => self.begin(header, GroupStart::tagged(&body)?),
            EventKind::MariaDbGtid => self.begin(header, GroupStart::mariadb(header.server_id, &body)?),
            EventKind::RowsQuery { ahead } => {
                if let (true, Some(group)) = (self.with_queries, &mut self.group) {
                    group.query = Some(rows_query(&body, ahead));
                }
            }
            EventKind::Query | EventKind::CompressedQuery => {
                self.forget_query();
                let statement = Statement::read(&body, kind == EventKind::CompressedQuery)?;
                return Ok(self.statement(statement));
            }
            EventKind::Xid => return Ok(Step::End(End::Committed)),
            EventKind::XaPrepare => {
                let one_phase = body.first().is_some_and(|byte| *byte != 0);
                return Ok(Step::End(if one_phase { End::Committed } else { End::Prepared }));
            }
            EventKind::Payload => return Ok(Step::Payload(Payload::open(&body)?)),
            EventKind::TableMap | EventKind::Rows { .. } | EventKind::PartialUpdate => {
                let query = self.query(kind, &body);
                return Ok(Step::Body(Body { kind, content: body, query }));
            }
            EventKind::Incident => return Err(Malformed("the server says that changes may be missing in the log")),
            EventKind::LoadStatement => {
                self.forget_query();
                let statement = Statement::read_load(&body)?;
                return Ok(Step::Statement(statement, StatementKind::Rows));
            }
        }
        Ok(Step::Nothing)
    }

    /// The statement that a body is of, if it is known.
    fn query(&mut self, kind: EventKind, body: &[u8]) -> Option<ByteString> {
        let query = &mut self.group.as_mut()?.query;
        let is_last = kind != EventKind::TableMap && ends_statement(body);
        if is_last { query.take() } else { query.clone() }
    }

    fn forget_query(&mut self) {
        if let Some(group) = &mut self.group {
            group.query = None;
        }
    }

    fn begin(&mut self, header: &Header, start: GroupStart) {
        let file = FilePosition { file: self.at.file.clone(), offset: self.begin };
        let seconds = i64::from(header.timestamp) * 1_000_000;
        let (id, gtid, commit_us, begun, xa) = match start {
            GroupStart::MySql { gtid: Some(gtid), commit_us } => {
                let text = gtid.to_string();
                // Who goes by files and offsets tells groups by those, also where they have GTIDs by now.
                let id = match self.position {
                    LogPosition::File(_) => GroupId::File(file.clone()),
                    _ => GroupId::Gtid(gtid),
                };
                (id, Some(text), commit_us, false, None)
            }
            GroupStart::MySql { gtid: None, commit_us } => (GroupId::File(file.clone()), None, commit_us, false, None),
            GroupStart::MariaDb { gtid, standalone, prepares } => {
                // One that prepares has an end of its own, whatever it says.
                (GroupId::Domain(gtid), Some(gtid.to_string()), 0, !standalone || prepares.is_some(), prepares)
            }
        };
        let log = LogGroup {
            gtid: gtid.map(Into::into),
            file: file.file.into(),
            server_id: header.server_id,
            thread: None,
            offset: file.offset,
        };
        let commit_us = if commit_us == 0 { seconds } else { commit_us };
        self.group = Some(Group { id, log: Arc::new(log), commit_us, begun, xa, query: None });
    }

    fn statement(&mut self, statement: Statement) -> Step {
        let kind = statement.kind();
        match (&kind, &mut self.group) {
            (StatementKind::Begin(xa), Some(group)) => {
                group.begun = true;
                group.xa.clone_from(xa);
                let log = LogGroup { thread: Some(statement.thread), ..(*group.log).clone() };
                group.log = Arc::new(log);
                Step::Nothing
            }
            (StatementKind::Begin(_), None) => Step::Nothing,
            (StatementKind::Commit, _) => Step::End(End::Committed),
            (StatementKind::Rollback, _) => Step::End(End::RolledBack),
            (StatementKind::Definition, Some(group)) if statement.starts_transaction() => {
                group.begun = true;
                Step::Statement(statement, kind)
            }
            _ => Step::Statement(statement, kind),
        }
    }

    /// Whether the statement that was given last ended its group.
    pub(in crate::mysql) fn is_ended_by_statement(&self) -> bool {
        self.group.as_ref().is_none_or(|group| !group.begun)
    }

    /// The group is over: it was read. `but`: it is left out, and read again the next time.
    pub(in crate::mysql) fn end(&mut self, but: bool) -> Option<Group> {
        let group = self.group.take();
        match group.as_ref().filter(|_| !but) {
            Some(group) => self.position.insert(&group.id, &self.at),
            None => self.follow(),
        }
        group
    }

    /// What is told by offsets has come as far as the reader.
    fn follow(&mut self) {
        if let LogPosition::File(at) = &mut self.position {
            at.clone_from(&self.at);
        }
    }

    /// A group was read.
    pub(in crate::mysql) fn read(&mut self, id: &GroupId) {
        self.position.insert(id, &self.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(offset: u64) -> Tracker {
        let at = FilePosition { file: "bin.000001".into(), offset };
        Tracker::new(LogPosition::File(at.clone()), at, false)
    }

    /// An event of the log that means nothing (`STOP_EVENT`), as large as it says, that ends there.
    fn event(size: u32, end: u32) -> Bytes {
        let mut event = vec![0; size as usize];
        event[4] = 3;
        event[9..13].copy_from_slice(&size.to_le_bytes());
        event[13..17].copy_from_slice(&end.to_le_bytes());
        event.into()
    }

    #[test]
    fn offsets_above_four_gigabytes_are_counted_though_events_have_the_lowest_bits_alone() {
        const ROUND: u64 = 1 << 32;
        let mut tracker = tracker(ROUND - 150);
        let mut take = |size: u32, end: u32| {
            tracker.take(event(size, end).into(), false).expect("an event");
            (tracker.begin, tracker.at.offset)
        };
        assert_eq!(take(100, (ROUND - 50) as u32), (ROUND - 150, ROUND - 50));
        assert_eq!(take(100, 50), (ROUND - 50, ROUND + 50));
        assert_eq!(take(30, 80), (ROUND + 50, ROUND + 80));
        // Within transactions, MariaDB gives none.
        assert_eq!(take(20, 0), (ROUND + 80, ROUND + 100));
        assert_eq!(take(40, 140), (ROUND + 100, ROUND + 140));
        // Once more around.
        tracker.at.offset = 2 * ROUND - 10;
        let mut take = |size: u32, end: u32| {
            tracker.take(event(size, end).into(), false).expect("an event");
            (tracker.begin, tracker.at.offset)
        };
        assert_eq!(take(60, 50), (2 * ROUND - 10, 2 * ROUND + 50));
    }

    /// An event of a kind that nobody knows, which begins at 100, with its checksum.
    fn unknown(flags: u16) -> Vec<u8> {
        let mut event = event(40, 140).to_vec();
        event[4] = 250;
        event[17..19].copy_from_slice(&flags.to_le_bytes());
        let sum = crc32fast::hash(&event[..36]);
        event[36..].copy_from_slice(&sum.to_le_bytes());
        event
    }

    #[test]
    fn the_checksum_is_compared_before_the_kind_is_believed() {
        let take = |event: Vec<u8>| {
            let mut tracker = Tracker { has_checksum: true, ..tracker(100) };
            tracker.take(Bytes::from(event).into(), false).map(|_| tracker.at.offset).map_err(|error| error.to_string())
        };
        assert_eq!(take(unknown(0x80)), Ok(140));
        let error = take(unknown(0)).expect_err("it may not be skipped");
        assert!(error.contains("bin.000001:100") && error.contains("250, which is not known here"), "{error}");
        for flags in [0, 0x80] {
            let mut event = unknown(flags);
            event[HEADER] ^= 1;
            let error = take(event).expect_err("it was changed");
            assert!(error.contains("bin.000001:100") && error.contains("its checksum does not fit"), "{error}");
        }
    }

    #[test]
    fn a_rotation_has_all_bits() {
        let mut tracker = tracker(4);
        let mut rotate = event(19 + 8 + 10, 0);
        let mut bytes = rotate.to_vec();
        bytes[4] = 4;
        bytes[19..27].copy_from_slice(&(5_u64 << 32).to_le_bytes());
        bytes[27..].copy_from_slice(b"bin.000002");
        rotate = bytes.into();
        tracker.take(rotate.into(), false).expect("an event");
        assert_eq!(tracker.at, FilePosition { file: "bin.000002".into(), offset: 5 << 32 });
    }
}
