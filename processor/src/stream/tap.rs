//! Taps: whoever wants to watch what flows through the steps of streams. Where nobody watches, a stream looks at one number for each run
//! of records, and does nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value as Json, json};
use tokio::sync::broadcast;
use tributary_expression::{Value, json as values};
use tributary_transport::Polled;

/// Events that wait for a watcher at most; what comes beyond is not seen by it, and it is told how many that were.
const KEPT: usize = 1_024;

/// The taps of a pipeline.
pub struct Taps {
    watchers: Arc<AtomicUsize>,
    sender: broadcast::Sender<Arc<Tapped>>,
}

/// What became of an event at a step.
#[derive(Debug, Clone)]
pub struct Tapped {
    /// The stream.
    pub stream: Arc<str>,
    /// The step; `from` is what a stream begins with.
    pub step: String,
    /// Where the event was read.
    pub place: String,
    /// The event behind the step; as it came to it, where it did not go on.
    pub event: Value,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of an event at a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Passed,
    /// It ends here.
    Dropped,
    /// The step failed for it.
    Failed(String),
}

impl Default for Taps {
    fn default() -> Self {
        Self { watchers: Arc::default(), sender: broadcast::channel(KEPT).0 }
    }
}

/// A watcher. It watches until it is dropped.
pub struct Watcher {
    watchers: Arc<AtomicUsize>,
    receiver: broadcast::Receiver<Arc<Tapped>>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.watchers.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Watcher {
    /// The next event that passed a step, or how many were not seen because the watcher was too slow. None: nothing comes any more.
    pub async fn next(&mut self) -> Option<Result<Arc<Tapped>, u64>> {
        match self.receiver.recv().await {
            Ok(tapped) => Some(Ok(tapped)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Err(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

impl Taps {
    /// Begins to watch.
    pub fn watch(&self) -> Watcher {
        let receiver = self.sender.subscribe();
        self.watchers.fetch_add(1, Ordering::AcqRel);
        Watcher { watchers: self.watchers.clone(), receiver }
    }

    /// Whether anybody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Acquire) > 0
    }

    pub(super) fn tell(&self, stream: &Arc<str>, step: &str, record: &Polled, event: Value, outcome: Outcome) {
        let place = format!("{}/{}/{}", record.place.topic, record.place.partition, record.offset);
        let tapped = Tapped { stream: stream.clone(), step: step.to_owned(), place, event, outcome };
        // The last watcher may have left meanwhile.
        let _ = self.sender.send(Arc::new(tapped));
    }
}

impl Tapped {
    /// As it is told to people.
    pub fn to_json(&self) -> Json {
        let mut text = Vec::new();
        values::write(&self.event, &mut text);
        let event: Json = serde_json::from_slice(&text).unwrap_or_default();
        let (outcome, cause) = match &self.outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Dropped => ("dropped", None),
            Outcome::Failed(cause) => ("failed", Some(cause)),
        };
        let mut told = json!({
            "stream": &*self.stream, "step": self.step, "place": self.place, "outcome": outcome, "event": event
        });
        if let Some(cause) = cause {
            told["cause"] = json!(cause);
        }
        told
    }
}
