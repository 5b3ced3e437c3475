//! What a sink outside of the transport promises. There are two kinds, after who knows up to where it has come:
//!
//! - A [`DeliverySink`] is told of events one after the other and answers what became of each. The group's offset follows what is done,
//!   so an event may be delivered again after a crash, with the same id: at least once.
//! - A [`LedgerSink`] keeps the offset beside what it was given, in one step that succeeds or does not: exactly once.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tributary_event::Op;
use tributary_event::traces::Context;
use tributary_transport::{TopicId, TopicPartition};

use crate::outside::OutsideError;

/// An event that has come through the steps of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutEvent {
    /// Its id, the same at every try and for every sink: the number of the change in its source, and of the part where an event was
    /// split, such as `7061644215716937728` or `7061644215716937728.2`.
    pub id: String,
    /// What its id is unique in: `/<pipeline>/<stream>/<source>`.
    pub source: Arc<str>,
    /// What it is, such as `orders.shipped`: the name of its stream.
    pub kind: Arc<str>,
    /// What happened to the row.
    pub op: Op,
    /// The number of the change in its source: of two events of one row, the later one has the higher number.
    pub sequence: u64,
    /// When it was committed, microseconds since the Unix epoch, if that is known.
    pub committed_us: Option<i64>,
    /// Its key; events of one key are in order. A workflow has none where no order is kept.
    pub key: Option<Bytes>,
    /// The event as JSON, or what the sink's `row` or `input` makes of it; none where the row was deleted and the sink keeps rows.
    pub content: Option<Bytes>,
    /// For sinks that keep rows: the values of the row's key as a JSON object, `{"id":7}`.
    pub row_key: Option<Bytes>,
    /// The span of its delivery, if its change is traced: requests that tell of it say that they came of it.
    pub span: Option<Context>,
}

/// What became of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has arrived.
    Delivered,
    /// Something newer is there already.
    Superseded,
    /// Not now: it is tried again, with a growing pause and not before this time has passed, if it was said.
    Retry {
        /// The least pause.
        after: Option<Duration>,
        /// Why, in a sentence.
        why: String,
    },
    /// Never: a fact about this event.
    Rejected(String),
}

/// A sink that is told of events.
///
/// The caller gives events of one key one after the other, never two at a time, and those of other keys beside them, unless the plan says
/// `order: none`; it waits between tries, and gives up on what is rejected. A call that is dropped may have arrived all the same.
#[async_trait]
pub trait DeliverySink: Send + Sync {
    /// How many events one call takes; 1 where each is delivered by itself.
    fn most(&self) -> usize {
        1
    }

    /// Partitions were given to this process, and their events are about to come. The first ones of each key may have been delivered
    /// before: by another process, by an earlier one, or by this one.
    fn handed_over(&self) {}

    /// Delivers events, of different keys if there are several and an order is kept: what became of each, in their order. `Err`: none can be delivered now,
    /// whatever they are.
    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError>;
}

/// Up to where a ledger was given the events of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The offset of the first event that is not in the sink.
    pub next: u64,
    /// The topic that this is an offset of; none where that was not told, or not kept.
    pub topic: Option<TopicId>,
}

impl Mark {
    /// An offset of a topic of which nothing else is known.
    pub fn at(next: u64) -> Self {
        Self { next, topic: None }
    }

    /// Whether the mark that follows this one is of a topic that was made anew: its offset may be lower.
    pub fn is_followed_anew(&self, to: &Self) -> bool {
        TopicId::is_other(self.topic, to.topic)
    }
}

/// Events of one partition that a ledger takes together.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The partition of the stream that they were read from.
    pub place: &'a TopicPartition,
    /// Where the ledger stands, as [`LedgerSink::next`] or the last commit had it; none: it has no mark yet.
    pub from: Option<Mark>,
    /// Where it stands afterwards: the next event to read.
    pub to: Mark,
    /// The events in between, in order; none where all were left out.
    pub events: &'a [OutEvent],
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Committed {
    /// It is in the sink for good, with its mark.
    Done,
    /// The mark is not where the entry says: another process has the partition now. Nothing was changed.
    Fenced,
    /// One of the events can never be taken. Nothing was changed; the rest may be committed without it.
    Rejected {
        /// Its place among the entry's events.
        event: usize,
        /// Why, in a sentence.
        why: String,
    },
}

/// A sink that keeps, for each partition, up to where it was given events.
///
/// The caller commits one entry of a partition at a time. Two processes may do so during a handover of the partition: the mark decides,
/// whose `from` no longer holds is fenced.
#[async_trait]
pub trait LedgerSink: Send + Sync {
    /// How many events, and how many bytes of them, an entry should have at most.
    fn most(&self) -> (usize, usize) {
        (1_000, 4 << 20)
    }

    /// How long the caller may gather events for an entry, where that makes better ones.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    /// The mark of a partition; none before the first commit.
    ///
    /// # Errors
    /// The sink does not answer, or refuses.
    async fn next(&self, place: &TopicPartition) -> Result<Option<Mark>, OutsideError>;

    /// Takes events, all or none of them, and moves the mark with them. A sink that cannot go back says so of an entry that ends before it
    /// begins: that it is fenced; but not where the mark is followed by one of another topic ([`Mark::is_followed_anew`]).
    ///
    /// # Errors
    /// Nobody knows whether it was taken: [`Self::next`] tells.
    async fn commit(&self, entry: &Entry<'_>) -> Result<Committed, OutsideError>;

    /// Takes an event that was set aside before and is behind the mark, which stays. `read_at`: where it was read first; an event that is
    /// taken twice from there is there once.
    ///
    /// # Errors
    /// Nobody knows whether it was taken: it may be given again.
    async fn redo(
        &self,
        place: &TopicPartition,
        mark: Option<Mark>,
        _read_at: Mark,
        events: &[OutEvent],
    ) -> Result<Committed, OutsideError> {
        self.commit(&Entry { place, from: mark, to: mark.unwrap_or(Mark::at(0)), events }).await
    }
}
