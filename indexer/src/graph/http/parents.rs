//! From an answer about a changed vertex to its parents: walks the inverse fields. Pure.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use tributary_dsl::plan::FanOutPlan;

use crate::documents::document::id_text;
use crate::graph::Vertex;

/// The parents of one vertex, sorted, no duplicates. `Err`: the answer does not name them all.
pub(super) fn parents_of(plan: &FanOutPlan, vertex: &Json) -> Result<Vec<Vertex>, String> {
    let mut parents = BTreeSet::new();
    for inverse in &plan.inverses {
        // Absent: the vertex is of another type than the fragment, so it has no such parents.
        if let Some(value) = vertex.get(&inverse.key) {
            let steps = inverse.path.get(1..).unwrap_or_default();
            collect(value, steps, &inverse.path.join("."), &mut parents)?;
        }
    }
    Ok(parents.into_iter().collect())
}

fn collect(value: &Json, steps: &[String], path: &str, parents: &mut BTreeSet<Vertex>) -> Result<(), String> {
    match value {
        Json::Null => Ok(()),
        Json::Array(items) => items.iter().try_for_each(|item| collect(item, steps, path, parents)),
        Json::Object(members) => {
            if value.pointer("/pageInfo/hasNextPage") == Some(&Json::Bool(true)) {
                return Err(format!("`{path}` has more parents than one page holds"));
            }
            if let Some((step, rest)) = steps.split_first() {
                let next = members.get(step).ok_or_else(|| format!("`{path}` has no `{step}` in the answer"))?;
                return collect(next, rest, path, parents);
            }
            let type_name = members.get("__typename").and_then(Json::as_str);
            // Where keys of several types are of several kinds, each has a response key of its own.
            let of_type = || type_name.and_then(|type_name| members.get(&format!("id_{type_name}")));
            let id = members.get("id").or_else(of_type).and_then(id_text);
            let (Some(type_name), Some(id)) = (type_name, id) else {
                return Err(format!("`{path}` answers a parent without `__typename` or `id`"));
            };
            parents.insert(Vertex::new(type_name, id));
            Ok(())
        }
        _ => Err(format!("`{path}` answers a plain value where a vertex was expected")),
    }
}
