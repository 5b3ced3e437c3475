//! The HTTP service: `POST /graphql` and `GET /healthz`.
//!
//! One task serves; it is owned by [`Service`] and ends when that is stopped or dropped. Requests in flight are
//! answered first, those that a fault holds back with 503.

use crate::admission::admit;
use crate::database::Database;
use crate::faults::Faults;
use crate::graph::{self, types::Naming};
use crate::loaders::loaders;
use anyhow::Context as _;
use async_graphql::Response as GraphResponse;
use async_graphql_axum::{GraphQLRequest, GraphQLResponse};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long a stopping service waits for the requests in flight.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// By this header a service says how far into the database's log it has come.
const POSITION: HeaderName = HeaderName::from_static("x-tributary-position");
/// The largest request: a query and some hundred thousand ids.
const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;

/// Where to read and where to listen.
#[derive(Debug, Clone)]
pub struct Settings {
    /// PostgreSQL's URL. The database may be absent when the service starts.
    pub database_url: String,
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The most connections to the database at a time.
    pub pool_size: usize,
}

/// A running service. Dropping it stops it without waiting for the requests in flight.
#[derive(Debug)]
pub struct Service {
    address: SocketAddr,
    faults: Faults,
    stopping: CancellationToken,
    task: Option<JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    schema: graph::Schema,
    database: Database,
    faults: Faults,
    stopping: CancellationToken,
}

impl Service {
    /// Listens and serves until [`Self::stop`].
    ///
    /// # Errors
    /// If the URL cannot be understood or the address cannot be listened on.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let faults = Faults::default();
        let database = Database::new(&settings.database_url, settings.pool_size, faults.clone());
        let database = database.context("the database's URL")?;
        let listener =
            TcpListener::bind(settings.listen).await.with_context(|| format!("listening on {}", settings.listen))?;
        let address = listener.local_addr()?;
        let stopping = CancellationToken::new();
        let shared = Shared {
            schema: graph::schema(),
            database: database.clone(),
            faults: faults.clone(),
            stopping: stopping.clone(),
        };
        let router = axum::Router::new()
            .route("/graphql", post(answer))
            .route("/healthz", get(health))
            .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
            .with_state(shared);
        // Without this, an answer in two packets waits for the client's delayed acknowledgement.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let shutdown = stopping.clone().cancelled_owned();
        let task = tokio::spawn(async move {
            // Serving has no error of its own: accepting is tried again, a broken connection concerns its client alone.
            let _ = axum::serve(listener, router).with_graceful_shutdown(shutdown).await;
            database.close();
        });
        Ok(Self { address, faults, stopping, task: Some(task) })
    }

    /// Where GraphQL is served: `http://127.0.0.1:4000/graphql`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/graphql", self.address)
    }

    /// The address that is listened on, with the port that was taken.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The switches for tests.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults.clone()
    }

    /// Listens no more, answers the requests in flight (for five seconds at most) and ends. The address is free then.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        if let Some(mut task) = self.task.take()
            && tokio::time::timeout(STOP_TIMEOUT, &mut task).await.is_err()
        {
            task.abort();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stopping.cancel();
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn answer(State(shared): State<Shared>, request: GraphQLRequest) -> Response {
    let faults = &shared.faults;
    faults.count_request();
    if !held_back(&shared, faults.delay()).await {
        return unavailable("the service is stopping");
    }
    while faults.hangs() {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = shared.stopping.cancelled() => return unavailable("the service is stopping"),
        }
    }
    if faults.is_down() {
        return unavailable("the service is down");
    }
    if let Some(status) = faults.status() {
        return page(status);
    }
    let position = if faults.says_position() { shared.database.position().await } else { None };
    let naming = if faults.is_renamed() { Naming::Renamed } else { Naming::Usual };
    let mut request = request.into_inner();
    let response = match admit(&mut request, naming, faults.max_roots()) {
        Err(refusal) => GraphResponse::from_errors(vec![refusal]),
        Ok(()) => {
            let request = request.data(loaders(shared.database.clone())).data(faults.clone()).data(naming);
            shared.schema.execute(request).await
        }
    };
    if !held_back(&shared, faults.late()).await {
        return unavailable("the service is stopping");
    }
    let mut response = match faults.poison().zip(serde_json::to_string(&response).ok()) {
        Some((poison, json)) => poison.spoil(json),
        None => GraphQLResponse::from(response).into_response(),
    };
    if let Some(position) = position.and_then(|position| HeaderValue::try_from(position).ok()) {
        response.headers_mut().insert(POSITION, position);
    }
    response
}

/// Waits that long; false if the service stops meanwhile.
async fn held_back(shared: &Shared, time: Duration) -> bool {
    if time.is_zero() {
        return true;
    }
    tokio::select! {
        () = tokio::time::sleep(time) => true,
        () = shared.stopping.cancelled() => false,
    }
}

async fn health(State(shared): State<Shared>) -> Response {
    if shared.faults.is_down() {
        return unavailable("the service is down");
    }
    if let Some(status) = shared.faults.status() {
        return page(status);
    }
    match shared.database.query("SELECT 1", &[]).await {
        Ok(_) => "ok\n".into_response(),
        Err(error) => unavailable(&error.to_string()),
    }
}

/// What stands before a service that is being deployed.
fn page(status: StatusCode) -> Response {
    let location = [(LOCATION, "/maintenance"), (CONTENT_TYPE, "text/html")];
    (status, location, format!("<html><h1>{status}</h1></html>\n")).into_response()
}

fn unavailable(reason: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response()
}
