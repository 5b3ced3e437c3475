//! The resolve stage: change events in, build requests out.
//!
//! A change means that vertices changed. The documents it affects are those whose root changed, those that the index's own
//! inverted index knows to embed a changed vertex (lookup), and those that embed, or are, an immediate parent of it in the
//! graph now (fan-out of one level). Builds fetch the graph's present state, so the order of requests does not matter and
//! events are resolved concurrently; an event's offset is committed when its build requests are durable.
//!
//! Few events at a time are resolved each by itself, so that a supernode delays nobody; a burst is resolved in groups.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_dsl::plan::{FanOutPlan, RetrySettings, VertexRule};
use tributary_event::clock::now_us;
use tributary_event::debezium::Decoder;
use tributary_event::{ChangeEvent, ErrorClass, HybridClock, TableName};
use tributary_processor::{Backoff, Handler, OutRecord, Outbox, StageError, Ticket};
use tributary_transport::Polled;
use tributary_transport::dead_letter::DeadLetter;
use xxhash_rust::xxh3::xxh3_64;

use crate::bury::bury;
use crate::context::IndexContext;
use crate::fan_out::{Unanswered, Unsettled};
use crate::graph::{Graph, Vertex};
use crate::request::{BuildRequest, Cause, Lane, names};
use crate::store::StoreError;
use crate::vertices::{label, touched};

/// Events up to this many in one delivery are resolved each by itself.
const SINGLY: usize = 16;
/// Events of one group at most.
const GROUP: usize = 500;
/// Groups that are resolved at a time.
const GROUPS: usize = 16;
/// Between a fan-out and its repetition (see `fan_out`).
const SETTLE: Duration = Duration::from_secs(1);
/// References of one lookup at most.
const REFERENCES: usize = 1000;
/// Ids of one page of a lookup.
const PAGE: usize = 10_000;
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
    pub vertices: BTreeMap<TableName, Vec<VertexRule>>,
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

/// Records on their way out, made as they are taken.
pub(crate) type Records = Box<dyn Iterator<Item = OutRecord> + Send>;

/// An event on its way through the stage.
pub(crate) struct Taken {
    event: ChangeEvent,
    record: Polled,
    pub(crate) ticket: Ticket,
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
        let mut tasks: JoinSet<Result<Option<Unsettled>, StageError>> = JoinSet::new();
        // Bounded by the tickets that they hold: the intake waits at a number of them.
        let at_a_time = Arc::new(Semaphore::new(GROUPS));
        let mut settling: JoinSet<Result<Option<Unsettled>, StageError>> = JoinSet::new();
        let over = |joined: Result<Result<Option<Unsettled>, StageError>, tokio::task::JoinError>| {
            joined.unwrap_or_else(|e| Err(StageError::new("resolve", format!("a task panicked: {e}"))))
        };
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(joined) = tasks.join_next(), if !tasks.is_empty() => {
                    let Some(unsettled) = over(joined)? else { continue };
                    let (resolver, shutdown, turn) = (self.resolver.clone(), shutdown.clone(), at_a_time.clone());
                    settling.spawn(async move {
                        let settle = async {
                            tokio::time::sleep(SETTLE).await;
                            let _turn = turn.acquire().await;
                            resolver.settle(unsettled).await
                        };
                        // What is not settled comes again at the next start.
                        tokio::select! {
                            biased;
                            () = shutdown.cancelled() => Ok(None),
                            result = Box::pin(settle) => result.map(|()| None),
                        }
                    });
                }
                Some(joined) = settling.join_next(), if !settling.is_empty() => drop(over(joined)?),
                group = self.groups.recv(), if tasks.len() < GROUPS => match group {
                    Some(group) => {
                        let (resolver, shutdown) = (self.resolver.clone(), shutdown.clone());
                        tasks.spawn(async move {
                            tokio::select! {
                                biased;
                                () = shutdown.cancelled() => Ok(None),
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
        while let Some(joined) = settling.join_next().await {
            over(joined)?;
        }
        Ok(())
    }
}

impl Resolver {
    /// Resolves a group of events and sends their build requests; their tickets are done when those are durable, unless a
    /// fan-out is left to be repeated.
    async fn resolve(&self, group: Vec<Taken>) -> Result<Option<Unsettled>, StageError> {
        let (mut vertices, mut types, mut unknown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for taken in &group {
            let touched = touched(&taken.event, &self.vertices);
            unknown.extend(touched.unknown);
            vertices.extend(touched.vertices);
            types.extend(touched.types);
        }
        if !unknown.is_empty() {
            self.repair(&group, &unknown).await?;
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
        let asked: Vec<Vertex> = vertices.into_iter().filter(|v| self.fan_outs.contains_key(&v.type_name)).collect();
        // Who is not answered now is asked again, and set aside then.
        let (parents, _) = self.parents(&asked).await?;
        if !parents.is_empty() {
            let stamp = self.clock.now();
            for (index, affected) in self.indexes.iter().zip(&mut affected) {
                affected.extend(note(index, &parents, stamp));
                affected.extend(self.look_up(index, &parents).await?);
            }
        }
        let hashes = |ids: &HashSet<String>| ids.iter().map(|id| xxh3_64(id.as_bytes())).collect();
        let requested = if asked.is_empty() { Vec::new() } else { affected.iter().map(hashes).collect() };
        let named = cause(&group, 0);
        let records = self.requests(&group, affected);
        if asked.is_empty() {
            self.outbox.send(records, group.into_iter().map(|taken| taken.ticket).collect()).await?;
            return Ok(None);
        }
        self.outbox.post(records).await?;
        Ok(Some(Unsettled { vertices: asked, requested, cause: named, group }))
    }

    /// Has the indexes list all their documents that show a vertex which the events do not name.
    async fn repair(&self, group: &[Taken], unknown: &BTreeSet<(String, String)>) -> Result<(), StageError> {
        let newest = group.iter().map(|taken| taken.event.capture_us).max().unwrap_or_else(now_us);
        for index in &self.indexes {
            let shown = index.plan.vertex_types();
            let Some((_, column)) = unknown.iter().find(|(type_name, _)| shown.contains(type_name.as_str())) else {
                continue;
            };
            let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
            let why = format!("events were captured before their table had the column {column} that its rule names");
            while let Err(error) = index.listings.begin_after(newest, why.clone()).await {
                if error.class != ErrorClass::Transient {
                    return Err(StageError::new("resolve", error.message));
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        }
        Ok(())
    }

    /// Documents whose root is one of the vertices, and documents that embed one.
    pub(crate) async fn look_up(&self, index: &IndexContext, vertices: &[Vertex]) -> Result<Vec<String>, StageError> {
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
            let mut after: Option<String> = None;
            loop {
                let page = until_answered!(index, index.store.lookup(chunk, after.as_deref(), PAGE));
                documents.extend(page.ids);
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
        }
        Ok(documents)
    }

    /// The requests for builds of documents of one index that `changes` changes affect.
    pub(crate) fn request(
        &self,
        index: &IndexContext,
        documents: HashSet<String>,
        cause: &Cause,
        changes: usize,
    ) -> Records {
        let lane = if documents.len() > SUPERNODE.max(2 * changes) { Lane::Bulk } else { Lane::Live };
        let topic: Arc<str> = names::builds(&self.pipeline, &index.plan.name, lane).into();
        let cause = cause.clone();
        Box::new(documents.into_iter().map(move |id| {
            let key = Some(id.clone().into_bytes());
            OutRecord { topic: topic.clone(), key, value: Some(BuildRequest { id, cause: cause.clone() }.encode()) }
        }))
    }

    /// The requests of a group.
    fn requests(&self, group: &[Taken], affected: Vec<HashSet<String>>) -> Records {
        let mut records: Records = Box::new(std::iter::empty());
        for (index, documents) in self.indexes.iter().zip(affected) {
            let Some(cause) = cause(group, documents.len()) else { continue };
            if documents.is_empty() {
                index.reports.nothing(&cause);
                continue;
            }
            records = Box::new(records.chain(self.request(index, documents, &cause, group.len())));
        }
        records
    }

    /// Dead letters of the events with a vertex whose parents could not be asked for.
    pub(crate) fn letters(&self, group: &[Taken], unanswered: &Unanswered) -> Vec<OutRecord> {
        let mut letters = Vec::new();
        for taken in group {
            let vertices = touched(&taken.event, &self.vertices).vertices;
            if let Some(error) = vertices.iter().find_map(|v| unanswered.get(v)) {
                let reason = format!("the parents of a changed vertex could not be fetched: {}", error.message);
                let letter = letter(&self.pipeline, &taken.record, error.class, reason, self.retry.attempts);
                letters.push(OutRecord {
                    topic: names::dead_letters(&self.pipeline).into(),
                    key: Some(letter.id.clone().into_bytes()),
                    value: Some(letter.encode(self.outbox.limit())),
                });
                metrics::counter!("tributary_dead_letters_total", "stage" => "resolve").increment(1);
            }
        }
        letters
    }
}

pub(crate) fn note(index: &IndexContext, vertices: &[Vertex], stamp: u64) -> HashSet<String> {
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
        let outage_s = index.store_health.outage().as_secs();
        warn!(index = index.plan.name, error = error.message, outage_s, "cannot look documents up; trying again");
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
