//! A server that behaves as those of Conductor do: of `WorkflowResource` what starts workflows and looks them up, of `MetadataResource`
//! what shows a definition.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value as Json, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tributary_dsl::plan::ConductorFlavor;

/// What goes wrong with a start.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The workflow starts, and no answer comes.
    StartsAndHangs,
    /// The workflow starts, and the answer is an error.
    StartsAndFails(StatusCode),
    /// The workflow does not start, with a pause that is asked for.
    Refuses(StatusCode, Option<&'static str>),
}

/// A request: method and URL, and headers.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub headers: HeaderMap,
}

/// A workflow that runs.
struct Run {
    name: String,
    version: Option<u64>,
    key: String,
    input: Json,
    since: Instant,
}

struct World {
    flavor: ConductorFlavor,
    registered: Vec<String>,
    hides_definitions: bool,
    runs: Vec<Run>,
    requests: Vec<Request>,
    faults: VecDeque<Fault>,
    lag: Duration,
    overlooks: usize,
}

pub struct Stub {
    pub port: u16,
    world: Arc<Mutex<World>>,
    server: JoinHandle<()>,
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Stub {
    pub async fn start(flavor: ConductorFlavor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let world = Arc::new(Mutex::new(World {
            flavor,
            registered: vec!["green light".into()],
            hides_definitions: false,
            runs: Vec::new(),
            requests: Vec::new(),
            faults: VecDeque::new(),
            lag: Duration::ZERO,
            overlooks: 0,
        }));
        let router = Router::new().fallback(serve).with_state(world.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { port, world, server }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("unpoisoned")
    }

    /// What goes wrong with the next starts.
    pub fn faults(&self, faults: &[Fault]) {
        self.world().faults.extend(faults);
    }

    /// Workflows are found so long after they started.
    pub fn lags(&self, lag: Duration) {
        self.world().lag = lag;
    }

    /// The next look-ups find nothing.
    pub fn overlooks(&self, look_ups: usize) {
        self.world().overlooks = look_ups;
    }

    pub fn registers(&self, workflow: &str) {
        self.world().registered.push(workflow.to_owned());
    }

    pub fn hides_definitions(&self) {
        self.world().hides_definitions = true;
    }

    /// Key, input and version of each workflow that was started.
    pub fn started(&self) -> Vec<(String, Json, Option<u64>)> {
        self.world().runs.iter().map(|run| (run.key.clone(), run.input.clone(), run.version)).collect()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.world().requests.clone()
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({ "status": status.as_u16(), "message": message, "retryable": false }))).into_response()
}

fn decoded(text: &str) -> String {
    text.replace("%20", " ")
}

/// A parameter of a query.
fn parameter(uri: &Uri, name: &str) -> Option<String> {
    let query = uri.query().unwrap_or_default();
    let (_, value) = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name)?;
    Some(value.into_owned())
}

async fn serve(
    State(world): State<Arc<Mutex<World>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = {
        let mut world = world.lock().expect("unpoisoned");
        world.requests.push(Request { line: format!("{method} {uri}"), headers: headers.clone() });
        // The console answers every other path with its page.
        let Some(path) = uri.path().strip_prefix("/api/").map(decoded) else {
            return ([(header::CONTENT_TYPE, "text/html")], "<!doctype html>").into_response();
        };
        let path: Vec<&str> = path.split('/').collect();
        match (method.as_str(), &path[..]) {
            ("GET", ["metadata", "workflow", name]) => world.definition(name),
            ("GET", ["workflow", name, "correlated", id]) => world.correlated(name, id, &uri),
            ("POST", ["workflow", name]) => world.start_by_name(name, &uri, &headers, &body),
            ("POST", ["workflow"]) => world.start_by_request(&body),
            _ => Some(error(StatusCode::NOT_FOUND, "No static resource")),
        }
    };
    match answer {
        Some(answer) => answer,
        None => std::future::pending().await,
    }
}

/// An answer; none: it never comes.
type Answer = Option<Response>;

impl World {
    fn definition(&self, name: &str) -> Answer {
        if self.hides_definitions {
            return Some(error(StatusCode::FORBIDDEN, "no permission to read"));
        }
        if !self.registered.iter().any(|registered| registered == name) {
            return Some(error(StatusCode::NOT_FOUND, "No such workflow found by name"));
        }
        Some(axum::Json(json!({ "name": name, "version": 3, "inputParameters": ["id"], "tasks": [] })).into_response())
    }

    fn correlated(&mut self, name: &str, id: &str, uri: &Uri) -> Answer {
        assert_eq!(parameter(uri, "includeClosed").as_deref(), Some("true"), "workflows end");
        if self.overlooks > 0 {
            self.overlooks -= 1;
            return Some(axum::Json(json!([])).into_response());
        }
        let found = self.runs.iter().filter(|run| run.name == name && run.key == id && run.since.elapsed() >= self.lag);
        let list = found.map(|run| json!({ "workflowName": run.name, "correlationId": run.key, "input": run.input }));
        Some(axum::Json(list.collect::<Vec<_>>()).into_response())
    }

    /// Orkes reads the key; the open source server has no such headers.
    fn start_by_name(&mut self, name: &str, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Answer {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let correlation = parameter(uri, "correlationId").unwrap_or_default();
        let key = text("x-idempotency-key").filter(|_| self.flavor == ConductorFlavor::Orkes);
        let is_there = key.as_ref().is_some_and(|key| self.runs.iter().any(|run| run.name == name && run.key == *key));
        if is_there && self.faults.is_empty() {
            assert_eq!(text("x-on-conflict").as_deref(), Some("RETURN_EXISTING"));
            return Some("the workflow that was there".into_response());
        }
        let input = serde_json::from_slice(body).expect("JSON");
        let version = parameter(uri, "version").map(|version| version.parse().expect("a number"));
        self.start(name, version, key.unwrap_or(correlation), input)
    }

    fn start_by_request(&mut self, body: &[u8]) -> Answer {
        let request: Json = serde_json::from_slice(body).expect("JSON");
        let text = |name: &str| request[name].as_str().expect("text").to_owned();
        self.start(&text("name"), request["version"].as_u64(), text("correlationId"), request["input"].clone())
    }

    fn start(&mut self, name: &str, version: Option<u64>, key: String, input: Json) -> Answer {
        if !self.registered.iter().any(|registered| registered == name) {
            return Some(error(StatusCode::NOT_FOUND, "No such workflow defined"));
        }
        let fault = self.faults.pop_front();
        if let Some(Fault::Refuses(status, after)) = fault {
            let mut answer = error(status, "as told");
            if let Some(after) = after {
                answer.headers_mut().insert(header::RETRY_AFTER, after.parse().expect("a value"));
            }
            return Some(answer);
        }
        self.runs.push(Run { name: name.to_owned(), version, key, input, since: Instant::now() });
        match fault {
            Some(Fault::StartsAndHangs) => None,
            Some(Fault::StartsAndFails(status)) => Some(error(status, "as told")),
            _ => Some("id of the workflow".into_response()),
        }
    }
}
