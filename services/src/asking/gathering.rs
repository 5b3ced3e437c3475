//! Keys that several callers want, gathered into requests: a key that is being asked for is waited for, not asked for twice.
//!
//! One task keeps the list of who waits for what, and owns the tasks that ask. A caller that goes away takes nothing with it but its own
//! wish: requests end, and whoever else waits for a key gets its outcome. What is done on cancel: when the [`Gathering`] is dropped, its
//! task and all that ask are aborted. What is done on error: whoever waits for a key whose task panicked gets an error that may pass.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::error;
use tributary_dsl::plan::BatchSettings;
use tributary_event::traces::Context;
use tributary_processor::OutsideError;

use crate::http::traced::within;
use crate::kept::cache::Cache;
use crate::questions::{Outcome, Questions};

/// So many callers may hand in wishes before the next one waits.
const WISHES: usize = 256;

/// A key that somebody waits for.
#[derive(Debug)]
struct Wish {
    key: Bytes,
    waiting: Waiting,
}

/// Somebody who waits for a key.
#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Outcome>,
    /// Within which span, if that is traced.
    span: Option<Context>,
}

/// The place where wishes are handed in.
#[derive(Debug)]
pub(crate) struct Gathering {
    wishes: mpsc::Sender<Vec<Wish>>,
    /// Aborted with it.
    _task: JoinSet<()>,
}

impl Gathering {
    /// Begins to gather. `runtime` runs what it does.
    pub(crate) fn new(questions: Questions, cache: Arc<Cache>, batch: BatchSettings, runtime: &Handle) -> Self {
        let (sender, receiver) = mpsc::channel(WISHES);
        let desk = Desk {
            questions: Arc::new(questions),
            cache,
            batch,
            waiting: HashMap::new(),
            pending: Vec::new(),
            since: None,
            under_way: JoinSet::new(),
            keys: HashMap::new(),
        };
        let mut task = JoinSet::new();
        task.spawn_on(desk.run(receiver), runtime);
        Self { wishes: sender, _task: task }
    }

    /// The outcome of each key, in their order. Keys do not repeat. A request came of the span of whoever waits for its first key that is
    /// asked for within one.
    pub(crate) async fn outcomes(&self, keys: Vec<Bytes>, span: Option<Context>) -> Vec<Outcome> {
        let mut replies = Vec::with_capacity(keys.len());
        let mut wishes = Vec::with_capacity(keys.len());
        for key in keys {
            let (reply, receiver) = oneshot::channel();
            wishes.push(Wish { key, waiting: Waiting { reply, span } });
            replies.push(receiver);
        }
        // Nobody takes it only if the task has ended, and then the replies say so.
        let _ = self.wishes.send(wishes).await;
        let mut outcomes = Vec::with_capacity(replies.len());
        for reply in replies {
            outcomes.push(reply.await.unwrap_or_else(|_| Err(gone())));
        }
        outcomes
    }
}

fn gone() -> OutsideError {
    OutsideError::transient("a question to a service ended without an outcome; it is asked again")
}

/// Who waits for what, and what is being asked.
struct Desk {
    questions: Arc<Questions>,
    cache: Arc<Cache>,
    batch: BatchSettings,
    /// Whoever waits for a key that is pending or being asked for.
    waiting: HashMap<Bytes, Vec<Waiting>>,
    /// Keys that wait for others.
    pending: Vec<Bytes>,
    /// Since when the first of them does.
    since: Option<Instant>,
    under_way: JoinSet<Vec<(Bytes, Outcome)>>,
    /// The keys of each task.
    keys: HashMap<Id, Vec<Bytes>>,
}

impl Desk {
    async fn run(mut self, mut wishes: mpsc::Receiver<Vec<Wish>>) {
        loop {
            let due = self.since.map(|since| since + self.linger());
            let is_due = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next_with_id() => self.ended(ended),
                () = is_due => self.ask(0),
                taken = wishes.recv() => match taken {
                    Some(taken) => self.take(taken).await,
                    None => return,
                },
            }
        }
    }

    fn linger(&self) -> std::time::Duration {
        if self.questions.is_list() { self.batch.linger } else { std::time::Duration::ZERO }
    }

    async fn take(&mut self, wishes: Vec<Wish>) {
        let mut joined = 0_u64;
        for Wish { key, waiting } in wishes {
            if let Some(others) = self.waiting.get_mut(&key) {
                others.push(waiting);
                joined += 1;
            } else if let Some(answer) = self.cache.get(&key).await {
                // It was answered after the caller looked. A caller that is gone does not mind.
                let _ = waiting.reply.send(Ok(answer));
            } else {
                self.waiting.insert(key.clone(), vec![waiting]);
                self.pending.push(key);
            }
        }
        if joined > 0 {
            let label = self.questions.service().label();
            metrics::counter!("tributary_service_coalesced_total", "service" => label).increment(joined);
        }
        if !self.pending.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
        self.ask(self.most());
    }

    /// Keys of one request at most.
    fn most(&self) -> usize {
        if self.questions.is_list() { self.batch.max.min(self.questions.most()).max(1) } else { 1 }
    }

    /// Asks for pending keys, as long as there are `least`.
    fn ask(&mut self, least: usize) {
        let most = self.most();
        while !self.pending.is_empty() && self.pending.len() >= least {
            let mut keys: Vec<Bytes> = self.pending.drain(..most.min(self.pending.len())).collect();
            // What nobody waits for any more is not asked for.
            keys.retain(|key| {
                let is_wanted =
                    self.waiting.get(key).is_some_and(|waiting| waiting.iter().any(|w| !w.reply.is_closed()));
                if !is_wanted {
                    self.waiting.remove(key);
                }
                is_wanted
            });
            if !keys.is_empty() {
                let spans = |key| self.waiting.get(key).into_iter().flatten().find_map(|waiting| waiting.span);
                let span = keys.iter().find_map(spans);
                let task = within(span, asking(self.questions.clone(), self.cache.clone(), keys.clone()));
                self.keys.insert(self.under_way.spawn(task).id(), keys);
            }
            self.since = Some(Instant::now());
        }
        if self.pending.is_empty() {
            self.since = None;
        }
    }

    fn ended(&mut self, ended: Result<(Id, Vec<(Bytes, Outcome)>), JoinError>) {
        let outcomes = match ended {
            Ok((id, outcomes)) => {
                self.keys.remove(&id);
                outcomes
            }
            Err(failure) => {
                error!(service = self.questions.service().name(), %failure, "a question to a service ended by itself");
                let keys = self.keys.remove(&failure.id()).unwrap_or_default();
                keys.into_iter().map(|key| (key, Err(gone()))).collect()
            }
        };
        for (key, outcome) in outcomes {
            for waiting in self.waiting.remove(&key).unwrap_or_default() {
                let _ = waiting.reply.send(outcome.clone());
            }
        }
    }
}

async fn asking(questions: Arc<Questions>, cache: Arc<Cache>, keys: Vec<Bytes>) -> Vec<(Bytes, Outcome)> {
    let begun = cache.begin();
    let outcomes = questions.outcomes(&keys).await;
    let mut taken = Vec::with_capacity(keys.len());
    for (key, outcome) in keys.into_iter().zip(outcomes) {
        let outcome = match outcome {
            Ok(answer) => Ok(cache.take(&key, answer, begun.as_ref()).await),
            failed => failed,
        };
        taken.push((key, outcome));
    }
    taken
}
