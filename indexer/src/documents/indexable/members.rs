//! Which members of a JSON field are indexed, each under the path of its names as exact text. Pure.
//!
//! Elasticsearch's `flattened` makes one term of path and value, OpenSearch's `flat_object` another (`path=value`), the
//! embedded index a third. A member is indexed if all of them make a term of it that finds it, and it alone.

use serde_json::{Map, Value as Json};

use super::is_long;

/// Objects within one another that are indexed: `depth_limit` of `flattened`.
const MAX_DEPTH: usize = 20;
/// Bytes of a term, which holds the field's name, the path and the value.
const MAX_TERM: usize = 32_766;

/// The indexed members of a field; `None` if all are.
pub fn indexed(field: &str, members: &Map<String, Json>) -> Option<Map<String, Json>> {
    object(field.len(), members, 1)
}

/// `before` is the length of the path so far, the field's name in it.
fn object(before: usize, members: &Map<String, Json>, depth: usize) -> Option<Map<String, Json>> {
    let mut changed: Option<Map<String, Json>> = None;
    for (name, value) in members {
        let path = before + 1 + name.len();
        // Also where the name has no value: the servers' reader refuses a very long one.
        let change = match is_name(name) && path < MAX_TERM {
            true => instead(path, value, depth),
            false => Some(None),
        };
        if let Some(change) = change {
            let changed = changed.get_or_insert_with(|| members.clone());
            match change {
                Some(value) => changed.insert(name.clone(), value),
                None => changed.remove(name),
            };
        }
    }
    changed
}

/// What is indexed instead of a value: `Some(None)` is nothing, `None` the value as it is.
fn instead(path: usize, value: &Json, depth: usize) -> Option<Option<Json>> {
    match value {
        Json::Null => None,
        Json::Object(_) if depth >= MAX_DEPTH => Some(None),
        Json::Object(members) => object(path, members, depth + 1).map(|members| Some(Json::Object(members))),
        Json::Array(values) => {
            let each: Vec<_> = values.iter().map(|value| instead(path, value, depth)).collect();
            if each.iter().all(Option::is_none) {
                return None;
            }
            let left = values.iter().zip(each).filter_map(|(value, change)| match change {
                None => Some(value.clone()),
                Some(change) => change,
            });
            Some(Some(Json::Array(left.collect())))
        }
        Json::String(text) if is_long(text) || path + 1 + text.len() > MAX_TERM => Some(None),
        Json::String(_) => None,
        // The longest number has 25 characters.
        Json::Bool(_) | Json::Number(_) => (path + 30 > MAX_TERM).then_some(None),
    }
}

/// Whether a name may stand in a path. A dot within it is taken for a step, so nothing may be missing around one; `=` ends the
/// path in OpenSearch, and control characters do elsewhere.
fn is_name(name: &str) -> bool {
    name.split('.').all(|step| !step.is_empty()) && !name.contains(|c: char| c == '=' || c.is_control())
}
