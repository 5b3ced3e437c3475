//! One GraphQL request over HTTP: sends it, reads a bounded answer, and says what kind of failure a failure is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use serde_json::{Value as Json, json};
use tokio::sync::Semaphore;
use tributary_dsl::plan::GraphPlan;
use tributary_event::ErrorClass;
use url::{Host, Url};

use super::errors::{ServerError, Trouble, excerpt, verbatim};
use super::response::Answer;
use crate::documents::json::{ReadError, read_lenient};
use crate::graph::GraphError;

/// An answer longer than this (after decompression) is not read to its end.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;
/// The longest wait for a connection. A server that is away should be known as such before a request's time is over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What a request is for, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fetch,
    Parents,
    Identify,
    Roots,
    Introspect,
    Probe,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Parents => "parents",
            Self::Identify => "identify",
            Self::Roots => "roots",
            Self::Introspect => "introspect",
            Self::Probe => "probe",
        }
    }
}

/// A GraphQL request.
pub(super) struct Request<'a> {
    pub kind: Kind,
    pub query: &'a str,
    pub operation: Option<&'a str>,
    pub variables: Json,
}

/// A GraphQL endpoint.
pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    /// The endpoint as messages name it: without user, password and query.
    pub place: String,
    timeout: Duration,
    permits: Semaphore,
    pub most_bytes: usize,
    position: Mutex<Option<String>>,
}

/// The header by which a graph says how far into the databases' logs it has come.
const POSITION: HeaderName = HeaderName::from_static("x-tributary-position");

impl Client {
    pub(super) fn new(plan: &GraphPlan) -> Result<Self, GraphError> {
        let fatal = |message: String| GraphError::new(ErrorClass::Fatal, message);
        let url = Url::parse(&plan.endpoint)
            .map_err(|e| fatal(format!("graph.endpoint is no URL ({e}); write it as http://host:4000/graphql")))?;
        let mut place = url.clone();
        // Fails for URLs that cannot have a user, which are refused below.
        let _ = (place.set_username(""), place.set_password(None));
        place.set_query(None);
        place.set_fragment(None);
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(fatal(format!("graph.endpoint must be an http or https URL with a host, got {place}")));
        }
        let mut headers = HeaderMap::new();
        let accepted = "application/graphql-response+json, application/json;q=0.9";
        headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        for (name, secret) in &plan.headers {
            let key = HeaderName::try_from(name.as_str())
                .map_err(|_| fatal(format!("graph.headers: {name:?} is no name of a header")))?;
            let mut value = HeaderValue::try_from(secret.reveal()).map_err(|_| {
                fatal(format!("graph.headers: the value of {name} holds a character no header may hold"))
            })?;
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        let local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(plan.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(plan.timeout))
            .gzip(true)
            // A redirected POST loses its body, and a redirect may carry our headers elsewhere.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")));
        if local {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| fatal(format!("cannot set up a client for {place}: {}", causes(&e))))?;
        Ok(Self {
            http,
            url,
            place: place.to_string(),
            timeout: plan.timeout,
            permits: Semaphore::new(plan.concurrency.max(1)),
            most_bytes: MAX_ANSWER_BYTES,
            position: Mutex::default(),
        })
    }

    /// How far the graph said last that it has come.
    pub(super) fn position(&self) -> Option<String> {
        self.position.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a request. `Ok`: an answer that has data, with or without errors in it.
    pub(super) async fn post(&self, request: Request<'_>) -> Result<Answer, Trouble> {
        let _permit = self.permits.acquire().await.map_err(|_| self.transient("the client was closed"))?;
        let kind = request.kind.name();
        let started = Instant::now();
        let answer = self.exchange(request).await;
        metrics::histogram!("tributary_graph_request_seconds", "kind" => kind).record(started.elapsed().as_secs_f64());
        let outcome = match &answer {
            Ok(answer) if answer.errors().is_empty() => "ok",
            Ok(_) => "partial",
            Err(Trouble::TooMuch(_)) => "too_much",
            Err(Trouble::TooSlow(_)) => "too_slow",
            Err(Trouble::Unreadable(_)) => "unreadable",
            Err(Trouble::Unclear(_) | Trouble::Rejected(_) | Trouble::Whole(_)) => "failed",
        };
        metrics::counter!("tributary_graph_requests_total", "kind" => kind, "outcome" => outcome).increment(1);
        let replaced = answer.as_ref().map_or(0, |answer| answer.replaced);
        if replaced > 0 {
            metrics::counter!("tributary_graph_replaced_characters_total", "kind" => kind).increment(replaced as u64);
        }
        answer
    }

    async fn exchange(&self, request: Request<'_>) -> Result<Answer, Trouble> {
        let mut body = json!({ "query": request.query, "variables": request.variables });
        if let Some(operation) = request.operation {
            body["operationName"] = operation.into();
        }
        let sent = self.http.post(self.url.clone()).json(&body).send().await;
        let response = sent.map_err(|e| self.failure(&e))?;
        let status = response.status();
        let refusal = self.refusal(&response);
        let position = response.headers().get(POSITION).and_then(|position| position.to_str().ok()).map(str::to_owned);
        if status.is_success() || position.is_some() {
            *self.position.lock().unwrap_or_else(PoisonError::into_inner) = position;
        }
        let bytes = self.read(response).await?;
        let answer = read_lenient(&bytes).map(|(answer, replaced)| Answer { replaced, ..answer });
        if let Some(refusal) = refusal {
            return match answer {
                Ok(answer) if !answer.errors().is_empty() => self.explain(status, refusal, answer),
                _ if bytes.is_empty() => Err(refusal),
                _ => Err(refusal.because(&format!("it answered: {}", verbatim(&bytes)))),
            };
        }
        let unreadable = |class, problem: String| {
            let message = format!("{}: {problem}; it answered: {}", self.place, verbatim(&bytes));
            Err(Trouble::Unreadable(GraphError::new(class, message)))
        };
        match answer {
            Ok(answer) if answer.is_graphql() => answer.accept(&self.place),
            Ok(_) => unreadable(
                ErrorClass::Transient,
                "answered neither data nor errors (check that graph.endpoint is the GraphQL endpoint)".to_owned(),
            ),
            // The same answer comes again.
            Err(error @ ReadError::TooDeep) => {
                unreadable(ErrorClass::Definite, format!("an answer cannot be taken: {error}"))
            }
            Err(error @ ReadError::Text(_)) => unreadable(
                ErrorClass::Transient,
                format!(
                    "answered something that is no GraphQL answer ({error}; check that graph.endpoint is the GraphQL endpoint)"
                ),
            ),
        }
    }

    /// Servers explain a refusal in the GraphQL way, if they can: only that says whether asking for less helps.
    fn explain(&self, status: StatusCode, refusal: Trouble, answer: Answer) -> Result<Answer, Trouble> {
        let said = answer.errors().first().map(|e| e.said(&self.place)).unwrap_or_default();
        let in_field = answer.errors().iter().any(ServerError::has_path);
        let plain = matches!(status.as_u16(), 400 | 422 | 500);
        match answer.accept(&self.place) {
            // Some servers answer 500 where a null rose up to the data.
            Err(Trouble::Unclear(error)) if plain && (in_field || status.is_client_error()) => {
                Err(Trouble::Unclear(error))
            }
            Err(Trouble::Unclear(_)) => Err(refusal.because(&said)),
            _ if !plain && status.is_client_error() => Err(refusal.because(&said)),
            explained => explained,
        }
    }

    /// What an HTTP status other than success means.
    fn refusal(&self, response: &Response) -> Option<Trouble> {
        let status = response.status();
        if status.is_success() {
            return None;
        }
        let header = |name| response.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok());
        let error = |class, remedy: &str| GraphError::new(class, format!("{}: answered {status}{remedy}", self.place));
        Some(match status {
            StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Trouble::Whole(error(ErrorClass::Fatal, " (the graph refuses us; check graph.headers)"))
            }
            // Also what a gateway answers that dislikes what a request asks for.
            StatusCode::FORBIDDEN => {
                Trouble::Unreadable(error(ErrorClass::Fatal, " (the graph refuses us; check graph.headers)"))
            }
            StatusCode::PAYLOAD_TOO_LARGE => {
                Trouble::TooMuch(error(ErrorClass::Definite, " (the server refuses a request of this size)"))
            }
            StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => {
                Trouble::TooSlow(error(ErrorClass::Transient, " (the query takes too long)"))
            }
            StatusCode::TOO_MANY_REQUESTS => {
                let after = header(RETRY_AFTER).map(|after| format!(", Retry-After: {}", excerpt(after)));
                let remedy = format!("{} (lower graph.concurrency)", after.unwrap_or_default());
                Trouble::Whole(error(ErrorClass::Transient, &remedy))
            }
            status if status.is_redirection() => {
                let to = header(LOCATION).map(|to| format!(" to {}", excerpt(to))).unwrap_or_default();
                Trouble::Whole(error(
                    ErrorClass::Fatal,
                    &format!("{to}: a redirect is not followed; set graph.endpoint to its target"),
                ))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Trouble::Whole(error(ErrorClass::Fatal, " (check that graph.endpoint is the GraphQL endpoint)"))
            }
            // A gateway may refuse a request for what it asks for.
            status if status.is_client_error() => {
                Trouble::Unreadable(error(ErrorClass::Fatal, " (check that graph.endpoint is the GraphQL endpoint)"))
            }
            // It says so itself. Without that it may be a gateway whose server died of what was asked for.
            StatusCode::SERVICE_UNAVAILABLE if header(RETRY_AFTER).is_some() => {
                Trouble::Whole(error(ErrorClass::Transient, ""))
            }
            // A resolver that panics may take its server, or the connection behind a gateway, with it.
            _ => Trouble::Unreadable(error(ErrorClass::Transient, "")),
        })
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Trouble> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failure(&e))? {
            if bytes.len() + chunk.len() > self.most_bytes {
                let message = format!(
                    "{}: an answer is longer than {} bytes (lower build.batch, or select less)",
                    self.place, self.most_bytes
                );
                return Err(Trouble::TooMuch(GraphError::new(ErrorClass::Definite, message)));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    fn failure(&self, error: &reqwest::Error) -> Trouble {
        if error.is_timeout() && !error.is_connect() {
            let message = format!("{}: no answer within {:?} (graph.timeout)", self.place, self.timeout);
            return Trouble::TooSlow(GraphError::new(ErrorClass::Transient, message));
        }
        if error.is_connect() {
            let causes = causes(error);
            // What rustls says of an answer that is no TLS.
            let remedy = match causes.contains("InvalidContentType") {
                true => " (nobody speaks TLS there; is its URL http:// rather than https://?)",
                false => "",
            };
            return self.transient(&format!("cannot connect: {causes}{remedy}"));
        }
        let message = format!("{}: the connection broke within an answer: {}", self.place, causes(error));
        Trouble::Unreadable(GraphError::new(ErrorClass::Transient, message))
    }

    fn transient(&self, message: &str) -> Trouble {
        Trouble::Whole(GraphError::new(ErrorClass::Transient, format!("{}: {message}", self.place)))
    }
}

/// The causes of an error, without the URL, which may hold credentials.
fn causes(error: &reqwest::Error) -> String {
    tributary_event::causes(error).unwrap_or_else(|| "unknown cause".to_owned())
}
