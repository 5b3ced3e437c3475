//! What depends on a source's tables: the rules of `graph.vertices`, and the documents of the indexes that show them.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::warn;
use tributary_connector::postgres::Carried;
use tributary_connector::{ConnectorError, Dependent, Doubt};
use tributary_dsl::plan::{Plan, SourcePlan};
use tributary_indexer::engine::IndexHandle;

use crate::rules;

/// The indexes of a pipeline, as they depend on one of its sources.
pub struct Indexes {
    plan: Arc<Plan>,
    source: SourcePlan,
    indexes: Vec<IndexHandle>,
}

impl Indexes {
    /// The indexes of a plan.
    pub fn new(plan: Arc<Plan>, source: SourcePlan, indexes: Vec<IndexHandle>) -> Self {
        Self { plan, source, indexes }
    }

    /// Why the documents of an index may be stale, if it shows one of the tables.
    fn concerns(&self, index: &IndexHandle, doubts: &[Doubt]) -> Option<String> {
        let shown = index.context.plan.vertex_types();
        let is_shown = |doubt: &&Doubt| {
            let rules = self.plan.graph.vertices.get(&doubt.table);
            rules.is_some_and(|rules| rules.iter().any(|rule| shown.contains(rule.type_name.as_str())))
        };
        let mut concerning = doubts.iter().filter(is_shown);
        let first = concerning.next()?;
        let text = format!("rows of {} may have changed without events: {}", first.table, first.why);
        Some(match concerning.count() {
            0 => text,
            1 => format!("{text}; and those of one more table"),
            more => format!("{text}; and those of {more} more tables"),
        })
    }
}

/// The rules of a plan for one of its sources, before anything runs.
pub struct Rules {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The source.
    pub source: SourcePlan,
}

#[async_trait]
impl Dependent for Rules {
    fn check(&self, tables: &[Carried]) -> Result<(), String> {
        rules::check(&self.plan, &self.source, tables)
    }

    async fn doubt(&self, _doubts: &[Doubt]) -> Result<(), ConnectorError> {
        Ok(())
    }
}

#[async_trait]
impl Dependent for Indexes {
    fn check(&self, tables: &[Carried]) -> Result<(), String> {
        rules::check(&self.plan, &self.source, tables)
    }

    async fn doubt(&self, doubts: &[Doubt]) -> Result<(), ConnectorError> {
        for Doubt { table, why } in doubts {
            warn!(source = self.source.name, %table, why, "rows may have changed without events of the log");
        }
        for index in &self.indexes {
            if let Some(why) = self.concerns(index, doubts) {
                index.context.listings.begin_anew(Some(why)).await?;
            }
        }
        Ok(())
    }
}
