//! One request over HTTP: sends it, reads a bounded answer, and says what kind of trouble a trouble is.

pub(crate) mod stand_in;
pub(crate) mod traced;
pub(crate) mod trouble;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Method, Response, StatusCode, redirect};
use tributary_dsl::plan::{ServiceKind, ServicePlan};
use tributary_event::traces::Begun;
use tributary_processor::{Answer, OutsideError};
use url::{Host, Url};

use self::stand_in::{Asked, Instead, StandIn};
use self::trouble::Trouble;
use crate::answers::Said;
use crate::answers::excerpt::Secrets;
use crate::service::pace::retry_after;

/// An answer longer than this, after decompression, is not read to its end.
const MOST_BYTES: usize = 64 * 1024 * 1024;
/// The longest wait for a connection. A service that is away should be known as such before a request's time is over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request. Its URL may hold secrets: it is never printed.
pub(crate) struct Request {
    pub method: Method,
    pub url: Url,
    /// JSON; none: nothing is sent.
    pub body: Option<Vec<u8>>,
    /// What it asks for.
    pub keys: Vec<Bytes>,
}

/// What a service said to a request: that it went well, or is about something that it does not know.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub body: Bytes,
    /// What it says of each key, where nothing is to be read.
    pub said: Option<Vec<Said>>,
}

/// A failed exchange.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub trouble: Trouble,
    /// For how long it asks to be left alone.
    pub pause: Option<Duration>,
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, pause: None }
    }
}

/// The client of a service.
pub(crate) struct Client {
    http: reqwest::Client,
    /// It may hold secrets.
    pub url: Url,
    /// The service as messages name it: its name, and its URL without user, password and query.
    pub place: String,
    pub secrets: Secrets,
    timeout: Duration,
    most_bytes: usize,
    /// Whether the plan's headers say what bodies are.
    says_type: bool,
    /// Who answers instead of the service.
    stand_in: Option<Arc<dyn StandIn>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({:?})", self.place)
    }
}

impl Client {
    pub(crate) fn new(plan: &ServicePlan) -> Result<Self, OutsideError> {
        let name = &plan.name;
        let url = Url::parse(&plan.url).map_err(|e| {
            OutsideError::fatal(format!("services.{name}: its URL is none: {e}; write http://host/path"))
        })?;
        let mut shown = url.clone();
        // Fails for URLs that cannot have a user, which are refused below.
        let _ = (shown.set_username(""), shown.set_password(None));
        shown.set_query(None);
        shown.set_fragment(None);
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            let message = format!("services.{name}: an http or https URL with a host is needed, and {shown} is none");
            return Err(OutsideError::fatal(message));
        }
        let place = format!("the service {name} at {shown}");
        let headers = headers(plan)?;
        let says_type = headers.contains_key(CONTENT_TYPE);
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .timeout(plan.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(plan.timeout))
            .gzip(true)
            // A redirected POST loses its body, and a redirect may carry our headers elsewhere.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("tributary/", env!("CARGO_PKG_VERSION")));
        if is_local(&url) {
            builder = builder.no_proxy();
        }
        let http = builder
            .build()
            .map_err(|e| OutsideError::fatal(format!("{place}: no client can be set up for it: {}", causes(&e))))?;
        let secrets = Secrets::new(plan.headers.values(), secrets_of(&url).into_iter());
        let (timeout, most_bytes) = (plan.timeout, MOST_BYTES);
        Ok(Self { http, url, place, secrets, timeout, most_bytes, says_type, stand_in: None })
    }

    /// The same, but nobody is asked.
    pub(crate) fn stood_in(self, stand_in: Arc<dyn StandIn>) -> Self {
        Self { stand_in: Some(stand_in), ..self }
    }

    /// Sends a request. `Ok`: a status of success, or 404, 410 and such, of which only the call knows what they mean.
    pub(crate) async fn exchange(&self, request: Request, span: Option<&Begun>) -> Result<Reply, Failure> {
        if let Some(stand_in) = &self.stand_in {
            return self.instead(stand_in.as_ref(), &request).await;
        }
        let mut building = self.http.request(request.method, request.url);
        if let Some((name, value)) = span.and_then(traced::header) {
            building = building.header(name, value);
        }
        if let Some(body) = request.body {
            if !self.says_type {
                building = building.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            building = building.body(body);
        }
        let response = building.send().await.map_err(|e| self.failure(&e))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Reply { status, body: self.read(response).await?, said: None });
        }
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let pause = header(RETRY_AFTER).and_then(|text| retry_after(text, SystemTime::now()));
        let location = header(LOCATION).map(|to| self.secrets.excerpt(without_query(to).as_bytes()));
        let body = match self.read(response).await {
            Ok(body) => body,
            // The status says more than the failure to read why.
            Err(_) => Bytes::new(),
        };
        self.judged(status, pause, location, body)
    }

    /// What a stand-in answers.
    async fn instead(&self, stand_in: &dyn StandIn, request: &Request) -> Result<Reply, Failure> {
        let path = &request.url[url::Position::BeforePath..url::Position::AfterQuery];
        let body = request.body.as_deref();
        let asked = Asked { method: request.method.as_str(), path, body, keys: &request.keys };
        let answering = tokio::time::timeout(self.timeout, stand_in.answer(&asked));
        match answering.await {
            Err(_) => Err(self.too_slow().into()),
            Ok(Instead::Away(why)) => Err(self.away(&why).into()),
            Ok(Instead::Keys(answers)) => {
                let said = answers.into_iter().map(|answer| match answer {
                    Answer::Found(json) => Said::Found(json),
                    Answer::Missing => Said::Missing,
                    Answer::Failed(why) => Said::Erred(why),
                });
                Ok(Reply { status: StatusCode::OK, body: Bytes::new(), said: Some(said.collect()) })
            }
            Ok(Instead::Status { status, retry_after: after }) => {
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let pause = after.and_then(|text| retry_after(&text, SystemTime::now()));
                self.judged(status, pause, None, Bytes::new())
            }
        }
    }

    /// What a status means that is none of success.
    fn judged(
        &self,
        status: StatusCode,
        pause: Option<Duration>,
        location: Option<String>,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let said = self.secrets.excerpt(&body);
        let told = |remedy: &str| format!("{} answered {status}{remedy}; it said: {said}", self.place);
        let trouble = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                Trouble::Refused(told(": it refuses us; correct the headers of the service"))
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                Trouble::Refused(told(": it does not take such requests; correct the method or the URL"))
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Reply { status, body, said: None }),
            StatusCode::TOO_MANY_REQUESTS => {
                Trouble::Throttled(told(": it is asked too often; lower the rate of the service"))
            }
            StatusCode::PAYLOAD_TOO_LARGE => Trouble::TooMuch(told(": it does not take a request of this size")),
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Trouble::TooSlow(told("")),
            StatusCode::TOO_EARLY => Trouble::Doubtful(told("")),
            status if status.is_redirection() => {
                let to = location.map(|to| format!(" to {to}")).unwrap_or_default();
                Trouble::Refused(told(&format!(": a redirect{to} is not followed; write its target as the URL")))
            }
            status if status.is_client_error() => Trouble::Unfit(told("")),
            // It says so itself. Without that it may have died of what was asked for.
            StatusCode::SERVICE_UNAVAILABLE if pause.is_some() => {
                Trouble::Throttled(told(": it asks to be left alone"))
            }
            _ => Trouble::Doubtful(told("")),
        };
        let may_pause = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        Err(Failure { trouble, pause: pause.filter(|_| may_pause) })
    }

    async fn read(&self, mut response: Response) -> Result<Bytes, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.failure(&e))? {
            if bytes.len() + chunk.len() > self.most_bytes {
                let message = format!(
                    "{} answered more than {} bytes; ask for fewer keys at a time, or for less of each",
                    self.place, self.most_bytes
                );
                return Err(Trouble::TooMuch(message).into());
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    fn failure(&self, error: &reqwest::Error) -> Failure {
        let trouble = if error.is_connect() {
            self.away(&causes(error))
        } else if error.is_timeout() {
            self.too_slow()
        } else {
            Trouble::Doubtful(format!("{} broke off its answer: {}", self.place, causes(error)))
        };
        trouble.into()
    }

    fn away(&self, why: &str) -> Trouble {
        Trouble::Away(format!("{} cannot be reached: {why}", self.place))
    }

    fn too_slow(&self) -> Trouble {
        let limit = self.timeout;
        Trouble::TooSlow(format!("{} did not answer within {limit:?}, the timeout of the service", self.place))
    }
}

/// Headers of every request: what we speak, and what the plan says, which wins.
fn headers(plan: &ServicePlan) -> Result<HeaderMap, OutsideError> {
    let mut headers = HeaderMap::new();
    let accepted = match plan.kind {
        ServiceKind::Graphql => "application/graphql-response+json, application/json;q=0.9",
        ServiceKind::Rest => "application/json",
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accepted));
    for (name, secret) in &plan.headers {
        let wrong = |what: &str| OutsideError::fatal(format!("services.{}: headers: {what}", plan.name));
        let key =
            HeaderName::try_from(name.as_str()).map_err(|_| wrong(&format!("{name:?} is no name of a header")))?;
        let mut value = HeaderValue::try_from(secret.reveal())
            .map_err(|_| wrong(&format!("the value of {name} has a character that no header may have")))?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// What a URL holds that is not to be told: its password, also as it is sent, and the values of its query.
fn secrets_of(url: &Url) -> Vec<String> {
    let mut secrets: Vec<String> = url.query_pairs().map(|(_, value)| value.into_owned()).collect();
    if let Some(password) = url.password() {
        let plain = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let (user, password) = (plain(url.username()), plain(password));
        secrets.push(BASE64.encode(format!("{user}:{password}")));
        secrets.push(password);
    }
    secrets
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).is_loopback(),
        None => false,
    }
}

fn without_query(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// The causes of an error, without the URL, which may hold credentials.
fn causes(error: &reqwest::Error) -> String {
    tributary_event::causes(error).unwrap_or_else(|| "for a reason that is not told".to_owned())
}
