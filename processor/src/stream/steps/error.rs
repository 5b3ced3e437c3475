//! Why a record does not go on.

use std::fmt;

use tributary_dsl::plan::OnError;

/// Why a record does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stream) struct StepError {
    /// The step, or the sink.
    pub step: String,
    /// The cause.
    pub cause: String,
    /// What becomes of the record.
    pub on_error: OnError,
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.step, self.cause)
    }
}
