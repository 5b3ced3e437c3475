//! Traces on their way to a collector: OTLP over HTTP, as JSON (OpenTelemetry Protocol 1.x, `POST /v1/traces`).
//!
//! Nothing waits for a collector. Spans that it does not take in time, or that come faster than it takes them, are left out and counted.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value as Json, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::{info, warn};
use tributary_dsl::plan::TracesPlan;
use tributary_event::Trouble;
use tributary_event::traces::{Recorder, Span, SpanKind, install};
use tributary_processor::Backoff;

use crate::cli::exit::Failure;

/// Spans that wait at most.
const WAITING: usize = 16_384;
/// Spans of one request at most.
const TOGETHER: usize = 512;
/// So long a span waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// So often a request is sent, if its failure may pass.
const TRIES: u32 = 4;
/// The end of a pipeline waits so long for the last spans.
const ENDING: Duration = Duration::from_secs(3);

/// Spans that are being sent.
pub struct Traces {
    task: JoinHandle<()>,
    ending: mpsc::Sender<()>,
}

/// Hands spans to the task that sends them.
struct Queue {
    spans: mpsc::Sender<Span>,
    left_out: metrics::Counter,
}

impl Recorder for Queue {
    fn record(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.left_out.increment(1);
        }
    }
}

/// A collector.
struct Collector {
    http: reqwest::Client,
    url: String,
    resource: Json,
    sent: metrics::Counter,
    left_out: metrics::Counter,
    trouble: Trouble,
}

impl Traces {
    /// Begins to record traces, and to send them. None: somebody else in this process does.
    ///
    /// # Errors
    /// A header cannot be sent.
    pub fn begin(plan: &TracesPlan, pipeline: &str, instance: &str) -> Result<Option<Self>, Failure> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).default_headers(headers(plan)?).build();
        let http = http.map_err(|e| Failure::Stopped(format!("traces: no client can be set up: {e}")))?;
        let (spans, waiting) = mpsc::channel(WAITING);
        let left_out = metrics::counter!("tributary_trace_spans_dropped_total");
        if !install(plan.ratio, Box::new(Queue { spans, left_out: left_out.clone() })) {
            return Ok(None);
        }
        let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
        let collector = Collector {
            http,
            url: format!("{}/v1/traces", plan.url.trim_end_matches('/')),
            resource: json!({ "attributes": [
                attribute("service.name", "tributary"),
                attribute("service.namespace", pipeline),
                attribute("service.instance.id", instance),
                attribute("service.version", env!("CARGO_PKG_VERSION")),
            ] }),
            sent: metrics::counter!("tributary_trace_spans_sent_total"),
            left_out,
            trouble: Trouble::default(),
        };
        info!(url = plan.url, ratio = plan.ratio, "traces are recorded");
        let (ending, ended) = mpsc::channel(1);
        Ok(Some(Self { task: tokio::spawn(collector.run(waiting, ended)), ending }))
    }

    /// Sends what is left.
    pub async fn end(self) {
        drop(self.ending);
        let _ = tokio::time::timeout(ENDING, self.task).await;
    }
}

fn headers(plan: &TracesPlan) -> Result<HeaderMap, Failure> {
    let mut headers = HeaderMap::new();
    for (name, value) in &plan.headers {
        let wrong = || Failure::Stopped(format!("traces.headers: {name:?}, or its value, cannot be sent"));
        let key = HeaderName::try_from(name.as_str()).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value.reveal()).map_err(|_| wrong())?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

impl Collector {
    /// Sends spans until nobody is left who records any, or until the pipeline ends.
    async fn run(mut self, mut waiting: mpsc::Receiver<Span>, mut ended: mpsc::Receiver<()>) {
        let mut spans = Vec::with_capacity(TOGETHER);
        let mut is_ending = false;
        while !is_ending {
            tokio::select! {
                _ = ended.recv() => is_ending = true,
                count = waiting.recv_many(&mut spans, TOGETHER) => if count == 0 { return },
            }
            let until = Instant::now() + LINGER;
            while !is_ending && spans.len() < TOGETHER {
                let left = TOGETHER - spans.len();
                tokio::select! {
                    _ = ended.recv() => is_ending = true,
                    () = tokio::time::sleep_until(until) => break,
                    count = waiting.recv_many(&mut spans, left) => if count == 0 { is_ending = true },
                }
            }
            while is_ending && let Ok(span) = waiting.try_recv() {
                spans.push(span);
            }
            for some in spans.chunks(TOGETHER) {
                self.send(some).await;
            }
            spans.clear();
        }
    }

    async fn send(&mut self, spans: &[Span]) {
        let scope = json!({ "name": "tributary", "version": env!("CARGO_PKG_VERSION") });
        let spans_as_json: Vec<Json> = spans.iter().map(span).collect();
        let body = json!({ "resourceSpans": [
            { "resource": self.resource, "scopeSpans": [{ "scope": scope, "spans": spans_as_json }] }
        ] });
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        for tries_left in (0..TRIES).rev() {
            let why = match self.http.post(&self.url).json(&body).send().await {
                Ok(response) if response.status().is_success() => {
                    self.sent.increment(spans.len() as u64);
                    if let Some(lasted) = self.trouble.over() {
                        info!(?lasted, "the collector takes traces again");
                    }
                    return;
                }
                Ok(response) => {
                    let status = response.status();
                    let may_pass = matches!(status.as_u16(), 429 | 502 | 503 | 504);
                    (format!("it answered {status}"), may_pass)
                }
                Err(error) => (error.without_url().to_string(), true),
            };
            let (why, may_pass) = why;
            if tries_left == 0 || !may_pass {
                self.left_out.increment(spans.len() as u64);
                if let Some(lasts) = self.trouble.note(&why) {
                    warn!(why, ?lasts, "the collector does not take traces; they are left out");
                }
                return;
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }
}

/// A span as OTLP has it in JSON: ids in hexadecimal, 64-bit numbers as text.
fn span(span: &Span) -> Json {
    let kind = match span.kind {
        SpanKind::Internal => 1,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    };
    let nanoseconds = |us: i64| us.max(0).saturating_mul(1_000).to_string();
    let attribute = |(key, value): &(&str, String)| json!({ "key": key, "value": { "stringValue": value } });
    let mut told = json!({
        "traceId": format!("{:032x}", span.context.trace),
        "spanId": format!("{:016x}", span.context.span),
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(span.begun_us),
        "endTimeUnixNano": nanoseconds(span.ended_us),
        "attributes": span.attributes.iter().map(attribute).collect::<Vec<_>>(),
        "flags": 1,
    });
    if let Some(parent) = span.parent {
        told["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    if let Some(error) = &span.error {
        told["status"] = json!({ "code": 2, "message": error });
    }
    told
}

/// Of this pipeline, if it says so.
///
/// # Errors
/// A header cannot be sent.
pub fn begin(plan: Option<&Arc<TracesPlan>>, pipeline: &str, instance: &str) -> Result<Option<Traces>, Failure> {
    plan.map_or(Ok(None), |plan| Traces::begin(plan, pipeline, instance))
}

#[cfg(test)]
mod tests {
    use tributary_event::traces::Context;

    use super::*;

    #[test]
    fn spans_are_written_as_the_protocol_has_them() {
        let context = Context { trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, span: 0xb7ad_6b71_6920_3331 };
        let told = span(&Span {
            context,
            parent: Some(7),
            name: "stream told".into(),
            kind: SpanKind::Consumer,
            begun_us: 1_614_265_330_250_000,
            ended_us: 1_614_265_330_250_001,
            attributes: vec![("tributary.outcome", "passed".into())],
            error: Some("no".into()),
        });
        assert_eq!(
            told,
            json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c",
                "spanId": "b7ad6b7169203331",
                "parentSpanId": "0000000000000007",
                "name": "stream told",
                "kind": 5,
                "startTimeUnixNano": "1614265330250000000",
                "endTimeUnixNano": "1614265330250001000",
                "attributes": [{ "key": "tributary.outcome", "value": { "stringValue": "passed" } }],
                "flags": 1,
                "status": { "code": 2, "message": "no" },
            })
        );
    }
}
