//! Asks for vertices in batches, and in halves of a batch where the server refuses it, answers too late or what cannot be
//! read, or does not say whose an error is: in the end exactly the vertices at fault have failed.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::{BoxFuture, try_join};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tracing::debug;
use tributary_event::ErrorClass;

use super::ceiling::{Ceiling, Learnt};
use super::errors::Trouble;
use super::response::Item;
use crate::graph::GraphError;

/// Asks for one batch, in one request.
#[async_trait]
pub(super) trait Ask: Send + Sync {
    /// One outcome per id, in order.
    async fn ask(&self, ids: &[String]) -> Result<Vec<Item>, Trouble>;

    /// Whether the server answers anything at all. Tells a query that takes too long from a server that hangs.
    async fn probe(&self) -> Result<(), GraphError>;
}

/// One outcome per id, in order. `Err`: nothing is known about any.
///
/// `ceiling` allows the largest batch; `width` bounds the batches that are begun at once.
pub(super) async fn outcomes(
    ask: &dyn Ask,
    ceiling: &Ceiling,
    ids: &[String],
    width: usize,
) -> Result<Vec<Item>, GraphError> {
    let call = Call {
        ask,
        ceiling,
        asked: ids.len(),
        answered: AtomicUsize::new(0),
        refused: AtomicBool::new(false),
        alive: AtomicBool::new(false),
        silent: AtomicBool::new(true),
    };
    // Borrowed batches would tie the stream to a lifetime that an async trait's future cannot name.
    let batches: Vec<BoxFuture<'_, _>> = ids.chunks(ceiling.limit().max(1)).map(|b| call.batch(b)).collect();
    let all: Result<Vec<Vec<Item>>, GraphError> = stream::iter(batches).buffered(width.max(1)).try_collect().await;
    if !call.hangs() {
        call.silent.store(false, Ordering::Release);
    }
    all.map(|parts| parts.into_iter().flatten().collect())
}

struct Call<'a> {
    ask: &'a dyn Ask,
    ceiling: &'a Ceiling,
    asked: usize,
    /// The largest batch answered so far.
    answered: AtomicUsize,
    refused: AtomicBool,
    /// Whether the server answered anything during this call.
    alive: AtomicBool,
    /// Taken back when the call ends by itself, unless the server hangs.
    silent: AtomicBool,
}

impl Call<'_> {
    fn batch<'b>(&'b self, ids: &'b [String]) -> BoxFuture<'b, Result<Vec<Item>, GraphError>> {
        async move {
            let trouble = match self.ask.ask(ids).await {
                Ok(items) => {
                    self.alive.store(true, Ordering::Release);
                    self.answered.fetch_max(ids.len(), Ordering::AcqRel);
                    return Ok(items);
                }
                Err(Trouble::Whole(error) | Trouble::Rejected(error)) => return Err(error),
                Err(trouble) => trouble,
            };
            match &trouble {
                Trouble::TooSlow(error) => {
                    self.refused.store(true, Ordering::Release);
                    if !self.alive.load(Ordering::Acquire) {
                        self.ask.probe().await.map_err(|_| error.clone())?;
                    }
                }
                Trouble::TooMuch(_) => self.refused.store(true, Ordering::Release),
                // Whoever answered before may be gone since.
                Trouble::Unreadable(error) => self.ask.probe().await.map_err(|_| outage(error))?,
                _ => {}
            }
            self.alive.store(true, Ordering::Release);
            if ids.len() <= 1 {
                let error = trouble.into_error();
                return Ok(ids.iter().map(|_| Item::Failed(error.clone())).collect());
            }
            debug!(ids = ids.len(), cause = trouble.into_error().message, "asking for half as many");
            let (first, second) = ids.split_at(ids.len().div_ceil(2));
            let (mut first, second) = try_join(self.batch(first), self.batch(second)).await?;
            first.extend(second);
            Ok(first)
        }
        .boxed()
    }

    /// Whether a request took too long, and the server answered nothing else either.
    fn hangs(&self) -> bool {
        self.refused.load(Ordering::Acquire) && !self.alive.load(Ordering::Acquire)
    }
}

/// What an unreadable answer means where the server answers nothing else: it says nothing about any vertex.
pub(super) fn outage(unreadable: &GraphError) -> GraphError {
    let class = if unreadable.class == ErrorClass::Definite { ErrorClass::Transient } else { unreadable.class };
    GraphError::new(class, unreadable.message.clone())
}

/// A call that is dropped (its caller's deadline has passed) has learnt something too.
impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.ceiling.learn(Learnt {
            asked: self.asked,
            answered: self.answered.load(Ordering::Acquire),
            refused: self.refused.load(Ordering::Acquire),
            silent: self.silent.load(Ordering::Acquire),
        });
    }
}
