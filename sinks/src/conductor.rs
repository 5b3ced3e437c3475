//! Workflows of a Conductor server, one for each event.
//!
//! A start whose answer did not come may have been done. The servers differ in what helps then:
//!
//! - Orkes takes a key with each start and answers a second one of the key with the workflow that is there already, as long as it keeps
//!   that workflow. So a start is just tried again.
//! - The open source server has such a field and does not read it. Each start has a correlation id instead, and before a start that may
//!   have been done it is looked up whether a workflow has it. Servers that keep workflows in Redis answer from a search index that lags
//!   behind, so this waits first (`settle`); those that keep them in PostgreSQL or MySQL leave out workflows that are being written at that
//!   moment (`SKIP LOCKED`), so "there is none" is asked for twice. Where the look-up lags for longer, a workflow starts twice.
//!
//! Which starts may have been done is argued in `past.rs`. One of a process that has lost its partitions may still be on its way when
//! another process looks it up, and then a workflow starts twice as well: `settle` is the time that it has.
//!
//! All this was tested against a stub that behaves as the open source server's source code and Orkes' documentation say, not against a
//! server.
//!
//! References: conductor-oss `WorkflowResource`, `MetadataResource`, `StartWorkflowRequest`, `ApplicationExceptionMapper`; Orkes, "Start
//! Workflow Execution" (`X-Idempotency-key`, `X-on-conflict`).

mod asked;
mod key;
mod past;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderName};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;
use tokio::time::{sleep, sleep_until};
use tributary_dsl::plan::{ConductorFlavor, ConductorPlan, KnownFields};
use tributary_processor::OutsideError;
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};
use url::Url;

use crate::http::answer::{Answer, Outcome};
use crate::http::{Receiver, Sent, Settings, StandIn, traceparent};
use past::Past;

/// Headers that are the sink's own.
const OWN: [&str; 5] = ["x-idempotency-key", "x-on-conflict", "content-type", "content-length", "transfer-encoding"];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");
const ON_CONFLICT: HeaderName = HeaderName::from_static("x-on-conflict");
/// The longest answer of the server that is read: a workflow with its input and output, or a definition.
const MOST_BYTES: usize = 16 << 20;
/// What is told of an answer that did not come to its end.
const BROKEN_OFF: &str = "its answer broke off, or is longer than 16 MiB";
/// Characters of an input that the log has at most.
const SHOWN: usize = 2_000;
/// The pause between the two questions whether a workflow was started.
const AGAIN: Duration = Duration::from_millis(100);

/// A server that starts a workflow for each event.
///
/// Up to `concurrency` requests are in flight at a time, whoever calls; the others wait for their turn. A call that is dropped may have
/// started a workflow.
pub struct Conductor {
    receiver: Receiver,
    /// The sink's name, which its starts are known by.
    name: String,
    workflow: String,
    version: Option<u32>,
    input_fields: KnownFields,
    flavor: ConductorFlavor,
    settle: Duration,
    past: Past,
    checked: OnceCell<()>,
    /// Whether nothing is started.
    is_dry: bool,
}

impl std::fmt::Debug for Conductor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Conductor");
        debug.field("place", &self.receiver.place).field("workflow", &self.workflow).finish_non_exhaustive()
    }
}

/// The body of a start (`StartWorkflowRequest`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    correlation_id: &'a str,
    input: &'a RawValue,
}

/// What is known of a start that may have been done.
enum Found {
    Yes,
    No,
    /// It is not known now.
    Unknown(Verdict),
}

impl Conductor {
    /// A sink for a plan, by the name that it has in its stream. Nothing is sent.
    ///
    /// # Errors
    /// Fatal: the URL or a header cannot be used, or the URL leads to a private address that the plan does not allow.
    pub fn new(plan: &ConductorPlan, name: &str) -> Result<Self, OutsideError> {
        Self::with(plan, name, None)
    }

    /// The same, but a stand-in takes what would be sent, also of what would be started but for a dry run.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn stood_in(plan: &ConductorPlan, name: &str, stand_in: Arc<dyn StandIn>) -> Result<Self, OutsideError> {
        Self::with(plan, name, Some(stand_in))
    }

    fn with(plan: &ConductorPlan, name: &str, stand_in: Option<Arc<dyn StandIn>>) -> Result<Self, OutsideError> {
        let is_dry = plan.dry_run && stand_in.is_none();
        let receiver = Receiver::new(&Settings {
            kind: "conductor",
            url: &plan.url,
            headers: &plan.headers,
            is_own: |name| OWN.contains(&name),
            timeout: plan.timeout,
            concurrency: plan.concurrency,
            private: plan.private,
        })?
        .stood_in(stand_in);
        Ok(Self {
            receiver,
            name: name.to_owned(),
            workflow: plan.workflow.clone(),
            version: plan.version,
            input_fields: plan.input_fields.clone(),
            flavor: plan.flavor,
            settle: plan.settle,
            past: Past::new(),
            checked: OnceCell::new(),
            is_dry,
        })
    }

    /// Asks the server whether the workflow is there, and gives what a person may have to look at: parameters that the input will never have.
    /// It is done before the first event is delivered, until the server has answered; nothing is started.
    ///
    /// # Errors
    /// Fatal: the workflow is not registered, or the server refuses us, or it is none. Transient: it does not answer now.
    pub async fn check(&self) -> Result<Option<String>, OutsideError> {
        let transient = |why: &str| OutsideError::transient(format!("{}: {why}", self.receiver.place));
        let url = self.versioned(self.url(&["metadata", "workflow", &self.workflow]));
        let answer = match self.receiver.send(self.receiver.request(Method::GET, url)).await? {
            Sent::Answer(response) => Answer::read_up_to(response, MOST_BYTES).await,
            Sent::Lost(why) => return Err(transient(&why)),
        };
        match (answer.status, answer.outcome()) {
            (StatusCode::NOT_FOUND, _) => Err(self.unknown(&answer)),
            // Whoever may start a workflow may lack the right to see its definition.
            (StatusCode::FORBIDDEN, _) => Ok(Some(format!(
                "the server does not let us see the definition of the workflow {:?}, so it is not known whether the workflow is there",
                self.workflow
            ))),
            (_, Outcome::Event(Verdict::Delivered | Verdict::Superseded)) if !answer.is_whole => {
                Err(transient(BROKEN_OFF))
            }
            (_, Outcome::Event(Verdict::Delivered | Verdict::Superseded)) => self.compare(&answer),
            (_, Outcome::Event(Verdict::Retry { why, .. })) => Err(transient(&why)),
            (_, Outcome::Event(Verdict::Rejected(why)) | Outcome::Receiver(why)) => Err(self.receiver.fatal(&why)),
        }
    }

    /// Holds the definition against what will be sent.
    fn compare(&self, answer: &Answer) -> Result<Option<String>, OutsideError> {
        let lacking = asked::lacking(&answer.body, &self.workflow, self.input_fields.get());
        let lacking = lacking.map_err(|()| self.stranger("the definition of the workflow"))?;
        Ok((!lacking.is_empty()).then(|| {
            format!(
                "the workflow {:?} has input parameters that the sink's `input` will never have ({}): add them there, or remove them from \
                 the definition",
                self.workflow,
                lacking.join(", ")
            )
        }))
    }

    /// The check before the first event, whose note goes to the log.
    async fn look(&self) -> Result<(), OutsideError> {
        if let Some(note) = self.check().await? {
            tracing::warn!(sink = self.name, "{note}");
        }
        Ok(())
    }

    /// What is asked for is not there.
    fn unknown(&self, answer: &Answer) -> OutsideError {
        let version = self.version.map_or(String::new(), |version| format!(" of version {version}"));
        self.receiver.fatal(&format!(
            "{}; the workflow {:?}{version} is not registered there, or the url is not where the server's API begins (it usually ends in \
             /api): register it, or correct `workflow`, `version` or `url`; nothing was skipped",
            answer.said(),
            self.workflow
        ))
    }

    /// An answer that no Conductor server gives.
    fn stranger(&self, what: &str) -> OutsideError {
        self.receiver.fatal(&format!(
            "what it answered is not {what}; the url is not where a Conductor server's API begins (it usually ends in /api): correct it; \
             nothing was skipped"
        ))
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.receiver.url.clone();
        // A URL of HTTP always has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    fn versioned(&self, mut url: Url) -> Url {
        if let Some(version) = self.version {
            url.query_pairs_mut().append_pair("version", &version.to_string());
        }
        url
    }

    async fn start(&self, event: &OutEvent) -> Result<Verdict, OutsideError> {
        self.checked.get_or_try_init(|| self.look()).await?;
        let key = key::key(event, &self.name);
        let content = event.content.as_deref().unwrap_or(b"null");
        let input: &RawValue = match serde_json::from_slice(content) {
            Ok(input) => input,
            Err(e) => return Ok(Verdict::Rejected(format!("the input is no JSON: {e}"))),
        };
        if self.is_dry {
            return Ok(self.would_start(event, &key, input));
        }
        match self.flavor {
            ConductorFlavor::Orkes => self.start_by_key(event, &key, input).await,
            ConductorFlavor::Oss => self.start_unless_found(event, &key, input).await,
        }
    }

    /// Tells what would be started.
    fn would_start(&self, event: &OutEvent, key: &str, input: &RawValue) -> Verdict {
        let (stream, sink, workflow) = (&*event.kind, &self.name, &self.workflow);
        metrics::counter!("tributary_sink_dry_starts_total", "stream" => stream.to_owned(), "sink" => sink.clone())
            .increment(1);
        let input: String = input.get().chars().take(SHOWN).collect();
        let version = self.version;
        tracing::info!(stream, sink, workflow, version, key, input, "a workflow would be started, but for `dry_run`");
        Verdict::Delivered
    }

    /// Starts a workflow on a server that keeps the keys of starts.
    async fn start_by_key(&self, event: &OutEvent, key: &str, input: &RawValue) -> Result<Verdict, OutsideError> {
        let mut url = self.versioned(self.url(&["workflow", &self.workflow]));
        url.query_pairs_mut().append_pair("correlationId", key);
        let request = self.post(event, url, input.get().to_owned());
        let request = request.header(IDEMPOTENCY_KEY, key).header(ON_CONFLICT, "RETURN_EXISTING");
        match self.receiver.send(request).await? {
            Sent::Answer(response) => self.judge(&Answer::read(response).await),
            Sent::Lost(why) => Ok(Verdict::Retry { after: None, why }),
        }
    }

    /// Starts a workflow on a server that ignores keys: not before it is known that none was started for the event.
    async fn start_unless_found(&self, event: &OutEvent, key: &str, input: &RawValue) -> Result<Verdict, OutsideError> {
        let turn = self.past.turn(event.key.as_ref());
        if let Some(since) = turn.doubtful {
            // What a former process started is found after that.
            sleep_until(since + self.settle).await;
            match self.find_twice(key).await? {
                Found::Yes => return Ok(Verdict::Delivered),
                Found::Unknown(verdict) => return Ok(verdict),
                Found::No => {}
            }
        }
        let start = Start { name: &self.workflow, version: self.version, correlation_id: key, input };
        let Ok(body) = serde_json::to_string(&start) else {
            return Ok(Verdict::Rejected("the start of its workflow cannot be written".to_owned()));
        };
        match self.receiver.send(self.post(event, self.url(&["workflow"]), body)).await {
            Ok(Sent::Answer(response)) => {
                let answer = Answer::read(response).await;
                let verdict = self.judge(&answer);
                // A server that fails may have started it, and one behind it too.
                if answer.status.is_server_error() || answer.status == StatusCode::REQUEST_TIMEOUT {
                    return verdict.map(|verdict| self.later(verdict));
                }
                self.past.settle(turn);
                verdict
            }
            Ok(Sent::Lost(why)) => Ok(self.later(Verdict::Retry { after: None, why })),
            // It did not reach the server.
            Err(error) => {
                self.past.settle(turn);
                Err(error)
            }
        }
    }

    /// The same verdict, but not before a workflow that was started is found.
    fn later(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Retry { after, why } => {
                Verdict::Retry { after: Some(after.unwrap_or_default().max(self.settle)), why }
            }
            verdict => verdict,
        }
    }

    fn post(&self, event: &OutEvent, url: Url, body: String) -> RequestBuilder {
        let span = event.span.and_then(traceparent).into_iter().collect();
        let request = self.receiver.request(Method::POST, url).headers(span);
        request.header(CONTENT_TYPE, "application/json").body(body)
    }

    /// What the answer to a start means.
    fn judge(&self, answer: &Answer) -> Result<Verdict, OutsideError> {
        match answer.outcome() {
            _ if answer.status == StatusCode::NOT_FOUND => Err(self.unknown(answer)),
            Outcome::Event(verdict) => Ok(verdict),
            Outcome::Receiver(why) => Err(self.receiver.fatal(&why)),
        }
    }

    /// Whether a workflow was started for an event; that none was is asked for again.
    async fn find_twice(&self, key: &str) -> Result<Found, OutsideError> {
        match self.find(key).await? {
            Found::No => {
                sleep(AGAIN).await;
                self.find(key).await
            }
            found => Ok(found),
        }
    }

    async fn find(&self, key: &str) -> Result<Found, OutsideError> {
        let mut url = self.url(&["workflow", &self.workflow, "correlated", key]);
        url.query_pairs_mut().append_pair("includeClosed", "true");
        let answer = match self.receiver.send(self.receiver.request(Method::GET, url)).await? {
            Sent::Answer(response) => Answer::read_up_to(response, MOST_BYTES).await,
            Sent::Lost(why) => return Ok(Found::Unknown(Verdict::Retry { after: None, why })),
        };
        match answer.outcome() {
            _ if answer.status == StatusCode::NOT_FOUND => Err(self.unknown(&answer)),
            Outcome::Event(Verdict::Delivered | Verdict::Superseded) if !answer.is_whole => {
                Ok(Found::Unknown(Verdict::Retry { after: None, why: BROKEN_OFF.to_owned() }))
            }
            Outcome::Event(Verdict::Delivered | Verdict::Superseded) => {
                match asked::has(&answer.body, &self.workflow, key) {
                    Ok(true) => Ok(Found::Yes),
                    Ok(false) => Ok(Found::No),
                    Err(()) => Err(self.stranger("a list of workflows")),
                }
            }
            Outcome::Event(verdict @ Verdict::Retry { .. }) => Ok(Found::Unknown(verdict)),
            // It is no fact about the event that the server cannot be asked.
            Outcome::Event(Verdict::Rejected(why)) | Outcome::Receiver(why) => Err(self.receiver.fatal(&why)),
        }
    }
}

#[async_trait]
impl DeliverySink for Conductor {
    fn handed_over(&self) {
        self.past.begin_anew();
    }

    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError> {
        let mut verdicts = Vec::with_capacity(events.len());
        for event in events {
            match self.start(event).await {
                Ok(verdict) => verdicts.push(verdict),
                Err(error) if verdicts.is_empty() => return Err(error),
                // What was started is told; what was not is asked for again, and then the error is.
                Err(error) => {
                    verdicts.resize(events.len(), Verdict::Retry { after: None, why: error.message });
                    break;
                }
            }
        }
        Ok(verdicts)
    }
}
