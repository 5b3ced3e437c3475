//! Fan-out: the immediate parents of changed vertices, asked of the graph, twice.
//!
//! The log can be ahead of what the graph reads: PostgreSQL writes a commit to its log before readers see it, a replica or a
//! cache behind the graph is later still. A new edge whose parent the graph does not show yet would be missed, and nothing
//! else would ask for it. So every fan-out is repeated a second after the first, and only then are its events done.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tracing::{debug, warn};
use tributary_dsl::plan::FanOutPlan;
use tributary_event::ErrorClass;
use tributary_processor::{Backoff, StageError};
use xxhash_rust::xxh3::xxh3_64;

use crate::graph::{GraphError, Vertex};
use crate::request::Cause;
use crate::resolve::{Records, Resolver, Taken, note};

/// Vertices of one fan-out query at most.
const FAN_OUT: usize = 100;

/// Vertices whose parents could not be asked for, and why.
pub(crate) type Unanswered = HashMap<Vertex, GraphError>;

/// Events whose fan-out is to be repeated.
pub(crate) struct Unsettled {
    /// The vertices that were asked for.
    pub vertices: Vec<Vertex>,
    /// Hashes of the ids that builds were asked for already, by index.
    pub requested: Vec<HashSet<u64>>,
    /// What the events are called.
    pub cause: Option<Cause>,
    /// The events, which are done when the repetition is.
    pub group: Vec<Taken>,
}

impl Resolver {
    /// Asks for the parents once more, and for builds of the documents that only this found.
    pub(crate) async fn settle(&self, unsettled: Unsettled) -> Result<(), StageError> {
        let (parents, unanswered) = self.parents(&unsettled.vertices).await?;
        let stamp = self.clock.now();
        let mut records: Records = Box::new(self.letters(&unsettled.group, &unanswered).into_iter());
        for (index, requested) in self.indexes.iter().zip(&unsettled.requested) {
            let mut affected = note(index, &parents, stamp);
            affected.extend(self.look_up(index, &parents).await?);
            affected.retain(|id| !requested.contains(&xxh3_64(id.as_bytes())));
            if affected.is_empty() {
                continue;
            }
            debug!(
                index = index.plan.name,
                documents = affected.len(),
                "the graph shows more parents than a second ago"
            );
            let Some(cause) = &unsettled.cause else { continue };
            let cause = Cause { id: format!("{}/again", cause.id), affected: affected.len() as u64, ..cause.clone() };
            records = Box::new(records.chain(self.request(index, affected, &cause, 1)));
        }
        self.outbox.send(records, unsettled.group.into_iter().map(|taken| taken.ticket).collect()).await
    }

    /// The immediate parents of vertices by the plan's fan-out queries. Waits for a graph that is away; a vertex that fails
    /// by itself is tried a few times and then named in the second answer.
    pub(super) async fn parents(&self, vertices: &[Vertex]) -> Result<(Vec<Vertex>, Unanswered), StageError> {
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
                        let outage_s = self.indexes.first().map_or(0, |i| i.graph_health.outage().as_secs());
                        warn!(error = error.message, outage_s, "cannot ask the graph; trying again");
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
}
