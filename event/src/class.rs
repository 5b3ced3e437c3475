//! The class of an error: what may be done about it, decided where it arises.

/// What kind of failure an error is. Policy (retry, dead letter, stop) is chosen from it in one
/// table per binary; the default is to stop, never to skip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorClass {
    /// The same call may succeed later: a server is away, busy, or asked us to slow down.
    Transient,
    /// A fact about this piece of data: it will fail again in the same way. Dead letter.
    Definite,
    /// Going on would be wrong: bad configuration, lost position, fenced by another process. Stop.
    Fatal,
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Definite => "definite",
            Self::Fatal => "fatal",
        })
    }
}
