//! GraphQL answers: what they say about each vertex asked for, and whose their errors are. Pure.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value as Json;
use tributary_event::ErrorClass;

use super::GraphError;
use super::errors::{ServerError, Trouble, rank, worst};
use crate::document::id_text;

/// An answer of a GraphQL server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Answer {
    /// `None`: null or absent, the request as a whole failed.
    #[serde(default)]
    pub data: Option<Json>,
    /// Empty: none.
    #[serde(default)]
    pub(super) errors: Option<Vec<ServerError>>,
    /// Characters that were none and were replaced.
    #[serde(skip)]
    pub replaced: usize,
}

/// What an answer says about one vertex.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    /// It is there, whole.
    Found(Json),
    /// Null or absent, and no error that could be about it.
    Missing,
    /// The server reports, as an error at the vertex itself, that there is none.
    NotFound(GraphError),
    /// Something under it failed.
    Failed(GraphError),
}

impl Answer {
    pub(super) fn errors(&self) -> &[ServerError] {
        self.errors.as_deref().unwrap_or_default()
    }

    /// Whether this is a GraphQL answer at all: it must have data or errors.
    pub(super) fn is_graphql(&self) -> bool {
        self.data.is_some() || !self.errors().is_empty()
    }

    /// Sorts out answers without data: the request itself failed. Everything else passes.
    pub(super) fn accept(self, place: &str) -> Result<Self, Trouble> {
        let Some(first) = self.errors().first().filter(|_| self.data.is_none()) else {
            return Ok(self);
        };
        let find = |cause: fn(&ServerError) -> bool| self.errors().iter().find(|e| cause(e));
        if let Some(error) = find(|e| e.class() == ErrorClass::Fatal && !e.rejects_query()) {
            return Err(Trouble::Rejected(error.describe(place)));
        }
        if let Some(error) = find(|e| !e.has_path() && e.names_schema()) {
            return Err(Trouble::Rejected(error.rejection(place)));
        }
        if let Some(error) = find(ServerError::is_too_much) {
            let said = error.said(place);
            let message = format!("{said} (the server refuses a query of this size; raise its limit, or select less)");
            return Err(Trouble::TooMuch(GraphError::new(ErrorClass::Definite, message)));
        }
        if let Some(error) = find(ServerError::rejects_query) {
            return Err(Trouble::Rejected(error.rejection(place)));
        }
        if let Some(error) = find(ServerError::is_too_slow) {
            return Err(Trouble::TooSlow(GraphError::new(ErrorClass::Transient, error.said(place))));
        }
        if let Some(error) = find(ServerError::is_throttling) {
            return Err(Trouble::Whole(GraphError::new(ErrorClass::Transient, error.said(place))));
        }
        if self.errors().iter().all(ServerError::has_path) {
            // The query ran, and a null rose all the way up: what the errors are about is for the caller to see.
            return Ok(self);
        }
        Err(Trouble::Unclear(first.describe(place)))
    }

    /// What the answer says about each of a list of vertices asked for by id; the root field answers a list.
    ///
    /// The list may be aligned with the ids (null for what is not there), or hold just what is there.
    pub(super) fn list(mut self, place: &str, root: &str, ids: &[String]) -> Result<Vec<Item>, Trouble> {
        let errors = self.errors.take().unwrap_or_default();
        let items = match self.take(root) {
            Some(Json::Array(items)) => items,
            other => return whole(place, root, 2, ids.len(), other, &errors).map(|item| vec![item; ids.len()]),
        };
        if let ([error, ..], [_]) = (errors.as_slice(), ids) {
            // Whatever is wrong, it is about this one.
            let gone = errors.len() == 1 && error.denies(2) && items.iter().all(Json::is_null);
            let error = worst(&errors, place);
            return Ok(vec![if gone { Item::NotFound(error) } else { Item::Failed(error) }]);
        }
        attribute(place, root, ids, items, &errors)
    }

    /// What the answer says about a single vertex; the root field answers an object.
    pub(super) fn single(mut self, place: &str, root: &str, id: &str) -> Result<Item, Trouble> {
        let errors = self.errors.take().unwrap_or_default();
        match self.take(root) {
            Some(item @ Json::Object(_)) if errors.is_empty() => match item.get("id").and_then(id_text) {
                Some(answered) if answered != id => {
                    let message = format!("{place}: {root} answers the id {answered:?}, {id:?} was asked for");
                    Ok(Item::Failed(GraphError::new(ErrorClass::Definite, message)))
                }
                _ => Ok(Item::Found(item)),
            },
            other => whole(place, root, 1, 1, other, &errors),
        }
    }

    /// A root field that nobody asked for by id, such as a connection.
    pub(super) fn field(mut self, place: &str, root: &str) -> Result<Json, Trouble> {
        let errors = self.errors.take().unwrap_or_default();
        match self.take(root) {
            Some(value) if errors.is_empty() && !value.is_null() => Ok(value),
            other if errors.is_empty() => {
                let got = if other.is_some() { "null" } else { "nothing" };
                let message = format!("{place}: the answer holds {got} for `{root}`, and no error");
                Err(Trouble::Whole(GraphError::new(ErrorClass::Transient, message)))
            }
            _ => Err(Trouble::Unclear(worst(&errors, place))),
        }
    }

    fn take(&mut self, root: &str) -> Option<Json> {
        self.data.as_mut()?.as_object_mut()?.remove(root)
    }
}

/// Sorts the items of a list and its errors by the ids asked for.
fn attribute(
    place: &str,
    root: &str,
    ids: &[String],
    items: Vec<Json>,
    errors: &[ServerError],
) -> Result<Vec<Item>, Trouble> {
    let item_ids: Vec<Option<String>> = items.iter().map(|i| i.get("id").and_then(id_text)).collect();
    let fits = |((item, id), asked): ((&Json, &Option<String>), &String)| item.is_null() || id.as_ref() == Some(asked);
    let aligned = items.len() == ids.len() && items.iter().zip(&item_ids).zip(ids).all(fits);
    let mut failed: HashMap<String, Item> = HashMap::new();
    for error in errors {
        let owner = error.under(root).and_then(|(at, deeper)| {
            let id = if aligned { ids.get(at) } else { item_ids.get(at).and_then(Option::as_ref) };
            id.map(|id| (id, !deeper && items[at].is_null()))
        });
        let Some((id, whole)) = owner else {
            return Err(Trouble::Unclear(error.describe(place)));
        };
        let fresh = error.describe(place);
        match failed.get(id) {
            Some(Item::Failed(known)) if rank(known.class) >= rank(fresh.class) => continue,
            None if whole && error.is_not_found() => failed.insert(id.clone(), Item::NotFound(fresh)),
            _ => failed.insert(id.clone(), Item::Failed(fresh)),
        };
    }
    let mut asked: HashMap<&str, usize> = HashMap::new();
    ids.iter().for_each(|id| *asked.entry(id).or_default() += 1);
    let mut found: HashMap<String, Json> = HashMap::new();
    for (item, id) in items.into_iter().zip(item_ids) {
        let problem = match id {
            _ if item.is_null() => continue,
            Some(id) if asked.contains_key(id.as_str()) => {
                found.insert(id, item);
                continue;
            }
            // Never taken for absence: the server may write ids in another way than we do.
            Some(id) => format!("answers the id {id:?}, which was not asked for (as {:?} was)", ids[0]),
            None => "answers something without an id".to_owned(),
        };
        let message = format!("{place}: {root} {problem}");
        return Err(Trouble::Unclear(GraphError::new(ErrorClass::Definite, message)));
    }
    let outcome = |id: &String| {
        if let Some(item) = failed.get(id) {
            return item.clone();
        }
        let twice = asked.get(id.as_str()).is_some_and(|n| *n > 1);
        let item = if twice { found.get(id).cloned() } else { found.remove(id) };
        item.map_or(Item::Missing, Item::Found)
    };
    Ok(ids.iter().map(outcome).collect())
}

/// What a root field says that answers something else than the expected list or object. A vertex lies `depth` steps deep.
fn whole(
    place: &str,
    root: &str,
    depth: usize,
    asked: usize,
    value: Option<Json>,
    errors: &[ServerError],
) -> Result<Item, Trouble> {
    if let Some(first) = errors.first() {
        let error = worst(errors, place);
        let nothing = value.as_ref().is_none_or(Json::is_null);
        return match asked {
            1 if nothing && errors.len() == 1 && first.denies(depth) => Ok(Item::NotFound(error)),
            1 => Ok(Item::Failed(error)),
            _ => Err(Trouble::Unclear(error)),
        };
    }
    match value {
        Some(Json::Null) if asked == 1 => Ok(Item::Missing),
        Some(Json::Null) => {
            let message = format!("{place}: {root} answers null for {asked} ids");
            Err(Trouble::Unclear(GraphError::new(ErrorClass::Transient, message)))
        }
        Some(_) => {
            let message = format!(
                "{place}: {root} answers neither an object nor a list as the query says (the schema may have changed; run `tributary check`)"
            );
            Err(Trouble::Whole(GraphError::new(ErrorClass::Fatal, message)))
        }
        None => {
            let message = format!("{place}: the answer's data has no `{root}`, and there is no error");
            Err(Trouble::Whole(GraphError::new(ErrorClass::Transient, message)))
        }
    }
}
