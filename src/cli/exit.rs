//! Failures of a command and the exit codes they become.

use std::process::ExitCode;

use tributary_dsl::Diagnostic;

/// Why a command failed, in the terms of its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// 1: stopped by an error while running.
    #[error("{0}")]
    Stopped(String),
    /// 3: the pipeline has errors; they were printed.
    #[error("{errors} error{} in the pipeline", if *errors == 1 { "" } else { "s" })]
    Pipeline {
        /// How many.
        errors: usize,
    },
    /// 4: a server could not be reached.
    #[error("{0}")]
    Unreachable(String),
    /// 5: what was asked for is not there.
    #[error("{0}")]
    NotFound(String),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Stopped(_) => 1,
            Self::Pipeline { .. } => 3,
            Self::Unreachable(_) => 4,
            Self::NotFound(_) => 5,
        })
    }

    /// Stopped by what is wrong at places of the pipeline.
    pub fn found(found: &[Diagnostic]) -> Self {
        // The first follows the word that failures begin with.
        let texts = found.iter().enumerate().map(|(i, d)| if i == 0 { d.untitled() } else { d.render(false) });
        Self::Stopped(texts.collect::<Vec<_>>().join("\n\n"))
    }

    /// The failure of a part that was asked something: unreachable if it may pass, else stopped.
    pub fn of(class: tributary_event::ErrorClass, message: impl Into<String>) -> Self {
        match class {
            tributary_event::ErrorClass::Transient => Self::Unreachable(message.into()),
            _ => Self::Stopped(message.into()),
        }
    }
}
