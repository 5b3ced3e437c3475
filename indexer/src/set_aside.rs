//! The dead letters of one index: a document that could not be built is set aside, and its letter is withdrawn when a later
//! change builds it after all.
//!
//! A document has one letter at most, under its own name, so that the same failure again replaces it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{OutRecord, Outbox, StageError, Ticket};
use tributary_transport::dead_letter::DeadLetter;

use crate::bury::bury;
use crate::context::IndexContext;
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
    context: Arc<IndexContext>,
    outbox: Outbox,
    known: HashSet<String>,
}

impl SetAside {
    /// With the letters that are there at the start.
    pub fn new(context: Arc<IndexContext>, outbox: Outbox, letters: &[DeadLetter]) -> Self {
        let stage = stage(&context.plan.name);
        let known = letters.iter().filter(|l| l.stage == stage).map(|l| l.id.clone()).collect();
        let set_aside = Self { context, outbox, known };
        set_aside.count();
        set_aside
    }

    /// The way out.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Sets a document aside. The tickets are done when its letter is durable.
    pub async fn add(&mut self, document: Arc<str>, failed: Failed, tickets: Vec<Ticket>) -> Result<(), StageError> {
        let name = self.name(&document);
        let request = BuildRequest { id: document.to_string(), cause: failed.cause, stamp: 0 };
        let now = now_us();
        let letter = DeadLetter {
            id: name.clone(),
            stage: stage(&self.context.plan.name),
            topic: names::builds(&self.context.pipeline, &self.context.plan.name, Lane::Live),
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
        self.count();
        bury(&self.outbox, &self.context.pipeline, &letter, tickets).await
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
        self.count();
        tracing::info!(index = self.context.plan.name, document, "built after all; its dead letter is withdrawn");
        let topic = names::dead_letters(&self.context.pipeline).into();
        let tombstone = OutRecord { topic, key: Some(name.into_bytes()), value: None };
        self.outbox.post(vec![tombstone]).await
    }

    fn count(&self) {
        self.context.reports.set_aside.store(self.known.len() as u64, Ordering::Release);
    }

    fn name(&self, document: &str) -> String {
        format!("{}/{document}", self.context.plan.name)
    }
}

fn stage(index: &str) -> String {
    format!("build {index}")
}
