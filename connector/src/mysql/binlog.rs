//! Events of a binary log: bytes → what they say. Pure.
//!
//! Reference: MySQL Source Code Documentation, `libs/mysql/binlog/event`; MariaDB Knowledge Base, "Replication Protocol", binlog events.

mod definition;
mod group;
mod header;
mod payload;
mod rows;
mod statement;
mod table_map;
mod xa;

pub(super) use definition::Unlogged;
pub(super) use group::{GroupStart, format_description, heartbeat, rotation};
pub(super) use header::{EventKind, HEADER, Header, is_intact};
pub(super) use payload::{Payload, Unreadable, uncompressed};
pub(super) use rows::{Change, Image, RowsEvent, ends_statement, expanded, rows_query};
pub(super) use statement::{Statement, StatementKind};
pub(super) use table_map::{ColumnMap, TableMap, types};
