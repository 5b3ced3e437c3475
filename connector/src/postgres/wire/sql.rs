//! Ordinary SQL sessions, for the catalog, the slot, and pages of keys.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::config::{ChannelBinding as Binding, SslMode};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage, SimpleQueryRow};
use tokio_util::task::AbortOnDropHandle;

use super::endpoint::{ChannelBinding, Endpoint, TlsMode};
use super::session;
use super::sqlstate::{LOGGING_IN, ServerError, not_a_server};
use crate::error::ConnectorError;

/// The SQLSTATE of bytes that are no text.
const NOT_IN_REPERTOIRE: &str = "22021";

/// What is found in answers that are no server's: of a web server, of SSH, of whatever else listens.
const FOREIGN: [&str; 3] = ["bytes remaining on stream", "InvalidContentType", "unexpected message"];

/// A session. Its connection task ends with it.
pub(in crate::postgres) struct Sql {
    client: Client,
    endpoint: Endpoint,
    _connection: AbortOnDropHandle<()>,
}

impl Sql {
    pub(in crate::postgres) async fn connect(endpoint: &Endpoint) -> Result<Self, ConnectorError> {
        match Self::answered(endpoint, false).await {
            Err(error) if session::ended_too_early(&error) => Self::answered(endpoint, true).await,
            opened => opened,
        }
    }

    /// Opens a session at a server that says something: who accepts connections and is silent is taken to be away.
    async fn answered(endpoint: &Endpoint, all_settings: bool) -> Result<Self, ConnectorError> {
        let wait = endpoint.connect_timeout;
        match timeout(wait, Box::pin(Self::open(endpoint, all_settings))).await {
            Ok(opened) => opened,
            Err(_) => Err(ConnectorError::unreachable(
                endpoint.place(),
                format!("it accepts connections, and has said nothing within {wait:?}"),
            )),
        }
    }

    async fn open(endpoint: &Endpoint, all_settings: bool) -> Result<Self, ConnectorError> {
        let mut config = Config::new();
        config
            .host(&endpoint.host)
            .port(endpoint.port)
            .user(&endpoint.user)
            .dbname(&endpoint.database)
            .application_name(&endpoint.application_name)
            .connect_timeout(endpoint.connect_timeout)
            // This client always reads, so silence means that nobody is there.
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10))
            .options(options(all_settings))
            .ssl_mode(match endpoint.tls {
                TlsMode::Disable => SslMode::Disable,
                TlsMode::Prefer => SslMode::Prefer,
                TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
            });
        config.channel_binding(match endpoint.channel_binding {
            ChannelBinding::Disable => Binding::Disable,
            ChannelBinding::Prefer => Binding::Prefer,
            ChannelBinding::Require => Binding::Require,
        });
        if let Some(password) = &endpoint.password {
            config.password(password.expose());
        }
        let failed = |error| describe(endpoint, LOGGING_IN, &error);
        let (client, task) = match endpoint.trust().config()? {
            Some(tls) if !endpoint.is_unix() => {
                let tls = tokio_postgres_rustls::MakeRustlsConnect::new((*tls).clone());
                let (client, connection) = config.connect(tls).await.map_err(failed)?;
                (client, tokio::spawn(run(connection)))
            }
            _ => {
                let (client, connection) = config.connect(NoTls).await.map_err(failed)?;
                (client, tokio::spawn(run(connection)))
            }
        };
        let sql = Self { client, endpoint: endpoint.clone(), _connection: AbortOnDropHandle::new(task) };
        let told = sql.texts(LOGGING_IN, &session::set_later()).await?;
        session::check_told(endpoint, told.first().and_then(|row| row.get(0)))?;
        Ok(sql)
    }

    /// Whether the connection has ended.
    pub(in crate::postgres) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    pub(in crate::postgres) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(in crate::postgres) async fn query(
        &self,
        action: &str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ConnectorError> {
        self.client.query(sql, parameters).await.map_err(|e| describe(&self.endpoint, action, &e))
    }

    /// Runs a statement through the simple protocol: every value comes as its type's own text.
    pub(in crate::postgres) async fn texts(
        &self,
        action: &str,
        sql: &str,
    ) -> Result<Vec<SimpleQueryRow>, ConnectorError> {
        let messages = self.client.simple_query(sql).await.map_err(|e| describe(&self.endpoint, action, &e))?;
        Ok(rows(messages).collect())
    }

    /// The same, where the server may be unable to convert a value: its error comes back as it is, for the caller to explain,
    /// and so does a value that is no UTF-8 though the server took it for such.
    pub(in crate::postgres) async fn converted(
        &self,
        sql: &str,
    ) -> Result<Result<Vec<SimpleQueryRow>, ServerError>, ConnectorError> {
        let messages = match self.client.simple_query(sql).await {
            Ok(messages) => messages,
            Err(error) => match server_error(&error) {
                Some(server) => return Ok(Err(server)),
                None => return Err(describe(&self.endpoint, "running a statement", &error)),
            },
        };
        let rows: Vec<SimpleQueryRow> = rows(messages).collect();
        if rows.iter().any(|row| (0..row.len()).any(|i| row.try_get(i).is_err())) {
            let message = "a value is no UTF-8".to_owned();
            return Ok(Err(ServerError { code: NOT_IN_REPERTOIRE.into(), message, ..ServerError::default() }));
        }
        Ok(Ok(rows))
    }

    /// Runs a statement for its effect; a server's error comes back as it is, for the caller to explain.
    pub(in crate::postgres) async fn execute(&self, sql: &str) -> Result<Result<(), ServerError>, ConnectorError> {
        match self.client.batch_execute(sql).await {
            Ok(()) => Ok(Ok(())),
            Err(error) => match server_error(&error) {
                Some(server) => Ok(Err(server)),
                None => Err(describe(&self.endpoint, "running a statement", &error)),
            },
        }
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> impl Iterator<Item = SimpleQueryRow> {
    messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    })
}

async fn run<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    // A failure reaches whoever queries next; here it is only worth a line for the curious.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "sql session ended");
    }
}

/// The session's settings as command-line options of the backend.
fn options(all: bool) -> String {
    let escape = |value: &str| value.replace(' ', "\\ ");
    let settings = session::from_the_first(all).filter(|(name, _)| *name != "client_encoding");
    settings.map(|(name, value)| format!("-c {name}={}", escape(value))).collect::<Vec<_>>().join(" ")
}

fn server_error(error: &tokio_postgres::Error) -> Option<ServerError> {
    error.as_db_error().map(|db| ServerError {
        code: db.code().code().to_owned(),
        message: db.message().to_owned(),
        detail: db.detail().map(str::to_owned),
        hint: db.hint().map(str::to_owned),
    })
}

fn describe(endpoint: &Endpoint, action: &str, error: &tokio_postgres::Error) -> ConnectorError {
    if let Some(server) = server_error(error) {
        return server.classify(endpoint, action);
    }
    let mut cause = error.to_string();
    let mut source = std::error::Error::source(error);
    let mut broke = false;
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        // What TLS objects to is an error of input and output too, of its own kind.
        broke |= inner.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() != std::io::ErrorKind::InvalidData);
        source = inner.source();
    }
    if action == LOGGING_IN && FOREIGN.iter().any(|sign| cause.contains(sign)) {
        return not_a_server(endpoint, &cause);
    }
    if broke || error.is_closed() || cause.contains("error communicating") || cause.contains("connect") {
        return ConnectorError::unreachable(endpoint.place(), cause);
    }
    if cause.contains("tls") || cause.contains("TLS") || cause.contains("authentication") || cause.contains("password")
    {
        return ConnectorError::Authentication {
            place: endpoint.place(),
            cause,
            remedy: "check sslmode and the password in the source's url, and the server's certificate".into(),
        };
    }
    ConnectorError::protocol(format!("{}: {action}", endpoint.place()), cause)
}
