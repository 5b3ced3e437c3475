//! What a consumer's thread hands to its caller: bounded in count and bytes; the thread waits with a time limit, so that
//! it can go on serving the group while the caller is away.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::contract::{Assignment, Loss, Polled, TopicPartition, TransportError};

/// Deliveries of records that may wait.
const COUNT: usize = 4;
/// Bytes of records that may wait; one delivery is always let in.
const BYTES: usize = 2 << 20;

#[derive(Debug)]
pub(super) enum Item {
    /// Partitions with the number of their assignment.
    Assigned(Vec<(Assignment, u64)>),
    Revoked(Vec<TopicPartition>),
    /// Losses; of a partition that begins anew with the number of its new assignment.
    Lost(Vec<(Loss, Option<u64>)>),
    Records(Vec<Polled>),
    Failed(TransportError),
}

#[derive(Default)]
pub(super) struct Mailbox {
    state: Mutex<State>,
    room: Condvar,
    news: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    deliveries: usize,
    bytes: usize,
    closed: bool,
}

pub(super) fn size(records: &[Polled]) -> usize {
    let of = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, bytes::Bytes::len);
    records.iter().map(|r| of(&r.key) + of(&r.value) + 64).sum()
}

impl Mailbox {
    /// Waits for room, up to a time limit, and puts the records in. Gives them back if there was none.
    pub fn put(&self, records: Vec<Polled>, limit: Duration) -> Option<Vec<Polled>> {
        let bytes = size(&records);
        let full = |state: &mut State| {
            !state.closed && state.deliveries > 0 && (state.deliveries >= COUNT || state.bytes + bytes > BYTES)
        };
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut state, wait) =
            self.room.wait_timeout_while(state, limit, full).unwrap_or_else(PoisonError::into_inner);
        if wait.timed_out() {
            return Some(records);
        }
        state.deliveries += 1;
        state.bytes += bytes;
        state.items.push_back(Item::Records(records));
        drop(state);
        self.news.notify_one();
        None
    }

    /// Puts in what is no record: at once.
    pub fn tell(&self, item: Item) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Records that wait do not count any more.
        let is_void = |record: &Polled| match &item {
            Item::Revoked(places) => places.contains(&record.place),
            Item::Lost(losses) => losses.iter().any(|(loss, _)| loss.place == record.place),
            _ => false,
        };
        if matches!(item, Item::Revoked(_) | Item::Lost(_)) {
            for waiting in &mut state.items {
                if let Item::Records(records) = waiting {
                    records.retain(|record| !is_void(record));
                }
            }
        }
        state.items.push_back(item);
        drop(state);
        self.news.notify_one();
    }

    /// The next item. Cancel-safe.
    pub async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.take() {
                return item;
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> Option<Item> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let item = state.items.pop_front()?;
            if let Item::Records(records) = &item {
                state.deliveries -= 1;
                state.bytes = if state.deliveries == 0 { 0 } else { state.bytes.saturating_sub(size(records)) };
                self.room.notify_one();
                if records.is_empty() {
                    continue;
                }
            }
            return Some(item);
        }
    }

    /// Lets the thread go.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.room.notify_all();
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed
    }
}
