//! The resolve stage: change events in, build requests out.
//!
//! A change means that vertices changed. The documents it affects are those whose root changed, those that the index's own
//! inverted index knows to embed a changed vertex (lookup), and those that embed, or are, an immediate parent of it in the
//! graph now (fan-out of one level). Builds fetch the graph's present state, so the order of requests does not matter and
//! events are resolved concurrently; an event's offset is committed when its build requests are durable.
//!
//! Few events at a time are resolved each by itself, so that a supernode delays nobody; a burst is resolved in groups.

mod affected;
mod fan_out;
pub mod likeness;
mod looks;
pub mod lost;
pub(crate) mod order;
pub mod recent;
pub mod settle;
mod shown;

mod supernodes;
pub mod vertices;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tributary_dsl::plan::{FanOutPlan, RetrySettings, VertexRule};
use tributary_event::clock::now_us;
use tributary_event::debezium::Decoder;
use tributary_event::{ChangeEvent, ErrorClass, HybridClock, Op, Reporter, TableName};
use tributary_processor::{Handler, OutRecord, Outbox, StageError, Ticket};
use tributary_transport::dead_letter::DeadLetter;
use tributary_transport::{Assignment, Loss, Polled, TopicPartition};

use self::affected::{Affected, Gathering};
use self::fan_out::Unanswered;
pub use self::looks::Waiting;
use self::settle::{Batch, Times};
use crate::context::IndexContext;
use crate::graph::{Graph, GraphError, Vertex};
use crate::letters::origins::Origins;
use crate::letters::{self, replay::RESOLVE};
use crate::request::{Cause, names};
use crate::resolve::lost::{Concerned, noted};
use crate::resolve::order::Watcher;
use crate::resolve::vertices::{label, touched};

/// Events up to this many in one delivery are resolved each by itself.
const SINGLY: usize = 16;
/// Events of one group at most.
const GROUP: usize = 500;
/// Groups that are resolved at a time.
const GROUPS: usize = 16;

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
    /// Whether there is one source.
    pub is_sole: bool,
    /// What the graph said of its position that did not come true.
    pub distrusted: Mutex<Option<String>>,
    /// How asking it for parents goes. Builds, which ask for documents, may go well meanwhile.
    pub fan_out_health: Reporter,
    /// The clock of stamps and notes.
    pub clock: Arc<HybridClock>,
    /// The indexes.
    pub indexes: Vec<Arc<IndexContext>>,
    /// What happens when the graph fails for a vertex.
    pub retry: RetrySettings,
    /// When changes are looked at again.
    pub times: Times,
    /// Changes that are to be looked at again.
    pub settling: Waiting,
    /// The way out.
    pub outbox: Outbox,
    /// Whom records of its topics concern.
    pub(crate) concerned: Arc<Concerned>,
    /// Whether what is read is all there.
    pub(crate) watcher: Arc<Watcher>,
    /// Which topics they are that it reads.
    pub(crate) origins: Arc<Origins>,
}

/// An event on its way through the stage.
pub(crate) struct Taken {
    event: ChangeEvent,
    record: Polled,
    pub(crate) ticket: Ticket,
}

/// Feeds the resolve task.
pub struct ResolveHandler {
    concerned: Arc<Concerned>,
    watcher: Arc<Watcher>,
    origins: Arc<Origins>,
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
        concerned: resolver.concerned.clone(),
        watcher: resolver.watcher.clone(),
        origins: resolver.origins.clone(),
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
        self.watcher.take(records.iter().map(|(record, _)| record)).await?;
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
                    let letter = self.origins.of(letter, &record.place).await;
                    letters::send(&self.outbox, &self.pipeline, &letter, vec![ticket]).await?;
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

    async fn assigned(&self, assignments: &[Assignment]) -> Result<(), StageError> {
        self.origins.read(assignments.iter().map(|assignment| &assignment.place)).await;
        self.watcher.assigned(assignments);
        self.concerned.joined(assignments).await
    }

    async fn revoked(&self, places: &[TopicPartition]) -> Result<(), StageError> {
        self.watcher.forget(places.iter());
        Ok(())
    }

    async fn lost(&self, losses: &[Loss]) -> Result<(), StageError> {
        self.origins.read(losses.iter().map(|loss| &loss.place)).await;
        self.watcher.forget(losses.iter().map(|loss| &loss.place));
        self.concerned.make_up(losses).await
    }
}

impl ResolveTask {
    /// Resolves until shutdown or a fatal error.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StageError> {
        let mut tasks: JoinSet<Result<(), StageError>> = JoinSet::new();
        let over = |joined: Result<Result<(), StageError>, tokio::task::JoinError>| {
            joined.unwrap_or_else(|e| Err(StageError::new("resolve", format!("a task panicked: {e}"))))
        };
        let (resolver, stop) = (self.resolver.clone(), shutdown.child_token());
        let looking = stop.clone();
        tasks.spawn(async move { Box::pin(resolver.settle(looking)).await });
        let (watcher, looking) = (self.resolver.watcher.clone(), stop.clone());
        tasks.spawn(async move { Box::pin(watcher.look_around(looking)).await });
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(joined) = tasks.join_next(), if !tasks.is_empty() => over(joined)?,
                // Two tasks are those that look again, and look before.
                group = self.groups.recv(), if tasks.len() <= GROUPS + 1 => match group {
                    Some(group) => {
                        let (resolver, shutdown) = (self.resolver.clone(), shutdown.clone());
                        tasks.spawn(async move {
                            tokio::select! {
                                biased;
                                () = shutdown.cancelled() => Ok(()),
                                result = Box::pin(resolver.resolve(group)) => result,
                            }
                        });
                    }
                    None => break,
                },
            }
        }
        // What is not settled comes again at the next start.
        stop.cancel();
        while let Some(joined) = tasks.join_next().await {
            over(joined)?;
        }
        Ok(())
    }
}

impl Resolver {
    /// Resolves a group of events: asks for builds of the documents that it affects, and leaves it to be looked at again.
    async fn resolve(&self, group: Vec<Taken>) -> Result<(), StageError> {
        let (mut vertices, mut types, mut unknown) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        // Vertices whose parents are asked for, each with the record of one event.
        let mut asked = BTreeMap::new();
        let mut deleted = BTreeSet::new();
        for taken in &group {
            let touched = touched(&taken.event, &self.vertices);
            let fanned_out = touched.vertices.iter().filter(|v| self.fan_outs.contains_key(&v.type_name));
            asked.extend(fanned_out.map(|vertex| (vertex.clone(), (taken.record.place.clone(), taken.record.offset))));
            unknown.extend(touched.unknown);
            if taken.event.op == Op::Delete {
                deleted.extend(touched.vertices.iter().cloned());
            }
            vertices.extend(touched.vertices);
            types.extend(touched.types);
        }
        if !unknown.is_empty() {
            self.repair(&group, &unknown).await?;
        }
        if !deleted.is_empty() || !types.is_empty() {
            self.graph.deleted(&deleted, &types);
        }
        let vertices: Vec<Vertex> = vertices.into_iter().collect();
        let is_shown = self.shown(&group).await?;
        let stamp = self.clock.now().max(captured(&group));
        let mut affected: Vec<Affected> = Vec::with_capacity(self.indexes.len());
        let mut gathering = Gathering::default();
        for index in &self.indexes {
            // Documents that embed a changed vertex, asked of memory before anything else (see `recent`).
            let mut documents = Affected { documents: note(index, &vertices, stamp), ..Affected::default() };
            self.look_up(index, &vertices, &mut documents, &mut gathering).await?;
            affected.push(documents);
        }
        self.list_emptied(&types).await?;
        let (parents, unanswered) = self.parents(asked.keys()).await?;
        if !parents.is_empty() {
            for (index, affected) in self.indexes.iter().zip(&mut affected) {
                affected.documents.extend(note(index, &parents, self.clock.now()));
                self.look_up(index, &parents, affected, &mut gathering).await?;
            }
        }
        let mut batch = Batch { asked, emptied: types, cause: cause(&group, 0), ..Batch::default() };
        for (index, affected) in self.indexes.iter().zip(affected) {
            let Some(cause) = cause(&group, affected.len()) else { continue };
            if affected.len() == 0 {
                index.reports.nothing(&cause);
                continue;
            }
            self.request(index, affected, (&cause, stamp), &mut batch).await?;
            if self.times.lag.is_zero() || is_shown {
                self.ask_for_supernodes(index, &mut batch, stamp).await?;
            }
        }
        if !unanswered.is_empty() {
            self.outbox.post(self.letters(&group, &unanswered).await).await?;
        }
        let changed = if is_shown { self.times.changed_if_shown(stamp) } else { stamp };
        drop(gathering);
        vertices.iter().chain(&parents).for_each(|vertex| batch.changed.note(vertex, changed));
        // Without a late look, or if nothing is to be seen at it, nobody is asked again.
        if self.times.lag.is_zero() || is_shown {
            batch.asked.clear();
        }
        batch.held = group.into_iter().map(|taken| taken.ticket.hold()).collect();
        self.wait_for_looks(batch).await;
        Ok(())
    }

    /// Has the indexes that show a type list all their documents: its table was emptied.
    async fn list_emptied(&self, types: &BTreeSet<String>) -> Result<(), StageError> {
        for index in &self.indexes {
            if let Some(emptied) = types.iter().find(|name| index.shows(name)) {
                self.list(index, now_us(), format!("a table of {emptied} was truncated")).await?;
            }
        }
        Ok(())
    }

    /// Has the indexes list all their documents that show a vertex which the events do not name.
    async fn repair(&self, group: &[Taken], unknown: &BTreeSet<(String, String)>) -> Result<(), StageError> {
        let newest = group.iter().map(|taken| taken.event.capture_us).max().unwrap_or_else(now_us);
        for index in &self.indexes {
            let shown = index.plan.vertex_types();
            let Some((_, column)) = unknown.iter().find(|(type_name, _)| shown.contains(type_name.as_str())) else {
                continue;
            };
            let why = format!("events were captured before their table had the column {column} that its rule names");
            self.list(index, newest, why).await?;
        }
        Ok(())
    }

    /// Has an index list all its documents, unless a listing began after a moment.
    async fn list(&self, index: &IndexContext, moment_us: i64, why: String) -> Result<(), StageError> {
        noted(&index.listings, || index.listings.begin_after(moment_us, why.clone())).await
    }

    /// Dead letters of the events with a vertex whose parents could not be asked for.
    pub(crate) async fn letters(&self, group: &[Taken], unanswered: &Unanswered) -> Vec<OutRecord> {
        let mut records = Vec::new();
        for taken in group {
            let vertices = touched(&taken.event, &self.vertices).vertices;
            if let Some(error) = vertices.iter().find_map(|v| unanswered.get(v)) {
                records.push(self.letter_of(&taken.record, error).await);
            }
        }
        records
    }

    async fn letter_of(&self, record: &Polled, error: &GraphError) -> OutRecord {
        let reason = format!("the parents of a changed vertex could not be fetched: {}", error.message);
        let letter = letter(&self.pipeline, record, error.class, reason, self.retry.attempts);
        let letter = self.origins.of(letter, &record.place).await;
        letters::record(&self.outbox, &self.pipeline, &letter)
    }
}

fn note(index: &IndexContext, vertices: &[Vertex], stamp: u64) -> BTreeSet<String> {
    let references: Vec<String> = vertices.iter().map(Vertex::reference).collect();
    index.recent.note(&references, stamp).iter().map(ToString::to_string).collect()
}

/// When the last of these events came into its topic, by the clock of who captured it. What was built before that has not seen its change, also where
/// the clock of this process is behind and nobody knows yet.
fn captured(group: &[Taken]) -> u64 {
    let last = group.iter().map(|taken| taken.record.timestamp_ms).max().unwrap_or(0);
    HybridClock::at(last.saturating_mul(1_000))
}

/// The cause of a group: its one change, or how many changes of which tables.
fn cause(group: &[Taken], affected: u64) -> Option<Cause> {
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
        affected,
    })
}

fn letter(pipeline: &str, record: &Polled, class: ErrorClass, cause: String, attempts: u32) -> DeadLetter {
    let topic = names::replays(pipeline);
    DeadLetter { attempts, ..DeadLetter::of_record(RESOLVE.into(), topic, record, class, cause) }
}
