//! The resolve stage: change events in, build requests out.
//!
//! A change means that vertices changed. The documents it affects are those whose root changed, those that the index's own
//! inverted index knows to embed a changed vertex (lookup), and those that embed, or are, an immediate parent of it in the
//! graph now (fan-out of one level). Builds fetch the graph's present state, so the order of requests does not matter and
//! events are resolved concurrently; an event's offset is committed when its build requests are durable.
//!
//! Few events at a time are resolved each by itself, so that a supernode delays nobody; a burst is resolved in groups.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use tributary_dsl::plan::{FanOutPlan, RetrySettings, VertexRule};
use tributary_event::clock::now_us;
use tributary_event::debezium::Decoder;
use tributary_event::{ChangeEvent, ErrorClass, HybridClock};
use tributary_processor::{Backoff, Handler, OutRecord, Outbox, StageError, Ticket};
use tributary_transport::Polled;
use tributary_transport::dead_letter::DeadLetter;

use crate::bury::bury;
use crate::context::IndexContext;
use crate::graph::{Graph, GraphError, Vertex};
use crate::request::{BuildRequest, Cause, Lane, names};
use crate::store::StoreError;
use crate::vertices::{Touched, label, touched};

/// Events up to this many in one delivery are resolved each by itself.
const SINGLY: usize = 16;
/// Events of one group at most.
const GROUP: usize = 500;
/// Groups that are resolved at a time.
const GROUPS: usize = 16;
/// Vertices of one fan-out query at most.
const FAN_OUT: usize = 100;
/// References of one lookup at most.
const REFERENCES: usize = 1000;
/// A change that affects more documents than this goes to the bulk lane.
const SUPERNODE: usize = 1000;

/// Asks a store until it answers. (An async closure here would cost the future its `Send`.)
macro_rules! until_answered {
    ($index:expr, $ask:expr) => {{
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            match $ask.await {
                Ok(answer) => break answer,
                Err(error) => unavailable($index, error)?,
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }};
}

/// What the resolve stage of a pipeline knows.
pub struct Resolver {
    /// The pipeline.
    pub pipeline: String,
    /// Tables to vertices.
    pub vertices: BTreeMap<String, Vec<VertexRule>>,
    /// Types to fan-out queries.
    pub fan_outs: BTreeMap<String, FanOutPlan>,
    /// The graph.
    pub graph: Arc<dyn Graph>,
    /// The clock of stamps and notes.
    pub clock: Arc<HybridClock>,
    /// The indexes.
    pub indexes: Vec<Arc<IndexContext>>,
    /// What happens when the graph fails for a vertex.
    pub retry: RetrySettings,
    /// The way out.
    pub outbox: Outbox,
}

/// An event on its way through the stage.
struct Taken {
    event: ChangeEvent,
    record: Polled,
    ticket: Ticket,
}

/// Feeds the resolve task.
pub struct ResolveHandler {
    decoder: Mutex<Decoder>,
    groups: mpsc::Sender<Vec<Taken>>,
    outbox: Outbox,
    pipeline: String,
}

/// The task that resolves groups, several at a time.
pub struct ResolveTask {
    resolver: Arc<Resolver>,
    groups: mpsc::Receiver<Vec<Taken>>,
}

/// The resolve stage: its handler and its task.
pub fn resolve_stage(resolver: Resolver) -> (ResolveHandler, ResolveTask) {
    let (sender, groups) = mpsc::channel(GROUPS);
    let handler = ResolveHandler {
        decoder: Mutex::new(Decoder::new()),
        groups: sender,
        outbox: resolver.outbox.clone(),
        pipeline: resolver.pipeline.clone(),
    };
    (handler, ResolveTask { resolver: Arc::new(resolver), groups })
}

#[async_trait]
impl Handler for ResolveHandler {
    async fn handle(&self, records: Vec<(Polled, Ticket)>) -> Result<(), StageError> {
        let mut events = Vec::with_capacity(records.len());
        for (record, ticket) in records {
            let decoded = {
                let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
                decoder.decode(record.key.as_deref(), record.value.as_deref())
            };
            match decoded {
                Ok(Some(event)) => events.push(Taken { event, record, ticket }),
                Ok(None) => ticket.done(),
                Err(error) => {
                    let letter = letter(&self.pipeline, &record, ErrorClass::Definite, error.to_string(), 1);
                    bury(&self.outbox, &self.pipeline, &letter, vec![ticket]).await?;
                }
            }
        }
        let size = if events.len() <= SINGLY { 1 } else { GROUP };
        while !events.is_empty() {
            let rest = events.split_off(size.min(events.len()));
            let group = std::mem::replace(&mut events, rest);
            self.groups.send(group).await.map_err(|_| StageError::new("resolve", "the resolve stage is stopping"))?;
        }
        Ok(())
    }
}

impl ResolveTask {
    /// Resolves until shutdown or a fatal error.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StageError> {
        let mut tasks: JoinSet<Result<(), StageError>> = JoinSet::new();
        let over = |joined: Result<Result<(), StageError>, tokio::task::JoinError>| {
            joined.unwrap_or_else(|e| Err(StageError::new("resolve", format!("a task panicked: {e}"))))
        };
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(joined) = tasks.join_next(), if !tasks.is_empty() => over(joined)?,
                group = self.groups.recv(), if tasks.len() < GROUPS => match group {
                    Some(group) => {
                        let (resolver, shutdown) = (self.resolver.clone(), shutdown.clone());
                        tasks.spawn(async move {
                            tokio::select! {
                                () = shutdown.cancelled() => Ok(()),
                                result = Box::pin(resolver.resolve(group)) => result,
                            }
                        });
                    }
                    None => break,
                },
            }
        }
        while let Some(joined) = tasks.join_next().await {
            over(joined)?;
        }
        Ok(())
    }
}

/// Vertices whose parents could not be asked for, and why.
type Unanswered = HashMap<Vertex, GraphError>;

impl Resolver {
    /// Resolves a group of events and sends their build requests; their tickets are done when those are durable.
    async fn resolve(&self, group: Vec<Taken>) -> Result<(), StageError> {
        let (mut vertices, mut types) = (BTreeSet::new(), BTreeSet::new());
        for taken in &group {
            match touched(&taken.event, &self.vertices) {
                Touched::Vertices(v) => vertices.extend(v),
                Touched::Types(t) => types.extend(t),
            }
        }
        let vertices: Vec<Vertex> = vertices.into_iter().collect();
        let stamp = self.clock.now();
        // Documents that embed a changed vertex, asked of memory before anything else (see `recent`).
        let mut affected: Vec<HashSet<String>> = self.indexes.iter().map(|i| note(i, &vertices, stamp)).collect();
        for (index, affected) in self.indexes.iter().zip(&mut affected) {
            affected.extend(self.look_up(index, &vertices).await?);
            if types.iter().any(|t| index.plan.vertex_types().contains(t.as_str())) {
                let references: Vec<String> = types.iter().map(|t| format!("{t}:*")).collect();
                affected.extend(index.recent.note(&references, stamp).iter().map(ToString::to_string));
                affected.extend(all_documents(index).await?);
            }
        }
        let (parents, unanswered) = self.parents(&vertices).await?;
        if !parents.is_empty() {
            let stamp = self.clock.now();
            for (index, affected) in self.indexes.iter().zip(&mut affected) {
                affected.extend(note(index, &parents, stamp));
                affected.extend(self.look_up(index, &parents).await?);
            }
        }
        self.send(group, affected, &unanswered).await
    }

    /// Documents whose root is one of the vertices, and documents that embed one.
    async fn look_up(&self, index: &IndexContext, vertices: &[Vertex]) -> Result<Vec<String>, StageError> {
        let mut documents = Vec::new();
        let mut references = Vec::new();
        for vertex in vertices {
            let is_root = vertex.type_name == index.plan.root_type;
            if is_root {
                documents.push(vertex.id.clone());
            }
            if index.plan.edges.iter().any(|e| e.child_type == vertex.type_name) {
                references.push(vertex.reference());
            }
        }
        for chunk in references.chunks(REFERENCES) {
            documents.extend(until_answered!(index, index.store.lookup(chunk)));
        }
        Ok(documents)
    }

    /// The immediate parents of vertices by the plan's fan-out queries. Waits for a graph that is away; a vertex that fails
    /// by itself is tried a few times and then named in the second answer.
    async fn parents(&self, vertices: &[Vertex]) -> Result<(Vec<Vertex>, Unanswered), StageError> {
        let mut by_type: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for vertex in vertices {
            if self.fan_outs.contains_key(&vertex.type_name) {
                by_type.entry(&vertex.type_name).or_default().push(vertex.id.clone());
            }
        }
        let mut parents = BTreeSet::new();
        let mut unanswered = HashMap::new();
        for (type_name, ids) in by_type {
            let Some(plan) = self.fan_outs.get(type_name) else { continue };
            for chunk in ids.chunks(FAN_OUT) {
                let (found, failed) = self.ask(plan, chunk).await?;
                parents.extend(found);
                unanswered.extend(failed.into_iter().map(|(id, e)| (Vertex::new(type_name, id), e)));
            }
        }
        Ok((parents.into_iter().collect(), unanswered))
    }

    async fn ask(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<(Vec<Vertex>, Vec<(String, GraphError)>), StageError> {
        let mut backoff = Backoff::new(self.retry.initial, self.retry.max);
        let mut asked: Vec<String> = ids.to_vec();
        let mut found = Vec::new();
        let mut attempts = 0;
        loop {
            match self.graph.parents(plan, &asked).await {
                Ok(answers) => {
                    self.graph_is_up();
                    attempts += 1;
                    let mut failed = Vec::new();
                    for (id, answer) in asked.iter().zip(answers) {
                        match answer {
                            Ok(parents) => found.extend(parents),
                            Err(error) => failed.push((id.clone(), error)),
                        }
                    }
                    let hopeless = failed.iter().all(|(_, e)| e.class != ErrorClass::Transient);
                    if failed.is_empty() || hopeless || attempts >= self.retry.attempts {
                        return Ok((found, failed));
                    }
                    debug!(vertices = failed.len(), "the graph failed for some vertices; asking again");
                    asked = failed.into_iter().map(|(id, _)| id).collect();
                }
                Err(error) => {
                    let news =
                        self.indexes.iter().fold(false, |news, i| i.graph_health.down(error.message.clone()) | news);
                    if error.class != ErrorClass::Transient {
                        return Err(StageError::new("resolve", error.message));
                    }
                    if news {
                        warn!(error = error.message, "cannot ask the graph; trying again");
                    }
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    fn graph_is_up(&self) {
        for index in &self.indexes {
            index.graph_health.up();
        }
    }

    async fn send(
        &self,
        group: Vec<Taken>,
        affected: Vec<HashSet<String>>,
        unanswered: &Unanswered,
    ) -> Result<(), StageError> {
        let mut records = Vec::new();
        for (index, documents) in self.indexes.iter().zip(affected) {
            let Some(cause) = cause(&group, documents.len()) else { continue };
            if documents.is_empty() {
                index.reports.nothing(&cause);
                continue;
            }
            let lane = if documents.len() > SUPERNODE.max(2 * group.len()) { Lane::Bulk } else { Lane::Live };
            let topic: Arc<str> = names::builds(&self.pipeline, &index.plan.name, lane).into();
            records.extend(documents.into_iter().map(|id| {
                let key = Some(id.clone().into_bytes());
                OutRecord { topic: topic.clone(), key, value: Some(BuildRequest { id, cause: cause.clone() }.encode()) }
            }));
        }
        let mut tickets = Vec::new();
        for taken in group {
            let vertices = match touched(&taken.event, &self.vertices) {
                Touched::Vertices(vertices) => vertices,
                Touched::Types(_) => Vec::new(),
            };
            if let Some(error) = vertices.iter().find_map(|v| unanswered.get(v)) {
                let reason = format!("the parents of a changed vertex could not be fetched: {}", error.message);
                let letter = letter(&self.pipeline, &taken.record, error.class, reason, self.retry.attempts);
                records.push(OutRecord {
                    topic: names::dead_letters(&self.pipeline).into(),
                    key: Some(letter.id.clone().into_bytes()),
                    value: serde_json::to_vec(&letter).ok(),
                });
                metrics::counter!("tributary_dead_letters_total", "stage" => "resolve").increment(1);
            }
            tickets.push(taken.ticket);
        }
        self.outbox.send(records, tickets).await
    }
}

fn note(index: &IndexContext, vertices: &[Vertex], stamp: u64) -> HashSet<String> {
    let references: Vec<String> = vertices.iter().map(Vertex::reference).collect();
    index.recent.note(&references, stamp).iter().map(ToString::to_string).collect()
}

/// Every document of an index, for a truncated table.
async fn all_documents(index: &IndexContext) -> Result<Vec<String>, StageError> {
    until_answered!(index, index.store.refresh());
    let mut all: Vec<String> = Vec::new();
    loop {
        let after = all.last().map(String::as_str);
        let page = until_answered!(index, index.store.scan(after, 5_000));
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Says that a store did not answer; an error that will not pass stops the stage.
fn unavailable(index: &IndexContext, error: StoreError) -> Result<(), StageError> {
    let news = index.store_health.down(error.message.clone());
    if error.class != ErrorClass::Transient {
        return Err(StageError::new(format!("index {}", index.plan.name), error.message));
    }
    if news {
        warn!(index = index.plan.name, error = error.message, "cannot look documents up; trying again");
    }
    Ok(())
}

/// The cause of a group: its one change, or how many changes of which tables.
fn cause(group: &[Taken], affected: usize) -> Option<Cause> {
    let first = group.first()?;
    let label = if group.len() == 1 {
        label(&first.event)
    } else {
        let mut tables: BTreeMap<String, usize> = BTreeMap::new();
        for taken in group {
            *tables.entry(taken.event.table.qualified_name()).or_default() += 1;
        }
        let tables: Vec<String> = tables.into_iter().map(|(table, n)| format!("{table} {n}")).collect();
        format!("{} changes ({})", group.len(), tables.join(", "))
    };
    let place = &first.record.place;
    Some(Cause {
        id: format!("{}/{}/{}", place.topic, place.partition, first.record.offset),
        label,
        commit_us: group.iter().map(|t| t.event.commit_us).min().unwrap_or_else(now_us),
        affected: affected as u64,
    })
}

fn letter(pipeline: &str, record: &Polled, class: ErrorClass, cause: String, attempts: u32) -> DeadLetter {
    let place = &record.place;
    let subject = format!("{}/{}/{}", place.topic, place.partition, record.offset);
    DeadLetter {
        id: subject.clone(),
        stage: "resolve".into(),
        topic: names::replays(pipeline),
        partition: place.partition,
        offset: record.offset,
        key: record.key.as_deref().map(<[u8]>::to_vec),
        value: record.value.as_deref().map(<[u8]>::to_vec),
        class,
        cause,
        attempts,
        first_failed_us: now_us(),
        last_failed_us: now_us(),
        subject,
    }
}
