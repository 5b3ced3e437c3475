//! What a failure of a database means for what is being written.

use tributary_processor::OutsideError;

/// A failure while events are written.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server refuses a value or a row: why, in a sentence.
    Row(String),
    /// The table is not what it was when it was looked at.
    Changed(String),
    /// The transaction is to be done anew: why. Nobody is to blame.
    Again(String),
    /// Whatever is written.
    Outside(OutsideError),
}

impl Failure {
    /// The failure as one of the sink, for statements that are about no row.
    pub(super) fn outside(self, place: &str) -> OutsideError {
        match self {
            Self::Row(why) => OutsideError::fatal(format!("{place}: {why}")),
            Self::Changed(why) => {
                OutsideError::transient(format!("{place}: a table is not what it was ({why}); it is looked at again"))
            }
            Self::Again(why) => OutsideError::transient(format!("{place}: {why}; it is tried again")),
            Self::Outside(error) => error,
        }
    }
}

impl From<OutsideError> for Failure {
    fn from(error: OutsideError) -> Self {
        Self::Outside(error)
    }
}

/// An error with all of its causes.
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    match tributary_event::causes(error) {
        Some(causes) => format!("{error}: {causes}"),
        None => error.to_string(),
    }
}
