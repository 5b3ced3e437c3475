//! The graph contract over HTTP: any GraphQL server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use tributary_dsl::plan::{Access, FanOutPlan, GraphPlan, IndexPlan};
use tributary_event::ErrorClass;

use super::ceiling::{Ceiling, Learnt};
use super::client::{Client, Kind, Request};
use super::errors::Trouble;
use super::parents::parents_of;
use super::response::Item;
use super::roots::id_page;
use super::split::{Ask, outcomes};
use super::{Fetched, Graph, GraphError, IdPage, Vertex};

/// A query that every server answers at once.
const PROBE_QUERY: &str = "{ __typename }";

/// A graph behind a GraphQL endpoint.
///
/// At most `graph.concurrency` requests are in flight, whoever asks. Connections are kept alive, answers may come
/// compressed. Dropping a call drops its requests.
pub struct HttpGraph {
    client: Client,
    width: usize,
    ceilings: Mutex<HashMap<String, Arc<Ceiling>>>,
}

impl HttpGraph {
    /// A graph. Sends nothing yet. `Fatal`: the endpoint or a header is not usable.
    pub fn new(plan: &GraphPlan) -> Result<Self, GraphError> {
        let client = Client::new(plan)?;
        Ok(Self { client, width: plan.concurrency.max(1), ceilings: Mutex::new(HashMap::new()) })
    }

    /// Answers longer than this many bytes are not read.
    #[cfg(test)]
    pub(super) fn limit_answers(&mut self, bytes: usize) {
        self.client.most_bytes = bytes;
    }

    fn ceiling(&self, query: String) -> Arc<Ceiling> {
        self.ceilings.lock().unwrap_or_else(PoisonError::into_inner).entry(query).or_default().clone()
    }

    async fn probe(&self) -> Result<(), GraphError> {
        let request = Request { kind: Kind::Probe, query: PROBE_QUERY, operation: None, variables: json!({}) };
        match self.client.post(request).await {
            Err(Trouble::Whole(error) | Trouble::TooSlow(error)) if error.class == ErrorClass::Transient => Err(error),
            _ => Ok(()),
        }
    }

    async fn page(&self, query: &str, key: &str, after: Option<&str>, first: usize) -> Result<IdPage, Trouble> {
        let variables = json!({ "first": first, "after": after });
        let request = Request { kind: Kind::Roots, query, operation: None, variables };
        let connection = self.client.post(request).await?.field(&self.client.place, key)?;
        id_page(&connection, after).map_err(|message| {
            let message = format!("{}: {key}: {message}", self.client.place);
            Trouble::Whole(GraphError::new(ErrorClass::Fatal, message))
        })
    }
}

struct FetchAsk<'a> {
    graph: &'a HttpGraph,
    index: &'a IndexPlan,
}

#[async_trait]
impl Ask for FetchAsk<'_> {
    async fn ask(&self, ids: &[String]) -> Result<Vec<Item>, Trouble> {
        let (client, plan) = (&self.graph.client, &self.index.fetch);
        let request = |value: Json| Request {
            kind: Kind::Fetch,
            query: &plan.query,
            operation: Some(&plan.operation),
            variables: Json::Object([(plan.variable.clone(), value)].into_iter().collect()),
        };
        if plan.many {
            return client.post(request(json!(ids))).await?.list(&client.place, &plan.root_key, ids);
        }
        let mut items = Vec::with_capacity(ids.len());
        for id in ids {
            items.push(client.post(request(json!(id))).await?.single(&client.place, &plan.root_key, id)?);
        }
        Ok(items)
    }

    async fn probe(&self) -> Result<(), GraphError> {
        self.graph.probe().await
    }
}

struct ParentsAsk<'a> {
    graph: &'a HttpGraph,
    plan: &'a FanOutPlan,
}

#[async_trait]
impl Ask for ParentsAsk<'_> {
    async fn ask(&self, ids: &[String]) -> Result<Vec<Item>, Trouble> {
        let (client, plan) = (&self.graph.client, self.plan);
        let request = |variables| Request { kind: Kind::Parents, query: &plan.query, operation: None, variables };
        let (root, variables) = match &plan.access {
            Access::Entities => {
                let representations = ids.iter().map(|id| json!({ "__typename": plan.type_name, "id": id }));
                ("_entities", json!({ "representations": representations.collect::<Vec<_>>() }))
            }
            Access::Nodes => ("nodes", json!({ "ids": ids })),
            Access::Field { field, .. } => (field.as_str(), json!({ "ids": ids })),
            Access::Node => {
                let mut items = Vec::with_capacity(ids.len());
                for id in ids {
                    let answer = client.post(request(json!({ "id": id }))).await?;
                    items.push(answer.single(&client.place, "node", id)?);
                }
                return Ok(items);
            }
        };
        client.post(request(variables)).await?.list(&client.place, root, ids)
    }

    async fn probe(&self) -> Result<(), GraphError> {
        self.graph.probe().await
    }
}

#[async_trait]
impl Graph for HttpGraph {
    async fn probe(&self) -> Result<(), GraphError> {
        HttpGraph::probe(self).await
    }

    async fn fetch(&self, index: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError> {
        let ceiling = self.ceiling(format!("fetch {}", index.name));
        let most = if index.fetch.many { usize::MAX } else { 1 };
        let items = outcomes(&FetchAsk { graph: self, index }, &ceiling, ids, most, self.width).await?;
        let count = |outcome: &'static str, fetched: Fetched| {
            metrics::counter!("tributary_graph_documents_total", "outcome" => outcome).increment(1);
            fetched
        };
        let fetched = items.into_iter().map(|item| match item {
            Item::Found(json) => count("found", Fetched::Found(json)),
            Item::Missing => count("missing", Fetched::Missing),
            Item::NotFound(error) | Item::Failed(error) => count("failed", Fetched::Failed(error)),
        });
        Ok(fetched.collect())
    }

    async fn parents(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError> {
        let ceiling = self.ceiling(format!("parents {}", plan.type_name));
        let most = if plan.access == Access::Node { 1 } else { usize::MAX };
        let items = outcomes(&ParentsAsk { graph: self, plan }, &ceiling, ids, most, self.width).await?;
        let place = &self.client.place;
        let parents = items.into_iter().zip(ids).map(|(item, id)| match item {
            Item::Found(json) => parents_of(plan, &json).map_err(|problem| {
                let message = format!("{place}: the parents of {}:{id}: {problem}", plan.type_name);
                GraphError::new(ErrorClass::Definite, message)
            }),
            // The vertex is gone, whichever way the server says so; nothing leads from it any more.
            Item::Missing | Item::NotFound(_) => Ok(Vec::new()),
            Item::Failed(error) => Err(error),
        });
        Ok(parents.collect())
    }

    async fn root_ids(&self, query: &str, key: &str, after: Option<&str>, first: usize) -> Result<IdPage, GraphError> {
        let ceiling = self.ceiling(format!("roots {query}"));
        let mut size = first.min(ceiling.limit()).max(1);
        let mut refused = false;
        loop {
            match self.page(query, key, after, size).await {
                Ok(page) => {
                    ceiling.learn(Learnt { asked: first, answered: size, refused, silent: false });
                    return Ok(page);
                }
                Err(Trouble::TooMuch(_) | Trouble::TooSlow(_)) if size > 1 => {}
                // Servers refuse a page that is too large as bad input.
                Err(Trouble::Unclear(error)) if size > 1 && error.class == ErrorClass::Definite => {}
                Err(trouble) => return Err(trouble.into_error()),
            }
            refused = true;
            size = size.div_ceil(2);
        }
    }

    async fn introspect(&self) -> Result<Json, GraphError> {
        let remedy = "export the schema to a file and set `graph.schema: schema.graphql`";
        let query = tributary_dsl::INTROSPECTION_QUERY;
        let request = Request { kind: Kind::Introspect, query, operation: None, variables: json!({}) };
        let place = &self.client.place;
        let refused = |said: &str| {
            GraphError::new(ErrorClass::Fatal, format!("{said}: the server does not let its schema be read; {remedy}"))
        };
        match self.client.post(request).await {
            Ok(answer) => {
                if let Some(error) = answer.errors().iter().find(|e| e.forbids_introspection()) {
                    return Err(refused(&error.said(place)));
                }
                let data = answer.data.unwrap_or(Json::Null);
                if data.get("__schema").is_some_and(Json::is_object) { Ok(data) } else { Err(refused(place)) }
            }
            Err(trouble) => {
                let error = trouble.into_error();
                let lower = error.message.to_ascii_lowercase();
                let forbidden = lower.contains("introspection") || lower.contains("__schema");
                Err(if forbidden { refused(&error.message) } else { error })
            }
        }
    }
}
