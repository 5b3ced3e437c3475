//! Errors of the server → our errors, by SQLSTATE.
//!
//! Reference: PostgreSQL documentation, appendix "PostgreSQL Error Codes".

use tributary_event::ErrorClass;

use super::endpoint::Endpoint;
use crate::error::ConnectorError;
use crate::postgres::slot::AFRESH;

/// What is done while a session begins.
pub(in crate::postgres) const LOGGING_IN: &str = "logging in";
/// The first command of a replication session.
pub(in crate::postgres) const IDENTIFY: &str = "IDENTIFY_SYSTEM";
/// What is done while changes come.
pub(in crate::postgres) const STREAMING: &str = "streaming";

/// What a pooler says while the server behind it does not answer, or it itself stops.
const POOLER_WAITS: [&str; 5] =
    ["client_login_timeout", "query_wait_timeout", "server_connect_timeout", "server down", "shutting down"];

/// What the server reports about a failure.
#[derive(Debug, Clone, Default)]
pub(in crate::postgres) struct ServerError {
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ServerError {
    pub(in crate::postgres) fn text(&self) -> String {
        let mut text = self.message.clone();
        for more in [&self.detail, &self.hint].into_iter().flatten() {
            text.push_str(" (");
            text.push_str(more);
            text.push(')');
        }
        text
    }

    /// Whether bytes are no text, or cannot be converted.
    pub(in crate::postgres) fn is_about_text(&self) -> bool {
        matches!(self.code.as_str(), "22021" | "22P05")
    }

    /// The error for a failure of `action` at the endpoint.
    pub(in crate::postgres) fn classify(&self, endpoint: &Endpoint, action: &str) -> ConnectorError {
        let place = endpoint.place();
        let cause = self.text();
        let says = |text: &str| self.message.contains(text);
        let server = |remedy: String, class| ConnectorError::Server {
            place: endpoint.place(),
            cause: self.text(),
            remedy,
            class,
        };
        let (user, database) = (quote(&endpoint.user), quote(&endpoint.database));
        match (self.code.as_str(), action == LOGGING_IN) {
            ("28P01", _) => ConnectorError::Authentication {
                place,
                cause,
                remedy: format!(
                    "check the password of user {} in the source's url, and that it has not expired \
                     (ALTER ROLE {user} VALID UNTIL 'infinity';)",
                    endpoint.user
                ),
            },
            ("28000", _) => ConnectorError::Authentication {
                place,
                cause,
                remedy: format!(
                    "check that the role {} exists, may log in, and that pg_hba.conf admits it to the database {} \
                     from this host with this kind of connection",
                    endpoint.user, endpoint.database
                ),
            },
            ("3D000", _) => ConnectorError::settings(
                place,
                cause,
                "check the database's name in the source's url (if it was renamed, the new name is the right one)",
            ),
            // What a pooler says of a startup message that it does not understand, or of a database that it does not know. That
            // the server behind it does not answer is an outage, though.
            ("08P01", true) if !POOLER_WAITS.iter().any(|text| says(text)) => {
                through_a_pooler(endpoint, &cause)
            }
            ("42601" | "0A000", _) if action == IDENTIFY => through_a_pooler(endpoint, &cause),
            ("42704", true) => server(
                "let the url lead to a PostgreSQL server of version 14 or later, itself and not through a pooler".into(),
                ErrorClass::Fatal,
            ),
            ("55000", true) => {
                server(format!("run: ALTER DATABASE {database} ALLOW_CONNECTIONS true;"), ErrorClass::Fatal)
            }
            ("58P01", true) => server(
                format!(
                    "a setting makes every session load this library: install it, or run: ALTER ROLE {user} RESET \
                     session_preload_libraries; ALTER DATABASE {database} RESET session_preload_libraries;"
                ),
                ErrorClass::Fatal,
            ),
            ("42501", _) if says("replication") || says("WAL sender") => replication_privilege(endpoint, &cause),
            ("42501", _) if says("row-level security") => {
                ConnectorError::Privilege { place, cause, remedy: format!("ALTER ROLE {user} BYPASSRLS;") }
            }
            ("42501", true) => ConnectorError::Privilege {
                place,
                cause,
                remedy: format!("GRANT CONNECT ON DATABASE {database} TO {user};"),
            },
            ("42704", false) if says("publication") => ConnectorError::lost(
                format!("{place}: {action}"),
                format!("{cause}: it did not exist at this point of the log (was it dropped and made again?)"),
                AFRESH,
            ),
            ("55000", false) if ["can no longer", "cannot read from logical"].iter().any(|text| says(text)) => {
                ConnectorError::lost(format!("{place}: {action}"), cause, AFRESH)
            }
            ("58P01", false) if says("WAL segment") => {
                ConnectorError::lost(format!("{place}: {action}"), cause, AFRESH)
            }
            ("53400", _) if says("temp_file_limit") => server(
                format!(
                    "a page of keys had to be sorted: make sure that the table's key has its index, or run as a superuser: \
                     ALTER ROLE {user} SET temp_file_limit = -1;"
                ),
                ErrorClass::Fatal,
            ),
            ("53400", _) => server(
                "raise max_replication_slots in postgresql.conf and restart the server, or drop a slot that nobody uses \
                 (select slot_name, active from pg_replication_slots)"
                    .into(),
                ErrorClass::Fatal,
            ),
            ("53300", _) => server(
                format!("waiting for a connection to become free; if that does not happen, {}", self.more_connections(endpoint)),
                ErrorClass::Transient,
            ),
            ("22021" | "22P05", _) if action == STREAMING => ConnectorError::Unconverted { cause },
            ("22021" | "22P05" | "22P04", _) => server(names_are_no_text(action), ErrorClass::Fatal),
            // The server starts, stops or was crashed by a backend; the connection is gone.
            ("57P01" | "57P02" | "57P03" | "57P05", _) => ConnectorError::unreachable(place, cause),
            (code, _) if code.starts_with("08") => ConnectorError::unreachable(place, cause),
            (code, _) => ConnectorError::Database {
                place: format!("{place}: {action}"),
                cause,
                code: code.to_owned(),
                class: match code {
                    // The slot or a lock is held, or an administrator or a timeout ended the statement.
                    "55006" | "55P03" | "57014" | "25P03" | "25P04" => ErrorClass::Transient,
                    _ if code.starts_with("53") || code.starts_with("40") => ErrorClass::Transient,
                    _ => ErrorClass::Fatal,
                },
            },
        }
    }

    /// What gives us a connection where there is none left.
    fn more_connections(&self, endpoint: &Endpoint) -> String {
        let says = |text: &str| self.message.contains(text);
        if says("for role") {
            format!("run: ALTER ROLE {} CONNECTION LIMIT -1;", quote(&endpoint.user))
        } else if says("for database") {
            format!("run: ALTER DATABASE {} CONNECTION LIMIT -1;", quote(&endpoint.database))
        } else {
            "raise max_wal_senders or max_connections in postgresql.conf and restart the server".into()
        }
    }
}

/// What answers at the place is no server of PostgreSQL.
pub(in crate::postgres) fn not_a_server(endpoint: &Endpoint, cause: &str) -> ConnectorError {
    ConnectorError::settings(
        endpoint.place(),
        format!("what answers there does not speak PostgreSQL's protocol ({cause})"),
        "check host and port in the source's url",
    )
}

/// What answers at the place is no server, but passes on to one.
pub(in crate::postgres) fn through_a_pooler(endpoint: &Endpoint, cause: &str) -> ConnectorError {
    ConnectorError::settings(
        endpoint.place(),
        format!("{cause}: this is what a connection pooler answers, not the server itself"),
        "let the source's url lead to the PostgreSQL server's own host and port, for the replication log cannot be read through \
         a pooler",
    )
}

/// What to do where the server cannot make text of a name.
fn names_are_no_text(action: &str) -> String {
    format!(
        "{action} shows names of tables, columns and types, and one of them is no text in the database's encoding; for columns, find \
         it: select attrelid::regclass, attnum from pg_attribute where attname::text ~ '[^[:ascii:]]'; and rename it by table and \
         number: do $$ begin execute (select format('alter table %s rename column %I to new_name', attrelid::regclass, attname) \
         from pg_attribute where attrelid = 'schema.table'::regclass and attnum = 1); end $$;"
    )
}

/// The user may not replicate.
pub(in crate::postgres) fn replication_privilege(endpoint: &Endpoint, cause: &str) -> ConnectorError {
    let user = quote(&endpoint.user);
    ConnectorError::Privilege {
        place: endpoint.place(),
        cause: format!("the role {} may not read the replication log: {cause}", endpoint.user),
        remedy: format!(
            "ALTER ROLE {user} REPLICATION;  -- on Amazon RDS and Aurora: GRANT rds_replication TO {user};"
        ),
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
            (STREAMING, "53400", "all replication slots are in use", ErrorClass::Fatal, "raise max_replication_slots"),
            (
                STREAMING,
                "53400",
                "temporary file size exceeds temp_file_limit (1kB)",
                ErrorClass::Fatal,
                "temp_file_limit = -1;",
            ),
            (STREAMING, "53300", "too many walsenders", ErrorClass::Transient, "raise max_wal_senders"),
            (
                LOGGING_IN,
                "53300",
                "too many connections for role \"ann\"",
                ErrorClass::Transient,
                "ROLE \"ann\" CONNECTION LIMIT -1",
            ),
            (
                LOGGING_IN,
                "53300",
                "too many connections for database \"films\"",
                ErrorClass::Transient,
                "DATABASE \"films\" CONN",
            ),
            (
                LOGGING_IN,
                "28P01",
                "password authentication failed",
                ErrorClass::Fatal,
                "check the password of user ann",
            ),
            (
                LOGGING_IN,
                "28P01",
                "password authentication failed for user",
                ErrorClass::Fatal,
                "\"ann\" VALID UNTIL 'infinity';",
            ),
            (LOGGING_IN, "28000", "no pg_hba.conf entry", ErrorClass::Fatal, "pg_hba.conf admits it"),
            (LOGGING_IN, "3D000", "database \"films\" does not exist", ErrorClass::Fatal, "check the database's name"),
            (
                LOGGING_IN,
                "55000",
                "database \"films\" is not currently accepting connections",
                ErrorClass::Fatal,
                "ALLOW_CONN",
            ),
            (LOGGING_IN, "58P01", "could not access file \"x\"", ErrorClass::Fatal, "RESET session_preload_libraries"),
            (
                LOGGING_IN,
                "42501",
                "permission denied for database \"films\"",
                ErrorClass::Fatal,
                "GRANT CONNECT ON DATABASE",
            ),
            (
                LOGGING_IN,
                "42501",
                "permission denied to start WAL sender",
                ErrorClass::Fatal,
                "ALTER ROLE \"ann\" REPLICATION",
            ),
            (
                LOGGING_IN,
                "42704",
                "unrecognized configuration parameter \"x\"",
                ErrorClass::Fatal,
                "version 14 or later",
            ),
            (LOGGING_IN, "08P01", "unsupported startup parameter: x", ErrorClass::Fatal, "server's own host and port"),
            (LOGGING_IN, "08P01", "client_login_timeout (server down)", ErrorClass::Transient, "cannot be reached"),
            (IDENTIFY, "42601", "syntax error at or near \"IDENTIFY_SYSTEM\"", ErrorClass::Fatal, "through a pooler"),
            (STREAMING, "57P01", "terminating connection", ErrorClass::Transient, "cannot be reached"),
            (LOGGING_IN, "57P03", "the database system is starting up", ErrorClass::Transient, "cannot be reached"),
            (STREAMING, "58P01", "requested WAL segment was removed", ErrorClass::Fatal, "reindex"),
            (STREAMING, "55000", "can no longer get changes from replication slot", ErrorClass::Fatal, "reindex"),
            (STREAMING, "42704", "publication \"p\" does not exist", ErrorClass::Fatal, "at this point of the log"),
            (STREAMING, "42704", "type does not exist", ErrorClass::Fatal, "42704"),
            (
                STREAMING,
                "42501",
                "query would be affected by row-level security policy",
                ErrorClass::Fatal,
                "BYPASSRLS",
            ),
            (STREAMING, "55P03", "canceling statement due to lock timeout", ErrorClass::Transient, "55P03"),
            (STREAMING, "22P05", "character 0x81 has no equivalent", ErrorClass::Transient, "begins again"),
            ("reading pg_class", "22P05", "character 0x81 has no equivalent", ErrorClass::Fatal, "rename it"),
        ];
        for (action, code, message, class, text) in cases {
            let server = ServerError { code: code.into(), message: message.into(), ..ServerError::default() };
            let error = server.classify(&endpoint, action);
            assert_eq!(error.class(), class, "{code} {message}");
            let printed = error.to_string();
            assert!(printed.contains(text) && printed.contains(message) && !printed.contains("hunter2"), "{printed}");
        }
    }
}
