//! The task that looks after a pipeline's dead letters: it follows them, and tries those again that may have passed, with growing
//! pauses: after a minute, five, thirty, then every hour. And the way back of deletes that were held.
//!
//! The letter of a document stays until the document is built, which withdraws it, or fails again, which replaces it. That of an
//! event is taken out as the event is resolved again. Every process of a pipeline does this, so a letter may be tried twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};
use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{OutRecord, Outbox, StageError};
use tributary_transport::dead_letter::{DeadLetter, DeadLetters, Original, Replays};
use tributary_transport::{Headers, TransportError};

use super::book::{Book, Due};
use super::{build_stage, count, delete_stage, outline, tombstone};
use crate::context::IndexContext;
use crate::report::RESUMED;
use crate::request::{BuildRequest, Cause};

/// How often the topic of letters is looked at.
const EVERY: Duration = Duration::from_secs(5);
/// Letters that are tried again at a time.
const AT_A_TIME: usize = 200;
/// The stage of events that could not be resolved.
pub(crate) const RESOLVE: &str = "resolve";

/// Looks after a pipeline's letters.
pub struct Keeper {
    /// The pipeline.
    pub pipeline: String,
    /// What is known of its letters.
    pub book: Arc<Book>,
    /// Its letters.
    pub letters: DeadLetters,
    /// Its indexes.
    pub indexes: Vec<Arc<IndexContext>>,
    /// The way out.
    pub outbox: Outbox,
}

impl Keeper {
    /// Runs until shutdown.
    ///
    /// # Errors
    /// The way out is closed.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), StageError> {
        let mut stages: HashSet<String> = HashSet::from([RESOLVE.to_owned()]);
        for index in &self.indexes {
            stages.extend([build_stage(&index.plan.name), delete_stage(&index.plan.name)]);
        }
        loop {
            for index in &self.indexes {
                count(index);
                tell(index);
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(EVERY) => {}
            }
            // Whoever needs the transport says that it is away; letters can wait.
            if let Err(error) = self.book.follow(&self.letters).await {
                debug!(error = error.message, "dead letters cannot be read");
                continue;
            }
            for due in self.book.due(now_us(), AT_A_TIME) {
                match self.records(&due, &stages).await {
                    Ok(records) => self.outbox.post(records).await?,
                    Err(error) if error.class == ErrorClass::Transient => break,
                    Err(error) => {
                        info!(error = error.message, "a dead letter cannot be tried again");
                        self.book.give_up(due.name);
                    }
                }
            }
        }
    }

    /// What trying a letter again sends.
    async fn records(&self, due: &Due, stages: &HashSet<String>) -> Result<Vec<OutRecord>, TransportError> {
        let letter = self.letters.at(due.offset).await?;
        let Some(letter) = letter.filter(|letter| stages.contains(&letter.stage)) else {
            // It is another pipeline's, or is not there any more.
            self.book.give_up(due.name);
            return Ok(Vec::new());
        };
        let Original { key, value, headers } = self.letters.original(&letter).await?;
        let bytes = |bytes: Option<bytes::Bytes>| bytes.map(|bytes| bytes.to_vec());
        let again = OutRecord { topic: letter.topic.as_str().into(), key: bytes(key), value: bytes(value), headers };
        metrics::counter!("tributary_dead_letters_replayed_total", "stage" => letter.stage.clone()).increment(1);
        debug!(letter = letter.id, replays = letter.replays.count, "a dead letter is tried again");
        if letter.stage == RESOLVE {
            self.book.taken_out(&letter.id);
            return Ok(vec![again, tombstone(&self.pipeline, letter.id.into_bytes())]);
        }
        let replays = Replays { count: letter.replays.count.saturating_add(1), last_us: now_us() };
        let tried = DeadLetter { replays, ..letter };
        self.book.written(&tried.id, outline(&tried), None);
        let (key, value) = tried.encode(self.outbox.limit());
        let topic = crate::request::names::dead_letters(&self.pipeline).into();
        Ok(vec![again, OutRecord { topic, key: Some(key), value: Some(value), headers: Headers::NONE }])
    }
}

/// Says whether deletes of an index wait, and what may be done.
pub(crate) fn tell(index: &IndexContext) {
    match index.brake.stops(Instant::now()).filter(|_| index.brake.held() > 0) {
        Some(why) => {
            let name = &index.plan.name;
            let why = format!(
                "{why}, so nothing is deleted: is the graph right? `tributary resume-deletes PIPELINE {name}` lets deletes go on; documents \
                 that the graph knows again stay by themselves"
            );
            if index.brake_health.down(why.clone()) {
                tracing::warn!(index = name, why, "deletes wait");
            }
        }
        None => drop(index.brake_health.up()),
    }
}

/// Lets the held deletes of an index go on: how many. They are asked for once more, wherever this pipeline runs.
///
/// # Errors
/// The transport did not answer; some may go on.
pub async fn resume_deletes(letters: &DeadLetters, index: &str) -> Result<usize, TransportError> {
    let stage = delete_stage(index);
    let request = |letter: &DeadLetter| {
        let id = letter.key_text().filter(|_| letter.stage == stage)?;
        let cause = Cause { id: RESUMED.into(), label: "deletes resumed".into(), commit_us: now_us(), affected: 0 };
        Some(BuildRequest { id, cause, stamp: 0 }.encode())
    };
    letters.replay_as(request).await
}
