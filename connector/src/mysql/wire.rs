//! A connection that speaks the client/server protocol as far as a reader of the log needs it: login, settings, and the log.
//!
//! `mysql_async` has every other session. It cannot have this one: events reach over several packets, a group of them may be compressed as
//! a whole, and none may be lost without a word.
//!
//! Reference: MySQL Source Code Documentation, "Client/Server Protocol".

pub(super) mod certified;
pub(super) mod endpoint;
pub(super) mod failure;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
pub(super) mod log;
pub(super) mod session;

mod login;

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use self::endpoint::Endpoint;
use self::failure::ServerError;
use crate::error::ConnectorError;
use crate::net::{Socket, Stream, notice_a_cut};

/// How much is read at once; memory beyond it grows only with bytes that have arrived.
const READ: usize = 256 << 10;
/// The content of a packet that is continued by another one.
const FULL: usize = 0xff_ffff;
/// Bytes before the content of a packet: its length, and its number.
const HEAD: usize = 4;

/// A logged-in connection.
pub(super) struct Wire {
    stream: Stream,
    input: BytesMut,
    /// The first packets of one that is continued.
    begun: BytesMut,
    /// The number of the next packet.
    number: u8,
    endpoint: Endpoint,
}

impl Wire {
    /// Connects and logs in.
    pub(super) async fn connect(endpoint: &Endpoint) -> Result<Self, ConnectorError> {
        let wait = endpoint.connect_timeout;
        match tokio::time::timeout(wait, Box::pin(Self::open(endpoint))).await {
            Ok(result) => result,
            Err(_) => Err(ConnectorError::unreachable(endpoint.place(), format!("no answer within {wait:?}"))),
        }
    }

    async fn open(endpoint: &Endpoint) -> Result<Self, ConnectorError> {
        let mut wire = Self::reach(endpoint).await?;
        wire.log_in().await?;
        Ok(wire)
    }

    /// A connection that nobody is logged in at.
    async fn reach(endpoint: &Endpoint) -> Result<Self, ConnectorError> {
        let unreachable = |e: io::Error| ConnectorError::unreachable(endpoint.place(), e);
        let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(unreachable)?;
        tcp.set_nodelay(true).map_err(unreachable)?;
        notice_a_cut(&tcp).map_err(unreachable)?;
        let stream = Stream::Plain(Socket::Watched(tcp));
        let (input, begun) = (BytesMut::new(), BytesMut::new());
        Ok(Self { stream, input, begun, number: 0, endpoint: endpoint.clone() })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn broken(&self, cause: impl ToString) -> ConnectorError {
        ConnectorError::unreachable(self.endpoint.place(), cause)
    }

    fn unexpected(&self, cause: impl Into<String>) -> ConnectorError {
        ConnectorError::protocol(self.endpoint.place(), cause)
    }

    /// Runs statements that answer nothing.
    pub(super) async fn set(&mut self, doing: &str, sql: &str) -> Result<(), ConnectorError> {
        self.command(3, sql.as_bytes()).await?;
        match self.packet().await?.split_first() {
            Some((0, _)) => Ok(()),
            Some((0xff, error)) => Err(ServerError::read(error).classify(&self.endpoint, doing)),
            _ => Err(self.unexpected(format!("{doing}: an answer that is none"))),
        }
    }

    /// Sends a command.
    pub(super) async fn command(&mut self, command: u8, body: &[u8]) -> Result<(), ConnectorError> {
        self.number = 0;
        let mut content = Vec::with_capacity(body.len() + 1);
        content.push(command);
        content.extend_from_slice(body);
        self.send(&content).await
    }

    /// Sends one packet after another until the content is sent.
    async fn send(&mut self, content: &[u8]) -> Result<(), ConnectorError> {
        let mut out = Vec::with_capacity(content.len() + HEAD);
        let mut rest = content;
        loop {
            let (now, later) = rest.split_at(rest.len().min(FULL));
            out.extend_from_slice(&(now.len() as u32).to_le_bytes()[..3]);
            out.push(self.number);
            self.number = self.number.wrapping_add(1);
            out.extend_from_slice(now);
            rest = later;
            if now.len() < FULL {
                break;
            }
        }
        let sent = async {
            self.stream.write_all(&out).await?;
            self.stream.flush().await
        };
        sent.await.map_err(|e| ConnectorError::unreachable(self.endpoint.place(), e))
    }

    /// The length of the next packet's content, if that has been told.
    fn length(&self) -> Option<usize> {
        let (head, _) = self.input.split_first_chunk::<HEAD>()?;
        Some(u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize)
    }

    /// Takes the head of the next packet, if that has arrived: the length of the content behind it.
    fn head(&mut self) -> Result<Option<usize>, ConnectorError> {
        let Some(length) = self.length() else { return Ok(None) };
        if self.input.split_to(HEAD).last() != Some(&self.number) {
            return Err(self.unexpected("packets are out of order"));
        }
        self.number = self.number.wrapping_add(1);
        Ok(Some(length))
    }

    /// A packet that has arrived, joined with those that continue it.
    pub(super) fn arrived(&mut self) -> Result<Option<Bytes>, ConnectorError> {
        loop {
            if !self.has_arrived() {
                return Ok(None);
            }
            let Some(length) = self.head()? else { return Ok(None) };
            let content = self.input.split_to(length);
            if length == FULL {
                self.begun.extend_from_slice(&content);
                continue;
            }
            if self.begun.is_empty() {
                return Ok(Some(content.freeze()));
            }
            self.begun.extend_from_slice(&content);
            return Ok(Some(std::mem::take(&mut self.begun).freeze()));
        }
    }

    /// Whether a packet has arrived. It may be continued by one that has not.
    pub(super) fn has_arrived(&self) -> bool {
        self.length().is_some_and(|length| self.input.len() >= HEAD + length)
    }

    /// Reads what has come; waits until something has. Cancel-safe.
    pub(super) async fn read(&mut self) -> Result<(), ConnectorError> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(self.broken("the server closed the connection")),
            Ok(_) => Ok(()),
            Err(error) => Err(self.broken(error)),
        }
    }

    /// The next packet. Cancel-safe.
    pub(super) async fn packet(&mut self) -> Result<Bytes, ConnectorError> {
        loop {
            if let Some(packet) = self.arrived()? {
                return Ok(packet);
            }
            self.read().await?;
        }
    }

    /// Ends the connection. Best effort.
    pub(super) async fn close(&mut self) {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), self.stream.shutdown()).await;
    }
}
