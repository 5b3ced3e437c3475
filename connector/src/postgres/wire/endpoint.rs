//! Where a PostgreSQL server is and how to log in: the connection URL.
//!
//! Reference: PostgreSQL documentation, "Connection URIs" and "Parameter Key Words" (libpq).

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::error::ConnectorError;
pub use crate::net::tls::TlsMode;
use crate::net::tls::Trust;
use crate::settings::Secret;

/// A server, a user and a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address, or the directory of a Unix socket.
    pub host: String,
    /// Port.
    pub port: u16,
    /// User.
    pub user: String,
    /// Password.
    pub password: Option<Secret>,
    /// Database.
    pub database: String,
    /// TLS.
    pub tls: TlsMode,
    /// PEM file of trusted roots instead of the system's.
    pub root_certificate: Option<PathBuf>,
    /// PEM files of the client's certificate and of its key.
    pub client_certificate: Option<PathBuf>,
    /// See `client_certificate`.
    pub client_key: Option<PathBuf>,
    /// `channel_binding`.
    pub channel_binding: ChannelBinding,
    /// How long a connection may take to be established.
    pub connect_timeout: Duration,
    /// `target_session_attrs`, if it is set.
    pub target: Option<Target>,
    /// Name under which the server lists the connection.
    pub application_name: String,
}

/// Whether the password must be proved over this very TLS connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server can.
    Prefer,
    /// Or the server is not trusted.
    Require,
}

/// Which servers will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Any.
    Any,
    /// One that accepts writes.
    Primary,
}

impl Endpoint {
    /// Reads a connection URL. Errors never quote it, for it holds a password.
    ///
    /// # Errors
    /// It is no PostgreSQL URL, or has a parameter that is not understood.
    pub fn parse(url: &Secret) -> Result<Self, ConnectorError> {
        const REMEDY: &str = "write it as postgres://user:password@host:port/database?sslmode=verify-full";
        let wrong = |cause: String| ConnectorError::settings("the PostgreSQL URL", cause, REMEDY);
        let parsed = Url::parse(url.expose()).map_err(|e| wrong(format!("it is no URL: {e}")))?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(wrong(format!("its scheme is {:?}, not postgres", parsed.scheme())));
        }
        let decode = |text: &str| percent_decode(text).ok_or_else(|| wrong("it has a broken percent escape".into()));
        let mut endpoint = Self {
            host: decode(parsed.host_str().unwrap_or("localhost"))?,
            port: parsed.port().unwrap_or(5432),
            user: decode(parsed.username())?,
            password: parsed.password().map(decode).transpose()?.map(Secret::new),
            database: decode(parsed.path().trim_start_matches('/'))?,
            tls: TlsMode::Prefer,
            root_certificate: None,
            connect_timeout: Duration::from_secs(10),
            target: None,
            client_certificate: None,
            client_key: None,
            channel_binding: ChannelBinding::Prefer,
            application_name: "tributary".into(),
        };
        for (key, value) in parsed.query_pairs() {
            endpoint.parameter(&key, &value).map_err(wrong)?;
        }
        let parameter = |name: &str| parsed.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value);
        if parameter("sslrootcert").as_deref() == Some("system") && endpoint.tls != TlsMode::VerifyFull {
            let mode = parameter("sslmode").unwrap_or_default();
            return Err(wrong(format!("sslmode {mode:?} is too weak for sslrootcert=system; use verify-full")));
        }
        if endpoint.user.is_empty() {
            endpoint.user = "postgres".into();
        }
        if endpoint.database.is_empty() {
            endpoint.database.clone_from(&endpoint.user);
        }
        // The host of an address in brackets, for the system's resolver.
        endpoint.host = endpoint.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(endpoint)
    }

    fn parameter(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "sslmode" => {
                self.tls = match value {
                    "disable" => TlsMode::Disable,
                    "allow" | "prefer" => TlsMode::Prefer,
                    "require" => TlsMode::Require,
                    "verify-ca" => TlsMode::VerifyCa,
                    "verify-full" => TlsMode::VerifyFull,
                    _ => {
                        return Err(format!(
                            "sslmode {value:?} is none of disable, prefer, require, verify-ca, verify-full"
                        ));
                    }
                }
            }
            // As libpq: the system's authorities sign for anybody, so the name must be checked too.
            "sslrootcert" if value == "system" => (self.root_certificate, self.tls) = (None, TlsMode::VerifyFull),
            "sslrootcert" => self.root_certificate = Some(PathBuf::from(value)),
            "connect_timeout" => {
                let seconds =
                    value.parse().map_err(|_| format!("connect_timeout {value:?} is no number of seconds"))?;
                // As libpq: without a limit.
                self.connect_timeout = if seconds == 0 { Duration::MAX } else { Duration::from_secs(seconds) };
            }
            "sslcert" => self.client_certificate = Some(PathBuf::from(value)),
            "sslkey" => self.client_key = Some(PathBuf::from(value)),
            "channel_binding" => {
                self.channel_binding = match value {
                    "disable" => ChannelBinding::Disable,
                    "prefer" => ChannelBinding::Prefer,
                    "require" => ChannelBinding::Require,
                    _ => return Err(format!("channel_binding {value:?} is none of disable, prefer, require")),
                };
            }
            "target_session_attrs" => {
                self.target = Some(match value {
                    "any" => Target::Any,
                    "primary" | "read-write" => Target::Primary,
                    _ => return Err(format!("target_session_attrs {value:?} is none of primary, read-write, any")),
                });
            }
            "host" | "port" if value.contains(',') => {
                return Err("several hosts are written as postgres://user@first:5432,second:5432/database".into());
            }
            "application_name" => value.clone_into(&mut self.application_name),
            "host" => value.clone_into(&mut self.host),
            "port" => self.port = value.parse().map_err(|_| format!("port {value:?} is no port"))?,
            "user" => value.clone_into(&mut self.user),
            "password" => self.password = Some(Secret::new(value)),
            "dbname" => value.clone_into(&mut self.database),
            _ => {
                return Err(format!(
                    "the parameter {key:?} is not understood (known: sslmode, sslrootcert, sslcert, sslkey, channel_binding, connect_timeout, \
                     application_name, target_session_attrs, host, port, user, password, dbname)"
                ));
            }
        }
        Ok(())
    }

    /// Who is trusted.
    pub(in crate::postgres) fn trust(&self) -> Trust<'_> {
        Trust {
            place: self.place(),
            mode: self.tls,
            root: self.root_certificate.as_deref(),
            client: (self.client_certificate.as_deref(), self.client_key.as_deref()),
            parameters: ["sslrootcert", "sslcert", "sslkey"],
        }
    }

    /// Whether the host is the directory of a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.host.starts_with('/')
    }

    /// Server and database for messages, without secrets.
    pub fn place(&self) -> String {
        format!("PostgreSQL {}:{}/{}", self.host, self.port, self.database)
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, String> {
        Endpoint::parse(&url.into()).map_err(|e| e.to_string())
    }

    #[test]
    fn authorities_of_the_system_are_trusted_for_the_right_name_alone() {
        let e = parse("postgres://ann@h/films?sslrootcert=system").expect("a URL");
        assert_eq!((e.tls, e.root_certificate), (TlsMode::VerifyFull, None));
        assert!(parse("postgres://ann@h/films?sslrootcert=system&sslmode=require").is_err());
        let e = parse("postgres://ann@h/films?connect_timeout=0").expect("a URL");
        assert_eq!(e.connect_timeout, Duration::MAX);
    }

    #[test]
    fn a_url_says_where_and_who() {
        let e = parse("postgres://an%40a:p%2Fw@db.example:5433/films?sslmode=verify-full&connect_timeout=3")
            .expect("a URL");
        assert_eq!(
            (e.host.as_str(), e.port, e.user.as_str(), e.database.as_str()),
            ("db.example", 5433, "an@a", "films")
        );
        assert_eq!(e.password.as_ref().map(Secret::expose), Some("p/w"));
        assert_eq!((e.tls, e.connect_timeout), (TlsMode::VerifyFull, Duration::from_secs(3)));
        let e = parse("postgresql:///films?host=/run/postgresql").expect("a URL");
        assert!(e.is_unix());
        assert_eq!(parse("postgres://u@[::1]/d").expect("a URL").host, "::1");
    }

    #[test]
    fn mistakes_are_explained_without_the_password() {
        for url in
            ["mysql://u:hunter2@h/d", "postgres://u:hunter2@h/d?sslmod=x", "postgres://u:hunter2@h:port/d", "hunter2"]
        {
            let error = parse(url).expect_err(url);
            assert!(!error.contains("hunter2") && error.contains("postgres://user"), "{error}");
        }
    }
}
