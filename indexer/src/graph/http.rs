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
use super::replaced::Replaced;
use super::response::Item;
use super::roots::id_page;
use super::split::{Ask, outage, outcomes};
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
    replaced: Replaced,
}

impl HttpGraph {
    /// A graph. Sends nothing yet. `Fatal`: the endpoint or a header is not usable.
    pub fn new(plan: &GraphPlan) -> Result<Self, GraphError> {
        let client = Client::new(plan)?;
        let width = plan.concurrency.max(1);
        Ok(Self { client, width, ceilings: Mutex::default(), replaced: Replaced::default() })
    }

    /// Answers longer than this many bytes are not read.
    #[cfg(test)]
    pub(super) fn limit_answers(&mut self, bytes: usize) {
        self.client.most_bytes = bytes;
    }

    fn ceiling(&self, query: String) -> Arc<Ceiling> {
        self.ceilings.lock().unwrap_or_else(PoisonError::into_inner).entry(query).or_default().clone()
    }

    /// Whatever is a GraphQL answer will do: servers may refuse queries that they do not know.
    async fn probe(&self) -> Result<(), GraphError> {
        let request = Request { kind: Kind::Probe, query: PROBE_QUERY, operation: None, variables: json!({}) };
        match self.client.post(request).await {
            Ok(_) | Err(Trouble::TooMuch(_) | Trouble::Unclear(_) | Trouble::Rejected(_)) => Ok(()),
            Err(trouble) => Err(trouble.into_error()),
        }
    }

    async fn page(&self, query: &str, key: &str, after: Option<&str>, first: usize) -> Result<IdPage, Trouble> {
        let variables = json!({ "first": first, "after": after });
        let request = Request { kind: Kind::Roots, query, operation: None, variables };
        let answer = self.client.post(request).await?;
        let replaced = answer.replaced;
        let connection = answer.field(&self.client.place, key)?;
        let page = id_page(&connection, after).map_err(|message| {
            let message = format!("{}: {key}: {message}", self.client.place);
            Trouble::Rejected(GraphError::new(ErrorClass::Fatal, message))
        })?;
        self.replaced.tell(key, replaced, page.ids.iter().map(|id| (id.as_str(), id.as_str())));
        Ok(page)
    }

    /// A smaller page than one of `size` that was not answered, if that may help, and whether it was refused for its size.
    async fn smaller(&self, after: Option<&str>, size: usize, trouble: Trouble) -> Result<(usize, bool), GraphError> {
        let refused = match &trouble {
            Trouble::TooMuch(_) | Trouble::TooSlow(_) => true,
            // Servers refuse a page that is too large as bad input.
            Trouble::Unclear(error) if error.class == ErrorClass::Definite => true,
            Trouble::Unreadable(error) => {
                self.probe().await.map_err(|_| outage(error))?;
                false
            }
            _ => return Err(trouble.into_error()),
        };
        if size > 1 {
            return Ok((size.div_ceil(2), refused));
        }
        let GraphError { class, message } = trouble.into_error();
        let place =
            after.map_or_else(|| "the first root".to_owned(), |cursor| format!("the root after the cursor {cursor:?}"));
        Err(GraphError::new(
            class,
            format!("{message} (asked for {place} alone; the roots from there on are not listed)"),
        ))
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
        let (mut items, mut replaced) = (Vec::with_capacity(ids.len()), 0);
        if plan.many {
            let answer = client.post(request(json!(ids))).await?;
            replaced = answer.replaced;
            items = answer.list(&client.place, &plan.root_key, ids)?;
        } else {
            for id in ids {
                let answer = client.post(request(json!(id))).await?;
                replaced += answer.replaced;
                items.push(answer.single(&client.place, &plan.root_key, id)?);
            }
        }
        self.graph.replaced.tell_items(&self.index.name, replaced, ids, &items);
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
                let (mut items, mut replaced) = (Vec::with_capacity(ids.len()), 0);
                for id in ids {
                    let answer = client.post(request(json!({ "id": id }))).await?;
                    replaced += answer.replaced;
                    items.push(answer.single(&client.place, "node", id)?);
                }
                self.graph.replaced.tell_items(&plan.type_name, replaced, ids, &items);
                return Ok(items);
            }
        };
        let answer = client.post(request(variables)).await?;
        let replaced = answer.replaced;
        let items = answer.list(&client.place, root, ids)?;
        self.graph.replaced.tell_items(&plan.type_name, replaced, ids, &items);
        Ok(items)
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
            let trouble = match self.page(query, key, after, size).await {
                Ok(page) => {
                    ceiling.learn(Learnt { asked: first, answered: size, refused, silent: false });
                    return Ok(page);
                }
                Err(trouble) => trouble,
            };
            let (smaller, by_size) = self.smaller(after, size, trouble).await?;
            refused |= by_size;
            size = smaller;
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
