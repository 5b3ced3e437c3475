//! Bytes → change event. The column types of the source are not on the wire, so a decoded value has the JSON type it
//! travelled as; encoding it again gives the same JSON.

use std::collections::HashMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytestring::ByteString;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::change::{ChangeEvent, LogicalMessage, Op, Origin, SourceInfo, SourceKind, TransactionInfo};
use crate::position::{LogGroup, Lsn, Position};
use crate::row::{Column, Row, TableSchema, Value};
use crate::scope::{Bound, KeyRange, Scope};

/// A message that is no change event.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The value is no JSON envelope.
    #[error("the message is no change event: {0}")]
    Envelope(#[source] serde_json::Error),
    /// The key is no JSON object.
    #[error("the key is no JSON object: {0}")]
    Key(#[source] serde_json::Error),
    /// `op` is none of c, u, d, r, t, m.
    #[error("unknown operation {0:?} (expected c, u, d, r, t or m)")]
    Op(String),
    /// `scope` is none of row, partition, range.
    #[error("unknown scope {0:?} (expected row, partition or range)")]
    Scope(String),
    /// The content of a logical message is not base64.
    #[error("the content of the message is no base64: {0}")]
    Content(#[source] base64::DecodeError),
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(default)]
    before: Option<serde_json::Map<String, Json>>,
    #[serde(default)]
    after: Option<serde_json::Map<String, Json>>,
    #[serde(default)]
    message: Option<Message>,
    source: Source,
    op: String,
    #[serde(default)]
    ts_ms: Option<i64>,
    #[serde(default)]
    ts_us: Option<i64>,
    #[serde(default)]
    transaction: Option<Transaction>,
    #[serde(default)]
    sequence: u64,
    #[serde(default)]
    unchanged: Vec<String>,
    #[serde(default)]
    partial: Vec<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    range: Option<Range>,
}

impl Envelope {
    fn scope(&mut self) -> Result<Scope, DecodeError> {
        match (self.scope.as_deref(), self.range.take()) {
            (None | Some("row"), _) => Ok(Scope::Row),
            (Some("partition"), _) => Ok(Scope::Partition),
            (Some("range"), Some(range)) => Ok(Scope::Range(Box::new(range.into()))),
            // Taken for less than it is, a row would be kept that is gone.
            (Some("range"), None) => Err(DecodeError::Scope("range without its ends".to_owned())),
            (Some(other), _) => Err(DecodeError::Scope(other.to_owned())),
        }
    }
}

#[derive(Deserialize)]
struct Range {
    from: Option<RangeEnd>,
    to: Option<RangeEnd>,
}

#[derive(Deserialize)]
struct RangeEnd {
    key: serde_json::Map<String, Json>,
    inclusive: bool,
}

impl From<Range> for KeyRange {
    fn from(range: Range) -> Self {
        let bound = |end: RangeEnd| Bound {
            key: end.key.into_iter().map(|(name, value)| (name.into(), from_json(value))).collect(),
            inclusive: end.inclusive,
        };
        Self { from: range.from.map(bound), to: range.to.map(bound) }
    }
}

#[derive(Deserialize)]
struct Message {
    prefix: String,
    content: String,
}

#[derive(Deserialize)]
struct Source {
    #[serde(default)]
    connector: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    db: String,
    #[serde(default)]
    schema: String,
    #[serde(default)]
    table: String,
    #[serde(default)]
    ts_ms: Option<i64>,
    #[serde(default)]
    ts_us: Option<i64>,
    #[serde(default)]
    sequence: Option<String>,
    #[serde(default, rename = "txId")]
    tx_id: Option<u64>,
    #[serde(default)]
    lsn: Option<u64>,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    origin_lsn: Option<u64>,
    #[serde(default)]
    server_id: u32,
    #[serde(default)]
    gtid: Option<String>,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    pos: u64,
    #[serde(default)]
    row: u32,
    #[serde(default)]
    thread: Option<u32>,
    #[serde(default)]
    query: Option<String>,
}

impl Source {
    /// The database, or the schema in it, that tables are of.
    fn schema(&self) -> &str {
        match SourceKind::from_name(&self.connector) {
            Some(SourceKind::MySql | SourceKind::MariaDb) => &self.db,
            _ => &self.schema,
        }
    }
}

#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    id: String,
    #[serde(default)]
    total_order: u64,
    #[serde(default)]
    data_collection_order: u64,
}

/// Decodes the messages of topics. Keeps the last schema seen of each table, so that rows share it.
#[derive(Debug, Default)]
pub struct Decoder {
    tables: HashMap<(String, String), Arc<TableSchema>>,
    source: Option<Arc<SourceInfo>>,
}

impl Decoder {
    /// A decoder that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The event of a message, or `None` for a tombstone (no value).
    pub fn decode(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Option<ChangeEvent>, DecodeError> {
        let Some(value) = value else { return Ok(None) };
        let mut envelope: Envelope = serde_json::from_slice(value).map_err(DecodeError::Envelope)?;
        let op = Op::from_letter(&envelope.op).ok_or_else(|| DecodeError::Op(envelope.op.clone()))?;
        let scope = envelope.scope()?;
        let message = envelope.message.as_ref().map(|m| {
            let content = STANDARD.decode(&m.content).map_err(DecodeError::Content)?;
            Ok(LogicalMessage { prefix: m.prefix.as_str().into(), content: content.into() })
        });
        let key: serde_json::Map<String, Json> = match key {
            // The key of a message is its prefix, which is no column.
            _ if message.is_some() => serde_json::Map::new(),
            Some(key) => serde_json::from_slice(key).map_err(DecodeError::Key)?,
            None => serde_json::Map::new(),
        };
        let table = self.table(&envelope, &key);
        let source = self.source(&envelope.source);
        let row = |map: Option<serde_json::Map<String, Json>>, unchanged: &[String], partial: &[String]| {
            map.map(|mut map| Row {
                values: table
                    .columns
                    .iter()
                    .map(|c| match map.remove(&*c.name) {
                        Some(value) => from_json(value),
                        None if unchanged.iter().any(|u| **u == *c.name) => Value::Unchanged,
                        None if partial.iter().any(|p| **p == *c.name) => Value::Partial,
                        None => Value::Null,
                    })
                    .collect(),
                table: table.clone(),
            })
        };
        let commit_us = envelope.source.ts_us.or(envelope.source.ts_ms.map(|ms| ms * 1_000)).unwrap_or(0);
        let of_log = envelope.source.file.as_deref().map(|file| {
            let source = &envelope.source;
            let begin = envelope.transaction.as_ref().and_then(|t| t.id.rsplit_once("pos=")?.1.parse().ok());
            let offset = begin.unwrap_or(source.pos);
            let gtid = source.gtid.as_deref().map(Into::into);
            Arc::new(LogGroup { gtid, file: file.into(), server_id: source.server_id, thread: source.thread, offset })
        });
        let position = match (SourceKind::from_name(&envelope.source.connector), envelope.source.lsn) {
            (Some(SourceKind::PostgreSql), Some(lsn)) => {
                let commit = envelope.source.sequence.as_deref().and_then(commit_of).unwrap_or(lsn);
                Position::Postgres { lsn: Lsn(lsn), commit: Lsn(commit) }
            }
            (Some(SourceKind::MySql | SourceKind::MariaDb), _) => match &of_log {
                Some(group) => {
                    Position::MySql { group: group.clone(), offset: envelope.source.pos, row: envelope.source.row }
                }
                None => Position::None,
            },
            _ => Position::None,
        };
        let tx_id = envelope.source.tx_id.or(of_log.map(|group| group.number()));
        let transaction = envelope.transaction.as_ref().zip(tx_id).map(|(t, id)| TransactionInfo {
            id,
            total_order: t.total_order,
            table_order: t.data_collection_order,
        });
        Ok(Some(ChangeEvent {
            before: row(envelope.before, &[], &[]),
            after: row(envelope.after, &envelope.unchanged, &envelope.partial),
            source,
            op,
            scope,
            message: message.transpose()?,
            position,
            origin: envelope.source.origin.as_deref().map(|name| {
                let commit = Lsn(envelope.source.origin_lsn.unwrap_or(0));
                Arc::new(Origin { name: name.into(), commit })
            }),
            query: envelope.source.query.map(Into::into),
            transaction,
            commit_us,
            capture_us: envelope.ts_us.or(envelope.ts_ms.map(|ms| ms * 1_000)).unwrap_or(commit_us),
            sequence: envelope.sequence,
            table,
        }))
    }

    fn table(&mut self, envelope: &Envelope, key: &serde_json::Map<String, Json>) -> Arc<TableSchema> {
        let mut names: Vec<&str> = Vec::new();
        for map in [&envelope.after, &envelope.before].into_iter().flatten() {
            names.extend(map.keys().map(String::as_str));
        }
        names.extend(envelope.unchanged.iter().chain(&envelope.partial).map(String::as_str));
        names.sort_unstable();
        names.dedup();
        let id = (envelope.source.schema().to_owned(), envelope.source.table.clone());
        if let Some(known) = self.tables.get(&id) {
            let same = known.columns.iter().map(|c| &*c.name).eq(names.iter().copied())
                && known.key.len() == key.len()
                && known.key.iter().all(|&i| key.contains_key(&*known.columns[i].name));
            if same {
                return known.clone();
            }
        }
        let index = |name: &str| names.binary_search(&name).ok();
        let keys = key.keys().filter_map(|name| index(name)).collect();
        let columns = names.iter().map(|name| Column { name: (*name).into(), type_name: ByteString::new() }).collect();
        let table = Arc::new(TableSchema::new(id.0.as_str(), id.1.as_str(), columns, keys));
        self.tables.insert(id, table.clone());
        table
    }

    fn source(&mut self, source: &Source) -> Arc<SourceInfo> {
        let kind = SourceKind::from_name(&source.connector).unwrap_or(SourceKind::PostgreSql);
        match &self.source {
            Some(known) if *known.name == *source.name && known.kind == kind && *known.database == *source.db => {
                known.clone()
            }
            _ => {
                let fresh = Arc::new(SourceInfo {
                    name: source.name.as_str().into(),
                    kind,
                    database: source.db.as_str().into(),
                });
                self.source = Some(fresh.clone());
                fresh
            }
        }
    }
}

/// The commit position in Debezium's `source.sequence`: a JSON array of two strings, in a string.
fn commit_of(sequence: &str) -> Option<u64> {
    let pair: Vec<Option<String>> = serde_json::from_str(sequence).ok()?;
    pair.first()?.as_ref()?.parse().ok()
}

fn from_json(value: Json) -> Value {
    match value {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(b),
        Json::Number(n) => match n.as_i64() {
            Some(i) => Value::Int(i),
            None if n.is_u64() => Value::UInt(n.as_u64().unwrap_or(u64::MAX)),
            None => Value::Float64(n.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(s) => Value::text(s),
        Json::Array(items) => Value::Array(items.into_iter().map(from_json).collect()),
        Json::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k.into(), from_json(v))).collect()),
    }
}
