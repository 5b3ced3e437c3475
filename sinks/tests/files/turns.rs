//! What stands in front of the object store where several write at a time: one write after the other, as S3 does them. (S3Proxy looks whether a
//! condition holds, and then writes: two that look at the same time both find that it does.)

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// It runs until it is dropped.
pub struct Turns {
    pub url: String,
    _tasks: JoinSet<()>,
}

impl Turns {
    /// In front of the server at a URL.
    pub async fn before(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (http, turn) = (reqwest::Client::builder().no_proxy().build().expect("a client"), Arc::new(Mutex::new(())));
        let app = Router::new().fallback(move |request: Request| {
            let (http, turn, server) = (http.clone(), turn.clone(), server.clone());
            async move {
                // Whoever leaves does not end a request that the server has begun.
                let sent = tokio::spawn(async move {
                    let _turn = if request.method() == Method::PUT { Some(turn.lock().await) } else { None };
                    pass(&http, &server, request).await
                });
                sent.await.ok().flatten().unwrap_or_else(away)
            }
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { url, _tasks: tasks }
    }
}

/// Hands a request on as it is, its `host` too, which is signed.
async fn pass(http: &reqwest::Client, server: &str, request: Request) -> Option<Response> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.ok()?;
    let url = format!("{server}{}", parts.uri.path_and_query()?);
    let answer = http.request(parts.method, url).headers(parts.headers).body(body).send().await.ok()?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = Response::new(Body::from(answer.bytes().await.ok()?));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().remove("transfer-encoding");
    Some(response)
}

fn away() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
