//! Where something of a plan is written, for what is found about it when tables and graph are looked at.

use std::fmt;

use crate::diagnostic::{Diagnostic, Severity, Spot};

/// A place in a pipeline's text. It does not change what a plan means: all places are equal.
#[derive(Clone, Default, Eq)]
pub struct Place(Option<Spot>);

impl Place {
    pub(crate) fn of(spot: &Spot) -> Self {
        Self(Some(spot.clone()))
    }

    /// An error here.
    pub fn error(&self, message: impl Into<String>) -> Diagnostic {
        self.say(Severity::Error, message.into())
    }

    /// A warning here.
    pub fn warning(&self, message: impl Into<String>) -> Diagnostic {
        self.say(Severity::Warning, message.into())
    }

    /// Something here that only a person can judge.
    pub fn note(&self, message: impl Into<String>) -> Diagnostic {
        self.say(Severity::Note, message.into())
    }

    fn say(&self, severity: Severity, message: String) -> Diagnostic {
        match &self.0 {
            Some(spot) => spot.diagnostic(severity, message),
            None => Diagnostic::nowhere(severity, message),
        }
    }
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("_")
    }
}
