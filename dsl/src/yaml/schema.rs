//! A mapping as JSON Schema (draft 7, which every editor knows).

use serde_json::{Map, Value as Json, json};

use super::key::{Described, Keys, LeftOut, Rule};

pub(super) fn of_keys(keys: &Keys) -> Json {
    let properties: Map<String, Json> = keys.keys.iter().map(|key| (key.name().to_owned(), of_key(*key))).collect();
    // What may be empty may also have all of its keys commented out.
    let kind = if keys.may_be_empty() { json!(["object", "null"]) } else { json!("object") };
    let mut schema = json!({ "type": kind, "properties": properties, "additionalProperties": false });
    let required: Vec<&str> = keys.required().collect();
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    let mut needs = Map::new();
    let mut apart = Vec::new();
    for rule in keys.rules {
        match rule {
            Rule::One => {
                schema["minProperties"] = json!(1);
                schema["maxProperties"] = json!(1);
            }
            Rule::OneOf(names) => {
                schema["oneOf"] = names.iter().map(|name| json!({ "required": [name] })).collect();
            }
            Rule::Some => schema["minProperties"] = json!(1),
            Rule::Needs(key, other) => {
                needs.insert((*key).to_owned(), json!([other]));
            }
            Rule::Apart(key, other) => apart.push(json!({ "not": { "required": [key, other] } })),
        }
    }
    if !needs.is_empty() {
        schema["dependencies"] = Json::Object(needs);
    }
    if !apart.is_empty() {
        schema["allOf"] = Json::Array(apart);
    }
    schema
}

fn of_key(key: &dyn Described) -> Json {
    let mut schema = key.kind().schema();
    schema["description"] = match key.left_out() {
        LeftOut::Means(what) => json!(format!("{}\n\nLeft out: {what}.", key.meaning())),
        LeftOut::Refused | LeftOut::Value(_) => json!(key.meaning()),
    };
    if let LeftOut::Value(value) = key.left_out() {
        schema["default"] = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
    }
    schema
}
