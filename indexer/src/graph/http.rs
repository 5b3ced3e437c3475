//! The graph contract over HTTP: any GraphQL server.

mod ceiling;
mod client;
mod errors;
mod parents;
mod replaced;
mod response;
mod roots;
mod split;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Value as Json, json};
use tributary_dsl::plan::{FanOutPlan, Form, GraphPlan, IndexPlan, Paging, Question};
use tributary_event::ErrorClass;

use self::ceiling::{Ceiling, Learnt};
use self::client::{Client, Kind, Request};
use self::errors::Trouble;
use self::parents::parents_of;
use self::replaced::Replaced;
use self::response::Item;
use self::roots::id_page;
use self::split::{Ask, outage, outcomes};
use super::{Fetched, Graph, GraphError, IdPage, Identified, Vertex};

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

    async fn page(&self, paging: &Paging, after: Option<&str>, first: usize) -> Result<IdPage, Trouble> {
        let Paging { query, key, cursor } = paging;
        let variables = json!({ "first": first, "after": after.map(|after| cursor.value(after)) });
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

/// Asks a question about some vertices.
struct Questioner<'a> {
    graph: &'a HttpGraph,
    question: &'a Question,
    kind: Kind,
    /// Whom the question is for: an index or a type.
    name: &'a str,
    ceiling: &'a Ceiling,
}

/// The places of those that an answer lacks.
fn missing(items: &[Item]) -> Vec<usize> {
    (0..items.len()).filter(|i| items[*i] == Item::Missing).collect()
}

/// Some places of so many, the first and the last among them.
fn spread(of: usize) -> Vec<usize> {
    const SOME: usize = 5;
    if of <= SOME { (0..of).collect() } else { (0..SOME).map(|n| n * (of - 1) / (SOME - 1)).collect() }
}

#[async_trait]
impl Ask for Questioner<'_> {
    async fn ask(&self, ids: &[String]) -> Result<Vec<Item>, Trouble> {
        let mut items = self.once(ids).await?;
        self.all_failed(ids, &items).await?;
        if let Form::Together { .. } = self.question.form {
            self.again(ids, &mut items, true).await?;
            self.beyond(ids, &mut items).await?;
        }
        Ok(items)
    }

    async fn probe(&self) -> Result<(), GraphError> {
        self.graph.probe().await
    }
}

impl Questioner<'_> {
    /// Servers that load all of them in one statement fail all for one that is bad, or for too many: where the first or the last
    /// alone does not fail, the batch is to be split.
    async fn all_failed(&self, ids: &[String], items: &[Item]) -> Result<(), Trouble> {
        let Some(Item::Failed(error)) = items.first() else { return Ok(()) };
        if ids.len() < 2 || !items.iter().all(|item| matches!(item, Item::Failed(_))) {
            return Ok(());
        }
        for id in [ids.first(), ids.last()].into_iter().flatten() {
            let alone = self.once(std::slice::from_ref(id)).await?;
            if !matches!(alone.as_slice(), [Item::Failed(_)]) {
                return Err(Trouble::Unclear(error.clone()));
            }
        }
        Ok(())
    }

    /// An answer may have been cut where it holds some and lacks others: by a page size of the field, a proxy's cap, a limit of our
    /// role. Only one that lacks all of them was not, so those that are missing are asked for until there is one. `first`: all of them
    /// were asked for already.
    async fn again(&self, ids: &[String], items: &mut [Item], first: bool) -> Result<(), Trouble> {
        let mut asked = if first { ids.len() } else { usize::MAX };
        loop {
            let missing = missing(items);
            if missing.is_empty() || missing.len() == asked {
                return Ok(());
            }
            asked = missing.len();
            self.ask_for(ids, items, &missing).await?;
        }
    }

    /// A server may read the first ids of a list only, and answer null for the others: what is missing behind the farthest place at
    /// which it ever found one is asked for nearer. Where it never found any, some are asked for alone.
    async fn beyond(&self, ids: &[String], items: &mut [Item]) -> Result<(), Trouble> {
        let unsure = |items: &[Item]| missing(items).into_iter().skip(self.ceiling.reach().max(1)).collect::<Vec<_>>();
        if self.ceiling.reach() == 0 {
            let all = unsure(items);
            for at in spread(all.len()) {
                self.ask_for(ids, items, &all[at..=at]).await?;
            }
            if self.ceiling.reach() == 0 {
                return Ok(());
            }
        }
        let mut rest = unsure(items);
        while !rest.is_empty() {
            let far = rest.split_off(self.ceiling.reach().max(1).min(rest.len()));
            self.ask_for(ids, items, &rest).await?;
            rest = far;
        }
        Ok(())
    }

    /// Asks once more for those at some places.
    async fn ask_for(&self, ids: &[String], items: &mut [Item], places: &[usize]) -> Result<(), Trouble> {
        let again: Vec<String> = places.iter().map(|i| ids[*i].clone()).collect();
        let answered = self.once(&again).await?;
        places.iter().zip(answered).for_each(|(i, item)| items[*i] = item);
        Ok(())
    }

    /// One request.
    async fn once(&self, ids: &[String]) -> Result<Vec<Item>, Trouble> {
        let (query, variables) = self.question.request(ids);
        let operation = Some(self.question.operation.as_str());
        let request = Request { kind: self.kind, query: &query, operation, variables };
        let client = &self.graph.client;
        let answer = client.post(request).await?;
        let replaced = answer.replaced;
        let items = answer.items(&client.place, self.question, ids)?;
        self.graph.replaced.tell_items(self.name, replaced, ids, &items);
        if let Some(last) = items.iter().rposition(|item| matches!(item, Item::Found(_))) {
            self.ceiling.reached(last + 1);
        }
        Ok(items)
    }
}

#[async_trait]
impl Graph for HttpGraph {
    async fn probe(&self) -> Result<(), GraphError> {
        HttpGraph::probe(self).await
    }

    async fn fetch(&self, index: &IndexPlan, ids: &[String]) -> Result<Vec<Fetched>, GraphError> {
        let ceiling = self.ceiling(format!("fetch {}", index.name));
        let ask =
            Questioner { graph: self, question: &index.fetch, kind: Kind::Fetch, name: &index.name, ceiling: &ceiling };
        let items = outcomes(&ask, &ceiling, ids, self.width).await?;
        let count = |outcome: &'static str, fetched: Fetched| {
            metrics::counter!("tributary_graph_documents_total", "outcome" => outcome).increment(1);
            fetched
        };
        let fetched = items.into_iter().map(|item| match item {
            Item::Found(json) => count("found", Fetched::Found(json)),
            Item::Missing => count("missing", Fetched::Missing),
            Item::NotFound(error) | Item::Other(_, error) | Item::Failed(error) => {
                count("failed", Fetched::Failed(error))
            }
        });
        Ok(fetched.collect())
    }

    async fn parents(
        &self,
        plan: &FanOutPlan,
        ids: &[String],
    ) -> Result<Vec<Result<Vec<Vertex>, GraphError>>, GraphError> {
        let ceiling = self.ceiling(format!("parents {}", plan.type_name));
        let ask = Questioner {
            graph: self,
            question: &plan.question,
            kind: Kind::Parents,
            name: &plan.type_name,
            ceiling: &ceiling,
        };
        let items = outcomes(&ask, &ceiling, ids, self.width).await?;
        let place = &self.client.place;
        let parents = items.into_iter().zip(ids).map(|(item, id)| match item {
            Item::Found(json) => parents_of(plan, &json).map_err(|problem| {
                let message = format!("{place}: the parents of {}:{id}: {problem}", plan.type_name);
                GraphError::new(ErrorClass::Definite, message)
            }),
            // The vertex is gone, whichever way the server says so; nothing leads from it any more.
            Item::Missing | Item::NotFound(_) => Ok(Vec::new()),
            Item::Other(_, error) | Item::Failed(error) => Err(error),
        });
        Ok(parents.collect())
    }

    async fn identify(&self, question: &Question, name: &str, ids: &[String]) -> Result<Vec<Identified>, GraphError> {
        let ceiling = self.ceiling(format!("{} {name}", question.operation));
        let ask = Questioner { graph: self, question, kind: Kind::Identify, name, ceiling: &ceiling };
        let items = outcomes(&ask, &ceiling, ids, self.width).await?;
        let identified = items.into_iter().map(|item| match item {
            Item::Found(_) => Identified::Known,
            Item::Missing | Item::NotFound(_) => Identified::Missing,
            Item::Other(id, _) => Identified::Other(id),
            Item::Failed(error) => Identified::Failed(error),
        });
        Ok(identified.collect())
    }

    async fn root_ids(&self, paging: &Paging, after: Option<&str>, first: usize) -> Result<IdPage, GraphError> {
        let ceiling = self.ceiling(format!("roots {}", paging.query));
        let mut size = first.min(ceiling.limit()).max(1);
        let mut refused = false;
        loop {
            let trouble = match self.page(paging, after, size).await {
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

    fn position(&self) -> Option<String> {
        self.client.position()
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
