//! A GraphQL server whose every answer a test decides.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value as Json, json};
use tokio::task::JoinHandle;

/// An answer.
pub enum Reply {
    Json(Json),
    Status(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// Half of an answer, then the connection is cut.
    Cut,
    /// Never.
    Silence,
}

type Answering = dyn Fn(&Json) -> Reply + Send + Sync;

struct Shared {
    answer: Box<Answering>,
    requests: Mutex<Vec<Json>>,
    headers: Mutex<HeaderMap>,
}

/// The server; stops when dropped.
pub struct Server {
    pub url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server.
    pub async fn start(answer: impl Fn(&Json) -> Reply + Send + Sync + 'static) -> Self {
        let shared =
            Arc::new(Shared { answer: Box::new(answer), requests: Mutex::default(), headers: Mutex::default() });
        let router = Router::new().route("/graphql", post(handle)).with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}/graphql", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, task }
    }

    /// A server that answers lists of movies by a function of their ids: `data`, then `errors`.
    pub async fn movies(answer: impl Fn(&[String]) -> Json + Send + Sync + 'static) -> Self {
        Self::start(move |request| Reply::Json(answer(&ids_of(request)))).await
    }

    /// Every request so far, but for probes.
    pub fn requests(&self) -> Vec<Json> {
        let requests = self.shared.requests.lock().unwrap();
        requests.iter().filter(|r| !is_probe(r)).cloned().collect()
    }

    /// The number of ids of each request so far, largest first.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.requests().iter().map(|r| ids_of(r).len()).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }

    /// A header of the last request.
    pub fn header(&self, name: &str) -> Option<String> {
        self.shared.headers.lock().unwrap().get(name).map(|v| v.to_str().unwrap().to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let request: Json = serde_json::from_slice(&body).unwrap();
    shared.requests.lock().unwrap().push(request.clone());
    *shared.headers.lock().unwrap() = headers;
    match (shared.answer)(&request) {
        Reply::Json(json) => axum::Json(json).into_response(),
        Reply::Status(status, headers, body) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            response
        }
        Reply::Cut => {
            let parts = [Ok("{\"data\": {"), Err(std::io::Error::other("cut"))];
            axum::body::Body::from_stream(futures::stream::iter(parts)).into_response()
        }
        Reply::Silence => std::future::pending().await,
    }
}

/// Whether a request only asks whether the server is there.
pub fn is_probe(request: &Json) -> bool {
    request["query"] == "{ __typename }"
}

/// The ids that a request asks for.
pub fn ids_of(request: &Json) -> Vec<String> {
    let variables = &request["variables"];
    let apart: Vec<String> = (0..).map_while(|i| variables[format!("_{i}")].as_str().map(str::to_owned)).collect();
    if !apart.is_empty() {
        return apart;
    }
    if let Some(representations) = variables["representations"].as_array() {
        return representations.iter().map(|r| r["id"].as_str().unwrap().to_owned()).collect();
    }
    variables["ids"].as_array().into_iter().flatten().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// A movie.
pub fn movie(id: &str) -> Json {
    json!({ "__typename": "Movie", "id": id, "title": format!("title {id}") })
}

/// `data` of movies; `change` may replace some.
pub fn movies(ids: &[String], change: &[(&str, Json)]) -> Json {
    let change: BTreeMap<&str, &Json> = change.iter().map(|(id, json)| (*id, json)).collect();
    let movie = |id: &String| change.get(id.as_str()).map_or_else(|| movie(id), |json| (*json).clone());
    json!({ "movies": ids.iter().map(movie).collect::<Vec<_>>() })
}

/// `data` with what each id has under its alias.
pub fn aliased(ids: &[String], answer: impl Fn(&str) -> Json) -> Json {
    ids.iter().enumerate().map(|(i, id)| (format!("_{i}"), answer(id))).collect::<serde_json::Map<_, _>>().into()
}

/// Bytes as gzip with a single stored block (RFC 1952, RFC 1951 3.2.4).
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let length = u16::try_from(bytes.len()).unwrap();
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.write_all(&length.to_le_bytes()).unwrap();
    out.write_all(&(!length).to_le_bytes()).unwrap();
    out.write_all(bytes).unwrap();
    out.write_all(&(!crc).to_le_bytes()).unwrap();
    out.write_all(&u32::from(length).to_le_bytes()).unwrap();
    out
}
