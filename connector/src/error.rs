//! What can go wrong in a connector: each error names the place, the cause and the remedy, and knows its class.

use std::io::ErrorKind;

use tributary_event::ErrorClass;
use tributary_transport::TransportError;

/// A failure of a connector. Messages never hold secrets.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// The settings cannot work.
    #[error("{place}: {cause}; {remedy}")]
    Settings {
        /// What is set wrongly.
        place: String,
        /// Why it cannot work.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// The server cannot be reached, or the connection broke.
    #[error(
        "{place} cannot be reached: {cause}; check that the server runs and that host, port and firewall are right"
    )]
    Unreachable {
        /// The server's host and port.
        place: String,
        /// What the operating system or the server said.
        cause: String,
    },
    /// The server does not let the user in.
    #[error("{place} refused the login: {cause}; {remedy}")]
    Authentication {
        /// The server.
        place: String,
        /// What the server said.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// The user lacks a privilege.
    #[error("{place}: {cause}; run: {remedy}")]
    Privilege {
        /// What was to be done.
        place: String,
        /// Which privilege is lacking.
        cause: String,
        /// The statement that grants it.
        remedy: String,
    },
    /// A table cannot be captured.
    #[error("table {table}: {cause}; {remedy}")]
    Table {
        /// The table.
        table: String,
        /// Why.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// The server is not set up for logical replication, or something of it is used up.
    #[error("{place}: {cause}; {remedy}")]
    Server {
        /// The server, or what of it.
        place: String,
        /// What is wrong.
        cause: String,
        /// What to do.
        remedy: String,
        /// Whether waiting may help.
        class: ErrorClass,
    },
    /// The place in the log is lost: going on would skip changes.
    #[error("{place}: {cause}; {remedy}")]
    PositionLost {
        /// The slot.
        place: String,
        /// What shows that the place is lost.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// What depends on the tables needs more of them than the log carries.
    #[error("{0}")]
    Refused(String),
    /// Another process reads the slot.
    #[error("replication slot {slot}: {cause}; waiting as a standby until it is free")]
    SlotInUse {
        /// The slot.
        slot: String,
        /// What the server said.
        cause: String,
    },
    /// Another process reads the log by this name.
    #[error("lock {name}: {cause}; waiting as a standby until it is free")]
    Locked {
        /// The lock.
        name: String,
        /// What the server said.
        cause: String,
    },
    /// The server sent what the protocol does not allow, or a value that its type does not.
    #[error("{place}: {cause}; this is a defect of the connector or of the server, please report it")]
    Protocol {
        /// Which message or column.
        place: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The server reported an error that has no case of its own.
    #[error("{place}: {cause} (SQLSTATE {code}); the server's log may say more")]
    Database {
        /// What was to be done.
        place: String,
        /// What the server said.
        cause: String,
        /// The SQLSTATE.
        code: String,
        /// The class that follows from the SQLSTATE.
        class: ErrorClass,
    },
    /// The stream has binary values, and something in it may be read as text alone.
    #[error("{cause}; the stream begins again with values as text")]
    TextOnly {
        /// What was found.
        cause: String,
    },
    /// The server could not convert a text to UTF-8, and does not say which.
    #[error("{cause}; the stream begins again with texts in the encoding of the database")]
    Unconverted {
        /// What the server said.
        cause: String,
    },
    /// Bytes that should be text are none.
    #[error("{place}: {cause}; {remedy}")]
    InvalidText {
        /// Table, row and column.
        place: String,
        /// Which bytes.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// A transaction cannot be kept on the disk.
    #[error("{place}: {cause}; {remedy}")]
    Spill {
        /// The file or folder.
        place: String,
        /// What the operating system said.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// An event is larger than the transport takes.
    #[error("{place}: {cause}; {remedy}")]
    Oversized {
        /// The table, the key and the operation.
        place: String,
        /// How large it is, and how large it may be.
        cause: String,
        /// What to do.
        remedy: String,
    },
    /// An event that is larger than the transport takes cannot be kept.
    #[error("{place}: the event, which is larger than max_record, cannot be kept there: {cause}; make room")]
    Keep {
        /// The file.
        place: String,
        /// What the operating system said.
        cause: String,
    },
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A task of the connector ended unexpectedly.
    #[error("a task of the connector failed: {0}")]
    Task(String),
}

impl ConnectorError {
    /// What may be done about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. }
            | Self::SlotInUse { .. }
            | Self::Locked { .. }
            | Self::Spill { .. }
            | Self::Keep { .. }
            | Self::TextOnly { .. }
            | Self::Unconverted { .. } => ErrorClass::Transient,
            Self::Database { class, .. } | Self::Server { class, .. } => *class,
            Self::Transport(error) => error.class,
            Self::Settings { .. }
            | Self::Authentication { .. }
            | Self::Privilege { .. }
            | Self::Table { .. }
            | Self::Refused(_)
            | Self::Oversized { .. }
            | Self::PositionLost { .. }
            | Self::InvalidText { .. }
            | Self::Protocol { .. }
            | Self::Task(_) => ErrorClass::Fatal,
        }
    }

    /// Whether another process captures the source.
    pub fn is_standby(&self) -> bool {
        matches!(self, Self::SlotInUse { .. } | Self::Locked { .. })
    }

    /// Whether an administrator can mend it on the server while the connector waits.
    pub fn is_mendable(&self) -> bool {
        matches!(self, Self::Table { .. } | Self::Privilege { .. } | Self::Authentication { .. } | Self::Refused(_))
    }

    pub(crate) fn settings(place: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Settings { place: place.into(), cause: cause.into(), remedy: remedy.into() }
    }

    pub(crate) fn protocol(place: impl Into<String>, cause: impl Into<String>) -> Self {
        Self::Protocol { place: place.into(), cause: cause.into() }
    }

    pub(crate) fn unreachable(place: impl Into<String>, cause: impl ToString) -> Self {
        Self::Unreachable { place: place.into(), cause: cause.to_string() }
    }

    /// A transaction in progress cannot be kept.
    pub(crate) fn spill(place: impl Into<String>, error: &std::io::Error) -> Self {
        let remedy = keeping(error);
        Self::Spill {
            place: place.into(),
            cause: error.to_string(),
            remedy: format!("{remedy}, or set the source's streaming to off (the server keeps it then)"),
        }
    }

    /// A compressed transaction cannot be kept.
    pub(crate) fn kept(place: impl Into<String>, error: &std::io::Error) -> Self {
        Self::Spill { place: place.into(), cause: error.to_string(), remedy: keeping(error).to_owned() }
    }

    pub(crate) fn lost(place: impl Into<String>, cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::PositionLost { place: place.into(), cause: cause.into(), remedy: remedy.into() }
    }
}

/// What lets a file be written and read.
fn keeping(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "make room there",
        ErrorKind::InvalidData | ErrorKind::UnexpectedEof => "check the disk",
        _ => "let the user that runs tributary write there",
    }
}
