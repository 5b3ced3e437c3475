//! "Did you mean …?"

use crate::diagnostic::Diagnostic;
use crate::schema::{FieldDef, Schema};

/// The candidate most like a name, if one is like it at all.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = name.to_lowercase();
    let mut best: Option<(f64, &str)> = None;
    for candidate in candidates {
        let other = candidate.to_lowercase();
        let mut likeness = strsim::jaro_winkler(&lower, &other);
        if strsim::osa_distance(&lower, &other) <= 1 + name.chars().count() / 5 {
            likeness += 0.5;
        }
        if likeness > 0.84 && best.is_none_or(|(b, _)| likeness > b) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// "did you mean `x`?", if something is like it.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// "did you mean `x`?", or else what there is: "one of `a`, `b`".
pub(crate) fn suggestion<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> Option<String> {
    did_you_mean(name, candidates.clone()).or_else(|| {
        let all = listed(candidates.clone());
        match candidates.into_iter().count() {
            0 => None,
            1 => Some(format!("expected {all}")),
            _ => Some(format!("expected one of {all}")),
        }
    })
}

/// `a`, `b`, `c` (and 12 more).
pub(crate) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 12;
    let names: Vec<&str> = names.into_iter().collect();
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// Says of a type why its objects cannot be told apart, and what to do; `columns` are those that a rule makes their ids of.
pub(crate) fn no_key(
    schema: &Schema,
    type_name: &str,
    columns: &[&str],
    error: impl FnOnce(String) -> Diagnostic,
) -> Diagnostic {
    let key = schema.key_name(type_name);
    let unlike =
        |why: &str| format!("the field `{key}` of `{type_name}` {why}, so its objects cannot be told apart by it");
    let message = match schema.field(type_name, key) {
        None => format!("`{type_name}` has no field `{key}`, so its objects cannot be told apart"),
        Some(field) if field.ty.is_list() => unlike("is a list"),
        Some(field) if schema.is_composite(field.ty.name()) => unlike("is an object"),
        Some(_) => unlike("needs arguments"),
    };
    let can_be =
        |field: &&FieldDef| schema.is_always_a_value(field) && !["Boolean", "Float"].contains(&field.ty.name());
    let mut candidates: Vec<&str> = schema.fields(type_name).iter().filter(can_be).map(|f| f.name.as_str()).collect();
    candidates.retain(|name| !names_another(schema, type_name, name));
    let is_column = |name: &str| matches!(columns, [column] if bare(column) == bare(name));
    candidates.sort_by_key(|name| (!is_column(name), !name.to_lowercase().ends_with("id")));
    let help = match candidates.first() {
        None => "an index and its edges need types with a field that is different for each object".to_owned(),
        Some(first) => format!(
            "say which field is different for each {type_name}, in the pipeline:\n\
             graph: {{ types: {{ {type_name}: {{ id: {first} }} }} }}   # of {}",
            listed(candidates.iter().copied())
        ),
    };
    error(message).help(help)
}

/// Whether a field is named like the key of another type, as `movieId` of a `Screening` is: many have the same.
pub(crate) fn names_another(schema: &Schema, type_name: &str, field: &str) -> bool {
    let bare = bare(field);
    let Some(owner) = bare.strip_suffix("id") else { return false };
    schema.type_names().any(|other| other != type_name && other.to_lowercase() == owner && !schema.is_abstract(other))
}

/// A name without what conventions of naming differ in.
fn bare(name: &str) -> String {
    name.chars().filter(|c| *c != '_').flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let keys = ["url", "tables", "slot", "publication"];
        assert_eq!(closest("tabels", keys), Some("tables"));
        assert_eq!(closest("Url", keys), Some("url"));
        assert_eq!(closest("replication", keys), Some("publication"));
        assert_eq!(closest("headers", keys), None);
    }
}
