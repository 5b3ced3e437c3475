//! The log as it comes from the server: one event after another, and where each lies.

use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_128;

use super::Wire;
use super::endpoint::Endpoint;
use super::failure::ServerError;
use super::session::literal;
use crate::error::ConnectorError;
use crate::mysql::cursor::Malformed;
use crate::mysql::position::LogPosition;

const READING: &str = "reading the log";
/// The server says that nothing has happened so often.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// A server that says nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// The first bytes of every file.
const FIRST: u64 = 4;
/// The flag that the statements of rows are asked for (MariaDB, `BINLOG_SEND_ANNOTATE_ROWS_EVENT`).
const ANNOTATED: u16 = 0x2;

/// Who reads, as the server tells readers apart: one that comes again replaces the one before.
#[derive(Debug, Clone)]
pub(in crate::mysql) struct Identity {
    server_id: u32,
    uuid: String,
}

impl Identity {
    /// That of a name.
    pub(in crate::mysql) fn of(name: &str) -> Self {
        let digest = xxh3_128(name.as_bytes());
        let digits = format!("{digest:032x}");
        let uuid = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-");
        // Servers have small numbers, as a rule.
        Self { server_id: 0x4000_0000 | digest as u32 >> 2, uuid }
    }
}

/// The log, from a position on.
pub(in crate::mysql) struct LogStream {
    wire: Wire,
}

impl LogStream {
    /// Asks for the log. `with_queries`: and for the statements of its rows, which MariaDB sends to who asks for them.
    pub(in crate::mysql) async fn open(
        endpoint: &Endpoint,
        is_mariadb: bool,
        identity: &Identity,
        from: &LogPosition,
        with_queries: bool,
    ) -> Result<Self, ConnectorError> {
        let mut wire = Wire::connect(endpoint).await?;
        let beat = HEARTBEAT.as_nanos();
        let mut settings = format!(
            "set @master_binlog_checksum = @@global.binlog_checksum, @source_binlog_checksum = @@global.binlog_checksum, \
             @master_heartbeat_period = {beat}, @source_heartbeat_period = {beat}, @slave_uuid = '{uuid}', @replica_uuid = '{uuid}', \
             session net_write_timeout = 86400",
            uuid = identity.uuid
        );
        if is_mariadb {
            settings.push_str(", @mariadb_slave_capability = 4, @slave_gtid_strict_mode = 1");
        }
        if let LogPosition::Domains(domains) = from {
            settings.push_str(&format!(", @slave_connect_state = {}", literal(&domains.to_string())));
        }
        wire.set("preparing the stream", &settings).await?;
        let mut body = Vec::new();
        match from {
            LogPosition::Gtids(set) => {
                // The flag that heartbeats have offsets of 64 bits, and that a set follows.
                body.put_u16_le(0x2 | 0x4);
                body.put_u32_le(identity.server_id);
                body.put_u32_le(0);
                body.put_u64_le(FIRST);
                let set = set.encode();
                body.put_u32_le(set.len() as u32);
                body.extend_from_slice(&set);
                wire.command(0x1e, &body).await?;
            }
            LogPosition::Domains(_) | LogPosition::File(_) => {
                let (file, offset) = match from {
                    LogPosition::File(at) => (at.file.as_str(), at.offset.max(FIRST)),
                    _ => ("", FIRST),
                };
                let Ok(offset) = u32::try_from(offset) else {
                    return Err(ConnectorError::lost(
                        format!("{}: {READING}", endpoint.place()),
                        format!(
                            "the offset {offset} in {file} is above 4 GB, and a server can be asked for less alone"
                        ),
                        "set gtid_mode = ON there, and give the source a new name; or keep files below (max_binlog_size)",
                    ));
                };
                body.put_u32_le(offset);
                body.put_u16_le(if is_mariadb && with_queries { ANNOTATED } else { 0 });
                body.put_u32_le(identity.server_id);
                body.extend_from_slice(file.as_bytes());
                wire.command(0x12, &body).await?;
            }
        }
        Ok(Self { wire })
    }

    /// The next event, if it has arrived.
    pub(in crate::mysql) fn arrived(&mut self) -> Result<Option<Bytes>, ConnectorError> {
        let Some(packet) = self.wire.arrived()? else { return Ok(None) };
        match packet.split_first() {
            Some((0, _)) => Ok(Some(packet.slice(1..))),
            Some((0xff, error)) => Err(ServerError::read(error).classify(self.wire.endpoint(), READING)),
            Some((0xfe, _)) => Err(self.wire.broken("the server ended the stream")),
            _ => Err(self.malformed("a packet", Malformed("it is none of the log"))),
        }
    }

    /// Whether an event has arrived.
    pub(in crate::mysql) fn has_arrived(&self) -> bool {
        self.wire.has_arrived()
    }

    /// Waits for more. Cancel-safe.
    pub(in crate::mysql) async fn wait(&mut self) -> Result<(), ConnectorError> {
        let begun = Instant::now();
        match timeout_at(begun + SILENCE, self.wire.read()).await {
            Ok(read) => read,
            Err(_) => Err(self.wire.broken(format!("the server has been silent for {SILENCE:?}"))),
        }
    }

    /// The next event. Cancel-safe.
    pub(in crate::mysql) async fn event(&mut self) -> Result<Bytes, ConnectorError> {
        loop {
            if let Some(event) = self.arrived()? {
                return Ok(event);
            }
            self.wait().await?;
        }
    }

    /// A packet that cannot be read.
    fn malformed(&self, what: &str, malformed: Malformed) -> ConnectorError {
        ConnectorError::protocol(format!("{}: {what}", self.wire.endpoint().place()), malformed.to_string())
    }

    pub(in crate::mysql) async fn close(&mut self) {
        self.wire.close().await;
    }
}
