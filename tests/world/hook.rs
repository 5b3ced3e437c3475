//! A receiver of webhooks, and a service that knows prices: both answer most of the time, and as badly as they are told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json as Body, Router};
use serde_json::{Value as Json, json};

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Received {
    /// The header `webhook-id`.
    pub id: String,
    /// The header `traceparent`, if it had one.
    pub traceparent: Option<String>,
    /// Its body.
    pub body: Json,
}

/// A request, whether it arrived or not.
#[derive(Debug, Clone)]
pub struct Tried {
    /// The header `webhook-id`.
    pub id: String,
    /// Its body.
    pub body: Json,
    /// When it came.
    pub at: Instant,
    /// What was answered; none: nothing, ever.
    pub answer: Option<StatusCode>,
}

/// How the service tells prices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pricing {
    /// Of one request of eleven it knows nothing.
    #[default]
    Usual,
    /// It never answers.
    Hangs,
    /// It takes its time.
    Slow,
    /// Of several keys it tells the first half.
    Pages,
    /// It fails for what holds an odd key.
    FailsForOdd,
}

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_millis(400);
/// For how many seconds a moody receiver wants to be left alone.
pub const LEFT_ALONE: u64 = 1;

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    away: AtomicBool,
    /// Nobody's secret is right.
    locked: AtomicBool,
    /// Some requests are put off, and some are never answered.
    moody: AtomicBool,
    /// Events with this word in them are refused.
    refused: Mutex<Option<String>>,
    received: Mutex<Vec<Received>>,
    tried: Mutex<Vec<Tried>>,
    pricing: Mutex<Pricing>,
    prices_asked: AtomicU64,
    /// What questions for prices said in the header `traceparent`.
    prices_traced: Mutex<Vec<String>>,
}

/// The receiver, for as long as it is kept.
pub struct Hook {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Hook {
    /// Starts one.
    pub async fn start() -> Self {
        let seen: Arc<Seen> = Arc::default();
        let app = Router::new().route("/hook", post(hook)).route("/prices", post(prices)).with_state(seen.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { address, seen, task }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets it answer nothing but 503, or answer again.
    pub fn set_away(&self, away: bool) {
        self.seen.away.store(away, Ordering::Release);
    }

    /// Lets it answer nothing but 401, or answer again.
    pub fn set_locked(&self, locked: bool) {
        self.seen.locked.store(locked, Ordering::Release);
    }

    /// Lets it answer 429 to some requests, and nothing to others, whether they arrived or not.
    pub fn set_moody(&self, moody: bool) {
        self.seen.moody.store(moody, Ordering::Release);
    }

    /// How prices are told from now on.
    pub fn set_pricing(&self, pricing: Pricing) {
        *self.seen.pricing.lock().unwrap_or_else(PoisonError::into_inner) = pricing;
    }

    /// Lets it refuse events with a word in them for good.
    pub fn refuse(&self, word: Option<&str>) {
        *self.seen.refused.lock().unwrap_or_else(PoisonError::into_inner) = word.map(str::to_owned);
    }

    /// What has arrived, in order.
    pub fn received(&self) -> Vec<Received> {
        self.seen.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every request for the receiver, in order.
    pub fn tried(&self) -> Vec<Tried> {
        self.seen.tried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the requests for prices that were traced said in the header `traceparent`.
    pub fn prices_traced(&self) -> Vec<String> {
        self.seen.prices_traced.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// By what a body says it is, the events that arrived, each once, in the order in which they came first.
    pub fn by(&self, key: impl Fn(&Json) -> i64) -> BTreeMap<i64, Vec<Json>> {
        let mut ids = std::collections::HashMap::new();
        let mut by: BTreeMap<i64, Vec<Json>> = BTreeMap::new();
        for Received { id, body, .. } in self.received() {
            match ids.get(&id) {
                Some(before) => assert_eq!(before, &body, "{id} came with another body"),
                None => {
                    by.entry(key(&body)).or_default().push(body.clone());
                    ids.insert(id, body);
                }
            }
        }
        by
    }
}

impl Seen {
    /// What becomes of a request: whether it arrives, and what is answered, if anything is.
    fn fate(&self, number: u64, body: &Json) -> (bool, Option<StatusCode>) {
        if self.locked.load(Ordering::Acquire) {
            return (false, Some(StatusCode::UNAUTHORIZED));
        }
        if self.away.load(Ordering::Acquire) || number % 13 == 5 {
            return (false, Some(StatusCode::SERVICE_UNAVAILABLE));
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if refused.is_some_and(|word| body.to_string().contains(&word)) {
            return (false, Some(StatusCode::BAD_REQUEST));
        }
        let is_moody = self.moody.load(Ordering::Acquire);
        match number % 17 {
            2 if is_moody => (false, Some(StatusCode::TOO_MANY_REQUESTS)),
            9 if is_moody => (false, None),
            14 if is_moody => (true, None),
            // It arrived, and the answer is lost.
            _ if number % 29 == 7 => (true, Some(StatusCode::INTERNAL_SERVER_ERROR)),
            _ => (true, Some(StatusCode::OK)),
        }
    }
}

async fn hook(State(seen): State<Arc<Seen>>, headers: HeaderMap, Body(body): Body<Json>) -> Response {
    let number = seen.requests.fetch_add(1, Ordering::AcqRel);
    let id = headers["webhook-id"].to_str().expect("an id").to_owned();
    assert!(headers["webhook-signature"].to_str().expect("a signature").starts_with("v1,"));
    let (has_arrived, answer) = seen.fate(number, &body);
    let tried = Tried { id: id.clone(), body: body.clone(), at: Instant::now(), answer };
    seen.tried.lock().unwrap_or_else(PoisonError::into_inner).push(tried);
    if has_arrived {
        let received = Received { id, traceparent: traceparent(&headers), body };
        seen.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    }
    match answer {
        Some(StatusCode::TOO_MANY_REQUESTS) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", LEFT_ALONE.to_string())]).into_response()
        }
        Some(status) => status.into_response(),
        None => std::future::pending().await,
    }
}

fn traceparent(headers: &HeaderMap) -> Option<String> {
    headers.get("traceparent")?.to_str().ok().map(str::to_owned)
}

/// The price of each id is half as much again.
async fn prices(
    State(seen): State<Arc<Seen>>,
    headers: HeaderMap,
    Body(body): Body<Json>,
) -> Result<Body<Json>, StatusCode> {
    seen.prices_traced.lock().unwrap_or_else(PoisonError::into_inner).extend(traceparent(&headers));
    let number = seen.prices_asked.fetch_add(1, Ordering::AcqRel);
    if number % 11 == 3 {
        return Err(StatusCode::BAD_GATEWAY);
    }
    let mut ids = body["ids"].as_array().cloned().unwrap_or_default();
    let pricing = *seen.pricing.lock().unwrap_or_else(PoisonError::into_inner);
    match pricing {
        Pricing::Usual => {}
        Pricing::Hangs => std::future::pending().await,
        Pricing::Slow => tokio::time::sleep(SLOW).await,
        Pricing::Pages => ids.truncate(ids.len().div_ceil(2)),
        Pricing::FailsForOdd if ids.iter().any(|id| id.as_i64().is_some_and(|id| id % 2 == 1)) => {
            return Err(StatusCode::INTERNAL_SERVER_ERROR);
        }
        Pricing::FailsForOdd => {}
    }
    let price = |id: &Json| json!({ "sku": id, "usd": id.as_f64().unwrap_or_default() * 1.5 });
    Ok(Body(json!({ "prices": ids.iter().map(price).collect::<Vec<_>>() })))
}
