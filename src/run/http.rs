//! The HTTP listener of a running pipeline: health that tells the truth, metrics, documents, search, dead letters. It answers
//! from the first moment; what needs the indexes is refused until they have started, which may take as long as the graph is away.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::Plan;
use tributary_event::{ErrorClass, Health};
use tributary_indexer::audit::{self, Audit, Scope, Subject};
use tributary_indexer::engine::IndexHandle;
use tributary_indexer::store::{DocumentStore, SearchRequest, StoreError, StoredDocument};
use tributary_processor::Taps;
use tributary_transport::dead_letter::{DeadLetter, DeadLetters};
use tributary_transport::{Transport, TransportError, WayBack};

use crate::functions::Functions;
use crate::streams::{Reload, Reloaded, Shown};

/// Hits of one search at most.
const MAX_HITS: usize = 10_000;

/// What the listener answers from.
pub struct Api {
    /// The pipeline's name.
    pub pipeline: String,
    /// Every part's state.
    pub health: Health,
    /// The indexes, once they have started.
    pub started: Arc<OnceLock<Started>>,
    /// Dead letters.
    pub letters: DeadLetters,
    /// The topics.
    pub transport: Arc<dyn Transport>,
    /// Metrics.
    pub metrics: PrometheusHandle,
    /// What flows through the streams.
    pub taps: Arc<Taps>,
    /// What streams there are.
    pub shown: Arc<RwLock<Shown>>,
    /// Lets the pipeline's file be read again.
    pub reload: mpsc::Sender<Reload>,
    /// What this program adds to the pipeline.
    pub functions: Arc<Functions>,
    /// The pipeline stops: answers without an end end.
    pub stopping: CancellationToken,
}

/// Indexes that have started.
pub struct Started {
    /// Each of them.
    pub indexes: Vec<IndexHandle>,
    /// Their plan.
    pub plan: Arc<Plan>,
    /// What an audit looks at.
    pub subjects: Vec<Subject>,
}

/// Serves until shutdown; answers in flight are finished.
pub async fn serve(listener: TcpListener, api: Arc<Api>, shutdown: CancellationToken) -> std::io::Result<()> {
    let app = Router::new()
        .route("/health", get(health))
        .route("/health/ready", get(health))
        .route("/health/live", get(live))
        .route("/metrics", get(metrics))
        .route("/indexes", get(indexes))
        .route("/indexes/{name}", get(index))
        .route("/indexes/{name}/documents/{*id}", get(document))
        .route("/indexes/{name}/search", get(search))
        .route("/indexes/{name}/reindex", post(reindex))
        .route("/indexes/{name}/resume-deletes", post(resume_deletes))
        .route("/audit", get(audit))
        .route("/tap", get(super::tap::serve))
        .route("/reload", get(foreseen).post(reloaded))
        .route("/dead-letters", get(letters))
        .route("/dead-letters/{*id}", get(letter))
        .route("/dead-letters-replay", post(replay))
        .route("/dead-letters-discard", post(discard))
        .with_state(api);
    axum::serve(listener, app).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

/// Listens where the pipeline says.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, crate::cli::exit::Failure> {
    let listener = TcpListener::bind(address).await.map_err(|e| {
        crate::cli::exit::Failure::Stopped(format!(
            "cannot listen on {address}: {e} (http.listen in the pipeline names the address; is this pipeline running already?)"
        ))
    })?;
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "the HTTP listener is open beyond this machine, and it asks nobody who they are");
    }
    Ok(listener)
}

/// A failure as it is answered.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// An answer that says why there is none.
pub fn refused(status: StatusCode, message: String) -> Response {
    Failure(status, message).into_response()
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(status(error.class), error.message)
    }
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        Self(status(error.class), error.message)
    }
}

fn status(class: ErrorClass) -> StatusCode {
    match class {
        ErrorClass::Transient => StatusCode::SERVICE_UNAVAILABLE,
        ErrorClass::Definite => StatusCode::BAD_REQUEST,
        ErrorClass::Fatal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn started(api: &Api) -> Result<&Started, Failure> {
    api.started.get().ok_or_else(|| {
        let text = "the pipeline waits for its graph and has no plan yet; /health says why";
        Failure(StatusCode::SERVICE_UNAVAILABLE, text.to_owned())
    })
}

fn find<'a>(api: &'a Api, name: &str) -> Result<&'a IndexHandle, Failure> {
    let indexes = &started(api)?.indexes;
    indexes.iter().find(|i| i.context.plan.name == name).ok_or_else(|| {
        let shown = api.shown.read().unwrap_or_else(PoisonError::into_inner);
        let of_streams = shown.indexes.keys().map(String::as_str);
        let known: Vec<&str> = indexes.iter().map(|i| i.context.plan.name.as_str()).chain(of_streams).collect();
        Failure(StatusCode::NOT_FOUND, format!("no index {name:?} in this pipeline (it has: {})", known.join(", ")))
    })
}

/// The documents of an index, whoever fills it.
fn documents(api: &Api, name: &str) -> Result<Arc<dyn DocumentStore>, Failure> {
    let of_streams = api.shown.read().unwrap_or_else(PoisonError::into_inner).indexes.get(name).cloned();
    match of_streams {
        Some(store) => Ok(store),
        None => find(api, name).map(|index| index.context.store.clone()),
    }
}

/// What an index is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexStatus {
    /// Its name.
    pub name: String,
    /// Searchable documents; none if the store does not answer.
    pub documents: Option<u64>,
    /// Documents that are set aside as dead letters, as far as this process knows.
    #[serde(default)]
    pub dead_letters: u64,
    /// Of these: documents that would be deleted, which waits until somebody says `tributary resume-deletes`.
    #[serde(default)]
    pub deletes_held: u64,
    /// Build requests that are not finished; none before it is known.
    pub builds_waiting: Option<u64>,
    /// Change events that are not resolved for it; none before it is known.
    pub changes_waiting: Option<u64>,
    /// Whether roots are being listed for a first build or a reindex.
    pub listing: bool,
}

async fn index_status(index: &IndexHandle) -> IndexStatus {
    IndexStatus {
        name: index.context.plan.name.clone(),
        documents: index.context.store.count().await.ok(),
        dead_letters: index.context.reports.set_aside.load(Ordering::Acquire),
        deletes_held: index.context.brake.held(),
        builds_waiting: index.builds_waiting(),
        changes_waiting: index.changes_waiting(),
        listing: index.context.reports.progress.listing.load(Ordering::Acquire),
    }
}

/// Whether every part does its work, or is a standby, and which does not.
async fn health(State(api): State<Arc<Api>>) -> Response {
    let state = api.health.state();
    let up = state.is_healthy();
    let code = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({ "pipeline": api.pipeline, "up": up, "state": state, "parts": api.health.parts() });
    (code, Json(body)).into_response()
}

/// The process answers. What it waits for would not come sooner if it were started again.
async fn live(State(api): State<Arc<Api>>) -> Json<serde_json::Value> {
    Json(json!({ "pipeline": api.pipeline, "live": true }))
}

async fn metrics(State(api): State<Arc<Api>>) -> String {
    for (part, health) in api.health.parts() {
        metrics::gauge!("tributary_part_up", "part" => part).set(if health.up { 1.0 } else { 0.0 });
    }
    api.metrics.render()
}

async fn indexes(State(api): State<Arc<Api>>) -> Result<Json<Vec<IndexStatus>>, Failure> {
    let mut all = Vec::new();
    for index in &started(&api)?.indexes {
        all.push(index_status(index).await);
    }
    Ok(Json(all))
}

async fn index(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<IndexStatus>, Failure> {
    Ok(Json(index_status(find(&api, &name)?).await))
}

/// A document as it is answered and printed.
pub fn document_json(document: &StoredDocument) -> serde_json::Value {
    json!({
        "id": document.id,
        "document": document.content,
        "_refs": document.refs,
        "_stamp": document.stamp,
        "_hash": document.hash,
    })
}

async fn document(
    State(api): State<Arc<Api>>,
    Path((name, id)): Path<(String, String)>,
) -> Result<Json<serde_json::Value>, Failure> {
    match documents(&api, &name)?.get(&id).await? {
        Some(document) => Ok(Json(document_json(&document))),
        None => Err(Failure(StatusCode::NOT_FOUND, format!("index {name} has no document {id:?}"))),
    }
}

#[derive(Deserialize)]
struct SearchParameters {
    #[serde(default)]
    q: String,
    #[serde(default)]
    from: usize,
    #[serde(default = "ten")]
    size: usize,
}

fn ten() -> usize {
    10
}

async fn search(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    Query(parameters): Query<SearchParameters>,
) -> Result<Json<serde_json::Value>, Failure> {
    if parameters.from.saturating_add(parameters.size) > MAX_HITS {
        return Err(Failure(
            StatusCode::BAD_REQUEST,
            format!("from + size may be at most {MAX_HITS}; narrow the query"),
        ));
    }
    let request = SearchRequest { query: parameters.q, from: parameters.from, size: parameters.size };
    let found = documents(&api, &name)?.search(&request).await?;
    let hits: Vec<_> =
        found.hits.iter().map(|h| json!({ "id": h.id, "score": h.score, "document": h.content })).collect();
    Ok(Json(json!({ "total": found.total, "hits": hits })))
}

async fn reindex(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<StatusCode, Failure> {
    find(&api, &name)?.reindex().await?;
    Ok(StatusCode::ACCEPTED)
}

async fn resume_deletes(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
) -> Result<Json<serde_json::Value>, Failure> {
    let index = find(&api, &name)?;
    index.context.brake.release(tokio::time::Instant::now());
    let resumed = tributary_indexer::letters::replay::resume_deletes(&api.letters, &name).await?;
    Ok(Json(json!({ "resumed": resumed })))
}

async fn audit(State(api): State<Arc<Api>>, Query(scope): Query<Scope>) -> Result<Json<Audit>, Failure> {
    let Started { plan, subjects, .. } = started(&api)?;
    let audited = audit::audit(plan, &api.transport, subjects, scope).await;
    audited.map(Json).map_err(|error| Failure(status(error.class), error.message))
}

async fn letters(State(api): State<Arc<Api>>) -> Result<Json<Vec<DeadLetter>>, Failure> {
    Ok(Json(api.letters.list().await?))
}

async fn letter(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<DeadLetter>, Failure> {
    match api.letters.get(&id).await? {
        Some(letter) => Ok(Json(letter)),
        None => Err(Failure(StatusCode::NOT_FOUND, format!("no dead letter {id:?}"))),
    }
}

/// Which letters to replay; `ids: null` is all.
#[derive(Debug, Serialize, Deserialize)]
pub struct Replay {
    /// Their ids.
    pub ids: Option<Vec<String>>,
}

/// What a reload would do.
async fn foreseen(State(api): State<Arc<Api>>) -> Result<Json<Reloaded>, Failure> {
    reload(&api, true).await
}

async fn reloaded(State(api): State<Arc<Api>>) -> Result<Json<Reloaded>, Failure> {
    reload(&api, false).await
}

async fn reload(api: &Api, is_dry: bool) -> Result<Json<Reloaded>, Failure> {
    let (answer, reloaded) = oneshot::channel();
    let stopping = || Failure(StatusCode::SERVICE_UNAVAILABLE, "the pipeline stops".to_owned());
    api.reload.send(Reload { is_dry, answer }).await.map_err(|_| stopping())?;
    let reloaded = reloaded.await.map_err(|_| stopping())?;
    reloaded.map(Json).map_err(|failure| Failure(StatusCode::BAD_REQUEST, failure.to_string()))
}

async fn discard(
    State(api): State<Arc<Api>>,
    Json(ids): Json<Vec<String>>,
) -> Result<Json<serde_json::Value>, Failure> {
    Ok(Json(json!({ "discarded": api.letters.discard(&ids).await? })))
}

async fn replay(State(api): State<Arc<Api>>, Json(what): Json<Replay>) -> Result<Json<serde_json::Value>, Failure> {
    // Streams do theirs again by themselves; the others need the indexes.
    let is_asked = |letter: &DeadLetter| what.ids.as_ref().is_none_or(|ids| ids.contains(&letter.id));
    let letters = api.letters.list().await?;
    if letters.iter().any(|letter| is_asked(letter) && letter.way_back == WayBack::Topic) {
        started(&api)?;
    }
    let replayed = api.letters.replay(what.ids.as_deref()).await?;
    Ok(Json(json!({ "replayed": replayed })))
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::Value;

    use super::*;

    /// A test's thread has no more stack than one of the pipeline.
    #[tokio::test]
    async fn the_deepest_document_is_answered_and_read() {
        let levels = tributary_indexer::documents::json::MAX_LEVELS - 2;
        let content = (0..levels).fold(Value::Null, |inner, _| json!([inner]));
        let refs = vec!["Movie:5".to_owned()];
        let document = StoredDocument { id: "5".into(), content, refs, stamp: 1, hash: "h".into() };
        let answer = Json(document_json(&document)).into_response();
        let text = to_bytes(answer.into_body(), usize::MAX).await.expect("a body");
        let read: Value = tributary_indexer::documents::json::read(&text).expect("JSON");
        assert_eq!(read["document"], document.content);
    }
}
