//! The contract of a source: what the publishing loop asks of any database.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use tributary_event::ChangeEvent;

use crate::error::ConnectorError;

/// A place in a source from which it can resume: before it everything was given out, after it nothing.
pub trait Mark: Clone + Send + Sync + std::fmt::Debug + 'static {
    /// The content of the checkpoint that resumes here.
    fn encode(&self) -> Bytes;
}

/// A part of the log: events in commit order, and the mark behind the last of them.
#[derive(Debug)]
pub struct Part<M> {
    /// The events. They may be of several transactions, and a transaction may reach over many parts.
    pub events: Vec<ChangeEvent>,
    /// The mark behind the events. A part without events only moves the mark.
    pub mark: Option<M>,
    /// The source's server waits for this mark to be acknowledged.
    pub urgent: bool,
    /// How far what was read lies behind what the database does now; none: the time since the last event's transaction committed says it.
    /// A source brings its own where times of commits do not tell: clients give them, or what was read had no events.
    pub lag: Option<Duration>,
}

impl<M> Default for Part<M> {
    fn default() -> Self {
        Self { events: Vec::new(), mark: None, urgent: false, lag: None }
    }
}

impl<M> Part<M> {
    /// Empties the part and keeps its memory.
    pub fn clear(&mut self) {
        self.events.clear();
        self.mark = None;
        self.urgent = false;
        self.lag = None;
    }
}

/// A source of change events.
///
/// * **Order**: events come in the source's commit order, events of one transaction in the order of the changes;
///   `sequence` rises strictly, also over a restart from a mark.
/// * **Resumption**: a source that is opened at a mark gives exactly the events behind it.
/// * **Acknowledgement**: the source's server may forget what lies before an acknowledged mark, so the caller
///   acknowledges only what is durable. Marks are acknowledged in the order in which they were given.
/// * **Memory**: parts are bounded (one event can be as large as a row), transactions are not.
/// * **Errors** end the source: it is opened anew at the last durable mark, by the caller, if the class is transient.
pub trait Source: Send {
    /// Where the source can resume.
    type Mark: Mark;

    /// Clears `part` and fills it with what comes next; waits until there is something. Cancel-safe: a cancelled call
    /// leaves `part` empty and loses nothing.
    fn next(&mut self, part: &mut Part<Self::Mark>) -> impl Future<Output = Result<(), ConnectorError>> + Send;

    /// Keeps the connection alive without reading; ends only with an error. The caller awaits it whenever it does not
    /// await [`Source::next`]. Cancel-safe.
    fn keep_alive(&mut self) -> impl Future<Output = Result<(), ConnectorError>> + Send;

    /// Everything up to `mark` is durable. The server hears of it with the next status update.
    fn acknowledge(&mut self, mark: &Self::Mark);

    /// Tells the server the last acknowledged mark and closes the connection in order. Best effort.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}
