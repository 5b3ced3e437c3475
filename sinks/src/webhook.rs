//! HTTP requests to a service, signed as <https://www.standardwebhooks.com> says: at least once, with the same id at every try.
//!
//! An answer is about the event, or about the receiver as a whole, and the two are kept apart: a wrong secret or a receiver that is gone
//! says nothing about an event, so it stops the sink and skips nothing. A list of events that is refused is halved until the event that
//! is to blame stands alone.

mod answer;
mod body;
mod guard;
mod signature;

use std::error::Error as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, redirect};
use tokio::sync::Semaphore;
use tributary_dsl::plan::{WebhookFormat, WebhookPlan};
use tributary_processor::OutsideError;
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};
use url::Url;

use answer::Outcome;
use body::Message;
use signature::Keys;

/// The longest wait for a connection. A receiver that is away should be known as such before a request's time is over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that are the sink's own, beside those that begin with `ce-`.
const OWN: [&str; 7] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "idempotency-key",
    "content-type",
    "content-length",
    "transfer-encoding",
];

/// A service that is told of events by requests.
///
/// Up to `concurrency` requests are in flight at a time, whoever calls; the others wait for their turn. A call that is dropped may have
/// arrived.
pub struct Webhook {
    http: Client,
    url: Url,
    /// The receiver as messages name it. The rest of the URL may hold a token.
    place: String,
    keys: Keys,
    format: WebhookFormat,
    batch: usize,
    timeout: Duration,
    permits: Semaphore,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("place", &self.place).field("format", &self.format).finish_non_exhaustive()
    }
}

impl Webhook {
    /// A sink for a plan. Nothing is sent.
    ///
    /// # Errors
    /// Fatal: the URL, a secret or a header cannot be used, the URL leads to a private address that the plan does not allow, or the format
    /// has no lists and the plan wants them.
    pub fn new(plan: &WebhookPlan) -> Result<Self, OutsideError> {
        let url = Url::parse(plan.url.reveal())
            .map_err(|e| OutsideError::fatal(format!("the webhook's url is no URL ({e}); write https://host/path")))?;
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(OutsideError::fatal(format!(
                "the webhook's url begins with {scheme}: which is not HTTP; write https://host/path"
            )));
        }
        let place = format!("webhook {}", origin(&url));
        if plan.batch > 1 && plan.format == WebhookFormat::CloudEventsBinary {
            return Err(OutsideError::fatal(format!(
                "{place}: CloudEvents in binary mode have one event a request, and `batch` asks for {}; leave `batch` out, or use the \
                 structured format",
                plan.batch
            )));
        }
        let mut builder = Client::builder()
            .default_headers(headers(plan, &place)?)
            .timeout(plan.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(plan.timeout))
            // A proxy of the environment would resolve names itself, past the guard.
            .no_proxy()
            // A redirected request may carry our headers elsewhere, and a redirected POST loses its body.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")));
        if !plan.private {
            guard::check_literal(&url).map_err(|why| OutsideError::fatal(format!("{place}: {why}")))?;
            builder = builder.dns_resolver(Arc::new(guard::PublicOnly));
        }
        let http = builder
            .build()
            .map_err(|e| OutsideError::fatal(format!("{place}: no client can be set up for it: {}", causes(&e))))?;
        Ok(Self {
            http,
            url,
            keys: Keys::new(&plan.secrets).map_err(|why| OutsideError::fatal(format!("{place}: {why}")))?,
            place,
            format: plan.format,
            batch: plan.batch.max(1),
            timeout: plan.timeout,
            permits: Semaphore::new(plan.concurrency.max(1)),
        })
    }

    /// Sends one request for `events`, and says what the answer means for all of them.
    async fn send(&self, events: &[OutEvent]) -> Result<Verdict, OutsideError> {
        let message = match Message::new(events, self.format, self.batch > 1) {
            Ok(message) => message,
            Err(why) => return Ok(Verdict::Rejected(why)),
        };
        let closed = |_| OutsideError::transient(format!("{}: the sink was closed", self.place));
        let _permit = self.permits.acquire().await.map_err(closed)?;
        let request = self.http.post(self.url.clone()).headers(self.sign(&message)?).body(message.body);
        match request.send().await {
            Ok(response) => match answer::read(response).await {
                Outcome::Event(verdict) => Ok(verdict),
                Outcome::Receiver(why) => Err(OutsideError::fatal(format!("{}: {why}", self.place))),
            },
            Err(error) => self.failure(&error),
        }
    }

    /// The headers of one try.
    fn sign(&self, message: &Message) -> Result<HeaderMap, OutsideError> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut headers = HeaderMap::new();
        let mut put = |name: &'static str, value: &str| match HeaderValue::from_str(value) {
            Ok(value) => {
                headers.insert(HeaderName::from_static(name), value);
                Ok(())
            }
            Err(_) => Err(OutsideError::fatal(format!("{}: the header {name} cannot be written", self.place))),
        };
        put("webhook-id", &message.id)?;
        put("idempotency-key", &message.id)?;
        put("webhook-timestamp", &seconds.to_string())?;
        if let Some(signature) = self.keys.sign(&message.id, seconds, &message.body) {
            put("webhook-signature", &signature)?;
        }
        for (name, value) in &message.attributes {
            put(name, value)?;
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(message.content_type));
        Ok(headers)
    }

    /// What a request without an answer means. One that never reached the receiver says nothing about its event.
    fn failure(&self, error: &reqwest::Error) -> Result<Verdict, OutsideError> {
        let cause = causes(error);
        if let Some(forbidden) = guard::forbidden(error) {
            return Err(OutsideError::fatal(format!("{}: {forbidden}", self.place)));
        }
        if error.is_connect() {
            return Err(OutsideError::transient(format!(
                "{}: no connection ({cause}); it is tried again until the receiver can be reached",
                self.place
            )));
        }
        let why = if error.is_timeout() {
            format!("no answer within {:?}; if the receiver needs longer, raise `timeout`", self.timeout)
        } else {
            format!("the connection ended before an answer came ({cause})")
        };
        Ok(Verdict::Retry { after: None, why })
    }
}

#[async_trait]
impl DeliverySink for Webhook {
    fn most(&self) -> usize {
        self.batch
    }

    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError> {
        let mut verdicts = Vec::with_capacity(events.len());
        // Ranges that are still to be sent, the next one last.
        let mut left: Vec<Range<usize>> = (0..events.len().div_ceil(self.batch))
            .rev()
            .map(|n| n * self.batch..((n + 1) * self.batch).min(events.len()))
            .collect();
        while let Some(range) = left.pop() {
            match self.send(&events[range.clone()]).await {
                Ok(Verdict::Rejected(_)) if range.len() > 1 => {
                    let middle = range.start + range.len() / 2;
                    left.extend([middle..range.end, range.start..middle]);
                }
                Ok(verdict) => verdicts.extend(range.map(|_| verdict.clone())),
                Err(error) if verdicts.is_empty() => return Err(error),
                // What has arrived is told; what has not is asked for again, and then the error is.
                Err(error) => {
                    let retry = Verdict::Retry { after: None, why: error.message };
                    verdicts.resize(events.len(), retry);
                    return Ok(verdicts);
                }
            }
        }
        Ok(verdicts)
    }
}

/// Scheme, host and port.
fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default()
        .map_or_else(|| format!("{}://{host}", url.scheme()), |port| format!("{}://{host}:{port}", url.scheme()))
}

/// The plan's headers.
fn headers(plan: &WebhookPlan, place: &str) -> Result<HeaderMap, OutsideError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &plan.headers {
        let fatal = |why: &str| OutsideError::fatal(format!("{place}: the header {name:?} {why}"));
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| fatal("has no name that HTTP allows; rename it"))?;
        if OWN.contains(&key.as_str()) || key.as_str().starts_with("ce-") {
            return Err(fatal("is written by the sink itself; remove it from `headers`"));
        }
        let mut value = HeaderValue::from_str(value.reveal())
            .map_err(|_| fatal("has a value that HTTP does not allow; use printable characters without line breaks"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// An error with all of its causes, without the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut source = error.source();
    while let Some(inner) = source {
        texts.push(inner.to_string());
        source = inner.source();
    }
    // Many errors print their cause themselves.
    texts.dedup_by(|inner, outer| outer.ends_with(inner.as_str()));
    if texts.is_empty() { "the request failed".to_owned() } else { texts.join(": ") }
}
