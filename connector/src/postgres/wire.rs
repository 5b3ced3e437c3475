//! A connection that speaks the frontend/backend protocol 3.0: connecting, TLS, login, simple queries, raw frames.
//!
//! Reference: PostgreSQL documentation, "Frontend/Backend Protocol": Start-up, SSL Session Encryption, SASL Authentication,
//! Message Formats.

mod binding;
pub(super) mod endpoint;
pub(super) mod frame;
pub(super) mod hosts;
pub(super) mod replication;
pub(super) mod session;
pub(super) mod sql;
pub(super) mod sqlstate;

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};
use postgres_protocol::message::backend::{ErrorFields, Message};
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use self::endpoint::{ChannelBinding, Endpoint, TlsMode};
use self::session::SESSION_REPLICATION;
use self::sqlstate::{LOGGING_IN, ServerError, not_a_server};
use crate::error::ConnectorError;
use crate::net::{Socket, Stream, notice_a_cut};

/// How much is read at once; memory beyond it grows only with bytes that have arrived.
const READ: usize = 256 << 10;

/// A logged-in replication connection.
pub(super) struct Wire {
    stream: Stream,
    input: BytesMut,
    output: BytesMut,
    endpoint: Endpoint,
    /// The encoding of the database.
    encoding: String,
}

impl Wire {
    /// Connects and logs in with `replication=database`.
    pub(super) async fn connect(endpoint: &Endpoint) -> Result<Self, ConnectorError> {
        let opening = async {
            match Self::open(endpoint, false).await {
                Err(error) if session::ended_too_early(&error) => Self::open(endpoint, true).await,
                opened => opened,
            }
        };
        let timeout = endpoint.connect_timeout;
        match tokio::time::timeout(timeout, Box::pin(opening)).await {
            Ok(result) => result,
            Err(_) => Err(ConnectorError::unreachable(endpoint.place(), format!("no answer within {timeout:?}"))),
        }
    }

    async fn open(endpoint: &Endpoint, all_settings: bool) -> Result<Self, ConnectorError> {
        let unreachable = |e: io::Error| ConnectorError::unreachable(endpoint.place(), e);
        let stream = if endpoint.is_unix() {
            let path = format!("{}/.s.PGSQL.{}", endpoint.host, endpoint.port);
            Stream::Unix(UnixStream::connect(path).await.map_err(unreachable)?)
        } else {
            let tcp = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await.map_err(unreachable)?;
            tcp.set_nodelay(true).map_err(unreachable)?;
            notice_a_cut(&tcp).map_err(unreachable)?;
            secure(tcp, endpoint).await?
        };
        let mut wire = Self {
            stream,
            input: BytesMut::with_capacity(READ),
            output: BytesMut::new(),
            endpoint: endpoint.clone(),
            encoding: String::new(),
        };
        wire.log_in(all_settings).await?;
        let told = wire.query(LOGGING_IN, &session::set_later()).await?;
        session::check_told(endpoint, told.first().and_then(|row| row.first()?.as_deref()))?;
        Ok(wire)
    }

    async fn log_in(&mut self, all_settings: bool) -> Result<(), ConnectorError> {
        let endpoint = self.endpoint.clone();
        let mut parameters = vec![
            ("user", endpoint.user.as_str()),
            ("database", endpoint.database.as_str()),
            ("replication", "database"),
            ("application_name", endpoint.application_name.as_str()),
        ];
        for setting in session::from_the_first(all_settings).chain(SESSION_REPLICATION.iter().copied()) {
            parameters.push(setting);
        }
        frontend::startup_message(parameters, &mut self.output).map_err(|e| self.broken(e))?;
        let mut scram: Option<ScramSha256> = None;
        let (mut bound, mut proved) = (false, false);
        loop {
            self.flush().await?;
            let message = match self.message().await {
                Err(ConnectorError::Protocol { cause, .. }) => return Err(not_a_server(&endpoint, &cause)),
                message => message?,
            };
            match message {
                Message::AuthenticationOk if scram.is_some() && !proved => {
                    return Err(self.unexpected("a login before the server proved that it knows the password"));
                }
                Message::AuthenticationOk if endpoint.channel_binding == ChannelBinding::Require && !bound => {
                    return Err(self.unbound("it let us in without channel binding"));
                }
                // Not even shown to a server that may be an impostor.
                Message::AuthenticationCleartextPassword | Message::AuthenticationMd5Password(_)
                    if endpoint.channel_binding == ChannelBinding::Require =>
                {
                    return Err(self.unbound("it asks for the password itself"));
                }
                Message::ParameterStatus(body) if body.name().is_ok_and(|name| name == "server_encoding") => {
                    self.encoding = body.value().map_err(|e| self.broken(e))?.to_owned();
                }
                Message::AuthenticationOk
                | Message::ParameterStatus(_)
                | Message::BackendKeyData(_)
                | Message::NoticeResponse(_) => {}
                Message::ReadyForQuery(_) => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    let password = self.password()?;
                    frontend::password_message(password.as_bytes(), &mut self.output).map_err(|e| self.broken(e))?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(endpoint.user.as_bytes(), self.password()?.as_bytes(), body.salt());
                    frontend::password_message(hash.as_bytes(), &mut self.output).map_err(|e| self.broken(e))?;
                }
                Message::AuthenticationSasl(body) => {
                    let offered: Vec<String> =
                        body.mechanisms().map(|m| Ok(m.to_owned())).collect().map_err(|e| self.broken(e))?;
                    let (mechanism, binding) = self.mechanism(&offered)?;
                    let exchange = ScramSha256::new(self.password()?.as_bytes(), binding);
                    frontend::sasl_initial_response(mechanism, exchange.message(), &mut self.output)
                        .map_err(|e| self.broken(e))?;
                    bound = mechanism == SCRAM_SHA_256_PLUS;
                    scram = Some(exchange);
                }
                Message::AuthenticationSaslContinue(body) => {
                    let Some(exchange) = &mut scram else { return Err(self.unexpected("a SASL challenge")) };
                    let answered = exchange.update(body.data());
                    answered.map_err(|e| self.distrusted(&e))?;
                    if let Some(exchange) = &scram {
                        frontend::sasl_response(exchange.message(), &mut self.output).map_err(|e| self.broken(e))?;
                    }
                }
                Message::AuthenticationSaslFinal(body) => {
                    let Some(exchange) = &mut scram else { return Err(self.unexpected("a SASL result")) };
                    let verified = exchange.finish(body.data());
                    verified.map_err(|e| self.distrusted(&e))?;
                    proved = true;
                }
                Message::ErrorResponse(body) => {
                    return Err(server_error(body.fields()).classify(&endpoint, LOGGING_IN));
                }
                _ => return Err(self.unsupported("another method than trust, password, md5 or SCRAM-SHA-256")),
            }
        }
    }

    /// The SASL mechanism, the strongest of those offered that the connection allows.
    fn mechanism(&self, offered: &[String]) -> Result<(&'static str, sasl::ChannelBinding), ConnectorError> {
        let offers = |mechanism: &str| offered.iter().any(|m| m == mechanism);
        let end_point = match &self.stream {
            Stream::Tls(stream) if self.endpoint.channel_binding != ChannelBinding::Disable => {
                let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                certificates.first().and_then(|certificate| binding::end_point(certificate))
            }
            _ => None,
        };
        let required = self.endpoint.channel_binding == ChannelBinding::Require;
        match end_point {
            Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
                Ok((SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
            }
            _ if required => Err(self.unbound("it offers no channel binding over this connection")),
            // Says that we could have bound, so that a man in the middle who took the offer away is found out.
            Some(_) if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unrequested())),
            None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
            _ => Err(self.unsupported(&format!("SASL with {}", offered.join(", ")))),
        }
    }

    fn unbound(&self, cause: &str) -> ConnectorError {
        ConnectorError::Authentication {
            place: self.endpoint.place(),
            cause: format!("{cause}, and channel_binding is require"),
            remedy: "use TLS and let pg_hba.conf ask this user for scram-sha-256".into(),
        }
    }

    fn password(&self) -> Result<String, ConnectorError> {
        self.endpoint.password.as_ref().map(|p| p.expose().to_owned()).ok_or_else(|| ConnectorError::Authentication {
            place: self.endpoint.place(),
            cause: format!("it asks for the password of user {}, and the source's url has none", self.endpoint.user),
            remedy: "write it as postgres://user:password@host/database, or name its file with password_file".into(),
        })
    }

    fn unsupported(&self, method: &str) -> ConnectorError {
        ConnectorError::Authentication {
            place: self.endpoint.place(),
            cause: format!("it asks for {method}, which is not supported"),
            remedy: "let pg_hba.conf ask this user for scram-sha-256".into(),
        }
    }

    fn distrusted(&self, error: &io::Error) -> ConnectorError {
        ConnectorError::Authentication {
            place: self.endpoint.place(),
            cause: format!("the server could not prove that it knows the password: {error}"),
            remedy: "check the password and that this is the right server".into(),
        }
    }

    fn unexpected(&self, what: &str) -> ConnectorError {
        ConnectorError::protocol(self.endpoint.place(), format!("the server sent {what} at the wrong time"))
    }

    pub(super) fn broken(&self, error: impl ToString) -> ConnectorError {
        ConnectorError::unreachable(self.endpoint.place(), error)
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The encoding of the database, as PostgreSQL calls it.
    pub(super) fn encoding(&self) -> &str {
        &self.encoding
    }

    /// The next message, parsed. For everything but the stream of changes.
    pub(super) async fn message(&mut self) -> Result<Message, ConnectorError> {
        loop {
            match Message::parse(&mut self.input) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => self.read().await?,
                Err(e) => return Err(ConnectorError::protocol(self.endpoint.place(), e.to_string())),
            };
        }
    }

    /// Runs one command of the simple query protocol and returns its rows.
    pub(super) async fn query(&mut self, action: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, ConnectorError> {
        frontend::query(sql, &mut self.output).map_err(|e| self.broken(e))?;
        self.flush().await?;
        let (mut rows, mut failure) = (Vec::new(), None);
        loop {
            match self.message().await? {
                Message::DataRow(row) => {
                    let bytes = row.buffer();
                    let mut cells = Vec::new();
                    let mut ranges = row.ranges();
                    while let Some(range) = ranges.next().map_err(|e| self.broken(e))? {
                        let cell = range.and_then(|r| bytes.get(r)).map(|b| String::from_utf8_lossy(b).into_owned());
                        cells.push(cell);
                    }
                    rows.push(cells);
                }
                Message::ErrorResponse(body) => {
                    failure = Some(server_error(body.fields()).classify(&self.endpoint, action));
                }
                Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    /// Waits for CopyBothResponse; what follows it stays to be read. A server's error comes back as it is.
    pub(super) async fn start_copy(&mut self) -> Result<Result<(), ServerError>, ConnectorError> {
        const COPY_BOTH_RESPONSE: u8 = b'W';
        loop {
            match self.input.first_chunk::<5>() {
                Some(&[COPY_BOTH_RESPONSE, a, b, c, d]) => {
                    let length = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
                    if self.input.len() >= length {
                        self.input.advance(length);
                        return Ok(Ok(()));
                    }
                    self.read().await?;
                }
                None => {
                    self.read().await?;
                }
                Some(_) => {
                    if let Message::ErrorResponse(body) = self.message().await? {
                        return Ok(Err(server_error(body.fields())));
                    }
                }
            }
        }
    }

    /// Appends to what [`Wire::flush`] will send.
    pub(super) fn output(&mut self) -> &mut BytesMut {
        &mut self.output
    }

    /// Sends everything that was appended. Cancel-safe: what is not sent stays.
    pub(super) async fn flush(&mut self) -> Result<(), ConnectorError> {
        if self.output.is_empty() {
            return Ok(());
        }
        while self.output.has_remaining() {
            let sent = self.stream.write_buf(&mut self.output).await;
            if sent.map_err(|e| self.broken(e))? == 0 {
                return Err(self.broken("the connection was closed"));
            }
        }
        let flushed = self.stream.flush().await;
        flushed.map_err(|e| self.broken(e))
    }

    /// Reads what has arrived, at least one byte, and says how many. Cancel-safe.
    pub(super) async fn read(&mut self) -> Result<usize, ConnectorError> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        match self.stream.read_buf(&mut self.input).await {
            Ok(0) => Err(self.broken("the server closed the connection")),
            Ok(n) => Ok(n),
            Err(e) => Err(self.broken(e)),
        }
    }

    /// What arrives wakes nobody until there is nothing to read: for a stream that is read again and again.
    pub(super) fn be_quiet(&mut self) -> Result<(), ConnectorError> {
        let quiet = match &mut self.stream {
            Stream::Plain(socket) => socket.be_quiet(),
            Stream::Tls(stream) => stream.get_mut().0.be_quiet(),
            Stream::Unix(_) => Ok(()),
        };
        quiet.map_err(|e| self.broken(e))
    }

    /// All complete frames that have arrived (each: kind, length, body), as one piece of shared memory.
    pub(super) fn frames(&mut self) -> Result<Option<Bytes>, ConnectorError> {
        let end = frame::complete(&self.input).map_err(|length| {
            ConnectorError::protocol(self.endpoint.place(), format!("a message of length {length}"))
        })?;
        Ok((end > 0).then(|| self.input.split_to(end).freeze()))
    }
}

pub(super) fn server_error(mut fields: ErrorFields<'_>) -> ServerError {
    let mut error = ServerError::default();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => error.code = value,
            b'M' => error.message = value,
            b'D' => error.detail = Some(value),
            b'H' => error.hint = Some(value),
            _ => {}
        }
    }
    error
}

/// Asks for TLS as the mode says ("SSL Session Encryption").
async fn secure(mut tcp: TcpStream, endpoint: &Endpoint) -> Result<Stream, ConnectorError> {
    let Some(config) = endpoint.trust().config()? else { return Ok(Stream::Plain(Socket::Watched(tcp))) };
    let unreachable = |e: io::Error| ConnectorError::unreachable(endpoint.place(), e);
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await.map_err(unreachable)?;
    match tcp.read_u8().await.map_err(unreachable)? {
        b'S' => {}
        _ if endpoint.tls == TlsMode::Prefer => return Ok(Stream::Plain(Socket::Watched(tcp))),
        _ => {
            return Err(ConnectorError::Authentication {
                place: endpoint.place(),
                cause: "sslmode asks for TLS, and the server offers none".into(),
                remedy: "set ssl = on in postgresql.conf with a certificate, or lower sslmode in the source's url"
                    .into(),
            });
        }
    }
    let untrusted = |cause: String| ConnectorError::Authentication {
        place: endpoint.place(),
        cause: format!("TLS could not be established: {cause}"),
        remedy: "check sslmode and sslrootcert in the source's url, and the names in the server's certificate".into(),
    };
    let name = ServerName::try_from(endpoint.host.clone()).map_err(|e| untrusted(e.to_string()))?;
    match tokio_rustls::TlsConnector::from(config).connect(name, Socket::Watched(tcp)).await {
        Ok(stream) => Ok(Stream::Tls(Box::new(stream))),
        Err(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            Err(untrusted(error.to_string()))
        }
        // The server went away meanwhile.
        Err(error) => Err(unreachable(error)),
    }
}
