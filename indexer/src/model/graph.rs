//! The graph: answers late, from a moment that may lie behind the log.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value as Json;
use std::sync::Arc;
use tributary_dsl::plan::{FanOutPlan, IndexPlan, Paging, Question};
use tributary_event::ErrorClass;

use super::process::Gate;
use super::random::Dice;
use super::truth::{State, Truth};
use crate::graph::{Fetched, Graph, GraphError, IdPage, Identified, Vertex};
use crate::listing::RootIdSource;

pub struct ModelGraph {
    pub truth: Truth,
    pub dice: Dice,
    pub process: Arc<Gate>,
    /// How far it may be behind.
    pub lag: Duration,
    /// Whether it says how far it has come.
    pub says: bool,
    /// The longest that it may take to answer.
    pub slow: Duration,
}

impl ModelGraph {
    /// Reads some time after it was asked, and answers some time after that.
    async fn read(&self) -> Result<State, GraphError> {
        self.process.pass().await;
        tokio::time::sleep(self.dice.time(self.slow / 4)).await;
        let seen = self.truth.seen_behind(self.dice.time(self.lag));
        tokio::time::sleep(self.dice.time(self.slow)).await;
        self.process.pass().await;
        if self.dice.one_in(40) {
            return Err(GraphError::new(ErrorClass::Transient, "the graph is away"));
        }
        Ok(seen)
    }
}

#[async_trait]
impl Graph for ModelGraph {
    async fn fetch(&self, _index: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError> {
        let state = self.read().await?;
        let movie = |id: &String| id.parse().ok().and_then(|id| state.movie(id));
        Ok(ids.iter().map(|id| movie(id).map_or(Fetched::Missing, Fetched::Found)).collect())
    }

    async fn parents(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError> {
        let state = self.read().await?;
        let of = |id: &String| {
            let parents = id.parse().map(|id| state.parents(&plan.type_name, id)).unwrap_or_default();
            Ok(parents.into_iter().map(|parent| Vertex::new("Movie", parent.to_string())).collect())
        };
        Ok(ids.iter().map(of).collect())
    }

    async fn identify(&self, _: &Question, _: &str, ids: &[String]) -> Result<Vec<Identified>, GraphError> {
        Ok(vec![Identified::Known; ids.len()])
    }

    async fn root_ids(&self, _: &Paging, _: Option<&str>, _: usize) -> Result<IdPage, GraphError> {
        Err(GraphError::new(ErrorClass::Fatal, "not asked in the model"))
    }

    async fn probe(&self) -> Result<(), GraphError> {
        self.process.pass().await;
        Ok(())
    }

    fn position(&self) -> Option<String> {
        // What may be answered from now on is not older than that.
        self.says.then(|| self.truth.position_behind(self.lag).to_string())
    }

    async fn introspect(&self) -> Result<Json, GraphError> {
        Err(GraphError::new(ErrorClass::Fatal, "not asked in the model"))
    }
}

/// Lists the table of movies.
pub struct ModelRoots {
    pub truth: Truth,
    pub dice: Dice,
    pub process: Arc<Gate>,
}

#[async_trait]
impl RootIdSource for ModelRoots {
    async fn page(&self, after: Option<&str>, size: usize) -> Result<IdPage, GraphError> {
        self.process.pass().await;
        tokio::time::sleep(self.dice.time(Duration::from_millis(20))).await;
        let after: Option<u8> = after.and_then(|after| after.parse().ok());
        let size = size.min(2);
        let mut ids: Vec<u8> =
            self.truth.now().movies.into_keys().filter(|id| after.is_none_or(|after| *id > after)).collect();
        let more = ids.len() > size;
        ids.truncate(size);
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        Ok(IdPage { next: ids.last().cloned().filter(|_| more), ids })
    }

    async fn expected(&self) -> Option<u64> {
        None
    }
}
