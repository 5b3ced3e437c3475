//! A server on a port of this machine: it answers as a test says, and remembers what it was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// As text.
    pub body: String,
}

impl Seen {
    /// The body.
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).expect("a body of JSON")
    }

    /// The list of keys: of a GraphQL variable `ids`, or of a body's `ids`.
    pub fn ids(&self) -> Vec<Json> {
        let body = self.json();
        let ids = body.pointer("/variables/ids").or_else(|| body.pointer("/ids"));
        ids.and_then(Json::as_array).expect("a list of ids").clone()
    }
}

/// It runs until it is dropped.
pub struct Server {
    pub url: String,
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    tasks: JoinSet<()>,
}

impl Server {
    /// Answers every request by `answer`.
    pub async fn start<R>(answer: impl Fn(Seen) -> R + Clone + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self::on(listener, answer)
    }

    /// The same on a listener that is there.
    pub fn on<R>(listener: TcpListener, answer: impl Fn(Seen) -> R + Clone + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Response> + Send + 'static,
    {
        let address = listener.local_addr().expect("an address");
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let noting = seen.clone();
        let app = Router::new().fallback(move |request: Request| {
            let (answer, noting) = (answer.clone(), noting.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
                let seen = Seen {
                    method: parts.method,
                    target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
                    headers: parts.headers,
                    body: String::from_utf8(body.to_vec()).expect("text"),
                };
                noting.lock().expect("not poisoned").push(seen.clone());
                answer(seen).await
            }
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { url: format!("http://{address}"), address, seen, tasks }
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    /// How often it was asked.
    pub fn count(&self) -> usize {
        self.seen().len()
    }

    /// Ends it, connections included, and says where it was.
    pub async fn stop(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

/// JSON with status 200.
pub fn ok(body: impl Into<String>) -> Response {
    status(200, body)
}

/// An answer of a status.
pub fn status(status: u16, body: impl Into<String>) -> Response {
    (StatusCode::from_u16(status).expect("a status"), body.into()).into_response()
}

/// A body that comes in pieces, so many of them.
pub fn pieces(count: usize, piece: &'static [u8]) -> Response {
    let pieces = (0..count).map(move |_| Ok::<_, std::convert::Infallible>(Bytes::from_static(piece)));
    Body::from_stream(futures::stream::iter(pieces)).into_response()
}

/// The answer of a GraphQL service that knows every movie.
pub fn movies(ids: &[Json]) -> Response {
    let movies: Vec<Json> = ids.iter().map(|id| json!({ "id": id, "title": format!("movie {id}") })).collect();
    ok(json!({ "data": { "movies": movies } }).to_string())
}
