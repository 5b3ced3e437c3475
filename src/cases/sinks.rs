//! The sinks of a case. What makes requests, entries and documents of events is what pipelines have; where a server would be, what comes is
//! kept. Files are written to a folder of the case, always as lines of JSON, and an index is an embedded one.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tributary_dsl::plan::{
    ConductorFlavor, DeliveryOrder, DeliveryPlan, FileFormat, FilesPlace, FilesPlan, SinkPlan, StorePlan, StreamPlan,
};
use tributary_indexer::rows::{RowIndex, RowSink};
use tributary_indexer::store::{DocumentStore, open};
use tributary_processor::sink::{DeliverySink, OutEvent, Verdict};
use tributary_processor::{OutsideError, Sink};
use tributary_sinks::http::{Instead, Request, StandIn};
use tributary_sinks::sql::InMemory;
use tributary_sinks::{Conductor, Files, Webhook};

use super::clock::StillSink;
use super::trouble::{Trouble, Troubles};

/// Documents that are read at a time.
const PAGE: usize = 1_000;

/// What is wrong with a sink in a case.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SinkGiven {
    /// One after the other.
    #[serde(default)]
    pub trouble: Vec<Trouble>,
}

/// What came to a sink.
#[derive(Debug, Clone, Default)]
pub(super) struct Got {
    /// Requests, workflows, rows, documents, or the events of files.
    pub things: Vec<Json>,
    /// Requests that were sent, also those that failed.
    pub requests: usize,
    /// Events of a key that came in another order.
    pub disorder: Vec<String>,
}

/// The sinks of a stream, for as long as a case lasts.
pub(super) struct Sinks(BTreeMap<String, Kept>);

struct Kept {
    place: Place,
    order: Arc<Order>,
}

enum Place {
    Receiver(Arc<Receiver>),
    Rows(Arc<InMemory>),
    Files(FilesPlan, PathBuf),
    Index(Arc<dyn DocumentStore>),
}

impl Sinks {
    /// Those of a stream. `folder`: where those go that have files.
    ///
    /// # Errors
    /// One cannot be used as it is described.
    pub fn new(plan: &StreamPlan, given: &BTreeMap<String, SinkGiven>, folder: &Path) -> Result<Self, String> {
        let mut sinks = BTreeMap::new();
        for delivery in &plan.deliveries {
            let trouble = given.get(&delivery.name).map_or(&[][..], |given| &given.trouble);
            let receiver = |workflow| Place::Receiver(Arc::new(Receiver::new(workflow, trouble)));
            let place = match &delivery.sink {
                SinkPlan::Webhook(_) => receiver(None),
                SinkPlan::Conductor(conductor) => receiver(Some((conductor.workflow.clone(), conductor.flavor))),
                SinkPlan::Sql(sql) => Place::Rows(Arc::new(InMemory::new(sql))),
                SinkPlan::Files(files) => {
                    let folder = folder.join("files").join(&delivery.name);
                    let place = FilesPlace::Folder(folder.clone());
                    Place::Files(FilesPlan { place, format: FileFormat::JsonLines, ..files.clone() }, folder)
                }
                SinkPlan::Index(index) => {
                    Place::Index(open(&StorePlan::Embedded, &index.name, folder).map_err(|e| e.message)?)
                }
            };
            let is_told = matches!(place, Place::Receiver(_));
            if !is_told && !trouble.is_empty() {
                let name = &delivery.name;
                return Err(format!("sinks.{name}: only what is sent requests has `trouble` in a case"));
            }
            sinks.insert(delivery.name.clone(), Kept { place, order: Arc::default() });
        }
        match given.keys().find(|name| !sinks.contains_key(*name)) {
            Some(name) => Err(format!("sinks.{name}: the stream has no such sink (it has: {})", names(&sinks))),
            None => Ok(Self(sinks)),
        }
    }

    /// What takes the events of a delivery.
    ///
    /// # Errors
    /// It cannot be used as it is described.
    pub fn sink(&self, stream: &str, plan: &DeliveryPlan) -> Result<Sink, String> {
        let unusable = |e: OutsideError| e.message;
        let kept = self.0.get(&plan.name).ok_or_else(|| format!("there is no sink {}", plan.name))?;
        let told = |sink: Arc<dyn DeliverySink>| {
            let is_ordered = plan.order != DeliveryOrder::None;
            Sink::Told(Arc::new(Watched { sink, order: is_ordered.then(|| kept.order.clone()) }))
        };
        Ok(match (&plan.sink, &kept.place) {
            (SinkPlan::Webhook(webhook), Place::Receiver(receiver)) => {
                told(Arc::new(Webhook::stood_in(webhook, receiver.clone()).map_err(unusable)?))
            }
            (SinkPlan::Conductor(conductor), Place::Receiver(receiver)) => {
                told(Arc::new(Conductor::stood_in(conductor, &plan.name, receiver.clone()).map_err(unusable)?))
            }
            (SinkPlan::Index(index), Place::Index(store)) => {
                let key = index.row.key.clone();
                told(Arc::new(StillSink(RowSink { index: Arc::new(RowIndex::new(store.clone(), index)), key })))
            }
            (_, Place::Rows(rows)) => Sink::Ledger(rows.clone()),
            (_, Place::Files(files, _)) => {
                Sink::Ledger(Arc::new(Files::new(files, stream, &plan.name).map_err(unusable)?))
            }
            _ => return Err(format!("there is no sink {}", plan.name)),
        })
    }

    /// Whether something is wrong with one that will pass.
    pub fn will_pass(&self) -> bool {
        let is_troubled =
            |kept: &Kept| matches!(&kept.place, Place::Receiver(receiver) if receiver.troubles.will_pass());
        self.0.values().any(is_troubled)
    }

    /// What came.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn got(&self) -> Result<BTreeMap<String, Got>, String> {
        let mut all = BTreeMap::new();
        for (name, Kept { place, order }) in &self.0 {
            let mut got = Got { disorder: order.lock().wrong.clone(), ..Got::default() };
            match place {
                Place::Receiver(receiver) => {
                    let taken = receiver.taken();
                    (got.things, got.requests) = (taken.things.clone(), taken.requests);
                }
                Place::Rows(rows) => got.things = rows.rows(),
                Place::Files(_, folder) => got.things = lines(folder).map_err(|e| e.to_string())?,
                Place::Index(store) => got.things = documents(store.as_ref()).await?,
            }
            all.insert(name.clone(), got);
        }
        Ok(all)
    }
}

fn names(sinks: &BTreeMap<String, Kept>) -> String {
    sinks.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The documents of an index by their ids, which are `_id`.
async fn documents(store: &dyn DocumentStore) -> Result<Vec<Json>, String> {
    let mut documents = Vec::new();
    // Where nothing came, no index was made.
    let ids = store.scan(None, PAGE).await.unwrap_or_default();
    for id in ids {
        if let Some(mut document) = store.get(&id).await.map_err(|e| e.message)? {
            document.content["_id"] = json!(id);
            documents.push(document.content);
        }
    }
    Ok(documents)
}

/// The lines of all files, in the order of offsets.
fn lines(folder: &Path) -> std::io::Result<Vec<Json>> {
    let mut files: Vec<(u64, PathBuf)> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".jsonl") {
                let first = name.split('-').next().and_then(|first| first.parse().ok());
                files.push((first.unwrap_or(u64::MAX), path));
            }
        }
    }
    files.sort();
    let mut lines = Vec::new();
    for (_, path) in files {
        let text = std::fs::read_to_string(path)?;
        lines.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    Ok(lines)
}

/// What would be a server of webhooks, or of workflows.
struct Receiver {
    /// The workflow that it starts, and as which server; none: it is told by webhooks.
    workflow: Option<(String, ConductorFlavor)>,
    troubles: Troubles,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    things: Vec<Json>,
    requests: usize,
}

impl Receiver {
    fn new(workflow: Option<(String, ConductorFlavor)>, trouble: &[Trouble]) -> Self {
        Self { workflow, troubles: Troubles::new(trouble), taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A webhook's request.
    fn told(&self, request: &Request) -> Json {
        let id = request.headers.get("webhook-id").cloned().unwrap_or_default();
        let thing = json!({ "id": id, "headers": request.headers, "body": content(&request.body) });
        self.taken().things.push(thing);
        Json::Null
    }

    /// What a server of Conductor answers: what it knows of a workflow, what was started for an event, or the id of what it starts.
    fn conducted(&self, workflow: &str, flavor: ConductorFlavor, request: &Request) -> Json {
        let mut taken = self.taken();
        let of = |id: &str, things: &[Json]| things.iter().any(|thing| thing["id"] == id);
        if request.path.contains("/metadata/workflow/") {
            return json!({ "name": workflow });
        }
        if request.method == "GET" {
            let id = request.path.rsplit('/').next().unwrap_or_default();
            let is_started = taken.things.iter().any(|thing| thing["_segment"] == id);
            let started = json!({ "workflowName": workflow });
            return Json::Array(if is_started { vec![started] } else { Vec::new() });
        }
        let body = content(&request.body);
        let (id, version, input) = match flavor {
            ConductorFlavor::Oss => (text(&body["correlationId"]), body["version"].clone(), body["input"].clone()),
            ConductorFlavor::Orkes => {
                let version = request.query.get("version").and_then(|text| text.parse::<u32>().ok());
                (request.headers.get("x-idempotency-key").cloned().unwrap_or_default(), json!(version), body)
            }
        };
        if flavor == ConductorFlavor::Oss || !of(&id, &taken.things) {
            let segment = segment(&id);
            taken.things.push(json!({
                "id": id, "workflow": workflow, "version": version, "input": input, "_segment": segment
            }));
        }
        json!("started")
    }
}

/// A text as it stands in a path.
fn segment(text: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse("http://localhost") else { return String::new() };
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.push(text);
    }
    url.path().trim_start_matches('/').to_owned()
}

fn text(value: &Json) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A body: JSON if it is some, else text.
fn content(body: &[u8]) -> Json {
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned().into())
}

#[async_trait]
impl StandIn for Receiver {
    async fn take(&self, request: Request) -> Instead {
        self.taken().requests += 1;
        if let Some(trouble) = self.troubles.meet() {
            if let Some(slow) = trouble.slow {
                tokio::time::sleep(slow).await;
            }
            let retry_after = trouble.retry_after();
            match (trouble.away, trouble.status) {
                (Some(why), _) => return Instead::Away(why),
                (None, Some(status)) => return Instead::Answer { status, retry_after, body: Vec::new() },
                (None, None) => {}
            }
        }
        let body = match &self.workflow {
            Some((workflow, flavor)) => self.conducted(workflow, *flavor, &request),
            None => self.told(&request),
        };
        Instead::Answer { status: 200, retry_after: None, body: body.to_string().into_bytes() }
    }
}

/// In which order the events of each key have arrived first.
#[derive(Default)]
struct Order(Mutex<Arrived>);

#[derive(Default)]
struct Arrived {
    ids: BTreeSet<String>,
    highest: HashMap<Bytes, u64>,
    wrong: Vec<String>,
}

impl Order {
    fn lock(&self) -> MutexGuard<'_, Arrived> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrived {
    fn add(&mut self, event: &OutEvent) {
        let Some(key) = &event.key else { return };
        // After a crash it may come once more.
        if !self.ids.insert(event.id.clone()) {
            return;
        }
        let highest = self.highest.entry(key.clone()).or_default();
        if event.sequence < *highest {
            self.wrong.push(format!("the event {} came after a later one of its key", event.id));
        }
        *highest = event.sequence.max(*highest);
    }
}

/// A sink, and the order of what arrives.
struct Watched {
    sink: Arc<dyn DeliverySink>,
    order: Option<Arc<Order>>,
}

#[async_trait]
impl DeliverySink for Watched {
    fn most(&self) -> usize {
        self.sink.most()
    }

    fn handed_over(&self) {
        self.sink.handed_over();
    }

    async fn deliver(&self, events: &[OutEvent]) -> Result<Vec<Verdict>, OutsideError> {
        let verdicts = self.sink.deliver(events).await?;
        if let Some(order) = &self.order {
            let mut arrived = order.lock();
            let delivered = events.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Delivered);
            delivered.for_each(|(event, _)| arrived.add(event));
        }
        Ok(verdicts)
    }
}
