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

/// What to do where another reader has taken the place of this one.
const SAME_IDENTITY: &str = "another reader has the same identity: give each source a name of its own";

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
                remedy: match self.lacking() {
                    Some(privilege) => format!("GRANT {privilege} ON *.* TO {};", endpoint.grantee()),
                    None => format!("GRANT what is missing there TO {};", endpoint.grantee()),
                },
            },
            // Of MariaDB; MySQL says so in the text of another one.
            4052 => server(SAME_IDENTITY, ErrorClass::Transient),
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

    /// The privilege that lacks, by the name that this version of the server has for it; of several that would do, the least.
    fn lacking(&self) -> Option<&str> {
        let (_, named) = self.message.split_once("(at least one of) the ")?;
        let (named, _) = named.split_once(" privilege")?;
        named.split(", ").find(|privilege| *privilege != "SUPER")
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
            return transient(SAME_IDENTITY);
        }
        if text.contains("max_allowed_packet") || text.contains("event exceeds") {
            return ConnectorError::Server {
                place: place.to_owned(),
                cause: self.message.clone(),
                remedy: "an event is larger than the server sends: raise max_allowed_packet there (1GB at most)".into(),
                class: ErrorClass::Fatal,
            };
        }
        if text.contains("replicate anonymous transaction") {
            return transient(
                "run: SET GLOBAL gtid_mode = ON_PERMISSIVE; until the source has read what came before GTIDs",
            );
        }
        if text.contains("not enough memory") || text.contains("could not be opened") && !text.contains("first log") {
            return transient("the source tries again");
        }
        ConnectorError::lost(place, self.message.clone(), AFRESH)
    }
}

/// What an error of a statement that the server does not know carries for its code.
const SYNTAX: &str = "of error 1064";

/// Whether the server does not know a statement.
pub(in crate::mysql) fn is_unknown_statement(error: &ConnectorError) -> bool {
    matches!(error, ConnectorError::Database { code, .. } if code == SYNTAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lacking(message: &str) -> Option<String> {
        ServerError { code: 1227, message: message.to_owned() }.lacking().map(str::to_owned)
    }

    #[test]
    fn the_privilege_that_lacks_is_the_least_that_the_server_names() {
        let denied = |named: &str| {
            lacking(&format!("Access denied; you need (at least one of) the {named} privilege(s) for this operation"))
        };
        assert_eq!(denied("SUPER, REPLICATION CLIENT").as_deref(), Some("REPLICATION CLIENT"));
        assert_eq!(denied("BINLOG MONITOR").as_deref(), Some("BINLOG MONITOR"));
        assert_eq!(denied("SUPER"), None);
        assert_eq!(lacking("SELECT command denied to user 'u'@'h' for table 't'"), None);
    }

    #[test]
    fn who_was_replaced_by_a_reader_of_its_identity_tries_again() {
        let endpoint = super::super::endpoint::endpoints(&"mysql://u@h".into()).expect("a URL").remove(0);
        for (code, message) in [
            (1236, "A replica with the same server_uuid/server_id as this replica has connected to the source"),
            (4052, "A slave with the same server_id is already connected"),
        ] {
            let error = ServerError { code, message: message.to_owned() }.classify(&endpoint, "reading the log");
            assert_eq!(error.class(), ErrorClass::Transient, "{error}");
            assert!(error.to_string().contains(SAME_IDENTITY), "{error}");
        }
    }

    #[test]
    fn a_statement_that_is_not_known_is_told_from_one_that_is_refused() {
        let endpoint = super::super::endpoint::endpoints(&"mysql://u@h".into()).expect("a URL").remove(0);
        let error = |code| ServerError { code, message: String::new() }.classify(&endpoint, "asking");
        assert!(is_unknown_statement(&error(1064)));
        assert!(!is_unknown_statement(&error(1227)) && !is_unknown_statement(&error(1146)));
    }
}
