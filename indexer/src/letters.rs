//! Dead letters: what could not be done is set aside, with its cause, and the pipeline goes on.
//!
//! A document has one letter at most, under its own name, so that the same failure again replaces it. Its letter is withdrawn when the
//! document is built after all. What may pass is tried again by the pipeline itself (see `replay`).

pub mod book;
pub mod origins;
pub mod replay;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tributary_event::ErrorClass;
use tributary_event::clock::now_us;
use tributary_processor::{OutRecord, Outbox, StageError, Ticket};
use tributary_transport::dead_letter::{DeadLetter, Outline, WayBack};
use tributary_transport::{Headers, Polled};

use crate::context::IndexContext;
use crate::letters::origins::Origins;
use crate::request::{BuildRequest, Cause, Lane, names};

/// Why a build was given up.
pub struct Failure {
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

/// The dead letters of one index.
#[derive(Clone)]
pub struct Letters {
    context: Arc<IndexContext>,
    outbox: Outbox,
    origins: Arc<Origins>,
}

impl Letters {
    /// Letters that go out by this outbox.
    pub fn new(context: Arc<IndexContext>, outbox: Outbox, origins: Origins) -> Self {
        let letters = Self { context, outbox, origins: Arc::new(origins) };
        count(&letters.context);
        letters
    }

    /// The way out.
    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Which topics requests are read from.
    pub(crate) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Sets a document aside whose build was given up. The tickets are done when its letter is durable.
    pub async fn set_aside(&self, id: &str, failure: Failure, tickets: Vec<Ticket>) -> Result<(), StageError> {
        self.send(build_stage(&self.context.plan.name), id, failure, tickets).await
    }

    /// Sets a document aside that would be deleted.
    pub async fn hold(&self, id: &str, failure: Failure, tickets: Vec<Ticket>) -> Result<(), StageError> {
        self.send(delete_stage(&self.context.plan.name), id, failure, tickets).await
    }

    async fn send(&self, stage: String, id: &str, failure: Failure, tickets: Vec<Ticket>) -> Result<(), StageError> {
        let name = self.name(id);
        let request = BuildRequest { id: id.to_owned(), cause: failure.cause, stamp: 0 };
        let now = now_us();
        let letter = DeadLetter {
            id: name.clone(),
            stage,
            topic: names::builds(&self.context.pipeline, &self.context.plan.name, Lane::Live),
            // It is about a document, whichever of its requests asked for it.
            topic_id: None,
            partition: failure.partition,
            offset: failure.offset,
            key: Some(id.as_bytes().to_vec()),
            value: Some(request.encode()),
            headers: Headers::NONE,
            class: failure.class,
            cause: failure.reason,
            attempts: failure.attempts,
            first_failed_us: now,
            last_failed_us: now,
            replays: self.context.letters.replays(&name),
            way_back: WayBack::Topic,
            plan: None,
            subject: name,
        };
        self.context.letters.written(&letter.id, outline(&letter), None);
        count(&self.context);
        send(&self.outbox, &self.context.pipeline, &letter, tickets).await
    }

    /// Sets aside a record that is no build request.
    pub async fn undecodable(&self, record: &Polled, reason: String, ticket: Ticket) -> Result<(), StageError> {
        let stage = build_stage(&self.context.plan.name);
        let letter = DeadLetter::of_record(stage, record.place.topic.to_string(), record, ErrorClass::Definite, reason);
        let letter = self.origins.of(letter, &record.place).await;
        send(&self.outbox, &self.context.pipeline, &letter, vec![ticket]).await
    }

    /// The document was built, or deleted: its letter, if it has one, has nothing to say any more.
    pub async fn withdraw(&self, id: &str) -> Result<(), StageError> {
        let name = self.name(id);
        if !self.context.letters.taken_out(&name) {
            return Ok(());
        }
        count(&self.context);
        tracing::debug!(index = self.context.plan.name, document = id, "a dead letter is withdrawn");
        self.outbox.post(vec![tombstone(&self.context.pipeline, name.into_bytes())]).await
    }

    fn name(&self, document: &str) -> String {
        format!("{}/{document}", self.context.plan.name)
    }
}

/// The stage of documents of an index that could not be built.
pub fn build_stage(index: &str) -> String {
    format!("build {index}")
}

/// The stage of documents of an index that would be deleted.
pub fn delete_stage(index: &str) -> String {
    format!("delete {index}")
}

/// Tells how many letters an index has.
pub(crate) fn count(context: &IndexContext) {
    let letters = [build_stage, delete_stage].map(|stage| context.letters.count(&stage(&context.plan.name)));
    let gauge = |stage: &'static str, letters: u64| {
        metrics::gauge!("tributary_dead_letters", "index" => context.plan.name.clone(), "stage" => stage)
            .set(letters as f64);
    };
    gauge("build", letters[0]);
    gauge("delete", letters[1]);
    context.reports.set_aside.store(letters.iter().sum(), Ordering::Release);
    context.brake.hold(letters[1]);
}

fn outline(letter: &DeadLetter) -> Outline {
    let DeadLetter { stage, class, last_failed_us, replays, .. } = letter;
    Outline { stage: stage.clone(), class: *class, last_failed_us: *last_failed_us, replays: *replays }
}

/// A letter on its way to the topic of dead letters.
pub(crate) fn record(outbox: &Outbox, pipeline: &str, letter: &DeadLetter) -> OutRecord {
    metrics::counter!("tributary_dead_letters_total", "stage" => letter.stage.clone()).increment(1);
    let (key, value) = letter.encode(outbox.limit());
    let topic = names::dead_letters(pipeline).into();
    OutRecord { topic, key: Some(key), value: Some(value), headers: Headers::NONE }
}

/// Sends a letter. The tickets are done when it is durable.
pub(crate) async fn send(
    outbox: &Outbox,
    pipeline: &str,
    letter: &DeadLetter,
    tickets: Vec<Ticket>,
) -> Result<(), StageError> {
    outbox.send(vec![record(outbox, pipeline, letter)], tickets).await
}

/// Takes a letter out.
fn tombstone(pipeline: &str, id: Vec<u8>) -> OutRecord {
    let topic = names::dead_letters(pipeline).into();
    OutRecord { topic, key: Some(id), value: None, headers: Headers::NONE }
}
