//! The log as a [`Source`].

use std::collections::HashMap;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;
use tributary_event::clock::now_us;
use tributary_event::{SourceInfo, SourceKind, TableName};
use tributary_transport::Transport;

use super::assembler::{Assembler, Definition, Next};
use crate::dependent::{Dependent, Doubt};
use crate::error::ConnectorError;
use crate::mysql::binlog::Unlogged;
use crate::mysql::checkpoint::MySqlCheckpoint;
use crate::mysql::monitor::Progress;
use crate::mysql::position::{FilePosition, LogPosition};
use crate::mysql::prepare::{Facts, Prepared, suffice};
use crate::mysql::tables::Shape;
use crate::mysql::tables::history::History;
use crate::mysql::tables::{ahead, read};
use crate::mysql::wire::log::{Identity, LogStream};
use crate::mysql::wire::session::Session;
use crate::settings::MySqlSettings;
use crate::source::{Part, Source};

/// A part is given out when it has this many events, or was read from this many bytes of the log.
const PART_EVENTS: usize = 256;
const PART_BYTES: u64 = 256 << 10;

/// The log of a MySQL or MariaDB server, streaming.
pub struct MySqlSource {
    stream: LogStream,
    assembler: Assembler,
    learning: Learning,
    bytes: metrics::Counter,
    progress: Progress,
    /// Groups that the last mark has.
    marked: u64,
}

type Learnt = Result<Vec<(TableName, Shape)>, ConnectorError>;
/// A look at tables: who did it, at which, and what there is to them.
type Look = (Box<Learner>, Vec<TableName>, Learnt);

/// Whether tables are being looked up. That is a task of its own: a call of [`Source::next`] that is dropped only stops waiting for it.
enum Learning {
    Idle(Box<Learner>),
    Busy(AbortOnDropHandle<Look>),
    /// The task has failed.
    Over,
}

/// Looks tables up behind their definitions.
struct Learner {
    name: String,
    settings: MySqlSettings,
    facts: Facts,
    history: History,
    transport: Arc<dyn Transport>,
    dependent: Arc<dyn Dependent>,
}

impl Learner {
    /// The tables behind a definition, at a place that was read up to there. What it may have done to rows without events is told before the
    /// place is passed, so at least once.
    async fn learn(&mut self, definition: &Definition, from: LogPosition, at: FilePosition) -> Learnt {
        let Definition { tables, group, .. } = definition;
        let known = |table: &TableName| Some((table.clone(), self.history.behind(table, group)?.clone()));
        let mut all: Vec<(TableName, Shape)> = tables.iter().filter_map(known).collect();
        let unknown: Vec<TableName> =
            tables.iter().filter(|table| !all.iter().any(|(name, _)| name == *table)).cloned().collect();
        if !unknown.is_empty() {
            let mut session = Session::open(&self.settings.url).await?;
            let found = ahead::look(&mut session, &self.facts, &self.settings, &from, &at, &unknown).await?;
            let is_found = |table: &TableName| found.iter().any(|(name, _)| name == table);
            let is_renamed = |table: &TableName| definition.unlogged.contains(&(table.clone(), Unlogged::Name));
            for table in unknown.iter().filter(|table| !is_found(table)) {
                if !read(&mut session, std::slice::from_ref(table)).await?.is_empty() {
                    // It was defined again behind rows that tell their columns, so nothing is known of it beside them.
                    continue;
                }
                if is_renamed(table) {
                    // Its rows may change under a name that nobody captures.
                    return Err(renamed(table, &definition.text));
                }
                tracing::warn!(source = self.name, %table, "the table was dropped");
            }
            session.close().await;
            for (table, shape) in &found {
                tracing::info!(source = self.name, %table, columns = shape.columns.len(), "the table was defined anew");
                self.history.add(table, Some(group.clone()), shape.clone());
            }
            if !found.is_empty() {
                // Before any row behind the definition is.
                self.history.keep(&self.name, self.transport.as_ref()).await?;
            }
            all.extend(found);
        }
        if !all.is_empty() {
            suffice(&all, &self.settings, &self.facts, self.dependent.as_ref())?;
        }
        let doubt = |(table, _): &(TableName, Unlogged)| Doubt {
            table: table.clone(),
            why: format!("a statement may have changed its rows without an event for each ({})", definition.text),
        };
        let doubts: Vec<Doubt> = definition.unlogged.iter().map(doubt).collect();
        if !doubts.is_empty() {
            self.dependent.doubt(&doubts).await?;
        }
        Ok(all)
    }
}

/// A captured table has no table's name any more.
fn renamed(table: &TableName, statement: &str) -> ConnectorError {
    ConnectorError::Table {
        table: table.to_string(),
        cause: format!("it was renamed while it was captured, and no table has its name now ({statement})"),
        remedy: "give it its name again; or list the new name under tables in its place (its changes go to a topic of their own), and start \
                 again"
            .into(),
    }
}

impl MySqlSource {
    /// Starts streaming behind the checkpoint.
    ///
    /// # Errors
    /// The server cannot be reached, or cannot send the log from there.
    pub(crate) async fn open(
        name: &str,
        settings: &MySqlSettings,
        prepared: &Prepared,
        transport: Arc<dyn Transport>,
        dependent: Arc<dyn Dependent>,
    ) -> Result<Self, ConnectorError> {
        let Prepared { session, checkpoint, shapes, history, facts } = prepared;
        let identity = Identity::of(&settings.identity);
        let (endpoint, is_mariadb) = (&session.endpoint, session.is_mariadb);
        let stream = LogStream::open(endpoint, is_mariadb, &identity, &checkpoint.position, settings.query).await?;
        let stream = stream.keeping(settings.transactions.as_deref());
        let kind = if session.is_mariadb { SourceKind::MariaDb } else { SourceKind::MySql };
        let source = Arc::new(SourceInfo { name: name.into(), kind, database: "".into() });
        let shapes: HashMap<TableName, Shape> = shapes.clone();
        let progress = Progress::default();
        progress.set(&checkpoint.at, 0);
        Ok(Self {
            stream,
            assembler: Assembler::new(source, settings, checkpoint.clone(), shapes, facts),
            learning: Learning::Idle(Box::new(Learner {
                name: name.to_owned(),
                settings: settings.clone(),
                facts: facts.clone(),
                history: history.clone(),
                transport,
                dependent,
            })),
            bytes: metrics::counter!("tributary_connector_bytes_total", "source" => name.to_owned()),
            progress,
            marked: 0,
        })
    }

    /// The source as its events name it.
    pub fn info(&self) -> &Arc<SourceInfo> {
        self.assembler.source()
    }

    /// How far it has come.
    pub(in crate::mysql) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Waits for the tables that reading stopped at, if there are some. Cancel-safe.
    async fn learn(&mut self) -> Result<(), ConnectorError> {
        let Learning::Busy(task) = &mut self.learning else { return Ok(()) };
        let (learner, tables, learnt) = match task.await {
            Ok(ended) => ended,
            Err(error) => {
                self.learning = Learning::Over;
                return Err(ConnectorError::Task(error.to_string()));
            }
        };
        self.learning = Learning::Idle(learner);
        self.assembler.define(&tables, learnt?);
        Ok(())
    }

    fn begin(&mut self, definition: Definition) {
        let (mut position, at) = (self.assembler.position().clone(), self.assembler.at().clone());
        position.insert(&definition.group, &at);
        self.learning = match std::mem::replace(&mut self.learning, Learning::Over) {
            Learning::Idle(mut learner) => Learning::Busy(AbortOnDropHandle::new(tokio::spawn(async move {
                let learnt = learner.learn(&definition, position, at).await;
                (learner, definition.tables, learnt)
            }))),
            other => other,
        };
    }

    /// Reads what has arrived until the part is full, tables must be looked up, or there is no more.
    fn read(&mut self, part: &mut Part<MySqlCheckpoint>) -> Result<(), ConnectorError> {
        let capture_us = now_us();
        let (mut bytes, unpacked) = (0, self.assembler.unpacked());
        while part.events.len() < PART_EVENTS && bytes + self.assembler.unpacked() - unpacked < PART_BYTES {
            let next = if self.assembler.is_busy() {
                self.assembler.go_on(capture_us, &mut part.events, PART_EVENTS)?
            } else {
                let Some(event) = self.stream.arrived()? else { break };
                bytes += event.size();
                self.assembler.take(event, false, capture_us, &mut part.events)?
            };
            if let Next::Define(definition) = next {
                self.begin(definition);
                break;
            }
        }
        self.bytes.increment(bytes);
        if !part.events.is_empty() || self.assembler.groups() > self.marked {
            self.marked = self.assembler.groups();
            part.mark = Some(self.assembler.mark(part.events.last()));
            part.lag = self.assembler.lag(capture_us);
        }
        Ok(())
    }
}

impl Source for MySqlSource {
    type Mark = MySqlCheckpoint;

    async fn next(&mut self, part: &mut Part<MySqlCheckpoint>) -> Result<(), ConnectorError> {
        part.clear();
        loop {
            self.learn().await?;
            self.read(part)?;
            if part.mark.is_some() {
                return Ok(());
            }
            if matches!(self.learning, Learning::Idle(_)) && !self.assembler.is_busy() && !self.stream.has_arrived() {
                self.stream.wait().await?;
            } else {
                // A compressed transaction without anything to publish may be long, and who shares this task has to say meanwhile that
                // this process is there.
                tokio::task::yield_now().await;
            }
        }
    }

    async fn keep_alive(&mut self) -> Result<(), ConnectorError> {
        // The server waits until we read on, for a day.
        std::future::pending().await
    }

    fn acknowledge(&mut self, mark: &MySqlCheckpoint) {
        // The server keeps nothing for us; who watches it is told.
        self.progress.set(&mark.at, self.assembler.committed_us());
    }

    async fn close(&mut self) {
        self.stream.close().await;
    }
}
