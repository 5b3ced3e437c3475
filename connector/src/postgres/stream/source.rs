//! The stream of one slot as a [`Source`].

use std::sync::Arc;

use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, Reporter, SourceInfo, SourceKind};

use super::assembler::{Assembler, Next};
use super::learn::{Learner, Within};
use super::streamed::{Replay, Streamed, Taken};
use super::visibility::{Held, Visibility};
use crate::checkpoint::PostgresCheckpoint;
use crate::dependent::Dependent;
use crate::error::ConnectorError;
use crate::postgres::prepare::Prepared;
use crate::postgres::slot::other_system;
use crate::postgres::slot::timeline;
use crate::postgres::tables::catalog::Types;
use crate::postgres::tables::relation::Relayed;
use crate::postgres::values::charset::Charset;
use crate::postgres::values::texts::Texts;
use crate::postgres::wire::Wire;
use crate::postgres::wire::frame::Frame;
use crate::postgres::wire::hosts;
use crate::postgres::wire::replication::ReplicationStream;
use crate::postgres::wire::session::Session;
use crate::postgres::wire::sql::Sql;
use crate::postgres::wire::sqlstate::{STREAMING, literal, quote};
use crate::settings::{PostgresSettings, PreparedTransactions};
use crate::source::{Part, Source};

/// A part is given out when it has this many events, or was read from this many bytes of the log.
const PART_EVENTS: usize = 256;
const PART_BYTES: usize = 256 << 10;

/// A PostgreSQL slot, streaming.
pub struct PostgresSource {
    stream: ReplicationStream,
    assembler: Assembler,
    learning: Learning,
    frames: Bytes,
    at: usize,
    /// Transactions in progress, where the server streams them.
    streamed: Option<Streamed>,
    /// Whether the server sends values as its types' send functions write them.
    binary: bool,
    /// Whether the server leaves texts in the encoding of the database.
    unconverted: bool,
    /// Prepared transactions are to be sent when they are prepared, from the end of the half-done transaction on.
    two_phase_waits: bool,
    /// A transaction of these that has committed, while it is read back. Frames wait meanwhile.
    replay: Option<Replay>,
    /// Why it is not known which transactions others see, if so.
    visibility: Result<Visibility, &'static str>,
    /// What was read and is not given out, for not everybody sees it yet. Reading waits meanwhile.
    held: Part<PostgresCheckpoint>,
    bytes: metrics::Counter,
}

/// What became of a relation message's table.
type Learnt = Result<Option<(u32, Relayed)>, ConnectorError>;

/// Whether a table is being looked up. That is a task of its own: a call of [`Source::next`] that is dropped only stops
/// waiting for it, and the next call goes on.
enum Learning {
    /// Nothing is.
    Idle(Box<Learner>),
    /// Reading waits for it.
    Busy(AbortOnDropHandle<(Learner, Learnt)>),
    /// The task has failed.
    Over,
}

impl PostgresSource {
    /// Starts streaming behind the checkpoint, or where the slot stands if there is none.
    ///
    /// # Errors
    /// The server cannot be reached, the slot is in use, or the database is not the checkpoint's.
    pub async fn open(
        name: &str,
        settings: &PostgresSettings,
        prepared: &Prepared,
        dependent: Arc<dyn Dependent>,
        health: Reporter,
    ) -> Result<Self, ConnectorError> {
        let endpoint = hosts::find(&settings.url).await?;
        let (mut wire, system) = ReplicationStream::connect(&endpoint).await?;
        let (texts, unconverted) = texts(&mut wire, settings).await?;
        if prepared.make_failover {
            let command = format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", quote(&settings.slot));
            wire.query("ALTER_REPLICATION_SLOT", &command).await?;
            tracing::info!(slot = settings.slot, "the slot is kept on standbys from now on");
        }
        let mark = match &prepared.checkpoint {
            Some(checkpoint) if checkpoint.system != system.identifier => {
                return Err(other_system(&settings.slot, &checkpoint.system, &system.identifier));
            }
            Some(checkpoint) => {
                let followed = timeline::follow(&mut wire, &system, checkpoint).await?;
                PostgresCheckpoint { database: endpoint.database.clone(), ..followed }
            }
            None => PostgresCheckpoint {
                version: 1,
                system: system.identifier,
                timeline: system.timeline,
                database: endpoint.database.clone(),
                slot: settings.slot.clone(),
                lsn: prepared.slot_position,
                transaction: None,
                changed: None,
                sequence: 0,
            },
        };
        // A message within a transaction in progress does not name its sub-transaction, so it could not be taken back with it.
        let streaming = settings.streaming.as_deref().filter(|_| !settings.messages);
        let at_prepare = settings.prepared == PreparedTransactions::AtPrepare;
        // See `two_phase`: the slot is marked where no transaction is half done.
        let two_phase = at_prepare && (prepared.two_phase || mark.transaction.is_none());
        let protocol = match (streaming, prepared.server_version) {
            (None, _) if two_phase => "proto_version '3', two_phase 'on'",
            (None, _) => "proto_version '1'",
            (Some(_), ..160_000) if two_phase => "proto_version '3', two_phase 'on', streaming 'on'",
            (Some(_), _) if two_phase => "proto_version '4', two_phase 'on', streaming 'parallel'",
            (Some(_), ..160_000) => "proto_version '2', streaming 'on'",
            (Some(_), _) => "proto_version '4', streaming 'parallel'",
        };
        let messages = if settings.messages { ", messages 'true'" } else { "" };
        let text_only = prepared.tables.iter().find(|table| table.text_only.is_some());
        if let (true, Some(table)) = (settings.binary, text_only) {
            tracing::debug!(table = %table.schema.qualified_name(), column = table.text_only, "values travel as text");
        }
        // A number in the binary form looks as a text in another encoding does.
        let binary = settings.binary && text_only.is_none() && !(unconverted && wire.encoding() != "SQL_ASCII");
        let values = if binary { ", binary 'true'" } else { "" };
        let command = format!(
            "START_REPLICATION SLOT {} LOGICAL {} ({protocol}, publication_names {}{messages}{values})",
            quote(&settings.slot),
            mark.lsn,
            literal(&quote(&settings.publication))
        );
        let stream = ReplicationStream::start(wire, &command, &settings.slot, mark.lsn).await?;
        // The slot is ours, and so is the folder.
        let streamed = streaming.map(|folder| Streamed::open(folder, name)).transpose()?;
        let session = Arc::new(Session::new(endpoint.clone()));
        let held = Held::new(name, health);
        let visibility = Visibility::open(session.clone(), settings.prepared, held.clone()).await?;
        let mut types = Types::new(settings.values);
        types.remember(prepared.earlier_types.iter().cloned());
        // All tables of a reading share them.
        types.remember(prepared.tables.first().into_iter().flat_map(|table| table.known_types.iter().cloned()));
        let source = Arc::new(SourceInfo {
            name: name.into(),
            kind: SourceKind::PostgreSql,
            database: endpoint.database.as_str().into(),
        });
        // Where a source begins is its first mark: a database in which nothing happens would not give it another for long.
        let first = prepared.checkpoint.is_none().then(|| mark.clone());
        Ok(Self {
            stream,
            assembler: Assembler::new(source, mark).with_texts(texts.clone()),
            learning: Learning::Idle(Box::new(Learner {
                session,
                held,
                publication: settings.publication.clone(),
                types,
                wanted: settings.table_names(),
                keys: settings.keys.clone(),
                captured: prepared.tables.iter().map(|t| (t.oid, t.name())).collect(),
                begun_with: prepared.tables.iter().map(|t| (t.oid, t.clone())).collect(),
                primary_keys: None,
                dropped_types: settings.dropped_types,
                binary,
                texts,
                dependent,
            })),
            frames: Bytes::new(),
            at: 0,
            streamed,
            binary,
            unconverted,
            two_phase_waits: at_prepare && !two_phase,
            replay: None,
            visibility,
            held: Part { mark: first, ..Part::default() },
            bytes: metrics::counter!("tributary_connector_bytes_total", "source" => name.to_owned()),
        })
    }

    /// The source as its events name it.
    pub fn info(&self) -> &Arc<SourceInfo> {
        self.assembler.source()
    }

    /// Why an event may be given out before everybody sees its change; none if that is ruled out.
    pub fn is_ahead(&self) -> Option<&'static str> {
        self.visibility.as_ref().err().copied()
    }

    /// Reads frames until the part is full, a table must be looked up, or there are no more.
    fn read(&mut self, part: &mut Part<PostgresCheckpoint>) -> Result<(), ConnectorError> {
        let frames = self.frames.clone();
        let (begin, was) = (self.at, self.assembler.lsn());
        let capture_us = now_us();
        while self.at < frames.len() && part.events.len() < PART_EVENTS && self.at - begin < PART_BYTES {
            match self.stream.frame(&frames, &mut self.at)? {
                Some(Frame::Data { start, payload }) => {
                    if let Some(streamed) = &mut self.streamed {
                        match streamed.take(payload, start)? {
                            Taken::Not => {}
                            Taken::Kept => continue,
                            Taken::Committed(replay) => {
                                self.assembler.committed(replay.committed)?;
                                self.replay = Some(replay);
                                break;
                            }
                        }
                    }
                    match self.assembler.message(&frames, payload, start, capture_us, &mut part.events)? {
                        Next::GoOn if self.is_over() => break,
                        Next::GoOn => {}
                        Next::ForgetTypes => self.learning.forget_types(),
                        Next::LookUp => {
                            self.learning.begin(Bytes::copy_from_slice(payload), self.assembler.within());
                            break;
                        }
                    }
                }
                Some(Frame::Keepalive { end, reply }) => {
                    self.assembler.keepalive(end);
                    part.urgent |= reply && self.assembler.lsn() > self.stream.confirmed();
                }
                None => {}
            }
        }
        self.bytes.increment((self.at - begin) as u64);
        if !part.events.is_empty() || self.assembler.lsn() > was || part.urgent {
            part.mark = Some(self.assembler.mark(part.events.last()));
        }
        Ok(())
    }

    /// Whether the stream has come to where it must begin anew.
    fn is_over(&self) -> bool {
        self.two_phase_waits && !self.assembler.is_half_done()
    }

    /// The same, from a transaction that was kept while it was in progress.
    fn read_back(&mut self, part: &mut Part<PostgresCheckpoint>) -> Result<(), ConnectorError> {
        let Some(replay) = &mut self.replay else { return Ok(()) };
        let (capture_us, mut bytes) = (now_us(), 0);
        while part.events.len() < PART_EVENTS && bytes < PART_BYTES {
            let Some(kept) = replay.next()? else {
                self.assembler.end(replay.committed.end);
                self.replay = None;
                part.mark = Some(self.assembler.mark(part.events.last()));
                return Ok(());
            };
            bytes += kept.payload.len();
            match self.assembler.message(&kept.payload, &kept.payload, kept.start, capture_us, &mut part.events)? {
                Next::GoOn => {}
                Next::ForgetTypes => self.learning.forget_types(),
                Next::LookUp => {
                    // A copy: the payload shares a block of the file.
                    self.learning.begin(Bytes::copy_from_slice(&kept.payload), self.assembler.within());
                    break;
                }
            }
        }
        if !part.events.is_empty() {
            part.mark = Some(self.assembler.mark(part.events.last()));
        }
        Ok(())
    }

    /// Waits for the table that reading stopped at, if there is one. Cancel-safe.
    async fn learn(&mut self) -> Result<(), ConnectorError> {
        let Learning::Busy(task) = &mut self.learning else { return Ok(()) };
        let ended = tokio::select! {
            ended = task => ended,
            broken = self.stream.keep_alive() => return broken,
        };
        let (learner, learnt) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                self.learning = Learning::Over;
                return Err(ConnectorError::Task(error.to_string()));
            }
        };
        self.learning = Learning::Idle(Box::new(learner));
        if let Some((relation, table)) = learnt? {
            self.assembler.learn(relation, table);
        }
        Ok(())
    }
}

impl Learning {
    fn begin(&mut self, relation: Bytes, within: Option<Within>) {
        *self = match std::mem::replace(self, Self::Over) {
            Self::Idle(learner) => Self::Busy(AbortOnDropHandle::new(tokio::spawn(learner.learn(relation, within)))),
            other => other,
        };
    }

    fn forget_types(&mut self) {
        if let Self::Idle(learner) = self {
            learner.types.clear();
        }
    }
}

/// How the texts of a stream are read, and whether the server leaves them in the encoding of the database: always where that is
/// none, and elsewhere if it could not convert one.
async fn texts(wire: &mut Wire, settings: &PostgresSettings) -> Result<(Arc<Texts>, bool), ConnectorError> {
    const AS_STORED: &str = "SET client_encoding = 'SQL_ASCII'";
    let unconverted = settings.unconverted || wire.encoding() == "SQL_ASCII";
    let mut charset = None;
    if unconverted {
        wire.query("setting client_encoding", AS_STORED).await?;
        if wire.encoding() != "SQL_ASCII" {
            let sql = Sql::connect(wire.endpoint()).await?;
            charset = Charset::load(&sql, wire.encoding()).await?;
        }
    }
    Ok((Arc::new(Texts::new(settings.invalid_text, charset, wire.encoding())), unconverted))
}

impl PostgresSource {
    /// An error that binary values may be the cause of: a type whose send function fails, in whatever table of the
    /// publication, or a value in an unknown form. The stream shows whether text ends in the same error.
    fn doubt(&self, error: ConnectorError) -> ConnectorError {
        match error {
            ConnectorError::Database { class: ErrorClass::Fatal, .. } | ConnectorError::Protocol { .. }
                if self.binary =>
            {
                ConnectorError::TextOnly { cause: error.to_string() }
            }
            // It was not for us to convert, so there is no more that we could do about it.
            ConnectorError::Unconverted { cause } if self.unconverted => ConnectorError::Database {
                place: format!("{}: {STREAMING}", self.stream.place()),
                cause,
                code: "22021".into(),
                class: ErrorClass::Fatal,
            },
            error => error,
        }
    }

    /// The next part, when everybody sees it.
    async fn fill(&mut self, part: &mut Part<PostgresCheckpoint>) -> Result<(), ConnectorError> {
        if self.held.mark.is_none() {
            self.read_on(part).await?;
            if self.visibility.as_ref().map_or(true, |visibility| visibility.sees(&part.events)) {
                return Ok(());
            }
            std::mem::swap(part, &mut self.held);
        }
        if let Ok(visibility) = &mut self.visibility {
            tokio::select! {
                seen = visibility.until_seen(&self.held.events) => seen?,
                broken = self.stream.keep_alive() => return broken,
            }
        }
        std::mem::swap(part, &mut self.held);
        Ok(())
    }

    async fn read_on(&mut self, part: &mut Part<PostgresCheckpoint>) -> Result<(), ConnectorError> {
        if self.is_over() {
            return Err(ConnectorError::Server {
                place: format!("source {}", self.info().name),
                cause: "the transaction is over that was published in part before prepared_transactions was set to at-prepare"
                    .into(),
                remedy: "the stream begins anew with it".into(),
                class: ErrorClass::Transient,
            });
        }
        loop {
            self.learn().await?;
            if self.replay.is_some() {
                self.stream.tend().await?;
                self.read_back(part)?;
                if part.mark.is_some() {
                    return Ok(());
                }
                continue;
            }
            if self.at >= self.frames.len() {
                // The old frames go first, so that their memory can be used again.
                self.frames = Bytes::new();
                self.at = 0;
                self.frames = self.stream.frames().await?;
            }
            self.read(part)?;
            if part.mark.is_some() {
                return Ok(());
            }
        }
    }
}

impl Source for PostgresSource {
    type Mark = PostgresCheckpoint;

    async fn next(&mut self, part: &mut Part<PostgresCheckpoint>) -> Result<(), ConnectorError> {
        part.clear();
        self.fill(part).await.map_err(|error| self.doubt(error))
    }

    async fn keep_alive(&mut self) -> Result<(), ConnectorError> {
        self.stream.keep_alive().await.map_err(|error| self.doubt(error))
    }

    fn acknowledge(&mut self, mark: &PostgresCheckpoint) {
        self.stream.confirm(mark.lsn);
    }

    async fn close(&mut self) {
        self.stream.close().await;
    }
}
