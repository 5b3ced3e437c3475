//! What a failure of the database means, by its number and SQLSTATE.
//!
//! Reference: MySQL Error Message Reference, "Server Error Message Reference"; MariaDB Knowledge Base, "MariaDB Error Codes".

use mysql_async::{DriverError, Error, IoError, ServerError};
use tributary_processor::OutsideError;

use super::super::failure::{Failure, causes};

/// What an error of the client means; `place` is where it arose.
pub(super) fn failure(place: &str, error: &Error) -> Failure {
    match error {
        Error::Server(error) => told(place, error),
        error => Failure::Outside(without_answer(place, error)),
    }
}

fn told(place: &str, ServerError { code, message, state }: &ServerError) -> Failure {
    let transient = |remedy: &str| Failure::Outside(OutsideError::transient(format!("{place}: {message}; {remedy}")));
    let fatal = |remedy: &str| Failure::Outside(OutsideError::fatal(format!("{place}: {message}; {remedy}")));
    match (code, state.get(..2).unwrap_or_default()) {
        // A deadlock, whose transaction is gone, and a lock that was waited for in vain.
        (1213 | 1205, _) => Failure::Again(message.clone()),
        (1060 | 1110, _) => {
            fatal("names of columns that differ in case or accents are one here; rename the field in `row`")
        }
        // No such table or column, a table that is there already; another definition than when it was looked at.
        (1146 | 1054 | 1136 | 1050 | 1412, _) => Failure::Changed(message.clone()),
        (1044 | 1045 | 1698, _) => {
            fatal("correct user and password in the sink's url, and see that the user may log in from here")
        }
        (1142 | 1143 | 1227 | 1370, _) => fatal("grant the right to the user of the sink's url"),
        (1049, _) => fatal("create the database, or name another one in the sink's url and table"),
        (1290 | 1792 | 1836, _) => transient(
            "it takes no writes; it is tried again, for it may be promoted: the url should lead to the primary",
        ),
        (1665, _) => fatal("set binlog_format to ROW or MIXED"),
        (1040 | 1203 | 1226, _) => transient("it is tried again"),
        // Full, shutting down, killed, timed out, aborted by the server or a cluster.
        (
            1021
            | 1041
            | 1053
            | 1077
            | 1080
            | 1114
            | 1152
            | 1158..=1161
            | 1180
            | 1184
            | 1206
            | 1317
            | 1927
            | 1969
            | 3024
            | 3168
            | 3169,
            _,
        ) => transient("it is tried again"),
        // Of values, constraints and triggers; of rows that are too large, and of documents.
        (
            1048
            | 1118
            | 1153
            | 1261..=1265
            | 1292
            | 1364
            | 1365
            | 1366
            | 1367
            | 1406
            | 1411
            | 1426
            | 1441
            | 1525
            | 1526
            | 1644
            | 1690,
            _,
        )
        | (3140..=3158 | 3819 | 3903 | 4025 | 4038 | 1871, _)
        | (_, "22" | "23" | "44" | "45") => Failure::Row(format!("{message} (error {code}, SQLSTATE {state})")),
        (_, "08" | "40") => transient("it is tried again"),
        _ => fatal(&format!("it does not pass by itself (error {code}, SQLSTATE {state})")),
    }
}

/// A failure that the server did not report.
fn without_answer(place: &str, error: &Error) -> OutsideError {
    let cause = causes(error);
    match error {
        Error::Io(IoError::Tls(_)) => OutsideError::fatal(format!(
            "{place}: {cause}; check ssl-mode in the sink's url, and the server's certificate"
        )),
        // What TLS objects to is an error of input and output too, of its own kind.
        Error::Io(IoError::Io(inner)) if inner.kind() == std::io::ErrorKind::InvalidData => OutsideError::fatal(
            format!("{place}: {cause}; check ssl-mode and ssl-ca in the sink's url, and the server's certificate"),
        ),
        Error::Driver(DriverError::NoClientSslFlagFromServer) => OutsideError::fatal(format!(
            "{place}: the server has no TLS; give it a certificate, or use another ssl-mode in the sink's url"
        )),
        Error::Driver(DriverError::UnknownAuthPlugin { name }) => OutsideError::fatal(format!(
            "{place}: the user logs in by {name:?}, which is not known here; let it use caching_sha2_password, mysql_native_password or \
             client_ed25519"
        )),
        _ => OutsideError::transient(format!("{place}: {cause}; it is tried again")),
    }
}
