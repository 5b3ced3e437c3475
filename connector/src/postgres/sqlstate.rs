//! Errors of the server → our errors, by SQLSTATE.
//!
//! Reference: PostgreSQL documentation, appendix "PostgreSQL Error Codes".

use tributary_event::ErrorClass;

use super::endpoint::Endpoint;
use super::slot::AFRESH;
use crate::error::ConnectorError;

/// What the server reports about a failure.
#[derive(Debug, Clone, Default)]
pub(super) struct ServerError {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ServerError {
    pub(super) fn text(&self) -> String {
        let mut text = self.message.clone();
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            text.push_str(" (");
            text.push_str(more);
            text.push(')');
        }
        text
    }

    /// The error for a failure of `action` at the endpoint.
    pub(super) fn classify(&self, endpoint: &Endpoint, action: &str) -> ConnectorError {
        let place = endpoint.place();
        let cause = self.text();
        let server = |place: String, remedy: &str, class| ConnectorError::Server {
            place,
            cause: cause.clone(),
            remedy: remedy.to_owned(),
            class,
        };
        match self.code.as_str() {
            "28P01" => ConnectorError::Authentication {
                place,
                cause,
                remedy: format!("check the password of user {} in the source's url", endpoint.user),
            },
            "28000" => ConnectorError::Authentication {
                place,
                cause,
                remedy: format!(
                    "check that the role {} exists, may log in, and that pg_hba.conf admits it to the database {} \
                     from this host with this kind of connection",
                    endpoint.user, endpoint.database
                ),
            },
            "3D000" => ConnectorError::settings(place, cause, "check the database's name in the source's url"),
            "42501" if self.message.contains("replication") || self.message.contains("WAL sender") => {
                replication_privilege(endpoint, &cause)
            }
            "42501" if self.message.contains("row-level security") => ConnectorError::Privilege {
                place,
                cause,
                remedy: format!("ALTER ROLE {} BYPASSRLS;", quote(&endpoint.user)),
            },
            "42704" if self.message.contains("publication") => ConnectorError::lost(
                format!("{place}: {action}"),
                format!("{cause}: it did not exist at this point of the log (was it dropped and made again?)"),
                AFRESH,
            ),
            "53400" => server(
                place,
                "raise max_replication_slots in postgresql.conf and restart the server, or drop a slot that nobody uses \
                 (select slot_name, active from pg_replication_slots)",
                ErrorClass::Fatal,
            ),
            "53300" => server(
                place,
                "waiting for a connection to become free; if that does not happen, raise max_wal_senders or \
                 max_connections in postgresql.conf and restart the server",
                ErrorClass::Transient,
            ),
            // The server starts, stops or was crashed by a backend; the connection is gone.
            "57P01" | "57P02" | "57P03" | "57P05" => ConnectorError::unreachable(place, cause),
            code if code.starts_with("08") => ConnectorError::unreachable(place, cause),
            code => ConnectorError::Database {
                place: format!("{place}: {action}"),
                cause,
                code: code.to_owned(),
                class: match code {
                    // The slot or a lock is held, or an administrator or a timeout ended the statement.
                    "55006" | "55P03" | "57014" | "25P04" => ErrorClass::Transient,
                    _ if code.starts_with("53") || code.starts_with("40") => ErrorClass::Transient,
                    _ => ErrorClass::Fatal,
                },
            },
        }
    }
}

/// The user may not replicate.
pub(super) fn replication_privilege(endpoint: &Endpoint, cause: &str) -> ConnectorError {
    ConnectorError::Privilege {
        place: endpoint.place(),
        cause: format!("the role {} may not read the replication log: {cause}", endpoint.user),
        remedy: format!("ALTER ROLE {} REPLICATION;", quote(&endpoint.user)),
    }
}

/// An identifier in double quotes.
pub(crate) fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// A string literal (with `standard_conforming_strings`).
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_server_have_their_class_and_remedy() {
        let endpoint = Endpoint::parse(&"postgres://ann:hunter2@h/films".into()).expect("a URL");
        let cases = [
            ("28P01", "password authentication failed", ErrorClass::Fatal, "check the password of user ann"),
            ("28000", "no pg_hba.conf entry", ErrorClass::Fatal, "pg_hba.conf admits it"),
            ("53400", "all replication slots are in use", ErrorClass::Fatal, "raise max_replication_slots"),
            ("53300", "too many walsenders", ErrorClass::Transient, "raise max_wal_senders"),
            ("42501", "permission denied to start WAL sender", ErrorClass::Fatal, "ALTER ROLE \"ann\" REPLICATION"),
            ("57P01", "terminating connection", ErrorClass::Transient, "cannot be reached"),
            ("57P03", "the database system is starting up", ErrorClass::Transient, "cannot be reached"),
            ("58P01", "requested WAL segment was removed", ErrorClass::Fatal, "streaming"),
            ("42704", "publication \"p\" does not exist", ErrorClass::Fatal, "at this point of the log"),
            ("42704", "type does not exist", ErrorClass::Fatal, "42704"),
            ("42501", "query would be affected by row-level security policy", ErrorClass::Fatal, "BYPASSRLS"),
            ("55P03", "canceling statement due to lock timeout", ErrorClass::Transient, "55P03"),
        ];
        for (code, message, class, text) in cases {
            let server = ServerError { code: code.into(), message: message.into(), ..ServerError::default() };
            let error = server.classify(&endpoint, "streaming");
            assert_eq!(error.class(), class, "{code}");
            let printed = error.to_string();
            assert!(printed.contains(text) && printed.contains(message) && !printed.contains("hunter2"), "{printed}");
        }
    }
}
