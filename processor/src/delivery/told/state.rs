//! What a sink that is told has to do, and how it is.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;
use tributary_event::traces::Context;
use tributary_transport::{Polled, TopicPartition};

use crate::delivery::lanes::{Lane, Lanes};
use crate::parked::Again;
use crate::sink::OutEvent;
use crate::tickets::Ticket;

#[derive(Default)]
pub(super) struct State {
    pub lanes: Lanes<Item>,
    /// The partitions that are this process's.
    pub mine: HashSet<TopicPartition>,
    /// Why they cannot be taken over, while that is so.
    pub opening: Option<String>,
    /// Calls since the last one that the sink answered, and what the last of them said.
    pub failures: u32,
    pub trouble: String,
    /// Until then nothing is tried.
    pub pause: Option<Instant>,
    /// Whether one call finds out whether the sink is back.
    pub is_tested: bool,
    /// Lanes that stand still, and why.
    pub standing: HashMap<Lane, String>,
    /// Letters that are being done again, and where their events are from.
    pub again: HashMap<String, TopicPartition>,
}

/// An event to be delivered.
pub(super) struct Item {
    pub record: Polled,
    pub event: Result<OutEvent, String>,
    pub ticket: Option<Ticket>,
    /// If it was set aside before.
    pub again: Option<Again>,
}

impl Item {
    /// What a trace has of it: its record, and the span that requests said they came of.
    pub fn traced(&self) -> (&Polled, Option<Context>) {
        (&self.record, self.event.as_ref().ok().and_then(|event| event.span))
    }
}

/// What is to be done with an event before the sink is told of it.
pub(super) enum Fate {
    /// The sink is told.
    Told,
    /// It waits behind a letter, for this cause.
    Parked(String),
    /// Nothing: it has a letter, or its letter is gone.
    Over,
}
