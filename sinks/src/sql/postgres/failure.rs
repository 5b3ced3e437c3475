//! What a failure of the database means, by its SQLSTATE.
//!
//! Reference: PostgreSQL documentation, appendix "PostgreSQL Error Codes".

use tributary_processor::OutsideError;

use super::super::failure::{Failure, causes};

/// What an error of the client means; `place` is where it arose.
pub(super) fn failure(place: &str, error: &tokio_postgres::Error) -> Failure {
    let Some(server) = error.as_db_error() else { return Failure::Outside(without_answer(place, error)) };
    let code = server.code().code();
    let mut cause = server.message().to_owned();
    for more in [server.detail(), server.hint()].into_iter().flatten() {
        cause = format!("{cause} ({more})");
    }
    let transient = |remedy: &str| Failure::Outside(OutsideError::transient(format!("{place}: {cause}; {remedy}")));
    let fatal = |remedy: &str| Failure::Outside(OutsideError::fatal(format!("{place}: {cause}; {remedy}")));
    match (&code[..2], code) {
        // Of values and constraints; a row that is too large or nested too deeply, that a trigger or a view refuses, or that has the
        // key of another row, written in another way.
        ("22" | "23" | "44" | "54" | "P0", _) | (_, "21000") => Failure::Row(format!("{cause} (SQLSTATE {code})")),
        (_, "42P01" | "42703" | "42P10" | "42804" | "42701" | "42P07") => Failure::Changed(cause),
        (_, "42501") => fatal("grant the right to the role of the sink's url"),
        ("28", _) => fatal("correct user and password in the sink's url, and see that pg_hba.conf lets it in"),
        (_, "3D000") => fatal("correct the name of the database in the sink's url, or create it"),
        (_, "3F000") => fatal("create the schema, or name another one in the sink's table"),
        (_, "57014") => transient(
            "it is tried again; if it always takes so long, raise the limit in the sink's url with \
             options=-c%20statement_timeout%3D30min",
        ),
        (_, "25006") => {
            transient("it is a standby; it is tried again, for it may be promoted: the url should lead to the primary")
        }
        ("08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX", _) => transient("it is tried again"),
        _ => fatal(&format!("it does not pass by itself (SQLSTATE {code})")),
    }
}

/// A failure that the server did not report.
fn without_answer(place: &str, error: &tokio_postgres::Error) -> OutsideError {
    let cause = causes(error);
    let mut source = std::error::Error::source(error);
    let mut broke = error.is_closed();
    while let Some(inner) = source {
        // What TLS objects to is an error of input and output too, of its own kind.
        broke |= inner.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() != std::io::ErrorKind::InvalidData);
        source = inner.source();
    }
    let says = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if !broke && says(&["tls", "TLS", "certificate", "authentication", "password"]) {
        return OutsideError::fatal(format!(
            "{place}: {cause}; check sslmode and password in the sink's url, and the server's certificate"
        ));
    }
    OutsideError::transient(format!("{place}: {cause}; it is tried again"))
}
