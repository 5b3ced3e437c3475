//! What stands around rows: statements, definitions, the ends of groups, and XA transactions.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;
use tributary_event::{ChangeEvent, Op, TableName, TableSchema};

use super::super::held::HeldGroup;
use super::super::tracker::{Body, End};
use super::rows::Place;
use super::savepoints::Kept;
use super::{Assembler, Definition, EventKind, Next};
use crate::error::ConnectorError;
use crate::mysql::binlog::{Change, Statement, StatementKind, TableMap, Unlogged};
use crate::mysql::cursor::to_digits;
use crate::mysql::position::LogPosition;
use crate::mysql::tables::mapped;

/// Letters of a statement that people are shown.
const SHOWN: usize = 60;

/// An event with rows of no table, none of them: it is counted as any other. It has the statement of those that it stands for, so that those of
/// one statement stay neighbours, whose text is counted once.
fn others(query: &Option<ByteString>) -> Body {
    const CONTENT: &[u8] = &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0];
    let kind = EventKind::Rows { change: Change::Insert, version: 1, compressed: false };
    Body { kind, content: Bytes::from_static(CONTENT), query: query.clone() }
}

/// A statement as people are shown it.
fn shown(statement: &Statement) -> String {
    statement.text.chars().take(SHOWN).collect()
}

impl Assembler {
    pub(super) fn statement(
        &mut self,
        statement: &Statement,
        kind: StatementKind,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<Next, ConnectorError> {
        let concerned = |concerns: &dyn Fn(&TableName) -> bool| -> Vec<TableName> {
            self.settings.tables.iter().filter(|table| concerns(table)).cloned().collect()
        };
        match kind {
            StatementKind::Truncate(schema, name) => {
                let schema = schema.as_deref().unwrap_or(&statement.schema);
                let is_it = |t: &TableName| {
                    t.schema.to_lowercase() == schema.to_lowercase() && t.name.to_lowercase() == name.to_lowercase()
                };
                for table in concerned(&is_it) {
                    self.truncate(&table, capture_us, events)?;
                }
            }
            StatementKind::Definition => {
                let all = concerned(&|table| statement.may_concern(&table.schema, &table.name));
                let unlogged =
                    |table: &TableName| Some((table.clone(), statement.unlogged(&table.schema, &table.name)?));
                let unlogged: Vec<(TableName, Unlogged)> = all.iter().filter_map(unlogged).collect();
                let is_other = |table: &TableName| !statement.keeps_columns(&table.schema, &table.name);
                let tables: Vec<TableName> = all.into_iter().filter(is_other).collect();
                let is_something = !tables.is_empty() || !unlogged.is_empty();
                let group = self.tracker.group.as_ref().map(|group| group.id.clone());
                self.maps.clear();
                if let (true, Some(group)) = (is_something, group) {
                    let text = shown(statement);
                    return Ok(Next::Define(Definition { tables, group, unlogged, text }));
                }
            }
            StatementKind::Rows => {
                let tables = concerned(&|table| statement.may_write_to(&table.schema, &table.name));
                if let Some(table) = tables.first() {
                    return Err(ConnectorError::lost(
                        format!("table {table}"),
                        format!("the log has a statement that changes it, and not the rows ({})", shown(statement)),
                        "run: SET GLOBAL binlog_format = 'ROW', keep it in the server's configuration, end sessions that have another one, and give the \
                         source a new name",
                    ));
                }
            }
            StatementKind::Savepoint(name) => self.savepoint(&name),
            StatementKind::RollbackTo(name) => self.roll_back_to(&name)?,
            StatementKind::XaCommit(name) => {
                if let Some(held) = self.held.take(&name) {
                    self.replay_held(held);
                    return Ok(Next::GoOn);
                }
                let group = self.tracker.group.as_ref().map(|group| group.id.clone());
                if let (false, Some(group)) = (self.prepared.remove(&to_digits(&name)), group) {
                    // It was prepared before the source began, or captured all that it does now: its rows were not read, if it has some.
                    let unlogged = self.settings.tables.iter().map(|table| (table.clone(), Unlogged::Rows)).collect();
                    let text = format!("{}, whose rows were not read", shown(statement));
                    return Ok(Next::Define(Definition { tables: Vec::new(), group, unlogged, text }));
                }
            }
            StatementKind::XaRollback(name) => match self.held.take(&name) {
                Some(held) => self.tracker.read(&held.id),
                None => _ = self.prepared.remove(&to_digits(&name)),
            },
            StatementKind::Begin(_) | StatementKind::Commit | StatementKind::Rollback | StatementKind::Nothing => {}
        }
        if self.tracker.is_ended_by_statement() {
            self.close(false);
        }
        Ok(Next::GoOn)
    }

    fn truncate(
        &mut self,
        table: &TableName,
        capture_us: i64,
        events: &mut Vec<ChangeEvent>,
    ) -> Result<(), ConnectorError> {
        self.is_expected()?;
        let schema = match self.shapes.get(table) {
            Some(shape) => mapped::schema(table, shape, &self.settings)?,
            None => TableSchema::new(table.schema.clone(), table.name.clone(), Vec::new(), Vec::new()),
        };
        let place = Place { offset: self.tracker.begin, row: self.events, query: None };
        self.event(&Arc::new(schema), Op::Truncate, place, capture_us, (None, None), events);
        Ok(())
    }

    /// Keeps an event of an XA transaction until that commits; of rows of other tables, that there was one.
    pub(super) fn hold(&mut self, body: &Body) -> Result<(), ConnectorError> {
        let fits = match body.kind {
            EventKind::TableMap => {
                let map = TableMap::read(&body.content).map_err(|malformed| self.malformed(malformed))?;
                let is_captured = self.is_captured(&map);
                self.held.map(map.id, is_captured);
                !is_captured || self.held.add(body)
            }
            _ if self.held.has_table_of(&body.content) => self.held.add(body),
            _ => self.held.add(&others(&body.query)),
        };
        if fits {
            return Ok(());
        }
        Err(ConnectorError::Table {
            table: format!("(of {})", self.tracker.place()),
            cause: "prepared XA transactions have more rows than are kept in memory until they commit".into(),
            remedy: "commit them, or make them smaller".into(),
        })
    }

    fn replay_held(&mut self, held: HeldGroup) {
        let own = self.tracker.group.as_ref().map(|group| group.id.clone());
        let begin = self.tracker.begin;
        let events: Vec<Kept> = held.events.into_iter().map(|body| (body, begin)).collect();
        self.replay = events.into_iter();
        self.ends = Some([Some(held.id), own].into_iter().flatten().collect());
    }

    pub(super) fn end(&mut self, end: End) -> Result<(), ConnectorError> {
        let Some(group) = &self.tracker.group else { return Ok(()) };
        if let Some(name) = group.xa.clone() {
            let id = group.id.clone();
            let held = HeldGroup { id: id.clone(), events: self.held.finish() };
            match end {
                End::Committed => {
                    self.replay_held(held);
                    return Ok(());
                }
                End::Prepared if held.has_captured_rows() => {
                    if !matches!(self.tracker.position, LogPosition::Gtids(_)) {
                        return Err(ConnectorError::Server {
                            place: self.tracker.place(),
                            cause: "an XA transaction with rows of captured tables is prepared, which can be resumed with MySQL's GTIDs \
                                    alone"
                                .into(),
                            remedy: "use transactions that are no XA transactions for these tables, or MySQL with gtid_mode = ON; then give the source a new \
                                     name and run tributary reindex".into(),
                            class: tributary_event::ErrorClass::Fatal,
                        });
                    }
                    self.held.keep(name, held);
                    self.close(true);
                    return Ok(());
                }
                End::Prepared => _ = self.prepared.insert(to_digits(&name)),
                End::RolledBack => {}
            }
        } else if end == End::RolledBack {
            self.savepoints = None;
            if self.events > 0 {
                return Err(self.undone("ROLLBACK"));
            }
        } else if self.give_kept() {
            self.ends = Some(self.tracker.group.as_ref().map(|group| group.id.clone()).into_iter().collect());
            return Ok(());
        }
        self.close(false);
        Ok(())
    }

    /// A statement of the log undoes rows of captured tables that it has before. Servers keep what is undone out of their logs, unless a
    /// table without transactions was written in the same transaction.
    pub(super) fn undone(&self, statement: &str) -> ConnectorError {
        ConnectorError::lost(
            self.tracker.place(),
            format!(
                "{statement} undoes rows of captured tables that are in the log before it, and they were published"
            ),
            "give the source a new name and run tributary reindex; keep tables without transactions (MyISAM) out of transactions with these",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::held::Held;
    use super::*;

    #[test]
    fn a_statement_is_counted_once_whatever_tables_its_rows_are_of() {
        let rows = Body { query: Some("x".repeat(64 << 10).into()), ..others(&None) };
        let mut held = Held::default();
        // One after another their texts would need twice what may be held.
        for _ in 0..2_000 {
            assert!(held.add(&rows) && held.add(&others(&rows.query)));
        }
    }
}
