//! The stream of one slot as a [`Source`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tributary_event::clock::now_us;
use tributary_event::{ErrorClass, SourceInfo, SourceKind, TableName};

use super::assembler::{Assembler, Next};
use super::catalog::{Types, Which, columns, index_columns, table_name, type_names};
use super::charset::Charset;
use super::endpoint::Endpoint;
use super::frame::Frame;
use super::hosts;
use super::pgoutput::{self, Message, Relation};
use super::prepare::Prepared;
use super::publication::Published;
use super::relation::{Decoder, Relayed, earlier_names, schema_name};
use super::slot::other_system;
use super::sql::Sql;
use super::sqlstate::{STREAMING, literal, quote};
use super::stream::ReplicationStream;
use super::streamed::{Replay, Streamed, Taken};
use super::texts::Texts;
use super::timeline;
use super::wire::Wire;
use crate::checkpoint::PostgresCheckpoint;
use crate::error::ConnectorError;
use crate::settings::{PostgresSettings, PreparedTransactions};
use crate::source::{Part, Source};

/// A part is given out when it has this many events, or was read from this many bytes of the log.
const PART_EVENTS: usize = 256;
const PART_BYTES: usize = 256 << 10;

/// How long a transaction is waited for that the log has and other sessions do not see yet.
const VISIBLE_WITHIN: Duration = Duration::from_secs(3);

/// A PostgreSQL slot, streaming.
pub struct PostgresSource {
    stream: ReplicationStream,
    assembler: Assembler,
    catalog: Catalog,
    wanted: Vec<(String, String)>,
    /// Declared keys: schema, table, columns.
    keys: Vec<(String, String, Vec<String>)>,
    /// The tables that the names meant at the start, by OID.
    captured: HashMap<u32, (String, String)>,
    frames: Bytes,
    at: usize,
    /// A relation message whose table must be looked up before reading goes on.
    unknown: Option<Bytes>,
    /// Transactions in progress, where the server streams them.
    streamed: Option<Streamed>,
    /// Whether the server sends values as its types' send functions write them.
    binary: bool,
    /// How texts are read.
    texts: Arc<Texts>,
    /// Whether the server leaves texts in the encoding of the database.
    unconverted: bool,
    /// Prepared transactions are to be sent when they are prepared, from the end of the half-done transaction on.
    two_phase_waits: bool,
    /// A transaction of these that has committed, while it is read back. Frames wait meanwhile.
    replay: Option<Replay>,
    bytes: metrics::Counter,
}

/// The session for questions about tables and types, opened when there is one.
struct Catalog {
    endpoint: Endpoint,
    publication: String,
    sql: Option<Sql>,
    types: Types,
}

impl PostgresSource {
    /// Starts streaming behind the checkpoint, or where the slot stands if there is none.
    ///
    /// # Errors
    /// The server cannot be reached, the slot is in use, or the database is not the checkpoint's.
    pub async fn open(name: &str, settings: &PostgresSettings, prepared: &Prepared) -> Result<Self, ConnectorError> {
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
        let source = Arc::new(SourceInfo {
            name: name.into(),
            kind: SourceKind::PostgreSql,
            database: endpoint.database.as_str().into(),
        });
        Ok(Self {
            stream,
            assembler: Assembler::new(source, mark).with_texts(texts.clone()),
            catalog: Catalog {
                endpoint,
                publication: settings.publication.clone(),
                sql: None,
                types: Types::new(settings.values),
            },
            wanted: settings.table_names(),
            keys: settings.keys.clone(),
            captured: prepared.tables.iter().map(|t| (t.oid, t.name())).collect(),
            frames: Bytes::new(),
            at: 0,
            unknown: None,
            streamed,
            binary,
            texts,
            unconverted,
            two_phase_waits: at_prepare && !two_phase,
            replay: None,
            bytes: metrics::counter!("tributary_connector_bytes_total", "source" => name.to_owned()),
        })
    }

    /// The source as its events name it.
    pub fn info(&self) -> &Arc<SourceInfo> {
        self.assembler.source()
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
                        Next::ForgetTypes => self.catalog.types.clear(),
                        Next::LookUp => {
                            self.unknown = Some(Bytes::copy_from_slice(payload));
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
                Next::ForgetTypes => self.catalog.types.clear(),
                Next::LookUp => {
                    // A copy: the payload shares a block of the file.
                    self.unknown = Some(Bytes::copy_from_slice(&kept.payload));
                    break;
                }
            }
        }
        if !part.events.is_empty() {
            part.mark = Some(self.assembler.mark(part.events.last()));
        }
        Ok(())
    }

    /// Looks up the table of the relation message that reading stopped at.
    async fn learn(&mut self) -> Result<(), ConnectorError> {
        let Some(message) = self.unknown.clone() else { return Ok(()) };
        let texts = self.texts.clone();
        let (readable, bad_name) = texts.message(&message);
        let Ok(Message::Relation(relation)) = pgoutput::decode(&readable) else {
            self.unknown = None;
            return Ok(());
        };
        if let Some(xid) = self.assembler.committed_xid() {
            self.catalog.wait_visible(xid).await?;
        }
        let mut name = (schema_name(&relation).to_owned(), relation.name.to_owned());
        let mut wanted = self.wanted.contains(&name);
        let mut renamed_from = None;
        if let (false, Some(captured)) = (wanted, self.captured.get(&relation.oid)) {
            if self.catalog.is_called(relation.oid, captured).await? {
                // An earlier name of a table that is listed by the one that it has now.
                (name, wanted) = (captured.clone(), true);
            } else {
                renamed_from = Some(format!("{}.{}", captured.0, captured.1));
            }
        }
        if let (true, true, Some(bad)) = (wanted, texts.stops(), bad_name) {
            return Err(texts.refuse_name(&TableName::new(name.0, name.1).to_string(), bad));
        }
        let types: Vec<(u32, i32)> = relation.columns().map(|c| (c.type_oid, c.modifier)).collect();
        let declared = self.keys.iter().find(|(s, t, _)| (s, t) == (&name.0, &name.1)).map(|(_, _, key)| key.clone());
        let (primary_key, names) =
            if wanted { self.catalog.describe(&relation, &types, declared).await? } else { Default::default() };
        let known = &self.catalog.types;
        let decoder =
            |&(oid, modifier): &(u32, i32)| Decoder { codec: known.codec(oid, modifier), form: known.form(oid) };
        let decoders: Vec<_> = types.iter().map(decoder).collect();
        if let (true, true, Some(at)) = (self.binary, wanted, decoders.iter().position(|d| d.form.is_none())) {
            let column = relation.columns().nth(at).map_or("?", |c| c.name);
            let type_name = names.get(at).map_or("?", String::as_str);
            let cause =
                format!("table {}.{}, column {column}: values of type {type_name} are read as text", name.0, name.1);
            return Err(ConnectorError::TextOnly { cause });
        }
        let mut table = Relayed::new(&relation, message.clone(), &name, &primary_key, decoders, names, wanted);
        table.renamed_from = renamed_from;
        table.texts = texts.clone();
        tracing::debug!(table = %table.schema.qualified_name(), wanted, "table seen in the log");
        self.assembler.learn(relation.oid, table);
        self.unknown = None;
        Ok(())
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

impl Catalog {
    async fn session(&mut self) -> Result<Sql, ConnectorError> {
        match self.sql.take() {
            Some(sql) if !sql.is_closed() => Ok(sql),
            _ => Sql::connect(&self.endpoint).await,
        }
    }

    /// Waits until a transaction that has committed is visible. The log has its commit a moment before other sessions do, and
    /// with it names and keys of tables; where it waits for a synchronous standby, that may take longer than is waited for.
    async fn wait_visible(&mut self, xid: u32) -> Result<(), ConnectorError> {
        const RUNS: &str = "select exists (select from pg_snapshot_xip(pg_current_snapshot()) x \
            where x::text::numeric % 4294967296 = $1::int8)";
        let sql = self.session().await?;
        let end = Instant::now() + VISIBLE_WITHIN;
        while Instant::now() < end {
            let rows = sql.query("asking whether a transaction is visible", RUNS, &[&i64::from(xid)]).await?;
            if !rows.first().is_some_and(|row| row.get(0)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.sql = Some(sql);
        Ok(())
    }

    /// Whether the table has this schema and name now.
    async fn is_called(&mut self, table: u32, name: &(String, String)) -> Result<bool, ConnectorError> {
        let sql = self.session().await?;
        let is = table_name(&sql, table).await?.as_ref() == Some(name);
        self.sql = Some(sql);
        Ok(is)
    }

    /// The key of a table, the primary one unless another is declared, and the names of these types; also learns the types.
    async fn describe(
        &mut self,
        relation: &Relation<'_>,
        types: &[(u32, i32)],
        declared: Option<Vec<String>>,
    ) -> Result<(Vec<String>, Vec<String>), ConnectorError> {
        let sql = self.session().await?;
        self.types.load(&sql, types.iter().map(|(oid, _)| *oid)).await?;
        let mut key = match declared {
            Some(key) => key,
            None => index_columns(&sql, relation.oid, "indisprimary").await?,
        };
        if key.iter().any(|name| relation.columns().all(|c| c.name != name)) {
            // Renamed since this point of the log.
            let published = Published::read(&sql, &self.publication).await?;
            let name = (schema_name(relation), relation.name);
            let now = columns(&sql, relation.oid, Which::Published(&published), name).await?;
            let now: Vec<(&str, u32)> = now.iter().map(|c| (c.name.as_str(), c.type_oid)).collect();
            key = earlier_names(relation, &now, &key);
        }
        let answer = (key, type_names(&sql, types).await?);
        self.sql = Some(sql);
        Ok(answer)
    }
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
                place: format!("{}: {STREAMING}", self.catalog.endpoint.place()),
                cause,
                code: "22021".into(),
                class: ErrorClass::Fatal,
            },
            error => error,
        }
    }

    async fn fill(&mut self, part: &mut Part<PostgresCheckpoint>) -> Result<(), ConnectorError> {
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
            if self.unknown.is_some() {
                self.learn().await?;
            }
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
