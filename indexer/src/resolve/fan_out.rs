//! Fan-out: the immediate parents of changed vertices, asked of the graph.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{debug, warn};
use tributary_dsl::plan::FanOutPlan;
use tributary_event::ErrorClass;
use tributary_processor::{Backoff, StageError};

use super::Resolver;
use crate::graph::{GraphError, Vertex};

/// Vertices of one fan-out query at most.
const FAN_OUT: usize = 100;

/// Vertices whose parents could not be asked for, and why.
pub(crate) type Unanswered = BTreeMap<Vertex, GraphError>;

impl Resolver {
    /// The immediate parents of vertices by the plan's fan-out queries. Waits for a graph that is away; a vertex that fails
    /// by itself is tried a few times and then named in the second answer.
    pub(super) async fn parents<'v>(
        &self,
        vertices: impl IntoIterator<Item = &'v Vertex>,
    ) -> Result<(Vec<Vertex>, Unanswered), StageError> {
        let mut by_type: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for vertex in vertices {
            if self.fan_outs.contains_key(&vertex.type_name) {
                by_type.entry(&vertex.type_name).or_default().push(vertex.id.clone());
            }
        }
        let mut parents = BTreeSet::new();
        let mut unanswered = BTreeMap::new();
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
                Err(error) => self.graph_fails(&error)?,
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    /// The graph is to be asked again, unless it refuses us for good.
    pub(super) fn graph_fails(&self, error: &GraphError) -> Result<(), StageError> {
        for index in &self.indexes {
            index.graph_health.down(error.message.clone());
        }
        let news = self.fan_out_health.down(error.message.clone());
        if error.class != ErrorClass::Transient {
            return Err(StageError::new("resolve", error.message.clone()));
        }
        if news {
            let outage_s = self.fan_out_health.outage().as_secs();
            warn!(error = error.message, outage_s, "cannot ask the graph; trying again");
        }
        Ok(())
    }

    pub(super) fn graph_is_up(&self) {
        self.fan_out_health.up();
        for index in &self.indexes {
            index.graph_health.up();
        }
    }
}
