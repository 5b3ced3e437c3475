//! GraphQL answers: what they say about each vertex asked for, and whose their errors are. Pure.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value as Json;
use tributary_dsl::plan::{Form, Question};
use tributary_event::ErrorClass;

use super::errors::{ServerError, Trouble, rank, worst};
use crate::documents::document::id_text;
use crate::graph::GraphError;

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
    /// The server answers a vertex with another id, which it was not asked for.
    Other(String, GraphError),
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

    /// What the answer says about each of the vertices that a question asked for.
    pub(super) fn items(self, place: &str, question: &Question, ids: &[String]) -> Result<Vec<Item>, Trouble> {
        match &question.form {
            Form::Together { root, .. } => {
                let asked = Asked { place, root, way: &question.way, key: &question.key, ids };
                self.together(&asked)
            }
            Form::Apart(_) => self.apart(place, question, ids),
        }
    }

    /// The root field answers a list, or a connection.
    ///
    /// The list may be aligned with the ids (null for what is not there), or hold just what is there.
    fn together(mut self, asked: &Asked<'_>) -> Result<Vec<Item>, Trouble> {
        let Asked { place, root, way, ids, .. } = *asked;
        let errors = self.errors.take().unwrap_or_default();
        let depth = 2 + way.len();
        let items = match members(self.take(root), way) {
            Ok(items) => items,
            Err(other) => {
                return whole(place, root, depth, ids.len(), other, &errors).map(|item| vec![item; ids.len()]);
            }
        };
        if let ([error, ..], [_]) = (errors.as_slice(), ids) {
            // Whatever is wrong, it is about this one.
            let gone = errors.len() == 1 && error.denies(depth) && items.iter().all(Json::is_null);
            let error = worst(&errors, place);
            return Ok(vec![if gone { Item::NotFound(error) } else { Item::Failed(error) }]);
        }
        attribute(asked, items, &errors)
    }

    /// The root field stands in the answer once for each id.
    fn apart(mut self, place: &str, question: &Question, ids: &[String]) -> Result<Vec<Item>, Trouble> {
        let errors = self.errors.take().unwrap_or_default();
        let aliases: Vec<String> = (0..ids.len()).map(Question::alias).collect();
        let owner = |error: &ServerError| aliases.iter().position(|alias| error.root() == Some(alias));
        if let Some(stray) = errors.iter().find(|e| ids.len() > 1 && owner(e).is_none()) {
            return Err(Trouble::Unclear(stray.describe(place)));
        }
        if let Some(error) = errors.first().filter(|_| self.data.is_none() && ids.len() > 1) {
            // A null rose up to the data, and took the others with it.
            return Err(Trouble::Unclear(error.describe(place)));
        }
        let mut items = Vec::with_capacity(ids.len());
        for (i, id) in ids.iter().enumerate() {
            let own: Vec<ServerError> =
                errors.iter().filter(|e| ids.len() == 1 || owner(e) == Some(i)).cloned().collect();
            let value = self.take(&aliases[i]);
            items.push(one(place, question, id, value, &own)?);
        }
        Ok(items)
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

/// What was asked for in one list.
struct Asked<'a> {
    place: &'a str,
    /// The root field, and the way from it to the vertices.
    root: &'a str,
    way: &'a [String],
    /// The response key of a vertex's id.
    key: &'a str,
    ids: &'a [String],
}

/// The vertices of a list that lies on a way, and what is at the end of it for each. `Err`: there is no list.
fn members(value: Option<Json>, way: &[String]) -> Result<Vec<Json>, Option<Json>> {
    match (value, way.split_first()) {
        (Some(Json::Array(items)), None) => Ok(items),
        (Some(Json::Array(items)), Some(_)) => Ok(items.into_iter().map(|item| end(item, way)).collect()),
        (Some(Json::Object(mut object)), Some((step, rest))) => members(object.remove(step), rest),
        (other, _) => Err(other),
    }
}

fn end(mut value: Json, way: &[String]) -> Json {
    for step in way {
        value = value.as_object_mut().and_then(|object| object.remove(step)).unwrap_or(Json::Null);
    }
    value
}

/// What an answer says about a vertex that has its root field for itself.
fn one(
    place: &str,
    question: &Question,
    id: &str,
    value: Option<Json>,
    errors: &[ServerError],
) -> Result<Item, Trouble> {
    let root = format!("the root field of {}", question.operation);
    let value = match members(value, &question.way) {
        Ok(mut items) => {
            items.retain(|item| !item.is_null());
            if items.len() > 1 {
                let message = format!("{place}: {root} answers {} objects for the id {id:?}", items.len());
                return Ok(Item::Failed(GraphError::new(ErrorClass::Definite, message)));
            }
            Some(items.pop().unwrap_or(Json::Null))
        }
        Err(other) => other,
    };
    match value {
        Some(item @ Json::Object(_)) if errors.is_empty() => match item.get(&question.key).and_then(id_text) {
            Some(answered) if answered == id => Ok(Item::Found(item)),
            Some(answered) => {
                let message = format!("{place}: {root} answers the id {answered:?}, {id:?} was asked for");
                Ok(Item::Other(answered, GraphError::new(ErrorClass::Definite, message)))
            }
            None => {
                let type_name = item.get("__typename").and_then(Json::as_str).unwrap_or("an object");
                let message =
                    format!("{place}: {root} answers {type_name} without `{}` for the id {id:?}", question.key);
                Ok(Item::Failed(GraphError::new(ErrorClass::Definite, message)))
            }
        },
        other => whole(place, &root, 1 + question.way.len(), 1, other, errors),
    }
}

/// Sorts the items of a list and its errors by the ids asked for.
fn attribute(asked: &Asked<'_>, items: Vec<Json>, errors: &[ServerError]) -> Result<Vec<Item>, Trouble> {
    let Asked { place, root, way, key, ids } = *asked;
    let item_ids: Vec<Option<String>> = items.iter().map(|i| i.get(key).and_then(id_text)).collect();
    let fits = |((item, id), asked): ((&Json, &Option<String>), &String)| item.is_null() || id.as_ref() == Some(asked);
    let aligned = items.len() == ids.len() && items.iter().zip(&item_ids).zip(ids).all(fits);
    let mut failed: HashMap<String, Item> = HashMap::new();
    for error in errors {
        let owner = error.under(root, way).and_then(|(at, deeper)| {
            let id = if aligned { ids.get(at) } else { item_ids.get(at).and_then(Option::as_ref) };
            id.map(|id| (id, !deeper && items.get(at).is_some_and(Json::is_null)))
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
            Some(id) if ids.len() == 1 => {
                let message = format!("{place}: {root} answers the id {id:?}, {:?} was asked for", ids[0]);
                return Ok(vec![Item::Other(id, GraphError::new(ErrorClass::Definite, message))]);
            }
            Some(id) => format!("answers the id {id:?}, which was not asked for (as {:?} was)", ids[0]),
            None => format!("answers something without an id (`{key}`)"),
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
