//! What stands around the demo of streams: a service that knows prices, and a receiver of webhooks that takes only what is signed.
//!
//! Reference of the signature: Standard Webhooks 1.0.0, "Signature scheme" (symmetric, `v1`).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json as Body, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Seconds by which the time of a signature may differ from ours.
const TOLERANCE: u64 = 300;

/// How well they answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    /// To every request, and what arrives is printed.
    Reliable,
    /// Now and then with an error; the receiver sometimes after it has taken the event.
    Moody,
}

/// A signed request that arrived.
#[derive(Debug, Clone)]
pub(super) struct Arrived {
    /// Its header `webhook-id`.
    pub(super) id: String,
    /// Its body: an envelope with the event in `data`.
    pub(super) body: Bytes,
}

struct Seen {
    mood: Mood,
    key: hmac::Key,
    arrived: Mutex<Vec<Arrived>>,
    unsigned: AtomicU64,
    told: AtomicU64,
    asked: AtomicU64,
}

/// Both services, which end when it is dropped.
pub(super) struct Outside {
    address: SocketAddr,
    secret: String,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Outside {
    /// Starts them on a free port, with a secret of this run.
    pub(super) async fn start(mood: Mood) -> Result<Self> {
        let secret: [u8; 32] = rand::random();
        let seen = Arc::new(Seen {
            mood,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            arrived: Mutex::default(),
            unsigned: AtomicU64::default(),
            told: AtomicU64::default(),
            asked: AtomicU64::default(),
        });
        let routes = Router::new().route("/prices", post(prices)).route("/raised", post(raised));
        let app = routes.with_state(seen.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening for prices and webhooks")?;
        let address = listener.local_addr().context("listening for prices and webhooks")?;
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                println!("the services of prices and webhooks ended: {error}; start the demo again");
            }
        });
        Ok(Self { address, secret: format!("whsec_{}", STANDARD.encode(secret)), seen, task })
    }

    /// Where they are.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What webhooks are to be signed with.
    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    /// What has arrived with a good signature, in order.
    pub(super) fn arrived(&self) -> Vec<Arrived> {
        self.seen.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests whose signature was wrong.
    pub(super) fn unsigned(&self) -> u64 {
        self.seen.unsigned.load(Ordering::Acquire)
    }
}

/// The price of a ticket for a movie, in US dollars.
pub(super) fn price(id: i64) -> f64 {
    8.0 + (id % 9) as f64 * 0.75
}

async fn prices(State(seen): State<Arc<Seen>>, Body(asked): Body<Json>) -> Result<Body<Json>, StatusCode> {
    let number = seen.asked.fetch_add(1, Ordering::AcqRel);
    if seen.mood == Mood::Moody && number % 11 == 3 {
        return Err(StatusCode::BAD_GATEWAY);
    }
    let ids = asked["ids"].as_array().into_iter().flatten();
    let prices: Vec<Json> = ids.filter_map(Json::as_i64).map(|id| json!({ "id": id, "usd": price(id) })).collect();
    Ok(Body(json!({ "prices": prices })))
}

async fn raised(State(seen): State<Arc<Seen>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Some(id) = signed(&seen.key, &headers, &body) else {
        seen.unsigned.fetch_add(1, Ordering::AcqRel);
        println!("webhook  refused: its signature is wrong");
        return StatusCode::UNAUTHORIZED;
    };
    let number = seen.told.fetch_add(1, Ordering::AcqRel);
    if seen.mood == Mood::Moody && number % 13 == 5 {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    if seen.mood == Mood::Reliable {
        println!("webhook  signed  {}", line(&body));
    }
    seen.arrived.lock().unwrap_or_else(PoisonError::into_inner).push(Arrived { id, body });
    // It arrived, and the answer does not say so: it will come again.
    if seen.mood == Mood::Moody && number % 29 == 7 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

/// The id of a request that was signed with the key, lately.
fn signed(key: &hmac::Key, headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let (id, seconds, signatures) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    if now.abs_diff(seconds.parse().ok()?) > TOLERANCE {
        return None;
    }
    let mut text = format!("{id}.{seconds}.").into_bytes();
    text.extend_from_slice(body);
    let good = |signature: &str| {
        let encoded = signature.strip_prefix("v1,").unwrap_or_default();
        STANDARD.decode(encoded).is_ok_and(|tag| hmac::verify(key, &text, &tag).is_ok())
    };
    signatures.split(' ').any(good).then(|| id.to_owned())
}

/// An event in a line.
fn line(body: &[u8]) -> String {
    let envelope: Json = serde_json::from_slice(body).unwrap_or_default();
    let event = &envelope["data"];
    format!(
        "{} ({}): budget {} USD, {} more; a ticket is {} USD",
        event["title"].as_str().unwrap_or_default(),
        event["distributor"].as_str().unwrap_or("no distributor"),
        event["budget_usd"],
        event["rise_usd"],
        event["ticket_usd"]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_signed_lately_with_the_key_is_taken() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
        let take = |seconds: u64, signed_body: &[u8], body: &[u8]| {
            let text = [format!("m_1.{seconds}.").as_bytes(), signed_body].concat();
            let signature = format!("v1,AAAA v1,{}", STANDARD.encode(hmac::sign(&key, &text)));
            let mut headers = HeaderMap::new();
            headers.insert("webhook-id", "m_1".parse().expect("a header"));
            headers.insert("webhook-timestamp", seconds.into());
            headers.insert("webhook-signature", signature.parse().expect("a header"));
            signed(&key, &headers, body)
        };
        assert_eq!(take(now, b"{}", b"{}").as_deref(), Some("m_1"));
        assert_eq!(take(now, b"{}", b"{ }"), None);
        assert_eq!(take(now - TOLERANCE - 60, b"{}", b"{}"), None);
        assert_eq!(signed(&key, &HeaderMap::new(), b"{}"), None);
    }
}
