//! Kept answers of services fall when a captured change names a vertex that they hold, as `graph.vertices` says.
//!
//! A stream tells of its own records before its steps see them, so an answer that is older than an event is not what that event gets. Topics of
//! tables that no stream reads are followed here, from their ends on: before that nothing is kept. What is missed, because a topic no longer
//! has it or was made anew, lets all answers fall.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use tributary_dsl::Definition;
use tributary_dsl::plan::{CallPlan, StepPlan, VertexRule};
use tributary_event::debezium::{self, Decoder};
use tributary_event::{ErrorClass, TableName};
use tributary_indexer::resolve::vertices::{Touched, touched};
use tributary_processor::{Backoff, Changes};
use tributary_services::Held;
use tributary_transport::{Polled, TopicId, TopicPartition, Transport, TransportError};

/// How often it is looked for new records.
const LOOK: Duration = Duration::from_millis(200);
/// How often it is asked whether topics are still the same.
const IDENTITY: Duration = Duration::from_secs(1);
/// Records that are read at a time.
const PAGE: usize = 2_000;

/// What lets answers fall.
pub(super) struct Falling {
    pub held: Arc<Held>,
    rules: BTreeMap<TableName, Vec<VertexRule>>,
    /// The topics of the tables that have rules.
    topics: Vec<Arc<str>>,
    decoder: Mutex<Decoder>,
}

/// How far a topic was read.
struct Read {
    topic: Option<TopicId>,
    /// When that was asked for.
    asked: Instant,
    next: Vec<u64>,
}

/// Whether answers are kept that may fall.
pub(super) fn is_needed(definition: &Definition) -> bool {
    let steps = definition.streams().iter().flat_map(|stream| &stream.steps);
    steps.into_iter().any(|step| match &step.plan {
        StepPlan::Enrich(enrich) => {
            matches!(enrich.call, CallPlan::Graphql { .. }) && enrich.cache.as_ref().is_some_and(|cache| cache.changes)
        }
        _ => false,
    })
}

impl Falling {
    /// By the rules of a pipeline; none: it has none.
    pub fn new(definition: &Definition) -> Option<Arc<Self>> {
        let rules = definition.vertices();
        let tables = definition.sources().iter().flat_map(|source| {
            let tables = source.tables().iter().filter(|table| rules.contains_key(*table));
            tables.map(|table| debezium::topic(&source.name, &table.schema, &table.name).into()).collect::<Vec<_>>()
        });
        let topics: Vec<Arc<str>> = tables.collect();
        if topics.is_empty() {
            return None;
        }
        let held = Held::new(definition.vertex_ids(), definition.lag());
        Some(Arc::new(Self { held, rules, topics, decoder: Mutex::new(Decoder::new()) }))
    }

    /// Follows the topics until shutdown.
    pub async fn follow(self: Arc<Self>, transport: Arc<dyn Transport>, shutdown: CancellationToken) {
        let mut read: HashMap<Arc<str>, Read> = HashMap::new();
        let mut backoff = Backoff::new(LOOK, Duration::from_secs(5));
        let mut is_told = false;
        while !shutdown.is_cancelled() {
            let looked = tokio::select! {
                () = shutdown.cancelled() => return,
                looked = self.look(&*transport, &mut read) => looked,
            };
            let pause = match looked {
                Ok(()) => {
                    is_told = false;
                    backoff.reset();
                    LOOK
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        warn!(
                            error = error.message,
                            "changes cannot be followed that let kept answers fall; trying again"
                        );
                    }
                    backoff.pause()
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads what is new.
    async fn look(&self, transport: &dyn Transport, read: &mut HashMap<Arc<str>, Read>) -> Result<(), TransportError> {
        let is_first = read.len() < self.topics.len();
        for topic in &self.topics {
            let known = read.get(topic).filter(|read| read.asked.elapsed() < IDENTITY);
            let (id, asked) = match known.map(|read| (read.topic, read.asked)) {
                Some(known) => known,
                None => (transport.topic_id(topic).await?, Instant::now()),
            };
            let ends = transport.watermarks(topic).await?;
            if ends.is_empty() {
                let message = format!("there is no topic {topic} yet");
                return Err(TransportError::new(ErrorClass::Transient, message));
            }
            let before = read.get_mut(topic).filter(|read| {
                // Of a topic that is made anew in between the next call says so.
                let mut both = read.next.iter().zip(&ends);
                read.next.len() == ends.len()
                    && !TopicId::is_other(read.topic, id)
                    && both.all(|(next, ends)| (ends.low..=ends.high).contains(next))
            });
            let Some(before) = before else {
                let next = ends.iter().map(|ends| ends.high).collect();
                if read.insert(topic.clone(), Read { topic: id, asked, next }).is_some() {
                    self.held.missed();
                }
                continue;
            };
            before.asked = asked;
            for (partition, (next, ends)) in (0u32..).zip(before.next.iter_mut().zip(&ends)) {
                let place = TopicPartition { topic: topic.clone(), partition };
                while *next < ends.high {
                    let records = transport.read(&place, *next, PAGE).await?;
                    self.are_read(&records.iter().collect::<Vec<_>>()).await;
                    // What is left has no records in it: marks of transactions.
                    *next = records.last().map_or(ends.high, |last| last.offset + 1);
                }
            }
        }
        if is_first {
            self.held.is_followed();
        }
        Ok(())
    }

    /// The vertices that a record's change names.
    fn touched(&self, record: &Polled) -> Option<Touched> {
        if !self.topics.contains(&record.place.topic) {
            return None;
        }
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        // What cannot be read is told by the stages that need it.
        let event = decoder.decode(record.key.as_deref(), record.value.as_deref()).ok()??;
        Some(touched(&event, &self.rules))
    }
}

#[async_trait]
impl Changes for Falling {
    async fn are_read(&self, records: &[&Polled]) {
        let mut all = Touched::default();
        for touched in records.iter().filter_map(|record| self.touched(record)) {
            all.vertices.extend(touched.vertices);
            all.types.extend(touched.types);
            all.types.extend(touched.unknown.into_iter().map(|(type_name, _)| type_name));
        }
        self.held.changed(all.vertices.iter().map(|vertex| (&*vertex.type_name, &*vertex.id))).await;
        all.types.sort_unstable();
        all.types.dedup();
        for type_name in &all.types {
            self.held.emptied(type_name).await;
        }
    }
}
