//! A receiver of webhooks, which takes everything at once, and a service that knows studios, 5 ms after it was asked for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json as Body, Router};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// How long the service takes.
const TIME: Duration = Duration::from_millis(5);

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    keys: AtomicU64,
}

/// Both, for as long as this is kept.
pub(super) struct Receiver {
    address: SocketAddr,
    counts: Arc<Counts>,
    _task: JoinSet<()>,
}

impl Receiver {
    pub async fn start() -> Result<Self> {
        let counts = Arc::<Counts>::default();
        let app = Router::new().route("/hook", post(hook)).route("/studios", post(studios)).with_state(counts.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.context("taking a port")?;
        let address = listener.local_addr().context("the port")?;
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                println!("the receiver ended: {error}");
            }
        });
        Ok(Self { address, counts, _task: task })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How often the service was asked, and for how many keys.
    pub fn asked(&self) -> (u64, u64) {
        (self.counts.requests.load(Ordering::Relaxed), self.counts.keys.load(Ordering::Relaxed))
    }
}

async fn hook(_: Bytes) -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn studios(State(counts): State<Arc<Counts>>, Body(body): Body<Json>) -> Body<Json> {
    let ids = body["ids"].as_array().cloned().unwrap_or_default();
    counts.requests.fetch_add(1, Ordering::Relaxed);
    counts.keys.fetch_add(ids.len() as u64, Ordering::Relaxed);
    tokio::time::sleep(TIME).await;
    let studio = |id: &Json| json!({ "id": id, "name": format!("Studio {id}"), "country": "is" });
    Body(json!({ "studios": ids.iter().map(studio).collect::<Vec<_>>() }))
}
