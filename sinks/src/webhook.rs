//! HTTP requests to a service, signed as <https://www.standardwebhooks.com> says: at least once, with the same id at every try.
//!
//! An answer is about the event, or about the receiver as a whole, and the two are kept apart: a wrong secret or a receiver that is gone
//! says nothing about an event, so it stops the sink and skips nothing. A list of events that is refused is halved until the event that
//! is to blame stands alone.

mod body;
mod signature;

use std::ops::Range;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tributary_dsl::plan::{WebhookFormat, WebhookPlan};
use tributary_processor::OutsideError;
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};

use crate::http::answer::{Answer, Outcome};
use crate::http::{Receiver, Sent, Settings, StandIn, traceparent};
use body::Message;
use signature::Keys;

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
    receiver: Receiver,
    keys: Keys,
    format: WebhookFormat,
    batch: usize,
}

impl std::fmt::Debug for Webhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook")
            .field("place", &self.receiver.place)
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

impl Webhook {
    /// A sink for a plan. Nothing is sent.
    ///
    /// # Errors
    /// Fatal: the URL, a secret or a header cannot be used, the URL leads to a private address that the plan does not allow, or the format
    /// has no lists and the plan wants them.
    pub fn new(plan: &WebhookPlan) -> Result<Self, OutsideError> {
        Self::with(plan, None)
    }

    /// The same, but a stand-in takes what would be sent.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn stood_in(plan: &WebhookPlan, stand_in: Arc<dyn StandIn>) -> Result<Self, OutsideError> {
        Self::with(plan, Some(stand_in))
    }

    fn with(plan: &WebhookPlan, stand_in: Option<Arc<dyn StandIn>>) -> Result<Self, OutsideError> {
        let receiver = Receiver::new(&Settings {
            kind: "webhook",
            url: &plan.url,
            headers: &plan.headers,
            is_own: |name| OWN.contains(&name) || name.starts_with("ce-"),
            timeout: plan.timeout,
            concurrency: plan.concurrency,
            private: plan.private,
        })?
        .stood_in(stand_in);
        if plan.batch > 1 && plan.format == WebhookFormat::CloudEventsBinary {
            return Err(receiver.fatal(&format!(
                "CloudEvents in binary mode have one event a request, and `batch` asks for {}; leave `batch` out, or use the structured \
                 format",
                plan.batch
            )));
        }
        let keys = Keys::new(&plan.secrets).map_err(|why| receiver.fatal(&why))?;
        Ok(Self { receiver, keys, format: plan.format, batch: plan.batch.max(1) })
    }

    /// Sends one request for `events`, and says what the answer means for all of them.
    async fn send(&self, events: &[OutEvent]) -> Result<Verdict, OutsideError> {
        let message = match Message::new(events, self.format, self.batch > 1) {
            Ok(message) => message,
            Err(why) => return Ok(Verdict::Rejected(why)),
        };
        let request = self.receiver.request(Method::POST, self.receiver.url.clone());
        let mut headers = self.sign(&message)?;
        // Of several events, the first one that is traced: a request has one span.
        headers.extend(events.iter().find_map(|event| event.span).and_then(traceparent));
        match self.receiver.send(request.headers(headers).body(message.body)).await? {
            Sent::Answer(response) => match Answer::read(response).await.outcome() {
                Outcome::Event(verdict) => Ok(verdict),
                Outcome::Receiver(why) => Err(self.receiver.fatal(&why)),
            },
            Sent::Lost(why) => Ok(Verdict::Retry { after: None, why }),
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
            Err(_) => Err(self.receiver.fatal(&format!("the header {name} cannot be written"))),
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
