//! A receiver of webhooks, and a service that knows prices: both answer most of the time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
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

#[derive(Default)]
struct Seen {
    requests: AtomicU64,
    away: AtomicBool,
    /// Events with this word in them are refused.
    refused: Mutex<Option<String>>,
    received: Mutex<Vec<Received>>,
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

    /// Lets it refuse events with a word in them for good.
    pub fn refuse(&self, word: Option<&str>) {
        *self.seen.refused.lock().unwrap_or_else(PoisonError::into_inner) = word.map(str::to_owned);
    }

    /// What has arrived, in order.
    pub fn received(&self) -> Vec<Received> {
        self.seen.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

async fn hook(State(seen): State<Arc<Seen>>, headers: HeaderMap, Body(body): Body<Json>) -> StatusCode {
    let number = seen.requests.fetch_add(1, Ordering::AcqRel);
    if seen.away.load(Ordering::Acquire) || number % 13 == 5 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let refused = seen.refused.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if refused.is_some_and(|word| body.to_string().contains(&word)) {
        return StatusCode::UNPROCESSABLE_ENTITY;
    }
    let id = headers["webhook-id"].to_str().expect("an id").to_owned();
    assert!(headers["webhook-signature"].to_str().expect("a signature").starts_with("v1,"));
    let received = Received { id, traceparent: traceparent(&headers), body };
    seen.received.lock().unwrap_or_else(PoisonError::into_inner).push(received);
    // It arrived, and the answer is lost.
    if number % 29 == 7 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
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
    let ids = body["ids"].as_array().cloned().unwrap_or_default();
    let price = |id: &Json| json!({ "sku": id, "usd": id.as_f64().unwrap_or_default() * 1.5 });
    Ok(Body(json!({ "prices": ids.iter().map(price).collect::<Vec<_>>() })))
}
