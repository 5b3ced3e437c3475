//! Errors of the server: what each means, and what to do.
//!
//! Reference: MySQL Server Error Message Reference; MariaDB Knowledge Base, "MariaDB Error Codes".

use mysql_async::{DriverError, Error, IoError};
use tributary_event::ErrorClass;

use super::endpoint::Endpoint;
use crate::error::ConnectorError;

/// An error as the server sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::mysql) struct ServerError {
    pub code: u16,
    pub message: String,
}

/// What to do where the log has lost what was not read.
pub(in crate::mysql) const AFRESH: &str = "changes since then are lost to this source; give it a new name and run tributary reindex, and let the \
     server keep its log for longer (binlog_expire_logs_seconds)";

impl ServerError {
    /// Reads an error packet, from behind its first byte.
    pub(in crate::mysql) fn read(body: &[u8]) -> Self {
        let (code, rest) =
            body.split_first_chunk::<2>().map_or((0, body), |(code, rest)| (u16::from_le_bytes(*code), rest));
        let message = if rest.first() == Some(&b'#') { rest.get(6..).unwrap_or_default() } else { rest };
        Self { code, message: String::from_utf8_lossy(message).into_owned() }
    }

    /// What it means while something was done.
    pub(in crate::mysql) fn classify(&self, endpoint: &Endpoint, doing: &str) -> ConnectorError {
        let place = || format!("{}: {doing}", endpoint.place());
        let cause = || self.message.clone();
        let server = |remedy: &str, class| ConnectorError::Server {
            place: place(),
            cause: cause(),
            remedy: remedy.to_owned(),
            class,
        };
        match self.code {
            1045 | 1698 | 1862 | 3118 | 4151 => ConnectorError::Authentication {
                place: endpoint.place(),
                cause: cause(),
                remedy: "check user and password in the source's url, and from which hosts the user may log in".into(),
            },
            1044 | 1142 | 1143 | 1227 | 1370 | 1449 => ConnectorError::Privilege {
                place: place(),
                cause: cause(),
                remedy: format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{}'@'%';", endpoint.user),
            },
            1236 | 1789 | 1790 | 1955 | 3861 => self.lost(&place()),
            // Too many connections; shutting down; lock waits; killed; the network.
            1040
            | 1203
            | 1053
            | 1077
            | 1079
            | 1129
            | 1152
            | 1153
            | 1158..=1161
            | 1184
            | 1205
            | 1213
            | 1317
            | 1927
            | 2013
            | 3024
            | 3168
            | 3169
            | 4031 => server("the source tries again", ErrorClass::Transient),
            code => ConnectorError::Database {
                place: place(),
                cause: cause(),
                code: format!("of error {code}"),
                class: ErrorClass::Fatal,
            },
        }
    }

    /// The server cannot send what was asked for.
    fn lost(&self, place: &str) -> ConnectorError {
        let text = self.message.to_ascii_lowercase();
        let transient = |remedy: &str| ConnectorError::Server {
            place: place.to_owned(),
            cause: self.message.clone(),
            remedy: remedy.to_owned(),
            class: ErrorClass::Transient,
        };
        if text.contains("same server_uuid") || text.contains("same server_id") {
            return transient("another reader has the same identity: give each source a name of its own");
        }
        if text.contains("max_allowed_packet") || text.contains("event exceeds") {
            return ConnectorError::Server {
                place: place.to_owned(),
                cause: self.message.clone(),
                remedy: "an event is larger than the server sends: raise max_allowed_packet there (1GB at most)".into(),
                class: ErrorClass::Fatal,
            };
        }
        if text.contains("not enough memory") || text.contains("could not be opened") && !text.contains("first log") {
            return transient("the source tries again");
        }
        ConnectorError::lost(place, self.message.clone(), AFRESH)
    }
}

/// TLS cannot be established with a server that is there.
pub(in crate::mysql) fn untrusted(endpoint: &Endpoint, cause: String) -> ConnectorError {
    ConnectorError::Authentication {
        place: endpoint.place(),
        cause: format!("TLS could not be established: {cause}"),
        remedy: "check ssl-mode and ssl-ca in the source's url, and the names in the server's certificate".into(),
    }
}

/// What an error of a session means.
pub(in crate::mysql) fn classify(endpoint: &Endpoint, doing: &str, error: &Error) -> ConnectorError {
    match error {
        Error::Server(error) => {
            ServerError { code: error.code, message: error.message.clone() }.classify(endpoint, doing)
        }
        Error::Io(IoError::Tls(error)) => untrusted(endpoint, error.to_string()),
        Error::Io(IoError::Io(error)) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            untrusted(endpoint, error.to_string())
        }
        Error::Io(error) => ConnectorError::unreachable(endpoint.place(), error),
        Error::Driver(DriverError::ConnectionClosed | DriverError::PoolDisconnected) => {
            ConnectorError::unreachable(endpoint.place(), "the connection was closed")
        }
        error => ConnectorError::Database {
            place: format!("{}: {doing}", endpoint.place()),
            cause: error.to_string(),
            code: "of the driver".into(),
            class: ErrorClass::Fatal,
        },
    }
}
