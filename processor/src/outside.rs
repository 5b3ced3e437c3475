//! What streams ask of systems outside: answers of services, and how those fail. What they deliver is [`crate::sink`]'s.

use async_trait::async_trait;
use bytes::Bytes;
use tributary_event::ErrorClass;
use tributary_event::traces::Context;
use tributary_transport::Polled;

/// A failure of a service or a sink as a whole, whatever it is asked or given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct OutsideError {
    /// `Transient`: it may pass by itself. `Fatal`: somebody has to do something. In both cases whoever asks stands still, skips nothing and
    /// tries again now and then. Never `Definite`.
    pub class: ErrorClass,
    /// Place, cause, remedy.
    pub message: String,
}

impl OutsideError {
    /// An error that may pass.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { class: ErrorClass::Transient, message: message.into() }
    }

    /// An error that does not pass by itself.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self { class: ErrorClass::Fatal, message: message.into() }
    }
}

/// What a service says of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It knows it: JSON.
    Found(Bytes),
    /// It does not know it. Never what a failure looks like.
    Missing,
    /// It failed for this key, and would again: a sentence.
    Failed(String),
}

/// Who wants to hear of changes before anything is made of them: what is kept of answers, and no longer holds, is dropped.
#[async_trait]
pub trait Changes: Send + Sync {
    /// These records were read. What was kept before and does not know of them is gone when this returns.
    async fn are_read(&self, records: &[&Polled]);
}

/// A service that knows more of keys.
#[async_trait]
pub trait Enricher: Send + Sync {
    /// What it knows of keys, each of which is JSON: an answer for each, in their order. Keys may repeat. The caller may ask for several
    /// lists at a time; a call that is dropped has no effect.
    ///
    /// # Errors
    /// It does not answer now, or refuses us.
    async fn ask(&self, keys: &[Bytes]) -> Result<Vec<Answer>, OutsideError>;

    /// The same, within a span of a trace: requests say that they came of it.
    ///
    /// # Errors
    /// As [`Self::ask`].
    async fn ask_within(&self, keys: &[Bytes], _span: Option<Context>) -> Result<Vec<Answer>, OutsideError> {
        self.ask(keys).await
    }

    /// Waits until its answers have all changes that a source made before one that the caller has read: that of this number, if it has
    /// one. Cancel-safe.
    ///
    /// # Errors
    /// It does not come that far now.
    async fn has_passed(&self, _sequence: Option<u64>) -> Result<(), OutsideError> {
        Ok(())
    }
}
