//! The dead letters of one index: a document that could not be built is set aside, and its letter is withdrawn when a later
//! change builds it after all.
//!
//! A document has one letter at most, under its own name, so that the same failure again replaces it.

use std::collections::HashSet;
use std::sync::Arc;

use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{OutRecord, Outbox, StageError, Ticket};
use tributary_transport::dead_letter::DeadLetter;

use crate::bury::bury;
use crate::request::{BuildRequest, Cause, Lane, names};

/// A build that was given up.
pub struct Failed {
    /// Why the document was to be built.
    pub cause: Cause,
    /// The partition of the first request for it.
    pub partition: u32,
    /// The offset of that request.
    pub offset: u64,
    /// The class of the error.
    pub class: ErrorClass,
    /// The error.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
}

/// The documents of an index that are set aside, and the way to their topic.
pub struct SetAside {
    pipeline: String,
    index: String,
    outbox: Outbox,
    known: HashSet<String>,
}

impl SetAside {
    /// With the letters that are there at the start.
    pub fn new(pipeline: &str, index: &str, outbox: Outbox, letters: &[DeadLetter]) -> Self {
        let known = letters.iter().filter(|l| l.stage == stage(index)).map(|l| l.id.clone()).collect();
        Self { pipeline: pipeline.to_owned(), index: index.to_owned(), outbox, known }
    }

    /// Sets a document aside. The tickets are done when its letter is durable.
    pub async fn add(&mut self, document: Arc<str>, failed: Failed, tickets: Vec<Ticket>) -> Result<(), StageError> {
        let name = self.name(&document);
        let request = BuildRequest { id: document.to_string(), cause: failed.cause };
        let now = now_us();
        let letter = DeadLetter {
            id: name.clone(),
            stage: stage(&self.index),
            topic: names::builds(&self.pipeline, &self.index, Lane::Live),
            partition: failed.partition,
            offset: failed.offset,
            key: Some(document.as_bytes().to_vec()),
            value: Some(request.encode()),
            class: failed.class,
            cause: failed.reason,
            attempts: failed.attempts,
            first_failed_us: now,
            last_failed_us: now,
            subject: name.clone(),
        };
        self.known.insert(name);
        bury(&self.outbox, &self.pipeline, &letter, tickets).await
    }

    /// The document was built: its letter, if it has one, has nothing to say any more.
    pub async fn withdraw(&mut self, document: &str) -> Result<(), StageError> {
        if self.known.is_empty() {
            return Ok(());
        }
        let name = self.name(document);
        if !self.known.remove(&name) {
            return Ok(());
        }
        tracing::info!(index = self.index, document, "built after all; its dead letter is withdrawn");
        let topic = names::dead_letters(&self.pipeline).into();
        let tombstone = OutRecord { topic, key: Some(name.into_bytes()), value: None };
        self.outbox.send(vec![tombstone], Vec::new()).await
    }

    fn name(&self, document: &str) -> String {
        format!("{}/{document}", self.index)
    }
}

fn stage(index: &str) -> String {
    format!("build {index}")
}
