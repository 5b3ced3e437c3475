//! Requests to a receiver, for the sinks that send some: one client, a guard against private networks, headers of the user's, and what
//! the lack of an answer means.
//!
//! A URL and the values of headers may hold tokens: messages name a receiver by scheme, host and port alone.

pub(crate) mod answer;
mod guard;
mod stand_in;

pub use stand_in::{Instead, Request, StandIn};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, redirect};
use tokio::sync::Semaphore;
use tributary_dsl::plan::Secret;
use tributary_event::traces::{Context, TRACEPARENT};
use tributary_processor::OutsideError;
use url::Url;

/// The longest wait for a connection. A receiver that is away should be known as such before a request's time is over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What a receiver's plan says of requests.
pub(crate) struct Settings<'a> {
    /// What messages call it.
    pub kind: &'static str,
    pub url: &'a Secret,
    pub headers: &'a BTreeMap<String, Secret>,
    /// Whether a header, in lower case, is written by the sink itself.
    pub is_own: fn(&str) -> bool,
    pub timeout: Duration,
    pub concurrency: usize,
    pub private: bool,
}

/// A receiver of requests.
///
/// Up to `concurrency` requests are in flight at a time, whoever sends; the others wait for their turn.
pub(crate) struct Receiver {
    http: Client,
    pub url: Url,
    /// The receiver as messages name it.
    pub place: String,
    timeout: Duration,
    permits: Semaphore,
    /// Who takes requests instead of the receiver.
    stand_in: Option<Arc<dyn StandIn>>,
}

/// What came of a request.
pub(crate) enum Sent {
    /// An answer.
    Answer(Response),
    /// No answer: whether the request was carried out is not known. Why, in a sentence.
    Lost(String),
}

impl Receiver {
    /// Nothing is sent.
    ///
    /// # Errors
    /// Fatal: the URL or a header cannot be used, or the URL leads to a private address that may not be asked.
    pub fn new(settings: &Settings) -> Result<Self, OutsideError> {
        let kind = settings.kind;
        let url = Url::parse(settings.url.reveal())
            .map_err(|e| OutsideError::fatal(format!("the {kind}'s url is no URL ({e}); write https://host/path")))?;
        if !matches!(url.scheme(), "http" | "https") {
            let scheme = url.scheme();
            return Err(OutsideError::fatal(format!(
                "the {kind}'s url begins with {scheme}: which is not HTTP; write https://host/path"
            )));
        }
        let place = format!("{kind} {}", origin(&url));
        let mut builder = Client::builder()
            .default_headers(headers(settings, &place)?)
            .timeout(settings.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(settings.timeout))
            // A proxy of the environment would resolve names itself, past the guard.
            .no_proxy()
            // A redirected request may carry our headers elsewhere, and a redirected POST loses its body.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")));
        if !settings.private {
            guard::check_literal(&url).map_err(|why| OutsideError::fatal(format!("{place}: {why}")))?;
            builder = builder.dns_resolver(Arc::new(guard::PublicOnly));
        }
        let http = builder
            .build()
            .map_err(|e| OutsideError::fatal(format!("{place}: no client can be set up for it: {}", causes(&e))))?;
        let permits = Semaphore::new(settings.concurrency.max(1));
        Ok(Self { http, url, place, timeout: settings.timeout, permits, stand_in: None })
    }

    /// The same, but nothing is ever sent: a stand-in takes it.
    pub fn stood_in(self, stand_in: Option<Arc<dyn StandIn>>) -> Self {
        Self { stand_in, ..self }
    }

    /// A request to be sent by [`Self::send`].
    pub fn request(&self, method: Method, url: Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The receiver was not reached: nothing was sent.
    pub async fn send(&self, request: RequestBuilder) -> Result<Sent, OutsideError> {
        let closed = |_| OutsideError::transient(format!("{}: the sink was closed", self.place));
        let _permit = self.permits.acquire().await.map_err(closed)?;
        if let Some(stand_in) = &self.stand_in {
            return self.instead(stand_in.as_ref(), request).await;
        }
        match request.send().await {
            Ok(response) => Ok(Sent::Answer(response)),
            Err(error) => self.failure(&error).map(Sent::Lost),
        }
    }

    /// Gives a request to a stand-in.
    async fn instead(&self, stand_in: &dyn StandIn, request: RequestBuilder) -> Result<Sent, OutsideError> {
        let request = request.build().map_err(|e| self.fatal(&causes(&e)))?;
        match tokio::time::timeout(self.timeout, stand_in.take(Request::of(&request))).await {
            Err(_) => Ok(Sent::Lost(self.too_slow())),
            Ok(Instead::Away(why)) => Err(self.no_connection(&why)),
            Ok(Instead::Answer { status, retry_after, body }) => {
                let response = stand_in::response(status, retry_after.as_deref(), body);
                response.map(Sent::Answer).ok_or_else(|| self.fatal(&format!("{status} is no status of HTTP")))
            }
        }
    }

    fn no_connection(&self, cause: &str) -> OutsideError {
        OutsideError::transient(format!(
            "{}: no connection ({cause}); it is tried again until the receiver can be reached",
            self.place
        ))
    }

    fn too_slow(&self) -> String {
        format!("no answer within {:?}; if the receiver needs longer, raise `timeout`", self.timeout)
    }

    /// An error that does not pass by itself.
    pub fn fatal(&self, why: &str) -> OutsideError {
        OutsideError::fatal(format!("{}: {why}", self.place))
    }

    /// What a request without an answer means. One that never reached the receiver says nothing about its event.
    fn failure(&self, error: &reqwest::Error) -> Result<String, OutsideError> {
        let cause = causes(error);
        if let Some(forbidden) = guard::forbidden(error) {
            return Err(self.fatal(&forbidden.to_string()));
        }
        if error.is_connect() {
            return Err(self.no_connection(&cause));
        }
        Ok(if error.is_timeout() {
            self.too_slow()
        } else {
            format!("the connection ended before an answer came ({cause})")
        })
    }
}

/// What a request says of the span that it came of.
pub(crate) fn traceparent(span: Context) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::try_from(span.to_string()).ok()?;
    Some((HeaderName::from_static(TRACEPARENT), value))
}

/// Scheme, host and port.
fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port_or_known_default()
        .map_or_else(|| format!("{}://{host}", url.scheme()), |port| format!("{}://{host}:{port}", url.scheme()))
}

/// The user's headers.
fn headers(settings: &Settings, place: &str) -> Result<HeaderMap, OutsideError> {
    let mut headers = HeaderMap::new();
    for (name, value) in settings.headers {
        let fatal = |why: &str| OutsideError::fatal(format!("{place}: the header {name:?} {why}"));
        let key =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| fatal("has no name that HTTP allows; rename it"))?;
        if (settings.is_own)(key.as_str()) {
            return Err(fatal("is written by the sink itself; remove it from `headers`"));
        }
        let mut value = HeaderValue::from_str(value.reveal())
            .map_err(|_| fatal("has a value that HTTP does not allow; use printable characters without line breaks"))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// The causes of an error, without the URL, which may hold credentials.
fn causes(error: &reqwest::Error) -> String {
    tributary_event::causes(error).unwrap_or_else(|| "the request failed".to_owned())
}
